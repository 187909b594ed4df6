"""A snapshot of /proc/PID: mappings and map counts, to start from.

Read are the snapshots of `python3 -m hgmcore.importers.snapshot PID` (maps, pagemap, kpagecount and kpageflags of a
process, in runs), and copies of /proc/PID/smaps. Memory of `kinds` is brought into the recorded state, then
observed once:

  V lines, VMAs   one mapping for each; where small and huge folios lie in
                  one VMA, one for each stretch
  P lines, pages  a `touch` by the process, one that writes where memory is
                  private
  map counts      a page that is mapped N times is mapped by N - 1 children
                  also. Pages are touched in falling order of count, and after
                  those of count N a child is forked: it has the private ones
                  by the fork, and touches the shared ones

So counts come out as recorded; which other processes mapped a page, a snapshot does not tell. Left out are files
other than hugetlbfs and shmem, the zero page, merged (KSM) pages and what is swapped out. A huge folio of anon or
shmem memory that is not mapped wholly and alike is taken as small pages.

smaps has no counts and does not tell which pages are there. They are taken to be the first of a mapping: first
the private ones, then those that are shared, as often as Pss tells on average, or, of hugetlb memory, twice.

Record it as root, and import it:

    python3 -m hgmcore.importers.snapshot PID >SNAPSHOT
    cat /proc/PID/smaps >SNAPSHOT       # instead: sums, but no counts
    hgmcore import pagemap SNAPSHOT -o process.parquet
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hgmcore.importers.linux import KERNEL
from hgmcore.importers.options import OPTIONS, Option
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.processes.resident import PAGE, Resident
from hgmcore.importers.report import Report
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import Trace, TraceError
from hgmcore.trace.names import FILE_LIMIT
from hgmcore.trace.statements import SHARED
from hgmcore.trace.writer import Writer, word

explanation = __doc__

options = (
    Option("process", "process", "what to call the process"),
    *(option for option in OPTIONS if option.name in ("kinds", "hugetlb", "geometry")),
)

KINDS = ("hugetlb", "shmem", "anon")
THP = 2 << 20  # bytes of a huge folio that is not hugetlb: snapshots do not tell others

_LONGEST = 8192  # bytes of a line
_VMA = re.compile(rb"V ([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) (\d{1,18}) ?(.*)")
_PAGES = re.compile(rb"P 0x([0-9a-f]{1,16}) (\d{1,12}) (\d{1,18}) map=(-?\d{1,9}) x=[01] sd=[01] ?(\S*) ?")
_SMAPS = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) [0-9a-f]+:[0-9a-f]+ "
                    rb"(\d{1,18}) *(.*)")
_FIELD = re.compile(rb"(\w+): +(\d{1,15}) kB")
_SPECIAL = re.compile(r"\[(?:vdso|vvar.*|vsyscall|uprobes)\]")
_SHMEM = re.compile(r"/(?:dev/shm/|memfd:|SYSV|dev/zero)")


@dataclass
class Area:
    """A VMA. runs: how many were read. whole: are all of them whole folios of THP bytes? huge: [first, last] pages
    where such folios lie. after: the page behind the last run. Pages are addresses / PAGE. fields: of smaps, bytes."""

    line: int
    start: int
    end: int
    shared: bool
    offset: int
    inode: int
    name: str
    runs: int = 0
    whole: bool = True
    huge: list = field(default_factory=list)
    after: int = 0
    fields: dict = field(default_factory=dict)

    def run(self, page, pages, is_folio):
        """Add a run, which lies behind all earlier ones."""
        self.runs, self.after, self.whole = self.runs + 1, page + pages, self.whole and is_folio
        for first in range(page, page + pages, THP // PAGE) if is_folio else ():
            if self.huge and self.huge[-1][1] == first:
                self.huge[-1][1] += THP // PAGE
            elif not self.huge or self.huge[-1][1] < first:
                self.huge.append([first, first + THP // PAGE])


def read(stream, name, *, process="process", kinds="hugetlb,shmem,anon", hugetlb="2M",
         geometry="x86-64") -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    report, chosen = Report("pagemap", name), kinds.split(",")
    for kind in chosen:
        if kind not in KINDS:
            raise ValueError(f"kinds: {quoted(kind)} is not one of {', '.join(KINDS)}")
    state = _State(report, Writer(geometry), process, chosen, parse_named("hugetlb", hugetlb))
    for block in blocks(stream, report):
        for index in range(len(block)):
            if reason := state.line(block.line(index), block.number + index):
                report.skip(reason, block.number + index)
    if state.area is None:
        raise TraceError(name, "neither a snapshot (lines 'V START-END ..' and 'P 0xADDRESS ..') nor a copy of "
                               "/proc/PID/smaps")
    state.close()
    if not len(state.writer):
        raise TraceError(name, f"no memory of the kinds {', '.join(chosen)} is mapped in {state.areas} VMAs")
    report.notes += state.resident.write(state.process)
    return state.writer.trace(name, {"recording": "snapshot of a process"}), report


class _State:
    """The mappings of a state, on their way to a trace. area: the last VMA, and areas: how many there were.
    resident: what lies in them."""

    def __init__(self, report, writer, process, kinds, hugetlb):
        self.report, self.writer, self.kinds, self.hugetlb = report, writer, kinds, hugetlb
        self.process = writer.process(process)
        self.files: dict[tuple, tuple[int, int]] = {}  # (inode, name) -> (index, bytes)
        self.names: set[str] = set()
        self.resident = Resident(writer)
        self.area: Area | None = None
        self.areas = 0

    def line(self, line, number) -> str | None:
        """Read one line of either form. Returns None, or why the line is skipped."""
        area = self.area
        if len(line) > _LONGEST:
            return f"a line of more than {_LONGEST} bytes"
        if match := _VMA.fullmatch(line) or _SMAPS.fullmatch(line):
            start, end, permissions, offset, inode, file = match.groups()
            start, end = int(start, 16), int(end, 16)
            if start >= end or (start | end) % PAGE or (area and start < area.end):
                return "VMA that is empty, or overlaps with the one before"
            if start < KERNEL < end or int(offset, 16) + end - start > FILE_LIMIT:
                return "VMA that is larger than any can be"
            if area:
                self.close()
            self.area = Area(number, start, end, permissions[3:] == b"s", int(offset, 16), int(inode),
                             file.decode("utf-8", "backslashreplace").strip())
            self.areas += 1
        elif line[:2] == b"P ":
            return self._run(line)
        elif area and (match := _FIELD.fullmatch(line)):
            area.fields[match[1].decode()] = int(match[2]) << 10
            self.report.used["lines of smaps"] += 1
        elif area and line.startswith(b"VmFlags:") and b" ht" in line:
            area.fields["VM_HUGETLB"] = 1
            self.report.used["lines of smaps"] += 1
        elif area and line.startswith((b"VmFlags:", b"THPeligible:", b"ProtectionKey:")):
            self.report.used["lines of smaps"] += 1
        elif line[:2] == b"S ":
            return "pages that are swapped out"
        elif line[:1] == b"#":
            return "comment"
        else:
            return "not a line of a snapshot" if line else "empty line"
        return None

    def _run(self, line):
        """Read a P line. Returns None, or why the line is skipped."""
        area, match = self.area, _PAGES.fullmatch(line)
        if match is None:
            return "malformed P line"
        address, pages, _, mapped, flags = match.groups()
        first, pages, flags = int(address, 16), int(pages), flags.split(b",")
        if area is None or not area.start <= first or first % PAGE or first + pages * PAGE > area.end or not pages:
            return "P line outside its VMA"
        if b"zero" in flags or b"ksm" in flags:
            return "pages that are merged, or the zero page"
        if int(mapped) < 1:
            return "pages whose map count is not known"
        if first // PAGE < area.after:
            return "P line that begins before the last one ends"
        area.run(first // PAGE, pages, b"thp" in flags and pages * PAGE == THP and not first % THP)
        self.resident.run(first // PAGE, pages, int(mapped))
        if b"huge" in flags:
            area.fields.setdefault("hugetlb", pages * PAGE)
        return None

    def close(self):
        """Map the last VMA, in one stretch or more, or count it as skipped."""
        area = self.area
        kind = _kind(area)
        reason = kind if kind not in KINDS else None if kind in self.kinds else f"{kind} memory is not taken"
        folio = PAGE
        if kind == "hugetlb":
            folio = area.fields.get("hugetlb") or area.fields.get("KernelPageSize", self.hugetlb)
            known = self.writer.names.geometry.hugetlb_sizes
            if folio not in known or (area.start | area.end | area.offset) % folio:
                reason = reason or f"hugetlb memory that cannot be of pages of {format_size(folio)}"
        if reason:
            self.report.skip(f"VMA: {reason}", area.line)
            self.report.skip(f"pages: {reason}", area.line, area.runs)
            return
        self.report.used["VMAs"] += 1
        if area.runs:
            self.report.used["runs of pages"] += area.runs
        estimated = [] if area.runs else _estimated(area, kind)
        for first, pages, _, is_folio in estimated:
            area.run(area.start // PAGE + first, pages, is_folio)
        stretches = [(area.start // PAGE, area.end // PAGE, folio)]
        if kind == "anon":
            stretches = _stretches(area)
        elif kind == "shmem" and area.runs and area.whole and not (area.start | area.offset) % THP:
            stretches = [(area.start // PAGE, area.end // PAGE, THP)]
        for first, last, folio in stretches:
            self._map(area, kind, first, last, folio)
            for start, pages, mapped, _ in estimated:
                start += area.start // PAGE
                start, end = max(start, first), min(start + pages, last)
                if start < end:
                    self.resident.run(start, end - start, mapped)

    def _map(self, area, kind, first, last, folio):
        """Map pages [first, last) of a VMA."""
        length, name = (last - first) * PAGE, self._name(area, kind)
        if kind == "anon":
            file, offset = self.writer.anonymous(folio), 0
        else:
            offset = area.offset + first * PAGE - area.start
            file = self._file(area, kind, folio, offset + length)
        mapping = self.writer.mmap(self.process, name, file, offset, length, SHARED if area.shared else 0)
        self.resident.stretch(mapping, area.shared, first, last, folio)

    def _file(self, area, kind, folio, end):
        """The index of a VMA's file, which then has at least `end` bytes."""
        key = (area.inode, area.name, folio) if area.inode or area.name else (area.start, "", folio)
        index, size = self.files.get(key, (None, 0))
        if index is None:
            index = self.writer.file(_base(area.name) or kind, folio, 0, kind)
        size = max(size, end)
        self.writer.resize(index, -(-size // folio))
        self.files[key] = index, size
        return index

    def _name(self, area, kind):
        """A mapping's name, made unique."""
        base, number = word(_base(area.name) or kind), 2
        name = base
        while name in self.names:
            name, number = f"{base}.{number}", number + 1
        self.names.add(name)
        return name


def _kind(area) -> str:
    """One of KINDS, or why a VMA is of none."""
    if _SPECIAL.fullmatch(area.name):
        return "memory of the kernel"
    if area.fields.keys() & {"hugetlb", "VM_HUGETLB"} or area.fields.get("KernelPageSize", PAGE) > PAGE or (
            "/anon_hugepage" in area.name):
        return "hugetlb"
    if area.shared:
        return "shmem" if _SHMEM.match(area.name) else "a mapping of another file"
    return "a mapping of another file" if area.inode else "anon"


def _base(name) -> str:
    return name.removesuffix(" (deleted)").strip("[]").rpartition("/")[2]


def _estimated(area, kind):
    """Runs of a VMA of which smaps gives sums alone."""
    size = {key: area.fields.get(key, 0) // PAGE for key in
            ("Private_Hugetlb", "Shared_Hugetlb", "Private_Clean", "Private_Dirty", "Shared_Clean", "Shared_Dirty",
             "Pss", "AnonHugePages", "ShmemPmdMapped")}
    pages, sharers, huge = (area.end - area.start) // PAGE, 2, 0
    if kind == "hugetlb":
        private, shared = size["Private_Hugetlb"], size["Shared_Hugetlb"]
    else:
        private = size["Private_Clean"] + size["Private_Dirty"]
        shared = size["Shared_Clean"] + size["Shared_Dirty"]
        if size["Pss"] > private:
            sharers = max(round(shared / (size["Pss"] - private)), 2)
        huge = size["AnonHugePages"] or size["ShmemPmdMapped"]
    at = -(area.start // PAGE) % (THP // PAGE) if huge else 0
    if at + private + shared > pages:
        at = huge = 0
    private = min(private, pages)
    shared, runs = min(shared, pages - private), []
    for count, sharing in ((private, 1), (shared, sharers)):
        for part, is_huge in ((min(count, huge), True), (count - min(count, huge), False)):
            if part:
                runs.append((at, part, sharing, is_huge))
                at += part
        huge -= min(count, huge)
    return runs


def _stretches(area):
    """[(first page, last page, bytes of a folio)] of a VMA, cut where huge folios begin and end."""
    found, at, end = [], area.start // PAGE, area.end // PAGE
    for first, last in area.huge:
        if first > at:
            found.append((at, first, PAGE))
        found.append((first, last, THP))
        at = last
    return found + ([(at, end, PAGE)] if at < end else [])

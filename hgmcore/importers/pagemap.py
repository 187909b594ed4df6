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
shmem memory that is not mapped wholly and alike is taken as small pages. A snapshot is held in memory as a whole.

smaps has no counts and does not tell which pages are there. They are taken to be the first of a mapping: first
the private ones, then those that are shared, as often as Pss tells on average, or, of hugetlb memory, twice.

Record it as root, and import it:

    python3 -m hgmcore.importers.snapshot PID >SNAPSHOT
    cat /proc/PID/smaps >SNAPSHOT       # instead: sums, but no counts
    hgmcore import pagemap SNAPSHOT -o process.parquet
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from hgmcore import importers
from hgmcore.importers.lines import blocks
from hgmcore.importers.linux import KERNEL
from hgmcore.importers.report import Report
from hgmcore.importers.sink import Sink, word
from hgmcore.importers.ways import OPTIONS
from hgmcore.names import FILE_LIMIT
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.statements import CODES, OPERATION, SHARED, WRITE
from hgmcore.trace import Trace, TraceError

explanation = __doc__

options = (
    importers.Option("process", "process", "what to call the process"),
    *(option for option in OPTIONS if option.name in ("kinds", "hugetlb", "geometry")),
)

KINDS = ("hugetlb", "shmem", "anon")
PAGE = 4096
THP = 2 << 20  # bytes of a huge folio that is not hugetlb: snapshots do not tell others
MOST_SHARERS = 1000  # map counts above are taken as this

_LONGEST = 8192  # bytes of a line
_VMA = re.compile(rb"V ([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) (\d{1,18}) ?(.*)")
_PAGES = re.compile(rb"P 0x([0-9a-f]{1,16}) (\d{1,12}) (\d{1,18}) map=(-?\d{1,9}) x=[01] sd=[01] ?(\S*) ?")
_SMAPS = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) [0-9a-f]+:[0-9a-f]+ "
                    rb"(\d{1,18}) *(.*)")
_FIELD = re.compile(rb"(\w+): +(\d{1,15}) kB")
_SPECIAL = re.compile(r"\[(?:vdso|vvar.*|vsyscall|uprobes)\]")
_SHMEM = re.compile(r"/(?:dev/shm/|memfd:|SYSV|dev/zero)")


class Area(NamedTuple):
    """A VMA. runs: [(first page, pages, map count, whether of whole folios of THP bytes)], relative to start."""

    line: int
    start: int
    end: int
    shared: bool
    offset: int
    inode: int
    name: str
    runs: list
    fields: dict


def read(stream, name, *, process="process", kinds="hugetlb,shmem,anon", hugetlb="2M",
         geometry="x86-64") -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    report, chosen = Report("pagemap", name), kinds.split(",")
    for kind in chosen:
        if kind not in KINDS:
            raise ValueError(f"kinds: {quoted(kind)} is not one of {', '.join(KINDS)}")
    state = _State(report, Sink(geometry), process, chosen, parse_named("hugetlb", hugetlb))
    areas = []
    for block in blocks(stream, report):
        for index in range(len(block)):
            _line(block.line(index), block.number + index, areas, report)
    if not areas:
        raise TraceError(name, "neither a snapshot (lines 'V START-END ..' and 'P 0xADDRESS ..') nor a copy of "
                               "/proc/PID/smaps")
    for area in areas:
        state.add(area)
    if not state.stretches:
        raise TraceError(name, f"no memory of the kinds {', '.join(chosen)} is mapped in {len(areas)} VMAs")
    state.write()
    return state.sink.trace(name, {"recording": "snapshot of a process"}), report


def _line(line, number, areas, report):
    """Read one line of either form."""
    if len(line) > _LONGEST:
        return report.skip(f"a line of more than {_LONGEST} bytes", number)
    if match := _VMA.fullmatch(line) or _SMAPS.fullmatch(line):
        start, end, permissions, offset, inode, file = match.groups()
        start, end = int(start, 16), int(end, 16)
        if start >= end or (start | end) % PAGE or (areas and start < areas[-1].end):
            return report.skip("VMA that is empty, or overlaps with the one before", number)
        if start < KERNEL < end or int(offset, 16) + end - start > FILE_LIMIT:
            return report.skip("VMA that is larger than any can be", number)
        areas.append(Area(number, start, end, permissions[3:] == b"s", int(offset, 16), int(inode),
                          file.decode("utf-8", "backslashreplace").strip(), [], {}))
    elif line[:2] == b"P ":
        match = _PAGES.fullmatch(line)
        if match is None:
            return report.skip("malformed P line", number)
        address, count, _, mapped, flags = match.groups()
        first, count, flags = int(address, 16), int(count), flags.split(b",")
        area = areas[-1] if areas else None
        if area is None or not area.start <= first or first % PAGE or first + count * PAGE > area.end or not count:
            return report.skip("P line outside its VMA", number)
        if b"zero" in flags or b"ksm" in flags:
            return report.skip("pages that are merged, or the zero page", number)
        if int(mapped) < 1:
            return report.skip("pages whose map count is not known", number)
        is_folio = b"thp" in flags and count * PAGE == THP and not first % THP
        area.runs.append(((first - area.start) // PAGE, count, int(mapped), is_folio))
        if b"huge" in flags:
            area.fields.setdefault("hugetlb", count * PAGE)
        return None
    elif areas and (match := _FIELD.fullmatch(line)):
        areas[-1].fields[match[1].decode()] = int(match[2]) << 10
        report.used["lines of smaps"] += 1
        return None
    elif areas and line.startswith((b"VmFlags:", b"THPeligible:", b"ProtectionKey:")):
        report.used["lines of smaps"] += 1
        return None
    elif line[:2] == b"S ":
        return report.skip("pages that are swapped out", number)
    elif line[:1] == b"#":
        return report.skip("comment", number)
    else:
        return report.skip("not a line of a snapshot" if line else "empty line", number)
    return None


class _State:
    """The mappings of a state, on their way to a trace. stretches: [_Stretch]."""

    def __init__(self, report, sink, process, kinds, hugetlb):
        self.report, self.sink, self.kinds, self.hugetlb = report, sink, kinds, hugetlb
        self.process = sink.process(process)
        self.files: dict[tuple, tuple[int, int]] = {}  # (inode, name) -> (index, bytes)
        self.names: set[str] = set()
        self.stretches: list[_Stretch] = []
        self.clipped = 0

    def add(self, area):
        """Map a VMA, in one stretch or more, or count why not."""
        kind = _kind(area)
        reason = kind if kind not in KINDS else None if kind in self.kinds else f"{kind} memory is not taken"
        folio = PAGE
        if kind == "hugetlb":
            folio = area.fields.get("hugetlb") or area.fields.get("KernelPageSize", self.hugetlb)
            known = self.sink.names.geometry.hugetlb_sizes
            if folio not in known or (area.start | area.end | area.offset) % folio:
                reason = reason or f"hugetlb memory that cannot be of pages of {format_size(folio)}"
        if reason:
            self.report.skip(f"VMA: {reason}", area.line)
            if area.runs:
                self.report.skip(f"pages: {reason}", area.line, len(area.runs))
            return
        self.report.used["VMAs"] += 1
        if area.runs:
            self.report.used["runs of pages"] += len(area.runs)
        runs = area.runs or _estimated(area, kind)
        if kind == "anon":
            for first, last, folio in _stretches(area, runs):
                self._map(area, kind, first, last, folio, runs)
        else:
            if kind == "shmem" and runs and all(run[3] for run in runs) and not (area.start | area.offset) % THP:
                folio = THP
            self._map(area, kind, 0, (area.end - area.start) // PAGE, folio, runs)

    def _map(self, area, kind, first, last, folio, runs):
        """Map pages [first, last) of a VMA, and remember what is resident in them."""
        length, name = (last - first) * PAGE, self._name(area, kind)
        if kind == "anon":
            file, offset = self.sink.anonymous(folio), 0
        else:
            offset = area.offset + first * PAGE
            file = self._file(area, kind, folio, offset + length)
        flags = SHARED if area.shared else 0
        mapping = self.sink.mmap(self.process, name, file, offset, length, flags)
        offsets, counts = _resident(runs, first, last, folio)
        self.clipped += int((counts > MOST_SHARERS).sum())
        self.stretches.append(_Stretch(mapping, area.shared, offsets, counts.clip(max=MOST_SHARERS)))

    def _file(self, area, kind, folio, end):
        """The index of the file of a VMA, which has `end` bytes at least."""
        key = (area.inode, area.name, folio) if area.inode or area.name else (area.start, "", folio)
        index, size = self.files.get(key, (None, 0))
        if index is None:
            index = self.sink.file(_base(area.name) or kind, folio, 0, kind)
        size = max(size, end)
        self.sink.resize(index, -(-size // folio))
        self.files[key] = index, size
        return index

    def _name(self, area, kind):
        """A name that no other mapping has."""
        base, number = word(_base(area.name) or kind), 2
        name = base
        while name in self.names:
            name, number = f"{base}.{number}", number + 1
        self.names.add(name)
        return name

    def write(self):
        """Write the touches and forks that bring the map counts about, and observe."""
        most = max((int(each.counts.max(initial=1)) for each in self.stretches), default=1)
        for count in range(most, 0, -1):
            for each in self.stretches:
                self._touch(each, each.mapping, each.counts == count)
            if count > 1:
                child = self.sink.fork(self.process, f"{self.process}_{count}")
                for each in self.stretches:
                    if each.shared and (each.counts >= count).any():
                        self._touch(each, self.sink.child_mapping(child, each.mapping), each.counts >= count)
        self.sink.emit("observe", 0)
        pages = sum(len(each.offsets) for each in self.stretches)
        self.report.notes.append(f"resident: {pages} folios in {len(self.stretches)} mappings; the largest map "
                                 f"count is {most}")
        if self.clipped:
            self.report.notes.append(f"map counts above {MOST_SHARERS}, taken as that: {self.clipped}")

    def _touch(self, stretch, mapping, which):
        records = np.zeros(int(which.sum()), dtype=OPERATION)
        records["op"], records["target"], records["offset"] = CODES["touch"], mapping, stretch.offsets[which]
        records["flags"] = 0 if stretch.shared else WRITE
        self.sink.extend(records)


class _Stretch(NamedTuple):
    """A mapping of the trace. offsets, counts: arrays (n,) of its resident folios: bytes, map count."""

    mapping: int
    shared: bool
    offsets: np.ndarray
    counts: np.ndarray


def _kind(area) -> str:
    """One of KINDS, or why a VMA is of none."""
    if _SPECIAL.fullmatch(area.name):
        return "memory of the kernel"
    if "hugetlb" in area.fields or area.fields.get("KernelPageSize", PAGE) > PAGE or "/anon_hugepage" in area.name:
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


def _stretches(area, runs):
    """[(first page, last page, folio)] of a VMA, cut where huge folios begin and end."""
    per, pages = THP // PAGE, (area.end - area.start) // PAGE
    huge = set()
    for first, count, _, is_huge in runs:
        if is_huge:
            huge.update(range(first, first + count, per))
    found, at = [], 0
    for first in sorted(huge):
        if found and found[-1][2] == THP and found[-1][1] == first:
            found[-1] = (found[-1][0], first + per, THP)
        else:
            if first > at:
                found.append((at, first, PAGE))
            found.append((first, first + per, THP))
        at = first + per
    return found + ([(at, pages, PAGE)] if at < pages else [])


def _resident(runs, first, last, folio):
    """(offsets in bytes, map counts) of the folios resident in pages [first, last), each once."""
    clipped = [(max(start, first) - first, min(start + count, last) - first, mapped)
               for start, count, mapped, _ in runs if start < last and start + count > first]
    if not clipped:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    per = folio // PAGE
    index = np.concatenate([np.arange(start // per, -(-stop // per)) for start, stop, _ in clipped])
    counts = np.repeat([mapped for *_, mapped in clipped], [-(-stop // per) - start // per for start, stop, _ in clipped])
    folios, which = np.unique(index, return_inverse=True)
    largest = np.zeros(len(folios), dtype=np.int64)
    np.maximum.at(largest, which, counts)
    return folios.astype(np.uint64) * np.uint64(folio), largest

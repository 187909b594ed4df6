"""The files and mappings of a kernel recording, and the steps that make them: a part of kernel_steps.Translation."""

from __future__ import annotations

from dataclasses import dataclass, field

from hgmcore.trace.names import FILE_LIMIT
from hgmcore.trace.statements import KEEP, NO_ARG, READ, SHARED, WRITE
from hgmcore.trace.writer import Writer

PAGE = 4096
HUGE = 2 << 20
PLACES = 1 << 38
"""Addresses from there on are for mappings whose alignment is not that of their file, a GiB for each."""

MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
"""Flags of mremap."""

ADVICE = "advice that changes nothing that is mapped"
REASONS = {
    "uffd_open": "a userfaultfd descriptor that the kernel refuses",
    "part": "UFFDIO_REGISTER of a part: traces register a whole mapping",
    "registration": "registered with userfaultfd, but not for minor faults",
    "uffd_poison": "UFFDIO_POISON: traces have no poison markers",
    "poisoned": "an access to what UFFDIO_POISON marked",
    "uffd_wp": "UFFDIO_WRITEPROTECT: write protection changes no count",
    "remove": "MADV_REMOVE that is refused, or of no shared file: traces punch files",
    "pin": "a pin of what is no shared file, or not there: traces pin pages of files",
    "unmapped": "a mapping that no step in scope made",
    "locked": "memory of which a part is locked: traces have no locks",
    "address": "mremap to an address, refused: the recording does not say which",
    "grow": "mremap that grows a part with more of the mapping behind it",
    "query": "a question where pages lie: the simulator has no nodes",
    "policy": "a memory policy of a part of a mapping, which cuts the VMA",
    "align": "mbind of a part of a huge page, which would cut the VMA",
    **dict.fromkeys(("HUGEPAGE", "NOHUGEPAGE", "COLD", "PAGEOUT", "FREE"), ADVICE),
}


@dataclass
class Region:
    """A mapping of a recording. mapping: its index in the trace, None while its folio size is not known.

    length: of what is observed, in bytes: the longest that it was. now: at present. page: bytes of a folio.
    kind: of its file, or "anon". prot: the rights of all of it, None if parts differ. registered: the modes of
    userfaultfd. cut: was a part unmapped or moved? locked, poisoned: (first, last) bytes that mlock locked and
    UFFDIO_POISON marked. memory: what its pages are of, and those of all other mappings with the same. file_offset:
    where in the file it begins; -1 where that is private. start: likewise, of anonymous memory too, where an aligned
    mapping would be at 0. shift: bytes that its address is ahead of `start`, modulo 2M. folio: bytes of its folios
    where huge ones are asked for. divided: may a step out of scope have divided its VMAs?
    """

    mapping: int | None
    length: int
    page: int
    kind: str
    prot: int | None = READ | WRITE
    registered: set = field(default_factory=set)
    cut: bool = False
    locked: list = field(default_factory=list)
    poisoned: list = field(default_factory=list)
    memory: tuple = ()
    file_offset: int = 0
    now: int = 0
    start: int = 0
    shift: int = 0
    folio: int = HUGE
    divided: bool = False

    def __post_init__(self):
        self.now = self.now or self.length

    @property
    def unit(self) -> int:
        """Bytes of which ranges of system calls must be multiples."""
        return self.page if self.kind == "hugetlb" else PAGE

    @property
    def is_private(self) -> bool:
        """Is a page that is written the mapping's own?"""
        return self.kind == "anon" or self.file_offset < 0

    def is_whole(self, op) -> bool:
        """Is a step about all of the mapping?"""
        return op["off"] == 0 and op["len"] >= self.now

    def is_locked(self, op) -> bool | None:
        """Is all memory that a step is about locked? None: a part of it."""
        first, last = op["off"], op["off"] + op["len"]
        if not any(start < last and first < end for start, end in self.locked):
            return False
        return True if any(start <= first and last <= end for start, end in self.locked) else None


class Mappings:
    """Files, processes and their mappings, on the way from a recording to a Writer."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self.files: dict[str, tuple[int, int, str]] = {}  # name -> index, page size, kind
        self.regions: dict[str, dict[str, Region]] = {}  # process -> name -> Region
        self.names: dict[str, str] = {}  # process -> its name in the trace, once it has mapped something
        self.foreign: dict[tuple[str, str], str] = {}  # (process, region) -> why the trace has no such mapping
        self.pinned: dict[str, list[tuple]] = {}  # process -> (number or None, file, page, count) of its pins
        self.place = 0  # the next of PLACES

    def file(self, record) -> None:
        """Declare a file and populate its `cached` pages, runs (first, count) of 4K pages."""
        page, kind = int(record["page"]), record["kind"]
        if not (0 < page <= 1 << 40 and 0 < int(record["size"]) <= FILE_LIMIT):
            raise ValueError(f"no file has {record['size']} bytes in pages of {page}")
        index = self.writer.file(record["file"], page, int(record["size"]) // page, kind)
        self.files[record["file"]] = index, page, kind
        for first, count in record["cached"]:
            self.writer.emit("populate", index, first * PAGE // page, count * PAGE // page)

    def _region(self, op) -> Region:
        """The Region that a step names; its mapping is then in the trace."""
        region = self.regions[op["proc"]][op["region"]]
        if region.mapping is None:
            self._map_anonymous(op["proc"], op["region"], region)
        return region

    def do_mmap(self, op):
        process, name, flags = op["proc"], op["region"], op["flags"].split("|")
        shared = SHARED * ("SHARED" in flags)
        if process not in self.names:
            self.names[process] = self.writer.process(process)
        reason = self._unknown_mapping(op, flags)
        if reason:
            self.foreign[process, name] = reason
            return reason
        prot = rights(op["prot"])
        self.foreign.pop((process, name), None)
        if "HUGETLB" in flags and "file" not in op:
            op = {**op, "file": f"{process}:{name}", "fileoff": 0}  # hugetlb_file_setup(): a file of its own
            page = 1 << 30 if "HUGE_1GB" in flags else HUGE
            pages = -(-op["len"] // page)
            self.files[op["file"]] = self.writer.file(f"hugetlb.{len(self.files)}", page, pages), page, "hugetlb"
        start = op["fileoff"] if "file" in op else 0
        shift = (op.get("addr_mod_2M", start) - start) % HUGE
        if "file" not in op:
            region = Region(None, op["len"], PAGE, "anon", prot, memory=("anon", process, name, self._step(op)),
                            shift=shift, folio=int(op.get("page", HUGE)))
        else:
            file, page, kind = self.files[op["file"]]
            mapping = self.writer.mmap(self.names[process], name, file, start, op["len"], shared,
                                       at=self._place(start, shift, op["len"]))
            region = Region(mapping, op["len"], page, kind, prot, memory=("file", op["file"]),
                            file_offset=start if shared else -1, start=start, shift=shift)
            self._restrict(region)
        self.regions.setdefault(process, {})[name] = region
        return None

    def _place(self, start, shift, length):
        """An address for a mapping that is not where the simulator would put it, else None. Each has its own GiB."""
        if not shift:
            return None
        place, self.place = self.place, self.place + 1 + (length >> 30)
        return PLACES + (place << 30) + (start + shift) % HUGE

    def _step(self, op):
        """A number that no other mapping of this name had."""
        return len(self.writer.names.mappings), op.get("i")

    def _unknown_mapping(self, op, flags):
        """Why a trace has no such mapping, or None."""
        if "file" not in op and "SHARED" in flags and "HUGETLB" not in flags:
            return "a shared mapping of no file: traces have none"
        return None

    def _map_anonymous(self, process, name, region):
        file = self.writer.anonymous(region.page)
        region.mapping = self.writer.mmap(self.names[process], name, file, 0, region.length,
                                          at=self._place(0, region.shift, region.length))
        self._restrict(region)

    def _restrict(self, region):
        """Write the mprotect that gives a new mapping the rights that its mmap asked for."""
        if region.prot != READ | WRITE:
            self.writer.emit("mprotect", region.mapping, 0, region.length, flags=region.prot)

    def do_mremap(self, op):
        region = self._region(op)
        if region.locked:
            return REASONS["locked"]
        if "to" not in op:
            return self._resize(op, region)
        if op["errno"]:
            return REASONS["address"]
        region.cut = True
        old, new, there = op["len"], op["newlen"], self.regions[op["proc"]].get(op["to"])
        start = region.start + op["off"]
        shift = (op["to_mod_2M"] - start) % HUGE if "to_mod_2M" in op else region.shift
        if there is not None and there.mapping is not None:  # MREMAP_FIXED
            self.writer.emit("munmap", there.mapping, 0, there.length)
        mapping = self.writer.move(region.mapping, op["off"], old, op["to"], new_length=None if new == old else new,
                                   at=self._place(start, shift, new), keep=bool(_move_flags(op) & DONTUNMAP))
        offset = region.file_offset + op["off"] if region.file_offset >= 0 else -1
        self.regions[op["proc"]][op["to"]] = Region(
            mapping, new, region.page, region.kind, region.prot, memory=region.memory, file_offset=offset, start=start,
            shift=shift, folio=region.folio, divided=region.divided)
        return None

    def _resize(self, op, region):
        """In place, or (MAYMOVE) with the whole mapping elsewhere."""
        end, new_end = op["off"] + op["len"], op["off"] + op["newlen"]
        if op["off"] and new_end < end:
            self.writer.emit("munmap", region.mapping, new_end, end - new_end)
        elif op["off"] and end != region.now and new_end > end:
            return REASONS["grow"]
        elif not op["off"] or new_end > end:
            self.writer.emit("mremap", region.mapping, 0, new_end, NO_ARG, KEEP * bool(_move_flags(op) & MAYMOVE))
        if not op["errno"] and (not op["off"] or new_end > end):
            region.length, region.now = max(region.length, new_end), new_end
        return None

    def do_fork(self, op):
        parent, child = op["proc"], op["child"]
        regions = self.regions.get(parent, {})
        for name, region in regions.items():
            if region.mapping is None:
                self._map_anonymous(parent, name, region)
        if parent not in self.names:
            return
        self.names[child] = self.writer.fork(self.names[parent], child)
        self.regions[child] = {
            name: Region(self.writer.child_mapping(self.names[child], region.mapping), region.length, region.page,
                         region.kind, region.prot, memory=region.memory, file_offset=region.file_offset,
                         now=region.now, start=region.start, shift=region.shift, folio=region.folio,
                         divided=region.divided)
            for name, region in regions.items()}
        self.foreign |= {(child, name): reason for (process, name), reason in self.foreign.items() if process == parent}

    def do_exit(self, op):
        regions, name = self.regions.pop(op["proc"], {}), self.names.pop(op["proc"], None)
        for pinned in self.pinned.pop(op["proc"], ()):
            if pinned[0] is not None:
                self.writer.emit("unpin", *pinned[1:])
        if any(region.mapping is not None for region in regions.values()):  # else the trace has no such process
            self.writer.exit(name)

    def do_pin(self, op, name="pin"):
        """References on the pages of a file: one for each 4K page, on the folio that has it."""
        region = self._region(op)
        if region.memory[0] != "file" or region.file_offset < 0 or op.get("errno"):
            return REASONS["pin"]
        if name == "unpin" and "pin" in op:
            return self._unpin_all(op)
        length = op["accessed"] * PAGE if "accessed" in op else op["len"]
        first, last = op["off"] // PAGE, -(-(op["off"] + length) // PAGE)
        shift, file = region.file_offset // PAGE, self.files[region.memory[1]][0]
        pages = region.page // PAGE
        last = min(last, self.writer.names.files[file].pages * pages - shift)
        for number in range((first + shift) // pages, -(-(last + shift) // pages)):
            count = min(last + shift, (number + 1) * pages) - max(first + shift, number * pages)
            self.writer.emit(name, file, number, count)
            if name == "pin":
                self.pinned.setdefault(op["proc"], []).append((op.get("pin"), file, number, count))
        return None

    def _unpin_all(self, op):
        """What the pin of the same number holds."""
        held = self.pinned.get(op["proc"], [])
        for pin in [pin for pin in held if pin[0] == op["pin"]]:
            self.writer.emit("unpin", *pin[1:])
            held.remove(pin)
        return None

    def do_unpin(self, op):
        return self.do_pin(op, "unpin")


def _move_flags(op):
    """The flags of an mremap, a number or words, as a number."""
    flags = op.get("flags", 0)
    words = {"MAYMOVE": MAYMOVE, "FIXED": FIXED, "DONTUNMAP": DONTUNMAP}
    return flags if isinstance(flags, int) else sum(words.get(word, 0) for word in str(flags).split("|"))


def rights(prot):
    """PROT_READ | PROT_WRITE (1 | 2) as flags of a statement; x86 cannot write without reading."""
    return {0: 0, 1: READ}.get(prot & 3, READ | WRITE)

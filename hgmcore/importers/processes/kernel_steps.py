"""The steps of a kernel recording, in the form that importers.kernel_recording describes, as operations of a trace.

`Translation.step` writes to a Writer what a step does, or says why a trace has no statement for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hgmcore.trace.names import FILE_LIMIT
from hgmcore.trace.statements import ALL, MINOR, NO_ARG, READ, SHARED, WP, WRITE
from hgmcore.trace.writer import Writer

PAGE = 4096
HUGE = 2 << 20
LONGEST = 1 << 32  # bytes of one access

DONTWAKE, MODE_WP = 1, 2
"""Modes of UFFDIO_CONTINUE (uapi/linux/userfaultfd.h)."""

ADVICE = "advice that changes nothing that is mapped"
REASONS = {
    "uffd_open": "a userfaultfd descriptor that the kernel refuses",
    "part": "UFFDIO_REGISTER of a part: traces register a whole mapping",
    "registration": "registered with userfaultfd, but not for minor faults",
    "uffd_poison": "UFFDIO_POISON: traces have no poison markers",
    "poisoned": "an access to what UFFDIO_POISON marked",
    "uffd_wp": "UFFDIO_WRITEPROTECT: write protection changes no count",
    "remove": "MADV_REMOVE that is refused, or of no shared file: traces punch files",
    "pin": "a pin of what is no shared file: traces pin files",
    "private": "a private mapping of a shmem file: traces have none",
    "unmapped": "a mapping that no step in scope made",
    "locked": "memory of which a part is locked: traces have no locks",
    "address": "mremap to an address: traces leave addresses to the simulator",
    "query": "a question where pages lie: the simulator has no nodes",
    "policy": "a memory policy of a part of a mapping, which cuts the VMA",
    "align": "mbind of a part of a huge page, which would cut the VMA",
    **dict.fromkeys(("HUGEPAGE", "NOHUGEPAGE", "COLD", "PAGEOUT", "FREE"), ADVICE),
}

NEUTRAL = frozenset(REASONS[key] for key in ("uffd_open", "query"))
"""Reasons of steps that change nothing."""
REFUSED_OF_LOCKED = ("DONTNEED", "COLD", "PAGEOUT")
"""Advice that the kernel refuses where memory is locked."""

ASKING = ("mincore", "msync", "mlock2_query", "process_vm_readv")
"""System calls without a statement that change nothing that is mapped."""


@dataclass
class Region:
    """A mapping of a recording. mapping: its index in the trace, None while its folio size is not known.

    length: of what is observed, in bytes: the longest that it was. now: at present. page: bytes of a folio.
    kind: of its file, or "anon". prot: the rights of all of it, None if parts differ. registered: the modes of
    userfaultfd. cut: was a part unmapped or moved? locked, poisoned: (first, last) bytes that mlock locked and
    UFFDIO_POISON marked. memory: what its pages are of, and those of all other mappings with the same. file_offset:
    where in the file it begins; -1 where that is private.
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


class Translation:
    """From the steps of a recording to operations, which go to a Writer."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self.files: dict[str, tuple[int, int, str]] = {}  # name -> index, page size, kind
        self.regions: dict[str, dict[str, Region]] = {}  # process -> name -> Region
        self.names: dict[str, str] = {}  # process -> its name in the trace, once it has mapped something
        self.features: dict[str, list[str]] = {}  # process -> what its userfaultfd asked for
        self.waiting: dict[str, tuple[Region, int, int]] = {}  # process -> region, offset, flags of a thread's access
        self.foreign: dict[tuple[str, str], str] = {}  # (process, region) -> why the trace has no such mapping
        self.answer: str | None = None  # of the last step: the errno of one that is refused before memory is met
        self.touched: set[tuple] = set()  # of the last step: memory that it may have changed, not being in scope
        self.lenient = False  # some step out of scope may have made mappings

    def file(self, record) -> None:
        """Declare a file and populate its `cached` pages, runs (first, count) of 4K pages."""
        page, kind = int(record["page"]), record["kind"]
        if not (0 < page <= 1 << 40 and 0 < int(record["size"]) <= FILE_LIMIT):
            raise ValueError(f"no file has {record['size']} bytes in pages of {page}")
        index = self.writer.file(record["file"], page, int(record["size"]) // page, kind)
        self.files[record["file"]] = index, page, kind
        for first, count in record["cached"]:
            self.writer.emit("populate", index, first * PAGE // page, count * PAGE // page)

    def step(self, op) -> str | None:
        """Write the statements for an `op`. Returns None, or why no statement gives the answer of this step.

        `touched` then is the memory that the step may have changed in the kernel alone.
        """
        self.touched, self.answer = set(), None
        function, process, region = getattr(self, f"do_{op['op']}", None), op["proc"], op.get("region")
        if op["op"] in ("mmap", "exit"):
            reason = function(op)
        elif (process, region) in self.foreign:
            reason = self.foreign[process, region]
        elif function is None:
            reason = f"{op['op']}: traces have no statement for it"
        elif self.lenient and region and process != "driver" and region not in self.regions.get(process, ()):
            reason = REASONS["unmapped"]
        else:
            reason = function(op)
        if reason and not (op.get("errno") or reason in NEUTRAL or op["op"] in ASKING or self._says_nothing_new(op)):
            self.touched |= self._memory_of(op)
            self.lenient = True
        return reason

    def _memory_of(self, op):
        """The memory that a step is about: of its region or file, else of its process, else all."""
        regions = self.regions.get(op["proc"], {})
        if op.get("region") in regions:
            return {regions[op["region"]].memory}
        files = {("file", op[key]) for key in ("region", "file") if op.get(key) in self.files}
        if files:
            return files
        if op["proc"] != "driver":
            return {region.memory for region in regions.values()}
        return {("file", name) for name in self.files} | {
            region.memory for mapped in self.regions.values() for region in mapped.values()}

    def _says_nothing_new(self, op):
        """Is it advice to use huge pages, or none, for memory that has such folios anyway?"""
        region = self.regions.get(op["proc"], {}).get(op.get("region"))
        usual = {"HUGEPAGE": HUGE, "NOHUGEPAGE": PAGE}.get(op.get("advice"))
        return region is not None and (region.page == usual or region.kind == "hugetlb")

    def _region(self, op) -> Region:
        """The Region that a step names; its mapping is then in the trace."""
        region = self.regions[op["proc"]][op["region"]]
        if region.mapping is None:
            self._map_anonymous(op["proc"], op["region"], region)
        return region

    def _emit(self, name, op, flags=0):
        """A statement about the range of a step."""
        self.writer.emit(name, self._region(op).mapping, op["off"], op["len"], flags=flags)

    def do_mmap(self, op):
        process, name, flags = op["proc"], op["region"], op["flags"].split("|")
        shared = SHARED * ("SHARED" in flags)
        if process not in self.names:
            self.names[process] = self.writer.process(process)
        reason = self._unknown_mapping(op, flags)
        if reason:
            self.foreign[process, name] = reason
            return reason
        prot = _rights(op["prot"])
        self.foreign.pop((process, name), None)
        if "HUGETLB" in flags and "file" not in op:
            op = {**op, "file": f"{process}:{name}", "fileoff": 0}  # hugetlb_file_setup(): a file of its own
            pages = -(-op["len"] // HUGE)
            self.files[op["file"]] = self.writer.file(f"hugetlb.{len(self.files)}", HUGE, pages), HUGE, "hugetlb"
        if "file" not in op:
            region = Region(None, op["len"], PAGE, "anon", prot, memory=("anon", process, name, self._step(op)))
        else:
            file, page, kind = self.files[op["file"]]
            mapping = self.writer.mmap(self.names[process], name, file, op["fileoff"], op["len"], shared)
            region = Region(mapping, op["len"], page, kind, prot, memory=("file", op["file"]),
                            file_offset=op["fileoff"] if shared else -1)
            self._restrict(region)
        self.regions.setdefault(process, {})[name] = region
        return None

    def _step(self, op):
        """A number that no other mapping of this name had."""
        return len(self.writer.names.mappings), op.get("i")

    def _unknown_mapping(self, op, flags):
        """Why a trace has no such mapping, or None."""
        if "file" in op and self.files[op["file"]][2] == "shmem" and "SHARED" not in flags:
            return REASONS["private"]
        if "file" not in op and "SHARED" in flags and "HUGETLB" not in flags:
            return "a shared mapping of no file: traces have none"
        return None

    def _map_anonymous(self, process, name, region):
        file = self.writer.anonymous(region.page)
        region.mapping = self.writer.mmap(self.names[process], name, file, 0, region.length)
        self._restrict(region)

    def _restrict(self, region):
        """Write the mprotect that gives a new mapping the rights that its mmap asked for."""
        if region.prot != READ | WRITE:
            self.writer.emit("mprotect", region.mapping, 0, region.length, flags=region.prot)

    def do_munmap(self, op):
        region = self._region(op)
        first, last = op["off"], op["off"] + op["len"]
        parts = [part for start, end in region.locked for part in ((start, min(end, first)), (max(start, last), end))]
        region.locked, region.cut = [part for part in parts if part[0] < part[1]], True
        self._emit("munmap", op)

    def do_mprotect(self, op):
        region, prot = self._region(op), _rights(op["prot"])
        whole = op["off"] == 0 and op["len"] >= region.length
        if region.locked and region.is_private and prot & WRITE:
            region.prot = None
            return REASONS["locked"]    # the kernel makes copies now
        region.prot = prot if whole or region.prot == prot else None
        self._emit("mprotect", op, prot)
        return None

    def do_mremap(self, op):
        region = self._region(op)
        if region.locked:
            return REASONS["locked"]
        if "to" not in op:
            if not op["errno"]:
                region.length, region.now = max(region.length, op["newlen"]), op["newlen"]
            self.writer.emit("mremap", region.mapping, 0, op["newlen"], NO_ARG)
            return None
        if op["errno"] or op["len"] != op["newlen"]:
            return REASONS["address"]
        region.cut = True
        mapping = self.writer.move(region.mapping, op["off"], op["len"], op["to"])
        offset = region.file_offset + op["off"] if region.file_offset >= 0 else -1
        self.regions[op["proc"]][op["to"]] = Region(mapping, op["newlen"], region.page, region.kind, region.prot,
                                                    memory=region.memory, file_offset=offset)
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
                         now=region.now)
            for name, region in regions.items()}
        self.foreign |= {(child, name): reason for (process, name), reason in self.foreign.items() if process == parent}

    def do_exit(self, op):
        regions, name = self.regions.pop(op["proc"], {}), self.names.pop(op["proc"], None)
        if any(region.mapping is not None for region in regions.values()):  # else the trace has no such process
            self.writer.exit(name)

    def _touch(self, region, offset, length, flags=0):
        if length > LONGEST:
            raise ValueError(f"an access to {length} bytes, more than {LONGEST}")
        for page in range(offset // PAGE, -(-(offset + length) // PAGE)):
            self.writer.emit("touch", region.mapping, max(offset, page * PAGE), flags=flags)

    def _access(self, op, flags=0):
        region, length = self._region(op), op["len"]
        if any(first <= op["off"] < last for first, last in region.poisoned):
            return REASONS["poisoned"]
        if "signal" in op or op["errno"]:  # the access stopped at the page behind the last one that it reached
            length = min(length, (op["accessed"] + 1) * PAGE)
        self._touch(region, op["off"], length, flags)
        return None

    def do_read(self, op):
        return self._access(op)

    def do_write(self, op):
        return self._access(op, WRITE)

    def do_bg_read(self, op, flags=0):
        self.waiting[op["proc"]] = self._region(op), op["off"], flags
        self._touch(self._region(op), op["off"], 1, flags)

    def do_bg_write(self, op):
        self.do_bg_read(op, WRITE)

    def do_uffd_read(self, op):
        """Reading an event from userfaultfd changes nothing: the thread's touch already raised it."""

    def do_bg_done(self, op):
        region, offset, flags = self.waiting.pop(op["proc"])
        self._touch(region, offset, 1, flags)

    def do_uffd_open(self, op):
        self.features[op["proc"]] = op["asked"]
        return REASONS["uffd_open"] if op.get("errno") else None

    def do_uffd_register(self, op):
        region, modes = self._region(op), set(op["mode"].split("|"))
        if self._misaligned(region, op):
            return None
        if op["off"] or op["len"] != region.now:
            return REASONS["part"]
        if not op["errno"]:
            region.registered = modes
        if "MINOR" not in modes:
            return REASONS["registration"]
        wp = "WP" in modes and "EVENT_FORK" in self.features.get(op["proc"], ())
        self.writer.emit("register", region.mapping, flags=MINOR | WP * wp)
        return None

    def do_uffd_unregister(self, op):
        region = self._region(op)
        if self._misaligned(region, op):
            return None
        if op["off"] or op["len"] != region.now:
            return REASONS["part"]
        region.registered = set()
        self.writer.emit("unregister", region.mapping)
        return None

    def do_uffd_continue(self, op):
        if op["proc"] not in self.features or op["mode"] & ~(DONTWAKE | MODE_WP):
            self.answer = "EINVAL" if op["proc"] in self.features else "EBADF"
            return None
        region = self._region(op)
        other = region.registered and "MINOR" not in region.registered  # any registration will do for UFFDIO_CONTINUE
        if other:
            self.writer.emit("register", region.mapping, flags=MINOR)
        self._emit("continue", op)
        if other:
            self.writer.emit("unregister", region.mapping)
        return None

    def _misaligned(self, region, op):
        """Is the range of an ioctl of userfaultfd no range of whole pages? Then validate_range() refuses it."""
        if op["off"] % region.unit or op["len"] % region.unit or not op["len"]:
            self.answer = "EINVAL"
        return self.answer is not None

    def do_uffd_poison(self, op):
        if self._misaligned(self._region(op), op):
            return None
        if not op["errno"]:
            self._region(op).poisoned.append((op["off"], op["off"] + op["len"]))
        return REASONS["uffd_poison"]

    def do_uffd_wp(self, op):
        if self._misaligned(self._region(op), op):
            return None
        return REASONS["uffd_wp"]

    def do_madvise(self, op):
        advice = op["advice"]
        region = self.regions[op["proc"]][op["region"]]
        if advice == "HUGEPAGE" and region.mapping is None and (op["off"], op["len"]) == (0, region.length):
            region.page = HUGE
            self._map_anonymous(op["proc"], op["region"], region)
        elif advice == "COLLAPSE":
            self._emit("collapse", op)
        elif advice in ("POPULATE_READ", "POPULATE_WRITE"):
            self._touch(self._region(op), op["off"], op["len"], WRITE * (advice == "POPULATE_WRITE"))
        elif advice in REFUSED_OF_LOCKED and region.is_locked(op) is None:
            return REASONS["locked"]
        elif advice in REFUSED_OF_LOCKED and region.is_locked(op) or self._is_refused(advice, region):
            self.answer = "EINVAL"
        elif self._changes_nothing(advice, region, op):
            return None
        elif advice in ("DONTNEED", "DONTNEED_LOCKED"):
            self._emit("dontneed", op)
        elif advice == "REMOVE" and region.memory[0] == "file" and region.file_offset >= 0 and not op["errno"]:
            self.writer.emit("punch", self.files[region.memory[1]][0], region.file_offset + op["off"], op["len"])
        else:
            return REASONS.get("remove" if advice == "REMOVE" else advice,
                               f"MADV_{advice}: traces have no statement for it")
        return None

    @staticmethod
    def _is_refused(advice, region):
        """Does the kernel refuse this advice for such memory, whatever the range?"""
        if region.kind == "hugetlb":
            return advice in ("COLD", "PAGEOUT", "FREE")
        return advice == "FREE" and region.kind != "anon"

    def _changes_nothing(self, advice, region, op):
        """Is it advice that leaves mappings, folios and VMAs what they are?

        COLD and FREE split a folio that they do not cover, or that is mapped in part, so only base pages are sure.
        """
        if advice in ("HUGEPAGE", "NOHUGEPAGE"):
            return region.kind == "hugetlb" or self._says_nothing_new(op) and region.is_whole(op)
        return advice in ("COLD", "FREE") and region.page == PAGE

    def do_mlock(self, op):
        """Lock the VMAs, then bring the range in, as accesses would, up to the first that fails: that is ENOMEM.

        Only a private mapping that may be written gets pages of its own.
        """
        region = self._region(op)
        if op["errno"] not in ("", "ENOMEM") or not region.prot or op["errno"] and region.cut:
            return REASONS["locked"]
        if region.kind != "hugetlb":    # mlock_fixup() leaves those VMAs alone
            if not region.is_whole(op) and region.prot != READ:
                return REASONS["locked"]
            region.locked.append((op["off"], op["off"] + op["len"]))
            if not region.is_whole(op):    # other flags, so a VMA of its own
                self._emit("mprotect", op, READ | WRITE)
        self._touch(region, op["off"], op["len"], WRITE * (region.is_private and region.prot == READ | WRITE))
        return None

    def do_munlock(self, op):
        region = self._region(op)
        if op["errno"] or not region.is_whole(op) and region.kind != "hugetlb":
            return REASONS["locked"]
        region.locked.clear()
        return None

    def do_fallocate(self, op):
        self.writer.emit("punch", self.files[op["region"]][0], op["off"], op["len"])

    def do_ftruncate(self, op):
        self.writer.emit("truncate", self.files[op["region"]][0], op["len"])

    def do_pin(self, op, name="pin"):
        """References on the pages of a file: one for each 4K page, on the folio that has it."""
        region = self._region(op)
        if region.memory[0] != "file" or region.file_offset < 0:
            return REASONS["pin"]
        first, last = op["off"] // PAGE, -(-(op["off"] + op["len"]) // PAGE)
        shift, file = region.file_offset // PAGE, self.files[region.memory[1]][0]
        pages = region.page // PAGE
        for number in range((first + shift) // pages, -(-(last + shift) // pages)):
            count = min(last + shift, (number + 1) * pages) - max(first + shift, number * pages)
            self.writer.emit(name, file, number, count)
        return None

    def do_unpin(self, op):
        return self.do_pin(op, "unpin")

    def do_move_pages(self, op):
        """Migrate each huge page that holds one of the addresses, once."""
        region = self._region(op)
        if "MOVE" not in op["flags"]:
            return REASONS["query"]
        first = op["off"] // region.page * region.page
        last = -(-(op["off"] + op["len"]) // region.page) * region.page
        self.writer.emit("migrate", region.mapping, first, last - first, flags=ALL * ("MOVE_ALL" in op["flags"]))
        return None

    def do_mbind(self, op):
        region = self._region(op)
        if region.kind == "hugetlb" and (op["off"] % region.page or op["len"] % region.page):
            self.answer = "EINVAL"    # hugetlb_vm_op_split()
            return None
        if "MOVE" not in op["flags"]:
            return None if region.is_whole(op) and not op["errno"] else REASONS["policy"]
        if op["off"] % region.page or op["len"] % region.page:
            return REASONS["align"]
        self._emit("migrate", op, ALL * ("MOVE_ALL" in op["flags"]))
        return None


def _rights(prot):
    """PROT_READ | PROT_WRITE (1 | 2) as flags of a statement; x86 cannot write without reading."""
    return {0: 0, 1: READ}.get(prot & 3, READ | WRITE)

"""The steps of a kernel recording, in the form that importers.kernel_recording describes, as operations of a trace.

`Translation.step` writes to a Writer what a step does, or says why a trace has no statement for it.
"""

from __future__ import annotations

from hgmcore.importers.processes.kernel_mappings import PAGE, REASONS, Mappings, Region, rights
from hgmcore.trace.statements import ALL, MINOR, READ, WP, WRITE
from hgmcore.trace.writer import Writer

LONGEST = 1 << 32  # bytes of one access

DONTWAKE, MODE_WP = 1, 2
"""Modes of UFFDIO_CONTINUE (uapi/linux/userfaultfd.h)."""

NEUTRAL = frozenset(REASONS[key] for key in ("uffd_open", "query"))
"""Reasons of steps that change nothing."""
REFUSED_OF_LOCKED = ("DONTNEED", "COLD", "PAGEOUT")
"""Advice that the kernel refuses where memory is locked."""

ASKING = ("mincore", "msync", "mlock2_query", "process_vm_readv")
"""System calls without a statement that change nothing that is mapped."""


class Translation(Mappings):
    """From the steps of a recording to operations, which go to a Writer."""

    def __init__(self, writer: Writer):
        super().__init__(writer)
        self.features: dict[str, list[str]] = {}  # process -> what its userfaultfd asked for
        self.waiting: dict[str, tuple[Region, int, int]] = {}  # process -> region, offset, flags of a thread's access
        self.answer: str | None = None  # of the last step: the errno of one that is refused before memory is met
        self.touched: set[tuple] = set()  # of the last step: memory that it may have changed, not being in scope
        self.lenient = False  # some step out of scope may have made mappings

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
        if reason and region in self.regions.get(process, ()) and op["op"] not in ASKING:
            there = self.regions[process][region]
            there.divided |= (op.get("off"), op.get("len")) != (0, there.now)
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
        if region is None:
            return False
        usual = {"HUGEPAGE": region.folio, "NOHUGEPAGE": PAGE}.get(op.get("advice"))
        return region.page == usual or region.kind == "hugetlb"

    def _emit(self, name, op, flags=0):
        """A statement about the range of a step."""
        self.writer.emit(name, self._region(op).mapping, op["off"], op["len"], flags=flags)

    def do_munmap(self, op):
        region = self._region(op)
        first, last = op["off"], op["off"] + op["len"]
        parts = [part for start, end in region.locked for part in ((start, min(end, first)), (max(start, last), end))]
        region.locked, region.cut = [part for part in parts if part[0] < part[1]], True
        self._emit("munmap", op)

    def do_mprotect(self, op):
        region, prot = self._region(op), rights(op["prot"])
        whole = op["off"] == 0 and op["len"] >= region.length
        if region.locked and region.is_private and prot & WRITE:
            region.prot = None
            return REASONS["locked"]    # the kernel makes copies now
        region.prot = prot if whole or region.prot == prot else None
        self._emit("mprotect", op, prot)
        return None

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
            region.page = region.folio
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
            region.divided |= not region.is_whole(op)
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

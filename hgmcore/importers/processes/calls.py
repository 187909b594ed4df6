"""System calls that change address spaces, and page faults, as operations of a trace.

The importers of system-call recordings (strace, bpftrace) parse lines and call the methods of `Calls`, one for each
system call. Such a method returns None if the trace now contains the call, else the reason why it does not.
"""

from __future__ import annotations

from operator import itemgetter

import numpy as np

from hgmcore.importers.linux import (
    HUGE_MASK,
    HUGE_SHIFT,
    KERNEL,
    MAP_ANONYMOUS,
    MAP_DENYWRITE,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_POPULATE,
    MAP_SHARED,
    MFD_HUGETLB,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from hgmcore.importers.options import way_of
from hgmcore.importers.processes import accesses as access
from hgmcore.importers.processes.accesses import ACCESS, BEYOND, OUTSIDE, PAGE, Turns
from hgmcore.importers.processes.address_space import AddressSpace, Area
from hgmcore.importers.processes.mapper import ANONYMOUS, File, Mapper, up
from hgmcore.sizes import parse_named
from hgmcore.trace import TraceError
from hgmcore.trace.statements import MINOR, NO_ARG, READ, WP, WRITE
from hgmcore.workloads import guest

PERMISSIONS = READ | WRITE
MOST_TOUCHES = 1 << 24  # touches of one call; a call that would need more touches nothing
_CHUNK = 1 << 18  # pages that are touched at once
RANGE_ADVICE = {"DONTNEED": "dontneed", "DONTNEED_LOCKED": "dontneed", "COLLAPSE": "collapse", "SPLIT": "split"}


class Calls(Mapper):
    """Address spaces of processes, and the trace that their calls write to `writer`.

    spaces: key -> address space, with one key for each process or thread, as the importer chooses. guest: the Guest
    whose pages accesses touch, or None where they touch the mappings of the trace.
    """

    def __init__(self, report, **options):
        super().__init__(report, **options)
        self.spaces: dict[int, AddressSpace] = {}
        self.guest: guest.Guest | None = None
        self.observations = self.registered_in_part = self.untouched = 0
        self.turns = Turns(np.zeros(0, dtype=ACCESS), [], self.space, self.writer)  # of the accesses that are played

    @classmethod
    def of(cls, report, given) -> Calls:
        """Calls with the options `given`, of WAYS. Raises ValueError."""
        way, given = way_of(given)
        if way == "guest":
            calls = cls(report)
            calls.guest = guest.Guest(**given)
        else:
            observations = parse_named("observations", given.pop("observations", 8))
            calls = cls(report, **given)
            calls.observations = observations
        return calls

    def trace(self, name, recording):
        """The Trace of everything so far. Raises TraceError if that is nothing."""
        if self.untouched:
            self.report.notes.append(f"calls that would touch more than {MOST_TOUCHES:,} folios at once, and here "
                                     f"touch none: {self.untouched}")
        if self.guest is not None:
            trace = self.guest.trace(name, "program", provenance={"recording": recording})
            self.report.notes += self.guest.notes()
            return trace
        if not len(self.writer):
            raise TraceError(name, f"no memory of the kinds {', '.join(self.kinds)} is mapped in "
                                   f"{self.report.lines} lines")
        if self.registered_in_part:
            self.report.notes.append("userfaultfd calls for a part of a mapping, taken as for all of it: "
                                     f"{self.registered_in_part}")
        if self.unnamed_moves:
            self.report.notes.append("moves of a mapping that are written as munmap and mmap, as a trace cannot name "
                                     f"more mappings in mremap: {self.unnamed_moves}")
        self.writer.observe(self.observations)
        return self.writer.trace(name, {"recording": recording})

    # Processes

    def space(self, key: int) -> AddressSpace:
        """The address space of a process or thread, new and empty where nothing is known of it."""
        if key not in self.spaces:
            self.spaces[key] = AddressSpace(key)
        return self.spaces[key]

    def thread_of(self, parent: int, child: int) -> None:
        """`child` is a new thread of `parent`, or shares its memory."""
        self.spaces[child] = self.space(parent)
        self.spaces[child].users += 1

    def fork(self, parent: int, child: int) -> None:
        """`child` is a new process with a copy of the memory of `parent`."""
        old, new = self.space(parent), AddressSpace(child)
        self.spaces[child] = new
        new.files, new.attached, new.brk = old.files.copy(), old.attached.copy(), old.brk
        taken = {area.mapped.index: area.mapped for area in old if area.mapped is not None}
        if taken:
            if len(self.writer.names.processes) >= NO_ARG:
                self.report.skip("fork: more processes than a trace can name", self.line)
                return
            new.process = self.writer.fork(old.process, f"p{child}", self.thread, self.time)
            for index, mapped in taken.items():
                taken[index] = mapped.inherited(self.writer.child_mapping(new.process, index))
        new.inherit(old, taken)
        for area in [area for area in new if area.dont_fork]:
            self.unmap(new, area.start, area.end)

    def execve(self, key: int) -> None:
        """The process of `key` begins anew with an empty address space."""
        files = self.space(key).files.copy()
        self.exit(key)
        self.space(key).files = files

    def exit(self, key: int) -> None:
        """A process or thread ends; with the last that shares it, its memory."""
        space = self.spaces.pop(key, None)
        if space is None:
            return
        space.users -= 1
        if not space.users and space.process is not None:
            self.writer.exit(space.process, self.thread, self.time)

    # Mappings

    def mmap(self, space, start, length, prot, flags, fd, offset) -> str | None:
        """start: the address that the call returned. prot, flags: as numbers. offset: bytes."""
        if flags & (MAP_ANONYMOUS | MAP_HUGETLB | MAP_SHARED) == MAP_ANONYMOUS:
            file = ANONYMOUS
        elif flags & MAP_ANONYMOUS:
            file = File("hugetlb", "hugetlb", self.huge_page(flags)) if flags & MAP_HUGETLB else File("shmem", "shmem")
        else:
            file = (None if flags & MAP_DENYWRITE else space.files.get(fd)) or "a mapping of another file"
            if isinstance(file, File) and file.kind == "shmem" and not flags & MAP_SHARED:
                file = "a private mapping of a shmem file, which traces do not have"
        return self.attach(space, start, length, permissions(prot), bool(flags & MAP_SHARED), file, offset,
                           bool(flags & (MAP_POPULATE | MAP_LOCKED)))

    def attach(self, space, start, length, access, shared, file, offset=0, populate=False) -> str | None:
        """Map [start, start + length). access: READ, WRITE. file: a File, or the reason why it is not taken."""
        if start + length > KERNEL:
            return f"mmap: {BEYOND}"
        if isinstance(file, File):
            file = self.why_not(file, offset + length) or file
        length = up(length, PAGE if isinstance(file, str) or file.kind != "hugetlb" else file.page_size)
        self.unmap(space, start, start + length)
        if isinstance(file, str):
            space.add(Area(start, start + length, reason=file))
            return f"mmap: {file}"
        area = self.map(space, start, length, shared, file, offset)
        if access != PERMISSIONS:
            self.emit("mprotect", area.mapped.index, 0, length, flags=access)
        if populate and access:
            self.touch(area, write=access & WRITE and not shared)
        return None

    def munmap(self, space, start, length) -> str | None:
        end = start + up(length, PAGE)
        for area in space.overlapping(start, end):
            if area.mapped is not None and area.mapped.file.kind == "hugetlb":
                if (area.offset | (area.end - area.start)) % area.mapped.folio:
                    return "munmap: cuts a hugetlb page, which a kernel refuses"
        return _answer("munmap", self.unmap(space, start, end))

    def detach(self, space, start, length) -> str | None:
        """shmdt: unmap the segment that `attach` mapped at `start`."""
        return _answer("shmdt", self.unmap(space, start, start + up(length, _unit(space, start))))

    def mremap(self, space, old, old_length, new_length, new) -> str | None:
        """new: the address that the call returned."""
        areas = space.overlapping(old, old + max(old_length, 1))
        if not areas or max(old + old_length, new + new_length) > KERNEL:
            return f"mremap: {BEYOND if areas else OUTSIDE}"
        unit = _unit(space, old)
        old_length, new_length = up(old_length, unit), up(new_length, unit)
        if not old_length:
            return self._map_again(space, areas[0], new, new_length)
        if new != old and new < old + old_length and old < new + new_length:
            return "mremap: onto itself, which a kernel refuses"
        if new_length > old_length and space.before(old + old_length) is None:
            return f"mremap: {OUTSIDE}"
        if new_length < old_length:
            self.unmap(space, old + new_length, old + old_length)
        if new != old:
            self.unmap(space, new, new + new_length)
            for area in space.whole(old, old + min(old_length, new_length)):
                self.move(space, area, new + area.start - old)
        if new_length > old_length:
            self.grow(space, new + old_length, new + new_length)
        return None if areas[0].mapped else f"mremap: {areas[0].reason}"

    def mprotect(self, space, start, length, prot) -> str | None:
        return self._on_range("mprotect", space, start, length, permissions(prot))

    def madvise(self, space, start, length, advice) -> str | None:
        """advice: as in MADV_DONTNEED, without MADV_."""
        call = f"madvise MADV_{advice}"
        if advice in RANGE_ADVICE:
            return self._on_range(RANGE_ADVICE[advice], space, start, length, call=call)
        areas = space.overlapping(start, start + up(length, PAGE))
        taken = [area for area in areas if area.mapped is not None]
        if advice in ("DONTFORK", "DOFORK"):
            for area in space.whole(start, start + up(length, PAGE)):
                area.dont_fork = advice == "DONTFORK"
        elif advice in ("POPULATE_READ", "POPULATE_WRITE"):
            for area in taken:
                self.touch(area, write=advice == "POPULATE_WRITE")
        elif advice == "REMOVE":
            for area in taken:
                if area.mapped.file.kind != "anon":
                    offset = area.mapped.file_offset + area.offset
                    self.punch(area.mapped.file, offset, area.end - area.start)
        elif advice == "HWPOISON":
            for area in taken:
                pages = range(area.offset, area.offset + area.end - area.start, PAGE)
                for offset in pages if self._are_few(len(pages)) else ():
                    self.emit("hwpoison", area.mapped.index, offset)
        else:
            return call
        return _answer(call, areas)

    def brk(self, space, end) -> str | None:
        """end: what the call returned."""
        end, heap = up(end, PAGE), space.brk
        if end > KERNEL:
            return f"brk: {BEYOND}"
        space.brk = end
        if heap is None or heap == end:
            return "brk: tells where the heap is"
        if end < heap:
            return _answer("brk", self.unmap(space, end, heap))
        before = space.before(heap)
        if before is not None and before.mapped is not None and before.mapped.file.name == "heap":
            self.grow(space, heap, end)
            return None
        return self.attach(space, heap, end - heap, PERMISSIONS, False, File("heap", "anon"))

    # Files

    def huge_page(self, flags) -> int:
        """Bytes of a hugetlb page, of flags as mmap, memfd_create and shmget have them."""
        shift = flags >> HUGE_SHIFT & HUGE_MASK
        return 1 << shift if shift else self.hugetlb

    def memfd(self, flags, name="memfd") -> File:
        """The file that memfd_create makes."""
        if flags & MFD_HUGETLB:
            return File(name, "hugetlb", self.huge_page(flags))
        return File(name, "shmem")

    def populate(self, file, offset, length) -> str | None:
        """fallocate without flags: pages come into the page cache."""
        return self.on_file("fallocate", file, "populate", offset, length)

    def punch(self, file, offset, length) -> str | None:
        """fallocate with FALLOC_FL_PUNCH_HOLE, or MADV_REMOVE."""
        return self.on_file("fallocate", file, "punch", offset, length)

    def truncate(self, file, size) -> str | None:
        if reason := self.why_not(file, size):
            return f"ftruncate: {reason}"
        if file.index is None or size >= file.size:
            file.size = max(size, file.size)
            self.declare(file)
            return None
        self.emit("truncate", file.index, size)
        return None

    # userfaultfd

    def register(self, space, start, length, missing, minor, wp) -> str | None:
        areas = space.whole(start, start + length)
        flags = (MINOR if minor else 0) | (WP if wp else 0)
        for area in areas:
            area.missing |= missing
        for mapped in self._mappings(areas, start, start + length) if flags else ():
            mapped.minor, mapped.wp = mapped.minor or minor, mapped.wp or wp
            self.emit("register", mapped.index, flags=flags)
        return _answer("UFFDIO_REGISTER", areas)

    def unregister(self, space, start, length) -> str | None:
        areas = space.whole(start, start + length)
        for area in areas:
            area.missing = False
        for mapped in self._mappings(areas, start, start + length):
            if mapped.minor or mapped.wp:
                mapped.minor = mapped.wp = False
                self.emit("unregister", mapped.index)
        return _answer("UFFDIO_UNREGISTER", areas)

    def play(self, accesses, events) -> None:
        """Write accesses and execute calls in the order of the recording.

        accesses: array of ACCESS. events: [(line, function, arguments)]; an event precedes an access of the same line.
        """
        events.sort(key=itemgetter(0))
        self.turns = Turns(accesses, [event[0] for event in events], self.space, self.writer)
        for number, (_, function, arguments) in enumerate(events):
            self.turns.reach(number)
            function(*arguments)
        self.turns.reach(len(events))
        self._access()

    def happen(self, line, thread, time, what, function, *arguments) -> None:
        """Execute a call by `function`(*arguments), and count it as used or, with the reason returned, as skipped."""
        self.line, self.thread, self.time = line, thread, time
        reason = function(*arguments)
        if reason not in self.report.skipped if reason else what not in self.report.used:
            self._access()  # the report lists calls and accesses in the order in which it meets them
        if reason:
            self.report.skip(reason, line)
        else:
            self.report.used[what] += 1

    def touch(self, area, write):
        if not self._are_few((area.end - area.start) // (area.mapped.folio if self.guest is None else PAGE)):
            return
        self._access()
        if self.guest is None:
            super().touch(area, write)
            return
        pages = range(area.start // PAGE, area.end // PAGE)
        for first in pages[::_CHUNK]:
            self.guest.touch(np.arange(first, min(first + _CHUNK, pages.stop)), write, self.thread, self.time)

    # Parts of the above

    def _access(self):
        """Write the accesses that precede the present call."""
        accesses, places, before = self.turns.take()
        if self.guest is None:
            access.write(accesses, places, before, self.writer, self.report)
        else:
            access.touch(accesses, self.guest, self.report)

    def _are_few(self, touches):
        """Whether one call may make so many touches; `untouched` counts the calls that may not."""
        self.untouched += touches > MOST_TOUCHES
        return touches <= MOST_TOUCHES

    def _map_again(self, space, area, start, length):
        """mremap with an old length of 0: the kernel maps a shared mapping once more."""
        mapped = area.mapped
        if mapped is None:
            return self.attach(space, start, length, PERMISSIONS, True, area.reason)
        return self.attach(space, start, length, PERMISSIONS, mapped.shared, mapped.file,
                           mapped.file_offset + area.offset)

    def _on_range(self, op, space, start, length, flags=0, call=None):
        areas = space.overlapping(start, start + up(length, PAGE))
        for area in areas:
            if area.mapped is not None:
                self.emit(op, area.mapped.index, area.offset, area.end - area.start, flags)
        return _answer(call or op, areas)

    def _mappings(self, areas, start, end):
        """The mappings of `areas`; `registered_in_part` counts those that [start, end) covers only in part."""
        found = {area.mapped.index: area.mapped for area in areas if area.mapped is not None}
        for mapped in found.values():
            covered = sum(area.end - area.start for area in areas if area.mapped is mapped)
            self.registered_in_part += covered < mapped.live
        return found.values()


def permissions(prot: int) -> int:
    """The rights that a trace's mprotect gives for PROT_*: none, READ, or READ | WRITE (x86 has no write alone)."""
    return PERMISSIONS if prot & PROT_WRITE else READ if prot & (PROT_READ | PROT_EXEC) else 0


def _unit(space, address):
    """Bytes to which the kernel rounds the length of a mapping at `address`."""
    area = space.before(address + 1)
    hugetlb = area is not None and area.mapped is not None and area.mapped.file.kind == "hugetlb"
    return area.mapped.folio if hugetlb else PAGE


def _answer(call, areas):
    """None if the trace has a mapping in one of `areas`, else the reason why it has nothing of the call."""
    for area in areas:
        if area.mapped is not None:
            return None
    return f"{call}: {areas[0].reason or 'memory that is not taken'}" if areas else f"{call}: {OUTSIDE}"

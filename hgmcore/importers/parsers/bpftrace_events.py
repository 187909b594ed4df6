"""Lines of a bpftrace recording that are rare: mappings, files and processes, one at a time."""

from __future__ import annotations

import re

from hgmcore.importers.linux import (
    CLONE_THREAD,
    CLONE_VM,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MADVISE,
    MAP_POPULATE,
    MAP_SHARED,
    MAX_ERRNO,
    PROT_READ,
    PROT_WRITE,
)
from hgmcore.sizes import quoted

ERRORS = (1 << 64) - MAX_ERRNO  # a result of this value or a higher one is a negative errno

_HEX = r"([0-9a-f]{1,16})"
EVENTS = {event: re.compile(pattern.replace("HEX", _HEX).encode()) for event, pattern in {
    b"MMAP": r"HEX HEX prot=HEX flags=HEX fd=(-?\d{1,19}) off=HEX",
    b"MUNMAP": "HEX HEX",
    b"MREMAP": "HEX HEX HEX (ret=)?HEX",
    b"MPROTECT": "HEX HEX HEX",
    b"MADVISE": r"HEX HEX (\d{1,9})",
    b"BRK": "HEX",
    b"FALLOCATE": r"(\d{1,9}) HEX HEX HEX",
    b"TRUNCATE": r"(\d{1,9}) HEX",
    b"MEMFD": r"HEX(?: (\d{1,9}))?",
    b"CLOSE": r"(\d{1,9})",
    b"FORK": r"(\d{1,9})(?: HEX)?",
    b"EXEC": "",
    b"EXIT": "",
}.items()}


class Events:
    """Turns one such line into an event that calls a method of `calls`, a Calls; a tgid is a process's key there.

    `at` is (line number, tid, tgid, time) of the line. Events have the form that `Calls.play` takes.
    """

    def __init__(self, calls):
        self.calls, self.report = calls, calls.report
        self.tgid = 0  # of the event that takes place now; another process may share its address space
        self.met: set[int] = set()
        self.forked: dict[int, int] = {}  # child -> parent, while it is unknown whether the child is a thread
        self.knows_mprotect = False  # an mprotect was recorded, so rights of mappings are known from then on
        self.unnamed: dict[int, object] = {}  # tgid -> the file that the process made last, while it has no descriptor

    def meet(self, tgids, lines) -> list:
        """An event for each process that was not seen before; `lines` has the first line of each of `tgids`."""
        return [(line, self._meet, (tgid,)) for tgid, line in zip(tgids, lines, strict=True)
                if tgid not in self.met]

    def _meet(self, tgid):
        self.met.add(tgid)
        if tgid in self.forked:
            self.calls.fork(self.forked.pop(tgid), tgid)

    def read(self, text, at) -> list:
        """A list with the event of a line, or an empty one; `text` is the line from its EVENT on."""
        event, _, rest = text.partition(b" ")
        name = event.decode("utf-8", "replace")
        match = EVENTS[event].fullmatch(rest) if event in EVENTS else None
        if match is None:
            self.report.skip(f"malformed {name}" if event in EVENTS else f"event {quoted(name)}", at[0])
            return []
        return [self.happens(name, at, getattr(self, f"_{name.lower()}"), *match.groups())]

    def happens(self, name, at, function, *arguments):
        """The event that calls `function`(address space, *arguments), which returns None or why the trace lacks it."""
        line, tid, tgid, time = at
        return line, self.calls.happen, (line, tid, time, name, self._in_space, tgid, function, arguments)

    def _in_space(self, tgid, function, arguments):
        self.tgid = tgid
        return function(self.calls.space(tgid), *arguments)

    def _mmap(self, space, *numbers):
        start, length, prot, flags, fd, offset = _numbers(numbers, decimal=(4,))
        if start >= ERRORS:
            return "mmap that failed"
        if flags & (MAP_SHARED | MAP_POPULATE) == MAP_SHARED:  # MAP_POPULATE: a ring of io_uring, no file of the trace
            self._name(space, fd)
        prot = prot if self.knows_mprotect else PROT_READ | PROT_WRITE
        return self.calls.mmap(space, start, length, prot, flags, fd, offset)

    def _munmap(self, space, *numbers):
        return self.calls.munmap(space, *_numbers(numbers))

    def _mremap(self, space, old, old_length, new_length, is_result, new):
        old, old_length, new_length, new = _numbers((old, old_length, new_length, new))
        if new >= ERRORS:
            return "mremap that failed"
        return self.calls.mremap(space, old, old_length, new_length, new if new or is_result else old)

    def _mprotect(self, space, *numbers):
        self.knows_mprotect = True
        return self.calls.mprotect(space, *_numbers(numbers))

    def _madvise(self, space, *numbers):
        start, length, advice = _numbers(numbers, decimal=(2,))
        return self.calls.madvise(space, start, length, MADVISE.get(advice, str(advice)))

    def _brk(self, space, end):
        return self.calls.brk(space, int(end, 16))

    def _fallocate(self, space, *numbers):
        fd, mode, offset, length = _numbers(numbers, decimal=(0,))
        self._name(space, fd)
        file = space.files.get(fd)
        if file is None:
            return "fallocate: a file that is not taken"
        if mode == 0:
            return self.calls.populate(file, offset, length)
        if mode == FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE:
            return self.calls.punch(file, offset, length)
        return f"fallocate with mode {mode:#x}"

    def _truncate(self, space, *numbers):
        fd, size = _numbers(numbers, decimal=(0,))
        file = space.files.get(fd)
        return self.calls.truncate(file, size) if file else "ftruncate: a file that is not taken"

    def _memfd(self, space, flags, fd):
        file = self.calls.memfd(int(flags, 16))
        if fd is None:
            self.unnamed[self.tgid] = file
        else:
            space.files[int(fd)] = file

    def _name(self, space, fd):
        """The first descriptor that is named after memfd_create is what that gave."""
        if self.tgid in self.unnamed:
            space.files[fd] = self.unnamed.pop(self.tgid)

    def _close(self, space, fd):
        space.files.pop(int(fd), None)

    def _fork(self, space, child, flags):
        child, flags = int(child), None if flags is None else int(flags, 16)
        if flags is None:
            self.forked[child] = self.tgid
        elif flags & CLONE_THREAD:
            return "FORK: a thread"
        elif flags & CLONE_VM:
            self.calls.thread_of(self.tgid, child)
        else:
            self.calls.fork(self.tgid, child)

    def _exec(self, space):
        self.calls.execve(self.tgid)

    def _exit(self, space):
        tid = self.calls.thread
        if tid != self.tgid:
            self.forked.pop(tid, None)
            return "EXIT: a thread"
        self.calls.exit(tid)
        self.met.discard(tid)
        self.unnamed.pop(tid, None)


def _numbers(texts, decimal=()):
    """The numbers that texts spell: hexadecimal, but those at the indices `decimal`."""
    return [int(text, 10 if at in decimal else 16) for at, text in enumerate(texts)]

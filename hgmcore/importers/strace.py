"""System calls of a program and its children, recorded by strace.

    strace -f -ttt -y -o LOG PROGRAM ARGUMENTS
    hgmcore import strace LOG -o program.parquet

`-e trace=%memory,%process,memfd_create,openat,close,ftruncate,fallocate,ioctl,shmget,shmat,shmdt` records
little else than what is used, and `--seccomp-bpf` makes it fast. Without -f there is one process, without
timestamps (-t, -tt or -ttt) no time, without -y files are known by their descriptors alone.

What becomes of it. mmap, munmap, mremap, mprotect, madvise, brk, fallocate, ftruncate, shmat, shmdt, fork, clone,
vfork, execve and exit are what the trace calls so. UFFDIO_CONTINUE is a `continue`; UFFDIO_COPY and
UFFDIO_ZEROPAGE are a `touch` of each folio that they place, COPY one that writes. MAP_POPULATE, MADV_POPULATE_READ
and MADV_POPULATE_WRITE touch every folio. Other accesses do not show in system calls: bpftrace and perf
record them. Files that are taken are those of memfd_create and shmget, in /dev/shm and in `hugetlbfs`; memory of
other files (libraries, data) is left out, as is what was mapped before the recording began, or by execve itself.
Failed calls are left out and counted.

Folios are counted from the start of a mapping, and userfaultfd registers mappings as a whole. A call that strace
writes in two halves takes place at the second, but munmap at the first: memory that it gave back may have been
mapped again by another thread before the second is written.
"""

from __future__ import annotations

import re

import numpy as np

from hgmcore.importers.options import WAYS, Option
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.parsers.strace_calls import BIRTHS, NAMES, PLACING, Handlers, asked, parted, shares_memory
from hgmcore.importers.parsers.strace_lines import key, keys, placements, prefixes
from hgmcore.importers.processes.accesses import ACCESS
from hgmcore.importers.processes.calls import Calls
from hgmcore.importers.report import Report
from hgmcore.trace import NO_TIME, Trace, TraceError
from hgmcore.workloads import guest

explanation = __doc__ + "\n" + guest.__doc__

options = (
    *WAYS,
    Option("hugetlbfs", "/dev/hugepages", "directories where hugetlbfs is mounted, separated by commas, "
                                                    "each as DIRECTORY or DIRECTORY=PAGESIZE"),
)

_KEYS = np.array(sorted({key(name) for name in NAMES}), dtype=np.uint64)
UNFINISHED = b" <unfinished ...>"


def read(stream, name, **given) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    log = _Log(name, given)
    for block in blocks(stream, log.report):
        log.feed(block)
    return log.trace(), log.report


class _Log:
    """Reads the lines of a recording, block by block, into a trace."""

    def __init__(self, name, given):
        self.name, self.report = name, Report("strace", name)
        hugetlbfs = given.pop("hugetlbfs", "/dev/hugepages")
        self.calls = Calls.of(self.report, given)
        self.handlers = Handlers(self.calls, hugetlbfs)
        self.begun: dict[int, bytes] = {}  # thread -> first half of its call
        self.met: set[int] = set()
        self.ended: set[int] = set()  # threads that ended in the block at hand
        self.understood = self.steps_back = 0
        self.last_time = NO_TIME

    def trace(self) -> Trace:
        """The Trace of all lines that were read."""
        if not self.understood:
            raise TraceError(self.name, "not a log of strace: no line is of the form NAME(ARGUMENTS) = RESULT")
        for begun in self.begun.values():
            self._lacks_second(begun, self.report.lines)
        if self.steps_back:
            self.report.notes.append(f"steps back of the clock: {self.steps_back}; the order of lines is kept")
        return self.calls.trace(self.name, "strace, system calls")

    def feed(self, block):
        """Read the lines of a Block."""
        thread, times, start = prefixes(block)
        self._clock(times[times != NO_TIME])
        resumed = block.begins(b"<... ", start)
        start = start + 5 * resumed
        end = np.where(resumed, block.find(" ", start, block.ends), block.find("(", start, block.ends))
        names, named = keys(block, start, end), (end > start) & (end < block.ends)
        slow = ~named | np.isin(names, _KEYS)
        self._skip(block, np.flatnonzero(~slow), names, start, end)
        lines = block.number + np.arange(len(block))
        accesses, where = placements(block, np.flatnonzero(named & ~resumed & (names == key(b"ioctl"))), end)
        accesses["line"], accesses["space"] = lines[where], thread[where]
        accesses["thread"], accesses["time"] = thread[where], times[where]
        slow[where] = False
        self.understood += len(where)
        events, more = self._meetings(thread[named], lines[named]), []
        odd = resumed | block.begins(b"+++ ", start) | block.begins(UNFINISHED, block.ends - len(UNFINISHED))
        columns = (column[slow].tolist() for column in (odd, lines, thread, times, start - 5 * resumed, block.ends))
        for is_odd, line, who, time, begin, end in zip(*columns):
            text = block.bytes[begin:end]
            found = self._odd(line, who, time, text) if is_odd else self._whole(line, who, time, text)
            if found is not None:
                (events if len(found) == 3 else more).append(found)
        self.met.difference_update(self.ended)
        self.ended.clear()
        accesses = np.concatenate([accesses, np.array(more, dtype=ACCESS)])
        self.calls.play(accesses, events)

    def _clock(self, times):
        if len(times):
            self.steps_back += int((np.diff(times, prepend=self.last_time) < 0).sum())
            self.last_time = times[-1]

    def _skip(self, block, where, names, start, end):
        """Count, by name, calls that the trace does not need."""
        _, first, counts = np.unique(names[where], return_index=True, return_counts=True)
        for index, count in zip(where[first].tolist(), counts.tolist()):
            name = block.bytes[start[index]:end[index]]
            if re.fullmatch(rb"\w{1,40}", name):
                self.understood += count
                self.report.skip(f"system call {name.decode()}", block.number + index, count)
            else:
                self.report.skip("not a line of strace", block.number + index, count)

    def _meetings(self, threads, lines):
        """Events of threads that were not seen before."""
        threads, first = np.unique(threads, return_index=True)
        events = [(line, self.handlers.meet, (thread,))
                  for thread, line in zip(threads.tolist(), lines[first].tolist()) if thread not in self.met]
        self.met.update(threads.tolist())
        return events

    # One line at a time: the access (as ACCESS) or the event (as for Calls.play) that it is, or None

    def _odd(self, line, thread, time, text):
        """Read a half of a call, or the end of a thread."""
        if text.endswith(UNFINISHED):
            return self._begin(line, thread, time, text[:-len(UNFINISHED)])
        if text.startswith(b"+++ "):
            self.ended.add(thread)
            return line, self.calls.happen, (line, thread, time, "exit", self.calls.exit, thread)
        name, _, rest = text[5:].partition(b" resumed>")
        begun = self.begun.get(thread, b"")
        if not begun.startswith(name + b"("):
            self.report.skip("second half of a call without its first", line)
            return None
        del self.begun[thread]
        if name == b"munmap":
            self.report.used["second halves of munmap"] += 1
            return None
        self.report.used["first halves of calls"] += 1
        return self._whole(line, thread, time, begun + rest)

    def _begin(self, line, thread, time, text):
        """Read the first half of a call, and wait for the second one."""
        self._lacks_second(self.begun.get(thread, b""), line)
        self.begun[thread] = text
        name, _, arguments = text.partition(b"(")
        if name in BIRTHS:
            return line, self.handlers.begin, (thread, shares_memory(name, arguments))
        return self._call(line, thread, time, asked(text + b")"), 0, None) if name == b"munmap" else None

    def _lacks_second(self, begun, line):
        """Count a first half whose second never came as skipped; a munmap was executed at its first half already."""
        if begun and not begun.startswith(b"munmap("):
            self.report.skip("first half of a call without its second", line)

    def _whole(self, line, thread, time, text):
        if found := parted(text):
            self.understood += 1
            return self._call(line, thread, time, *found)
        self.report.skip(_foreign(text), line)
        return None

    def _call(self, line, thread, time, call, result, failure):
        fault = call.fault if call.ignored or failure is None else f"{call.what} {failure}"
        if fault is not None:
            self.report.skip(fault, line)
            return (line, self.handlers.births.pop, (thread, None)) if failure and call.name in BIRTHS else None
        if call.what in PLACING:
            start, length, _ = call.values[2]
            return line, thread, start, length, time, thread, PLACING[call.what], False
        if result < 0:
            self.report.skip(f"malformed {call.what}", line)
            return None
        handler = self.handlers.of[call.name]
        return line, self.calls.happen, (line, thread, time, call.what, handler, thread, result, *call.values)


def _foreign(text):
    if not text:
        return "empty line"
    if text.startswith(b"--- "):
        return "signal"
    return "message of strace" if text.startswith((b"strace: ", b"[ Process")) else "not a line of strace"

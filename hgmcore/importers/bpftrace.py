"""Page faults, userfaultfd and mapping calls of a program and its children, recorded by bpftrace.

The recorder comes with the package; as root, with bpftrace 0.14 or later:

    RECORDER=$(python3 -c "from hgmcore.importers import bpftrace; print(bpftrace.RECORDER)")
    bpftrace -c "PROGRAM ARGUMENTS" -o LOG $RECORDER
    hgmcore import bpftrace LOG -o program.parquet

Its lines are `NANOSECONDS TGID TID EVENT ARGUMENTS`. It sees every access for which the kernel had to do
something, and the arguments of UFFDIO_CONTINUE, which strace may not show.

What becomes of it. A page fault is a `touch` of its address; UFFDIO_CONTINUE is a `continue`; UFFDIO_COPY and
UFFDIO_ZEROPAGE are a `touch` of each folio that they place, COPY one that writes; a fault that userfaultfd
answers with them is left out. mmap, munmap, mremap, mprotect, madvise, brk, fallocate, fork, execve and exit are
what the trace calls so. Memory of other files (libraries, data) is left out, as is what was mapped before the
recording began, or by execve itself. Failed userfaultfd calls are left out and counted.

Before an mprotect is seen, everything is taken to be mapped for reading and writing: a recorder that has none
(hgm.bt v1) does not tell that the stack of a thread, which is mapped for nothing, may then be used.

Folios are counted from the start of a mapping, and userfaultfd registers mappings as a whole. Lines stand in the
order in which processors handed them over, so that the clock may step back: the order of lines is kept.

A descriptor is of a file that is taken if memfd_create made it. Recordings that do not tell which descriptor
that gave (`# hgm.bt v1`) are read so that it is the next one that fallocate or a shared mmap names; that a
process copies the memory of its parent when its own first line stands there; and that mremap without a new address
did not move.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hgmcore.errnos import error_name
from hgmcore.importers.linux import (
    PF_WRITE,
    UFFDIO,
    UFFDIO_REGISTER_MODE_MINOR,
    UFFDIO_REGISTER_MODE_MISSING,
    UFFDIO_REGISTER_MODE_WP,
)
from hgmcore.importers.options import WAYS
from hgmcore.importers.parsers.bpftrace_events import Events
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.processes.accesses import ACCESS, CONTINUE, COPY, FAULT, ZEROPAGE
from hgmcore.importers.processes.calls import Calls
from hgmcore.importers.report import Report
from hgmcore.trace import NO_TIME, Trace, TraceError
from hgmcore.workloads import guest

RECORDER = str(Path(__file__).with_name("hgm.bt"))

explanation = __doc__ + "\n" + guest.__doc__

options = WAYS

PLACING = {3: COPY, 4: ZEROPAGE, 7: CONTINUE}
REGISTER, UNREGISTER = 0, 1
MODES = (UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_MINOR, UFFDIO_REGISTER_MODE_WP)

# userfaultfd calls and their results, to be brought together. result: of those that are one.
IOCTL = np.dtype([("line", "i8"), ("tid", "i8"), ("tgid", "i8"), ("time", "i8"), ("command", "u8"), ("a", "u8"),
                  ("b", "u8"), ("c", "u8"), ("is_result", "?"), ("result", "i8")])
AT = ["line", "tid", "tgid", "time"]


def read(stream, name, **given) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    log = _Log(name, given)
    for block in blocks(stream, log.report):
        log.feed(block)
    return log.trace(), log.report


class _Log:
    """Reads the lines of a recording, block by block, into a trace."""

    def __init__(self, name, given):
        self.name, self.report = name, Report("bpftrace", name)
        self.calls = Calls.of(self.report, given)
        self.events = Events(self.calls)
        self.waiting = np.zeros(0, dtype=IOCTL)  # userfaultfd calls without a result so far
        self.unanswered = self.steps_back = 0
        self.last_time = NO_TIME

    def feed(self, block):
        """Read the lines of a Block."""
        starts, ends = block.starts, block.ends
        first = block.find(" ", starts, ends)
        second = block.find(" ", first + 1, ends)
        event = block.find(" ", second + 1, ends) + 1
        rows, good = np.zeros(len(block), dtype=IOCTL), event <= ends
        rows["line"] = block.number + np.arange(len(block))
        for name, start, end, limit in (("time", starts, first, 1 << 63), ("tgid", first + 1, second, 1 << 31),
                                        ("tid", second + 1, event - 1, 1 << 31)):
            values, is_number = block.number_at(start, end)
            good &= is_number & (values < limit)
            rows[name] = np.where(good, values, 0)
        self._clock(rows["time"][good])
        fault, call, result = (good & block.begins(text, event) for text in (b"PF ", b"UFFD ", b"UFFDRET "))
        accesses = self._faults(block, rows[fault], event[fault], ends[fault])
        ioctls = [self._results(block, rows[result], event[result], ends[result]),
                  self._ioctls(block, rows[call], event[call], ends[call])]
        placed, events = self._answered(np.concatenate([self.waiting, *ioctls]), block.number)
        tgids, where = np.unique(rows["tgid"][good], return_index=True)
        events = self.events.meet(tgids.tolist(), rows["line"][good][where].tolist()) + events
        rare = np.flatnonzero(~(fault | call | result))
        columns = (column[rare].tolist() for column in (good, rows[AT], starts, event, ends))
        for is_good, at, start, begin, end in zip(*columns, strict=True):
            if is_good:
                events += self.events.read(block.bytes[begin:end], at)
            else:
                self.report.skip(_foreign(block.bytes[start:end]), at[0])
        accesses = np.concatenate([accesses, placed])
        self.calls.play(accesses, events)

    def trace(self) -> Trace:
        """The Trace of all lines that were read."""
        placed, events = self._answered(self.waiting, self.report.lines + 1, final=True)
        self.calls.play(placed, events)
        if self.last_time == NO_TIME:
            raise TraceError(self.name, "not a recording of hgm.bt: no line is of the form "
                                        "NANOSECONDS TGID TID EVENT")
        notes = self.report.notes
        if self.unanswered:
            notes.append(f"userfaultfd calls without a result in the recording: {self.unanswered}, taken as done")
        if self.steps_back:
            notes.append(f"steps back of the clock: {self.steps_back}; the order of lines is kept")
        return self.calls.trace(self.name, "bpftrace, system calls and page faults")

    def _clock(self, times):
        if len(times):
            self.steps_back += int((np.diff(times, prepend=self.last_time) < 0).sum())
            self.last_time = times[-1]

    # Page faults and userfaultfd, many lines at once. rows: IOCTL; event, ends: positions.

    def _faults(self, block, rows, event, ends):
        middle = block.find(" ", event + 3, ends)
        address, is_address = block.number_at(event + 3, middle, 16)
        code, is_code = block.number_at(middle + 1, ends, 16)
        rows, (address, code) = self._well_formed("PF", rows, is_address & is_code, address, code)
        return _accesses(rows, FAULT, address, 0, code & PF_WRITE != 0)

    def _ioctls(self, block, rows, event, ends):
        fields, good, start = [], True, event + 5
        for _ in range(4):
            end = block.find(" ", start, ends)
            value, is_number = block.number_at(start, end, 16)
            fields.append(value)
            good, start = good & is_number, end + 1
        rows, fields = self._well_formed("UFFD", rows, good & (start > ends), *fields)
        for name, values in zip(("command", "a", "b", "c"), fields):
            rows[name] = values
        return rows

    def _results(self, block, rows, event, ends):
        start = event + 8
        negative = block.data[start] == ord("-")
        value, good = block.number_at(start + negative, ends)
        rows, (value, negative) = self._well_formed("UFFDRET", rows, good & (value < 4096), value, negative)
        rows["is_result"], rows["result"] = True, np.where(negative, -value.astype(np.int64), value)
        return rows

    def _well_formed(self, event, rows, good, *columns):
        """The `good` rows with their columns; the report counts the others as skipped."""
        if not good.all():
            self.report.skip(f"malformed {event}", int(rows["line"][~good][0]), int((~good).sum()))
        return rows[good], [column[good] for column in columns]

    def _answered(self, rows, line, final=False):
        """(accesses, events) of the userfaultfd calls of which it is now known how they ended.

        A call takes place where its result stands; one that is followed by another of its thread, where it is
        itself, or at `line` if that was in an earlier block.
        """
        rows = rows[np.lexsort((rows["line"], rows["tid"]))]
        same = np.append(rows["tid"][1:] == rows["tid"][:-1], False)
        result, call = rows["is_result"], ~rows["is_result"]
        answered = call & same & np.append(result[1:], False)
        orphan = result & ~np.append(False, answered[:-1])
        known = answered | (call & same) | (call & final)
        self.waiting = rows[call & ~known]
        if orphan.any():
            self.report.skip("UFFDRET without its UFFD", int(rows["line"][orphan].min()), int(orphan.sum()))
        if answered.any():
            self.report.used["results of userfaultfd calls"] += int(answered.sum())
        self.unanswered += int((known & ~answered).sum())
        rows["result"][:-1][answered[:-1]] = rows["result"][1:][answered[:-1]]
        rows["line"][known] = np.maximum(rows["line"][known], line)
        rows["line"][:-1][answered[:-1]] = rows["line"][1:][answered[:-1]]
        known = np.flatnonzero(known)
        return self._ended(rows[known[np.argsort(rows["line"][known], kind="stable")]])

    def _ended(self, rows):
        failed = rows["result"] < 0
        placing = np.isin(rows["command"], list(PLACING)) & ~failed
        found = []
        for command, call in PLACING.items():
            some = rows[placing & (rows["command"] == command)]
            found.append(_accesses(some, call, some["a"], some["c" if call == COPY else "b"]))
        events = []
        for row in rows[~placing & ~failed & (rows["command"] <= UNREGISTER)].tolist():
            *at, command, start, length, modes, _, _ = row
            arguments = [bool(modes & mode) for mode in MODES] if command == REGISTER else []
            function = self.calls.register if command == REGISTER else self.calls.unregister
            events.append(self.events.happens(f"UFFDIO_{UFFDIO[command]}", at, function, start, length, *arguments))
        for which, how in ((failed, True), (~failed & ~placing & (rows["command"] > UNREGISTER), False)):
            kinds, first, counts = np.unique(rows[which][["command", "result"]], return_index=True, return_counts=True)
            for (command, result), at, count in zip(kinds.tolist(), first.tolist(), counts.tolist()):
                name = f"UFFDIO_{UFFDIO.get(command, hex(command))}"
                error = f" that failed with {error_name(-result)}" if how else ""
                self.report.skip(name + error, int(rows[which]["line"][at]), count)
        return np.concatenate(found), events


def _accesses(rows, call, address, length, write=False):
    found = np.zeros(len(rows), dtype=ACCESS)
    for name, source in (("line", "line"), ("space", "tgid"), ("time", "time"), ("thread", "tid")):
        found[name] = rows[source]
    found["call"], found["address"], found["length"], found["write"] = call, address, length, write
    return found


def _foreign(line):
    if not line:
        return "empty line"
    if line.startswith(b"#"):
        return "comment"
    return "what bpftrace says of itself" if line.startswith(b"Attach") else "not a line of hgm.bt"

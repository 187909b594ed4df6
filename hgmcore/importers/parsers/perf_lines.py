"""Lines that `perf script` and `perf trace` print, as arrays of page faults and a list of other events."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from hgmcore.importers.linux import KERNEL
from hgmcore.importers.parsers.lines import MARGIN
from hgmcore.trace import NO_TIME

# comm: index in Lines.commands. pid: -1 where the line has a thread's number alone.
FAULT = np.dtype([("line", "i8"), ("tid", "i8"), ("pid", "i8"), ("time", "i8"), ("address", "u8"), ("comm", "i8"),
                  ("write", "?")])

FILES = 1 << 60  # perf trace gives offsets in files; the importer places the first file at this address
FILE_SPAN = 1 << 36  # bytes from one file to the next

_PF_WRITE = 0x2
_LONGEST = 4096  # bytes of a line; a longer one is skipped where lines are read one at a time
_MOST_FILES = 1 << 20
_COMM = 16  # bytes of a command's name, at most
_WORD = MARGIN // 2  # bytes of the longest word, and of the longest gap between two words

_LINE = re.compile(rb"\s*(\S.*?)\s+(\d{1,9})(?:/(\d{1,9}))?\s+(?:\[\d+\]\s+)?(\d{1,9})\.(\d{3,9}):\s+(\S.*)")
_TRACE = re.compile(rb"\s*(\d{1,9})\.(\d{3}) \(.*?\): (\S.*?)/(\d{1,9}) (\S.*)")
_TRACE_FAULT = re.compile(rb"(?:min|maj)fault \[.*\] => (?:(\S.*)@)?0x([0-9a-f]{1,16}) \(..\)")


class Event(NamedTuple):
    """A line of perf script that is no page fault. pid: -1 where the line has a thread's number alone."""

    line: int
    tid: int
    pid: int
    time: int
    name: str
    arguments: bytes


class Lines:
    """The state of a recording that is being read.

    report: a Report. count: lines in one of perf's formats. commands: name of a command -> its index.
    """

    def __init__(self, report):
        self.report, self.count, self.from_trace, self.steps_back = report, 0, 0, 0
        self.commands: dict[bytes, int] = {}
        self._files: dict[bytes, int] = {}
        self._last_time = NO_TIME

    def read(self, block):
        """(array of FAULT, list of Event) of a Block, both in order."""
        tracepoint = block.find("exceptions:page_fault_", block.starts, block.ends)
        software = block.find("-faults:", block.starts, block.ends)
        where = np.flatnonzero((tracepoint < block.ends) | (software < block.ends))
        by_tracepoint = tracepoint[where] < block.ends[where]
        event = np.where(by_tracepoint, tracepoint[where], software[where])
        found, good = self._heads(block, where, event, by_tracepoint)
        is_address = self._addresses(block, found, event, block.ends[where], by_tracepoint)
        bad = good & ~is_address
        if bad.any():
            self.report.skip("page fault without address", int(found["line"][bad][0]), int(bad.sum()))
        rest = np.ones(len(block), dtype=bool)
        rest[where[good]] = False
        self.count += int(good.sum())
        faults, events = [found[good & is_address]], []
        for index in np.flatnonzero(rest).tolist():
            self._other(block.line(index), block.number + index, faults, events)
        found = np.concatenate(faults)
        if len(faults) > 1:
            found = found[np.argsort(found["line"], kind="stable")]
        return self._users(found), events

    def _heads(self, block, where, event, by_tracepoint):
        """(array of FAULT, which of them are good) of the text before the event: COMMAND TID [CPU] SECONDS.FRACTION:"""
        found = np.zeros(len(where), dtype=FAULT)
        found["line"] = block.number + where
        start, end = _before(block, np.where(by_tracepoint, event, _skip(block, event, False, -1) + 1))
        # What perf script calls the period of a sample may stand between the time and the event.
        is_time = block.data[end - 1] == ord(":")
        early, early_end = _before(block, start)
        start, end = np.where(is_time, start, early), np.where(is_time, end, early_end)
        found["time"], good = _time(block, start, end)
        start, end = _before(block, start)
        is_cpu = block.data[start] == ord("[")
        early, early_end = _before(block, start)
        start, end = np.where(is_cpu, early, start), np.where(is_cpu, early_end, end)
        slash = block.find("/", start, end)
        found["pid"], is_pid = block.number_at(start, np.minimum(slash, end))
        has_pid = slash < end
        found["tid"], is_tid = block.number_at(np.where(has_pid, slash + 1, start), end)
        found["pid"][~has_pid] = -1
        good &= is_pid & is_tid & (start >= block.starts[where]) & (found["tid"] < 1 << 31) & (found["pid"] < 1 << 31)
        end = _before(block, start)[1]
        good &= end > block.starts[where]
        found["comm"][good] = self._names(block, _first(block, block.starts[where[good]]), end[good])
        return found, good

    def _addresses(self, block, found, event, ends, by_tracepoint):
        """Fill address and write; return whether there is an address."""
        start = np.where(by_tracepoint, block.find("address=0x", event, ends) + 10, event + 8)
        user = block.data[start] == ord("u")  # page-faults:u:
        start = np.where(by_tracepoint, start, start + 2 * user)
        start = _first(block, start)
        end = block.find(" ", start, ends)
        found["address"], good = block.number_at(start, np.maximum(end, start), 16)
        code = block.find("error_code=0x", end, ends) + 13
        found["write"] = block.number_at(np.minimum(code, ends), ends, 16)[0] & np.uint64(_PF_WRITE) != 0
        # perf script without -F addr has the instruction there, and then a symbol: no second number.
        after = _first(block, end)
        is_number = block.number_at(after, np.maximum(block.find(" ", after, ends), after), 16)[1]
        return good & (start < ends) & (by_tracepoint | (after >= ends) | is_number)

    def _names(self, block, starts, ends):
        """Index in `commands` of the names in [start, end), of which the last 16 bytes count."""
        if not len(starts):
            return np.zeros(0, dtype=np.int64)
        text = block.windows(ends - _COMM, _COMM).view(np.uint8).reshape(-1, _COMM).copy()
        text[np.arange(_COMM) < _COMM - (ends - starts)[:, None]] = 0
        distinct, first, which = np.unique(text.view(f"V{_COMM}").ravel(), return_index=True, return_inverse=True)
        index = np.zeros(len(distinct), dtype=np.int64)
        for at in np.argsort(first).tolist():
            index[at] = self.command(bytes(distinct[at]).strip(b"\0"))
        return index[which]

    def command(self, name: bytes) -> int:
        """Index in `commands` of a name, new or known."""
        return self.commands.setdefault(name, len(self.commands))

    def _other(self, line, number, faults, events):
        """Read a line by itself."""
        if len(line) > _LONGEST:
            return self.report.skip(f"a line of more than {_LONGEST} bytes", number)
        if match := _TRACE.fullmatch(line):
            return self._traced(match, number, faults)
        if line[:1] == b"#":
            return self.report.skip("comment", number)
        match = _LINE.fullmatch(line)
        if match is None:
            in_chain = line[:1] in (b"\t", b" ") and line.strip()
            return self.report.skip("call chain, or not a line of perf" if in_chain else "not a line of perf"
                                    if line.strip() else "empty line", number)
        self.count += 1
        _, tid, thread, seconds, fraction, rest = match.groups()
        if len(seconds) > 9 or len(fraction) > 9:
            return self.report.skip("a time stamp that is larger than any can be", number)
        pid, tid = (int(tid), int(thread)) if thread else (-1, int(tid))
        name, _, arguments = rest.partition(b": ")
        if rest.startswith(b"PERF_RECORD_"):
            name, arguments = re.match(rb"(\w+)(.*)", rest).groups()
        time = int(seconds) * 10**9 + int(fraction.ljust(9, b"0"))
        events.append(Event(number, tid, pid, time, name.decode("utf-8", "backslashreplace").rstrip(":"), arguments))
        return None

    def _traced(self, match, number, faults):
        """A line of perf trace."""
        millis, micros, comm, tid, what = match.groups()
        self.count += 1
        fault = _TRACE_FAULT.fullmatch(what)
        if fault is None:
            return self.report.skip("system call that perf trace reports", number)
        address, name = int(fault[2], 16), fault[1]
        if name and name.startswith(b"/") and name != b"//anon":
            if len(self._files) == _MOST_FILES or address >= FILE_SPAN:
                return self.report.skip("page fault at an unlikely offset of a file", number)
            address += FILES + FILE_SPAN * self._files.setdefault(name, len(self._files))
        self.from_trace += 1
        time = int(millis) * 10**6 + int(micros) * 1000
        row = (number, int(tid), -1, time, address, self.command(comm[-_COMM:]), False)
        faults.append(np.array([row], dtype=FAULT))
        return None

    def _users(self, found):
        """The faults at addresses of users; the others are counted."""
        kernel = (found["address"] >= KERNEL) & (found["address"] < FILES) | (found["address"] >= FILES << 2)
        if kernel.any():
            self.report.skip("page fault at an address of the kernel", int(found["line"][kernel][0]), int(kernel.sum()))
            found = found[~kernel]
        if len(found):
            self.steps_back += int((np.diff(found["time"], prepend=self._last_time) < 0).sum())
            self._last_time = found["time"][-1]
        return found


def _is_blank(block, at):
    return block.data[at] <= ord(" ")


def _skip(block, at, blank, step):
    """The first position from each of `at` on, in steps of +1 or -1 and at most _WORD, that is not (blank or word)."""
    at = at.copy()
    for _ in range(_WORD):
        more = _is_blank(block, at) == blank
        if not more.any():
            break
        at[more] += step
    return at


def _first(block, at):
    """Where the first word at or after each position begins."""
    return _skip(block, at, True, 1)


def _before(block, at):
    """(start, end) of the last word that ends before each position."""
    last = _skip(block, at - 1, True, -1)
    return _skip(block, last, False, -1) + 1, last + 1


def _time(block, start, end):
    """(nanoseconds, whether it is a time) of SECONDS.FRACTION: in [start, end)."""
    dot = block.find(".", start, end)
    seconds, is_seconds = block.number_at(start, dot)
    fraction, is_fraction = block.number_at(dot + 1, np.maximum(end - 1, dot + 1))
    digits = (end - dot - 2).clip(0, 9)
    nanoseconds = seconds.astype(np.int64) * 10**9 + fraction.astype(np.int64) * 10**(9 - digits)
    good = is_seconds & is_fraction & (end - dot - 2 <= 9) & (block.data[end - 1] == ord(":")) & (seconds < 10**9)
    return np.where(good, nanoseconds, NO_TIME), good

"""perf: page faults, of one command as a guest or of all processes.

Read is what `perf script` prints of the tracepoints exceptions:page_fault_user and page_fault_kernel (bit 1 of
error_code: a write) and of the software event page-faults with addresses; what `perf trace -F all` prints of page
faults is read with as=guest. Further events of `perf script` that mean something with as=touch: mmap, munmap,
mremap, mprotect and madvise (sys_enter and sys_exit), sched_process_fork, _exec and _exit, and PERF_RECORD_FORK and
_EXIT. All others are counted and skipped: migrate:* and thp:* say what the kernel does by itself, and name the
thread that migrates, not the owner of the memory.

as=guest, the default: the faults of one command (`command`; by default that with the most), of all its processes
and threads, touch pages; what then becomes of them is told below. An address is one page in all of them, as it is
among forks. perf trace gives an offset in a file for what is not anonymous: each file lies in huge pages of its own.

as=touch: every process that maps memory of `kinds` is one of the trace, with its mmaps, forks and exits; a page
fault is a `touch`. Memory of files and of what was mapped before the recording began is left out, except in
`region`, ADDRESS+LENGTH: what faults there and is mapped by no recorded mmap is one file of hugetlb memory that
all processes share. Memory of MAP_HUGETLB needs no region. Before an mprotect is seen, everything is taken to be
mapped for reading and writing, since a recording without mprotect does not tell what is. Observations are evenly
spaced between all operations.

Whether sched_process_fork made a thread or a process is told by PERF_RECORD_FORK (perf script --show-task-events),
or by the child's first line where it has pid/tid, else guessed: a thread if its parent has mapped a stack since
its last fork.

Record it as root, so that faults within the kernel are there:

    perf record -e 'exceptions:page_fault_*,sched:sched_process_fork' \\
        -e 'sched:sched_process_ex*,syscalls:sys_enter_m*' \\
        -e 'syscalls:sys_exit_mmap,syscalls:sys_exit_mremap' PROGRAM
    perf script -F comm,pid,tid,cpu,time,event,trace --show-task-events |
        hgmcore import perf - -o program.parquet
"""

from __future__ import annotations

import re

import numpy as np

from hgmcore.importers.linux import KERNEL, MADVISE, MAP_STACK, PROT_READ, PROT_WRITE
from hgmcore.importers.options import WAYS, Option, way_of
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.parsers.perf_lines import Lines
from hgmcore.importers.processes.accesses import ACCESS, FAULT
from hgmcore.importers.processes.calls import PERMISSIONS, Calls
from hgmcore.importers.processes.mapper import File
from hgmcore.importers.report import Report
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import Trace, TraceError
from hgmcore.workloads import guest

explanation = __doc__ + "\n" + guest.__doc__

options = (
    Option("as", "guest", "guest: one command as a postcopied guest; touch: all processes as they are"),
    Option("command", None, "as=guest: the command to take, as perf names it; default: that with the most "
                                      "page faults"),
    Option("region", None, "as=touch: ADDRESS+LENGTH of shared hugetlb memory that no recorded mmap maps"),
    *WAYS[1:],
)

MOST_COMMANDS = 100

_FORK = re.compile(rb"\((\d{1,9}):(\d{1,9})\):\((\d{1,9}):(\d{1,9})\)")
_FIELD = re.compile(rb"(\w+)(?:: |=)(0x[0-9a-f]{1,16}|-?\d{1,18})\b")
_RESULT = re.compile(rb"\s*(0x[0-9a-f]{1,16}|-?\d{1,18})\s*")
_REGION = re.compile(r"(0x[0-9a-f]{1,14})\+(\w+)")


def read(stream, name, **given) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    report = Report("perf", name)
    way, given = way_of(given, "guest")
    for option, needed in (("command", "guest"), ("region", "touch")):
        if given.get(option) is not None and way != needed:
            raise ValueError(f"{option}: means nothing with as={way}")
    lines, taken = Lines(report), (_Guests if way == "guest" else _Processes)(report, **given)
    for block in blocks(stream, report):
        taken.take(*lines.read(block), lines)
    if not lines.count:
        raise TraceError(name, "not what perf script or perf trace prints: no line is of the form "
                               "COMMAND TID [CPU] SECONDS.MICROSECONDS: EVENT: ..")
    trace = taken.trace(name, lines)
    if lines.steps_back:
        report.notes.append(f"steps back of the clock: {lines.steps_back}; the order of lines is kept")
    return trace, report


class _Guests:
    """as=guest: a Guest for each command, of which one is taken."""

    def __init__(self, report, command=None, region=None, **options):
        self.report, self.command, self.options = report, command, options
        self.guests = {None: guest.Guest(**self.options)}  # so that a bad option is an error at once
        self.first: dict[int, int] = {}

    def take(self, faults, events, lines):
        for event in events:
            self.report.skip(f"event {event.name}", event.line)
        for comm in np.unique(faults["comm"]).tolist():
            chosen = faults[faults["comm"] == comm]
            if comm not in self.guests:
                name = list(lines.commands)[comm].decode("utf-8", "backslashreplace")
                self.first[comm] = int(chosen["line"][0])
                self.guests[comm] = self._new(name)
            if self.guests[comm] is None:
                self.report.skip("page fault of another command", int(chosen["line"][0]), len(chosen))
            else:
                pages = chosen["address"] // np.uint64(guest.PAGE)
                self.guests[comm].touch(pages, chosen["write"], chosen["tid"].astype(np.uint32), chosen["time"])

    def _new(self, name):
        """A Guest, or None for a command that the option `comm` leaves out."""
        if self.command not in (None, name) or len(self.guests) > MOST_COMMANDS:
            return None
        return guest.Guest(**self.options)

    def trace(self, name, lines):
        del self.guests[None]
        names = [each.decode("utf-8", "backslashreplace") for each in lines.commands]
        guests = {comm: made for comm, made in self.guests.items() if made is not None}
        if not guests:
            known = f" (there are {', '.join(names[:8])})" if names else ""
            of = f" of the command {quoted(self.command)}{known}" if self.command else ""
            what = ", ".join(reason for reason, _ in self.report.skipped.most_common(3))
            raise TraceError(name, f"no page fault{of} in {self.report.lines} lines{f' ({what})' if what else ''}: "
                                   "record exceptions:page_fault_user")
        best = max(guests, key=lambda comm: guests[comm].touches)
        taken = guests.pop(best)
        self.report.used["page faults"] = taken.touches
        for comm, other in guests.items():
            self.report.skip(f"page fault of another command, {names[comm]}", self.first[comm], other.touches)
        self.report.notes += taken.notes()
        return taken.trace(name, names[best], provenance={
            "recording": "perf, page faults", "command": names[best]})


class _Processes:
    """as=touch: all processes, their mappings and forks."""

    def __init__(self, report, command=None, region=None, observations=8, **options):
        self.report, self.calls = report, Calls(report, **options)
        self.calls.observations = parse_named("observations", observations)
        self.region = None if region is None else _region(region, self.calls.hugetlb)
        self.file = File("region", "hugetlb", self.calls.hugetlb)
        self.entered: dict[tuple[int, str], dict[str, int]] = {}  # (tid, call) -> its arguments
        self.stacked: set[int] = set()  # threads that mapped a stack since their last fork
        self.guessed: set[int] = set()  # children that were taken as processes without being told
        self.knows_mprotect = False
        self.wrong = 0

    def take(self, faults, events, lines):
        accesses = np.zeros(len(faults), dtype=ACCESS)
        for name, source in (("line", "line"), ("space", "tid"), ("address", "address"), ("time", "time"),
                             ("thread", "tid"), ("write", "write")):
            accesses[name] = faults[source]
        accesses["call"] = FAULT
        played = [(event.line, self._event, (event,)) for event in events]
        played += self._met(faults) + (self._in_region(accesses) if self.region else [])
        self.calls.play(accesses, played)

    def trace(self, name, lines):
        if lines.from_trace:
            self.report.notes.append("perf trace does not tell where files are mapped: as=touch needs perf script")
        if self.wrong:
            self.report.notes.append(f"threads that were taken as processes: {self.wrong}; perf script "
                                     "--show-task-events tells them apart")
        return self.calls.trace(name, "perf, page faults and system calls")

    def _met(self, faults):
        """Calls that make threads known by the first of their lines that has both numbers."""
        both = faults[(faults["pid"] >= 0) & (faults["pid"] != faults["tid"])]
        _, first = np.unique(both["tid"], return_index=True)
        return [(line, self._thread, (pid, tid))
                for line, pid, tid in zip(*(both[first][key].tolist() for key in ("line", "pid", "tid")))]

    def _thread(self, pid, tid):
        if tid not in self.calls.spaces:
            self.calls.thread_of(pid, tid)

    def _in_region(self, accesses):
        """Calls that map the region where a process first faults in it."""
        start, length = self.region
        inside = accesses[accesses["address"] - np.uint64(start) < length]
        _, first = np.unique(inside["space"], return_index=True)
        return [(line, self._map_region, (tid,))
                for line, tid in zip(inside["line"][first].tolist(), inside["space"][first].tolist())]

    def _map_region(self, tid):
        start, length = self.region
        space = self.calls.space(tid)
        if not space.overlapping(start, start + length):
            self.calls.attach(space, start, length, PERMISSIONS, True, self.file)

    def _event(self, event):
        """Execute an event, and count it as used or skipped."""
        calls = self.calls
        calls.line, calls.thread, calls.time = event.line, event.tid, event.time
        group, _, name = event.name.rpartition(":")
        fields = {key.decode(): int(value, 0) for key, value in _FIELD.findall(event.arguments)}
        try:
            if group == "syscalls":
                reason = self._call(event, name, fields)
            else:
                reason = self._task(event, name, fields)
        except KeyError:
            reason = f"malformed {event.name}"
        if reason is None:
            self.report.used[name.replace("sys_enter_", "").replace("sys_exit_", "")] += 1
        else:
            self.report.skip(reason, event.line)

    def _call(self, event, name, fields):
        """Execute a system call; None if the trace now contains it, else the reason why it does not."""
        calls, space = self.calls, self.calls.space(event.tid)
        if name in ("sys_enter_mmap", "sys_enter_mremap"):
            self.entered[event.tid, name[10:]] = fields
            return f"begin of {name[10:]}"
        if name in ("sys_exit_mmap", "sys_exit_mremap"):
            fields = self.entered.pop((event.tid, name[9:]), None)
            if fields is None:
                return f"{name[9:]} whose begin is not recorded"
            match = _RESULT.fullmatch(event.arguments)
            if match is None:
                return f"malformed {event.name}"
            result = int(match[1], 0) % (1 << 64)
            if result >= KERNEL:
                return f"{name[9:]} that failed"
            if name == "sys_exit_mremap":
                return calls.mremap(space, fields["addr"], fields["old_len"], fields["new_len"], result)
            if fields["flags"] & MAP_STACK:
                self.stacked.add(event.tid)
            prot = fields["prot"] if self.knows_mprotect else PROT_READ | PROT_WRITE
            return calls.mmap(space, result, fields["len"], prot, fields["flags"], fields["fd"], fields["off"])
        if name == "sys_enter_munmap":
            return calls.munmap(space, fields["addr"], fields["len"])
        if name == "sys_enter_mprotect":
            self.knows_mprotect = True
            return calls.mprotect(space, fields["start"], fields["len"], fields["prot"])
        if name == "sys_enter_madvise":
            advice = MADVISE.get(fields["behavior"], str(fields["behavior"]))
            return calls.madvise(space, fields["start"], fields["len_in"], advice)
        return f"event {event.name}"

    def _task(self, event, name, fields):
        """Execute a fork, exec or exit; None if the trace now contains it, else the reason why it does not."""
        if name == "PERF_RECORD_FORK" and (match := _FORK.fullmatch(event.arguments)):
            pid, tid, parent_pid, parent = map(int, match.groups())
            return self._fork(parent, tid, pid == parent_pid)
        if name == "sched_process_fork":
            parent, child = fields["pid"], fields["child_pid"]
            is_thread = parent in self.stacked
            if child not in self.calls.spaces and not is_thread:
                self.guessed.add(child)
            return self._fork(parent, child, is_thread)
        if name == "sched_process_exec":
            return self._answer(event.tid, "exec", lambda: self.calls.execve(event.tid))
        if name == "sched_process_exit":
            alone = event.tid in self.guessed and self.calls.space(event.tid).users == 1
            self.wrong += alone and b"group_dead=false" in event.arguments
            return self._answer(event.tid, "exit", lambda: self._exit(event.tid))
        if name == "PERF_RECORD_EXIT" and (match := _FORK.fullmatch(event.arguments)):
            return self._answer(int(match[2]), "exit", lambda: self._exit(int(match[2])))
        return f"event {event.name}"

    def _fork(self, parent, child, is_thread):
        self.stacked.discard(parent)
        if child in self.calls.spaces:
            return "fork that was told before"
        if is_thread:
            self.calls.thread_of(parent, child)
            return "fork of a thread"
        self.calls.fork(parent, child)
        return None if self.calls.spaces[child].process else "fork of a process that has mapped nothing of interest"

    def _exit(self, tid):
        self.guessed.discard(tid)
        self.stacked.discard(tid)
        self.calls.exit(tid)

    def _answer(self, tid, what, act):
        space = self.calls.spaces.get(tid)
        act()
        if space is None or space.process is None:
            return f"{what} of a process that has mapped nothing of interest"
        return f"{what} of a thread" if space.users else None


def _region(text, page):
    """(start, length) of ADDRESS+LENGTH."""
    match = _REGION.fullmatch(text)
    if match is None:
        raise ValueError(f"region: {quoted(text)} is not of the form 0xADDRESS+LENGTH")
    start, length = int(match[1], 16), parse_named("region", match[2])
    if not length or start % page or length % page:
        raise ValueError(f"region: {quoted(text)} is not at multiples of {format_size(page)}")
    return start, length

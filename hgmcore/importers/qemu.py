"""QEMU trace log of an incoming postcopy migration: the order in which guest memory arrived.

Every postcopy_place_page and postcopy_place_page_zero whose host address lies in the chosen RAM block becomes
a `continue` of one piece, at its offset in the block, in the order of the log. What came by UFFDIO_COPY or
UFFDIO_ZEROPAGE of base pages is what high-granularity mapping would do by UFFDIO_CONTINUE on a huge page. The
file is populated, mapped shared and minor, and split before; observations stand evenly spaced between the
pieces; one collapse of everything, and an observation, end the trace.

A piece is `urgent` if an access waited for it: the fault thread logged postcopy_ram_fault_thread_request for
its page before the page was placed. postcopy_page_req_add and _del are not used: they keep QEMU's set of open
requests, so they leave out a second thread that waits for the same page, and _del stands after
postcopy_place_page_zero but before postcopy_place_page of its page.

Threads are those that logged a placement. Times are the log's. Its lines stand in the order in which threads
wrote them, so that the clock may step back between two lines: the order of lines is kept.

Where RAM is of huge pages, a zero page is logged twice, as postcopy_place_page_zero and postcopy_place_page:
the second is skipped as placed already. Give `piece` the size of the recorded pages there.

Record it on the destination host:

    qemu-system-x86_64 ... -incoming tcp:0:4444 -msg timestamp=on \\
        -trace events=EVENTS,file=LOG       (EVENTS holds the line postcopy_*)
    hgmcore import qemu LOG -o guest.parquet
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from hgmcore import importers
from hgmcore.importers.lines import blocks
from hgmcore.importers.report import Report
from hgmcore.names import is_word
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import NO_TIME, Trace, TraceError
from hgmcore.workloads import guest_memory

explanation = __doc__

options = (
    importers.Option("block", None, "RAM block to take, as QEMU names it; default: the largest"),
    importers.Option("page_size", "1G", "huge page that the memory is mapped from"),
    importers.Option("piece", "4K", "page size of the recorded RAM: what one placement maps"),
    importers.Option("observations", 8, "observations before the one at the end, evenly spaced"),
    importers.Option("geometry", "x86-64", "page tables to map with"),
)

_PLACEMENT = np.dtype([("line", "i8"), ("host", "u8"), ("time", "i8"), ("thread", "u4")])
_MAX_THREAD, _MAX_SECONDS = 1 << 31, 10**10

_PLACE = (b"postcopy_place_page host=0x", b"postcopy_place_page_zero host=0x")
_EVENT = re.compile(rb"(?:(\d{1,9})@(\d{1,10})\.(\d{6}):)?([a-z]\w*)(?: (.*))?", re.DOTALL)
_RANGE = re.compile(rb"(.+): 0x([0-9a-f]{1,16}) offset=0x[0-9a-f]+ length=0x([0-9a-f]{1,16})")
_REQUEST = re.compile(rb"Request for HVA=0x[0-9a-f]+ rb=(.+) offset=0x([0-9a-f]{1,16})(?: pid=\d+)?")
_RANGE_EVENTS = (b"postcopy_init_range", b"postcopy_nhp_range", b"postcopy_cleanup_range")
_REQUEST_EVENT = b"postcopy_ram_fault_thread_request"


def read(stream, name, *, block=None, page_size="1G", piece="4K", observations=8,
         geometry="x86-64") -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    page_size, piece = parse_named("page_size", page_size), parse_named("piece", piece)
    observations = parse_named("observations", observations)
    if not piece or page_size % piece:
        raise ValueError(f"piece: {format_size(piece)} does not divide a page of {format_size(page_size)}")
    log = _Log(name)
    for lines in blocks(stream, log.report):
        log.feed(lines)
    ram = log.ram(block)
    placed, urgent = log.of(ram, piece)
    trace = guest_memory(
        name, placed["host"], piece, page_size=page_size, pages=-(-ram.length // page_size),
        geometry=geometry, observations=observations, urgent=urgent, thread=placed["thread"],
        time=placed["time"], process="qemu", memory=_word(ram.name),
        provenance={"recording": "QEMU trace log, incoming postcopy",
                    "ram_block": f"{ram.name}, {format_size(ram.length)}"})
    return trace, log.report


class _Ram(NamedTuple):
    """A RAM block. base: host virtual address. length: bytes."""

    name: str
    base: int
    length: int


class _Log:
    """What the lines of a log say, before it is known which RAM block is wanted."""

    def __init__(self, name):
        self.name, self.report = name, Report("qemu", name)
        self.rams: dict[str, _Ram] = {}
        self.placements = [np.zeros(0, dtype=_PLACEMENT)]
        self.requests: list[tuple[int, str, int]] = []  # line, RAM block, offset
        self.events = self.unstamped = self.steps_back = 0
        self.last_time = NO_TIME

    def feed(self, block):
        """Take the lines of a Block."""
        times = np.full(len(block), NO_TIME, dtype=np.int64)
        stamped = block.number_at(block.starts, block.starts + 1)[1]
        event = np.where(stamped, block.find(":", block.starts, block.ends) + 1, block.starts)
        address = np.zeros(len(block), dtype=np.int64)
        for text in _PLACE:
            address[block.begins(text, event)] = len(text)
        where = np.flatnonzero(address)
        self._place(block, where, stamped[where], event[where], event[where] + address[where], times)
        for index in np.flatnonzero(address == 0).tolist():
            times[index] = self._other(block.line(index), block.number + index)
        times = times[times != NO_TIME]
        if len(times):
            self.steps_back += int((np.diff(times, prepend=self.last_time) < 0).sum())
            self.last_time = times[-1]

    def _place(self, block, where, stamped, event, address, times):
        """Read the placements in the lines `where`: `event`, `address` are where these begin in each."""
        starts, ends = block.starts[where], block.ends[where]
        at, dot = block.find("@", starts, ends), event - 8
        found = np.zeros(len(where), dtype=_PLACEMENT)
        found["line"] = block.number + where
        found["host"], good = block.number_at(address, ends, 16)
        thread, is_thread = block.number_at(starts, at)
        seconds, is_seconds = block.number_at(at + 1, dot)
        micros, is_micros = block.number_at(dot + 1, event - 1)
        is_stamp = is_thread & is_seconds & is_micros & (block.data[dot] == ord("."))
        good &= ~stamped | (is_stamp & (thread < _MAX_THREAD) & (seconds < _MAX_SECONDS))
        found["thread"] = np.where(stamped, thread, 0)
        found["time"] = np.where(stamped, seconds * np.uint64(10**9) + micros * np.uint64(1000), NO_TIME)
        self._malformed("postcopy_place_page", found["line"][~good])
        found = found[good]
        times[where[good]] = found["time"]
        self.unstamped += int((~stamped[good]).sum())
        self.placements.append(found)

    def _other(self, line, number):
        """Read a line that places nothing, and return its time."""
        match = _EVENT.fullmatch(line)
        if match is None:
            self.report.skip("not a line of a QEMU trace log" if line else "empty line", number)
            return NO_TIME
        thread, seconds, micros, event, rest = match.groups()
        if event in _RANGE_EVENTS:
            self._range(rest or b"", number)
        elif event == _REQUEST_EVENT:
            self._request(rest or b"", number)
        elif event.startswith(b"postcopy_place_page"):
            self._malformed("postcopy_place_page", [number])
        elif thread is None:
            self.report.skip("not a line of a QEMU trace log", number)
            return NO_TIME
        else:
            self.report.skip(f"event {event.decode()}", number)
        self.events += 1
        self.unstamped += thread is None
        return NO_TIME if thread is None else int(seconds) * 10**9 + int(micros) * 1000

    def _range(self, text, number):
        match = _RANGE.fullmatch(text)
        if match is None:
            return self._malformed("postcopy_*_range", [number])
        ram = _Ram(_decoded(match[1]), int(match[2], 16), int(match[3], 16))
        if self.rams.setdefault(ram.name, ram) != ram:
            return self.report.skip("RAM block described differently before", number)
        self.report.used["descriptions of RAM blocks"] += 1

    def _request(self, text, number):
        match = _REQUEST.fullmatch(text)
        if match is None:
            return self._malformed(_REQUEST_EVENT.decode(), [number])
        self.requests.append((number, _decoded(match[1]), int(match[2], 16)))

    def _malformed(self, event, lines):
        if len(lines):
            self.report.skip(f"malformed {event}", int(lines[0]), len(lines))

    def ram(self, block) -> _Ram:
        """The RAM block named `block`, or the largest."""
        if not sum(map(len, self.placements)):
            if not self.events:
                raise TraceError(self.name, "not a QEMU trace log: no line is of the form "
                                            "TID@SECONDS.MICROSECONDS:EVENT")
            raise TraceError(self.name, f"no postcopy placement in {self.report.lines} lines: record the "
                                        "destination of a postcopy migration with the events postcopy_*")
        if not self.rams:
            raise TraceError(self.name, "no RAM block is described: record all events postcopy_* "
                                        "(postcopy_init_range and postcopy_nhp_range tell where RAM lies)")
        if block is None:
            return max(self.rams.values(), key=lambda ram: ram.length)
        if block not in self.rams:
            known = ", ".join(f"{ram.name} ({format_size(ram.length)})" for ram in self.rams.values())
            raise TraceError(self.name, f"no RAM block {quoted(block)} (it has {known})")
        return self.rams[block]

    def of(self, ram, piece):
        """(placements in `ram`, each page once, "host" relative to its base; which of them are urgent)."""
        placed = np.concatenate(self.placements)
        inside = placed["host"] - np.uint64(ram.base) < ram.length
        self._count_outside(placed[~inside])
        placed = placed[inside]
        placed["host"] -= np.uint64(ram.base)
        aligned = placed["host"] % piece == 0
        placed = self._keep(placed, aligned, f"placement not at a multiple of {format_size(piece)}")
        first = np.zeros(len(placed), dtype=bool)
        first[np.unique(placed["host"], return_index=True)[1]] = True
        placed = self._keep(placed, first, "page placed already")
        if not len(placed):
            raise TraceError(self.name, f"no placement lies in the RAM block {ram.name!r}")
        urgent = self._urgent(placed, ram, piece)
        self.report.used["placements"] = len(placed)
        self._notes(placed, piece)
        return placed, urgent

    def _count_outside(self, placed):
        """Count placements that lie in another RAM block, or in none."""
        for other in self.rams.values():
            inside = placed["host"] - np.uint64(other.base) < other.length
            placed = self._keep(placed, ~inside, f"placement in another RAM block, {other.name}")
        self._keep(placed, np.zeros(len(placed), dtype=bool), "placement outside every RAM block")

    def _keep(self, placed, good, reason):
        """The `good` placements; the others are counted as skipped."""
        if good.all():
            return placed
        self.report.skip(reason, int(placed["line"][~good][0]), int((~good).sum()))
        return placed[good]

    def _urgent(self, placed, ram, piece):
        """Which of `placed` an access waited for: a request for the page stands in an earlier line."""
        asked: dict[int, int] = {}
        for line, name, offset in self.requests:
            if name == ram.name:
                asked.setdefault(offset - offset % piece, line)
                self.report.used["requests by accesses"] += 1
            else:
                self.report.skip("request in another RAM block", line)
        order = np.argsort(placed["host"])
        pages = np.array(list(asked), dtype=np.uint64)
        there = order[np.searchsorted(placed["host"], pages, sorter=order).clip(max=len(order) - 1)]
        answered = placed["host"][there] == pages
        earlier = placed["line"][there] > np.array(list(asked.values()), dtype=np.int64)
        urgent = np.zeros(len(placed), dtype=bool)
        urgent[there[answered & earlier]] = True
        note = f"urgent placements: {urgent.sum()}; pages that accesses asked for: {len(asked)}"
        for lacking, what in ((~answered, "never placed"), (answered & ~earlier, "placed before")):
            note += f", {what}: {lacking.sum()}" if lacking.any() else ""
        self.report.notes.append(note)
        return urgent

    def _notes(self, placed, piece):
        notes = self.report.notes
        if self.steps_back:
            notes.append(f"steps back of the clock: {self.steps_back}; the order of lines is kept")
        if self.unstamped:
            notes.append(f"lines without TID@TIME: prefix: {self.unstamped}, taken as thread 0, no time; "
                         "-msg timestamp=on gives it")
        step = int(np.gcd.reduce(placed["host"]))
        if len(placed) > 1 and step > piece:
            notes.append(f"every placement is at a multiple of {format_size(step)}: if RAM is of such pages, "
                         f"give piece={format_size(step)}")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _word(name: str) -> str:
    """`name` as a word of a trace."""
    word = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return word if is_word(word) else f"_{word}"

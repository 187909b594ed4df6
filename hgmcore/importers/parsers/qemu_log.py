"""Events of a QEMU trace log that concern guest memory, for all RAM blocks; the importer chooses one afterwards."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from hgmcore.importers.parsers.lines import MARGIN
from hgmcore.importers.report import Report
from hgmcore.trace import NO_TIME
from hgmcore.workloads.guest import Spool, is_in

PLACE, DISCARD, BALLOON = 1, 2, 3

# host: host virtual address; of BALLOON the guest physical one. block: index in Log.blocks; -1 of PLACE.
EVENT = np.dtype([("line", "i8"), ("host", "u8"), ("length", "u8"), ("time", "i8"), ("thread", "u4"),
                  ("block", "i2"), ("kind", "u1"), ("", "V1")])  # a multiple of 8 bytes: aligned
PAGE_OF_BALLOON = np.dtype([("guest", "u8"), ("host", "u8")])  # its two addresses

_MAX_THREAD, _MAX_SECONDS = 1 << 31, 9 * 10**9
_MAX_BLOCKS = 64

# Frequent events: the text before the event's first field, and where that field begins.
_FREQUENT = (
    (b"postcopy_place_page host=0x", PLACE),
    (b"postcopy_place_page_zero host=0x", PLACE),
    (b"ram_block_discard_range ", DISCARD),
    (b"virtio_balloon_handle_output section name: ", BALLOON),
)
_SHORT = {PLACE: "postcopy_place_page", DISCARD: "ram_block_discard_range", BALLOON: "virtio_balloon_handle_output"}
_EVENT = re.compile(rb"(?:(\d{1,9})@(\d{1,10})\.(\d{6}):)?([a-z]\w*)(?: (.*))?", re.DOTALL)
_RANGE = re.compile(rb"(.+): 0x([0-9a-f]{1,16}) offset=0x[0-9a-f]+ length=0x([0-9a-f]{1,16})")
_REQUEST = re.compile(rb"Request for HVA=0x[0-9a-f]+ rb=(.+) offset=0x([0-9a-f]{1,16})(?: pid=\d+)?")
_TARGET = re.compile(rb"balloon target: 0x?([0-9a-f]{1,16}) num_pages: (\d{1,12})")
_RANGE_EVENTS = (b"postcopy_init_range", b"postcopy_nhp_range", b"postcopy_cleanup_range")
_REQUEST_EVENT = b"postcopy_ram_fault_thread_request"
_TARGET_EVENT = b"virtio_balloon_to_target"


class Ram(NamedTuple):
    """A RAM block. base: host virtual address. length: bytes."""

    name: str
    base: int
    length: int


class Log:
    """A log read so far. Its events lie in a temporary file: memory grows with the guest's, not with the log.

    rams: what *_range events describe, by name. blocks: names in other events. requests: of each RAM block, offset
    -> line where it was asked for first; asked: how often, in all. memory: bytes that the guest has with an empty
    balloon, 0 if no event tells. inflated: pages that were given to the balloon, in all; given: those of each block
    (by its index), once each, in order of guest address. ends: of each block, where the last discard ends.
    placements: whether there is any.
    """

    def __init__(self, name):
        self.name, self.report = name, Report("qemu", name)
        self.rams: dict[str, Ram] = {}
        self._names: list[bytes] = []
        self.requests: dict[str, dict[int, int]] = {}
        self.asked: Counter[str] = Counter()
        self.memory = self.lines = self.unstamped = self.steps_back = self.inflated = 0
        self.given: dict[int, np.ndarray] = {}
        self.ends = np.zeros(_MAX_BLOCKS, dtype=np.uint64)
        self.placements = False
        self._events, self._last = Spool(EVENT), np.zeros(0, dtype=EVENT)
        self._last_time = NO_TIME

    @property
    def blocks(self) -> list[str]:
        return list(map(decoded, self._names))

    def events(self) -> Spool:
        """All events, as arrays of EVENT in the order of lines, without the pages that went to the balloon."""
        self._events.extend(self._last)
        self._last = self._last[:0]
        return self._events

    def feed(self, block):
        """Take the lines of a Block."""
        times = np.full(len(block), NO_TIME, dtype=np.int64)
        stamped = block.number_at(block.starts, block.starts + 1)[1]
        event = np.where(stamped, block.find(":", block.starts, block.ends) + 1, block.starts)
        kind, field = np.zeros(len(block), dtype=np.uint8), event.copy()
        for text, number in _FREQUENT:
            begins = block.begins(text, event)
            kind[begins], field[begins] = number, event[begins] + len(text)
        where = np.flatnonzero(kind)
        self._frequent(block, where, kind[where], stamped[where], event[where], field[where], times)
        for index in np.flatnonzero(kind == 0).tolist():
            times[index] = self._other(block.line(index), block.number + index)
        times = times[times != NO_TIME]
        if len(times):
            self.steps_back += int((np.diff(times, prepend=self._last_time) < 0).sum())
            self._last_time = times[-1]

    def _frequent(self, block, where, kind, stamped, event, field, times):
        """Read the lines `where`; `event` and `field`: where the event and its first field begin in each line.

        A function that reads the fields of an event returns (columns of EVENT, which events are good).
        """
        found = np.zeros(len(where), dtype=EVENT)
        found["line"], found["kind"], found["block"] = block.number + where, kind, -1
        good = self._stamps(block, where, stamped, event, found)
        for number, fields in ((PLACE, _placement), (DISCARD, self._discard), (BALLOON, self._page)):
            chosen = np.flatnonzero(kind == number)
            if len(chosen):
                columns, is_good = fields(block, field[chosen], block.ends[where[chosen]])
                for name, column in columns.items():
                    found[name][chosen] = column
                good[chosen] &= is_good
                self._malformed(_SHORT[number], block.number + where[chosen[~good[chosen]]])
        if not good.all():
            where, stamped, found = where[good], stamped[good], found[good]
        times[where] = found["time"]
        self.lines += len(found)
        self.unstamped += int((~stamped).sum())
        self._keep(found)

    def _keep(self, found):
        """Keep events, without pages that go to the balloon: the log discards those in its next line."""
        self.placements |= bool((found["kind"] == PLACE).any())
        discards = found[found["kind"] == DISCARD]
        np.maximum.at(self.ends, discards["block"], discards["host"] + discards["length"])
        events = np.concatenate([self._last, found])
        first, second = events[:-1], events[1:]
        inflated = ((first["kind"] == BALLOON) & (second["kind"] == DISCARD) & (first["block"] == second["block"])
                    & (first["line"] + 1 == second["line"]) & (first["thread"] == second["thread"]))
        if inflated.any():
            self.inflated += int(inflated.sum())
            self._give(first[inflated], second["host"][inflated])
        self._events.extend(first[~inflated])
        self._last = events[-1:]

    def _give(self, events, host):
        """Remember the pages that go to the balloon; `host` of these events is a guest physical address."""
        for index in np.unique(events["block"]).tolist():
            known = self.given.get(index, np.zeros(0, dtype=PAGE_OF_BALLOON))
            of_block = events["block"] == index
            guest, first = np.unique(events["host"][of_block], return_index=True)
            new = ~is_in(guest, known["guest"])
            pages = np.zeros(int(new.sum()), dtype=PAGE_OF_BALLOON)
            pages["guest"], pages["host"] = guest[new], host[of_block][first[new]]
            self.given[index] = np.insert(known, np.searchsorted(known["guest"], pages["guest"]), pages)

    def _stamps(self, block, where, stamped, event, found):
        """Fill thread and time from TID@SECONDS.MICROSECONDS: and return which events have both."""
        starts, dot = block.starts[where], event - 8
        at = block.find("@", starts, block.ends[where])
        thread, is_thread = block.number_at(starts, at)
        seconds, is_seconds = block.number_at(at + 1, dot)
        micros, is_micros = block.number_at(dot + 1, event - 1)
        is_stamp = is_thread & is_seconds & is_micros & (block.data[dot] == ord("."))
        found["thread"] = np.where(stamped, thread, 0)
        found["time"] = np.where(stamped, seconds * np.uint64(10**9) + micros * np.uint64(1000), NO_TIME)
        return ~stamped | (is_stamp & (thread < _MAX_THREAD) & (seconds < _MAX_SECONDS))

    def _discard(self, block, field, ends):
        """`NAME@0xHOST + 0xLENGTH: madvise: 1 fallocate: 1 ret: 0`; a discard that failed counts as malformed."""
        at = block.find("@0x", field, ends)
        plus = block.find(" + 0x", at, ends)
        colon = block.find(":", plus, ends)
        host, is_host = block.number_at(at + 3, plus, 16)
        length, is_length = block.number_at(plus + 5, colon, 16)
        name, is_block = self._block(block, field, at)
        good = is_host & is_length & (length > 0) & is_block & block.begins(b" ret: 0", ends - 7)
        return {"host": host, "length": length, "block": name}, good

    def _page(self, block, field, ends):
        """`NAME gpa: 0xADDRESS`, after `section name: `."""
        gpa = block.find(" gpa: 0x", field, ends)
        address, is_address = block.number_at(gpa + 8, ends, 16)
        name, is_block = self._block(block, field, gpa)
        return {"host": address, "block": name}, is_address & is_block

    def _block(self, block, starts, ends):
        """(index of the RAM block that [start, end) names, whether the text is a name) for each line."""
        index, length = np.full(len(starts), -1), ends - starts
        left, at = (length > 0) & (length <= MARGIN), 0
        while left.any() and at < _MAX_BLOCKS:
            if at == len(self._names):
                first = int(np.argmax(left))
                self._names.append(block.bytes[starts[first]:ends[first]])
            text = self._names[at]
            same = left & (length == len(text)) & block.begins(text, starts)
            index[same] = at
            left &= ~same
            at += 1
        return index, index >= 0

    def _other(self, line, number):
        """Read a line of a rare event, and return its time."""
        match = _EVENT.fullmatch(line)
        if match is None:
            self.report.skip("not a line of a QEMU trace log" if line else "empty line", number)
            return NO_TIME
        thread, seconds, micros, event, rest = match.groups()
        if thread is not None and (int(seconds) >= _MAX_SECONDS or int(thread) >= _MAX_THREAD):
            self.report.skip("a time stamp or thread that is larger than any can be", number)
            return NO_TIME
        if event in _RANGE_EVENTS:
            self._range(rest or b"", number)
        elif event == _REQUEST_EVENT:
            self._request(rest or b"", number)
        elif event == _TARGET_EVENT:
            self._target(rest or b"", number)
        elif event.startswith(b"postcopy_place_page"):
            self._malformed("postcopy_place_page", [number])
        elif thread is None:
            self.report.skip("not a line of a QEMU trace log", number)
            return NO_TIME
        else:
            self.report.skip(f"event {event.decode()}", number)
        self.lines += 1
        self.unstamped += thread is None
        return NO_TIME if thread is None else int(seconds) * 10**9 + int(micros) * 1000

    def _range(self, text, number):
        match = _RANGE.fullmatch(text)
        if match is None:
            return self._malformed("postcopy_*_range", [number])
        ram = Ram(decoded(match[1]), int(match[2], 16), int(match[3], 16))
        if self.rams.setdefault(ram.name, ram) != ram:
            return self.report.skip("RAM block described differently before", number)
        self.report.used["descriptions of RAM blocks"] += 1

    def _request(self, text, number):
        match = _REQUEST.fullmatch(text)
        if match is None:
            return self._malformed(_REQUEST_EVENT.decode(), [number])
        name = decoded(match[1])
        self.asked[name] += 1
        self.requests.setdefault(name, {}).setdefault(int(match[2], 16), number)

    def _target(self, text, number):
        match = _TARGET.fullmatch(text)
        if match is None:
            return self._malformed(_TARGET_EVENT.decode(), [number])
        self.memory = max(self.memory, int(match[1], 16) + int(match[2]) * 4096)
        self.report.used["balloon targets"] += 1

    def _malformed(self, event, lines):
        if len(lines):
            self.report.skip(f"malformed {event}", int(lines[0]), len(lines))


def _placement(block, field, ends):
    """`host=0xHOST`."""
    host, good = block.number_at(field, ends, 16)
    return {"host": host}, good


def decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")

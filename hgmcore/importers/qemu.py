"""QEMU trace logs: memory that postcopy brought, and balloons.

One RAM block is a file of huge pages, mapped shared and minor, populated and split. In the order of the log,
at their offsets in the block:

  postcopy_place_page, _zero    `continue` of one piece
  ram_block_discard_range       `dontneed` of the pieces: QEMU punches a hole
                                and calls MADV_DONTNEED
  virtio_balloon_handle_output  of a page that was discarded: the balloon
                                gives it back, and the guest's next access,
                                taken to come at once, is a `touch`

What came by UFFDIO_COPY or UFFDIO_ZEROPAGE of base pages is what high-granularity mapping would do by
UFFDIO_CONTINUE on a huge page. What changes nothing (a piece placed that is there, a discard of what is not
mapped) is skipped. Observations stand evenly spaced; one collapse of everything, and an observation, end the
trace.

With `start=empty` nothing is mapped at first, so that discards before the first placement change nothing: this
is the default for a log with placements. With `start=mapped`, the default without, all memory is mapped in
pieces at first, in order of address, as after a precopy, and the first discard, if it is of the whole block, is
QEMU's preparation and left out. Without placements memory is unregistered before the rest, so that touches are
page faults and not events.

A piece is `urgent` if an access waited for it: the fault thread logged postcopy_ram_fault_thread_request for
its page before the page was placed. postcopy_page_req_add and _del are not used: they keep QEMU's set of open
requests, so they leave out a second thread that waits for the same page, and _del stands after
postcopy_place_page_zero but before postcopy_place_page of its page.

The offset of an address is its distance from where postcopy_init_range or postcopy_nhp_range says that the
block begins, which need not be at a multiple of a huge page. Without these events a balloon's log tells it: an
inflated page is logged with its guest address, and then with its host address in the discard.

Threads are those that logged. Times are the log's. Its lines stand in the order in which threads wrote them, so
that the clock may step back between two lines: the order of lines is kept.

Where RAM is of huge pages, a zero page is logged twice, as postcopy_place_page_zero and postcopy_place_page:
the second is skipped as there already. Give `piece` the size of the recorded pages there.

Record it on the destination host, or for a balloon on the only one:

    qemu-system-x86_64 ... -incoming tcp:0:4444 -msg timestamp=on \\
        -trace events=EVENTS,file=LOG
    # EVENTS: the lines postcopy_*, ram_block_discard_range, virtio_balloon_*
    hgmcore import qemu LOG -o guest.parquet
"""

from __future__ import annotations

import numpy as np

from hgmcore.importers.options import Option
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.parsers.qemu_log import BALLOON, DISCARD, PAGE_OF_BALLOON, PLACE, Log, Ram
from hgmcore.importers.report import Report
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import NO_TIME, Trace, TraceError
from hgmcore.trace.statements import CODES, URGENT
from hgmcore.trace.writer import Writer
from hgmcore.workloads.guest import MOST_PIECES, PART, Spool, continues, guest_memory, is_in, too_many

explanation = __doc__

options = (
    Option("block", None, "RAM block to take, as QEMU names it; default: the largest"),
    Option("page_size", "1G", "huge page that the memory is mapped from"),
    Option("piece", "4K", "page size of the recorded RAM: what one placement maps"),
    Option("start", None, "what is mapped at first: empty, or mapped; default: empty if anything is placed"),
    Option("observations", 8, "observations before the one at the end, evenly spaced"),
    Option("geometry", "x86-64", "page tables to map with"),
)

_OPERATION = np.zeros(4, dtype=np.uint8)
_OPERATION[[PLACE, DISCARD, BALLOON]] = CODES["continue"], CODES["dontneed"], CODES["touch"]
_CHUNK = 1 << 16  # pieces
_MANY = 32  # pieces; a discard of more is taken by itself


def read(stream, name, *, block=None, page_size="1G", piece="4K", start=None, observations=8,
         geometry="x86-64") -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    page_size, piece = parse_named("page_size", page_size), parse_named("piece", piece)
    observations = parse_named("observations", observations)
    if not piece or not page_size or page_size % piece:
        raise ValueError(f"piece: {format_size(piece)} does not divide a page of {format_size(page_size)}")
    if start not in (None, "empty", "mapped"):
        raise ValueError(f"start: {quoted(start)} is not one of empty, mapped")
    writer, log = Writer(geometry), Log(name)
    for lines in blocks(stream, log.report):
        log.feed(lines)
    memory = _Memory(log, block, piece, start)
    parts, ram = memory.parts(), memory.ram
    pages = -(-ram.length // page_size)
    guest_memory(writer, parts, len(parts), before=memory.before(), page_size=page_size, pages=pages,
                 observations=observations, process="qemu", memory=ram.name)
    what = "incoming postcopy" if memory.is_postcopy else "balloon"
    return writer.trace(name, {"recording": f"QEMU trace log, {what}",
                             "ram_block": f"{ram.name}, {format_size(ram.length)}"}), log.report


class _Memory:
    """The operations on one RAM block that the events of a log stand for."""

    def __init__(self, log, block, piece, start):
        self.log, self.report, self.piece = log, log.report, piece
        self.is_postcopy = log.placements
        self.mapped = start == "mapped" if start else not self.is_postcopy
        self.events = log.events()
        self.ram = self._ram(block)
        if log.inflated:
            self.report.used["pages given to the balloon"] = log.inflated
        pieces = -(-self.ram.length // piece)
        if pieces > MOST_PIECES:
            raise TraceError(log.name, f"RAM block {quoted(self.ram.name)} has {pieces:,} pieces of "
                                       f"{format_size(piece)}, more than {MOST_PIECES:,}")
        if self.mapped and too_many(pieces, log.report.lines):
            raise TraceError(log.name, f"RAM block {quoted(self.ram.name)}, mapped at first, has {pieces:,} pieces of "
                                       f"{format_size(piece)}, too many for a log of {log.report.lines:,} lines: "
                                       "choose a larger piece, or start=empty")
        self.changed = np.zeros(pieces, dtype=bool)  # whether a piece is mapped if it was not at first, or vice versa
        asked: dict[int, int] = {}
        for offset, line in log.requests.get(self.ram.name, {}).items():
            asked.setdefault(offset - offset % piece, line)
        # Of each page that an access asked for: where it is, the line of the first request, whether it was placed.
        self.asked = np.array(sorted(asked), dtype=np.uint64)
        self.line = np.array([asked[page] for page in sorted(asked)], dtype=np.int64)
        self.answered = np.zeros(len(asked), dtype=bool)
        self.early = self.urgent = 0

    def before(self):
        """Parts that come before the log's: what maps everything, if it starts so."""
        pieces = self.ram.length // self.piece if self.mapped else 0
        for first in range(0, pieces, _CHUNK):
            yield continues(np.arange(first, min(first + _CHUNK, pieces)) * self.piece, self.piece)
        if self.mapped and not self.is_postcopy:
            unregister = np.zeros(1, dtype=PART)
            unregister["operation"]["op"] = CODES["unregister"]
            unregister["time"] = NO_TIME
            yield unregister

    def parts(self) -> Spool:
        """The operations on the block. Raises TraceError where there is none."""
        spool, used, step, begun = Spool(PART), np.zeros(len(_OPERATION), dtype=np.int64), 0, False
        for events in self.events:
            events = self._inside(events)
            if self.mapped and not begun and len(events) and self._is_preparation(events[0]):
                self.report.skip("discard of the whole block before it is filled", int(events["line"][0]))
                events, begun = events[1:], True
            begun |= len(events) > 0
            events = self._effective(events)
            kinds = events["kind"]
            parts = np.zeros(len(events), dtype=PART)
            operation = parts["operation"]
            operation["offset"], parts["thread"], parts["time"] = events["host"], events["thread"], events["time"]
            operation["length"] = np.where(kinds == PLACE, self.piece, events["length"])
            operation["op"] = _OPERATION[kinds]
            placed = np.flatnonzero(kinds == PLACE)
            host = events["host"][placed]
            operation["flags"][placed[self._urgent(host, events["line"][placed])]] = URGENT
            spool.extend(parts)
            used += np.bincount(kinds, minlength=len(used))
            step = int(np.gcd.reduce(host, initial=step))
        if not len(spool):
            what = "placement" if self.is_postcopy else "discard"
            raise TraceError(self.log.name, f"no {what} lies in the RAM block {self.ram.name!r}")
        for kind, what in ((PLACE, "placements"), (DISCARD, "discards"), (BALLOON, "pages that the balloon gave back")):
            if used[kind]:
                self.report.used[what] = int(used[kind])
        self._notes(int(used[PLACE]), step)
        return spool

    def _ram(self, block) -> Ram:
        """The RAM block named `block`, or the largest."""
        log = self.log
        if not len(self.events):
            if not log.lines:
                raise TraceError(log.name, "not a QEMU trace log: no line is of the form "
                                           "TID@SECONDS.MICROSECONDS:EVENT")
            raise TraceError(log.name, f"no postcopy placement and no discard in {log.report.lines} lines: record the "
                                       "destination of a postcopy migration with the events postcopy_*, or a balloon "
                                       "with virtio_balloon_* and ram_block_discard_range")
        rams = log.rams or self._derived()
        if not rams:
            raise TraceError(log.name, "no RAM block is described: record all events postcopy_* "
                                       "(postcopy_init_range and postcopy_nhp_range tell where RAM lies)")
        if block is None:
            return max(rams.values(), key=lambda ram: ram.length)
        if block not in rams:
            known = ", ".join(f"{ram.name} ({format_size(ram.length)})" for ram in rams.values())
            raise TraceError(log.name, f"no RAM block {quoted(block)} (it has {known})")
        return rams[block]

    def _derived(self):
        """RAM blocks as a balloon's log tells them, by name.

        Guest memory that lies above a hole in the guest's addresses has a smaller distance between the two
        addresses; so the largest is that of the block's begin.
        """
        rams = {}
        for index, name in enumerate(self.log.blocks):
            pages = self.log.given.get(index, np.zeros(0, dtype=PAGE_OF_BALLOON))
            pages = pages[pages["host"] >= pages["guest"]]
            if len(pages):
                base = int((pages["host"] - pages["guest"]).max())
                length = max(int(self.log.ends[index]) - base, self.log.memory)
                rams[name] = Ram(name, base, -(-length // self.piece) * self.piece)
        return rams

    def _inside(self, events):
        """Events of the block, "host" relative to its base; the rest is counted as skipped."""
        ram, names = self.ram, self.log.blocks
        for index, name in enumerate(names):
            if name != ram.name:
                events = self._keep(events, events["block"] != index, f"event of another RAM block, {name}")
        events = self._balloon_to_host(events)
        inside = events["host"] - np.uint64(ram.base) < ram.length
        placed = events["kind"] == PLACE
        for other in self.log.rams.values():
            if other != ram:
                there = placed & (events["host"] - np.uint64(other.base) < other.length)
                events = self._keep(events, ~there, f"placement in another RAM block, {other.name}")
                inside, placed = inside[~there], placed[~there]
        events = self._keep(events, inside | ~placed, "placement outside every RAM block")
        inside = inside[inside | ~placed]
        events = self._keep(events, inside, "address outside the RAM block")
        events["host"] -= np.uint64(ram.base)
        end = events["host"] + events["length"]
        is_whole = (events["host"] % self.piece == 0) & (end % self.piece == 0) & (end <= ram.length)
        placed = events["kind"] == PLACE
        events = self._keep(events, is_whole | ~placed, f"placement not at a multiple of {format_size(self.piece)}")
        is_whole = is_whole[is_whole | ~placed] | (events["kind"] == BALLOON)
        return self._keep(events, is_whole, f"discard not at multiples of {format_size(self.piece)}")

    def _balloon_to_host(self, events):
        """Give pages of the balloon their host address: at the distance of the nearest inflated page below."""
        of_balloon = np.flatnonzero(events["kind"] == BALLOON)
        if not len(of_balloon):
            return events
        names = self.log.blocks
        pages = self.log.given.get(names.index(self.ram.name)) if self.ram.name in names else None
        if pages is None:
            return self._keep(events, events["kind"] != BALLOON,
                              "page of a balloon whose host address no discard tells")
        below = np.searchsorted(pages["guest"], events["host"][of_balloon], side="right") - 1
        distance = (pages["host"] - pages["guest"])[below.clip(min=0)]
        events["host"][of_balloon] += distance
        return events

    def _effective(self, events):
        """The events that change a mapping; the report counts the others."""
        count = np.maximum(events["length"] // np.uint64(self.piece), 1).astype(np.int64)
        piece, maps = (events["host"] // np.uint64(self.piece)).astype(np.int64), events["kind"] != DISCARD
        effective, start = np.zeros(len(events), dtype=bool), 0
        for large in [*np.flatnonzero(count > _MANY).tolist(), len(events)]:
            few = slice(start, large)
            effective[few] = self._change(piece[few], count[few], maps[few])
            if large < len(events):
                changed = self.changed[piece[large]:piece[large] + count[large]]
                effective[large] = (changed != self.mapped).any()
                changed[:] = self.mapped
            start = large + 1
        if effective.all():
            return events
        kinds = events["kind"]
        for kind, reason in ((PLACE, "page placed already"), (DISCARD, "discard of what is not mapped"),
                             (BALLOON, "page of the balloon that is mapped")):
            vain = np.flatnonzero(~effective & (kinds == kind))
            if len(vain):
                self.report.skip(reason, int(events["line"][vain[0]]), len(vain))
        return events[effective]

    def _change(self, piece, count, maps):
        """Map, or unmap, `count` pieces from `piece` on, one after the other; returns which changed anything."""
        of_event = np.arange(len(piece))
        if count.max(initial=1) > 1:
            of_event = np.repeat(of_event, count)
            piece = np.repeat(piece - (np.cumsum(count) - count), count) + np.arange(len(of_event))
        order = np.argsort(piece, kind="stable")  # of each piece, in the order of events
        piece, of_event = piece[order], of_event[order]
        is_mapped = maps[of_event]
        was_mapped = np.concatenate([[False], is_mapped[:-1]])[:len(piece)]
        border = np.flatnonzero(np.diff(piece, prepend=-1, append=-1))  # where another piece begins, and the end
        first, last = border[:-1], border[1:] - 1
        was_mapped[first] = self.changed[piece[first]] != self.mapped
        self.changed[piece[last]] = is_mapped[last] != self.mapped
        effective = np.zeros(len(maps), dtype=bool)
        effective[of_event[was_mapped != is_mapped]] = True
        return effective

    def _is_preparation(self, event):
        return event["kind"] == DISCARD and event["host"] == 0 and event["length"] == self.ram.length

    def _keep(self, events, good, reason):
        """The `good` events; the report counts the others as skipped."""
        if good.all():
            return events
        self.report.skip(reason, int(events["line"][~good][0]), int((~good).sum()))
        return events[good]

    def _urgent(self, host, line):
        """Which placements were urgent: an access waited, because an earlier line requests the page."""
        of_interest = np.flatnonzero(is_in(host, self.asked))
        distinct, first = np.unique(host[of_interest], return_index=True)
        which = np.searchsorted(self.asked, distinct)
        new = ~self.answered[which]
        which, there = which[new], of_interest[first[new]]
        self.answered[which] = True
        earlier = line[there] > self.line[which]
        self.early += int((~earlier).sum())
        self.urgent += int(earlier.sum())
        return there[earlier]

    def _notes(self, placements, step):
        notes, log = self.report.notes, self.log
        for name, count in log.asked.items():
            if name == self.ram.name:
                self.report.used["requests by accesses"] = count
            else:
                self.report.skip("request in another RAM block", min(log.requests[name].values()), count)
        if placements:
            note = f"urgent placements: {self.urgent}; pages that accesses asked for: {len(self.answered)}"
            for lacking, what in (((~self.answered).sum(), "never placed"), (self.early, "placed before")):
                note += f", {what}: {lacking}" if lacking else ""
            notes.append(note)
        if log.steps_back:
            notes.append(f"steps back of the clock: {log.steps_back}; the order of lines is kept")
        if log.unstamped:
            notes.append(f"lines without TID@TIME: prefix: {log.unstamped}, taken as thread 0, no time; "
                         "-msg timestamp=on gives it")
        if placements > 1 and step > self.piece:
            notes.append(f"every placement is at a multiple of {format_size(step)}: if RAM is of such pages, "
                         f"give piece={format_size(step)}")

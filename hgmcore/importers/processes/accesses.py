"""Arrays of page faults and userfaultfd placements, and the operations of a trace that are made of them."""

from __future__ import annotations

import numpy as np

from hgmcore.importers.linux import KERNEL
from hgmcore.importers.processes.address_space import PLACE
from hgmcore.sizes import format_size
from hgmcore.trace.statements import CODES, WRITE
from hgmcore.trace.writer import ROW

PAGE = 4096  # bytes that recorded addresses are multiples of

# line: of the recording. space: key of an address space, as in `Calls.spaces`. length: bytes, of a placement.
# call: index in CALLS. write: of a page fault.
ACCESS = np.dtype([("line", "i8"), ("space", "i8"), ("address", "u8"), ("length", "u8"), ("time", "i8"),
                   ("thread", "u4"), ("call", "u1"), ("write", "?")])
CALLS = ("page fault", "UFFDIO_COPY", "UFFDIO_ZEROPAGE", "UFFDIO_CONTINUE")
FAULT, COPY, ZEROPAGE, CONTINUE = range(len(CALLS))

OUTSIDE = "outside any mapping that the recording shows"
BEYOND = "at addresses that no process has"
MOST = 1 << 33  # bytes; a longer placement is skipped as implausible
_ROWS = 1 << 20  # operations that are made at once, to bound memory


class Turns:
    """Accesses between calls: an access is located in the address space as it is then, and many are written at once.

    accesses: array (n,) of ACCESS. calls: ascending line numbers of calls; a call precedes an access of the same line.
    space: function from a key to its AddressSpace. writer: the Writer to which calls write operations meanwhile.
    """

    def __init__(self, accesses, calls, space, writer):
        self.space, self.writer = space, writer
        # Accesses between the same two calls are located together if they are of one address space.
        stretch = np.searchsorted(calls, accesses["line"], side="right")
        order = np.lexsort((accesses["line"], accesses["space"], stretch))
        accesses, stretch = accesses[order], stretch[order]
        new = (np.diff(accesses["space"]) != 0) | (np.diff(stretch) != 0)
        last = np.flatnonzero(np.append(new, True)[:len(accesses)])
        self.groups = zip((last + 1).tolist(), accesses["space"][last].tolist(), strict=True)
        self.stops = np.searchsorted(stretch, np.arange(len(calls) + 1), side="right").tolist()
        self.accesses, self.addresses = accesses, accesses["address"].copy()
        self.places = np.zeros(len(accesses), dtype=PLACE)
        self.before = np.zeros(len(accesses), dtype=np.int64)  # operations that precede each access
        self.reached = self.taken = 0

    def reach(self, call) -> None:
        """Locate the accesses that precede call number `call`, or all that are left if there is no such call."""
        start, stop = self.reached, self.stops[call]
        if start == stop:
            return
        self.before[start:stop] = len(self.writer)
        while start < stop:
            end, key = next(self.groups)
            self.places[start:end] = self.space(key).locate(self.addresses[start:end])
            start = end
        self.reached = stop

    def take(self):
        """(accesses, places, before) of the accesses that were located since the last `take`, in the order of lines."""
        part = slice(self.taken, self.reached)
        self.taken = self.reached
        found = self.accesses[part], self.places[part], self.before[part]
        if (np.diff(found[0]["line"]) >= 0).all():
            return found
        order = np.argsort(found[0]["line"], kind="stable")
        return tuple(column[order] for column in found)


def write(accesses, places, before, writer, report) -> None:
    """Write accesses to `writer`, as operations on the mappings in which they lie.

    accesses: array (n,) of ACCESS. places: PLACE of each. before: how many operations precede each, ascending.
    `report` counts the accesses that are used and those that lie in no mapping of the trace.
    """
    plausible = _plausible(accesses, report)
    accesses, places, before = accesses[plausible], places[plausible], before[plausible]
    outside, untaken = places["end"] == 0, places["mapping"] < 0
    answered = (accesses["call"] == FAULT) & places["missing"] & ~untaken
    for which, reason in ((outside, OUTSIDE), (untaken & ~outside, "in memory that is not taken"),
                          (answered, "which userfaultfd answers")):
        _skip(accesses[which], reason, report)
    taken = ~(untaken | answered)
    accesses, places, before = accesses[taken], places[taken], before[taken]
    if not len(accesses):
        return
    count_used(accesses, report)
    placed = (accesses["call"] == COPY) | (accesses["call"] == ZEROPAGE)
    folios = np.where(placed, np.maximum(accesses["length"] // places["folio"], 1), 1)
    before, others = before - before[0], writer.cut(int(before[0]))
    for row, step in repeated(folios):
        made, where = _operations(accesses[row], places[row], step), before[row]
        until = where[-1]
        merged = np.insert(others[:until], where, made) if until else made
        writer.extend(merged["operation"], merged["thread"], merged["time"])
        others, before = others[until:], before - until
    writer.extend(others["operation"], others["thread"], others["time"])


def touch(accesses, guest, report) -> None:
    """Let accesses touch the pages of a `guest.Guest`; one address is the same page in all processes."""
    accesses = accesses[_plausible(accesses, report)]
    count_used(accesses, report)
    first = accesses["address"] // np.uint64(PAGE)
    last = (accesses["address"] + np.maximum(accesses["length"], 1) - np.uint64(1)) // np.uint64(PAGE)
    written = (accesses["call"] == COPY) | accesses["write"]
    for row, step in repeated(last - first + np.uint64(1)):
        guest.touch(first[row] + step, written[row], accesses["thread"][row], accesses["time"][row])


def _plausible(accesses, report):
    """For each access, whether a process can have made it; the report counts the others."""
    beyond = (accesses["address"] >= KERNEL) | (accesses["length"] > KERNEL - accesses["address"])
    large = ~beyond & (accesses["length"] > MOST)
    for which, reason in ((beyond, BEYOND), (large, f"of more than {format_size(MOST)} at once")):
        _skip(accesses[which], reason, report)
    return ~(beyond | large)


def _skip(accesses, reason, report):
    """Count accesses as skipped, each under the name of its call."""
    for number in np.unique(accesses["call"]).tolist():
        lines = accesses["line"][accesses["call"] == number]
        report.skip(f"{CALLS[number]} {reason}", int(lines[0]), len(lines))


def count_used(accesses, report):
    """Count accesses as used, each under the name of its call."""
    for number, count in enumerate(np.bincount(accesses["call"], minlength=len(CALLS)).tolist()):
        if count:
            report.used[CALLS[number]] += count


def _operations(accesses, places, step):
    """ROW of each access: an operation on the folio that lies `step` folios behind the first one of the access."""
    continued = accesses["call"] == CONTINUE
    rows = np.zeros(len(accesses), dtype=ROW)
    records, rows["thread"], rows["time"] = rows["operation"], accesses["thread"], accesses["time"]
    records["op"] = np.where(continued, CODES["continue"], CODES["touch"])
    records["target"] = places["mapping"]
    page = accesses["address"] & ~np.uint64(PAGE - 1)
    records["offset"] = page + places["shift"] + step * places["folio"]
    records["length"] = np.where(continued, accesses["length"], 0)
    records["flags"] = np.where((accesses["call"] == COPY) | accesses["write"], WRITE, 0)
    return rows


def repeated(counts):
    """Yield (row, step): row i stands counts[i] times, with the steps 0, 1, .. counts[i] - 1.

    A part has about _ROWS rows at most, or the repetitions of a single row.
    """
    if counts.max(initial=1) == 1:
        yield slice(None), np.uint64(0)
        return
    counts = counts.astype(np.int64)
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _ROWS)) + 1
    for rows in np.split(np.arange(len(counts)), cuts):
        times = counts[rows]
        row = np.repeat(rows, times)
        yield row, (np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)).astype(np.uint64)

"""What page faults and userfaultfd placements, in arrays, become in a trace."""

from __future__ import annotations

import numpy as np

from hgmcore.importers.address_space import PLACE
from hgmcore.importers.linux import KERNEL
from hgmcore.sizes import format_size
from hgmcore.statements import CODES, OPERATION, WRITE

PAGE = 4096  # bytes that recorded addresses are multiples of

# line: of the recording. space: key of an address space, as in `Calls.spaces`. length: bytes, of a placement.
# call: index in CALLS. write: of a page fault.
ACCESS = np.dtype([("line", "i8"), ("space", "i8"), ("address", "u8"), ("length", "u8"), ("time", "i8"),
                   ("thread", "u4"), ("call", "u1"), ("write", "?")])
CALLS = ("page fault", "UFFDIO_COPY", "UFFDIO_ZEROPAGE", "UFFDIO_CONTINUE")
FAULT, COPY, ZEROPAGE, CONTINUE = range(len(CALLS))

OUTSIDE = "outside any mapping that the recording shows"
BEYOND = "at addresses that no process has"
MOST = 1 << 33  # bytes that one placement is taken to have at most
_ROWS = 1 << 20  # that accesses are expanded to at once


def write(accesses, space, sink, report) -> None:
    """Write accesses to `sink`, as operations on the mappings in which they lie.

    accesses: array (n,) of ACCESS, n > 0. space: function that gives the AddressSpace of a key. What is used and
    what lies in no mapping of the trace is counted in `report`.
    """
    accesses = _plausible(accesses, report)
    places = np.zeros(len(accesses), dtype=PLACE)
    for key in np.unique(accesses["space"]).tolist():
        where = np.flatnonzero(accesses["space"] == key)
        places[where] = space(key).locate(accesses["address"][where])
    outside, untaken = places["end"] == 0, places["mapping"] < 0
    answered = (accesses["call"] == FAULT) & places["missing"] & ~untaken
    for which, reason in ((outside, OUTSIDE), (untaken & ~outside, "in memory that is not taken"),
                          (answered, "which userfaultfd answers")):
        _skip(accesses[which], reason, report)
    taken = ~(untaken | answered)
    accesses, places = accesses[taken], places[taken]
    count_used(accesses, report)
    placed = (accesses["call"] == COPY) | (accesses["call"] == ZEROPAGE)
    folios = np.where(placed, np.maximum(accesses["length"] // places["folio"], 1), 1)
    for row, step in repeated(folios):
        sink.extend(*_operations(accesses[row], places[row], step))


def touch(accesses, guest, report) -> None:
    """Let accesses touch the pages of a `guest.Guest`; an address is one page in all processes."""
    accesses = _plausible(accesses, report)
    count_used(accesses, report)
    first = accesses["address"] // np.uint64(PAGE)
    last = (accesses["address"] + np.maximum(accesses["length"], 1) - np.uint64(1)) // np.uint64(PAGE)
    written = (accesses["call"] == COPY) | accesses["write"]
    for row, step in repeated(last - first + np.uint64(1)):
        guest.touch(first[row] + step, written[row], accesses["thread"][row], accesses["time"][row])


def _plausible(accesses, report):
    """The accesses that a process can have made; the others are counted."""
    beyond = (accesses["address"] >= KERNEL) | (accesses["length"] > KERNEL - accesses["address"])
    large = ~beyond & (accesses["length"] > MOST)
    for which, reason in ((beyond, BEYOND), (large, f"of more than {format_size(MOST)} at once")):
        _skip(accesses[which], reason, report)
    return accesses[~(beyond | large)]


def _skip(accesses, reason, report):
    """Count accesses as skipped, by what they are."""
    for number in np.unique(accesses["call"]).tolist():
        lines = accesses["line"][accesses["call"] == number]
        report.skip(f"{CALLS[number]} {reason}", int(lines[0]), len(lines))


def count_used(accesses, report):
    """Count accesses by what they are."""
    for number, count in enumerate(np.bincount(accesses["call"], minlength=len(CALLS)).tolist()):
        if count:
            report.used[CALLS[number]] += count


def _operations(accesses, places, step):
    """(records, thread, time): one for each access, to the folio that is `step` folios from where it begins."""
    continued = accesses["call"] == CONTINUE
    records = np.zeros(len(accesses), dtype=OPERATION)
    records["op"] = np.where(continued, CODES["continue"], CODES["touch"])
    records["target"] = places["mapping"]
    page = accesses["address"] & ~np.uint64(PAGE - 1)
    records["offset"] = page + places["shift"] + step * places["folio"]
    records["length"] = np.where(continued, accesses["length"], 0)
    records["flags"] = np.where((accesses["call"] == COPY) | accesses["write"], WRITE, 0)
    return records, accesses["thread"], accesses["time"]


def repeated(counts):
    """(row, step): each row as often as `counts` says, and the how manieth of its row that is; in parts that are
    not much longer than _ROWS, or of one row."""
    if counts.max(initial=1) == 1:
        yield slice(None), np.uint64(0)
        return
    counts = counts.astype(np.int64)
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _ROWS)) + 1
    for rows in np.split(np.arange(len(counts)), cuts):
        times = counts[rows]
        row = np.repeat(rows, times)
        yield row, (np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)).astype(np.uint64)

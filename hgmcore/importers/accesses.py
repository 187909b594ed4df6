"""What page faults and userfaultfd placements, in arrays, become in a trace."""

from __future__ import annotations

import numpy as np

from hgmcore.importers.address_space import PLACE
from hgmcore.statements import CODES, OPERATION, WRITE

PAGE = 4096  # bytes that recorded addresses are multiples of

# line: of the recording. space: key of an address space, as in `Calls.spaces`. length: bytes, of a placement.
# call: index in CALLS. write: of a page fault.
ACCESS = np.dtype([("line", "i8"), ("space", "i8"), ("address", "u8"), ("length", "u8"), ("time", "i8"),
                   ("thread", "u4"), ("call", "u1"), ("write", "?")])
CALLS = ("page fault", "UFFDIO_COPY", "UFFDIO_ZEROPAGE", "UFFDIO_CONTINUE")
FAULT, COPY, ZEROPAGE, CONTINUE = range(len(CALLS))

OUTSIDE = "outside any mapping that the recording shows"


def write(accesses, space, sink, report) -> None:
    """Write accesses to `sink`, as operations on the mappings in which they lie.

    accesses: array (n,) of ACCESS, n > 0. space: function that gives the AddressSpace of a key. What is used and
    what lies in no mapping of the trace is counted in `report`.
    """
    places = np.zeros(len(accesses), dtype=PLACE)
    for key in np.unique(accesses["space"]).tolist():
        where = np.flatnonzero(accesses["space"] == key)
        places[where] = space(key).locate(accesses["address"][where])
    call = accesses["call"]
    outside, untaken = places["end"] == 0, places["mapping"] < 0
    answered = (call == FAULT) & places["missing"] & ~untaken
    for which, reason in ((outside, OUTSIDE), (untaken & ~outside, "in memory that is not taken"),
                          (answered, "which userfaultfd answers")):
        for number in np.unique(call[which]).tolist():
            lines = accesses["line"][which & (call == number)]
            report.skip(f"{CALLS[number]} {reason}", int(lines[0]), len(lines))
    taken = ~(untaken | answered)
    accesses, places = accesses[taken], places[taken]
    count_used(accesses, report)
    sink.extend(*_operations(accesses, places))


def touch(accesses, guest, report) -> None:
    """Let accesses touch the pages of a `guest.Guest`; an address is one page in all processes."""
    count_used(accesses, report)
    first = accesses["address"] // np.uint64(PAGE)
    last = (accesses["address"] + np.maximum(accesses["length"], 1) - np.uint64(1)) // np.uint64(PAGE)
    row, step = _repeated((last - first).astype(np.int64) + 1)
    written = (accesses["call"] == COPY) | accesses["write"]
    guest.touch(first[row] + step, written[row], accesses["thread"][row], accesses["time"][row])


def count_used(accesses, report):
    """Count accesses by what they are."""
    for number, count in enumerate(np.bincount(accesses["call"], minlength=len(CALLS)).tolist()):
        if count:
            report.used[CALLS[number]] += count


def _operations(accesses, places):
    """(records, thread, time): one for each access; a placement of several folios touches each of them."""
    placed = (accesses["call"] == COPY) | (accesses["call"] == ZEROPAGE)
    folios = np.where(placed, np.maximum(accesses["length"] // places["folio"], 1), 1)
    if (folios > 1).any():
        row, step = _repeated(folios.astype(np.int64))
        accesses, places = accesses[row], places[row]
    else:
        step = np.uint64(0)
    continued = accesses["call"] == CONTINUE
    records = np.zeros(len(accesses), dtype=OPERATION)
    records["op"] = np.where(continued, CODES["continue"], CODES["touch"])
    records["target"] = places["mapping"]
    page = accesses["address"] & ~np.uint64(PAGE - 1)
    records["offset"] = page + places["shift"] + step * places["folio"]
    records["length"] = np.where(continued, accesses["length"], 0)
    records["flags"] = np.where((accesses["call"] == COPY) | accesses["write"], WRITE, 0)
    return records, accesses["thread"], accesses["time"]


def _repeated(counts):
    """(row, step): each row as often as `counts` says, and the how manieth of its row that is."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.uint64)

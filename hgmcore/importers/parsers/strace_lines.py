"""Fields of many lines of strace at once: who, when, which call, and whole userfaultfd placements."""

from __future__ import annotations

import numpy as np

from hgmcore.importers.processes.accesses import ACCESS, CONTINUE, COPY, ZEROPAGE
from hgmcore.trace import NO_TIME

_PLACE = {b", UFFDIO_COPY, {dst=0x": COPY, b", UFFDIO_ZEROPAGE, {range={start=0x": ZEROPAGE,
          b", UFFDIO_CONTINUE, {range={start=0x": CONTINUE}
_DONE = b") = 0"


def prefixes(block):
    """(thread, time, start) of each line: 0 and NO_TIME where the line has none; start: where the call begins."""
    starts, ends = block.starts, block.ends
    bracket = block.begins(b"[pid ", starts)
    begin = _skip_spaces(block, starts + 5 * bracket)
    stop = np.where(bracket, block.find("]", begin, ends), block.find(" ", begin, ends))
    thread, has_thread = block.number_at(begin, stop)
    has_thread &= thread < 1 << 31
    thread = np.where(has_thread, thread, 0).astype(np.int64)
    begin = _skip_spaces(block, np.where(has_thread, stop + 1, starts))
    stop = block.find(" ", begin, ends)
    dot = block.find(".", begin, stop)
    fraction, has_fraction = block.number_at(dot + 1, stop)
    digits = stop - dot - 1
    has_fraction &= digits <= 9
    scale = 10 ** (9 - np.clip(digits, 0, 9))
    colons = (block.data[begin + 2] == ord(":")) & (block.data[np.minimum(begin + 5, len(block.data) - 1)] == ord(":"))
    seconds, has_time = block.number_at(begin, dot)
    has_time &= has_fraction & (seconds < 1 << 33)
    if colons.any():
        clock = [block.number_at(begin + at, begin + at + 2) for at in (0, 3, 6)]
        whole = clock[0][1] & clock[1][1] & clock[2][1] & ((dot == stop) | has_fraction)
        of_day = clock[0][0] * np.uint64(3600) + clock[1][0] * np.uint64(60) + clock[2][0]
        seconds, has_time = np.where(colons, of_day, seconds), np.where(colons, whole, has_time)
    time = seconds.astype(np.int64) * 10**9 + np.where(has_fraction, fraction.astype(np.int64) * scale, 0)
    return thread, np.where(has_time, time, NO_TIME), _skip_spaces(block, np.where(has_time, stop + 1, begin))


def _skip_spaces(block, at):
    for _ in range(8):
        space = block.data[at] == ord(" ")
        if not space.any():
            break
        at = at + space
    return at


def keys(block, start, end):
    """The last 8 bytes of each [start, end) as one number; a shorter text is filled up with zero bytes in front."""
    words = np.ndarray(len(block.data) - 7, dtype="<u8", buffer=block.data, strides=(1,))[end - 8]
    drop = np.uint64(8) * (8 - np.clip(end - start, 0, 8)).astype(np.uint64)
    return np.where(end > start, words >> np.minimum(drop, 63) << np.minimum(drop, 63), 0)


def key(name: bytes) -> int:
    """The number that `keys` returns for a call of this name."""
    return int.from_bytes(name[-8:].rjust(8, b"\0"), "little")


def placements(block, where, end):
    """(accesses, indices) of those lines of `where` that have a userfaultfd placement and its result.

    end: where the name of each line's call ends.
    """
    ends = block.ends[where]
    comma = block.find(",", end[where], ends)
    call, width = np.full(len(where), -1), np.zeros(len(where), dtype=np.int64)
    for text, number in _PLACE.items():
        found = block.begins(text, comma)
        call[found], width[found] = number, len(text)
    first = comma + width
    stop = block.find(",", first, ends)
    address, good = block.number_at(first, stop, 16)
    source = block.find(",", stop + 1, ends)
    stop = np.where(call == COPY, source, stop)
    good &= block.begins(b", len=0x", stop) & (call >= 0)
    stop = stop + len(b", len=0x")
    until = np.minimum(block.find(",", stop, ends), block.find("}", stop, ends))
    length, is_number = block.number_at(stop, until, 16)
    close = block.find(")", until, ends)
    after = close + len(_DONE)
    good &= is_number & block.begins(_DONE, close) & (
        (after == ends) | (block.data[np.minimum(after, ends)] == ord(" ")))
    accesses = np.zeros(int(good.sum()), dtype=ACCESS)
    accesses["call"], accesses["address"], accesses["length"] = call[good], address[good], length[good]
    return accesses, where[good]

"""valgrind's lackey: all addresses that a program uses, as a guest.

Each access touches the pages that it reaches into, in the order of the log. What becomes of touches, and of
addresses, is told below.

Two forms are read, and told apart line by line. The log of lackey itself: `I  ADDRESS,SIZE` (instruction),
` L` (load), ` S` (store) and ` M` (load and store), addresses in hexadecimal. A folded log, which has only the
first touch of a page in every window of accesses, and its first write: `NUMBER R|W|X PAGE`, where NUMBER counts
accesses and PAGE is the address of a page in hexadecimal; `# NUMBER SYSCALL..` lines stand between.

With `later=touch` a log of lackey itself is folded in the same way: of all touches of a page within a window of
`window` accesses the first is kept, and the first write. With `later=drop`, the default, the window makes no
difference.

System calls (with --trace-syscalls=yes) are counted and skipped: a host does not see what a guest's kernel does
with its memory. There are no times; lackey does not tell threads apart.

Record it, and import it without a file between:

    valgrind --tool=lackey --trace-mem=yes --log-fd=9 PROGRAM \\
        9>&1 >/dev/null 2>/dev/null | hgmcore import lackey - -o program.parquet
"""

from __future__ import annotations

import re

import numpy as np

from hgmcore.importers.options import GUEST, Option
from hgmcore.importers.parsers.lines import blocks
from hgmcore.importers.report import Report
from hgmcore.sizes import parse_named
from hgmcore.trace import Trace, TraceError
from hgmcore.workloads import guest

explanation = __doc__ + "\n" + guest.__doc__

options = (
    Option("window", 100_000, "accesses within which touches of one page count once, with later=touch"),
    *GUEST,
)

_LARGEST = 1 << 16  # bytes that one access may reach
_SYSCALL = re.compile(rb"(?:# \d+ )?SYSCALL\[\d+,\d+\]\(\d+\) (?:sys_)?(\w+)?")
_VALGRIND = re.compile(rb"==\d+==")
_PAGE = np.uint64(guest.PAGE)


def read(stream, name, *, window=100_000, **options) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError, or ValueError for a bad option value."""
    made, log = guest.Guest(**options), _Log(name, parse_named("window", window))
    for block in blocks(stream, log.report):
        made.touch(*log.touches(block, made.keep))
    if not log.accesses:
        raise TraceError(name, "not a log of valgrind's lackey: no line is of the form 'I  ADDRESS,SIZE' or "
                               "'NUMBER R|W|X PAGE' (record it with --tool=lackey --trace-mem=yes)")
    log.report.used["accesses"] = log.accesses
    log.report.notes += made.notes()
    if log.steps_back:
        log.report.notes.append(f"steps back of the number of accesses: {log.steps_back}; the order of lines is kept")
    return made.trace(name, "program", provenance={"recording": "valgrind lackey, --trace-mem=yes"}), log.report


class _Log:
    """Reads the lines of a log into touches of pages."""

    def __init__(self, name, window):
        if not window:
            raise ValueError("window: expected at least 1")
        self.report, self.window = Report("lackey", name), window
        self.accesses = 0  # lines of either form
        self.raw = self.last = self.steps_back = 0
        self.seen, self.seen_in = np.zeros(0, dtype=np.uint64), 0  # page << 1 | write; window that it is of

    def touches(self, block, keep):
        """(pages, which are written) of the lines of a Block, in order; folded if `keep`."""
        first, second, third = (block.data[block.starts + at] for at in range(3))
        blank = third == ord(" ")
        loads = blank & (first == ord(" ")) & np.isin(second, np.frombuffer(b"LSM", np.uint8))
        raw = np.flatnonzero(loads | (blank & (first == ord("I")) & (second == ord(" "))))
        folded = np.flatnonzero((first >= ord("0")) & (first <= ord("9")))
        found = [self._raw(block, raw, second[raw], keep), self._folded(block, folded)]
        if len(raw) + len(folded) < len(block):
            others = np.ones(len(block), dtype=bool)
            others[raw] = others[folded] = False
            for index in np.flatnonzero(others).tolist():
                self._other(block.line(index), block.number + index)
        lines, pages, write = map(np.concatenate, zip(*found))
        if len(raw) and len(folded):
            order = np.argsort(lines, kind="stable")
            pages, write = pages[order], write[order]
        return pages, write

    def _raw(self, block, where, kind, keep):
        """(lines, pages, written) of lackey's own lines, at `where`."""
        starts, ends = block.starts[where] + 3, block.ends[where]
        comma = block.find(",", starts, ends)
        address, good = block.number_at(starts, comma, 16)
        size, is_size = block.number_at(comma + 1, ends)
        good &= is_size & (size > 0) & (size <= _LARGEST) & (address < 1 << 63)
        if not good.all():
            self._malformed(block, where[~good])
            where, kind, address, size = where[good], kind[good], address[good], size[good]
        write = (kind == ord("S")) | (kind == ord("M"))
        number = self.raw + np.arange(1, len(where) + 1)
        self.raw += len(where)
        self.accesses += len(where)
        pages, last = address // _PAGE, (address + size - np.uint64(1)) // _PAGE
        if (pages != last).any():
            count = (last - pages).astype(np.int64) + 1
            before = np.repeat(np.cumsum(count) - count, count)
            where, write, number = (np.repeat(values, count) for values in (where, write, number))
            pages = np.repeat(pages, count) + (np.arange(len(where)) - before).astype(np.uint64)
        kept = self._first_in_window(number // self.window, pages, write) if keep else slice(None)
        return where[kept], pages[kept], write[kept]

    def _first_in_window(self, window, pages, write):
        """Where a page is touched for the first time in its window, and where it is first written in it."""
        if not len(pages):
            return slice(0)
        if window[0] != self.seen_in:
            self.seen = self.seen[:0]
        distinct, which = np.unique(pages, return_inverse=True)
        key = ((window - window[0]) * len(distinct) + which) * 2  # + 1: of a write
        seen = np.searchsorted(distinct, self.seen >> np.uint64(1))
        known = np.isin(self.seen >> np.uint64(1), distinct)
        seen = seen[known] * 2 + (self.seen[known] & np.uint64(1)).astype(np.int64)
        kept, found = [], []
        for bit, chosen in ((0, np.arange(len(key))), (1, np.flatnonzero(write))):
            keys, first = np.unique(key[chosen] + bit, return_index=True)
            new = ~np.isin(keys, seen, assume_unique=True)
            kept.append(chosen[first[new]])
            found.append(keys[new])
        last = (window[-1] - window[0]) * len(distinct) * 2
        found = np.concatenate(found) - last
        found = found[found >= 0]
        if last:
            self.seen = self.seen[:0]
        self.seen = np.concatenate([self.seen, distinct[found >> 1] << np.uint64(1) | (found & 1).astype(np.uint64)])
        self.seen_in = window[-1]
        return np.unique(np.concatenate(kept))

    def _folded(self, block, where):
        """(lines, pages, written) of the lines of a folded log, at `where`."""
        starts, ends = block.starts[where], block.ends[where]
        space = block.find(" ", starts, ends)
        number, good = block.number_at(starts, space)
        kind = block.data[space + 1]
        pages, is_page = block.number_at(space + 3, ends, 16)
        good &= is_page & np.isin(kind, np.frombuffer(b"RWX", np.uint8)) & (block.data[space + 2] == ord(" "))
        good &= pages < 1 << 63
        self._malformed(block, where[~good])
        where, number, kind, pages = where[good], number[good].astype(np.int64), kind[good], pages[good]
        if len(where):
            self.accesses += len(where)
            self.steps_back += int((np.diff(number, prepend=self.last) < 0).sum())
            self.last = number[-1]
        return where, pages // _PAGE, kind == ord("W")

    def _malformed(self, block, where):
        if len(where):
            self.report.skip("malformed access", block.number + int(where[0]), len(where))

    def _other(self, line, number):
        """Count a line that has no access as skipped."""
        if match := _SYSCALL.match(line):
            self.report.skip(f"system call {match[1].decode()}" if match[1] else "end of a system call", number)
        elif _VALGRIND.match(line):
            self.report.skip("valgrind's own line", number)
        else:
            self.report.skip("not a line of lackey" if line else "empty line", number)


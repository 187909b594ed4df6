"""Stretches: which operations of a trace may run at the same time, found from their records alone.

`continue`, `touch` and `dontneed` may; any other operation stands alone, as what it takes in the kernel (mmap_lock for
writing and the like) keeps all others out. Of those three, operations of different threads conflict if

* both are `continue` and some of their base pages are the same (long ranges are rounded to whole page tables), or
* one is `touch` or `dontneed` and some huge page of a file is the same. Where processes may share page tables, all
  huge pages of the file count as one. So does all memory that is no hugetlb, for `continue` too: its page tables
  and the order of its folios belong to nothing smaller.

Operations that do not conflict leave the same counts in whatever order they are done. Where that is not so, `continue`s
of one huge page conflict too: under an overflow check, and of several processes if the scheme's state tells which of
them came first. A stretch is the most operations in a row that hold no conflict.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hgmcore.trace.statements import CODES, told_to_fail

CONTINUE, DONTNEED, TOUCH = CODES["continue"], CODES["dontneed"], CODES["touch"]


class Layout(NamedTuple):
    """What a machine maps where; it stays so while operations run that may run at the same time.

    base_shift, index_bits: of the geometry. Of each mapping: process; file; first and pages, the base pages of the file
    that it maps. Of each file: huge, the base pages of a huge page; before, the huge pages of all files before it;
    shared, whether processes may share page tables of it; other, whether it is of another kind than hugetlb.
    """

    base_shift: int
    index_bits: int
    process: np.ndarray
    file: np.ndarray
    first: np.ndarray
    pages: np.ndarray
    huge: np.ndarray
    before: np.ndarray
    shared: np.ndarray
    other: np.ndarray


def layout(machine) -> Layout:
    """The layout of an api.Machine."""
    shift, files = machine.geometry.base_shift, machine.header.files
    process, file, _, length, offset = machine.core.mappings().astype(np.int64).T
    pages = np.array([file.pages for file in files], np.int64)
    return Layout(shift, machine.geometry.index_bits, process, file, offset >> shift, length >> shift,
                  np.array([file.page_size >> shift for file in files], np.int64), np.cumsum(pages) - pages,
                  machine.core.may_share(), np.array([file.kind != "hugetlb" for file in files], bool))


def alone(operations) -> np.ndarray:
    """Which operations of a trace stand alone; that behind a `fail` does, as it is the one to fail."""
    return ~np.isin(operations["op"], [CONTINUE, TOUCH, DONTNEED]) | told_to_fail(operations)


class Rows:
    """Claims of operations on things, sorted by thing and then by operation.

    at: number of the operation; thing: number of what it claims; sole: whether it shares that with nobody; worker: of
    each operation.
    """

    def __init__(self, at, thing, sole, worker):
        order = np.argsort(thing, kind="stable")
        self.at, self.sole, thing = at[order], sole[order], thing[order]
        self.worker = worker[self.at]
        self.new_thing = np.ones(len(at), bool)
        self.new_thing[1:] = thing[1:] != thing[:-1]
        self.new_worker = self.new_thing.copy()
        self.new_worker[1:] |= self.worker[1:] != self.worker[:-1]

    def neighbours(self):
        """Pairs of operations of different workers that claim one thing, one right after the other."""
        second = np.flatnonzero(self.new_worker & ~self.new_thing)
        return self.at[second - 1], self.at[second]

    def conflicts(self):
        """Pairs (earlier, later) that conflict, enough of them: for each operation the last before it that does.

        Where that last one is another's sole claim behind one of the same worker, the pair of that one stands for it.
        """
        if not self.sole.any():
            return np.empty(0, np.int64), np.empty(0, np.int64)
        row = np.arange(len(self.at))
        start = np.maximum.accumulate(np.where(self.new_thing, row, 0))
        before = np.maximum.accumulate(np.where(self.new_worker, row, 0)) - 1    # the last row of another worker
        last = np.maximum.accumulate(np.where(self.sole, row, -1))
        before = np.where(self.sole, before, last)
        found = (before >= start) & (self.worker[before] != self.worker)
        return self.at[before[found]], self.at[found]


def expanded(at, first, count):
    """`at` repeated `count` times each, and numbers that count up from each `first`."""
    at, nth = np.repeat(at, count), np.arange(count.sum())
    return at, nth - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)


def claims(operations, worker, known: Layout, ordered: bool, first_come: bool):
    """Yield Rows: claims on huge pages, then on base pages, then on page tables if there are long ranges."""
    target = operations["target"].astype(np.int64)
    offset, shift = operations["offset"], np.uint64(known.base_shift)
    length = np.where(operations["op"] == TOUCH, np.uint64(1), operations["length"])
    limit = known.pages[target]
    first = np.minimum((offset >> shift).astype(np.int64), limit)
    end = np.minimum((offset + length - (length > 0) >> shift).astype(np.int64) + 1, limit)
    at = np.flatnonzero((length > 0) & (end > first))
    target, first, end = target[at], first[at], end[at]
    mine = operations["op"][at] == CONTINUE

    file, page = known.file[target], known.first[target]
    huge = (page + first) // known.huge[file]
    count = (page + end - 1) // known.huge[file] + 1 - huge
    other, one = known.other[file], known.shared[file] | known.other[file]
    huge, count = np.where(one, 0, huge) + np.where(other, -1, known.before[file]), np.where(one, 1, count)
    row, thing = expanded(np.arange(len(at)), huge, count)
    sole = ~mine[row] | other[row] | ordered
    if first_come:
        sole |= of_several(thing, known.process[target[row]])
    yield Rows(at[row], thing, sole, worker)

    at, target, first, end = at[mine], target[mine], first[mine], end[mine]
    long = end - first >= 1 << known.index_bits
    before = np.cumsum(known.pages) - known.pages
    row, thing = expanded(np.flatnonzero(~long), (before[target] + first)[~long], (end - first)[~long])
    yield Rows(at[row], thing, np.ones(len(row), bool), worker)
    if long.any():
        tables = (known.pages >> known.index_bits) + 1
        before = np.cumsum(tables) - tables
        table = first >> known.index_bits
        row, thing = expanded(np.arange(len(at)), before[target] + table, ((end - 1) >> known.index_bits) + 1 - table)
        yield Rows(at[row], thing, long[row], worker)


def of_several(thing, owner):
    """Which rows are of a thing that rows of several owners are of."""
    many = owner.max(initial=0) + 1
    things, number = np.unique(np.unique(thing * many + owner) // many, return_counts=True)
    return np.isin(thing, things[number > 1])


def stretches(operations, worker, known: Layout, *, ordered: bool = False, first_come: bool = False):
    """Cut operations, none of which stands alone, into stretches.

    worker: of each operation the native thread that does it. ordered: `continue`s of one huge page keep their order;
    first_come: those of several processes do. Returns (bounds, together): stretch i is [bounds[i], bounds[i + 1]), and
    together[i] tells whether several workers use one huge page in it.
    """
    huge, *others = claims(operations, worker, known, ordered, first_come)
    earlier, later = (np.concatenate(pairs) for pairs in zip(*(rows.conflicts() for rows in (huge, *others))))
    order = np.argsort(later, kind="stable")
    bounds = [0]
    for one, other in zip(earlier[order].tolist(), later[order].tolist()):
        if one >= bounds[-1]:
            bounds.append(other)
    one, other = (np.searchsorted(bounds, side, side="right") for side in huge.neighbours())
    together = np.isin(np.arange(1, len(bounds) + 1), one[one == other])
    return [*bounds, len(operations)], together.tolist()

"""What single operations should have done by the page tables, and what they did: looked at before and after each."""

from __future__ import annotations

import numpy as np

from hgmcore.analysis.errors import pages_of
from hgmcore.core import truth
from hgmcore.core.machine import FOLIO_POISONED
from hgmcore.trace.statements import ALL, CODES

WATCHED = 200
"""Operations of a kind that are looked at one by one; of more, so many evenly spaced ones."""



class Watch:
    """The operations `op` of a trace that are looked at. at: their numbers; total: how many there are.

    `before` is called when the operation of a number is about to run, `behind` when it has run.
    """

    def __init__(self, trace, machine, op):
        self.trace, self.machine = trace, machine
        found = np.flatnonzero(trace.operations["op"] == CODES[op])
        self.total = len(found)
        self.at = found[np.unique(np.linspace(0, len(found) - 1, min(len(found), WATCHED)).astype(np.int64))]
        self._numbers = set(self.at.tolist())

    def __contains__(self, index):
        return index in self._numbers

    def _answer(self, index):
        """(bytes done, errno) of the operation that has just run; (None, 0) of one that did all it was asked to."""
        last = self.machine.results(max(self.machine.core.nr_results - 1, 0))
        if len(last) and last["index"][0] == index:
            return int(last["done"][0]), int(last["errno"][0])
        return None, 0

    def _range(self, index):
        """(file, first, end): what part of the file the operation is about, in bytes; None of nothing or no hugetlb."""
        operation = self.trace.operations[index]
        _, file, _, length, offset = (int(value) for value in self.machine.core.mappings()[operation["target"]])
        first, end = int(operation["offset"]), min(int(operation["offset"]) + int(operation["length"]), length)
        if end <= first or self.trace.header.files[file].kind == "anon":
            return None
        return self.trace.header.files[file], offset + first, offset + end


class Migrations(Watch):
    """`migrate`: what should have moved by the truth, and what did.

    not_moved: for each, bytes that one process alone maps (`all`: that anybody maps), that nobody pins and no memory
    failure holds, and that an operation without an error left where they were. refused: for each, 1 where it ended in
    an error though there was such memory to move, or 0.
    """

    def __init__(self, trace, machine):
        super().__init__(trace, machine, "migrate")
        self.not_moved, self.refused, self._movable = [], [], 0

    def before(self, index) -> None:
        everything = bool(self.trace.operations["flags"][index] & ALL)
        mine = self._folios(index)
        self._movable = sum(
            pages_of(folio) * self.machine.geometry.base_page for folio in self.machine.observe()["folios"]
            if (folio["file"], folio["page"]) in mine and folio["truth"]["leaves"] and not folio["pins"]
            and (everything or folio["truth"]["processes"] == 1)) if mine else 0

    def _folios(self, index):
        """(file, huge page) pairs that the range of the operation covers."""
        about = self._range(index)
        if about is None or about[0].kind != "hugetlb":    # other memory has no migrate
            return set()
        file, first, end = about
        return {(file.name, page) for page in range(first // file.page_size, -(-end // file.page_size))}

    def behind(self, index) -> None:
        done, errno = self._answer(index)
        self.refused.append(int(errno != 0 and self._movable > 0))
        self.not_moved.append(0 if errno or done is None else max(0, self._movable - done))


class Collapses(Watch):
    """`collapse` of hugetlb: leaves that an operation without an error left though a larger one should stand there.

    left: for each, the bytes that such leaves map. The kernel skips a folio with a failed page, and so does this.
    """

    def __init__(self, trace, machine):
        super().__init__(trace, machine, "collapse")
        self.left = []

    def before(self, index) -> None:
        """Nothing need be known."""

    def behind(self, index) -> None:
        _, errno = self._answer(index)
        self.left.append(0 if errno else self._small_leaves(index))

    def _small_leaves(self, index):
        core, target, about = self.machine.core, self.trace.operations["target"][index], self._range(index)
        if about is None or about[0].kind != "hugetlb":
            return 0
        file, start, end = about
        process, _, address, _, offset = (int(value) for value in core.mappings()[target])
        runs = truth.leaves(core)
        runs = truth.split_at_folios(runs[runs["process"] == process], core.folios(), self.machine.geometry.base_shift)
        sizes = [size for size in self.machine.geometry.leaf_sizes if size <= file.page_size]
        bad = core.folios()
        bad = bad["pfn"][bad["flags"] & FOLIO_POISONED != 0]
        left = 0
        for size, larger in zip(sizes, sizes[1:]):    # where one fits, a leaf of the next size stands, or a larger one
            first, last = -(-start // larger) * larger, end // larger * larger
            these = runs[runs["size"] * self.machine.geometry.base_page == size]
            these = these[~np.isin(_first_of_folio(these, core.folios()), bad)]
            at = these["address"].astype(np.int64) - address + offset
            inside = np.minimum(at + these["count"].astype(np.int64) * size, last) - np.maximum(at, first)
            left += int(inside[inside > 0].sum())
        return left


def _first_of_folio(runs, folios):
    """The first frame of the folio that each run of leaves maps."""
    return folios["pfn"][np.searchsorted(folios["pfn"], runs["pfn"], "right") - 1]

"""The same works in NumPy alone: entries and counts are flat arrays, and each step is one vectorised statement."""

from __future__ import annotations

import time

import numpy as np
from rooflines import LEAF, PIECES, PRESENT

COUNTS_PAGES = {"per_page_posted", "nr_pages_mapped", "double_map", "large_mapcount", "mm_id"}


class Arrays:
    """A 1G page in 4K entries; counts for the head and, where the scheme has them, for each base page."""

    def __init__(self, scheme: str, full: bool):
        self.counts_pages = scheme in COUNTS_PAGES
        self.frames = np.arange(PIECES, dtype=np.uint64)
        self.entries = self.frames << np.uint64(12) | np.uint64(PRESENT | LEAF) if full else np.zeros(PIECES, np.uint64)
        self.child = np.zeros(PIECES, np.uint64)
        self.mapcount = np.full(PIECES, full, np.int32)
        self.head = np.zeros(2, np.int64)

    def count(self, page, by: int) -> None:
        self.head += by * len(page)
        if self.counts_pages:
            self.mapcount[page] += by

    def install(self, operations) -> None:
        """Install a leaf for each record whose entry is empty."""
        page = (operations["offset"] >> np.uint64(12)).astype(np.int64)
        page = page[self.entries[page] == 0]
        self.entries[page] = page.astype(np.uint64) << np.uint64(12) | np.uint64(PRESENT | LEAF)
        self.count(page, 1)

    def fill(self, operations) -> None:
        page = np.flatnonzero(self.entries == 0)
        self.entries[page] = self.frames[page] << np.uint64(12) | np.uint64(PRESENT | LEAF)
        self.count(page, 1)

    def zap(self, operations) -> None:
        page = np.flatnonzero(self.entries & np.uint64(LEAF))
        self.entries[page] = 0
        self.count(page, -1)

    def copy(self, operations) -> None:
        page = np.flatnonzero(self.entries & np.uint64(LEAF))
        self.child[page] = self.entries[page]
        self.count(page, 1)

    def recount(self, operations) -> None:
        page = np.flatnonzero(self.entries & np.uint64(LEAF))
        np.flatnonzero(np.diff(self.entries[page] >> np.uint64(12)) != 1)


def peer(scheme: str, work, rounds: int = 3) -> float:
    """Nanoseconds for each leaf of a work, the least of several rounds."""
    times = []
    for _ in range(rounds):
        arrays = Arrays(scheme, work.full)
        start = time.perf_counter_ns()
        getattr(arrays, work.peer)(work.operations)
        times.append((time.perf_counter_ns() - start) / PIECES)
    return min(times)

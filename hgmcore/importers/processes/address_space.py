"""The address space of a recorded process: a map from intervals of addresses to mappings of the trace.

It turns addresses of a recording into offsets in those mappings, one by one (`overlapping`) or for an array of
addresses (`locate`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Mapped:
    """One mapping of the trace. index: in its header. file: what it maps, from file_offset on. length: bytes,
    as the trace has it; live: bytes of it that are still mapped. folio: bytes of a page of the file."""

    index: int
    name: str
    file: object
    file_offset: int
    folio: int
    shared: bool
    length: int
    live: int
    minor: bool = False
    wp: bool = False

    def inherited(self, index: int) -> Mapped:
        """The child's mapping after a fork."""
        return Mapped(index, self.name, self.file, self.file_offset, self.folio, self.shared, self.length, self.live,
                      self.minor and self.wp, self.wp)


@dataclass(slots=True)
class Area:
    """Addresses [start, end). mapped: the mapping of the trace that lies there, from `offset` on; None where the trace
    has none, for the `reason`. missing: userfaultfd answers faults. dont_fork: a child does not inherit the area."""

    start: int
    end: int
    mapped: Mapped | None = None
    offset: int = 0
    reason: str = ""
    missing: bool = False
    dont_fork: bool = False

    def part(self, start: int, end: int) -> Area:
        """The part of the area that lies in [start, end); the area itself if all of it does."""
        if start <= self.start and self.end <= end:
            return self
        first = max(start, self.start)
        return Area(first, min(end, self.end), self.mapped, self.offset + first - self.start, self.reason, self.missing,
                    self.dont_fork)


# The area at an address, as `locate` returns it. shift: address + shift (modulo 2**64) is the offset in the mapping.
PLACE = np.dtype([("start", "u8"), ("end", "u8"), ("shift", "u8"), ("mapping", "i8"), ("folio", "u8"),
                  ("missing", "?")])
OUTSIDE = np.array((0, 0, 0, -1, 1, False), dtype=PLACE)


class AddressSpace:
    """The areas of one process (of one `mm`, which threads share).

    pid: number from which the process's name is made. process: that name, None while the trace has nothing of the
    process. users: threads. files: open file descriptors of interest. brk: end of the heap, None while unknown.
    """

    def __init__(self, pid: int):
        self.pid, self.process, self.users = pid, None, 1
        self.files: dict[int, object] = {}
        self.attached: dict[int, int] = {}  # address -> bytes of a System V segment
        self.brk: int | None = None
        self._starts: list[int] = []
        self._areas: list[Area] = []
        self._table = None
        self._names: set[str] = set()  # all that mappings ever had
        self._made: Counter[str] = Counter()  # base name -> numbered names made from it
        self._free: dict[str, list[str]] = {}  # names whose mapping is gone

    def __iter__(self):
        return iter(self._areas)

    def overlapping(self, start: int, end: int) -> list[Area]:
        """The parts of areas that lie in [start, end), in order of address. The caller must not change them."""
        first, last = self._range(start, end)
        return [area.part(start, end) for area in self._areas[first:last]] if first < last else []

    def whole(self, start: int, end: int) -> list[Area]:
        """The areas in [start, end), which the caller may change; an area that reaches beyond is cut in two first."""
        for border in (start, end):
            at = bisect_right(self._starts, border) - 1
            if at >= 0 and self._areas[at].start < border < self._areas[at].end:
                area = self._areas[at]
                self._replace(at, at + 1, [area.part(area.start, border), area.part(border, area.end)])
        self._table = None
        first, last = self._range(start, end)
        return self._areas[first:last]

    def before(self, end: int) -> Area | None:
        """The area that begins before `end` and reaches to it or beyond; None if there is none."""
        at = bisect_left(self._starts, end) - 1
        return self._areas[at] if at >= 0 and self._areas[at].end >= end else None

    def add(self, area: Area) -> None:
        """Insert an area; no other area may overlap it."""
        at = bisect_left(self._starts, area.start)
        self._starts.insert(at, area.start)
        self._areas.insert(at, area)
        self._table = None

    def remove(self, start: int, end: int) -> list[Area]:
        """Take the areas, or parts of areas, in [start, end) out and return them."""
        first, last = self._range(start, end)
        if first == last:
            return []
        if start > self._starts[first] or end < self._areas[last - 1].end:  # a part of the first or last area stays
            self.whole(start, end)
            first, last = self._range(start, end)
        removed = self._areas[first:last]
        del self._areas[first:last], self._starts[first:last]
        self._table = None
        for area in removed:
            if area.mapped is not None:
                area.mapped.live -= area.end - area.start
                if not area.mapped.live:
                    self._free.setdefault(area.mapped.file.name, []).append(area.mapped.name)
        return removed

    def extend(self, area: Area, end: int) -> None:
        """Let an area that `before` returned grow, so that it ends at `end`."""
        area.mapped.live += end - area.end
        area.end = end
        self._table = None

    def name(self, base: str) -> str:
        """A name for a new mapping: `base`, or `base` with a number; no mapping that still exists has it."""
        if self._free.get(base):
            return self._free[base].pop()
        name = base
        while name in self._names:
            self._made[base] += 1
            name = f"{base}.{self._made[base] + 1}"
        self._names.add(name)
        return name

    def inherit(self, parent: AddressSpace, mapped: dict[int, Mapped]) -> None:
        """Take over the areas and names of a parent. mapped: index of a parent's mapping -> the child's Mapped."""
        self._areas = [Area(area.start, area.end, area.mapped and mapped[area.mapped.index], area.offset, area.reason,
                            False, area.dont_fork) for area in parent]
        self._starts = parent._starts.copy()
        if mapped:
            self._names, self._made = parent._names.copy(), parent._made.copy()
            self._free = {base: names.copy() for base, names in parent._free.items()}

    def locate(self, addresses):
        """PLACE of each address: array (n,) of uint64."""
        if self._table is None:
            self._table = self._tabulate()
        starts, rows = self._table
        places = rows[starts.searchsorted(addresses, side="right") - 1]
        places[addresses >= places["end"]] = OUTSIDE
        return places

    def _tabulate(self):
        """Starts of the areas, and PLACE of each; the last row, which index -1 finds, is for addresses before them."""
        rows = [(area.start, area.end, (area.offset - area.start) % (1 << 64),
                 *((-1, 1) if area.mapped is None else (area.mapped.index, area.mapped.folio)), area.missing)
                for area in self._areas]
        rows = np.array([*rows, OUTSIDE.item()], dtype=PLACE)
        return rows["start"][:-1].copy(), rows

    def _range(self, start, end):
        """Indices [first, last) of the areas that overlap [start, end)."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._areas[first].end <= start:
            first += 1
        return first, bisect_left(self._starts, end, first)

    def _replace(self, first, last, areas):
        self._areas[first:last] = areas
        self._starts[first:last] = [area.start for area in areas]
        self._table = None

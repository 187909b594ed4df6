"""The works that are measured, each with its goal: all act on one huge page of 1G in 262,144 leaves of 4K.

hugetlb, which maps no pieces, does the same works over 16,384 huge pages of 2M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rooflines import PIECES, WHOLE, Gigabyte, WholePages

import hgmcore as hgm
from hgmcore.schemes import NAMES
from hgmcore.trace.statements import CODES, OPERATION

GIGABYTE = 1 << 30


def records(op: str, offsets, length: int) -> np.ndarray:
    """Records of operations on mapping 0."""
    operations = np.zeros(len(offsets), OPERATION)
    operations["op"], operations["offset"], operations["length"] = CODES[op], offsets, length
    return operations


IN_ORDER = np.arange(PIECES) * 4096
PIECE_BY_PIECE = records("continue", IN_ORDER, 4096)
BACKWARDS = PIECE_BY_PIECE[::-1].copy()
AT_RANDOM = records("continue", np.random.default_rng(1).permutation(IN_ORDER), 4096)


IN_ORDER_2M = np.arange(WHOLE) * (2 << 20)
WHOLE_BY_WHOLE = records("continue", IN_ORDER_2M, 2 << 20)
WHOLE_AT_RANDOM = records("continue", np.random.default_rng(1).permutation(IN_ORDER_2M), 2 << 20)


class Guest:
    """One process that maps a file of 1G in pieces."""

    page_size, pages, hgm, filling = "1G", 1, True, PIECE_BY_PIECE

    def __init__(self, scheme: str, **options):
        self.machine = hgm.Machine(scheme, **{"zap_frees_tables": "no", "transient": "counted", **options})
        self.file = self.machine.file("F", self.page_size, self.pages, populate=True)
        self.process = self.machine.process("A")
        self.map()
        self.fill()
        self.child = None

    def map(self) -> None:
        self.mapping = self.process.mmap(self.file, "v", wp=True, minor=True, hgm=self.hgm)

    def fill(self) -> None:
        """Map everything, leaf by leaf."""
        self.machine.run(self.filling)

    # Preparations, which run before each timed run and are not timed.

    def emptied(self) -> None:
        """Unmap everything; the page tables stay."""
        self.mapping.dontneed()

    def filled(self) -> None:
        self.mapping.dontneed()
        self.fill()

    def filled_backwards(self) -> None:
        """As `filled`, from the end: BY_2M frees the last table last, so this gives each range its old table again."""
        self.mapping.dontneed()
        self.machine.run(BACKWARDS)

    def mapped_anew(self) -> None:
        """Map the file anew and fill the mapping; the last run unmapped it."""
        if self.machine.core.vmas(0):
            self.mapping.munmap()
        self.map()
        self.fill()

    def childless(self) -> None:
        """End the last run's child, and declare its successor, process `child`."""
        if self.child:
            self.child.exit()
        self.child = self.machine.process(f"B{self.machine.operations}")
        self.child._mapping("v")
        FORK["arg"] = self.child.number


class WholeGuest(Guest):
    """One process that maps huge pages of 2M, each whole."""

    page_size, pages, hgm, filling = "2M", WHOLE, False, WHOLE_BY_WHOLE


FORK = records("fork", [0], 0)
BY_2M = np.concatenate([records("collapse", IN_ORDER[::512], 1 << 21), records("collapse", [0], GIGABYTE)])


class Work(NamedTuple):
    """A row of the table for each scheme, and a column of the short one.

    before: makes a guest ready. full: is all mapped then? loop: its number in roofline.h. peer: the method of
    peers.Arrays, if NumPy does it. kernel: what kernel.py calls it, if it does it. guest, world: what hgmcore and the
    roofline do it on.
    """

    name: str
    column: str | None
    goal: float
    operations: np.ndarray
    before: Callable[[Guest], None]
    full: bool
    loop: int
    peer: str | None
    kernel: str | None = None
    options: dict = {}
    schemes: tuple = tuple(name for name in NAMES if name != "hugetlb")
    guest: type = Guest
    world: type = Gigabyte


COLLAPSING = tuple(name for name in Work._field_defaults["schemes"] if name != "subtree_posted")
REAL = {"transient": "real"}
WORKS = (
    Work("continue, in order", "seq", 1.3, PIECE_BY_PIECE, Guest.emptied, False, 0, "install", "continue"),
    Work("continue, at random", "rnd", 1.3, AT_RANDOM, Guest.emptied, False, 8, "install", "continue"),
    Work("continue, in order, real", "seqR", 1.3, PIECE_BY_PIECE, Guest.emptied, False, 1, "install", "continue", REAL),
    Work("continue, at random, real", "rndR", 1.3, AT_RANDOM, Guest.emptied, False, 9, "install", "continue", REAL),
    Work("one continue, base_only", "fill", 1.15, records("continue", [0], GIGABYTE), Guest.emptied, False, 2, "fill",
         "continue", {"policy": "base_only"}),
    Work("dontneed", "zap", 1.2, records("dontneed", [0], GIGABYTE), Guest.filled, True, 3, "zap", "dontneed"),
    Work("munmap", "unmp", 1.2, records("munmap", [0], GIGABYTE), Guest.mapped_anew, True, 4, "zap", "munmap"),
    Work("fork", "fork", 1.2, FORK, Guest.childless, True, 5, "copy", "fork"),
    Work("fork, batched", "frkB", 1.2, FORK, Guest.childless, True, 6, "copy", "fork", {"batch": "yes"}),
    Work("collapse", "coll", 1.2, BY_2M[-1:], Guest.filled, True, 7, "zap", schemes=COLLAPSING),
    Work("collapse, 2M first", "col2", 1.2, BY_2M, Guest.filled_backwards, True, 7, "zap", schemes=COLLAPSING),
)
ALL_2M = WHOLE * (2 << 20)
HUGETLB = {"peer": None, "schemes": ("hugetlb",), "guest": WholeGuest, "world": WholePages}
WORKS += (
    Work("continue 2M, in order", None, 1.3, WHOLE_BY_WHOLE, Guest.emptied, False, 0, **HUGETLB),
    Work("continue 2M, at random", None, 1.3, WHOLE_AT_RANDOM, Guest.emptied, False, 0, **HUGETLB),
    Work("one continue of 32G", None, 1.15, records("continue", [0], ALL_2M), Guest.emptied, False, 2, **HUGETLB),
    Work("dontneed 32G", None, 1.2, records("dontneed", [0], ALL_2M), Guest.filled, True, 3, **HUGETLB),
    Work("munmap 32G", None, 1.2, records("munmap", [0], ALL_2M), Guest.mapped_anew, True, 4, **HUGETLB),
    Work("fork of 32G", None, 1.2, FORK, Guest.childless, True, 5, **HUGETLB),
)
RECOUNT = Work("recount", None, 1.5, records("observe", [0], 0), Guest.filled, True, -1, "recount")

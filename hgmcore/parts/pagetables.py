"""Page tables as Python sees them: entries in words, the walk to an address, and every table of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgmcore.geometry import LEVEL_NAMES, Geometry
from hgmcore.parts.shapes import shaped

if TYPE_CHECKING:
    from hgmcore.core.core import Core

PRESENT, MIGRATION, POISON, ZERO, LEAF = 0x001, 0x002, 0x004, 0x008, 0x080
BITS = {0x100: "group", 0x200: "counted", 0x400: "exclusive"}
"""Bits of a page-table entry (HGM_PTE_* of hgm.h)."""

FRAME_SHIFT = 12
"""Where the frame stands in an entry (HGM_PTE_FRAME_SHIFT)."""


def kind_of(entry: int) -> str | None:
    """What an entry is: table, leaf, migration, poison or zero (the zero page); None of an empty one."""
    if not entry:
        return None
    special = next((name for bit, name in ((MIGRATION, "migration"), (POISON, "poison"), (ZERO, "zero"))
                    if entry & bit), None)
    return special or ("leaf" if entry & LEAF else "table")


def flags_of(entry: int) -> list[str]:
    """The names of the bits of BITS that an entry has."""
    return [name for bit, name in BITS.items() if entry & bit]


class Entry(NamedTuple):
    """One page-table entry on the way to an address.

    level: "pgd", "p4d", "pud", "pmd" or "pte". table: the number of its table. index: its place in that table.
    address: the first that it is for; size: for how many bytes. value: the entry itself, 64 bits.
    """

    level: str
    table: int
    index: int  # type: ignore[assignment]    # hides tuple.index, as nobody looks for a field
    address: int
    size: int
    value: int

    @property
    def kind(self) -> str | None:
        """What the entry is: table, leaf, migration, poison, zero; None where it is empty."""
        return kind_of(self.value)

    @property
    def frame(self) -> int:
        """The number of the table or of the base page (pfn) that the entry points at."""
        return self.value >> FRAME_SHIFT

    @property
    def flags(self) -> list[str]:
        """Of group (of a contiguous leaf), counted and exclusive those that the entry has."""
        return flags_of(self.value)

    def __repr__(self) -> str:
        flags = {"flags": "|".join(self.flags)} if self.flags else {}
        return shaped(f"{self.level}_t", table=self.table, index=self.index, address=hex(self.address),
                      kind=self.kind or "none", **({"frame": hex(self.frame)} if self.value else {}), **flags)


class Table(NamedTuple):
    """One page table of a process.

    process: number of the process. level: that of its entries, 1 for PTEs. address: the first that it is for.
    number: as entries name it. entries: uint64 array that is the memory itself, to be read only.
    """

    process: int
    level: int
    address: int
    number: int
    entries: NDArray[np.uint64]

    def __repr__(self) -> str:
        return shaped("ptdesc", process=self.process, level=LEVEL_NAMES[self.level], address=hex(self.address),
                      number=self.number, used=int(np.count_nonzero(self.entries)))


def walk(core: Core, geometry: Geometry, process: int, address: int) -> list[Entry]:
    """The entries of a process's page tables on the way to an address, from the root down to the last that is there.

    Empty where the process has no page tables. ValueError: the tables reach no such address.
    """
    top = geometry.level_shift(geometry.levels) + geometry.index_bits
    if not 0 <= address < 1 << top:
        raise ValueError(f"address {address:#x} is not below 2**{top}")
    number, found = core.root(process), []
    for level in range(geometry.levels, 0, -1):
        if number == 0:
            break
        shift = geometry.level_shift(level)
        index = address >> shift & (1 << geometry.index_bits) - 1
        value = int(core.table(number)[index])
        found.append(Entry(LEVEL_NAMES[level], number, index, address >> shift << shift, 1 << shift, value))
        number = value >> FRAME_SHIFT if value & (PRESENT | LEAF) == PRESENT else 0
    return found


def tables(core: Core, geometry: Geometry, process: int) -> Iterator[Table]:
    """Every page table of a process, a table before those below it; one that processes share comes for each."""
    number = core.root(process)
    if number:
        yield from _below(core, geometry, Table(process, geometry.levels, 0, number, core.table(number)))


def _below(core, geometry, table):
    yield table
    if table.level == 1:
        return
    shift = geometry.level_shift(table.level)
    at = np.flatnonzero(table.entries & np.uint64(PRESENT | LEAF) == PRESENT)
    for i, entry in zip(at.tolist(), table.entries[at].tolist()):
        number = entry >> FRAME_SHIFT
        yield from _below(core, geometry, Table(table.process, table.level - 1, table.address + (i << shift), number,
                                                core.table(number)))

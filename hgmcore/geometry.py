"""Page-table geometry: what sizes of table, leaf and huge page an architecture has.

Levels are numbered as in the kernel series: PTE 1, PMD 2, PUD 3, P4D 4, PGD 5; a table of level L has
entries of level L. A contiguous group is several entries of one level that act as one leaf.
Source: the postings of HGM v2 for the level numbers, Documentation/mm/vmemmap_dedup.rst for hugetlb sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

PTE, PMD, PUD, P4D, PGD = 1, 2, 3, 4, 5
LEVEL_NAMES = {PTE: "pte", PMD: "pmd", PUD: "pud", P4D: "p4d", PGD: "pgd"}


@dataclass(frozen=True)
class Leaf:
    """One legal leaf: 2**shift bytes, made of `entries` adjacent entries of `level`."""

    shift: int
    level: int
    entries: int = 1

    @property
    def size(self) -> int:
        """Bytes that the leaf maps."""
        return 1 << self.shift


@dataclass(frozen=True)
class Geometry:
    """The page tables of one architecture and granule.

    base_shift: log2 of the base page in bytes; index_bits: log2 of a table's fan-out; levels: tables between
    the root and a PTE, both counted; leaves: every legal leaf, smallest first; hugetlb_sizes: huge pages in
    bytes, smallest first.
    """

    name: str
    base_shift: int
    index_bits: int
    levels: int
    leaves: tuple[Leaf, ...]

    @property
    def base_page(self) -> int:
        """Bytes of a base page."""
        return 1 << self.base_shift

    @property
    def leaf_sizes(self) -> tuple[int, ...]:
        """Bytes of every legal leaf, ascending."""
        return tuple(leaf.size for leaf in self.leaves)

    @property
    def hugetlb_sizes(self) -> tuple[int, ...]:
        """Bytes of every HugeTLB page size, ascending: every leaf but the base page."""
        return self.leaf_sizes[1:]

    def page_sizes(self, kind: str) -> tuple[int, ...]:
        """Bytes of the pages that a file may consist of, ascending. kind: hugetlb, shmem or anon.

        Folios of shmem and anonymous memory are base pages, what one entry of PMD level maps, or a power of two
        between, of 4 base pages at least, that PTEs alone map (Linux: /sys/kernel/mm/transparent_hugepage has them).
        """
        if kind == "hugetlb":
            return self.hugetlb_sizes
        between = range(self.base_shift + 2, self.level_shift(PMD))
        return (self.base_page, *(1 << shift for shift in between), 1 << self.level_shift(PMD))

    def leaf(self, size: int) -> Leaf:
        """The leaf of `size` bytes; KeyError where the geometry has none."""
        for leaf in self.leaves:
            if leaf.size == size:
                return leaf
        raise KeyError(size)

    def level_shift(self, level: int) -> int:
        """log2 of the bytes that one entry of `level` spans."""
        return self.base_shift + (level - PTE) * self.index_bits


GEOMETRIES = {
    g.name: g
    for g in (
        Geometry("x86-64", 12, 9, 4, (Leaf(12, PTE), Leaf(21, PMD), Leaf(30, PUD))),
        Geometry("x86-64-5level", 12, 9, 5, (Leaf(12, PTE), Leaf(21, PMD), Leaf(30, PUD))),
        Geometry("arm64-4k", 12, 9, 4,
                 (Leaf(12, PTE), Leaf(16, PTE, 16), Leaf(21, PMD), Leaf(25, PMD, 16), Leaf(30, PUD))),
        Geometry("arm64-16k", 14, 11, 4,
                 (Leaf(14, PTE), Leaf(21, PTE, 128), Leaf(25, PMD), Leaf(30, PMD, 32))),
        Geometry("arm64-64k", 16, 13, 3,
                 (Leaf(16, PTE), Leaf(21, PTE, 32), Leaf(29, PMD), Leaf(34, PMD, 32))),
        # of no architecture: so small that every sequence of operations on them can be tried (hgmcore.explore)
        Geometry("tiny-2", 12, 1, 5, (Leaf(12, PTE), Leaf(13, PMD))),
        Geometry("tiny-4", 12, 2, 5, (Leaf(12, PTE), Leaf(14, PMD))),
        Geometry("tiny-8", 12, 3, 5, (Leaf(12, PTE), Leaf(15, PMD))),
        Geometry("tiny-2x2", 12, 1, 5, (Leaf(12, PTE), Leaf(13, PMD), Leaf(14, PUD))),
        Geometry("tiny-4c", 12, 2, 5, (Leaf(12, PTE), Leaf(13, PTE, 2), Leaf(14, PMD))),
    )
}
TINY = tuple(name for name in GEOMETRIES if name.startswith("tiny-"))

FULL_SIZE = tuple(name for name in GEOMETRIES if not name.startswith("tiny-"))
"""Those of real architectures; the others are for searches of every sequence of operations."""

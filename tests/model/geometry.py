"""What page tables an architecture has, from its manual and from Documentation/mm/vmemmap_dedup.rst."""
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Geometry:
    base: int  # bytes of a base page, and of a page table
    fanout: int  # entries of a page table
    leaves: dict  # base pages of each legal leaf, ascending -> base pages that one of its entries spans
    tables: int = 4  # levels of them, with the root

    @property
    def levels(self):
        """Base pages that one entry of a level spans -> name of the level."""
        return {1: "pte", self.fanout: "pmd", self.fanout**2: "pud"}

    @property
    def pmd_table(self):
        """Bytes that a PMD table spans."""
        return self.fanout**2 * self.base


# A leaf larger than the span of its entries is a contiguous group of them.
K = 2**10
X86_64 = Geometry(4 * K, 512, {1: 1, 512: 512, 512 * 512: 512 * 512})
GEOMETRIES = {
    "x86-64": X86_64,
    "x86-64-5level": replace(X86_64, tables=5),  # one more table above all that is counted
    "arm64-4k": Geometry(4 * K, 512, {1: 1, 16: 1, 512: 512, 16 * 512: 512, 512 * 512: 512 * 512}),
    "arm64-16k": Geometry(16 * K, 2048, {1: 1, 128: 1, 2048: 2048, 32 * 2048: 2048}),
    "arm64-64k": Geometry(64 * K, 8192, {1: 1, 32: 1, 8192: 8192, 32 * 8192: 8192}, tables=3),
}

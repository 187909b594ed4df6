"""Page tables, mappings and huge pages: what an operation changes."""
from collections import Counter, namedtuple
from dataclasses import dataclass, field, replace

from .geometry import Geometry

POISON = "poison"  # the entry that memory failure leaves in place of a leaf
Leaf = namedtuple("Leaf", "folio first pages")  # first: base page within the huge page


@dataclass(eq=False)
class Table:
    first: int  # first base page that the table covers
    pages: int  # base pages that one of its entries spans
    slots: int
    entries: dict = field(default_factory=dict)  # first base page -> Table, Leaf or POISON

    def slot_of(self, page):
        return page // self.pages * self.pages

    def slots_in(self, first, pages):
        """The slots of `pages` base pages from `first`, which is one: several for a contiguous group."""
        return range(first, first + pages, self.pages)

    def slots_in_order(self):
        return self.slots_in(self.first, self.slots * self.pages)

    def free(self, first, pages):
        """Whether the slots for a leaf are empty."""
        return not any(slot in self.entries for slot in self.slots_in(first, pages))

    def put(self, leaf):
        for slot in self.slots_in(leaf.first, leaf.pages):
            self.entries[slot] = leaf

    def take(self, leaf):
        for slot in self.slots_in(leaf.first, leaf.pages):
            assert self.entries.pop(slot) is leaf


@dataclass(eq=False)
class Folio:
    file: str
    page: int
    pages: int
    pfn: int
    refcount: int = 0
    cached: bool = False
    freed: bool = False
    anon: bool = False
    pins: int = 0  # memory failure's reference is one of them
    bad: set = field(default_factory=set)  # base pages that failed
    mapcount: int = 0  # of a folio of one base page, which no scheme counts
    compound: int = 0
    entire: int = 0
    pmds: int = 0
    puds: int = 0
    large: int = 0
    total_pages: int = 0
    vma_count: int = 0
    nr_pages_mapped: int = 0
    double_map: bool = False
    slots: list = field(default_factory=lambda: [(0, 0), (0, 0)])  # (owner, count); owner 0: free
    shared_bit: bool = False
    spread: Counter = field(default_factory=Counter)  # slot of a CPU or process -> its count
    owned: Counter = field(default_factory=Counter)  # process's number -> its mappings
    every_page: int = 0  # to be added to each of:
    subpages: Counter = field(default_factory=Counter)

    def change_refcount(self, change, cost):
        """Add to the 32-bit reference count; a page whose count comes to 0 is freed."""
        self.refcount += change
        if self.refcount >= 2**31:
            self.refcount -= 2**32
            cost["overflows"] += 1
        elif self.refcount < -2**31:
            self.refcount += 2**32
        if change < 0 and self.refcount == 0:
            self.freed = True


@dataclass(eq=False)
class File:
    name: str
    page_size: int
    pages: int
    size: int  # huge pages (shmem: base pages) that a fault may bring in: truncate lowers it
    cache: dict = field(default_factory=dict)  # huge page (shmem: base page) -> Folio
    kind: str = "hugetlb"
    length: int = 0  # of shmem: bytes before its end
    allocated: int = 0  # folios of anonymous memory so far


@dataclass(eq=False)
class Vma:
    first: int  # bytes from the start of the mapping
    last: int
    minor: bool = False
    wp: bool = False
    hgm: bool = False
    rights: str = "rw"
    anon: object = None  # AnonVma of anonymous memory that was ready for folios of its own
    accounted: bool = True  # VM_ACCOUNT

    def clip(self, first, last):
        return max(self.first, first), min(self.last, last)


@dataclass(eq=False)
class AnonVma:
    """What keeps VMAs together or apart. forked: a child got it."""

    forked: bool = False


@dataclass(eq=False)
class Subtree:
    """What hangs at the hstate-level entry of a huge page, the one slot of `root`.

    A huge page of a contiguous size has several such entries, and no table that is its own.
    """

    root: Table
    counted_on: Folio | None = None  # schemes that mark the hstate-level entry: whose count it stands for

    @property
    def is_none(self):
        return not self.root.entries

    @property
    def is_group(self):
        return self.root.slots > 1

    @property
    def has_table(self):
        """Whether the hstate-level entry is a table."""
        return not self.is_group and isinstance(self.root.entries.get(0), Table)


@dataclass(eq=False)
class PmdTable:
    """A table of hstate-level entries, of one mapping or of several that share it."""

    subtrees: dict = field(default_factory=dict)  # huge page of the file -> Subtree
    sharers: list = field(default_factory=list)  # mappings
    made: bool = False  # a fault or the like needed it; else it only stands for the lack of one


@dataclass(eq=False)
class Mapping:
    process: str
    name: str
    owner: int  # identifies the process
    geometry: Geometry
    vmas: list = field(default_factory=list)
    file: File | None = None
    offset: int = 0  # huge pages
    length: int = 0  # bytes of the range, with holes
    private: bool = False
    address: int = 0  # of shmem and anonymous memory, as is:
    file_page: int = 0  # base page of the file where it begins
    pmd_tables: dict = field(default_factory=dict)  # PUD span of the file -> PmdTable

    def pmd_table(self, index):
        return self.pmd_tables.setdefault(self.span(self.offset + index), PmdTable(sharers=[self]))

    def subtree(self, index):
        """What hangs at the hstate-level entry of a huge page within the mapping."""
        page, pages = self.offset + index, self.file.page_size // self.geometry.base
        span = self.geometry.leaves[pages]
        return self.pmd_table(index).subtrees.setdefault(page, Subtree(Table(0, span, pages // span)))

    def span(self, page):
        return page * self.file.page_size // self.geometry.pmd_table

    def subtrees(self):
        """(huge page within the mapping, Subtree), ascending."""
        for _, table in sorted(self.pmd_tables.items()):
            for page, subtree in sorted(table.subtrees.items()):
                if self.vmas_in(*self.bytes_of(page - self.offset)):
                    yield page - self.offset, subtree

    def bytes_of(self, index):
        return index * self.file.page_size, (index + 1) * self.file.page_size

    def drop_subtree(self, index):
        self.pmd_tables[self.span(self.offset + index)].subtrees.pop(self.offset + index, None)

    def indices(self, first, last):
        """Huge pages that the bytes [first, last) touch."""
        return range(first // self.file.page_size, -(-last // self.file.page_size))

    def whole_pages(self, first, length):
        """Whether a range begins and ends at huge-page borders."""
        return first % self.file.page_size == length % self.file.page_size == 0

    def vmas_in(self, first, last):
        return [v for v in self.vmas if max(v.first, first) < min(v.last, last)]

    def vma_at(self, at):
        return next((v for v in self.vmas if v.first <= at < v.last), None)

    def vma_around(self, first, length):
        return next((v for v in self.vmas if v.first <= first and first + length <= v.last), None)

    def has_gap(self, first, last):
        return sum(b - a for a, b in (v.clip(first, last) for v in self.vmas_in(first, last))) != last - first

    def cut(self, vma, first, last):
        """Cut `vma` at the borders of [first, last) and return the part inside."""
        borders = sorted({vma.first, vma.last, *vma.clip(first, last)})
        parts = [replace(vma, first=a, last=b) for a, b in zip(borders, borders[1:])]
        at = self.vmas.index(vma)
        self.vmas[at:at + 1] = parts
        return next(p for p in parts if p.first >= first and p.last <= last)


def leaves_in(table, slots=None):
    """The leaves at and below the slots, or all of the table's, in order."""
    last = None
    for slot in sorted(table.entries) if slots is None else slots:
        entry = table.entries.get(slot)
        if isinstance(entry, Table):
            yield from leaves_in(entry)
        elif isinstance(entry, Leaf) and entry is not last:
            yield entry
            last = entry


def has_leaf(table):
    return any(isinstance(entry, Leaf) or isinstance(entry, Table) and has_leaf(entry)
               for entry in table.entries.values())


def tables_in(table):
    for entry in table.entries.values():
        if isinstance(entry, Table):
            yield entry
            yield from tables_in(entry)


def scan_for_leaf(table):
    """Entries examined, in order and depth first, up to the first leaf; and whether there was one."""
    examined = 0
    for slot in table.slots_in_order():
        examined += 1
        entry = table.entries.get(slot)
        if isinstance(entry, Leaf):
            return examined, True
        if isinstance(entry, Table):
            below, found = scan_for_leaf(entry)
            examined += below
            if found:
                return examined, True
    return examined, False

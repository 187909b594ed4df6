"""Leaves of shmem and anonymous memory as they come and go, and what schemes are told of them.

Below one entry of PMD level there may be pieces of many folios. What a folio has there is a subtree of its own: its
first piece fills the entry, its last empties it. A folio of one base page is counted by no scheme, but in its own
reference and map count.
"""
from collections import namedtuple
from dataclasses import dataclass, field

from .memory import Memory
from .schemes import Place
from .tables import Folio, Leaf

# What an entry maps: a base page of a folio, or at PMD level all of it; without a folio the zero page, which nobody
# counts. exclusive: of anonymous memory, only this process has it.
Entry = namedtuple("Entry", "folio page exclusive", defaults=(0, False))
ZERO = Entry(None)


@dataclass(eq=False)
class Space:
    """The page tables of a process."""

    process: str
    owner: int
    next_address: int = 0
    placed: bool = False  # mappings may lie anywhere
    pmds: dict = field(default_factory=dict)  # number of a PMD entry -> an Entry, or a table: dict of slot -> Entry
    upper: set = field(default_factory=set)  # ("pmd" or "pud", number): tables with entries of that level


@dataclass(eq=False)
class Pieces:
    """What a folio has below one PMD entry."""

    counted_on: Folio | None = None


class Counts(Memory):
    def __init__(self, scheme, geometry="x86-64", **options):
        super().__init__(scheme, geometry, **options)
        self.options.setdefault("fault_around", "none")
        self.options.setdefault("addresses", "apart")
        self.spaces = {}  # process -> Space
        self.pieces = {}  # (process, number of the PMD entry, folio) -> Pieces

    def mapcount(self, folio):
        return folio.mapcount if folio.pages == 1 else self.scheme.mapcount(folio)

    def maybe_shared(self, folio):
        return folio.mapcount > 1 if folio.pages == 1 else self.scheme.maybe_shared(folio)

    def referenced_otherwise(self, folio):
        """Whether there are references that neither the page cache nor a mapping has, by the count of mappings."""
        return folio.refcount != (folio.pages if folio.cached else 0) + self.mapcount(folio)

    def pieces_of(self, space, number, folio, origin, was_none=False):
        pieces = self.pieces.setdefault((space.process, number, folio), Pieces())
        return Place(pieces, space.owner, origin, was_none)

    def forget(self, space, number, folio):
        key = space.process, number, folio
        self.pieces.pop(key, None)
        self.known.discard(key)

    def count_small(self, folio, sign):
        """A mapping of a folio of one base page."""
        self.scheme.ref(folio, sign)
        self.scheme.count(folio, 0, "mapcount", sign)

    def scan_for(self, table, folio):
        """Read the entries up to the first that maps the folio."""
        slots = [slot for slot, entry in table.items() if entry.folio is folio]
        self.cost_counts["entries_scanned"] += min(slots) + 1 if slots else self.geometry.fanout

    def adjacent(self, leaves, split=False):
        """The leaves one by one, or with `batch` runs of adjacent ones; each is (slot, Leaf). split: of a PMD."""
        runs, last = [], None
        for slot, leaf in leaves:
            together = self.options["batch"] != "no" and self.scheme.hgm or split and self.scheme.splits_at_once
            if together and last and last[0] + 1 == slot and last[1].first + 1 == leaf.first:
                runs[-1].append(leaf)
            else:
                runs.append([leaf])
            last = slot, leaf
        return runs

    # -- PTEs

    def map_ptes(self, space, number, slot, folio, page, n, origin, was_none=False, exclusive=False):
        """Map `n` base pages of a folio, from `page` on, by PTEs from `slot` on, which are none.

        was_none: whether this step found the PMD entry none, so that nobody has to look what else is there.
        """
        table, scheme, key = space.pmds[number], self.scheme, (space.process, number, folio)
        first = key not in self.known and all(entry.folio is not folio for entry in table.values())
        exchange = origin == "poison"  # of a leaf that was counted before
        if scheme.scans_groups and folio.pages > 1 and not (exchange or was_none or key in self.known):
            self.scan_for(table, folio)
        for i in range(n):
            assert slot + i not in table
            table[slot + i] = Entry(folio, page + i, exclusive)
        self.cost_counts["leaf_installs"] += n
        if folio.pages == 1:
            self.count_small(folio, +1)
            return
        self.known.add(key)
        place = self.pieces_of(space, number, folio, origin, was_none)
        if first and not exchange:
            scheme.entry_filled(folio, place)
        for run in self.adjacent([(slot + i, Leaf(folio, page + i, 1)) for i in range(n)], exchange):
            scheme.install(run, place)
        if first and not exchange:
            scheme.first_leaf(folio, place)

    def unmap_ptes(self, space, number, slots, origin, keep_cows=False):
        """Empty those of the slots that are not none, folio by folio; keep_cows: but for a process's own pages."""
        table = space.pmds[number]
        gone = [(slot, table.pop(slot)) for slot in slots
                if slot in table and not (keep_cows and table[slot].folio and table[slot].folio.anon)]
        covered = len(slots) == self.geometry.fanout
        for folio in dict.fromkeys(entry.folio for _, entry in gone if entry.folio):
            leaves = [(slot, Leaf(folio, entry.page, 1)) for slot, entry in gone if entry.folio is folio]
            self.cost_counts["leaf_removes"] += len(leaves)
            if folio.pages == 1:
                self.count_small(folio, -1)
            else:
                self.count_removal(space, number, folio, leaves, origin, covered)

    def count_removal(self, space, number, folio, leaves, origin, covered):
        table, scheme = space.pmds[number], self.scheme
        place = self.pieces_of(space, number, folio, origin)
        for run in self.adjacent(leaves):
            scheme.remove(run, place)
        if origin == "collapse":  # a larger leaf follows
            return
        gone = all(entry.folio is not folio for entry in table.values())
        if scheme.scans_whole if covered else scheme.scans_groups:
            self.scan_for(table, folio)
        if gone:
            scheme.last_leaf(folio, place)
        if covered:
            scheme.entry_zapped([leaf for _, leaf in leaves], place)
        if gone:
            scheme.table_freed(place)
            self.forget(space, number, folio)

    # -- leaves of PMD level

    def map_whole(self, space, number, folio, origin, exclusive=False):
        assert number not in space.pmds
        space.pmds[number] = Entry(folio, 0, exclusive)
        place, exchange = self.pieces_of(space, number, folio, origin, was_none=True), origin == "collapse"
        self.cost_counts["leaf_installs"] += 1
        if not exchange:
            self.scheme.entry_filled(folio, place)
        self.scheme.install([Leaf(folio, 0, folio.pages)], place)
        if not exchange:
            self.scheme.first_leaf(folio, place)

    def unmap_whole(self, space, number, origin):
        folio = space.pmds.pop(number).folio
        if folio is None:
            return
        place, leaf = self.pieces_of(space, number, folio, origin), Leaf(folio, 0, folio.pages)
        self.cost_counts["leaf_removes"] += 1
        self.scheme.remove([leaf], place)
        self.scheme.last_leaf(folio, place)
        self.scheme.entry_zapped([leaf], place)
        self.scheme.table_freed(place)
        self.forget(space, number, folio)

    def exchange_whole(self, space, number):
        """Put PTEs in place of a leaf of anonymous memory. They come before it goes."""
        folio, _, exclusive = space.pmds[number]
        space.pmds[number] = {}
        if folio is None:
            space.pmds[number] = dict.fromkeys(range(self.geometry.fanout), ZERO)
            return
        refs = self.cost_counts["ref"]
        self.map_ptes(space, number, 0, folio, 0, folio.pages, "poison", exclusive=exclusive)
        self.cost_counts["ref"] = min(self.cost_counts["ref"], refs + 1)  # in one step
        self.cost_counts["leaf_removes"] += 1
        self.scheme.remove([Leaf(folio, 0, folio.pages)], self.pieces_of(space, number, folio, "poison"))

    # -- both may be moved as they are

    def move_entry(self, space, number, to):
        space.pmds[to] = space.pmds.pop(number)
        for process, at, folio in list(self.pieces):
            if (process, at) == (space.process, number):
                self.pieces[process, to, folio] = self.pieces.pop((process, at, folio))

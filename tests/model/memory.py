"""The memory of a model machine: page cache and page tables, and the events that schemes count."""
from collections import Counter

from .schemes import DEFAULTS, SCHEMES, Place
from .tables import (BASE, FANOUT, POISON, Folio, Leaf, Table, has_leaf, leaves_in, scan_for_leaf,
                     tables_in)

TABLE_BYTES = 4096
STRUCT_PAGES = 64  # in a base page of the host
INT_MAX = 2**31 - 1


class NoMemory(Exception):
    """An internal allocation that `fail` made fail."""


class Cost(Counter):
    def __init__(self):
        super().__init__()
        self.lines = set()  # struct pages that atomics went to
        self.frames = set()  # of the host's memory, that hold a struct page that was written

    def write(self, struct_pages):
        self.lines.update(struct_pages)
        self.hold(struct_pages)

    def hold(self, struct_pages):
        self.frames.update(range(struct_pages[0] // STRUCT_PAGES, struct_pages[-1] // STRUCT_PAGES + 1))

    def report(self):
        names = ("leaf_installs", "leaf_removes", "table_allocs", "table_frees", "entries_scanned",
                 "table_bytes_peak")
        atomics = {name: self[name] for name in ("ref", "map", "transient")}
        atomics["persistent"] = self["ref"] + self["map"]
        return {"atomics": atomics, "lines": len(self.lines), "struct_page_bytes": len(self.frames) * 4096,
                **{name: self[name] for name in names}}


class Memory:
    """The page cache, the page tables and the bookkeeping of one simulated machine."""

    def __init__(self, scheme, **options):
        self.cost_counts = Cost()
        chosen, given = SCHEMES[scheme], {k: str(v) for k, v in options.items()}
        posted = chosen.posted if given.get("model") == "posted" else {}
        self.options = {**DEFAULTS, **chosen.defaults, **posted, **given}
        self.scheme = chosen(self.cost_counts, self.options)
        self.files = {}
        self.folios = []  # every one there ever was, by age
        self.frames = 0  # handed out so far
        self.owners = {}  # process -> number, from 1
        self.mappings = {}  # (process, name) -> Mapping, for ever
        self.exited = set()
        self.known = set()  # subtrees of which this operation already knows whether they hold a leaf
        self.allocations = 0  # of this operation
        self.failing = None  # which of them fails

    # -- huge pages

    def allocate(self):
        self.allocations += 1
        if self.allocations == self.failing:
            raise NoMemory

    def new_folio(self, file, page):
        self.allocate()
        pages = file.page_size // BASE
        pfn = -(-self.frames // pages) * pages
        self.frames = pfn + pages
        self.folios.append(Folio(file.name, page, pages, pfn))
        self.cost_counts.hold(range(pfn, pfn + 1))
        return self.folios[-1]

    def cache_refs(self, folio):
        return folio.pages if self.options["cache_refs"] == "folio" else 1

    def enter_cache(self, file, folio):
        file.cache[folio.page] = folio
        folio.cached = True
        folio.change_refcount(self.cache_refs(folio), self.cost_counts)

    def leave_cache(self, file, page):
        folio = file.cache.pop(page)
        folio.cached = False
        folio.change_refcount(-self.cache_refs(folio), self.cost_counts)

    def add_to_cache(self, file, page):
        if page not in file.cache:
            self.enter_cache(file, self.new_folio(file, page))
        return file.cache[page]

    def put_back(self):
        """A look-up's reference that was taken and dropped."""
        self.cost_counts["transient"] += 2

    def overflows(self, folio):
        """Whether `overflow_check` refuses one more reference; which value it looks at is the option."""
        check, now = self.options["overflow_check"], folio.refcount
        if check == "after":
            return now == INT_MAX or now < 0
        return check == "try" and now <= 0 or check == "half" and now > INT_MAX // 2

    def leak_reference(self, folio):
        """v2's check forgets the reference that it found too much."""
        if self.options["overflow_check"] == "after" and self.options["model"] == "posted":
            folio.change_refcount(+1, self.cost_counts)

    # -- page tables

    def walk(self, subtree, page, pages, alloc=False):
        """The table and slot for a leaf of `pages` base pages at `page`, or of what stops the walk above."""
        table = subtree.root
        while True:
            slot = table.slot_of(page)
            entry = table.entries.get(slot)
            if table.pages == pages or entry is not None and not isinstance(entry, Table):
                return table, slot
            if entry is None:
                if not alloc:
                    return table, slot
                self.allocate()
                entry = table.entries[slot] = Table(slot, table.pages // FANOUT)
                self.count_tables("table_allocs", 1)
            table = entry

    def walk_for(self, subtree, page, pages, folio, place):
        """walk(alloc=True); with lookup_first a table is counted as soon as it hangs."""
        try:
            return self.walk(subtree, page, pages, alloc=True)
        finally:
            if place.was_none and isinstance(subtree.top, Table) and self.counts_tables():
                self.scheme.entry_filled(folio, place)

    def counts_tables(self):
        return self.options["lookup_first"] == "yes"

    def count_tables(self, what, tables):
        cost = self.cost_counts
        cost[what] += tables
        in_use = (cost["table_allocs"] - cost["table_frees"]) * TABLE_BYTES
        cost["table_bytes_peak"] = max(cost["table_bytes_peak"], in_use)

    def free_tables(self, table, slot):
        """Drop the entry and all tables at and below it."""
        entry = table.entries.pop(slot, None)
        if isinstance(entry, Table):
            self.count_tables("table_frees", 1 + len(list(tables_in(entry))))

    def scan(self, subtree):
        """Look whether the subtree holds a leaf; only below an hstate-level entry that is a table."""
        if isinstance(subtree.top, Table):
            self.cost_counts["entries_scanned"] += scan_for_leaf(subtree.top)[0]

    # -- leaves

    def add_leaves(self, table, slots, folio, place):
        """Install adjacent leaves, of one base page each or a single one."""
        subtree = place.subtree
        if place.was_none:
            self.known.add(subtree)
            if not (isinstance(subtree.top, Table) and self.counts_tables()):
                self.scheme.entry_filled(folio, place)
        if subtree not in self.known and self.scheme.scans_installs:
            self.scan(subtree)
        self.known.add(subtree)
        first = not has_leaf(subtree.root)
        self.set_leaves(table, slots, folio, place)
        if first:
            self.scheme.first_leaf(folio, place)

    def set_leaves(self, table, slots, folio, place):
        leaves = [Leaf(folio, slot, table.pages) for slot in slots]
        for leaf in leaves:
            table.entries[leaf.first] = leaf
        self.cost_counts["leaf_installs"] += len(leaves)
        self.scheme.install(leaves, place)

    def add_looked_up(self, table, slot, folio, place, refs):
        """Install a leaf for which a looked-up reference is held, and let the scheme keep or drop that.

        refs: the reference count before.
        """
        self.add_leaves(table, [slot], folio, place)
        if folio.refcount == refs:
            self.put_back()

    def remove_leaves(self, leaves, place):
        for leaf in leaves:
            table, slot = self.walk(place.subtree, leaf.first, leaf.pages)
            assert table.entries.pop(slot) == leaf
        self.cost_counts["leaf_removes"] += len(leaves)
        self.scheme.remove(leaves, place)

    def runs_of(self, leaves):
        """The leaves one by one, or with `batch` adjacent ones of a base page together, by page table."""
        runs = []
        for leaf in leaves:
            last = runs[-1][-1] if runs else None
            if (self.options["batch"] == "yes" and last and last.pages == leaf.pages == 1
                    and last.first + 1 == leaf.first and leaf.first % FANOUT):
                runs[-1].append(leaf)
            else:
                runs.append([leaf])
        return runs

    def zap(self, mapping, index, first=0, last=None, frees_tables=None, origin="zap"):
        """Remove what maps base pages [first, last) of a huge page of the mapping."""
        if last is None:
            last = mapping.file.page_size // BASE
        if frees_tables is None:
            frees_tables = self.options["zap_frees_tables"] == "yes"
        if self.drop_shared_table(mapping, index):
            return
        subtree = mapping.subtree(index)
        place, covered = Place(subtree, mapping.owner, origin), first == 0 and last == subtree.root.pages
        leaves = [leaf for leaf in leaves_in(subtree.root) if first <= leaf.first < last]
        had_entry = subtree.top is not None
        for run in self.runs_of(leaves):
            self.remove_leaves(run, place)
        self.clear_poison(subtree.root, first, last)
        self.tell_of_removal(leaves, place, covered)
        if covered and had_entry:
            self.scheme.entry_zapped(leaves, place)
            if frees_tables:
                self.free_subtree(place)

    def tell_of_removal(self, leaves, place, covered):
        """A scheme that has to looks for what is left; `last_leaf` if nothing is."""
        if leaves and (self.scheme.scans_whole if covered else self.scheme.scans_parts):
            self.scan(place.subtree)
        if leaves and not has_leaf(place.subtree.root):
            self.scheme.last_leaf(leaves[0].folio, place)

    def free_subtree(self, place):
        self.free_tables(place.subtree.root, 0)
        self.scheme.table_freed(place)

    def clear_poison(self, table, first, last):
        for slot, entry in list(table.entries.items()):
            if isinstance(entry, Table):
                self.clear_poison(entry, first, last)
            elif entry == POISON and first <= slot < last:
                del table.entries[slot]

    # -- page tables that mappings share

    def drop_shared_table(self, mapping, index):
        """Where the mapping shares the table that holds the huge page's entry: give up its part of the table."""
        table = mapping.pmd_table(index)
        if len(table.sharers) == 1:
            return False
        table.sharers.remove(mapping)
        del mapping.pmd_tables[mapping.span(mapping.offset + index)]
        return True

"""The memory of a model machine: page cache and page tables, and the events that schemes count."""
from collections import Counter

from .geometry import GEOMETRIES
from .schemes import DEFAULTS, SAME, SCHEMES, Place
from .tables import POISON, Folio, Table, has_leaf, leaves_in, scan_for_leaf, tables_in

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

    def __init__(self, scheme, geometry="x86-64", **options):
        self.geometry = GEOMETRIES[geometry]
        self.cost_counts = Cost()
        chosen, given = SCHEMES[scheme], {k: SAME.get((k, str(v)), str(v)) for k, v in options.items()}
        posted = chosen.posted if given.get("model") == "posted" else {}
        self.options = {**DEFAULTS, **chosen.defaults, **posted, **given}
        self.scheme = chosen(self.cost_counts, self.options)
        self.scheme.fanout = self.geometry.fanout
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
        pages = file.page_size // self.geometry.base
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
        self.scheme.kill(folio)
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

    def put_refused(self, folio):
        """The reference of a look-up that is refused: `try` takes none; v2's check forgets to put it back."""
        if self.options["overflow_check"] == "after" and self.options["model"] == "posted":
            folio.change_refcount(+1, self.cost_counts)
        elif self.options["overflow_check"] != "try":
            self.put_back()

    # -- page tables

    def walk(self, subtree, page, pages, new_table=None):
        """The table and slot for a leaf of `pages` base pages at `page`, or of what stops the walk above.

        An empty entry does, unless there is a function that makes a table to hang there.
        """
        table, span = subtree.root, self.geometry.leaves[pages]
        while True:
            slot = table.slot_of(page)
            entry = table.entries.get(slot)
            if entry is None and table.pages > span and new_table:
                entry = table.entries[slot] = new_table(table, slot)
            if table.pages == span or not isinstance(entry, Table):
                return table, slot
            table = entry

    def table_below(self, table, slot):
        return Table(slot, table.pages // self.geometry.fanout, self.geometry.fanout)

    def allocate_table(self, table, slot):
        self.allocate()
        self.count_tables("table_allocs", 1)
        return self.table_below(table, slot)

    def walk_for(self, subtree, page, pages, folio, place):
        """walk() that makes tables; with lookup_first an hstate-level one is counted as soon as it hangs."""
        try:
            return self.walk(subtree, page, pages, self.allocate_table)
        finally:
            if place.was_none and subtree.has_table and self.counts_tables():
                self.scheme.entry_filled(folio, place)

    def counts_tables(self):
        return self.options["lookup_first"] == "yes"

    def count_tables(self, what, tables):
        cost = self.cost_counts
        cost[what] += tables
        in_use = (cost["table_allocs"] - cost["table_frees"]) * self.geometry.base
        cost["table_bytes_peak"] = max(cost["table_bytes_peak"], in_use)

    def free_tables(self, table, slots):
        """Drop the entries and all tables at and below them."""
        for slot in slots:
            entry = table.entries.pop(slot, None)
            if isinstance(entry, Table):
                self.count_tables("table_frees", 1 + len(list(tables_in(entry))))

    def scan(self, subtree):
        """Look for a leaf in the subtree: below its entry if that is a table, or in each entry of a group."""
        if subtree.is_group or subtree.has_table:
            top = subtree.root if subtree.is_group else subtree.root.entries[0]
            self.cost_counts["entries_scanned"] += scan_for_leaf(top)[0]

    # -- leaves

    def add_leaves(self, table, leaves, place):
        """Install adjacent leaves, of one base page each or a single one.

        A contiguous huge page is filled with its first piece: no entry tells, so who has to know has to scan.
        """
        subtree, folio, scheme = place.subtree, leaves[0].folio, self.scheme
        first = not has_leaf(subtree.root)
        if subtree not in self.known and (scheme.scans_groups if subtree.is_group
                                          else scheme.scans_installs and not place.was_none):
            self.scan(subtree)
        self.known.add(subtree)
        if first if subtree.is_group else place.was_none and not (subtree.has_table and self.counts_tables()):
            scheme.entry_filled(folio, place)
        self.set_leaves(table, leaves, place)
        if first:
            scheme.first_leaf(folio, place)

    def set_leaves(self, table, leaves, place):
        for leaf in leaves:
            table.put(leaf)
        self.cost_counts["leaf_installs"] += len(leaves)
        self.scheme.install(leaves, place)

    def add_looked_up(self, table, leaf, place, refs):
        """Install a leaf for which a looked-up reference is held, and let the scheme keep or drop that.

        refs: the reference count before.
        """
        self.add_leaves(table, [leaf], place)
        if leaf.folio.refcount == refs:
            self.put_back()

    def remove_leaves(self, leaves, place):
        for leaf in leaves:
            table, _ = self.walk(place.subtree, leaf.first, leaf.pages)
            table.take(leaf)
        self.cost_counts["leaf_removes"] += len(leaves)
        self.scheme.remove(leaves, place)

    def runs_of(self, leaves):
        """The leaves one by one, or with `batch` adjacent ones of a base page together, by page table."""
        runs = []
        for leaf in leaves:
            last = runs[-1][-1] if runs else None
            if (self.options["batch"] != "no" and last and last.pages == leaf.pages == 1
                    and last.first + 1 == leaf.first and leaf.first % self.geometry.fanout):
                runs[-1].append(leaf)
            else:
                runs.append([leaf])
        return runs

    def zap(self, mapping, index, first=0, last=None, frees_tables=None, origin="zap"):
        """Remove what maps base pages [first, last) of a huge page of the mapping."""
        pages = mapping.file.page_size // self.geometry.base
        if last is None:
            last = pages
        if frees_tables is None:
            frees_tables = self.options["zap_frees_tables"] == "yes"
        if self.drop_shared_table(mapping, index):
            return
        subtree = mapping.subtree(index)
        place, covered = Place(subtree, mapping.owner, origin), first == 0 and last == pages
        leaves = [leaf for leaf in leaves_in(subtree.root) if first <= leaf.first < last]
        for run in self.runs_of(leaves):
            self.remove_leaves(run, place)
        self.clear_poison(subtree.root, first, last)
        self.tell_of_removal(leaves, place, covered)
        if covered and frees_tables:
            self.free_tables(subtree.root, subtree.root.slots_in_order())
            self.scheme.table_freed(place)

    def tell_of_removal(self, leaves, place, covered):
        """A scheme that has to looks for what is left; `last_leaf` if nothing is. An empty group is freed."""
        subtree, scheme = place.subtree, self.scheme
        gone = leaves and not has_leaf(subtree.root)
        in_pieces = leaves and leaves[0].pages < leaves[0].folio.pages
        scans_parts = scheme.scans_groups if subtree.is_group else scheme.scans_parts
        if in_pieces and (scheme.scans_whole if covered else scans_parts):
            self.scan(subtree)
        if gone:
            scheme.last_leaf(leaves[0].folio, place)
        if covered:
            scheme.entry_zapped(leaves, place)
        if gone and subtree.is_group:
            scheme.table_freed(place)

    def clear_poison(self, table, first, last):
        for slot, entry in list(table.entries.items()):
            if isinstance(entry, Table):
                self.clear_poison(entry, first, last)
            elif entry == POISON and first <= slot < last:
                del table.entries[slot]

    # -- page tables that mappings share

    def drop_shared_table(self, mapping, index):
        """Where the mapping shares the table that holds the huge page's entry: give up its part of it."""
        table = mapping.pmd_table(index)
        if len(table.sharers) == 1:
            return False
        table.sharers.remove(mapping)
        del mapping.pmd_tables[mapping.span(mapping.offset + index)]
        return True

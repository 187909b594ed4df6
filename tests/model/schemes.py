"""What each scheme counts, and what it reports."""
from collections import Counter, namedtuple

from .runs import steps

# Where leaves come or go: the subtree, the process's number, by what (zap, truncate, continue, fault, fork,
# collapse, migration, poison), and whether the step found the hstate-level entry empty.
Place = namedtuple("Place", "subtree owner origin was_none", defaults=(False,))


class Scheme:
    """What a scheme does as leaves and hstate-level entries come and go, and what it reports.

    `install` and `remove` are told of leaves, adjacent ones of one base page each or a single one;
    `first_leaf` and `last_leaf` of a subtree's first and last one (a collapse is one replacement: neither);
    `entry_filled` of an hstate-level entry that becomes a table or a whole leaf; `entry_zapped` after an
    operation over the whole huge page; `table_freed` of the hstate-level entry's table.
    """

    hgm = True
    collapses = True
    writes_tails = False
    poisons_whole = False  # memory failure unmaps the whole huge page
    scans_installs = scans_parts = scans_whole = False
    defaults = {}
    posted = {}

    def __init__(self, cost, options):
        self.cost, self.era = cost, options["era"]
        self.rmap_aware = options["rmap_aware"] == "yes"

    def count(self, folio, page, word, change):
        """One atomic add to a map word that lies in struct page `page` of the folio."""
        setattr(folio, word, getattr(folio, word) + change)
        if change < 0 and getattr(folio, word) < 0:
            self.cost["underflows"] += 1
        self.charge(folio, "map", page)

    def charge(self, folio, kind, page):
        self.cost[kind] += 1
        self.cost.write(range(folio.pfn + page, folio.pfn + page + 1))

    def ref(self, folio, change):
        if change < 0 and folio.refcount == 0:
            self.cost["underflows"] += 1
        folio.change_refcount(change, self.cost)
        self.charge(folio, "ref", 0)

    def install(self, leaves, place):
        self.ref(leaves[0].folio, +len(leaves))
        self.count_map(leaves, +1, place)

    def remove(self, leaves, place):
        self.ref(leaves[0].folio, -len(leaves))
        self.count_map(leaves, -1, place)

    def count_map(self, leaves, sign, place):
        pass

    def first_leaf(self, folio, place):
        pass

    def last_leaf(self, folio, place):
        pass

    def entry_filled(self, folio, place):
        pass

    def entry_zapped(self, leaves, place):
        """Also at a zap of the whole huge page that leaves its tables, or that met no leaf."""

    def table_freed(self, place):
        pass

    def mapping_refs(self, leaves, subtrees, counted):
        """References that so many leaves, in so many subtrees, so many of them marked as counted, hold."""
        return leaves

    def page_mapcount(self, folio):
        return [(0, folio.pages, self.mapcount(folio))]

    def sharer_counts(self, folio):
        """What smaps and the like take for the counts of base pages."""
        return self.page_mapcount(folio)

    def mapcount(self, folio):
        return folio.compound

    def mapped(self, folio):
        return self.mapcount(folio) > 0

    def maybe_shared(self, folio):
        return self.mapcount(folio) > 1

    def movable(self, folio):
        """Whether mbind without MOVE_ALL takes it, as far as the counts tell."""
        if self.era == "6.15":
            return self.mapcount(folio) <= 1
        return self.page_mapcount(folio)[0][2] == 1

    def state(self, folio):
        return {"compound": folio.compound}

    def extra(self, folio):
        return {}


class HeadPerLeaf(Scheme):
    def count_map(self, leaves, sign, place):
        self.count(leaves[0].folio, 1, "compound", sign * len(leaves))


class Hugetlb(Scheme):
    """From Linux 6.10 on a second word counts in step."""

    hgm = False
    poisons_whole = True

    def count_map(self, leaves, sign, place):
        self.count(leaves[0].folio, 1, "entire", sign)
        if self.era == "6.15":
            self.count(leaves[0].folio, 1, "large", sign)

    def mapcount(self, folio):
        return folio.entire

    def state(self, folio):
        return {"entire": folio.entire, **({"large": folio.large} if self.era == "6.15" else {})}


def is_whole(leaves):
    return leaves[0].pages == leaves[0].folio.pages


def base_pages(leaves):
    return range(leaves[0].first, leaves[-1].first + leaves[-1].pages)


def subpage_steps(folio, entire):
    change = Counter({0: entire})
    for page, count in folio.subpages.items():
        change[page] += count
        change[page + 1] -= count
    return steps(change, folio.pages)


class PerPagePosted(Scheme):
    writes_tails = True
    poisons_whole = True
    posted = {"overflow_check": "after"}

    def count_map(self, leaves, sign, place):
        if is_whole(leaves):
            self.count(leaves[0].folio, 1, "entire", sign)
        else:
            self.count_subpages(leaves, sign)

    def count_subpages(self, leaves, sign):
        """Returns how many of the pages this was the first mapping of, or the last."""
        folio, turned = leaves[0].folio, 0
        for page in base_pages(leaves):
            folio.subpages[page] += sign
            self.charge(folio, "map", page)
            if sign < 0 and folio.subpages[page] < 0:
                self.cost["underflows"] += 1
            turned += folio.subpages[page] == (1 if sign > 0 else 0)
        return turned

    def page_mapcount(self, folio):
        return subpage_steps(folio, folio.entire)

    def mapcount(self, folio):
        return folio.entire

    def state(self, folio):
        return {"entire": folio.entire}


class NrPagesMapped(PerPagePosted):
    poisons_whole = False
    defaults = {"era": "6.3"}
    posted = {}
    FLAG = 0x800000

    def count_map(self, leaves, sign, place):
        folio = leaves[0].folio
        if is_whole(leaves):
            self.count(folio, 1, "entire", sign)
            if folio.entire == (1 if sign > 0 else 0):
                self.count(folio, 1, "nr_pages_mapped", sign * self.FLAG)
            return
        turned = self.count_subpages(leaves, sign)
        if len(leaves) > 1 and turned:
            self.count(folio, 1, "nr_pages_mapped", sign * turned)
        elif len(leaves) == 1:
            for _ in range(turned):
                self.count(folio, 1, "nr_pages_mapped", sign)

    def mapcount(self, folio):
        return folio.entire + sum(folio.subpages.values())

    def mapped(self, folio):
        return folio.nr_pages_mapped > 0

    def state(self, folio):
        return {"entire": folio.entire, "nr_pages_mapped": f"{folio.nr_pages_mapped:#x}"}

    def extra(self, folio):
        whole = folio.nr_pages_mapped >= self.FLAG
        return {"nr_file_mapped": folio.pages if whole else folio.nr_pages_mapped}


class LargeMapcount(NrPagesMapped):
    defaults = {}
    posted = {"era": "6.15", "cache_refs": "folio", "batch": "yes"}

    def count_map(self, leaves, sign, place):
        super().count_map(leaves, sign, place)
        self.count_large(leaves, sign, place)

    def count_large(self, leaves, sign, place):
        mappings = 1 if is_whole(leaves) else len(base_pages(leaves))
        self.count(leaves[0].folio, 1, "large", sign * mappings)
        return mappings

    def mapcount(self, folio):
        return folio.large

    def mapped(self, folio):
        return folio.large > 0

    def maybe_shared(self, folio):
        """folio_likely_mapped_shared()"""
        if folio.large <= 1:
            return False
        return folio.entire > 0 or folio.large > folio.pages or folio.subpages[0] > 1

    def state(self, folio):
        return {**super().state(folio), "large": folio.large}


class Owners:
    """Two slots for processes that map the folio, and a bit: maybe shared. Counts are without bias."""

    def count_owner(self, folio, owner, change, total):
        slots = folio.slots
        mine = next((i for i in (0, 1) if slots[i][0] == owner), None)
        if change > 0:
            if mine is not None:
                slots[mine] = owner, slots[mine][1] + change
            elif slots[0][0] == 0:
                slots[0] = owner, change
                folio.shared_bit = folio.shared_bit or total != change
            elif slots[1][0] == 0:
                slots[1] = owner, change
                folio.shared_bit = True
            return
        if mine is not None:
            slots[mine] = owner, slots[mine][1] + change
            if slots[mine][1] > 0:
                return
            slots[mine] = 0, 0
        if total in (slots[0][1], slots[1][1]):
            folio.shared_bit = False

    def maybe_shared(self, folio):
        return self.mapcount(folio) > 1 and folio.shared_bit

    def owners_state(self, folio):
        return {"slots": [list(slot) for slot in folio.slots], "shared_bit": folio.shared_bit}


class MmId(Owners, LargeMapcount):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "yes"}

    def count_large(self, leaves, sign, place):
        mappings = super().count_large(leaves, sign, place)
        self.count_owner(leaves[0].folio, place.owner, sign * mappings, leaves[0].folio.large)

    def state(self, folio):
        return {**super().state(folio), **self.owners_state(folio)}


def average(total, pages):
    return max(1, (total + pages // 2) // pages) if total else 0


class NoPageMapcount(Owners, Scheme):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "yes"}

    def count_map(self, leaves, sign, place):
        folio, mappings = leaves[0].folio, len(base_pages(leaves))
        if is_whole(leaves):
            self.count(folio, 1, "entire", sign)
            mappings = 1
        self.count(folio, 1, "large", sign * mappings)
        self.count_owner(folio, place.owner, sign * mappings, folio.large)

    def mapcount(self, folio):
        return folio.large

    def page_mapcount(self, folio):
        pieces = folio.large - folio.entire
        each = average(folio.entire * folio.pages + pieces, folio.pages)
        return [(0, folio.pages, each)]

    def state(self, folio):
        return {"entire": folio.entire, "large": folio.large, **self.owners_state(folio)}

    def extra(self, folio):
        return {"nr_file_mapped": folio.pages if folio.large > 0 else 0}


class TotalMappedPages(Owners, Scheme):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "yes"}

    def count_map(self, leaves, sign, place):
        folio = leaves[0].folio
        self.count(folio, 1, "large", sign * len(leaves))
        folio.total_pages += sign * len(base_pages(leaves))  # under the lock that the other change takes
        self.count_owner(folio, place.owner, sign * len(leaves), folio.large)

    def mapcount(self, folio):
        return folio.large

    def page_mapcount(self, folio):
        return [(0, folio.pages, average(folio.total_pages, folio.pages))]

    def state(self, folio):
        return {"entries": folio.large, "total_pages": folio.total_pages, **self.owners_state(folio)}


class DoubleMap(PerPagePosted):
    poisons_whole = False
    posted = {}

    def count_map(self, leaves, sign, place):
        folio = leaves[0].folio
        if not is_whole(leaves):
            self.count_subpages(leaves, sign)
            if sign > 0:
                folio.double_map = True
            return
        if sign > 0 and not folio.every_page and not any(folio.subpages.values()):
            folio.double_map = False
        folio.every_page += sign
        self.cost["map"] += folio.pages
        self.cost.write(range(folio.pfn, folio.pfn + folio.pages))
        self.count(folio, 1, "compound", sign)

    def page_mapcount(self, folio):
        return subpage_steps(folio, folio.every_page)

    def mapcount(self, folio):
        counts = sum(folio.subpages.values()) + folio.every_page * folio.pages
        return counts + folio.compound - folio.compound * folio.pages

    def state(self, folio):
        return {"compound": folio.compound, "double_map": folio.double_map}


class SubtreePosted(Scheme):
    """Each operation has a sign of its own for whether it changes the one count of a subtree."""

    collapses = False

    def count_map(self, leaves, sign, place):
        head = leaves[0].first == 0
        if sign > 0 and {"continue": place.was_none, "fault": is_whole(leaves), "fork": head,
                         "migration": head}.get(place.origin, False):
            self.count(leaves[0].folio, 1, "compound", +1)

    def entry_zapped(self, leaves, place):
        for leaf in leaves:
            if leaf.first == 0:
                self.count(leaf.folio, 1, "compound", -1)


class SubtreeCount(Scheme):
    defaults = {"lookup_first": "yes", "zap_frees_tables": "yes"}

    def entry_filled(self, folio, place):
        self.count(folio, 1, "compound", +1)
        place.subtree.counted_on = folio

    def entry_zapped(self, leaves, place):
        """A zap that meets leaves takes the entry for counted; without any, what was done here tells."""
        if place.origin == "migration" and not (leaves and is_whole(leaves)):
            return
        folio = leaves[0].folio if leaves else place.subtree.counted_on
        if folio:
            self.count(folio, 1, "compound", -1)
        place.subtree.counted_on = None

    def table_freed(self, place):
        if place.subtree.counted_on:
            self.count(place.subtree.counted_on, 1, "compound", -1)
        place.subtree.counted_on = None


class LogicalCounter(Scheme):
    defaults = {"lookup_first": "yes"}

    def install(self, leaves, place):
        pass

    remove = install

    def first_leaf(self, folio, place):
        self.ref(folio, +1)
        self.count(folio, 1, "compound", +1)

    def last_leaf(self, folio, place):
        self.ref(folio, -1)
        self.count(folio, 1, "compound", -1)

    def mapping_refs(self, leaves, subtrees, counted):
        return subtrees


class LogicalScan(LogicalCounter):
    scans_installs = scans_parts = True


class SpecialBit(LogicalCounter):
    scans_parts = True


class LogicalTable(LogicalCounter):
    """The count stays with the hstate-level entry, which knows by a bit whether it is counted."""

    def first_leaf(self, folio, place):
        pass

    last_leaf = first_leaf

    def entry_filled(self, folio, place):
        if place.subtree.counted_on is None:
            self.ref(folio, +1)
            self.count(folio, 1, "compound", +1)
            place.subtree.counted_on = folio

    def install(self, leaves, place):
        self.entry_filled(leaves[0].folio, place)

    def table_freed(self, place):
        if place.subtree.counted_on:
            self.ref(place.subtree.counted_on, -1)
            self.count(place.subtree.counted_on, 1, "compound", -1)
            place.subtree.counted_on = None

    def remove(self, leaves, place):
        if is_whole(leaves) and place.origin not in ("collapse", "poison"):
            self.table_freed(place)

    def entry_zapped(self, leaves, place):
        if self.rmap_aware and place.origin in ("truncate", "migration"):
            self.table_freed(place)

    def mapping_refs(self, leaves, subtrees, counted):
        return counted


class LeafAndVma(HeadPerLeaf):
    scans_installs = scans_parts = True

    def first_leaf(self, folio, place):
        self.count(folio, 1, "vma_count", +1)

    def last_leaf(self, folio, place):
        self.count(folio, 1, "vma_count", -1)

    def sharer_counts(self, folio):
        return [(0, folio.pages, folio.vma_count)]

    def maybe_shared(self, folio):
        return folio.vma_count > 1

    def movable(self, folio):
        return folio.vma_count <= 1 if self.era == "6.15" else folio.vma_count == 1

    def state(self, folio):
        return {"compound": folio.compound, "vma_count": folio.vma_count}


class PerVma(Scheme):
    scans_installs = scans_parts = scans_whole = True

    def first_leaf(self, folio, place):
        self.count(folio, 1, "compound", +1)

    def last_leaf(self, folio, place):
        self.count(folio, 1, "compound", -1)


SCHEMES = {
    "hugetlb": Hugetlb,
    "head_per_leaf": HeadPerLeaf,
    "per_page_posted": PerPagePosted,
    "nr_pages_mapped": NrPagesMapped,
    "subtree_posted": SubtreePosted,
    "subtree": SubtreeCount,
    "logical_scan": LogicalScan,
    "logical_table": LogicalTable,
    "logical_counter": LogicalCounter,
    "double_map": DoubleMap,
    "large_mapcount": LargeMapcount,
    "mm_id": MmId,
    "no_page_mapcount": NoPageMapcount,
    "total_mapped_pages": TotalMappedPages,
    "leaf_and_vma": LeafAndVma,
    "per_vma": PerVma,
    "special_bit": SpecialBit,
}
DEFAULTS = {"cache_refs": "1", "era": "6.2", "transient": "counted", "lookup_first": "no", "zap_frees_tables": "no",
            "rmap_aware": "no", "policy": "any", "overflow_check": "none", "batch": "no", "model": "default",
            "hvo": "off"}

"""What a scheme counts, and what it reports: what all of them share."""
from collections import namedtuple

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
    # When it looks for another leaf: before an install under a table; after a zap of parts, of the whole; in
    # a contiguous huge page, which has no entry to keep a bit or a count in, instead of the first two.
    scans_installs = scans_parts = scans_whole = scans_groups = False
    counts_subtrees = False  # what is below one hstate-level entry counts as one
    splits_at_once = False  # the pieces of a PMD of anonymous memory that is split come together
    defaults = {}
    posted = {}

    def __init__(self, cost, options):
        self.cost, self.options, self.era = cost, options, options["era"]
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

    def mapping_refs(self, folio, leaves, subtrees, counted):
        """References that so many leaves, in so many subtrees, so many of them marked as counted, hold."""
        return leaves

    def kill(self, folio):
        """The folio leaves the page cache or is split."""

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


def is_whole(leaves):
    return leaves[0].pages == leaves[0].folio.pages


def base_pages(leaves):
    return range(leaves[0].first, leaves[-1].first + leaves[-1].pages)

"""One count for each subtree of page tables."""
from .scheme import Scheme, is_whole


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
    counts_subtrees = True

    def entry_filled(self, folio, place):
        self.count(folio, 1, "compound", +1)
        place.subtree.counted_on = folio

    def install(self, leaves, place):
        super().install(leaves, place)
        if is_whole(leaves):
            place.subtree.counted_on = leaves[0].folio  # a collapse: the bit went with the table

    def entry_zapped(self, leaves, place):
        """A zap that meets leaves takes the entry for counted, whatever was done here; without any, that tells."""
        if place.origin == "migration" and not (leaves and is_whole(leaves)):
            return
        folio = place.subtree.counted_on or (leaves[0].folio if leaves else None)
        if folio:
            self.count(folio, 1, "compound", -1)
        place.subtree.counted_on = None

    def table_freed(self, place):
        if place.subtree.counted_on:
            self.count(place.subtree.counted_on, 1, "compound", -1)
        place.subtree.counted_on = None


class LogicalCounter(Scheme):
    defaults = {"lookup_first": "yes"}
    scans_groups = counts_subtrees = True

    def install(self, leaves, place):
        pass

    remove = install

    def first_leaf(self, folio, place):
        self.ref(folio, +1)
        self.count(folio, 1, "compound", +1)

    def last_leaf(self, folio, place):
        self.ref(folio, -1)
        self.count(folio, 1, "compound", -1)

    def mapping_refs(self, folio, leaves, subtrees, counted):
        return subtrees


class LogicalScan(LogicalCounter):
    scans_installs = scans_parts = True


class SpecialBit(LogicalCounter):
    scans_parts = True


class LogicalTable(LogicalCounter):
    """The count stays with the hstate-level entry, which knows by a bit whether it is counted."""

    scans_groups = False

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
        if is_whole(leaves):
            place.subtree.counted_on = leaves[0].folio  # a collapse: the bit and what it stood for went with the table

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

    def mapping_refs(self, folio, leaves, subtrees, counted):
        return counted


class PerVma(Scheme):
    scans_installs = scans_parts = scans_whole = scans_groups = counts_subtrees = True

    def first_leaf(self, folio, place):
        self.count(folio, 1, "compound", +1)

    def last_leaf(self, folio, place):
        self.count(folio, 1, "compound", -1)

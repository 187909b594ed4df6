"""Counts of the huge page as a whole, for each leaf."""
from .scheme import Scheme


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


class LeafAndVma(HeadPerLeaf):
    scans_installs = scans_parts = scans_groups = counts_subtrees = True

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

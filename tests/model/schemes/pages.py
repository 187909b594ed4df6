"""Counts of base pages."""
from collections import Counter

from ..runs import steps
from .scheme import Scheme, base_pages, is_whole


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
        if len(leaves) > 1 and self.options["batch"] == "6.12":
            if turned:
                self.count(folio, 1, "nr_pages_mapped", sign * turned)
        else:
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
    posted = {"era": "6.15", "cache_refs": "folio", "batch": "6.12"}

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

"""Counts of owners, and averages in place of counts of base pages."""
from .pages import LargeMapcount
from .scheme import Scheme, base_pages, is_whole


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


class RmapId(LargeMapcount):
    """Sums of process numbers, here as what they say: how many mappings each process has."""

    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio"}

    @property
    def splits_at_once(self):
        return self.options["rmap_batch"] == "split"

    def install(self, leaves, place):
        self.ref(leaves[0].folio, len(leaves))
        self.call(leaves, +1, place)

    def remove(self, leaves, place):
        self.ref(leaves[0].folio, -len(leaves))
        self.call(leaves, -1, place)

    def call(self, leaves, sign, place):
        folio, exclusive = leaves[0].folio, self.options["rmap_exclusive"]
        before = self.cost["map"]
        self.count_map(leaves, sign, place)
        if exclusive == "all":
            self.cost["map"] = before
        elif exclusive == "tracked":
            self.cost["map"] -= 1  # _large_mapcount
        if exclusive == "no":
            self.cost["map"] += int(self.options["rmap_values"])
        self.cost["map"] += 2  # the writers' count
        sums = folio.pfn + (3 if folio.pages > 3 else 1)
        self.cost.write(range(sums, sums + 1))
        self.cost.write(range(folio.pfn + 1, folio.pfn + 2))
        folio.owned[place.owner] += sign * (1 if is_whole(leaves) else len(base_pages(leaves)))

    def maybe_shared(self, folio):
        return folio.large > folio.pages or sum(count > 0 for count in folio.owned.values()) > 1


class MmId(Owners, LargeMapcount):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "6.12"}

    def count_large(self, leaves, sign, place):
        mappings = super().count_large(leaves, sign, place)
        self.count_owner(leaves[0].folio, place.owner, sign * mappings, leaves[0].folio.large)

    def state(self, folio):
        return {**super().state(folio), **self.owners_state(folio)}


def average(total, pages):
    return max(1, (total + pages // 2) // pages) if total else 0


class NoPageMapcount(Owners, Scheme):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "6.12"}

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


class PmdPudMapcount(NoPageMapcount):
    """`fanout`, how many base pages a PMD entry spans, is the geometry's and set from outside."""

    def count_map(self, leaves, sign, place):
        folio, pages = leaves[0].folio, len(base_pages(leaves))
        level = 0 if leaves[0].pages < self.fanout else 1 if leaves[0].pages < self.fanout**2 else 2
        entries = pages // self.fanout**level
        if level:
            self.count(folio, 1, "pmds" if level == 1 else "puds", sign * entries)
        self.count(folio, 1, "large", sign * entries)
        self.count_owner(folio, place.owner, sign * entries, folio.large)

    def page_mapcount(self, folio):
        ptes = folio.large - folio.pmds - folio.puds
        total = ptes + folio.pmds * self.fanout + folio.puds * self.fanout**2
        return [(0, folio.pages, average(total, folio.pages))]

    def state(self, folio):
        return {"pmd": folio.pmds, "pud": folio.puds, "large": folio.large, **self.owners_state(folio)}


class TotalMappedPages(Owners, Scheme):
    defaults = {"era": "6.15"}
    posted = {"cache_refs": "folio", "batch": "6.12"}

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

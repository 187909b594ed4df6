"""Counts that a folio has once for each CPU, or for each process."""
from .heads import HeadPerLeaf
from .scheme import Scheme


class Spread(Scheme):
    """`cpu` runs the operations; who replays sets it."""

    cpu = 0
    slots_each = True  # how much each slot has matters, and not the sum alone

    def slot(self, folio, number):
        pages = max(folio.pages - 2, 1)
        return number % min(32, 4 * pages)

    def slot_add(self, folio, slot, change):
        folio.spread[slot] += change
        self.cost.write(range(folio.pfn + self.page_of(folio, slot), folio.pfn + self.page_of(folio, slot) + 1))

    def page_of(self, folio, slot):
        return 1 if folio.pages <= 2 else 2 + slot % min(folio.pages - 2, 32)

    def empty_slots(self, folio):
        total = sum(folio.spread.values())
        for slot, count in folio.spread.items():
            if count:
                self.slot_add(folio, slot, -count)
        return total


class PercpuCounter(Spread, HeadPerLeaf):
    slots_each = False

    def count_map(self, leaves, sign, place):
        folio = leaves[0].folio
        self.slot_add(folio, self.slot(folio, self.cpu), sign * len(leaves))

    def mapcount(self, folio):
        return sum(folio.spread.values())

    def state(self, folio):
        return {}


class SloppyCounter(Spread):
    def both(self, folio, change):
        """The central counts."""
        if change:
            self.ref(folio, change)
            self.count(folio, 1, "compound", change)

    def install(self, leaves, place):
        folio = leaves[0].folio
        slot = self.slot(folio, self.cpu)
        spare = min(len(leaves), folio.spread[slot])
        if spare:
            self.slot_add(folio, slot, -spare)
        self.both(folio, len(leaves) - spare)

    def remove(self, leaves, place):
        folio = leaves[0].folio
        slot = self.slot(folio, self.cpu)
        if not folio.cached:
            self.both(folio, -len(leaves))
        elif place.origin in ("truncate", "migration"):
            self.both(folio, -len(leaves) - self.empty_slots(folio))
        else:
            self.slot_add(folio, slot, len(leaves))
            if folio.spread[slot] > min(max(folio.pages // 4, 1), 8):
                self.both(folio, -folio.spread[slot])
                self.slot_add(folio, slot, -folio.spread[slot])

    def kill(self, folio):
        self.both(folio, -self.empty_slots(folio))

    def mapcount(self, folio):
        return folio.compound - sum(folio.spread.values())

    def mapping_refs(self, folio, leaves, subtrees, counted):
        return folio.compound


class PercpuRef(Spread):
    slots_each = False

    def install(self, leaves, place):
        folio = leaves[0].folio
        if folio.cached and not folio.large and not folio.compound:
            self.ref(folio, +1)
            folio.large = 1
        if folio.large:
            self.slot_add(folio, self.slot(folio, self.cpu), len(leaves))
        else:
            self.ref(folio, len(leaves))
            self.count(folio, 1, "compound", len(leaves))

    def remove(self, leaves, place):
        folio = leaves[0].folio
        if place.origin in ("truncate", "migration"):
            self.kill(folio)
        if folio.large:
            self.slot_add(folio, self.slot(folio, self.cpu), -len(leaves))
        else:
            self.ref(folio, -len(leaves))
            self.count(folio, 1, "compound", -len(leaves))

    def kill(self, folio):
        if folio.large:
            folio.large, leaves = 0, self.empty_slots(folio)
            if leaves:
                self.count(folio, 1, "compound", leaves)
            if leaves != 1:
                self.ref(folio, leaves - 1)

    def mapcount(self, folio):
        return folio.compound + sum(folio.spread.values())

    def mapped(self, folio):
        return bool(folio.large) or self.mapcount(folio) > 0

    def mapping_refs(self, folio, leaves, subtrees, counted):
        return 1 if folio.large else self.mapcount(folio)

    def state(self, folio):
        return {"compound": folio.compound, "cpus_count": folio.large}


class Snzi(Spread):
    slots_of_processes = True

    def install(self, leaves, place):
        folio = leaves[0].folio
        self.arrive(folio, self.slot(folio, place.owner - 1), len(leaves))

    def arrive(self, folio, node, leaves):
        if folio.spread[node] == 0:
            self.ref(folio, +1)
            self.count(folio, 1, "compound", +1)
        self.slot_add(folio, node, leaves)
        self.cost["map"] += 1

    def remove(self, leaves, place):
        folio = leaves[0].folio
        node = self.slot(folio, place.owner - 1)
        self.slot_add(folio, node, -len(leaves))
        self.cost["map"] += 1
        if folio.spread[node] == 0:
            self.ref(folio, -1)
            self.count(folio, 1, "compound", -1)

    def mapping_refs(self, folio, leaves, subtrees, counted):
        return folio.compound

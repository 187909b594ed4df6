"""Anonymous memory: page faults and copy on write, as Linux does them (mm/memory.c, mm/huge_memory.c).

A read maps the zero page. Allocations count in this order: huge folio, table in deposit; or page table, base page.
"""
from .memory import NoMemory
from .shmem import Shmem
from .tables import AnonVma
from .thp_counts import ZERO


class Anon(Shmem):
    def new_anon(self, file, pages):
        """A folio; its place in the file tells how many there were before."""
        self.allocate()
        folio = self.new_frames(file, file.allocated, pages)
        file.allocated += 1
        return folio

    def touch_anon(self, mapping, vma, offset, write):
        space, (number, _) = self.space(mapping), self.where(mapping, offset)
        was_none = number not in space.pmds
        if was_none and mapping.file.page_size == self.pmd_size and (
                self.fits_pmd(mapping, vma, offset)):
            self.prepare(mapping, vma)
            if self.fault_huge(mapping.file, space, number, write):
                return
        entry = space.pmds.get(number)
        if entry is not None and not isinstance(entry, dict):
            if not write or entry.exclusive or self.write_huge(mapping.file, space, number):
                return
            self.exchange_whole(space, number)
        self.need_table(space, number)
        self.touch_pte(mapping, vma, offset, write, was_none)

    def prepare(self, mapping, vma):
        """Before a VMA gets its first folio: the anon_vma of a neighbour that differs in rights alone, or a new one."""
        behind = [other for other in mapping.vmas if other.first == vma.last]
        before = [other for other in mapping.vmas if other.last == vma.first]
        for other in behind + before if vma.anon is None else ():
            same = (other.minor, other.wp, other.accounted) == (vma.minor, vma.wp, vma.accounted)
            if other.anon and not other.anon.forked and same:
                vma.anon = other.anon
                return
        vma.anon = vma.anon or AnonVma()

    def fault_huge(self, file, space, number, write):
        """Map a huge folio, or the zero page of its size. False: there is no huge folio to be had."""
        folio = None
        if write:
            try:
                folio = self.new_anon(file, self.geometry.fanout)
            except NoMemory:
                return False
        self.new_pte_table()  # for deposit; without it the fault fails
        if folio:
            self.map_whole(space, number, folio, "fault", exclusive=True)
        else:
            space.pmds[number] = ZERO
        return True

    def write_huge(self, file, space, number):
        """A write to a PMD leaf that is not exclusive. False: it has to be split."""
        folio = space.pmds[number].folio
        if folio:
            if folio.refcount == 1:
                space.pmds[number] = space.pmds[number]._replace(exclusive=True)
            return folio.refcount == 1
        if self.options["era"] != "6.15":
            return False
        try:
            folio = self.new_anon(file, self.geometry.fanout)  # from 6.13 on
        except NoMemory:
            return False
        del space.pmds[number]
        self.map_whole(space, number, folio, "fault", exclusive=True)
        return True

    def touch_pte(self, mapping, vma, offset, write, was_none):
        space, (number, slot) = self.space(mapping), self.where(mapping, offset)
        table = space.pmds[number]
        entry = table.get(slot)
        if not write:
            table.setdefault(slot, ZERO)
            return
        self.prepare(mapping, vma)
        if entry and entry.exclusive:
            return
        if entry and entry.folio and self.may_reuse(entry.folio):
            table[slot] = entry._replace(exclusive=True)
            return
        if entry is None and self.fault_middle(mapping, vma, offset, was_none):
            return
        copy = self.new_anon(mapping.file, 1)
        self.unmap_ptes(space, number, [slot], "fault")
        self.map_ptes(space, number, slot, copy, 0, 1, "fault", exclusive=True)

    def fault_middle(self, mapping, vma, offset, was_none):
        """Map a folio that is larger than a base page and smaller than a PMD's, if its place is free."""
        size, space, (number, _) = mapping.file.page_size, self.space(mapping), self.where(mapping, offset)
        if not self.geometry.base < size < self.pmd_size or vma.minor or vma.wp or (
                not self.fits(mapping, vma, offset, size)):
            return False
        first = (mapping.address + offset) // size * size - mapping.address
        slots = self.slots(mapping, first, first + size)
        if space.pmds[number].keys() & set(slots):
            return False
        try:
            folio = self.new_anon(mapping.file, len(slots))
        except NoMemory:
            return False
        self.map_ptes(space, number, slots[0], folio, 0, len(slots), "fault", was_none, exclusive=True)
        return True

    def may_reuse(self, folio):
        """Whether a write may go to a page mapped by a PTE that was shared once: does nobody else have it?

        A single reference says so. From 6.15 on, of a large folio: all references are mappings, and all of them
        this process's; its last page is given up for a copy.
        """
        if folio.pages == 1 or self.options["era"] != "6.15":
            return folio.refcount == 1
        mappings = self.mapcount(folio)
        return mappings > 1 and not self.maybe_shared(folio) and mappings == folio.refcount

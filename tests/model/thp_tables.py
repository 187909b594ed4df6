"""Page tables of shmem and anonymous memory: where they are made and freed, and removing what they map."""
from .thp_counts import Counts, Space


class PageTables(Counts):
    @property
    def pmd_size(self):
        """Bytes that a PMD entry spans."""
        return self.geometry.fanout * self.geometry.base

    def space(self, mapping):
        return self.spaces.setdefault(mapping.process, Space(mapping.process, mapping.owner))

    def copy_space(self, parent, child):
        """For a child that is forked; nothing is mapped yet."""
        if parent in self.spaces:
            self.spaces[child] = Space(child, self.owner(child), self.spaces[parent].next_address,
                                       self.spaces[parent].placed)

    def drop_tables(self, process):
        """Of a process that exited; it maps nothing any more."""
        if process in self.spaces:
            assert not self.spaces[process].pmds
            self.spaces[process].upper = set()

    def where(self, mapping, offset):
        """Number of the PMD entry, and slot of the PTE in a table below it, for a byte of the mapping."""
        return divmod((mapping.address + offset) // self.geometry.base, self.geometry.fanout)

    def spans(self, mapping, first, last):
        """The bytes [first, last) of a mapping by PMD entries: (number, first byte, last byte)."""
        while first < last:
            number, _ = self.where(mapping, first)
            stop = min((number + 1) * self.pmd_size - mapping.address, last)
            yield number, first, stop
            first = stop

    def slots(self, mapping, first, last):
        slot = self.where(mapping, first)[1]
        return range(slot, slot + (last - first) // self.geometry.base)

    def fits_pmd(self, mapping, vma, offset):
        """Whether the PMD entry for a byte spans nothing beyond the VMA, and addresses agree with the file."""
        return self.fits(mapping, vma, offset, self.pmd_size)

    def fits(self, mapping, vma, offset, size):
        """Whether a folio of so many bytes has its place around a byte: aligned in addresses, and so in a file."""
        if mapping.file.kind != "anon" and (mapping.address - mapping.file_page * self.geometry.base) % size:
            return False
        first = (mapping.address + offset) // size * size - mapping.address
        return vma.first <= first and first + size <= vma.last

    # -- tables

    def upper_tables(self, number):
        return {("pmd", number // self.geometry.fanout), ("pud", number // self.geometry.fanout**2)}

    def has_upper(self, space, number):
        return self.upper_tables(number) <= space.upper

    def make_upper(self, space, number):
        space.upper |= self.upper_tables(number)

    def new_pte_table(self):
        """One that is to hang below an entry, or is put by, in deposit, so that a PMD can always be split."""
        self.allocate()
        self.count_tables("table_allocs", 1)

    def need_table(self, space, number):
        if number not in space.pmds:
            self.new_pte_table()
            space.pmds[number] = {}

    def free_table(self, space, number):
        assert not any(entry.folio for entry in space.pmds[number].values())
        del space.pmds[number]
        self.count_tables("table_frees", 1)

    # -- removing leaves

    def zap_memory(self, mapping, first, last, origin, frees_tables=False, keep_cows=False):
        """Unmap the bytes [first, last). A PMD leaf of a file goes as a whole, whatever part of it that is.

        frees_tables: page tables go too that lie inside. keep_cows: a private mapping's own pages stay.
        """
        space = self.space(mapping)
        for number, a, b in self.spans(mapping, first, last):
            inside = b - a == self.pmd_size
            if number in space.pmds and not isinstance(space.pmds[number], dict):
                if inside or mapping.file.kind != "anon":
                    self.zap_whole(space, mapping, number, origin)
                else:
                    self.exchange_whole(space, number)
            if number in space.pmds:
                self.unmap_ptes(space, number, self.slots(mapping, a, b), origin, keep_cows)
                if frees_tables and inside:
                    self.free_table(space, number)

    def zap_whole(self, space, mapping, number, origin):
        self.unmap_whole(space, number, origin)
        if mapping.file.kind == "anon":
            self.count_tables("table_frees", 1)  # from deposit

    def split_pmd(self, mapping, offset):
        """A VMA may be about to be cut there: no PMD leaf may stand across."""
        space, (number, slot) = self.space(mapping), self.where(mapping, offset)
        cut = any(vma.first < offset < vma.last for vma in mapping.vmas)
        if cut and slot and number in space.pmds and not isinstance(space.pmds[number], dict):
            if mapping.file.kind == "anon":
                self.exchange_whole(space, number)
            else:
                self.zap_whole(space, mapping, number, "zap")

    def has_vma(self, process, first, last):
        """Whether a VMA of the process reaches into addresses [first, last)."""
        return any(vma.first + mapping.address < last and first < vma.last + mapping.address
                   for mapping in self.placed_mappings(process) for vma in mapping.vmas)

    def placed_mappings(self, process):
        """Those of shmem and anonymous memory; where hugetlb mappings lie is not modelled."""
        return [mapping for mapping in self.mappings.values()
                if mapping.process == process and mapping.file and mapping.file.kind != "hugetlb"]

    def free_unused_tables(self, mapping, first, last):
        """Free the tables of every level for bytes [first, last) that span no VMA any more."""
        space, fanout = self.space(mapping), self.geometry.fanout
        for number, _, _ in self.spans(mapping, first, last):
            if not self.has_vma(mapping.process, number * self.pmd_size, (number + 1) * self.pmd_size):
                if number in space.pmds:
                    self.free_table(space, number)
            for level, at in self.upper_tables(number) & space.upper:
                size = self.pmd_size * (fanout if level == "pmd" else fanout**2)
                if not self.has_vma(mapping.process, at * size, (at + 1) * size):
                    space.upper.discard((level, at))

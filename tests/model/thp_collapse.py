"""MADV_COLLAPSE of shmem and anonymous memory: what a PMD spans becomes one folio, mapped whole (mm/khugepaged.c)."""
from .address_space import Refused
from .anon import Anon
from .memory import NoMemory


class CannotCollapse(Exception):
    """Why a PMD's range was not collapsed: an errno name, and whether the ranges behind it are tried."""

    def __init__(self, error, go_on=False):
        super().__init__(error)
        self.error, self.go_on = error, go_on


class Collapse(Anon):
    def memory_collapse(self, process, name, offset, length):
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        done, gap = 0, mapping.has_gap(first, last)
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            error = self.collapse_vma(mapping, vma, a, b)
            if error:
                raise Refused(error, min(a - first, asked))
            done = b - first
        if gap:
            raise Refused("ENOMEM", min(done, asked))
        return asked

    def collapse_vma(self, mapping, vma, first, last):
        """None, or the errno of the last range that could not be collapsed."""
        size = self.pmd_size
        if vma.last - vma.first < size or not self.fits_pmd(mapping, vma, vma.last - size):
            return "EINVAL"
        if mapping.file.kind == "anon" and not vma.anon:
            return "EINVAL"
        start, end = -(-(mapping.address + first) // size), (mapping.address + last) // size
        if start > end:
            return "EINVAL"
        failed = None
        for number in range(start, end):
            try:
                if mapping.file.kind == "anon":
                    self.collapse_anon(mapping, vma, number)
                else:
                    self.collapse_shmem(mapping, vma, number)
            except CannotCollapse as reason:
                failed = reason.error
                if not reason.go_on:
                    break
            except NoMemory:
                return "ENOMEM"
        return failed

    def collapse_anon(self, mapping, vma, number):
        """Copy what PTEs map to a new folio, with zeros in the holes."""
        space, entry = self.space(mapping), self.space(mapping).pmds.get(number)
        if entry is None:
            raise CannotCollapse("EINVAL", go_on=not self.has_upper(space, number))
        if not isinstance(entry, dict):
            return
        for slot in range(self.geometry.fanout):
            folio = entry[slot].folio if slot in entry else None
            if folio is None and vma.wp:
                raise CannotCollapse("EBUSY")
            if folio and self.referenced_otherwise(folio):
                raise CannotCollapse("EAGAIN", go_on=True)
        folio = self.new_anon(mapping.file, self.geometry.fanout)
        self.unmap_ptes(space, number, range(self.geometry.fanout), "zap")
        del space.pmds[number]  # the table goes into deposit
        self.map_whole(space, number, folio, "fault", exclusive=True)

    def collapse_shmem(self, mapping, vma, number):
        file, space, pages = mapping.file, self.space(mapping), self.geometry.fanout
        first = mapping.file_page + (number * self.pmd_size - mapping.address) // self.geometry.base
        folio = file.cache.get(first)
        if folio is None or folio.pages < pages:
            folio = self.gather(file, first)
        self.make_upper(space, number)
        entry = space.pmds.get(number)
        if entry is not None and not isinstance(entry, dict):
            return
        if vma.wp:
            raise CannotCollapse("EINVAL", go_on=True)
        if any(pte[:2] != (folio, slot) for slot, pte in (entry or {}).items()):
            raise CannotCollapse("EINVAL")
        exchanged = bool(entry)
        if exchanged:
            self.unmap_ptes(space, number, range(pages), "collapse")
        if entry is not None:
            self.free_table(space, number)
        refs = folio.refcount
        self.map_whole(space, number, folio, "collapse" if exchanged else "fault")
        if folio.refcount == refs:
            self.put_back()

    def gather(self, file, first):
        """Put one folio in place of those that the page cache has in a PMD's range, and of its holes."""
        pages = range(first, first + self.geometry.fanout)
        old = list(dict.fromkeys(file.cache[i] for i in pages if i in file.cache))
        if pages[-1] >= file.pages * (file.page_size // self.geometry.base) or not old:
            raise CannotCollapse("EINVAL")
        if any(self.referenced_otherwise(folio) for folio in old):
            raise CannotCollapse("EAGAIN", go_on=True)
        self.allocate()
        folio = self.new_frames(file, first, len(pages))
        self.unmap_pages(file, first, first + len(pages))
        if any(folio.refcount != folio.pages for folio in old):
            raise CannotCollapse("EAGAIN", go_on=True)
        for one in old:
            self.leave(file, one)
        self.enter(file, folio)
        self.retract_tables(file, first)
        return folio

    def retract_tables(self, file, first):
        """Free the page tables, now empty, for a PMD's range of the file; not where userfaultfd may have left marks."""
        base = self.geometry.base
        for mapping in self.mappings.values():
            start = (first - mapping.file_page) * base
            vma = mapping.vma_around(start, self.pmd_size) if mapping.file is file else None
            aligned = (mapping.address + start) % self.pmd_size == 0
            if vma and aligned and not (vma.wp or vma.anon):
                space, (number, _) = self.space(mapping), self.where(mapping, start)
                if isinstance(space.pmds.get(number), dict) and not space.pmds[number]:
                    self.free_table(space, number)

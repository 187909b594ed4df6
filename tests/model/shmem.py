"""Files of kind shmem: their page cache, hole punch and truncate, and the faults that map them.

As Linux 6.18 does it (mm/filemap.c, memory.c, shmem.c, truncate.c). A folio is what a PMD maps, a base page, or
what a split left. Allocations count in this order: huge folio, base page in its place, page table.
"""
from .address_space import Refused, parse_size
from .memory import INT_MAX, NoMemory
from .runs import consecutive
from .tables import Folio
from .thp_space import Spaces

FAULT_AROUND = 64 * 2**10  # bytes


class Shmem(Spaces):
    # -- folios

    def new_frames(self, file, index, pages, anon=False):
        """A folio; this is no allocation that can be made to fail."""
        pfn = -(-self.frames // pages) * pages
        self.frames = pfn + pages
        self.cost_counts.hold(range(pfn, pfn + 1))
        self.folios.append(Folio(file.name, index, pages, pfn, anon=anon or file.kind == "anon"))
        return self.folios[-1]

    def enter(self, file, folio):
        for index in range(folio.page, folio.page + folio.pages):
            file.cache[index] = folio
        folio.cached = True
        folio.change_refcount(folio.pages, self.cost_counts)
        return folio

    def leave(self, file, folio):
        for index in range(folio.page, folio.page + folio.pages):
            del file.cache[index]
        if folio.pages > 1:
            self.scheme.kill(folio)
        folio.cached = False
        folio.change_refcount(-folio.pages, self.cost_counts)

    def bring_in(self, file, index, huge):
        """Allocate a base page of the file, if `huge` with the huge folio around it; as far as nothing is there."""
        pages = file.page_size // self.geometry.base
        first = index // pages * pages
        if huge and pages > 1 and not any(i in file.cache for i in range(first, first + pages)):
            try:
                self.allocate()
                return self.enter(file, self.new_frames(file, first, pages))
            except NoMemory:
                pass
        self.allocate()
        return self.enter(file, self.new_frames(file, index, 1))

    def memory_populate(self, name, first, count):
        file, pages = self.files[name], self.files[name].page_size // self.geometry.base
        first, last = int(first) * pages, (int(first) + int(count)) * pages
        for index in range(first, last):
            if index not in file.cache:
                try:
                    self.bring_in(file, index, huge=True)
                except NoMemory:
                    raise Refused("ENOMEM", (index - first) * self.geometry.base) from None
            file.size = max(file.size, index + 1)
            file.length = max(file.length, (index + 1) * self.geometry.base)
        return int(count) * file.page_size

    def pinned(self, name, page):
        file = self.files[name]
        folio = file.cache.get(int(page) * (file.page_size // self.geometry.base))
        if folio is None:
            raise Refused("ENOENT")
        return folio

    def memory_pin(self, name, page, count="1"):
        folio, count = self.pinned(name, page), int(count)
        if folio.pins + count > INT_MAX:
            raise Refused("EINVAL")
        folio.pins += count
        folio.change_refcount(count, self.cost_counts)
        return count

    def memory_unpin(self, name, page, count="1"):
        folio, count = self.pinned(name, page), int(count)
        if count > folio.pins:
            raise Refused("EINVAL")
        folio.pins -= count
        folio.change_refcount(-count, self.cost_counts)
        return count

    # -- hole punch and truncate

    def unmap_pages(self, file, first, last, even_cows=False):
        """Unmap base pages [first, last) of a file everywhere; even_cows: with what private mappings have for them."""
        base = self.geometry.base
        for mapping in self.mappings.values():
            start = (first - mapping.file_page) * base
            for vma in mapping.vmas_in(start, start + (last - first) * base) if mapping.file is file else ():
                a, b = vma.clip(start, start + (last - first) * base)
                self.zap_memory(mapping, a, b, "truncate", keep_cows=not even_cows)

    def remove_folio(self, file, folio):
        self.unmap_pages(file, folio.page, folio.page + folio.pages)
        self.leave(file, folio)

    def split_folio(self, file, folio, index):
        """Halves, and halves of the half that has base page `index` of the file, until that stands alone.

        Everybody loses what they have mapped of it, and what lies behind the end of the file is dropped. Returns
        whether it was split: not if somebody else uses it.
        """
        self.scheme.kill(folio)
        if self.referenced_otherwise(folio):
            return False
        first, pages = folio.page, folio.pages
        self.unmap_pages(file, first, first + pages)
        if folio.refcount != pages:
            return False
        self.leave(file, folio)
        while pages > 1:
            pages //= 2
            half, other = (first + pages, first) if index >= first + pages else (first, first + pages)
            if other < file.size:
                self.enter(file, self.new_frames(file, other, pages))
            first = half
        if first < file.size:
            self.enter(file, self.new_frames(file, first, 1))
        return True

    def cut_folio(self, file, folio, start, end):
        """A hole of bytes [start, end) meets the folio. False: it stays, and its bytes are zeroed."""
        base = self.geometry.base
        first, last = folio.page * base, (folio.page + folio.pages) * base
        if start <= first and last <= end:
            self.remove_folio(file, folio)
            return True
        if folio.pages == 1:
            return True
        if not self.split_folio(file, folio, max(start, first) // base):
            return False
        behind = file.cache.get(end // base) if end < last else None
        if behind and behind.pages > 1:
            self.split_folio(file, behind, end // base)
        return True

    def undo_range(self, file, start, end):
        """Make bytes [start, end) a hole: first what lies inside, then the edges, then what splits left inside."""
        base = self.geometry.base
        first, last = -(-start // base), end // base
        for folio in dict.fromkeys(file.cache[i] for i in range(first, last) if i in file.cache):
            if first <= folio.page and folio.page + folio.pages <= last:
                self.remove_folio(file, folio)
        same, folio = False, file.cache.get(start // base)
        if folio:
            same = end <= (folio.page + folio.pages) * base
            if not self.cut_folio(file, folio, start, end):
                first, last = folio.page + folio.pages, folio.page if same else last
        folio = file.cache.get((end - 1) // base)
        if folio and not same and not self.cut_folio(file, folio, start, end):
            last = folio.page
        for index in range(first, last):
            if index in file.cache:
                self.cut_folio(file, file.cache[index], start, end)

    def memory_punch(self, name, offset, length):
        file, start, length = self.files[name], parse_size(offset), parse_size(length)
        if length == 0:
            raise Refused("EINVAL")
        first, last = -(-start // self.geometry.base), (start + length) // self.geometry.base
        if first < last:
            self.unmap_pages(file, first, last)
        self.undo_range(file, start, start + length)
        return length

    def memory_truncate(self, name, size):
        file, size = self.files[name], parse_size(size)
        end = file.pages * file.page_size
        if size > end:
            raise Refused("EINVAL")
        before, file.length, file.size = file.length, size, -(-size // self.geometry.base)
        if size < before:
            self.unmap_pages(file, file.size, end // self.geometry.base, even_cows=True)
            self.undo_range(file, size, end)
        return 0

    # -- page faults

    def file_index(self, mapping, offset):
        return mapping.file_page + offset // self.geometry.base

    def is_mapped(self, mapping, offset):
        number, slot = self.where(mapping, offset)
        entry = self.space(mapping).pmds.get(number)
        return slot in entry if isinstance(entry, dict) else entry is not None

    def memory_touch(self, process, name, offset, write=None):
        mapping, base = self.living(process, name), self.geometry.base
        offset = parse_size(offset) // base * base
        vma = mapping.vma_at(offset)
        if vma is None or ("w" if write else "r") not in vma.rights:
            raise Refused("EFAULT")
        self.make_upper(self.space(mapping), self.where(mapping, offset)[0])
        if mapping.file.kind == "anon":
            self.touch_anon(mapping, vma, offset, write)
            return base
        event = self.touch_shmem(mapping, vma, offset, write)
        return (0, event) if event else base

    def touch_shmem(self, mapping, vma, offset, write):
        """The event that a registration makes of it, or None."""
        file, index = mapping.file, self.file_index(mapping, offset)
        copies, space, (number, slot) = write and mapping.private, self.space(mapping), self.where(mapping, offset)
        if copies and number in space.pmds and not isinstance(space.pmds[number], dict):
            self.zap_whole(space, mapping, number, "zap")
        if self.is_mapped(mapping, offset):
            if copies and not space.pmds[number][slot].exclusive:
                self.write_private(mapping, vma, offset)
            return None
        around = FAULT_AROUND // self.geometry.base
        if self.options["fault_around"] != "none" and around > 1 and not (write or vma.minor or vma.wp):
            self.fault_around(mapping, vma, offset, around)
            if self.is_mapped(mapping, offset):
                return None
        copy = None
        if copies:
            self.prepare(mapping, vma)
            copy = self.new_copy(file, index)
            copy.freed = True  # until it is mapped
        if index >= file.size:
            raise Refused("EFAULT")
        folio = file.cache.get(index)
        if folio and self.overflows(folio):
            self.put_refused(folio)
            raise Refused("EFAULT")
        if folio and vma.minor:
            self.put_back()
            return "minor"
        existed = folio is not None
        if folio is None:
            folio = self.bring_in(file, index, self.fits(mapping, vma, offset, file.page_size))
        if copies:
            if existed:
                self.put_back()
            self.need_table(space, number)
            copy.freed = False
            self.map_ptes(space, number, slot, copy, 0, 1, "fault", exclusive=True)
        else:
            self.finish_fault(mapping, vma, offset, folio)
        return None

    def new_copy(self, file, index):
        """A base page that a private mapping has in place of one of the file."""
        self.allocate()
        return self.new_frames(file, index, 1, anon=True)

    def write_private(self, mapping, vma, offset):
        """A write to what a PTE of a private mapping maps: the file's page, or one that was shared with a child."""
        space, (number, slot) = self.space(mapping), self.where(mapping, offset)
        entry = space.pmds[number][slot]
        self.prepare(mapping, vma)
        if entry.folio.anon and self.may_reuse(entry.folio):
            space.pmds[number][slot] = entry._replace(exclusive=True)
            return
        copy = self.new_copy(mapping.file, self.file_index(mapping, offset))
        self.unmap_ptes(space, number, [slot], "fault")
        self.map_ptes(space, number, slot, copy, 0, 1, "fault", exclusive=True)

    def try_pmd(self, mapping, vma, offset, folio):
        """Map a folio that fills a PMD by one leaf, if nothing is there and it fits the VMA."""
        space, (number, _) = self.space(mapping), self.where(mapping, offset)
        if (number in space.pmds or folio.pages != self.geometry.fanout
                or not self.fits_pmd(mapping, vma, offset)):
            return False
        refs = folio.refcount
        self.map_whole(space, number, folio, "fault")
        if folio.refcount == refs:
            self.put_back()
        return True

    def folio_fits(self, mapping, vma, folio):
        """Whether the whole folio has its place in the VMA and in one page table."""
        first = (folio.page - mapping.file_page) * self.geometry.base
        last = first + folio.pages * self.geometry.base
        return vma.first <= first and last <= vma.last and (
            self.where(mapping, first)[0] == self.where(mapping, last - 1)[0])

    def map_free_ptes(self, mapping, folio, first, last, was_none):
        """Map base pages [first, last) of the file, which are the folio's, where PTEs are none. One look-up."""
        space, refs = self.space(mapping), folio.refcount
        number, slot = self.where(mapping, (first - mapping.file_page) * self.geometry.base)
        free = [i for i in range(last - first) if slot + i not in space.pmds[number]]
        for run in consecutive(free):
            page = first + run[0] - folio.page
            self.map_ptes(space, number, slot + run[0], folio, page, len(run), "fault", was_none)
        if folio.refcount == refs:
            self.put_back()

    def fault_around(self, mapping, vma, offset, around):
        """Map what the page cache has in so many pages around (do_fault_around, filemap_map_pages).

        They end where they would if aligned, or begin with the VMA; with fault_around=folio every folio that
        is among them is mapped as a whole, if it fits.
        """
        space, (number, slot) = self.space(mapping), self.where(mapping, offset)
        base, fanout, file = self.geometry.base, self.geometry.fanout, mapping.file
        before, behind = (offset - vma.first) // base, (vma.last - offset) // base
        first = slot - min(slot % around, before)
        last = min(first + around, fanout, slot + behind)
        index = self.file_index(mapping, offset)
        first, last = index + first - slot, min(index + last - slot, file.size)
        was_none = number not in space.pmds
        for folio in dict.fromkeys(file.cache[i] for i in range(first, last) if i in file.cache):
            if self.try_pmd(mapping, vma, offset, folio):
                return
            self.need_table(space, number)
            a, b = folio.page, folio.page + folio.pages
            if self.options["fault_around"] != "folio" or not self.folio_fits(mapping, vma, folio):
                a, b = max(a, first), min(b, last)
            self.map_free_ptes(mapping, folio, a, b, was_none)

    def finish_fault(self, mapping, vma, offset, folio):
        """Map the page, with all of the folio if it fits and nothing of it is mapped there yet."""
        space, (number, _) = self.space(mapping), self.where(mapping, offset)
        if self.try_pmd(mapping, vma, offset, folio):
            return
        was_none = number not in space.pmds
        try:
            self.need_table(space, number)
        except NoMemory:
            self.put_back()
            raise
        index = self.file_index(mapping, offset)
        first, last = index, index + 1
        alone = self.options["fault_around"] == "none" or vma.minor or vma.wp
        if not alone and self.folio_fits(mapping, vma, folio):
            start = (folio.page - mapping.file_page) * self.geometry.base
            slots = self.slots(mapping, start, start + folio.pages * self.geometry.base)
            if not space.pmds[number].keys() & set(slots):
                first, last = folio.page, folio.page + folio.pages
        self.map_free_ptes(mapping, folio, first, last, was_none)

    # -- UFFDIO_CONTINUE

    def memory_continue(self, process, name, offset, length, urgent=None):
        mapping, base = self.living(process, name), self.geometry.base
        first, length = parse_size(offset), parse_size(length)
        if first % base or length % base or length == 0:
            raise Refused("EINVAL")
        vma = mapping.vma_around(first, length)
        if vma is None or not (vma.minor or vma.wp):
            raise Refused("ENOENT")
        if mapping.file.kind == "anon":
            raise Refused("EINVAL")
        for at in range(first, first + length, base):
            try:
                error = self.continue_page(mapping, at)
            except NoMemory:
                error = "ENOMEM"
            if error:
                raise Refused("EAGAIN" if at > first else error, at - first)
        return length

    def continue_page(self, mapping, offset):
        """Map one base page by a PTE. None or an errno; a table that was made first stays."""
        space, (number, slot) = self.space(mapping), self.where(mapping, offset)
        self.make_upper(space, number)
        was_none = number not in space.pmds
        self.need_table(space, number)
        if not isinstance(space.pmds[number], dict):
            return "EEXIST"
        index = self.file_index(mapping, offset)
        if index >= mapping.file.size:
            return "EINVAL"
        folio = mapping.file.cache.get(index)
        if folio is None:
            return "EFAULT"
        if self.overflows(folio):
            self.put_refused(folio)
            return "ENOMEM" if self.options["overflow_check"] == "half" else "EFAULT"
        refs = folio.refcount
        taken = slot in space.pmds[number]
        if not taken:
            self.map_ptes(space, number, slot, folio, index - folio.page, 1, "continue", was_none)
        if folio.refcount == refs:
            self.put_back()
        return "EEXIST" if taken else None

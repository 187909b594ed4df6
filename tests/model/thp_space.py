"""Statements about mappings of shmem and anonymous memory, whose VMAs may be cut at any base page."""
from .address_space import AddressSpaces, Refused, parse_size
from .memory import NoMemory
from .tables import File, Vma
from .thp_counts import ZERO, Entry
from .thp_tables import PageTables


class Spaces(AddressSpaces, PageTables):
    def whole_base_pages(self, length):
        return -(-length // self.geometry.base) * self.geometry.base

    def memory_range(self, process, name, offset, length):
        """(mapping, first byte, last byte, length as given): the start is aligned, the length rounded up."""
        mapping, first, length = self.living(process, name), parse_size(offset), parse_size(length)
        if first % self.geometry.base:
            raise Refused("EINVAL")
        return mapping, first, first + self.whole_base_pages(length), length

    # -- mmap

    def file_called(self, word):
        """A declared file, or the anonymous memory that the word names."""
        if word.startswith("anon:") and word not in self.files:
            self.files[word] = File(word, parse_size(word.removeprefix("anon:")), 0, 0, kind="anon")
        return self.files[word]

    def memory_mmap(self, process, name, file, offset, length, kind, *flags):
        self.mapping(process, name)
        mapping, file = self.living(process, name), self.file_called(file)
        offset, asked, anon = parse_size(offset), parse_size(length), file.kind == "anon"
        if offset % self.geometry.base or asked == 0 or "hgm" in flags:
            raise Refused("EINVAL")
        if anon == (kind == "shared") or anon and "minor" in flags:
            raise Refused("EINVAL")
        if mapping.vmas:
            raise Refused("EEXIST")
        self.place_memory(mapping, file, offset // self.geometry.base, self.whole_base_pages(asked))
        mapping.vmas = [Vma(0, mapping.length, "minor" in flags, "wp" in flags)]
        return asked

    def place_memory(self, mapping, file, file_page, length):
        """Find addresses: in a span of the largest leaf where nothing is yet, and there as in the file."""
        span, space = max(self.geometry.leaves) * self.geometry.base, self.space(mapping)
        at = file_page * self.geometry.base
        mapping.address = -(-space.next_address // span) * span + at % span
        space.next_address = mapping.address + length
        mapping.file, mapping.file_page, mapping.length = file, file_page, length
        mapping.private = file.kind == "anon"

    def alike(self, a, b):
        flags = [(v.minor, v.wp, v.rights, v.accounted) for v in (a, b)]
        one = a.anon or b.anon
        return flags[0] == flags[1] and (
            a.anon is b.anon or not (a.anon and b.anon or one.forked))

    def merge(self, mapping):
        """Neighbours that do not differ are one VMA; an anon_vma that is of a fork stays alone."""
        merged = []
        for vma in mapping.vmas:
            last = merged[-1] if merged else None
            if last and last.last == vma.first and self.alike(last, vma):
                last.last, last.anon = vma.last, last.anon or vma.anon
            else:
                merged.append(vma)
        mapping.vmas = merged

    def set_memory_registration(self, process, name, modes):
        mapping = self.living(process, name)
        if not mapping.vmas or mapping.file.kind == "anon" and "minor" in modes:
            raise Refused("EINVAL")
        for vma in mapping.vmas:
            vma.minor, vma.wp = "minor" in modes, "wp" in modes
        self.merge(mapping)
        return 0

    def memory_register(self, process, name, *modes):
        return self.set_memory_registration(process, name, modes)

    def memory_unregister(self, process, name):
        return self.set_memory_registration(process, name, ())

    # -- munmap, mprotect, MADV_DONTNEED

    def memory_munmap(self, process, name, offset, length):
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        if asked == 0:
            raise Refused("EINVAL")
        return min(self.unmap(mapping, first, last), asked)

    def unmap(self, mapping, first, last):
        if not mapping.vmas:
            return 0
        if mapping.file.kind == "hugetlb":
            return super().unmap(mapping, first, last)
        for border in (first, last):
            self.split_pmd(mapping, border)
        done = 0
        for vma in mapping.vmas_in(first, last):
            part = mapping.cut(vma, first, last)
            self.zap_memory(mapping, part.first, part.last, "zap")
            mapping.vmas.remove(part)
            done += part.last - part.first
        self.free_unused_tables(mapping, first, min(last, mapping.length))
        return done

    def memory_mprotect(self, process, name, offset, length, rights):
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        rights, at = rights.replace("none", ""), first
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            if a != at:
                break
            if vma.rights != rights:
                self.split_pmd(mapping, a)
                self.split_pmd(mapping, b)
                part = mapping.cut(vma, first, last)
                part.rights = rights
                if mapping.private:
                    part.accounted = "w" in rights or part.accounted and part.anon is not None
            at = b
        self.merge(mapping)
        if at < last:
            raise Refused("ENOMEM", at - first)
        return asked

    def memory_dontneed(self, process, name, offset, length):
        """From 6.14 on it frees the page tables that it empties (CONFIG_PT_RECLAIM)."""
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        frees = self.options["era"] == "6.15" or self.options["zap_frees_tables"] == "yes"
        done, gap = 0, mapping.has_gap(first, last)
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            self.zap_memory(mapping, a, b, "zap", frees)
            done += b - a
        if gap:
            raise Refused("ENOMEM", min(done, asked))
        return min(done, asked)

    # -- mremap

    def memory_mremap(self, process, name, *words):
        if len(words) > 1:
            return self.move_memory(process, name, *words)
        mapping, asked = self.living(process, name), parse_size(words[0])
        length = self.whole_base_pages(asked)
        if asked == 0:
            raise Refused("EINVAL")
        vma = mapping.vma_at(0)
        if vma is None or length > mapping.length and vma.last < mapping.length:
            raise Refused("EFAULT")
        if length < mapping.length:
            self.unmap(mapping, length, mapping.length)
        elif length > mapping.length:
            first, last = mapping.address + mapping.length, mapping.address + length
            if self.has_vma(process, first, last):
                raise Refused("ENOMEM")
            vma.last = length
            space = self.space(mapping)
            space.next_address = max(space.next_address, last)
        mapping.length = length
        return asked

    def move_memory(self, process, name, offset, length, new):
        to = self.mapping(process, new)  # it is declared whatever follows
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        if asked == 0:
            raise Refused("EINVAL")
        vma = mapping.vma_around(first, last - first)
        if vma is None:
            raise Refused("EFAULT")
        if to.vmas:
            raise Refused("EEXIST")
        self.place_memory(to, mapping.file, mapping.file_page + first // self.geometry.base, last - first)
        to.vmas = [Vma(0, last - first, rights=vma.rights, anon=vma.anon, accounted=vma.accounted)]
        moved = self.move_leaves(mapping, first, last, to, 0)
        if moved < last:  # no memory: what was moved moves back
            self.move_leaves(to, 0, moved - first, mapping, first)
            self.unmap(to, 0, last - first)
            raise NoMemory
        mapping.vmas.remove(mapping.cut(vma, first, last))
        self.free_unused_tables(mapping, first, last)
        return asked

    def move_leaves(self, mapping, first, last, to, start):
        """Move what bytes [first, last) map to byte `start` of another mapping. Returns the byte it came to."""
        space = self.space(mapping)
        for number, a, b in self.spans(mapping, first, last):
            target, inside = self.where(to, start + a - first)[0], b - a == self.pmd_size
            if number not in space.pmds:
                continue
            self.make_upper(space, target)
            if not inside and not isinstance(space.pmds[number], dict):
                self.split_pmd_for_move(space, mapping, number)
            if number not in space.pmds:
                continue
            if inside:
                self.move_entry(space, number, target)
                continue
            was_none = target not in space.pmds
            try:
                self.need_table(space, target)
            except NoMemory:
                return a
            self.move_ptes(space, number, self.slots(mapping, a, b), target, was_none)
        return last

    def split_pmd_for_move(self, space, mapping, number):
        if mapping.file.kind == "anon":
            self.exchange_whole(space, number)
        else:
            self.zap_whole(space, mapping, number, "zap")

    def move_ptes(self, space, number, slots, target, was_none):
        """To the same slots of another table. No mapping comes or goes, but where a scheme counts what is below one
        PMD entry, a new subtree begins and the old one may end."""
        old, new = space.pmds[number], space.pmds[target]
        for slot in slots:
            entry = old.get(slot)
            if entry and entry.folio and self.scheme.counts_subtrees:
                self.map_ptes(space, target, slot, entry.folio, entry.page, 1, "fault", was_none, entry.exclusive)
            elif entry:
                new[slot] = old.pop(slot)
        self.unmap_ptes(space, number, slots, "zap")

    # -- fork

    def copy_tables(self, source, copy, vma):
        if source.file.kind == "hugetlb":
            return super().copy_tables(source, copy, vma)
        anon = source.file.kind == "anon"
        if anon and not vma.anon and not vma.wp:
            return None  # nothing but zero pages was ever there
        parent, child = self.space(source), self.space(copy)
        self.known = set()  # each VMA is a step of its own
        for number, a, b in self.spans(source, vma.first, vma.last):
            if self.has_upper(parent, number):
                self.make_upper(child, number)
            entry = parent.pmds.get(number)
            if isinstance(entry, dict):
                self.copy_ptes(parent, child, number, self.slots(source, a, b))
            elif entry and anon:  # the child can fault in those of a file
                self.new_pte_table()
                parent.pmds[number] = entry._replace(exclusive=False)
                if entry.folio:
                    self.map_whole(child, number, entry.folio, "fork")
                else:
                    child.pmds[number] = ZERO
        return None

    def copy_ptes(self, parent, child, number, slots):
        """Adjacent pages of one folio at once; neither process has them alone any more."""
        was_none = number not in child.pmds
        self.need_table(child, number)
        old, slots = parent.pmds[number], list(slots)
        while slots:
            slot = slots.pop(0)
            entry = old.get(slot)
            if entry is None:
                continue
            if entry.folio is None:
                child.pmds[number][slot] = ZERO
                continue
            n = 1
            while slots and old.get(slots[0]) and old[slots[0]][:2] == (entry.folio, entry.page + n):
                slots.pop(0)
                n += 1
            for i in range(n):
                old[slot + i] = Entry(entry.folio, entry.page + i)
            self.map_ptes(child, number, slot, entry.folio, entry.page, n, "fork", was_none)

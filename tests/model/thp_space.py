"""Statements about mappings of shmem and anonymous memory, whose VMAs may be cut at any base page."""
from dataclasses import replace

from .address_space import AddressSpaces, Refused, parse_size
from .memory import NoMemory
from .tables import File, Mapping, Vma
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
        at = parse_size(flags[-1]) if "at" in flags else None
        if offset % self.geometry.base or asked == 0 or "hgm" in flags:
            raise Refused("EINVAL")
        if anon and (kind == "shared" or "minor" in flags):
            raise Refused("EINVAL")
        if mapping.vmas:
            raise Refused("EEXIST")
        if at is not None:
            self.check_place(process, at, self.whole_base_pages(asked), "ENOMEM")
            if self.has_vma(process, at, at + self.whole_base_pages(asked)):
                raise Refused("EEXIST")
        self.place_memory(mapping, file, offset // self.geometry.base, self.whole_base_pages(asked), at)
        mapping.private = kind == "private"
        mapping.vmas = [Vma(0, mapping.length, "minor" in flags, "wp" in flags)]
        return asked

    @property
    def end_of_addresses(self):
        return self.geometry.base * self.geometry.fanout**self.geometry.tables // 2

    def check_place(self, process, at, length, beyond):
        if at % self.geometry.base:
            raise Refused("EINVAL")
        if at + length > self.end_of_addresses:
            raise Refused(beyond)

    def place_memory(self, mapping, file, file_page, length, at=None):
        """Put a mapping at an address, or find one."""
        space = self.space(mapping)
        mapping.address = self.free_address(mapping.process, file, file_page, length) if at is None else at
        space.placed = space.placed or at is not None or self.options["addresses"] == "kernel"
        mapping.file, mapping.file_page, mapping.length = file, file_page, length

    def free_address(self, process, file, file_page, length):
        """In a span of the largest leaf where nothing is yet, and there as in the file; or as Linux finds one."""
        if self.options["addresses"] == "kernel":
            return self.top_down(process, file, file_page * self.geometry.base, length)
        span, space = max(self.geometry.leaves) * self.geometry.base, self.spaces[process]
        inside = file_page * self.geometry.base % span
        start = -(-space.next_address // span) * span
        while space.placed and self.has_vma(process, start, start + -(-(inside + length) // span) * span):
            start += span
        space.next_address = start + inside + length
        return start + inside

    def highest_gap(self, process, length):
        """Where the highest gap of so many bytes ends."""
        ends = self.end_of_addresses - self.geometry.base - (128 << 20)
        for first, last in sorted(((m.address + v.first, m.address + v.last) for m in self.placed_mappings(process)
                                   for v in m.vmas), reverse=True):
            if ends - last >= length:
                break
            ends = min(ends, first)
        return ends

    def top_down(self, process, file, offset, length):
        """The highest free address: of memory that may have folios of a size, if it is so long, as they are aligned."""
        size = self.pmd_size if file.kind == "anon" else file.page_size
        place = self.highest_gap(process, length) - length
        if length < size or file.kind == "anon" and length % size:
            return place
        inside = 0 if file.kind == "anon" else offset % size
        if place % size == inside or inside and inside + length < 2 * size:
            return place
        room = length + size - (self.geometry.base if file.kind == "shmem" else 0)
        place = self.highest_gap(process, room) - length
        return place - (place - inside) % size

    def unmap_addresses(self, process, first, last):
        for mapping in list(self.placed_mappings(process)):
            a, b = max(first - mapping.address, 0), min(last - mapping.address, mapping.length)
            if a < b:
                self.unmap(mapping, a, b)

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
                if mapping.file.kind == "anon":
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
        if len(words) > 2:
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
                if "move" not in words:
                    raise Refused("ENOMEM")
                self.move_whole(mapping, vma, length)
                return asked
            vma.last = length
            space = self.space(mapping)
            if not space.placed:
                space.next_address = max(space.next_address, last)
        mapping.length = length
        return asked

    def move_whole(self, mapping, vma, length):
        """MREMAP_MAYMOVE of a mapping that cannot grow where it is."""
        there = Mapping(mapping.process, mapping.name, mapping.owner, self.geometry, file=mapping.file)
        there.address = self.free_address(mapping.process, mapping.file, mapping.file_page, length)
        there.vmas, there.length = [Vma(0, length)], length
        moved = self.move_leaves(mapping, 0, vma.last, there, 0)
        if moved < vma.last:
            self.move_leaves(there, 0, moved, mapping, 0)
            self.free_unused_tables(there, 0, length)
            raise NoMemory
        before = replace(mapping, vmas=[])
        mapping.address, mapping.length = there.address, length
        vma.last, vma.minor, vma.wp = length, False, False
        self.free_unused_tables(before, 0, before.length)

    def move_memory(self, process, name, offset, length, new, *words):
        to = self.mapping(process, new)  # it is declared whatever follows
        mapping, first, last, asked = self.memory_range(process, name, offset, length)
        resized, keep = words and words[0][0].isdigit(), "keep" in words
        size = self.whole_base_pages(parse_size(words[0])) if resized else last - first
        at = parse_size(words[words.index("at") + 1]) if "at" in words else None
        start = mapping.address + first
        if not 0 < size <= self.end_of_addresses or keep and size != last - first:
            raise Refused("EINVAL")
        if at is not None:
            self.check_place(process, at, size, "EINVAL")
            if at < start + last - first and start < at + size:
                raise Refused("EINVAL")
        vma = mapping.vma_at(first)
        if asked == 0 and vma is not None and mapping.private:
            raise Refused("EINVAL")
        if vma is None or last > vma.last:
            raise Refused("EFAULT")
        if to.vmas:
            raise Refused("EEXIST")
        if at is not None:
            self.unmap_addresses(process, at, at + size)
            vma = mapping.vma_at(first)
        if first + size < last:
            self.unmap(mapping, first + size, last)
            last = first + size
            vma = mapping.vma_at(first)
        self.place_memory(to, mapping.file, mapping.file_page + first // self.geometry.base, size, at)
        to.private = mapping.private
        to.vmas = [Vma(0, size, rights=vma.rights, anon=vma.anon, accounted=vma.accounted)]
        moved = self.move_leaves(mapping, first, last, to, 0)
        if moved < last:  # no memory: what was moved moves back
            self.move_leaves(to, 0, moved - first, mapping, first)
            self.unmap(to, 0, size)
            raise NoMemory
        if keep and (vma.first, vma.last) == (first, last):
            vma.anon = None
        if keep or asked == 0:
            return asked
        mapping.vmas.remove(mapping.cut(vma, first, last))
        self.free_unused_tables(mapping, first, last)
        return asked

    def move_leaves(self, mapping, first, last, to, start):
        """Move what bytes [first, last) map to byte `start` of another mapping. Returns the byte it came to."""
        space = self.space(mapping)
        for number, a, b in self.moved_spans(mapping, first, last, to, start):
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
            self.move_ptes(space, number, self.slots(mapping, a, b), target,
                           self.slots(to, start + a - first, start + b - first), was_none)
        return last

    def moved_spans(self, mapping, first, last, to, start):
        """The spans of PMD entries on both sides: (number in the old place, first byte, last byte)."""
        for number, a, b in self.spans(mapping, first, last):
            for _, c, d in self.spans(to, start + a - first, start + b - first):
                yield number, c - start + first, d - start + first

    def split_pmd_for_move(self, space, mapping, number):
        if mapping.file.kind == "anon":
            self.exchange_whole(space, number)
        else:
            self.zap_whole(space, mapping, number, "zap")

    def move_ptes(self, space, number, slots, target, new_slots, was_none):
        """To slots of another table. No mapping comes or goes, but where a scheme counts what is below one
        PMD entry, a new subtree begins and the old one may end."""
        old, new = space.pmds[number], space.pmds[target]
        for slot, there in zip(slots, new_slots):
            entry = old.get(slot)
            if entry and entry.folio and self.scheme.counts_subtrees:
                self.map_ptes(space, target, there, entry.folio, entry.page, 1, "fault", was_none, entry.exclusive)
            elif entry:
                new[there] = old.pop(slot)
        self.unmap_ptes(space, number, slots, "zap")

    # -- fork

    def copy_tables(self, source, copy, vma):
        if source.file.kind == "hugetlb":
            return super().copy_tables(source, copy, vma)
        anon = source.file.kind == "anon"
        if source.private and not vma.anon and not vma.wp:
            return None  # nothing but zero pages, or those of the file, was ever there
        parent, child = self.space(source), self.space(copy)
        self.known = set()  # each VMA is a step of its own
        for number, a, b in self.spans(source, vma.first, vma.last):
            child.upper |= self.upper_tables(number) & parent.upper
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

"""Trace statements as a model machine executes them: the order of checks, and what is done."""
from collections import namedtuple

from .address_space import Refused, parse_size
from .files import Files
from .memory import NoMemory
from .observe import observe
from .schemes import Place
from .tables import POISON, AnonVma, Leaf, Table, leaves_in
from .thp_collapse import Collapse

Result = namedtuple("Result", "error done event", defaults=(0, None))


class Model(Files, Collapse):
    """Methods do_* are statements about hugetlb, or about processes; memory_* about shmem and anonymous memory."""

    def on_hugetlb(self, verb, words):
        if verb in ("file", "fork", "exit"):
            return True
        if verb == "mmap":
            return words[2] in self.files and self.files[words[2]].kind == "hugetlb"
        if verb in ("populate", "punch", "truncate", "pin", "unpin"):
            return self.files[words[0]].kind == "hugetlb"
        mapping = self.mapping(*words[:2])
        mapping.file = mapping.file or next(iter(self.files.values()))  # it never was mapped, and must be of something
        return mapping.file.kind == "hugetlb"

    def only_on_hugetlb(self, process, name, *words):
        self.living(process, name)
        raise Refused("EINVAL")

    memory_split = memory_migrate = memory_hwpoison = only_on_hugetlb

    def run(self, statement):
        verb, *words = statement.split()
        self.known = set()
        if verb in ("file", "phase"):  # no operation: a `fail` is for the one behind
            return Result(None, self.do_file(*words) if verb == "file" else 0)
        self.allocations, failing, self.failing = 0, self.failing, None
        if verb == "fail":
            self.failing = int(words[0])
            return Result(None)
        self.failing = failing
        try:
            kind = "do_" if self.on_hugetlb(verb, words) else "memory_"
            done = getattr(self, kind + verb)(*words)
            return Result(None, *done) if isinstance(done, tuple) else Result(None, done)
        except Refused as refusal:
            return Result(refusal.error, refusal.done)
        except NoMemory:
            return Result("ENOMEM")
        finally:
            self.failing = None

    def cost(self):
        return self.cost_counts.report()

    def counters(self):
        return {name: self.cost_counts[name] for name in ("underflows", "overflows")}

    def observe(self):
        return observe(self)

    # -- UFFDIO_CONTINUE

    def do_continue(self, process, name, offset, length, urgent=None):
        mapping, base = self.living(process, name), self.geometry.base
        offset, length = parse_size(offset), parse_size(length)
        if offset % base or length % base or length == 0:
            raise Refused("EINVAL")
        vma = mapping.vma_around(offset, length)
        if vma is None or not vma.minor:
            raise Refused("ENOENT")
        if not vma.hgm and not mapping.whole_pages(offset, length):
            raise Refused("EINVAL")
        done = 0
        while done < length:
            at = offset + done
            pages = self.largest_leaf(mapping, at, offset + length)
            if vma.hgm and self.options["policy"] == "base_only":
                pages = 1
            try:
                error = self.continue_leaf(mapping, at, pages)
            except NoMemory:
                error = "ENOMEM"
            if error:
                raise Refused("EAGAIN" if done else error, done)
            done += pages * base
        return done

    def largest_leaf(self, mapping, at, end):
        """Base pages of the largest leaf that is aligned at byte `at` and ends before `end`."""
        base = self.geometry.base
        sizes = [p for p in self.geometry.leaves if p * base <= mapping.file.page_size]
        return max(p for p in sizes if p == 1 or at % (p * base) == 0 and at + p * base <= end)

    def continue_leaf(self, mapping, at, pages):
        index, inside = divmod(at, mapping.file.page_size)
        self.share(mapping, index)
        subtree, page = mapping.subtree(index), inside // self.geometry.base
        place = Place(subtree, mapping.owner, "continue", subtree.is_none)
        if self.options["lookup_first"] == "yes":
            folio, error = self.look_up(mapping, index)
            if error:
                return error
            refs = folio.refcount
            try:
                table, slot = self.walk_for(subtree, page, pages, folio, place)
            except NoMemory:
                self.put_back()
                raise
        else:
            table, slot = self.walk(subtree, page, pages, self.allocate_table)
            folio, error = self.look_up(mapping, index)
            if error:
                return error
            refs = folio.refcount
        if folio.bad or not table.free(slot, pages):
            self.put_back()
            return "EIO" if folio.bad else "EEXIST"
        self.add_looked_up(table, Leaf(folio, page, pages), place, refs)
        return None

    def look_up(self, mapping, index):
        """The huge page in the page cache, and why it may not be used."""
        folio = mapping.file.cache.get(mapping.offset + index)
        if folio is None:
            return None, "EFAULT"
        if self.overflows(folio):
            self.put_refused(folio)
            return None, "ENOMEM" if self.options["overflow_check"] == "half" else "EFAULT"
        return folio, None

    # -- page faults

    def do_touch(self, process, name, offset, write=None):
        mapping = self.living(process, name)
        offset = parse_size(offset)
        vma = mapping.vma_at(offset)
        if vma is None or ("w" if write else "r") not in vma.rights:
            raise Refused("EFAULT")
        index, inside = divmod(offset, mapping.file.page_size)
        self.share(mapping, index)
        page = inside // self.geometry.base
        table, slot = self.walk(mapping.subtree(index), page, 1)
        entry = table.entries.get(slot)
        if entry == POISON:
            raise Refused("EHWPOISON")
        if entry is None:
            event = self.fault(mapping, vma, index, page, write)
        else:
            event = self.copy_on_write(mapping, vma, index, entry.folio) if mapping.private and write else None
        return (0, event) if event else self.geometry.base

    def fault(self, mapping, vma, index, page, write):
        """The event that a registration makes of it, or None."""
        number, file = mapping.offset + index, mapping.file
        folio = file.cache.get(number)
        if folio and self.overflows(folio):
            self.put_refused(folio)
            raise Refused("EFAULT")
        if folio and vma.minor:
            self.put_back()
            return "minor"
        if number >= file.size:
            raise Refused("EFAULT")
        if mapping.private and write and folio:
            self.put_back()
            if folio.bad:
                raise Refused("EHWPOISON")
        if mapping.private and (write or folio is None):
            self.map_own_page(mapping, vma, index, self.new_folio(file, number))
        else:
            self.fault_in(mapping, vma, index, page, self.add_to_cache(file, number))
        return None

    def fault_in(self, mapping, vma, index, page, folio):
        """Install a leaf of the size of the empty entry, or of the huge page if all of it is empty."""
        subtree, refs = mapping.subtree(index), folio.refcount
        place = Place(subtree, mapping.owner, "fault", subtree.is_none)
        table, slot = self.walk(subtree, page, 1)
        leaf = Leaf(folio, 0, folio.pages) if subtree.is_none else Leaf(folio, slot, table.pages)
        base_only = vma.hgm and self.options["policy"] == "base_only"
        if base_only:
            leaf = Leaf(folio, page, 1)
        hit = any(leaf.first <= bad < leaf.first + leaf.pages for bad in folio.bad)
        if hit or folio.bad and self.scheme.poisons_whole:
            self.put_back()
            raise Refused("EHWPOISON")
        if base_only:
            try:
                table, _ = self.walk_for(subtree, page, 1, folio, place)
            except NoMemory:
                self.put_back()
                raise
        self.add_looked_up(table, leaf, place, refs)

    def map_own_page(self, mapping, vma, index, folio):
        """Install a huge page of the private mapping's own."""
        vma.anon = vma.anon or AnonVma()
        subtree = mapping.subtree(index)
        place = Place(subtree, mapping.owner, "fault", subtree.is_none)
        self.add_leaves(subtree.root, [Leaf(folio, 0, folio.pages)], place)

    def copy_on_write(self, mapping, vma, index, folio):
        if folio.cached or self.scheme.mapcount(folio) != 1:
            copy = self.new_folio(mapping.file, mapping.offset + index)
            self.zap(mapping, index, origin="fault")
            self.map_own_page(mapping, vma, index, copy)

    # -- MADV_DONTNEED

    def do_dontneed(self, process, name, offset, length):
        mapping = self.living(process, name)
        first, asked, base = parse_size(offset), parse_size(length), self.geometry.base
        if first % base:
            raise Refused("EINVAL")
        last, done = first + -(-asked // base) * base, 0
        gap = mapping.has_gap(first, last)
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            if vma.hgm:
                if self.cuts_a_leaf(mapping, a) or self.cuts_a_leaf(mapping, b):
                    raise Refused("EINVAL", done)
            elif a % mapping.file.page_size:
                raise Refused("EINVAL", done)
            else:
                b -= b % mapping.file.page_size
            self.dontneed_pages(mapping, a, b)
            done += b - a
        if gap:
            raise Refused("ENOMEM", min(done, asked))
        return min(done, asked)

    def cuts_a_leaf(self, mapping, at):
        """Whether byte `at` of the mapping lies inside a leaf, not at its border."""
        index, inside = divmod(at, mapping.file.page_size)
        leaves, page = leaves_in(mapping.subtree(index).root), inside // self.geometry.base
        return any(leaf.first < page < leaf.first + leaf.pages for leaf in leaves)

    def dontneed_pages(self, mapping, a, b):
        size, base = mapping.file.page_size, self.geometry.base
        for index in mapping.indices(a, b):
            first, last = max(a, index * size), min(b, (index + 1) * size)
            if first < last:
                self.zap(mapping, index, (first - index * size) // base, (last - index * size) // base)

    # -- MADV_COLLAPSE

    def do_collapse(self, process, name, offset, length):
        mapping = self.living(process, name)
        first, asked, base = parse_size(offset), parse_size(length), self.geometry.base
        last, done = first + -(-asked // base) * base, 0
        if first % base:
            raise Refused("EINVAL")
        if not self.scheme.hgm and not mapping.vmas_in(first, last):
            if asked:
                raise Refused("ENOMEM")
            return 0
        if not self.scheme.hgm or self.options["policy"] == "base_only":
            raise Refused("EINVAL")
        if mapping.has_gap(first, last):
            raise Refused("EINVAL")
        for vma in mapping.vmas_in(first, last):
            if mapping.private:
                raise Refused("EINVAL", done)
            at, end = vma.clip(first, last)
            if not vma.hgm or not self.scheme.collapses:
                done += end - at
                continue
            while at < end:
                pages = self.largest_leaf(mapping, at, end)
                if not self.collapse_to(mapping, at, pages):
                    raise Refused("EEXIST", done)
                at += pages * base
                done += pages * base
        return min(done, asked)

    def collapse_to(self, mapping, at, pages):
        """Put one leaf of `pages` base pages where leaves are; false if a larger leaf is there."""
        index, inside = divmod(at, mapping.file.page_size)
        subtree, first = mapping.subtree(index), inside // self.geometry.base
        folio = mapping.file.cache.get(mapping.offset + index)
        if folio and folio.bad:
            return True
        table, slot = self.walk(subtree, first, pages)
        slots = table.slots_in(slot, pages)
        leaves = list(leaves_in(table, slots))
        if leaves and leaves[0].pages >= pages:
            return leaves[0].pages == pages
        whole = pages == mapping.file.page_size // self.geometry.base
        if leaves or whole and not subtree.is_group and folio and subtree.has_table and subtree.counted_on:
            self.exchange_for_leaf(table, slots, leaves, Leaf(folio, first, pages),
                                   Place(subtree, mapping.owner, "collapse"))
        elif any(isinstance(table.entries.get(at), Table) for at in slots):
            self.free_tables(table, slots)
            place = Place(subtree, mapping.owner, "fault", was_none=whole)
            if whole and not subtree.is_group:
                self.scheme.table_freed(place)
            if folio:
                self.add_looked_up(table, Leaf(folio, first, pages), place, folio.refcount)
        return True

    def exchange_for_leaf(self, table, slots, leaves, leaf, place):
        """One replacement; the look-up's reference becomes that of the leaf, where leaves have any."""
        for one in leaves:
            self.remove_leaves([one], place)
        self.free_tables(table, slots)
        refs = leaf.folio.refcount
        self.set_leaves(table, [leaf], place)
        if leaf.folio.refcount == refs:
            self.put_back()

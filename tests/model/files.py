"""Statements about files and huge pages: populate, punch, truncate, pins, migration and memory failure."""
from .address_space import AddressSpaces, Refused, parse_size
from .memory import INT_MAX, NoMemory
from .schemes import Place
from .tables import POISON, File, Leaf, leaves_in

ATTEMPTS = 10  # of a migration


class Files(AddressSpaces):
    def do_file(self, name, page_size, pages, kind="hugetlb"):
        page_size, pages = parse_size(page_size), int(pages)
        size = pages if kind == "hugetlb" else pages * page_size // self.geometry.base
        self.files[name] = File(name, page_size, pages, size, kind=kind, length=pages * page_size)
        return 0

    def do_populate(self, name, first, count):
        file, first, count = self.files[name], int(first), int(count)
        for page in range(first, first + count):
            try:
                self.add_to_cache(file, page)
            except NoMemory:
                raise Refused("ENOMEM", (page - first) * file.page_size) from None
            file.size = max(file.size, page + 1)
        return count * file.page_size

    # -- hole punch and truncate

    def do_punch(self, name, offset, length):
        file, offset, length = self.files[name], parse_size(offset), parse_size(length)
        if length == 0:
            raise Refused("EINVAL")
        pages = range(-(-offset // file.page_size), (offset + length) // file.page_size)
        self.drop_pages(file, pages)
        return len(pages) * file.page_size

    def do_truncate(self, name, size):
        file, size = self.files[name], parse_size(size)
        if size % file.page_size or size > file.pages * file.page_size:
            raise Refused("EINVAL")
        file.size = size // file.page_size
        self.drop_pages(file, range(file.size, file.pages))
        return 0

    def drop_pages(self, file, pages):
        for page in pages:
            for mapping, index in self.mappings_of(file, page):
                self.zap(mapping, index, frees_tables=False, origin="truncate")
            if page in file.cache:
                self.leave_cache(file, page)

    def mappings_of(self, file, page):
        """(mapping, huge page within it) wherever the file's page has a place in an address space."""
        for mapping in self.by_process():
            index = page - mapping.offset
            if mapping.file is file and index >= 0 and mapping.vma_at(index * file.page_size):
                yield mapping, index

    # -- pins

    def cached(self, name, page):
        folio = self.files[name].cache.get(int(page))
        if folio is None:
            raise Refused("ENOENT")
        return folio

    def do_pin(self, name, page, count="1"):
        folio, count = self.cached(name, page), int(count)
        if folio.pins - len(folio.bad) + count > INT_MAX:
            raise Refused("EINVAL")
        folio.pins += count
        folio.change_refcount(count, self.cost_counts)
        return count

    def do_unpin(self, name, page, count="1"):
        folio, count = self.cached(name, page), int(count)
        if count > folio.pins - len(folio.bad):
            raise Refused("EINVAL")
        folio.pins -= count
        folio.change_refcount(-count, self.cost_counts)
        return count

    # -- migration

    def do_migrate(self, process, name, offset, length, everything=None):
        mapping = self.living(process, name)
        first, length, base = parse_size(offset), parse_size(length), self.geometry.base
        if first % base:
            raise Refused("EINVAL")
        last, moved, error = first + -(-length // base) * base, 0, None
        if mapping.has_gap(first, last):
            raise Refused("EFAULT")
        for index in mapping.indices(first, last) if last > first else ():
            leaf = next(leaves_in(mapping.subtree(index).root), None)
            if leaf is None or leaf.folio.bad:
                continue
            exclusive = self.scheme.movable(leaf.folio) and not self.table_is_shared(mapping, index)
            if not everything and not exclusive:
                continue
            try:
                problem = self.move_folio(leaf.folio, mapping.file)
            except NoMemory:
                problem = "ENOMEM"
            moved, error = moved + (problem is None), problem or error
        if error:
            raise Refused(error, moved * mapping.file.page_size)
        return moved * mapping.file.page_size

    def table_is_shared(self, mapping, index):
        return len(mapping.pmd_table(index).sharers) > 1

    def move_folio(self, old, file):
        """None, or why the huge page could not be moved."""
        new = self.new_folio(file, old.page)
        old.change_refcount(+1, self.cost_counts)  # isolated
        for _ in range(ATTEMPTS):
            places = [(mapping, index, [x for x in leaves_in(subtree.root) if x.folio is old])
                      for mapping in self.by_process() for index, subtree in mapping.subtrees()]
            places = [place for place in places if place[2] and not self.drop_shared_table(*place[:2])]
            for mapping, index, leaves in places:
                place = Place(mapping.subtree(index), mapping.owner, "migration")
                for leaf in leaves:
                    self.remove_leaves([leaf], place)
                self.tell_of_removal(leaves, place, covered=True)
            free = old.refcount == 1 + (self.cache_refs(old) if old.cached else 0)
            if free and not self.scheme.mapped(old):
                if old.cached:
                    self.leave_cache(file, old.page)
                    self.enter_cache(file, new)
                self.restore(places, new)
                old.change_refcount(-1, self.cost_counts)
                return None
            self.restore(places, old)
        old.change_refcount(-1, self.cost_counts)
        new.freed = True
        return "EAGAIN"

    def restore(self, places, folio):
        self.known = set()
        for mapping, index, leaves in places:
            subtree = mapping.subtree(index)
            for leaf in leaves:
                place = Place(subtree, mapping.owner, "migration", subtree.is_none)
                table, _ = self.walk(subtree, leaf.first, leaf.pages)
                self.add_leaves(table, [leaf._replace(folio=folio)], place)

    # -- memory failure

    def do_hwpoison(self, process, name, offset):
        mapping, base = self.living(process, name), self.geometry.base
        index, inside = divmod(parse_size(offset), mapping.file.page_size)
        page, number = inside // base, mapping.offset + index
        if mapping.vma_at(index * mapping.file.page_size) is None:
            raise Refused("EFAULT")
        mapped = next(leaves_in(mapping.subtree(index).root), None)
        folio = mapped.folio if mapped else mapping.file.cache.get(number)
        if folio is None:
            raise Refused("EFAULT")
        if page in folio.bad:
            raise Refused("EHWPOISON")
        folio.bad.add(page)
        folio.pins += 1
        folio.change_refcount(+1, self.cost_counts)
        others = [m for m in self.by_process() if m is not mapping]
        hit = [self.poison_mapping(m, folio, page) for m in [mapping, *others]]
        if not hit[0]:
            raise Refused("EAGAIN")
        return base

    def poison_mapping(self, mapping, folio, page):
        """Take the bad page from the mapping; whether it was mapped there."""
        hit = False
        for index, subtree in list(mapping.subtrees()):
            leaves = [leaf for leaf in leaves_in(subtree.root) if leaf.folio is folio]
            leaf = next((x for x in leaves if x.first <= page < x.first + x.pages), None)
            hit = hit or leaf is not None
            if leaves and (mapping.private or self.scheme.poisons_whole):
                self.zap(mapping, index, frees_tables=False)
            elif leaf and not self.drop_shared_table(mapping, index):
                self.poison_page(mapping, subtree, leaf, page)
        return hit

    def poison_page(self, mapping, subtree, leaf, page):
        place = Place(subtree, mapping.owner, "poison")
        if leaf.pages > 1:
            self.exchange(subtree, leaf, page, place)
        table, slot = self.walk(subtree, page, 1)
        bad = table.entries[slot]
        self.remove_leaves([bad], place)
        table.entries[slot] = POISON
        self.tell_of_removal([bad], place, covered=False)

    def exchange(self, subtree, leaf, page, place):
        """Put smaller leaves in place of one, each as large as it can be beside the bad page."""
        self.take_tables(leaf)
        self.remove_leaves([leaf], place)
        first = leaf.first
        while first < leaf.first + leaf.pages:
            pages = self.largest_beside(page, first, leaf.pages)
            table, _ = self.walk(subtree, first, pages, self.table_below)
            self.set_leaves(table, [Leaf(leaf.folio, first, pages)], place)
            first += pages

    def largest_beside(self, page, first, below):
        """Base pages of the largest leaf below that size that is aligned at `first` and spares `page`."""
        return max(pages for pages in self.geometry.leaves if pages < below and first % pages == 0
                   and (pages == 1 or not first <= page < first + pages))

    def take_tables(self, leaf):
        """Allocate the tables for a leaf's exchange, one for each level below; after a failure once more."""
        count = sorted(self.geometry.levels).index(self.geometry.leaves[leaf.pages])
        for _ in range(2):
            got = 0
            try:
                for got in range(1, count + 1):
                    self.allocate()
                    self.count_tables("table_allocs", 1)
                return
            except NoMemory:
                if got > 1:
                    self.count_tables("table_frees", got - 1)
        raise AssertionError("an injected failure happens once")

"""Statements about address spaces: mmap, munmap, mprotect, mremap, fork, exit and registration."""
from .memory import Memory, NoMemory
from .schemes import Place
from .tables import BASE, FANOUT, LEVELS, Mapping, Vma, leaves_in

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Refused(Exception):
    """A statement's errno name, with the bytes done before it."""

    def __init__(self, error, done=0):
        super().__init__(error)
        self.error, self.done = error, done


def parse_size(word):
    return int(word[:-1], 0) * UNITS[word[-1]] if word[-1] in UNITS else int(word, 0)


class AddressSpaces(Memory):
    def owner(self, process):
        return self.owners.setdefault(process, len(self.owners) + 1)

    def mapping(self, process, name):
        key = process, name
        return self.mappings.setdefault(key, Mapping(process, name, self.owner(process)))

    def living(self, process, name):
        mapping = self.mapping(process, name)
        if process in self.exited:
            raise Refused("ESRCH")
        return mapping

    def by_process(self):
        """Mappings in the order of their processes, and of their own declaration."""
        return sorted(self.mappings.values(), key=lambda mapping: mapping.owner)

    def do_mmap(self, process, name, file, offset, length, kind, *flags):
        mapping, file = self.living(process, name), self.files[file]
        offset, asked = parse_size(offset), parse_size(length)
        mapping.file = mapping.file or file
        if offset % file.page_size or asked == 0:
            raise Refused("EINVAL")
        length = -(-asked // file.page_size) * file.page_size
        if offset + length > file.pages * file.page_size:
            raise Refused("ENOMEM")
        if mapping.vmas:
            raise Refused("EEXIST")
        hgm = self.scheme.hgm and "hgm" in flags
        self.place(mapping, file, offset // file.page_size, length, kind == "private",
                   [Vma(0, length, "minor" in flags, "wp" in flags, hgm)])
        return asked

    def place(self, mapping, file, offset, length, private, vmas):
        mapping.file, mapping.offset, mapping.length, mapping.private = file, offset, length, private
        mapping.vmas, mapping.pmd_tables = vmas, {}

    def set_registration(self, process, name, modes):
        mapping = self.living(process, name)
        if not mapping.vmas:
            raise Refused("EINVAL")
        for vma in mapping.vmas:
            if modes:
                self.unshare(mapping, vma.first, vma.last)
            vma.minor, vma.wp = "minor" in modes, "wp" in modes
        return 0

    def do_register(self, process, name, *modes):
        return self.set_registration(process, name, modes)

    def do_unregister(self, process, name):
        return self.set_registration(process, name, ())

    def huge_range(self, process, name, offset, length):
        mapping = self.living(process, name)
        first, length = parse_size(offset), parse_size(length)
        if not mapping.whole_pages(first, length):
            raise Refused("EINVAL")
        return mapping, first, first + length

    def do_split(self, process, name, offset, length):
        mapping, first, last = self.huge_range(process, name, offset, length)
        if not self.scheme.hgm:
            raise Refused("EINVAL")
        done = 0
        gap = mapping.has_gap(first, last)
        for vma in mapping.vmas_in(first, last):
            if mapping.private:
                raise Refused("EINVAL")
            a, b = vma.clip(first, last)
            self.unshare(mapping, vma.first, vma.last)
            if self.options["policy"] == "base_only":
                self.zap_range(mapping, a, b, frees_tables=True)
            if not vma.hgm:
                mapping.cut(vma, first, last).hgm = True
            done += b - a
        if gap:
            raise Refused("ENOMEM", done)
        return done

    def do_mprotect(self, process, name, offset, length, rights):
        mapping, first, last = self.huge_range(process, name, offset, length)
        rights, at = rights.replace("none", ""), first
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            if a != at:
                break
            self.unshare(mapping, a, b)
            if vma.rights != rights:
                mapping.cut(vma, first, last).rights = rights
            at = b
        if at < last:
            raise Refused("ENOMEM", at - first)
        return last - first

    def do_munmap(self, process, name, offset, length):
        mapping, first, last = self.huge_range(process, name, offset, length)
        if first == last:
            raise Refused("EINVAL")
        return self.unmap(mapping, first, last)

    def unmap(self, mapping, first, last):
        done = 0
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            self.zap_range(mapping, a, b, frees_tables=True)
            mapping.vmas.remove(mapping.cut(vma, first, last))
            done += b - a
        return done

    def zap_range(self, mapping, first, last, frees_tables):
        for index in mapping.indices(first, last):
            self.zap(mapping, index, frees_tables=frees_tables)

    def do_exit(self, process):
        if process in self.exited:
            raise Refused("ESRCH")
        self.end(process)
        return 0

    def end(self, process):
        for mapping in self.mappings.values():
            if mapping.process == process and mapping.vmas:
                self.unmap(mapping, 0, mapping.vmas[-1].last)
        self.exited.add(process)

    def do_mremap(self, process, name, *words):
        if len(words) > 1:
            return self.move_part(process, name, *words)
        mapping, asked = self.living(process, name), parse_size(words[0])
        length = -(-asked // mapping.file.page_size) * mapping.file.page_size
        if length == 0:
            raise Refused("EINVAL")
        if not mapping.vmas:
            raise Refused("EFAULT")
        if length > mapping.length:
            raise Refused("EINVAL")
        self.unmap(mapping, length, mapping.length)
        mapping.length = length
        return asked

    def move_part(self, process, name, offset, length, new):
        to = self.mapping(process, new)  # it is declared whatever follows
        source = self.mappings[process, name]
        to.file = to.file or source.file
        mapping, first, last = self.huge_range(process, name, offset, length)
        if first == last:
            raise Refused("EINVAL")
        vma = mapping.vma_around(first, last - first)
        if vma is None:
            raise Refused("EFAULT")
        if to.vmas:
            raise Refused("EEXIST")
        self.unshare(mapping, first, last)
        part = mapping.cut(vma, first, last)
        moved = {mapping.offset + i: mapping.subtree(i) for i in mapping.indices(first, last)}
        self.place(to, mapping.file, mapping.offset + first // mapping.file.page_size, last - first,
                   mapping.private, [Vma(0, last - first, hgm=part.hgm, rights=part.rights)])
        for page, subtree in moved.items():
            mapping.drop_subtree(page - mapping.offset)
            to.subtree(page - to.offset)
            table = to.pmd_table(page - to.offset)
            table.subtrees[page], table.made = subtree, table.made or subtree.top is not None
        mapping.vmas.remove(part)
        return last - first

    # -- fork

    def do_fork(self, parent, child):
        used = child in self.owners
        sources = [m for m in self.mappings.values() if m.process == parent]
        copies = [(source, self.mapping(child, source.name)) for source in sources]
        self.owner(child)
        for source, copy in copies:
            copy.file = copy.file or source.file
        if parent in self.exited or used:
            self.exited.add(child)
            raise Refused("ESRCH")
        for source, copy in copies:
            vmas = [Vma(v.first, v.last, v.minor and v.wp, v.wp, v.hgm, v.rights) for v in source.vmas]
            self.place(copy, source.file, source.offset, source.length, source.private, vmas)
        try:
            for source, copy in copies:
                for vma in source.vmas:
                    if vma.wp or source.private:
                        self.copy_tables(source, copy, vma)
        except NoMemory:
            self.end(child)
            raise Refused("ENOMEM") from None
        except Refused:
            self.end(child)
            raise
        return 0

    def copy_tables(self, source, copy, vma):
        for index in source.indices(vma.first, vma.last):
            subtree = copy.subtree(index)
            copy.pmd_table(index).made = True
            leaves = list(leaves_in(source.subtree(index).root))
            runs = self.runs_of(leaves) if self.options["overflow_check"] == "none" else [[x] for x in leaves]
            for run in runs:
                folio = run[0].folio
                error = self.fork_refuses(folio)
                if error:
                    raise Refused(error)
                place = Place(subtree, copy.owner, "fork", subtree.top is None)
                table, _ = self.walk_for(subtree, run[0].first, run[0].pages, folio, place)
                self.add_leaves(table, [leaf.first for leaf in run], folio, place)

    def fork_refuses(self, folio):
        check = self.options["overflow_check"]
        if check == "after" and type(self.scheme).__name__ == "PerPagePosted":
            return "EFAULT" if folio.refcount > 0 else None
        if check in ("after", "try"):
            return "EFAULT" if folio.refcount <= 0 else None
        return "ENOMEM" if self.overflows(folio) else None

    # -- page tables that mappings share

    def unshare(self, mapping, first, last):
        for index in mapping.indices(first, last):
            self.drop_shared_table(mapping, index)

    def share(self, mapping, index):
        """A fault needs the table of hstate-level entries: another mapping lends it, or it is made."""
        own = mapping.pmd_table(index)
        if own.made:
            return
        span, rights = mapping.span(mapping.offset + index), self.shareable(mapping, index)
        for other in self.by_process() if rights else ():
            at, table = mapping.offset + index - other.offset, other.pmd_tables.get(span)
            if (other is not mapping and other.file is mapping.file and table and table.made
                    and self.shareable(other, at) == rights):
                table.sharers.append(mapping)
                mapping.pmd_tables[span] = table
                return
        own.made = True

    def shareable(self, mapping, index):
        """The rights of a plain VMA that covers all of a huge page's table; None if it is another one."""
        size = mapping.file.page_size
        vma, page = mapping.vma_at(index * size), mapping.offset + index
        if size != LEVELS["pmd"] * BASE or vma is None or mapping.private or vma.hgm or vma.minor or vma.wp:
            return None
        first = page // FANOUT * FANOUT
        covers = vma.first <= (first - mapping.offset) * size and vma.last >= (first + FANOUT - mapping.offset) * size
        return vma.rights if covers else None

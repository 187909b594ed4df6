"""Statements about address spaces: mmap, munmap, mprotect, mremap, fork, exit and registration."""
from dataclasses import replace

from .memory import Memory, NoMemory
from .schemes import Place
from .tables import AnonVma, Mapping, Vma, leaves_in

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
        return self.mappings.setdefault(key, Mapping(process, name, self.owner(process), self.geometry))

    def living(self, process, name):
        mapping = self.mapping(process, name)
        if process in self.exited:
            raise Refused("ESRCH")
        return mapping

    def by_process(self):
        """Mappings in the order of their processes, and of their own declaration."""
        return sorted(self.mappings.values(), key=lambda mapping: mapping.owner)

    def do_mmap(self, process, name, file, offset, length, kind, *flags):
        mapping, file = self.mapping(process, name), self.files[file]
        offset, asked = parse_size(offset), parse_size(length)
        self.mean(mapping, file)
        self.living(process, name)
        if offset % file.page_size or asked == 0:
            raise Refused("EINVAL")
        length = -(-asked // file.page_size) * file.page_size
        if offset + length > file.pages * file.page_size:
            raise Refused("ENOMEM")
        if mapping.vmas:
            raise Refused("EEXIST")
        file.size = max(file.size, (offset + length) // file.page_size)
        hgm = self.scheme.hgm and "hgm" in flags
        self.place(mapping, file, offset // file.page_size, length, kind == "private",
                   [Vma(0, length, "minor" in flags, "wp" in flags, hgm)])
        return asked

    def mean(self, mapping, file):
        """What a mapping was meant for, until it is mapped, tells what its huge pages are."""
        if not mapping.length:
            mapping.file = file

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

    def cuts(self, mapping, at):
        """Would a cut go through a huge page of a VMA?"""
        return at % mapping.file.page_size and any(vma.first < at < vma.last for vma in mapping.vmas)

    def refuses_cut(self, mapping, first, last):
        """Is a cut at both ends refused? One at the first was made then, if that end allows it."""
        vma = mapping.vma_at(first)
        if self.cuts(mapping, first):
            return True
        if vma is not None and vma.first < first:
            mapping.cut(vma, first, vma.last)
        return self.cuts(mapping, last)

    def do_mprotect(self, process, name, offset, length, rights):
        mapping, first, asked = self.living(process, name), parse_size(offset), parse_size(length)
        if first % self.geometry.base:
            raise Refused("EINVAL")
        rights = rights.replace("none", "")
        at, last = first, first + -(-asked // self.geometry.base) * self.geometry.base
        for vma in mapping.vmas_in(first, last):
            a, b = vma.clip(first, last)
            if a != at:
                break
            if vma.rights != rights:
                if self.refuses_cut(mapping, a, b):
                    raise Refused("EINVAL", at - first)
                vma = mapping.vma_at(a)
                self.unshare(mapping, a, b)
                mapping.cut(vma, first, last).rights = rights
            at = b
        if at < last:
            raise Refused("ENOMEM", at - first)
        return asked

    def do_munmap(self, process, name, offset, length):
        mapping, first, asked = self.living(process, name), parse_size(offset), parse_size(length)
        last = first + -(-asked // self.geometry.base) * self.geometry.base
        if first % self.geometry.base or asked == 0 or self.refuses_cut(mapping, first, last):
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
        self.drop_tables(process)

    def do_mremap(self, process, name, *words):
        if len(words) > 1:
            return self.move_part(process, name, *words)
        mapping, asked = self.living(process, name), parse_size(words[0])
        length = -(-asked // mapping.file.page_size) * mapping.file.page_size
        if length == 0:
            raise Refused("EINVAL")
        if mapping.vma_at(0) is None:
            raise Refused("EFAULT")
        if length > mapping.length:
            raise Refused("EINVAL")
        self.unmap(mapping, length, mapping.length)
        mapping.length = length
        return asked

    def move_part(self, process, name, offset, length, new):
        to = self.mapping(process, new)  # it is declared whatever follows
        source = self.mappings[process, name]
        self.mean(to, source.file)
        mapping, first, asked = self.living(process, name), parse_size(offset), parse_size(length)
        size = mapping.file.page_size
        last = first + -(-asked // size) * size
        if first % size or first == last:
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
                   mapping.private, [Vma(0, last - first, hgm=part.hgm, rights=part.rights, anon=part.anon)])
        for page, subtree in moved.items():
            mapping.drop_subtree(page - mapping.offset)
            to.subtree(page - to.offset)
            table = to.pmd_table(page - to.offset)
            table.subtrees[page], table.made = subtree, table.made or not subtree.is_none
        mapping.vmas.remove(part)
        return asked

    # -- fork

    def do_fork(self, parent, child):
        used = child in self.owners
        sources = [m for m in self.mappings.values() if m.process == parent]
        copies = [(source, self.mapping(child, source.name)) for source in sources]
        self.owner(child)
        for source, copy in copies:
            self.mean(copy, source.file)
        if parent in self.exited or used:
            self.exited.add(child)
            raise Refused("ESRCH")
        self.copy_space(parent, child)
        for source, copy in copies:
            vmas = [replace(v, minor=v.minor and v.wp, anon=v.anon and AnonVma(forked=True)) for v in source.vmas]
            self.place(copy, source.file, source.offset, source.length, source.private, vmas)
            copy.address, copy.file_page = source.address, source.file_page
        try:
            for source, copy in copies:
                for vma in source.vmas:
                    if vma.wp or source.private and vma.anon:
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
                place = Place(subtree, copy.owner, "fork", subtree.is_none)
                table, _ = self.walk_for(subtree, run[0].first, run[0].pages, folio, place)
                self.add_leaves(table, run, place)

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
        size, fanout = mapping.file.page_size, self.geometry.fanout
        vma, page = mapping.vma_at(index * size), mapping.offset + index
        plain = vma and not (mapping.private or vma.hgm or vma.minor or vma.wp)
        if size != fanout * self.geometry.base or not plain:
            return None
        first = (page // fanout * fanout - mapping.offset) * size
        covers = vma.first <= first and vma.last >= first + fanout * size
        return vma.rights if covers else None

"""Files and mappings of a trace that is made from recorded calls: made, moved, grown and removed here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hgmcore.importers.processes.address_space import Area, Mapped
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import NO_TIME
from hgmcore.trace.names import FILE_LIMIT
from hgmcore.trace.statements import CODES, NO_ARG, OPERATION, SHARED, WRITE
from hgmcore.trace.writer import Writer, word

KINDS = ("hugetlb", "shmem", "anon")


class File:
    """A file, or anonymous memory (kind anon). page_size: None where that of `folio` is meant. size: the largest
    number of bytes that it was seen to have. index: in the trace, None before it is there. path: where it is,
    None if that does not show."""

    def __init__(self, name: str, kind: str, page_size: int | None = None):
        self.name, self.kind, self.page_size, self.size, self.index = word(name), kind, page_size, 0, None
        self.path: str | None = None


ANONYMOUS = File("anon", "anon")


class Mapper:
    """Writes what happens to the mappings of address spaces to `writer`.

    report: a Report. line, thread, time: of the call that is at hand, set by whoever reads it. kinds: of memory to
    take. hugetlb, folio: bytes of a page where a recording does not tell them.
    """

    def __init__(self, report, kinds="hugetlb,shmem,anon", hugetlb="2M", folio="2M", geometry="x86-64"):
        self.writer, self.report = Writer(geometry), report
        self.kinds = kinds.split(",")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds: {quoted(kind)} is not one of {', '.join(KINDS)}")
        self.hugetlb, self.folio = parse_named("hugetlb", hugetlb), parse_named("folio", folio)
        self.base_page = self.writer.names.geometry.base_page
        sizes = self.writer.names.geometry.leaf_sizes
        for name, size, known in (("hugetlb", self.hugetlb, sizes[1:]), ("folio", self.folio, sizes)):
            if size not in known:
                has = ", ".join(map(format_size, known))
                raise ValueError(f"{name}: {geometry} has no pages of {format_size(size)} (it has {has})")
        self.line, self.thread, self.time = 0, 0, NO_TIME
        self.unnamed_moves = 0

    def emit(self, op, target, offset=0, length=0, flags=0):
        self.writer.emit(op, target, offset, length, flags=flags, thread=self.thread, time=self.time)

    def why_not(self, file, end=0):
        """None, or why the trace does not take `file`, of which a call names bytes up to `end`."""
        if file.kind not in self.kinds:
            return f"{file.kind} memory is not taken"
        if file.kind == "hugetlb" and file.page_size not in self.writer.names.geometry.hugetlb_sizes:
            return f"no hugetlb pages of {format_size(file.page_size)} in this geometry"
        if max(file.size, end) > FILE_LIMIT:
            return f"a file of more than {format_size(FILE_LIMIT)}"
        if file.index is None and len(self.writer.names.files) >= NO_ARG:
            return "more files than a trace can name"
        return None

    def page_size(self, file, size):
        """Bytes of a page of `file`, which has `size` bytes as far as is known."""
        return file.page_size or (self.folio if size >= self.folio else self.base_page)

    def declare(self, file):
        """The index of a file in the trace, which then declares at least `size` bytes of it."""
        if file.index is None:
            file.page_size = self.page_size(file, file.size)
            file.index = self.writer.file(file.name, file.page_size, 0, file.kind)
        self.writer.resize(file.index, -(-file.size // file.page_size))
        return file.index

    def map(self, space, start, length, shared, file, offset):
        """Write an mmap, and return its Area."""
        if space.process is None:
            space.process = self.writer.process(f"p{space.pid}")
        if file.kind == "anon":
            folio = self.page_size(file, length)
            offset, index = 0, self.writer.anonymous(folio)
        else:
            file.size = max(file.size, offset + length)
            index = self.declare(file)
            folio = file.page_size
        name = space.name(file.name)
        mapping = self.writer.mmap(space.process, name, index, offset, length, SHARED if shared else 0,
                                 self.thread, self.time)
        mapped = Mapped(mapping, name, file, offset, folio, shared, length, length)
        area = Area(start, start + length, mapped)
        space.add(area)
        return area

    def unmap(self, space, start, end):
        """Unmap [start, end) and return the areas that lay there."""
        areas = space.remove(start, end)
        for area in areas:
            if area.mapped is not None:
                self.emit("munmap", area.mapped.index, area.offset, area.end - area.start)
        return areas

    def move(self, space, area, start):
        """Move an area of `space` to `start`."""
        end, mapped = start + area.end - area.start, area.mapped
        name = mapped and space.name(mapped.file.name)  # first, so that the new mapping cannot get the old one's name
        space.remove(area.start, area.end)
        if mapped is None:
            return space.add(replace(area, start=start, end=end))
        if len(self.writer.names.mappings) >= NO_ARG:
            self.unnamed_moves += 1
            self.emit("munmap", mapped.index, area.offset, end - start)
            self.map(space, start, end - start, mapped.shared, mapped.file, mapped.file_offset + area.offset)
            return None
        index = self.writer.move(mapped.index, area.offset, end - start, name, self.thread, self.time)
        moved = replace(mapped, index=index, name=name, file_offset=mapped.file_offset + area.offset,
                        length=end - start, live=end - start, minor=False, wp=False)
        return space.add(Area(start, end, moved, dont_fork=area.dont_fork))

    def grow(self, space, start, end):
        """Let the area that ends at `start` grow to `end`."""
        self.unmap(space, start, end)
        area = space.before(start)
        mapped = area.mapped
        if mapped is None:
            return space.add(Area(start, end, reason=area.reason))
        offset = area.offset + area.end - area.start
        if offset < mapped.length:  # the area ends before the trace's mapping does: a part of that was unmapped
            self.map(space, start, end - start, mapped.shared, mapped.file, mapped.file_offset + offset)
            return None
        if mapped.file.kind != "anon":
            mapped.file.size = max(mapped.file.size, mapped.file_offset + offset + end - start)
            self.declare(mapped.file)
        mapped.length += end - start
        self.writer.emit("mremap", mapped.index, 0, mapped.length, NO_ARG, 0, self.thread, self.time)
        return space.extend(area, end)

    def touch(self, area, write):
        """Touch every folio of an area."""
        folio, end = area.mapped.folio, area.offset + area.end - area.start
        for first in range(area.offset - area.offset % folio, end, folio << 16):
            offsets = np.arange(first, min(end, first + (folio << 16)), folio, dtype=np.uint64)
            offsets = np.maximum(offsets, np.uint64(area.offset))
            records = np.zeros(len(offsets), dtype=OPERATION)
            records["op"], records["target"], records["offset"] = CODES["touch"], area.mapped.index, offsets
            records["flags"] = WRITE if write else 0
            self.writer.extend(records, self.thread, self.time)

    def on_file(self, call, file, op, offset, length):
        if reason := self.why_not(file, offset + length):
            return f"{call}: {reason}"
        file.size = max(file.size, offset + length)
        index, page = self.declare(file), file.page_size
        if op == "populate":
            offset, length = offset // page, -(-(offset + length) // page) - offset // page
        self.emit(op, index, offset, length)
        return None


def up(length: int, unit: int) -> int:
    """`length`, rounded up to a multiple of `unit`."""
    return -(-length // unit) * unit

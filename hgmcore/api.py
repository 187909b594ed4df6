"""The thin Python API: machines, processes and mappings, and operations on them one by one or in arrays."""

from __future__ import annotations

import contextlib
import operator

import numpy as np

from hgmcore import observe, options, schemes
from hgmcore.core.core import Core, Engine
from hgmcore.core.machine import FOLIO_CACHED, RESULT
from hgmcore.core.records import Records
from hgmcore.core.snapshot import Snapshot as CoreSnapshot
from hgmcore.errnos import error_name
from hgmcore.geometry import FULL_SIZE, GEOMETRIES
from hgmcore.inputs import load
from hgmcore.sizes import format_size, parse_size
from hgmcore.trace import Header
from hgmcore.trace.names import FILE_KINDS, is_word
from hgmcore.trace.names import File as FileName
from hgmcore.trace.names import Mapping as MappingName
from hgmcore.trace.statements import ALL, CODES, HGM, MINOR, NO_ARG, OPERATION, READ, SHARED, URGENT, WP, WRITE


class OperationError(Exception):
    """An operation that the simulated kernel refused.

    op: its name. errno: the positive number. error: its name, as "EEXIST". done: bytes done before it.
    """

    def __init__(self, op: str, errno: int, done: int):
        self.op, self.errno, self.done = op, errno, done
        self.error = error_name(errno)
        super().__init__(f"{op}: {self.error} ({done} bytes done)")


def size(value) -> int:
    """Bytes of a size given as an int or a text such as "4K". ValueError otherwise."""
    return parse_size(value) if isinstance(value, str) else operator.index(value)


class Machine:
    """A simulated machine that one accounting scheme counts on.

    scheme: a name of hgmcore.schemes.NAMES, or an Engine. geometry: a name of hgmcore.geometry.GEOMETRIES.
    reserve: bytes of address space that it may reserve, an int or a text such as "16M": a bound on what it may grow to,
    so that thousands of small machines have room side by side; None: enough for 4 TiB of memory, or what the system
    gives. options: those of hgmcore.options.OPTIONS. ValueError names what is wrong.
    """

    def __init__(self, scheme, geometry: str = "x86-64", *, reserve=None, **given):
        self.engine = scheme if isinstance(scheme, Engine) else schemes.load(scheme)
        if geometry not in GEOMETRIES:
            raise ValueError(f"unknown geometry '{geometry}' (known: {', '.join(FULL_SIZE)})")
        self.geometry = GEOMETRIES[geometry]
        self.options = options.resolve(self.engine, given)
        self.header = Header(geometry)
        self.reserve = None if reserve is None else size(reserve)
        self.core = Core(self.geometry, self.options, self.reserve)
        self._names: dict[str, int] = {}
        self.operations = 0

    def declare(self, header: Header) -> None:
        """Take over those files, processes and mappings of a trace's header that it does not have yet."""
        for file in header.files[len(self.header.files):]:
            self._add_file(file)
        for name in header.processes[len(self.header.processes):]:
            self._add_process(name)
        for mapping in header.mappings[len(self.header.mappings):]:
            self._add_mapping(mapping)

    def file(self, name: str, page_size="2M", pages: int = 1, populate: bool = False, kind: str = "hugetlb") -> File:
        """A file of `pages` huge pages; `populate` brings all of them into its page cache.

        kind: hugetlb, or shmem, whose folios have `page_size` bytes (Geometry.page_sizes).
        """
        self._check_name(name, [known.name for known in self.header.files])
        if kind not in FILE_KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(FILE_KINDS)}")
        file = File(self, self._add_file(FileName(name, size(page_size), whole("pages", pages), kind)))
        if populate:
            file.populate()
        return file

    def process(self, name: str) -> Process:
        """A new process."""
        self._check_name(name, self.header.processes)
        return Process(self, self._add_process(name))

    def run(self, operations) -> int:
        """Run an array of OPERATION records; numbers in them are those of self.header. Returns nanoseconds of CPU time
        of this thread.

        operations: or Trace.records or a slice of them, which are not looked through again for each run; or a Trace, or
        what `hgmcore.load` takes (a path, recording:NAME, lines): what the trace declares is then taken over, and must
        begin with what the machine has; ValueError otherwise. Refusals are results, not errors.
        ValueError: a number in a record was never declared. MemoryError: the host has no more memory. RuntimeError:
        another thread runs the machine.
        """
        operations = self._operations(operations)
        return self._executed(self.core.run, operations)

    def run_each(self, operations, stops=None) -> np.ndarray:
        """As `run`, part by part: an array (n,) of core.core.EACH, the atomics, scanned entries and leaves of each.

        stops: the numbers of records behind which a part ends, ascending, the last that of all; None: behind each.
        """
        operations = self._operations(operations)
        return self._executed(self.core.run_each, operations, stops)

    def _executed(self, function, operations, *more):
        """What a method of the core that runs operations returns; counts the operations that ran."""
        try:
            found = function(self.engine, operations, self.operations, *more)
        except (ImportError, RuntimeError, TypeError, ValueError):  # nothing ran
            raise
        except BaseException:  # memory ran out, or a signal came
            self.operations += self.core.ran
            raise
        self.operations += self.core.ran
        return found

    def _operations(self, source):
        """What the core runs of an array, of records, or of a trace whose declarations are taken over."""
        if isinstance(source, Records):
            return source
        if isinstance(source, np.ndarray) and source.dtype.kind != "U":
            if source.dtype != OPERATION:
                raise TypeError("operations are an array of dtype statements.OPERATION")
            return np.ascontiguousarray(source)
        trace = load(source)
        if trace.header.geometry != self.geometry.name:
            raise ValueError(f"{trace.name} is of geometry {trace.header.geometry}, the machine of "
                             f"{self.geometry.name}")
        for kind in ("file", "process", "mapping"):
            mine = self.header.table(kind)
            if trace.header.table(kind)[:len(mine)] != mine:
                raise ValueError(f"{trace.name} does not begin with the {kind} declarations that the machine has")
        self.declare(trace.header)
        return trace.records

    def snapshot(self) -> Snapshot:
        """The machine as it is at this moment, to come back to: page tables, struct pages, files, processes, mappings,
        costs and results. RuntimeError: another thread runs the machine.
        """
        return Snapshot(self)

    def restore(self, snapshot: Snapshot, keep: bool = False) -> None:
        """Make the machine exactly what it, or the machine that it is a clone of, was when `snapshot` was taken.

        What was declared since is gone; a File, Process or Mapping of it must not be used any more. keep: the host's
        memory that the machine has stays with it, so that what runs next asks the system for none. ValueError: the
        snapshot is of a machine with another scheme, geometry or options.
        """
        if snapshot.kind != self._kind():
            raise ValueError("the snapshot is of a machine with another scheme, geometry or options")
        snapshot.copy.restore(self.core, keep)
        header, (files, processes, mappings) = self.header, snapshot.header
        header.files[:], header.processes[:], header.mappings[:] = files, processes, mappings
        self._names, self.operations = dict(snapshot.names), snapshot.operations

    def clone(self) -> Machine:
        """Another machine that is exactly as this one is now, and goes its own way from here on."""
        other = Machine(self.engine, self.geometry.name, reserve=self.reserve, **self.options)
        other.restore(self.snapshot())
        return other

    @contextlib.contextmanager
    def trial(self):
        """`with machine.trial():` takes back at the block's end what was done in it, also if the block raises."""
        before = self.snapshot()
        try:
            yield self
        finally:
            self.restore(before)

    def _kind(self):
        """What two machines must have in common to take each other's snapshots."""
        return self.engine, self.geometry.name, self.options

    def prefault(self, tables: int) -> None:
        """Commit memory for that many page tables now, so that no operation that is timed waits for the system.

        MemoryError: the system refuses. A machine works without; it commits its tables as they are made.
        """
        self.core.prefault(tables)

    def results(self, start: int = 0) -> np.ndarray:
        """Results from the `start`-th on, as an array of (index, done, errno, event).

        Of operations that failed, raised an event or did less than they were asked to.
        """
        return self.core.results(start)

    def fail(self, n: int = 1) -> None:
        """The next operation's n-th internal allocation (of a huge page or a page table) fails."""
        self._one("fail", 0, whole("n", n))

    def page_table(self, process: Process, number: int | None = None) -> np.ndarray:
        """A page table's entries, a uint64 array: of the process's root, or of table `number`.

        It is the memory itself, without a copy, to be read only: it shows what later operations do, and keeps that
        memory. A table that is freed may serve elsewhere. An entry is 0, or bit 0 present, bit 7 leaf, and from bit 12
        the frame: a table's number or a page's. IndexError: no such table.
        """
        return self.core.table(process=process.number) if number is None else self.core.table(number)

    @staticmethod
    def error_name(result) -> str:
        """The name, as "EEXIST", of a result's errno."""
        return error_name(result["errno"])

    def observe(self) -> dict:
        """Every huge page and mapping as the scheme sees it, and the truth; arrays over base pages are runs."""
        return observe.observe(self.core, self.engine, self.geometry, self.options, self.header, self.operations)

    def cost(self) -> dict:
        """What was counted so far, and (struct_page_bytes) measured."""
        cost = {"operations": self.operations, **self.core.cost()}
        cost["lines"], cost["struct_page_bytes"] = self.core.struct_pages()
        return cost

    @staticmethod
    def _check_name(name, known):
        if not isinstance(name, str) or not is_word(name):
            raise ValueError(f"{name!r} is no name (a letter or _, then letters, digits, _ . -)")
        if name in known:
            raise ValueError(f"the name {name!r} is taken")

    def _add_file(self, file):
        if file.page_size not in self.geometry.page_sizes(file.kind):
            raise ValueError(f"file '{file.name}': {self.geometry.name} has no {file.kind} pages of "
                             f"{file.page_size} bytes")
        if file.kind != "anon" and not 0 < file.pages * file.page_size <= 1 << 52:
            raise ValueError(f"file '{file.name}': {file.pages} huge pages are none, or more than 4096T")
        if file.kind == "shmem" and file.pages * file.page_size > self.geometry.base_page << 32:
            raise ValueError(f"file '{file.name}': more than 2**32 base pages of shmem")
        self.header.files.append(file)
        return self.core.add_file(self.geometry, file.page_size, file.pages, file.kind)

    def _anonymous(self, page_size):
        """The number of the anonymous memory in folios of that size."""
        name = FileName(f"anon:{format_size(page_size)}", page_size, 0, "anon")
        return self.header.files.index(name) if name in self.header.files else self._add_file(name)

    def _add_process(self, name):
        self.header.processes.append(name)
        return self.core.add_process()

    def _add_mapping(self, mapping):
        self.header.mappings.append(mapping)
        return self.core.add_mapping(mapping.process, self._names.setdefault(mapping.name, len(self._names)))

    def _one(self, op, target, offset=0, length=0, arg=0, flags=0) -> int:
        """Run one operation. Returns bytes done; OperationError if it is refused, OverflowError for bad numbers."""
        before = self.core.nr_results
        record = np.array([(offset, length, target, arg, CODES[op], flags)], OPERATION)
        self.run(record)
        for result in self.results(before)[-1:]:    # before it may stand that of a `fail` that never fired
            if result["errno"]:
                raise OperationError(op, int(result["errno"]), int(result["done"]))
            return int(result["done"])
        return int(self.core.asked(self.engine, record)[0])


def whole(what: str, value) -> int:
    """An int, or what stands for one (NumPy's). TypeError names what it is no value of."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: {value!r} is no whole number") from None


class Snapshot:
    """A machine as it was at one moment (Machine.snapshot). It holds copies, so the machine may go on and may end.

    operations: how many the machine had run. nbytes: memory that the snapshot takes.
    """

    def __init__(self, machine: Machine):
        self.kind, self.operations, self.names = machine._kind(), machine.operations, dict(machine._names)
        header = machine.header
        self.header = list(header.files), list(header.processes), list(header.mappings)
        self.copy = CoreSnapshot(machine.core)

    @property
    def nbytes(self) -> int:
        return self.copy.nbytes

    def __repr__(self) -> str:
        return f"<Snapshot of a {self.kind[0].name} machine after {self.operations} operations, {self.nbytes} bytes>"


class File:
    """A file of a machine."""

    def __init__(self, machine: Machine, number: int):
        self.machine, self.number = machine, number

    @property
    def name(self) -> FileName:
        """Its name, page size in bytes, number of huge pages and kind."""
        return self.machine.header.files[self.number]

    def _whole(self, offset, length):
        offset = size(offset)
        return offset, self.name.pages * self.name.page_size - offset if length is None else size(length)

    def punch(self, offset=0, length=None) -> int:
        """fallocate(FALLOC_FL_PUNCH_HOLE). Returns bytes of the whole huge pages in the range."""
        return self.machine._one("punch", self.number, *self._whole(offset, length))

    def truncate(self, length=0) -> None:
        """ftruncate to `length` bytes."""
        self.machine._one("truncate", self.number, size(length))

    def pin(self, page: int = 0, count: int = 1) -> None:
        """Hold `count` extra references on a huge page of the page cache."""
        self.machine._one("pin", self.number, self._page(page), whole("count", count))

    def unpin(self, page: int = 0, count: int = 1) -> None:
        """Drop extra references."""
        self.machine._one("unpin", self.number, self._page(page), whole("count", count))

    def struct_pages(self, page: int = 0) -> np.ndarray:
        """The struct pages of the huge page (of shmem: of the folio that begins) now at `page` of the page cache.

        An array of machine.PAGE that is the memory itself, without a copy, to be read only: it shows what later
        operations do, and keeps that memory. Counts stand in it without the kernel's bias of -1.
        ValueError: no page is there.
        """
        place = self._page(page)
        if self.name.kind == "shmem":
            place *= self.name.page_size // self.machine.geometry.base_page
        for folio in self.machine.core.folios():
            if folio["file"] == self.number and folio["page"] == place and folio["flags"] & FOLIO_CACHED:
                return self.machine.core.pages(int(folio["pfn"]), int(folio["nr_pages"]))
        raise ValueError(f"huge page {page} is not in the page cache")

    def _page(self, page):
        page = whole("page", page)
        if not 0 <= page < self.name.pages:
            raise ValueError(f"huge page {page} lies beyond the file")
        return page

    def populate(self, first: int = 0, count: int | None = None) -> int:
        """Bring huge pages [first, first + count) into the page cache. Returns bytes."""
        first = whole("first", first)
        count = self.name.pages - first if count is None else whole("count", count)
        if first < 0 or count < 0 or first + count > self.name.pages:
            raise ValueError(f"huge pages {first} to {first} + {count} reach beyond the file")
        self.machine._one("populate", self.number, first, count)
        return count * self.name.page_size


class Process:
    """A process of a machine."""

    def __init__(self, machine: Machine, number: int):
        self.machine, self.number = machine, number

    def mmap(self, file: File | None = None, name: str | None = None, *, shared: bool | None = None,
             minor: bool = False, wp: bool = False, hgm: bool = False, offset=0, length=None, anon=None) -> Mapping:
        """Map `length` bytes of the file from `offset` on (default: all), shared unless told otherwise; minor, wp, hgm:
        registered, split from the start.

        anon: instead of a file, anonymous memory in folios of that size ("2M"), private; its length must be given.
        """
        if (file is None) == (anon is None):
            raise ValueError("mmap: a file or anon, one of them")
        if anon is not None:
            if length is None or shared:
                raise ValueError("mmap: anonymous memory is private and has a length")
            file = File(self.machine, self.machine._anonymous(size(anon)))
        shared = anon is None if shared is None else shared
        if file.machine is not self.machine:
            raise ValueError(f"file {file.name.name!r} belongs to another machine")
        offset = size(offset)
        length = file.name.pages * file.name.page_size - offset if length is None else size(length)
        number = self._mapping(name or f"v{len(self.machine.header.mappings)}")
        flags = SHARED * shared | MINOR * minor | WP * wp | HGM * hgm
        self.machine._one("mmap", number, offset, length, file.number, flags)
        return Mapping(self.machine, number, file)

    def _mapping(self, name):
        """The number of a mapping's name, declared where it is new."""
        known, mapping = self.machine.header.mappings, MappingName(self.number, name)
        if not isinstance(name, str) or not is_word(name):
            raise ValueError(f"{name!r} is no name (a letter or _, then letters, digits, _ . -)")
        return known.index(mapping) if mapping in known else self.machine._add_mapping(mapping)

    def fork(self, name: str) -> Process:
        """A child with this process's mappings under the same names (Process.mapping)."""
        child = self.machine.process(name)
        for mapping in [m for m in self.machine.header.mappings if m.process == self.number]:
            child._mapping(mapping.name)
        self.machine._one("fork", self.number, arg=child.number)
        return child

    def mapping(self, name: str) -> Mapping:
        """The mapping of that name. KeyError: there is none."""
        mapping = MappingName(self.number, name)
        if mapping not in self.machine.header.mappings:
            raise KeyError(name)
        number = self.machine.header.mappings.index(mapping)
        return Mapping(self.machine, number, File(self.machine, int(self.machine.core.mappings()[number, 1])))

    def exit(self) -> None:
        """Unmap everything and end."""
        self.machine._one("exit", self.number)


class Mapping:
    """A mapping: an address range, by offsets from its start in bytes (ints, or texts such as "4K").

    Methods return bytes done and raise OperationError where the simulated kernel refuses.
    """

    def __init__(self, machine: Machine, number: int, file: File):
        self.machine, self.number, self.file = machine, number, file

    @property
    def length(self) -> int:
        """Bytes of the range, with holes."""
        return int(self.machine.core.mappings()[self.number, 3])

    def _range(self, op, offset, length, flags=0):
        offset = size(offset)
        length = self.length - offset if length is None else size(length)
        return self.machine._one(op, self.number, offset, length, 0, flags)

    def register(self, *, minor: bool = False, wp: bool = False) -> None:
        """UFFDIO_REGISTER."""
        if not (minor or wp):
            raise ValueError("register: neither minor nor wp")
        self.machine._one("register", self.number, flags=MINOR * minor | WP * wp)

    def unregister(self) -> None:
        """UFFDIO_UNREGISTER."""
        self.machine._one("unregister", self.number)

    def split(self, offset=0, length=None) -> int:
        """MADV_SPLIT: may be mapped in pieces from now on."""
        return self._range("split", offset, length)

    def uffd_continue(self, offset, length="4K", *, urgent: bool = False):
        """UFFDIO_CONTINUE.

        offset: one, or an array of n offsets that run in one crossing; then returns an array (n,) with fields done
        (bytes) and errno (0: none) and raises nothing.
        """
        if not isinstance(offset, np.ndarray):
            return self._range("continue", offset, length, URGENT * urgent)
        if offset.ndim != 1 or offset.dtype.kind not in "iu" or (len(offset) and offset.min() < 0):
            raise ValueError("offsets are a one-dimensional array of integers from 0 on")
        records = np.zeros(len(offset), OPERATION)
        records["offset"], records["length"], records["target"] = offset, size(length), self.number
        records["op"], records["flags"] = CODES["continue"], URGENT * urgent
        before, first = self.machine.core.nr_results, self.machine.operations
        self.machine.run(records)
        out = np.zeros(len(records), np.dtype([("done", RESULT["done"]), ("errno", RESULT["errno"])]))
        out["done"] = self.machine.core.asked(self.machine.engine, records)
        results = self.machine.results(before)
        at = (results["index"] - np.uint64(first)).astype(np.int64)
        out["done"][at], out["errno"][at] = results["done"], results["errno"]
        return out

    def touch(self, offset, *, write: bool = False) -> int:
        """Access one address. Returns a base page's bytes, or 0 where it raised a minor event."""
        return self.machine._one("touch", self.number, size(offset), flags=WRITE * write)

    def dontneed(self, offset=0, length=None) -> int:
        """MADV_DONTNEED."""
        return self._range("dontneed", offset, length)

    def collapse(self, offset=0, length=None) -> int:
        """MADV_COLLAPSE."""
        return self._range("collapse", offset, length)

    def munmap(self, offset=0, length=None) -> int:
        """munmap; what remains keeps its offsets."""
        return self._range("munmap", offset, length)

    def mprotect(self, offset=0, length=None, rights: str = "rw") -> int:
        """mprotect; rights: "r", "rw" or "none"."""
        flags = {"r": READ, "rw": READ | WRITE, "none": 0}
        if rights not in flags:
            raise ValueError(f"rights: '{rights}' is not one of r, rw, none")
        return self._range("mprotect", offset, length, flags[rights])

    def resize(self, length) -> int:
        """mremap in place."""
        return self.machine._one("mremap", self.number, 0, size(length), NO_ARG)

    def move(self, offset, length, name: str) -> Mapping:
        """mremap of a part to a new mapping of the same process."""
        process = Process(self.machine, self.machine.header.mappings[self.number].process)
        number = process._mapping(name)
        self.machine._one("mremap", self.number, size(offset), size(length), number)
        return Mapping(self.machine, number, self.file)

    def migrate(self, offset=0, length=None, *, everything: bool = False) -> int:
        """mbind(MPOL_MF_MOVE) to other memory; everything: MPOL_MF_MOVE_ALL. Returns bytes moved."""
        return self._range("migrate", offset, length, ALL * everything)

    def hwpoison(self, offset) -> int:
        """Memory failure of one base page."""
        return self.machine._one("hwpoison", self.number, size(offset))

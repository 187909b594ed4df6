"""The names that a trace declares, and what statements may say of them.

A file is declared by `file`, or by the first mmap of anonymous memory of its folio size; a process by its
first mmap or by fork; a mapping by mmap or mremap, or inherited by fork. Every method takes names as written
and raises ValueError with the reason.
"""

from __future__ import annotations

import difflib
import re
from itertools import islice
from typing import NamedTuple, NoReturn

from hgmcore.geometry import FULL_SIZE, GEOMETRIES
from hgmcore.sizes import format_size, parse_size, quoted

FILE_LIMIT = 1 << 52  # bytes
FILE_KINDS = ("hugetlb", "shmem")

_WORD = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


class File(NamedTuple):
    """A file, or anonymous memory of one folio size. page_size: bytes. kind: hugetlb, shmem or anon."""

    name: str
    page_size: int
    pages: int
    kind: str = "hugetlb"


class Mapping(NamedTuple):
    """A name for an address range. process: index.

    address, length: what statements say with `at ADDRESS`, and as an mremap's second length; None where none does.
    """

    process: int
    name: str
    address: int | None = None
    length: int | None = None


class Names:
    """What has been declared so far; tables in order of declaration, as a header holds them."""

    def __init__(self, geometry: str = "x86-64"):
        if geometry not in GEOMETRIES:
            raise ValueError(f"unknown geometry {quoted(geometry)} (known: {', '.join(FULL_SIZE)})")
        self.geometry = GEOMETRIES[geometry]
        self.files: list[File] = []
        self.processes: list[str] = []
        self.mappings: list[Mapping] = []
        self.phases: list[str] = []
        self._files: dict[str, int] = {}
        self._processes: dict[str, int] = {}
        self._mappings: dict[tuple[str, str], int] = {}
        self._phases: dict[str, int] = {}
        self._of_process: list[list[int]] = []

    def find(self, kind: str, name: str) -> int:
        """Index of a declared "file" or "process"."""
        table = self._files if kind == "file" else self._processes
        if name not in table:
            _unknown(f"no {kind} {quoted(name)}", name, table)
        return table[name]

    def mapping(self, process: str, name: str) -> int:
        """Index of a declared mapping of a declared process."""
        index = self._mappings.get((process, name))
        if index is None:
            there = [self.mappings[i].name for i in self._of_process[self.find("process", process)]]
            _unknown(f"no mapping {quoted(name)} in process {process!r}", name, there)
        return index

    def process_of(self, mapping: int) -> str:
        """Name of the process that a mapping belongs to."""
        return self.processes[self.mappings[mapping].process]

    def declare_file(self, name: str, page_size: int, pages: int, kind: str = "hugetlb") -> int:
        """Index of a new file of `pages` huge pages (or folios) of `page_size` bytes."""
        _word("file", name)
        if name in self._files:
            raise ValueError(f"file {name!r} is declared already")
        if kind not in FILE_KINDS:
            raise ValueError(f"unknown kind of file {quoted(kind)} (known: {', '.join(FILE_KINDS)})")
        self._check_page_size(page_size, kind)
        if page_size * pages > FILE_LIMIT:
            size = f"{pages} pages of {format_size(page_size)}"
            raise ValueError(f"{size} are more than {format_size(FILE_LIMIT)}")
        if kind == "shmem" and page_size * pages > self.geometry.base_page << 32:
            raise ValueError(f"file {name!r}: more than 2**32 base pages of shmem")
        return self._add_file(File(name, page_size, pages, kind))

    def anonymous(self, word: str) -> int:
        """Index of the anonymous memory that `word` (as in anon:2M) names; declared by being named."""
        page_size = parse_size(word.removeprefix("anon:"))
        name = f"anon:{format_size(page_size)}"
        if name in self._files:
            return self._files[name]
        self._check_page_size(page_size, "anon")
        return self._add_file(File(name, page_size, 0, "anon"))

    def declare_mapping(self, process: str, name: str) -> int:
        """Index of a mapping, new or declared before; its process is declared where it is new."""
        index = self._mappings.get((process, name))
        if index is not None:
            return index
        _word("mapping", name)
        if process not in self._processes:
            self._add_process(process)
        return self._add_mapping(self._processes[process], name)

    def place(self, mapping: int, **given) -> None:
        """Let an address or a length stand with a mapping; it has one of each."""
        self.mappings[mapping] = placed(self.mappings[mapping], **given)

    def fork(self, parent: int, child: str) -> int:
        """Index of a new process that has the mappings that the parent declared so far."""
        if child in self._processes:
            raise ValueError(f"process {child!r} exists already")
        index, first = self._add_process(child), len(self.mappings)
        self.mappings += [Mapping(index, self.mappings[mapping].name) for mapping in self._of_process[parent]]
        self._of_process[index] = list(range(first, len(self.mappings)))
        self._mappings.update({(child, self.mappings[mapping].name): mapping for mapping in self._of_process[index]})
        return index

    def phase(self, name: str) -> int:
        """Index of a phase, new or named before."""
        if name not in self._phases:
            _word("phase", name)
            self._phases[name] = len(self.phases)
            self.phases.append(name)
        return self._phases[name]

    def _check_page_size(self, page_size, kind):
        sizes = self.geometry.page_sizes(kind)
        if page_size not in sizes:
            known = ", ".join(format_size(size) for size in sizes)
            size = f"{kind} pages of {format_size(page_size)}"
            raise ValueError(f"{self.geometry.name} has no {size} (it has {known})")

    def _add_file(self, file):
        self._files[file.name] = len(self.files)
        self.files.append(file)
        return self._files[file.name]

    def _add_process(self, name):
        _word("process", name)
        self._processes[name] = len(self.processes)
        self.processes.append(name)
        self._of_process.append([])
        return self._processes[name]

    def _add_mapping(self, process, name):
        index = len(self.mappings)
        self._mappings[self.processes[process], name] = index
        self.mappings.append(Mapping(process, name))
        self._of_process[process].append(index)
        return index


def placed(mapping: Mapping, **given: int) -> Mapping:
    """A mapping with an address or a length that comes to stand with it. ValueError: it has another one."""
    for what, value in given.items():
        if getattr(mapping, what) not in (None, value):
            raise ValueError(f"mapping {mapping.name!r} was given another {what} before, "
                             f"{getattr(mapping, what):#x}: another name may have this one")
    return mapping._replace(**given)  # type: ignore[arg-type]


def is_word(name) -> bool:
    """Whether `name` may name something in a trace."""
    return isinstance(name, str) and _WORD.fullmatch(name) is not None


def _unknown(problem, name, declared) -> NoReturn:
    """Raise ValueError with the declared names, or where they are many with those nearest to `name`."""
    shown = list(islice(declared, 1000))
    if len(shown) > 8:
        shown = difflib.get_close_matches(name, shown, n=8, cutoff=0)
    more = ", ..." if len(shown) < len(declared) else ""
    raise ValueError(f"{problem} (declared: {', '.join(shown) or 'none'}{more})")


def _word(what, name):
    if not is_word(name):
        raise ValueError(f"{quoted(name)} cannot name a {what} (a letter or _, then letters, digits, _ . -)")

"""What a machine has declared: files, processes and mappings, their names and numbers."""

from __future__ import annotations

from typing import Any, SupportsIndex

from hgmcore.core.calls import size
from hgmcore.core.core import Core
from hgmcore.geometry import Geometry
from hgmcore.parts.batches import Batches, Size
from hgmcore.parts.file import File
from hgmcore.parts.handle import checked_name, whole
from hgmcore.parts.journal import file_record
from hgmcore.parts.mapping import Mapping
from hgmcore.parts.process import Process
from hgmcore.sizes import format_size
from hgmcore.trace import Header
from hgmcore.trace.names import FILE_KINDS
from hgmcore.trace.names import File as FileName
from hgmcore.trace.names import Mapping as MappingName


def bare(entry: Any) -> Any:
    """An entry of a header's table as it was declared: a mapping without address and length, which may come later."""
    return MappingName(*entry[:2]) if isinstance(entry, MappingName) else entry


class Numbers:
    """The number of each name in a header's tables, so that none is looked for in a list.

    files, processes: by name. mappings: by Mapping (process, name); of_process: those of each process. words: of
    mappings' names, one for all processes.
    """

    def __init__(self, header: Header, words: dict[str, int]) -> None:
        self.files: dict[str, int] = {file.name: number for number, file in enumerate(header.files)}
        self.processes: dict[str, int] = {name: number for number, name in enumerate(header.processes)}
        self.mappings: dict[MappingName, int] = {bare(one): number for number, one in enumerate(header.mappings)}
        self.of_process: list[list[int]] = [[] for _ in header.processes]
        for number, mapping in enumerate(header.mappings):
            self.of_process[mapping.process].append(number)
        self.words: dict[str, int] = words


class Declared:
    """All that a machine has declared at one moment: copies of its header's tables and of the words' numbers."""

    def __init__(self, header: Header, words: dict[str, int]) -> None:
        self.files: list[FileName] = list(header.files)
        self.processes: list[str] = list(header.processes)
        self.mappings: list[MappingName] = list(header.mappings)
        self.phases: list[str] = list(header.phases)
        self.words: dict[str, int] = dict(words)

    def put_back(self, header: Header) -> Numbers:
        """Make the header's tables what they were. Returns the numbers of their names."""
        header.files[:], header.processes[:] = self.files, self.processes
        header.mappings[:], header.phases[:] = self.mappings, self.phases
        return Numbers(header, dict(self.words))


def check_file(file: FileName, geometry: Geometry) -> None:
    """ValueError unless machines of that geometry can have the file."""
    if file.page_size not in geometry.page_sizes(file.kind):
        raise ValueError(f"file '{file.name}': {geometry.name} has no {file.kind} pages of {file.page_size} bytes")
    if file.kind != "anon" and not 0 < file.pages * file.page_size <= 1 << 52:
        raise ValueError(f"file '{file.name}': {file.pages} huge pages are none, or more than 4096T")
    if file.kind == "shmem" and file.pages * file.page_size > geometry.base_page << 32:
        raise ValueError(f"file '{file.name}': more than 2**32 base pages of shmem")


class Declares:
    """The part of a Machine that declares what it has."""

    header: Header
    geometry: Geometry
    core: Core
    _calls: Batches
    _numbers: Numbers
    _declared: Declared | None    # what is declared now; None: something was since it was kept

    @property
    def files(self) -> tuple[File, ...]:
        """Its files, in the order of their declaration; anonymous memory in folios of one size is one."""
        return tuple(File(self, number) for number in range(len(self.header.files)))  # type: ignore[arg-type]

    @property
    def processes(self) -> tuple[Process, ...]:
        """Its processes, in the order of their declaration, also those that have exited (`Process.exited`)."""
        return tuple(Process(self, number) for number in range(len(self.header.processes)))  # type: ignore[arg-type]

    def declare(self, header: Header) -> None:
        """Take over those files, processes and mappings of a trace's header that the machine does not have yet.

        Parameters
        ----------
        header : Header
            Its tables begin with what the machine has declared.
        """
        for file in header.files[len(self.header.files):]:
            self._add_file(file)
        for name in header.processes[len(self.header.processes):]:
            self._add_process(name)
        for mapping in header.mappings[len(self.header.mappings):]:
            self._add_mapping(mapping)
        for number, mapping in enumerate(header.mappings):
            if mapping != self.header.mappings[number]:    # an address or a length came to stand with it
                self._place(number, mapping)

    def file(self, name: str, page_size: Size = "2M", pages: SupportsIndex = 1, populate: bool = False,
             kind: str = "hugetlb") -> File:
        """Declare a file.

        Parameters
        ----------
        name : str
            A word that no other file has.
        page_size : size
            Bytes of a huge page; of shmem of a folio, one of `Geometry.page_sizes`.
        pages : int
            How many huge pages or folios it may have.
        populate : bool
            Bring all of them into the page cache.
        kind : {"hugetlb", "shmem"}
            Which file system it is of.

        Returns
        -------
        File
            The file.

        Raises
        ------
        ValueError
            The name is none or taken, or the geometry has no such pages.
        """
        self._check_new(name, self._numbers.files)
        if kind not in FILE_KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(FILE_KINDS)}")
        number = self._add_file(FileName(name, size(page_size), whole("pages", pages), kind))
        file = File(self, number)  # type: ignore[arg-type]
        if self._calls.journal is not None:
            self._calls.journal.append(file_record(file.number))
        if populate:
            file.populate()
        return file

    def process(self, name: str) -> Process:
        """Declare a process.

        Parameters
        ----------
        name : str
            A word that no other process has.

        Returns
        -------
        Process
            The process, which maps nothing.

        Raises
        ------
        ValueError
            The name is none or taken.
        """
        self._check_new(name, self._numbers.processes)
        return Process(self, self._add_process(name))  # type: ignore[arg-type]

    def _declared_now(self) -> Declared:
        """What is declared now; copied once for all snapshots until something is declared."""
        if self._declared is None:
            self._declared = Declared(self.header, self._numbers.words)
        return self._declared

    @staticmethod
    def _check_new(name, known):
        if checked_name(name) in known:
            raise ValueError(f"the name {name!r} is taken")

    def _add_file(self, file):
        check_file(file, self.geometry)
        number = self.core.add_file(self.geometry, file.page_size, file.pages, file.kind)
        self._declared = None
        self._numbers.files[file.name] = number
        self.header.files.append(file)
        return number

    def _anonymous(self, page_size):
        """The number of the anonymous memory in folios of that size."""
        name = f"anon:{format_size(page_size)}"
        known = self._numbers.files.get(name)
        return self._add_file(FileName(name, page_size, 0, "anon")) if known is None else known

    def _add_process(self, name):
        number = self.core.add_process()
        self._declared = None
        self._numbers.processes[name] = number
        self._numbers.of_process.append([])
        self.header.processes.append(name)
        return number

    def _add_mapping(self, mapping: MappingName) -> int:
        words = self._numbers.words
        number = self.core.add_mapping(mapping.process, words.setdefault(mapping.name, len(words)))
        self._declared = None
        self._numbers.mappings[bare(mapping)] = number
        self._numbers.of_process[mapping.process].append(number)
        self.header.mappings.append(bare(mapping))
        if mapping != bare(mapping):
            self._place(number, mapping)
        return number

    def _place(self, number: int, mapping: MappingName) -> None:
        """Let an address and a length stand with a mapping."""
        self.header.mappings[number] = mapping
        self._declared = None
        self.core.place_mapping(number, mapping.address or 0, mapping.length or 0)

    def _mapping_of(self, number: int) -> Mapping:
        return Mapping(self, number)  # type: ignore[arg-type]

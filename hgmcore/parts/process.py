"""Processes of a machine: small objects that name them, whose methods are operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from hgmcore.core.calls import size
from hgmcore.parts.batches import Size
from hgmcore.parts.file import File
from hgmcore.parts.handle import Handle, checked_name
from hgmcore.parts.shapes import quoted, shaped
from hgmcore.trace.names import Mapping as MappingName
from hgmcore.trace.names import placed
from hgmcore.trace.statements import AT, CODES, HGM, MINOR, SHARED, WP

if TYPE_CHECKING:
    from hgmcore.parts.mapping import Mapping

EXIT, FORK, MMAP = (CODES[name] for name in ("exit", "fork", "mmap"))


class Process(Handle):
    """A process of a machine, as `Machine.process` or `fork` makes it."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.machine.header.processes[self.number]

    @property
    def exited(self) -> bool:
        """Has it ended?"""
        return self.machine._calls.exited(self.number)

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """Its mappings of which something is mapped, in the order of their declaration."""
        calls, machine = self.machine._calls, self.machine
        return tuple(machine._mapping_of(number) for number in machine._numbers.of_process[self.number]
                     if calls.mapped(number))

    def __repr__(self) -> str:
        return shaped("process", name=quoted(self.name), exited=str(self.exited).lower(),
                      nr_mappings=len(self.mappings))

    def mmap(self, file: File | None = None, name: str | None = None, *, shared: bool | None = None,
             minor: bool = False, wp: bool = False, hgm: bool = False, offset: Size = 0, length: Size | None = None,
             anon: Size | None = None, at: SupportsIndex | None = None) -> Mapping:
        """Map a part of a file, or anonymous memory.

        Parameters
        ----------
        file : File, optional
            What is mapped; None where `anon` is given.
        name : str, optional
            The mapping's name in its process, which may have been used before.
        shared : bool, optional
            MAP_SHARED or MAP_PRIVATE; None: shared for a file, private for anonymous memory.
        minor, wp : bool
            Registered with userfaultfd from the start, as by `Mapping.register`.
        hgm : bool
            Split from the start, as by `Mapping.split`.
        offset : size
            The first byte of the file that is mapped.
        length : size, optional
            Bytes that are mapped; None: up to the file's end. Anonymous memory needs it.
        anon : size, optional
            Instead of a file: anonymous memory in folios of that size.
        at : int, optional
            The address; a name has one. None: the machine chooses (option `addresses`).

        Returns
        -------
        Mapping
            The new mapping.

        Raises
        ------
        OperationError
            EINVAL: no such range; EEXIST: the name is mapped, or something is at the address; ENOMEM: the address space
            ends; ESRCH: the process has exited.
        ValueError
            The file belongs to another machine, the name is none or has another address, or file and `anon` do not fit
            together.

        Notes
        -----
        Source: Linux mm/mmap.c, do_mmap(); fs/hugetlbfs/inode.c, hugetlbfs_file_mmap().
        """
        machine = self.machine
        if (file is None) == (anon is None):
            raise ValueError("mmap: a file or anon, one of them")
        if anon is not None:
            if length is None or shared:
                raise ValueError("mmap: anonymous memory is private and has a length")
            file = File(machine, machine._anonymous(size(anon)))
        assert file is not None
        shared = anon is None if shared is None else shared
        if file.machine is not machine:
            raise ValueError(f"file {file.name!r} belongs to another machine")
        offset = size(offset)
        length = file.size - offset if length is None else size(length)
        number = self._mapping(name or f"v{len(machine.header.mappings)}", address=at)
        flags = SHARED * shared | MINOR * minor | WP * wp | HGM * hgm | AT * (at is not None)
        machine._calls.one(MMAP, number, offset, length, file.number, flags)
        return machine._mapping_of(number)

    def _mapping(self, name, **given):
        """The number of a mapping's name, declared where it is new; given: address and length that stand with it."""
        mapping = MappingName(self.number, checked_name(name))
        number = self.machine._numbers.mappings.get(mapping)
        if number is None:
            number = self.machine._add_mapping(mapping)
        given = {what: size(value) for what, value in given.items() if value is not None}
        if given:
            self.machine._place(number, placed(self.machine.header.mappings[number], **given))
        return number

    def fork(self, name: str) -> Process:
        """Make a child that has this process's mappings under the same names (`mapping`).

        Parameters
        ----------
        name : str
            The child's name, a new one.

        Returns
        -------
        Process
            The child.

        Raises
        ------
        OperationError
            The kernel refuses: ESRCH where this process has exited, ENOMEM as `Machine.fail` asks.
        ValueError
            The name is none or taken.

        Notes
        -----
        Source: Linux kernel/fork.c, dup_mmap(); mm/hugetlb.c, copy_hugetlb_page_range(); mm/memory.c,
        copy_page_range().
        """
        machine = self.machine
        child = machine.process(name)
        for number in machine._numbers.of_process[self.number]:
            machine._add_mapping(MappingName(child.number, machine.header.mappings[number].name))
        machine._calls.one(FORK, self.number, 0, 0, child.number)
        return child

    def mapping(self, name: str) -> Mapping:
        """The mapping of that name, also one of which nothing is mapped any more.

        Parameters
        ----------
        name : str
            A name that `mmap`, `Mapping.mremap` or the parent gave.

        Returns
        -------
        Mapping
            The mapping.

        Raises
        ------
        KeyError
            There is none.
        """
        number = self.machine._numbers.mappings.get(MappingName(self.number, name))
        if number is None:
            raise KeyError(name)
        return self.machine._mapping_of(number)

    def exit(self) -> None:
        """Unmap everything and end: exit_mmap().

        Raises
        ------
        OperationError
            The process has ended before (ESRCH).
        """
        self.machine._calls.one(EXIT, self.number)

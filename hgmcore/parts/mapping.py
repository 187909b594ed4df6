"""Mappings of a machine: small objects that name them, whose methods are operations on their addresses."""

from __future__ import annotations

from typing import Any, NamedTuple, SupportsIndex, overload

from hgmcore.core.calls import size
from hgmcore.parts.batches import Outcomes, Size, Sizes
from hgmcore.parts.file import File
from hgmcore.parts.handle import Handle
from hgmcore.parts.pagetables import Entry
from hgmcore.parts.process import Process
from hgmcore.parts.shapes import quoted, shaped
from hgmcore.sizes import format_size
from hgmcore.trace.statements import ALL, AT, CODES, HGM, KEEP, MINOR, NO_ARG, READ, RESIZED, SHARED, URGENT, WP, WRITE

(COLLAPSE, CONTINUE, DONTNEED, HWPOISON, MIGRATE, MPROTECT, MREMAP, MUNMAP, REGISTER, SPLIT, TOUCH, UNREGISTER) = (
    CODES[name] for name in ("collapse", "continue", "dontneed", "hwpoison", "migrate", "mprotect", "mremap", "munmap",
                             "register", "split", "touch", "unregister"))

RIGHTS = {"r": READ, "rw": READ | WRITE, "none": 0}
VMA_FLAGS = {SHARED: "shared", MINOR: "minor", WP: "wp", HGM: "hgm", READ: "read", WRITE: "write"}


class Vma(NamedTuple):
    """What is left of a mapping in one piece: bytes [start, end) from the mapping's start.

    flags: names of those that are set, of shared, minor, wp, hgm, read, write.
    """

    start: int
    end: int
    flags: tuple[str, ...]

    def __repr__(self) -> str:
        return shaped("vm_area_struct", start=format_size(self.start), end=format_size(self.end),
                      flags="|".join(self.flags) or "0")


class Mapping(Handle):
    """A mapping: an address range, by offsets from its start in bytes (ints, or texts such as "4K").

    Each operation returns the bytes that it did, and raises OperationError where the simulated kernel refuses. Where it
    is given an array, list or tuple of offsets or lengths, they run in one crossing: it returns an array (n,) with
    the fields `done` (bytes), `errno` (0: none) and `event` (1: a minor fault), and a refusal raises nothing.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> m = hgm.Machine("head_per_leaf")
    >>> f = m.file("F", page_size="2M", pages=2, populate=True)
    >>> v = m.process("A").mmap(f, name="v", minor=True, hgm=True)
    >>> v.uffd_continue(0, "4K")
    4096
    >>> v.uffd_continue([0, "4K", "8K"])["errno"].tolist()
    [17, 0, 0]
    >>> v.uffd_continue(0)
    Traceback (most recent call last):
        ...
    hgmcore.errnos.OperationError: continue at 0x0: EEXIST (0 bytes done)
    >>> v
    (struct mapping){.process = "A", .name = "v", .file = "F", .address = 0x0, .length = 4M, .file_offset = 0, \
.nr_vmas = 1}
    >>> for entry in v.walk("8K"):
    ...     print(entry.level, entry.kind, hex(entry.frame))
    p4d table 0x2
    pud table 0x3
    pmd table 0x4
    pte leaf 0x2
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name, which is unique in its process."""
        return self.machine.header.mappings[self.number].name

    @property
    def process(self) -> Process:
        """The process that it belongs to."""
        return Process(self.machine, self.machine.header.mappings[self.number].process)

    @property
    def file(self) -> File:
        """The file, or anonymous memory, that it maps."""
        return File(self.machine, self.machine._calls.file(self.number))

    @property
    def address(self) -> int:
        """Where it begins in its process's address space."""
        return self.machine._calls.address(self.number)

    @property
    def length(self) -> int:
        """Bytes of the range, with holes."""
        return self.machine._calls.length(self.number)

    @property
    def file_offset(self) -> int:
        """The byte of the file that its first address maps."""
        return self.machine._calls.file_offset(self.number)

    @property
    def vmas(self) -> tuple[Vma, ...]:
        """What is left of it, in order; empty where all is unmapped."""
        return tuple(Vma(start, end, tuple(name for bit, name in VMA_FLAGS.items() if flags & bit))
                     for start, end, flags in self.machine.core.vmas(self.number))

    def __repr__(self) -> str:
        return shaped("mapping", process=quoted(self.process.name), name=quoted(self.name),
                      file=quoted(self.file.name), address=hex(self.address), length=format_size(self.length),
                      file_offset=format_size(self.file_offset), nr_vmas=len(self.vmas))

    def walk(self, offset: Size = 0) -> list[Entry]:
        """The page-table entries on the way to an address of the mapping.

        Parameters
        ----------
        offset : size
            Bytes from the mapping's start.

        Returns
        -------
        list of Entry
            One for each level, from the root down to the leaf, or to the first entry that is empty.

        Raises
        ------
        ValueError
            The page tables reach no such address.
        """
        return self.machine.walk(self.process, self.address + size(offset))

    def register(self, *, minor: bool = False, wp: bool = False) -> None:
        """Register the mapping with userfaultfd: UFFDIO_REGISTER.

        Parameters
        ----------
        minor : bool
            A fault on a page that is in the page cache raises an event; `uffd_continue` maps it.
        wp : bool
            Pages can be write-protected; fork copies the page tables.

        Raises
        ------
        OperationError
            The kernel refuses (EINVAL; ESRCH where the process has exited).
        ValueError
            Neither is asked for.

        Notes
        -----
        Source: Linux fs/userfaultfd.c, userfaultfd_register().
        """
        if not (minor or wp):
            raise ValueError("register: neither minor nor wp")
        self.machine._calls.one(REGISTER, self.number, 0, 0, 0, MINOR * minor | WP * wp)

    def unregister(self) -> None:
        """End what `register` began: UFFDIO_UNREGISTER.

        Raises
        ------
        OperationError
            The kernel refuses (EINVAL; ESRCH where the process has exited).

        Notes
        -----
        Source: Linux fs/userfaultfd.c, userfaultfd_unregister().
        """
        self.machine._calls.one(UNREGISTER, self.number)

    @overload
    def split(self, offset: Size = ..., length: Size | None = ...) -> int: ...
    @overload
    def split(self, offset: Sizes, length: Size | Sizes | None = ...) -> Outcomes: ...
    def split(self, offset: Any = 0, length: Any = None) -> Any:
        """Allow that pieces of the range's huge pages are mapped from now on: MADV_SPLIT.

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.

        Returns
        -------
        int or ndarray
            Bytes of the range; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EINVAL: the memory is not hugetlb or not shared; ENOMEM: the range has a hole; ESRCH: the process has
            exited.

        Notes
        -----
        Source: HGM v2, mm/madvise.c and mm/hugetlb.c, hugetlb_split(); posted, not merged.
        """
        return self.machine._calls.part(SPLIT, self.number, offset, length)

    @overload
    def uffd_continue(self, offset: Size, length: Size = ..., *, urgent: bool = ...) -> int: ...
    @overload
    def uffd_continue(self, offset: Sizes, length: Size | Sizes = ..., *, urgent: bool = ...) -> Outcomes: ...
    def uffd_continue(self, offset: Any, length: Any = "4K", *, urgent: bool = False) -> Any:
        """Map pages of the page cache where a minor fault waits for them: UFFDIO_CONTINUE.

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes
            Bytes of the range, by default a base page of x86-64.
        urgent : bool
            An access waits for the pages; counts nothing, and reports tell such operations apart.

        Returns
        -------
        int or ndarray
            Bytes that were mapped; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            ENOENT: not registered as `minor`, or the page is not in the page cache; EEXIST: something is mapped
            there; EAGAIN: that, but not at the start; EINVAL: no such range; ESRCH: the process has exited.

        Notes
        -----
        Source: Linux fs/userfaultfd.c, userfaultfd_continue(); mm/userfaultfd.c, mfill_atomic_continue().
        """
        return self.machine._calls.part(CONTINUE, self.number, offset, length, URGENT if urgent else 0)

    @overload
    def touch(self, offset: Size, *, write: bool = ...) -> int: ...
    @overload
    def touch(self, offset: Sizes, *, write: bool = ...) -> Outcomes: ...
    def touch(self, offset: Any, *, write: bool = False) -> Any:
        """Access one address, and take the page fault if nothing maps it.

        Parameters
        ----------
        offset : size, or array_like of sizes
            The address, in bytes from the mapping's start.
        write : bool
            The access writes.

        Returns
        -------
        int or ndarray
            Bytes of a base page, or 0 where the access raised a minor event; of an array of offsets what each came to
            (see the class).

        Raises
        ------
        OperationError
            EFAULT: no access is allowed there; EHWPOISON: its page has failed; ENOMEM: there is no page for it.

        Notes
        -----
        Source: Linux mm/memory.c, handle_mm_fault(); mm/hugetlb.c, hugetlb_fault().
        """
        return self.machine._calls.one(TOUCH, self.number, offset, 0, 0, WRITE if write else 0)

    @overload
    def dontneed(self, offset: Size = ..., length: Size | None = ...) -> int: ...
    @overload
    def dontneed(self, offset: Sizes, length: Size | Sizes | None = ...) -> Outcomes: ...
    def dontneed(self, offset: Any = 0, length: Any = None) -> Any:
        """Unmap a range: MADV_DONTNEED.

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.

        Returns
        -------
        int or ndarray
            Bytes of the range; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EINVAL: no such range; ENOMEM: the range has a hole; ESRCH: the process has exited.

        Notes
        -----
        Source: Linux mm/madvise.c, madvise_dontneed_single_vma().
        """
        return self.machine._calls.part(DONTNEED, self.number, offset, length)

    @overload
    def collapse(self, offset: Size = ..., length: Size | None = ...) -> int: ...
    @overload
    def collapse(self, offset: Sizes, length: Size | Sizes | None = ...) -> Outcomes: ...
    def collapse(self, offset: Any = 0, length: Any = None) -> Any:
        """Map a range by the largest leaves again: MADV_COLLAPSE.

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.

        Returns
        -------
        int or ndarray
            Bytes of the range; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EINVAL: no such range, or no pieces are allowed there; ENOMEM: the range has a hole, or an allocation fails;
            EBUSY, EEXIST: a page has failed, or is in the way; ESRCH: the process has exited.

        Notes
        -----
        Source: HGM v2, mm/hugetlb.c, hugetlb_collapse(); Linux mm/khugepaged.c, madvise_collapse().
        """
        return self.machine._calls.part(COLLAPSE, self.number, offset, length)

    @overload
    def munmap(self, offset: Size = ..., length: Size | None = ...) -> int: ...
    @overload
    def munmap(self, offset: Sizes, length: Size | Sizes | None = ...) -> Outcomes: ...
    def munmap(self, offset: Any = 0, length: Any = None) -> Any:
        """Unmap a range for good; what remains keeps its offsets: munmap().

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.

        Returns
        -------
        int or ndarray
            Bytes of the range; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EINVAL: no such range; ESRCH: the process has exited.

        Notes
        -----
        Source: Linux mm/vma.c, do_vmi_munmap().
        """
        return self.machine._calls.part(MUNMAP, self.number, offset, length)

    @overload
    def migrate(self, offset: Size = ..., length: Size | None = ..., *, everything: bool = ...) -> int: ...
    @overload
    def migrate(self, offset: Sizes, length: Size | Sizes | None = ..., *, everything: bool = ...) -> Outcomes: ...
    def migrate(self, offset: Any = 0, length: Any = None, *, everything: bool = False) -> Any:
        """Move the range's huge pages to other memory if only this process uses them: mbind(MPOL_MF_MOVE).

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.
        everything : bool
            Also what other processes use: MPOL_MF_MOVE_ALL.

        Returns
        -------
        int or ndarray
            Bytes that were moved; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EAGAIN: a page has references or counts that nobody explains; EFAULT: the range has a hole; ENOMEM: there is
            no memory to move to; ESRCH: the process has exited.

        Notes
        -----
        Source: Linux mm/mempolicy.c, do_mbind(); mm/migrate.c, migrate_pages().
        """
        return self.machine._calls.part(MIGRATE, self.number, offset, length, ALL if everything else 0)

    @overload
    def hwpoison(self, offset: Size) -> int: ...
    @overload
    def hwpoison(self, offset: Sizes) -> Outcomes: ...
    def hwpoison(self, offset: Any) -> Any:
        """Let the memory of one base page fail.

        Parameters
        ----------
        offset : size, or array_like of sizes
            The address, in bytes from the mapping's start.

        Returns
        -------
        int or ndarray
            Bytes of a base page; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EHWPOISON: the page failed before; EFAULT: nothing is mapped there; EAGAIN: it has failed, and its huge page
            could not be taken out of use; ENOMEM: no table for smaller leaves; ESRCH: the process has exited.

        Notes
        -----
        Source: Linux mm/memory-failure.c, memory_failure(), by madvise(MADV_HWPOISON).
        """
        return self.machine._calls.one(HWPOISON, self.number, offset)

    @overload
    def mprotect(self, offset: Size = ..., length: Size | None = ..., rights: str = ...) -> int: ...
    @overload
    def mprotect(self, offset: Sizes, length: Size | Sizes | None = ..., rights: str = ...) -> Outcomes: ...
    def mprotect(self, offset: Any = 0, length: Any = None, rights: str = "rw") -> Any:
        """Change what accesses a range allows: mprotect().

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes from the mapping's start.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the mapping's end.
        rights : {"rw", "r", "none"}
            What is allowed from now on.

        Returns
        -------
        int or ndarray
            Bytes of the range; of an array of offsets what each came to (see the class).

        Raises
        ------
        OperationError
            EINVAL: no such range; ENOMEM: the range has a hole; ESRCH: the process has exited.
        ValueError
            The rights are none of those.

        Notes
        -----
        Source: Linux mm/mprotect.c, do_mprotect_pkey().
        """
        if rights not in RIGHTS:
            raise ValueError(f"rights: '{rights}' is not one of r, rw, none")
        return self.machine._calls.part(MPROTECT, self.number, offset, length, RIGHTS[rights])

    @overload
    def mremap(self, length: Size, offset: Size = ..., *, to: None = ..., move: bool = ...) -> int: ...
    @overload
    def mremap(self, length: Size, offset: Size = ..., *, to: str, new_length: Size | None = ...,
               at: SupportsIndex | None = ..., keep: bool = ...) -> Mapping: ...
    @overload
    def mremap(self, length: Sizes, offset: Size = ..., *, to: None = ..., move: bool = ...) -> Outcomes: ...
    def mremap(self, length: Any, offset: Any = 0, *, to: str | None = None, new_length: Any = None,
               at: Any = None, keep: bool = False, move: bool = False) -> Any:
        """Grow or shrink the mapping in place, or move a part of it to a new one: mremap().

        Parameters
        ----------
        length : size, or array_like of sizes
            In place: bytes that the mapping has from now on, of an array one after another. Else the part's bytes.
        offset : size
            Where the part begins that moves, in bytes from the mapping's start.
        to : str, optional
            The name of the new mapping, of the same process; None: the mapping changes in place.
        new_length : size, optional
            Bytes of the new mapping; None: those of the part.
        at : int, optional
            The new mapping's address (MREMAP_FIXED): what is there goes. None: the machine chooses.
        keep : bool
            The part stays mapped, to nothing (MREMAP_DONTUNMAP).
        move : bool
            In place: the whole mapping moves where it has room, if it cannot grow (MREMAP_MAYMOVE).

        Returns
        -------
        int, ndarray or Mapping
            In place the bytes that the mapping has, or what each length came to (see the class); else the new mapping.

        Raises
        ------
        OperationError
            EINVAL: no such range; EFAULT: the range has a hole; ENOMEM: the address space ends; ESRCH: the process has
            exited.
        ValueError
            The name is none or has another address or length, or what is of a move is given without one.

        Notes
        -----
        Source: Linux mm/mremap.c, do_mremap().
        """
        calls = self.machine._calls
        if to is None:
            if offset != 0 or keep or at is not None or new_length is not None:
                raise ValueError("mremap: a part that moves needs a name (to)")
            return calls.one(MREMAP, self.number, 0, length, NO_ARG, KEEP * move)
        number = self.process._mapping(to, address=at, length=new_length)
        flags = AT * (at is not None) | RESIZED * (new_length is not None) | KEEP * keep
        calls.one(MREMAP, self.number, size(offset), size(length), number, flags)
        return Mapping(self.machine, number)

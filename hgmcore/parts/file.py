"""Files of a machine: small objects that name them, whose methods are operations on their huge pages."""

from __future__ import annotations

from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from hgmcore.core.machine import FOLIO_CACHED
from hgmcore.parts.batches import Outcomes, Size, Sizes, several
from hgmcore.parts.handle import Handle, whole
from hgmcore.parts.shapes import quoted, shaped
from hgmcore.sizes import format_size
from hgmcore.trace.names import File as FileName
from hgmcore.trace.statements import CODES

PIN, POPULATE, PUNCH, TRUNCATE, UNPIN = (CODES[name] for name in ("pin", "populate", "punch", "truncate", "unpin"))


class File(Handle):
    """A file of a machine, as `Machine.file` makes it, or the anonymous memory in folios of one size."""

    __slots__ = ()

    @property
    def declared(self) -> FileName:
        """Name, page size in bytes, number of huge pages and kind, as a trace's header has them."""
        return self.machine.header.files[self.number]

    @property
    def name(self) -> str:
        """Its name."""
        return self.declared.name

    @property
    def page_size(self) -> int:
        """Bytes of a huge page or folio."""
        return self.declared.page_size

    @property
    def pages(self) -> int:
        """How many huge pages or folios it may have; 0 for anonymous memory."""
        return self.declared.pages

    @property
    def kind(self) -> str:
        """hugetlb, shmem or anon."""
        return self.declared.kind

    @property
    def size(self) -> int:
        """Bytes of the file as it was declared."""
        return self.pages * self.page_size

    def __repr__(self) -> str:
        return shaped("file", name=quoted(self.name), page_size=format_size(self.page_size), pages=self.pages,
                      kind=self.kind)

    @overload
    def punch(self, offset: Size = ..., length: Size | None = ...) -> int: ...
    @overload
    def punch(self, offset: Sizes, length: Size | Sizes | None = ...) -> Outcomes: ...
    def punch(self, offset: Any = 0, length: Any = None) -> Any:
        """Unmap a range everywhere and free the whole huge pages in it: fallocate(FALLOC_FL_PUNCH_HOLE).

        Parameters
        ----------
        offset : size, or array_like of sizes
            Where the range begins, in bytes.
        length : size, or array_like of sizes, optional
            Bytes of the range; None: up to the file's end.

        Returns
        -------
        int or ndarray
            Bytes of the whole huge pages in the range; of an array of n offsets a structured array (n,) with `done`
            in bytes, `errno` and `event`.

        Raises
        ------
        OperationError
            The range reaches beyond the file (EINVAL). Never of an array, whose `errno` says so.

        Notes
        -----
        Source: Linux fs/hugetlbfs/inode.c, hugetlbfs_punch_hole(); mm/shmem.c, shmem_fallocate().
        """
        if length is None:
            at = several("offset", offset)
            if (at > np.uint64(self.size)).any():
                raise OverflowError(f"offset {offset} lies behind the file's end, {self.size}")
            length = np.uint64(self.size) - at
            length = int(length) if length.ndim == 0 else length
        return self.machine._calls.one(PUNCH, self.number, offset, length)

    @overload
    def truncate(self, length: Size = ...) -> None: ...
    @overload
    def truncate(self, length: Sizes) -> Outcomes: ...
    def truncate(self, length: Any = 0) -> Any:
        """Set the file's size; what lies behind it is unmapped everywhere and freed: ftruncate().

        Parameters
        ----------
        length : size, or array_like of sizes
            Bytes that the file has from now on; of an array one after another.

        Returns
        -------
        None or ndarray
            Nothing; of an array of n sizes a structured array (n,) with `done`, `errno` and `event`.

        Raises
        ------
        OperationError
            The size is none that the file can have (EINVAL).

        Notes
        -----
        Source: Linux fs/hugetlbfs/inode.c, hugetlb_vmtruncate(); mm/shmem.c, shmem_setattr().
        """
        done = self.machine._calls.one(TRUNCATE, self.number, length)
        return done if isinstance(done, np.ndarray) else None

    @overload
    def pin(self, page: int | np.integer[Any] = ..., count: int | np.integer[Any] = ...) -> None: ...
    @overload
    def pin(self, page: Sizes, count: int | np.integer[Any] | Sizes = ...) -> Outcomes: ...
    def pin(self, page: Any = 0, count: Any = 1) -> Any:
        """Hold extra references on a huge page of the page cache, as get_user_pages() or a reader does.

        Parameters
        ----------
        page : int, or array_like of int
            The number of the huge page in the file.
        count : int, or array_like of int
            How many references.

        Returns
        -------
        None or ndarray
            Nothing; of an array of n pages a structured array (n,) with `done` in references, `errno` and `event`.

        Raises
        ------
        OperationError
            No such page is in the page cache (ENOENT).
        ValueError
            The page lies beyond the file.
        """
        return self._references(PIN, page, count)

    @overload
    def unpin(self, page: int | np.integer[Any] = ..., count: int | np.integer[Any] = ...) -> None: ...
    @overload
    def unpin(self, page: Sizes, count: int | np.integer[Any] | Sizes = ...) -> Outcomes: ...
    def unpin(self, page: Any = 0, count: Any = 1) -> Any:
        """Drop references that `pin` took; parameters, result and errors are those of `pin`.

        Parameters
        ----------
        page : int, or array_like of int
            The number of the huge page in the file.
        count : int, or array_like of int
            How many references.

        Returns
        -------
        None or ndarray
            As `pin`.
        """
        return self._references(UNPIN, page, count)

    def _references(self, op, page, count):
        if type(page) is type(count) is int and 0 <= page < self.pages and count >= 0:    # as it nearly always is
            self.machine._calls.one(op, self.number, page, count)
            return None
        if isinstance(page, (list, tuple, range, np.ndarray)) or isinstance(count, (list, tuple, range, np.ndarray)):
            page, count = several("page", page), several("count", count)
            beyond = np.atleast_1d(page)[np.atleast_1d(page) >= self.pages]
            if beyond.size:
                raise ValueError(f"huge page {beyond[0]} lies beyond the file")
            return self.machine._calls.batch(op, self.number, page, count, 0, 0)
        self.machine._calls.one(op, self.number, self._page(page), whole("count", count))
        return None

    def _page(self, page):
        page = whole("page", page)
        if not 0 <= page < self.pages:
            raise ValueError(f"huge page {page} lies beyond the file")
        return page

    @overload
    def populate(self, first: int | np.integer[Any] = ..., count: int | np.integer[Any] | None = ...) -> int: ...
    @overload
    def populate(self, first: Sizes, count: int | np.integer[Any] | Sizes = ...) -> Outcomes: ...
    def populate(self, first: Any = 0, count: Any = None) -> Any:
        """Bring huge pages into the page cache, as a write to each does.

        Parameters
        ----------
        first, count : int, or array_like of int
            Huge pages [first, first + count); `count` None: up to the file's end, of an array one page each.

        Returns
        -------
        int or ndarray
            Bytes of those pages; of an array of n numbers a structured array (n,) with `done` in bytes, `errno` and
            `event`.

        Raises
        ------
        OperationError
            An allocation fails (ENOMEM), as `Machine.fail` asks.
        ValueError
            The pages reach beyond the file.
        """
        if isinstance(first, (list, tuple, range, np.ndarray)):
            first, count = several("first", first), several("count", 1 if count is None else count)
            if (first + count > np.uint64(self.pages)).any() or (first > np.uint64(self.pages)).any():
                raise ValueError(f"huge pages {first} to {first} + {count} reach beyond the file")
            return self.machine._calls.batch(POPULATE, self.number, first, count, 0, 0)
        first = whole("first", first)
        count = self.pages - first if count is None else whole("count", count)
        if first < 0 or count < 0 or first + count > self.pages:
            raise ValueError(f"huge pages {first} to {first} + {count} reach beyond the file")
        self.machine._calls.one(POPULATE, self.number, first, count)
        return count * self.page_size

    def struct_pages(self, page: SupportsIndex = 0) -> NDArray[np.void]:
        """The struct pages of the huge page (of shmem: of the folio that begins) now at `page` of the page cache.

        Parameters
        ----------
        page : int
            The number of the huge page in the file.

        Returns
        -------
        ndarray
            Shape (base pages of the huge page,), dtype `core.machine.PAGE` with the kernel's names of the words:
            the memory itself, without a copy and to be read only. It shows what later operations do, and keeps that
            memory. Counts stand in it without the kernel's bias of -1.

        Raises
        ------
        ValueError
            No page is there, or the page lies beyond the file.

        Notes
        -----
        Source: Linux include/linux/mm_types.h, struct page and struct folio.
        """
        place = self._page(page)
        if self.kind == "shmem":
            place *= self.page_size // self.machine.geometry.base_page
        for folio in self.machine.core.folios():
            if folio["file"] == self.number and folio["page"] == place and folio["flags"] & FOLIO_CACHED:
                return self.machine.core.pages(int(folio["pfn"]), int(folio["nr_pages"]))
        raise ValueError(f"huge page {page} is not in the page cache")

"""What a machine shows: results, costs, page tables, observations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgmcore.core.calls import size
from hgmcore.core.core import Core, Engine
from hgmcore.errnos import error_name
from hgmcore.geometry import Geometry
from hgmcore.observe import Observer
from hgmcore.parts import pagetables
from hgmcore.parts.batches import Batches, Size
from hgmcore.parts.handle import Handle
from hgmcore.parts.pagetables import Entry, Table
from hgmcore.parts.process import Process
from hgmcore.trace import Header


class Looks:
    """The part of a Machine that is looked at."""

    header: Header
    geometry: Geometry
    options: dict[str, str]
    engine: Engine
    _observer: Observer | None
    core: Core
    _calls: Batches
    _cost_from: int    # operations before reset_cost()

    def results(self, start: int = 0) -> NDArray[np.void]:
        """The results of operations that failed, raised an event or did less than they were asked to.

        Parameters
        ----------
        start : int
            How many results to leave out; they are in the order of their operations.

        Returns
        -------
        ndarray
            Shape (n,), dtype `core.machine.RESULT`: index (of the operation), done (bytes), errno, event. A copy.
        """
        return self.core.results(start)

    def clear_results(self) -> None:
        """Forget all results; those of later operations are numbered from 0 again, their `index` goes on.

        Raises
        ------
        RuntimeError
            Another thread runs the machine.
        """
        self._calls.clear_results()

    def cost(self) -> dict[str, Any]:
        """What was counted since the machine was made, or since `reset_cost`.

        Returns
        -------
        dict
            ``operations``; ``leaf_installs``, ``leaf_removes``; ``table_allocs``, ``table_frees`` below hstate-level
            entries; ``atomics``: ``persistent`` (= ``ref`` + ``map``), ``transient``, ``ref``, ``map``;
            ``entries_scanned`` for the scheme; ``table_bytes_peak`` in bytes; ``locks``; ``underflows``,
            ``overflows`` of counts; ``lines``: struct pages that atomics touched; ``struct_page_bytes``: memory that
            struct pages take, in bytes, which `reset_cost` does not change.
        """
        cost = {"operations": self._calls.operations - self._cost_from, **self.core.cost()}
        cost["lines"], cost["struct_page_bytes"] = self.core.struct_pages()
        return cost

    def reset_cost(self) -> None:
        """Let costs count from 0 again; the peak of page tables begins at what there is of them.

        Raises
        ------
        RuntimeError
            Another thread runs the machine.
        """
        self._calls.reset_cost()
        self._cost_from = self._calls.operations

    def page_table(self, process: Process, number: int | None = None) -> NDArray[np.uint64]:
        """The entries of one page table.

        Parameters
        ----------
        process : Process
            Of this machine.
        number : int, optional
            The table's number, as an entry (entry >> 12) has it; None: the process's root table.

        Returns
        -------
        ndarray
            Shape (entries of a table,), dtype uint64: the memory itself, without a copy and to be read only. It shows
            what later operations do, and keeps that memory. A table that is freed may serve elsewhere. An entry is 0,
            or bit 0 present, bit 7 leaf, and from bit 12 the frame: a table's number or a page's.

        Raises
        ------
        IndexError
            There is no such table.
        ValueError
            The process is of another machine.
        """
        self._check_mine("process", process)
        return self.core.table(process=process.number) if number is None else self.core.table(number)

    def walk(self, process: Process, address: Size) -> list[Entry]:
        """The page-table entries on the way to an address.

        Parameters
        ----------
        process : Process
            Of this machine.
        address : size
            In the process's address space; cf. `Mapping.walk` and `Mapping.address`.

        Returns
        -------
        list of Entry
            One for each level, from the root down to the leaf, or to the first entry that is empty; none where the
            process has no page tables.

        Raises
        ------
        ValueError
            The page tables reach no such address, or the process is of another machine.
        """
        self._check_mine("process", process)
        return pagetables.walk(self.core, self.geometry, process.number, size(address))

    def tables(self, process: Process | None = None) -> Iterator[Table]:
        """Every page table, of one process or of all, each before those below it.

        Parameters
        ----------
        process : Process, optional
            Of this machine; None: all processes. A table that processes share comes once for each of them.

        Returns
        -------
        iterator of Table
            Of each process, level, address, number, and the entries: the memory itself, to be read only.

        Raises
        ------
        ValueError
            The process is of another machine.

        Examples
        --------
        >>> import hgmcore as hgm
        >>> m = hgm.Machine("mm_id")
        >>> v = m.process("A").mmap(m.file("F", "1G"), minor=False)
        >>> v.touch(0)
        4096
        >>> [table.level for table in m.tables()]
        [4, 3]
        """
        if process is not None:
            self._check_mine("process", process)
        numbers = range(len(self.header.processes)) if process is None else [process.number]
        return (table for number in numbers for table in pagetables.tables(self.core, self.geometry, number))

    def _check_mine(self, what, handle):
        if not isinstance(handle, Handle):
            raise TypeError(f"{what}: a {type(handle).__name__} is no {what} of a machine")
        if handle.machine is not self:
            raise ValueError(f"{what} {handle.name!r} belongs to another machine")

    @staticmethod
    def error_name(result: Any) -> str:
        """The name, as "EEXIST", of a result's errno.

        Parameters
        ----------
        result : numpy.void or dict
            A row of `results`.

        Returns
        -------
        str
            The name; its digits if the number has none.
        """
        return error_name(result["errno"])

    def observe(self) -> dict[str, Any]:
        """Every huge page, mapping and process as the scheme sees it, and the truth beside that.

        Returns
        -------
        dict
            ``index``: operations that ran. ``folios``: a sequence of one dict for each huge page or folio that is
            there. ``mappings``: a list of one dict for each mapping of which something is mapped. ``processes``: a list
            of one dict for each process. ``freed_while_mapped``: huge pages that were freed though a leaf maps them.

            Runs are an int64 array (n, 3) of half-open runs (first, last, value) over base pages. Sizes are in bytes.

            Of a folio:

            ``file``: name of its file. ``page``: its number in the file. ``pages``: its base pages (not hugetlb).
            ``first``: the base page of `page` where it begins (shmem). ``in_page_cache``: only where it has left that:
            False. ``refcount``, ``mapcount``: the scheme's counts. ``mapped``: does the scheme take it for mapped?
            ``maybe_shared``: for mapped by several processes, by the scheme's own predicate;
            ``maybe_shared_hugetlb``: by hugetlb's, a map count above 1. ``page_mapcount``: runs of the map count of
            base pages; ``kpagecount``: what /proc/kpagecount shows. ``state``: the words that the scheme keeps in
            struct pages, by name. ``expected_refs``: references that its users explain, of which
            ``page_cache_refs`` are the page cache's and ``pins`` those of `File.pin`. ``movable``: does
            mbind(MPOL_MF_MOVE) move it? ``movable_all``: does MPOL_MF_MOVE_ALL? ``hvo``: are its tail struct pages
            freed? ``nr_file_mapped``: what it adds to the statistic NR_FILE_MAPPED, in base pages (schemes that keep
            that). ``truth``: recounted from the page tables: ``leaves`` that map it, ``processes``, ``mappings``,
            ``pages_mapped`` (base pages), ``page_mapcount`` (runs).

            Of a mapping:

            ``process``, ``mapping``: names. ``rss``: bytes that are mapped. ``pss``: Pss. ``shared_hugetlb``,
            ``private_hugetlb``: Shared_Hugetlb and Private_Hugetlb of smaps (``shared``, ``private`` of other memory).
            ``levels``: bytes that are mapped by entries of ``pte``, ``pmd`` and ``pud``. ``exclusive``: runs by base
            page of the mapping, 1 where pagemap says "mapped by this process alone". ``truth``: recounted: ``pss``,
            ``shared``.

            Of a process:

            ``process``: its name. ``page_tables``: bytes of its page tables of level ``pte``, ``pmd`` and ``pud``.

        Notes
        -----
        Source: Linux fs/proc/task_mmu.c (smaps, pagemap), fs/proc/page.c (kpagecount), mm/hugetlb_vmemmap.c (HVO). The
        kernel whose rules answer is that of option ``era``. Only huge pages that an operation may have touched since
        the last call are looked at anew; of the others the result shares what that had.
        """
        if self._observer is None:
            self._observer = Observer(self.core, self.engine, self.geometry, self.options)
        return self._observer.observation(self.header, self._calls.operations)

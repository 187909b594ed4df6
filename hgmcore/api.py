"""The Python API: a machine, its files, processes and mappings, and operations on them one by one or in arrays."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from types import TracebackType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgmcore import doors, options, schemes
from hgmcore.core.calls import size
from hgmcore.core.core import Core, Engine
from hgmcore.core.records import Records
from hgmcore.errnos import OperationError
from hgmcore.geometry import FULL_SIZE, GEOMETRIES, Geometry
from hgmcore.inputs import load
from hgmcore.observe import Observer
from hgmcore.own.scheme import Scheme
from hgmcore.parts.batches import Batches, Size
from hgmcore.parts.declares import Declared, Declares, Numbers, bare
from hgmcore.parts.file import File
from hgmcore.parts.handle import whole
from hgmcore.parts.journal import trace_of
from hgmcore.parts.looks import Looks
from hgmcore.parts.mapping import Mapping, Vma
from hgmcore.parts.pagetables import Entry, Table
from hgmcore.parts.process import Process
from hgmcore.parts.shapes import quoted, shaped
from hgmcore.parts.snapshots import Restored, Snapshot
from hgmcore.trace import Header, Trace
from hgmcore.trace.statements import CODES, NAMES, OPERATION

__all__ = ["Entry", "File", "Machine", "Mapping", "OperationError", "Process", "Snapshot", "Table", "Vma"]

SchemeLike: TypeAlias = str | Engine | Scheme | type[Scheme] | ctypes.Structure
"""A scheme: its name, an engine, a class, or a table of callbacks (own.tables.Table)."""

FAIL, PHASE = CODES["fail"], CODES["phase"]


class _Closed:
    """What stands for the core of a machine that was closed."""

    def __getattr__(self, name):
        raise ValueError("the machine is closed")


class Machine(Declares, Looks):
    """A simulated machine that one accounting scheme counts on.

    Parameters
    ----------
    scheme : str or scheme
        A name of `hgmcore.schemes.names()`; or what `hgmcore.schemes.engine_of` takes: an engine, a class derived from
        `hgmcore.Scheme`, or a table of callbacks.
    geometry : str
        A name of `hgmcore.geometry.GEOMETRIES`: sizes of tables and leaves.
    reserve : size, optional
        Bytes of address space that the machine may reserve, a bound on what it may grow to, so that thousands of small
        machines have room side by side; None: enough for 4 TiB of memory, or what the system gives.
    journal : bool
        Keep what runs, 24 bytes for each operation, for `trace`.
    **given
        Options of `hgmcore.options.OPTIONS`, as ``cache_refs=1``; ``hgmcore help options`` explains them.

    Attributes
    ----------
    engine : Engine
        The scheme's engine.
    geometry : hgmcore.geometry.Geometry
        Sizes of tables and leaves.
    options : dict
        Each option with its value.
    header : Header
        The names of files, processes and mappings by number.

    Raises
    ------
    ValueError
        Unknown scheme, geometry or option, or a scheme that cannot live with an option.
    MemoryError
        The system has no address space of that size.

    Notes
    -----
    Threads: one thread at a time uses a machine; a second one that comes while an operation runs gets RuntimeError.
    Different machines are used by different threads at the same time. An array of operations runs without the GIL, and
    so does a single one that may take long.

    Lifetimes: files, processes and mappings hold their machine; they keep no state, so they are made and thrown away
    freely. Arrays that show memory (`File.struct_pages`, `page_table`, `tables`) keep the memory of the machine, also
    behind its end. A snapshot holds copies, and no machine. A machine that is used in a ``with`` statement is closed at
    the block's end: its memory goes as soon as no such array is left, and each later use is a ValueError.

    `copy.copy` and `copy.deepcopy` give a `clone`. A machine cannot be pickled; its `trace` can.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> with hgm.Machine("head_per_leaf") as m:
    ...     f = m.file("F", page_size="2M", pages=1, populate=True)
    ...     v = m.process("A").mmap(f, name="v", minor=True, hgm=True)
    ...     v.uffd_continue(0, "8K")
    ...     m.observe()["folios"][0]["mapcount"]
    8192
    2
    """

    engine: Engine
    geometry: Geometry
    options: dict[str, str]
    header: Header
    reserve: int | None
    core: Core

    def __init__(self, scheme: SchemeLike, geometry: str = "x86-64", *, reserve: Size | None = None,
                 journal: bool = False, **given: Any) -> None:
        self.engine = schemes.load(scheme)
        if geometry not in GEOMETRIES:
            raise ValueError(f"unknown geometry '{geometry}' (known: {', '.join(FULL_SIZE)})")
        self.geometry = GEOMETRIES[geometry]
        self.options = options.resolve(self.engine, given)
        self.header = Header(geometry)
        self.reserve = None if reserve is None else size(reserve)
        self.core = Core(self.geometry, self.options, self.reserve)
        self._calls = Batches(self.core, self.engine, NAMES, journal)
        self._observer: Observer | None = None
        self._numbers = Numbers(self.header, {})
        self._cost_from = 0
        self._declared: Declared | None = None    # what is declared now; None: something was since it was kept

    @property
    def operations(self) -> int:
        """How many operations ran, by whatever door; results have the index of each."""
        return self._calls.operations

    @operations.setter
    def operations(self, number: int) -> None:
        self._calls.operations = number

    @property
    def capsule(self) -> Any:
        """The machine for other extension modules: a capsule "hgmcore.machine.v1" of an hgm_machine (library.h).

        A journal does not have what other modules run.
        """
        return self.core.capsule(self.engine)

    @property
    def ctypes(self) -> doors.Interface:
        """The machine and the functions of library.h for ctypes and Numba; a journal does not have what they run."""
        return doors.by_ctypes(self)

    @property
    def cffi(self) -> doors.Interface:
        """The machine and the functions of library.h for cffi. ImportError: there is no cffi, or it does not fit."""
        return doors.by_cffi(self)

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return isinstance(self.core, _Closed)

    def __repr__(self) -> str:
        if self.closed:
            return f"<closed Machine {self.engine.name}>"
        return shaped("machine", scheme=quoted(self.engine.name), geometry=quoted(self.geometry.name),
                      nr_files=len(self.header.files), nr_processes=len(self.header.processes),
                      nr_mappings=len(self.header.mappings), operations=self.operations)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back, as soon as no array shows it; each use of the machine is a ValueError from here on."""
        self.core = self._calls = _Closed()  # type: ignore[assignment]
        self._observer = None

    def __copy__(self) -> Machine:
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Machine:
        return self.clone()

    def __reduce__(self) -> Any:
        raise TypeError("a Machine cannot be pickled: pickle its trace() (journal=True), and run that on another one")

    def run(self, operations: Any) -> int:
        """Run an array of operations, or a whole trace.

        Parameters
        ----------
        operations : ndarray, Records or Trace
            An array (n,) of `trace.statements.OPERATION`, whose numbers are those of `header`; or `Trace.records` or a
            slice of them, which are not looked through again for each run; or a Trace, or what `hgmcore.load` takes
            (a path, recording:NAME, lines): what the trace declares is then taken over.

        Returns
        -------
        int
            Nanoseconds of CPU time of this thread. Refusals are results (`results`), not errors.

        Raises
        ------
        ValueError
            A number in a record was never declared, and nothing ran; or the trace does not begin with what the machine
            has declared, or is of another geometry.
        MemoryError
            The host has no more memory; what ran before that is done.
        RuntimeError
            Another thread runs the machine.
        """
        return self._calls.run(self._operations(operations))

    def run_each(self, operations: Any, stops: Any = None) -> NDArray[np.void]:
        """Run as `run`, part by part, and count what each part costs.

        Parameters
        ----------
        operations : ndarray, Records or Trace
            As of `run`.
        stops : array_like of int, optional
            The numbers of records behind which a part ends, ascending, the last that of all; None: behind each.

        Returns
        -------
        ndarray
            Shape (parts,), dtype `core.core.EACH`: atomics (ref, map, transient), entries scanned, leaves.

        Raises
        ------
        ValueError
            `stops` are no such numbers; and as `run`.
        """
        return self._calls.run(self._operations(operations), self.core.run_each, stops)

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
            if [bare(entry) for entry in trace.header.table(kind)[:len(mine)]] != [bare(entry) for entry in mine]:
                raise ValueError(f"{trace.name} does not begin with the {kind} declarations that the machine has")
        self.declare(trace.header)
        return trace.records if self._calls.journal is None else self._phases_of(trace)

    def _phases_of(self, trace):
        """The operations of a trace for the journal: the header takes over its phases, which keep their names."""
        phases = self.header.phases
        if trace.header.phases[:len(phases)] != phases:
            raise ValueError(f"{trace.name} does not begin with the phases that the machine's journal has")
        phases[:] = trace.header.phases
        return trace.records

    def trace(self, name: str = "<journal>") -> Trace:
        """The journal of the machine: what ran on it, as a trace that can be saved and run again.

        Parameters
        ----------
        name : str
            What the trace is called in errors and reports.

        Returns
        -------
        Trace
            Every operation that ran, also refused ones. Its names are numbered in the order in which its statements
            declare them, which need not be the machine's. After `restore` it is what led to the snapshot.

        Raises
        ------
        ValueError
            The machine was made without ``journal=True``.
        TraceError
            A trace cannot hold what ran, as a fork of a process that mapped nothing.

        Examples
        --------
        >>> import hgmcore as hgm
        >>> m = hgm.Machine("subtree", journal=True)
        >>> v = m.process("A").mmap(m.file("F", "2M"), name="v")
        >>> v.touch(0, write=True)
        4096
        >>> print(m.trace().to_text(), end="")
        hgmcore-trace 1
        # provenance scheme: "subtree"
        file F 2M 1
        mmap A v F 0 2M shared
        touch A v 0 write
        """
        if self._calls.journal is None:
            raise ValueError("the machine keeps no journal: make it with journal=True")
        return trace_of(self._calls.journal, self.header, name, {"scheme": self.engine.name})

    def snapshot(self) -> Snapshot:
        """Keep the machine as it is now, to come back to.

        Returns
        -------
        Snapshot
            Page tables, struct pages, files, processes, mappings, costs, results and journal. In a ``with`` statement
            the machine is that again at the block's end.

        Raises
        ------
        RuntimeError
            Another thread runs the machine.
        MemoryError
            The host has no room.

        Examples
        --------
        >>> import hgmcore as hgm
        >>> m = hgm.Machine("mm_id")
        >>> v = m.process("A").mmap(m.file("F", "2M"))
        >>> with m.snapshot():
        ...     v.touch(0)
        4096
        >>> m.operations
        1
        """
        return Snapshot(self)

    def restore(self, snapshot: Snapshot, keep: bool = False) -> Restored:
        """Make the machine exactly what it, or the machine that it is a clone of, was when `snapshot` was taken.

        What was declared since is gone; a File, Process or Mapping of it must not be used any more.

        Parameters
        ----------
        snapshot : Snapshot
            Of a machine with the same scheme, geometry and options.
        keep : bool, optional
            The host's memory that the machine has stays with it, so that what runs next asks the system for none.

        Returns
        -------
        Restored
            In a ``with`` statement the machine is the snapshot once more at the block's end.

        Raises
        ------
        ValueError
            The snapshot is of another kind of machine.
        MemoryError
            The machine's address space is too small; it is as before.
        RuntimeError
            Another thread runs the machine.
        """
        calls = self._calls
        calls.operations    # of a machine that is not closed
        if snapshot.kind != self._kind():
            raise ValueError("the snapshot is of a machine with another scheme, geometry or options")
        snapshot.copy.restore(self.core, keep)
        if snapshot.declared is not self._declared:
            self._numbers = snapshot.declared.put_back(self.header)
            self._declared = snapshot.declared
        calls.operations, self._cost_from = snapshot.operations, snapshot.cost_from
        if calls.journal is not None:
            calls.journal = list(snapshot.journal or [])
        return Restored(self, snapshot)

    def clone(self) -> Machine:
        """Make another machine that is exactly as this one is now, and goes its own way from here on.

        Returns
        -------
        Machine
            In a ``with`` statement it is closed at the block's end.
        """
        other = Machine(self.engine, self.geometry.name, reserve=self.reserve,
                        journal=self._calls.journal is not None, **self.options)
        other.restore(self.snapshot())
        return other

    @contextlib.contextmanager
    def trial(self) -> Iterator[Machine]:
        """`with machine.trial():` takes back at the block's end what was done in it, also if the block raises.

        Yields
        ------
        Machine
            This machine.
        """
        with self.snapshot():
            yield self

    def _kind(self):
        """What two machines must have in common to take each other's snapshots."""
        return self.engine, self.geometry.name, self.options

    def prefault(self, tables: int) -> None:
        """Commit memory for page tables now, so that no operation that is timed waits for the system.

        A machine works without; it commits its tables as they are made.

        Parameters
        ----------
        tables : int
            How many page tables.

        Raises
        ------
        MemoryError
            The system refuses.
        """
        self.core.prefault(tables)

    def fail(self, n: SupportsIndex = 1) -> None:
        """Let an internal allocation of the next operation fail.

        Parameters
        ----------
        n : int
            Which of its allocations of a huge page or a page table, from 1.
        """
        self._calls.one(FAIL, 0, whole("n", n))

"""Traces: what was mapped, by whom, in which order. In memory one NumPy array of records and a header.

The text form is read and written by `hgmcore.trace.text`, the binary form (Parquet) by `hgmcore.trace.binary`; both
give the same Trace, and either converts into the other. Comments, spacing and the spelling of numbers get lost.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hgmcore.core.records import Records
from hgmcore.files import writing
from hgmcore.trace import binary, text, wellformed
from hgmcore.trace.header import NO_TIME, Header, TraceError
from hgmcore.trace.statements import NAMES, OPERATION


class Trace:
    """A sequence of memory-mapping operations, in memory.

    Parameters
    ----------
    header : Header
        The tables of files, processes and mappings that records point into.
    operations : ndarray
        Shape (n,), dtype `trace.OPERATION`.
    thread : ndarray, optional
        Shape (n,), uint32: the thread that issued each operation; None: all are of thread 0.
    time : ndarray, optional
        Shape (n,), int64: nanoseconds, -1 where a statement has none; None: no statement has one.
    lines : ndarray, optional
        Shape (n,), uint32: the line of each statement of a text trace.
    name : str
        What the trace is called in errors and reports. `lines`, `name` and `maps` take no part in ``==``.
    maps : sequence of mmap.mmap
        Shared mappings of files that hold the columns of a trace too long for memory.

    Raises
    ------
    TraceError
        The records contradict the header or the rules of their statements.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> trace = hgm.Trace.parse("hgmcore-trace 1\\nfile F 2M 1\\npopulate F 0 1\\n")
    >>> trace.operations["length"].tolist(), trace.header.files[0].page_size
    ([0, 1], 2097152)
    >>> print(trace.to_text(), end="")
    hgmcore-trace 1
    file F 2M 1
    populate F 0 1
    """

    header: Header
    operations: NDArray[np.void]
    thread: NDArray[np.uint32] | None
    time: NDArray[np.int64] | None
    lines: NDArray[np.uint32] | None
    name: str
    _records: Records | None = None

    def __init__(self, header: Header, operations: ArrayLike, thread: ArrayLike | None = None,
                 time: ArrayLike | None = None, *, lines: ArrayLike | None = None, name: str = "<trace>",
                 maps: Sequence[mmap.mmap] = ()) -> None:
        self.header, self.name, self._maps = header, name, maps
        self.operations = np.ascontiguousarray(operations, dtype=OPERATION)
        self.thread = self._column(thread, np.uint32, 0)
        self.time = self._column(time, np.int64, NO_TIME)
        self.lines = None if lines is None else np.ascontiguousarray(lines, dtype=np.uint32)
        self.check()

    def __len__(self) -> int:
        return len(self.operations)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return self.header == other.header and all(
            np.array_equal(getattr(self, column), getattr(other, column)) if getattr(self, column) is not None
            else getattr(other, column) is None
            for column in ("operations", "thread", "time"))

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy holds its columns itself, wherever those of this trace are, and is checked as every trace is."""
        return _trace, (self.header, self.operations, self.thread, self.time, self.lines, self.name)

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {len(self)} operations, {len(self.header.processes)} processes>"

    @property
    def records(self) -> Records:
        """The operations as a machine runs them, checked once for all machines that have declared the trace's names.

        Each thread of the trace has a CPU of its own.

        From here on `operations` is read-only. To edit a trace that ran, make another one of a copy of them.
        """
        if self._records is None or self._records.operations is not self.operations:
            self._records = Records(self.operations, kept=True, cpus=self.thread)
        return self._records

    def chunks(self, size: int) -> Iterator[slice]:
        """Slices of at most `size` statements, in order; memory mapped from files is given back after each.

        Parameters
        ----------
        size : int
            How many statements at most.

        Yields
        ------
        slice
            Of `operations`, `thread` and `time`.
        """
        for start in range(0, len(self), size):
            yield slice(start, start + size)
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)

    def _column(self, values: Any, dtype: Any, empty: int) -> Any:
        """An optional column: None where every entry is `empty`."""
        if values is None:
            return None
        values = np.ascontiguousarray(values, dtype=dtype)
        if values.shape != self.operations.shape:
            return values
        filled = any((values[part] != empty).any() for part in self.chunks(wellformed.CHUNK))
        return values if filled else None

    @classmethod
    def load(cls, source: Any) -> Trace:
        """Read a trace in either form; what it holds decides which.

        Parameters
        ----------
        source : path or file object
            A path, "-" for standard input, or a file object of bytes.

        Returns
        -------
        Trace
            The trace.

        Raises
        ------
        TraceError
            It cannot be read or used.
        """
        if source == "-":
            return _load(sys.stdin.buffer, "<stdin>")
        if hasattr(source, "read"):
            return _load(source, str(getattr(source, "name", "<file>")))
        try:
            with open(source, "rb") as stream:
                return _load(stream, os.fspath(source))
        except OSError as error:
            raise TraceError(os.fspath(source), error.strerror or str(error)) from error

    @classmethod
    def parse(cls, text: str, name: str = "<text>") -> Trace:
        """Read a trace from its text form.

        Parameters
        ----------
        text : str
            The lines; ``hgmcore help trace`` has all statements.
        name : str
            What the trace is called in errors and reports.

        Returns
        -------
        Trace
            The trace.

        Raises
        ------
        TraceError
            With the line and the reason.
        """
        return _load(io.BytesIO(text.encode("utf-8", "surrogatepass")), name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace to a file, which appears whole or not at all.

        Parameters
        ----------
        path : path
            Text if it ends in .hgm, else Parquet.

        Raises
        ------
        TraceError
            It cannot be written.
        """
        path = os.fspath(path)
        write = text.write if path.endswith(".hgm") else binary.write
        try:
            with writing(path) as stream:
                write(self, stream)
        except OSError as error:
            raise TraceError(path, error.strerror or str(error)) from error

    def to_text(self) -> str:
        """The text form.

        Returns
        -------
        str
            Lines that `parse` makes the same trace of.
        """
        stream = io.BytesIO()
        text.write(self, stream)
        return stream.getvalue().decode()

    def fail(self, reason: str, index: int | None = None) -> NoReturn:
        """Raise the TraceError about the whole trace or one statement.

        Parameters
        ----------
        reason : str
            What is wrong.
        index : int, optional
            The number of the statement.

        Raises
        ------
        TraceError
            Always.
        """
        if index is None:
            raise TraceError(self.name, reason)
        reason = f"{NAMES[self.operations['op'][index]]}: {reason}"
        if self.lines is None:
            raise TraceError(self.name, f"statement {index}: {reason}")
        raise TraceError(self.name, reason, int(self.lines[index]))

    def check(self) -> None:
        """Check again after records were edited (before it ran).

        Raises
        ------
        TraceError
            As the constructor does.
        """
        wellformed.check(self)


def _trace(header, operations, thread, time, lines, name):
    """The Trace that was pickled or copied."""
    return Trace(header, operations, thread, time, lines=lines, name=name)


def _load(stream, name: str) -> Trace:
    """Read either form from a stream of bytes; the first bytes tell which it is."""
    head = stream.read(1 << 16)
    if isinstance(head, str):
        raise TraceError(name, "open for text, expected a file of bytes")
    if head.startswith(binary.MAGIC):
        found = binary.read(io.BytesIO(head + stream.read()), name)
    else:
        found = text.read(head, stream, name)
    return Trace(found.header, found.operations, found.thread, found.time, lines=found.lines, name=name)

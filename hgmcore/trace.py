"""Traces: what was mapped, by whom, in which order. In memory one NumPy array of records and a header.

The text form is read and written by `hgmcore.text`, the binary form (Parquet) by `hgmcore.binary`; both give
the same Trace, and either converts into the other without loss.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
from dataclasses import dataclass, field

import numpy as np

from hgmcore import wellformed
from hgmcore.names import File, Mapping
from hgmcore.statements import NAMES, OPERATION

__all__ = ["File", "Header", "Mapping", "OPERATION", "Trace", "TraceError"]

NO_TIME = -1


class TraceError(Exception):
    """An input that cannot be used: `name` (of the file), `line` (or None), `reason`."""

    def __init__(self, name: str, reason: str, line: int | None = None):
        super().__init__(name, reason, line)
        self.name, self.reason, self.line = name, reason, line

    def __str__(self) -> str:
        where = self.name if self.line is None else f"{self.name}:{self.line}"
        return f"{where}: {self.reason}"


@dataclass
class Header:
    """The tables that records point into, each in order of first declaration.

    provenance: where the trace comes from, under free names; empty for one written by hand.
    """

    geometry: str = "x86-64"
    files: list[File] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)

    def table(self, kind: str) -> list:
        """The table of `kind`: "file", "process" or "mapping"."""
        return {"file": self.files, "process": self.processes, "mapping": self.mappings}[kind]

    def spell(self, kind: str, index: int) -> str:
        """How a statement names entry `index` of that table; a mapping by process and name."""
        if kind == "mapping":
            mapping = self.mappings[index]
            return f"{self.processes[mapping.process]} {mapping.name}"
        return self.files[index].name if kind == "file" else self.processes[index]

    def pages(self, records: np.ndarray) -> np.ndarray:
        """Huge pages of the file that each record has as target."""
        return np.array([file.pages for file in self.files], dtype=np.uint64)[records["target"]]

    def page_sizes(self, records: np.ndarray) -> np.ndarray:
        """Bytes of a huge page of the file that each record has as target."""
        return np.array([file.page_size for file in self.files], dtype=np.uint64)[records["target"]]


class Trace:
    """A sequence of memory-mapping operations.

    header: Header. operations: array (n,) of OPERATION. thread: None (all 0) or array (n,) of uint32. time:
    None or array (n,) of int64, nanoseconds, -1 where a statement has none. lines: None or array (n,) of
    uint32, the line of each statement of a text trace. name: of the file. maps: shared mappings of files
    (mmap.mmap) that hold the columns of a trace too long for memory. Lines, name and maps take no part in ==.

    Raises TraceError where the records contradict the header or the rules of their statements.
    """

    def __init__(self, header, operations, thread=None, time=None, *, lines=None, name="<trace>", maps=()):
        self.header, self.name, self._maps = header, name, maps
        self.operations = np.ascontiguousarray(operations, dtype=OPERATION)
        self.thread = self._column(thread, np.uint32, 0)
        self.time = self._column(time, np.int64, NO_TIME)
        self.lines = None if lines is None else np.ascontiguousarray(lines, dtype=np.uint32)
        self.check()

    def __len__(self) -> int:
        return len(self.operations)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return self.header == other.header and all(
            np.array_equal(getattr(self, column), getattr(other, column)) if getattr(self, column) is not None
            else getattr(other, column) is None
            for column in ("operations", "thread", "time"))

    __hash__ = None

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {len(self)} operations, {len(self.header.processes)} processes>"

    def chunks(self, size: int):
        """Slices of at most `size` statements, in order; memory mapped from files is given back after each."""
        for start in range(0, len(self), size):
            yield slice(start, start + size)
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)

    def _column(self, values, dtype, empty):
        """An optional column: None where every entry is `empty`."""
        if values is None:
            return None
        values = np.ascontiguousarray(values, dtype=dtype)
        if values.shape != self.operations.shape:
            return values
        filled = any((values[part] != empty).any() for part in self.chunks(wellformed.CHUNK))
        return values if filled else None

    @classmethod
    def load(cls, source) -> Trace:
        """Read a trace in either form; what it holds decides which.

        source: a path, "-" for standard input, or a file object of bytes. Raises TraceError.
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
        """Read a trace from its text form. Raises TraceError with the line."""
        return _load(io.BytesIO(text.encode("utf-8", "surrogatepass")), name)

    def save(self, path) -> None:
        """Write to `path`: text if it ends in .hgm, else Parquet. The file appears whole or not at all.

        Raises TraceError where it cannot be written.
        """
        from hgmcore import binary, text

        path = os.fspath(path)
        write = text.write if path.endswith(".hgm") else binary.write
        # A pipe or a device is written to directly: renaming would put a file in its place.
        special = os.path.exists(path) and not os.path.isfile(path)
        target = os.path.realpath(path)
        temporary = path if special else f"{target}.{os.getpid()}.part"
        try:
            with open(temporary, "wb") as stream:
                write(self, stream)
            if not special:
                os.replace(temporary, target)
        except OSError as error:
            raise TraceError(path, error.strerror or str(error)) from error
        finally:
            if not special and os.path.exists(temporary):
                os.unlink(temporary)

    def to_text(self) -> str:
        """The text form."""
        from hgmcore import text

        stream = io.BytesIO()
        text.write(self, stream)
        return stream.getvalue().decode()

    def fail(self, reason: str, index: int | None = None):
        """Raise the TraceError about the whole trace, or about the statement at `index`."""
        if index is None:
            raise TraceError(self.name, reason)
        reason = f"{NAMES[self.operations['op'][index]]}: {reason}"
        if self.lines is None:
            raise TraceError(self.name, f"statement {index}: {reason}")
        raise TraceError(self.name, reason, int(self.lines[index]))

    def check(self) -> None:
        """Check again, after records were changed in place. Raises TraceError as the constructor does."""
        wellformed.check(self)


def _load(stream, name: str) -> Trace:
    """Read either form from a stream of bytes; the first bytes tell which it is."""
    from hgmcore import binary, text

    head = stream.read(1 << 16)
    if isinstance(head, str):
        raise TraceError(name, "open for text, expected a file of bytes")
    if head.startswith(binary.MAGIC):
        return binary.read(io.BytesIO(head + stream.read()), name)
    return text.read(head, stream, name)

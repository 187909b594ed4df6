"""What records point into: the tables of files, processes and mappings; and what an unusable input raises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgmcore.trace.names import File, Mapping

NO_TIME = -1


class TraceError(Exception):
    """An input that cannot be used: `name` (of the file), `line` (or None), `reason`."""

    name: str
    reason: str
    line: int | None

    def __init__(self, name: str, reason: str, line: int | None = None) -> None:
        super().__init__(name, reason, line)
        self.name, self.reason, self.line = name, reason, line

    def __str__(self) -> str:
        where = self.name if self.line is None else f"{self.name}:{self.line}"
        return f"{where}: {self.reason}"


@dataclass
class Header:
    """The tables that records point into, each in order of first declaration.

    provenance: where the trace comes from, under free names; empty for one written by hand. phases: the names that
    `phase` statements give.
    """

    geometry: str = "x86-64"
    files: list[File] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)

    def table(self, kind: str) -> list[Any]:
        """The table of `kind`: "file", "process", "mapping" or "phase"."""
        tables: dict[str, list[Any]] = {"file": self.files, "process": self.processes, "mapping": self.mappings,
                                   "phase": self.phases}
        return tables[kind]

    def spell(self, kind: str, index: int) -> str:
        """How a statement names entry `index` of that table; a mapping by process and name."""
        if kind == "mapping":
            mapping = self.mappings[index]
            return f"{self.processes[mapping.process]} {mapping.name}"
        return self.files[index].name if kind == "file" else self.table(kind)[index]

    def pages(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        """Huge pages of the file that each record has as target."""
        return np.array([file.pages for file in self.files], dtype=np.uint64)[records["target"]]

    def page_sizes(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        """Bytes of a huge page of the file that each record has as target."""
        return np.array([file.page_size for file in self.files], dtype=np.uint64)[records["target"]]


@dataclass
class Columns:
    """What a reader found: a Trace is made of it, once, with all checks.

    header: Header. operations: array (n,) of OPERATION. thread: array (n,) of uint32, time: array (n,) of int64,
    lines: array (n,) of uint32; each None where the form has none. As in Trace.
    """

    header: Header
    operations: np.ndarray
    thread: np.ndarray | None = None
    time: np.ndarray | None = None
    lines: np.ndarray | None = None

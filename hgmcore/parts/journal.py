"""A journal: what a machine ran, as a Trace that anybody can run again."""

from __future__ import annotations

import numpy as np

from hgmcore.trace import Header, Trace
from hgmcore.trace.statements import CODES, OPERATION
from hgmcore.trace.text import FIRST_LINE, spelled

FILE = CODES["file"]


def file_record(number: int) -> bytes:
    """The record that declares a file, which the API has as a method and not as an operation."""
    record = np.zeros(1, OPERATION)
    record["op"], record["target"] = FILE, number
    return record.tobytes()


def trace_of(journal: list[bytes], header: Header, name: str, provenance: dict[str, str]) -> Trace:
    """The Trace of records in a journal, whose numbers are those of `header`.

    The trace numbers its names by itself, in the order in which statements declare them; a file that is declared twice
    (as the same trace ran twice) is declared once. TraceError: a trace cannot hold what ran, as a fork of a process
    that mapped nothing.
    """
    records = np.frombuffer(b"".join(journal), OPERATION)
    declares = np.flatnonzero(records["op"] == FILE)
    again = np.ones(len(declares), bool)
    again[np.unique(records["target"][declares], return_index=True)[1]] = False
    records = np.delete(records, declares[again])
    lines = [FIRST_LINE, f"geometry {header.geometry}", *spelled(records, header)]
    trace = Trace.parse("\n".join(lines) + "\n", name)
    trace.header.provenance.update(provenance)
    trace.lines = None
    return trace

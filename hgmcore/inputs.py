"""What a command or a function takes as input: a file, standard input, a recording, a workload, lines, a Trace."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from hgmcore import recordings, workloads
from hgmcore.recordings.life import guest_life
from hgmcore.trace import Trace
from hgmcore.trace.statements import OPERATION

WORKLOADS = workloads.WORKLOADS | {guest_life.__name__: guest_life}
"""Every workload that an input may name: those of the package `workloads`, and those made of recordings."""

DEFAULT = f"{workloads.PREFIX}{guest_life.__name__}"
"""The input of a command that is given none: a guest's life."""


def load(source: Any) -> Trace:
    """Find or read a trace.

    Parameters
    ----------
    source : Trace, str, path, file object, or list of str
        A Trace (returned as it is); ``"recording:NAME"``; ``"workload:NAME[,key=value...]"``; ``"-"`` for standard
        input; a path (str or os.PathLike) or a file object of bytes, in text or binary form; a list, tuple or NumPy
        array of lines of the text form, of which the first may be left out.

    Returns
    -------
    Trace
        The trace.

    Raises
    ------
    TraceError
        It cannot be used; names the file, line and reason.
    ValueError
        No recording, workload or parameter has that name.
    TypeError
        It is none of those.
    ImportError
        It is binary, and pyarrow is missing.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> hgm.load(["file F 2M 1", "populate F 0 1"])
    <Trace <lines>: 2 operations, 0 processes>
    """
    if isinstance(source, Trace):
        return source
    if isinstance(source, (list, tuple)):
        return _of_lines(source)
    if isinstance(source, np.ndarray):
        if source.dtype == OPERATION:
            raise TypeError("an array of operations alone is no trace, for names and files stand in a header: "
                            "hgmcore.Trace(header, array)")
        return _of_lines(source.tolist())
    if source == "":
        raise ValueError("input: '' names nothing")
    if isinstance(source, str) and source.startswith("recording:"):
        return recordings.load(source.removeprefix("recording:"))
    if isinstance(source, str) and source.startswith(workloads.PREFIX):
        return workloads.parse(source, WORKLOADS)
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        return Trace.load(source)
    raise TypeError(f"a {type(source).__name__} is no trace (expected a Trace, a path, recording:NAME, workload:NAME, "
                    "a file of bytes, or a list of lines)")


def load_input(spec) -> Trace:
    """As `load`, and DEFAULT if `spec` is None: the argument of a command."""
    return load(DEFAULT if spec is None else spec)


def question(trace) -> str | None:
    """The question of the workload that a trace was made by; None for any other trace."""
    prefix, _, name = trace.name.partition(":")
    workload = WORKLOADS.get(name.partition(",")[0]) if prefix == workloads.PREFIX.rstrip(":") else None
    return getattr(workload, "question", None)


def _of_lines(lines):
    for line in lines:
        if not isinstance(line, str):
            raise TypeError(f"a {type(line).__name__} is no line of a trace")
    text = "\n".join(line.rstrip("\n") for line in lines)
    return Trace.parse(text if text.startswith("hgmcore-trace") else f"hgmcore-trace 1\n{text}", "<lines>")

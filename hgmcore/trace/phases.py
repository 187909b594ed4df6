"""A trace cut into phases: declared by `phase`, or else by kind of operation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hgmcore.trace.statements import CODES, NAMES, NO_ARG, told_to_fail

BEFORE = "setup"
"""Name of what stands before the first declared phase, and of operations that only prepare."""

KINDS = ("setup", "install", "access", "fork", "partial_unmap", "zap", "collapse", "migrate", "truncate",
         "failures")
_KIND_OF = {"continue": "install", "touch": "access", "fork": "fork", "exit": "zap", "collapse": "collapse",
            "migrate": "migrate", "punch": "truncate", "truncate": "truncate", "hwpoison": "failures",
            "fail": "failures"}


class Phases(NamedTuple):
    """number: array (n,) of uint32, each operation's index into `names`. declared: whether by `phase`."""

    names: tuple
    number: np.ndarray
    declared: bool


def phases(trace) -> Phases:
    """The phase of every operation of a Trace; phases in which nothing lies have no name.

    Declared: a `phase` statement is the first operation of its phase, one name may come back, and what stands before
    the first is in `setup`. Where a trace declares none, the kind of operation decides: install (continue), access
    (touch, which may have to map something), fork, partial_unmap (dontneed and munmap of no whole huge page), zap
    (those of one at least, and exit), collapse, migrate, truncate (and punch), failures (hwpoison, and fail with the
    operation that is to fail), setup (all else). An `observe` then belongs to what stands before it.
    """
    ops = trace.operations
    marks = np.flatnonzero(ops["op"] == CODES["phase"])
    if len(marks):
        names, number = _declared(trace, marks)
    else:
        names, number = KINDS, _by_kind(trace)
    used = np.flatnonzero(np.bincount(number, minlength=len(names)))
    renumbered = np.zeros(len(names), np.uint32)
    renumbered[used] = np.arange(len(used))
    return Phases(tuple(names[each] for each in used.tolist()), renumbered[number], bool(len(marks)))


def _declared(trace, marks):
    names = list(trace.header.phases)
    before = names.index(BEFORE) if BEFORE in names else len(names)
    numbers = np.concatenate([[before], trace.operations["target"][marks]]).astype(np.uint32)
    return [*names, BEFORE], np.repeat(numbers, np.diff([0, *marks.tolist(), len(trace)]))


def _by_kind(trace):
    ops = trace.operations
    table = np.array([KINDS.index(_KIND_OF.get(name, BEFORE)) for name in NAMES], np.uint32)
    number = table[ops["op"]]
    unmapping = np.flatnonzero(np.isin(ops["op"], [CODES["dontneed"], CODES["munmap"]]))
    size, base = (column[ops["target"][unmapping]] for column in _mapped(trace))
    first = (base + ops["offset"][unmapping] + size - np.uint64(1)) // size * size
    whole = first + size <= base + ops["offset"][unmapping] + ops["length"][unmapping]
    number[unmapping] = np.where(whole, KINDS.index("zap"), KINDS.index("partial_unmap"))
    number[told_to_fail(ops)] = KINDS.index("failures")
    at = np.where(ops["op"] == CODES["observe"], 0, np.arange(len(ops)))
    return number[np.maximum.accumulate(at)] if len(ops) else number


def _mapped(trace):
    """Of each mapping: bytes of a huge page of its file, and its file offset; by its first mmap, parent or origin."""
    header, ops = trace.header, trace.operations
    file, base = np.full(len(header.mappings), -1, np.int64), np.zeros(len(header.mappings), np.uint64)
    maps = np.flatnonzero(ops["op"] == CODES["mmap"])[::-1]  # the first of a mapping is written last
    file[ops["target"][maps]], base[ops["target"][maps]] = ops["arg"][maps], ops["offset"][maps]
    of_process = {}
    for index, mapping in enumerate(header.mappings):
        of_process.setdefault(mapping.process, {})[mapping.name] = index
    births = np.isin(ops["op"], [CODES["fork"], CODES["mremap"]])
    for offset, _, target, arg, op, _ in ops[births].tolist():
        if op == CODES["fork"]:
            parent = of_process.get(target, {})
            pairs = [(parent[name], child, 0) for name, child in of_process.get(arg, {}).items() if name in parent]
        else:
            pairs = [(target, arg, offset)] if arg != NO_ARG else []
        for source, born, moved in pairs:
            if file[born] < 0:
                file[born], base[born] = file[source], base[source] + np.uint64(moved)
    sizes = np.array([each.page_size for each in header.files] or [1], np.uint64)
    return sizes[np.maximum(file, 0)], base

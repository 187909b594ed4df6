"""What one PTE of a published workload comes to under a scheme: events, counted by the simulator, and the kernel's
work.

Folios of 16K to 1M are mapped by PTEs alone; those of 2M are split into PTEs first, as the published programs do.
"""

from __future__ import annotations

import functools

import numpy as np

from hgmcore import counting, schemes
from hgmcore.core.events import NAMES, Events
from hgmcore.inputs import load
from hgmcore.model.events import CLASSES
from hgmcore.replay import machine_for
from hgmcore.sizes import parse_size

BASE, HUGE = 4096, 2 << 20
FOLIOS = 2
"""Folios that a workload is counted on: one alone would have no neighbour."""

NEAR = 1 << 20
"""Lines that are near: the struct pages of the workload all come in order, or are near."""

OPERATIONS = ("fork", "munmap", "cow", "cow-byte", "reuse", "reuse-byte", "remap", "dontneed", "reclaim")


def lines(operation: str, pages: int, folios: int) -> tuple[list[str], list[str]]:
    """(what prepares, what is counted) of a workload on `folios` folios, as statements. ValueError: no such one."""
    size, each = pages * BASE, range(0, folios * pages * BASE, pages * BASE)
    prepare = [f"mmap A v anon:{size} 0 {folios * size} private", *(f"touch A v {at} write" for at in each)]
    split = [f"mprotect A v {at} 4K r" for at in each]
    if size == HUGE and operation != "remap":    # one PMD leaf each
        prepare += [*split, f"mprotect A v 0 {folios * size} rw"]
    pieces = range(0, folios * size, BASE)
    writes = [f"touch A v {at} write" for at in pieces]
    counted = {"fork": ["fork A C"], "munmap": [f"munmap A v 0 {folios * size}"], "cow": writes, "cow-byte": writes,
               "reuse": writes, "reuse-byte": writes, "remap": split,
               "dontneed": [f"dontneed A v {at} 4K" for at in pieces],
               "reclaim": [f"dontneed A v 0 {folios * size}"]}
    if operation not in counted:
        raise ValueError(f"no published workload '{operation}' (known: {', '.join(OPERATIONS)})")
    prepare += {"cow": ["fork A C"], "reuse": ["fork A C", "exit C"]}.get(operation.removesuffix("-byte"), [])
    return prepare, counted[operation]


def run(operation, pages, scheme, folios=FOLIOS, **options) -> dict:
    """Events of a workload in all: {name of model.events: number}. options: of the scheme."""
    prepare, counted = lines(operation, pages, folios)
    trace = load([*prepare, *counted])
    engine = counting.load(schemes.load(scheme))
    machine = machine_for(trace, engine, {**options, "transient": "real"})
    rows = Events(machine.core, engine, NEAR).run(np.ascontiguousarray(trace.operations))[len(prepare):]
    if len(machine.core.results()):
        raise RuntimeError(f"the workload {operation} of {pages} pages did not run: {machine.core.results()[0]}")
    return {name: int(rows[name].sum()) for name in NAMES}


@functools.cache
def _run(operation, pages, options):
    return run(operation, pages, **dict(options))


ROWS = {"fork": {"leaf": "fork"}, "munmap": {"leaf": "munmap_freed", "free": "munmap_freed"},
        "cow-byte": {"call": "write"}, "reuse-byte": {"call": "write"}, "cow": {"call": "memset"},
        "reuse": {"call": "memset"}, "remap": {"leaf": "split"}, "dontneed": {"call": "dontneed_anon"},
        "reclaim": {"leaf": "munmap_freed", "free": "munmap_freed"}}
"""Of each operation the rows of [kernel] that price one PTE of it; the call itself is one for 1 GiB."""


def pages_of(folio: str) -> int:
    """Base pages of a folio, given as "64K"."""
    return parse_size(folio) // BASE


def for_one(cell, which: str) -> dict:
    """The sum that one PTE of a cell comes to. which: "before" or "after"."""
    options = {name: value for name, value in getattr(cell, which).items() if name != "stage"}
    pages = pages_of(cell.folio)
    found = _run(cell.operation, pages, tuple(sorted(options.items())))
    total = FOLIOS * pages
    # page tables are the same before and after, and in the kernel's work
    sums = {name: found[name] / total for name in CLASSES if found[name] and not name.startswith(("table", "far"))}
    for part, row in ROWS[cell.operation].items():
        sums[f"kernel.{row}.{part}"] = 1.0 if part != "free" else found["freed"] / total
    return sums

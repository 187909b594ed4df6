"""What schemes cost over the course of a trace: counts at evenly spaced points, and the time of each point."""

from __future__ import annotations

import numpy as np

from hgmcore import counting
from hgmcore.replay import machine_for
from hgmcore.trace.header import NO_TIME

POINTS = 256
"""Points of a course where nobody asks for others."""

STEP = 1000
"""Nanoseconds of an operation in a trace without times."""


def points(total: int, most: int = POINTS) -> np.ndarray:
    """At most so many numbers of operations from 1 to `total`, ascending, evenly spaced, the last among them."""
    return np.linspace(0, total, min(most, total) + 1).round().astype(np.int64)[1:]


def course(trace, name, stops, **options) -> dict:
    """What scheme `name` has done up to each of `stops`: arrays (len(stops),) of int64.

    Returns {"atomics": lasting ones and those that look-ups put back, "scanned": page-table entries, "leaves":
    installed and removed}. The counts are those of `analysis.count`, exact. MemoryError: the host has no more memory.
    """
    machine = machine_for(trace, counting.without_atomics(name), options)
    sums = {key: np.zeros(len(stops), np.int64) for key in ("atomics", "scanned", "leaves")}
    start = 0
    for i, stop in enumerate(stops.tolist()):
        rows = machine.run_each(trace.records[start:stop])
        sums["atomics"][i] = sum(int(rows[field].sum()) for field in ("ref", "map", "transient"))
        sums["scanned"][i], sums["leaves"][i] = int(rows["scanned"].sum()), int(rows["leaves"].sum())
        start = stop
    return {key: values.cumsum() for key, values in sums.items()}


def clock(trace) -> tuple[np.ndarray, bool]:
    """(ns, recorded): when each operation begins and, last, when the trace ends; an array (n + 1,) of int64, ascending.

    recorded: the times are the trace's. One that has none, or goes back in time, or has operations without times
    behind the first with one, lets each operation take STEP.
    """
    known = trace.time != NO_TIME if trace.time is not None else np.zeros(0, bool)
    if known.any():
        first = int(known.argmax())
        rest = trace.time[first:]
        if known[first:].all() and (np.diff(rest) >= 0).all():
            began = np.concatenate([np.full(first, rest[0]), rest, rest[-1:] + 1])
            return began - began[0], True
    return np.arange(len(trace) + 1, dtype=np.int64) * STEP, False

"""A whole trace through one scheme: results, observations, costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hgmcore.api import Machine, SchemeLike
from hgmcore.arrow import Tabular
from hgmcore.core.machine import RESULT
from hgmcore.errnos import error_name
from hgmcore.folios import Folios
from hgmcore.inputs import load
from hgmcore.threads import Threads, checked
from hgmcore.trace.statements import CODES, NAMES

CHUNK = 1 << 20
"""Operations between two reports of progress."""

EVENTS = {1: "minor", 2: "never_fired"}
"""Names of events: a userfaultfd minor fault; of a `fail`, that the next operation made fewer allocations."""


def machine_for(trace, scheme, options) -> Machine:
    """A machine that knows the trace's names."""
    machine = Machine(scheme, trace.header.geometry, **options)
    machine.declare(trace.header)
    return machine


def replay(trace: Any, scheme: SchemeLike, *, operations: str = "failed", threads: int = 1,
           observer: Callable[[dict[str, Any]], object] | None = None, observe_end: bool = False,
           progress: Callable[[int, int], object] | None = None, **options: Any) -> Replay:
    """Run a whole trace under one scheme: results, observations, costs.

    Parameters
    ----------
    trace : Trace, str, path or lines
        Whatever `hgmcore.load` takes.
    scheme : str, Engine, class or table
        A name of `hgmcore.schemes.names()`, or what `hgmcore.schemes.engine_of` takes.
    operations : {"failed", "all"}
        Whose results to give: of operations that failed, raised an event or did less than asked; or of all.
    threads : int
        Native threads, among which the trace's threads are dealt out: what may run at the same time does, the rest in
        order. Counts, answers and costs come out as with one, but for ``table_bytes_peak``, then the largest that it
        can have been, and ``entries_scanned``, of what was there when the scan came.
    observer : callable, optional
        Called with each observation, which then is not kept.
    observe_end : bool
        Also observe after the last operation, as if the trace ended in ``observe``.
    progress : callable, optional
        Called with (operations done, all).
    **options
        Options of `hgmcore.options.OPTIONS`.

    Returns
    -------
    Replay
        A dict of the format "hgmcore-replay 1" (``hgmcore help json``), with NumPy arrays where JSON has lists:
        ``cost`` as of `Machine.cost`, and ``ns_per_operation``, nanoseconds of CPU time around the operations alone;
        ``operations``, an array (n,) of index, done in bytes, errno and event; ``observations``, a list as
        `Machine.observe` has them.

    Raises
    ------
    ValueError
        Unknown scheme or option, or a value that an option does not take.
    TraceError
        The trace cannot be used.
    MemoryError
        The host has no memory for the simulated machine.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> result = hgm.replay("workload:sequential,page_size=2M", "subtree")
    >>> result["cost"]["leaf_installs"], result["cost"]["atomics"]["persistent"]
    (513, 1026)
    """
    if operations not in ("failed", "all"):
        raise ValueError(f"operations: '{operations}' is not one of failed, all")
    checked(threads)
    trace = load(trace)
    machine = machine_for(trace, scheme, options)
    observations: list[dict[str, Any]] = []
    elapsed, start, total = 0, 0, len(trace)
    observer = observer or observations.append
    stops = np.flatnonzero(trace.operations["op"] == CODES["observe"])
    with Threads(machine, trace, threads) as native:
        for stop in sorted({*(stops + 1).tolist(), *range(CHUNK, total, CHUNK), total}):
            elapsed += native.run(start, stop)
            if stop > start and trace.operations["op"][stop - 1] == CODES["observe"]:
                observer({**machine.observe(), "index": stop - 1})
            start = stop
            if progress:
                progress(stop, total)
    if observe_end:
        observer({**machine.observe(), "index": total})
    results = machine.results()
    cost = machine.cost()
    counters = {name: cost.pop(name) for name in ("underflows", "overflows")}
    cost["ns_per_operation"] = elapsed / max(total, 1)
    return Replay({
        "format": "hgmcore-replay 1", "scheme": machine.engine.name, "options": machine.options,
        "geometry": trace.header.geometry,
        "threads": threads, "stretches": native.stretches, "operations_at_once": native.operations,
        "operations": every_operation(trace, machine, results) if operations == "all" else results,
        "cost": cost, "counters": counters, "observations": observations})


class Replay(Tabular):
    """A result of `replay`: a dict, and a table with one row for each number."""

    def long(self) -> dict[str, Any]:
        """Columns scheme, part (cost, counter, folio, mapping, process), index (of the observing statement, None for
        costs), of (the file and page, process and mapping, or process), key, value and truth (None where nothing is
        recounted).

        Keys of numbers that lie deeper are joined by dots, as in atomics.ref; runs over base pages have no row.
        """
        rows: list[tuple[Any, ...]] = [("cost", None, None, key, value, None) for key, value in numbers(self["cost"])]
        rows += [("counter", None, None, key, value, None) for key, value in numbers(self["counters"])]
        for observation in self["observations"]:
            for part, keys in (("folio", ("file", "page", "first")), ("mapping", ("process", "mapping")),
                               ("process", ("process",))):
                for row in observation[f"{part}s" if part != "process" else "processes"]:
                    of = " ".join(str(row[key]) for key in keys if key in row)
                    true = dict(numbers(row.get("truth", {})))
                    said = dict(numbers({key: row[key] for key in row if key not in (*keys, "truth")}))
                    rows += [(part, observation["index"], of, key, said.get(key), true.get(key))
                             for key in dict.fromkeys([*said, *true])]
        names = ("part", "index", "of", "key", "value", "truth")
        columns = dict(zip(names, zip(*rows)))
        return {"scheme": [self["scheme"]] * len(rows), **{name: list(columns[name]) for name in names}}


def numbers(values: dict, prefix=""):
    """Yield (key, float) of each number or truth value in a dict, also deeper ones."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, np.bool_, np.number)):
            yield f"{prefix}{key}", float(value)


def every_operation(trace, machine, results) -> np.ndarray:
    """A result for each operation: one that is not among `results` did what it was asked to."""
    out = np.zeros(len(trace), RESULT)
    out["index"] = np.arange(len(trace))
    out["done"] = machine.core.asked(machine.engine, np.ascontiguousarray(trace.operations))
    out[results["index"].astype(np.int64)] = results
    return out


def time(trace, scheme, **options) -> float:
    """One timed replay without observations: nanoseconds for each operation."""
    machine = machine_for(trace, scheme, options)
    return machine.run(trace.records) / max(len(trace), 1)


def to_json(result: dict, trace) -> dict:
    """A result of `replay` in plain JSON types."""
    rows = result["operations"]
    return {**plain(result), "operations": [
        {"index": index, "op": NAMES[op], "error": error_name(errno) if errno else None, "done": done,
         **({"event": EVENTS[event]} if event else {})}
        for index, op, errno, done, event in zip(
            rows["index"].tolist(), trace.operations["op"][rows["index"].astype(np.int64)].tolist(),
            rows["errno"].tolist(), rows["done"].tolist(), rows["event"].tolist())]}


def plain(value):
    """Arrays as lists, NumPy scalars as numbers, all the way down."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, Folios)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value

"""The counting pass: one scheme over one trace, exact and the same on every machine.

Operations run one by one, so that each one's cost is known; observations are taken evenly over the operations, not
where the trace happens to have them.
"""

from __future__ import annotations

import numpy as np

from hgmcore import counting
from hgmcore.analysis.errors import Errors
from hgmcore.analysis.struct_pages import STRUCT_PAGE, kept_by_hvo
from hgmcore.analysis.watch import Collapses, Migrations
from hgmcore.core.machine import EVENT_NEVER_FIRED, FOLIO_ANON
from hgmcore.errnos import error_name
from hgmcore.geometry import GEOMETRIES
from hgmcore.options import OPTIONS
from hgmcore.replay import machine_for
from hgmcore.trace.statements import CODES, NAMES

SAMPLES = 64
"""Observations that a pass takes where nobody asks for others."""


MOST_COMMITTED = 1 << 26
"""Bytes of struct pages up to which a pass commits memory before it begins."""

STAYS = 256
"""Stays in a phase up to which the struct pages of each are counted."""


def samples(count: int, every: int | None = None) -> np.ndarray:
    """Behind which operations a pass observes: numbers from 1 to `count`, ascending, the last always among them."""
    every = every or max(1, -(-count // SAMPLES))
    stops = np.arange(every, count + every, every)
    return np.unique(np.minimum(stops, count)) if count else np.zeros(1, np.int64)


def count(trace, name, phases, *, every=None, **options) -> dict:
    """Count what `trace` costs under scheme `name`, and what the scheme gets wrong.

    phases: of trace.phases.phases(trace). every: operations between two observations (default: about SAMPLES in all).
    Returns "cost" (as in a replay, without times), "phases", "errors", "observations", "refused", "less_done",
    "memory" and "options", as `hgmcore-compare 2` has them; "watched", how many operations of a kind were looked at one
    by one where these were not all; "anonymous", how many folios of anonymous memory there had been up to each
    observation; and "rest", costs by phase without the operations of `in_runs`. MemoryError: the host has no more
    memory.
    """
    engine = counting.without_atomics(name)
    machine = machine_for(trace, engine, {**options, "transient": "counted"})    # the counts are the same
    _commit(machine, trace)
    errors, moves, collapses = Errors(machine.engine.exceptions), Migrations(trace, machine), Collapses(trace, machine)
    watches, seen = (moves, collapses), {"underflows": [], "overflows": [], "anonymous": []}
    around = [number for watch in watches for number in (watch.at, watch.at + 1)]
    stops = samples(len(trace), every)
    costs, lines, scanned = PhaseCosts(phases), np.zeros(len(phases.names), np.int64), [[] for _ in phases.names]
    edges = _edges(phases.number)
    by_stay = len(edges) < STAYS    # else the struct pages would be looked through too often
    edges = edges if by_stay else edges[:0]
    observed, runs, of_runs = set(stops.tolist()), in_runs(trace), PhaseCosts(phases)
    start = 0
    for stop in np.unique(np.concatenate([stops, edges, *around, [len(trace)]])).tolist():
        if stop > start:
            those = runs[np.searchsorted(runs, start):np.searchsorted(runs, stop)]
            rows, ends = _run(machine, trace.records[start:stop], phases.number[start:stop], those - start)
            costs.add(start + ends - 1, rows)
            if len(those):
                of_runs.add(those, rows[np.searchsorted(ends, those - start + 1)])
            read = np.flatnonzero(rows["scanned"])
            of_phase = phases.number[start + ends[read] - 1]
            for phase in set(of_phase.tolist()):
                scanned[phase].append(rows["scanned"][read[of_phase == phase]])
            # Each struct page once for each stay in a phase, so the pieces between observations must not be summed up.
            if by_stay and (stop == len(trace) or phases.number[stop] != phases.number[start]):
                lines[phases.number[start]] += machine.core.lines_since()
        for watch in watches:
            if stop - 1 in watch:
                watch.behind(stop - 1)
            if stop in watch:
                watch.before(stop)
        if stop in observed:
            errors({**machine.observe(), "index": stop})
            _look(machine, seen)
        start = stop
    results, cost = machine.results(), machine.cost()
    for key in ("underflows", "overflows"):
        errors.grew(f"counter_{key}", seen[key])
        cost.pop(key)
    errors.events("bytes_not_moved", moves.not_moved)
    errors.events("migrations_refused", moves.refused)
    leaves = cost["leaf_installs"] + cost["leaf_removes"]
    return {
        "options": {**machine.options, "transient": options.get("transient", OPTIONS["transient"].default)},
        "cost": {**cost, "operations": len(trace)},
        "phases": {phase: _phase(phases, i, costs.of(i), lines[i] if by_stay else None, scanned[i])
                   for i, phase in enumerate(phases.names)},
        "errors": errors, "observations": errors.observations, "leaves": leaves,
        "refused": refusals(results), "less_done": less_done(trace, machine, results, moves, collapses),
        "never_fired": int(np.count_nonzero(results["event"] == EVENT_NEVER_FIRED)),
        "watched": {name: {"operations": watch.total, "looked_at": len(watch.at)}
                    for name, watch in (("migrate", moves), ("collapse", collapses)) if len(watch.at) < watch.total},
        "memory": memory(machine, trace.header, cost),
        "anonymous": seen["anonymous"], "rest": costs.sums - of_runs.sums,
    }


def _commit(machine, trace):
    """Have the host commit the struct pages at once that a trace of small pieces needs: one fault each costs more."""
    sizes = [file.pages * file.page_size for file in trace.header.files]
    frames = min(sum(sizes), MOST_COMMITTED // STRUCT_PAGE * machine.geometry.base_page) // machine.geometry.base_page
    if machine.engine.writes_tails and len(trace) * STRUCT_PAGE > frames:
        machine.core.prefault_struct_pages(frames)


def _look(machine, seen):
    """Note how many counts went below zero or overflowed, and how many folios of anonymous memory were allocated."""
    cost = machine.core.cost()
    for key in ("underflows", "overflows"):
        seen[key].append(cost[key])
    seen["anonymous"].append(machine.core.nr_folios(FOLIO_ANON))


class PhaseCosts:
    """What operations cost, summed up by phase. sums: array (phases, 5) of int64, the fields of core.core.EACH."""

    def __init__(self, phases):
        self.number, self.sums = phases.number, np.zeros((len(phases.names), 5), np.int64)

    def add(self, operations, rows) -> None:
        """Add `rows`, the costs of `operations`: a slice of the trace, or an array of numbers, at least one."""
        number = self.number[operations]
        alone = (number == number[0]).all()
        for column, field in enumerate(rows.dtype.names):
            if alone:
                self.sums[number[0], column] += int(rows[field].sum())
            else:
                self.sums[:, column] += np.bincount(number, rows[field], len(self.sums)).astype(np.int64)

    def of(self, phase) -> dict:
        """What `hgmcore-compare 2` says of the costs of a phase, by its number."""
        ref, map, transient, _, leaves = self.sums[phase].tolist()
        return {"leaves": leaves,
                "atomics": {"persistent": ref + map, "transient": transient, "ref": ref, "map": map}}


def _run(machine, records, number, apart=()):
    """Run records; `number`: the phase of each. Returns rows of costs, and behind which record each row ends.

    A row is one operation, or, under a scheme that scans nothing, all that are of one phase in a row; those at `apart`
    have rows of their own.
    """
    if machine.engine.scans:
        return machine.run_each(records), np.arange(1, len(number) + 1)
    if not len(apart) and (number == number[0]).all():
        ends = np.array([len(number)])
        return machine.run_each(records, ends), ends
    apart = np.asarray(apart, dtype=np.int64)
    ends = np.unique(np.concatenate([np.flatnonzero(np.diff(number)) + 1, apart, apart + 1, [len(number)]]))
    ends = ends[ends > 0]
    return machine.run_each(records, ends), ends


BATCHED = ("fork", "exit", "dontneed", "munmap", "punch", "truncate", "collapse", "migrate", "mremap")
"""Operations that may zap, or copy leaves, in runs."""


def in_runs(trace) -> np.ndarray:
    """Numbers of the operations that may zap, or copy, more than one leaf; all others cost the same in any `batch`."""
    ops, base = trace.operations, GEOMETRIES[trace.header.geometry].base_page
    one_page = np.isin(ops["op"], [CODES[name] for name in ("dontneed", "munmap")]) & (ops["length"] <= base)
    return np.flatnonzero(np.isin(ops["op"], [CODES[name] for name in BATCHED]) & ~one_page)


def count_batched(trace, engine, phases, found, rest, **options) -> dict:
    """The costs of phases in the other reading of `batch`: {PHASE: {"leaves", "atomics"}}, where it makes a difference.

    Kernels of 2023 (batch=no) update a count for each leaf that fork and zap meet, those of today (6.12) once for a
    run. found, rest: of `count` in the reading that `options` ask for.
    """
    at = in_runs(trace)
    if not len(at):
        return {}
    machine = machine_for(trace, counting.without_atomics(engine), {**options, "transient": "counted",
                                          "batch": "6.12" if found["options"]["batch"] == "no" else "no"})
    other, start = PhaseCosts(phases), 0
    other.sums[:] = rest
    for first, last in zip(at[np.diff(at, prepend=-2) > 1].tolist(), at[np.diff(at, append=-2) != 1].tolist()):
        machine.run(trace.records[start:first])
        rows, ends = _run(machine, trace.records[first:last + 1], phases.number[first:last + 1])
        other.add(first + ends - 1, rows)
        start = last + 1
    counted = {name: other.of(i) for i, name in enumerate(phases.names)}
    return {name: cost for name, cost in counted.items() if cost["atomics"] != found["phases"][name]["atomics"]}


def _edges(number):
    """Where one phase ends and the next begins."""
    return np.flatnonzero(np.diff(number)) + 1


def _phase(phases, index, costs, lines, scanned):
    """What `hgmcore-compare 2` says of one phase."""
    entries = np.concatenate(scanned) if scanned else np.zeros(0, np.uint64)
    asked = entries[entries > 0]
    p50, p99 = (int(value) for value in np.percentile(asked, [50, 99], method="lower")) if len(asked) else (0, 0)
    return {"operations": int(np.count_nonzero(phases.number == index)), **costs,
            **({} if lines is None else {"lines": int(lines)}),
            "scanned": {"operations": len(asked), "p50": p50, "p99": p99, "max": int(asked.max(initial=0))}}


def refusals(results) -> dict:
    """How many operations ended in each errno: {"EEXIST": 3, ...}, most frequent first."""
    numbers, counts = np.unique(results["errno"][results["errno"] != 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {error_name(numbers[i]): int(counts[i]) for i in order}


def less_done(trace, machine, results, moves, collapses) -> dict:
    """Operations that did less than they were asked to and said nothing: neither an errno nor an event.

    A migration is asked to move what can move by the truth, a collapse to leave no leaf where a larger one fits
    (`moves`, `collapses`). All others say themselves how much they did; munmap is asked for what is mapped. Returns
    "operations" and "bytes", and the same for each kind of operation: "by_operation".
    """
    quiet = results[(results["errno"] == 0) & (results["event"] == 0)]
    ops = trace.operations[quiet["index"].astype(np.int64)]
    missing = machine.core.asked(machine.engine, ops).astype(np.int64) - quiet["done"].astype(np.int64)
    missing[np.isin(ops["op"], [CODES[name] for name in ("migrate", "collapse", "munmap")])] = 0
    found = {NAMES[op]: missing[(ops["op"] == op) & (missing > 0)] for op in np.unique(ops["op"][missing > 0]).tolist()}
    for name, left in (("migrate", moves.not_moved), ("collapse", collapses.left)):
        if any(left):
            found[name] = np.array([size for size in left if size])
    kinds = {name: {"operations": len(sizes), "bytes": int(sizes.sum())} for name, sizes in found.items()}
    return {**{key: sum(kind[key] for kind in kinds.values()) for key in ("operations", "bytes")},
            "by_operation": kinds}


def memory(machine, header, cost) -> dict:
    """Memory that the kernel needs for the trace's files, modelled, and what the host committed for the simulation.

    struct_pages: 64 bytes for each base page of every folio. struct_pages_hvo: with the HugeTLB vmemmap optimisation,
    one base page of struct pages for each hugetlb page; None for a scheme that counts on the others. tables_peak:
    counted, below hstate-level entries. scheme: what the scheme keeps beside struct pages and page tables' descriptors:
    nothing, in all schemes so far.
    """
    base, folios = machine.geometry.base_page, machine.core.folios()
    pages = folios["nr_pages"].astype(np.int64)
    full = int(pages.sum()) * STRUCT_PAGE
    kinds = np.array([file.kind == "hugetlb" for file in header.files] or [False])
    hugetlb = kinds[folios["file"]] if len(folios) else np.zeros(0, bool)
    kept = int(np.where(hugetlb, kept_by_hvo(pages, base), pages * STRUCT_PAGE).sum())
    return {"struct_pages": full, "struct_pages_hvo": None if machine.engine.writes_tails else kept,
            "tables_peak": cost["table_bytes_peak"], "scheme": 0, "host_committed": cost.pop("struct_page_bytes")}

"""The counting pass: one scheme over one trace, exact and the same on every machine.

Operations run one by one, so that each one's cost is known; observations are taken evenly over the operations, not
where the trace happens to have them.
"""

from __future__ import annotations

import numpy as np

from hgmcore.analysis.errors import Errors, pages_of
from hgmcore.errnos import error_name
from hgmcore.replay import machine_for
from hgmcore.trace import wellformed
from hgmcore.trace.statements import ALL, CODES

SAMPLES = 64
"""Observations that a pass takes where nobody asks for others."""

WATCHED = 200
"""Migrations that are looked at one by one, with a recount before each; of more, the first so many."""


def samples(count: int, every: int | None = None) -> np.ndarray:
    """Behind which operations a pass observes: numbers from 1 to `count`, ascending, the last always among them."""
    every = every or max(1, -(-count // SAMPLES))
    stops = np.arange(every, count + every, every)
    return np.unique(np.minimum(stops, count)) if count else np.zeros(1, np.int64)


def count(trace, name, phases, *, every=None, **options) -> dict:
    """Count what `trace` costs under scheme `name`, and what the scheme gets wrong.

    phases: of trace.phases.phases(trace). every: operations between two observations (default: about SAMPLES in all).
    Returns "cost" (as in a replay, without times), "phases", "errors", "observations", "refused", "less_done",
    "memory" and "options", as `hgmcore-compare 2` has them, and "anonymous", how many folios of anonymous memory were
    allocated. MemoryError: the host has no more memory.
    """
    machine = machine_for(trace, name, options)
    errors, moves = Errors(machine.engine.exceptions), Moves(trace, machine)
    stops = samples(len(trace), every)
    costs, lines = np.zeros((len(phases.names), 5), np.int64), np.zeros(len(phases.names), np.int64)
    scanned: list[list[np.ndarray]] = [[] for _ in phases.names]
    edges = _edges(phases.number) if phases.declared else np.zeros(0, np.int64)
    start = 0
    for stop in np.unique(np.concatenate([stops, edges, moves.at, moves.at + 1, [len(trace)]])).tolist():
        if stop > start:
            rows = machine.run_each(trace.records[start:stop])
            number = phases.number[start:stop]
            for column, field in enumerate(rows.dtype.names):
                costs[:, column] += np.bincount(number, rows[field], len(phases.names)).astype(np.int64)
            for phase in np.unique(number).tolist():
                scanned[phase].append(rows["scanned"][number == phase])
            # Each struct page once for each stay in a phase, so the pieces between observations must not be summed up.
            if phases.declared and (stop == len(trace) or phases.number[stop] != phases.number[start]):
                lines[phases.number[start]] += machine.core.lines_since()
        if stop in moves:
            moves.before(stop)
        if stop - 1 in moves:
            moves.behind(stop - 1)
        if np.isin(stop, stops):
            errors({**machine.observe(), "index": stop})
        start = stop
    results, cost = machine.results(), machine.cost()
    for key in ("underflows", "overflows"):
        errors.event(f"counter_{key}", cost.pop(key))
    errors.event("bytes_not_moved", moves.not_moved)
    errors.event("migrations_refused", moves.refused)
    leaves = cost["leaf_installs"] + cost["leaf_removes"]
    return {
        "options": machine.options,
        "cost": {**cost, "operations": len(trace)},
        "phases": {phase: _phase(phases, i, costs[i], lines[i] if phases.declared else None, scanned[i])
                   for i, phase in enumerate(phases.names)},
        "errors": errors, "observations": errors.observations, "leaves": leaves,
        "refused": refusals(results), "less_done": less_done(trace, machine, results),
        "memory": memory(machine, trace.header, cost),
        "anonymous": int(np.count_nonzero(machine.core.folios()["flags"] & ANON)),
    }


BATCHED = ("fork", "exit", "dontneed", "munmap", "punch", "truncate", "collapse", "migrate", "mremap")
"""Operations that may zap, or copy leaves, in runs."""


def count_batched(trace, engine, phases, found, **options) -> dict:
    """The costs of phases in the other reading of `batch`: {PHASE: {"leaves", "atomics"}}, where it makes a difference.

    Kernels of 2023 (batch=no) update a count for each leaf that fork and zap meet, those of today once for a run.
    found:
    what `count` found in the reading that `options` ask for.
    """
    if not np.isin(trace.operations["op"], [CODES[name] for name in BATCHED]).any():
        return {}
    machine = machine_for(trace, engine, {**options, "batch": "yes" if found["options"]["batch"] == "no" else "no"})
    costs = np.zeros((len(phases.names), 5), np.int64)
    for part in trace.chunks(wellformed.CHUNK):
        rows = machine.run_each(trace.records[part])
        for column, field in enumerate(rows.dtype.names):
            costs[:, column] += np.bincount(phases.number[part], rows[field], len(phases.names)).astype(np.int64)
    counted = {name: _costs(costs[i]) for i, name in enumerate(phases.names)}
    return {name: cost for name, cost in counted.items() if cost["atomics"] != found["phases"][name]["atomics"]}


def _costs(costs):
    ref, map, transient, _, leaves = (int(value) for value in costs)
    return {"leaves": leaves, "atomics": {"persistent": ref + map, "transient": transient, "ref": ref, "map": map}}


ANON = 8  # HGM_FOLIO_ANON


def _edges(number):
    """Where one phase ends and the next begins."""
    return np.flatnonzero(np.diff(number)) + 1


def _phase(phases, index, costs, lines, scanned):
    """What `hgmcore-compare 2` says of one phase."""
    entries = np.concatenate(scanned) if scanned else np.zeros(0, np.uint64)
    asked = entries[entries > 0]
    p50, p99 = (int(value) for value in np.percentile(asked, [50, 99], method="lower")) if len(asked) else (0, 0)
    return {"operations": int(np.count_nonzero(phases.number == index)), **_costs(costs),
            **({} if lines is None else {"lines": int(lines)}),
            "scanned": {"operations": len(asked), "p50": p50, "p99": p99, "max": int(asked.max(initial=0))}}


def refusals(results) -> dict:
    """How many operations ended in each errno: {"EEXIST": 3, ...}, most frequent first."""
    numbers, counts = np.unique(results["errno"][results["errno"] != 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {error_name(numbers[i]): int(counts[i]) for i in order}


def less_done(trace, machine, results) -> dict:
    """Operations that did less than they were asked to and said nothing: neither an errno nor an event.

    What is unmapped by munmap counts only what was mapped, and a collapse or a punch skips what it cannot take, so the
    bytes are those that the kernel's answer leaves out.
    """
    quiet = results[(results["errno"] == 0) & (results["event"] == 0)]
    ops = trace.operations[quiet["index"].astype(np.int64)]
    asked = machine.core.asked(machine.engine, ops).astype(np.int64)
    missing = asked - quiet["done"].astype(np.int64)
    return {"operations": int(np.count_nonzero(missing > 0)), "bytes": int(missing[missing > 0].sum())}


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
    kept = int(np.where(hugetlb, np.minimum(pages * STRUCT_PAGE, base), pages * STRUCT_PAGE).sum())
    return {"struct_pages": full, "struct_pages_hvo": None if machine.engine.writes_tails else kept,
            "tables_peak": cost["table_bytes_peak"], "scheme": 0, "host_committed": cost.pop("struct_page_bytes")}


STRUCT_PAGE = 64  # bytes


class Moves:
    """Watches `migrate`: what should have moved by the truth, and what did.

    at: numbers of the operations that are watched. not_moved: bytes that one process alone maps (`all`: that anybody
    maps), that nobody pins and no memory failure holds, and that an operation without an error left where they were.
    refused: operations that ended in an error though there was such memory to move.
    """

    def __init__(self, trace, machine):
        self.trace, self.machine = trace, machine
        self.at = np.flatnonzero(trace.operations["op"] == CODES["migrate"])[:WATCHED]
        self._numbers = set(self.at.tolist())
        self.not_moved = self.refused = self._movable = 0

    def __contains__(self, index):
        return index in self._numbers

    def before(self, index) -> None:
        """The operation of that number is about to run."""
        everything = bool(self.trace.operations["flags"][index] & ALL)
        mapping = self.trace.header.mappings[self.trace.operations["target"][index]]
        seen = self.machine.observe()
        mine = self._folios(index)
        self._movable = sum(
            pages_of(folio) * self.machine.geometry.base_page for folio in seen["folios"]
            if (folio["file"], folio["page"]) in mine and folio["truth"]["leaves"] and not folio["pins"]
            and (everything or folio["truth"]["processes"] == 1)) if mapping else 0

    def _folios(self, index):
        """(file, huge page) pairs that the range of the operation covers."""
        operation, core = self.trace.operations[index], self.machine.core
        _, file, _, length, offset = (int(value) for value in core.mappings()[operation["target"]])
        entry = self.trace.header.files[file]
        if not length or entry.kind == "anon":
            return set()
        first = (offset + int(operation["offset"])) // entry.page_size
        last = -(-(offset + min(int(operation["offset"]) + int(operation["length"]), length)) // entry.page_size)
        return {(entry.name, page) for page in range(first, last)}

    def behind(self, index) -> None:
        """The operation of that number has run."""
        done, errno = self._movable, 0
        results = self.machine.results()
        if len(results) and results["index"][-1] == index:
            done, errno = int(results["done"][-1]), int(results["errno"][-1])
        if self._movable:
            self.refused += errno != 0
            self.not_moved += max(0, self._movable - done) if not errno else 0

"""The counting pass of the cost model: a trace's events under a scheme, by phase, and what prices the kernel's work.

The trace runs twice, as a warm measurement does: what is near stays from the first time, who wrote a line last does
not, and the counts are those of the second. Look-ups are executed (transient=real).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hgmcore import counting, schemes
from hgmcore.core.events import NAMES, Events
from hgmcore.replay import machine_for
from hgmcore.trace import wellformed
from hgmcore.trace.phases import phases as phases_of
from hgmcore.trace.statements import CODES
from hgmcore.trace.statements import NAMES as OPERATIONS

CLASSES = NAMES[:NAMES.index("installs")]
"""The classes of events that a profile has costs for."""

LINE = 64  # bytes

NO_WORK, NO_K = "", "?"
"""Of an operation that maps and unmaps nothing: it has no part in a total. Of one whose K(op) nobody has measured."""

ALWAYS = {"continue": "continue", "fork": "fork", "collapse": "collapse"}
NEVER = ("migrate", "hwpoison", "mremap", "punch", "truncate", "pin", "unpin")
"""Operations that no profile has a K(op) for."""

HOTTEST = 2
"""Struct pages that are named as written most."""


@dataclass
class Counted:
    """What a trace came to.

    phases: their names. operations: of each, how many. events: {phase: {class: count}}. kernel: {phase: {K: {"call",
    "leaf", "free"}}}, the calls, leaves and freed folios that K(op) is to be taken for, K a row of a profile's
    [kernel]; under NO_K stand {operation: number} without one. hottest: [{"page": what it is, "updates", "cpus"}], most
    first.
    """

    phases: tuple
    operations: dict
    events: dict
    kernel: dict
    hottest: list
    cpus: int

    def total(self) -> dict:
        """Events of the whole trace: {class: count}."""
        return {name: sum(counts[name] for counts in self.events.values()) for name in NAMES}


def cpus_of(trace, cpus=None):
    """(how many CPUs run the trace, the CPU of each operation or None): its thread, modulo `cpus`. ValueError."""
    if cpus is not None and cpus < 1:
        raise ValueError(f"cpus: {cpus} is not a number of processors")
    if trace.thread is None:
        return 1, None
    most = int(trace.thread.max(initial=0)) + 1
    number = min(cpus or most, most)
    return number, (trace.thread % number).astype(np.uint16)


def count_events(trace, scheme, l2_bytes, *, cpus=None, phases=None, **options) -> Counted:
    """Count the events of `trace` under a scheme.

    scheme: a name or an engine. l2_bytes: a CPU's L2 cache, what is near. cpus: default, one for each thread of the
    trace. phases: of trace.phases.phases(trace). LookupError: the scheme was not compiled to count events. ValueError,
    MemoryError as from a replay.
    """
    phases = phases or phases_of(trace)
    engine = counting.load(schemes.load(scheme) if isinstance(scheme, str) else scheme)
    machine = machine_for(trace, engine, {**options, "transient": "real"})
    number, cpu = cpus_of(trace, cpus)
    events = Events(machine.core, engine, max(1, l2_bytes // LINE), number)
    kinds = np.array([file.kind == "anon" for file in trace.header.files] or [False])
    before = machine.snapshot()
    sums = np.zeros((len(phases.names), len(NAMES)), np.int64)
    kernel = {}
    for counted in (False, True):
        machine.restore(before)
        events.forget_writers()
        for part in trace.chunks(wellformed.CHUNK):
            records = np.ascontiguousarray(trace.operations[part])
            rows = events.run(records, None if cpu is None else cpu[part], part.start)
            if counted:
                phase = phases.number[part]
                for column, name in enumerate(NAMES):
                    sums[:, column] += np.bincount(phase, rows[name], len(phases.names)).astype(np.int64)
                anon = _anonymous(machine, records, kinds)
                _add_kernel(kernel, records["op"], rows, phase, anon)
    return Counted(
        phases.names, dict(zip(phases.names, np.bincount(phases.number, minlength=len(phases.names)).tolist())),
        {name: dict(zip(NAMES, sums[i].tolist())) for i, name in enumerate(phases.names)},
        {name: kernel.get(i, {}) for i, name in enumerate(phases.names)}, _hottest(trace, machine, events), number)


def _anonymous(machine, records, kinds):
    """Which records are about a mapping of anonymous memory."""
    mapped = np.isin(records["op"], [CODES[name] for name in ("touch", "dontneed", "munmap")])
    files = machine.core.mappings()[:, 1].astype(np.int64) if mapped.any() else np.zeros(0, np.int64)
    found = np.zeros(len(records), bool)
    if mapped.any():
        found[mapped] = kinds[files[records["target"][mapped].astype(np.int64)]]
    return found


def _rows_of_kernel(op, rows, anon):
    """For each record the row of [kernel] that prices it, and the leaves that it is priced for."""
    installs, removes = rows["installs"].astype(np.int64), rows["removes"].astype(np.int64)
    leaves = installs + removes
    found = np.full(len(op), NO_WORK, dtype="U16")
    works = (leaves > 0) | (rows["copy"] > 0) | (rows["reused"] > 0)
    found[works] = NO_K
    for name, row in ALWAYS.items():
        found[op == CODES[name]] = row
    leaves[op == CODES["collapse"]] = removes[op == CODES["collapse"]]
    touch = (op == CODES["touch"]) & works
    found[touch] = np.where(installs[touch] > 1, "fault_run", "fault")
    writes = touch & ((rows["copy"] > 0) | (rows["reused"] > 0))
    found[writes], leaves[writes] = "write", 0
    zap = op == CODES["dontneed"]
    one = zap & anon & (leaves == 1)
    found[zap] = "dontneed"
    found[one], leaves[one] = "dontneed_anon", 0
    ends = np.isin(op, [CODES["munmap"], CODES["exit"]])
    found[ends] = np.where(rows["freed"][ends] > 0, "munmap_freed", "munmap")
    splits = (op == CODES["mprotect"]) & works
    found[splits], leaves[splits] = "split", installs[splits]
    found[np.isin(op, [CODES[name] for name in NEVER])] = NO_K
    return found, leaves


def _add_kernel(kernel, op, rows, phase, anon):
    """Add what prices the kernel's work in some records to kernel[phase][row]."""
    found, leaves = _rows_of_kernel(op, rows, anon)
    for number in np.unique(phase).tolist():
        for row in np.unique(found[phase == number]).tolist():
            mine = (phase == number) & (found == row)
            into = kernel.setdefault(number, {}).setdefault(row, {})
            if row == NO_K:
                for code, times in zip(*np.unique(op[mine], return_counts=True)):
                    into[OPERATIONS[code]] = into.get(OPERATIONS[code], 0) + int(times)
            elif row != NO_WORK:
                for part, numbers in (("call", mine), ("leaf", leaves[mine]), ("free", rows["freed"][mine])):
                    into[part] = into.get(part, 0) + int(numbers.sum())
        kernel[number].pop(NO_WORK, None)


def _hottest(trace, machine, events):
    """The struct pages that were written most."""
    lines, folios = events.lines(), machine.core.folios()
    if not len(lines) or not len(folios):
        return []
    order = np.argsort(-lines["updates"].astype(np.int64), kind="stable")[:HOTTEST]
    found = []
    for pfn in order[lines["updates"][order] > 0].tolist():
        # the last of the folios that had the frame
        folio = folios[np.flatnonzero((folios["pfn"] <= pfn) & (pfn < folios["pfn"] + folios["nr_pages"]))[-1]]
        place = pfn - int(folio["pfn"])
        files = trace.header.files
        name = files[folio["file"]].name if folio["file"] < len(files) else "memory"
        what = "head" if place == 0 else f"struct page {place}"
        found.append({"page": f"{what} of {name} page {folio['page']}", "updates": int(lines["updates"][pfn]),
                      "cpus": int(lines["cpus"][pfn]).bit_count()})
    return found

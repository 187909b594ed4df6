"""The measured numbers: a scheme's replay on this machine, warm, in CPU time of its thread, with an interval.

A run is the whole trace; behind each the scheme's machine is put back to where it was before, with its memory there, so
that no run pays for the host's first touches. The first run of a machine is dropped; the others are interleaved, round
by round, so that a busy moment meets all schemes alike. After PLACE runs another machine follows in other memory, for
which physical pages share a place in a cache matters too, and would else make one scheme slow in all of its runs.
"""

from __future__ import annotations

import math
import platform
import statistics

import numpy as np

from hgmcore.replay import machine_for
from hgmcore.threads import Threads

ROUNDS = 6
"""The fewest runs whose smallest and largest enclose the median with 95 % confidence (two-sided sign test)."""

TOGETHER = 2 << 30
"""Bytes of machines that are there at the same time; beyond, schemes are measured in groups."""

SEGMENTS = 64
"""The most pieces that a trace is cut into for times by phase."""

SHORT = 100_000
"""Nanoseconds. A shorter run says more about the clock than about a scheme."""

PLACE = 3
"""Runs in the memory of one machine."""

SETTLED = 0.1
"""Relative width of intervals up to which ROUNDS runs are enough; where one is wider, more runs follow."""

MOST = 15
"""Runs at most, where ROUNDS do not settle: three at either end may then be outliers."""

EXTRA = 2e9
"""Nanoseconds of CPU time that runs beyond ROUNDS may take in all; those run on whose intervals are wide."""

NOISY = 0.2
"""Relative width of an interval from which on a machine is called noisy."""


def measure(trace, names, phases, sizes, rounds=ROUNDS, threads=1, progress=None, **options) -> dict:
    """Time `trace` under each scheme of `names`: name -> {"ns_per_operation": {...}, "phases": {...}}.

    phases: of trace.phases.phases(trace); where they lie in at most SEGMENTS pieces, each has times of its own. sizes:
    bytes of a machine under each scheme. rounds: runs behind the one that is dropped; from ROUNDS on there are more,
    up to MOST, where the machine is so noisy that an interval is wide. threads: native threads. The
    references of look-ups are executed (transient=real) unless `options` say otherwise. progress: called as
    progress(runs done, what runs next).
    """
    options = {"transient": "real", **options}
    found, done, extra = {}, 0, EXTRA
    for group in _groups(names, sizes):
        pieces = _pieces(phases, len(trace))
        machines = {name: _Warm(trace, name, pieces, threads, options) for name in group}
        runs, turn, planned = {name: [] for name in group}, 0, done + len(group) * (rounds + 1)
        some = list(group)
        while turn <= rounds or rounds >= ROUNDS and turn <= MOST and extra > 0 and (
                some := [name for name in group if not _settled(np.array(runs[name]), pieces)]):
            first = turn % len(some)
            for name in some[first:] + some[:first]:
                if progress:
                    more = f" of {rounds}" if turn <= rounds else ", as the machine is noisy"
                    progress(min(done, planned - 1), f"timing {name}, run {turn}{more}" if turn else f"warming {name}")
                if turn > 1 and turn % PLACE == 1 and 2 * sizes[name] <= TOGETHER:
                    place = _Warm(trace, name, pieces, threads, options)    # the other one still holds its memory
                    place.run()
                    machines[name] = place
                times = machines[name].run()
                if turn:
                    runs[name].append(times)
                if turn > rounds:
                    extra -= sum(times)
                done += 1
            turn += 1
        done = planned
        for name in group:
            found[name] = _summary(np.array(runs[name]), pieces, phases, trace)
            found[name]["threads_met"] = machines[name].met
    return found


class _Warm:
    """A machine that runs one trace again and again from the same state."""

    def __init__(self, trace, name, pieces, threads, options):
        self.trace, self.pieces, self.threads, self.met = trace, pieces, threads, 0
        self.machine = machine_for(trace, name, options)
        self.before = self.machine.snapshot()

    def run(self) -> list[int]:
        """One run: nanoseconds of each piece. The machine is put back first."""
        self.machine.restore(self.before, keep=True)
        if self.threads == 1:
            return [self.machine.run(self.trace.records[start:stop]) for start, stop, _ in self.pieces]
        with Threads(self.machine, self.trace, self.threads) as native:
            times = [native.run(start, stop) for start, stop, _ in self.pieces]
        self.met = native.operations
        return times


def _groups(names, sizes):
    """The names in groups whose machines fit together."""
    groups, room = [], 0
    for name in names:
        if not groups or sizes[name] > room:
            groups.append([])
            room = TOGETHER
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def _pieces(phases, total):
    """(start, stop, phase) of the runs of operations of one phase; the whole trace as one where these are too many."""
    edges = [0, *(np.flatnonzero(np.diff(phases.number)) + 1).tolist(), total]
    if len(edges) - 1 > SEGMENTS or total == 0:
        return [(0, total, None)]
    return [(start, stop, int(phases.number[start])) for start, stop in zip(edges, edges[1:])]


def _settled(runs, pieces) -> bool:
    """Are the intervals narrow of the whole run, and of the phases that take a tenth of it or more?

    runs: nanoseconds, an array (runs, pieces).
    """
    whole = runs.sum(1)
    phases = [runs[:, [i for i, piece in enumerate(pieces) if piece[2] == phase]].sum(1)
              for phase in {piece[2] for piece in pieces}]
    found = [interval(whole), *(interval(part) for part in phases if 10 * np.median(part) >= np.median(whole) > 0)]
    return all(one["high"] - one["low"] <= SETTLED * one["median"] for one in found)


def _summary(runs, pieces, phases, trace):
    """Medians and intervals from nanoseconds, an array (runs, pieces)."""
    whole = interval(runs.sum(1) / max(len(trace), 1))
    result = {"ns_per_operation": whole, "phases": {}, "short": bool(np.median(runs.sum(1)) < SHORT)}
    for index, name in enumerate(phases.names):
        mine = [i for i, piece in enumerate(pieces) if piece[2] == index]
        count = sum(pieces[i][1] - pieces[i][0] for i in mine)
        if mine and count:
            result["phases"][name] = interval(runs[:, mine].sum(1) / count)
    return result


def interval(runs) -> dict:
    """The median of a few numbers, and the smallest and largest between which it lies with 95 % confidence.

    The interval is made of two order statistics, so it assumes nothing about how the numbers are distributed; below
    ROUNDS numbers it is their range, with less confidence.
    """
    ordered = sorted(float(run) for run in runs)
    cut = _cut(len(ordered))
    return {"median": statistics.median(ordered), "low": ordered[cut], "high": ordered[len(ordered) - 1 - cut],
            "runs": [float(run) for run in runs]}


def _cut(n: int) -> int:
    """How many numbers may be left out at either end so that the rest encloses the median in 95 % of cases."""
    cut, outside = 0, 0.5 ** (n - 1)
    while outside + 2 * math.comb(n, cut + 1) * 0.5 ** n <= 0.05:
        cut += 1
        outside += 2 * math.comb(n, cut) * 0.5 ** n
    return cut


def change(one: dict, other: dict) -> dict:
    """How `one` differs from `other`, two results of `interval` whose runs were taken in the same rounds, as a factor.

    Each round gives a ratio, as both met the same moment; {"median", "low", "high"} are of those. Nothing is shown
    where the interval holds 1.
    """
    ratios = [mine / theirs for mine, theirs in zip(one["runs"], other["runs"]) if theirs]
    if not ratios:
        return {"median": 1.0, "low": 0.0, "high": math.inf}
    found = interval(ratios)
    return {key: found[key] for key in ("median", "low", "high")}


def host():
    """The machine that measured times are of: processor, kernel release, Python version."""
    return {"cpu": _cpu_model(), "kernel": f"{platform.system()} {platform.release()}",
            "python": platform.python_version()}


def _cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""Measuring this machine: what single events cost here, by loops in CPU time of a pinned thread.

Each value is the median of repetitions, its 10th and 90th percentiles are its interval, widened to 4 % either way: by
so much the clock of a processor that others use, too, differs from one calibration to the next. A
value that a gate refuses is not given, and the profile says which gate and why:

    disturbed   more than half of the repetitions met a page fault or an involuntary context switch
    spread      (p90 - p10) / median is above 0.25 in every try
    threads     fewer rounds than needed in which both threads ran all the time at the same time
    shape       lines in order are not free here: the model's form does not hold
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from hgmcore.model import loops, topology
from hgmcore.model.contention import Curve
from hgmcore.model.contention import fit as fit_curve
from hgmcore.model.linear import Value
from hgmcore.model.profile import Profile
from hgmcore.model.profile import load as load_profile

REPETITIONS = 25
TURNS = 100_000
LINES_IN_ORDER = 1 << 18
TRIES = 3
SPREAD = 0.25
WIDEN = 0.04
ROUNDS, ROUNDS_NEEDED = 15, 5
PAIR_TURNS = 200_000
OVERLAP, STALLED = 0.95, 1.05
SHAPE = 0.15
LEAST_FAR, MOST_FAR = 128 << 20, 512 << 20
"""Bytes of the memory whose lines are far: 4 times the L3 cache, between these."""

ELSEWHERE = ("step", "stat", "table_alloc", "table_free")
"""Costs that no program can measure from outside of a kernel, taken from TEACHER by the cost of an atomic."""
TEACHER = "turin-vm"


class NotMeasurable(Exception):
    """A gate refused a value: its name and why."""


@dataclass
class Calibration:
    """values: {name: Value}, also those that no profile has ("cas", "tail", "lock", "pair.DISTANCE").

    missing: {name: why}. curve: of contention, or None. gate, cells: of the check against warm replays. seconds: how
    long it took.
    """

    cpus: list
    values: dict = field(default_factory=dict)
    missing: dict = field(default_factory=dict)
    curve: Curve | None = None
    gate: str = ""
    cells: list = field(default_factory=list)
    seconds: float = 0.0


def widened(numbers) -> tuple[float, float, float]:
    """(median, low, high): the 10th and 90th percentiles, at least 4 % from the median."""
    low, middle, high = (float(value) for value in np.percentile(numbers, [10, 50, 90]))
    return middle, max(0.0, min(low, middle * (1 - WIDEN))), max(high, middle * (1 + WIDEN))


def repeated(once, scale=1.0) -> np.ndarray:
    """Numbers of REPETITIONS undisturbed repetitions of `once`, a function to (ns, disturbed). NotMeasurable."""
    worst = None
    for _ in range(TRIES):
        found = [ns for ns, disturbed in (once() for _ in range(REPETITIONS)) if not disturbed]
        if len(found) * 2 < REPETITIONS:
            worst = f"disturbed: {REPETITIONS - len(found)} of {REPETITIONS} repetitions were interrupted"
            continue
        low, middle, high = np.percentile(found, [10, 50, 90])
        if (high - low) <= SPREAD * middle:
            return np.array(found) * scale
        worst = f"spread: the middle 80 % of repetitions lie {(high - low) / middle:.0%} apart"
    raise NotMeasurable(worst)


def populated(size: int, huge=False) -> np.ndarray:
    """Zeroed memory that is there already, in huge pages where the system has them."""
    memory = mmap.mmap(-1, size)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass    # a kernel without them
    found = np.frombuffer(memory, np.uint8)
    found[::4096] = 0
    return found


class _Bench:
    """Loops on the first allowed CPU."""

    def __init__(self, cpus, far_bytes):
        self.small = populated(LINES_IN_ORDER * loops.LINE)
        self.far_bytes = far_bytes

    def loop(self, name, memory=None, turns=TURNS, order=None, scale=1.0):
        memory = self.small if memory is None else memory
        loops.run(name, memory, turns, order)    # warm
        return repeated(lambda: loops.run(name, memory, turns, order), scale)

    def far(self):
        """(low, high): misses that overlap, and misses of which each waits for the one before."""
        memory = populated(self.far_bytes, huge=True)
        random = np.random.default_rng(1)
        lines = len(memory) // loops.LINE
        order = np.concatenate([[0], 1 + random.permutation(lines - 1)]).astype(np.uint32)
        hot = np.median(self.loop("hot_twice", memory[:4096]))
        loops.ring(memory, order)
        return [self._through(name, memory, order, turns) - hot
                for name, turns in (("far_overlapped", TURNS // 4), ("far_dependent", TURNS // 20))]

    @staticmethod
    def _through(name, memory, order, turns):
        """A loop over lines in `order`, each repetition over others, so that no cache has them from the one before."""
        places = itertools.cycle(range(0, len(order) - turns, turns))

        def once():
            place = next(places)
            return loops.run(name, memory, turns, order[place:place + turns])
        return repeated(once)


def calibrate(cpus=None, gate=True, progress=None) -> Calibration:
    """Measure this machine in a few seconds. cpus: CPUs to use, default those that this process may run on.

    gate: also check the model's form against warm replays. progress: called as progress(done, all, what). The thread is
    pinned meanwhile.
    """
    allowed = sorted(cpus or os.sched_getaffinity(0))
    found, began = Calibration(allowed), time.monotonic()
    before = os.sched_getaffinity(0)
    steps = [("atomics", _single), ("lines far away", _far), ("two CPUs", _threads)] + [("warm replays", _gate)] * gate
    try:
        os.sched_setaffinity(0, {allowed[0]})
        for done, (what, step) in enumerate(steps):
            if progress:
                progress(done, len(steps), what)
            step(found)
    finally:
        os.sched_setaffinity(0, before)
    found.seconds = time.monotonic() - began
    return found


def _keep(found, name, measure):
    """Measure one value, or say why not."""
    try:
        numbers = measure()
    except NotMeasurable as error:
        found.missing[name] = str(error)
        return
    found.values[name] = Value(*widened(numbers), "measured",
                               f"{len(numbers)} repetitions of a loop on CPU {found.cpus[0]}")


def _single(found):
    bench = _Bench(found.cpus, 0)
    for name in ("atomic", "cas", "lock"):
        _keep(found, name, lambda name=name: bench.loop(name))
    _keep(found, "tail", lambda: bench.loop("tail", turns=LINES_IN_ORDER))
    if "atomic" in found.values:
        hot = found.values["atomic"].ns
        _keep_difference(found, "plain", lambda: (bench.loop("plain") - hot) / 4, 0.05)
    else:
        found.missing["plain"] = "atomic: not measurable"
    _keep(found, "scan", lambda: bench.loop("scan", populated(4096), TURNS // 50, scale=1 / 512))
    if {"atomic", "tail"} <= found.values.keys():
        off = found.values["tail"].ns / found.values["atomic"].ns - 1
        if abs(off) > SHAPE:
            found.missing["form"] = f"shape: an atomic on lines in order takes {off:+.0%} against one line"
    scan = found.values.get("scan")
    if scan:    # beyond the caches an entry takes up to 1 ns
        found.values["scan"] = Value(scan.ns, scan.low, max(scan.high, 1.0), scan.how, scan.source)


def _keep_difference(found, name, measure, least):
    """As _keep, of a difference that may come out as nothing: its interval has a least width, and is never below 0."""
    try:
        middle, low, high = widened(np.maximum(measure(), 0.0))
    except NotMeasurable as error:
        found.missing[name] = str(error)
        return
    found.values[name] = Value(middle, max(0.0, min(low, middle - least)), max(high, middle + 0.25), "measured",
                               "an atomic and four plain adds less the atomic, by four")


def _far(found):
    l3 = topology.cache_bytes(found.cpus[0], 3) or 0
    size = min(MOST_FAR, max(LEAST_FAR, 4 * l3))
    try:
        overlapped, dependent = _Bench(found.cpus, size).far()
    except NotMeasurable as error:
        found.missing["far"] = str(error)
        return
    low, high = max(0.1, float(np.median(overlapped))), float(np.median(dependent))
    if not low < high:
        found.missing["far"] = f"shape: misses that overlap take {low:.1f} ns, misses that wait {high:.1f}"
        return
    found.values["far"] = Value(float(np.sqrt(low * high)), low, high, "measured",
                                f"random lines of {size >> 20} MiB: overlapped, and each waiting for the one before")


def _threads(found):
    """One pair of CPUs for each distance; the curve of contention as far as there are CPUs."""
    if len(found.cpus) < 2:
        found.missing["moved"] = found.missing["contention"] = "one CPU alone moves no line"
        return
    points = []
    for name, pair in topology.pairs(found.cpus).items():
        try:
            numbers = _rounds(pair)
        except NotMeasurable as error:
            found.missing[f"moved.{name}"] = str(error)
            continue
        together = Value(*widened(numbers), "measured", f"{len(numbers)} rounds of CPUs {pair[0]} and {pair[1]}")
        found.values[f"pair.{name}"] = together
        points.append(together)
    atomic = found.values.get("atomic")
    if not points or atomic is None:
        found.missing["contention"] = "no pair of CPUs was measurable"
        return
    _curve(found, atomic, points[0])


def _curve(found, atomic, pair):
    points = [(1, atomic.ns, atomic.low, atomic.high), (2, pair.ns, pair.low, pair.high)]
    n = 4
    while n <= len(found.cpus):
        try:
            points.append((n, *widened(_rounds(found.cpus[:n]))))
        except NotMeasurable as error:
            found.missing[f"contention of {n} CPUs"] = str(error)
        n = len(found.cpus) if n < len(found.cpus) < 2 * n else 2 * n
    found.curve = fit_curve([point for point in points if point[1] >= atomic.ns])
    if len(found.cpus) <= 2:
        found.missing["contention"] = f"of more than 2 CPUs, as there are {len(found.cpus)}"


def _rounds(cpus):
    """ns of an atomic for each of some CPUs on one line, one number a round that counts. NotMeasurable."""
    line, numbers, dropped = populated(4096), [], []
    for _ in range(ROUNDS):
        meeting, results = np.zeros(64, np.uint8), [None] * len(cpus)

        def work(place, cpu, meeting=meeting, results=results):
            os.sched_setaffinity(0, {cpu})
            results[place] = loops.together(line[:64], meeting, len(cpus), PAIR_TURNS)

        threads = [threading.Thread(target=work, args=(place, cpu)) for place, cpu in enumerate(cpus)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        why = _why_not(results)
        if why:
            dropped.append(why)
        else:
            numbers.append(max(used for *_, used in results) / PAIR_TURNS)
    if len(numbers) < ROUNDS_NEEDED:
        common = max(set(dropped), key=dropped.count)
        raise NotMeasurable(f"threads: {len(numbers)} of {ROUNDS} rounds count, {ROUNDS_NEEDED} are needed; most often "
                            f"{common}")
    return np.array(numbers)


def _why_not(results):
    """Why a round does not count, None if it does: threads that ran one after the other met no contention."""
    if any(result is None for result in results):
        return "a thread did not come to run"
    start, stop = max(result[0] for result in results), min(result[1] for result in results)
    shortest = min(result[1] - result[0] for result in results)
    if stop - start < OVERLAP * shortest:
        return "the threads ran one after the other"
    if any(stop - start > STALLED * used for start, stop, used in results):
        return "a thread had to wait for its CPU"
    return None


def _gate(found):
    from hgmcore.model import replay_gate

    atomic = found.values.get("atomic")
    found.gate, found.cells = replay_gate.check(atomic.ns if atomic else None)


def profile_of(found, name) -> Profile:
    """The accounting profile that a calibration is, with the costs that only a kernel shows taken from another."""
    costs = {key: found.values[key] for key in ("atomic", "plain", "far", "scan") if key in found.values}
    atomic = costs.get("atomic")
    for key, together in found.values.items():
        if key.startswith("pair.") and atomic:
            moved = Value(max(0.0, together.ns - atomic.ns), max(0.0, together.low - atomic.high),
                          max(0.0, together.high - atomic.low), "measured", f"{together.source}, less one atomic")
            for kind in ("blind", "read"):
                costs[f"moved.{key.removeprefix('pair.')}.{kind}"] = moved
    if atomic:
        teacher = load_profile(TEACHER)
        factor = atomic.ns / teacher.costs["atomic"].ns
        for key in ELSEWHERE:
            other = teacher.costs[key]
            costs[key] = Value(other.ns * factor, other.low * factor * 0.5, other.high * factor * 2, "transferred",
                               f"{TEACHER} by the cost of an atomic; no program outside of a kernel can measure it")
    about = topology.processor(found.cpus)
    return Profile(name, "accounting", f"{about['model']}, measured by hgmcore calibrate", about, costs, found.curve,
                   {}, (), dict(found.missing), found.gate)

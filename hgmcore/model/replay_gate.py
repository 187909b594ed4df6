"""The model's form against warm replays here: is the simulator's own time an atomic's cost times their number?

Twelve cells: three schemes times four actions on one range of 256 MiB. ns a leaf = intercept + slope x counted atomics.
Each action is one record: what a record of its own for each leaf takes (1 to 2 ns) is no scheme's, and the form has no
term for that. The atomic that the slope is held against is measured between the replays, as a machine that others use
is now slower and now faster.
"""

from __future__ import annotations

import resource

import numpy as np

from hgmcore.model import loops
from hgmcore.replay import machine_for
from hgmcore.trace import Trace

SCHEMES = ("head_per_leaf", "nr_pages_mapped", "mm_id")
PAGES, LEAVES = 128, 128 * 512
RUNS = 7
"""Undisturbed runs of each cell that are waited for, for as many runs again. The shortest counts: whatever disturbs a
run only adds to it."""

TRIES = 3
"""Times that more runs may be added until the check passes."""

TURNS = 20_000
"""Atomics that are timed beside each run."""


LEAST_R2, SLOPE, RESIDUAL, RESIDUAL_SHARE = 0.98, 0.10, 1.0, 0.08

HEAD = f"""hgmcore-trace 1
file F 2M {PAGES}
mmap A v F 0 256M shared minor hgm wp
populate F 0 {PAGES}
"""
ALL_LEAVES = "continue A v 0 256M\n"    # of 4K, under policy=base_only
EACH_LEAF = "".join(f"continue A v {4 * page}K 4K\n" for page in range(LEAVES))
ACTIONS = {
    "continue": (HEAD, ALL_LEAVES, "base_only"),
    "zap": (HEAD + ALL_LEAVES, "dontneed A v 0 256M\n", "base_only"),
    "fork": (HEAD + ALL_LEAVES, "fork A B\n", "base_only"),
    "collapse": (HEAD + EACH_LEAF, "collapse A v 0 256M\n", "any"),
}
"""What each action needs before, itself, and the policy of leaves under which they run."""


class _Cell:
    """One scheme and action, prepared; `run` replays it."""

    def __init__(self, scheme, action):
        before, text, policy = ACTIONS[action]
        trace = Trace.parse(before + text, f"<{action}>")
        cut = len(Trace.parse(before, "<before>"))
        self.scheme, self.action, self.records, self.times, self.disturbed = scheme, action, trace.records[cut:], [], []
        self.machine = machine_for(trace, scheme, {"batch": "no", "transient": "real", "policy": policy})
        self.machine.run(trace.records[:cut])
        self.start, before = self.machine.snapshot(), self.machine.cost()
        self.machine.run(self.records)
        cost = self.machine.cost()
        done = sum(cost["atomics"][kind] - before["atomics"][kind] for kind in ("persistent", "transient"))
        self.leaves = (cost["leaf_removes"] if action == "collapse" else LEAVES) or 1
        self.atomics = done / self.leaves

    def run(self, memory) -> None:
        """One warm replay, with the cost of an atomic just before."""
        self.machine.restore(self.start, keep=True)
        before = _disturbances()
        atomic, disturbed = loops.run("atomic", memory, TURNS)
        ns = self.machine.run(self.records)
        disturbed |= _disturbances() != before
        (self.disturbed if disturbed else self.times).append((ns / self.leaves, atomic))

    def result(self) -> dict:
        """{"scheme", "action", "atomics", "ns", "atomic"} of a leaf; disturbed runs count where there are no others."""
        ns, atomic = np.min(self.times or self.disturbed, axis=0).tolist()
        return {"scheme": self.scheme, "action": self.action, "atomics": self.atomics, "ns": ns, "atomic": atomic}


def _disturbances():
    use = resource.getrusage(resource.RUSAGE_THREAD)
    return use.ru_nivcsw + use.ru_minflt + use.ru_majflt


def cells(tries=1):
    """Yield, after each of some tries, what each cell took at best until then, in CPU time of the thread; a list."""
    prepared = [_Cell(scheme, action) for action in ACTIONS for scheme in SCHEMES]
    memory = np.zeros(4096, np.uint8)
    for wanted in range(RUNS, RUNS * tries + 1, RUNS):
        for _ in range(2 * RUNS):    # in turn, so that a slow moment meets all
            for cell in prepared:
                if len(cell.times) < wanted:
                    cell.run(memory)
        yield [cell.result() for cell in prepared]


def check(atomic: float | None) -> tuple[str, list]:
    """("passed: ..." or "failed: ...", the cells) of the first of TRIES that passes, or of the last.

    atomic: ns of one, as the loops say; None: they said nothing.
    """
    verdict, found = "", []
    for found in cells(1 if atomic is None else TRIES):
        verdict = judge(found, atomic)
        if verdict.startswith("passed"):
            break
    return verdict, found


def judge(found: list, atomic: float | None) -> str:
    """"passed: ..." or "failed: ..." of cells, brought to the speed that the machine had when `atomic` was measured."""
    x = np.array([cell["atomics"] for cell in found])
    speed = atomic / min(cell["atomic"] for cell in found) if atomic else 1.0
    y = np.array([cell["ns"] * speed for cell in found])
    slope, intercept = np.polyfit(x, y, 1)
    fitted = intercept + slope * x
    r2 = 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    worst = int(np.argmax(np.abs(y - fitted)))
    largest = abs(y[worst] - fitted[worst])
    said = (f"ns a leaf = {intercept:.2f} + {slope:.2f} x atomics, R2 {r2:.4f}, largest residual {largest:.2f} ns "
            f"({found[worst]['scheme']}, {found[worst]['action']})")
    wrong = []
    if r2 < LEAST_R2:
        wrong.append(f"R2 is below {LEAST_R2}")
    if atomic is None or abs(slope / atomic - 1) > SLOPE:
        wrong.append("an atomic's cost is unknown" if atomic is None
                     else f"the slope is {slope / atomic - 1:+.0%} off an atomic's {atomic:.2f} ns")
    if largest > max(RESIDUAL, RESIDUAL_SHARE * fitted[worst]):
        wrong.append("a residual is too large")
    return f"failed: {'; '.join(wrong)}: {said}" if wrong else f"passed: {said}"

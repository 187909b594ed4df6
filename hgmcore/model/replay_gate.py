"""The model's form against warm replays here: is the simulator's own time an atomic's cost times their number?

Twelve cells: three schemes times four actions on one range of 256 MiB. ns a leaf = intercept + slope x counted atomics.
"""

from __future__ import annotations

import numpy as np

from hgmcore.replay import machine_for
from hgmcore.trace import Trace

SCHEMES = ("head_per_leaf", "nr_pages_mapped", "mm_id")
PAGES, LEAVES = 128, 128 * 512
RUNS = 7
LEAST_R2, SLOPE, RESIDUAL, RESIDUAL_SHARE = 0.98, 0.10, 1.0, 0.08

HEAD = f"""hgmcore-trace 1
file F 2M {PAGES}
mmap A v F 0 256M shared minor hgm wp
populate F 0 {PAGES}
"""
CONTINUES = "".join(f"continue A v {4 * page}K 4K\n" for page in range(LEAVES))
ACTIONS = {
    "continue": (HEAD, CONTINUES),
    "zap": (HEAD + CONTINUES, "dontneed A v 0 256M\n"),
    "fork": (HEAD + CONTINUES, "fork A B\n"),
    "collapse": (HEAD + CONTINUES, "collapse A v 0 256M\n"),
}
"""What each action needs before, and itself."""


def cells() -> list[dict]:
    """{"scheme", "action", "atomics", "ns"} of a leaf for each cell, medians of warm runs in CPU time of the thread."""
    found = []
    for action, (before, text) in ACTIONS.items():
        trace = Trace.parse(before + text, f"<{action}>")
        cut = len(Trace.parse(before, "<before>"))
        prepared, records = trace.records[:cut], trace.records[cut:]
        for scheme in SCHEMES:
            machine = machine_for(trace, scheme, {"batch": "no", "transient": "real"})
            machine.run(prepared)
            start, atomics, times = machine.snapshot(), machine.cost()["atomics"], []
            for _ in range(RUNS + 1):
                machine.restore(start)
                times.append(machine.run(records))
            cost = machine.cost()
            leaves = (LEAVES if action != "collapse" else cost["leaf_removes"]) or 1
            done = sum(cost["atomics"][kind] - atomics[kind] for kind in ("persistent", "transient"))
            found.append({"scheme": scheme, "action": action, "atomics": done / leaves,
                          "ns": float(np.median(times[1:])) / leaves})
    return found


def check(atomic: float | None) -> tuple[str, list]:
    """("passed: ..." or "failed: ...", the cells). atomic: ns of one, as the loops say; None: they said nothing."""
    found = cells()
    x, y = (np.array([cell[key] for cell in found]) for key in ("atomics", "ns"))
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
    return (f"failed: {'; '.join(wrong)}: {said}" if wrong else f"passed: {said}"), found

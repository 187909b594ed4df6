"""Fitting a profile, and the baselines, to the cells that are marked for it: Gauss-Newton with damping.

A cell in seconds gives two numbers, how far the time before and the time after are off in per cent; a cell that is a
change gives one, in points. No parameter may come below 0.
"""

from __future__ import annotations

import numpy as np

from hgmcore.kernel.published.cells import PTES
from hgmcore.kernel.published.counts import for_one, pages_of

PARAMETERS = ("atomic", "plain", "step", "stat",
              "kernel.munmap_freed.free", "kernel.fork.leaf", "kernel.munmap_freed.leaf")
"""What one PTE of fork and munmap is priced by."""

FREE = PARAMETERS[1:]
"""Those that are fitted; an atomic's cost is cited."""

START = dict(zip(PARAMETERS, (7.6, 2.0, 8.0, 35.0, 340.0, 32.0, 23.0)))
ATOMIC = (7.6, 0.5, 6.1, 9.1)
"""The cited cost of an atomic, its standard deviation, and the bounds of a draw of it."""

DRAWS, SEED = 1000, 1
FITTED = ("fork", "munmap")
"""Operations whose cells the fit takes; the share of a copy in a copying fault is fitted by itself."""


def vector(sums, operation):
    """A sum as numbers in the order of PARAMETERS."""
    return np.array([sums.get(name, 0.0) for name in PARAMETERS])


class Problem:
    """Cells as arrays. convert: a function of (sum, operation) to the numbers that the parameters are multiplied by."""

    def __init__(self, cells, convert=None):
        befores, afters, self.goal, timed = [], [], [], []
        for cell in cells:
            if cell.operation not in FITTED or pages_of(cell.folio) == 1:
                continue
            before, after = ((convert or vector)(for_one(cell, which), cell.operation) for which in ("before", "after"))
            befores.append(before)
            afters.append(after)
            timed.append(cell.seconds is not None)
            self.goal.append([1e9 * each / PTES for each in cell.seconds] if cell.seconds else [cell.published, 0.0])
        self.before, self.after, self.goal, self.timed = map(np.array, (befores, afters, self.goal, timed))

    def residuals(self, values):
        """How far each number is off, in per cent or points: of times, before and after by turns, then of changes."""
        before, after, timed = self.before @ values, self.after @ values, self.timed
        times = np.stack([before[timed], after[timed]], 1) / self.goal[timed] - 1
        changes = after[~timed] / before[~timed] - 1
        return np.concatenate([100 * times.ravel(), 100 * changes - self.goal[~timed, 0]])

    def slopes(self, values):
        """By how much each of them changes with each parameter."""
        before, after, timed = self.before @ values, self.after @ values, self.timed
        b, a = before[~timed, None], after[~timed, None]
        times = np.stack([self.before[timed], self.after[timed]], 1) / self.goal[timed][:, :, None]
        return 100 * np.concatenate([times.reshape(-1, len(values)),
                                     self.after[~timed] / b - self.before[~timed] * a / b ** 2])

    def solve(self, start, free, shift=0.0):
        """The values that fit best; free: which of them may change. shift: added to what is to be met (resampling)."""
        values, damping = np.array(start, float), 1e-3
        free = list(free)
        for _ in range(200):
            off = self.residuals(values) - shift
            slopes = self.slopes(values)[:, free]
            square = slopes.T @ slopes
            step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-12), -slopes.T @ off)
            new = values.copy()
            new[free] = np.maximum(new[free] + step, 0)
            again = self.residuals(new) - shift
            if again @ again <= off @ off:
                values, damping = new, damping / 3
                if off @ off - again @ again < 1e-12 * (off @ off):
                    break
            else:
                damping *= 5
        return values


def fit(cells, without=()) -> dict:
    """{parameter: ns} that fits the cells marked for it; without: parameters that are left out (0)."""
    start = [0.0 if name in without else START[name] for name in PARAMETERS]
    free = [PARAMETERS.index(name) for name in FREE if name not in without]
    return dict(zip(PARAMETERS, Problem(cells).solve(start, free).tolist()))


def intervals(cells, values) -> dict:
    """{parameter: (5th, 95th percentile)} of fits to resampled residuals, the atomic's cost drawn around its citation.
    """
    problem, random = Problem(cells), np.random.default_rng(SEED)
    best = np.array([values[name] for name in PARAMETERS])
    off = problem.residuals(best)
    widen = np.sqrt(len(off) / (len(off) - len(FREE)))
    free, draws = [PARAMETERS.index(name) for name in FREE], []
    for _ in range(DRAWS):
        start = best.copy()
        start[0] = np.clip(random.normal(*ATOMIC[:2]), *ATOMIC[2:])
        draws.append(problem.solve(start, free, random.choice(off, len(off)) * widen))
    low, high = np.percentile(draws, [5, 95], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(PARAMETERS) if name in FREE}


BASELINES = ("a + b atomics", "a(op) + b atomics")


def baseline(name, cells):
    """A function of (sum, operation) to ns a PTE that knows atomics alone, fitted on the same cells.

    "a + b atomics": two numbers; "a(op) + b atomics": an `a` for each operation.
    """
    def two(sums, operation):
        return np.array([1.0, sums.get("atomic", 0.0)])

    def three(sums, operation):
        forks = operation == "fork"
        return np.array([float(forks), float(not forks), sums.get("atomic", 0.0)])

    convert, start = (two, [40.0, 8.0]) if name == BASELINES[0] else (three, [40.0, 40.0, 8.0])
    values = Problem(cells, convert=convert).solve(start, range(len(start)))
    return lambda sums, operation: float(convert(sums, operation) @ values), values.tolist()

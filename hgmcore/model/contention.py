"""What one update of a line costs where several CPUs update it without pause.

    t(n) = t1 + h [n > 1] + g (n - 1) + q n (n - 1)      ns that an update takes each of n CPUs
    s(n) = t(n) / n                                      an update's share of the system

h: a line that leaves its CPU pays once. A bound, never part of a total: n CPUs need at least U s(n) for U updates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FAR_OUT = 4
"""A curve is refused beyond so many times the most CPUs that it was fitted to."""

TOO_FAR = 0.15
"""Where a point is further off than this without h, h is fitted as well."""


@dataclass(frozen=True)
class Curve:
    """A fitted curve. valid_to: the most CPUs of a point. error: the largest relative residual. points: (n, mean, min,
    max)."""

    t1: float
    h: float = 0.0
    g: float = 0.0
    q: float = 0.0
    valid_to: int = 2
    error: float = 0.0
    how: str = "measured"
    source: str = ""
    points: tuple = field(default=())

    def update(self, cpus: int) -> float:
        """Nanoseconds of one update for each of `cpus` CPUs. ValueError: the curve does not reach so far."""
        if cpus > FAR_OUT * self.valid_to:
            raise ValueError(f"the contention curve has points up to {self.valid_to} CPUs: {cpus} is too far out")
        return self.t1 + self.h * (cpus > 1) + self.g * (cpus - 1) + self.q * cpus * (cpus - 1)

    def share(self, cpus: int) -> float:
        """An update's share of the whole system's time."""
        return self.update(cpus) / cpus


def fit(points) -> Curve:
    """The curve through points (n, mean, min, max), of which n = 1 is one: least squares of relative errors.

    h, g and q are never below 0; h only where a point would be off by more than TOO_FAR without.
    """
    n, t = np.array([point[:2] for point in points], float).T
    t1, more = float(t[n == 1][0]), n > 1
    columns = {"h": np.ones(more.sum()), "g": n[more] - 1, "q": n[more] * (n[more] - 1)}

    def solve(names):
        if not names:
            return {}
        matrix = np.array([columns[name] for name in names]).T / t[more][:, None]
        found = np.linalg.lstsq(matrix, (t[more] - t1) / t[more], rcond=None)[0]
        if (found < 0).any():
            return solve(tuple(name for name, value in zip(names, found) if value > 0))
        return dict(zip(names, found.tolist()))

    for names in (("g", "q"), ("h", "g", "q")):
        curve = Curve(t1, **solve(names if more.sum() > 1 else ("g",)), valid_to=int(n.max()))
        error = max(abs(curve.update(int(x)) / y - 1) for x, y in zip(n, t))
        if error <= TOO_FAR:
            break
    return Curve(t1, curve.h, curve.g, curve.q, curve.valid_to, float(error), points=tuple(map(tuple, points)))

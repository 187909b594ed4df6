"""Sums of counts times costs, with their 90 % intervals.

A sum is a dict {parameter: count}; a parameter is the name of a cost in a profile, such as "atomic", "moved.l3.read" or
"kernel.continue.call". Costs are Values, low to high their 90 % intervals; they are treated as independent, so the
interval of a sum is a closed form, and what two sums share cancels in their difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NORMAL = 1.645
"""Standard deviations from the middle to either end of a 90 % interval."""

HOWS = ("measured", "cited", "fitted", "transferred", "assumed")
"""How a cost was got, strongest first."""

FORM = (1.5, 0.15)
"""What the form of the model itself gets wrong in a change against a kernel: standard deviation in points, and as a
share of the change. Set on published cells; doubled where K(op) is another processor's."""


@dataclass(frozen=True)
class Value:
    """A cost in ns with its 90 % interval. how: one of HOWS. source: from what."""

    ns: float
    low: float
    high: float
    how: str = "measured"
    source: str = ""

    @property
    def sd(self) -> float:
        return (self.high - self.low) / (2 * NORMAL)


@dataclass(frozen=True)
class Interval:
    """A number and its 90 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, by: float) -> Interval:
        """The interval times a factor above 0."""
        return Interval(self.value * by, self.low * by, self.high * by)

    def as_dict(self) -> dict:
        return {"value": self.value, "low": self.low, "high": self.high}


def around(value: float, sd: float) -> Interval:
    """The 90 % interval of a number with a standard deviation."""
    return Interval(value, value - NORMAL * sd, value + NORMAL * sd)


class MissingCost(ValueError):
    """A profile lacks costs that a sum needs. missing: {parameter: count}."""

    def __init__(self, missing):
        self.missing = dict(missing)
        super().__init__("no cost for " + ", ".join(f"'{name}' ({count:,} counted)" for name, count in missing.items()))


def minus(one: dict, other: dict) -> dict:
    """The difference of two sums, without what cancels."""
    found = {name: one.get(name, 0) - other.get(name, 0) for name in {**one, **other}}
    return {name: count for name, count in found.items() if count}


def plus(*sums: dict) -> dict:
    """One sum of all."""
    found = {}
    for one in sums:
        for name, count in one.items():
            found[name] = found.get(name, 0) + count
    return found


def value(costs: dict, counts: dict) -> float:
    """What a sum comes to. costs: {parameter: Value}. MissingCost names what has none."""
    missing = {name: count for name, count in counts.items() if count and name not in costs}
    if missing:
        raise MissingCost(missing)
    return math.fsum(count * costs[name].ns for name, count in counts.items() if count)


def interval(costs: dict, counts: dict) -> Interval:
    """The same with its 90 % interval."""
    return around(value(costs, counts), _spread(costs, counts))


def _spread(costs, counts):
    return math.sqrt(math.fsum((count * costs[name].sd) ** 2 for name, count in counts.items() if count))


def change(costs: dict, before: dict, after: dict, form=0.0) -> Interval:
    """By how many per cent `after` differs from `before`.

    form: 1 adds the model's own error as where K(op) was fitted or measured on that processor, 2 as where it was
    transferred; 0 leaves it out, as between two schemes on one trace.
    """
    base = value(costs, before)
    ratio = (value(costs, after) - base) / base
    found = {name: after.get(name, 0) - (1 + ratio) * before.get(name, 0) for name in {**before, **after}}
    return with_form(100 * ratio, 100 * _spread(costs, found) / base, form)


def with_form(points: float, sd: float, form: float) -> Interval:
    """A change in points whose parameters have the standard deviation `sd`, with the form's own error."""
    return around(points, math.sqrt(sd ** 2 + (form * FORM[0]) ** 2 + (form * FORM[1] * points) ** 2))


def leans_on(costs: dict, counts: dict) -> str:
    """The weakest of HOWS among the costs that a sum uses; "measured" for an empty one."""
    return max((costs[name].how for name, count in counts.items() if count), key=HOWS.index, default=HOWS[0])


def share(costs: dict, part: dict, whole: dict) -> Interval:
    """What per cent of `whole` is `part`, a sum that `whole` has in it."""
    of = value(costs, whole)
    ratio = value(costs, part) / of
    rest = {name: part.get(name, 0) - ratio * whole.get(name, 0) for name in {**part, **whole}}
    return around(100 * ratio, 100 * _spread(costs, rest) / of)

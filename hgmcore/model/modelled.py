"""Modelled time: what a counted trace takes under a profile, accounting alone and the whole of each operation."""

from __future__ import annotations

from hgmcore.model import linear
from hgmcore.model.events import CLASSES, NO_K
from hgmcore.model.linear import MissingCost
from hgmcore.model.profile import DISTANCES, KINDS, PARTS, ProfileError

PROCESSORS = (1, 2, 16, 48, 128)
"""Numbers of processors that the bound of contention is given for."""

DISTANCE = "l3"
"""How far lines move between CPUs unless somebody says otherwise."""

TOLD_APART = {"total": 0.01, "accounting": 0.02}
"""The least difference that ranks two schemes, as a share of the other's cost."""


def accounting(events: dict, distance=DISTANCE) -> dict:
    """The sum of what a scheme itself does. events: {class: count} of model.events."""
    if distance not in DISTANCES:
        raise ValueError(f"spread: '{distance}' is not one of {', '.join(DISTANCES)}")
    moved = {f"moved_{kind}": f"moved.{distance}.{kind}" for kind in KINDS}
    return {moved.get(name, name): events[name] for name in CLASSES if events[name]}


def kernel(profile, found: dict) -> tuple[dict, dict]:
    """(the sum of K(op), {operation or row without a cost: how often}) of one phase of Counted.kernel.

    A part of a row that the profile leaves out is in its other parts.
    """
    counts, without = {}, dict(found.get(NO_K, {}))
    for row, parts in found.items():
        names = {part: f"kernel.{row}.{part}" for part in PARTS}
        if row == NO_K:
            continue
        if not any(name in profile.costs for name in names.values()):
            without[row] = parts["call"]
            continue
        counts.update({name: parts[part] for part, name in names.items() if name in profile.costs and parts[part]})
    return counts, without


def price(profile, counted, distance=DISTANCE) -> dict:
    """A scheme's modelled times: "accounting" and "total", 90 % intervals in ns an operation, and what they lean on.

    counted: of model.events.count_events. "share": accounting in per cent of the total; "phases" has the same by
    phase, with "ns_per_leaf" of accounting; "no_total" the operations without a K(op), for which there is no total;
    "processors" the bound of contention; "sums" the sums over the whole trace, for differences. ProfileError: the
    profile lacks a cost that the trace needs.
    """
    phases = {name: _priced(profile, counted.events[name], counted.kernel[name], counted.operations[name], distance)
              for name in counted.phases}
    sums = {"accounting": linear.plus(*(accounting(counted.events[name], distance) for name in counted.phases)),
            "kernel": linear.plus(*(kernel(profile, counted.kernel[name])[0] for name in counted.phases))}
    whole = _entry(profile, sums["accounting"], sums["kernel"], _all_without(profile, counted),
                   sum(counted.operations.values()), sum(_leaves(each) for each in counted.events.values()))
    return {**whole, "cpus": counted.cpus, "phases": phases, "processors": processors(profile, counted),
            "hottest": counted.hottest, "events": counted.total(), "sums": sums}


def _all_without(profile, counted):
    return linear.plus(*(kernel(profile, counted.kernel[name])[1] for name in counted.phases))


def _leaves(events):
    return events["installs"] + events["removes"]


def _priced(profile, events, found, operations, distance):
    return _entry(profile, accounting(events, distance), *kernel(profile, found), operations, _leaves(events))


def _entry(profile, mine, work, without, operations, leaves):
    costs = profile.costs
    try:
        own = linear.interval(costs, mine)
    except MissingCost as error:
        raise ProfileError(f"profile {profile.name}: {error}; another profile, or --assume CLASS=NS:LOW:HIGH") from None
    found = {"accounting": own.scaled(1 / max(operations, 1)).as_dict(), "leans_on": linear.leans_on(costs, mine)}
    if leaves:
        found["ns_per_leaf"] = own.scaled(1 / leaves).as_dict()
    if profile.kind != "kernel":
        return found
    if without:
        return {**found, "no_total": without}
    whole = linear.plus(mine, work)
    if any(whole.values()):
        found["total"] = linear.interval(costs, whole).scaled(1 / max(operations, 1)).as_dict()
        found["share"] = linear.share(costs, mine, whole).as_dict()
        found["total_leans_on"] = linear.leans_on(costs, whole)
    return found


def processors(profile, counted) -> dict:
    """{CPUs: {"ns": at least, for all updates of the line that is written most} or {"why": none}}; a bound."""
    if profile.curve is None:
        return {str(n): {"why": f"{profile.name} has no contention curve"} for n in PROCESSORS}
    updates = counted.hottest[0]["updates"] if counted.hottest else 0
    found = {}
    for n in PROCESSORS:
        try:
            found[str(n)] = {"ns": updates * profile.curve.share(n), "ns_per_update": profile.curve.update(n)}
        except ValueError as error:
            found[str(n)] = {"why": str(error)}
    return found


def against(profile, one: dict, other: dict) -> dict:
    """How `one` differs from `other`, two results of price() of the same trace: what they share cancels.

    "difference" in ns an operation of `one`'s trace; "percent" of the other's "basis", its total or, where there is
    none, its accounting; "mark": "<" or ">" where they are told apart, else "~"; with "?" where that leans on an
    assumed cost.
    """
    basis = "total" if "total" in one and "total" in other else "accounting"
    mine, theirs = one["sums"]["accounting"], other["sums"]["accounting"]
    counts = linear.minus(mine, theirs)    # K(op) is the same: no scheme changes it
    whole = linear.plus(theirs, other["sums"]["kernel"]) if basis == "total" else theirs
    found = linear.interval(profile.costs, counts)
    base = linear.value(profile.costs, whole)
    told = (found.low > 0 or found.high < 0) and abs(found.value) >= TOLD_APART[basis] * base
    mark = ("<" if found.value < 0 else ">") if told else "~"
    if told and linear.leans_on(profile.costs, counts) == "assumed":
        mark += "?"
    scale = 100 / base if base else 0.0
    return {"difference_ns": found.as_dict(), "percent": found.scaled(scale).as_dict(), "basis": basis, "mark": mark}

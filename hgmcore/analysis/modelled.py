"""Modelled times in a comparison: each scheme's accounting and whole operations under one profile."""

from __future__ import annotations

from hgmcore.model.events import count_events
from hgmcore.model.linear import Value
from hgmcore.model.modelled import DISTANCE, against, price
from hgmcore.model.profile import DISTANCES, Profile, ProfileError, load


def profile_of(profile, assume=None) -> Profile:
    """The profile that `profile` (a name, a path or a Profile) is, with what is assumed. ProfileError.

    assume: {parameter: (ns, low, high)}.
    """
    found = profile if isinstance(profile, Profile) else load(profile)
    return found.assuming({name: assumed(name, *three) for name, three in (assume or {}).items()})


def assumed(name, ns, low, high) -> Value:
    """A Value that somebody assumed. ProfileError: the numbers are no interval."""
    if not 0 <= low <= ns <= high:
        raise ProfileError(f"--assume {name}: {ns:g} is not between {low:g} and {high:g}, from 0 on")
    return Value(float(ns), float(low), float(high), "assumed", "--assume")


def check_placed(cpus, spread) -> None:
    """ValueError unless the CPUs that run a trace are at least one, or None, and their distance has a name, or is None.
    """
    if cpus is not None and cpus < 1:
        raise ValueError(f"cpus: {cpus} is not a number of processors")
    if spread is not None and spread not in DISTANCES:
        raise ValueError(f"spread: '{spread}' is not one of {', '.join(DISTANCES)}")


def order(profile, priced) -> list[dict]:
    """The schemes from the cheapest on: {"scheme", "percent" more than the cheapest, "mark"}; [] of none.

    priced: those that did the same work.
    """
    if not priced:
        return []
    key = "total" if all("total" in found for found in priced.values()) else "accounting"
    names = sorted(priced, key=lambda name: priced[name][key]["value"])
    found = {name: against(profile, priced[name], priced[names[0]]) for name in names}
    return [{"scheme": name, "percent": one["percent"]["value"], "mark": one["mark"]} for name, one in found.items()]


def add_modelled(entries, baseline, trace, engines, phases, profile, *, cpus=None, spread=None, progress=None,
                 **options) -> tuple[dict, dict]:
    """Add "modelled" to the entries of schemes; returns {name: result of price()}, and what they have in common.

    engines: {name: engine}. baseline: the scheme that others are held against. progress: called as progress(schemes
    done, the next one). ProfileError: the profile lacks what is needed.
    """
    spread, priced = spread or DISTANCE, {}
    for done, (name, engine) in enumerate(engines.items()):
        if progress:
            progress(done, name)
        try:
            counted = count_events(trace, engine, profile.processor["l2_bytes"], cpus=cpus, phases=phases, **options)
        except LookupError as error:
            entries[name]["modelled_why"] = str(error)
            continue
        priced[name] = price(profile, counted, spread)
    base = priced.get(baseline)
    for name, found in priced.items():
        entries[name]["modelled"] = {**{key: found[key] for key in found if key != "sums"},
                                     **({"against": against(profile, found, base)} if base else {})}
    kinds = {file.kind for file in trace.header.files}
    return priced, {
        "unit": "ns", "interval": 0.9, "kind": profile.kind, "spread": spread,
        "cpus": max((found["cpus"] for found in priced.values()), default=1),
        "surrogate": profile.kind == "kernel" and "hugetlb" in kinds, "transferred": profile.transferred,
        "warnings": [*profile.warnings, *([f"check against warm replays: {profile.replay_gate}"]
                                          if profile.replay_gate.startswith("failed") else [])]}

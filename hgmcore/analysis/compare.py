"""One trace under several schemes: what each costs, what it breaks, and what follows from that.

Every number is labelled as what it is: counted (exact, the same on every machine), modelled, or measured on this one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

import numpy as np

from hgmcore import inputs
from hgmcore import schemes as known_schemes
from hgmcore.analysis.count import count, count_batched
from hgmcore.analysis.errors import Errors
from hgmcore.analysis.judge import baseline as choose_baseline
from hgmcore.analysis.judge import less_work
from hgmcore.analysis.long import Comparison
from hgmcore.analysis.maps import maps_of
from hgmcore.analysis.measure import ROUNDS, host, measure
from hgmcore.analysis.modelled import add_modelled, check_placed, order, profile_of
from hgmcore.analysis.struct_pages import STRUCT_PAGE, struct_pages
from hgmcore.analysis.verdict import verdict
from hgmcore.api import SchemeLike
from hgmcore.core.core import PROPERTIES, Engine
from hgmcore.geometry import GEOMETRIES
from hgmcore.options import resolve
from hgmcore.sizes import parse_named
from hgmcore.threads import checked
from hgmcore.trace.describe import describe
from hgmcore.trace.phases import phases as phases_of

FORMAT = "hgmcore-compare 2"


def compare(trace: Any = None, schemes: SchemeLike | Iterable[SchemeLike] = "all", repeat: int = ROUNDS, *,
            every: int | None = None, baseline: str | Engine | None = None, threads: int = 1, machine: int | str = "1T",
            profile: str | None = None, cpus: int | None = None, spread: str | None = None,
            assume: dict[str, tuple[float, float, float]] | None = None,
            progress: Callable[[int, int, str], object] | None = None, **options: Any) -> Comparison:
    """Run a trace under several schemes: what each costs, what it gets wrong, and what follows from that.

    Parameters
    ----------
    trace : Trace, str, path or lines, optional
        Whatever `hgmcore.load` takes; None: a guest's life, the input of ``hgmcore compare``.
    schemes : str, Engine, class, table, or iterable of these
        "all", a name, names separated by commas, an engine.
    repeat : int
        Timed runs of each scheme, interleaved, behind one that is dropped; 0 leaves the measured numbers out, so that
        the result is the same on every machine.
    every : int, optional
        Operations between two observations; None: about 64 observations in all.
    baseline : str or Engine, optional
        The scheme that others are compared with.
    threads : int
        Native threads of the timed runs.
    machine : size
        Memory of the machine whose struct pages are modelled.
    profile : str, optional
        The name, or file, of a processor's profile, under which times are modelled.
    cpus : int, optional
        CPUs that the trace's threads run on in the model; None: one for each.
    spread : str, optional
        How far lines move between them in the model.
    assume : dict, optional
        {cost: (ns, low, high)} that the profile lacks.
    progress : callable, optional
        Called with (replays done, replays in all, what runs next).
    **options
        Options of `hgmcore.options.OPTIONS`, which hold for every scheme.

    Returns
    -------
    Comparison
        A dict of plain JSON types, format "hgmcore-compare 2" (``hgmcore help json``), and a table (`to_pandas`,
        `to_arrow`). A scheme that cannot live with the options has a reason, ``refused_why``, instead of numbers.

    Raises
    ------
    ValueError
        Unknown scheme or option, a value that an option does not take, or no scheme can live with the options.
    TraceError
        The trace cannot be used.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> found = hgm.compare("workload:sequential,page_size=2M", "mm_id,subtree", repeat=0)
    >>> {name: one["cost"]["atomics"]["persistent"] for name, one in found["schemes"].items()}
    {'mm_id': 4100, 'subtree': 1026}
    """
    trace = inputs.load_input(trace)
    engines = engines_of(schemes)
    for name, number, least in (("repeat", repeat, 0), ("every", 1 if every is None else every, 1)):
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise ValueError(f"{name}: {number!r} is not a whole number from {least} on")
    baseline = getattr(baseline, "name", baseline)
    checked(threads)
    machine_size = parse_named("machine", machine)
    base_page = GEOMETRIES[trace.header.geometry].base_page
    if machine_size < base_page:
        raise ValueError(f"machine: {machine_size} bytes are no memory, which has {base_page} at least")
    found_profile = None if profile is None else profile_of(profile, assume)
    check_placed(cpus, spread)
    cut = phases_of(trace)
    entries = {engine.name: _entry(engine, trace.header, options, machine_size) for engine in engines}
    able = {engine.name: engine for engine in engines if "refused_why" not in entries[engine.name]}
    if not able:
        raise ValueError(next(iter(entries.values()))["refused_why"])
    against = choose_baseline(list(able), trace.header, baseline)
    report = progress or (lambda done, total, what: None)
    total = len(able) * (1 + (repeat + 1 if repeat else 0) + (found_profile is not None))
    begun = 0
    if found_profile:    # first, as the profile may lack what the trace needs
        priced, common = add_modelled(entries, against, trace, able, cut, found_profile, cpus=cpus, spread=spread,
                                      progress=lambda done, name: report(done, total, f"events of {name}"), **options)
        begun = len(able)

    observed = {}
    for done, (name, counted) in enumerate(_counted(trace, able, cut, every, options), begun):
        report(done, total, f"counting {name}")
        found = counted()
        observed[name] = found.pop("errors")
        entries[name].update(found, errors=observed[name].result())
    less = less_work({name: entries[name] for name in able})
    _extra_copies({name: entries[name] for name in able}, less)
    if found_profile:
        common["order"] = order(found_profile, {name: priced[name] for name in priced if name not in less})
    if repeat:
        memory = {name: entries[name]["memory"] for name in able}
        sizes = {name: memory[name]["tables_peak"] + memory[name]["host_committed"] for name in able}
        times = measure(trace, able, cut, sizes, repeat, threads,
                        lambda done, what: report(begun + len(able) + done, total, what), **options)
        for name in able:
            entries[name]["measured"] = times[name]
    for name in less:
        entries[name]["less_work"] = less[name]
    result = {
        "format": FORMAT,
        "trace": {**describe(trace), "question": inputs.question(trace), "phases": _phases(cut),
                  "most_processes_on_a_page": max(errors.most_processes for errors in observed.values())},
        "options": {key: entries[against]["options"][key] for key in options},
        "differing_options": differing_options({name: entries[name]["options"] for name in able}),
        "baseline": against, "profile": found_profile and found_profile.name, "repeat": repeat, "threads": threads,
        "observations": next(iter(observed.values())).observations,
        "machine": host() if repeat else None, "machine_size": machine_size,
        "labels": LABELS,
        **({"modelled": common} if found_profile else {}),
        "schemes": entries,
    }
    report(total, total, "done")
    result["errors_at"] = {name: [[index, found] for index, found in observed[name].at if found] for name in able}
    result["verdict"] = verdict(result)
    return Comparison(result)


LABELS = {"cost": "counted", "phases": "counted", "errors": "counted", "refused": "counted", "less_done": "counted",
          "maps_of": "counted", "measured": "measured", "modelled": "modelled", "memory.struct_pages": "modelled",
          "memory.struct_pages_hvo": "modelled", "memory.tables_peak": "counted", "memory.scheme": "modelled",
          "memory.host_committed": "counted", "struct_pages": "modelled"}
"""What kind of number stands under each key of a scheme's entry."""


def _counted(trace, engines, cut, every, options):
    """Yield (name, function that waits for what is counted) of each scheme.

    Passes run on two threads, as the core runs without the GIL, if two machines fit well into memory and this is no
    process of many, as those of a sweep are.
    """
    def one(engine):
        found = count(trace, engine, cut, every=every, **options)
        rest = found.pop("rest")
        return {**found, "phases_batched": count_batched(trace, engine, cut, found, rest, **options),
                "maps_of": maps_of(engine, trace.header, **options)}
    base = GEOMETRIES[trace.header.geometry].base_page
    struct_page_bytes = sum(file.page_size * file.pages for file in trace.header.files) // base * STRUCT_PAGE
    alone = multiprocessing.parent_process() is None
    with ThreadPoolExecutor(COUNTERS if struct_page_bytes <= SMALL and alone else 1) as pool:
        try:
            for name, future in [(name, pool.submit(one, engine)) for name, engine in engines.items()]:
                yield name, future.result
        finally:
            pool.shutdown(cancel_futures=True)


COUNTERS = 2
"""Threads that count."""

SMALL = 1 << 30
"""Bytes of struct pages up to which several schemes are counted at the same time."""


def engines_of(schemes) -> list:
    """The engines that `schemes` ("all", "a,b", an engine, or an iterable of these) stands for, each once.

    Raises ValueError for a name that is not known, and for no name at all; TypeError for what is no name nor engine.
    """
    engines = {}
    for one in [schemes] if isinstance(schemes, str) or not isinstance(schemes, Iterable) else schemes:
        if not isinstance(one, str) and not hasattr(one, "explanation"):
            raise TypeError(f"schemes: {one!r} is neither a name nor an engine")
        names = [name.strip() for name in one.split(",")] if isinstance(one, str) else []
        names = [each for name in names for each in (known_schemes.names() if name == "all" else [name]) if each]
        for engine in map(known_schemes.load, names) if isinstance(one, str) else [one]:
            engines.setdefault(engine.name, engine)
    if not engines:
        raise ValueError("no scheme is named")
    return list(engines.values())


def _entry(engine, header, options, machine_size):
    """What is known of a scheme before anything runs."""
    reason = why_refused(engine, options)
    return {"summary": engine.explanation.strip().splitlines()[0],
            "promises": [name for name in PROPERTIES if name not in engine.exceptions],
            "exceptions": dict(engine.exceptions), "hvo": not engine.writes_tails,
            "struct_pages": struct_pages(engine, header, machine_size),
            **({"refused_why": reason} if reason else {})}


def differing_options(options) -> dict:
    """{option: {value: [scheme]}} of the options (scheme -> option -> value) that are not the same for all schemes.

    Each scheme has the era, and the order of look-up and walk, of its kernel or posting where nobody asks for others.
    """
    found = {}
    for name, values in options.items():
        for option, value in values.items():
            found.setdefault(option, {}).setdefault(value, []).append(name)
    return {option: values for option, values in found.items() if len(values) > 1}


def why_refused(engine, options):
    """The reason why a scheme cannot live with `options`, None if it can.

    Only hvo=on makes one; ValueError for an option or value that no scheme takes.
    """
    try:
        resolve(engine, dict(options))
    except ValueError as error:
        if not engine.writes_tails or options.get("hvo") != "on":
            raise
        resolve(engine, {**options, "hvo": "off"})
        return str(error)
    return None


def _phases(cut):
    """Where each phase begins first, and how many operations it has."""
    return [{"name": name, "first": int((cut.number == index).argmax()), "declared": cut.declared,
             "operations": int((cut.number == index).sum())} for index, name in enumerate(cut.names)]


def _extra_copies(entries, less):
    """Folios of anonymous memory that a scheme allocated beyond the least that any scheme needed for the same trace.

    Schemes that did less of the work (`less`) are no measure of the least.
    """
    folios = {name: entry.pop("anonymous") for name, entry in entries.items()}
    least = np.min([number for name, number in folios.items() if name not in less] or list(folios.values()), axis=0)
    for name, number in folios.items():
        copies = Errors({})
        copies.grew("copies_made", np.maximum(np.array(number) - least, 0).tolist())
        entries[name]["errors"]["consequences"].update(copies.result()["consequences"])

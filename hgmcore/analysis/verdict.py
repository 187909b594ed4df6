"""The verdict: sentences made from the numbers of a comparison by the rules of this file, and by nothing else.

A scheme is judged by criteria, each a number that is better the smaller it is. One scheme beats another if it is
nowhere worse and somewhere better. Counted numbers compare exactly, but for SLIGHT differences of atomics a leaf;
measured ones differ only where the interval of their ratio does not hold 1 and the ratio is at least APART. Schemes
that did less of the work are judged by nothing but what goes wrong under them. The front are those that no other beats.

`answers` are few and short: who is beaten by whom, the time of the longest phase, what decides, what goes wrong. A
sentence names up to three schemes and counts more, as the table under it shows which; but all that are beaten, or
break a promise of their own, are named, and up to six under which nothing goes wrong. `details` has a sentence for each
scheme: on what which other one beats it, or what it costs and breaks.
"""

from __future__ import annotations

from statistics import median

from hgmcore.analysis.judge import broken, less_work, ran
from hgmcore.analysis.measure import NOISY, ROUNDS, change
from hgmcore.analysis.words import NAMED, WORDS, from_to, how, listed, power, who
from hgmcore.geometry import GEOMETRIES
from hgmcore.sizes import format_size, parse_size

MANY = 1000
"""Leaves from which on a phase is long enough to time."""

APART = 1.2
"""The ratio from which on two times are told apart. On a loaded machine smaller differences come and go."""

SHARE = 0.01
"""Of the time of the whole trace under the baseline: a phase that takes less is too short to decide by its time."""

SLIGHT = 0.05
"""Atomics a leaf: a smaller difference is of the few operations that allocate a table, and counts as none."""

MANY_REFUSED = 0.1
"""Of all operations: if more are refused under every scheme, the trace does not do what it says."""

MUCH = 512
"""Entries: a scan for one operation that reads more than one page table is told."""

FEW = 6
"""Schemes under which nothing goes wrong that are named one by one, as they are what a reader looks for."""

UNTESTED = {
    "fork and its copies": ("fork",), "unmapping": ("dontneed", "munmap"), "collapse": ("collapse",),
    "migration": ("migrate",), "truncation and hole punching": ("punch", "truncate"), "memory failure": ("hwpoison",),
}
"""What an input may leave out: the operations that test it."""

HUGETLB_ALONE = ("migrate", "hwpoison")
"""Operations that are EINVAL on other memory, which they cannot test."""


def verdict(result) -> dict:
    """The verdict of a result of `compare`, as `hgmcore-compare 2` has it."""
    schemes = ran(result)
    less = less_work(schemes)
    full = {name: entry for name, entry in schemes.items() if name not in less}
    beaten = _beaten({name: _criteria(result, entry) for name, entry in full.items()})
    tested = any(entry["leaves"] for entry in full.values())
    more = [*_memory(result, full), *_overflow(result, full), *_scans(full)]
    answers = [*_dominated(result, full, beaten), *_time(result, full), *_decides(result, full),
               *_broken(result, schemes), *_errors(result, schemes, full), " ".join(more)]
    details = {name: _detail(result, entry, beaten.get(name)) for name, entry in full.items()}
    return {"answers": list(filter(None, answers)) if tested else [NOTHING, *_refused(schemes, 0)],
            "front": [name for name in full if name not in beaten], "beaten": beaten,
            "details": details if tested else {},
            "untested": _untested(result, tested),
            "warnings": [*(_refused(schemes, MANY_REFUSED) if tested else []), *_unseen(full),
                         *_warnings(result, full)]}


ATOMICS = "atomics a leaf"
NOTHING = "Nothing was tested: no scheme mapped or unmapped anything."


def _criteria(result, entry) -> dict:
    """{key: number}: what a scheme is judged by; a time is an interval of `measure`."""
    found = {}
    for phase, counts in entry["phases"].items():
        if counts["leaves"]:
            found[f"{ATOMICS} in {phase}"] = _atomics(counts)
    found["entries scanned for one operation"] = worst_scan(entry)
    for size, needed in entry["struct_pages"].items():
        found[f"struct pages of {size} pages"] = needed
    size = largest_page(result)
    if maps_of(entry, size):
        found[f"maps of a {size} page"] = -maps_of(entry, size)
    for group in ("own", "per_page", "consequences"):
        for key in WORDS:
            count = entry["errors"][group].get(key)
            for part in ("observations", "worst") if count or group == "consequences" else ():
                found[f"{group}: {key}, {part}"] = count[part] if count else 0
    if "measured" in entry and result["repeat"] >= ROUNDS and not entry["measured"]["short"]:
        for phase in entry["measured"]["phases"]:
            if entry["phases"][phase]["leaves"] > MANY and _share(result, phase) >= SHARE:
                found[f"time in {phase}"] = per_leaf(entry, phase)
    return found


def _share(result, phase) -> float:
    """What part of the baseline's time a phase takes."""
    base = result["schemes"][result["baseline"]]
    times = {name: base["phases"][name]["operations"] * interval["median"]
             for name, interval in base["measured"]["phases"].items()}
    return times.get(phase, 0) / (sum(times.values()) or 1)


def largest_page(result) -> str | None:
    """The largest huge page of the input, as "1G", of the sizes for which mappings until an overflow are counted."""
    counted = dict.fromkeys(size for entry in ran(result).values() for size in entry.get("maps_of", ()))
    used = [size for size in counted if parse_size(size) in [file["page_size"] for file in result["trace"]["files"]]]
    return max(used, key=parse_size, default=None)


def maps_of(entry, size) -> int | None:
    """Mappings of a page of `size` after which a count overflows; None where that is not known."""
    return entry.get("maps_of", {}).get(size)


def _atomics(counts) -> float:
    """Atomics a leaf of a phase, those that look-ups put back too."""
    return (counts["atomics"]["persistent"] + counts["atomics"]["transient"]) / counts["leaves"]


def worst_scan(entry) -> int:
    """The most page-table entries that a scheme read for one operation of the whole trace."""
    return max((counts["scanned"]["max"] for counts in entry["phases"].values()), default=0)


def per_leaf(entry, phase) -> dict:
    """The measured time of a leaf in a phase, an interval of `measure`."""
    scale = entry["phases"][phase]["operations"] / entry["phases"][phase]["leaves"]
    times = entry["measured"]["phases"][phase]
    return {**{key: scale * times[key] for key in ("median", "low", "high")},
            "runs": [scale * run for run in times["runs"]]}


def smaller(one, other, slight=0.0) -> bool:
    """Is one criterion of a scheme better than another's? slight: a counted difference that is none."""
    if not isinstance(one, dict):
        return other - one > slight
    factor = change(one, other)
    return factor["high"] < 1 and factor["median"] <= 1 / APART


def _better(one, other) -> list[str]:
    """The keys on which `one` is better than `other`.

    An error that a scheme has not is 0; what a scheme did not do is not judged.
    """
    keys = dict.fromkeys([*one, *other])
    return [key for key in keys if (key in one and key in other or ": " in key)
            and smaller(one.get(key, 0), other.get(key, 0), SLIGHT if key.startswith(ATOMICS) else 0)]


def _beats(one, other) -> bool:
    return bool(_better(one, other)) and not _better(other, one)


def _beaten(criteria) -> dict:
    """{name: {"by": another, "on": [key]}} of schemes that another beats: one that is not beaten, and beats most."""
    beats = {name: [other for other in criteria if other != name and _beats(criteria[name], criteria[other])]
             for name in criteria}
    losers = {other for others in beats.values() for other in others}
    found = {}
    for name in (name for name in criteria if name in losers):
        winners = [other for other in criteria if name in beats[other]]
        by = max(winners, key=lambda other: (other not in losers, len(beats[other])))
        found[name] = {"by": by, "on": _better(criteria[by], criteria[name])}
    return found


def _dominated(result, full, beaten):
    """Who is beaten by whom; or that nobody is, or that nobody can be, and why."""
    if len(full) < 2:
        return []
    if not beaten:
        counted = [{key: value for key, value in _criteria(result, entry).items() if not isinstance(value, dict)}
                   for entry in full.values()]
        if all(not _better(one, other) for one in counted for other in counted):
            base = GEOMETRIES[result["trace"]["geometry"]].base_page
            single = result["trace"]["files"] and all(file["page_size"] == base for file in result["trace"]["files"])
            why = ": each of its folios is one base page" if single else ""
            return [f"The schemes do not differ on this input in anything that is counted{why}."]
        return ["No scheme beats another (nowhere worse, somewhere better)."]
    by = {}
    for name, found in beaten.items():
        by.setdefault(found["by"], []).append(name)
    said = [f"{winner} beats {listed(names, len(names))}" for winner, names in by.items()]
    return [f"{'; '.join(said)} (nowhere worse, somewhere better)."]


def longest_phase(result) -> str | None:
    """The phase whose times are told: the one with most operations of those that are long under the baseline."""
    base = result["schemes"][result["baseline"]]
    long = [phase for phase in base.get("measured", {}).get("phases", ()) if base["phases"][phase]["leaves"] > MANY]
    return max(long, key=lambda phase: base["phases"][phase]["operations"], default=None)


def _time(result, full):
    """Who is faster than the baseline and who slower in the longest phase, of those that did the same work."""
    base = result["baseline"]
    timed = {name: entry["measured"] for name, entry in full.items() if "measured" in entry}
    if base not in timed or len(timed) < 2 or result["repeat"] < ROUNDS or timed[base]["short"]:
        return []
    phase = longest_phase(result)
    if phase is None:
        return [_against("an operation", base, {name: one["ns_per_operation"] for name, one in timed.items()
                                                if same_work(full[name], full[base])}, full)]
    return [_against(f"a leaf in {phase}", base, {name: per_leaf(full[name], phase) for name in timed
                                                  if same_work(full[name], full[base], phase)}, full)]


def same_work(one, other, phase=None) -> bool:
    """Did two schemes install and remove as many leaves, in all or in a phase? Else their times do not compare."""
    mine, theirs = (entry["phases"][phase]["leaves"] if phase else entry["leaves"] for entry in (one, other))
    return abs(mine - theirs) <= 0.01 * theirs


def _against(what, base, times, full):
    """A sentence on times of one kind: the baseline's, and who of `full` differs from it. No order among those."""
    less, more = {}, {}
    for name in times:
        if name != base:
            changed = 100 * (change(times[name], times[base])["median"] - 1)
            if smaller(times[name], times[base]):
                less[name] = changed
            elif smaller(times[base], times[name]):
                more[name] = changed
    middle, low, high = (f"{times[base][key]:.3g}" for key in ("median", "low", "high"))
    parts = [f"Time of {what} (measured): {middle} ns [{low}, {high}] under {base}"]
    for group, word in ((less, "less"), (more, "more")):
        if group:
            ends = sorted(group.values(), key=abs)[::len(group) - 1 or 1]
            ends = dict.fromkeys(f"{abs(value):.0f}" for value in ends)
            parts.append(f"{' to '.join(ends)} % {word} under {who(group, len(full), sort=True)}")
    rest = len(times) - 1 - len(less) - len(more)
    if rest:
        parts.append(f"{rest} other{'s' * (rest > 1)} tie{'s' * (rest == 1)} (~)")
    if len(times) < len(full):
        parts.append(f"{len(full) - len(times)} did other work there")
    return f"{'; '.join(parts)}."


def _decides(result, full):
    """What decides between schemes: the phases in which atomics differ most, in both readings of `batch`."""
    found = []
    for phase in (phase["name"] for phase in result["trace"]["phases"]):
        ends, leaves = _ends([entry["phases"][phase] for entry in full.values()])
        if ends[1] - ends[0] >= 0.5:
            found.append((-leaves * (ends[1] - ends[0]), _span(ends), phase))
    told = {}
    for _, span, phase in sorted(found)[:NAMED]:
        other, _ = _ends([{**entry["phases"], **entry.get("phases_batched", {})}[phase] for entry in full.values()])
        reading = "6.12" if result["options"].get("batch", "no") == "no" else "no"
        told.setdefault((span, "" if _span(other) == span else f" ({_span(other)} with batch={reading})"),
                        []).append(phase)
    parts = [f"{span} in {listed(phases)}{other}" for (span, other), phases in told.items()]
    return [f"Atomics a leaf: {'; '.join(parts)}."] if parts else []


def _ends(counts):
    """((least, most) atomics a leaf, median of leaves) of a phase under several schemes, of those with MANY leaves."""
    counts = [one for one in counts if one["leaves"] > MANY]
    values = [_atomics(one) for one in counts]
    return (min(values, default=0), max(values, default=0)), median(one["leaves"] for one in counts) if counts else 0


def _span(ends):
    low, high = (f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}" if value >= 0.01 else "0" for value in ends)
    return f"{low} to {high}" if low != high else low


SMAPS = ("pss_error_bytes", "smaps_shared_error_bytes")


def _broken(result, schemes):
    """Who breaks a promise of its own that its file does not take back."""
    breaks = {}
    for name, entry in schemes.items():
        for key, count in broken(entry).items():
            breaks.setdefault(key, {})[name] = count
    return [f"{listed(counts, len(counts))} {'breaks its' if len(counts) == 1 else 'break their'} own promise: "
            f"{WORDS[key]} ({how(key, counts.values(), result['observations'])})." for key, counts in breaks.items()]


def _errors(result, schemes, full):
    """What a kernel does with wrong answers, and under whom of those that did all the work nothing goes wrong."""
    lines, told = [], False
    others = [((key,), words) for key, words in WORDS.items() if key not in SMAPS]
    for keys, words in ((SMAPS, "smaps is wrong"), *others):
        counts = {}
        for name, entry in schemes.items():
            mine = [entry["errors"]["consequences"][key] for key in keys if key in entry["errors"]["consequences"]]
            if mine:
                at = sum(any(key in found for key in keys) for _, found in result["errors_at"][name])
                counts[name] = {"observations": max(at, *(count["observations"] for count in mine)),
                                "worst": max(count["worst"] for count in mine)}
        if counts:
            much = how(keys[0], counts.values(), result["observations"])
            less = listed((name for name in counts if name not in full), len(counts))
            under = " and ".join(filter(None, [who([name for name in counts if name in full], full), less]))
            why = ", which did less of the work" if less and not told else ""
            told = told or bool(less)
            lines.append(f"Under {under}{why}, {words} ({much}).")
    errs = [name for name, entry in schemes.items() if entry["errors"]["own"] or entry["errors"]["consequences"]]
    clean = [name for name in full if name not in errs]
    if clean:
        named = listed(clean, FEW) if errs and len(clean) <= FEW else who(clean, full)
        lines.append(f"Nothing goes wrong under {named}.")
    return [" ".join(lines)]


def _memory(result, full):
    """Who lives with HVO, of hugetlb pages."""
    without = [name for name, entry in full.items() if not entry["hvo"]]
    if not without or len(without) == len(full) or not full[without[0]]["struct_pages"]:
        return []
    one = full[without[0]]["struct_pages"]
    other = next(entry for entry in full.values() if entry["hvo"])["struct_pages"]
    sizes = [f"{format_size(one[size])} of struct pages for {format_size(result['machine_size'])} in {size} pages, not "
             f"{format_size(other[size])}" for size in one]
    return [f"HVO is lost under {who(without, full)} ({'; '.join(sizes)})."]


def _overflow(result, full):
    """Whose counts overflow first, for the largest huge pages of the input; nothing where all overflow alike."""
    size = largest_page(result)
    maps = {name: maps_of(entry, size) for name, entry in full.items() if maps_of(entry, size)}
    if len(set(maps.values())) < 2:
        return []
    least = min(maps.values())
    first = [name for name in maps if maps[name] == least]
    return [f"Under {who(first, full)}, a count overflows after {power(least)} maps of a {size} page."]


def _scans(full):
    """Who pays for finding the first or last piece by a scan."""
    worst = max(map(worst_scan, full.values()), default=0)
    if worst <= MUCH:
        return []
    most = [name for name, entry in full.items() if worst_scan(entry) == worst]
    return [f"To find a first or last piece, {listed(most)} read{'s' * (len(most) == 1)} up to {worst:,} entries."]


def _detail(result, entry, beaten):
    """A sentence on one scheme: which other one beats it and on what, and what it costs and breaks."""
    values, few = {}, 0 if all(counts["leaves"] <= MANY for counts in entry["phases"].values()) else MANY
    for phase, counts in entry["phases"].items():
        if counts["leaves"] > few:
            values.setdefault(f"{_atomics(counts):.3g}" if _atomics(counts) >= 0.01 else "0", []).append(phase)
    parts = [f"Atomics a leaf: {', '.join(f'{value} in {listed(phases, 99)}' for value, phases in values.items())}"
             if values else "No leaf was mapped or unmapped"]
    phase = longest_phase(result)
    if "measured" in entry and phase in entry["measured"]["phases"] and entry["phases"][phase]["leaves"] > MANY:
        times = per_leaf(entry, phase)
        parts.append(f"{times['median']:.3g} ns [{times['low']:.3g}, {times['high']:.3g}] a leaf in {phase}")
    for group in ("own", "consequences"):
        for key, count in entry["errors"][group].items():
            known = ", as its file says" if count.get("known") else ""
            parts.append(f"{WORDS[key]} ({how(key, [count], result['observations'])}{known})")
    who_beats = f"beaten by {beaten['by']} on {_in_words(beaten['on'])}" if beaten else "beaten by none"
    return f"{who_beats}. {'; '.join(parts)}."


def _in_words(keys):
    """Criteria in words, those of one kind together: time in a and b, pss_error_bytes."""
    kinds = {}
    for key in keys:
        kind, of, phase = key.partition(" in ")
        kinds.setdefault((kind.partition(": ")[2] or kind).partition(",")[0], []).append(phase)
    return ", ".join(f"{kind} in {listed(phases, 99)}" if phases[0] else kind for kind, phases in kinds.items())


def _untested(result, tested):
    """What this input cannot tell, and why."""
    lines, done = [], result["trace"]["by_operation"]
    if not tested:
        return []    # the answer says so
    if result["trace"]["most_processes_on_a_page"] < 2:
        lines.append("Sharing: no two processes map one page at any observation.")
    on_hugetlb = any(file["kind"] == "hugetlb" for file in result["trace"]["files"])
    absent = [what for what, operations in UNTESTED.items()
              if not any(done.get(op) for op in operations if on_hugetlb or op not in HUGETLB_ALONE)]
    if absent:
        lines.append(f"Not in this input: {', '.join(absent)}.")
    if result["observations"] < 2:
        lines.append("One observation only: what goes wrong in between is not seen (--every).")
    return lines


def _refused(schemes, share):
    """That operations end in an error whatever the scheme, if more than `share` of all do: the input is at fault."""
    refused = {name: sum(entry["refused"].values()) for name, entry in schemes.items()}
    name = min(refused, key=refused.get, default=None)
    operations = schemes[name]["cost"]["operations"] if name else 0
    if not name or refused[name] <= share * operations:
        return []
    errors = ", ".join(f"{error} {number:,}" for error, number in schemes[name]["refused"].items())
    return [f"At least {refused[name]:,} of {operations:,} operations end in an error under each scheme ({errors} "
            f"under {name})."]


def _unseen(schemes):
    """Failures that the trace asks for and that had no effect; operations that nobody looked at one by one.

    schemes: those that did the work; a scheme that refuses the operation has no use for its failure.
    """
    lines, never = [], {name: entry["never_fired"] for name, entry in schemes.items() if entry.get("never_fired")}
    if never:
        what = "A failure that the trace asks for" if set(never.values()) == {1} else "Failures that the trace asks for"
        lines.append(f"{what} never fired: {from_to(never.values())} under {who(never, schemes)}.")
    watched = next(iter(schemes.values()), {}).get("watched", {})
    return lines + [f"{of['looked_at']:,} of {of['operations']:,} {op} operations, evenly spaced, were looked at for "
                    "work that was not done." for op, of in watched.items()]


def _warnings(result, schemes):
    """Where the measured numbers say little."""
    timed = {name: entry["measured"] for name, entry in schemes.items() if "measured" in entry}
    lines = []
    if not timed:
        return lines
    if 0 < result["repeat"] < ROUNDS:
        few = "1 timed run is" if result["repeat"] == 1 else f"{result['repeat']} timed runs are"
        lines.append(f"{few} too few for an interval (at least {ROUNDS}); no difference is shown.")
    if all(one["short"] for one in timed.values()):
        lines.append("The trace is too short to time: a run takes less than 0.1 ms.")
    noisy = [name for name, one in timed.items() if _width(one["ns_per_operation"]) > NOISY]
    if noisy and not all(one["short"] for one in timed.values()):
        lines.append(f"This machine is too noisy now for {who(noisy, schemes)}: the interval is wider than "
                     f"{100 * NOISY:.0f} % of the median.")
    if result["threads"] > 1 and not any(one["threads_met"] for one in timed.values()):
        lines.append(f"--threads {result['threads']}: no two threads of this trace ever had work at the same time.")
    return lines


def _width(times):
    return (times["high"] - times["low"]) / times["median"] if times["median"] else 0.0

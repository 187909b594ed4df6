"""The verdict: sentences made from the numbers of a comparison by the rules of this file, and by nothing else.

A scheme is judged by criteria, each a number that is better the smaller it is. One scheme beats another if it is
nowhere worse and somewhere better. Counted numbers compare exactly; measured ones only where their intervals do not
overlap. Schemes that did less of the work are judged by nothing but what they refused. The front are those that no
other beats.
"""

from __future__ import annotations

from hgmcore.analysis.errors import EVENTS
from hgmcore.analysis.judge import broken, less_work, ran
from hgmcore.analysis.measure import NOISY, ROUNDS, change
from hgmcore.sizes import format_size

MANY = 1000
"""Leaves from which on a phase is long enough to time."""

PHASES = 2
"""The most phases whose times the verdict tells."""

NAMED = 3
"""The most schemes or phases that a sentence names one by one."""

WORDS = {
    "false_shared": "pages of one process are called shared",
    "false_exclusive": "pages of several processes are called exclusive",
    "mapped_but_reported_unmapped": "mapped pages are reported as unmapped",
    "unmapped_but_reported_mapped": "unmapped pages are reported as mapped",
    "refs_not_explained": "references exceed what the map count explains",
    "leaked_folios": "pages keep references that nobody has", "freed_while_mapped": "pages are freed in use",
    "counter_underflows": "counts go below zero", "counter_overflows": "counts overflow",
    "page_mapcount_wrong_pages": "page_mapcount() is not the number of leaves over a page",
    "page_mapcount_max_error": "page_mapcount() is not the number of leaves over a page",
    "false_shared_hugetlb": "hugetlb's rule (mapcount > 1) calls pages of one process shared",
    "false_exclusive_hugetlb": "hugetlb's rule (mapcount > 1) calls pages of several processes exclusive",
    "pss_error_bytes": "smaps has a wrong Pss", "smaps_shared_error_bytes": "smaps has a wrong amount of shared memory",
    "pages_not_freed": "memory is not freed", "bytes_not_moved": "mbind silently leaves memory where it is",
    "migrations_refused": "migration is refused", "copies_made": "writes copy more than they must",
}
"""What each error means, as a sentence."""

UNTESTED = (
    ("fork", ("fork",), "fork and its copies"),
    ("partial unmapping", ("dontneed", "munmap"), "unmapping"),
    ("collapse", ("collapse",), "collapse"),
    ("migration", ("migrate",), "migration"),
    ("truncation", ("punch", "truncate"), "truncation and hole punching"),
    ("memory failure", ("hwpoison",), "memory failure"),
)
"""(name, operations that test it, how a sentence calls it)."""


def verdict(result) -> dict:
    """The verdict of a result of `compare`, as `hgmcore-compare 2` has it."""
    schemes = ran(result)
    less = less_work(schemes)
    full = {name: entry for name, entry in schemes.items() if name not in less}
    criteria = {name: _criteria(entry) for name, entry in full.items()}
    beaten = {}
    for name in full:
        winners = [other for other in full if other != name and _beats(criteria[other], criteria[name])]
        if winners:
            by = max(winners, key=lambda other: len(_better(criteria[other], criteria[name])))
            beaten[name] = {"by": by, "on": _better(criteria[by], criteria[name])}
    front = [name for name in full if name not in beaten]
    return {"answers": [*_time(result, full), *_counted(result, full, front), *_errors(result, full), *_memory(full),
                        *_scans(full), *_less(less)],
            "front": front, "beaten": beaten, "untested": _untested(result, full),
            "warnings": _warnings(result, schemes)}


def _criteria(entry) -> dict:
    """{key: (low, high)}: what a scheme is judged by; a counted number is both."""
    found = {}
    for phase, counts in entry["phases"].items():
        if counts["leaves"]:
            value = (counts["atomics"]["persistent"] + counts["atomics"]["transient"]) / counts["leaves"]
            found[f"atomics a leaf in {phase}"] = value, value
    worst = max((counts["scanned"]["max"] for counts in entry["phases"].values()), default=0)
    found["entries scanned for one operation"] = worst, worst
    kept = entry["memory"]["struct_pages_hvo"]
    memory = entry["memory"]["struct_pages"] if kept is None else kept
    found["struct pages with HVO"] = memory, memory
    for group in ("own", "per_page", "consequences"):
        for key in WORDS:
            count = entry["errors"][group].get(key)
            if group == "consequences" or count:
                number = count["observations"] if count else 0
                found[f"{group}: {key}"] = number, number
    for phase, times in entry.get("measured", {}).get("phases", {}).items():
        if entry["phases"][phase]["leaves"] > MANY:
            scale = entry["phases"][phase]["operations"] / entry["phases"][phase]["leaves"]
            found[f"time in {phase}"] = scale * times["low"], scale * times["high"]
    return found


def _better(one, other) -> list[str]:
    """The keys on which `one` is better than `other`.

    An error that a scheme has not is 0; what a scheme did not do is not judged.
    """
    keys = dict.fromkeys([*one, *other])
    return [key for key in keys if (key in one and key in other or ": " in key)
            and one.get(key, (0, 0))[1] < other.get(key, (0, 0))[0]]


def _beats(one, other) -> bool:
    return bool(_better(one, other)) and not _better(other, one)


def _time(result, full):
    """Who is faster than the baseline and who slower in the longest phases, of those that did the same work."""
    base = result["baseline"]
    timed = {name: entry["measured"] for name, entry in full.items() if "measured" in entry}
    if base not in timed or len(timed) < 2 or result["repeat"] < ROUNDS or timed[base]["short"]:
        return []
    operations = {phase["name"]: phase["operations"] for phase in result["trace"]["phases"]}
    longest = sorted(timed[base]["phases"], key=lambda name: -operations[name] * timed[base]["phases"][name]["median"])
    longest = [name for name in longest if full[base]["phases"][name]["leaves"] > MANY][:PHASES]
    if not longest:
        return [_against("an operation", base, {name: one["ns_per_operation"] for name, one in timed.items()
                                                if same_work(full[name], full[base])}, 1)]
    return [_against(f"a leaf in {phase}", base, {name: one["phases"][phase] for name, one in timed.items()
                                                  if same_work(full[name], full[base], phase)},
                     operations[phase] / full[base]["phases"][phase]["leaves"]) for phase in longest]


def same_work(one, other, phase=None) -> bool:
    """Did two schemes install and remove as many leaves, in all or in a phase? Else their times do not compare."""
    mine, theirs = (entry["phases"][phase]["leaves"] if phase else entry["leaves"] for entry in (one, other))
    return abs(mine - theirs) <= 0.01 * theirs


def _against(what, base, times, scale):
    """A sentence on times of one kind, each times `scale`: the baseline's, and who differs from it."""
    faster, tied, slower = [], [], []
    for name in times:
        if name != base:
            factor = change(times[name], times[base])
            where = faster if factor["high"] < 1 else slower if factor["low"] > 1 else tied
            where.append((factor["median"], name))
    of = times[base]
    low, middle, high = (scale * of[key] for key in ("low", "median", "high"))
    line = f"Time of {what} (measured): {middle:.3g} ns [{low:.3g}, {high:.3g}] under {base}."
    for group, word in ((sorted(faster), "Less"), (sorted(slower, reverse=True), "More")):
        if group:
            named = ", ".join(f"{name} {100 * (factor - 1):+.0f} %" for factor, name in group[:NAMED])
            rest = len(group) - NAMED
            more = f" and {rest} other{'s' * (rest > 1)}" if rest > 0 else ""
            line += f" {word}: {named}{more}."
    if tied:
        line += f" No difference is shown (~) for {_names([name for _, name in tied])}."
    return line


def _counted(result, full, front):
    """What decides between schemes: the phases in which lasting atomics differ most, and who is beaten by nobody."""
    found = []
    for phase in result["trace"]["phases"]:
        counts = {name: entry["phases"][phase["name"]] for name, entry in full.items()}
        values = {name: one["atomics"]["persistent"] / one["leaves"] for name, one in counts.items()
                  if one["leaves"] > MANY}
        least, most = min(values.values(), default=0), max(values.values(), default=0)
        if most - least >= 0.5:
            low = [name for name, value in values.items() if value == least]
            high = [name for name, value in values.items() if value == most]
            found.append((most - least, least, most, low, high, phase["name"]))
    lines, told = [], {}
    for _, least, most, low, high, name in sorted(found, key=lambda one: -one[0])[:3]:
        numbers = (f"{value:.2g}" if value >= 0.01 else "0" for value in (least, most))
        told.setdefault((*numbers, _names(low), _names(high)), []).append(name)
    for (least, most, low, high), phases in told.items():
        lines.append(f"Lasting atomics a leaf in {_names(phases)}: {least} under {low}, {most} under {high}.")
    if len(front) < len(full):
        beaten = [name for name in full if name not in front]
        lines.append(f"Nowhere better and somewhere worse than another scheme: {_names(beaten, 9)} (--json).")
    return lines


def _errors(result, full):
    """Who breaks a promise, what a kernel does with wrong answers, and who has faults that its file states."""
    lines, observations = [], result["observations"]
    for name, entry in full.items():
        for key, count in broken(entry).items():
            lines.append(f"{name} breaks its own promise: {WORDS[key]} ({_of(key, count, observations)}).")
    for key in WORDS:
        counts = {name: entry["errors"]["consequences"][key] for name, entry in full.items()
                  if key in entry["errors"]["consequences"]}
        if counts and key != "pss_error_bytes":
            worst = max(counts.values(), key=lambda count: (count["worst"], count["observations"]))
            right = [name for name in full if name not in counts]
            who = _names(counts, 9) if len(right) >= len(counts) else f"all but {_names(right, 9)}"
            who = who if right else "every scheme"
            lines.append(f"Under {who}, {WORDS[key]} ({_of(key, worst, observations)}).")
    stated = [name for name, entry in full.items()
              if any(count.get("known") for count in entry["errors"]["own"].values())]
    if stated:
        lines.append(f"Faults that their own files state show in {_names(stated, 9)} (--full).")
    clean = [name for name, entry in full.items() if not entry["errors"]["own"] and not entry["errors"]["consequences"]]
    if clean and len(clean) < len(full):
        lines.append(f"Nothing goes wrong under {_names(clean, 9)}.")
    return lines


def _of(key, count, observations):
    """How often and how much, in words."""
    worst = count["worst"]
    if key == "bytes_not_moved":
        return amount(worst)
    if key in EVENTS:
        return f"{worst:,} {'time' if worst == 1 else 'times'}"
    size = amount(worst) if key.endswith("bytes") else f"{worst:,}"
    return f"{count['observations']} of {observations} observations, {size} at worst"


def amount(size) -> str:
    """Bytes in three digits and a unit: 512, 4.00K, 1.46M."""
    unit = 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1024, unit + 1
    return f"{size:.{0 if not unit else 2 if size < 9.995 else 1 if size < 99.95 else 0}f}{' KMGT'[unit].strip()}"


def _memory(full):
    """Who lives with HVO."""
    without = [name for name, entry in full.items() if entry["memory"]["struct_pages_hvo"] is None]
    if not without or len(without) == len(full):
        return []
    one = full[without[0]]["struct_pages"]
    other = next(entry for entry in full.values() if entry["memory"]["struct_pages_hvo"] is not None)["struct_pages"]
    sizes = [f"{format_size(other[size])} of struct pages a TiB against {format_size(one[size])} in {size} pages"
             for size in one]
    return [f"HVO is lost under {_names(without)}{': ' + '; '.join(sizes) if sizes else ''}."]


def _scans(full):
    """Who pays for finding the last piece by a scan."""
    worst = {name: max((counts["scanned"]["max"] for counts in entry["phases"].values()), default=0)
             for name, entry in full.items()}
    scans = {name: number for name, number in worst.items() if number > 512}
    if not scans:
        return []
    most = max(scans.values())
    who = _names([name for name in scans if scans[name] == most])
    return [f"To find a first or last piece by a scan, {who} read up to {most:,} entries for one operation; counts and "
            "bits in the page tables need none."]


def _less(less):
    return [f"{_names(less, 9)} did less of the work (*), so the costs do not compare."] if less else []


def _untested(result, full):
    """What this input cannot tell, and why."""
    lines, done = [], result["trace"]["by_operation"]
    if not any(entry["leaves"] for entry in full.values()):
        return ["Nothing was tested: no scheme mapped or unmapped anything."]
    if result["trace"]["most_processes_on_a_page"] < 2:
        lines.append("Sharing: at no observation did two processes map one page, so a scheme that never sees sharing "
                     "looks right.")
    absent = [what for _, operations, what in UNTESTED if not any(done.get(op) for op in operations)]
    if absent:
        lines.append(f"Not in this input: {', '.join(absent)}.")
    if result["observations"] < 2:
        lines.append("One observation only: what goes wrong in between is not seen (--every).")
    return lines


def _warnings(result, schemes):
    """Where the measured numbers say little."""
    timed = {name: entry["measured"] for name, entry in schemes.items() if "measured" in entry}
    lines = []
    if not timed:
        return lines
    if 0 < result["repeat"] < ROUNDS:
        lines.append(f"{result['repeat']} timed runs are too few for an interval (at least {ROUNDS}); no difference is "
                     "shown.")
    if all(one["short"] for one in timed.values()):
        lines.append("The trace is too short to time: a run takes less than 0.1 ms.")
    noisy = [name for name, one in timed.items() if _width(one["ns_per_operation"]) > NOISY]
    if noisy and not all(one["short"] for one in timed.values()):
        lines.append(f"This machine is too noisy now for {_names(noisy)}: the interval is wider than "
                     f"{100 * NOISY:.0f} % of the median.")
    if result["threads"] > 1 and not any(one["threads_met"] for one in timed.values()):
        lines.append(f"--threads {result['threads']}: no two threads of this trace ever had work at the same time.")
    return lines


def _width(times):
    return (times["high"] - times["low"]) / times["median"] if times["median"] else 0.0


def _names(names, most=NAMED):
    """"a", "a and b", "a, b and c", "a, b, c, d and 3 more"."""
    names = list(names)
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))

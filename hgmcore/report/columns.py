"""The columns of a comparison, one row each: what every face of the report shows of a scheme.

`measures(result)` has all of them, in the order of TABLES; `screen(result)` the few that stand on one screen. A new
number is one new row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from hgmcore.analysis.errors import CONSEQUENCES, OWN, PER_PAGE
from hgmcore.analysis.judge import ran
from hgmcore.analysis.verdict import largest_page, longest_phase, maps_of, per_leaf, same_work, worst_scan
from hgmcore.analysis.words import WORDS
from hgmcore.report.table import Column

TABLES = {
    "cost": "COST of the whole trace, counted: the same on every machine",
    "atomics": "ATOMICS a leaf, by phase, counted",
    "scans": "ENTRIES SCANNED for one operation, by phase, counted",
    "time": "TIME of an operation, measured: warm, CPU time of the thread",
    "memory": "MEMORY",
    "own": "BREAKS ITS OWN PROMISE, or errs as its file says",
    "per_page": "DIFFERS from the truth of single base pages",
    "consequences": "WHAT A KERNEL THEN DOES",
}
"""The tables of the full report: key -> title."""

ERRORS = ("own", "per_page", "consequences")
"""The tables whose columns are of kind "error"."""

MOST_PHASES = 4
"""Columns that the phases of a trace take on the screen, at most."""

LETTERS = 4


@dataclass(frozen=True)
class Measure:
    """One column.

    key: its name in CSV and Parquet, unique. title: of a table, lines cut at "\\n". unit: "atomics", "atomics/leaf",
    "entries", "leaves", "operations", "pages", "bytes", "errors", "ns/operation" or "" (a word). kind: how it is
    shown, a key of table.FORMATS. label: counted, modelled or measured. table: a key of TABLES. value: function of a
    scheme's entry in `hgmcore-compare 2`; None where the scheme has no such number. Of kind "atomics" the value is
    {"persistent", "transient"} for each leaf, of "time" an interval {"median", "low", "high", "runs"}, of "error"
    {"observations", "worst", "last"}. legend: what the number means; group: a title over neighbouring columns; phase:
    the phase of the trace that it is of.
    """

    key: str
    title: str
    unit: str
    kind: str
    label: str
    table: str
    value: Callable[[dict], object]
    legend: str = ""
    group: str = ""
    phase: str | None = None

    @property
    def column(self) -> Column:
        return Column(self.title, self.kind, self.group)


def _in(*path):
    """The value at a path of keys in an entry, None where there is no such path."""
    def value(entry):
        for key in path:
            entry = entry.get(key) if entry is not None else None
        return entry
    return value


COSTS = tuple(
    Measure(key, title, unit, kind, "counted", "cost", _in("cost", *path), legend, group)
    for key, title, unit, kind, path, legend, group in (
        ("ref", "ref", "atomics", "count", ("atomics", "ref"), "atomics on references of mappings, that stay",
         "atomics"),
        ("map", "map", "atomics", "count", ("atomics", "map"), "atomics on map counts", "atomics"),
        ("transient", "temp", "atomics", "count", ("atomics", "transient"),
         "atomics of look-ups that are put back; executed when timed, but with transient=counted", "atomics"),
        ("lines", "struct\npages", "pages", "count", ("lines",),
         "distinct struct pages (64 bytes) that atomics write", ""),
        ("entries_scanned", "entries\nscanned", "entries", "count", ("entries_scanned",),
         "page-table entries read to decide a count", ""),
        ("leaf_installs", "leaves\nmapped", "leaves", "count", ("leaf_installs",), "leaves installed", ""),
        ("leaf_removes", "leaves\nunmapped", "leaves", "count", ("leaf_removes",), "leaves removed", ""),
    )) + (
    Measure("refused", "re-\nfused", "operations", "count", "counted", "cost",
            lambda entry: sum(entry["refused"].values()) if "refused" in entry else None,
            "operations that ended in an error"),
    Measure("less_done", "less\ndone", "operations", "errors", "counted", "cost", _in("less_done", "operations"),
            "operations that did less than they were asked to and said nothing"),
    Measure("less_done_bytes", "kB not\ndone", "bytes", "errors kB", "counted", "cost", _in("less_done", "bytes"),
            "memory that those left out"),
)

MEMORY = (
    Measure("struct_pages", "struct\npages kB", "bytes", "kB", "modelled", "memory", _in("memory", "struct_pages"),
            "struct pages of the trace's files"),
    Measure("struct_pages_hvo", "with\nHVO kB", "bytes", "kB", "modelled", "memory", _in("memory", "struct_pages_hvo"),
            "the same with the HugeTLB vmemmap optimisation; empty where the scheme cannot live with it"),
    Measure("tables_peak", "page\ntables kB", "bytes", "kB", "counted", "memory", _in("memory", "tables_peak"),
            "page tables at their peak, below hstate-level entries"),
    Measure("scheme_memory", "scheme\nkB", "bytes", "errors kB", "modelled", "memory", _in("memory", "scheme"),
            "what the scheme keeps beside struct pages and page tables"),
)

TIME = Measure("ns_per_operation", "ns/op", "ns/operation", "time", "measured", "time",
               _in("measured", "ns_per_operation"),
               "median [95 % interval], measured; ~: no difference of 20 % from {baseline}")


def atomics_per_leaf(counts) -> dict | None:
    """Atomics for each leaf of a phase of an entry: {"persistent": x, "transient": x}; None where it has no leaf."""
    if not counts or not counts["leaves"]:
        return None
    return {key: counts["atomics"][key] / counts["leaves"] for key in ("persistent", "transient")}


OTHER_LEGENDS = {"batch": "fork and zap with batch=6.12", "loop": "fork and zap with batch=no"}


def phase_atomics(name, title=None, other=False, group="") -> Measure:
    """The column of atomics a leaf in phase `name`. other: in the other reading of `batch` than the options ask for."""
    def value(entry):
        counts = entry.get("phases_batched", {}).get(name) if other else None
        return atomics_per_leaf(counts or entry.get("phases", {}).get(name))
    return Measure(f"atomics_per_leaf.{name}{'.batched' if other else ''}", title or name, "atomics/leaf", "atomics",
                   "counted", "atomics", value,
                   OTHER_LEGENDS[title.split("\n")[-1]] if other else
                   "t: of look-ups, put back", group, name)


def other_batch(result) -> str:
    """What the other reading of `batch` is called in titles: "batch", or "loop" where the options ask for batches."""
    return "loop" if result["options"].get("batch", "no") != "no" else "batch"


def _of_phase(name, scanned):
    """The columns of one phase but for its atomics. scanned: does a scheme scan in it?"""
    for key, word, meaning in (("max", "max", "the most entries read for one operation"),
                               ("p99", "99 %", "what 99 % of the operations that scan stay within"),
                               ("p50", "50 %", "what half of the operations that scan stay within")):
        if scanned:
            yield Measure(f"scanned_{key}.{name}", word, "entries", "errors", "counted", "scans",
                          _in("phases", name, "scanned", key), meaning, name, name)
    yield Measure(f"ns_per_operation.{name}", name, "ns/operation", "time", "measured", "time",
                  _in("measured", "phases", name), TIME.legend, "", name)


def error(group, key) -> Measure:
    """The column of one error. group: one of ERRORS. 0 where the scheme never makes it."""
    unit = "bytes" if "bytes" in key else "pages" if "pages" in key else "errors"

    def value(entry):
        if "errors" not in entry:
            return None
        return entry["errors"][group].get(key, {"observations": 0, "worst": 0, "last": 0})

    return Measure(f"{group}.{key}", key, unit, "error", "counted", group, value, WORDS.get(key, ""))


def errors(result) -> list[Measure]:
    """The errors that at least one scheme makes, group by group."""
    entries = list(ran(result).values())
    of_group = {"own": OWN, "per_page": (*OWN, *PER_PAGE), "consequences": CONSEQUENCES}
    return [error(group, key) for group in ERRORS for key in of_group[group]
            if any(key in entry["errors"][group] for entry in entries)]


def measures(result) -> list[Measure]:
    """Every column of a result of `compare`, in the order of TABLES."""
    names = [phase["name"] for phase in result["trace"]["phases"]]
    found = [*COSTS, *MEMORY, *([TIME] if result["repeat"] else []), *errors(result)]
    for name in names:
        found.append(phase_atomics(name))
        if batched(result, name):
            found.append(phase_atomics(name, f"{name}\n{other_batch(result)}", other=True))
        scanned = any(entry["phases"][name]["scanned"]["max"] for entry in ran(result).values())
        found += [one for one in _of_phase(name, scanned) if result["repeat"] or one.table != "time"]
    return sorted(found, key=lambda one: list(TABLES).index(one.table))


def short_names(names) -> dict:
    """Phase -> a name of at most four letters, each another one: install -> inst, postcopy_recorded -> post."""
    found = {}
    for name in names:
        short = base = name.split("_")[0][:LETTERS]
        number = 2
        while short in found.values():
            short, number = f"{base[:LETTERS - 1]}{number}", number + 1
        found[name] = short
    return found


def chosen_phases(result) -> list[str]:
    """The phases on the screen: those in which lasting atomics differ most between schemes, in the trace's order.

    Schemes that did less work do not count; a phase weighs as many leaves as half of the others have at least.
    """
    weights = {}
    entries = [entry for entry in ran(result).values() if "less_work" not in entry] or list(ran(result).values())
    for phase in result["trace"]["phases"]:
        counts = [entry["phases"][phase["name"]] for entry in entries]
        costs = [atomics_per_leaf(count)["persistent"] for count in counts if count["leaves"]]
        if costs:
            weights[phase["name"]] = (1 + max(costs) - min(costs)) * median(count["leaves"] for count in counts)
    room, best = MOST_PHASES, []
    for name in sorted(weights, key=lambda name: -weights[name]):
        needed = 1 + batched(result, name)
        if needed <= room:
            best.append(name)
            room -= needed
    return [name for name in weights if name in best]


def batched(result, phase) -> bool:
    """Do the two readings of `batch` differ in a phase, for at least one scheme?"""
    return any(phase in entry.get("phases_batched", ()) for entry in ran(result).values())


def longest_time(result, short) -> Measure:
    """The column of time: for each leaf of the longest phase, of schemes that did the same work in it as the baseline.

    Of a trace in which no phase is long: for each operation. A whole trace has work that some schemes refuse.
    """
    base, name = result["schemes"][result["baseline"]], longest_phase(result)
    if name is None:
        return TIME

    def value(entry):
        timed = "measured" in entry and name in entry["measured"]["phases"]
        return per_leaf(entry, name) if timed and same_work(entry, base, name) else None

    return Measure(f"ns_per_leaf.{name}", f"ns in\n{short[name]}", "ns/leaf", "time", "measured", "time", value,
                   TIME.legend, "", name)


def screen(result) -> list[Measure]:
    """The columns of the one table on the screen."""
    short = short_names([phase["name"] for phase in result["trace"]["phases"]])
    found, on_hugetlb = [], any(file["kind"] == "hugetlb" for file in result["trace"]["files"])
    for name in chosen_phases(result):
        found.append(phase_atomics(name, short[name], group="atomics/leaf"))
        if batched(result, name):
            found.append(phase_atomics(name, f"{short[name]}\n{other_batch(result)}", True, "atomics/leaf"))
    found.append(Measure("worst_scan", "worst\nscan", "entries", "errors", "counted", "scans",
                         lambda entry: worst_scan(entry) if "phases" in entry else None,
                         "entries read for one operation"))
    if result["repeat"]:
        found.append(longest_time(result, short))
    found += [
        Measure("smaps", "smaps", "", "word", "counted", "consequences",
                lambda entry: _unless(entry, ("pss_error_bytes", "smaps_shared_error_bytes"), "ok", "WRONG"),
                "Pss and shared memory"),
        *([Measure("moved", "moved", "", "word", "counted", "consequences",
                   lambda entry: _unless(entry, ("bytes_not_moved", "migrations_refused"), "yes", "no"),
                   "did migrate move all that one process alone maps")]
          if result["trace"]["by_operation"].get("migrate") and on_hugetlb else []),
        Measure("own_errors", "stale\nafter", "", "word", "counted", "own", lambda entry: _stale(result, short, entry),
                "phase where counts or sharing are first wrong; (..): as its own file says"),
        *([Measure("hvo", "HVO", "", "word", "modelled", "memory", lambda entry: "yes" if entry["hvo"] else "NO",
                   "lives with it")] if on_hugetlb else []),
    ]
    size = largest_page(result)
    if size:
        found.append(Measure("maps_of", f"maps\nof {size}", "mappings", "power", "counted", "own",
                             lambda entry: maps_of(entry, size), "until a count overflows"))
    return found


def _unless(entry, keys, right, wrong):
    """`wrong` if the entry has one of these consequences; "-" if nothing was mapped; None for a refused scheme."""
    if "errors" not in entry:
        return None
    if any(key in entry["errors"]["consequences"] for key in keys):
        return wrong
    return right if entry["leaves"] else "-"


def _stale(result, short, entry):
    """Where the first error against a promise stands: a phase's short name, "yes" if nobody can tell, "-" for none."""
    if "errors" not in entry:
        return None
    own = entry["errors"]["own"]
    if not own:
        return "-"
    name = next(name for name, other in result["schemes"].items() if other is entry)
    first = next((index for index, found in result["errors_at"].get(name, ()) if own.keys() & found.keys()), None)
    phases = result["trace"]["phases"]
    where = "yes"
    if first is not None and all(phase["declared"] for phase in phases):
        begun = [phase for phase in phases if phase["first"] < first]
        where = short[max(begun, key=lambda phase: phase["first"])["name"]]
    return f"({where})" if all(count.get("known") for count in own.values()) else where


GUIDE = {
    "atomics/leaf": "for each leaf mapped or unmapped, in the phases that differ most; 2t: two of a look-up, taken and "
                    "put back",
    "PHASE batch": "the phase before, with one update for a run of leaves in fork and zap (batch=6.12), as kernels do "
                   "today",
    "PHASE loop": "the phase before, with one update for each leaf in fork and zap (batch=no), as kernels of 2023 did",
    "worst scan": "the most page-table entries read for one operation",
    "ns in PHASE": "of a leaf: 11.3 or 10.6 [10.4, 10.9], median of warm runs and 95 % interval; ~: no difference of "
                   "20 % from the baseline is shown; only ratios carry over to other machines",
    "smaps": "WRONG: Pss or shared memory is wrong at some observation",
    "moved": "no: migrate left, or refused, what one process alone maps",
    "stale after": "the phase in which map counts, references or sharing are first wrong; (PHASE): the scheme's own "
                   "file says so",
    "HVO": "NO: the scheme counts on struct pages that the HugeTLB vmemmap optimisation takes away",
    "maps of SIZE": "mappings of one page of that size, after which a count overflows",
    "NAME*": "did less of the work than others: its costs do not compare",
}
"""What the columns of the screen are, for who has not seen them before; `legend` has the same in fewer words."""


def explained(pairs) -> list[tuple[str, str]]:
    """(title, meaning) pairs of a legend with the meanings of GUIDE."""
    found = []
    for title, meaning in pairs:
        key = {"*": "NAME*", "ns": "ns in PHASE", "maps": "maps of SIZE", "batch": "PHASE batch",
               "loop": "PHASE loop"}.get(title.split(" ")[0], title)
        found.append((title, GUIDE.get(key, meaning)))
    return found


def legend(found, **words) -> list[tuple[str, str]]:
    """(title, meaning) of columns, each meaning once. words: what stands in braces in a legend."""
    pairs = {}
    for one in found:
        title = one.title.replace("-\n", "").replace("\n", " ")
        if one.phase and one.legend not in OTHER_LEGENDS.values():
            title = {"atomics": "atomics/leaf"}.get(one.table, title)
        if one.legend:
            pairs.setdefault(one.legend, title.split(" ")[-1] if one.legend in OTHER_LEGENDS.values() else title)
    return [(title, meaning.format(**words)) for meaning, title in pairs.items()]

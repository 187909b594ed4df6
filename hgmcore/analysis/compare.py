"""Replay one trace under several accounting schemes: what each costs, and what each gets wrong.

Costs are counted (exact, repeatable) except `ns_per_operation`, which is measured on this machine.
Errors are the differences between what a scheme reports and a recount of the page tables.
"""

import platform
import statistics

import numpy as np

from hgmcore import schemes as known_schemes
from hgmcore.analysis.errors import Errors
from hgmcore.errnos import error_name
from hgmcore.geometry import GEOMETRIES
from hgmcore.options import resolve
from hgmcore.replay import replay
from hgmcore.replay import time as timed_replay
from hgmcore.sizes import format_size, parse_named
from hgmcore.trace.describe import describe
from hgmcore.trace.statements import CODES

FORMAT = "hgmcore-compare 1"
STRUCT_PAGE = 64  # bytes


def compare(trace, schemes="all", repeat=5, progress=None, machine="1T", **options):
    """Replay `trace` under each of `schemes` and return costs and errors, as plain JSON types.

    schemes: "all", a name, names separated by commas, or an iterable of names.
    repeat: timed replays of each scheme, interleaved round by round so that noise meets all alike;
        0 leaves the measured numbers out, so that the result is the same on every machine.
    progress: called as progress(replays done, replays in all, what runs next).
    machine: memory, in bytes or as "1T", of the machine whose struct pages are modelled (see `struct_pages`).
    options: as for `hgmcore.replay`; they hold for every scheme.

    The result is `hgmcore-compare 1`: "trace" describes the input (see `describe`); "schemes" maps each
    name to "cost" (as a replay's, but `ns_per_operation` is the median of the timed replays; see `measured`),
    "error" (see `Errors`), "refusals" (how often each errno was the answer), "struct_pages" (see
    `struct_pages`), "options" and "summary". A scheme that cannot live with the options has instead of
    costs and errors a reason, "refused". One observation is added at the end of the trace.

    Raises ValueError for an unknown scheme or option, or a value that an option does not take, and if no
    scheme can live with the options.
    """
    names = scheme_names(schemes)
    if repeat < 0:
        raise ValueError(f"repeat: {repeat} is negative")
    machine_size = parse_named("machine", machine)
    if machine_size == 0:
        raise ValueError("machine: it has no memory")
    entries = {name: _entry(known_schemes.load(name), trace.header, options, machine_size) for name in names}
    names = [name for name, entry in entries.items() if "refused" not in entry]
    if not names:
        raise ValueError(next(iter(entries.values()))["refused"])
    report_progress = progress or (lambda done, total, what: None)
    total = len(names) * (1 + repeat)
    done = 0

    for name in names:
        report_progress(done, total, f"counting {name}")
        errors = Errors()
        result = replay(trace, name, observer=errors, observe_end=True, **options)
        entries[name].update(
            options=result["options"],
            cost={**result["cost"], "operations": len(trace)},
            error=errors.result(result),
            refusals=refusals(result["operations"]),
        )
        done += 1

    runs = {name: [] for name in names}
    for turn in range(repeat):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            report_progress(done, total, f"timing {name}, run {turn + 1} of {repeat}")
            runs[name].append(timed_replay(trace, name, **options))
            done += 1
    for name in names:
        entries[name]["cost"].update(measured(runs[name]))
    report_progress(done, total, "done")

    return {
        "format": FORMAT,
        "trace": describe(trace),
        "options": {key: str(value) for key, value in options.items()},
        "repeat": repeat,
        "observations": int(np.count_nonzero(trace.operations["op"] == CODES["observe"])) + 1,
        "machine": host() if repeat else None,
        "machine_size": machine_size,
        "schemes": entries,
    }


def scheme_names(schemes):
    """The names that `schemes` ("all", "a,b" or an iterable) stands for, each once, in order.

    Raises ValueError for a name that is not known, and for no name at all.
    """
    if isinstance(schemes, str):
        schemes = known_schemes.NAMES if schemes == "all" else [s.strip() for s in schemes.split(",")]
    names = list(dict.fromkeys(name for name in schemes if name))
    if not names:
        raise ValueError("no scheme is named")
    for name in names:
        known_schemes.load(name)
    return names


def _entry(engine, header, options, machine_size):
    """What is known of a scheme before anything runs."""
    reason = why_refused(engine, options)
    return {"summary": engine.explanation.strip().splitlines()[0],
            "struct_pages": struct_pages(engine, header, machine_size),
            **({"refused": reason} if reason else {})}


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


def struct_pages(engine, header, machine_size):
    """What struct pages of 64 bytes a machine of `machine_size` bytes needs under a scheme, modelled.

    For each size of the trace's HugeTLB pages, all the memory is in such pages. A scheme that writes only the
    first struct pages can live with HVO (the HugeTLB vmemmap optimisation), which keeps one base page of
    struct pages for each huge page, or what it has if that is less. Others, and memory that makes no whole
    huge page, need a struct page for every base page.
    Returns {"hvo": whether it can, "machine_bytes": {"2M": bytes, ...}}.
    """
    base = GEOMETRIES[header.geometry].base_page
    hvo = not engine.writes_tails
    needed = {}
    for size in sorted({file.page_size for file in header.files if file.kind == "hugetlb"}):
        of_one = size // base * STRUCT_PAGE
        rest = machine_size % size // base * STRUCT_PAGE
        needed[format_size(size)] = machine_size // size * (min(of_one, base) if hvo else of_one) + rest
    return {"hvo": hvo, "machine_bytes": needed}


def measured(runs):
    """Timed replays, ns an operation: median, standard deviation (None without two runs), and all of them."""
    return {
        "ns_per_operation": statistics.median(runs) if runs else None,
        "ns_per_operation_stddev": statistics.stdev(runs) if len(runs) > 1 else None,
        "ns_per_operation_runs": [float(run) for run in runs],
    }


def refusals(operations):
    """How many of a replay's operations ended in each errno: {"EEXIST": 3, ...}, most frequent first."""
    numbers, counts = np.unique(operations["errno"][operations["errno"] != 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {error_name(numbers[i]): int(counts[i]) for i in order}


def host():
    """The machine that measured times are of: processor, kernel release, Python version."""
    return {"cpu": _cpu_model(), "kernel": f"{platform.system()} {platform.release()}",
            "python": platform.python_version()}


def _cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

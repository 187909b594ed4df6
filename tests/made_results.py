"""Small made-up results of `compare`, for tests of what is decided and shown."""

from hgmcore.analysis.measure import interval

TWO_PROCESSES = """\
hgmcore-trace 1
file F 2M 2
populate F 0 2
mmap A v F 0 4M shared minor
mmap B w F 0 2M shared minor
split A v 0 4M
continue A v 0 4K
continue A v 0 4K
continue A v 28K 4K
observe
continue B w 0 2M
"""
"""A trace for tests of reports; the fixture `result` is its comparison."""

PHASES = ("install", "zap")


def entry(
    atomics=2,
    leaves=5000,
    runs=(10, 10, 10, 10, 10, 10),
    scan=0,
    hvo=True,
    refused=0,
    maps_of=None,
    transient=0,
    batched=None,
    own=None,
    per_page=None,
    consequences=None,
    short=False,
    met=0,
):
    """A scheme's entry: `atomics` a leaf in either phase, `runs` nanoseconds an operation, errors {key: how often}.

    batched: atomics a leaf of the phase zap in the other reading of `batch`. Errors are {key: (number, is it known)};
    known is None for a definition.
    """

    def counts(of):
        return {
            key: {"observations": number, "worst": number, "last": 0, **({"known": True} if known else {})}
            for key, (number, known) in (of or {}).items()
        }

    def phase_of(atomics):
        kept = int(atomics * leaves / 2)
        return {
            "operations": 5000,
            "leaves": leaves // 2,
            "atomics": {"persistent": kept, "transient": transient * leaves // 2, "ref": kept, "map": 0},
            "scanned": {"operations": int(scan > 0), "p50": scan, "p99": scan, "max": scan},
        }

    phase = phase_of(atomics)
    made = {
        "summary": "made up",
        "exceptions": {},
        "promises": [],
        "hvo": hvo,
        "struct_pages": {"2M": 1 << (31 if hvo else 34)},
        "options": {"batch": "no"},
        "leaves": leaves,
        "refused": {"EAGAIN": refused} if refused else {},
        "observations": 9,
        "cost": {
            "operations": 10_000,
            "leaf_installs": leaves // 2,
            "leaf_removes": leaves // 2,
            "entries_scanned": scan,
            "atomics": {"persistent": atomics * leaves, "transient": 0, "ref": atomics * leaves, "map": 0},
            "lines": 1,
        },
        "phases": {name: phase for name in PHASES},
        "phases_batched": {} if batched is None else {"zap": phase_of(batched)},
        **({"maps_of": maps_of} if maps_of else {}),
        "memory": {
            "struct_pages": 1 << 20,
            "struct_pages_hvo": 4096 if hvo else None,
            "tables_peak": 4096,
            "scheme": 0,
            "host_committed": 4096,
        },
        "errors": {"own": counts(own), "per_page": counts(per_page), "consequences": counts(consequences)},
        "less_done": {"operations": 0, "bytes": 0},
    }
    if runs:
        times = interval(runs)
        made["measured"] = {
            "ns_per_operation": times,
            "phases": {name: times for name in PHASES},
            "short": short,
            "threads_met": met,
        }
    return made


def result(schemes, baseline=None, repeat=6, by_operation=None, processes=2, observations=9, threads=1):
    """A result of made-up entries, without its verdict."""
    return {
        "format": "hgmcore-compare 2",
        "baseline": baseline or next(iter(schemes)),
        "repeat": repeat,
        "threads": threads,
        "trace": {
            "name": "made.hgm",
            "operations": 10_000,
            "by_operation": by_operation or {"continue": 5000, "munmap": 5000},
            "geometry": "x86-64",
            "files": [{"name": "F", "page_size": 2 << 20, "pages": 1, "kind": "hugetlb"}],
            "processes": ["A"],
            "mappings": 1,
            "threads": 1,
            "provenance": {},
            "question": None,
            "phases": [
                {"name": name, "first": 5000 * i, "operations": 5000, "declared": False}
                for i, name in enumerate(PHASES)
            ],
            "most_processes_on_a_page": processes,
        },
        "options": {},
        "profile": None,
        "observations": observations,
        "machine": None,
        "machine_size": 1 << 40,
        "labels": {},
        "schemes": schemes,
        "errors_at": {name: [] for name in schemes},
    }

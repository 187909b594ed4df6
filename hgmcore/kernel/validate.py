"""Recordings of running kernels, done again by the simulator: where does it differ?

An observation is what the kernel showed of one step: its answer (error, bytes done, userfaultfd event) and, where
one was recorded, the state behind it. It is equal if each of its values is. A step that traces have no statement
for is out of scope: its answer is not compared, and listed with the reason, but the state behind it is.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hgmcore.importers import open_input
from hgmcore.importers.kernel_recording import is_anonymous_mmap, read_records, translated
from hgmcore.kernel.simulated import KINDS, Simulated
from hgmcore.trace import TraceError

SUFFIXES = (".jsonl", ".jsonl.xz", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst")

SHIPPED = Path(__file__).parent.parent / "recordings" / "kernel"
"""Where the recordings are that come with the package."""


def recordings(directory) -> list[Path]:
    """The recordings in a directory, by name. TraceError: there are none, or it cannot be read."""
    try:
        found = sorted(path for path in Path(directory).iterdir() if path.name.endswith(SUFFIXES))
    except OSError as error:
        raise TraceError(str(directory), error.strerror or str(error)) from error
    if not found:
        raise TraceError(str(directory), "holds no kernel recording (*.jsonl, plain or packed)")
    return found


def validate(directory=SHIPPED, progress=None) -> dict:
    """Every recording in a directory against the simulator, as "hgmcore-validate 1", in plain JSON types.

    progress: called with (recordings done, all). TraceError: a file that is not a kernel recording.
    """
    paths, results = recordings(directory), []
    for path in paths:
        results.append(validate_recording(path))
        if progress:
            progress(len(results), len(paths))
    total = {key: sum(result[key] for result in results) for key in ("steps", "observations", "equal")}
    values, skipped = {kind: Counter() for kind in KINDS}, Counter()
    for result in results:
        skipped.update(result["not_compared"])
        for kind, counts in result["values"].items():
            values[kind].update(counts)
    return {"format": "hgmcore-validate 1", "directory": str(directory), **total,
            "out_of_scope": sum(len(result["out_of_scope"]) for result in results),
            "values": {kind: dict(counts) for kind, counts in values.items() if counts["compared"]},
            "not_compared": dict(skipped),
            "recordings": results}


def validate_recording(path) -> dict:
    """One recording: counts, the steps out of scope, and every difference. TraceError where it is not one."""
    with open_input(path) as (stream, name, _):
        records = list(read_records(stream, name))
    simulated, steps = None, []
    for line, record in enumerate(records, start=1):
        kind, found = record["t"], ()
        if kind == "scenario":
            simulated = translated(lambda first: Simulated(first["kernel"], scheme_of(records)), record, name, line)
            before = 0
        elif kind == "file":
            translated(simulated.file, record, name, line)
        elif kind == "op":
            found = translated(simulated.step, record, name, line)
            steps.append({"step": record["i"], "op": spelled(record), "reason": simulated.reason, "values": 0,
                          "differences": []})
        elif kind == "obs" and steps:
            found = translated(simulated.differences, record, name, line)
        if kind in ("op", "obs") and steps:
            compared = simulated.compared.total()
            steps[-1]["values"] += compared - before
            steps[-1]["differences"] += [str(difference) for difference in found]
            before = compared
    scenario, observed = records[0], [step for step in steps if step["values"]]
    return {
        "recording": name.rpartition("/")[2].partition(".jsonl")[0], "kernel": str(scenario["kernel"]),
        "doc": str(scenario.get("doc", "")), "scheme": simulated.machine.engine.name, "steps": len(steps),
        "observations": len(observed), "equal": sum(not step["differences"] for step in observed),
        "out_of_scope": [{"step": step["step"], "op": step["op"], "reason": step["reason"]}
                         for step in steps if step["reason"]],
        "not_compared": dict(simulated.skipped),
        "values": {kind: {"compared": simulated.compared[kind], "not_zero": simulated.nonzero[kind],
                          "equal": simulated.equal[kind]} for kind in KINDS},
        "differences": [line for step in steps for line in step["differences"]],
    }


def scheme_of(records) -> str:
    """The scheme that stands for the kernel, which counts shmem and anonymous memory otherwise than hugetlb."""
    other = any(record["t"] == "file" and record["kind"] != "hugetlb"
                or is_anonymous_mmap(record) and "HUGETLB" not in record["flags"] for record in records)
    return "mm_id" if other else "hugetlb"


def spelled(op) -> str:
    """A step in words: the call, who made it, and its arguments."""
    words = [op["op"], op["proc"], op.get("region"), op.get("child"), op.get("off"), op.get("len"), op.get("advice"),
             op.get("mode"), op.get("flags")]
    return " ".join(str(word) for word in words if word not in (None, ""))

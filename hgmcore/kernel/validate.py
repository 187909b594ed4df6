"""Recordings of running kernels, done again by the simulator: where does it differ?

An observation is what the kernel showed of one step: its answer (error, bytes done, userfaultfd event) and, where
one was recorded, the state behind it. It is equal if each of its values is. A step that traces have no statement
for is out of scope: its answer is not compared, and listed with the reason, but the state behind it is.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hgmcore.importers import open_input
from hgmcore.importers.kernel_recording import read_records, translated
from hgmcore.kernel.simulated import KINDS, Simulated
from hgmcore.report.prose import listed, plural, wrapped
from hgmcore.report.table import Column, Table, as_text
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
            "values": {kind: dict(counts) for kind, counts in values.items()}, "not_compared": dict(skipped),
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
                or record["t"] == "op" and record["op"] == "mmap" and "file" not in record for record in records)
    return "mm_id" if other else "hugetlb"


def spelled(op) -> str:
    """A step in words: the call, who made it, and its arguments."""
    words = [op["op"], op["proc"], op.get("region"), op.get("child"), op.get("off"), op.get("len"), op.get("advice"),
             op.get("mode"), op.get("flags")]
    return " ".join(str(word) for word in words if word not in (None, ""))


def validate_text(result) -> str:
    """A result of `validate` for people: ASCII, at most 80 columns."""
    table = Table("", [Column("recording", "text"), Column("kernel", "text"), Column("scheme", "text"), Column("steps"),
                       Column("out of\nscope", "errors"), Column("observed"), Column("equal")])
    table.rows = [[r["recording"], r["kernel"], r["scheme"], r["steps"], len(r["out_of_scope"]), r["observations"],
                   r["equal"]] for r in result["recordings"]]
    values = values_table(result["values"])
    lines = [f"hgmcore validate: {plural(len(table.rows), 'recording')} of running kernels", "", *as_text(table), "",
             values.title, *as_text(values), "", *listed(LEGEND)]
    reasons = {}
    for r in result["recordings"]:
        for step in r["out_of_scope"]:
            reasons.setdefault(step["reason"], []).append(f"{r['recording'].partition('_')[0]} {step['step']}")
    if reasons:
        lines += ["", *wrapped(f"OUT OF SCOPE, {plural(result['out_of_scope'], 'step')} of {result['steps']:,}")]
        for reason, steps in sorted(reasons.items(), key=lambda item: -len(item[1])):
            lines += wrapped(f"{len(steps)}  {reason}: {', '.join(steps)}", "  ", "     ")
    for what, count in result["not_compared"].items():
        lines += ["", *wrapped(f"Not compared: {what}, {plural(count, 'value')}.")]
    for r in result["recordings"]:
        if r["differences"]:
            lines += ["", *wrapped(f"{r['recording']}: {plural(len(r['differences']), 'difference')}, the first:"),
                      *wrapped(r["differences"][0], "  ", "  ")]
    return "\n".join([*lines, "", f"{result['equal']:,} of {result['observations']:,} observations equal"]) + "\n"


def values_table(values) -> Table:
    """What was compared, from {kind: {"compared", "not_zero", "equal"}}."""
    table = Table("VALUES in them, by kind", [Column("kind", "text"), Column("compared"), Column("not 0"),
                                              Column("equal"), Column("different", "errors")])
    table.rows = [[kind, n["compared"], n["not_zero"], n["equal"], n["compared"] - n["equal"]]
                  for kind, n in values.items()]
    return table


LEGEND = [
    ("step", "a system call of a recording"),
    ("out of scope", "steps that traces have no statement for; their answer is not compared"),
    ("observed", "steps of which something was compared: the call's answer (error, bytes done, event) or the state of all "
                 "processes and files behind it"),
    ("equal", "those of which every value is equal"),
    ("not 0", "values that the kernel did not have as 0 or none: pages that are mapped, calls that failed"),
    ("map count", "of every 4K page of each file and each mapping"),
    ("leaf", "what maps each 4K page of each mapping: a PTE, a huge entry, or nothing"),
    ("exclusive bit", "bit 56 of pagemap, of each 4K page of each mapping"),
    ("mapped by PMD", "AnonHugePages, ShmemPmdMapped and FilePmdMapped of smaps"),
    ("page-table pages", "VmPTE of each process"),
]

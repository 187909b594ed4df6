"""Recording of a running kernel: what processes asked of it, and what it showed after each step.

JSON lines: `scenario` (the kernel's version), `file`, `proc`, and for each step an `op` with the system call, its
arguments and its answer, and an `obs` with the state behind it. Steps become the statements of a trace, with
offsets from the start of their mapping, and every `obs` an `observe`; `hgmcore validate` compares the rest.

A file's pages are populated as its first observation has them. Anonymous memory gets huge pages if MADV_HUGEPAGE
is the first that is done to it. A read or write of several pages is a touch of each. A touch by a thread that
waits for userfaultfd is repeated where the thread ends. An mlock of what may only be read gives it the right to
be written, which cuts the mapping in the same places, and touches each page.

What a trace has no statement for is skipped and reported with its reason. None of it changes a map count.

Recordings ship with the package, in hgmcore/recordings/kernel; the README there has the format, for recorders of
your own:

    hgmcore import kernel-recording a08_collapse.jsonl.xz -o collapse.hgm
    hgmcore validate FOLDER
"""

from __future__ import annotations

import json
import struct

from hgmcore.importers.kernel_steps import Translation
from hgmcore.importers.report import Report
from hgmcore.importers.sink import Sink
from hgmcore.trace import Trace, TraceError

explanation = __doc__

options = ()


def read(stream, name) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError."""
    report = Report("kernel-recording", name)
    records = parse(stream, name)
    report.lines = len(records)
    sink, provenance = Sink(), {}
    translation = Translation(sink)
    for line, record in enumerate(records, start=1):
        kind = record["t"]
        if kind == "op":
            reason = translated(translation.step, record, name, line)
            if reason:
                report.skip(reason, line)
            else:
                report.used["steps"] += 1
        elif kind == "file":
            translated(translation.file, record, name, line)
            report.used["files"] += 1
        elif kind == "obs":
            sink.emit("observe", 0)
            report.used["observations"] += 1
        elif kind == "scenario":
            provenance = {key: str(record[key]) for key in ("name", "doc", "kernel") if key in record}
    provenance = {"recording": "steps of a running kernel", **provenance}
    return sink.trace(name, provenance), report


NEEDED = {"scenario": ("name", "kernel"), "file": ("file", "kind", "size", "page"), "proc": ("proc",),
          "op": ("i", "op", "proc"), "obs": ("procs", "files")}
"""What a record of each type must say."""


def parse(stream, name) -> list[dict]:
    """The records of a recording, one for each line; a file's say what was cached first. Raises TraceError."""
    records = []
    for line, text in enumerate(stream, start=1):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TraceError(name, f"not JSON: {error}", line) from None
        if not isinstance(record, dict) or record.get("t") not in (*NEEDED, "note"):
            raise TraceError(name, f'not a line of a kernel recording: its "t" is none of {", ".join(NEEDED)}', line)
        for key in NEEDED.get(record["t"], ()):
            if key not in record:
                raise TraceError(name, f"{record['t']}: no {key!r}", line)
        records.append(record)
    if not records or records[0]["t"] != "scenario":
        raise TraceError(name, 'not a kernel recording: its first line is no {"t": "scenario", ..}', 1)
    for line, record in enumerate(records, start=1):
        if record["t"] == "file" and "cached" not in record:
            record["cached"] = translated(lambda file: first_cached(file["file"], records), record, name, line)
    return records


def first_cached(file, records) -> list:
    """Runs [first, count] of the pages that the first observation of a file has in the page cache."""
    seen = (record["files"][file]["phys"] for record in records if record["t"] == "obs" and file in record["files"])
    runs = []
    for first, count, *_ in next(seen, []):
        if runs and sum(runs[-1]) == first:
            runs[-1][1] += count
        else:
            runs.append([first, count])
    return runs


def translated(function, record, name, line):
    """function(record); TraceError where the record does not say what it should."""
    what = str(record.get("op", record["t"]))
    try:
        return function(record)
    except KeyError as error:
        raise TraceError(name, f"{what}: no {error}", line) from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError, struct.error) as error:
        raise TraceError(name, f"{what}: {error}", line) from None

"""Recording of a running kernel: what processes asked of it, and what it showed after each step.

JSON lines: `scenario` (the kernel's version), `file`, `proc`, and for each step an `op` with the system call, its
arguments and its answer, and an `obs` with the state behind it. Steps become the statements of a trace, with
offsets from the start of their mapping, and every `obs` an `observe`; `hgmcore validate` compares the rest.

A file's pages are populated as its first observation has them. Anonymous memory gets huge pages if MADV_HUGEPAGE
is the first that is done to it, in folios as large as page flags show, and is of hugetlb if VmFlags has `ht`. Addresses
are kept as far as they matter: modulo 2M. A read or write of several pages is a touch of
each. A touch by a thread that waits for userfaultfd is repeated where the thread ends. An mlock of what may only be
read gives it the right to be written, which cuts the mapping in the same places, and touches each page.

What a trace has no statement for is skipped and reported with its reason. None of it changes a map count.

Recordings ship with the package, in hgmcore/recordings/kernel; the README there has the format, for recorders of
your own:

    hgmcore import kernel-recording a08_collapse.jsonl.xz -o collapse.hgm
    hgmcore validate FOLDER
"""

from __future__ import annotations

import json
import struct
import tempfile

from hgmcore.importers.processes.kernel_mappings import PAGE
from hgmcore.importers.processes.kernel_steps import Translation
from hgmcore.importers.report import Report
from hgmcore.trace import Trace, TraceError
from hgmcore.trace.writer import Writer

explanation = __doc__

options = ()


FOREIGN = 'not a kernel recording: its first line is no {"t": "scenario", ..}'
LONGEST = 1 << 26  # bytes of a line, so that memory is bounded


def read(stream, name) -> tuple[Trace, Report]:
    """The trace and what was counted. Raises TraceError."""
    report = Report("kernel-recording", name)
    writer, provenance, files, anonymous = Writer(), {}, [], []
    translation = Translation(writer)
    with tempfile.TemporaryFile() as spool:  # steps wait there until it is known what files had cached at first
        for record in read_records(stream, name):
            if record["t"] == "file":
                files.append(record)
            kept = record if record["t"] in ("op", "scenario") else {"t": record["t"]}
            if is_anonymous_mmap(record):
                anonymous.append(record)
                kept = {"t": "op", "later": True}
            spool.write(json.dumps(kept).encode() + b"\n")
        spool.seek(0)
        files, anonymous = iter(files), iter(anonymous)
        for line, record in enumerate(map(json.loads, spool), start=1):
            kind, report.lines = record["t"], line
            if kind == "op":
                record = next(anonymous) if "later" in record else record
                reason = translated(translation.step, record, name, line)
                if reason:
                    report.skip(reason, line)
                else:
                    report.used["steps"] += 1
            elif kind == "file":
                translated(translation.file, next(files), name, line)
                report.used["files"] += 1
            elif kind == "obs":
                writer.emit("observe", 0)
                report.used["observations"] += 1
            elif kind == "scenario":
                provenance = {key: str(record[key]) for key in ("name", "doc", "kernel") if key in record}
    provenance = {"recording": "steps of a running kernel", **provenance}
    return writer.trace(name, provenance), report


NEEDED = {"scenario": ("name", "kernel"), "file": ("file", "kind", "size", "page"), "proc": ("proc",),
          "op": ("i", "op", "proc"), "obs": ("procs", "files")}
"""What a record of each type must say."""


def read_records(stream, name):
    """The records of a recording, one for each line. Raises TraceError.

    A file that does not say what was `cached` has none at first; it is filled in with what the first observation shows.
    So are the flags of an mmap without a file: VmFlags `ht` tells of MAP_HUGETLB.
    """
    line, lacking = 0, {}
    for line, text in enumerate(iter(lambda: stream.readline(LONGEST), b""), start=1):
        if len(text) == LONGEST:
            raise TraceError(name, f"a line of more than {LONGEST} bytes", line)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TraceError(name, f"not JSON: {error}", line) from None
        if not isinstance(record, dict) or record.get("t") not in (*NEEDED, "note"):
            raise TraceError(name, f'not a line of a kernel recording: its "t" is none of {", ".join(NEEDED)}', line)
        for key in NEEDED.get(record["t"], ()):
            if key not in record:
                raise TraceError(name, f"{record['t']}: no {key!r}", line)
        if line == 1 and record["t"] != "scenario":
            raise TraceError(name, FOREIGN, 1)
        translated(lambda record: fill_in(lacking, record), record, name, line)
        yield record
    if not line:
        raise TraceError(name, FOREIGN, 1)


def is_anonymous_mmap(record) -> bool:
    return record["t"] == "op" and record["op"] == "mmap" and "file" not in record


def fill_in(lacking, record) -> None:
    """Give a file that lacks it a `cached`, or fill in what an observation shows: runs [first, count] of pages.

    lacking: file -> its `cached`, of those that no observation has shown so far; and (process, region) -> the mmap.
    """
    if is_anonymous_mmap(record):
        lacking[record["proc"], record["region"]] = record
        if "page" not in record:
            lacking["page", record["proc"], record["region"]] = record
    for key in [key for key in lacking if isinstance(key, tuple) and record["t"] == "obs"]:
        seen = record["procs"].get(key[-2], {}).get("regions", {}).get(key[-1])
        if key[0] == "page" and len(key) == 3:
            largest = largest_folio(seen["kflags"]) if seen and "kflags" in seen else 1
            if largest > 1:
                lacking.pop(key)["page"] = largest * PAGE
            continue
        if seen is not None:
            mmap = lacking.pop(key)
            if any("ht" in vma[3].split() for vma in seen.get("vmas", ()) if len(vma) > 3):
                mmap["flags"] += "" if "HUGETLB" in mmap["flags"] else "|HUGETLB"
    if record["t"] == "file" and "cached" not in record:
        record["cached"] = lacking[record["file"]] = []
    for file in [file for file in lacking if record["t"] == "obs" and file in record["files"]]:
        runs = lacking.pop(file)
        for first, count, *_ in record["files"][file]["phys"]:
            if runs and sum(runs[-1]) == first:
                runs[-1][1] += count
            else:
                runs.append([first, count])


def largest_folio(kflags) -> int:
    """Pages of the largest folio of anonymous memory that runs [first, count, flags] of a region show, 1: none is."""
    largest = 1
    for (first, count, flags), (after, tails, more) in zip(kflags, kflags[1:]):
        words = flags.split("|")
        if {"ANON", "HEAD"} <= set(words) and "TAIL" in more.split("|") and after == first + count:
            largest = max(largest, 1 << int(tails).bit_length())
    return min(largest, 512)


def translated(function, record, name, line):
    """function(record); TraceError where the record does not say what it should."""
    what = str(record.get("op", record["t"]))
    try:
        return function(record)
    except KeyError as error:
        raise TraceError(name, f"{what}: no {error}", line) from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, IndexError, struct.error) as error:
        raise TraceError(name, f"{what}: {error}", line) from None

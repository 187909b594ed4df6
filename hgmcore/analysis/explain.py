"""The shortest part of a trace that still shows a scheme's first error."""

from __future__ import annotations

import time

import numpy as np

from hgmcore.analysis.errors import OWN
from hgmcore.analysis.properties import PROPERTIES, checked, wrong
from hgmcore.geometry import GEOMETRIES
from hgmcore.inputs import load
from hgmcore.replay import machine_for
from hgmcore.shrink import shortest
from hgmcore.trace import Trace, TraceError, text
from hgmcore.trace.statements import CODES

SAMPLES = 64
"""Observations, evenly spaced over the operations, beside those that the trace itself has."""

SECONDS = 60.0
"""How long to shrink."""

RANGES = [CODES[name] for name in (
    "continue", "dontneed", "collapse", "munmap", "split", "migrate", "touch", "hwpoison")]


def explain(trace, scheme, *, properties=None, seconds: float = SECONDS, progress=None, **options) -> dict:
    """The shortest part of a trace that shows the first error of a scheme, as "hgmcore-explain 1" in plain JSON types.

    trace: a Trace, or whatever `hgmcore.load` takes. scheme: a name or an Engine. properties: names of
    analysis.properties.PROPERTIES that count as errors; None: all. An error is looked for at each `observe` of the
    trace, at 64 operations evenly spaced, and at the end; of several at once the gravest is explained, and what the
    scheme defines otherwise only where nothing else is wrong. seconds: after so long the shortest part so far is given.
    progress: called with (operations looked at, all) while the error is looked for.

    "tested": whether anything was mapped or unmapped. "error": None where nothing is wrong; else "property", "meaning",
    "value", "kind", a key of KINDS, and "index" of the operation after which it was first seen; "trace" then is the
    part as text, "operations" its length, "shortest" whether it was shrunk to the end.
    """
    trace, names = load(trace), checked(properties)
    first, tested = _first(trace, scheme, options, names, progress)
    found = {"format": "hgmcore-explain 1", "input": trace.name, "operations_before": len(trace),
             "scheme": machine_for(trace, scheme, options).engine.name, "options": dict(options),
             "properties": names, "tested": tested, "error": None, "trace": None, "operations": 0, "shortest": True}
    if first is None:
        return found
    index, name, value = first
    part = Part(trace, scheme, options, name, time.monotonic() + seconds)
    records = part.shrunk(index + 1)
    short = part.as_trace(records)
    return {**found, "trace": short.to_text(), "operations": len(short), "shortest": not part.late,
            "error": {"property": name, "meaning": PROPERTIES[name][1], "kind": kind(part.engine, name),
                      "index": index, "value": value,
                      "value_in_part": part.value(short.operations, short.header)}}


KINDS = {
    "promise": "it breaks what its own file promises",
    "fault": "its own file states this fault",
    "definition": "it defines this answer otherwise",
    "consequence": "it is what a kernel makes of the answers",
    "rule": "the rule of hugetlb (mapcount > 1) errs, which it need not go by",
}
"""What an error is to its scheme."""

LATER = ("definition", "rule")
"""Kinds of errors that are explained only where there is no other."""


def kind(engine, name) -> str:
    """What an error in a property (of analysis.properties) is to a scheme: a key of KINDS."""
    promise = {**OWN, "page_mapcount_wrong_pages": "page_counts_equal_truth"}.get(name)
    if promise is None:
        return "rule" if name.endswith("_hugetlb") else "consequence"
    return engine.exceptions.get(promise, "promise")


def _first(trace, scheme, options, names, progress):
    """The first error that is seen, else the first of the kinds LATER, or None; and whether anything was tested.

    An error is (operation, property, number). Tested is a trace that mapped or unmapped something.
    """
    machine, start, total = machine_for(trace, scheme, options), 0, len(trace)
    later = None
    observed = np.flatnonzero(trace.operations["op"] == CODES["observe"]) + 1
    samples = np.linspace(0, total, SAMPLES + 1, dtype=np.int64)[1:]
    for stop in np.unique(np.concatenate([observed, samples])).tolist():
        if stop > start:
            machine.run(trace.records[start:stop])
            start = stop
        if progress:
            progress(stop, total)
        for name, value in wrong(machine.observe(), names).items():
            if kind(machine.engine, name) not in LATER:
                return (stop - 1, name, value), True
            later = later or (stop - 1, name, value)
    cost = machine.cost()
    return later, cost["leaf_installs"] + cost["leaf_removes"] > 0


class Part:
    """Records of a trace from which some are taken away, and whether an error still shows after the last of them.

    late: the time was over before the part was the shortest.
    """

    def __init__(self, trace, scheme, options, name, until):
        self.trace, self.scheme, self.options, self.name = trace, scheme, options, name
        self.until, self.late = until, False
        self.engine = machine_for(trace, scheme, options).engine

    def shrunk(self, count):
        """The shortest list of records, tuples, of the first `count`, that shows the error."""
        records = self.trace.operations[:count]
        records = records[~np.isin(records["op"], [CODES["observe"], CODES["phase"]])].tolist()
        return shortest(records, self.fails, simpler=(self._at_the_beginning, self._one_page))

    def fails(self, records):
        if time.monotonic() > self.until:
            self.late = True
            return False
        return bool(self.value(np.array(records, self.trace.operations.dtype), self.trace.header))

    def value(self, operations, header):
        """The number of the error after these operations: 0 where there is none."""
        trace = self.trace if header is self.trace.header else Trace(header, operations)
        machine = machine_for(trace, self.scheme, self.options)
        machine.run(operations)
        return PROPERTIES[self.name][0](machine.observe())

    def as_trace(self, records):
        """Records as a trace of its own: `file` statements before what uses them, names that are used and no others.

        A record that names what the part no longer declares has done nothing (the machine refuses it), and is left out.
        """
        header = self.trace.header
        files = [CODES["file"], CODES["populate"], CODES["punch"], CODES["truncate"], CODES["pin"], CODES["unpin"]]
        used = {record[3] for record in records if record[4] == CODES["mmap"]}
        used |= {record[2] for record in records if record[4] in files}
        declared = [(0, 0, index, 0, CODES["file"], 0) for index in sorted(used) if header.files[index].kind != "anon"]
        records = [*declared, *(record for record in records if record[4] != CODES["file"])]
        lines = list(text.spelled(np.array(records, self.trace.operations.dtype), header))
        head = [text.FIRST_LINE, f"geometry {header.geometry}"]
        while True:
            try:
                return Trace.parse("\n".join([*head, *lines, "observe", ""]), self.trace.name)
            except TraceError as error:
                if error.line is None or not len(head) < error.line <= len(head) + len(lines):
                    raise
                del lines[error.line - len(head) - 1]

    @staticmethod
    def _at_the_beginning(record):
        return record if record[4] not in RANGES else (0, *record[1:])

    def _one_page(self, record):
        """The record with the length of one base page, where it has one."""
        base_page = GEOMETRIES[self.trace.header.geometry].base_page
        return (record[0], base_page, *record[2:]) if record[4] in RANGES and record[1] else record

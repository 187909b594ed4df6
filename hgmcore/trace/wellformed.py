"""What every trace must satisfy, whichever form it was read from and whoever built it.

Text cannot break the rules about columns and declarations; a binary file that was tampered with can.
"""

from __future__ import annotations

import numpy as np

from hgmcore.trace.names import Names, is_word
from hgmcore.trace.statements import ARG, AT, CODES, FORMS, LENGTH, NAMES, NO_ARG, OFFSET, RESIZED, TARGET, Reference

CHUNK = 1 << 20  # records at a time, to bound temporary memory

DECLARING = [CODES[name] for name in ("file", "mmap", "mremap", "fork", "phase")]


def check(trace) -> None:
    """Raise TraceError unless both forms can hold `trace` and its indices point at what is declared."""
    for column in ("thread", "time", "lines"):
        array = getattr(trace, column)
        if array is not None and array.shape != trace.operations.shape:
            trace.fail(f"column {column!r} has {array.size} entries for {len(trace)} statements")
    check_provenance(trace)
    for mapping in trace.header.mappings:
        if not 0 <= mapping.process < len(trace.header.processes):
            trace.fail(f"the header's mapping {mapping.name!r} belongs to no process")
    for part in trace.chunks(CHUNK):
        unknown = trace.operations["op"][part] >= len(NAMES)
        if unknown.any():
            index = part.start + int(np.argmax(unknown))
            trace.fail(f"statement {index}: unknown operation code {trace.operations['op'][index]}")
        if trace.time is not None and (trace.time[part] < -1).any():
            trace.fail("negative time", part.start + int(np.argmax(trace.time[part] < -1)))
    for statement, where, records in _by_form(trace):
        for bad, reason in _column_faults(statement, records, trace.header):
            _refuse(trace, where, records, bad, reason)
    declared = _declarations(trace)
    for statement, where, records in _by_form(trace):
        for operand in statement.operands:
            if isinstance(operand, Reference):
                late = declared[operand.kind][records[operand.name]] > where
                _refuse(trace, where, records, late, f"a {operand.kind} is used before it is declared")
        for limit in statement.limits:
            for bad, reason in limit(records, trace.header):
                _refuse(trace, where, records, bad, reason)


def check_provenance(trace) -> None:
    """Raise TraceError unless the header's provenance is texts under names that are words."""
    for key, value in trace.header.provenance.items():
        if not is_word(key) or not isinstance(value, str):
            trace.fail(f"provenance: {key!r} is not a word with a text")


def _by_form(trace):
    """(form, indices, records) of the statements, chunk by chunk."""
    for part in trace.chunks(CHUNK):
        chunk = trace.operations[part]
        for code in np.flatnonzero(np.bincount(chunk["op"], minlength=len(NAMES))):
            where = np.flatnonzero(chunk["op"] == code)
            *rest, last = FORMS[NAMES[code]]
            for form in rest:
                chosen = chunk["arg"][where] == form.arg
                yield form, where[chosen] + part.start, chunk.take(where[chosen])
                where = where[~chosen]
            yield last, where + part.start, chunk.take(where)


def _column_faults(statement, records, header):
    """Yield (which records are wrong, reason): columns that should be unused, unknown flags, bad operands."""
    for column in {OFFSET, LENGTH, TARGET, ARG} - statement.columns:
        name, expected = records.dtype.names[column], statement.blank[column]
        yield records[name] != expected, f"column {name!r} is {{{name}}}, expected {expected}"
    yield records["flags"] & ~np.uint8(statement.bits) != 0, "flags {flags} hold a bit that it does not have"
    for operand in statement.operands:
        yield from operand.faults(records, header)


def _refuse(trace, where, records, bad, reason):
    if bad.any():
        first = int(np.argmax(bad))
        values = dict(zip(records.dtype.names, records[first].tolist()))
        files = trace.header.files
        values["file"] = files[values["target"]] if values["target"] < len(files) else None
        trace.fail(reason.format(**values, end=values["offset"] + values["length"]), int(where[first]))


def _declarations(trace) -> dict[str, np.ndarray]:
    """Replay the declarations and compare them with the header; kind -> index of each entry's declaration."""
    header = trace.header
    try:
        names = Names(header.geometry)
    except ValueError as error:
        trace.fail(str(error))
    tables = {"file": names.files, "process": names.processes, "mapping": names.mappings, "phase": names.phases}
    declared = {kind: [] for kind in tables}
    for part in trace.chunks(CHUNK):
        where = np.flatnonzero(np.isin(trace.operations["op"][part], DECLARING))
        records = trace.operations[part].take(where)
        new = np.flatnonzero(_declares(records))
        for index, record in zip((where[new] + part.start).tolist(), records[new].tolist()):
            try:
                _declare(names, header, *record)
            except ValueError as error:
                trace.fail(str(error), index)
            for kind, table in tables.items():
                declared[kind] += [index] * (len(table) - len(declared[kind]))
    for kind, table in tables.items():
        if table != header.table(kind):
            trace.fail(f"the header's {kind} table is not what the statements declare, in their order")
    return {kind: np.array(indices, dtype=np.int64) for kind, indices in declared.items()}


def _declares(records):
    """Which of the statements of DECLARING can declare something: an mmap or phase that is there twice does so once."""
    new = ~np.isin(records["op"], [CODES["mmap"], CODES["phase"]])
    again = np.flatnonzero(~new)
    key = records["target"][again].astype(np.uint64) << np.uint64(24)
    key |= records["op"][again].astype(np.uint64) << np.uint64(16) | records["arg"][again]
    key |= (records["flags"][again] & AT != 0).astype(np.uint64) << np.uint64(23)
    _, first = np.unique(key, return_index=True)
    new[again[first]] = True
    return new


def _declare(names, header, offset, length, target, arg, op, flags):
    """What a statement declares, in terms of the names that the header gives it."""
    name = NAMES[op]
    if name == "file":
        names.declare_file(*header.files[target])
    elif name == "mmap":
        file = header.files[arg]
        if file.kind == "anon":
            names.anonymous(file.name)
        mapping = header.mappings[target]
        index = names.declare_mapping(header.processes[mapping.process], mapping.name)
        if flags & AT:
            names.place(index, address=mapping.address)
    elif name == "fork":
        if target >= len(names.processes):
            raise ValueError("the parent is used before it is declared")
        names.fork(target, header.processes[arg])
    elif name == "phase":
        names.phase(header.phases[target])
    elif arg != NO_ARG:
        source, moved = header.mappings[target], header.mappings[arg]
        if source.process != moved.process:
            raise ValueError(f"mapping {moved.name!r} belongs to another process")
        index = names.declare_mapping(header.processes[source.process], moved.name)
        if flags & AT:
            names.place(index, address=moved.address)
        if flags & RESIZED:
            names.place(index, length=moved.length)

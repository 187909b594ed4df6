"""The page of `hgmcore replay`: one replay as text."""

from collections import Counter
from dataclasses import replace

import numpy as np

from hgmcore.analysis.errors import smaps_shared
from hgmcore.errnos import error_name
from hgmcore.replay import EVENTS
from hgmcore.report.compare import trace_lines
from hgmcore.report.prose import indented, plural, wrapped
from hgmcore.report.table import MOST, Column, Table, as_text, count, nanoseconds
from hgmcore.runs import difference
from hgmcore.sizes import format_size
from hgmcore.trace.describe import describe
from hgmcore.trace.statements import NAMES


def replay_text(result, trace):
    """One replay, a result of `hgmcore.replay`, as text."""
    lines = wrapped(f"hgmcore replay: {trace.name} under {result['scheme']}")
    lines += indented(trace_lines(describe(trace)))
    lines += indented(["options: " + ", ".join(f"{key}={value}" for key, value in result["options"].items())])
    lines += indented(_threads(result, trace))
    lines += ["", "COST, counted: exact, the same on every machine; time measured", *_costs(result["cost"])]
    counters = result["counters"]
    lines += _values([(f"counter {name}", number) for name, number in counters.items()])
    lines += ["", *_refusals(result["operations"], trace)]
    lines += ["", *_operations(result["operations"], trace)]
    observations = result["observations"]
    for observation in observations[:MOST]:
        lines += ["", f"OBSERVATION, statement {observation['index']}", *_observation(observation)]
    if len(observations) > MOST:
        lines += ["", f"... and {plural(len(observations) - MOST, 'observation')} more (--json has all)"]
    return "\n".join(lines) + "\n"


def _threads(result, trace):
    if result["threads"] == 1:
        return []
    return [f"{plural(result['threads'], 'native thread')}: {count(result['operations_at_once'])} of "
            f"{plural(len(trace), 'operation')} at the same time, in {plural(result['stretches'], 'stretch')}"]


def _costs(cost):
    atomics = cost["atomics"]
    return _values([
        ("operations", cost["operations"]),
        ("leaf installs", cost["leaf_installs"]),
        ("leaf removes", cost["leaf_removes"]),
        ("table allocs", cost["table_allocs"]),
        ("table frees", cost["table_frees"]),
        ("atomics: references", atomics["ref"]),
        ("atomics: map counts", atomics["map"]),
        ("atomics: put back by look-ups", atomics["transient"]),
        ("struct pages written", cost["lines"]),
        ("entries scanned", cost["entries_scanned"]),
        ("locks taken", cost["locks"]),
        ("page tables at peak", f"{count(cost['table_bytes_peak'] // 1024)} kB"),
        ("struct pages", f"{count(cost['struct_page_bytes'] // 1024)} kB"),
        ("ns/op, one run", nanoseconds(cost["ns_per_operation"])),
    ])


def _values(pairs):
    """smaps-like lines: key, colon, value to the right."""
    texts = [(key, count(value) if isinstance(value, int) else value) for key, value in pairs]
    return [f"  {key + ':':<31}{text.removesuffix(' kB'):>16}{' kB' if text.endswith(' kB') else ''}"
            for key, text in texts]


def _refusals(operations, trace):
    """What was refused, or done in part, or answered by an event: how often, by operation and answer."""
    asked = trace.operations[operations["index"].astype(np.int64)]
    less = (operations["errno"] != 0) | (operations["event"] != 0) | (operations["done"] < asked["length"])
    kinds = Counter(
        (NAMES[op["op"]], _answer(entry, op), "in part" if entry["done"] else "nothing")
        for entry, op in zip(operations[less], asked[less], strict=True))
    table = Table("", [Column("operation", "text"), Column("answer", "text"), Column("done", "text"),
                       Column("times")])
    by_number = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    table.rows += [[*kind, number] for kind, number in by_number]
    failed = int(np.count_nonzero(operations["errno"]))
    return [f"ANSWERS: {count(failed)} of {plural(len(trace), 'operation')} refused",
            *_rows(table, len(table.rows))]


def _operations(operations, trace):
    """The operations that a result keeps: all, or those that did not simply succeed."""
    with_lines = trace.lines is not None
    table = Table("", [Column("statement"), *([Column("line")] if with_lines else []),
                       Column("operation", "text"), Column("done", "text"), Column("result", "text")])
    for entry in operations[:MOST]:
        index = int(entry["index"])
        line = [int(trace.lines[index])] if with_lines else []
        op = trace.operations[index]
        done = format_size(int(entry["done"]))
        table.rows.append([index, *line, NAMES[op["op"]], done, _answer(entry, op)])
    every = len(operations) == len(trace)
    which = "all" if every else "refused, answered by an event, or less done than asked"
    return [f"OPERATIONS: {count(len(operations))}, {which}", *_rows(table, len(operations))]


def _answer(entry, op):
    if entry["errno"]:
        return error_name(entry["errno"])
    if entry["event"]:
        return {"minor": "minor event", "never_fired": "never fired"}[EVENTS[int(entry["event"])]]
    return "less than asked" if entry["done"] < op["length"] else "ok"


def _observation(observation):
    folios, mappings = observation["folios"], observation["mappings"]
    of_folios, of_mappings = _folios(folios[:MOST]), _mappings(mappings[:MOST])
    return [*_rows(of_folios, len(folios)), "", *_rows(of_mappings, len(mappings))]


def _folios(folios):
    said = [Column("ref"), Column("mapcount"), Column("mapped", "text"), Column("shared", "text")]
    true = [Column("leaves"), Column("processes"), Column("pages")]
    table = Table("", [Column("file", "text"), Column("page"), *_grouped("scheme", said),
                       *_grouped("truth", true), Column("wrong\npages", "errors")])
    for folio in folios:
        truth = folio["truth"]
        wrong, _ = difference(folio["page_mapcount"], truth["page_mapcount"])
        table.rows.append([
            folio["file"], folio["page"], folio["refcount"], folio["mapcount"], _yes(folio["mapped"]),
            _yes(folio["maybe_shared"]), truth["leaves"], truth["processes"], truth["pages_mapped"], wrong])
    return table


def _mappings(mappings):
    said = [Column(title, "kB") for title in ("Rss", "Pss", "Shared", "Private")]
    true = [Column(title, "kB") for title in ("Pss", "Shared")]
    table = Table("", [Column("process", "text"), Column("mapping", "text"), *_grouped("scheme, kB", said),
                       *_grouped("truth, kB", true)])
    for mapping in mappings:
        truth = mapping["truth"]
        table.rows.append([
            mapping["process"], mapping["mapping"], mapping["rss"], mapping["pss"], smaps_shared(mapping),
            mapping["rss"] - smaps_shared(mapping), truth["pss"], truth["shared"]])
    return table


def _grouped(group, columns):
    return [replace(column, group=group) for column in columns]


def _rows(table, total):
    """The table as text, and how many rows of `total` it leaves out."""
    more = [f"... and {count(total - MOST)} more (--json has all)"] if total > MOST else []
    return [*as_text(table), *more] if table.rows else []


def _yes(value):
    return "yes" if value else "no"

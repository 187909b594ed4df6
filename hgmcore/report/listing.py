"""What the commands other than compare print: one replay, one trace, what schemes and workloads there are."""

import inspect
from collections import Counter
from dataclasses import replace

import numpy as np

from hgmcore.analysis.compare import runs_difference, smaps_shared
from hgmcore.api import ERROR_NAMES
from hgmcore.options import OPTIONS
from hgmcore.report.compare import trace_lines
from hgmcore.report.prose import WIDTH, indented, listed, paragraphs, plural, shortened, wrapped
from hgmcore.report.table import Column, Table, as_text, count, nanoseconds
from hgmcore.sizes import format_size
from hgmcore.trace.describe import describe
from hgmcore.trace.statements import NAMES

MOST = 20  # rows of a list in a text; JSON has all


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
        return ERROR_NAMES.get(int(entry["errno"]), str(entry["errno"]))
    return "minor event" if entry["event"] else "less than asked" if entry["done"] < op["length"] else "ok"


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
        wrong, _ = runs_difference(folio["page_mapcount"], truth["page_mapcount"])
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


def info_text(trace):
    """What is in a trace."""
    facts = describe(trace)
    lines = wrapped(f"hgmcore trace: {trace.name}")
    pairs = [("geometry", facts["geometry"]), ("operations", count(facts["operations"]))]
    pairs += [(f"  {name}", count(number)) for name, number in facts["by_operation"].items()]
    pairs += [("files", count(len(facts["files"])))]
    pairs += [(f"  {f['name']}", f"{count(f['pages'])} x {format_size(f['page_size'])} {f['kind']}")
              for f in facts["files"][:MOST]]
    pairs += [("processes", _first(facts["processes"])), ("mappings", count(facts["mappings"])),
              ("threads", count(facts["threads"]))]
    pairs += [(key, value) for key, value in facts["provenance"].items()]
    return "\n".join([*lines, *listed(pairs)]) + "\n"


def _first(names):
    more = f", ... ({count(len(names))})" if len(names) > MOST else ""
    return (", ".join(names[:MOST]) or "none") + more


def schemes_text(engines):
    """Every scheme in a line, and the options they take."""
    room = max(len(engine.name) for engine in engines) + 2
    names = [engine.name.ljust(room) + shortened(_summary(engine.explanation), WIDTH - room)
             for engine in engines]
    return _text(names, ["Options, the default first; a scheme may have its own default:"],
                 listed(options_explained()), ["`hgmcore schemes NAME` explains a scheme."])


def options_explained():
    """(option, values and meaning) pairs of every option; its default comes first."""
    return [(name, f"{'|'.join(option.values)}: {option.help}") for name, option in OPTIONS.items()]


def scheme_text(engine):
    """One scheme explained: its documentation, the words it keeps, its options, and whether HVO suits it."""
    hvo = ("no: it counts on struct pages that HVO gives back" if engine.writes_tails
           else "yes: it counts on the first struct pages only")
    pairs = [("state words", ", ".join(engine.state) or "none"), ("lives with HVO", hvo),
             ("own defaults", _settings(engine.defaults)), ("model=posted", _settings(engine.posted))]
    return _text([engine.name], paragraphs(engine.explanation), listed(pairs))


def _settings(options):
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "none; as the general defaults"


def workloads_text(known, recordings):
    """Every workload and every recording in a line. known: name -> (function, parameters)."""
    return _text(
        ["Workloads, as inputs: workload:NAME[,key=value...]"],
        listed([(name, function.question) for name, (function, _) in known.items()]),
        ["Recordings, as inputs: recording:NAME"],
        listed([(recording.name, recording.description) for recording in recordings]),
        ["`hgmcore workloads NAME` explains a workload, `hgmcore info recording:NAME` a", "recording."])


def workload_text(name, function, parameters):
    """One workload explained."""
    return _text([f"workload:{name}[,key=value...]"], wrapped(function.question), paragraphs(documentation(function)),
                 ["Defaults:"], listed([(key, str(value)) for key, value in parameters.items()]))


def _text(*blocks):
    """Blocks of lines as one text, an empty line between blocks."""
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def documentation(function):
    """The docstring of a function, without its indentation."""
    return inspect.getdoc(function)


def _summary(explanation):
    return explanation.strip().splitlines()[0].rstrip(".")


def click_help(text):
    """A docstring as help for click, which refills paragraphs; indented blocks keep their lines."""
    blocks = text.strip("\n").split("\n\n")
    return "\n\n".join("\b\n" + block if block.startswith(" ") else block for block in blocks)

"""Results for people: the comparison as two tables, in plain ASCII of 80 columns or in Markdown.

Every number comes from the result (`hgmcore.compare`), which has it exactly; nothing is computed here
but sums of two of its numbers and changes in per cent.
"""

import re

from hgmcore.analysis.judge import baseline, is_right, partial, ran
from hgmcore.report.columns import COSTS, ERRORS, legend
from hgmcore.report.prose import ascii_only, each, indented, listed, plural, shortened, wrapped
from hgmcore.report.table import Column, Table, as_markdown, as_text, count
from hgmcore.sizes import format_size

LINE = 78  # characters of an indented line
SCALED = re.compile(r"\d[kMGTPE]\b")
ORIGIN = ("recorder", "guest", "source")  # what of a trace's provenance heads a report
ERROR_NOTES = (
    ("mapped_but_reported_unmapped", "folios in use reported as unmapped"),
    ("unmapped_but_reported_mapped", "unmapped folios reported as mapped"),
    ("freed_while_mapped", "folios freed while mapped"),
    ("counter_overflows", "counter overflows"),
)


def compare_text(result):
    """The result of `hgmcore.compare` as text: ASCII, at most 80 columns, to read or to paste into a mail."""
    cost, errors = cost_table(result), error_table(result)
    lines = [*wrapped(f"hgmcore compare: {result['trace']['name']}"), *indented(trace_lines(result["trace"]))]
    tables = [as_text(cost), as_text(errors)]
    lines += ["", cost.title, *tables[0], "", *listed(cost_legend(result))]
    lines += indented(memory_notes(result))
    lines += ["", errors.title, *tables[1], "", *listed(error_legend(result))]
    if SCALED.search("\n".join(tables[0] + tables[1])):
        lines += ["", "k, M, G: thousands, millions, billions; --json has every digit."]
    for note in notes(result):
        lines += ["", *wrapped(note)]
    return "\n".join(lines) + "\n"


def compare_markdown(result):
    """The same as Markdown, numbers exact."""
    cost, errors = cost_table(result), error_table(result)
    facts = "\n".join(f"* {fact}" for fact in trace_lines(result["trace"]))
    parts = [f"## hgmcore compare: {result['trace']['name']}", facts]
    parts += [f"### {cost.title}", "\n".join(as_markdown(cost)), _bullets(cost_legend(result))]
    parts += memory_notes(result)
    parts += [f"### {errors.title}", "\n".join(as_markdown(errors)), _bullets(error_legend(result))]
    return "\n\n".join(parts + notes(result)).replace("<", "&lt;") + "\n"


def trace_lines(trace):
    """What the trace is, in at most four short lines; `hgmcore info` has all of its provenance."""
    mix = [f"{count(number)} {name}" for name, number in trace["by_operation"].items()]
    files = [f"{f['name']} of {f['pages']} x {format_size(f['page_size'])} {f['kind']}"
             for f in trace["files"]]
    files[:1] = [f"{plural(len(files), 'file')}: {files[0]}"] if files else ["no file"]
    parts = [trace["geometry"], plural(len(trace["processes"]), "process"),
             plural(trace["mappings"], "mapping"), plural(trace["threads"], "thread"), *files]
    operations = plural(trace["operations"], "operation")
    lines = [_fitting(mix, f"{operations}: ") if mix else operations, _fitting(parts)]
    origin = {key: trace["provenance"][key] for key in ORIGIN if trace["provenance"].get(key)}
    if origin:
        facts = [f"{key}: {text}" for key, text in origin.items() if key != "source"]
        room = (LINE - 2 * (len(facts) - 1)) // max(len(facts), 1)
        lines.append("; ".join(shortened(fact, room) for fact in facts))
        lines.append(shortened(f"source: {origin['source']}", LINE) if "source" in origin else "")
    return list(filter(None, lines))


def _fitting(parts, first=""):
    """`first` and as many of the parts, with commas, as a line has room for."""
    line = first + ascii_only(parts[0])
    for i, part in enumerate(map(ascii_only, parts[1:]), start=2):
        if len(line) + len(part) + (2 if i == len(parts) else len(", , ...")) > LINE:
            return shortened(line, LINE - len(", ...")) + ", ..."
        line += f", {part}"
    return shortened(line, LINE)


def cost_table(result):
    """Rows: schemes; columns: atomics, struct pages, entries scanned, memory, measured time."""
    columns = [Column("scheme", "text"), *(one.column for one in COSTS)]
    timed = result["repeat"] > 0
    base = baseline(result)
    if timed:
        columns += [Column("ns/op", "ns", "measured")]
        columns += [Column("+-%", "+-%", "measured")] if result["repeat"] > 1 else []
        columns += [Column("%change", "%change", "measured")] if base else []
    title = "COST, counted: exact, the same on every machine"
    table = Table(title + ("; time measured" if timed else ""), columns)
    for name, scheme in result["schemes"].items():
        if "refused" in scheme:
            table.rows.append(_refused_row(name, scheme))
            continue
        cost = scheme["cost"]
        row = [marked(result, name), *(one.value(cost) for one in COSTS)]
        if timed:
            row.append(cost["ns_per_operation"])
        if timed and result["repeat"] > 1:
            row.append(_percent(cost["ns_per_operation_stddev"], cost["ns_per_operation"]))
        if timed and base:
            row.append(_change(result, name, base))
        table.rows.append(row)
    return table


def _refused_row(name, scheme):
    return [name, "refused: " + scheme["refused"].removeprefix(f"scheme {name} ")]


def _percent(part, whole):
    return 100 * part / whole if whole else None


def _change(result, name, base):
    """The change of time against `base`: None for a scheme that did less work."""
    if name == base:
        return "base"
    if name in partial(result):
        return None
    of = result["schemes"][base]["cost"]["ns_per_operation"]
    return _percent(result["schemes"][name]["cost"]["ns_per_operation"] - of, of)


def cost_legend(result):
    """What the columns of `cost_table` mean: (term, meaning) pairs."""
    executed = all(scheme["options"].get("transient") == "real" for scheme in ran(result).values())
    pairs = legend(COSTS, executed="executed" if executed else "not executed")
    if result["repeat"]:
        several = f"median of {result['repeat']} runs +- standard deviation"
        runs = several if result["repeat"] > 1 else "one run"
        machine = result["machine"]
        where = f"{_plain(machine['cpu'])}, {machine['kernel']}"
        pairs.append(("ns/op", f"{runs}; {where}; only ratios carry over"))
    return pairs


def memory_notes(result):
    """What struct pages a machine needs that is full of the trace's huge pages: a sentence, or none."""
    modelled = {name: scheme["struct_pages"] for name, scheme in result["schemes"].items()}
    needs = {one["hvo"]: one["machine_bytes"] for one in modelled.values()}
    if not any(needs.values()):
        return []
    parts = []
    if True in needs:
        sizes = [f"{format_size(need)} in {size} pages" for size, need in needs[True].items()]
        parts.append(", ".join(sizes) + " with HVO")
    if False in needs:  # a struct page for each base page, whatever the size of huge pages
        who = [name for name, one in modelled.items() if not one["hvo"]]
        need = format_size(next(iter(needs[False].values())))
        why = "needs it: it counts" if len(who) == 1 else "need it: they count"
        parts.append(f"{need} without, as {each(who)} {why} on every struct page")
    return [f"struct pages of a {format_size(result['machine_size'])} machine (modelled): {'; '.join(parts)}"]


def _plain(cpu):
    return cpu.replace("(R)", "").replace("(TM)", "")


def error_table(result):
    """Rows: schemes; columns: wrong answers, "-" where there is none."""
    columns = [Column("scheme", "text"), *(one.column for one in ERRORS)]
    observed = plural(result["observations"], "observation")
    table = Table(f"ERRORS, against a recount of the page tables, summed over {observed}", columns)
    for name, scheme in result["schemes"].items():
        if "refused" in scheme:
            table.rows.append(_refused_row(name, scheme))
            continue
        table.rows.append([marked(result, name), *(one.value(scheme["error"]) for one in ERRORS)])
    return table


def error_legend(result):
    """What the columns of `error_table` mean: (term, meaning) pairs."""
    return legend(ERRORS)


def notes(result):
    """What the tables have no room for: who did less work, rare errors, who made no error."""
    lines = []
    answers = {}  # how often each errno was the answer: who answered so
    for name, scheme in ran(result).items():
        answers.setdefault(tuple(scheme["refusals"].items()), []).append(name)
    usual = max(answers, key=lambda one: len(answers[one]))
    for refusals, names in answers.items():
        star = "* " if names[0] in partial(result) else ""
        less = "; less work, so the numbers do not compare" if star else ""
        if refusals != usual:
            what = f" {result['schemes'][names[0]]['summary'].rstrip('.')}." if len(names) == 1 else ""
            lines.append(f"{star}{each(names)} refused {_refused(result, refusals)}{less}.{what}")
    if usual:
        who = ("Every other scheme" if len(answers) == 2 else "The others") if lines else "Every scheme"
        lines.append(f"{who} refused {_refused(result, usual)}.")
    for key, what in ERROR_NOTES:
        wrong = [f"{name} ({count(scheme['error'][key])})" for name, scheme in ran(result).items()
                 if scheme["error"][key]]
        if wrong:
            lines.append(f"Also wrong, {what}: {', '.join(wrong)}.")
    right = [name for name in ran(result) if name not in partial(result) and is_right(result, name)]
    if right:
        lines.append(f"No error: {', '.join(right)}.")
    if result["options"]:
        lines.append("Options: " + ", ".join(f"{key}={value}" for key, value in result["options"].items()))
    return lines


def _refused(result, refusals):
    """`refusals`: pairs of an errno's name and how often it was the answer."""
    kinds = [f"{errno} {count(number)}" if len(refusals) > 1 else errno for errno, number in refusals]
    number = sum(number for _, number in refusals)
    operations = plural(result["trace"]["operations"], "operation")
    return f"{count(number)} of {operations}" + (f" ({', '.join(kinds)})" if kinds else "")


def marked(result, name):
    """The scheme's name, with a star if it did less work than others."""
    return f"{name}*" if name in partial(result) else name


def _bullets(legend):
    return "\n".join(f"* {term}: {meaning}" for term, meaning in legend)

"""Results for people: the comparison as two tables, in plain ASCII of 80 columns or in Markdown.

Every number comes from the result (`hgmcore.compare`), which has it exactly; nothing is computed here
but sums of two of its numbers and changes in per cent.
"""

import re
import textwrap

from hgmcore.prose import indented, listed, plural, some, wrapped
from hgmcore.sizes import format_size
from hgmcore.texttable import Column, Table, as_markdown, as_text, count

PROVENANCE = 150  # characters
SCALED = re.compile(r"\d[kMGTPE]\b")
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
    parts += [f"### {errors.title}", "\n".join(as_markdown(errors)), _bullets(error_legend(result))]
    return "\n\n".join(parts + notes(result)).replace("<", "&lt;") + "\n"


def trace_lines(trace):
    """What the trace is, one fact a line; the beginning of its provenance (`hgmcore info` has all)."""
    mix = ", ".join(f"{count(number)} {name}" for name, number in trace["by_operation"].items())
    files = [f"{f['name']} of {f['pages']} x {format_size(f['page_size'])} {f['kind']}"
             for f in trace["files"]]
    parts = [plural(len(trace["processes"]), "process"), plural(trace["mappings"], "mapping"),
             plural(trace["threads"], "thread"), some(files, "file"), trace["geometry"]]
    lines = [": ".join(filter(None, [plural(trace["operations"], "operation"), mix])), ", ".join(parts)]
    if trace["provenance"]:
        provenance = "; ".join(f"{key}: {value}" for key, value in trace["provenance"].items())
        lines.append(textwrap.shorten(provenance, PROVENANCE, placeholder=" ..."))
    return lines


def cost_table(result):
    """Rows: schemes; columns: atomics, struct pages, entries scanned, memory, measured time."""
    columns = [Column("scheme", "text"), Column("ref", group="atomics"),
               Column("map", group="atomics"), Column("temp", group="atomics"), Column("struct\npages"),
               Column("entries\nscanned"), Column("memory\nkB", "kB")]
    timed = result["repeat"] > 0
    base = baseline(result)
    if timed:
        columns += [Column("ns/op", "ns", "measured")]
        columns += [Column("+-%", "+-%", "measured")] if result["repeat"] > 1 else []
        columns += [Column("%change", "%change", "measured")] if base else []
    title = "COST, counted: exact, the same on every machine"
    table = Table(title + ("; time measured" if timed else ""), columns)
    for name, scheme in result["schemes"].items():
        cost, atomics = scheme["cost"], scheme["cost"]["atomics"]
        row = [marked(result, name), atomics["ref"], atomics["map"], atomics["transient"], cost["lines"],
               cost["entries_scanned"], cost["table_bytes_peak"] + cost["struct_page_bytes"]]
        if timed:
            row.append(cost["ns_per_operation"])
        if timed and result["repeat"] > 1:
            row.append(_percent(cost["ns_per_operation_stddev"], cost["ns_per_operation"]))
        if timed and base:
            row.append(_change(result, name, base))
        table.rows.append(row)
    return table


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
    executed = all(scheme["options"].get("transient") == "real" for scheme in result["schemes"].values())
    legend = [
        ("ref, map", "atomic read-modify-writes of references and map counts that stay"),
        ("temp", f"atomics of look-ups that are put back, {'' if executed else 'not '}executed when timed"),
        ("struct pages", "distinct struct pages (64 bytes) that ref and map write"),
        ("scanned", "page-table entries read to decide a count"),
        ("memory", "page tables at their peak + host memory that struct pages take"),
    ]
    if result["repeat"]:
        several = f"median of {result['repeat']} runs +- standard deviation"
        runs = several if result["repeat"] > 1 else "one run"
        machine = result["machine"]
        where = f"{_plain(machine['cpu'])}, {machine['kernel']}"
        legend.append(("ns/op", f"{runs}; {where}; only ratios carry over"))
    return legend


def _plain(cpu):
    return cpu.replace("(R)", "").replace("(TM)", "")


def error_table(result):
    """Rows: schemes; columns: wrong answers, "-" where there is none."""
    columns = [
        Column("scheme", "text"),
        Column("false", "errors", "sharing"),
        Column("missed", "errors", "sharing"),
        Column("pages", "errors", "page_mapcount"),
        Column("max", "errors", "page_mapcount"),
        Column("Pss", "errors kB", "smaps kB"),
        Column("Shared", "errors kB", "smaps kB"),
        Column("refs\nunexpl.", "errors"),
        Column("leaks", "errors"),
        Column("under-\nflows", "errors"),
    ]
    observed = plural(result["observations"], "observation")
    table = Table(f"ERRORS, against a recount of the page tables, summed over {observed}", columns)
    for name, scheme in result["schemes"].items():
        error = scheme["error"]
        table.rows.append([marked(result, name)] + [error[key] for key in (
            "false_shared", "false_exclusive", "page_mapcount_wrong_pages", "page_mapcount_max_error",
            "pss_error_bytes", "smaps_shared_error_bytes", "refs_not_explained", "leaked_folios",
            "counter_underflows")])
    return table


def error_legend(result):
    """What the columns of `error_table` mean: (term, meaning) pairs."""
    return [
        ("sharing", "huge pages called shared that fewer than two processes map (false), "
                    "or not shared that two or more map (missed)"),
        ("page_mapcount", "base pages with a wrong count, and the largest error of any"),
        ("smaps", "|error| of Pss and of Shared_Hugetlb over all mappings"),
        ("refs unexpl.", "|refcount - page cache - pins - mapcount| over all huge pages"),
        ("leaks", "huge pages that only lost references hold at the end"),
        ("underflows", "counter updates that went below zero"),
    ]


def notes(result):
    """What the tables have no room for: who did less work, rare errors, who made no error."""
    lines = []
    least = min(scheme["error"]["refused_operations"] for scheme in result["schemes"].values())
    for name in partial(result):
        lines.append(f"* {name} {_refused(result, name)}. {result['schemes'][name]['summary'].rstrip('.')}. "
                     "Its numbers are of that much less work.")
    others = [name for name in result["schemes"] if name not in partial(result)]
    if least and len({str(result["schemes"][name]["refused"]) for name in others}) == 1:
        which = "Every other scheme" if partial(result) else "Every scheme"
        lines.append(f"{which} {_refused(result, others[0])}.")
    elif least:
        lines += [f"{name} {_refused(result, name)}." for name in others]
    for key, what in ERROR_NOTES:
        wrong = [f"{name} ({count(scheme['error'][key])})" for name, scheme in result["schemes"].items()
                 if scheme["error"][key]]
        if wrong:
            lines.append(f"Also wrong, {what}: {', '.join(wrong)}.")
    right = [name for name in others if is_right(result, name)]
    if right:
        lines.append(f"No error: {', '.join(right)}.")
    if result["options"]:
        lines.append("Options: " + ", ".join(f"{key}={value}" for key, value in result["options"].items()))
    return lines


def _refused(result, name):
    refused = result["schemes"][name]["refused"]
    kinds = [errno if len(refused) == 1 else f"{errno} {count(number)}" for errno, number in refused.items()]
    operations = plural(result["trace"]["operations"], "operation")
    return f"refused {count(sum(refused.values()))} of {operations} ({', '.join(kinds)})"


def is_right(result, name):
    """Whether the scheme made no error; a refused operation is none."""
    error = result["schemes"][name]["error"]
    return not any(value for key, value in error.items() if key != "refused_operations")


def partial(result):
    """Schemes that refused more operations than another did: what they cost stands on less work."""
    refused = {name: scheme["error"]["refused_operations"] for name, scheme in result["schemes"].items()}
    return [name for name, number in refused.items() if number > min(refused.values())]


def baseline(result):
    """The scheme that changes of time are against: the first that did all the work; None without another."""
    full = [name for name in result["schemes"] if name not in partial(result)]
    return full[0] if len(full) > 1 else None


def marked(result, name):
    """The scheme's name, with a star if it did less work than others."""
    return f"{name}*" if name in partial(result) else name


def _bullets(legend):
    return "\n".join(f"* {term}: {meaning}" for term, meaning in legend)

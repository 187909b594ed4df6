"""Results for people: the comparison on one screen of 80 columns in plain ASCII, or in Markdown; in full if asked for.

Every number comes from the result (`hgmcore.compare`), which has it exactly, and every sentence of the answer from its
verdict; nothing is decided here.
"""

from __future__ import annotations

from hgmcore.analysis.errors import EVENTS
from hgmcore.analysis.judge import ran
from hgmcore.analysis.measure import ROUNDS
from hgmcore.analysis.verdict import smaller
from hgmcore.analysis.words import WORDS, times, who
from hgmcore.report import columns
from hgmcore.report.modelled import modelled_notes, modelled_tables
from hgmcore.report.prose import ascii_only, indented, listed, plural, printable, shortened, wrapped
from hgmcore.report.table import Column, Table, Words, as_markdown, as_text, count
from hgmcore.sizes import format_size

LINE = 78  # characters of an indented line
ROOM = " " * 10  # what QUESTION, ANSWER and so on stand in
ORIGIN = ("recorder", "guest", "source")  # what of a trace's provenance heads a full report
QUESTION = "Which way of counting fits this input?"


def compare_text(result, full=False):
    """The result of `hgmcore.compare` as text: ASCII, at most 80 columns, to read or to paste into a mail.

    full: with every column, every phase and every error.
    """
    lines = [*wrapped(f"hgmcore compare: {result['trace']['name']}"), *indented(trace_lines(result["trace"], full)), ""]
    lines += _block("QUESTION", [question(result)]) + _block("ANSWER", result["verdict"]["answers"])
    for title, sentences in (("WARNING", result["verdict"]["warnings"]), ("UNTESTED", result["verdict"]["untested"])):
        lines += _block(title, [" ".join(sentences)] if sentences else [])
    table = screen_table(result)
    lines += ["", *as_text(table), *wrapped("; ".join(f"{term}: {meaning}" for term, meaning in table.legend) + ".")]
    for table in modelled_tables(result, full):
        lines += ["", table.title, *as_text(table), *(["", *listed(table.legend)] if table.legend else [])]
    if full:
        lines += ["", "SCHEME BY SCHEME", *_details_text(result)]
        for table in full_tables(result):
            lines += ["", table.title, *as_text(table), *(["", *listed(table.legend)] if table.legend else [])]
        lines += _errors_text(result)
    lines += [line for note in notes(result, full) for line in ["", *wrapped(note)]]
    return "\n".join(lines) + "\n"


def _details_text(result):
    """The verdict on each scheme, a paragraph each."""
    return [line for name, sentence in result["verdict"]["details"].items()
            for line in wrapped(f"{name}: {sentence}", "  ", "    ")]


def compare_markdown(result, full=False):
    """The same as Markdown, numbers exact."""
    trace, verdict = result["trace"], result["verdict"]
    parts = [f"## hgmcore compare: {printable(trace['name'])}", _bullets(trace_lines(trace, full)),
             f"**Question:** {question(result)}"]
    for title, sentences in (("Answer", verdict["answers"]), ("Warning", verdict["warnings"])):
        parts += [f"**{title}**", _bullets(sentences)] if sentences else []
    for table in [screen_table(result), *(full_tables(result) if full else []), *modelled_tables(result, full)]:
        parts += [f"### {table.title}"] if table.title else []
        parts += ["\n".join(as_markdown(table))]
        parts += [_bullets(f"{term}: {meaning}" for term, meaning in table.legend)] if table.legend else []
    if full:
        parts += ["### Scheme by scheme", _bullets(map(": ".join, verdict["details"].items()))]
        for title, rows in error_rows(result):
            table = Table(title, [Column("error", "text"), Column("observations", "word"), Column("worst", "word"),
                                  Column("last", "word"), Column("schemes", "text")], rows)
            parts += [f"### {title}", "\n".join(as_markdown(table))]
    parts += notes(result, full)
    parts += ["**Untested**", _bullets(verdict["untested"])] if verdict["untested"] else []
    text = "\n\n".join(parts).replace("<", "&lt;")
    return "\n".join(printable(line) for line in text.split("\n")) + "\n"  # a terminal may show it


def _block(title, sentences):
    """Sentences, each on lines of its own, behind a title."""
    lines = []
    for sentence in sentences:
        lines += wrapped(sentence, ROOM if lines else title.ljust(len(ROOM)), ROOM)
    return lines


def _bullets(facts):
    return "\n".join(f"* {fact}" for fact in facts)


def question(result):
    """What the input is there to answer, if it says so."""
    return result["trace"].get("question") or QUESTION


def trace_lines(trace, full=False):
    """What the trace is, in one short line, or in full in at most four; `hgmcore info` has all of its provenance."""
    files = [f"{f['name']} of {f['pages']} x {format_size(f['page_size'])} {f['kind']}" for f in trace["files"]]
    operations = plural(trace["operations"], "operation")
    if not full:
        return [_fitting([operations, trace["geometry"], plural(len(trace["processes"]), "process"), *files])]
    files[:1] = [f"{plural(len(files), 'file')}: {files[0]}"] if files else ["no file"]
    mix = [f"{count(number)} {name}" for name, number in trace["by_operation"].items()]
    lines = [_fitting(mix, f"{operations}: ") if mix else operations,
             _fitting([trace["geometry"], plural(len(trace["processes"]), "process"),
                       plural(trace["mappings"], "mapping"), plural(trace["threads"], "thread"), *files])]
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


def screen_table(result):
    """The one table that stands on the screen. Rows: schemes."""
    measures = columns.screen(result)
    table = scheme_table(result, "", measures)
    short = columns.short_names([phase["name"] for phase in result["trace"]["phases"]])
    cut = [f"{short[one.phase]} is {one.phase}" for one in measures
           if one.phase and not one.phase.startswith(short[one.phase])]
    if cut:
        table.legend.insert(0, ("phases", ", ".join(dict.fromkeys(cut))))
    if any("less_work" in entry for entry in result["schemes"].values()):
        table.legend.append(("*", "did less of the work"))
    eras = result.get("differing_options", {}).get("era")
    if eras:
        usual, *others = sorted(eras, key=lambda era: -len(eras[era]))
        of = [f"{era} of {who(eras[era], ran(result))}" for era in others]
        table.legend.append(("era", "; ".join([f"{usual}, whose rules smaps and migration follow", *of])))
    return table


def full_tables(result):
    """The tables of every number but errors, one for each table of `columns.TABLES`, cut where a line is full."""
    found = []
    for key, title in columns.TABLES.items():
        mine = [one for one in columns.measures(result) if one.table == key]
        if key in columns.ERRORS or not mine:
            continue
        for at, part in enumerate(_fit(mine)):
            table = scheme_table(result, title if not at else f"{title}, continued", part)
            if at:
                table.legend.clear()
            found.append(table)
    return found


def _fit(measures):
    """Columns in parts that a line of 80 columns has room for."""
    parts, room = [], 0
    for one in measures:
        width = {"time": 18, "atomics": 9}.get(one.kind, 8)
        width = max(width, *map(len, one.title.split("\n"))) + 1
        if width > room:
            parts.append([])
            room = 80 - 20
        parts[-1].append(one)
        room -= width
    return parts


def scheme_table(result, title, measures):
    """A table of one row for each scheme, refused ones too, with a `legend`."""
    table = Table(title, [Column("scheme", "text"), *(one.column for one in measures)])
    for name, entry in result["schemes"].items():
        if "refused_why" in entry:
            table.rows.append([name, Words("refused: " + entry["refused_why"].removeprefix(f"scheme {name} "))])
        else:
            table.rows.append([marked(result, name), *(value_of(result, name, one) for one in measures)])
    table.legend = columns.legend(measures, baseline=result["baseline"])
    return table


def value_of(result, name, measure):
    """The value of a column for a scheme; an interval has "tied" where no difference to the baseline is shown."""
    value = measure.value(result["schemes"][name])
    if measure.kind != "time" or value is None:
        return value
    return {**value, "tied": tied(result, name, measure)}


def tied(result, name, measure) -> bool:
    """Is no difference of a measured column shown between a scheme and the baseline, which did all the work?"""
    base = result["baseline"]
    if name == base or result["repeat"] < ROUNDS or "less_work" in result["schemes"][name]:
        return False
    mine, theirs = measure.value(result["schemes"][name]), measure.value(result["schemes"][base])
    return not smaller(mine, theirs) and not smaller(theirs, mine)


def error_rows(result):
    """Errors group by group: (title, rows of (error, in how many observations, worst, last, schemes))."""
    found = {}
    for one in columns.errors(result):
        same = {}
        for name, entry in ran(result).items():
            value = one.value(entry)
            if value["observations"]:
                known = " (its file says so)" if value.get("known") else ""
                same.setdefault((*_how_often(result, one.title, value), known), []).append(marked(result, name))
        for (often, worst, last, known), names in same.items():
            rows = found.setdefault(columns.TABLES[one.table], [])
            rows.append([one.title, often, worst, last, ", ".join(names) + known])
    return list(found.items())


def _how_often(result, key, value):
    """(how often, worst, last) in words; of an event, how much is told only where it is an amount of memory."""
    if key in EVENTS:
        often = times(f"{value['observations']:,}")
        return (often, _amount(key, value["worst"]), _amount(key, value["last"])) if "bytes" in key else (often, "", "")
    often = f"{value['observations']:,} of {result['observations']:,}"
    return often, _amount(key, value["worst"]), _amount(key, value["last"])


def _amount(key, number):
    return format_size(round(number)) if "bytes" in key and number >= 1024 else f"{round(number):,}"


def _errors_text(result):
    """The errors as lines: what is wrong, how often, at worst and at last, and under whom."""
    lines = []
    for title, rows in error_rows(result):
        lines += ["", f"{title}, at {plural(result['observations'], 'observation')}"]
        before = None
        for key, often, worst, last, names in rows:
            if key != before:
                lines += wrapped(f"{key}: {WORDS.get(key, '')}", "  ", "    ")
            before = key
            lines += wrapped(f"{often}{f', worst {worst}, last {last}' if worst else ''}: {names}", "    ", "      ")
    return lines


def notes(result, full=True):
    """What the table has no room for: the options and, in full, who did less work and why."""
    lines = [f"* {name} {entry['less_work']}." for name, entry in ran(result).items() if full and "less_work" in entry]
    lines += modelled_notes(result)
    for option, values in result.get("differing_options", {}).items() if full else ():
        lines.append(f"Option {option} differs, as each scheme's kernel has it: "
                     + "; ".join(f"{value} of {who(names, ran(result))}" for value, names in values.items()) + ".")
    if result["options"]:
        lines.append("Options: " + ", ".join(f"{key}={value}" for key, value in result["options"].items()))
    return lines


def marked(result, name):
    """The scheme's name, with a star if it did less work than others."""
    return f"{name}*" if "less_work" in result["schemes"][name] else name

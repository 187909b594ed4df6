"""Tables of numbers as plain ASCII of a given width, as Markdown and as HTML.

One `Table` holds raw values; each form decides how much room a number gets. Numbers are exact
where they fit and scaled by 1000 (k, M, G, T) where they do not.
"""

import html
from dataclasses import dataclass, field

from hgmcore.analysis.words import power
from hgmcore.report.prose import WIDTH, ascii_only

EXACT = 99  # characters: room for any number in full
SHORTEST = 5  # characters: room for any number scaled
MOST = 20  # rows of a long list in a text; JSON has all
SHORTEST_NAME = 19  # characters: no name is cut below that


@dataclass(frozen=True)
class Column:
    """title: lines cut at "\\n", one line in a group; kind: a key of `FORMATS`; group: title over several."""

    title: str
    kind: str = "count"
    group: str = ""


class Words(str):
    """Words that span all columns of a row but the first."""


@dataclass
class Table:
    """rows: one raw value for each column, None leaves a cell empty; or [name, Words].

    legend: (term, meaning) pairs.
    """

    title: str
    columns: list
    rows: list = field(default_factory=list)
    legend: list = field(default_factory=list)


def count(value, room=EXACT):
    """257561 -> "257,561", or "258k" where that has more than `room` characters; 5 suffice below 10^18."""
    text = f"{value:,}"
    if len(text) <= room:
        return text
    for exponent, unit in enumerate("kMGTPE", start=1):
        scaled = value / 1000**exponent
        if scaled < 999.5:
            break
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def kilobytes(value, room=EXACT):
    """Bytes as kB of 1024, as smaps has them: whole, but "<1" for less than one."""
    return "<1" if 0 < value < 1024 else count(round(value / 1024), room)


def nanoseconds(value, room=EXACT):
    """Three significant digits: 0.512, 12.3, 257, 1,204."""
    if value >= 100:
        return count(round(value), room)
    return f"{value:.{1 if value >= 10 else 2}f}"


def atomics(value, room=EXACT):
    """Atomics for each leaf: "2", of look-ups alone "2t", of both "2+2t"."""
    kept, temporary = (_small(value[key], room) for key in ("persistent", "transient"))
    return kept if temporary == "0" else f"{temporary}t" if kept == "0" else f"{kept}+{temporary}t"


def _small(value, room):
    if room < EXACT and value < 0.995:
        return f"{value:.2f}" if value >= 0.005 else "0"
    return f"{value:.{2 if room < EXACT else 4}g}" if 0.005 <= value < 9.95 else f"{value:,.0f}"


def interval(value, room=EXACT):
    """Nanoseconds: "10.6 [10.4, 10.9]", or "10.6" where there is no room; "~" behind it where `tied` says so."""
    middle, low, high = (nanoseconds(value[key]) for key in ("median", "low", "high"))
    mark = "~" if value.get("tied") else ""
    text = f"{middle} [{low}, {high}]{f' {mark}' * bool(mark)}" if len(value["runs"]) > 1 else middle
    return text if len(text) <= room else f"{nanoseconds(value['median'], room - len(mark))}{mark}"


def errors(value, room=EXACT):
    """How bad it was at worst: "-" where it never was."""
    return count(round(value["worst"]), room) if value["worst"] else "-"


def word(value, room=EXACT):
    return value


def name(value, room=EXACT):
    """A name in ASCII, its end cut off where it has more than `room` characters."""
    text = ascii_only(value)
    return text if len(text) <= room else text[:room - 2] + ".."


def _unless_zero(form):
    return lambda value, room=EXACT: form(value, room) if value else "-"


FORMATS = {  # kind of a column: function of a value and of the characters it may take
    "text": name,
    "count": count,
    "kB": kilobytes,
    "errors": _unless_zero(count),
    "errors kB": _unless_zero(kilobytes),
    "ns": nanoseconds,
    "atomics": atomics,
    "time": interval,
    "error": errors,
    "word": word,
    "power": lambda value, room=EXACT: power(value),
}
SHORTENED = {"text": SHORTEST_NAME, "time": SHORTEST + 1,
             **dict.fromkeys(("count", "kB", "errors", "errors kB", "error"), SHORTEST)}


def cells(table, room=None):
    """The table's values as text, row by row. room: characters for a value of each column (all)."""
    room = room or [EXACT] * len(table.columns)
    return [[name(row[0], room[0]), Words(ascii_only(row[1]))] if _spanning(row) else
            ["" if value is None else FORMATS[column.kind](value, limit)
             for column, value, limit in zip(table.columns, row, room, strict=True)] for row in table.rows]


def _spanning(row):
    return isinstance(row[-1], Words)


def as_text(table, width=WIDTH):
    """The table as lines of ASCII, no longer than `width` if shortening the widest columns helps."""
    room = [SHORTEST if column.kind == "atomics" else EXACT for column in table.columns]
    lines = _layout(table, cells(table, room), gap=2)
    while max(map(len, lines)) > width:
        rows = cells(table, room)
        lines = _layout(table, rows, gap=1)
        longest = [length if length <= limit else 0    # what is longer than its room cannot be shortened further
                   for length, limit in zip(map(_shortenable, table.columns, _by_column(table, rows)), room)]
        if not any(longest):
            break
        for i, length in enumerate(longest):
            if length == max(longest):
                room[i] = length - 1
    return lines


def _by_column(table, rows):
    """The texts of each column, but for what spans several."""
    return [[row[i] for row in rows if i == 0 or not _spanning(row)]
            for i in range(len(table.columns))]


def _shortenable(column, values):
    """Characters of the longest of a column's values, 0 if shortening it would not narrow the column."""
    longest = max(map(len, values), default=0)
    narrowest = max(SHORTENED.get(column.kind, EXACT), *map(len, column.title.split("\n")))
    return longest if longest > narrowest else 0


def _layout(table, rows, gap):
    heads = [column.title.split("\n") for column in table.columns]
    height = max(map(len, heads))
    if any(column.group for column in table.columns):
        height = max(height, 2)  # a group stands above titles of one line
    heads = [[""] * (height - len(head)) + head for head in heads]
    widths = [max(map(len, head + texts)) for head, texts in zip(heads, _by_column(table, rows), strict=True)]
    _widen_groups(table.columns, widths, gap)
    lines = [_line(table.columns, [head[i] for head in heads], widths, gap) for i in range(height)]
    if height > 1:
        lines[-2] = _with_groups(lines[-2], table.columns, widths, gap)
    lines.append("-" * (sum(widths) + gap * (len(widths) - 1)))
    return lines + [row[0].ljust(widths[0] + gap) + row[1] if _spanning(row)
                    else _line(table.columns, row, widths, gap) for row in rows]


def _spans(columns):
    """Neighbouring columns of one group: [group, first, last + 1]."""
    spans = []
    for i, column in enumerate(columns):
        if column.group and spans and spans[-1][0] == column.group and spans[-1][2] == i:
            spans[-1][2] = i + 1
        else:
            spans.append([column.group, i, i + 1])
    return spans


def _widen_groups(columns, widths, gap):
    for group, first, end in _spans(columns):
        have = sum(widths[first:end]) + gap * (end - first - 1)
        widths[end - 1] += max(0, len(group) - have)


def _with_groups(line, columns, widths, gap):
    line = line.ljust(sum(widths) + gap * len(widths))
    for group, first, end in _spans(columns):
        if group:
            start = sum(widths[:first]) + gap * first
            room = sum(widths[first:end]) + gap * (end - first - 1)
            title = f" {group} ".center(room, "-") if len(group) + 4 <= room else group.center(room)
            line = line[:start] + title + line[start + room:]
    return line.rstrip()


def _line(columns, values, widths, gap):
    aligned = [value.ljust(width) if column.kind == "text" else value.rjust(width)
               for column, value, width in zip(columns, values, widths, strict=True)]
    return (" " * gap).join(aligned).rstrip()


def _full_titles(table):
    titles = [f"{column.group} {column.title}" for column in table.columns]
    return [title.replace("-\n", "").replace("\n", " ").strip() for title in titles]


def as_markdown(table):
    """The table as lines of Markdown, numbers exact."""
    rule = [":---" if column.kind == "text" else "---:" for column in table.columns]
    rows = [[value.replace("|", "\\|") for value in row + [""] * (len(table.columns) - len(row))]
            for row in cells(table)]
    return ["| " + " | ".join(row) + " |" for row in [_full_titles(table), rule, *rows]]


def as_html(table):
    """The table as an HTML <table>, numbers exact."""
    kinds = ["text" if column.kind == "text" else "number" for column in table.columns]

    def row(tag, values):
        inner = "".join(f'<{tag} class="{kind}">{html.escape(value)}</{tag}>'
                        for kind, value in zip(kinds, values, strict=True))
        return f"<tr>{inner}</tr>"

    def spanning(values):
        return (f'<tr><td class="text">{html.escape(values[0])}</td>'
                f'<td colspan="{len(kinds) - 1}">{html.escape(values[1])}</td></tr>')

    body = "\n".join(spanning(values) if _spanning(values) else row("td", values)
                     for values in cells(table))
    return f"<table>\n<thead>{row('th', _full_titles(table))}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

"""A counterexample of `hgmcore check` as one HTML page that needs nothing else: steps x words, what changed marked."""

from __future__ import annotations

import html

from hgmcore.explore.check import promised
from hgmcore.explore.properties import BY_NAME
from hgmcore.report.html import STYLE

MARKED = """
td.changed { font-weight: 700; background: #fd7; border-left: .25rem solid #111; }
"""


def counterexample_html(scheme, scope, name, entry) -> str:
    """The page. scope: its title; name: of the property; entry: of it in a result of `check`."""
    prop = BY_NAME[name]
    title = html.escape(f"{scheme}: {name}")
    facts = [
        f"{prop.text} (where {prop.premise}): {promised(entry['promise'])}.",
        f"{entry['length']} steps in scope {scope}, the fewest that there are.",
        "Each row is a step and the words behind it; marked cells are those that it changed.",
    ]
    words, rows = values_of(entry["steps"])
    head = "".join(f'<th class="number">{html.escape(word)}</th>' for word in words)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
            f"<title>{title}</title>\n<style>{STYLE}{MARKED}</style>\n</head>\n<body>\n<h1>{title}</h1>",
            *(f"<p>{html.escape(fact)}</p>" for fact in facts),
            '<div class="wide" tabindex="0"><table>',
            f'<thead><tr><th class="text">step</th><th class="text">answer</th>{head}</tr></thead>\n<tbody>',
            *(_row(step, cells) for step, cells in zip(entry["steps"], rows, strict=True)),
            "</tbody></table></div>",
            f"<h2>At the end</h2>\n<ul>{''.join(f'<li>{html.escape(side)}</li>' for side in entry['sides'])}</ul>",
            f"<h2>The trace</h2>\n<pre>{html.escape(entry['trace'])}</pre>\n</body>\n</html>\n",
        ]
    )


def values_of(steps):
    """(words, rows): the words that any step changes, and of each step (value, was it changed) of each of them."""
    now = {}
    for step in reversed(steps):  # what stood there before a word's first change
        now |= {word: before for word, (before, _) in step["changed"].items()}
    words, rows = sorted(now), []
    for step in steps:
        now |= {word: after for word, (_, after) in step["changed"].items()}
        rows.append([(now[word], word in step["changed"]) for word in words])
    return words, rows


def _row(step, cells):
    answer = step["error"] or step["event"] or "ok"
    values = "".join(
        f'<td class="number{" changed" if changed else ""}">{html.escape(str(value))}</td>' for value, changed in cells
    )
    statement = html.escape("; ".join(step["statement"]))
    return f'<tr><td class="text">{statement}</td><td class="text">{html.escape(answer)}</td>{values}</tr>'

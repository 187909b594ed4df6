"""The comparison as one HTML page that needs nothing else: verdict, tables, figures, provenance, exact result."""

from __future__ import annotations

import html
import json

from hgmcore.report import columns, plot
from hgmcore.report import compare as report
from hgmcore.report.modelled import modelled_tables
from hgmcore.report.prose import printable
from hgmcore.report.table import Column, Table, as_html

ERROR_COLUMNS = [Column("error", "text"), *(Column(name, "word") for name in ("observations", "worst", "last")),
                 Column("schemes", "text")]

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 76rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 2px solid #111; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, li { max-width: 48rem; }
ul { padding-left: 1.2rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
.wide:focus-visible, summary:focus-visible { outline: 2px solid #0072b2; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #bbb; vertical-align: bottom; }
tbody td { vertical-align: top; }
th { border-bottom: 2px solid #111; font-weight: 600; }
.number { text-align: right; white-space: nowrap; }
th.number { white-space: normal; }
.text { text-align: left; }
tr > .text:first-child { font-family: ui-monospace, monospace; position: sticky; left: 0; background: #fff;
  min-width: 12rem; max-width: 16rem; overflow-wrap: anywhere; }
.text:last-child { min-width: 16rem; }
dl { margin: .5rem 0; font-size: .875rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .25rem 1.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 30rem; min-width: 0; max-width: 36rem; }
figcaption { font-size: .875rem; }
svg { width: 100%; height: auto; }
pre { overflow: auto; max-height: 30rem; font-size: .8rem; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
  th, td { padding: .2rem .3rem; }
  tr > .text:first-child { min-width: 9.3rem; max-width: 9.3rem; font-size: .75rem; }
  figure { flex-basis: 100%; }
}
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; }
  .wide { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .1rem .3rem; }
  tr > .text:first-child { min-width: 0; max-width: 8rem; position: static; }
  .text:last-child { min-width: 0; }
  tr, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details:not([open]) { display: none; }
}
"""


def compare_html(result):
    """The result of `hgmcore.compare` as the text of one self-contained HTML page, without any script.

    The verdict stands first; then come the tables, the figures, where the trace is from, what the schemes are, and,
    folded away, the result itself.
    """
    trace, verdict = result["trace"], result["verdict"]
    title = _text(f"hgmcore compare: {trace['name']}")
    parts = [f"<h1>{title}</h1>", *(f"<p>{_text(fact)}</p>" for fact in report.trace_lines(trace))]
    question = f"<p><strong>{_text(report.question(result))}</strong></p>"
    parts += ["<h2>Verdict</h2>", question, _list(verdict["answers"])]
    for heading, sentences in (("Warnings", verdict["warnings"]), ("What this input cannot tell", verdict["untested"])):
        parts += [f"<h3>{heading}</h3>", _list(sentences)] if sentences else []
    table = report.screen_table(result)
    table.legend = columns.explained(table.legend)
    parts += ["<h2>At a glance</h2>", *_table(table)]
    parts += [f"<p>{_text(note)}</p>" for note in report.notes(result)]
    modelled = modelled_tables(result, full=True)
    parts += ["<h2>Modelled times</h2>"] if modelled else []
    for one in modelled:
        parts += [f"<h3>{_text(one.title)}</h3>", *_table(one)]
    parts += ["<h2>Scheme by scheme</h2>", _definitions(verdict["details"].items())] if verdict["details"] else []
    parts += ["<h2>Figures</h2>", _figures(result), "<h2>Every number</h2>"]
    measures = columns.measures(result)
    for key, heading in columns.TABLES.items():
        mine = [one for one in measures if one.table == key]
        if mine and key not in columns.ERRORS:
            parts += [f"<h3>{_text(heading)}</h3>", *_table(report.scheme_table(result, heading, mine))]
    for heading, rows in report.error_rows(result):
        parts += [f"<h3>{_text(heading)}</h3>", *_table(Table(heading, ERROR_COLUMNS, rows))]
    parts += ["<h2>Provenance</h2>", _definitions(_provenance(result))]
    parts += ["<h2>Schemes</h2>", _definitions((name, _summary(entry)) for name, entry in result["schemes"].items())]
    parts += ["<h2>Exact result</h2>", _data(result)]
    body = "\n".join(parts)
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n")


def _table(table):
    """A table that scrolls by itself where the page is narrow, and its legend."""
    label = html.escape(printable(table.title or "the schemes at a glance"), quote=True)
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{as_html(table)}</div>'
    if table.legend:
        yield _definitions(table.legend)


def _figures(result):
    drawn = "\n".join(f"<figure><figcaption>{_text(caption)}</figcaption>{_labelled(svg, caption)}</figure>"
                      for caption, svg in plot.svg_elements(result))
    return f'<div class="figures">\n{drawn}\n</div>'


def _labelled(svg, caption):
    """An <svg> element that says what it is where it cannot be seen."""
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(caption, quote=True)}"', 1)


def _provenance(result):
    """(term, text) pairs: where the trace is from, and what the numbers were taken with."""
    machine = result["machine"] or {}
    yield from result["trace"].get("provenance", {}).items()
    yield "geometry", result["trace"]["geometry"]
    yield "baseline", str(result["baseline"])
    if result.get("profile"):
        yield "profile of modelled times", str(result["profile"])
    yield "observations", f"{result['observations']:,}"
    yield "timed runs", f"{result['repeat']} of each scheme, {result['threads']} native threads"
    yield from ((f"measured on: {key}", str(value)) for key, value in machine.items())
    yield "options", ", ".join(f"{key}={value}" for key, value in result["options"].items()) or "none"


def _summary(entry):
    promises = ", ".join(entry["promises"])
    refused = f" Refused: {entry['refused_why']}." if "refused_why" in entry else ""
    return f"{entry['summary'].rstrip('.')}.{refused}{f' Promises: {promises}.' if promises else ''}"


def _list(sentences):
    return "<ul>\n" + "\n".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "\n</ul>"


def _definitions(pairs):
    inner = "\n".join(f"<dt>{_text(term)}</dt><dd>{_text(text)}</dd>" for term, text in pairs)
    return f"<dl>\n{inner}\n</dl>"


def _data(result):
    text = html.escape(json.dumps(result, indent=1))
    summary = "<summary>JSON, as <code>hgmcore compare --json</code> gives it</summary>"
    return f"<details>{summary}<pre>{text}</pre></details>"


def _text(text):
    return html.escape(printable(text))

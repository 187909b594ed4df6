"""The comparison as one HTML page that needs nothing else: tables, figure, provenance, exact result."""

import html
import json

from hgmcore.report import compare as report
from hgmcore.report import plot
from hgmcore.report.prose import printable
from hgmcore.report.table import as_html

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; vertical-align: bottom; }
.number { text-align: right; }
.text { text-align: left; font-family: ui-monospace, monospace; }
th { border-bottom: 2px solid #888; font-weight: 600; }
dt { font-weight: 600; float: left; clear: left; width: 8rem; }
dd { margin-left: 8.5rem; }
svg { width: 100%; height: auto; }
figure { margin: 1rem 0; }
"""


def compare_html(result):
    """The result of `hgmcore.compare` as the text of one self-contained HTML page."""
    trace = result["trace"]
    title = _text(f"hgmcore compare: {trace['name']}")
    cost, errors = report.cost_table(result), report.error_table(result)
    parts = [
        f"<h1>{title}</h1>",
        *(f"<p>{_text(fact)}</p>" for fact in report.trace_lines({**trace, "provenance": {}})),
    ]
    parts += [_definitions(trace["provenance"].items())] if trace["provenance"] else []
    parts += [f"<figure>{plot.svg_element(result)}</figure>"]
    parts += [f"<h2>{_text(cost.title)}</h2>", as_html(cost), _definitions(report.cost_legend(result))]
    parts += [f"<p>{_text(line)}</p>" for line in report.memory_notes(result)]
    parts += [f"<h2>{_text(errors.title)}</h2>", as_html(errors), _definitions(report.error_legend(result))]
    parts += [f"<p>{_text(note)}</p>" for note in report.notes(result)]
    schemes = [(name, scheme["summary"]) for name, scheme in result["schemes"].items()]
    parts += ["<h2>Schemes</h2>", _definitions(schemes), "<h2>Exact result</h2>", _data(result)]
    body = "\n".join(parts)
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n")


def _definitions(pairs):
    inner = "\n".join(f"<dt>{_text(term)}</dt><dd>{_text(text)}</dd>" for term, text in pairs)
    return f"<dl>\n{inner}\n</dl>"


def _data(result):
    text = html.escape(json.dumps(result, indent=1))
    summary = "<summary>JSON, as <code>hgmcore compare --json</code> gives it</summary>"
    return f"<details>{summary}<pre>{text}</pre></details>"


def _text(text):
    return html.escape(printable(text))

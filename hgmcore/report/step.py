"""The pages of `hgmcore step`: what each operation of a trace changed, as text, as JSON and as one HTML page."""

from __future__ import annotations

import html
import json

import numpy as np

from hgmcore.analysis.properties import wrong
from hgmcore.report.prose import ascii_only, wrapped
from hgmcore.runs import merge, value_at
from hgmcore.sizes import format_size

ROOM = 9  # columns of a label
SHOWN = 12  # changes of one kind in a text; JSON has all
RUNS = 6  # changed runs of an array in a text


def step_head(trace, names, start, stop) -> list[str]:
    """What the page is about, as lines. stop: the operation behind the last."""
    lines = wrapped(f"hgmcore step: {trace.name} under {', '.join(names)}")
    part = f"operations {start:,} to {stop - 1:,} of {len(trace):,}, from 0 on" if start < stop else "no operation"
    return lines + wrapped(f"{part}; what each changed, old -> new", "  ", "  ")


def step_text(steps) -> str:
    """One operation under one or more schemes: {scheme: Step}, as text of at most 80 columns."""
    first = next(iter(steps.values()))
    head = f"{first.index:<7} {ascii_only(first.statement)}"
    lines = wrapped(head, "", " " * 8)
    if len(lines[-1]) + len(answer := _answer(first)) + 2 <= 80:
        lines[-1] += f"  {answer}"
    else:
        lines.append(f"        {answer}")
    for label, changes in blocks(steps):
        for i, change in enumerate(changes):
            indent = f"  {label if i == 0 else '':<{ROOM}}"
            lines += wrapped(change, indent if len(label) <= ROOM else f"  {label} ", " " * (ROOM + 4))
    return "\n".join(lines) + "\n"


def blocks(steps):
    """(label, lines) of what one operation changed; page tables and recount once where all schemes share them."""
    shared = {"tables": _entries, "truth": _truth}
    for label, shown in shared.items():
        texts = {name: shown(step) for name, step in steps.items()}
        same = len({tuple(text) for text in texts.values()}) == 1
        for name, text in [("", next(iter(texts.values())))] if same else texts.items():
            if text:
                yield f"{label} {name}".strip(), text
    for name, step in steps.items():
        yield from _of_scheme(name, step)


def _of_scheme(name, step):
    cost = step.cost
    if any(cost.values()):
        yield f"{name}:", [f"{cost['ref']} atomics on references, {cost['map']} on map counts, {cost['transient']} of "
                           f"look-ups; {cost['scanned']} entries scanned"]
    elif step.words or step.answers:
        yield f"{name}:", ["no atomics"]
    rows = (("words", _words(step)), ("says", _values(step.answers)),
            ("WRONG", [f"{key} {_number(value)}" for key, value in wrong(step.observation).items()]))
    for label, lines in rows:
        if lines:
            yield label, lines


def _answer(step):
    if step.error:
        return f"= {step.error}" + (f", {format_size(step.done)} done" if step.done else "")
    if step.event == "minor":
        return "= minor event"
    fired = "; the failure asked for never fired" if step.event == "never_fired" else ""
    nothing = ", nothing moved" if " migrate " in f" {step.statement}" else ""    # no other silently does nothing
    return (f"= {format_size(step.done)}" if step.done else f"= ok{nothing}") + fired


def _entries(step):
    lines = []
    for row in step.entries:
        where = f"{row['process']} {row['mapping']}+{format_size(row['offset'])}" if row["mapping"] else (
            f"{row['process']} {row['offset']:#x}")
        many = f" x{row['entries']}" if row["entries"] > 1 else ""
        lines.append(f"{where} {row['level']}{many}: {_entry(row['before'])} -> {_entry(row['after'])}")
    return _cut(lines)


def _entry(entry):
    if entry is None:
        return "none"
    flags = "".join(f" {flag}" for flag in entry["flags"])
    if "folio" in entry and entry["folio"]:
        return f"{entry['kind']} {entry['folio']}[{entry['page']}]{flags}"
    return f"{entry['kind']} {entry['frame']}{flags}"


def _words(step):
    lines = []
    for row in step.words:
        pages = f"{row['page']}" if row["pages"] == 1 else f"{row['page']}..{row['page'] + row['pages'] - 1}"
        form = hex if row["word"] in ("flags", "_nr_pages_mapped") else _ids if row["word"] == "_mm_id" else str
        lines.append(f"{row['folio']}[{pages}].{row['word']} {form(row['before'])} -> {form(row['after'])}")
    return _cut(lines)


def _ids(pair):
    """The two mm ids of a folio; bit 31 of one says that the folio is shared."""
    return f"[{', '.join(f'{one:#x}' if one >> 31 else str(one) for one in pair)}]"


def _truth(step):
    return _values(step.truth)


def _values(changes):
    """A line for each folio, mapping and process."""
    named = {}
    for row in changes:
        named.setdefault((row["kind"], row["name"]), []).append(row)
    lines = []
    for (_, name), rows in named.items():
        shown = [_value(row) for row in rows if not row["key"].startswith("state.")]    # the words say the same
        if any(shown):
            lines.append(f"{name}: " + "; ".join(filter(None, shown)))
    return _cut(lines)


def _value(row):
    """A change in words; "" where an array only became longer or shorter."""
    if row["key"] == "listed":
        return "is there" if row["after"] else "is gone"
    if isinstance(row["after"], list):
        changes = _runs(row["before"], row["after"])
        return f"{row['key']} {changes}" if changes else ""
    return f"{row['key']} {_number(row['before'])} -> {_number(row['after'])}"


def _number(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _runs(before, after):
    """Where two arrays, given as runs, differ: "[0] 1 -> 2, [3..511] 0 -> 1"."""
    before, after = (np.array(runs, np.int64).reshape(-1, 3) for runs in (before, after))
    edges = np.unique(np.concatenate([before[:, :2], after[:, :2]]))
    old, new = value_at(before, edges[:-1]), value_at(after, edges[:-1])
    # Old and new value as one number, so that neighbours that changed alike become one run.
    pairs = merge(np.stack([edges[:-1], edges[1:], (old << 32) + new], 1)[old != new])
    some = ", ".join(f"[{first}{f'..{last - 1}' if last > first + 1 else ''}] {pair >> 32} -> {pair & 0xffffffff}"
                     for first, last, pair in pairs[:RUNS].tolist())
    return some + (f" and {len(pairs) - RUNS:,} runs more" if len(pairs) > RUNS else "")


def _cut(lines):
    more = [f"... and {len(lines) - SHOWN:,} more (--json has all)"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def step_json(name, step) -> str:
    """One line of JSON: a step under a scheme."""
    return json.dumps({"scheme": name, **step.to_dict(), "wrong": wrong(step.observation)}, allow_nan=False) + "\n"


def step_html_rows(steps) -> dict:
    """What the HTML page shows of one operation: plain JSON types."""
    first = next(iter(steps.values()))
    return {"index": first.index, "statement": ascii_only(first.statement), "answer": _answer(first),
            "blocks": [[label, list(map(ascii_only, lines))] for label, lines in blocks(steps)],
            "wrong": any(wrong(step.observation) for step in steps.values())}


def step_html(head, rows) -> str:
    """One self-contained page with a slider over the operations. head: lines; rows: of step_html_rows."""
    data = json.dumps(rows, allow_nan=False).replace("<", "\\u003c")
    title, *facts = (html.escape(line) for line in head)
    return _PAGE.replace("@TITLE@", title).replace("@FACTS@", " ".join(facts)).replace(
        "@LAST@", str(max(len(rows) - 1, 0))).replace("@DATA@", data)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>@TITLE@</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; color: #000; background: #fff; }
body { max-width: 60rem; margin: 0 auto; padding: .75rem; }
h1 { font-size: 1.1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
nav { position: sticky; top: 0; background: #fff; padding: .5rem 0; border-bottom: 2px solid #000; }
input[type=range] { width: 100%; height: 2rem; margin: 0; accent-color: #000; }
button { font: inherit; padding: .3rem .7rem; border: 1px solid #000; border-radius: .25rem; }
button { background: #fff; color: #000; }
button:disabled { opacity: .4; }
#statement { font: 600 1rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; margin: .75rem 0 .25rem; }
h2 { font-size: .95rem; margin: .75rem 0 .1rem; overflow-wrap: anywhere; }
ul { margin: 0; padding: 0 0 0 1.1rem; font: .85rem/1.45 ui-monospace, monospace; }
li { overflow-wrap: anywhere; }
ul.wrong { list-style: none; }
.wrong { border-left: .35rem solid #000; padding-left: .5rem; font-weight: 600; }
</style>
</head>
<body>
<h1>@TITLE@</h1>
<p>@FACTS@</p>
<nav>
<label for="at">Operation <output id="number"></output></label>
<input id="at" type="range" min="0" max="@LAST@" value="0" step="1">
<button id="back">&larr; back</button> <button id="next">next &rarr;</button>
<button id="error">next with something wrong</button>
</nav>
<noscript><p>The page needs JavaScript; <code>hgmcore step</code> without --html prints the same as text.</p></noscript>
<main aria-live="polite"><p id="statement"></p><p id="answer"></p><div id="changes"></div></main>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const steps = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const at = get("at");
function make(tag, text, kind) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function nextWrong() {
  return steps.findIndex((step, i) => i > Number(at.value) && step.wrong);
}
function show() {
  const i = Number(at.value), step = steps[i];
  if (!step) { get("statement").textContent = "No operation."; return; }
  get("number").textContent = step.index + " (" + (i + 1) + " of " + steps.length + ")";
  get("statement").textContent = step.statement;
  get("answer").textContent = step.answer;
  const changes = get("changes");
  changes.replaceChildren();
  if (!step.blocks.length) changes.append(make("p", "Nothing changed."));
  for (const [label, lines] of step.blocks) {
    const wrong = label === "WRONG" ? "wrong" : "", list = make("ul", "", wrong);
    for (const line of lines) list.append(make("li", line));
    changes.append(make("h2", label, wrong), list);
  }
  get("back").disabled = i === 0;
  get("next").disabled = i === steps.length - 1;
  get("error").disabled = nextWrong() < 0;
}
function go(to) { at.value = to; show(); }
at.addEventListener("input", show);
get("back").addEventListener("click", () => go(Number(at.value) - 1));
get("next").addEventListener("click", () => go(Number(at.value) + 1));
get("error").addEventListener("click", () => go(nextWrong()));
show();
</script>
</body>
</html>
"""

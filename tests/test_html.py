"""The page of a comparison: whole, needing nothing else, and laid out without overlap in a real browser."""

import copy
import html.parser
import json
import os
import re
import shutil
import subprocess

import pytest
from made_results import TWO_PROCESSES as TRACE

from hgmcore import Trace, compare
from hgmcore.report import columns
from hgmcore.report.html import compare_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>
window.addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg text, th, td, dt, dd, li, p, h1, h2, h3, figcaption")];
  const boxes = shown.map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.width && b.height);
  const figures = boxes.filter(([e]) => e.tagName === "text");
  let overlaps = [];
  for (const [i, [a, p]] of figures.entries()) for (const [b, q] of figures.slice(0, i)) {
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 2 && h > 3) overlaps.push(a.textContent + " / " + b.textContent);
  }
  const outside = boxes.filter(([e, b]) => !e.closest(".wide") && (b.left < -1 || b.right > innerWidth + 1));
  const clipped = [...document.querySelectorAll("th, td")].filter(e => e.scrollWidth > e.clientWidth + 1);
  parent.postMessage(JSON.stringify({width: innerWidth, page: document.documentElement.scrollWidth, overlaps,
    outside: outside.map(([e]) => e.textContent.slice(0, 60)), clipped: clipped.map(e => e.textContent),
    shown: boxes.length}), "*");
});
</script>"""
AROUND = """<body><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="found"></pre>
<script>addEventListener("message", e => document.getElementById("found").textContent = e.data)</script></body>"""


@pytest.fixture(scope="module")
def long_names(result):
    """Names of schemes, phases and options that are longer than a line of a telephone."""
    made = copy.deepcopy(result)
    for part in ("schemes", "errors_at"):
        made[part] = {f"a_name_of_a_scheme_that_hardly_ever_ends_and_has_no_blank_{name}": value
                      for name, value in made[part].items()}
    made["baseline"] = next(iter(made["schemes"]))
    made["trace"]["name"] = "x" * 150
    made["trace"]["provenance"] = {"source": "/a/path" * 40}
    return made


def rows_of(page):
    """The rows of every table: lists of the texts of cells."""
    tables = re.findall("<table>.*?</table>", page, re.DOTALL)
    rows = [re.findall("<tr>(.*?)</tr>", table)[1:] for table in tables]
    return [[re.findall("<td[^>]*>(.*?)</td>", row) for row in table] for table in rows]


def test_page_is_whole_and_needs_nothing_else(result):
    made = copy.deepcopy(result)
    made["trace"]["provenance"] = {"who": "<script>alert(1)</script>"}
    made["verdict"]["answers"] = ["<b>&amp;"]
    page = compare_html(made)
    data = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "img", "iframe", "b")
            for key, value in attributes:
                assert not (key in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")))

        def handle_data(self, text):
            data.append(text)

    Reader().feed(page)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "<b>&amp;" in data and "@import" not in page and "url(http" not in page
    exact = next(text for text in data if text.startswith('{\n "format"'))
    assert json.loads(exact) == json.loads(json.dumps(made))


def test_verdict_stands_first_and_the_exact_result_is_folded_away(result):
    page = compare_html(result)
    parts = ["<h2>Verdict", "<h2>At a glance", "<table>", "<svg", "<h2>Provenance", "<details>"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert page.index("<details>") < page.index('&quot;format&quot;') and "<details open" not in page
    for sentence in (*result["verdict"]["answers"], *result["verdict"]["untested"]):
        assert f"<li>{html.escape(sentence)}</li>" in page


def test_the_columns_of_the_first_table_are_explained(result):
    first = compare_html(result).partition("<h2>At a glance")[2].partition("<h2>")[0]
    terms = re.findall("<dt>(.*?)</dt>", first)
    assert {"atomics/leaf", "smaps", "HVO", "*"} <= set(terms)
    assert "WRONG: Pss or shared memory is wrong at some observation" in first
    assert [meaning for _, meaning in columns.explained([("batch", ""), ("maps of 1G", ""), ("ns in zap", "")])] == [
        columns.GUIDE[key] for key in ("PHASE batch", "maps of SIZE", "ns in PHASE")]


def test_every_scheme_has_a_row_with_the_results_numbers(result):
    tables = rows_of(compare_html(result))
    first = [row[0].rstrip("*") for row in tables[0]]
    assert first == list(result["schemes"])
    for row in tables[1]:
        cost = result["schemes"][row[0].rstrip("*")]["cost"]
        assert row[1:4] == [f"{cost['atomics'][key]:,}" for key in ("ref", "map", "transient")]


def test_refused_schemes_stay():
    made = compare(Trace.parse(TRACE), schemes="subtree,mm_id", repeat=0, hvo="on")
    page = compare_html(made)
    row = ["mm_id", "refused: counts on struct pages that hvo=on takes away"]
    assert all(row in rows for rows in rows_of(page)[:4])
    assert "Refused: " in page.partition("<h2>Schemes")[2]
    assert ">refused<" in page and ">refused: mm_id<" in page


def test_modelled_times_have_tables_and_a_figure(modelled, result):
    page = compare_html(modelled)
    part = page.partition("<h2>Modelled times</h2>")[2].partition("<h2>")[0]
    assert modelled["profile"] in part and "90 % intervals" in part
    tables = rows_of(part)
    assert len(tables) >= 3
    for name, entry in modelled["schemes"].items():
        rows = [row for table in tables for row in table if row[0].rstrip("*") == name]
        assert len(rows) == len(tables), "in every table, also if it is refused"
        if "refused_why" in entry:
            assert all("refused: " in row[1] for row in rows)
        else:
            assert re.match(r"[\d.]+ \[[\d.]+, [\d.]+\]$", rows[0][1])
    assert any("refused_why" in entry for entry in modelled["schemes"].values())
    assert "Modelled time (" in page and "Modelled" not in compare_html(result)


def browse(directory, page, width, *options):
    """Measures of the layout in a headless browser of a given width, and the messages on its console."""
    (directory / "page.html").write_text(page.replace("</body>", f"{MEASURE}</body>"))
    (directory / "around.html").write_text(AROUND.format(width=width))
    home = {**os.environ, "HOME": str(directory)}
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={directory}/profile",
         "--virtual-time-budget=3000", "--window-size=1400,1000", *options, "--dump-dom", f"file://{directory}/around.html"],
        capture_output=True, text=True, timeout=120, env=home)
    found = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, (done.stdout[-500:], done.stderr[-500:])
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found.group(1))), console


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["result", "long_names", "modelled"])
def test_layout_in_a_browser(which, width, request, tmp_path):
    found, console = browse(tmp_path, compare_html(request.getfixturevalue(which)), width)
    assert not console
    assert found["width"] == width and found["shown"] > 100
    assert found["page"] <= width, "the page does not scroll sideways"
    assert found["overlaps"] == [] and found["outside"] == [] and found["clipped"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_browser_would_tell_errors_and_overflow(result, tmp_path):
    """The measures of the test above notice a page that is too wide and text that overlaps."""
    page = compare_html(result).replace("<h2>Verdict</h2>", '<p style="width:900px">wide</p><script>missing()</script>')
    overlap = '<svg><text x="1" y="9">one over</text><text x="1" y="9">other</text></svg>'
    found, console = browse(tmp_path, page.replace("<svg", f"{overlap}<svg", 1), 390)
    assert any("missing is not defined" in line for line in console)
    assert found["page"] > 390 and "wide" in found["outside"] and "other / one over" in found["overlaps"]

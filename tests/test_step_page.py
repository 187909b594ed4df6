"""The HTML page of `hgmcore step` in a browser: the slider works, nothing is wider than a phone, the console stays
empty."""

import html
import json
import re
import shutil
import subprocess

import pytest

from hgmcore.cli import run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


HARNESS = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><body style="margin:0">
<iframe id="page" style="width:390px;height:800px;border:0" srcdoc="@PAGE@"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument, get = (id) => page.getElementById(id), at = get("at"), seen = [];
  let widest = 0;
  for (let i = 0; i <= Number(at.max); i++) {
    at.value = i;
    at.dispatchEvent(new Event("input"));
    widest = Math.max(widest, page.documentElement.scrollWidth);
    seen.push(get("statement").textContent);
  }
  at.value = 0;
  at.dispatchEvent(new Event("input"));
  get("error").click();
  const first = get("number").textContent;
  get("next").click();
  document.getElementById("found").textContent = JSON.stringify(
    {widest, seen, first, then: get("number").textContent, wrong: page.querySelectorAll("h2.wrong").length});
};
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture
def page(tmp_path):
    long = "a_name_that_is_rather_long_and_has_no_break_anywhere_in_it_at_all"
    trace = tmp_path / "t.hgm"
    trace.write_text(f"hgmcore-trace 1\nfile {long} 2M 1\npopulate {long} 0 1\n"
                     f"mmap A {long} {long} 0 2M shared minor hgm\n"
                     f"continue A {long} 0 4K\ncontinue A {long} 8K 4K\nobserve\n")
    assert run(["step", str(trace), "--scheme", "subtree,mm_id", "--html", str(tmp_path / "p.html")]) == 0
    return tmp_path / "p.html"


def browse(path, profile):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
         "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", f"file://{path}"],
        capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_slider_works_on_a_phone_and_the_console_is_empty(page, tmp_path):
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.replace("@PAGE@", html.escape(page.read_text(), quote=True)))
    dom, console = browse(harness, tmp_path / "profile")
    assert console == []
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.+)</pre>', dom)[1]))
    assert found["widest"] == 390
    assert [statement.split()[0] for statement in found["seen"]] == [
        "file", "populate", "mmap", "continue", "continue", "observe"]
    assert (found["first"], found["then"]) == ("3 (4 of 6)", "4 (5 of 6)") and found["wrong"] == 2


def test_the_page_alone_says_what_happened(page, tmp_path):
    dom, console = browse(page, tmp_path / "profile")
    assert console == []
    assert re.search(r'<p id="statement">file a_name', dom) and "Nothing changed." in dom
    assert 'name="viewport"' in dom and "http" not in page.read_text()


def test_an_error_in_a_page_would_be_seen(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<!DOCTYPE html><script>nothing.there()</script>")
    assert browse(bad, tmp_path / "profile")[1]

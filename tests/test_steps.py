"""The changes that `step` shows for each operation, against observations before and after, and by hand."""

import copy
import json

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore import cli
from hgmcore.analysis.properties import wrong
from hgmcore.report.step import step_text
from hgmcore.steps import observed_changes
from hgmcore.trace.text import spelled

LINES = [
    "file F 2M 2", "populate F 0 2", "mmap A v F 0 4M shared minor", "split A v 0 4M", "continue A v 0 4K",
    "continue A v 0 4K", "continue A v 8K 12K", "fork A B", "touch B v 8K", "dontneed A v 0 2M", "observe"]
THP = ["mmap A v anon:2M 0 4M private", "touch A v 0 write", "fork A B", "touch B v 8K write", "dontneed A v 64K 8K",
       "munmap B v 0 2M", "exit A"]


def rows(changes, **wanted):
    """The (before, after) of the changes that have these values."""
    return [(row["before"], row["after"]) for row in changes if all(row[key] == value for key, value in wanted.items())]


def test_one_continue_by_hand():
    step = list(hgm.replay_steps(LINES, "mm_id"))[6]
    assert (step.index, step.statement, step.error, step.done) == (6, "continue A v 8K 12K", None, 12288)
    assert step.cost == {"ref": 3, "map": 9, "transient": 0, "scanned": 0, "leaves": 3}
    assert step.entries == [{
        "process": "A", "mapping": "v", "offset": 8192, "level": "pte", "entries": 3, "before": None,
        "after": {"kind": "leaf", "frame": 2, "flags": [], "folio": "F 0", "page": 2}}]
    assert rows(step.words, word="_large_mapcount") == [(1, 4)]
    assert [(row["page"], row["pages"]) for row in step.words if row["word"] == "_mapcount"] == [(2, 3)]
    assert rows(step.answers, name="F 0", key="refcount") == [(2, 5)]
    assert rows(step.truth, name="F 0", key="leaves") == [(1, 4)]
    assert rows(step.truth, name="F 0", key="page_mapcount")[0][1] == [[0, 1, 1], [1, 2, 0], [2, 5, 1], [5, 512, 0]]
    assert rows(step.answers, name="A v", key="rss") == [(4096, 16384)]


def test_a_refusal_and_a_zap():
    steps = list(hgm.replay_steps(LINES, "subtree"))
    assert (steps[5].error, steps[5].done, steps[5].entries, steps[5].words) == ("EEXIST", 0, [], [])
    assert [row["level"] for row in steps[9].entries] == ["pmd", "pte", "pte"]
    assert steps[9].entries[0]["before"]["kind"] == "table" and steps[9].entries[0]["after"] is None
    assert rows(steps[2].answers, key="listed") == [(False, True)]
    assert steps[7].words == [] and rows(steps[7].answers, name="B v", key="listed") == [(False, True)]


@pytest.mark.parametrize("scheme", hgm.schemes.NAMES)
@pytest.mark.parametrize("lines", [LINES, THP], ids=["hugetlb", "thp"])
def test_the_changes_lead_from_nothing_to_the_end(scheme, lines):
    """All changes applied to the first state give the last state: of words, of answers and of leaves."""
    words, leaves, last = {}, {}, None
    for step in hgm.replay_steps(lines, scheme):
        for row in step.words:
            for page in range(row["page"], row["page"] + row["pages"]):
                key = row["folio"], page, row["word"]
                assert words.get(key, np.zeros_like(row["before"]).tolist()) == row["before"]
                words[key] = row["after"]
        for row in step.entries:
            base = 4096 << 9 * ("pte", "pmd", "pud", "p4d").index(row["level"])
            for i in range(row["entries"]):
                key = row["process"], row["mapping"], row["level"], row["offset"] + i * base
                assert (key in leaves) == (row["before"] is not None)
                leaves.pop(key, None)
                if row["after"] is not None:
                    leaves[key] = row["after"]["kind"]
        last = step
    machine = hgm.Machine(scheme)
    machine.run(lines)
    end = machine.observe()
    assert observed_changes(last.observation, end) == ([], [])
    true = sum(row["truth"]["leaves"] for row in end["folios"])
    assert true == sum(kind == "leaf" for kind in leaves.values())
    for folio in end["folios"]:
        assert words[f"{folio['file']} {folio['page']}", 0, "_refcount"] == folio["refcount"]


def test_a_part_is_the_same_as_in_the_whole():
    whole = [step.to_dict() for step in hgm.replay_steps(LINES, "mm_id")]
    part = [step.to_dict() for step in hgm.replay_steps(LINES, "mm_id", start=6, stop=9)]
    assert part == whole[6:9]


def test_steps_stream():
    steps = hgm.replay_steps("recording:qemu-postcopy_redis_4k", "head_per_leaf", start=200_000)
    assert next(steps).index == 200_000 and next(steps).index == 200_001


@pytest.mark.parametrize("arguments, reason", [
    ({"start": 5, "stop": 3}, "operations 5 to 3"), ({"stop": 12}, "operations 0 to 12: not a part of 0 to 11"),
    ({"start": -1}, "operations -1"), ({"era": "1"}, "option 'era'")])
def test_what_is_no_part(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        hgm.replay_steps(LINES, "subtree", **arguments)


def test_changes_of_observations():
    machine = hgm.Machine("head_per_leaf")
    machine.run(LINES)
    one = machine.observe()
    other = copy.deepcopy({**one, "folios": list(one["folios"])})
    other["folios"][0]["truth"]["leaves"] += 1
    other["folios"][0]["mapcount"] += 1
    other["mappings"].pop()
    answers, truth = observed_changes(one, other)
    assert [(row["key"], row["after"] - row["before"]) for row in truth] == [("leaves", 1)]
    assert [(row["name"], row["key"]) for row in answers] == [("F 0", "mapcount"), ("B v", "listed")]


@pytest.fixture
def trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.hgm").write_text("\n".join(["hgmcore-trace 1", *LINES, ""]))
    return tmp_path / "t.hgm"


def run(capfd, *arguments, status=0):
    assert cli.run(["step", "t.hgm", *arguments]) == status
    out, err = capfd.readouterr()
    return out if status == 0 else err


def test_the_text(trace, capfd):
    text = run(capfd, "--scheme", "subtree,mm_id", "--scheme", "head_per_leaf")
    assert max(map(len, text.splitlines())) <= 80 and text.isascii() and "\x1b" not in text
    assert "\n4       continue A v 0 4K  = 4K\n  tables subtree A v+0 p4d: none -> table 2\n" in text
    assert "5       continue A v 0 4K  = EEXIST" in text and "  WRONG    page_mapcount_wrong_pages 511\n" in text
    statements = list(spelled(hgm.load(LINES).operations, hgm.load(LINES).header))
    assert [line[8:].partition("  =")[0] for line in text.splitlines() if line[:1].isdigit()] == statements
    part = run(capfd, "--scheme", "subtree", "--from", "6", "--to", "7").split("\n\n")
    assert len(part) == 2 and part[1].startswith("6       continue")


def texts_of(lines):
    return [" ".join(step_text({"mm_id": step}).split()) for step in hgm.replay_steps(lines, "mm_id")]


def test_arrays_are_shown_where_they_changed():
    """Of many runs only the first of those that changed; nothing of an array that only became shorter."""
    lines = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm",
             *(f"continue A v {8 * i}K 4K" for i in range(9)), "mmap B w F 0 2M shared hgm minor",
             "continue B w 8K 8K", "migrate A v 0 2M"]
    step, migrate = texts_of(lines)[-2:]
    assert step.count("page_mapcount [2] 1 -> 2, [3] 0 -> 1") == 2, "in the truth and in what the scheme says"
    first = ", ".join(f"[{page}] 1 -> 0" for page in range(0, 12, 2))
    assert f"exclusive {first} and 3 runs more B w" in step
    assert migrate.startswith("14 migrate A v 0 2M = ok, nothing moved ")
    moved = texts_of(["mmap A v anon:2M 0 4M private", "touch A v 0 write", "fork A B", "mremap A v 0 2M w"])[-1]
    assert "A v: rss 2,097,152 -> 0" in moved and "exclusive" not in moved


def test_json_lines(trace, capfd):
    head, *lines = map(json.loads, run(capfd, "--scheme", "subtree,mm_id", "--json", "-").splitlines())
    assert head["format"] == "hgmcore-step 1" and head["schemes"] == ["subtree", "mm_id"]
    assert [(line["index"], line["scheme"]) for line in lines[:3]] == [(0, "subtree"), (0, "mm_id"), (1, "subtree")]
    assert len(lines) == 2 * len(LINES)
    machine = hgm.Machine("subtree")
    machine.run(LINES[:5])
    assert lines[8]["wrong"] == wrong(machine.observe()) == {"page_mapcount_wrong_pages": 511}
    run(capfd, "--scheme", "subtree", "--json", "s.json", "--html", "s.html")
    assert len((trace.parent / "s.json").read_text().splitlines()) == 1 + len(LINES)
    assert (trace.parent / "s.html").read_text().startswith("<!DOCTYPE html>")


def test_names_in_a_page_stay_text(trace, capfd):
    trace.rename(trace.with_name("<img src=x>.hgm"))
    assert cli.run(["step", "<img src=x>.hgm", "--scheme", "subtree", "--html", "s.html"]) == 0
    page = (trace.parent / "s.html").read_text()
    assert "<img" not in page and page.count("</script>") == 2


@pytest.mark.parametrize("arguments, reason", [
    (["--scheme", "foo"], "unknown scheme 'foo'"), ([], "--scheme"), (["--scheme", ","], "no scheme is named"),
    (["--scheme", "subtree", "--from", "9", "--to", "3"], "--from 9 --to 3 is not a part of the trace's 11"),
    (["--scheme", "subtree", "--from", "1", "--from", "2"], "--from is given twice"),
    (["--scheme", "mm_id", "--option", "hvo=on"], "hvo=on"),
    (["--scheme", "subtree", "--html", "no/p.html"], "No such file")])
def test_wrong_input(trace, capfd, arguments, reason):
    err = run(capfd, *arguments, status=2)
    assert reason in err and err.count("\n") == 1


def test_a_page_has_a_limit(capfd, tmp_path):
    page = tmp_path / "p.html"
    assert cli.run(["step", "--scheme", "subtree", "--html", str(page)]) == 2
    assert "--html takes at most 5000 operations" in capfd.readouterr().err and not page.exists()

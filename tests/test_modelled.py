"""`compare --profile`: modelled times beside the counts, in every form."""

import csv
import json

import jsonschema
import pytest

from hgmcore import compare, counting
from hgmcore.cli import run
from hgmcore.model.profile import ProfileError
from hgmcore.report.formats import schemas

TRACE = """hgmcore-trace 1
file F 2M 2
mmap A v F 0 4M shared minor hgm
populate F 0 2
phase stream
""" + "".join(f"continue A v {4 * i}K 4K\n" for i in range(512)) + """phase collapse
collapse A v 0 2M
phase zap
munmap A v 0 4M
"""
SCHEMES = "head_per_leaf,mm_id,logical_counter"


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "small.hgm"
    path.write_text(TRACE)
    return str(path)


def modelled(trace, profile="turin-vm", **options):
    return compare(trace, schemes=SCHEMES, repeat=0, profile=profile, **options)


def test_accounting_and_the_whole_operation_by_phase(trace):
    result = modelled(trace)
    entry = result["schemes"]["mm_id"]["modelled"]
    assert result["profile"] == "turin-vm" and result["modelled"]["surrogate"]
    stream = entry["phases"]["stream"]
    # `phase` is a statement too, and so one of the phase's 513 operations
    assert stream["total"]["value"] - stream["accounting"]["value"] == pytest.approx((327.0 + 264.1) * 512 / 513)
    assert stream["accounting"]["value"] == pytest.approx((512 * (4 * 4.95 + 3 * 0.05 + 13) + 0.05 + 927) / 513)
    assert stream["share"]["value"] < 10 < entry["phases"]["collapse"]["share"]["value"]
    assert entry["leans_on"] == "cited"
    for part in (stream["accounting"], stream["total"], entry["total"], entry["accounting"]):
        assert part["low"] < part["value"] < part["high"]
    marks = {name: one["modelled"]["against"]["mark"] for name, one in result["schemes"].items()}
    assert marks == {"head_per_leaf": "~", "mm_id": ">", "logical_counter": "<"}
    assert [one["scheme"] for one in result["modelled"]["order"]] == ["logical_counter", "head_per_leaf", "mm_id"]


def test_without_a_profile_nothing_changes(trace):
    plain, with_one = (compare(trace, schemes=SCHEMES, repeat=0, **options)
                       for options in ({}, {"profile": "turin-vm"}))
    assert plain["profile"] is None and "modelled" not in plain["schemes"]["mm_id"]
    for name, entry in with_one["schemes"].items():
        entry.pop("modelled")
        assert entry == plain["schemes"][name]
    assert with_one["verdict"] == plain["verdict"]


def test_the_result_has_its_schema_and_a_long_form(trace, tmp_path):
    result = modelled(trace)
    jsonschema.validate(json.loads(json.dumps(result)), schemas()["hgmcore-compare 2"])
    rows = [dict(zip(result.long(), values)) for values in zip(*result.long().values())]
    found = {(row["phase"], row["key"], row["unit"]) for row in rows if row["label"] == "modelled"}
    assert {("stream", "accounting", "ns/operation"), ("stream", "share", "%"), (None, "total", "ns/operation"),
            (None, "ns_per_leaf", "ns/leaf"), (None, "difference_percent", "%"), (None, "processors.2", "ns")} <= found
    path = tmp_path / "long.csv"
    assert run(["compare", trace, "--schemes", SCHEMES, "--repeat", "0", "--profile", "xeon-8176", "--csv",
                str(path)]) == 0
    assert any(row["key"] == "processors.128" for row in csv.DictReader(path.open()))


def test_processors_from_the_curve(trace):
    entry = modelled(trace, "xeon-8176")["schemes"]["head_per_leaf"]["modelled"]
    bound = {cpus: each["ns"] for cpus, each in entry["processors"].items()}
    assert list(bound) == ["1", "2", "16", "48", "128"]
    updates = entry["hottest"][0]["updates"]
    assert bound["1"] == pytest.approx(updates * 4.828)
    assert bound["16"] == pytest.approx(updates * (4.828 + 37.71 + 21.917 * 15) / 16)
    few = modelled(trace)["schemes"]["mm_id"]["modelled"]["processors"]
    assert "ns" in few["2"] and "too far out" in few["16"]["why"]


def test_on_the_screen(trace, capsys):
    assert run(["compare", trace, "--schemes", SCHEMES, "--repeat", "0", "--profile", "turin-vm", "--full"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "MODELLED (turin-vm, surrogate K), 90 % intervals" in text
    assert "SHARE of accounting in the whole operation" in text
    assert "AT LEAST, ms" in text
    assert "Under turin-vm (K: surrogate), logical_counter costs" in text
    assert "EVENTS of the whole trace, counted" in text
    assert run(["compare", trace, "--schemes", SCHEMES, "--repeat", "0", "--profile", "turin-vm", "--markdown"]) == 0
    assert "### MODELLED (turin-vm, surrogate K)" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["--profile", "turin"], "no profile 'turin'; did you mean 'turin-vm'?"),
    (["--profile", "altra"], "profile altra: no cost for"),
    (["--profile", "altra", "--assume", "plian=1:0:2"], "--assume plian: no such cost; did you mean 'plain'?"),
    (["--profile", "altra", "--assume", "plain=3:0:2"], "--assume plain: 3 is not between 0 and 2"),
    (["--profile", "altra", "--assume", "plain=3"], "'3' is not of the form NS:LOW:HIGH"),
    (["--cpus", "2"], "--cpus, --spread and --assume are for --profile"),
    (["--profile", "turin-vm", "--spread", "moon"], "'moon' is not one of"),
])
def test_what_is_refused(trace, capsys, arguments, message):
    assert run(["compare", trace, "--schemes", "mm_id", "--repeat", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_accounting_profile_has_no_whole_operation(trace):
    assume = dict.fromkeys(("plain", "step", "table_alloc", "table_free"), (1, 0, 4))
    entry = modelled(trace, "altra", assume=assume)["schemes"]["mm_id"]["modelled"]
    assert "total" not in entry and "share" not in entry
    assert entry["leans_on"] == "assumed"
    assert entry["against"]["basis"] == "accounting"


def test_a_scheme_that_counts_no_events_has_a_reason(trace, monkeypatch):
    monkeypatch.setattr(counting, "NAMES", tuple(name for name in counting.NAMES if name != "mm_id"))
    result = modelled(trace)
    assert result["schemes"]["mm_id"]["modelled_why"].startswith("scheme mm_id was not compiled to count events")
    assert "modelled" not in result["schemes"]["mm_id"] and "modelled" in result["schemes"]["head_per_leaf"]


def test_what_the_library_refuses(trace):
    with pytest.raises(ValueError, match="spread: 'moon'"):
        modelled(trace, spread="moon")
    with pytest.raises(ProfileError, match="--assume atomic: 1 is not between 2 and 3"):
        modelled(trace, assume={"atomic": (1, 2, 3)})
    with pytest.raises(ValueError, match="cpus: 0 is not a number of processors"):
        modelled(trace, cpus=0)

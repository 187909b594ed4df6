"""K(op) of the running kernel: the arithmetic on the times that turin-vm was made from, and the kernel itself."""

import pytest

from hgmcore import compare
from hgmcore.cli import run
from hgmcore.kernel.live import conditions, costs
from hgmcore.model import profile
from hgmcore.model.linear import Value

TIMES = {"one": 650.0, "many": 327 + 256 * 323.0, "pmd": 1663.0, "run": 9243.0, "fault": 1102.0, "dontneed": 998.7,
         "zapped": 12.70, "unmapped": 12.51, "freed": 22.9, "dontneed_anon": 764.3, "reused": 710.2, "filled": 1064.1,
         "copied": 2040.8, "fork": 42444.0, "fork_more": 37.0 * 8192, "few": 3596.0, "full": 22264.0,
         "split": 39.6 * 512}
"""Nanoseconds that were measured on Linux 6.18.44."""


def test_the_accounting_of_its_scheme_is_taken_off():
    shipped = profile.load("turin-vm").costs
    times = {name: Value(ns, ns * 0.97, ns * 1.03) for name, ns in TIMES.items()}
    found, missing = costs._rows(times, {}, {key: shipped[key] for key in profile.COSTS if key in shipped})
    assert not missing
    for name, value in found.items():
        assert value.ns == pytest.approx(shipped[name].ns, abs=0.15, rel=0.001), name
        assert value.low <= value.ns <= value.high
    rows = {name for name in shipped if name.startswith("kernel.")} - {"kernel.munmap_freed.free"}
    assert rows <= found.keys() | {"kernel.exit.call"}


def test_what_could_not_be_timed_is_told():
    shipped = profile.load("turin-vm").costs
    found, missing = costs._rows({"one": Value(650, 640, 660)}, dict.fromkeys(TIMES, "disturbed: 15 of 15"), shipped)
    assert not found
    assert missing["continue"] == missing["split"] == missing["copy"] == "disturbed: 15 of 15"


def test_a_repetition_that_was_interrupted_does_not_count():
    left = iter([(5.0, False), (900.0, True)] * costs.REPETITIONS)
    assert costs.measured("x", lambda: next(left)).high < 6
    with pytest.raises(costs.NotShown, match="disturbed: 15 of 15 repetitions were interrupted"):
        costs.measured("x", lambda: (5.0, True))


def test_where_it_cannot_run_it_says_so_before_anything_runs(monkeypatch, capfd):
    monkeypatch.setattr(conditions, "missing", lambda: "not root (the kernel's page counts are for root only)")
    assert run(["calibrate", "--kernel"]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err == ("hgmcore: error: calibrate --kernel cannot run here: not root (the kernel's page counts are for "
                   "root only)\n")


@pytest.mark.skipif(conditions.missing() is not None, reason=f"the kernel: {conditions.missing()}")
def test_on_the_running_kernel(tmp_path):
    given = profile.load("turin-vm")
    made = costs.with_kernel(profile.Profile("here", "accounting", "", given.processor, {
        key: given.costs[key] for key in profile.COSTS if key in given.costs and key != "copy"}))
    path = tmp_path / "here.toml"
    path.write_text(profile.to_toml(made))
    read = profile.load(path)
    assert read.kind == "kernel" and not read.transferred
    timed = {name for name in read.costs if name.startswith("kernel.")}
    assert len(timed) + 2 * len(read.not_measurable) >= 15
    for name in timed - {"kernel.fork.call"}:    # of this machine, or one within a factor of four of it
        value, other = read.costs[name], given.costs[name]
        assert value.low <= 4 * other.high and other.low <= 4 * value.high, name
    if {"kernel.continue.call", "kernel.dontneed.call"} <= timed:
        text = "hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared minor hgm\npopulate F 0 1\ncontinue A v 0 4K\n" \
               "dontneed A v 0 2M\n"
        trace = tmp_path / "t.hgm"
        trace.write_text(text)
        found = compare(str(trace), ["mm_id"], repeat=0, profile=str(path))["schemes"]["mm_id"]["modelled"]
        assert found["total"]["value"] > 100 and found["total_leans_on"] in ("measured", "transferred", "cited")

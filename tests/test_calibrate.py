"""Calibration: its gates, its profile, and that two of them agree within their own intervals."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from hgmcore.cli import run
from hgmcore.model import calibrate, loops, profile, replay_gate, topology
from hgmcore.model.calibrate import NotMeasurable
from hgmcore.model.linear import Value


@pytest.fixture(scope="module")
def found():
    return calibrate.calibrate()


def test_it_takes_less_than_ten_seconds_and_leaves_the_affinity(found):
    before = os.sched_getaffinity(0)
    calibrate.calibrate(gate=False)
    assert os.sched_getaffinity(0) == before
    if os.getloadavg()[0] < 4:
        assert found.seconds < 10


def test_what_every_machine_can_show(found):
    for name in ("atomic", "plain", "scan", "far"):
        assert (name in found.values) != (name in found.missing), name
    if "atomic" in found.values:
        atomic = found.values["atomic"]
        assert 0.5 < atomic.low <= atomic.ns <= atomic.high < 100
    for name in ("moved", "contention"):
        given = any(key.startswith("pair.") for key in found.values)
        assert given or any(key.startswith(name) for key in found.missing)


def disagreements(one, other):
    """What two calibrations give in intervals that have nothing in common."""
    return [(name, one.values[name], other.values[name]) for name in sorted(one.values.keys() & other.values.keys())
            if not (one.values[name].low <= other.values[name].high
                    and other.values[name].low <= one.values[name].high)]


@pytest.fixture
def load():
    """Twice as many programs that never wait as there are CPUs."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"])
                for _ in range(2 * len(os.sched_getaffinity(0)))]
    yield
    for program in programs:
        program.kill()
        program.wait()


def test_on_a_loaded_machine_two_calibrations_agree_within_their_own_intervals(found, load):
    one, other = calibrate.calibrate(gate=False), calibrate.calibrate(gate=False)
    assert {"atomic", "plain", "scan"} <= one.values.keys() & other.values.keys()
    for pair in ((one, other), (found, one), (found, other)):
        assert not disagreements(*pair)


def test_by_wall_clock_they_would_not(load, monkeypatch):
    thread_time, clock = loops.run, time.perf_counter_ns

    def wall(name, memory, turns, order=None):
        start = clock()
        thread_time(name, memory, turns, order)
        return (clock() - start) / turns, False

    honest = calibrate.Calibration([min(os.sched_getaffinity(0))])
    calibrate._single(honest)
    monkeypatch.setattr(loops, "run", wall)
    monkeypatch.setattr(calibrate, "SPREAD", 1e9)    # the gate that would refuse them
    wrong = calibrate.Calibration(honest.cpus, {"atomic": Value(*calibrate.widened(calibrate.repeated(
        lambda: loops.run("atomic", np.zeros(4096, np.uint8), 5_000_000))), "measured", "")})
    assert [name for name, *_ in disagreements(honest, wrong)] == ["atomic"]


def test_the_profile_is_a_good_file(found, tmp_path):
    made = calibrate.profile_of(found, "here")
    path = tmp_path / "here.toml"
    path.write_text(profile.to_toml(made))
    read = profile.load(path)
    assert read.name == "here" and read.kind == "accounting"
    assert read.costs.keys() == made.costs.keys()
    for name, value in made.costs.items():
        assert read.costs[name].ns == pytest.approx(value.ns, rel=1e-5)
    assert read.not_measurable == {key: why for key, why in found.missing.items()}
    assert read.replay_gate == found.gate and found.gate.startswith(("passed: ", "failed: "))
    if "atomic" in made.costs:
        assert made.costs["step"].how == "transferred"


def test_shipped_profiles_survive_being_written():
    for name in profile.names():
        one = profile.load(name)
        again = profile.parse(profile.to_toml(one), name)
        assert again.costs == one.costs and again.curve == one.curve and again.fit == one.fit


@pytest.fixture
def interrupted(monkeypatch):
    """Loops of which every repetition is disturbed, or takes one of some times in turn."""
    def with_times(times, disturbed=False):
        left = iter(np.resize(times, 10_000))
        monkeypatch.setattr(calibrate.loops, "run", lambda *_: (float(next(left)), disturbed))
    return with_times


def test_a_value_that_jumps_is_not_given(interrupted):
    interrupted([5.0, 8.0])
    with pytest.raises(NotMeasurable, match="spread: the middle 80 % of repetitions lie"):
        calibrate.repeated(lambda: calibrate.loops.run("atomic"))
    interrupted([5.0, 5.1])
    assert len(calibrate.repeated(lambda: calibrate.loops.run("atomic"))) == calibrate.REPETITIONS


def test_a_value_that_was_interrupted_is_not_given(interrupted):
    interrupted([5.0], disturbed=True)
    with pytest.raises(NotMeasurable, match="disturbed: 25 of 25 repetitions were interrupted"):
        calibrate.repeated(lambda: calibrate.loops.run("atomic"))


def test_threads_that_never_met_show_no_contention(monkeypatch):
    assert calibrate._why_not([(0, 100, 100), None]) == "a thread did not come to run"
    assert calibrate._why_not([(0, 100, 100), (100, 200, 100)]) == "the threads ran one after the other"
    assert calibrate._why_not([(0, 100, 100), (0, 100, 50)]) == "a thread had to wait for its CPU"
    assert calibrate._why_not([(0, 100, 100), (1, 101, 100)]) is None
    monkeypatch.setattr(calibrate.loops, "together", lambda *_: None)
    cpu = min(os.sched_getaffinity(0))
    with pytest.raises(NotMeasurable, match="threads: 0 of 15 rounds count.* a thread did not come to run"):
        calibrate._rounds([cpu, cpu])


def test_one_cpu_shows_no_contention():
    found = calibrate.Calibration([0])
    calibrate._threads(found)
    assert found.missing["contention"] == "one CPU alone moves no line"
    assert found.curve is None


def test_the_interval_is_at_least_eight_per_cent_wide():
    assert calibrate.widened([10.0] * 25) == (10.0, 9.6, 10.4)
    middle, low, high = calibrate.widened(np.arange(101))
    assert (middle, low, high) == (50, 10, 90)


def test_moved_is_what_a_pair_pays_beyond_an_atomic():
    found = calibrate.Calibration([0, 1], {"atomic": Value(5, 4.9, 5.2), "pair.l3": Value(16, 15, 17)})
    moved = calibrate.profile_of(found, "x").costs["moved.l3.blind"]
    assert (moved.ns, moved.low, moved.high) == (11, pytest.approx(9.8), pytest.approx(12.1))


def replays(ns, atomic=5.0):
    return [{"scheme": "a", "action": "zap", "atomics": x, "ns": ns(x), "atomic": atomic} for x in (1, 2, 3, 4)]


def test_the_check_against_replays(monkeypatch):
    cells = replays(lambda x: 0.2 + 5 * x)
    monkeypatch.setattr(replay_gate, "cells", lambda tries: [cells] * tries)
    assert replay_gate.check(5.0)[0].startswith("passed: ns a leaf = 0.20 + 5.00 x atomics, R2 1.0000")
    unlike = replays(lambda x: 0.2 + 5 * x, atomic=4.0)
    assert "failed: the slope is +25% off an atomic's 4.00 ns" in replay_gate.judge(unlike, 4.0)
    assert replay_gate.check(None)[0].startswith("failed: an atomic's cost is unknown")
    cells[3]["ns"] += 9
    assert "R2 is below" in replay_gate.check(5.0)[0] and "a residual is too large" in replay_gate.check(5.0)[0]


def test_replays_that_were_disturbed_are_tried_again(monkeypatch):
    good = replays(lambda x: 0.3 + 5 * x)
    bad = [{**good[0], "ns": 20.0}, *good[1:]]
    monkeypatch.setattr(replay_gate, "cells", lambda tries: iter([bad, bad, good][:tries]))
    verdict, found = replay_gate.check(5.0)
    assert verdict.startswith("passed: ns a leaf = 0.30 + 5.00 x atomics") and found is good
    monkeypatch.setattr(replay_gate, "cells", lambda tries: iter([bad] * tries))
    assert replay_gate.check(5.0)[0].startswith("failed")


def test_a_machine_that_was_slower_at_the_replays_is_brought_to_one_speed():
    slow = replays(lambda x: 0.7 + 7 * x, atomic=7.0)
    assert replay_gate.judge(slow, 5.0).startswith("passed: ns a leaf = 0.50 + 5.00 x atomics")


def test_replays_count_what_they_should():
    found = {(cell["scheme"], cell["action"]): cell["atomics"] for cell in next(replay_gate.cells())}
    assert len(found) == 12
    assert found["head_per_leaf", "zap"] == pytest.approx(2, abs=0.01)
    assert found["mm_id", "continue"] == pytest.approx(4, abs=0.01)
    assert found["nr_pages_mapped", "fork"] == pytest.approx(2, abs=0.01)


def test_loops_refuse_what_they_cannot_run():
    memory = np.zeros(4096, np.uint8)
    with pytest.raises(ValueError, match="no loop 'sleep'"):
        loops.run("sleep", memory, 1)
    with pytest.raises(ValueError, match="too few"):
        loops.run("tail", memory, 1000)
    with pytest.raises(ValueError, match="an order of lines is missing"):
        loops.run("far_overlapped", memory, 10)


def test_a_ring_goes_through_all_lines():
    memory, order = np.zeros(64 * 64, np.uint8), np.concatenate([[0], 1 + np.random.default_rng(2).permutation(63)])
    loops.ring(memory, order.astype(np.uint32))
    words, at, seen = memory.view(np.int32).reshape(-1, 16), 0, []
    for _ in range(64):
        seen.append(at)
        at = int(words[at, 1])
    assert at == 0 and sorted(seen) == list(range(64))


def test_lists_of_cpus():
    assert topology.cpu_list("0-2,8") == {0, 1, 2, 8}
    assert topology.cpu_list(None) == set()
    cpus = sorted(os.sched_getaffinity(0))
    assert all(pair[0] == cpus[0] and pair[1] != cpus[0] for pair in topology.pairs(cpus).values())


def test_on_the_command_line(capsys, tmp_path):
    path, result = tmp_path / "mine.toml", tmp_path / "mine.json"
    assert run(["calibrate", "-o", str(path), "--json", str(result), "--name", "mine"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "Check against warm replays" in text
    assert profile.load(path).name == "mine"
    assert json.loads(result.read_text())["format"] == "hgmcore-calibrate 1"

"""The measured numbers: intervals that cover, rounds that interleave, and runs that do not pay for first touches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import Trace, workloads
from hgmcore.analysis import measure as module
from hgmcore.analysis.measure import ROUNDS, change, interval, measure
from hgmcore.replay import machine_for
from hgmcore.trace.phases import phases


@pytest.mark.parametrize("rounds", [6, 7, 9, 12, 20])
@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
def test_intervals_hold_the_median_in_95_of_100_cases(rounds, draw):
    rng, true = np.random.default_rng(rounds), {"normal": 0, "exponential": np.log(2), "standard_cauchy": 0}[draw]
    found = [interval(runs) for runs in getattr(rng, draw)(size=(2000, rounds))]
    share = np.mean([one["low"] <= true <= one["high"] for one in found])
    assert share >= 0.94  # 0.95 but for three standard deviations of 2,000 cases


def test_fewer_rounds_would_not_cover():
    assert 1 - 2 * 0.5 ** (ROUNDS - 1) < 0.95 <= 1 - 2 * 0.5 ** ROUNDS


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=30))
def test_a_median_lies_in_its_interval_of_runs(runs):
    found = interval(runs)
    assert found["runs"] == runs and found["median"] == pytest.approx(np.median(runs))
    assert min(runs) <= found["low"] <= found["median"] <= found["high"] <= max(runs)


def test_changes_are_of_runs_in_the_same_round():
    """A busy moment that both met cancels out."""
    one, other = interval([10, 50, 10, 10, 90, 10]), interval([5, 25, 5, 5, 45, 5])
    assert change(one, other) == {"median": 2, "low": 2, "high": 2}


def test_rounds_are_interleaved_and_the_first_is_dropped(monkeypatch):
    order = []

    class Warm:
        met = 0

        def __init__(self, trace, name, *rest):
            self.name = name

        def run(self):
            order.append(self.name)
            return [len(order)]

    monkeypatch.setattr(module, "_Warm", Warm)
    trace = Trace.parse("hgmcore-trace 1\nfile F 2M 1\n")
    found = measure(trace, ["a", "b"], phases(trace), {"a": 1, "b": 1}, 3)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found["a"]["ns_per_operation"]["runs"] == [4, 5, 8]


def test_a_fresh_machines_first_touches_do_not_enter():
    """mm_id touches a struct page for each base page: cold, that is most of the time. Ratios of one process alone."""
    trace = workloads.load("sequential")(page_size="1G", pages=1)
    warm = measure(trace, ["mm_id"], phases(trace), {"mm_id": 1}, 6)["mm_id"]["ns_per_operation"]["low"]
    machines = [machine_for(trace, "mm_id", {"transient": "real"}) for _ in range(3)]
    cold = min(machine.run(trace.operations) for machine in machines) / len(trace)
    assert warm < 0.8 * cold


def timed(monkeypatch, times, rounds, size=1, places=None):
    """The runs that `measure` makes of one scheme whose n-th run, from 1 and but for a machine's first, takes times(n)
    nanoseconds. places: gets a number of runs for each machine."""
    class Warm:
        met, n = 0, 0

        def __init__(self, *_):
            self.first = True
            if places is not None:
                places.append(0)

        def run(self):
            if places is not None:
                places[-1] += 1
            if self.first:
                self.first = False
                return [10**9]
            Warm.n += 1
            return [times(Warm.n)]

    monkeypatch.setattr(module, "_Warm", Warm)
    trace = Trace.parse("hgmcore-trace 1\nfile F 2M 1\n")
    steps = []
    found = measure(trace, ["a"], phases(trace), {"a": size}, rounds, progress=lambda done, what: steps.append(done))
    assert steps == sorted(steps) and max(steps) <= rounds
    return found["a"]["ns_per_operation"]


def test_runs_are_spread_over_places_in_memory(monkeypatch):
    """Of each machine the first run is dropped. Two large machines of a scheme would not fit side by side."""
    places = []
    assert len(timed(monkeypatch, lambda n: 100, 6, places=places)["runs"]) == 6 and places == [4, 4]
    places.clear()
    timed(monkeypatch, lambda n: 100, 8, places=places)
    assert places == [4, 4, 3]
    places.clear()
    timed(monkeypatch, lambda n: 100, 6, size=module.TOGETHER, places=places)
    assert places == [7]


def test_a_place_that_is_slow_does_not_decide(monkeypatch):
    """The second of the places is 20 % slower: both alone would say something else than most others do."""
    found = timed(monkeypatch, lambda n: 120 if 4 <= n <= 6 else 100 + n % 2, 6)
    assert len(found["runs"]) > ROUNDS and found["median"] <= 101


def test_noise_is_met_by_more_runs(monkeypatch):
    """One run in four is caught by a neighbour; six runs alone would have it at the end of their interval."""
    found = timed(monkeypatch, lambda n: 300 if n % 4 == 1 else 100 + n % 3, 6)
    assert ROUNDS < len(found["runs"]) <= module.MOST and found["high"] == 300
    rare = timed(monkeypatch, lambda n: 300 if n == 3 else 100 + n % 3, 6)
    assert ROUNDS < len(rare["runs"]) < module.MOST and rare["high"] <= 102


def test_a_quiet_machine_makes_as_many_runs_as_asked_for(monkeypatch):
    assert len(timed(monkeypatch, lambda n: 100 + n % 3, 6)["runs"]) == 6
    assert len(timed(monkeypatch, lambda n: 100 + n % 3, 9)["runs"]) == 9
    assert len(timed(monkeypatch, lambda n: 100 * n + 1, 2)["runs"]) == 2, "whoever asks for two gets two"


def test_more_runs_end_with_their_budget(monkeypatch):
    assert len(timed(monkeypatch, lambda n: module.EXTRA / (2 + n % 2), 6)["runs"]) == 9

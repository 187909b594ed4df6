"""What comparing spends beside the timed runs: the counting pass, and observations of many huge pages."""

import resource
import time

import numpy as np
import pytest
from works import AT_RANDOM, GIGABYTE, PIECE_BY_PIECE, PIECES, Guest, records

import hgmcore as hgm
from hgmcore import counting

FASTER = 5    # goal: than a pass with atomics that looks at each operation
FOLIOS = 50_000
UNCHANGED = 5_000_000    # goal: folios a second, 200 ns for each


@pytest.mark.parametrize("name, work", [
    ("in order", PIECE_BY_PIECE), ("at random", AT_RANDOM), ("one continue", records("continue", [0], GIGABYTE))])
def test_the_counting_pass(benchmark, name, work):
    """Plain additions instead of atomics, and many operations in one row, for mm_id, which has the most atomics."""
    timed, counted = (Guest(engine, policy="base_only") for engine in ("mm_id", counting.without_atomics("mm_id")))
    taken = {"atomics": [], "count": []}

    def one_round():
        for key, guest, stops in (("atomics", timed, None), ("count", counted, [len(work)])):
            guest.emptied()
            start = time.thread_time_ns()
            rows = guest.machine.run_each(work, stops)
            taken[key].append(time.thread_time_ns() - start)
            assert rows["leaves"].sum() == PIECES

    benchmark.pedantic(one_round, rounds=15)
    assert timed.machine.cost() == counted.machine.cost() and len(counted.machine.results()) == 0
    before, count = (np.median(taken[key]) for key in ("atomics", "count"))
    benchmark.extra_info.update(work=f"counting mm_id, continue {name}", rate=int(1e9 * PIECES / count), unit="leaves",
                                goal=int(1e9 * PIECES / before * FASTER))


@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id"])
@pytest.mark.parametrize("changed", [1, FOLIOS // 1000], ids=["one changed", "one in 1000 changed"])
def test_an_observation(benchmark, scheme, changed):
    """It costs little for each huge page that did not change, and takes memory for those that did."""
    machine = hgm.Machine(scheme)
    mapping = machine.process("A").mmap(machine.file("F", "2M", FOLIOS, populate=True), "v", minor=True, hgm=True)
    mapping.uffd_continue(np.arange(FOLIOS) * (2 << 20), "2M")
    start = time.thread_time_ns()
    kept = [machine.observe()]
    first = time.thread_time_ns() - start
    before, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    places = np.random.default_rng(1).permutation(FOLIOS)

    def observe():
        at = np.sort(places[len(kept) * changed:][:changed]) * (2 << 20)
        machine.run(records("dontneed", at, 2 << 20))
        start = time.thread_time_ns()
        kept.append(machine.observe())
        taken.append(time.thread_time_ns() - start)
        assert len(kept[-1]["folios"]) == FOLIOS

    benchmark.pedantic(observe, rounds=5)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / FOLIOS / len(taken)
    benchmark.extra_info.update(
        work=f"observing {scheme}, {changed} of {FOLIOS:,} changed, {grown:.0f} bytes a folio kept; first "
             f"{first / FOLIOS:.0f} ns a folio", rate=int(1e9 * FOLIOS / min(taken)), unit="folios", goal=UNCHANGED)

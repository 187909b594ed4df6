"""`pytest bench` and `hgmcore compare` time the same work alike."""

import numpy as np
import pytest
from works import GIGABYTE, WORKS

import hgmcore as hgm

TURNS = 15
"""Each turn gives a ratio of two numbers that were taken right after each other; the median of the turns counts."""

WITHIN = 0.10

START = """\
hgmcore-trace 1
file F 1G 1
populate F 0 1
mmap A v F 0 1G shared minor wp hgm
phase first
"""
PIECES = "".join(f"continue A v {at} 4096\n" for at in range(0, 1 << 30, 4096))
ALL = "dontneed A v 0 1G\n"

TRACES = {
    "continue, in order, real": START + PIECES + ALL + "phase timed\n" + PIECES,
    "dontneed": START + PIECES + "phase timed\n" + ALL,
}
"""What a guest of `works` does with its page of 1G. Page tables are there when the phase `timed` begins, and the caches
hold what the phase before left."""


@pytest.fixture(scope="module", params=TRACES)
def work_and_trace(request):
    return next(work for work in WORKS if work.name == request.param), hgm.Trace.parse(TRACES[request.param])


@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id", "logical_counter"])
def test_compare_agrees_with_the_benchmark(work_and_trace, scheme):
    work, trace = work_and_trace
    options = {"zap_frees_tables": "no", "transient": "real"}    # `compare` executes look-ups' references
    guest, leaves = work.guest(scheme, **options), GIGABYTE // 4096

    def bench():
        times = []
        for _ in range(4):
            work.before(guest)
            times.append(guest.machine.run(work.operations) / leaves)
        return float(np.median(times[1:]))

    def compared():
        entry = hgm.compare(trace, schemes=scheme, repeat=4, every=len(trace), **options)["schemes"][scheme]
        phase = entry["phases"]["timed"]
        assert phase["leaves"] == leaves
        return entry["measured"]["phases"]["timed"]["median"] * phase["operations"] / leaves

    ratios = sorted(compared() / bench() for _ in range(TURNS))
    print(scheme, work.name, *(f"{ratio:.3f}" for ratio in ratios))
    assert 1 - WITHIN <= np.median(ratios) <= 1 + WITHIN
    assert not len(guest.machine.results())

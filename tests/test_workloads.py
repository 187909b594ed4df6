"""Generated traces: the frame they share, the order of their pieces, and how they are spelled."""

import inspect

import numpy as np
import pytest

from hgmcore import workloads
from hgmcore.trace import Trace
from hgmcore.trace.statements import CODES, URGENT

SMALL = {"page_size": "2M", "pages": 3}
ARRIVING = ("sequential", "random", "postcopy")


def offsets(trace):
    ops = trace.operations[trace.operations["op"] == CODES["continue"]]
    return ops["offset"].astype(np.int64)


def is_urgent(trace):
    ops = trace.operations[trace.operations["op"] == CODES["continue"]]
    return ops["flags"] == URGENT


@pytest.mark.parametrize("name", ARRIVING)
def test_every_piece_once(name):
    for piece, size in (("4K", 4096), ("64K", 65536), ("2M", 2 << 20), (8192, 8192)):
        trace = workloads.load(name)(**SMALL, piece=piece)
        assert sorted(offsets(trace)) == list(range(0, 6 << 20, size))
        ops = trace.operations[trace.operations["op"] == CODES["continue"]]
        assert set(ops["length"].tolist()) == {size}


@pytest.mark.parametrize("name", ARRIVING)
def test_the_frame(name):
    trace = workloads.load(name)(**SMALL, observations=4)
    text = [line for line in trace.to_text().splitlines() if " continue " not in f" {line}"]
    assert text[2:] == [
        "file ram 2M 3", "populate ram 0 3", "mmap vmm ram ram 0 6M shared minor", "split vmm ram 0 6M",
        "observe", "observe", "observe", "observe", "collapse vmm ram 0 6M", "observe"]
    where = np.flatnonzero(trace.operations["op"] == CODES["observe"]).tolist()
    assert where == [4 + 384, 4 + 2 * 384 + 1, 4 + 3 * 384 + 2, 4 + 4 * 384 + 3, len(trace) - 1]


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_observations(count):
    trace = workloads.sequential(page_size="2M", piece="256K", observations=count)
    assert (trace.operations["op"] == CODES["observe"]).sum() == min(count, 8) + 1  # 8 pieces


def test_sequential_is_in_order():
    assert (np.diff(offsets(workloads.sequential(**SMALL))) == 4096).all()
    assert workloads.sequential().thread is None and len(workloads.sequential()) == 4 + 262144 + 8 + 2


def test_random_depends_on_the_seed_alone():
    one = workloads.random(**SMALL, seed=1)
    assert one == workloads.random(**SMALL, seed="1")
    assert (offsets(one) != offsets(workloads.random(**SMALL, seed=2))).any()
    assert abs(np.corrcoef(offsets(one), np.arange(1536))[0, 1]) < 0.1


def test_postcopy():
    trace = workloads.postcopy(page_size="1G", urgent=0.01, seed=3)
    placed, urgent = offsets(trace), is_urgent(trace)
    assert urgent.sum() == round(0.01 * 262144)
    assert (np.diff(placed[~urgent]) > 0).all()
    # What is urgent comes no later than the stream would bring it.
    stream = np.maximum.accumulate(np.where(urgent, -1, placed))
    assert (placed[urgent] > stream[urgent]).all()
    # Moments are even over the time before: on average half of what the stream would have brought is there.
    assert abs(np.mean(np.flatnonzero(urgent) * 4096 / placed[urgent]) - 0.5) < 0.05
    ops = trace.operations["op"] == CODES["continue"]
    assert (trace.thread[ops] == np.where(urgent, 2, 1)).all() and not trace.thread[~ops].any()
    assert trace == workloads.postcopy(urgent="0.01", seed="3")
    assert trace != workloads.postcopy(urgent=0.01, seed=4)


@pytest.mark.parametrize("share, count", [(0, 0), (1, 1536), (0.002, 3)])
def test_share_of_urgent_pieces(share, count):
    assert is_urgent(workloads.postcopy(**SMALL, urgent=share)).sum() == count


def test_other_geometries():
    trace = workloads.sequential(page_size="512M", piece="64K", geometry="arm64-64k")
    assert trace.header.geometry == "arm64-64k" and len(offsets(trace)) == 8192


@pytest.mark.parametrize("name", workloads.NAMES)
def test_a_spelled_workload_is_the_call(name):
    trace = workloads.parse(f"workload:{name},page_size=2M,pages=2")
    assert trace == workloads.load(name)(page_size="2M", pages="2")
    assert trace.name == f"workload:{name}"
    assert workloads.parse(trace.header.provenance["workload"]) == trace
    assert Trace.parse(trace.to_text()) == trace


@pytest.mark.parametrize("spec, reason", [
    ("nope", f"unknown workload 'nope' (known: {', '.join(workloads.NAMES)})"),
    ("", f"unknown workload '' (known: {', '.join(workloads.NAMES)})"),
    ("random,colour=1", "workload 'random' has no parameter 'colour' (it has page_size, pages, piece, seed, "
                        "observations, geometry)"),
    ("random,pages", "workload 'random': expected pages=VALUE, found 'pages'"),
    ("random,pages=", "workload 'random': expected pages=VALUE, found 'pages='"),
    ("random,pages=1,pages=2", "workload 'random': 'pages' stands twice"),
    ("random,pages=0", "pages: expected at least 1"),
    ("random,pages=-1", "pages: '-1' is negative (expected decimal or 0x, then K, M, G or T)"),
    ("random,seed=x", "seed: 'x' is not a number (expected decimal or 0x, then K, M, G or T)"),
    ("random,piece=3K", "piece: 3K is not a multiple of 4K that divides a page of 1G"),
    ("random,piece=12K", "piece: 12K is not a multiple of 4K that divides a page of 1G"),
    ("random,piece=1K", "piece: 1K is not a multiple of 4K that divides a page of 1G"),
    ("random,piece=0", "piece: 0 is not a multiple of 4K that divides a page of 1G"),
    ("random,page_size=2Q", "page_size: '2Q' has an unknown unit 'Q' (expected K, M, G or T)"),
    ("random,geometry=vax",
     "unknown geometry 'vax' (known: x86-64, x86-64-5level, arm64-4k, arm64-16k, arm64-64k)"),
    ("postcopy,urgent=x", "urgent: 'x' is not a number"),
    ("postcopy,urgent=nan", "urgent: nan is not between 0 and 1"),
    ("postcopy,urgent=1.5", "urgent: 1.5 is not between 0 and 1"),
])
def test_a_bad_spelling(spec, reason):
    with pytest.raises(ValueError) as caught:
        workloads.parse(workloads.PREFIX + spec)
    assert str(caught.value) == reason


def test_a_page_size_that_the_geometry_lacks():
    with pytest.raises(ValueError, match="x86-64 has no hugetlb pages of 4M .it has 2M, 1G"):
        workloads.random(page_size="4M")


@pytest.mark.parametrize("name", workloads.NAMES)
def test_documentation_names_every_parameter(name):
    text = inspect.getdoc(workloads.load(name)) + inspect.getdoc(workloads.sequential)
    assert all(f"{parameter}:" in text or f"{parameter}, " in text for parameter in workloads.parameters(name))
    assert workloads.parameters(name)["page_size"] in ("2M", "1G")
    assert workloads.load(name).question.endswith("?")

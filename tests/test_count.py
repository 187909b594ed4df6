"""The counting pass: evenly sampled, exact by phase, and nothing that a scheme leaves undone is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import Trace, load, replay, schemes
from hgmcore.analysis.count import SAMPLES, STAYS, count, count_batched, refusals, samples
from hgmcore.analysis.watch import WATCHED
from hgmcore.core.machine import RESULT
from hgmcore.replay import machine_for, plain
from hgmcore.schemes import NAMES
from hgmcore.trace.phases import phases

SMALL = """\
hgmcore-trace 1
file F 2M 1
populate F 0 1
mmap A v F 0 2M shared minor
split A v 0 2M
continue A v 0 4K
continue A v 0 4K
continue A v 28K 4K
"""


def counted(text, scheme, **options):
    trace = Trace.parse(text)
    return count(trace, schemes.load(scheme), phases(trace), **options)


@given(st.integers(0, 10**7), st.none() | st.integers(1, 1000))
def test_samples_lie_evenly_and_the_last_is_behind_the_end(number, every):
    if every:
        number %= 50_000
    stops = samples(number, every)
    assert stops[-1] == number and (np.diff(stops) > 0).all()
    if every is None:
        assert len(stops) <= SAMPLES and (number < SAMPLES or len(stops) > SAMPLES // 2)
    steps = np.diff(stops)[:-1]
    assert len(set(steps.tolist())) <= 1, "but for the last, all are as far apart"


def test_observations_of_the_trace_do_not_matter():
    """As many errors are seen with `observe` in every line as with none: a pass samples by operations."""
    plain = "\n".join(f"continue A v {4 * i}K 4K" for i in range(8, 100))
    few, many = counted(SMALL + plain, "head_per_leaf"), counted(SMALL + plain + "\nobserve" * 50, "head_per_leaf")
    assert few["observations"] <= SAMPLES and many["observations"] <= SAMPLES
    assert few["errors"].result()["per_page"]["page_mapcount_wrong_pages"]["worst"] == 512
    worst = [one["errors"].result()["per_page"]["page_mapcount_max_error"]["worst"] for one in (few, many)]
    assert worst == [94, 94]


@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_scan", "mm_id"])
def test_costs_are_those_of_a_replay_however_often_it_observes(every, scheme):
    text = SMALL + "continue A v 40K 12K\nfork A B\nmunmap A v 0 8K\nexit B\n"
    found, alone = counted(text, scheme, every=every), replay(Trace.parse(text), scheme)["cost"]
    assert {key: found["cost"][key] for key in ("atomics", "entries_scanned", "leaf_installs", "lines")} == {
        key: alone[key] for key in ("atomics", "entries_scanned", "leaf_installs", "lines")
    }
    for key in ("ref", "map", "transient"):
        assert sum(phase["atomics"][key] for phase in found["phases"].values()) == alone["atomics"][key]
    assert sum(phase["leaves"] for phase in found["phases"].values()) == found["leaves"]
    assert sum(phase["operations"] for phase in found["phases"].values()) == len(Trace.parse(text))


@pytest.mark.parametrize("every", [1, 100])
def test_phases_by_hand(every):
    """Two continues of one leaf each: a reference and a map count, in two struct pages; then both are unmapped."""
    found = counted(SMALL + "phase down\nmunmap A v 0 2M\n", "head_per_leaf", every=every)["phases"]
    assert {
        name: (phase["operations"], phase["leaves"], phase["atomics"]["ref"], phase["atomics"]["map"])
        for name, phase in found.items()
    } == {"setup": (7, 2, 2, 2), "down": (2, 2, 2, 2)}
    assert found["setup"]["lines"] == found["down"]["lines"] == 2, "each once, however often the pass observes"


def test_struct_pages_by_phase_where_these_are_kinds_of_operations():
    """A reference in the head and a count in page 1, or in the base page's own struct page: of each stay, once."""
    text = SMALL + "continue A v 40K 4K\ndontneed A v 0 4K\ncontinue A v 0 4K\n"
    for scheme, install, unmap in (("head_per_leaf", 2 + 2, 2), ("per_page_posted", 3 + 1, 1)):
        phases = counted(text, scheme, every=2)["phases"]
        assert (phases["install"]["lines"], phases["partial_unmap"]["lines"]) == (install, unmap)
    many = SMALL + "dontneed A v 0 4K\ncontinue A v 0 4K\n" * STAYS
    assert not any("lines" in phase for phase in counted(many, "head_per_leaf")["phases"].values())


def test_the_largest_scan_of_one_operation():
    """The last piece of 2M is found by reading all 512 entries; others find a neighbour at once."""
    lines = "".join(f"continue A v {4 * i}K 4K\n" for i in range(2, 512) if i != 7)
    found = counted(
        SMALL + lines + "continue A v 4K 4K\n" + "".join(f"dontneed A v {4 * i}K 4K\n" for i in range(512)),
        "logical_scan",
        every=10_000,
    )
    scanned = found["phases"]["partial_unmap"]["scanned"]
    assert 0 < scanned["p50"] <= scanned["p99"] <= scanned["max"] <= 514 and scanned["max"] >= 512
    whole = sum(phase["scanned"]["max"] for phase in counted(SMALL, "logical_counter")["phases"].values())
    assert whole == 0


def test_refusals_by_errno_as_replay_names_them():
    """EHWPOISON and EAGAIN: Python's table of errnos lacks the first and has another name for the second."""
    operations = np.zeros(6, RESULT)
    operations["errno"] = [133, 17, 0, 133, 11, 9999]
    assert refusals(operations) == {"EHWPOISON": 2, "EAGAIN": 1, "EEXIST": 1, "9999": 1}


def test_less_done_is_counted_where_nothing_is_said():
    """A migration that moves nothing says so by 0 bytes alone; a refusal is counted apart."""
    assert counted(SMALL, "head_per_leaf")["less_done"] == {"operations": 0, "bytes": 0, "by_operation": {}}
    assert counted(SMALL, "head_per_leaf")["refused"] == {"EEXIST": 1}
    found = counted(SMALL + "migrate A v 0 2M\n", "head_per_leaf")
    one = {"operations": 1, "bytes": 2 << 20}
    assert found["less_done"] == {**one, "by_operation": {"migrate": one}}


def test_a_collapse_that_silently_does_nothing_shows():
    """RFC v1's loop ends at once: two pieces of 4K stay where a leaf of 2M should stand. It answers success."""
    one = {"operations": 1, "bytes": 8192}
    found = counted(SMALL + "collapse A v 0 2M\n", "subtree_posted")
    assert found["refused"] == {"EEXIST": 1} and found["less_done"] == {**one, "by_operation": {"collapse": one}}
    assert counted(SMALL + "collapse A v 0 2M\n", "subtree")["less_done"]["operations"] == 0
    nothing_mapped = SMALL + "dontneed A v 0 2M\ncollapse A v 0 2M\n"
    assert counted(nothing_mapped, "subtree_posted")["less_done"]["operations"] == 0
    refused = counted(SMALL + "collapse A v 4K 2M\n", "subtree_posted")
    assert refused["less_done"]["operations"] == 0, "an errno is no silence"


GIGABYTE = SMALL.replace("2M", "1G")


@pytest.mark.parametrize("collapse, left", [
    ("collapse A v 0 1G", 8192), ("collapse A v 0 2M", 8192), ("collapse A v 2M 2M", 0), ("collapse A v 0 4K", 0),
    ("collapse A v 1M 3M", 0), ("collapse A v 0 1M", 0)])
def test_what_a_collapse_of_a_part_should_have_replaced(collapse, left):
    """Both pieces lie in the first 2M: a leaf of 2M is the least that fits where these are covered whole."""
    assert counted(GIGABYTE + collapse + "\n", "subtree_posted")["less_done"]["bytes"] == left
    assert counted(GIGABYTE + collapse + "\n", "head_per_leaf")["less_done"]["bytes"] == 0


def test_a_folio_with_a_failed_page_is_rightly_not_collapsed():
    text = SMALL + "hwpoison A v 28K\ncollapse A v 0 2M\n"
    for scheme in ("subtree_posted", "head_per_leaf"):
        assert counted(text, scheme)["less_done"]["operations"] == 0


def test_every_other_silence():
    """DONTNEED of 4K and a punch of 4K answer success and do nothing; munmap of a hole was asked for nothing."""
    text = SMALL.split("split")[0] + "touch A v 0\nunregister A v\ntouch A v 0\n{}\n"
    for line, number in (("dontneed A v 0 4K", 1), ("punch F 0 4K", 1), ("dontneed A v 0 2M", 0), ("punch F 0 2M", 0),
                         ("munmap A v 0 2M\nmunmap A v 0 2M", 0), ("fork A B", 0)):
        found = counted(text.format(line), "head_per_leaf")["less_done"]
        assert found["operations"] == number, line


def test_a_migration_that_silently_moves_nothing_shows():
    """Two pieces of one process are two maps by hugetlb's rule, so mm_id's huge page stays where it is."""
    found = counted(SMALL + "migrate A v 0 2M\n" + "continue A v 0 4K\n" * 300, "mm_id")
    assert found["less_done"]["by_operation"] == {"migrate": {"operations": 1, "bytes": 2 << 20}}
    assert found["errors"].result()["consequences"]["bytes_not_moved"] == {
        "observations": 1, "worst": 2 << 20, "last": 2 << 20}
    assert (
        "bytes_not_moved"
        not in counted(SMALL + "migrate A v 0 2M\n", "logical_counter")["errors"].result()["consequences"]
    )


def test_what_two_processes_share_need_not_move():
    text = SMALL + "mmap B w F 0 2M shared minor\ncontinue B w 0 2M\nmigrate A v 0 2M\n"
    assert "bytes_not_moved" not in counted(text, "mm_id")["errors"].result()["consequences"]
    moved = counted(text.replace("migrate A v 0 2M", "migrate A v 0 2M all"), "mm_id")
    assert "bytes_not_moved" not in moved["errors"].result()["consequences"]


def both(text, scheme, **options):
    trace = Trace.parse(text)
    cut, engine = phases(trace), schemes.load(scheme)
    found = count(trace, engine, cut, **options)
    return found["phases"], count_batched(trace, engine, cut, found, found["rest"], **options)


FORK = SMALL + "continue A v 40K 64K\nregister A v wp\nfork A B\nmunmap A v 0 2M\n"


def test_fork_and_zap_in_both_readings():
    """A run of leaves: one update where kernels batch, one for each leaf where they do not."""
    loop, batch = both(FORK, "head_per_leaf")
    assert batch and batch.keys() <= {"fork", "zap"} and "install" not in batch
    for name in batch:
        assert batch[name]["leaves"] == loop[name]["leaves"]
        assert batch[name]["atomics"]["persistent"] < loop[name]["atomics"]["persistent"]
    batched, other = both(FORK, "head_per_leaf", batch="6.12")
    assert {name: batched[name]["atomics"] for name in other} == {name: batch[name]["atomics"] for name in batch}
    assert {name: other[name]["atomics"] for name in other} == {name: loop[name]["atomics"] for name in other}


@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id", "logical_scan"])
@pytest.mark.parametrize("other", ["6.12", "6.9", "no"])
def test_the_other_reading_is_that_of_a_pass_of_its_own(scheme, other):
    """Only what may meet runs is counted again; the whole is as if all were."""
    text = FORK + "phase more\ndontneed B v 40K 4K\ncontinue A v 0 4K\nexit B\ntruncate F 0\nobserve\n"
    batched = both(text, scheme, batch=other)[1]
    alone = counted(text, scheme, batch="no" if other != "no" else "6.12")["phases"]
    assert batched or scheme == "logical_scan"
    for name, cost in batched.items():
        assert cost["atomics"] == alone[name]["atomics"] and cost["leaves"] == alone[name]["leaves"]


def test_nothing_to_batch_needs_no_other_reading():
    assert both(SMALL, "head_per_leaf")[1] == {}


def test_in_how_many_migrations_memory_stays():
    """Two pieces stay; one moves; a third that finds nothing mapped has nothing to move."""
    text = SMALL + "migrate A v 0 2M\n" * 2
    text += "dontneed A v 0 4K\nmigrate A v 0 2M\ndontneed A v 0 2M\nmigrate A v 0 2M\n"
    found = counted(text, "mm_id", every=100)
    assert found["errors"].result()["consequences"]["bytes_not_moved"] == {
        "observations": 2, "worst": 2 << 20, "last": 0}
    assert found["less_done"]["by_operation"]["migrate"]["operations"] == 2
    refused = counted(text, "logical_table", every=100)["errors"].result()["consequences"]["migrations_refused"]
    assert refused == {"observations": 3, "worst": 1, "last": 0}


def test_of_many_operations_some_are_looked_at_and_that_is_said():
    text = SMALL + "migrate A v 0 2M\n" * 3 * WATCHED
    found = counted(text, "mm_id")
    assert found["watched"] == {"migrate": {"operations": 3 * WATCHED, "looked_at": WATCHED}}
    assert found["errors"].result()["consequences"]["bytes_not_moved"]["observations"] == WATCHED
    assert counted(SMALL, "mm_id")["watched"] == {}


def test_counts_below_zero_are_events():
    """RFC v1 counts a piece behind a failed `continue` not at all, and takes it back at the zap."""
    text = "hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared minor\nsplit A v 0 2M\ncontinue A v 0 4K\n"
    text += "populate F 0 1\n" + "continue A v 0 4K\ndontneed A v 0 2M\n" * 3
    found = counted(text, "subtree_posted", every=1)["errors"].result()["own"]["counter_underflows"]
    assert found["observations"] == 3 and found["worst"] == 1 and found["last"] == 1


def test_failures_that_never_fire_are_counted():
    assert counted(SMALL + "fail 9\ncontinue A v 0 4K\nfail 1\ncontinue A v 4K 4K\n", "mm_id")["never_fired"] == 2


@pytest.mark.parametrize("scheme", NAMES)
def test_parts_cost_what_their_records_cost(scheme):
    trace = load("recording:qemu-balloon_redis_4k")
    records = trace.records[:3000]
    alone, parts, timed = (machine_for(trace, scheme, {}) for _ in range(3))
    stops = np.array([1, 2, 700, 1500, 1501, 3000])
    rows, sums = alone.run_each(records), parts.run_each(records, stops)
    timed.run(records)
    bounds = np.concatenate([[0], stops])
    for field in rows.dtype.names:
        assert sums[field].tolist() == [int(rows[field][a:b].sum()) for a, b in zip(bounds, bounds[1:])]
    for machine in (alone, parts):
        assert machine.results().tolist() == timed.results().tolist()
        assert plain(machine.observe()) == plain(timed.observe())
        assert {**machine.cost(), "struct_page_bytes": 0} == {**timed.cost(), "struct_page_bytes": 0}


@pytest.mark.parametrize("stops", [[], [1], [0, 3], [1, 1, 3], [2, 1, 3], [4], [3, 4]])
def test_parts_that_are_none(stops):
    trace = Trace.parse("hgmcore-trace 1\nfile F 2M 1\npopulate F 0 1\nobserve\n")
    machine = machine_for(trace, "mm_id", {})
    with pytest.raises(ValueError, match="stops: not ascending numbers of records of which the last is 3"):
        machine.run_each(trace.records, stops)
    assert len(machine.core.folios()) == 0

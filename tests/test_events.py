"""The counting engines: the same counts as the fast ones, and what each class of events is."""

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore import counting, recordings
from hgmcore.core.events import Events
from hgmcore.core.view import View
from hgmcore.inputs import load
from hgmcore.model.events import count_events
from hgmcore.replay import machine_for
from hgmcore.schemes import NAMES
from hgmcore.schemes import load as load_scheme

L2 = 1 << 20
CONTINUES = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm",
             *[f"continue A v {4 * i}K 4K" for i in range(512)], "munmap A v 0 2M"]
ANON = ["mmap A v anon:2M 0 2M private", "touch A v 0 write", "mprotect A v 0 4K r", "mprotect A v 0 4K rw"]


def totals(lines, scheme, *, phase=None, **options):
    counted = count_events(load(lines), scheme, L2, **options)
    return counted.events[phase] if phase else counted.total()


def row(found, *names):
    return tuple(found[name] for name in names)


@pytest.mark.parametrize("scheme, expected", [
    ("head_per_leaf", (2048, 0, 1024, 0, 1, 1)),
    ("mm_id", (4096, 3074, 1024, 0, 1, 1)),
    ("logical_counter", (1026, 512, 2, 0, 1, 1)),
])
def test_512_continues_and_an_munmap_of_a_hugetlb_page(scheme, expected):
    found = totals(CONTINUES, scheme, batch="no")
    assert row(found, "atomic", "plain", "step", "stat", "table_alloc", "table_free") == expected


@pytest.mark.parametrize("scheme, expected", [
    ("large_mapcount", (515, 0, 1, 1, 1)), ("mm_id", (515, 4, 1, 1, 1)), ("no_page_mapcount", (2, 4, 1, 1, 1)),
])
def test_munmap_of_a_folio_of_512_ptes(scheme, expected):
    found = totals([*ANON, "phase zap", "munmap A v 0 2M"], scheme, phase="zap", batch="yes")
    assert row(found, "atomic", "plain", "step", "stat", "freed") == expected
    assert row(found, "copy", "split_deferred", "table_free") == (0, 0, 0)


@pytest.mark.parametrize("scheme, batch, expected", [
    ("nr_pages_mapped", "no", (1024, 0, 512, 0)), ("mm_id", "no", (1536, 1538, 512, 0)),
    ("mm_id", "yes", (514, 5, 1, 0)), ("no_page_mapcount", "yes", (2, 5, 1, 0)),
    ("large_mapcount", "yes", (514, 0, 1, 0)),
])
def test_fork_of_a_folio_of_512_ptes(scheme, batch, expected):
    found = totals([*ANON, "phase fork", "fork A B"], scheme, phase="fork", batch=batch)
    assert row(found, "atomic", "plain", "step", "stat") == expected


@pytest.mark.parametrize("scheme", NAMES)
def test_a_small_folio_is_the_same_under_every_scheme(scheme):
    if scheme == "hugetlb":
        return
    lines = ["mmap A v anon:4K 0 4K private", "phase map", "touch A v 0 write", "phase fork", "fork A B",
             "phase child", "exit B", "phase unmap", "munmap A v 0 4K"]
    found = count_events(load(lines), scheme, L2, batch="no").events
    names = ("atomic", "plain", "step", "stat")
    assert [row(found[phase], *names) for phase in ("map", "fork", "child", "unmap")] == [
        (2, 0, 1, 1), (2, 0, 1, 0), (2, 0, 1, 0), (2, 0, 1, 1)]


@pytest.mark.parametrize("scheme, era, copies, reused", [("mm_id", "6.15", 0, 512), ("large_mapcount", "6.3", 512, 0)])
def test_reuse_behind_an_exit_depends_on_the_predicate(scheme, era, copies, reused):
    lines = [*ANON, "fork A C", "exit C", "phase write", *[f"touch A v {4 * i}K write" for i in range(512)]]
    found = totals(lines, scheme, phase="write", batch="no", era=era)
    assert found["copy"] + found["reused"] == 512
    assert abs(found["copy"] - copies) <= 1 and abs(found["reused"] - reused) <= 1


def test_a_folio_that_a_removal_leaves_mapped_in_part_is_deferred_once():
    lines = [*ANON, "phase zap", *[f"dontneed A v {4 * i}K 4K" for i in range(512)]]
    for scheme in ("mm_id", "no_page_mapcount"):
        assert totals(lines, scheme, phase="zap")["split_deferred"] == 1, scheme
    whole = [*ANON, "phase zap", "munmap A v 0 2M"]
    assert totals(whole, "mm_id", phase="zap", batch="yes")["split_deferred"] == 0
    assert totals(whole, "mm_id", phase="zap", batch="no")["split_deferred"] == 1


def two_threads(second):
    """A page that thread 1 mapped a piece of, and then thread `second` another."""
    return ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "@1 continue A v 0 4K",
            "phase then", f"@{second} continue A v 4K 4K"]


def test_a_line_that_another_cpu_wrote_last_is_moved():
    names = ("atomic", "moved_read", "moved_blind", "far")
    # the head by the look-up's reference, the word of page 1 by the map count
    assert row(totals(two_threads(2), "head_per_leaf", phase="then"), *names) == (2, 1, 1, 0)
    assert row(totals(two_threads(1), "head_per_leaf", phase="then"), *names) == (2, 0, 0, 0)
    assert row(totals(two_threads(2), "head_per_leaf", phase="then", cpus=1), *names) == (2, 0, 0, 0)
    # a reference that does not stay is taken and put back: the second time the line is here
    again = two_threads(2)
    assert row(totals(again, "logical_counter", phase="then"), *names) == (2, 1, 0, 0)


def pieces(order):
    return ["file F 1G 1", "populate F 0 1", "mmap A v F 0 1G shared minor hgm", "continue A v 0 4K", "phase then",
            *[f"continue A v {4 * i}K 4K" for i in order]]


def test_lines_in_order_are_next_and_others_are_far_beyond_the_cache():
    count, near = 4096, 1024
    order = np.arange(2, count)
    shuffled = np.random.default_rng(1).permutation(order)
    in_order = count_events(load(pieces(order)), "mm_id", near * 64).events["then"]
    # the head and page 1 come back once each time that the cache was filled anew, and break the order of the others
    assert in_order["far"] <= 4 * count // near + 1
    at_random = count_events(load(pieces(shuffled)), "mm_id", near * 64).events["then"]
    assert count * 0.5 < at_random["far"] <= count + 4 * count // near
    assert at_random["atomic"] == in_order["atomic"]
    assert count_events(load(pieces(shuffled)), "mm_id", 2 * count * 64).events["then"]["far"] == 0    # warm: all near
    assert count_events(load(pieces(shuffled)), "head_per_leaf", near * 64).events["then"]["far"] == 0


def test_locks_that_are_taken_are_atomics():
    plain, locked = (totals(CONTINUES, "head_per_leaf", batch="no", locks=locks) for locks in ("none", "pt"))
    assert locked["atomic"] == plain["atomic"] + 512


def test_a_lock_that_another_cpu_held_last_is_handed_over():
    lines = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "@1 continue A v 0 4K",
             "phase then", *[f"@{2 - i % 2} continue A v {4 * i + 4}K 4K" for i in range(6)]]
    found = {locks: totals(lines, "head_per_leaf", phase="then", locks=locks) for locks in ("none", "pt", "posted")}
    # 2 after 1, and so on: the page-table lock each time; posted: the fault mutex and the folio lock as well
    assert [each["handoffs"] for each in found.values()] == [0, 6, 18]
    assert found["pt"]["moved_blind"] == found["none"]["moved_blind"] + 6
    alone = totals(lines, "head_per_leaf", phase="then", locks="posted", cpus=1)
    assert (alone["handoffs"], alone["moved_blind"]) == (0, 0)


def test_an_update_for_a_run_of_leaves_is_batched():
    lines = [*ANON, "phase zap", "munmap A v 0 2M"]
    assert totals(lines, "mm_id", phase="zap", batch="6.12")["batched"] == 1
    assert totals(lines, "mm_id", phase="zap", batch="no")["batched"] == 0


@pytest.mark.parametrize("name", ["qemu-postcopy_redis_4k", "python_fork_pool", "qemu-balloon_redis_4k"])
def test_both_engines_count_the_same(name):
    trace = recordings.load(name)
    for scheme in NAMES:
        fast = machine_for(trace, scheme, {})
        fast.run(trace.operations)
        engine = counting.load(load_scheme(scheme))
        slow = machine_for(trace, engine, {})
        events = Events(slow.core, engine, 16384)
        rows = events.run(np.ascontiguousarray(trace.operations))
        assert slow.core.cost() == fast.core.cost(), scheme
        cost = fast.cost()
        atomics = cost["atomics"]
        if scheme != "double_map":    # its flag is changed by an atomic that nothing else counts
            executed = atomics["transient"] if fast.options["transient"] == "real" else 0
            assert int(rows["atomic"].sum()) == atomics["persistent"] + executed + cost["locks"], scheme
        assert int(rows["installs"].sum()) == cost["leaf_installs"]
        assert np.array_equal(slow.results(), fast.results())


@pytest.mark.parametrize("scheme", NAMES)
def test_both_engines_agree_where_counts_leave_their_range(scheme):
    """A page is pinned nearly up to INT_MAX, then mapped and unmapped in pieces."""
    lines = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "mmap A w F 0 2M shared minor hgm",
             f"pin F 0 {(1 << 31) - 3}", "continue A v 0 2M", "continue A w 0 2M", "dontneed A v 0 2M",
             "continue A v 0 2M", "munmap A v 0 2M", "munmap A w 0 2M"]
    trace = load(lines)
    costs = []
    for engine in (load_scheme(scheme), counting.without_atomics(scheme)):
        machine = machine_for(trace, engine, {"policy": "base_only"} if scheme != "hugetlb" else {})
        machine.run(trace.operations)
        costs.append((machine.core.cost(), machine.core.pages(0, 1).tobytes(), machine.results().tobytes()))
    counted = costs[0][0]["overflows"] > 0 or scheme in ("percpu_ref", "snzi")    # which hold one reference in all
    assert costs[0] == costs[1] and counted


def test_one_thread_alone_runs_an_engine_without_atomics():
    machine = machine_for(load(CONTINUES), "mm_id", {})
    view = View(machine.core, b"", 1, False)
    with pytest.raises(ValueError, match="engine mm_id was compiled with HGM_ALONE: one thread alone can run it"):
        view.run(counting.without_atomics("mm_id"))


def test_counts_are_the_same_again_and_whoever_counts():
    trace = recordings.load("python_fork_pool")
    first, second = (count_events(trace, "mm_id", L2) for _ in range(2))
    assert (first.events, first.kernel, first.hottest) == (second.events, second.kernel, second.hottest)


def test_an_engine_that_counts_no_events_is_refused():
    machine = hgm.Machine("mm_id")
    with pytest.raises(ValueError, match="engine mm_id was compiled without HGM_COUNTING"):
        Events(machine.core, machine.engine, 16)
    engine = counting.load(machine.engine)
    for lines, cpus in ((0, 1), (16, 0), (16, 1 << 16)):
        with pytest.raises(ValueError):
            Events(machine.core, engine, lines, cpus)

    class Foreign:
        name = "mine"

    with pytest.raises(LookupError, match="scheme mine was not compiled to count events"):
        counting.load(Foreign)


def test_the_line_that_is_written_most_is_named():
    hottest = count_events(load(CONTINUES), "head_per_leaf", L2, batch="no").hottest
    assert hottest[0] == {"page": "head of F page 0", "updates": 1024, "cpus": 1}
    assert hottest[1]["page"] == "struct page 1 of F page 0"

"""Shared PMD tables: observations of a running 6.18 kernel, and counts worked out by hand."""

import pytest

import hgmcore as hgm

START = """hgmcore-trace 1
file F 2M 512
populate F 0 2
mmap A v F 0 1G shared
mmap B v F 0 1G shared
mmap C v F 0 1G shared
"""
TOUCHED = START + "touch A v 0\ntouch A v 2M\ntouch B v 0\ntouch C v 0\n"


def last(text, scheme="hugetlb", **options):
    result = hgm.replay(hgm.Trace.parse(text + "observe\n"), scheme, **options)
    return result, result["observations"][-1]


def counts(observation):
    return [(row["refcount"], row["mapcount"], row["truth"]["leaves"], row["truth"]["processes"])
            for row in observation["folios"]]


def test_three_processes_map_a_page_once():
    result, seen = last(TOUCHED)
    assert counts(seen) == [(2, 1, 1, 3), (2, 1, 1, 3)]
    assert result["cost"]["leaf_installs"] == 2
    assert all(row["rss"] == row["shared_hugetlb"] == 4 << 20 for row in seen["mappings"])
    assert not any(row["movable"] for row in seen["folios"])


@pytest.mark.parametrize("how", ["dontneed B v 0 2M", "munmap B v 0 1G", "exit B", "register B v wp",
                                 "mprotect B v 0 2M r", "split B v 0 1G", "mremap B v 0 1G w"])
def test_one_sharer_leaves_with_its_whole_table(how):
    scheme = "head_per_leaf" if how.startswith("split") else "hugetlb"
    result, seen = last(TOUCHED + how + "\n", scheme)
    assert counts(seen) == [(2, 1, 1, 2), (2, 1, 1, 2)]
    assert result["cost"]["leaf_removes"] == 0
    assert len(result["operations"]) == 0


def test_the_last_sharer_unmaps_what_the_table_holds():
    _, seen = last(TOUCHED + "exit A\nexit B\n")
    assert counts(seen) == [(2, 1, 1, 1), (2, 1, 1, 1)]
    assert [row["shared_hugetlb"] for row in seen["mappings"]] == [0]
    result, seen = last(TOUCHED + "exit A\nexit B\nexit C\n")
    assert counts(seen) == [(1, 0, 0, 0), (1, 0, 0, 0)]
    assert result["cost"]["leaf_removes"] == 2


def test_a_hole_drops_the_table_of_all_but_one():
    _, seen = last(TOUCHED + "punch F 0 2M\n")
    assert counts(seen) == [(2, 1, 1, 1)]


@pytest.mark.parametrize("other", ["mmap D v F 0 1G shared wp", "mmap D v F 0 1G shared hgm",
                                   "mmap D v F 2M 512M shared", "mmap D v F 0 1G private"])
def test_what_never_shares(other):
    page = 1 if " 2M " in other else 0
    _, seen = last(TOUCHED + other + "\ntouch D v 0\n", "head_per_leaf")
    assert counts(seen)[page][1:] == (2, 2, 4)


def test_other_rights_do_not_share():
    _, seen = last(START + "mprotect C v 0 1G r\ntouch A v 0\ntouch A v 2M\ntouch B v 0\ntouch C v 0\n")
    assert counts(seen) == [(3, 2, 2, 3), (2, 1, 1, 2)]
    assert [row["rss"] for row in seen["mappings"]] == [4 << 20, 4 << 20, 2 << 20]


@pytest.mark.parametrize("end", ["exit B", "munmap B v 0 1G"])
def test_a_sharer_of_an_empty_table_leaves_it_to_the_others(end):
    _, seen = last(START + f"touch A v 0\ndontneed A v 0 2M\ntruncate F 0\ntouch B v 0\n{end}\npopulate F 0 2\n"
                   "mmap D w F 0 2M shared\ntouch D w 0\ntouch A v 0\ntouch A v 2M\n")
    assert counts(seen) == [(3, 2, 2, 2), (2, 1, 1, 1)]
    assert {row["process"]: row["rss"] >> 20 for row in seen["mappings"]} | {"B": 0} == {"A": 4, "B": 0, "C": 0, "D": 2}


@pytest.mark.parametrize("how, sharers", [("dontneed B v 4M 2M", 1), ("punch F 4M 2M", 1), ("migrate B v 4M 2M all", 2),
                                          ("hwpoison B v 4M", 2)])
def test_a_zap_of_nothing_drops_a_shared_table_too(how, sharers):
    """The zaps look for a shared table first; migration and memory failure come by what is mapped."""
    text = START + "touch A v 0\ntouch B v 0\npopulate F 2 1\n"
    assert counts(last(text + how + "\n")[1])[0] == (2, 1, 1, sharers)


def test_migration_leaves_a_shared_table_that_does_not_map_the_page():
    """A maps it by a table of its own."""
    text = START + "mmap D v F 0 2M shared\ntouch D v 0\ntouch A v 2M\ntouch B v 2M\nmigrate D v 0 2M all\n"
    _, seen = last(text)
    assert counts(seen) == [(2, 1, 1, 1), (2, 1, 1, 2)]


@pytest.mark.parametrize("era", ["6.2", "6.15"])
@pytest.mark.parametrize("how, moved", [("", 0), (" all", 2 << 20)])
def test_a_page_in_a_shared_table_moves_only_with_all(era, how, moved):
    """Though it is mapped once."""
    result, _ = last(TOUCHED + f"migrate B v 0 2M{how}\n", era=era, operations="all")
    assert (result["operations"]["errno"][-2], result["operations"]["done"][-2]) == (0, moved)

"""Operations on runs of base pages go through loops of their own: every border of theirs, against the reference model.

A run ends at the end of a table, of the huge page and of the range, at an entry that is not as expected, and where
records change. 511 is the last entry of a table, 512 the first of the next.
"""
import numpy as np
import pytest
from comparing import assert_same, assert_same_observation, plain, replay_in_core, replay_in_model
from model import SCHEMES

import hgmcore as hgm
from hgmcore.core import truth
from hgmcore.sizes import parse_size

K, M, G = 2**10, 2**20, 2**30
START = """
file F 2M 3
file L 1G 1
populate F 0 2
populate L 0 1
mmap A v F 0 4M shared minor hgm wp
mmap A w L 0 1G shared minor hgm wp
"""


def continues(mapping, pages, length="4K"):
    return "\n".join(f"continue A {mapping} {page * 4}K {length}" for page in pages)


CASES = {
    "a streak across tables, back and into a hole": continues(
        "w", [510, 511, 512, 513, 1023, 0, 1, 511, 512, 3, 3, 4]),
    "a streak across huge pages and beyond the mapping": continues("v", [1, 0, 511, 512, 513, 2, 1023, 1024, 5, 6]),
    "a streak that other records cut": "\n".join(
        [continues("v", [0, 1, 2]), "continue A v 10K 4K", "continue A v 16K 4K urgent", continues("v", [5, 6], "8K"),
         continues("v", [9]), continues("w", [9, 10]), continues("v", [10, 11]), "continue A v 2M 2M",
         continues("v", [12, 600])]),
    "a streak after everything was unmapped": "\n".join(
        [continues("v", range(8)), "dontneed A v 0 2M", continues("v", [5, 4, 3, 7])]),
    "one continue over some": "continue A v 4K 8K\ncontinue A v 2040K 16K\ncontinue A w 2044K 4K\n"
                              "continue A w 2040K 8K\ncontinue A w 4092K 8K\ncontinue A v 1M 4K",
    "one continue onto a leaf": continues("w", [5, 511, 1030]) + "\ncontinue A w 12K 64K\ncontinue A w 16K 4K\n"
                                "continue A w 32K 2M\ncontinue A w 4M 256K",
    "one continue over all": "continue A v 0 4M\ndontneed A v 0 2M\ncontinue A v 0 2M\ncontinue A v 0 4K",
    "unmapping nothing, one, the last, and runs with holes": "\n".join(
        [continues("v", [0, 1, 2, 7, 8, 63, 64, 65, 511, 512, 1022, 1023]), continues("w", [510, 511, 512]),
         "dontneed A v 12K 4K", "dontneed A v 4K 4K", "dontneed A v 2044K 4K", "dontneed A v 252K 8K",
         "dontneed A w 2044K 8K", "dontneed A v 0 4M", "munmap A v 0 2M", "munmap A w 0 1G"]),
    "unmapping a page that failed": "\n".join(
        [continues("v", range(60, 70)), "hwpoison A v 256K", "dontneed A v 248K 32K", continues("v", [300]),
         "munmap A v 0 4M"]),
    "a fork of runs": "\n".join(
        [continues("v", [0, 2, 3, 4, 8, 9, 10, 11, 12, 510, 511, 512, 1023]),
         continues("w", [511, 512, 1023, 1535, 1536, 1537]), "continue A w 512M 2M", "fork A B", "dontneed A v 8K 8K",
         "munmap B v 0 2M", "exit B", "exit A"]),
    "a fork of one leaf, of none and of all": "\n".join(
        ["fork A B", continues("w", [511]), "fork A C", "continue A v 4K 2044K", "continue A v 0 4K", "fork A D",
         "exit A", "exit C"]),
    "a fork whose copies go piece by piece but one": "\n".join(
        [continues("v", [0, 1, 2, 64, 65, 510, 511, 512]), continues("w", [510, 511, 512, 513, 1024, 1025]), "fork A B",
         *[f"dontneed B {mapping} {page * 4}K 4K" for mapping, pages in (
             ("v", [65, 0, 1, 510, 511, 2]), ("w", [1025, 510, 512, 513, 1024])) for page in pages]]),    # all but one
    "a fork that fails": continues("w", [0, 1, 511, 512, 513]) + "\nfail 2\nfork A B\nfail 3\nfork A C\nfork A D",
    "a collapse of runs": "\n".join(
        [continues("v", [0, 1, 2, 64, 511, 512]), continues("w", [1, 511, 512, 513, 1023, 2000]),
         "collapse A v 0 2M", "collapse A w 2M 2M", "collapse A v 2M 2M", "collapse A w 0 1G"]),
}
# Options that choose another loop, by the first words of a case.
OTHER_WAYS = {"a streak": {"transient": "counted"}, "one continue": {"policy": "base_only"},
              "unmapping": {"batch": "yes"}, "a fork": {"batch": "6.9"}, "a collapse": {"batch": "yes"}}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_runs_count_as_the_model_says(scheme, case):
    lines = CASES[case].splitlines()
    text = "\n".join([START, *lines[:len(lines) // 2], "observe", *lines[len(lines) // 2:], "observe"])
    for options in {}, next(other for words, other in OTHER_WAYS.items() if case.startswith(words)):
        expected, got = replay_in_model(text, scheme, **options), replay_in_core(text, scheme, **options)
        assert got.operations == expected.operations, options
        for seen, core in zip(expected.observations, got.observations, strict=True):
            assert_same_observation(seen, core)
        assert_same(expected.cost, got.cost, f"cost with {options}")
        assert got.counters == expected.counters, options


@pytest.mark.parametrize("geometry, size", [("arm64-4k", "2M"), ("arm64-4k", "32M"), ("arm64-16k", "32M"),
                                            ("arm64-64k", "512M"), ("x86-64", "1G")])
@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id", "logical_counter", "logical_table", "total_mapped_pages"])
def test_one_operation_over_a_run_is_one_for_each_leaf(scheme, geometry, size):
    """Base pages at once and one by one leave the same tables and counts and cost the same, with any fan-out."""
    def guest():
        machine = hgm.Machine(scheme, geometry, policy="base_only")
        process = machine.process("A")
        return process, process.mmap(machine.file("F", size, 1, populate=True), "v", minor=True, hgm=True, wp=True)

    (one_by_one, many), (at_once, few) = guest(), guest()
    base, table = many.machine.geometry.base_page, 1 << many.machine.geometry.index_bits
    pages = parse_size(size) // base
    offsets = np.arange(max(0, min(table, pages) - 70), min(table + 70, pages)) * base    # across a table's end
    first, length = int(offsets[0]), base * len(offsets)

    def assert_same():
        seen, expected = few.machine.observe(), many.machine.observe()
        assert_same_observation(plain(expected), plain(seen))
        # in a contiguous huge page every operation looks for a first leaf anew
        expected, cost = ({**m.cost(), "operations": 0, "entries_scanned": 0} for m in (many.machine, few.machine))
        assert cost == expected

    many.uffd_continue(offsets, base)
    assert few.uffd_continue(first, length) == length
    assert_same()
    one_by_one.fork("B"), at_once.fork("B")
    for offset in offsets[5:-5].tolist():
        many.dontneed(offset, base)
    few.dontneed(first + 5 * base, length - 10 * base)
    assert_same()


RUNS = ([], [0], [511], [512], [511, 512], [0, 1, 2, 4], [7, 8, 9], [62, 63, 64, 65], [126, 127, 129],
        [*range(1024)], [*range(5, 1500)], [*range(0, 600, 2)], [*range(0, 64), *range(65, 700)])


@pytest.mark.parametrize("pages", RUNS, ids=lambda pages: f"{len(pages)} from {pages[0] if pages else None}")
def test_the_recount_finds_runs_of_any_length(pages):
    machine = hgm.Machine("logical_counter")
    mapping = machine.process("A").mmap(machine.file("F", "1G", 1, populate=True), minor=True, hgm=True)
    mapping.uffd_continue(np.array(pages, np.int64) * 4096)
    runs = truth.leaves(machine.core)
    address = int(machine.core.mappings()[0, 2])
    found = [(int(run["address"] - address) // 4096 + i, int(run["pfn"]) + i)
             for run in runs for i in range(int(run["count"]))]
    assert found == [(page, page) for page in pages]
    assert (runs["size"] == 1).all() and (runs["level"] == 1).all()
    breaks = np.count_nonzero(np.diff(pages) != 1) + 1 if pages else 0
    assert len(runs) == breaks


@pytest.mark.parametrize("scheme", ["logical_scan", "mm_id"])
@pytest.mark.parametrize("batch", ["no", "yes"])
def test_fork_copies_groups_between_base_pages_as_groups(scheme, batch):
    singles = continues("v", [*range(16), *range(496, 512)])
    text = ("file F 2M 1\npopulate F 0 1\nmmap A v F 0 2M shared minor hgm wp\n"
            f"{singles}\ncontinue A v 64K 1920K\nfork A B\nobserve")
    options = {"geometry": "arm64-4k", "batch": batch}
    expected, got = replay_in_model(text, scheme, **options), replay_in_core(text, scheme, **options)
    assert_same_observation(expected.observations[0], got.observations[0])
    assert_same(expected.cost, got.cost)


def pte_table(machine, process):
    """The entries of the first page table of level 1."""
    table = machine.page_table(process)
    for _ in range(3):
        table = machine.page_table(process, int(table[table != 0][0]) >> 12)
    return table


@pytest.mark.parametrize("batch", ["no", "yes"])
def test_fork_copies_leaves_and_nothing_else(batch):
    """A base page that failed leaves a mark in the parent's table."""
    m = hgm.Machine("mm_id", batch=batch)
    parent = m.process("A")
    v = parent.mmap(m.file("F", "1G", 1, populate=True), "v", wp=True, minor=True, hgm=True)
    v.uffd_continue(np.arange(400) * 4096)
    v.hwpoison(100 * 4096)
    mine, child = pte_table(m, parent), pte_table(m, parent.fork("B"))
    assert mine[100] and not mine[100] & 0x80
    assert np.array_equal(child, np.where(mine & np.uint64(0x80), mine, 0))

"""The truth of an observation, recounted by hand for layouts with leaves of several sizes and holes.

The truth does not depend on a scheme, so every scheme that allows the layout must report the same.
"""
import pytest

import hgmcore as hgm

M = 512  # base pages in 2M
G = 512 * M
HGM = ["head_per_leaf", "nr_pages_mapped", "subtree", "logical_scan", "logical_counter"]

# A maps the whole 1G page by one leaf.  B maps [0, 4M) by two 2M leaves, then the first and last 4K of
# [4M, 6M), nothing of [6M, 8M), and [8M, 10M) by base pages but for one hole in its middle, at 9M.
MIXED = """
file L 1G 1
populate L 0 1
mmap A v L 0 1G shared
touch A v 700M
mmap B v L 0 1G shared minor hgm
continue B v 0 4M
continue B v 4M 4K
continue B v 6140K 4K
continue B v 8M 4K
continue B v 8196K 1020K
continue B v 9220K 1020K
observe
"""


@pytest.mark.parametrize("scheme", HGM)
def test_leaves_of_all_sizes_with_holes(replay, scheme):
    seen = replay(MIXED, scheme).observations[0]
    (folio,), mappings = seen["folios"], {m["process"]: m for m in seen["mappings"]}
    assert folio["truth"] == {
        "leaves": 1 + 2 + 2 + 511, "processes": 2, "mappings": 2, "pages_mapped": G,
        "page_mapcount": [(0, 2 * M + 1, 2), (2 * M + 1, 3 * M - 1, 1), (3 * M - 1, 3 * M, 2),
                          (3 * M, 4 * M, 1), (4 * M, 4 * M + 256, 2), (4 * M + 256, 4 * M + 257, 1),
                          (4 * M + 257, 5 * M, 2), (5 * M, G, 1)]}
    common = 2 * M + 2 + 511  # base pages that both map
    assert mappings["A"]["levels"] == {"pte": 0, "pmd": 0, "pud": G * 4096}
    assert mappings["B"]["levels"] == {"pte": 513 * 4096, "pmd": 2 * M * 4096, "pud": 0}
    assert mappings["A"]["rss"] == G * 4096 and mappings["B"]["rss"] == common * 4096
    assert mappings["A"]["truth"] == {"pss": (G - common / 2) * 4096, "shared": common * 4096}
    assert mappings["B"]["truth"] == {"pss": common / 2 * 4096, "shared": common * 4096}


@pytest.mark.parametrize("scheme", HGM)
def test_one_process_maps_a_page_twice(replay, scheme):
    """Two mappings of one process are two mappings of a page, but of one process."""
    seen = replay("""
        file F 2M 2
        populate F 0 2
        mmap A v F 0 2M shared minor hgm
        mmap A w F 0 2M shared minor hgm
        mmap B v F 0 4M shared minor hgm
        continue A v 0 16K
        continue A w 8K 16K
        continue B v 2044K 8K
        observe
    """, scheme).observations[0]
    first, second = seen["folios"]
    assert first["truth"] == {
        "leaves": 9, "processes": 2, "mappings": 3, "pages_mapped": 7,
        "page_mapcount": [(0, 2, 1), (2, 4, 2), (4, 6, 1), (6, 511, 0), (511, 512, 1)]}
    assert second["truth"] == {
        "leaves": 1, "processes": 1, "mappings": 1, "pages_mapped": 1,
        "page_mapcount": [(0, 1, 1), (1, 512, 0)]}
    truth = {(m["process"], m["mapping"]): m["truth"] for m in seen["mappings"]}
    assert truth["A", "v"] == truth["A", "w"] == {"pss": (2 + 2 / 2) * 4096, "shared": 2 * 4096}
    assert truth["B", "v"] == {"pss": 2 * 4096, "shared": 0}


@pytest.mark.parametrize("scheme", ["hugetlb", *HGM])
def test_whole_pages_come_and_go(replay, scheme):
    """Three huge pages of a file, mapped at another offset by a second process and in part unmapped again."""
    before, after = replay("""
        file F 2M 3
        mmap A v F 0 6M shared
        mmap B v F 2M 4M shared
        touch A v 0
        touch A v 3M
        touch A v 5M
        touch B v 0
        touch B v 3M
        observe
        munmap A v 2M 2M
        exit B
        observe
    """, scheme).observations

    def leaves(seen):
        return {folio["page"]: folio["truth"]["leaves"] for folio in seen["folios"]}

    assert leaves(before) == {0: 1, 1: 2, 2: 2} and leaves(after) == {0: 1, 1: 0, 2: 1}
    assert [m["truth"]["shared"] // 4096 for m in before["mappings"]] == [2 * M, 2 * M]
    (left,) = after["mappings"]
    assert left["process"] == "A" and left["rss"] == 2 * M * 4096
    assert left["truth"] == {"pss": 2 * M * 4096, "shared": 0}


@pytest.mark.parametrize("scheme", HGM)
def test_collapse_fills_holes(replay, scheme):
    before, after = replay("""
        file L 1G 1
        populate L 0 1
        mmap A v L 0 1G shared minor hgm
        continue A v 0 4K
        continue A v 2044K 8K
        continue A v 1022M 2M
        observe
        collapse A v 0 4M
        observe
    """, scheme).observations
    assert before["folios"][0]["truth"] == {
        "leaves": 4, "processes": 1, "mappings": 1, "pages_mapped": 3 + M,
        "page_mapcount": [(0, 1, 1), (1, M - 1, 0), (M - 1, M + 1, 1), (M + 1, 511 * M, 0), (511 * M, G, 1)]}
    assert after["folios"][0]["truth"] == {
        "leaves": 3, "processes": 1, "mappings": 1, "pages_mapped": 3 * M,
        "page_mapcount": [(0, 2 * M, 1), (2 * M, 511 * M, 0), (511 * M, G, 1)]}


def test_what_an_observation_shares_with_the_next_nobody_changes():
    machine = hgm.Machine("head_per_leaf")
    file = machine.file("F", page_size="2M", pages=2, populate=True)
    mapping = machine.process("A").mmap(file, "v", minor=True, hgm=True)
    mapping.uffd_continue(0, "4K")
    first = machine.observe()["folios"][0]
    for runs in (first["truth"]["page_mapcount"], first["page_mapcount"]):
        with pytest.raises(ValueError, match="read-only"):
            runs[:] = 7
    mapping.uffd_continue("4K", "4K")
    assert first["truth"]["page_mapcount"].tolist() == [[0, 1, 1], [1, 512, 0]]
    assert machine.observe()["folios"][0]["truth"]["page_mapcount"].tolist() == [[0, 2, 1], [2, 512, 0]]

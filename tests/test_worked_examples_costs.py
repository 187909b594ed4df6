"""The atomics and struct pages that operations cost, scheme by scheme."""
import pytest
from comparing import replay_in_core, replay_in_model
from worked import EACH_PIECE, FORKED, GIGABYTE, LOGICAL, PIECES, N, cells


def added_cost(replay, scheme, setup, action, **options):
    """(persistent atomics, transient atomics) of the action, and the distinct lines of it and its setup."""
    before, after = (replay(text.replace(";", "\n"), scheme, **options).cost
                     for text in (setup, setup + ";" + action))
    added = {kind: after["atomics"][kind] - before["atomics"][kind] for kind in after["atomics"]}
    return added["persistent"], added["transient"], after["lines"]


# Persistent atomics, transient atomics, and distinct lines including those of the setup, worked out by hand: of a
# piece that is not the first (pages 9, then 5), of all 512 pieces, of their fork; and of the fork with batch.
COSTS = f"""
head_per_leaf                       | 2 0 2 | 1024 0 2   | 1024 0 2   | 2 0 2
per_page_posted                     | 2 0 3 | 1024 0 512 | 1024 0 512 | 513 0 512
nr_pages_mapped                     | 3 0 4 | 1536 0 512 | 1024 0 512 | 513 0 512
subtree subtree_posted              | 1 0 2 | 513 0 2    | 513 0 2    | 2 0 2
{LOGICAL} logical_table             | 0 2 2 | 2 1022 2   | 2 0 2      | 2 0 2
double_map                          | 2 0 3 | 1024 0 512 | 1024 0 512 | 513 0 512
large_mapcount mm_id                | 4 0 4 | 2048 0 512 | 1536 0 512 | 514 0 512
no_page_mapcount pmd_pud_mapcount total_mapped_pages | 2 0 2 | 1024 0 2   | 1024 0 2   | 2 0 2
rmap_id                             | 10 0 5 | 5120 0 512 | 4608 0 512 | 520 0 512
percpu_counter                      | 1 0 2 | 512 0 2    | 512 0 2    | 1 0 2
sloppy_counter                      | 2 0 2 | 1024 0 2   | 1024 0 2   | 2 0 2
percpu_ref                          | 0 2 2 | 1 1022 2   | 0 0 2      | 0 0 2
snzi                                | 1 2 3 | 514 1022 3 | 514 0 4    | 3 0 4
leaf_and_vma                        | 2 0 2 | 1025 0 2   | 1025 0 2   | 3 0 2
per_vma                             | 1 0 2 | 513 0 2    | 513 0 2    | 2 0 2
"""


@pytest.mark.parametrize("scheme, row", [(s, row) for schemes, *row in cells(COSTS) for s in schemes.split()])
def test_costs(replay, scheme, row):
    steps = [(PIECES + "; continue A v 36K 4K", "continue A v 20K 4K", {}), (PIECES, EACH_PIECE, {})]
    whole = f"{FORKED}; continue A v 0 4K; continue A v 4K 2044K"
    steps += [(whole, "fork A C", {}), (whole, "fork A C", {"batch": "yes"})]
    for (setup, action, options), cost in zip(steps, row, strict=True):
        expected = tuple(map(int, cost.split()))
        assert added_cost(replay, scheme, setup, action, **options) == expected, action[:40]


# Lasting atomics of an munmap, and of a fork, of n = 512 leaves as kernels before 6.9 (batch=no), 6.9 and 6.12 do them.
# A fork's copies are second mappings of their pages, so _nr_pages_mapped does not change.
READINGS = """
nr_pages_mapped                     | 1536 1025 514 | 1024 513 513
large_mapcount mm_id                | 2048 1026 515 | 1536 514 514
no_page_mapcount pmd_pud_mapcount total_mapped_pages | 1024 2 2      | 1024 2 2
head_per_leaf                       | 1024 2 2      | 1024 2 2
rmap_id                             | 5120 1032 521 | 4608 520 520
percpu_counter                      | 512 1 1       | 512 1 1
sloppy_counter                      | 112 2 2       | 1024 2 2
percpu_ref                          | 0 0 0         | 0 0 0
snzi                                | 514 3 3       | 514 3 3
"""


@pytest.mark.parametrize("scheme, row", [(s, row) for schemes, *row in cells(READINGS) for s in schemes.split()])
@pytest.mark.parametrize("reading, batch", list(enumerate(("no", "6.9", "6.12"))))
def test_fork_and_zap_in_three_readings(replay, scheme, row, reading, batch):
    whole = f"{FORKED}; continue A v 0 4K; continue A v 4K 2044K"
    for action, costs in zip(("munmap A v 0 2M", "fork A C"), row, strict=True):
        cost = added_cost(replay, scheme, whole, action, batch=batch)
        assert cost[0] == int(costs.split()[reading]), action
    assert added_cost(replay, scheme, whole, "fork A C", batch="yes") == added_cost(
        replay, scheme, whole, "fork A C", batch="6.12")


def test_cost_of_classic_map_and_unmap(replay):
    setup = "file F 2M 1; populate F 0 1; mmap A v F 0 2M shared"
    assert added_cost(replay, "hugetlb", setup, "touch A v 0") == (2, 0, 2)
    assert added_cost(replay, "hugetlb", setup + "; touch A v 0", "munmap A v 0 2M") == (2, 0, 2)
    assert added_cost(replay, "hugetlb", setup, "touch A v 0", era="6.15") == (3, 0, 2)


FULL_GIGABYTE = GIGABYTE + ";" + ";".join(
    f"continue A v {2 * i}M 4K; continue A v {2048 * i + 4}K 2044K" for i in range(512))
EACH_2M = ";".join(f"collapse A v {2 * i}M 2M" for i in range(512))


# (ref, map) atomics of the collapse from 4K leaves.  A scheme with per-page counts makes a second atomic for
# each page, on the number of pages mapped: 262145 and 786433 of the map atomics are those of the counts.
COLLAPSES = [
    ("head_per_leaf", (262145, 262145), (263169, 263169)),
    ("per_page_posted", (262145, 262145), (263169, 786433)),
    ("total_mapped_pages", (262145, 262145), (263169, 263169)),
    ("nr_pages_mapped", (262145, 2 * 262145), (263169, 2 * 786433)),
    ("subtree", (262145, 0), (263169, 0)),
    ("logical_scan", (0, 0), (0, 0)),
    ("logical_table", (0, 0), (0, 0)),
    ("logical_counter", (0, 0), (0, 0)),
    ("special_bit", (0, 0), (0, 0)),
    ("per_vma", (262145, 0), (263169, 0)),
]


@pytest.mark.parametrize("run, scheme, direct, via_2m", [
    (replay_in_model, *COLLAPSES[0]), *((replay_in_core, *collapse) for collapse in COLLAPSES)])
def test_collapse_of_a_gigabyte(run, scheme, direct, via_2m):
    def costs(text):
        cost = run(text.replace(";", "\n"), scheme).cost
        return cost["atomics"]["ref"], cost["atomics"]["map"], cost["leaf_installs"], cost["leaf_removes"]

    before = costs(FULL_GIGABYTE)
    for action, atomics, steps in (("collapse A v 0 1G", direct, 0),
                                   (EACH_2M + "; collapse A v 0 1G", via_2m, 512)):
        after = costs(FULL_GIGABYTE + ";" + action)
        change = tuple(b - a for a, b in zip(before, after))
        assert change == (*atomics, steps + 1, steps + N * N)


# Entries read by a scan, in ascending order, depth first, up to and including the entry that ends it: 512 PMDs, and
# 512 in a table of PTEs. The pieces of the 1G page are piece 5 of 2M number 3 and piece 2 of 2M number 1.
ONE, OTHER = f"continue A v {3 * 2048 + 5 * 4}K 4K", f"continue A v {2048 + 2 * 4}K 4K"
SCANS = [
    ("logical_scan per_vma leaf_and_vma", [
        (PIECES, "continue A v 2044K 4K", 0),                             # no table before: nothing to look for
        (PIECES + "; continue A v 2044K 4K", "continue A v 0 4K", 512),
        (PIECES + "; continue A v 8K 4K", "continue A v 2044K 4K", 3),
        (PIECES + "; continue A v 2044K 4K", "dontneed A v 2044K 4K", 512),
        (PIECES + "; continue A v 0 12K", "dontneed A v 0 8K", 3),        # once for both pieces
        (GIGABYTE + f"; {ONE}", ONE.replace("continue", "dontneed"), 512 + 512),
        (GIGABYTE + f"; {ONE}; {OTHER}", ONE.replace("continue", "dontneed"), 2 + 3),
        (GIGABYTE + f"; {ONE}", "collapse A v 6M 2M", 0)]),
    ("special_bit", [
        (PIECES + "; continue A v 2044K 4K", "continue A v 0 4K", 0),
        (PIECES + "; continue A v 2044K 4K", "dontneed A v 2044K 4K", 512)]),
    ("logical_scan special_bit leaf_and_vma", [(PIECES + "; continue A v 0 8K", "dontneed A v 0 2M", 0)]),
    ("per_vma", [(PIECES + "; continue A v 0 8K", "dontneed A v 0 2M", 512),
                 (PIECES + "; touch B v 0", "dontneed B v 0 2M", 0)]),
    ("logical_counter logical_table subtree head_per_leaf", [
        (PIECES + "; continue A v 2044K 4K", "continue A v 0 4K; dontneed A v 0 4K; dontneed A v 2044K 4K", 0)]),
]


@pytest.mark.parametrize("scheme, setup, action, scanned", [
    (scheme, *case) for schemes, cases in SCANS for scheme in schemes.split() for case in cases])
def test_entries_scanned(replay, scheme, setup, action, scanned):
    before, after = (replay(text.replace(";", "\n"), scheme).cost["entries_scanned"]
                     for text in (setup, setup + ";" + action))
    assert after - before == scanned

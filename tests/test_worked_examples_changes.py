"""What one operation changes, and what it leaves of a page, scheme by scheme."""
import re

import pytest
from worked import ALL, GIGABYTE, HGM, LARGE, LOGICAL, PER_LEAF, PIECES, SUBPAGES, cells

FOUR = PIECES + "; continue A v 0 4K; continue A v 28K 4K; continue A v 36K 4K; continue A v 2044K 4K"
WHOLE_OTHER = "file F 2M 1; populate F 0 1; mmap B v F 0 2M shared hgm; touch B v 0"
SETUPS = {
    "first piece": (PIECES, "continue A v 28K 4K"),
    "another piece": (PIECES + "; continue A v 0 4K", "continue A v 28K 4K"),
    "whole": (PIECES, "touch B v 28K"),
    "not last": (FOUR, "dontneed A v 28K 4K"),
    "last alone": (PIECES + "; continue A v 28K 4K", "dontneed A v 28K 4K"),
    "full zap": (FOUR, "dontneed A v 0 2M"),
    "munmap after": (FOUR + "; dontneed A v 0 2M", "munmap A v 0 2M"),
    "fork": (FOUR + "; register A v minor wp", "fork A C"),
    "present": (FOUR, "continue A v 28K 4K"),
    "half-way": (GIGABYTE + "; fail 2", "continue A v 0 4K"),
    "split": (FOUR, "split A v 0 2M"),
    "collapse": (FOUR, "collapse A v 0 2M"),
    "some of them": (FOUR, "dontneed A v 0 32K"),
    "hwpoison": (WHOLE_OTHER, "hwpoison B v 28K"),
}

# Changes that one operation makes to references (ref), count words, the sum of all subpage counts (sub) and the
# number of pages mapped (nr; F is its flag for a whole mapping), worked out by hand.
MATRIX = """
operation     | head_per_leaf        | per_page_posted      | nr_pages_mapped
first piece   | ref+1 compound+1     | ref+1 sub+1          | ref+1 sub+1 nr+1
another piece | ref+1 compound+1     | ref+1 sub+1          | ref+1 sub+1 nr+1
whole         | ref+1 compound+1     | ref+1 entire+1       | ref+1 entire+1 nr+F
not last      | ref-1 compound-1     | ref-1 sub-1          | ref-1 sub-1 nr-1
last alone    | ref-1 compound-1     | ref-1 sub-1          | ref-1 sub-1 nr-1
full zap      | ref-4 compound-4     | ref-4 sub-4          | ref-4 sub-4 nr-4
munmap after  |                      |                      |
fork          | ref+4 compound+4     | ref+4 sub+4          | ref+4 sub+4
present       |                      |                      |
half-way      |                      |                      |
split         |                      |                      |
collapse      | ref-3 compound-3     | ref-3 sub-4 entire+1 | ref-3 sub-4 nr-4 nr+F entire+1
some of them  | ref-2 compound-2     | ref-2 sub-2          | ref-2 sub-2 nr-2
hwpoison      | ref+511 compound+510 | entire-1             | ref+511 entire-1 sub+511 nr-F nr+511

operation     | subtree
first piece   | ref+1 compound+1
another piece | ref+1
whole         | ref+1 compound+1
not last      | ref-1
last alone    | ref-1
full zap      | ref-4 compound-1
munmap after  |
fork          | ref+4 compound+1
present       |
half-way      | compound+1
split         |
collapse      | ref-3
some of them  | ref-2
hwpoison      | ref+511

operation     | logical_scan logical_counter special_bit | logical_table
first piece   | ref+1 compound+1                         | ref+1 compound+1
another piece |                                          |
whole         | ref+1 compound+1                         | ref+1 compound+1
not last      |                                          |
last alone    | ref-1 compound-1                         |
full zap      | ref-1 compound-1                         |
munmap after  |                                          | ref-1 compound-1
fork          | ref+1 compound+1                         | ref+1 compound+1
present       |                                          |
half-way      |                                          | ref+1 compound+1
split         |                                          |
collapse      |                                          |
some of them  |                                          |
hwpoison      | ref+1                                    | ref+1

operation     | double_map                            | large_mapcount rmap_id mm_id
first piece   | ref+1 sub+1 double_map+1              | ref+1 sub+1 nr+1 large+1
another piece | ref+1 sub+1                           | ref+1 sub+1 nr+1 large+1
whole         | ref+1 sub+512 compound+1              | ref+1 entire+1 nr+F large+1
not last      | ref-1 sub-1                           | ref-1 sub-1 nr-1 large-1
last alone    | ref-1 sub-1                           | ref-1 sub-1 nr-1 large-1
full zap      | ref-4 sub-4                           | ref-4 sub-4 nr-4 large-4
munmap after  |                                       |
fork          | ref+4 sub+4                           | ref+4 sub+4 large+4
present       |                                       |
half-way      |                                       |
split         |                                       |
collapse      | ref-3 sub+508 compound+1 double_map-1 | ref-3 sub-4 nr-4 nr+F entire+1 large-3
some of them  | ref-2 sub-2                           | ref-2 sub-2 nr-2 large-2
hwpoison      | ref+511 sub-1 compound-1 double_map+1 | ref+511 entire-1 sub+511 nr-F nr+511 large+510

operation     | no_page_mapcount           | total_mapped_pages
first piece   | ref+1 large+1              | ref+1 entries+1 total_pages+1
another piece | ref+1 large+1              | ref+1 entries+1 total_pages+1
whole         | ref+1 large+1 entire+1     | ref+1 entries+1 total_pages+512
not last      | ref-1 large-1              | ref-1 entries-1 total_pages-1
last alone    | ref-1 large-1              | ref-1 entries-1 total_pages-1
full zap      | ref-4 large-4              | ref-4 entries-4 total_pages-4
munmap after  |                            |
fork          | ref+4 large+4              | ref+4 entries+4 total_pages+4
present       |                            |
half-way      |                            |
split         |                            |
collapse      | ref-3 large-3 entire+1     | ref-3 entries-3 total_pages+508
some of them  | ref-2 large-2              | ref-2 entries-2 total_pages-2
hwpoison      | ref+511 entire-1 large+510 | ref+511 entries+510 total_pages-1

operation     | pmd_pud_mapcount
first piece   | ref+1 large+1
another piece | ref+1 large+1
whole         | ref+1 large+1 pmd+1
not last      | ref-1 large-1
last alone    | ref-1 large-1
full zap      | ref-4 large-4
munmap after  |
fork          | ref+4 large+4
present       |
half-way      |
split         |
collapse      | ref-3 large-3 pmd+1
some of them  | ref-2 large-2
hwpoison      | ref+511 pmd-1 large+510

operation     | leaf_and_vma                 | per_vma          | subtree_posted
first piece   | ref+1 compound+1 vma_count+1 | ref+1 compound+1 | ref+1 compound+1
another piece | ref+1 compound+1             | ref+1            | ref+1
whole         | ref+1 compound+1 vma_count+1 | ref+1 compound+1 | ref+1 compound+1
not last      | ref-1 compound-1             | ref-1            | ref-1
last alone    | ref-1 compound-1 vma_count-1 | ref-1 compound-1 | ref-1
full zap      | ref-4 compound-4 vma_count-1 | ref-4 compound-1 | ref-4 compound-1
munmap after  |                              |                  |
fork          | ref+4 compound+4 vma_count+1 | ref+4 compound+1 | ref+4 compound+1
present       |                              |                  |
half-way      |                              |                  |
split         |                              |                  |
collapse      | ref-3 compound-3             | ref-3            |
some of them  | ref-2 compound-2             | ref-2            | ref-2
hwpoison      | ref+511 compound+510         | ref+511          | ref+511
"""


def matrix():
    for part in MATRIX.strip().split("\n\n"):
        (_, *columns), *rows = cells(part)
        for operation, *changes in rows:
            for schemes, change in zip(columns, changes, strict=True):
                yield from ((operation, scheme, change) for scheme in schemes.split())


def words(folio):
    """The numbers of a folio that an operation may change."""
    numbers = {name: int(value, 16) if isinstance(value, str) else int(value)
               for name, value in folio["state"].items() if name not in ("slots", "shared_bit")}
    pages = sum((last - first) * count for first, last, count in folio["page_mapcount"])
    per_page = {"nr_pages_mapped", "double_map"} & numbers.keys() or numbers.keys() == {"entire"}
    whole = 0 if "double_map" in numbers else numbers.get("entire", 0)
    if per_page:
        numbers["sub"] = pages - whole * folio["truth"]["page_mapcount"][-1][1]
    numbers["nr"] = numbers.pop("nr_pages_mapped", 0)
    return {"ref": folio["refcount"], **numbers}


@pytest.mark.parametrize("operation, scheme, change", list(matrix()))
def test_change(replay, operation, scheme, change):
    setup, statement = SETUPS[operation]
    first, *rest = setup.replace("; fail", "; observe; fail").split("; observe")
    text = [first, "observe", *rest, statement, "observe"]
    ran = replay("\n".join(text).replace(";", "\n"), scheme)
    before, after = (words(seen["folios"][0]) for seen in ran.observations)
    expected = dict.fromkeys(before, 0)
    for word in change.split():
        name, value = re.split("(?=[+-])", word)
        expected[name] += int(value.replace("F", str(0x800000)))
    assert {name: after[name] - before[name] for name in before} == expected


# Of an operation: what it returns, references and map count of the page after it; none: the page was freed.
ENDS = f"""
operation | schemes                      | result     | ref and mapcount
punch     | {PER_LEAF} {LOGICAL}         | 2097152    |
punch     | logical_table                | 2097152    | 1 1
truncate  | {PER_LEAF} {LOGICAL}         | 0          |
truncate  | logical_table                | 0          | 1 1
migrate   | head_per_leaf                | 2097152    | 5 4
migrate   | {SUBPAGES} {LARGE} double_map | 2097152   | 5 4
migrate   | leaf_and_vma                 | 2097152    | 5 4
migrate   | per_page_posted              | 2097152    | 5 0
migrate   | per_vma subtree_posted       | 2097152    | 5 1
migrate   | subtree                      | EAGAIN     | 5 1
migrate   | {LOGICAL}                    | 2097152    | 2 1
migrate   | logical_table                | EAGAIN     | 2 1
pinned    | {HGM}                        | EAGAIN     | -
"""
END_STATEMENTS = {"punch": "punch F 0 2M", "truncate": "truncate F 0", "migrate": "migrate A v 0 2M all",
                  "pinned": "pin F 0 1; migrate A v 0 2M all"}


@pytest.mark.parametrize("operation, scheme, result, counts", [
    (operation, scheme, *values) for operation, schemes, *values in cells(ENDS)[1:]
    for scheme in schemes.split()])
def test_end_of_a_page(replay, operation, scheme, result, counts):
    ran = replay(f"{FOUR}; {END_STATEMENTS[operation]}; observe".replace(";", "\n"), scheme)
    error, done, _ = ran.operations[-2]
    assert (error or str(done)) == result
    folios = [f"{folio['refcount']} {folio['mapcount']}" for folio in ran.observations[0]["folios"]]
    assert counts == "-" or folios == ([counts] if counts else [])


@pytest.mark.parametrize("operation, result, counts", [
    ("punch", "2097152", ""), ("truncate", "0", ""), ("migrate", "2097152", "2 1")])
def test_rmap_aware(replay, operation, result, counts):
    text = f"{FOUR}; {END_STATEMENTS[operation]}; observe".replace(";", "\n")
    ran = replay(text, "logical_table", rmap_aware="yes")
    error, done, _ = ran.operations[-2]
    assert (error or str(done)) == result
    folios = [f"{folio['refcount']} {folio['mapcount']}" for folio in ran.observations[0]["folios"]]
    assert folios == ([counts] if counts else [])


@pytest.mark.parametrize("scheme", ALL.split())
def test_memory_failure_takes_a_private_page_whole(replay, scheme):
    text = "file F 2M 1; populate F 0 1; mmap A v F 0 2M private; touch A v 0; hwpoison A v 28K; observe"
    ran = replay(text.replace(";", "\n"), scheme)
    (folio,) = ran.observations[0]["folios"]
    assert (folio["refcount"], folio["mapcount"], folio["truth"]["leaves"]) == (2, 0, 0)


def test_truncate_to_the_same_size_unmaps_what_is_behind_the_end(replay):
    """A CONTINUE behind the end left a table; truncate holds no mmap_lock, so it frees none."""
    text = "file F 2M 1; mmap A v F 0 2M shared minor hgm; truncate F 0; continue A v 0 4K; truncate F 0"
    ran = replay(text.replace(";", "\n"), "subtree", lookup_first="no")
    assert [error for error, _, _ in ran.operations] == [None, None, None, "EFAULT", None]
    assert (ran.cost["table_allocs"], ran.cost["table_frees"]) == (1, 0)

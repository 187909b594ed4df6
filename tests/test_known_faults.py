"""The known faults of schemes appear exactly as their files describe them (worked.py says how to read the tables)."""
import pytest
from worked import FORKED, PIECES, check, steps_table

ABSENT = "file F 2M 1; mmap A v F 0 2M shared minor hgm"

# The four ways in which RFC v1 loses count
SUBTREE_POSTED = [
    *steps_table("failed-continue-left-tables", "subtree_posted", ABSENT, """
step                             | result  | ref | mapcount
continue A v 0 4K; populate F 0 1 | 2097152 | 1   | 0
continue A v 0 4K                | 4096    | 2   | 0
dontneed A v 0 2M                | 2097152 | 1   | -1
"""),
    *steps_table("base-page-0-never-mapped", "subtree_posted", PIECES, """
step              | result  | ref | mapcount
continue A v 4K 4K | 4096    | 2   | 1
dontneed A v 0 2M | 2097152 | 1   | 1
exit A            | 0       | 1   | 1
"""),
    *steps_table("fork-without-base-page-0", "subtree_posted", FORKED, """
step               | result | ref | mapcount
continue A v 4K 8K | 8192   | 3   | 1
fork A C           | 0      | 5   | 1
dontneed A v 0 2M  | 2097152 | 3  | 1
"""),
    *steps_table("zap-left-tables", "subtree_posted", PIECES, """
step              | result  | ref | mapcount
continue A v 0 4K | 4096    | 2   | 1
dontneed A v 0 2M | 2097152 | 1   | 0
continue A v 0 4K | 4096    | 2   | 0
dontneed A v 0 2M | 2097152 | 1   | -1
"""),
    *steps_table("zap-in-parts", "subtree_posted", PIECES, """
step              | result  | ref | mapcount
continue A v 0 8K | 8192    | 3   | 1
dontneed A v 0 1M | 1048576 | 1   | 1
dontneed A v 1M 1M | 1048576 | 1  | 1
"""),
    *steps_table("collapse-does-nothing", "subtree_posted", PIECES, """
step              | result  | ref | mapcount | levels A v
continue A v 0 8K | 8192    | 3   | 1        | pte 8K
collapse A v 0 2M | 2097152 | 3   | 1        | pte 8K
"""),
]

# The repaired rule, where a zap leaves tables behind, or a CONTINUE that came before the page was there
SUBTREE = [
    *steps_table("zap-leaves-tables", "subtree", PIECES, """
step                           | result  | ref | mapcount
continue A v 0 4K              | 4096    | 2   | 1
dontneed A v 0 2M              | 2097152 | 1   | 0
continue A v 4K 4K             | 4096    | 2   | 0
dontneed A v 0 2M              | 2097152 | 1   | -1
continue A v 0 4K; exit A      | 0       | 1   | -2
""", zap_frees_tables="no"),
    *steps_table("punch-uncounts", "subtree", PIECES + "; pin F 0 1", """
step              | result  | ref | mapcount
continue A v 0 4K | 4096    | 3   | 1
punch F 0 2M      | 2097152 | 1   | 0
""", zap_frees_tables="no"),
    *steps_table("punch-leaves-tables", "subtree", PIECES, """
step                               | result  | ref | mapcount
continue A v 0 4K                  | 4096    | 2   | 1
punch F 0 2M; populate F 0 1       | 2097152 | 1   | 0
continue A v 0 4K                  | 4096    | 2   | 0
punch F 0 2M; populate F 0 1       | 2097152 | 1   | 0
"""),
    *steps_table("posted-order", "subtree", ABSENT, """
step                             | result  | ref | mapcount
continue A v 0 4K; populate F 0 1 | 2097152 | 1   | 0
continue A v 0 4K                | 4096    | 2   | 0
dontneed A v 0 2M                | 2097152 | 1   | -1
""", lookup_first="no"),
    *steps_table("last-piece-alone", "subtree", PIECES, """
step              | result  | ref | mapcount
continue A v 0 4K | 4096    | 2   | 1
dontneed A v 0 4K | 4096    | 1   | 1
munmap A v 0 2M   | 2097152 | 1   | 0
"""),
]

LOGICAL_TABLE = [
    *steps_table("truncated-page-held", "logical_table", PIECES + "; pin F 0 1", """
step                | result  | ref | mapcount
continue A v 0 4K   | 4096    | 3   | 1
truncate F 0        | 0       | 2   | 1
exit A              | 0       | 1   | 0
"""),
    *steps_table("truncate-takes-the-count-along", "logical_table", PIECES + "; pin F 0 1", """
step                | result  | ref | mapcount
continue A v 0 4K   | 4096    | 3   | 1
truncate F 0        | 0       | 1   | 0
exit A              | 0       | 1   | 0
""", rmap_aware="yes"),
    *steps_table("zap-in-halves", "logical_table", PIECES, """
step               | result  | ref | mapcount
continue A v 0 8K  | 8192    | 2   | 1
dontneed A v 0 1M  | 1048576 | 2   | 1
dontneed A v 1M 1M | 1048576 | 2   | 1
munmap A v 0 2M    | 2097152 | 1   | 0
"""),
]

PER_PAGE_POSTED = [
    *steps_table("pieces-are-invisible", "per_page_posted", PIECES, """
step               | result | ref | mapcount | mapped | pm 1 | movable
continue A v 4K 4K | 4096   | 2   | 0        | no     | 1    | no
"""),
    *steps_table("fork-of-nothing", "per_page_posted", FORKED, """
step               | result | ref | pm 1
fork A C           | 0      | 1   | 0
""", model="posted"),
]

EXAMPLES = [*SUBTREE_POSTED, *SUBTREE, *LOGICAL_TABLE, *PER_PAGE_POSTED]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.name}-{example.scheme}")
def test_fault(replay, example):
    check(replay, example, "1")

"""Every fault of a scheme that discussions of HGM described: a search finds it unaided, a scheme without it is proved.

Scopes have few families of operations, so that the shortest trace is that of the fault and of no other.
"""

import pytest

from hgmcore.explore.check import Checked
from hgmcore.explore.properties import PROPERTIES
from hgmcore.explore.scopes import change, find, parse

ONE = "geometry=tiny-4 processes=1 populated=yes"
TWO = "geometry=tiny-2 processes=2 populated=yes"
FORKED = "geometry=tiny-2 processes=2 born=1 flags=minor,wp,hgm populated=yes"
LEVEL = "geometry=tiny-2x2 processes=1 populated=yes"

# Of each fault: the scheme, its options, the scope, the property, the trace; a scheme that does not have it.
FAULTS = {
    "base page 0 alone says that an RFC v1 subtree is counted: its tables stay when the page is absent": (
        "subtree_posted", {}, "geometry=tiny-4 processes=1 ops=touch,continue,punch", "no_underflow",
        ["continue A v 0 4K", "touch A v 0", "punch F 0 16K"], "subtree"),
    "RFC v1 never takes back the count of a subtree without base page 0": (
        "subtree_posted", {}, f"{ONE} ops=continue,exit", "leaf_if_mapped",
        ["continue A v 4K 4K", "exit A"], "logical_scan"),
    "RFC v1 does not count the child of a fork without base page 0": (
        "subtree_posted", {}, f"{FORKED} ops=continue,fork", "never_false_exclusive",
        ["continue A v 4K 4K", "fork A B"], "subtree"),
    "RFC v1 leaves tables behind a full zap, and does not count what comes next": (
        "subtree_posted", {}, f"{ONE} ops=continue,dontneed", "mapped_if_leaf",
        ["continue A v 0 4K", "dontneed A v 0 16K", "continue A v 0 4K"], "subtree"),
    "one process with two pieces seems to be several where each leaf counts": (
        "head_per_leaf", {}, f"{ONE} ops=continue", "never_false_shared",
        ["continue A v 0 4K", "continue A v 4K 4K"], "logical_scan"),
    "such a page is not moved": (
        "head_per_leaf", {}, f"{ONE} ops=continue,migrate", "moved_when_private",
        ["continue A v 0 4K", "continue A v 4K 4K", "migrate A v 0 16K"], "logical_scan"),
    "HGM v2 denies that a page is mapped that is mapped in pieces": (
        "per_page_posted", {}, f"{ONE} ops=continue", "mapped_if_leaf", ["continue A v 0 4K"], "nr_pages_mapped"),
    "era 6.3 asks base page 0 alone, and does not move what is mapped elsewhere": (
        "nr_pages_mapped", {"era": "6.3"}, f"{ONE} ops=continue,migrate", "moved_when_private",
        ["continue A v 4K 4K", "migrate A v 0 16K"], "logical_scan"),
    "a leaf between is one reference and many counts": (
        "nr_pages_mapped", {}, f"{LEVEL} ops=continue", "refs_explained", ["continue A v 0 8K"], "head_per_leaf"),
    "the same with PageDoubleMap": (
        "double_map", {}, f"{LEVEL} ops=continue", "refs_explained", ["continue A v 0 8K"], "head_per_leaf"),
    "references of pieces and the count of a subtree are not in step": (
        "subtree", {}, f"{ONE} ops=continue", "refs_explained",
        ["continue A v 0 4K", "continue A v 4K 4K"], "logical_scan"),
    "a base page that nothing maps has a count where subtrees are counted": (
        "logical_scan", {}, f"{ONE} ops=continue", "page_counts_equal_truth", ["continue A v 0 4K"], "nr_pages_mapped"),
    "a subtree stays counted behind its last piece": (
        "subtree", {}, f"{ONE} ops=continue,dontneed", "leaf_if_mapped",
        ["continue A v 0 4K", "dontneed A v 0 4K"], "logical_scan"),
    "a zap in halves leaves the count until tables go": (
        "logical_table", {}, f"{ONE} ops=continue,dontneed", "leaf_if_mapped",
        ["continue A v 0 4K", "dontneed A v 0 4K"], "logical_counter"),
    "truncation frees no table, and the reference of the count keeps the page": (
        "logical_table", {}, f"{ONE} ops=continue,punch", "truncate_completes",
        ["continue A v 0 4K", "punch F 0 16K"], "logical_counter"),
    "a migration finds the page mapped still": (
        "logical_table", {}, f"{ONE} ops=continue,migrate", "migration_succeeds_when_unpinned",
        ["continue A v 0 4K", "migrate A v 0 16K all"], "logical_counter"),
    "the same where a subtree is counted and each leaf has a reference": (
        "subtree", {}, f"{ONE} ops=continue,migrate", "migration_succeeds_when_unpinned",
        ["continue A v 0 4K", "migrate A v 0 16K all"], "head_per_leaf"),
    "tables that were counted stay, empty, when a lower one finds no memory": (
        "subtree", {}, f"{LEVEL} fail=2 ops=continue", "refusal_changes_no_count",
        ["fail 2", "continue A v 0 4K"], "logical_counter"),
    "who shares all but base page 0 is not seen before owners are": (
        "large_mapcount", {}, f"{TWO} ops=continue", "never_false_exclusive",
        ["continue A v 0 4K", "continue B v 4K 4K"], "mm_id"),
    "the third process leaves a page shared that is one's": (
        "mm_id", {}, "geometry=tiny-2 processes=3 populated=yes ops=continue,exit", "never_false_shared",
        ["continue A v 0 4K", "continue B v 0 4K", "continue D v 0 4K", "exit A", "exit B", "continue D v 4K 4K"],
        "logical_scan"),
    "an average is not the count of a base page": (
        "no_page_mapcount", {}, f"{ONE} ops=continue", "page_counts_equal_truth", ["continue A v 0 4K"], "mm_id"),
    "nor is that of all mapped pages": (
        "total_mapped_pages", {}, f"{ONE} ops=continue", "page_counts_equal_truth", ["continue A v 0 4K"], "mm_id"),
}


def breaks(scheme, scope, options):
    """What a search finds: property -> statements of the shortest trace."""
    checked = Checked(scheme, change(parse(scope), options)).run()
    assert checked.ended == "closed"
    return {prop.name: [line for step in checked.trace(prop.name) for line in step.lines()]
            for prop in PROPERTIES if checked.verdict(prop) == "violated"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_unaided(fault):
    scheme, options, scope, name, trace, without = FAULTS[fault]
    assert breaks(scheme, scope, options)[name] == trace
    assert name not in breaks(without, scope, {})


@pytest.mark.parametrize("scheme", ["head_per_leaf", "per_page_posted", "mm_id", "hugetlb"])
def test_counts_pass_their_limit_with_the_check_as_posted(scheme):
    """8192 complete mappings in base pages of 1G: the scope begins three references below the limit."""
    posted, half = (Checked(scheme, find(name)).run() for name in ("overflow", "overflow-half"))
    overflow = next(prop for prop in PROPERTIES if prop.name == "overflow_safe")
    assert posted.verdict(overflow) == "violated" and half.verdict(overflow) == "proved"
    assert posted.trace("overflow_safe")[-1].family in ("continue", "fork")

"""Shmem and anonymous memory where Linux (6.18, mm/khugepaged.c, mremap.c, memory.c, shmem.c) or a scheme's own rule
decides what is easily got wrong."""
from test_anon import HUGE, sizes, tables
from test_shmem import MINOR, ONE, K, M, errors, last, run

SMALL = "file F 4K 1024 shmem\nmmap A v F 0 4M shared\n"


def cost(text, scheme, **options):
    return run(text, scheme, **options).cost


# -- MADV_COLLAPSE


def test_collapse_leaves_the_page_tables_of_a_write_protected_mapping():
    """retract_page_tables(): userfaultfd may have left marks there."""
    text = "file F 4K 512 shmem\npopulate F 0 8\nmmap A v F 0 2M shared\nmmap B v F 0 2M shared wp\n"
    text += "touch A v 0\ntouch B v 0\ncollapse A v 0 2M"
    assert errors(text) == [] and tables(text, "A") == 2 and tables(text, "B") == 3


def test_collapse_stops_where_nothing_is():
    """SCAN_TRUNCATED and SCAN_PMD_NONE end madvise_collapse(), SCAN_PAGE_COUNT does not."""
    second = SMALL + "touch A v 2M\ncollapse A v 0 4M"
    assert errors(second) == [("EINVAL", 0)] and last(second)[1]["A", "v"]["levels"]["pmd"] == 0
    pinned = SMALL + "touch A v 0\ntouch A v 2M\npin F 0 1\ncollapse A v 0 4M"
    assert errors(pinned) == [("EAGAIN", 0)] and last(pinned)[1]["A", "v"]["levels"]["pmd"] == 2 * M
    anon = "mmap A v anon:4K 0 4M private\ntouch A v 2M write\ncollapse A v 0 4M"
    assert errors(anon) == [("EINVAL", 0)] and sizes(last(anon)[1])[3] == 0


# -- allocations that fail


def test_a_huge_fault_without_a_table_for_deposit_fails():
    """do_huge_pmd_anonymous_page(): without a huge folio it falls back, without a table it is out of memory."""
    for text in (HUGE + "fail 2\ntouch A v 0 write\n", HUGE + "fail 1\ntouch A v 0\n"):
        assert errors(text) == [("ENOMEM", 0)] and sizes(last(text)[1]) == (0, 0, 0, 0)
    assert sizes(last(HUGE + "fail 2\ntouch A v 0 write\ntouch A v 0 write\n")[1])[3] == 2048


def test_what_a_failed_mremap_moved_moves_back():
    """move_page_tables() back, from where it came; and the mapping is one VMA as before."""
    text = MINOR + "continue A v 0 2M\nfail 1\nmremap A v 4K 64K w\n"
    (folio,), rows = last(text)
    assert errors(text) == [("ENOMEM", 0)] and ("A", "w") not in rows and rows["A", "v"]["rss"] == 2 * M
    assert errors(text + "mremap A v 4M") == [("ENOMEM", 0)]
    two = "mmap A v anon:2M 0 4M private\ntouch A v 0 write\ntouch A v 2M write\n"
    text = two + "fail 1\nmremap A v 0 3M w\n"
    assert errors(text) == [("ENOMEM", 0)] and sizes(last(text)[1]) == (4096, 0, 4096, 2048), "the second was split"


# -- what mremap, fork and truncate reach


def test_mremap_rounds_the_length_to_base_pages():
    text = MINOR + "continue A v 0 2M\nmremap A v 4K 5000 w\n"
    assert errors(text) == [] and last(text)[1]["A", "w"]["rss"] == 8 * K


def test_mremap_of_a_mapping_that_has_lost_its_first_page():
    for length in ("1M", "2M", "4M"):
        assert errors(ONE + f"munmap A v 0 4K\nmremap A v {length}") == [("EFAULT", 0)]


def test_fork_copies_zero_pages_where_write_protection_follows():
    """vma_needs_copy(): userfaultfd_wp() of the child says yes, whether there is an anon_vma or not."""
    text = "mmap A v anon:4K 0 2M private {}\ntouch A v 0\nfork A B"
    assert tables(text.format("wp"), "B") == 3 and tables(text.format(""), "B") == 0


def test_truncate_unmaps_what_lies_behind_the_old_end():
    """unmap_mapping_range() to the end of all offsets: a pinned folio is not split, but nobody maps it there."""
    text = "file F 2M 1 shmem\nmmap A v F 0 2M shared\ntruncate F 32K\ntouch A v 0 write\nmunmap A v 0 2M\npin F 0 1\n"
    text += "mmap A w F 0 2M shared minor\ncontinue A w 0 4K\nunregister A w\ntouch A w 8K\n"
    assert last(text)[1]["A", "w"]["exclusive"] == [(0, 512, 1)]
    assert last(text + "truncate F 16K\n")[1]["A", "w"]["exclusive"] == [(0, 4, 1)]


def test_truncate_within_the_last_page_splits():
    """shmem_setattr() goes by bytes. What a huge folio has behind the end is dropped then."""
    text = ONE + "truncate F 5000\npunch F 0 8K\ntouch A v 0\n"
    assert [(f["first"], f["pages"]) for f in last(text)[0]] == [(0, 512)]
    folios, rows = last(text + "truncate F 4500\n")
    assert [(f["first"], f["pages"]) for f in folios] == [(0, 1), (1, 1)] and rows["A", "v"]["rss"] == 0
    assert [f["pages"] for f in last(text + "truncate F 5000\n")[0]] == [512]


def test_a_hole_without_a_whole_page_splits_at_both_ends():
    """shmem_undo_range(): the folio at the end is cut unless it is the one at the start."""
    text = ONE + "punch F 0 4K\npunch F 4097 4K\n"
    assert [(f["first"], f["pages"]) for f in last(text)[0]][:4] == [(1, 1), (2, 1), (3, 1), (4, 4)]
    assert [(f["first"], f["pages"]) for f in last(ONE + "punch F 4097 2K\n")[0]][:3] == [(0, 1), (1, 1), (2, 2)]


def test_munmap_of_what_is_not_mapped_touches_nothing():
    """Only a VMA that is cut has its PMD split: neither one of a mapping that never was nor one behind the end."""
    for statement in ("mmap A w anon:2M 0 2M private minor\nmunmap A w 4K 4K", "munmap A v 1025M 4K"):
        text = "mmap A v anon:2M 0 2M private\nmmap A x anon:2M 0 2M private\ntouch A v 0 write\ntouch A x 0 write\n"
        folios, _ = last(text + statement)
        assert [folio["mapcount"] for folio in folios] == [1, 1], statement


# -- what schemes are told


def test_an_entry_that_was_none_is_not_scanned():
    """An install scans only if the hstate-level entry was a table; then up to the first leaf of the folio."""
    for scheme in ("logical_scan", "logical_counter", "per_vma", "special_bit", "leaf_and_vma"):
        scanned = [cost(MINOR + text, scheme)["entries_scanned"] for text in (
            "continue A v 0 2M", "continue A v 40K 4K\ncontinue A v 0 4K",
            "fail 1\ncontinue A v 40K 4K\ncontinue A v 0 4K")]
        assert scanned == [0, 11, 0], scheme
    assert cost(ONE + "munmap A v 0 4K\ntouch A v 4K\n", "logical_scan", fault_around="16")["entries_scanned"] == 0


def test_a_subtree_is_counted_once_whatever_maps_it():
    """Of all that a fault maps around itself the first piece is the one that counts (lookup_first=no)."""
    text = ONE + "munmap A v 0 4K\ntouch A v 4K\n"
    for options in ({}, {"batch": "yes"}):
        (folio,), _ = last(text, "subtree", lookup_first="no", fault_around="16", **options)
        assert (folio["mapcount"], folio["refcount"] - 512) == (1, 16)
    (folio,), _ = last(text + "munmap A v 4K 2044K", "subtree", lookup_first="no", fault_around="16")
    assert folio["mapcount"] == 0


def test_a_subtree_begins_wherever_its_folio_does():
    """Under an entry that is a table already a folio's first piece counts too, and its look-up's reference stays."""
    text = "file F 2M 1 shmem\npopulate F 0 1\nmmap A v F 0 2M shared minor\ncontinue A v 0 4K\ndontneed A v 0 4K\n"
    for lookup_first in ("yes", "no"):
        ran = cost(text + "continue A v 8K 4K\n", "logical_table", lookup_first=lookup_first)
        assert ran["atomics"]["transient"] == 0
    (folio,), _ = last(text + "continue A v 8K 4K\n", "subtree", lookup_first="no")
    assert folio["mapcount"] == 1


def test_a_fault_looks_each_folio_up_once():
    """One reference for a folio, taken with the look-up, however many holes its pages fill."""
    text = MINOR + "continue A v 4K 4K\ncontinue A v 12K 4K\nunregister A v\n"
    before = cost(text, "logical_counter")["atomics"]["transient"]
    assert cost(text + "touch A v 0\n", "logical_counter", fault_around="16")["atomics"]["transient"] == before + 2


def test_a_part_that_is_truncated_leaves_the_rest_counted():
    """rmap_aware: truncate takes a subtree's count back if it covers the huge page, not with a part."""
    text = MINOR + "continue A v 0 64K\npin F 0 1\npunch F 8K 4K\n"
    (folio,), _ = last(text, "logical_table", rmap_aware="yes")
    assert (folio["mapcount"], folio["truth"]["leaves"]) == (1, 15)
    ran = run(text + "exit A\nobserve", "logical_table", rmap_aware="yes")
    assert ran.observations[0]["folios"][0]["mapcount"] == 0 and ran.counters["underflows"] == 0

# cython: language_level=3, cdivision=True
"""One map for each subtree, until its page tables are gone

Claim: a shared mapping's subtree can map only one huge page, so it is one user of the page as long as it exists; no
piece has to know whether it is the last.
From: David Hildenbrand, January 2023 (the simpler variant); counting with the table is James Houghton's repair.
State: _refcount of the head; compound_mapcount in page 1; a software bit in the hstate-level entry: counted.
Rule: reference +1, map +1 when the hstate-level entry becomes a table or a whole leaf; with lookup_first=no, at the
first leaf that is installed while the bit is clear. Reference -1, map -1 when the table is freed or the whole leaf is
removed. Pieces: nothing. A collapse, and memory failure, which exchanges a leaf for smaller ones, keep the one count.
With rmap_aware=yes truncate and migration take the count back, and the next leaf counts again.
Costs: two atomics for each subtree.
Known to be wrong: an empty subtree still counts. Truncate cannot free tables, so the page stays "mapped" and its
memory held; what is mapped there next counts for the page that left, and once collapsed underflows. Migration finds
the page mapped after every leaf is gone, and fails. None of the three happens with rmap_aware=yes. page_mapcount() of
a base page that nothing maps is that of the whole page. References of others, as pins, fill the same 2^31, and by
default nothing checks them.
Right: who shares a page, while its subtrees have leaves; references agree with the map count; pages 0 and 1 are
enough (HVO).
"""
# The engine keeps the bit "this subtree is counted" in the hstate-level entry and sets and clears it as the functions
# below answer; `first_leaf` means that the bit is clear (HGM_NEEDS_BIT). It tells of tables that come and go
# (HGM_NEEDS_TABLES) and of the end of each removal (HGM_NEEDS_ZAPS). It scans nothing.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_BIT | HGM_NEEDS_TABLES | HGM_NEEDS_ZAPS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_mapcount
from hgmcore.schemes.leaves cimport exchanges, whole_goes
from hgmcore.schemes.logical cimport logical_add, logical_answer, logical_drop


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    if exchanges(leaf.origin):
        return 0
    if options.lookup_first and leaf.hstate_none and not leaf.whole:
        return HGM_KEEPS    # table_add() counted it in this step; the look-up's reference stays as the subtree's
    if leaf.whole or leaf.first_leaf:
        logical_add(cost, leaf.folio)
        return HGM_KEEPS | HGM_COUNTS
    return 0


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if whole_goes(leaf):
        logical_drop(cost, leaf.folio)


cdef inline int table_add "hgm_table_add"(hgm_cost *cost, const hgm_options *options,
                                          const hgm_subtree *subtree) noexcept nogil:
    if exchanges(subtree.origin):
        return True    # the leaf that this table replaces has counted the subtree
    if options.lookup_first:
        logical_add(cost, subtree.folio)
    return options.lookup_first


cdef inline void table_free "hgm_table_free"(hgm_cost *cost, const hgm_options *options,
                                             const hgm_subtree *subtree) noexcept nogil:
    if subtree.counted and not exchanges(subtree.origin):
        logical_drop(cost, subtree.folio)


cdef inline int subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                    const hgm_subtree *subtree) noexcept nogil:
    if (options.rmap_aware and subtree.counted and subtree.tables_stay
            and (subtree.origin == HGM_BY_TRUNCATE or subtree.origin == HGM_BY_MIGRATION)):
        logical_drop(cost, subtree.folio)
        return True
    return False


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    logical_answer(folio, answer)


EXCEPTIONS = {
    "never_freed_while_mapped": "fault", "never_freed_while_held": "fault", "no_leak_at_end": "fault",
    "mapped_if_leaf": "fault", "leaf_if_mapped": "fault", "never_false_exclusive": "fault",
    "never_false_shared": "fault", "page_counts_equal_truth": "definition", "no_underflow": "fault",
    "migration_succeeds_when_unpinned": "fault", "moved_when_private": "fault",
    "never_moved_when_shared": "fault", "truncate_completes": "fault", "refusal_changes_no_count": "fault",
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("logical_table", __doc__, {"compound": "_entire_mapcount"}, {"lookup_first": "yes"}, {},
                     EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""RFC v1 made right: a map for each subtree of page tables

Claim: page_mapcount() keeps its meaning, the number of mappings of the huge page, at no cost for each piece.
From: HGM RFC v1 (June 2022), James Houghton, with the repair that he gave in January 2023: the page is looked up
before the tables are touched, so that only a page that was really mapped is counted.
State: _refcount of the head; compound_mapcount in page 1; a software bit in the hstate-level entry: counted.
Rule: map +1 when the hstate-level entry becomes a table or a whole leaf, -1 when it stops being one; a zap or truncate
of the whole huge page takes the count back, whether or not the tables go. Reference +1 for each leaf installed, -1 for
each removed. With lookup_first=no a table is counted with its first piece, if the same step made the table.
Costs: two atomics for the first piece, one for each other. A collapse leaves the map count alone.
Known to be wrong: references exceed the map count while pieces exist, so checks of the one against the other fail; a
page whose last piece was unmapped alone stays "mapped" until the tables go. Hole punch and truncate, which hold no
mmap_lock, leave their tables behind uncounted, as a full zap does with zap_frees_tables=no: what is mapped there next
is not counted, and the next full zap takes a count back all the same. Tables that a failed step left behind
(lookup_first=no) are uncounted likewise. Migration leaves a subtree's count with the old page and so fails.
Right: who shares a page, until a truncate; pages 0 and 1 are enough (HVO).
"""
# The engine keeps the bit "this subtree is counted" in the hstate-level entry and sets and clears it as the functions
# below answer (HGM_NEEDS_BIT); it tells of tables that come and go (HGM_NEEDS_TABLES) and of the end of each removal
# (HGM_NEEDS_ZAPS). It scans nothing.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_BIT | HGM_NEEDS_TABLES | HGM_NEEDS_ZAPS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.leaves cimport exchanges, whole_comes, whole_goes


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    if not whole_comes(leaf) and (options.lookup_first or not leaf.hstate_none):
        return HGM_KEEPS
    compound_add(cost, leaf.folio, 1)
    return HGM_KEEPS | HGM_COUNTS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if whole_goes(leaf):
        compound_add(cost, leaf.folio, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int table_add "hgm_table_add"(hgm_cost *cost, const hgm_options *options,
                                          const hgm_subtree *subtree) noexcept nogil:
    if not options.lookup_first or exchanges(subtree.origin):
        return False
    compound_add(cost, subtree.folio, 1)
    return True


cdef inline void table_free "hgm_table_free"(hgm_cost *cost, const hgm_options *options,
                                             const hgm_subtree *subtree) noexcept nogil:
    if subtree.counted and not exchanges(subtree.origin):
        compound_add(cost, subtree.folio, -1)


cdef inline int subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                    const hgm_subtree *subtree) noexcept nogil:
    if (subtree.covers and not subtree.whole and (subtree.removed or subtree.counted)
            and (subtree.origin == HGM_BY_ZAP or subtree.origin == HGM_BY_TRUNCATE)):
        compound_add(cost, subtree.folio, -1)
        return True
    return False


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "mapped_if_leaf": "fault", "leaf_if_mapped": "fault", "never_false_exclusive": "fault",
    "never_false_shared": "fault", "page_counts_equal_truth": "definition", "refs_explained": "fault",
    "no_underflow": "fault", "migration_succeeds_when_unpinned": "fault", "moved_when_private": "fault",
    "never_moved_when_shared": "fault", "refusal_changes_no_count": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("subtree", __doc__, {"compound": "_entire_mapcount"},
                     {"lookup_first": "yes", "zap_frees_tables": "yes"}, {}, EXCEPTIONS)

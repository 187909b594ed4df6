# cython: language_level=3, cdivision=True
"""A reference for each leaf, a map for each mapping, by scans

Claim: page_mapcount() is the number of mappings of the huge page, and no bit, count or order has to be kept for it.
From: Matthew Wilcox's proposal as James Houghton gave it, March 2023.
State: _refcount of the head; compound_mapcount in page 1.
Rule: reference +1 for each leaf installed, -1 for each removed. Map +1 if this mapping has no other leaf of the
page, -1 with its last; a scan of the page tables before each install and after each removal tells which.
Costs: one atomic for each leaf and two more for each mapping. Every install under an existing table and every
removal scans the subtree up to the first leaf: short, unless pieces were unmapped in front.
Known to be wrong: references exceed the map count while pieces exist, so checks of the one against the other fail;
page_mapcount() of a base page that nothing maps is that of the whole page.
Right: who shares a page; pages 0 and 1 are enough (HVO).
"""
# Before an install under an existing table, and after every removal, also of the whole huge page, the engine reads the
# subtree's entries up to the first leaf (HGM_NEEDS_SCAN, HGM_NEEDS_SCAN_ALWAYS). `first_leaf` and, in subtree_zapped
# (HGM_NEEDS_ZAPS), `empty` say what it found; each entry that it read is charged to the scheme.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_SCAN | HGM_NEEDS_SCAN_ALWAYS | HGM_NEEDS_ZAPS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.leaves cimport last_leaf_gone


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    if leaf.first_leaf:
        compound_add(cost, leaf.folio, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                    const hgm_subtree *subtree) noexcept nogil:
    if last_leaf_gone(subtree):
        compound_add(cost, subtree.folio, -1)
    return last_leaf_gone(subtree)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "page_counts_equal_truth": "definition", "refs_explained": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("per_vma", __doc__, {"compound": "_entire_mapcount"}, {}, {}, EXCEPTIONS)

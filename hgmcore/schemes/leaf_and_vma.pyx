# cython: language_level=3, cdivision=True
"""Two counts: head_per_leaf, and mappings that have a leaf

Claim: who asks how many sharers there are gets a count that means it; references and page_mapcount() stay in step.
From: hugetlb_vma_mapcount() and page_vmacount(), discussed by James Houghton and David Hildenbrand, January and
February 2023.
State: _refcount of the head; compound_mapcount in page 1; a second count beside it, here in the word that 6.10 gave
to _large_mapcount.
Rule: each leaf installed: reference +1, map +1. Each leaf removed: reference -1, map -1. The first leaf of a subtree:
second count +1. The last: -1. Scans find which leaf is the first and which the last. smaps, mbind and the sharing
predicate read the second count.
Costs: two atomics for each leaf and two more for each subtree; scans as logical_scan.
Known to be wrong: page_mapcount() of every base page is the number of leaves anywhere; both overflow as
head_per_leaf. One more meaning of "map count" beside the others.
Right: who shares a page; references agree with the map count; pages 0 and 1 are enough (HVO).
"""
# Before an install under an existing table, and after an operation that removed only a part, the engine reads the
# subtree's entries up to the first leaf (HGM_NEEDS_SCAN). `first_leaf` and, in subtree_zapped (HGM_NEEDS_ZAPS), `empty`
# say what it found; each entry that it read is charged to the scheme.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_SCAN | HGM_NEEDS_ZAPS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.large cimport large_add, large_mapcount
from hgmcore.schemes.leaves cimport last_leaf_gone


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    compound_add(cost, leaf.folio, <int32_t>leaf.count)
    if leaf.first_leaf:
        large_add(cost, leaf.folio, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    compound_add(cost, leaf.folio, -<int32_t>leaf.count)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                    const hgm_subtree *subtree) noexcept nogil:
    if last_leaf_gone(subtree):
        large_add(cost, subtree.folio, -1)
    return last_leaf_gone(subtree)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)
    answer.sharers = large_mapcount(folio)
    answer.maybe_shared = answer.sharers > 1


EXCEPTIONS = {
    "page_counts_equal_truth": "definition", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("leaf_and_vma", __doc__,
                     {"compound": "_entire_mapcount", "vma_count": "_large_mapcount"}, {}, {}, EXCEPTIONS)

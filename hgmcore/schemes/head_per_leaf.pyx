# cython: language_level=3, cdivision=True
"""One reference and one map on the head for each leaf entry

Claim: the simplest counts that fit HGM. Whatever its size, a leaf is one user of the huge page.
From: HGM RFC v2 (October 2022) and v1 (January 2023), James Houghton.
State: _refcount of the head; compound_mapcount in page 1.
Rule: each leaf installed: reference +1, map +1. Each leaf removed: reference -1, map -1.
Costs: two atomics on two lines for each leaf, however small; the lines are shared by all that map the page.
Known to be wrong: page_mapcount() of every base page is the number of leaves anywhere, so one process that maps
two pieces is "shared": smaps says Shared_Hugetlb, mbind does not move it. Both counts overflow at 2^31, that is
after 8192 mappings of a 1G page by 4K.
Right: references agree with the map count; pages 0 and 1 are enough (HVO).
"""
# The engine finds out nothing for this scheme: each leaf counts alike, whatever else is mapped.
cdef extern from *:
    """
    #define HGM_NEEDS 0
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    compound_add(cost, leaf.folio, <int32_t>leaf.count)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    compound_add(cost, leaf.folio, -<int32_t>leaf.count)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "never_false_shared": "definition", "page_counts_equal_truth": "definition", "moved_when_private": "fault",
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("head_per_leaf", __doc__, {"compound": "_entire_mapcount"}, {}, {}, EXCEPTIONS)

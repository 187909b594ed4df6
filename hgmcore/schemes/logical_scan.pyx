# cython: language_level=3, cdivision=True
"""One map for each subtree, until a scan finds its last piece

Claim: a shared mapping's subtree can map only one huge page, so however it is cut it is one user of the page.
From: David Hildenbrand, January 2023 (the variant that keeps no metadata).
State: _refcount of the head; compound_mapcount in page 1. Nothing else: whether a leaf is the first or the last of
its subtree is read from the page tables.
Rule: the first leaf of a subtree: reference +1, map +1. The last leaf: reference -1, map -1. All others: nothing. A
scan of the subtree's page tables tells both the first and the last (logical_counter: counters tell both; special_bit: a
bit tells the first, a scan the last).
Costs: two atomics for each subtree. Every operation that installs under an existing table, or removes a part, scans
the subtree up to the first leaf: up to 512 entries of a 2M page, 512 + 262144 of a 1G page.
Known to be wrong: page_mapcount() of a base page that nothing maps is that of the whole page. References of others, as
pins, fill the same 2^31, and by default nothing checks them.
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
from hgmcore.schemes.compound cimport compound_mapcount
from hgmcore.schemes.logical cimport logical_answer, logical_install, logical_zapped


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    return logical_install(cost, leaf)


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    pass


cdef inline int subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                    const hgm_subtree *subtree) noexcept nogil:
    return logical_zapped(cost, subtree)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    logical_answer(folio, answer)


EXCEPTIONS = {
    "page_counts_equal_truth": "definition", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("logical_scan", __doc__, {"compound": "_entire_mapcount"}, {"lookup_first": "yes"}, {}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""One map for each subtree, by a "counted" bit in its entry

Claim: as logical_scan, but an install need not scan: the bit says whether the subtree is counted. No subtree
can be counted twice, nor taken back without having been counted.
From: James Houghton and Peter Xu, February 2023: PAGE_SPECIAL on the hstate-level entry.
State: _refcount of the head; compound_mapcount in page 1; the bit, which the engine keeps.
Rule: a leaf installed while the bit is clear: reference +1, map +1, bit set. The last leaf removed: reference -1, map
-1, bit cleared. All others: nothing. The bit tells the first leaf, a scan of the subtree's page tables the last
(logical_scan: scans tell both; logical_counter: counters tell both).
Costs: two atomics for each subtree. Every operation that removes a part scans the subtree up to the first leaf.
Known to be wrong: page_mapcount() of a base page that nothing maps is that of the whole page. References of others, as
pins, fill the same 2^31, and by default nothing checks them.
Right: who shares a page; references agree with the map count; pages 0 and 1 are enough (HVO).
"""
# The engine keeps the bit "this subtree is counted" in the hstate-level entry: `first_leaf` says that it is clear,
# so an install scans nothing (HGM_NEEDS_BIT). The bit does not tell which leaf is the last: after an operation that
# removed only a part the engine reads the subtree's entries up to the first leaf (HGM_NEEDS_SCAN), and `empty` in
# subtree_zapped (HGM_NEEDS_ZAPS) says what it found.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_BIT | HGM_NEEDS_SCAN | HGM_NEEDS_ZAPS)
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

engine = instantiate("special_bit", __doc__, {"compound": "_entire_mapcount"}, {"lookup_first": "yes"}, {}, EXCEPTIONS)

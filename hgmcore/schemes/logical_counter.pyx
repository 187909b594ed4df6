# cython: language_level=3, cdivision=True
"""One map for each subtree, by counters in page-table pages

Claim: as logical_scan, but the last piece is found without a scan: each table page below the hstate-level entry
knows in its own descriptor how many leaves and non-empty tables it holds.
From: David Hildenbrand's single logical mapping, January 2023, with the metadata that Mike Kravetz and Peter Xu
asked about; the counter's place, the word that PMD-table sharing uses and HGM forbids, is derived.
State: _refcount of the head; compound_mapcount in page 1; a plain count in each table page's descriptor, changed
under its page-table lock.
Rule: the first leaf of a subtree: reference +1, map +1. The last leaf: reference -1, map -1. All others: nothing. The
counters of the page-table pages tell both the first and the last (logical_scan: scans tell both; special_bit: a bit
tells the first, a scan the last).
Costs: two atomics for each subtree; for each leaf one plain increment or decrement beside the table.
Known to be wrong: page_mapcount() of a base page that nothing maps is that of the whole page. References of others, as
pins, fill the same 2^31, and by default nothing checks them.
Right: who shares a page; references agree with the map count; pages 0 and 1 are enough (HVO).
"""
# Whenever an entry of a page-table page comes or goes, the engine counts that in the page's descriptor
# (HGM_NEEDS_COUNTER). `first_leaf` and, in subtree_zapped (HGM_NEEDS_ZAPS), `empty` are read from the counts; no entry
# is scanned.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_COUNTER | HGM_NEEDS_ZAPS)
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

engine = instantiate("logical_counter", __doc__, {"compound": "_entire_mapcount"}, {"lookup_first": "yes"}, {},
                     EXCEPTIONS)

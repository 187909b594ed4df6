# cython: language_level=3, cdivision=True
"""RFC v1 as posted: a map for each subtree, by signs that fail

Claim: page_mapcount() keeps its meaning, the number of mappings of the huge page, at no cost for each piece.
From: HGM RFC v1, June 2022, James Houghton, with its bugs.
State: _refcount of the head; compound_mapcount in page 1. Whether a subtree is counted is nowhere kept: each
operation has its own sign for it.
Rule: reference +1 for each leaf installed, -1 for each removed. Map +1 at UFFDIO_CONTINUE if the hstate-level entry
was none before its tables were made, at a fault if the leaf is whole, and at fork for the leaf of base page 0. Map -1
in a zap of the whole huge page, for the leaf of base page 0. MADV_COLLAPSE finds every entry large enough and does
nothing.
Costs: two atomics for the first piece, one for each other.
Known to be wrong: a CONTINUE that failed left tables behind, so the next one is not counted and the zap after it
underflows. Base page 0 never mapped: the count is never taken back, and fork does not count the child. A full zap
leaves the tables, and what is mapped there next is not counted. References exceed the map count.
Right: who shares a page, as long as base page 0 is mapped and nothing fails; pages 0 and 1 are enough (HVO).
Adapted: a truncate counts as a zap; migration restores leaves as fork makes them and removes them as a zap does;
memory failure, which exchanges a leaf for smaller ones, leaves the map count alone.
"""
# The engine finds out nothing for this scheme, which guesses from each leaf whether a subtree is counted. As posted,
# MADV_COLLAPSE finds every entry large enough and does nothing.
cdef extern from *:
    """
    #define HGM_NEEDS 0
    #define HGM_QUIRKS HGM_QUIRK_COLLAPSES_NOTHING
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.leaves cimport exchanges


cdef inline bint counts_map(const hgm_leaf *leaf) noexcept nogil:
    """True if the operation takes this leaf for the first of a new mapping, by that operation's own sign."""
    if leaf.origin == HGM_BY_CONTINUE:
        return leaf.hstate_none
    if leaf.origin == HGM_BY_FAULT:
        return leaf.whole
    return leaf.first == 0 and not exchanges(leaf.origin)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    if counts_map(leaf):
        compound_add(cost, leaf.folio, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if leaf.first == 0 and leaf.covers and not exchanges(leaf.origin):
        compound_add(cost, leaf.folio, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "mapped_if_leaf": "fault", "leaf_if_mapped": "fault", "never_false_exclusive": "fault",
    "never_false_shared": "fault", "page_counts_equal_truth": "definition", "refs_explained": "fault",
    "no_underflow": "fault", "counts_bounded": "fault", "migration_succeeds_when_unpinned": "fault",
    "moved_when_private": "fault", "never_moved_when_shared": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("subtree_posted", __doc__, {"compound": "_entire_mapcount"}, {}, {}, EXCEPTIONS)

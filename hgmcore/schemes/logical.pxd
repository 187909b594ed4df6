# cython: language_level=3, cdivision=True
"""The single logical mapping: one reference and one map for a subtree, in however many leaves it maps the page.

How the engine finds the first and the last leaf is up to HGM_NEEDS of the scheme that cimports this.
"""
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer
from hgmcore.schemes.leaves cimport last_leaf_gone


cdef inline void logical_add(hgm_cost *cost, hgm_folio *folio) noexcept nogil:
    hgm_ref_add(cost, folio, 1)
    compound_add(cost, folio, 1)


cdef inline void logical_drop(hgm_cost *cost, hgm_folio *folio) noexcept nogil:
    compound_add(cost, folio, -1)
    hgm_ref_add(cost, folio, -1)


cdef inline int logical_install(hgm_cost *cost, const hgm_leaf *leaf) noexcept nogil:
    """First leaf of a subtree: reference +1, map +1. The answer of hgm_leaf_install()."""
    if leaf.first_leaf:
        logical_add(cost, leaf.folio)
        return HGM_KEEPS | HGM_COUNTS
    return 0


cdef inline int logical_zapped(hgm_cost *cost, const hgm_subtree *subtree) noexcept nogil:
    """Last leaf of a subtree: reference -1, map -1. The answer of hgm_subtree_zapped()."""
    if last_leaf_gone(subtree):
        logical_drop(cost, subtree.folio)
    return last_leaf_gone(subtree)


cdef inline void logical_answer(const hgm_folio *folio, hgm_answer *answer) noexcept nogil:
    """The mappings of a folio hold as many references as it has maps."""
    compound_answer(folio, answer)
    answer.refs = answer.mapcount

# cython: language_level=3
"""scheme.h as Cython sees it: what an accounting scheme defines and what it may call.

A scheme is one .pyx file. It cimports the names below, defines HGM_NEEDS in a verbatim C block and the seven
functions of scheme.h under their C names, and ends in `engine = instantiate(...)`, which compiles the whole
engine around it.
"""
from hgmcore.hgm cimport *

cdef extern from "hgmcore/scheme.h" nogil:
    const int NEEDS "HGM_NEEDS"
    const int NEEDS_SCAN "HGM_NEEDS_SCAN"
    const int NEEDS_COUNTER "HGM_NEEDS_COUNTER"
    const int WHOLE_ONLY "HGM_WHOLE_ONLY"

    int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) noexcept
    void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) noexcept
    void hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
    void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
    void hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
    int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page) noexcept
    void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept

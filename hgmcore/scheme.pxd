# cython: language_level=3
"""scheme.h as Cython sees it: what an accounting scheme defines and what it may call.

A scheme is one .pyx file. It defines HGM_NEEDS, and HGM_QUIRKS if it has any, in a verbatim C block ahead of
everything else, then cimports the names below, defines under their C names those functions of scheme.h that its needs
call for, and ends in `engine = instantiate(...)`, which compiles the whole engine around it.
"""
from hgmcore.hgm cimport *

cdef extern from "hgmcore/scheme.h" nogil:
    const int NEEDS "HGM_NEEDS"
    const int NEEDS_SCAN "HGM_NEEDS_SCAN"
    const int NEEDS_COUNTER "HGM_NEEDS_COUNTER"
    const int NEEDS_BIT "HGM_NEEDS_BIT"
    const int NEEDS_SCAN_ALWAYS "HGM_NEEDS_SCAN_ALWAYS"
    const int NEEDS_TAILS "HGM_NEEDS_TAILS"
    const int NEEDS_TABLES "HGM_NEEDS_TABLES"
    const int NEEDS_ZAPS "HGM_NEEDS_ZAPS"
    const int NEEDS_ORDER "HGM_NEEDS_ORDER"
    const int NEEDS_NUMBERS "HGM_NEEDS_NUMBERS"
    const int NEEDS_SPLITS "HGM_NEEDS_SPLITS"
    const int NEEDS_CPU "HGM_NEEDS_CPU"
    const int NEEDS_KILL "HGM_NEEDS_KILL"
    const int NEEDS_SLOTS "HGM_NEEDS_SLOTS"

    const int QUIRKS "HGM_QUIRKS"
    const int QUIRK_WHOLE_ONLY "HGM_QUIRK_WHOLE_ONLY"
    const int QUIRK_POISONS_WHOLE "HGM_QUIRK_POISONS_WHOLE"
    const int QUIRK_COLLAPSES_NOTHING "HGM_QUIRK_COLLAPSES_NOTHING"
    const int QUIRK_FORK_CHECK_INVERTED "HGM_QUIRK_FORK_CHECK_INVERTED"

    const int HGM_KEEPS, HGM_COUNTS

    const bint STOPPED "HGM_STOPPED"

    int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page) noexcept
    void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept

cdef extern from "hgmcore/told.h" nogil:
    # as the engine calls them
    int hgm_leaf_install "hgm_tell_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                 const hgm_leaf *leaf) noexcept
    void hgm_leaf_remove "hgm_tell_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept
    int hgm_table_add "hgm_tell_table_add"(hgm_cost *cost, const hgm_options *options,
                                           const hgm_subtree *subtree) noexcept
    void hgm_table_free "hgm_tell_table_free"(hgm_cost *cost, const hgm_options *options,
                                              const hgm_subtree *subtree) noexcept
    int hgm_subtree_zapped "hgm_tell_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                     const hgm_subtree *subtree) noexcept
    void hgm_kill "hgm_tell_kill"(hgm_cost *cost, const hgm_options *options, hgm_folio *folio) noexcept
    int hgm_told_begin(const hgm_options *options, const hgm_folio *folio, int looks_up) noexcept
    void hgm_told_end(const hgm_options *options, const hgm_folio *folio, int was_mapped, int removes) noexcept

/*
 * scheme.h: what an accounting scheme defines. Include it in the one C file that holds the scheme; the engine
 * (hgmcore/engine.pxd) is compiled into the same file and calls these functions, so each is inlined where the
 * primitive happens and a scheme that does nothing costs nothing.
 *
 * A scheme only reacts: it changes counts through hgm_ref_add() and hgm_map_add() and never looks at a page
 * table. What it needs to be told beyond the folio it declares in HGM_NEEDS, a constant; finding that out is
 * charged to it.
 */
#ifndef HGMCORE_SCHEME_H
#define HGMCORE_SCHEME_H

#include "hgmcore/hgm.h"

/* Find the first and last leaf of a subtree by scanning its tables; every entry read is counted. */
#define HGM_NEEDS_SCAN 1
/* Find them by counts of present children in the page-table pages' descriptors (hgm_ptdesc). */
#define HGM_NEEDS_COUNTER 2
/* The scheme maps whole huge pages or nothing: operations that need HGM are refused. */
#define HGM_WHOLE_ONLY 4

/*
 * A leaf became present. Returns 1 if the scheme keeps the reference that the operation's look-up took, as the
 * leaf's own (and has counted it with hgm_ref_add), else 0.
 */
HGM_INLINE int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
/* A present leaf goes away. */
HGM_INLINE void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
/* An hstate-level entry became a table. */
HGM_INLINE void hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
/* An hstate-level entry stops being a table: its subtree is freed (origin collapse: a whole leaf replaces it). */
HGM_INLINE void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
/*
 * An operation is through with removing leaves below (or at) one hstate-level entry; once for each operation
 * and entry that was not none, before its tables are freed. Not called for a collapse.
 */
HGM_INLINE void hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);

/* page_mapcount() of base page `page` of the folio. */
HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page);
/* What the scheme answers about the folio; maybe_shared and nr_file_mapped come in as -1: no rule of its own. */
HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer);

#endif

/*
 * scheme.h: what an accounting scheme defines. Include it in the one C file that holds the scheme; the engine
 * (hgmcore/engine.pxd) is compiled into the same file and calls these functions, so each is inlined where the
 * primitive happens and a scheme that does nothing costs nothing.
 *
 * A scheme only reacts: it changes counts through hgm_ref_add() and hgm_map_add() and never looks at a page
 * table. The pages are those of hugetlb, and folios of shmem and anonymous memory. There a page table belongs to no
 * folio; what is told of subtrees is then told of the leaves of one folio below one PMD entry, the first of which
 * is its table_add and the last its table_free. A folio of one base page is never told of: it has its own
 * _mapcount and _refcount, as in Linux.
 *
 * What it needs to be told it declares in HGM_NEEDS, a constant that is defined before this file is included;
 * finding that out is charged to it.
 */
#ifndef HGMCORE_SCHEME_H
#define HGMCORE_SCHEME_H

#include "hgmcore/hgm.h"

/* Find the first and last leaf of a subtree by scanning its tables; every entry read is counted. */
#define HGM_NEEDS_SCAN 1
/* Find them by counts of present children in the page-table pages' descriptors (hgm_ptdesc). */
#define HGM_NEEDS_COUNTER 2
/*
 * Keep a software bit in the hstate-level entry, "this subtree is counted": set where the scheme answers so to
 * hgm_leaf_install() or hgm_table_add(), cleared where it answers 1 to hgm_subtree_zapped(), and with the tables. Told
 * as first_leaf (the bit is clear) and as `counted`. With HGM_NEEDS_SCAN a partial zap scans for the last leaf.
 */
#define HGM_NEEDS_BIT 4
/* As HGM_NEEDS_SCAN, but scan after every removal, also where the operation covers the whole huge page. */
#define HGM_SCANS_ALWAYS 8
/* The scheme maps whole huge pages or nothing: operations that need HGM are refused. */
#define HGM_WHOLE_ONLY 16
/* It counts on struct pages that HVO takes away. */
#define HGM_WRITES_TAILS 32
/* Memory failure unmaps the whole huge page, not 4K of it. */
#define HGM_POISONS_WHOLE 64
/* Be told of page tables: hgm_table_add() and hgm_table_free(). */
#define HGM_NEEDS_TABLES 512
/* Be told of the end of a removal: hgm_subtree_zapped(). */
#define HGM_NEEDS_ZAPS 1024
/* As posted: MADV_COLLAPSE finds every entry large enough and does nothing. */
#define HGM_COLLAPSES_NOTHING 128
/* As posted: fork takes the success of its overflow check for failure. */
#define HGM_FORK_CHECK_INVERTED 256

/* Which process was the first to map a folio shows in its state: such operations keep their order. */
#define HGM_FIRST_COME 2048

/* What hgm_leaf_install() answers, or-ed. */
#define HGM_KEEPS 1	/* the reference that the operation's look-up took stays, and was counted with hgm_ref_add() */
#define HGM_COUNTS 2	/* the subtree is counted with this leaf: under HGM_NEEDS_BIT the bit is set */

/* A leaf, or a run of them, became present. */
HGM_INLINE int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
/* A present leaf goes away. */
HGM_INLINE void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
/*
 * An hstate-level entry became a table. Returns 1 if the scheme counts the subtree with it (HGM_NEEDS_BIT: the bit
 * is set).
 */
HGM_INLINE int hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
/* An hstate-level entry stops being a table: its subtree is freed (origin collapse: a whole leaf replaces it). */
HGM_INLINE void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
/*
 * An operation is through with removing leaves below (or at) one hstate-level entry; once for each operation
 * and entry that was not none, before its tables are freed. Not called for a collapse nor for the leaf that
 * memory failure replaces by smaller ones. Returns 1 if the scheme took the subtree's count back (HGM_NEEDS_BIT).
 */
HGM_INLINE int hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);

/* page_mapcount() of base page `page` of the folio. */
HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page);
/* What the scheme answers about the folio; maybe_shared and nr_file_mapped come in as -1: no rule of its own. */
HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer);

/*
 * The engine's loops over base pages (streaks.pxd, runs.pxd). A loop that runs most is a function of its own, which leaves it
 * all the registers; into it the compiler puts one that serves several, with constants for its last arguments, and
 * the scheme's functions.
 */
#define HGM_LOOP static __attribute__((noinline))
struct hgm_machine;
struct hgm_huge_page;
HGM_LOOP uint64_t hgm_continues(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_touches(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_uncounted(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t, int);
HGM_LOOP uint64_t hgm_dontneeds(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_collapses(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_zap_ptes(struct hgm_machine *, uint64_t *, uint64_t, const hgm_leaf *, uint64_t);
HGM_LOOP void hgm_continue_run(struct hgm_machine *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, const uint32_t *);
HGM_LOOP void hgm_fork_run(struct hgm_machine *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, const uint32_t *);
HGM_INLINE uint64_t hgm_install_streak(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t,
				       int, int, int, int, int);
HGM_INLINE uint64_t hgm_zap_streak(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t, int, int);
HGM_INLINE uint64_t hgm_collapse_streak(struct hgm_machine *, struct hgm_huge_page *, const hgm_operation *, uint64_t,
					int, int);
HGM_INLINE uint64_t hgm_zap_leaves(hgm_cost *, const hgm_options *, hgm_leaf *, uint64_t *, uint64_t, uint64_t);
HGM_INLINE void hgm_install_run(struct hgm_machine *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t,
				const uint32_t *, int);
HGM_INLINE uint64_t hgm_install_leaves(struct hgm_machine *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, uint32_t,
				       int, int, int);

#if !((HGM_NEEDS) & HGM_NEEDS_TABLES)
HGM_INLINE int hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { return 0; }
HGM_INLINE void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { }
#endif
#if !((HGM_NEEDS) & HGM_NEEDS_ZAPS)
HGM_INLINE int hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { return 0; }
#endif

#endif

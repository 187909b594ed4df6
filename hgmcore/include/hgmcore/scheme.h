/*
 * scheme.h: what an accounting scheme defines. There are two ways in, and one contract for both.
 *
 * Compiled: define HGM_NEEDS, include this file in the one C file that holds the scheme, and define the functions that it
 * declares. The engine (hgmcore/engine.pxd) is compiled into the same file, so each function is inlined where the
 * primitive happens, and a scheme that does nothing costs nothing.
 *
 * Called: fill a table of pointers to such functions (hgm_scheme). HGM_SCHEME() makes one of the same C file; ctypes, cffi
 * and numba fill it by hand. One engine that is compiled already calls through it.
 *
 * A scheme only reacts: it changes counts through hgm_ref_add() and hgm_map_add() and never looks at a page
 * table. The pages are those of hugetlb, and folios of shmem and anonymous memory. There a page table belongs to no
 * folio; what is told of subtrees is then told of the leaves of one folio below one PMD entry, the first of which
 * is its table_add and the last its table_free. A folio of one base page is never told of: it has its own
 * _mapcount and _refcount, as in Linux.
 *
 * All that a scheme remembers stands in struct pages: in their counts, or in hgm_page.private_. Then snapshots, clones and
 * searches are exact. The folio that it is told of may be a copy: its struct pages and `pfn` say which one it is, not its
 * address. No pointer that a function is given may be kept.
 *
 * What it needs to be told it declares in HGM_NEEDS, and where its kernel behaves otherwise than the rest in
 * HGM_QUIRKS; both are constants that are defined before this file is included. Finding out what a scheme needs is
 * charged to it.
 */
#ifndef HGMCORE_SCHEME_H
#define HGMCORE_SCHEME_H

#include "hgmcore/hgm.h"

/*
 * Needs: what the engine must find out, keep or take care of for the scheme. HGM_NEEDS is an or of these.
 */
/* The engine scans a subtree's tables for its first and last leaf; every entry that it reads is counted. */
#define HGM_NEEDS_SCAN 1
/* The engine counts the present children of each page-table page in its descriptor (hgm_ptdesc), which tells the same. */
#define HGM_NEEDS_COUNTER 2
/*
 * The engine keeps a software bit in the hstate-level entry, "this subtree is counted": set where the scheme answers so to
 * hgm_leaf_install() or hgm_table_add(), cleared where it answers 1 to hgm_subtree_zapped(), and with the tables. The
 * scheme is told of it as first_leaf (the bit is clear) and as `counted`. With HGM_NEEDS_SCAN a partial zap scans for
 * the last leaf.
 */
#define HGM_NEEDS_BIT 4
/* As HGM_NEEDS_SCAN, but the engine scans after every removal, also where the operation covers the whole huge page. */
#define HGM_NEEDS_SCAN_ALWAYS 8
/* The scheme counts on every struct page of a folio: the engine prefetches them, and hvo=on refuses the scheme. */
#define HGM_NEEDS_TAILS 16
/* The engine tells the scheme of page tables: hgm_table_add() and hgm_table_free(). */
#define HGM_NEEDS_TABLES 32
/* The engine tells the scheme of the end of a removal: hgm_subtree_zapped(). */
#define HGM_NEEDS_ZAPS 64
/* The scheme's state shows which process was the first to map a folio: native threads keep the order of such operations. */
#define HGM_NEEDS_ORDER 128
/* The scheme's state is made of the numbers of processes: a search that exchanges processes does not exchange those. */
#define HGM_NEEDS_NUMBERS 256
/* With option rmap_batch=split the pieces that come for a PMD of anonymous memory are told of as one run. */
#define HGM_NEEDS_SPLITS 512
/* The engine tells the scheme which CPU runs an operation. */
#define HGM_NEEDS_CPU 1024
/* The engine tells the scheme when an exact count is due: hgm_kill(). */
#define HGM_NEEDS_KILL 2048
/* The scheme counts in slots (schemes/slots.pxd), on the struct pages behind page 1; hvo=on leaves those there. */
#define HGM_NEEDS_SLOTS 4096

/*
 * Quirks: where a scheme's kernel behaves otherwise than the rest. HGM_QUIRKS is an or of these, 0 if it is left out.
 */
/* The engine maps whole huge pages or nothing, and refuses operations that need HGM. */
#define HGM_QUIRK_WHOLE_ONLY 1
/* Memory failure unmaps the whole huge page, not one base page of it. */
#define HGM_QUIRK_POISONS_WHOLE 2
/* As posted: MADV_COLLAPSE finds every entry large enough and does nothing. */
#define HGM_QUIRK_COLLAPSES_NOTHING 4
/* As posted: fork takes the success of its overflow check for failure. */
#define HGM_QUIRK_FORK_CHECK_INVERTED 8

/* What hgm_leaf_install() answers, or-ed. */
#define HGM_KEEPS 1	/* the reference that the operation's look-up took stays, and was counted with hgm_ref_add() */
#define HGM_COUNTS 2	/* the subtree is counted with this leaf: under HGM_NEEDS_BIT the bit is set */

/*
 * A scheme as a table
 * ===================
 * Whoever is given it copies the table, but not what its pointers point to: that must stay for as long as a machine may
 * use the scheme. Reactions are called from any thread that runs a machine, several at once if the machine is replayed
 * with threads. Texts are UTF-8; those of pairs are of the form "key=value key=value", and NULL is an empty one.
 */
typedef struct hgm_scheme {
	uint32_t abi;			/* HGM_ABI, */
	uint32_t size;			/* and sizeof(hgm_scheme), of the module that filled the table */
	uint32_t needs;			/* HGM_NEEDS_* */
	uint32_t quirks;		/* HGM_QUIRK_* */
	void *user;			/* the scheme's own; a reaction finds it at hgm_user(options) */
	const char *name;		/* a word */
	const char *explanation;	/* its first line is the summary */
	const char *state;		/* pairs: a name for reports, and the word of struct page 1, as "compound=_entire_mapcount" */
	const char *defaults;		/* pairs: options whose default differs from the general one */
	const char *posted;		/* pairs: options that model=posted selects besides */
	const char *exceptions;		/* pairs: a property that is not promised, and "definition" or "fault" */
	/* As declared below. The last four may be NULL where the needs do not ask for them. */
	int (*leaf_install)(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
	void (*leaf_remove)(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf);
	int64_t (*page_mapcount)(const hgm_options *options, const hgm_folio *folio, uint64_t page);
	void (*answer_folio)(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer);
	int (*table_add)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
	void (*table_free)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
	int (*subtree_zapped)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree);
	void (*kill)(hgm_cost *cost, const hgm_options *options, hgm_folio *folio);
	/* The engine's, in the copy that each machine has. */
	const char *failed;		/* why the scheme cannot go on; NULL: it can */
	const char *failed_in;		/* the reaction that said so */
} hgm_scheme;

HGM_INLINE void *hgm_user(const hgm_options *options)
{
	return options->scheme->user;
}

/*
 * A reaction that cannot go on says why, in a text that stays. The machine runs no further record; whoever ran it is told
 * the scheme, the reaction, the record and the reason. The first reason counts.
 */
HGM_INLINE void hgm_fail(const hgm_options *options, const char *why)
{
	if (options->scheme && !options->scheme->failed)
		options->scheme->failed = why;
}

#ifdef HGM_NEEDS

#ifndef HGM_QUIRKS
#define HGM_QUIRKS 0
#endif

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

/*
 * From here on the folio's references have to be exact, or nobody will free it: it is about to leave the page cache, or to
 * be split. Not told of what was never in a page cache.
 */
HGM_INLINE void hgm_kill(hgm_cost *cost, const hgm_options *options, hgm_folio *folio);

/* page_mapcount() of base page `page` of the folio. */
HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page);
/* What the scheme answers about the folio; maybe_shared and nr_file_mapped come in as -1: no rule of its own. */
HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer);

#ifndef HGM_CALLBACKS	/* there the table has them */
#if !((HGM_NEEDS) & HGM_NEEDS_TABLES)
HGM_INLINE int hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { return 0; }
HGM_INLINE void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { }
#endif
#if !((HGM_NEEDS) & HGM_NEEDS_KILL)
HGM_INLINE void hgm_kill(hgm_cost *cost, const hgm_options *options, hgm_folio *folio) { }
#endif
#if !((HGM_NEEDS) & HGM_NEEDS_ZAPS)
HGM_INLINE int hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) { return 0; }
#endif
#endif

/* The table of the scheme that this file holds. The rest are further fields, as .name = "mine", .state = "..". */
#define HGM_SCHEME(symbol, ...) \
	hgm_scheme symbol = { \
		.abi = HGM_ABI, .size = sizeof(hgm_scheme), .needs = HGM_NEEDS, .quirks = HGM_QUIRKS, \
		.leaf_install = hgm_leaf_install, .leaf_remove = hgm_leaf_remove, .page_mapcount = hgm_page_mapcount, \
		.answer_folio = hgm_answer_folio, .table_add = hgm_table_add, .table_free = hgm_table_free, \
		.subtree_zapped = hgm_subtree_zapped, .kill = hgm_kill, __VA_ARGS__ \
	}

#endif

/* Nonzero: the engine leaves its loops. Only reactions that are called through a table can fail. */
#ifndef HGM_STOPPED
#define HGM_STOPPED 0
#endif

#endif

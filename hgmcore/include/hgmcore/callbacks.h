/*
 * callbacks.h: the scheme of the one engine that calls reactions through a table (hgm_scheme). What other engines know
 * when they are compiled, needs and quirks, is here read from the table of the machine that this thread runs.
 */
#ifndef HGMCORE_CALLBACKS_H
#define HGMCORE_CALLBACKS_H

#define HGM_CALLBACKS
#define HGM_NEEDS (hgm_now->needs)
#define HGM_QUIRKS (hgm_now->quirks)
#define HGM_STOPPED (hgm_now->failed != 0)

#include "hgmcore/scheme.h"

/* No scheme: what a thread that runs no machine would call. */
static hgm_scheme hgm_no_scheme;

/* The table of the machine that this thread runs. */
static __thread hgm_scheme *hgm_now __attribute__((tls_model("initial-exec"))) = &hgm_no_scheme;

/* A reaction that answers what no answer can be. */
static __attribute__((noinline, cold)) void hgm_nonsense(hgm_scheme *s, const char *reaction, const char *why)
{
	if (!s->failed)
		s->failed = why;
	if (!s->failed_in)
		s->failed_in = reaction;
}

/* After a call: nothing was said against it, and the answer is one. The reason, where it is none, is a constant. */
#define hgm_obeyed(s, reaction, holds, why) \
	do { \
		if (__builtin_expect(!(holds) || (s)->failed, 0)) \
			hgm_nonsense(s, reaction, why); \
	} while (0)

HGM_INLINE int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	hgm_scheme *s = options->scheme;
	int answer;

	if (__builtin_expect(s->failed != 0, 0))
		return 0;
	answer = s->leaf_install(cost, options, leaf);
	hgm_obeyed(s, "leaf_install", !(answer & ~(HGM_KEEPS | HGM_COUNTS)),
		   "its answer is not 0, HGM_KEEPS, HGM_COUNTS or both");
	return answer;
}

HGM_INLINE void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	hgm_scheme *s = options->scheme;

	if (__builtin_expect(s->failed != 0, 0))
		return;
	s->leaf_remove(cost, options, leaf);
	hgm_obeyed(s, "leaf_remove", 1, "");
}

HGM_INLINE int hgm_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	hgm_scheme *s = options->scheme;
	int answer;

	if (!(s->needs & HGM_NEEDS_TABLES) || s->failed)
		return 0;
	answer = s->table_add(cost, options, subtree);
	hgm_obeyed(s, "table_add", !(answer & ~1), "its answer is not 0 or 1");
	return answer;
}

HGM_INLINE void hgm_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	hgm_scheme *s = options->scheme;

	if (!(s->needs & HGM_NEEDS_TABLES) || s->failed)
		return;
	s->table_free(cost, options, subtree);
	hgm_obeyed(s, "table_free", 1, "");
}

HGM_INLINE int hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	hgm_scheme *s = options->scheme;
	int answer;

	if (!(s->needs & HGM_NEEDS_ZAPS) || s->failed)
		return 0;
	answer = s->subtree_zapped(cost, options, subtree);
	hgm_obeyed(s, "subtree_zapped", !(answer & ~1), "its answer is not 0 or 1");
	return answer;
}

HGM_INLINE void hgm_kill(hgm_cost *cost, const hgm_options *options, hgm_folio *folio)
{
	hgm_scheme *s = options->scheme;

	if (!(s->needs & HGM_NEEDS_KILL) || s->failed)
		return;
	s->kill(cost, options, folio);
	hgm_obeyed(s, "kill", 1, "");
}

HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page)
{
	hgm_scheme *s = options->scheme;
	int64_t count;

	if (__builtin_expect(s->failed != 0, 0))
		return 0;
	count = s->page_mapcount(options, folio, page);
	hgm_obeyed(s, "page_mapcount", count <= INT32_MAX && count >= INT32_MIN, "its answer is no count of 32 bits");
	return count;
}

HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer)
{
	hgm_scheme *s = options->scheme;

	if (__builtin_expect(s->failed != 0, 0))
		return;
	s->answer_folio(options, folio, answer);
	hgm_obeyed(s, "answer_folio", answer->mapcount <= INT32_MAX && answer->mapcount >= INT32_MIN
		   && answer->refs <= INT32_MAX && answer->refs >= INT32_MIN && !(answer->mapped & ~1)
		   && answer->maybe_shared >= -1 && answer->maybe_shared <= 1,
		   "an answer is out of its range (counts: 32 bits; mapped: 0 or 1; maybe_shared: -1, 0 or 1)");
}

#endif

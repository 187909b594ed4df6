/*
 * told.h: how the engine calls a scheme. An engine that is compiled with HGM_COUNTING counts the calls that change a
 * count (events.h: step, stat, split_deferred); all others call the scheme's functions themselves.
 */
#ifndef HGMCORE_TOLD_H
#define HGMCORE_TOLD_H

#include "hgmcore/scheme.h"

#ifdef HGM_COUNTING

/* Is a folio mapped at all, or where the scheme counts for each base page, as a whole? */
HGM_ELSEWHERE int hgm_told_mapped(const hgm_options *options, const hgm_folio *folio)
{
	hgm_answer answer = {0, -1, -1, -1, 0, -1};

	if (folio->nr_pages == 1)
		return 0;
	if ((HGM_NEEDS) & HGM_NEEDS_TAILS)
		return folio->page[1]._entire_mapcount != 0;
	hgm_answer_folio(options, folio, &answer);
	return answer.mapped;
}

/* Is it mapped in part: some base pages, not all, and never as a whole? By the scheme's counts. */
HGM_ELSEWHERE int hgm_told_in_part(const hgm_options *options, const hgm_folio *folio)
{
	hgm_answer answer = {0, -1, -1, -1, 0, -1};
	uint64_t i, mapped = 0;
	int32_t entire = folio->page[1]._entire_mapcount;

	if ((HGM_NEEDS) & HGM_NEEDS_TAILS) {
		for (i = 0; i < folio->nr_pages; i++)
			mapped += folio->page[i]._mapcount != 0;
		return mapped > 0 && mapped < folio->nr_pages && entire == 0;
	}
	hgm_answer_folio(options, folio, &answer);
	/* where the word is the folio's map count, pieces count in it too */
	return answer.mapcount > 0 && answer.mapcount < (int64_t)folio->nr_pages && (entire == 0 || entire == answer.mapcount);
}

/*
 * Did NR_FILE_MAPPED or NR_ANON_MAPPED change, as the count of a base page or of the whole left or reached 0? Not where the
 * folio stayed mapped as a whole, nor where that came or went while each base page was mapped by itself. was_whole: before.
 */
HGM_ELSEWHERE int hgm_told_edge(const hgm_folio *folio, int was_whole, int is_whole, int edge)
{
	if (folio->nr_pages == 1 || was_whole != is_whole)
		return edge && (folio->nr_pages == 1 || (folio->page[1]._nr_pages_mapped & 0x7fffff) != (int64_t)folio->nr_pages);
	return edge && !is_whole;
}

/* A scheme is about to be told of `folio`. looks_up: the operation looked it up for this. Was it mapped? */
HGM_ELSEWHERE int hgm_count_begin(const hgm_options *options, const hgm_folio *folio, int looks_up)
{
	hgm_events *e = hgm_events_now;

	e->told = 1;
	e->looks_up = (uint8_t)looks_up;
	e->changed = e->edge = 0;
	return folio && e->kinds[folio->file] && hgm_told_mapped(options, folio);
}

HGM_INLINE int hgm_told_begin(const hgm_options *options, const hgm_folio *folio, int looks_up)
{
	return HGM_EVENTS_WANTED ? hgm_count_begin(options, folio, looks_up) : 0;
}

HGM_ELSEWHERE void hgm_count_end(const hgm_options *options, const hgm_folio *folio, int was_mapped, int removes)
{
	hgm_events *e = hgm_events_now;
	hgm_line *line;
	int in_part;

	e->told = e->looks_up = 0;
	e->counts.step += e->changed;
	if (!folio || !e->changed || !e->kinds[folio->file])
		return;
	if ((HGM_NEEDS) & HGM_NEEDS_TAILS || folio->nr_pages == 1)
		e->counts.stat += hgm_told_edge(folio, was_mapped, hgm_told_mapped(options, folio), e->edge);
	else
		e->counts.stat += was_mapped != hgm_told_mapped(options, folio);
	line = &e->lines[folio->page - e->pages];
	if (e->kinds[folio->file] != HGM_ANON_STATISTIC || folio->nr_pages == 1 || (!removes && !line->deferred))
		return;
	in_part = hgm_told_in_part(options, folio);
	if (removes && in_part && !line->deferred) {
		e->counts.split_deferred++;
		line->deferred = 1;
	}
	if (!removes && !in_part)
		line->deferred = 0;
}

HGM_INLINE void hgm_told_run(const hgm_leaf *leaf)
{
	if (HGM_EVENTS_WANTED)
		hgm_events_now->counts.batched += leaf->count > 1;
}

HGM_INLINE void hgm_told_end(const hgm_options *options, const hgm_folio *folio, int was_mapped, int removes)
{
	if (HGM_EVENTS_WANTED)
		hgm_count_end(options, folio, was_mapped, removes);
}

HGM_INLINE int hgm_tell_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	int was = hgm_told_begin(options, leaf->folio, leaf->origin == HGM_BY_CONTINUE || leaf->origin == HGM_BY_FAULT);
	int answer = hgm_leaf_install(cost, options, leaf);

	hgm_told_run(leaf);
	hgm_told_end(options, leaf->folio, was, 0);
	return answer;
}

HGM_INLINE void hgm_tell_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	int was = hgm_told_begin(options, leaf->folio, 0);

	hgm_leaf_remove(cost, options, leaf);
	hgm_told_run(leaf);
	hgm_told_end(options, leaf->folio, was, 1);
}

HGM_INLINE int hgm_tell_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	int was = hgm_told_begin(options, subtree->folio, 0);
	int answer = hgm_table_add(cost, options, subtree);

	hgm_told_end(options, subtree->folio, was, 0);
	return answer;
}

HGM_INLINE void hgm_tell_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	int was = hgm_told_begin(options, subtree->folio, 0);

	hgm_table_free(cost, options, subtree);
	hgm_told_end(options, subtree->folio, was, 1);
}

HGM_INLINE int hgm_tell_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{
	int was = hgm_told_begin(options, subtree->folio, 0);
	int answer = hgm_subtree_zapped(cost, options, subtree);

	hgm_told_end(options, subtree->folio, was, 1);
	return answer;
}

HGM_INLINE void hgm_tell_kill(hgm_cost *cost, const hgm_options *options, hgm_folio *folio)
{
	int was = hgm_told_begin(options, folio, 0);

	hgm_kill(cost, options, folio);
	hgm_told_end(options, folio, was, 1);
}

#else

HGM_INLINE int hgm_told_begin(const hgm_options *options, const hgm_folio *folio, int looks_up)
{
	(void)options; (void)folio; (void)looks_up;
	return 0;
}

HGM_INLINE void hgm_told_end(const hgm_options *options, const hgm_folio *folio, int was_mapped, int removes)
{
	(void)options; (void)folio; (void)was_mapped; (void)removes;
}

#define hgm_tell_leaf_install hgm_leaf_install
#define hgm_tell_leaf_remove hgm_leaf_remove
#define hgm_tell_table_add hgm_table_add
#define hgm_tell_table_free hgm_table_free
#define hgm_tell_subtree_zapped hgm_subtree_zapped
#define hgm_tell_kill hgm_kill

#endif
#endif

/*
 * A scheme in C whose reactions hgmcore calls through a table: one map for each leaf, as head_per_leaf, and in the
 * private word of page 1 how many leaves there were at most. examples/own_scheme_c.py compiles it by itself, without
 * Cython:
 *
 *     cc -O2 -shared -fPIC -I"$(python -c 'import hgmcore; print(hgmcore.get_include())')" own_scheme.c -o
 * own_scheme.so
 */
#define HGM_NEEDS 0

#include "hgmcore/scheme.h"

HGM_INLINE int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	hgm_page *page = &leaf->folio->page[1];
	int32_t now;

	(void)options;
	hgm_ref_add(cost, leaf->folio, (int32_t)leaf->count);
	now = hgm_map_add(cost, page, &page->_entire_mapcount, (int32_t)leaf->count);
	if (now > 0 && (uint64_t)now > page->private_)
		page->private_ = (uint64_t)now;
	return HGM_KEEPS;
}

HGM_INLINE void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{
	hgm_page *page = &leaf->folio->page[1];

	(void)options;
	hgm_map_add(cost, page, &page->_entire_mapcount, -(int32_t)leaf->count);
	hgm_ref_add(cost, leaf->folio, -(int32_t)leaf->count);
}

HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page)
{
	(void)options; (void)page;
	return folio->page[1]._entire_mapcount;
}

HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer)
{
	(void)options;
	answer->mapcount = folio->page[1]._entire_mapcount;
	answer->mapped = answer->mapcount > 0;
}

HGM_SCHEME(own_scheme, .name = "most_leaves", .explanation = "One map for each leaf, and the most that there were",
	   .state = "compound=_entire_mapcount most=private",
	   .exceptions = "never_false_shared=definition page_counts_equal_truth=definition moved_when_private=fault "
			 "overflow_safe=fault");

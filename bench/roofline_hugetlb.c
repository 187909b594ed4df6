/*
 * The roofline of hugetlb, which maps whole huge pages or nothing: its leaves are of 2M, each of a huge page of its
 * own, with a reference on the head and a map in page 1. Tables of PMDs stand one behind the other, from number 1 on;
 * a child's are spare ones.
 */
#include "roofline.h"

HGM_INLINE void count_whole(const world *w, uint64_t pfn, int32_t by)
{
	add(&w->page[pfn]._refcount, by);
	add(&w->page[pfn + 1]._entire_mapcount, by);
}

HGM_INLINE void expect_whole(const world *w, uint64_t pfn)
{
	__builtin_prefetch(&w->page[pfn], 1);
	__builtin_prefetch(&w->page[pfn + 1], 1);
}

static uint64_t whole_continues(world *w, const hgm_operation *ops, uint64_t n)
{
	uint64_t *pmd = w->tables + ENTRIES, done = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = ops[i].offset >> 21;

		if (i + AHEAD < n)
			expect_whole(w, w->cache[ops[i + AHEAD].offset >> 21]);
		if (ops[i].op != HGM_OP_CONTINUE || ops[i].target || ops[i].length != 1 << 21 || pmd[at]) {
			refuse(w, i, 17);
			continue;
		}
		pmd[at] = LEAF(w->cache[at]);
		count_whole(w, w->cache[at], 1);
		done++;
	}
	return done;
}

static uint64_t whole_fill(world *w, uint64_t n)
{
	uint64_t *pmd = w->tables + ENTRIES, i;

	for (i = 0; i < n && !pmd[i]; i++) {
		expect_whole(w, w->cache[i + AHEAD < n ? i + AHEAD : i]);
		pmd[i] = LEAF(w->cache[i]);
		count_whole(w, w->cache[i], 1);
	}
	return i;
}

static uint64_t whole_zap(world *w, uint64_t n)
{
	uint64_t *pmd = w->tables + ENTRIES, i;

	for (i = 0; i < n && IS_LEAF(pmd[i]); i++) {
		uint64_t pfn = FRAME(pmd[i]);

		expect_whole(w, FRAME(pmd[i + AHEAD < n ? i + AHEAD : i]));
		pmd[i] = 0;
		count_whole(w, pfn, -1);
	}
	return i;
}

static uint64_t whole_copy(world *w, uint64_t n)
{
	uint64_t *pmd = w->tables + ENTRIES, *child = 0, i;

	for (i = 0; i < n && IS_LEAF(pmd[i]); i++) {
		if (i % ENTRIES == 0)
			child = table(w, table_get(w));
		expect_whole(w, FRAME(pmd[i + AHEAD < n ? i + AHEAD : i]));
		child[i % ENTRIES] = pmd[i];
		count_whole(w, FRAME(pmd[i]), 1);
	}
	return i;
}

/* For FILL, DONTNEED, MUNMAP and FORK `n` is the number of huge pages. */
uint64_t hugetlb(world *w, int work, const hgm_operation *ops, uint64_t n)
{
	uint64_t start = now(), done = 0;

	switch (work) {
	case CONTINUE: case CONTINUE_REAL: done = whole_continues(w, ops, n); break;
	case FILL: done = whole_fill(w, n); break;
	case DONTNEED: case MUNMAP: done = whole_zap(w, n); break;
	case FORK: case FORK_BATCHED: done = whole_copy(w, n); break;
	}
	w->ns = now() - start;
	return done;
}

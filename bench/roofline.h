/*
 * Rooflines: what the memory system charges for the least that a work and a scheme demand.
 *
 * Each loop reads the records of operations that hgmcore reads, checks the fields that say what to do, finds each
 * entry through the tables, checks and stores it, does the stores and atomics of the scheme (and its scans), and counts
 * what was done; what failed gets a result. It leaves out everything else: finding process, mapping, VMA and page
 * cache, which are constant here, leaves of other sizes, errors but EEXIST, what is done once for a subtree (its first
 * reference and map, the hstate-level entry), and the simulator's own counts (costs, lines). Struct pages and tables
 * are memory of the same kind as hgmcore's: base pages, there and faulted in before. One loop is hgmcore's own, hgm_fill(),
 * which stores entries side by side. Everything stored is memory that the caller reads back, so the compiler can drop
 * none of it; test_rooflines.py compares what is mapped and counted then with hgmcore's.
 */
#ifndef ROOFLINE_H
#define ROOFLINE_H

#include <stdint.h>
#include <string.h>
#include <time.h>
#include "hgmcore/entries.h"
#include "hgmcore/hgm.h"

#define ENTRIES 512ull
#define AHEAD 16		/* records: where atomics keep misses from overlapping, a prefetch does it */
#define FRAME(entry) ((entry) >> HGM_PTE_FRAME_SHIFT)
#define LEAF(pfn) ((uint64_t)(pfn) << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT | HGM_PTE_LEAF)
#define TABLE(number) ((uint64_t)(number) << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT)
#define IS_LEAF(entry) ((entry) & HGM_PTE_LEAF)

/* Which loop. */
enum { CONTINUE, CONTINUE_REAL, FILL, DONTNEED, MUNMAP, FORK, FORK_BATCHED, COLLAPSE, RANDOM, RANDOM_REAL };

/* A huge page of 1G, the page tables that map it, and spare ones. */
typedef struct world {
	uint64_t *tables;	/* table number n: ENTRIES entries from n * ENTRIES on */
	hgm_ptdesc *descs;
	hgm_page *page;
	hgm_result *results;
	uint64_t nr_results, ns;
	uint64_t pud[2];	/* the entries of the huge page, in parent and child */
	uint64_t free_table;	/* list through the first entry of each spare table */
	uint64_t *cache;	/* hugetlb: the frame of each huge page of 2M, as the page cache has it */
} world;

static inline uint64_t *table(const world *w, uint64_t entry)
{
	return w->tables + FRAME(entry) * ENTRIES;
}

static inline uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline uint64_t table_get(world *w)
{
	uint64_t number = w->free_table;

	w->free_table = w->tables[number * ENTRIES];
	w->tables[number * ENTRIES] = 0;
	return TABLE(number);
}

static inline void table_put(world *w, uint64_t *entry)
{
	*table(w, *entry) = w->free_table;
	w->free_table = FRAME(*entry);
	w->descs[FRAME(*entry)].children = 0;
	*entry = 0;
}

static inline int32_t add(int32_t *word, int32_t by)
{
	return __atomic_add_fetch(word, by, __ATOMIC_RELAXED);
}

static inline void refuse(world *w, uint64_t index, int error)
{
	w->results[w->nr_results++] = (hgm_result){ .index = index, .error = error };
}

#endif

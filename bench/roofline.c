/*
 * Rooflines: what the memory system charges for the least that a scheme must do.
 *
 * Each loop reads the same operation records as hgmcore, checks the fields that say what to do, finds each entry
 * through the same two levels of tables, checks that it is none, stores the leaf, does the stores and atomics
 * that the scheme itself requires, and counts what was done. It leaves out everything else: finding process,
 * mapping, VMA and page cache (all constant here), leaves of other sizes, errors, costs, and making tables,
 * which stand ready and are faulted in. The caller uses what is returned, so no store can be dropped.
 */
#include <stdint.h>
#include "hgmcore/hgm.h"

#define ENTRIES 512
#define PTE(pfn) ((pfn) << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT | HGM_PTE_LEAF)

/* pmd[i] is the address of the i-th table of PTEs; tables are 4 KiB. */
static inline uint64_t *find(uint64_t *const *pmd, uint64_t offset)
{
	return &pmd[offset >> 21][offset >> 12 & (ENTRIES - 1)];
}

/* `n` continues of 4K, one reference and one map on the head for each: head_per_leaf. */
uint64_t continue_per_leaf(const hgm_operation *ops, uint64_t n, uint64_t *const *pmd, hgm_page *page)
{
	uint64_t done = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t *pte = find(pmd, ops[i].offset);

		if (ops[i].op != HGM_OP_CONTINUE || ops[i].length != 4096 || *pte)
			continue;
		*pte = PTE(ops[i].offset >> 12);
		__atomic_add_fetch(&page[0]._refcount, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&page[1]._entire_mapcount, 1, __ATOMIC_RELAXED);
		done++;
	}
	return done;
}

/* `n` continues of 4K, one reference and one map for all of them, a count of children for each: logical_counter. */
uint64_t continue_per_subtree(const hgm_operation *ops, uint64_t n, uint64_t *const *pmd, hgm_page *page,
			      hgm_ptdesc *desc)
{
	uint64_t done = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t *pte = find(pmd, ops[i].offset);
		hgm_ptdesc *table = &desc[1 + (ops[i].offset >> 21)];

		if (ops[i].op != HGM_OP_CONTINUE || ops[i].length != 4096 || *pte)
			continue;
		*pte = PTE(ops[i].offset >> 12);
		if (table->children++ == 0 && desc[0].children++ == 0) {
			__atomic_add_fetch(&page[0]._refcount, 1, __ATOMIC_RELAXED);
			__atomic_add_fetch(&page[1]._entire_mapcount, 1, __ATOMIC_RELAXED);
		}
		done++;
	}
	return done;
}

/* The rooflines of schemes that map a huge page of 1G in pieces. */
#include "roofline.h"

/* What a scheme does for a leaf of one base page. */
enum {
	REF = 1,		/* a reference on the head */
	COMPOUND = 2,		/* a map in page 1 */
	EACH_PAGE = 4,		/* a map on the page itself */
	NR_MAPPED = 8,		/* _nr_pages_mapped, as the page's count leaves or reaches 0 */
	LARGE = 16,		/* _large_mapcount */
	SLOTS = 32,		/* the owner's slot */
	TOTAL = 64,		/* _total_mapped_pages */
	DOUBLE_MAP = 128,	/* a flag in page 1 */
	CHILDREN = 256,		/* a count in the table's descriptor */
	SCAN = 512,		/* an install looks for another leaf */
	SCAN_AFTER = 1024,	/* a removal does */
	LEVELS = 2048,		/* a leaf of 2M counts as one entry, in the word of its level, too */
	SUMS = 4096,		/* two changes of a count of writers, and four sums in page 3 */
	SLOT = 8192,		/* a plain count of this CPU */
	SPARE = 16384,		/* with REF and COMPOUND: a removal leaves up to 8 spares to this CPU, an install takes one */
	NODE = 32768		/* a count of the process */
};

/* Base page `first` is next in a walk in order: a line that an atomic will want has to be on its way before. */
HGM_INLINE void expect(const world *w, int does, uint64_t first)
{
	if (does & EACH_PAGE)
		__builtin_prefetch(&w->page[first + AHEAD], 1);
}

/* Of `n` leaves that come or go, how many are not spares of CPU 0; what it gives back goes with them. */
HGM_INLINE int32_t not_spare(const world *w, int32_t n, int32_t by)
{
	int32_t *spares = &w->page[2]._slot[0], take;

	if (by > 0) {
		take = n < *spares ? n : *spares;
		*spares -= take;
		return n - take;
	}
	*spares += n;
	take = *spares > 8 ? *spares : 0;
	*spares -= take;
	return take;
}

/* Four sums of the numbers of process 1 or 2, whose only digit is in the first. */
HGM_INLINE void sums(const world *w, int64_t maps, uint32_t process)
{
	hgm_page *page3 = &w->page[3];

	add(&w->page[1]._rmap_atomic_seqcount, 1);
	__atomic_add_fetch(&page3->_rmap_val0, maps * (process == 1 ? 1 : (int64_t)ENTRIES * ENTRIES + 1), __ATOMIC_RELAXED);
	__atomic_add_fetch(&page3->_rmap_val1, maps * 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&page3->_rmap_val2, maps * 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&page3->_rmap_val3, maps * 0, __ATOMIC_RELAXED);
	add(&w->page[1]._rmap_atomic_seqcount, -1);
}

/* The counts of `n` leaves of `size` base pages each, from base page `first` on; `by` is 1 or -1. */
HGM_INLINE void count(const world *w, int does, uint64_t first, int32_t n, int32_t size, int32_t by, uint32_t process)
{
	hgm_page *page1 = &w->page[1];
	int32_t edges = 0, pmds = does & LEVELS ? size / 512 : 0;
	int32_t maps = n * by * (does & TOTAL ? 1 : pmds ? pmds : size);
	int32_t shared = does & SPARE ? not_spare(w, n, by) : n;

	if (does & REF && shared)
		add(&w->page[0]._refcount, shared * by);
	if (does & COMPOUND && shared)
		add(&page1->_entire_mapcount, shared * by);
	if (does & SLOT)
		w->page[2]._slot[0] += n * by;
	if (does & NODE)
		add(&w->page[1 + process]._slot[0], n * by);
	if (does & SUMS)
		sums(w, maps, process);
	if (does & EACH_PAGE)
		for (uint64_t i = first; i < first + n * size; i++) {
			if (n * size > 1)
				expect(w, does, i);
			if (add(&w->page[i]._mapcount, by) == (by > 0)) {
				if (does & NR_MAPPED && n == 1)
					add(&page1->_nr_pages_mapped, by);
				edges++;
			}
		}
	if (does & NR_MAPPED && n > 1 && edges)	/* of a run at once */
		add(&page1->_nr_pages_mapped, edges * by);
	if (pmds)
		add(&page1->_entire_mapcount, n * by * pmds);
	if (does & LARGE)
		add(&page1->_large_mapcount, maps);
	if (does & SLOTS)
		page1->_mm_id_mapcount[page1->_mm_id[0] == process ? 0 : 1] += maps;
	if (does & TOTAL)
		page1->_total_mapped_pages += n * size * by;
	if (does & DOUBLE_MAP && by > 0 && !(page1->flags & HGM_PAGE_DOUBLE_MAP))
		page1->flags |= HGM_PAGE_DOUBLE_MAP;
}

/* Is there a leaf below the table that `entry` points to? Reads up to the first one. */
static inline int find_leaf(const world *w, uint64_t entry)
{
	const uint64_t *pmd = table(w, entry);

	for (uint64_t i = 0; i < ENTRIES; i++) {
		const uint64_t *pte;

		if (!pmd[i])
			continue;
		pte = table(w, pmd[i]);
		for (uint64_t j = 0; j < ENTRIES; j += 8) {
			uint64_t any = 0;

			for (int k = 0; k < 8; k++)
				any |= pte[j + k];
			if (any)
				return 1;
		}
	}
	return 0;
}

/* What one continue of 4K demands besides its entry; the first of a table counts in the table above. */
HGM_INLINE void continued(world *w, int does, int real, uint64_t first, uint32_t children)
{
	if (does & CHILDREN && children == 0)
		w->descs[FRAME(w->pud[0])].children++;
	count(w, does, first, 1, 1, 1, 1);
	if (real && !(does & REF)) {
		add(&w->page[0]._refcount, 1);
		add(&w->page[0]._refcount, -1);
	}
}

/* Is it a continue of 4K? */
HGM_INLINE int continues_4k(const hgm_operation *op)
{
	return op->op == HGM_OP_CONTINUE && !op->target && op->length == 4096;
}

/* `n` continues of 4K, mostly in order: the place and the count of a table are in registers while they stay in it. */
HGM_INLINE uint64_t continues(world *w, const hgm_operation *ops, uint64_t n, int does, int real)
{
	uint64_t *pmd = table(w, w->pud[0]);
	uint64_t i = 0;

	while (i < n) {
		uint64_t start = ops[i].offset & ~0x1fffffull, entry = pmd[start >> 21 & (ENTRIES - 1)];
		uint64_t *pte = table(w, entry);
		uint32_t children = does & CHILDREN ? w->descs[FRAME(entry)].children : 0;

		if (ops[i].offset & ~0x3ffff000ull || (entry & (HGM_PTE_PRESENT | HGM_PTE_LEAF)) != HGM_PTE_PRESENT) {
			refuse(w, i++, 14);
			continue;
		}
		for (; i < n; i++) {
			uint64_t offset = ops[i].offset - start;

			if (offset & ~0x1ff000ull)
				break;
			if (does & EACH_PAGE && i + AHEAD < n)
				__builtin_prefetch(&w->page[ops[i + AHEAD].offset >> 12], 1);
			if (!continues_4k(&ops[i]) || pte[offset >> 12]) {
				refuse(w, i, 17);
				continue;
			}
			if (does & SCAN && !find_leaf(w, w->pud[0]))
				add(&w->page[0]._refcount, 1);
			pte[offset >> 12] = LEAF((start + offset) >> 12);
			continued(w, does, real, (start + offset) >> 12, children++);
		}
		if (does & CHILDREN)
			w->descs[FRAME(entry)].children = children;
	}
	return n - w->nr_results;
}

/* `n` continues of 4K in any order: each finds its table anew. */
HGM_INLINE uint64_t continues_at_random(world *w, const hgm_operation *ops, uint64_t n, int does, int real)
{
	uint64_t *pmd = table(w, w->pud[0]);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t offset = ops[i].offset, entry = pmd[offset >> 21 & (ENTRIES - 1)];
		uint64_t *pte = table(w, entry) + (offset >> 12 & (ENTRIES - 1));

		if (i + AHEAD < n) {
			uint64_t ahead = ops[i + AHEAD].offset;

			if (does & EACH_PAGE)
				__builtin_prefetch(&w->page[ahead >> 12], 1);
			__builtin_prefetch(table(w, pmd[ahead >> 21 & (ENTRIES - 1)]) + (ahead >> 12 & (ENTRIES - 1)), 1);
		}
		if (!continues_4k(&ops[i]) || offset & ~0x3ffff000ull
		    || (entry & (HGM_PTE_PRESENT | HGM_PTE_LEAF)) != HGM_PTE_PRESENT || *pte) {
			refuse(w, i, 17);
			continue;
		}
		if (does & SCAN && !find_leaf(w, w->pud[0]))
			add(&w->page[0]._refcount, 1);
		*pte = LEAF(offset >> 12);
		continued(w, does, real, offset >> 12, does & CHILDREN ? w->descs[FRAME(entry)].children++ : 0);
	}
	return n - w->nr_results;
}

/* Passes over the entries of a table in eight lanes, which fill several vector registers. */
#define LANES for (int k = 0; k < 8; k++)

static inline uint64_t any_of(const uint64_t *pte)
{
	uint64_t any[8] = {0};

	for (uint64_t j = 0; j < ENTRIES; j += 8)
		LANES any[k] |= pte[j + k];
	return any[0] | any[1] | any[2] | any[3] | any[4] | any[5] | any[6] | any[7];
}

static inline uint64_t all_of(const uint64_t *pte)
{
	uint64_t all[8];

	LANES all[k] = pte[k];
	for (uint64_t j = 8; j < ENTRIES; j += 8)
		LANES all[k] &= pte[j + k];
	return all[0] & all[1] & all[2] & all[3] & all[4] & all[5] & all[6] & all[7];
}

/* The counts of all leaves of a table, one by one. An atomic waits for stores: those of the entries come first. */
HGM_INLINE void count_each(world *w, int does, uint64_t first, uint32_t process)
{
	for (uint64_t i = first; i < first + ENTRIES; i++) {
		expect(w, does, i);
		count(w, does, i, 1, 1, 1, process);
	}
}

/* One continue over all of it, in leaves of 4K. */
HGM_INLINE uint64_t fill(world *w, int does)
{
	uint64_t *pmd = table(w, w->pud[0]);
	uint64_t done = 0;

	if (does & SCAN && !find_leaf(w, w->pud[0]))
		add(&w->page[0]._refcount, 1);
	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t *pte = table(w, pmd[i]);

		if (any_of(pte))
			break;
		hgm_fill(pte, ENTRIES, LEAF(i * ENTRIES), 1 << HGM_PTE_FRAME_SHIFT);
		count_each(w, does, i * ENTRIES, 1);
		if (does & CHILDREN) {
			w->descs[FRAME(pmd[i])].children += ENTRIES;
			w->descs[FRAME(w->pud[0])].children++;
		}
		done += ENTRIES;
	}
	return done;
}

/* Remove all leaves; free the tables if told to. */
HGM_INLINE uint64_t zap(world *w, int does, int free_tables)
{
	uint64_t *pmd = table(w, w->pud[0]);
	uint64_t done = 0;

	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t *pte = table(w, pmd[i]);
		uint64_t removed = 0;

		for (uint64_t j = 0; j < ENTRIES; j++) {
			uint64_t entry = pte[j];

			expect(w, does, i * ENTRIES + j);
			pte[j] = 0;
			removed += entry >> 7 & 1;
			if (IS_LEAF(entry))
				count(w, does, FRAME(entry), 1, 1, -1, 1);
		}
		if (does & CHILDREN && removed) {
			w->descs[FRAME(pmd[i])].children -= removed;
			w->descs[FRAME(w->pud[0])].children--;
		}
		done += removed;
	}
	if (does & SCAN_AFTER && !find_leaf(w, w->pud[0]))
		add(&w->page[1]._entire_mapcount, -1);
	if (free_tables) {
		for (uint64_t i = 0; i < ENTRIES; i++)
			table_put(w, &pmd[i]);
		table_put(w, &w->pud[0]);
	}
	return done;
}

/* Copy all leaves into a child; with `batch` counted a table at a time. */
HGM_INLINE uint64_t copy(world *w, int does, int batch)
{
	uint64_t *pmd = table(w, w->pud[0]);
	uint64_t *child_pmd;
	uint64_t done = 0;

	w->pud[1] = table_get(w);
	child_pmd = table(w, w->pud[1]);
	for (uint64_t i = 0; i < ENTRIES; i++) {
		uint64_t *pte = table(w, pmd[i]), *child;

		if (!(all_of(pte) & HGM_PTE_LEAF))
			break;
		child_pmd[i] = table_get(w);
		child = table(w, child_pmd[i]);
		memcpy(child, pte, ENTRIES * sizeof(*pte));
		if (batch)
			count(w, does, i * ENTRIES, ENTRIES, 1, 1, 2);
		else
			count_each(w, does, i * ENTRIES, 2);
		if (does & CHILDREN) {
			w->descs[FRAME(child_pmd[i])].children += ENTRIES;
			w->descs[FRAME(w->pud[1])].children++;
		}
		done += ENTRIES;
	}
	return done;
}

/* Remove the leaves below `entry`, and the table. */
HGM_INLINE uint64_t unmap(world *w, uint64_t *entry, int does)
{
	uint64_t *pte = table(w, *entry);
	uint64_t removed = 0;

	for (uint64_t j = 0; j < ENTRIES; j++) {
		uint64_t old = pte[j];

		expect(w, does, FRAME(old));
		pte[j] = 0;
		removed += old >> 7 & 1;
		if (IS_LEAF(old))
			count(w, does, FRAME(old), 1, 1, -1, 1);
	}
	table_put(w, entry);
	return removed;
}

/* Collapses of 2M, then one of 1G. */
HGM_INLINE uint64_t collapse(world *w, const hgm_operation *ops, uint64_t n, int does)
{
	uint64_t *pmd = table(w, w->pud[0]);
	uint64_t done = 0;

	for (uint64_t i = 0; i < n && ops[i].length == 1 << 21; i++) {
		uint64_t *entry = &pmd[ops[i].offset >> 21 & (ENTRIES - 1)], first = ops[i].offset >> 12;

		done += unmap(w, entry, does);
		*entry = LEAF(first);
		count(w, does, first, 1, ENTRIES, 1, 1);
	}
	for (uint64_t i = 0; i < ENTRIES; i++) {
		if (IS_LEAF(pmd[i])) {
			count(w, does, FRAME(pmd[i]), 1, ENTRIES, -1, 1);
			pmd[i] = 0;
		} else {
			done += unmap(w, &pmd[i], does);
		}
	}
	table_put(w, &w->pud[0]);
	w->pud[0] = LEAF(0);
	if (does & DOUBLE_MAP)	/* a whole leaf counts on every page */
		count(w, REF | EACH_PAGE, 0, 1, ENTRIES * ENTRIES, 1, 1);
	else
		count(w, does & ~(EACH_PAGE | NR_MAPPED), 0, 1, 1, 1, 1);
	if (does & LEVELS)	/* a PUD entry */
		add(&w->page[1]._nr_pages_mapped, 1);
	return done;
}

/* The leaves of all tables: the one pass that a recount cannot do without. */
uint64_t recount(world *w)
{
	const uint64_t *pmd = table(w, w->pud[0]);
	uint64_t leaves = 0;

	for (uint64_t i = 0; i < ENTRIES; i++) {
		const uint64_t *pte = table(w, pmd[i]);

		for (uint64_t j = 0; j < ENTRIES; j++)
			leaves += pte[j] & pte[j] >> 7 & 1;	/* present, and a leaf */
	}
	return leaves;
}

/* All loops of one scheme, and what it does for a leaf. Returns leaves done; the time is in w->ns. */
#define SCHEME(name, does)								\
const int name##_does = does;								\
											\
uint64_t name(world *w, int work, const hgm_operation *ops, uint64_t n)			\
{											\
	uint64_t start = now(), done = 0;						\
											\
	switch (work) {									\
	case CONTINUE: done = continues(w, ops, n, does, 0); break;			\
	case CONTINUE_REAL: done = continues(w, ops, n, does, 1); break;		\
	case RANDOM: done = continues_at_random(w, ops, n, does, 0); break;		\
	case RANDOM_REAL: done = continues_at_random(w, ops, n, does, 1); break;	\
	case FILL: done = fill(w, does); break;						\
	case DONTNEED: done = zap(w, does, 0); break;					\
	case MUNMAP: done = zap(w, does, 1); break;					\
	case FORK: done = copy(w, does, 0); break;					\
	case FORK_BATCHED: done = copy(w, does, 1); break;				\
	case COLLAPSE: done = collapse(w, ops, n, does); break;				\
	}										\
	w->ns = now() - start;								\
	return done;									\
}

SCHEME(head_per_leaf, REF | COMPOUND)
SCHEME(per_page_posted, REF | EACH_PAGE)
SCHEME(nr_pages_mapped, REF | EACH_PAGE | NR_MAPPED)
SCHEME(subtree_posted, REF)
SCHEME(subtree, REF)
SCHEME(logical_scan, SCAN)
SCHEME(logical_table, 0)
SCHEME(logical_counter, CHILDREN)
SCHEME(double_map, REF | EACH_PAGE | DOUBLE_MAP)
SCHEME(large_mapcount, REF | EACH_PAGE | NR_MAPPED | LARGE)
SCHEME(rmap_id, REF | EACH_PAGE | NR_MAPPED | LARGE | SUMS)
SCHEME(mm_id, REF | EACH_PAGE | NR_MAPPED | LARGE | SLOTS)
SCHEME(no_page_mapcount, REF | LARGE | SLOTS)
SCHEME(pmd_pud_mapcount, REF | LARGE | SLOTS | LEVELS)
SCHEME(total_mapped_pages, REF | LARGE | SLOTS | TOTAL)
SCHEME(leaf_and_vma, REF | COMPOUND | SCAN)
SCHEME(per_vma, REF | SCAN | SCAN_AFTER)
SCHEME(special_bit, 0)
SCHEME(percpu_counter, REF | SLOT)
SCHEME(sloppy_counter, REF | COMPOUND | SPARE)
SCHEME(percpu_ref, SLOT)
SCHEME(snzi, NODE)

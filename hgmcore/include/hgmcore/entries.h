/*
 * entries.h: loops over page-table entries, written so that a compiler takes several entries at a time.
 */
#ifndef HGMCORE_ENTRIES_H
#define HGMCORE_ENTRIES_H

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include "hgmcore/hgm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory that is written soon. */
HGM_INLINE void hgm_prefetch(const void *address)
{
	__builtin_prefetch(address, 1);
	__asm__ __volatile__("");	/* an effect: else the compiler drops a call of a function that does nothing but this */
}

/* The entries of a table, at an address that the compiler works out here and not anew for each entry in a loop. */
HGM_INLINE uint64_t *hgm_settled(uint64_t *entries)
{
	__asm__("" : "+r"(entries));
	return entries;
}

/* Two entries that are loaded or stored at once, wherever they stand. */
typedef uint64_t hgm_two __attribute__((vector_size(16), aligned(8), may_alias));

/* Entries that are looked at together: enough for the compiler to take several in one register. */
#define HGM_BLOCK 64

/* What is set in any of `n` entries, a multiple of 8. Like the loop below in steps that fill several vector registers. */
HGM_INLINE uint64_t hgm_any(const uint64_t *entries, int n)
{
	uint64_t any[8] = {0};
	int i, k;

	for (i = 0; i < n; i += 8)
		for (k = 0; k < 8; k++)
			any[k] |= entries[i + k];
	return any[0] | any[1] | any[2] | any[3] | any[4] | any[5] | any[6] | any[7];
}

/* Store `value`, `value` + `step`, `value` + 2 * `step`, .. in `n` entries. */
HGM_INLINE void hgm_fill(uint64_t *entries, uint64_t n, uint64_t value, uint64_t step)
{
	hgm_two next = {value, value + step};
	int k;

	for (; n >= 8; n -= 8, entries += 8)
		for (k = 0; k < 8; k += 2, next += 2 * step)
			*(hgm_two *)(entries + k) = next;
	for (value = next[0]; n; n--, value += step)
		*entries++ = value;
}

/*
 * The first of `n` entries, from number `i` on, that has one of `bits` set; `n`: there is none such. Not inlined: a loop
 * around it has better uses for the registers.
 */
static __attribute__((noinline, unused)) uint64_t hgm_find(const uint64_t *entries, uint64_t i, uint64_t n, uint64_t bits)
{
	uint64_t start = i;

	if (i + 8 <= n && !(hgm_any(entries + i, 8) & bits)) {
		for (i += 8; i + HGM_BLOCK <= n && !(hgm_any(entries + i, HGM_BLOCK) & bits); i += HGM_BLOCK)
			;
		/* what is left is less than a block: one that ends with it */
		if (i + HGM_BLOCK > n && start + HGM_BLOCK <= n && !(hgm_any(entries + n - HGM_BLOCK, HGM_BLOCK) & bits))
			return n;
		for (; i + 8 <= n && !(hgm_any(entries + i, 8) & bits); i += 8)
			;
	}
	while (i < n && !(entries[i] & bits))
		i++;
	return i;
}

/* The first of `n` entries, from number `i` on, that is not none; `n`: there is none such. */
HGM_INLINE uint64_t hgm_next_entry(const uint64_t *entries, uint64_t i, uint64_t n)
{
	return i < n && !entries[i] ? hgm_find(entries, i, n, ~0ull) : i;
}

/* Which of eight entries are leaves: a bit for each. */
HGM_INLINE unsigned hgm_leaves(const uint64_t *entries)
{
	unsigned leaves = 0;
	int k;

#ifdef __SSE2__
	for (k = 0; k < 4; k++) {	/* the bit of a leaf where a sign is */
		__m128i two = _mm_slli_epi64(_mm_loadu_si128((const __m128i *)entries + k), 56);

		leaves |= (unsigned)_mm_movemask_pd(_mm_castsi128_pd(two)) << 2 * k;
	}
#else
	for (k = 0; k < 8; k++)
		leaves |= (unsigned)(entries[k] >> 7 & 1) << k;
#endif
	return leaves;
}

/* The first of `n` entries, eight at least, that is a leaf; `n`: there is none. Most often it is one of the first. */
HGM_INLINE uint64_t hgm_first_leaf(const uint64_t *entries, uint64_t n)
{
	unsigned leaves;

	if (entries[0] & HGM_PTE_LEAF)
		return 0;
	leaves = hgm_leaves(entries);
	return leaves ? (uint64_t)__builtin_ctz(leaves) : hgm_find(entries, 8, n, HGM_PTE_LEAF);
}

/* How many of `n` entries, from the first on, are leaves of one entry each. */
HGM_INLINE uint64_t hgm_leaf_run(const uint64_t *entries, uint64_t n)
{
	uint64_t i, j, k, other[8];

	for (i = 0; i + HGM_BLOCK <= n; i += HGM_BLOCK) {
		for (k = 0; k < 8; k++)
			other[k] = 0;
		for (j = i; j < i + HGM_BLOCK; j += 8)
			for (k = 0; k < 8; k++)
				other[k] |= entries[j + k] ^ HGM_PTE_LEAF;
		if (hgm_any(other, 8) & (HGM_PTE_LEAF | HGM_PTE_GROUP))
			break;
	}
	while (i < n && (entries[i] & (HGM_PTE_LEAF | HGM_PTE_GROUP)) == HGM_PTE_LEAF)
		i++;
	return i;
}

/*
 * Copy such leaves to entries that are none. Returns how many there are; without `groups` there are no other leaves.
 * Not inlined, as hgm_find.
 */
static __attribute__((noinline, unused)) uint64_t hgm_copy_run(uint64_t *to, const uint64_t *entries, uint64_t n, int groups)
{
	const hgm_two leaf = {HGM_PTE_LEAF, HGM_PTE_LEAF}, group = {HGM_PTE_GROUP, HGM_PTE_GROUP};
	uint64_t i, j;

	for (i = 0; i + HGM_BLOCK <= n; i += HGM_BLOCK) {
		hgm_two all = leaf, any = {0, 0};

		for (j = i; j < i + HGM_BLOCK; j += 2) {
			hgm_two entry = *(const hgm_two *)(entries + j);

			*(hgm_two *)(to + j) = entry;
			all &= entry;
			if (groups)
				any |= entry & group;
		}
		if (!(all[0] & all[1]) || any[0] | any[1]) {
			for (j = i; j < i + HGM_BLOCK; j++)
				to[j] = 0;
			break;
		}
	}
	for (; i < n && (entries[i] & (HGM_PTE_LEAF | HGM_PTE_GROUP)) == HGM_PTE_LEAF; i++)
		to[i] = entries[i];
	return i;
}

/* How many of `n` entries, at least one, are the first and those that map the frames behind its own one by one. */
HGM_INLINE uint64_t hgm_frame_run(const uint64_t *entries, uint64_t n)
{
	uint64_t i, k, next = entries[0], other;

	for (i = 0; i + HGM_BLOCK <= n; i += HGM_BLOCK) {
		for (k = 0, other = 0; k < HGM_BLOCK; k++)
			other |= entries[i + k] ^ (next + (k << HGM_PTE_FRAME_SHIFT));
		if (other)
			break;
		next += (uint64_t)HGM_BLOCK << HGM_PTE_FRAME_SHIFT;
	}
	for (; i < n && entries[i] == next; i++)
		next += 1ull << HGM_PTE_FRAME_SHIFT;
	return i;
}

/*
 * Is there a leaf in or below the table that `entries` are, of level 2 or 1? `tables`: where table pages of
 * 1 << index_bits entries begin. Reads entries in ascending order, depth first, up to and including the one that
 * answers, and adds their number to `*scanned`.
 */
HGM_INLINE int hgm_find_leaf(const unsigned char *tables, int index_bits, const uint64_t *entries, uint64_t *scanned)
{
	uint64_t n = 1ull << index_bits, i, j, read = 0;
	const uint64_t *below;

	hgm_cut(HGM_READS, entries);
	for (i = 0; (i = hgm_next_entry(entries, i, n)) < n; i++) {
		if (entries[i] & HGM_PTE_LEAF)
			break;
		if (!(entries[i] & HGM_PTE_PRESENT))
			continue;
		below = (const uint64_t *)(tables + (entries[i] >> HGM_PTE_FRAME_SHIFT << (index_bits + 3)));
		hgm_cut(HGM_READS, below);
		j = hgm_first_leaf(below, n);
		if (j < n) {
			read += j + 1;
			break;
		}
		read += n;
	}
	*scanned += read + (i < n ? i + 1 : n);
	return i < n;
}

#ifdef __cplusplus
}
#endif
#endif

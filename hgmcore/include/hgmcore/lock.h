/*
 * lock.h: how threads that run operations on one machine at the same time keep out of each other's way: spin locks,
 * bits of a word that are locks, and plain atomics that are no part of an accounting scheme and no cost.
 *
 * Who waits spins, and lets others run after a while: there may be more threads than processors.
 */
#ifndef HGMCORE_LOCK_H
#define HGMCORE_LOCK_H

#include <sched.h>
#include "hgmcore/hgm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HGM_SPINS 1000	/* before a thread that waits lets others run */

HGM_INLINE void hgm_wait(unsigned *spins)
{
	if (++*spins % HGM_SPINS == 0)
		sched_yield();
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

HGM_INLINE void hgm_spin_lock(uint32_t *lock)
{
	unsigned spins = 0;

	while (__builtin_expect(__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE), 0))
		while (__atomic_load_n(lock, __ATOMIC_RELAXED))
			hgm_wait(&spins);
}

HGM_INLINE void hgm_spin_unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* Take what one thread at a time may have, without waiting for it. 0: another has it. */
HGM_INLINE int hgm_enter(uint32_t *busy)
{
	return !__atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE);
}

HGM_INLINE void hgm_leave(uint32_t *busy)
{
	__atomic_store_n(busy, 0, __ATOMIC_RELEASE);
}

/* PG_locked in the head page's flags (kernel: folio_lock, folio_unlock: an atomic each). */
HGM_INLINE void hgm_folio_lock(hgm_page *head)
{
	unsigned spins = 0;

	while (__builtin_expect(!!(__atomic_fetch_or(&head->flags, HGM_PAGE_LOCKED, __ATOMIC_ACQUIRE) & HGM_PAGE_LOCKED), 0))
		while (__atomic_load_n(&head->flags, __ATOMIC_RELAXED) & HGM_PAGE_LOCKED)
			hgm_wait(&spins);
}

HGM_INLINE void hgm_folio_unlock(hgm_page *head)
{
	__atomic_fetch_and(&head->flags, ~HGM_PAGE_LOCKED, __ATOMIC_RELEASE);
}

/* The lock of a folio's owners, a bit in its first slot (kernel: FOLIO_MM_IDS_LOCK_BITNUM, a bit spin lock). */
#define HGM_MM_IDS_LOCKED 0x80000000u

HGM_INLINE void hgm_mm_ids_lock(hgm_page *page1)
{
	unsigned spins = 0;

	while (__builtin_expect(__atomic_fetch_or(&page1->_mm_id[0], HGM_MM_IDS_LOCKED, __ATOMIC_ACQUIRE) >> 31, 0))
		while (__atomic_load_n(&page1->_mm_id[0], __ATOMIC_RELAXED) >> 31)
			hgm_wait(&spins);
}

HGM_INLINE void hgm_mm_ids_unlock(hgm_page *page1)
{
	uint32_t word = __atomic_load_n(&page1->_mm_id[0], __ATOMIC_RELAXED);

	__atomic_store_n(&page1->_mm_id[0], word & ~HGM_MM_IDS_LOCKED, __ATOMIC_RELEASE);
}

/* A word of the slots, while a waiter may set the lock bit again that is set. */
HGM_INLINE uint32_t hgm_mm_id_word(const hgm_page *page1, int slot)
{
	return __atomic_load_n(&page1->_mm_id[slot], __ATOMIC_RELAXED);
}

HGM_INLINE void hgm_mm_id_set_word(hgm_page *page1, int slot, uint32_t word)
{
	__atomic_store_n(&page1->_mm_id[slot], word, __ATOMIC_RELAXED);
}

/* Readers of a lock are a count in one word, which is all that they contend for. */
HGM_INLINE void hgm_read_lock(uint32_t *lock)
{
	__atomic_add_fetch(lock, 1, __ATOMIC_ACQUIRE);
}

HGM_INLINE void hgm_read_unlock(uint32_t *lock)
{
	__atomic_sub_fetch(lock, 1, __ATOMIC_RELEASE);
}

/* Wait for `n` threads to come here, but not for ever: one may never come. */
#define HGM_PATIENCE (100 * HGM_SPINS)

HGM_INLINE void hgm_meet(uint32_t *here, uint32_t n)
{
	unsigned spins = 0;

	__atomic_add_fetch(here, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(here, __ATOMIC_RELAXED) < n && spins < HGM_PATIENCE)
		hgm_wait(&spins);
}

/* Add 1; returns the new value. */
HGM_INLINE uint32_t hgm_increment(uint32_t *word)
{
	return __atomic_add_fetch(word, 1, __ATOMIC_RELAXED);
}

/* Read a page-table entry that another thread may fill now, and what it leads to after it. */
HGM_INLINE uint64_t hgm_get_entry(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

/* Fill a page-table entry that no other thread may fill now, but read, after all that it leads to. */
HGM_INLINE void hgm_set_entry(uint64_t *entry, uint64_t value)
{
	__atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

/* Fill a page-table entry that is none, after all that it leads to. 0: another thread did. */
HGM_INLINE int hgm_fill_entry(uint64_t *entry, uint64_t value)
{
	uint64_t none = 0;

	return __atomic_compare_exchange_n(entry, &none, value, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

#ifdef __cplusplus
}
#endif
#endif

/*
 * races.h: where a thread can be cut, for a search of the interleavings of two (hgmcore/explore/races.pyx).
 *
 * An engine that is compiled with HGM_RACES asks before each access to memory that another thread may reach, and before
 * each lock that the kernel takes there: the other thread may run first. In every other engine nothing of this is left.
 */
#ifndef HGMCORE_RACES_H
#define HGMCORE_RACES_H

/* What an access does. A change is one atomic; a word that is read and written apart is two accesses. */
enum hgm_access { HGM_READS, HGM_WRITES, HGM_CHANGES };

/* The kernel's locks, from the outermost on. */
enum hgm_lock_class {
	HGM_MMAP_LOCK,		/* of a process */
	HGM_FAULT_MUTEX,	/* hugetlb_fault_mutex_table[], by place in the page cache */
	HGM_VMA_LOCK,		/* hugetlb_vma_lock of a mapping */
	HGM_I_MMAP_LOCK,	/* i_mmap_rwsem of a file */
	HGM_FOLIO_LOCK,
	HGM_PT_LOCK		/* of the page table that holds an entry */
};

#define HGM_SHARED_LOCK 0
#define HGM_EXCLUSIVE_LOCK 1

/* What later kernels, or earlier postings, do otherwise than HGM v2 as it was posted. */
#define HGM_V1_COLLAPSE 1	/* a collapse holds the VMA lock and i_mmap for writing too, as in HGM v1 */
#define HGM_FIXED_PUNCH 2	/* a hole punch locks the folio before it asks whether the folio is mapped (Linux, September 2025) */

/* What a thread of a race carries from one access to the next, beside its stack. */
typedef struct hgm_racer {
	hgm_folio *held;	/* whose reference its look-up took and did not pass on yet; or NULL */
	uint32_t up[8];		/* by level, the tables that a removal came through; 0: none that is counted in */
	uint32_t emptied;	/* the removal took the subtree's last leaf, as the counts of children say */
	hgm_folio *zapped;	/* of the leaf that it removed last */
	uint32_t taken;		/* an install found, under the lock, that the entry is not none any more */
} hgm_racer;

typedef struct hgm_race {
	void (*cut)(int access, const void *where);	/* NULL: the engine runs alone */
	int (*lock)(int lock, const void *of, int how, int wait);	/* 0: it is held, and the thread does not wait */
	void (*unlock)(int lock);
	hgm_racer *me;
	uint32_t repairs;
} hgm_race;

#ifdef HGM_RACES

#define HGM_RACING 1

static hgm_racer hgm_alone;
static hgm_race hgm_racing = {0, 0, 0, &hgm_alone, 0};

/* The next access is to `where`. */
HGM_INLINE void hgm_cut(int access, const void *where)
{
	if (hgm_racing.cut)
		hgm_racing.cut(access, where);
}

HGM_INLINE void hgm_race_lock(int lock, const void *of, int how)
{
	if (hgm_racing.lock)
		hgm_racing.lock(lock, of, how, 1);
}

HGM_INLINE int hgm_race_trylock(int lock, const void *of, int how)
{
	return hgm_racing.lock ? hgm_racing.lock(lock, of, how, 0) : 1;
}

/* Unlock the last lock of this class that the thread took, if there is one. */
HGM_INLINE void hgm_race_unlock(int lock)
{
	if (hgm_racing.unlock)
		hgm_racing.unlock(lock);
}

/* Does a new reference to the folio come from the look-up, so that no access is needed? */
HGM_INLINE int hgm_race_passes_on(const hgm_folio *folio)
{
	if (hgm_racing.me->held != folio)
		return 0;
	hgm_racing.me->held = 0;
	return 1;
}

#define hgm_race_me() (hgm_racing.me)
#define hgm_race_repairs() (hgm_racing.repairs)
#define hgm_race_here() ((void *)&hgm_racing)

#else

#define HGM_RACING 0
#define hgm_cut(access, where) ((void)0)
#define hgm_race_lock(lock, of, how) ((void)0)
#define hgm_race_trylock(lock, of, how) 1
#define hgm_race_unlock(lock) ((void)0)
#define hgm_race_passes_on(folio) 0
#define hgm_race_me() ((hgm_racer *)0)
#define hgm_race_repairs() 0
#define hgm_race_here() ((void *)0)

#endif
#endif

/*
 * hgm.h: the C view of hgmcore's world, for C and C++: struct pages, folios, page-table entries, operation
 * records, and the counted atomics through which every scheme changes a count. What a scheme must define is in
 * scheme.h.
 */
#ifndef HGMCORE_HGM_H
#define HGMCORE_HGM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The layouts of this file and of the machine (core/machine.pxd) have a number, raised by 100 with a change. What
 * crosses a border between separately compiled modules begins with this number and its own size, and a module
 * refuses another module's structure where either differs. A new operation raises it by itself: an engine compiled
 * before would take the operation for none.
 */
#define HGM_ABI (700 + HGM_NR_OPS)

#define HGM_INLINE static inline __attribute__((always_inline))

/*
 * Struct pages
 * ============
 * One record of 64 bytes for each base page, as in Linux. The words stand at the byte offsets of the 6.15
 * layout (include/linux/mm_types.h); older schemes use the same memory under older names. Only one page of a
 * folio uses each word: _refcount the head; the words from 16 to 47 page 1; _mapcount each page for itself.
 *
 * Memory comes zeroed from the kernel and is committed on first touch, and a page that nobody counts on must
 * stay untouched (that is the saving of HVO). So the kernel's bias is left out: a stored 0 is "no mapping",
 * where Linux stores -1. Ranges are the same but for that one.
 *
 *     byte  0          8         16          20            24            28       32           40        48       52      56
 *          +----------+---------+-----------+-------------+-------------+--------+------------+---------+--------+-------+------+
 *          | touched  | private | large     | nr_pages    | entire      | pins   | mm_id      | mm_id[2]| map    | ref   | total|
 *          | + flags  |         | _mapcount | _mapped     | _mapcount   |        | _mapcount  |         | count  | count | pages|
 *          +----------+---------+-----------+-------------+-------------+--------+------------+---------+--------+-------+------+
 */
#define HGM_SLOTS_A_PAGE 4

typedef struct hgm_page {
	uint64_t flags;			/* HGM_PAGE_* */
	union {
		uint64_t private_;	/* a scheme's own, in each struct page: no other code reads or writes it */
		int64_t _rmap_val2;
	};
	int32_t _large_mapcount;
	int32_t _nr_pages_mapped;
	int32_t _entire_mapcount;	/* compound_mapcount before 6.2 */
	union {
		int32_t _pincount;
		int32_t _rmap_atomic_seqcount;	/* November 2023 (rmap_id): writers that are at it */
	};
	union {
		struct {
			int32_t _mm_id_mapcount[2];
			uint32_t _mm_id[2];
		};
		struct {
			int64_t _rmap_val0, _rmap_val1;	/* of the four sums of rmap_id, in page 3 where there is one */
		};
		int32_t _slot[HGM_SLOTS_A_PAGE];	/* counts of CPUs or processes (schemes/slots.pxd), from page 2 on */
	};
	int32_t _mapcount;
	int32_t _refcount;
	union {
		int64_t _total_mapped_pages;
		int64_t _rmap_val3;
	};
} hgm_page;

/*
 * A scheme executed a persistent atomic on this line; set by hgm_ref_add and hgm_map_add, never cleared. The first byte
 * of the flags is for this alone, so that a plain store sets it; the others are changed by atomics.
 */
#define HGM_PAGE_TOUCHED 1ull
/* PageDoubleMap of THP before 6.2, in page 1 (there: PG_workingset). */
#define HGM_PAGE_DOUBLE_MAP 0x100ull
#define HGM_PAGE_HEAD 0x400ull		/* the head page of a folio that was allocated once; never cleared (kernel: PG_head) */
#define HGM_PAGE_TOUCHED_BEFORE 0x800ull	/* HGM_PAGE_TOUCHED was set before Core.lines_since() looked */
#define HGM_PAGE_LOCKED 0x200ull	/* in the head page: the folio lock of option `locks` */

typedef char hgm_page_is_one_line[sizeof(hgm_page) == 64 ? 1 : -1];

/* One huge page, in the simulator's own bookkeeping: facts, no counts but those of the simulator's pins. */
typedef struct hgm_folio {
	hgm_page *page;		/* its struct pages, head first */
	uint64_t pfn;		/* of its first base page */
	uint64_t nr_pages;	/* base pages */
	uint32_t file, index;	/* where it stands, or stood, in a page cache */
	int32_t pins;
	uint32_t flags;		/* HGM_FOLIO_* */
	int32_t poisons;	/* references that memory failure holds */
	uint32_t isolated;	/* in a race: a migration has it (kernel: isolate_hugetlb) */
} hgm_folio;

#define HGM_FOLIO_CACHED 1u	/* in its file's page cache */
#define HGM_FOLIO_FREED 2u	/* its reference count reached 0 */
#define HGM_FOLIO_POISONED 4u	/* one of its base pages failed */
#define HGM_FOLIO_ANON 8u	/* a private copy: never in a page cache */
#define HGM_FOLIO_FREE 16u	/* freed, and nothing maps it: its frames may be used again */

#include "hgmcore/races.h"

/*
 * Page-table entries
 * ==================
 * 0 is none. A present entry is a table or a leaf; another is a leaf that is being migrated (its frame stays in
 * it), a base page that failed, or the zero page. A leaf carries HGM_PTE_LEAF at every level (x86 sets PS
 * only above the PTE level), so that one test serves all. The frame is the number of the first base page of a
 * leaf, or the number of a table page in the arena.
 */
#define HGM_PTE_PRESENT 0x001ull
#define HGM_PTE_MIGRATION 0x002ull
#define HGM_PTE_POISON 0x004ull
#define HGM_PTE_LEAF 0x080ull
#define HGM_PTE_GROUP 0x100ull		/* part of a contiguous group that is one leaf */
#define HGM_PTE_COUNTED 0x200ull	/* hstate-level entry: its subtree is counted (x86: a software bit) */
#define HGM_PTE_EXCLUSIVE 0x400ull	/* leaf of anonymous memory that only this process has (kernel: PageAnonExclusive) */
#define HGM_PTE_ZERO 0x008ull		/* no leaf: the zero page, which nobody counts, stands here */
#define HGM_PTE_FRAME_SHIFT 12

/* A page-table page's own descriptor, its struct page (kernel: struct ptdesc). */
typedef struct hgm_ptdesc {
	uint32_t children;	/* present leaves and non-empty tables in it, where a scheme asks for the count */
	uint32_t sharers;	/* processes that share it beyond the first (kernel: pt_share_count) */
	uint32_t folio;		/* top table of a counted subtree: number + 1 of the folio that has its count */
	uint32_t lock;		/* page-table lock of option `locks` (kernel: ptl) */
	uint32_t deposited;	/* first of the empty tables kept for the PMD leaves in it (kernel: pmd_huge_pte) */
	uint32_t nr_deposited;
	uint32_t changed;	/* operation that last took children away, where events are counted (events.h) */
	uint32_t locked_by;	/* the CPU, + 1, that last took `lock`, where events are counted */
	uint32_t unused[8];
} hgm_ptdesc;

/* Operation records */
typedef struct hgm_operation {
	uint64_t offset, length;
	uint32_t target;	/* mapping, process or file */
	uint16_t arg;
	uint8_t op;		/* HGM_OP_* */
	uint8_t flags;		/* HGM_OPF_* */
} hgm_operation;

enum hgm_op {
	HGM_OP_FILE, HGM_OP_POPULATE, HGM_OP_MMAP, HGM_OP_REGISTER, HGM_OP_UNREGISTER, HGM_OP_SPLIT,
	HGM_OP_CONTINUE, HGM_OP_TOUCH, HGM_OP_DONTNEED, HGM_OP_COLLAPSE, HGM_OP_MUNMAP, HGM_OP_MPROTECT,
	HGM_OP_MREMAP, HGM_OP_FORK, HGM_OP_EXIT, HGM_OP_PUNCH, HGM_OP_TRUNCATE, HGM_OP_MIGRATE,
	HGM_OP_HWPOISON, HGM_OP_PIN, HGM_OP_UNPIN, HGM_OP_FAIL, HGM_OP_OBSERVE, HGM_OP_PHASE,
	HGM_NR_OPS
};

#define HGM_NO_ARG 0xffff	/* `arg` of an mremap in place */

#define HGM_OPF_SHARED 1
#define HGM_OPF_MINOR 2
#define HGM_OPF_WP 4
#define HGM_OPF_HGM 8
#define HGM_OPF_URGENT 16
#define HGM_OPF_WRITE 32
#define HGM_OPF_ALL 64
#define HGM_OPF_READ 128
#define HGM_OPF_AT 16		/* mmap, mremap: to the address that stands with the mapping's name */
#define HGM_OPF_RESIZED 32	/* mremap: to the length that stands with the new mapping's name */
#define HGM_OPF_KEEP 64		/* mremap: MREMAP_DONTUNMAP; of one in place: MREMAP_MAYMOVE */

/* What an operation that failed, raised an event or did less than it was asked to, came to. */
typedef struct hgm_result {
	uint64_t index, done;	/* done in bytes */
	int32_t error;		/* errno, positive; 0: none */
	uint32_t event;		/* HGM_EVENT_* */
} hgm_result;

#define HGM_EVENT_MINOR 1u
#define HGM_EVENT_NEVER_FIRED 2u	/* of a `fail`: the next operation made fewer allocations */

/*
 * Cost
 * ====
 * Counted, exact and repeatable. Atomics are those of mappings alone.
 */
typedef struct hgm_cost {
	uint64_t ref, map;		/* persistent atomics on reference and map-count words */
	uint64_t transient;		/* atomics of references that a look-up takes and puts back */
	uint64_t entries_scanned;	/* page-table entries read only because a scheme asked */
	uint64_t leaf_installs, leaf_removes;
	uint64_t underflows, overflows;	/* decrements of a count that was 0; increments past INT32_MAX */
	uint64_t locks;			/* locks of option `locks` that were taken; their atomics count nowhere else */
} hgm_cost;

/* Whose doing a primitive is. */
enum hgm_origin {
	HGM_BY_CONTINUE, HGM_BY_FAULT, HGM_BY_FORK,
	HGM_BY_ZAP,		/* munmap, exit, MADV_DONTNEED, MADV_SPLIT of base_only, memory failure */
	HGM_BY_TRUNCATE,	/* the page leaves the page cache: rmap finds its leaves, tables stay */
	HGM_BY_COLLAPSE, HGM_BY_MIGRATION,
	/*
	 * A leaf is exchanged for smaller ones: by memory failure, where that of the bad page is then zapped, and where
	 * a PMD of anonymous memory is split. The smaller ones may come before the other goes.
	 */
	HGM_BY_POISON
};

/*
 * One leaf that becomes present or goes away; with `batch`, a run of `count` base-page leaves that are adjacent in
 * one table.
 */
typedef struct hgm_leaf {
	hgm_folio *folio;
	uint64_t first;		/* its first base page within the folio */
	uint64_t nr_pages;	/* base pages of one leaf */
	uint32_t count;		/* leaves */
	uint32_t process, mapping;	/* numbers from 0 */
	uint8_t origin;		/* enum hgm_origin */
	uint8_t whole;		/* it stands at the hstate level */
	uint8_t covers;		/* the operation covers the whole huge page */
	uint8_t hstate_none;	/* the hstate-level entry was none when the operation's step began. Under HGM_NEEDS_TABLES, of a
				   contiguous huge page, or a folio's pieces in shmem and anonymous memory: none was mapped */
	uint8_t first_leaf;	/* no other leaf in its subtree; under HGM_NEEDS_SCAN and _COUNTER; under _BIT: the bit is clear */
	uint8_t threads;	/* others may map the folio at this moment: what is no atomic needs a lock; 0 where one goes away */
	uint16_t cpu;		/* that runs the operation; under HGM_NEEDS_CPU */
} hgm_leaf;

/* The page tables below one hstate-level entry. */
typedef struct hgm_subtree {
	hgm_folio *folio;	/* whose leaves it has or had; NULL: the page cache had no page when it was made */
	uint64_t removed;	/* leaves that this operation removed */
	uint32_t process, mapping;
	uint8_t origin;		/* enum hgm_origin */
	uint8_t covers;		/* the operation covers the whole huge page */
	uint8_t whole;		/* no tables: one leaf maps the huge page */
	uint8_t tables_stay;	/* its tables are left behind */
	uint8_t empty;		/* no leaf is left; where `covers` is 0 only under HGM_NEEDS_SCAN and _COUNTER */
	uint8_t counted;	/* only under HGM_NEEDS_BIT: its bit is set */
	uint16_t cpu;		/* that runs the operation; under HGM_NEEDS_CPU */
} hgm_subtree;

/* What a scheme answers about one folio. */
typedef struct hgm_answer {
	int64_t mapcount;	/* folio_mapcount() */
	int64_t refs;		/* references that the folio's mappings hold; -1: one for each leaf */
	int64_t sharers;	/* the count that smaps, mbind and the like use; -1: page_mapcount() */
	int64_t nr_file_mapped;	/* its part of NR_FILE_MAPPED in base pages; -1: the scheme keeps no such statistic */
	int32_t mapped;		/* folio_mapped() */
	int32_t maybe_shared;	/* folio_maybe_mapped_shared() or its forerunner; -1: mapcount > 1 */
} hgm_answer;

enum hgm_fault_around { HGM_AROUND_NONE, HGM_AROUND_16, HGM_AROUND_FOLIO };

enum hgm_overflow_check { HGM_CHECK_NONE, HGM_CHECK_AFTER, HGM_CHECK_TRY, HGM_CHECK_HALF };
enum hgm_batch { HGM_BATCH_NO, HGM_BATCH_6_9, HGM_BATCH_6_12 };
enum hgm_rmap_exclusive { HGM_EXCLUSIVE_NO, HGM_EXCLUSIVE_TRACKED, HGM_EXCLUSIVE_ALL };
enum hgm_locks { HGM_LOCKS_NONE, HGM_LOCKS_PT, HGM_LOCKS_POSTED };

struct hgm_scheme;	/* scheme.h */

/* The options that the core and the schemes act on. */
typedef struct hgm_options {
	int32_t era;		/* 602, 603, 615: Linux 6.2, 6.3, 6.15 */
	uint8_t cache_refs_folio;	/* page-cache references: the number of base pages, not 1 */
	uint8_t lookup_first;
	uint8_t zap_frees_tables;
	uint8_t rmap_aware;
	uint8_t base_only;
	uint8_t batch;	/* enum hgm_batch */
	uint8_t transient_real;
	uint8_t overflow_check;	/* enum hgm_overflow_check */
	uint8_t posted;		/* model=posted */
	uint8_t locks;		/* enum hgm_locks */
	uint8_t fault_around;	/* enum hgm_fault_around */
	uint8_t rmap_values;	/* sums of rmap_id: 4 or 3 */
	uint8_t rmap_batch;	/* the split of a PMD is one call */
	uint8_t rmap_exclusive;	/* enum hgm_rmap_exclusive */
	uint8_t pmd_order;	/* of the geometry: a PMD entry maps 1 << pmd_order base pages, a PUD entry the square of that */
	uint8_t top_down;	/* mappings get the addresses that Linux chooses, not spans of their own */
	struct hgm_scheme *scheme;	/* the table of a scheme whose reactions are called through pointers; else NULL */
} hgm_options;

#include "hgmcore/events.h"

/*
 * Counted atomics
 * ===============
 * A real atomic read-modify-write on the word in `page`, and one more in `cost`. A decrement of a count that
 * was 0 is an underflow and an increment past INT32_MAX an overflow; the word then wraps as the kernel's does.
 * An engine that is compiled with HGM_ALONE adds without an atomic: one thread runs it, so its counts are the same.
 */
#ifdef HGM_ALONE
#define HGM_IS_ALONE 1
HGM_INLINE int32_t hgm_add_fetch(int32_t *word, int32_t by)
{
	return *word = (int32_t)((uint32_t)*word + (uint32_t)by);
}
#else
#define HGM_IS_ALONE 0
#define hgm_add_fetch(word, by) __atomic_add_fetch(word, by, __ATOMIC_RELAXED)
#endif

HGM_INLINE void hgm_touch(hgm_page *page)
{
	/*
	 * Test before set: a store to a line that an atomic holds costs more than the branch. And before the atomic, which
	 * waits for all that stands before it: a load need not, and has the line on its way.
	 */
	if (__builtin_expect(!(__atomic_load_n(&page->flags, __ATOMIC_RELAXED) & HGM_PAGE_TOUCHED), 0))
		__atomic_store_n((uint8_t *)&page->flags, HGM_PAGE_TOUCHED, __ATOMIC_RELAXED);	/* little-endian */
}

/* A count came to `now` by adding `by`. Did it leave its range? */
HGM_INLINE int32_t hgm_in_range(hgm_cost *cost, int32_t now, int32_t by)
{
	if (__builtin_expect(now < 0, 0)) {
		/* far below 0 the count has wrapped before, and now comes back from that */
		if (by < 0 && now > INT32_MIN / 2)
			cost->underflows++;
		if (by > 0 && (int32_t)((uint32_t)now - (uint32_t)by) >= 0)
			cost->overflows++;
	}
	return now;
}

HGM_INLINE int32_t hgm_atomic_add(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by)
{
	hgm_touch(page);
	return hgm_in_range(cost, hgm_add_fetch(word, by), by);
}

/* Change a map-count word of the folio's page `page` by `by`; returns its new value. */
HGM_INLINE int32_t hgm_map_add(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by)
{
	int32_t now;

	hgm_cut(HGM_CHANGES, word);
	cost->map++;
	now = hgm_atomic_add(cost, page, word, by);
	hgm_event_map(page, word == &page->_mapcount || word == &page->_entire_mapcount, now, by);
	return now;
}

/* The same under a lock that was taken for it: its atomic stands for the one that is counted. */
HGM_INLINE int32_t hgm_map_add_locked(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by)
{
	hgm_cut(HGM_CHANGES, word);
	cost->map++;
	hgm_touch(page);
	*word = (int32_t)((uint32_t)*word + (uint32_t)by);
	hgm_event_map(page, 0, *word, by);
	return hgm_in_range(cost, *word, by);
}

/*
 * Change a map-count word where no other thread does, without an atomic, and so without its count. `threads`: another may;
 * what the kernel would then do is executed, an atomic, but not counted, so that counts are the same as without threads.
 */
HGM_INLINE int32_t hgm_map_add_alone(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by, int threads)
{
	int32_t now;

	hgm_cut(HGM_CHANGES, word);
	hgm_touch(page);
	now = threads ? hgm_add_fetch(word, by) : (*word = (int32_t)((uint32_t)*word + (uint32_t)by));
	hgm_event_map_plain(page, word == &page->_mapcount || word == &page->_entire_mapcount, now, by);
	return hgm_in_range(cost, now, by);
}

/*
 * Slots: counts that a folio has once for each CPU, or for each process, so that no two of them write one line. Slot n
 * stands in struct page 2 + n, up to HGM_MAX_SLOTS; smaller folios have several in each page, and fewer:
 *
 *     base pages  2            4               8               16         512
 *     slots       4 in page 1  8 in pages 2-3  24 in pages 2-7 32         32 in pages 2-33, which HVO leaves
 */
#define HGM_MAX_SLOTS 32u

HGM_INLINE uint32_t hgm_slot_pages(const hgm_folio *folio)
{
	return folio->nr_pages <= 2 ? 1 : folio->nr_pages - 2 < HGM_MAX_SLOTS ? (uint32_t)folio->nr_pages - 2 : HGM_MAX_SLOTS;
}

HGM_INLINE uint32_t hgm_nr_slots(const hgm_folio *folio)
{
	uint32_t slots = HGM_SLOTS_A_PAGE * hgm_slot_pages(folio);

	return slots < HGM_MAX_SLOTS ? slots : HGM_MAX_SLOTS;
}

HGM_INLINE hgm_page *hgm_slot_page(const hgm_folio *folio, uint32_t slot)
{
	return &folio->page[(folio->nr_pages > 2 ? 2 : 1) + slot % hgm_slot_pages(folio)];
}

HGM_INLINE int32_t *hgm_slot(const hgm_folio *folio, uint32_t slot)
{
	return &hgm_slot_page(folio, slot)->_slot[slot / hgm_slot_pages(folio)];
}

/*
 * Change a slot, a count of one CPU's or one process's own, by a plain store: no other thread is at it. It may go below 0,
 * for only the sum of slots means something, and it wraps. Returns its new value.
 */
HGM_INLINE int32_t hgm_slot_add(hgm_page *page, int32_t *slot, int32_t by)
{
	hgm_touch(page);
	hgm_event_plain(page, 1);
	return *slot = (int32_t)((uint32_t)*slot + (uint32_t)by);
}

/* Change a map-count word from `was` to `to` by a compare-and-swap. 0: it is not `was`, nothing is done. */
HGM_INLINE int hgm_map_swap(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t was, int32_t to)
{
	hgm_cut(HGM_CHANGES, word);
	hgm_touch(page);
	if (!__atomic_compare_exchange_n(word, &was, to, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return 0;
	cost->map++;
	hgm_event_map(page, 0, to, 1);
	hgm_in_range(cost, to, (int32_t)((uint32_t)to - (uint32_t)was));
	return 1;
}

/* Change a sum of 64 bits, which may wrap. alone, threads: as above; not alone: by an atomic, which is counted. */
HGM_INLINE void hgm_sum_add(hgm_cost *cost, hgm_page *page, int64_t *sum, int64_t by, int alone, int threads)
{
	hgm_cut(HGM_CHANGES, sum);
	hgm_touch(page);
	if (alone)
		hgm_event_plain(page, 1);
	else
		hgm_event_map(page, 0, 1, 1);
	cost->map += !alone;
	if (alone && !threads)
		*sum = (int64_t)((uint64_t)*sum + (uint64_t)by);
	else
		__atomic_add_fetch(sum, by, __ATOMIC_RELAXED);
}

/*
 * Add `by` to the word. Is it 0 now? Did it leave its range: upwards in this very step, or is it below 0 where `by` is? As a
 * kernel does that needs no more (atomic_sub_and_test): on x86 the flags of an add tell, which takes less time than to fetch
 * the value, and whatever other threads add. `by` is a constant where it matters.
 */
HGM_INLINE void hgm_add_and_test(int32_t *word, int32_t by, int *zero, int *outside)
{
#if defined(__x86_64__) && defined(__GCC_ASM_FLAG_OUTPUTS__) && !defined(HGM_ALONE)
	if (by > 0)
		__asm__ __volatile__("lock addl %3, %0" : "+m" (*word), "=@ccz" (*zero), "=@cco" (*outside) : "er" (by));
	else
		__asm__ __volatile__("lock addl %3, %0" : "+m" (*word), "=@ccz" (*zero), "=@ccs" (*outside) : "er" (by));
#else
	int32_t now = hgm_add_fetch(word, by);

	*zero = now == 0;
	*outside = now < 0 && (by <= 0 || (int32_t)((uint32_t)now - (uint32_t)by) >= 0);
#endif
}

/* Change the folio's reference count by `by`; at 0 the folio is freed. */
HGM_INLINE void hgm_ref_add(hgm_cost *cost, hgm_folio *folio, int32_t by)
{
	int zero, outside;

	cost->ref++;
	if (HGM_RACING && by == 1 && hgm_race_passes_on(folio))
		return;
	hgm_cut(HGM_CHANGES, &folio->page->_refcount);
	hgm_event_ref(folio->page, by);
	hgm_touch(folio->page);
	hgm_add_and_test(&folio->page->_refcount, by, &zero, &outside);
	if (__builtin_expect(zero, 0)) {
		__asm__ __volatile__("");	/* a branch, that is: nothing is computed for what is rare */
		__atomic_fetch_or(&folio->flags, HGM_FOLIO_FREED, __ATOMIC_RELAXED);
		hgm_event_freed(folio->page);
	}
	if (__builtin_expect(outside, 0)) {
		__asm__ __volatile__("");
		if (by > 0)
			cost->overflows++;
		else
			hgm_in_range(cost, __atomic_load_n(&folio->page->_refcount, __ATOMIC_RELAXED), by);
	}
}

/* The folio's reference count, which other threads may change. */
HGM_INLINE int32_t hgm_refcount(const hgm_folio *folio)
{
	return __atomic_load_n(&folio->page->_refcount, __ATOMIC_RELAXED);
}

/* Take and put back a reference, as a look-up does. */
HGM_INLINE void hgm_get_and_put(hgm_folio *folio)
{
	hgm_event_look_up(folio->page);
	hgm_add_fetch(&folio->page->_refcount, 1);
	hgm_add_fetch(&folio->page->_refcount, -1);
}

/* Flags of a page but HGM_PAGE_TOUCHED. */
HGM_INLINE void hgm_page_flags_set(hgm_page *page, uint64_t flags)
{
	hgm_cut(HGM_CHANGES, &page->flags);
	hgm_event_flag(page);
	__atomic_fetch_or(&page->flags, flags, __ATOMIC_RELAXED);
}

HGM_INLINE void hgm_page_flags_clear(hgm_page *page, uint64_t flags)
{
	hgm_cut(HGM_CHANGES, &page->flags);
	hgm_event_flag(page);
	__atomic_fetch_and(&page->flags, ~flags, __ATOMIC_RELAXED);
}

/* References that are no mapping's (page cache, pins, isolation, memory failure): not counted as cost. */
HGM_INLINE int32_t hgm_plain_add(hgm_folio *folio, int32_t by)
{
	hgm_cut(HGM_CHANGES, &folio->page->_refcount);
	return hgm_add_fetch(&folio->page->_refcount, by);
}

/* Costs that a loop adds up in registers. */
HGM_INLINE hgm_cost hgm_no_cost(void)
{
	hgm_cost cost = {0};

	return cost;
}

HGM_INLINE void hgm_cost_add(hgm_cost *total, const hgm_cost *cost)
{
	total->ref += cost->ref;
	total->map += cost->map;
	total->transient += cost->transient;
	total->entries_scanned += cost->entries_scanned;
	total->leaf_installs += cost->leaf_installs;
	total->leaf_removes += cost->leaf_removes;
	total->underflows += cost->underflows;
	total->overflows += cost->overflows;
	total->locks += cost->locks;
}

#ifdef __cplusplus
}
#endif
#endif

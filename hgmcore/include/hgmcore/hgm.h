/*
 * hgm.h: the C view of hgmcore's world, for C and C++: struct pages, folios, page-table entries, operation
 * records, and the counted atomics through which every scheme changes a count. Layouts here are ABI: fields
 * are only ever added at the end. What a scheme must define is in scheme.h.
 */
#ifndef HGMCORE_HGM_H
#define HGMCORE_HGM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

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
typedef struct hgm_page {
	uint64_t flags;			/* HGM_PAGE_* */
	uint64_t private_;
	int32_t _large_mapcount;
	int32_t _nr_pages_mapped;
	int32_t _entire_mapcount;	/* compound_mapcount before 6.2 */
	int32_t _pincount;
	int32_t _mm_id_mapcount[2];
	uint32_t _mm_id[2];
	int32_t _mapcount;
	int32_t _refcount;
	int64_t _total_mapped_pages;
} hgm_page;

/* A scheme executed a persistent atomic on this line; set by hgm_ref_add and hgm_map_add, never cleared. */
#define HGM_PAGE_TOUCHED 1ull
/* PageDoubleMap of THP before 6.2, in page 1 (there: PG_workingset). */
#define HGM_PAGE_DOUBLE_MAP 2ull

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
	uint32_t unused;
} hgm_folio;

#define HGM_FOLIO_CACHED 1u	/* in its file's page cache */
#define HGM_FOLIO_FREED 2u	/* its reference count reached 0 */
#define HGM_FOLIO_POISONED 4u	/* one of its base pages failed */
#define HGM_FOLIO_ANON 8u	/* a private copy: never in a page cache */

/*
 * Page-table entries
 * ==================
 * 0 is none. A present entry is a table or a leaf; another is a leaf that is being migrated (its frame stays in
 * it) or a base page that failed. A leaf carries HGM_PTE_LEAF at every level (x86 sets PS
 * only above the PTE level), so that one test serves all. The frame is the number of the first base page of a
 * leaf, or the number of a table page in the arena.
 */
#define HGM_PTE_PRESENT 0x001ull
#define HGM_PTE_MIGRATION 0x002ull
#define HGM_PTE_POISON 0x004ull
#define HGM_PTE_LEAF 0x080ull
#define HGM_PTE_GROUP 0x100ull		/* part of a contiguous group that is one leaf */
#define HGM_PTE_COUNTED 0x200ull	/* hstate-level entry: its subtree is counted (x86: a software bit) */
#define HGM_PTE_FRAME_SHIFT 12

/* A page-table page's own descriptor, its struct page (kernel: struct ptdesc). */
typedef struct hgm_ptdesc {
	uint32_t children;	/* present leaves and non-empty tables in it, where a scheme asks for the count */
	uint32_t sharers;	/* processes that share it beyond the first (kernel: pt_share_count) */
	uint32_t folio;		/* top table of a counted subtree: number + 1 of the folio that has its count */
	uint32_t unused[13];
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
	HGM_OP_HWPOISON, HGM_OP_PIN, HGM_OP_UNPIN, HGM_OP_FAIL, HGM_OP_OBSERVE
};

#define HGM_OPF_SHARED 1
#define HGM_OPF_MINOR 2
#define HGM_OPF_WP 4
#define HGM_OPF_HGM 8
#define HGM_OPF_URGENT 16
#define HGM_OPF_WRITE 32
#define HGM_OPF_ALL 64
#define HGM_OPF_READ 128

/* What an operation that failed, raised an event or did less than it was asked to, came to. */
typedef struct hgm_result {
	uint64_t index, done;	/* done in bytes */
	int32_t error;		/* errno, positive; 0: none */
	uint32_t event;		/* HGM_EVENT_* */
} hgm_result;

#define HGM_EVENT_MINOR 1u

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
} hgm_cost;

/* Whose doing a primitive is. */
enum hgm_origin {
	HGM_BY_CONTINUE, HGM_BY_FAULT, HGM_BY_FORK,
	HGM_BY_ZAP,		/* munmap, exit, MADV_DONTNEED, MADV_SPLIT of base_only, memory failure */
	HGM_BY_TRUNCATE,	/* the page leaves the page cache: rmap finds its leaves, tables stay */
	HGM_BY_COLLAPSE, HGM_BY_MIGRATION,
	HGM_BY_POISON		/* memory failure exchanges a leaf for smaller ones; that of the bad page is then zapped */
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
	uint8_t hstate_none;	/* the hstate-level entry was none when the operation's step began */
	uint8_t first_leaf;	/* no other leaf in its subtree; under HGM_NEEDS_SCAN and _COUNTER; under _BIT: the bit is clear */
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

enum hgm_overflow_check { HGM_CHECK_NONE, HGM_CHECK_AFTER, HGM_CHECK_TRY, HGM_CHECK_HALF };

/* The options that the core and the schemes act on. */
typedef struct hgm_options {
	int32_t era;		/* 602, 603, 615: Linux 6.2, 6.3, 6.15 */
	uint8_t cache_refs_folio;	/* page-cache references: the number of base pages, not 1 */
	uint8_t lookup_first;
	uint8_t zap_frees_tables;
	uint8_t rmap_aware;
	uint8_t base_only;
	uint8_t batch;
	uint8_t transient_real;
	uint8_t overflow_check;	/* enum hgm_overflow_check */
	uint8_t posted;		/* model=posted */
} hgm_options;

/*
 * Counted atomics
 * ===============
 * A real atomic read-modify-write on the word in `page`, and one more in `cost`. A decrement of a count that
 * was 0 is an underflow and an increment past INT32_MAX an overflow; the word then wraps as the kernel's does.
 */
HGM_INLINE int32_t hgm_atomic_add(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by)
{
	int32_t now = __atomic_add_fetch(word, by, __ATOMIC_RELAXED);

	/* test before set: a store to a line that an atomic holds costs more than the branch */
	if (__builtin_expect(!(page->flags & HGM_PAGE_TOUCHED), 0))
		page->flags |= HGM_PAGE_TOUCHED;
	if (__builtin_expect(now < 0, 0)) {
		/* far below 0 the count has wrapped before, and now comes back from that */
		if (by < 0 && now > INT32_MIN / 2)
			cost->underflows++;
		if (by > 0 && (int32_t)((uint32_t)now - (uint32_t)by) >= 0)
			cost->overflows++;
	}
	return now;
}

/* Change a map-count word of the folio's page `page` by `by`; returns its new value. */
HGM_INLINE int32_t hgm_map_add(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by)
{
	cost->map++;
	return hgm_atomic_add(cost, page, word, by);
}

/* Change the folio's reference count by `by`; at 0 the folio is freed. */
HGM_INLINE void hgm_ref_add(hgm_cost *cost, hgm_folio *folio, int32_t by)
{
	cost->ref++;
	if (__builtin_expect(hgm_atomic_add(cost, folio->page, &folio->page->_refcount, by) == 0, 0))
		folio->flags |= HGM_FOLIO_FREED;
}

/* Take and put back a reference, as a look-up does. */
HGM_INLINE void hgm_get_and_put(hgm_folio *folio)
{
	__atomic_add_fetch(&folio->page->_refcount, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&folio->page->_refcount, 1, __ATOMIC_RELAXED);
}

/* References that are no mapping's (page cache, pins, isolation, memory failure): not counted as cost. */
HGM_INLINE int32_t hgm_plain_add(hgm_folio *folio, int32_t by)
{
	return __atomic_add_fetch(&folio->page->_refcount, by, __ATOMIC_RELAXED);
}

#ifdef __cplusplus
}
#endif
#endif

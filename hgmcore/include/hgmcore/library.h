/*
 * library.h: hgmcore as a C library. `hgmcore export-c DIRECTORY` writes it as C sources that need libc alone; inside
 * Python, the same functions stand behind Machine.ctypes, Machine.cffi, the capsule "hgmcore.machine.v1" and
 * `cimport hgmcore.library`.
 *
 *     hgm_machine m;
 *     int error = hgm_machine_init(&m, &hgm_engine_mm_id, &hgm_geometry_x86_64, NULL, 0);
 *
 *     if (!error) {
 *         int file = hgm_file_add(&m, HGM_HUGETLB, 2 << 20, 1), process = hgm_process_add(&m);
 *         int mapping = hgm_mapping_add(&m, process, 0);
 *         ...
 *     }
 *     if (error)
 *         fprintf(stderr, "%s\n", hgm_strerror(error));
 *     hgm_machine_free(&m);
 *
 * Names are hgm_object_verb. A function returns 0, a number, or bytes done; or a negative error: the negative errno with
 * which the simulated kernel refuses an operation, or one of enum hgm_error. hgm_strerror() has the text of both.
 *
 * Threads: one thread at a time uses a machine; different machines have nothing in common. Checked functions refuse a
 * second thread with HGM_E_BUSY where they see it, which is no lock. Lifetimes: what a machine hands out (results, tables,
 * costs) lives until hgm_machine_free(), and shows what later operations do; results move to no other place. Inside
 * Python a machine lives as long as the Machine or the capsule that it was asked of.
 */
#ifndef HGMCORE_LIBRARY_H
#define HGMCORE_LIBRARY_H

#include <stddef.h>
#include "hgmcore/hgm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The library's own errors; the simulated kernel's are negative errnos. */
enum hgm_error {
	HGM_E_ABI = -1001,	/* compiled for another HGM_ABI, or structs of another size */
	HGM_E_MEMORY = -1002,	/* the host has no more memory or address space; the machine stays as it is */
	HGM_E_UNDECLARED = -1003,	/* a number that was never declared, or an operation that there is not */
	HGM_E_GEOMETRY = -1004,	/* a geometry that no machine can have */
	HGM_E_OPTION = -1005,	/* an option has a value that it does not know */
	HGM_E_PAGE_SIZE = -1006,	/* the geometry has no such pages, or that kind of file */
	HGM_E_FILE_SIZE = -1007,	/* a file of no pages, or of too many */
	HGM_E_BUSY = -1008,	/* another thread uses the machine */
	HGM_E_RESERVE = -1009,	/* no machine fits into so little address space */
	HGM_E_NOT_READY = -1010	/* hgm_machine_init() was not called, or failed */
};

/* The text of an error of this library or of a refusal (0 or below); never NULL. */
const char *hgm_strerror(int error);

/* Page tables. Leaves are ascending; `entries` adjacent entries of `level` are one leaf of 2**shift bytes. */
#define HGM_MAX_LEVELS 6
#define HGM_MAX_LEAVES 6

typedef struct hgm_leaf_size {
	int32_t shift, level, entries;
} hgm_leaf_size;

typedef struct hgm_geometry {
	const char *name;
	int32_t base_shift;	/* log2 of a base page's bytes */
	int32_t index_bits;	/* log2 of the entries in a table */
	int32_t levels;		/* level of the root table; PTE is 1 */
	int32_t nr_leaves;
	hgm_leaf_size leaves[HGM_MAX_LEAVES];
} hgm_geometry;

struct hgm_core;	/* page tables, struct pages, files, processes, mappings, counts: the engines' own */

/* One accounting scheme with the whole interpreter compiled around it. */
typedef struct hgm_engine {
	uint32_t abi, size;	/* HGM_ABI and sizeof(hgm_engine) where it was compiled */
	uint32_t core_size;	/* sizeof(struct hgm_core) there */
	uint32_t flags;		/* HGM_ENGINE_* */
	const char *name;
	hgm_options options;	/* the scheme's defaults */
	/* Run n records, the first of number `index`; returns how many ran: fewer if the host has no more memory. */
	uint64_t (*run)(struct hgm_core *, const hgm_operation *, uint64_t n, uint64_t index);
	/* page_mapcount() of a folio as runs (first, last, count) in `out`, or only their number if that is NULL. */
	uint64_t (*page_mapcount_runs)(struct hgm_core *, const hgm_folio *, long long *out);
	void (*answer)(const hgm_options *, const hgm_folio *, hgm_answer *);
	int (*movable)(const hgm_options *, const hgm_folio *, int table_shared);
	/* The bytes (of a pin: references) that each record asks to be done. */
	void (*asked)(struct hgm_core *, const hgm_operation *, uint64_t n, uint64_t *out);
} hgm_engine;

#define HGM_ENGINE_WHOLE_ONLY 1u	/* maps whole huge pages or nothing */
#define HGM_ENGINE_TAILS 2u	/* counts on every struct page of a folio */
#define HGM_ENGINE_ONE_THREAD 4u	/* adds without atomics (HGM_COUNTING) */
#define HGM_ENGINE_SCANS 8u	/* scans page-table entries to find out what it wants to know */
#define HGM_ENGINE_FIRST_COME 16u	/* its state shows which process was the first to map a folio */
#define HGM_ENGINE_BY_NUMBER 32u	/* its state depends on the numbers of processes */
#define HGM_ENGINE_ASKS_CPU 64u	/* it asks which CPU runs an operation */
#define HGM_ENGINE_SLOTS 128u	/* it counts in slots (hgm.h) */
#define HGM_ENGINE_DIRTIES 256u	/* it writes more struct pages of a folio than the first few */

typedef struct hgm_machine {
	uint32_t abi, size;	/* HGM_ABI and sizeof(hgm_machine) of who made it */
	struct hgm_core *core;	/* NULL: none, and hgm_machine_free() has nothing to do */
	const hgm_engine *engine;
	uint64_t operations;	/* records that ran; the next one has this number in results */
	uint32_t busy;		/* a thread is in it */
	uint32_t owned;		/* hgm_machine_free() frees the core */
} hgm_machine;

enum hgm_file_kind { HGM_HUGETLB, HGM_SHMEM, HGM_ANON };

/*
 * Machines
 * ========
 * options: NULL for the scheme's defaults (engine->options). reserve: bytes of address space at most, 0 for as much as 4 TiB
 * of simulated memory need. Whatever init returns, `m` can be given to hgm_machine_free() afterwards.
 */
int hgm_machine_init_abi(hgm_machine *m, uint32_t abi, size_t size, const hgm_engine *engine, const hgm_geometry *geometry,
			 const hgm_options *options, size_t reserve);
void hgm_machine_free(hgm_machine *m);

/* 0, or HGM_E_ABI if `m`, which somebody else made, has another layout than the caller was compiled for. */
int hgm_machine_check(const hgm_machine *m, uint32_t abi, size_t size);

/*
 * Run records. Returns 0, or HGM_E_UNDECLARED (nothing ran), HGM_E_MEMORY (m->operations tells how many ran). What the
 * simulated kernel refuses is no error here, but a result.
 */
int hgm_machine_run(hgm_machine *m, const hgm_operation *operations, uint64_t n);
/* The same without a look at the numbers in the records: a wrong one leads out of the machine's memory. */
int hgm_machine_run_unchecked(hgm_machine *m, const hgm_operation *operations, uint64_t n);

/* Results of operations that failed, raised an event or did less than they were asked to; their number into *n. */
const hgm_result *hgm_machine_results(const hgm_machine *m, uint64_t *n);
void hgm_machine_clear_results(hgm_machine *m);
/* What was counted so far. */
const hgm_cost *hgm_machine_cost(const hgm_machine *m);
/* The next operation's n-th internal allocation fails. */
int hgm_machine_fail(hgm_machine *m, uint64_t n);
/* The entries of page table `number`, as an entry's frame gives it; NULL: there is none. */
const uint64_t *hgm_machine_table(const hgm_machine *m, uint32_t number);

/*
 * Declarations: each returns a number, from 0 on, or an error.
 */
int64_t hgm_file_add(hgm_machine *m, int kind, uint64_t page_size, uint64_t pages);
int64_t hgm_process_add(hgm_machine *m);
/* name: a number of the caller's choice; a fork gives the child's mapping of a name what the parent's is. */
int64_t hgm_mapping_add(hgm_machine *m, uint32_t process, uint32_t name);

/*
 * Operations, one at a time. Each returns bytes done (0 also where a touch raised a minor event) or an error; where the
 * kernel stopped half way, the last of hgm_machine_results() has the bytes done before. flags: HGM_OPF_*.
 */
int64_t hgm_file_populate(hgm_machine *m, uint32_t file, uint64_t first, uint64_t pages);
int64_t hgm_file_punch(hgm_machine *m, uint32_t file, uint64_t offset, uint64_t length);
int64_t hgm_file_truncate(hgm_machine *m, uint32_t file, uint64_t length);
int64_t hgm_file_pin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references);
int64_t hgm_file_unpin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references);
int64_t hgm_process_fork(hgm_machine *m, uint32_t parent, uint32_t child);
int64_t hgm_process_exit(hgm_machine *m, uint32_t process);
int64_t hgm_mapping_mmap(hgm_machine *m, uint32_t mapping, uint32_t file, uint64_t offset, uint64_t length, int flags);
int64_t hgm_mapping_register(hgm_machine *m, uint32_t mapping, int flags);
int64_t hgm_mapping_unregister(hgm_machine *m, uint32_t mapping);
int64_t hgm_mapping_split(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_continue(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_touch(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags);
int64_t hgm_mapping_dontneed(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_collapse(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_munmap(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_mprotect(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length, int flags);
int64_t hgm_mapping_resize(hgm_machine *m, uint32_t mapping, uint64_t length);
int64_t hgm_mapping_move(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length, uint32_t to);
int64_t hgm_mapping_migrate(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length, int flags);
int64_t hgm_mapping_hwpoison(hgm_machine *m, uint32_t mapping, uint64_t offset);
/* Without a look at the numbers, and without one for other threads: for a loop that made them itself. */
int64_t hgm_mapping_continue_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);
int64_t hgm_mapping_touch_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags);
int64_t hgm_mapping_dontneed_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length);

/*
 * What is there.
 */
/* The address of a mapping in its process; 0: it is not mapped. */
uint64_t hgm_mapping_address(const hgm_machine *m, uint32_t mapping);
/* The entries that a walk to `address` meets, entries[level - 1], down to *level; those below it are 0. 0 or an error. */
int hgm_process_walk(const hgm_machine *m, uint32_t process, uint64_t address, uint64_t *entries, int32_t *level);
/* Folios in the order of their frames: how many there are, one of them (NULL: none), that at a place in a file. */
uint32_t hgm_folio_count(const hgm_machine *m);
const hgm_folio *hgm_folio_get(const hgm_machine *m, uint32_t folio);
int64_t hgm_folio_find(const hgm_machine *m, uint32_t file, uint64_t page);
/* What the scheme answers. */
int hgm_folio_answer(const hgm_machine *m, uint32_t folio, hgm_answer *answer);
int hgm_folio_movable(const hgm_machine *m, uint32_t folio, int table_shared);
/* page_mapcount() as runs (first, last, count) in `runs`, three numbers each; returns how many. runs may be NULL. */
int64_t hgm_folio_mapcounts(const hgm_machine *m, uint32_t folio, long long *runs);

static inline int hgm_machine_init(hgm_machine *m, const hgm_engine *engine, const hgm_geometry *geometry,
				   const hgm_options *options, size_t reserve)
{
	return hgm_machine_init_abi(m, HGM_ABI, sizeof(*m), engine, geometry, options, reserve);
}

#ifdef __cplusplus
}
#endif
#endif

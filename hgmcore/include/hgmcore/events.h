/*
 * events.h: what a change of a count meets, for the cost model: is the line near, is it the next one, did another CPU
 * write it last? An engine that is compiled with HGM_COUNTING counts that; in all others each hook here is empty.
 *
 * A line is a struct page. Lines have numbers, those of their frames, so nothing depends on addresses of the host. A
 * cache of `near` lines, which drops the line that it fetched first, stands for what a CPU has near.
 */
#ifndef HGMCORE_EVENTS_H
#define HGMCORE_EVENTS_H

#ifndef HGMCORE_HGM_H
#error "include hgmcore/hgm.h, which includes this where struct pages are known"
#endif

/* What one operation came to, in events. Those that have a cost in a profile, then what prices the kernel's own work. */
typedef struct hgm_event_counts {
	uint64_t atomic;	/* read-modify-writes with a lock prefix on a word of a struct page, and locks taken */
	uint64_t plain;		/* writes without one to a word that keeps counts */
	uint64_t step;		/* reactions of a scheme that changed a word of a struct page */
	uint64_t stat;		/* those after which NR_FILE_MAPPED or NR_ANON_MAPPED changes */
	uint64_t far;		/* writes to a line that is neither near nor next */
	uint64_t moved_blind;	/* writes to a line that another CPU wrote last */
	uint64_t moved_read;	/* of a look-up, which loads first and then compares and swaps */
	uint64_t scan;		/* page-table entries read only because the scheme asked */
	uint64_t table_alloc, table_free;
	uint64_t copy;		/* base pages copied on a write because the scheme's predicate did not allow reuse */
	uint64_t installs, removes;	/* leaves */
	uint64_t freed;		/* folios */
	uint64_t reused;	/* write faults after which an anonymous page stays where it is */
	uint64_t split_deferred;	/* anonymous folios that a removal left mapped in part */
	uint64_t batched;	/* calls of the scheme that stood for a run of leaves */
	uint64_t handoffs;	/* locks taken that another CPU held last; their lines are moved */
} hgm_event_counts;

typedef struct hgm_line {
	uint64_t cpus;		/* which CPUs wrote it, modulo 64 */
	uint64_t updates;	/* atomics on it */
	uint32_t stamp;		/* number of the fetch that brought it; 0: never */
	uint16_t cpu;		/* CPU + 1 of the last writer; 0: none yet */
	uint16_t deferred;	/* of a head page: its folio is counted in split_deferred */
} hgm_line;

enum hgm_event_kind { HGM_NO_STATISTIC, HGM_FILE_STATISTIC, HGM_ANON_STATISTIC };

typedef struct hgm_events {
	hgm_event_counts counts;
	hgm_line *lines;	/* by frame */
	const struct hgm_page *pages;	/* where struct pages begin */
	const uint8_t *kinds;	/* enum hgm_event_kind by file */
	uint64_t *fetched;	/* by CPU: number of the line that it fetched last */
	uint32_t cpu;		/* that runs the operation */
	uint32_t near;		/* lines that the cache holds */
	uint32_t serial;	/* lines fetched so far */
	uint32_t operation;	/* number of the operation that runs, from 1 */
	uint8_t told;		/* a reaction runs */
	uint8_t looks_up;	/* the next reference that is taken is a look-up's */
	uint8_t changed;	/* the reaction changed a word of a struct page */
	uint8_t edge;		/* the map count of a base page, or of the whole, left or reached 0 */
} hgm_events;

typedef void (*hgm_events_function)(hgm_events *events);

#ifdef HGM_COUNTING

/* Where this thread's events are counted, NULL: nowhere. A load without a call, as each hook looks here. */
static __thread hgm_events *hgm_events_now __attribute__((tls_model("initial-exec")));

/* Where nothing is counted, a hook is one branch: what it would do stands elsewhere, or loops around it lose inlining. */
#define HGM_EVENTS_WANTED __builtin_expect(hgm_events_now != 0, 0)
#define HGM_ELSEWHERE static __attribute__((noinline, unused))

static void hgm_count_into(hgm_events *events)
{
	hgm_events_now = events;
}

#define HGM_COUNT_INTO hgm_count_into

/* The line of `page` is written. reads: a load comes first. */
HGM_ELSEWHERE void hgm_event_write(hgm_events *e, const struct hgm_page *page, int reads)
{
	uint64_t number = (uint64_t)(page - e->pages);
	hgm_line *line = &e->lines[number];
	int moved = line->cpu && line->cpu != e->cpu + 1;

	e->changed = 1;
	line->cpus |= 1ull << (e->cpu & 63);
	line->cpu = (uint16_t)(e->cpu + 1);
	if (!moved && line->stamp && e->serial - line->stamp < e->near)
		return;
	if (moved && reads)
		e->counts.moved_read++;
	else if (moved)
		e->counts.moved_blind++;
	else if (number != e->fetched[e->cpu] + 1)
		e->counts.far++;
	e->fetched[e->cpu] = number;
	line->stamp = ++e->serial;
}

HGM_ELSEWHERE void hgm_count_atomic(hgm_events *e, const struct hgm_page *page, int reads)
{
	e->counts.atomic++;
	e->lines[page - e->pages].updates++;
	hgm_event_write(e, page, reads);
}

HGM_INLINE void hgm_event_atomic(const struct hgm_page *page, int reads)
{
	if (HGM_EVENTS_WANTED)
		hgm_count_atomic(hgm_events_now, page, reads);
}

/* `n` plain stores to words of the line. */
HGM_INLINE void hgm_event_plain(const struct hgm_page *page, int n)
{
	if (HGM_EVENTS_WANTED && n > 0) {
		hgm_events_now->counts.plain += (uint64_t)n;
		hgm_event_write(hgm_events_now, page, 0);
	}
}

/* `n` changes of the count of children in a table's descriptor, which is no line of a folio. */
HGM_INLINE void hgm_event_children(int n)
{
	if (HGM_EVENTS_WANTED)
		hgm_events_now->counts.plain += (uint64_t)n;
}

/* A run of leaves of one table goes, in one change. `changed`: a word of the table's descriptor that is for this alone. */
HGM_INLINE void hgm_event_children_go(uint32_t *changed)
{
	if (HGM_EVENTS_WANTED) {
		hgm_events_now->counts.plain += *changed != hgm_events_now->operation;
		*changed = hgm_events_now->operation;
	}
}

/* The table is freed: who frees it does not change its count before. */
HGM_INLINE void hgm_event_table_freed(uint32_t *changed)
{
	if (HGM_EVENTS_WANTED && *changed == hgm_events_now->operation) {
		hgm_events_now->counts.plain--;
		*changed = 0;
	}
}

/* A map count came to `now` by adding `by`. at_edges: it is one of a base page, or of the whole. */
HGM_INLINE void hgm_event_map(const struct hgm_page *page, int at_edges, int32_t now, int32_t by)
{
	if (HGM_EVENTS_WANTED) {
		hgm_count_atomic(hgm_events_now, page, 0);
		if (at_edges && (now == 0 || now == by))
			hgm_events_now->edge = 1;
	}
}

/* The same by a plain store. */
HGM_INLINE void hgm_event_map_plain(const struct hgm_page *page, int at_edges, int32_t now, int32_t by)
{
	hgm_event_plain(page, 1);
	if (HGM_EVENTS_WANTED && at_edges && (now == 0 || now == by))
		hgm_events_now->edge = 1;
}

HGM_INLINE void hgm_event_ref(const struct hgm_page *page, int32_t by)
{
	if (HGM_EVENTS_WANTED) {
		hgm_count_atomic(hgm_events_now, page, hgm_events_now->looks_up && by > 0);
		hgm_events_now->looks_up = 0;
	}
}

HGM_INLINE void hgm_event_look_up(const struct hgm_page *page)
{
	hgm_event_atomic(page, 1);
	hgm_event_atomic(page, 0);
}

/* A lock is taken; its atomic is counted by who counts locks. `last`: a word beside it, for this alone. */
HGM_INLINE void hgm_event_lock(uint32_t *last)
{
	hgm_events *e = hgm_events_now;

	if (e) {
		if (*last && *last != e->cpu + 1) {
			e->counts.handoffs++;
			e->counts.moved_blind++;
		}
		*last = e->cpu + 1;
	}
}

/* The folio lock, a bit on the head page's line. */
HGM_INLINE void hgm_event_folio_lock(const struct hgm_page *head)
{
	hgm_events *e = hgm_events_now;
	uint64_t moved;

	if (e) {
		moved = e->counts.moved_blind;
		hgm_event_write(e, head, 0);
		e->counts.handoffs += e->counts.moved_blind - moved;
	}
}

HGM_INLINE void hgm_event_flag(const struct hgm_page *page)
{
	if (HGM_EVENTS_WANTED && hgm_events_now->told)
		hgm_event_atomic(page, 0);
}

HGM_INLINE void hgm_event_freed(const struct hgm_page *head)
{
	if (HGM_EVENTS_WANTED) {
		hgm_events_now->counts.freed++;
		hgm_events_now->lines[head - hgm_events_now->pages].deferred = 0;
	}
}

/* A table is freed by munmap of shmem or anonymous memory, whose K(op) has that in it: no event. The driver adds all. */
HGM_INLINE void hgm_event_table_with_munmap(void)
{
	if (HGM_EVENTS_WANTED)
		hgm_events_now->counts.table_free--;
}

HGM_INLINE void hgm_event_copy(uint64_t pages)
{
	if (HGM_EVENTS_WANTED)
		hgm_events_now->counts.copy += pages;
}

/* The kernel made `n` fewer updates of the head's _refcount than were counted: the last ones were all one update. */
HGM_INLINE void hgm_event_refs_merged(const struct hgm_page *head, uint64_t n)
{
	if (HGM_EVENTS_WANTED) {
		hgm_events_now->counts.atomic -= n;
		hgm_events_now->lines[head - hgm_events_now->pages].updates -= n;
	}
}

HGM_INLINE void hgm_event_reuse(void)
{
	if (HGM_EVENTS_WANTED)
		hgm_events_now->counts.reused++;
}

#else

#define HGM_COUNT_INTO ((hgm_events_function)0)

/* No hook is left, nor what its arguments would read. */
#define hgm_event_atomic(...) ((void)0)
#define hgm_event_plain(...) ((void)0)
#define hgm_event_children(...) ((void)0)
#define hgm_event_children_go(...) ((void)0)
#define hgm_event_table_freed(...) ((void)0)
#define hgm_event_map(...) ((void)0)
#define hgm_event_map_plain(...) ((void)0)
#define hgm_event_ref(...) ((void)0)
#define hgm_event_look_up(...) ((void)0)
#define hgm_event_lock(...) ((void)0)
#define hgm_event_folio_lock(...) ((void)0)
#define hgm_event_flag(...) ((void)0)
#define hgm_event_freed(...) ((void)0)
#define hgm_event_table_with_munmap(...) ((void)0)
#define hgm_event_copy(...) ((void)0)
#define hgm_event_refs_merged(...) ((void)0)
#define hgm_event_reuse(...) ((void)0)

#endif
#endif

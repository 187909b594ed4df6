# cython: language_level=3
"""hgm.h and entries.h as Cython sees them, and the table that scheme.h makes of a scheme."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "hgmcore/hgm.h" nogil:
    const uint32_t HGM_ABI

    ctypedef struct hgm_page:
        uint64_t flags
        uint64_t private_
        int32_t _large_mapcount
        int32_t _nr_pages_mapped
        int32_t _entire_mapcount
        int32_t _pincount
        int32_t *_mm_id_mapcount
        uint32_t *_mm_id
        int32_t _mapcount
        int32_t _refcount
        int64_t _total_mapped_pages
        int32_t _rmap_atomic_seqcount
        int64_t _rmap_val0
        int64_t _rmap_val1
        int64_t _rmap_val2
        int64_t _rmap_val3
        int32_t *_slot

    const int HGM_SLOTS_A_PAGE
    const uint64_t HGM_PAGE_TOUCHED, HGM_PAGE_DOUBLE_MAP, HGM_PAGE_HEAD, HGM_PAGE_TOUCHED_BEFORE, HGM_PAGE_LOCKED

    ctypedef struct hgm_folio:
        hgm_page *page
        uint64_t pfn
        uint64_t nr_pages
        uint32_t file
        uint32_t index
        int32_t pins
        uint32_t flags
        int32_t poisons
        uint32_t isolated

    const uint32_t HGM_FOLIO_CACHED, HGM_FOLIO_FREED, HGM_FOLIO_POISONED, HGM_FOLIO_ANON, HGM_FOLIO_FREE

    const uint64_t HGM_PTE_PRESENT, HGM_PTE_LEAF, HGM_PTE_MIGRATION, HGM_PTE_POISON, HGM_PTE_GROUP, HGM_PTE_COUNTED
    const uint64_t HGM_PTE_EXCLUSIVE, HGM_PTE_ZERO
    const int HGM_PTE_FRAME_SHIFT

    ctypedef struct hgm_ptdesc:
        uint32_t children
        uint32_t sharers
        uint32_t folio
        uint32_t lock
        uint32_t deposited
        uint32_t nr_deposited
        uint32_t changed
        uint32_t locked_by

    ctypedef struct hgm_operation:
        uint64_t offset
        uint64_t length
        uint32_t target
        uint16_t arg
        uint8_t op
        uint8_t flags

    enum:
        HGM_OP_FILE, HGM_OP_POPULATE, HGM_OP_MMAP, HGM_OP_REGISTER, HGM_OP_UNREGISTER, HGM_OP_SPLIT
        HGM_OP_CONTINUE, HGM_OP_TOUCH, HGM_OP_DONTNEED, HGM_OP_COLLAPSE, HGM_OP_MUNMAP, HGM_OP_MPROTECT
        HGM_OP_MREMAP, HGM_OP_FORK, HGM_OP_EXIT, HGM_OP_PUNCH, HGM_OP_TRUNCATE, HGM_OP_MIGRATE
        HGM_OP_HWPOISON, HGM_OP_PIN, HGM_OP_UNPIN, HGM_OP_FAIL, HGM_OP_OBSERVE, HGM_OP_PHASE
        HGM_NR_OPS

    const int HGM_NO_ARG
    const int HGM_OPF_SHARED, HGM_OPF_MINOR, HGM_OPF_WP, HGM_OPF_HGM
    const int HGM_OPF_URGENT, HGM_OPF_WRITE, HGM_OPF_ALL, HGM_OPF_READ
    const int HGM_OPF_AT, HGM_OPF_RESIZED, HGM_OPF_KEEP

    ctypedef struct hgm_result:
        uint64_t index
        uint64_t done
        int32_t error
        uint32_t event

    const uint32_t HGM_EVENT_MINOR, HGM_EVENT_NEVER_FIRED

    ctypedef struct hgm_cost:
        uint64_t ref
        uint64_t map
        uint64_t transient
        uint64_t entries_scanned
        uint64_t leaf_installs
        uint64_t leaf_removes
        uint64_t underflows
        uint64_t overflows
        uint64_t locks

    enum:
        HGM_BY_CONTINUE, HGM_BY_FAULT, HGM_BY_FORK, HGM_BY_ZAP, HGM_BY_TRUNCATE, HGM_BY_COLLAPSE, HGM_BY_MIGRATION
        HGM_BY_POISON

    ctypedef struct hgm_leaf:
        hgm_folio *folio
        uint64_t first
        uint64_t nr_pages
        uint32_t count
        uint32_t process
        uint32_t mapping
        uint8_t origin
        uint8_t whole
        uint8_t covers
        uint8_t hstate_none
        uint8_t first_leaf
        uint8_t threads
        uint16_t cpu

    ctypedef struct hgm_subtree:
        hgm_folio *folio
        uint64_t removed
        uint32_t process
        uint32_t mapping
        uint8_t origin
        uint8_t covers
        uint8_t whole
        uint8_t tables_stay
        uint8_t empty
        uint8_t counted
        uint16_t cpu

    ctypedef struct hgm_answer:
        int64_t mapcount
        int64_t refs
        int64_t sharers
        int64_t nr_file_mapped
        int32_t mapped
        int32_t maybe_shared

    enum:
        HGM_AROUND_NONE, HGM_AROUND_16, HGM_AROUND_FOLIO

    enum:
        HGM_BATCH_NO, HGM_BATCH_6_9, HGM_BATCH_6_12
        HGM_CHECK_NONE, HGM_CHECK_AFTER, HGM_CHECK_TRY, HGM_CHECK_HALF

    enum:
        HGM_EXCLUSIVE_NO, HGM_EXCLUSIVE_TRACKED, HGM_EXCLUSIVE_ALL

    enum:
        HGM_LOCKS_NONE, HGM_LOCKS_PT, HGM_LOCKS_POSTED

    ctypedef struct hgm_scheme

    ctypedef struct hgm_options:
        int32_t era
        uint8_t cache_refs_folio
        uint8_t lookup_first
        uint8_t zap_frees_tables
        uint8_t rmap_aware
        uint8_t base_only
        uint8_t batch
        uint8_t transient_real
        uint8_t overflow_check
        uint8_t posted
        uint8_t locks
        uint8_t fault_around
        uint8_t rmap_values
        uint8_t rmap_batch
        uint8_t rmap_exclusive
        uint8_t pmd_order
        hgm_scheme *scheme
        uint8_t top_down

    int32_t hgm_map_add(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by) noexcept
    int32_t hgm_map_add_locked(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by) noexcept
    int32_t hgm_map_add_alone(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t by, bint threads) noexcept
    uint32_t hgm_nr_slots(const hgm_folio *folio) noexcept
    hgm_page *hgm_slot_page(const hgm_folio *folio, uint32_t slot) noexcept
    int32_t *hgm_slot(const hgm_folio *folio, uint32_t slot) noexcept
    int32_t hgm_slot_add(hgm_page *page, int32_t *slot, int32_t by) noexcept
    bint hgm_map_swap(hgm_cost *cost, hgm_page *page, int32_t *word, int32_t was, int32_t to) noexcept
    void hgm_sum_add(hgm_cost *cost, hgm_page *page, int64_t *sum, int64_t by, bint alone, bint threads) noexcept
    void hgm_ref_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept
    void hgm_get_and_put(hgm_folio *folio) noexcept
    int32_t hgm_refcount(const hgm_folio *folio) noexcept
    void hgm_page_flags_set(hgm_page *page, uint64_t flags) noexcept
    void hgm_page_flags_clear(hgm_page *page, uint64_t flags) noexcept
    int32_t hgm_plain_add(hgm_folio *folio, int32_t by) noexcept
    hgm_cost hgm_no_cost() noexcept
    void hgm_cost_add(hgm_cost *total, const hgm_cost *cost) noexcept

# The C library (library.h); its functions are those of hgmcore/library.pxd.
cdef extern from "hgmcore/library.h" nogil:
    enum:
        HGM_E_ABI, HGM_E_MEMORY, HGM_E_UNDECLARED, HGM_E_GEOMETRY, HGM_E_OPTION, HGM_E_PAGE_SIZE, HGM_E_FILE_SIZE
        HGM_E_BUSY, HGM_E_RESERVE, HGM_E_NOT_READY
    enum:
        HGM_HUGETLB, HGM_SHMEM, HGM_ANON
    const uint32_t HGM_ENGINE_WHOLE_ONLY, HGM_ENGINE_TAILS, HGM_ENGINE_ONE_THREAD, HGM_ENGINE_SCANS
    const uint32_t HGM_ENGINE_FIRST_COME, HGM_ENGINE_BY_NUMBER, HGM_ENGINE_ASKS_CPU, HGM_ENGINE_SLOTS
    const uint32_t HGM_ENGINE_DIRTIES

    ctypedef struct hgm_leaf_size:
        int32_t shift
        int32_t level
        int32_t entries

    ctypedef struct hgm_geometry:
        const char *name
        int32_t base_shift
        int32_t index_bits
        int32_t levels
        int32_t nr_leaves
        hgm_leaf_size leaves[6]

    struct hgm_core:
        pass

    ctypedef struct hgm_engine:
        uint32_t abi
        uint32_t size
        uint32_t core_size
        uint32_t flags
        const char *name
        hgm_options options
        uint64_t (*run)(hgm_core *core, const hgm_operation *operations, uint64_t n, uint64_t index) noexcept nogil
        uint64_t (*page_mapcount_runs)(hgm_core *core, const hgm_folio *folio, long long *out) noexcept nogil
        void (*answer)(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept nogil
        int (*movable)(const hgm_options *options, const hgm_folio *folio, int table_shared) noexcept nogil
        void (*asked)(hgm_core *core, const hgm_operation *operations, uint64_t n, uint64_t *out) noexcept nogil

    ctypedef struct hgm_machine:
        uint32_t abi
        uint32_t size
        hgm_core *core
        const hgm_engine *engine
        uint64_t operations
        uint32_t busy
        uint32_t owned

cdef extern from "hgmcore/scheme.h" nogil:
    ctypedef struct hgm_scheme:
        uint32_t abi
        uint32_t size
        uint32_t needs
        uint32_t quirks
        void *user
        const char *name
        const char *explanation
        const char *state
        const char *defaults
        const char *posted
        const char *exceptions
        int (*leaf_install)(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) noexcept
        void (*leaf_remove)(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) noexcept
        int64_t (*page_mapcount)(const hgm_options *options, const hgm_folio *folio, uint64_t page) noexcept
        void (*answer_folio)(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept
        int (*table_add)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
        void (*table_free)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
        int (*subtree_zapped)(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree) noexcept
        void (*kill)(hgm_cost *cost, const hgm_options *options, hgm_folio *folio) noexcept
        const char *failed
        const char *failed_in

    void hgm_fail(const hgm_options *options, const char *why) noexcept

cdef extern from "hgmcore/entries.h" nogil:
    uint64_t hgm_next_entry(const uint64_t *entries, uint64_t i, uint64_t n) noexcept
    void hgm_fill(uint64_t *entries, uint64_t n, uint64_t value, uint64_t step) noexcept
    void hgm_prefetch(const void *address) noexcept
    uint64_t *hgm_settled(uint64_t *entries) noexcept
    bint hgm_find_leaf(const unsigned char *tables, int index_bits, const uint64_t *entries,
                       uint64_t *scanned) noexcept
    uint64_t hgm_leaf_run(const uint64_t *entries, uint64_t n) noexcept
    uint64_t hgm_copy_run(uint64_t *to, const uint64_t *entries, uint64_t n, bint groups) noexcept
    uint64_t hgm_frame_run(const uint64_t *entries, uint64_t n) noexcept

cdef extern from "hgmcore/events.h" nogil:
    ctypedef struct hgm_event_counts:
        uint64_t atomic
        uint64_t plain
        uint64_t step
        uint64_t stat
        uint64_t far
        uint64_t moved_blind
        uint64_t moved_read
        uint64_t scan
        uint64_t table_alloc
        uint64_t table_free
        uint64_t copy
        uint64_t installs
        uint64_t removes
        uint64_t freed
        uint64_t reused
        uint64_t split_deferred
        uint64_t batched
        uint64_t handoffs

    ctypedef struct hgm_line:
        uint64_t cpus
        uint64_t updates
        uint32_t stamp
        uint16_t cpu
        uint16_t deferred

    enum:
        HGM_NO_STATISTIC, HGM_FILE_STATISTIC, HGM_ANON_STATISTIC

    ctypedef struct hgm_events:
        hgm_event_counts counts
        hgm_line *lines
        const hgm_page *pages
        const uint8_t *kinds
        uint64_t *fetched
        uint32_t cpu
        uint32_t near
        uint32_t serial
        uint32_t operation

    ctypedef void (*hgm_events_function)(hgm_events *events) noexcept
    const hgm_events_function HGM_COUNT_INTO
    const bint HGM_IS_ALONE

    void hgm_event_plain(const hgm_page *page, int n) noexcept
    void hgm_event_children(int n) noexcept
    void hgm_event_children_go(uint32_t *changed) noexcept
    void hgm_event_table_freed(uint32_t *changed) noexcept
    void hgm_event_freed(const hgm_page *head) noexcept
    void hgm_event_table_with_munmap() noexcept
    void hgm_event_lock(uint32_t *last) noexcept
    void hgm_event_folio_lock(const hgm_page *head) noexcept
    void hgm_event_copy(uint64_t pages) noexcept
    void hgm_event_refs_merged(const hgm_page *head, uint64_t n) noexcept
    void hgm_event_reuse() noexcept

# Where a thread of a race can be cut: nothing in an engine that is not compiled for races (races.h).
cdef extern from "hgmcore/races.h" nogil:
    const bint RACING "HGM_RACING"
    const int READS "HGM_READS"
    const int WRITES "HGM_WRITES"
    const int CHANGES "HGM_CHANGES"
    enum:
        HGM_MMAP_LOCK, HGM_FAULT_MUTEX, HGM_VMA_LOCK, HGM_I_MMAP_LOCK, HGM_FOLIO_LOCK, HGM_PT_LOCK
    enum:
        HGM_SHARED_LOCK, HGM_EXCLUSIVE_LOCK

    ctypedef struct hgm_racer:
        hgm_folio *held
        uint32_t up[8]
        uint32_t emptied
        hgm_folio *zapped
        uint32_t taken

    void cut "hgm_cut"(int access, const void *where) noexcept
    void race_lock "hgm_race_lock"(int lock, const void *of, int how) noexcept
    bint race_trylock "hgm_race_trylock"(int lock, const void *of, int how) noexcept
    void race_unlock "hgm_race_unlock"(int lock) noexcept
    const uint32_t HGM_V1_COLLAPSE, HGM_FIXED_PUNCH
    uint32_t race_repairs "hgm_race_repairs"() noexcept
    hgm_racer *race_me "hgm_race_me"() noexcept
    void *race_here "hgm_race_here"() noexcept

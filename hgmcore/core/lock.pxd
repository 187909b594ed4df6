# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Locks: what the kernel holds while it maps a leaf (option `locks`), and what threads of the simulator need.

    kernel (HGM v2, UFFDIO_CONTINUE and page faults)      here
    hugetlb_fault_mutex_table[], by file and huge page    Machine.fault_mutexes, as many as in a kernel of 32 processors
    hugetlb_vma_lock_read()                               a count in the Vma: an atomic on a line that its readers share
    folio_lock()                                          a bit of the head page's flags, on the line of _refcount
    the split page-table lock                             a word of the table's descriptor

All that several threads do to one huge page at the same time is to fill different base pages of it (stretches.py). What
they share then is kept whole whatever `locks` says: the tables below the hstate-level entry and its counted bit by the
fault mutex, under which all but the loop over single base pages runs; counts of children by atomics or the page-table
lock; owners' slots by a lock of their own. What is allocated is shared by all, under `growing` of the machine.
"""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport Machine, Mapping, POSTED_LOCKS, PT_LOCKS, Vma

cdef extern from "hgmcore/lock.h" nogil:
    void hgm_spin_lock(uint32_t *lock) noexcept
    void hgm_spin_unlock(uint32_t *lock) noexcept
    void hgm_folio_lock(hgm_page *head) noexcept
    void hgm_folio_unlock(hgm_page *head) noexcept
    void hgm_mm_ids_lock(hgm_page *page1) noexcept
    void hgm_mm_ids_unlock(hgm_page *page1) noexcept
    uint32_t hgm_mm_id_word(const hgm_page *page1, int slot) noexcept
    void hgm_mm_id_set_word(hgm_page *page1, int slot, uint32_t word) noexcept
    void hgm_read_lock(uint32_t *lock) noexcept
    void hgm_read_unlock(uint32_t *lock) noexcept
    void hgm_meet(uint32_t *here, uint32_t n) noexcept
    uint32_t hgm_increment(uint32_t *word) noexcept
    uint64_t hgm_get_entry(const uint64_t *entry) noexcept
    void hgm_set_entry(uint64_t *entry, uint64_t value) noexcept
    bint hgm_fill_entry(uint64_t *entry, uint64_t value) noexcept
    bint hgm_enter(uint32_t *busy) noexcept
    void hgm_leave(uint32_t *busy) noexcept

cdef enum:
    FAULT_MUTEXES = 256
    LINE = 64            # bytes

# What is held around each leaf of one huge page.
cdef struct Locks:
    uint32_t *mutex
    uint32_t *vma
    hgm_page *head       # of the folio, or NULL

cdef inline Machine *growing_lock(Machine *m) noexcept nogil:
    """The machine that owns tables and folios, for this thread alone if it is another than `m`."""
    if m.context.owner is not m:
        hgm_spin_lock(&m.context.owner.context.growing)
    return m.context.owner

cdef inline void growing_unlock(Machine *m) noexcept nogil:
    if m.context.owner is not m:
        hgm_spin_unlock(&m.context.owner.context.growing)

cdef inline Locks locks_of(Machine *m, const Mapping *v, Vma *vma, uint64_t start, hgm_folio *folio) noexcept nogil:
    """The locks of the huge page at `start` of a mapping. folio: or NULL."""
    cdef Locks locks
    cdef uint64_t index = (v.file_offset + start) >> m.state.files[v.file].page_shift
    cdef uint64_t hash = (index + (<uint64_t>v.file << 32)) * <uint64_t>0x9e3779b97f4a7c15
    locks.mutex = &m.context.fault_mutexes[(hash >> 56) * (LINE // sizeof(uint32_t))]
    locks.vma = &vma.lock
    locks.head = folio.page if folio is not NULL else NULL
    return locks

cdef inline int locks_held(const Locks *locks, int exclusion) noexcept nogil:
    """How many locks of option `locks` huge_page_lock() takes."""
    return 0 if exclusion != POSTED_LOCKS else 2 if locks.head is NULL else 3

cdef inline void huge_page_lock(const Locks *locks, int exclusion) noexcept nogil:
    """What is held around each leaf, but for the page-table lock."""
    hgm_spin_lock(locks.mutex)
    if exclusion == POSTED_LOCKS:
        hgm_event_lock(locks.mutex + 1)
        hgm_read_lock(locks.vma)
        if locks.head is not NULL:
            hgm_folio_lock(locks.head)
            hgm_event_folio_lock(locks.head)

cdef inline void huge_page_unlock(const Locks *locks, int exclusion) noexcept nogil:
    if exclusion == POSTED_LOCKS:
        if locks.head is not NULL:
            hgm_folio_unlock(locks.head)
        hgm_read_unlock(locks.vma)
    hgm_spin_unlock(locks.mutex)

cdef inline void table_lock(hgm_ptdesc *desc, int exclusion) noexcept nogil:
    race_lock(HGM_PT_LOCK, desc, HGM_EXCLUSIVE_LOCK)
    if exclusion >= PT_LOCKS:
        hgm_spin_lock(&desc.lock)
        hgm_event_lock(&desc.locked_by)

cdef inline void table_unlock(hgm_ptdesc *desc, int exclusion) noexcept nogil:
    race_unlock(HGM_PT_LOCK)
    if exclusion >= PT_LOCKS:
        hgm_spin_unlock(&desc.lock)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""An access, and the page fault that it takes where nothing maps its address."""
from libc.errno cimport EFAULT, ENOMEM, ESRCH
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_alloc, folio_of, page_cache_add, page_cache_alloc, page_poisoned
from hgmcore.core.lock cimport huge_page_lock, huge_page_unlock, Locks, locks_held, locks_of
from hgmcore.core.machine cimport ALONE, Machine, Mapping, MAX_LEVELS, Vma
from hgmcore.core.table cimport descend, is_leaf, PTE
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport (
    base_mask, EHWPOISON, folio_answer, lock_cached, look_up_and_put, look_up_held, lookup_refused, Outcome, outcome,
    page_mask, process_exited
)
from hgmcore.operations.hugetlb.huge_page cimport (
    entry_for, file_index, huge_page, huge_page_none, HugePage, install_at, maps_pieces, tables_alloc
)
from hgmcore.operations.hugetlb.zap cimport zap_huge_page
from hgmcore.scheme cimport *

cdef inline int fault_leaf(Machine *m, const HugePage *h, int level) noexcept nogil:
    """The leaf that fills an empty entry of `level`: the whole huge page if nothing of it is mapped."""
    if level == h.file.level and huge_page_none(h):
        return h.file.leaf
    return m.config.geometry.entry_leaf[level]

cdef inline bint behind_end(const HugePage *h) noexcept nogil:
    """Does the page lie behind the end of the file, where an access gets SIGBUS?"""
    return h.folio is NULL and file_index(h) >= h.file.size

cdef inline Outcome map_private(Machine *m, HugePage *h, hgm_folio *folio, bint by_look_up) noexcept nogil:
    """Map `folio` whole; entries are none."""
    cdef uint32_t path[MAX_LEVELS]
    cdef bint kept
    memset(path, 0, sizeof(path))    # a leaf at the hstate level stands in no table of its subtree
    h.folio = folio
    kept = install_at(m, h, h.entry, h.file.leaf, h.start, 1, path, HGM_BY_FAULT, True)
    if by_look_up and not kept:
        look_up_and_put(m, &m.context.cost, folio)
    return outcome(base_mask(m) + 1, 0)

cdef inline void anon_vma_prepare(Vma *vma) noexcept nogil:
    """The VMA gets a huge page of its own: from now on a fork copies what it maps (vma_needs_copy)."""
    if vma.anon_vma == 0:
        vma.anon_vma = 1

cdef inline Outcome hugetlb_wp(Machine *m, HugePage *h, Vma *vma) noexcept nogil:
    """A write to a private huge page: reuse an anonymous page that nobody else maps, else copy."""
    cdef hgm_folio *old = NULL
    cdef hgm_folio *copy
    if is_leaf(h.entry[0]):
        old = folio_of(m, h.entry[0] >> HGM_PTE_FRAME_SHIFT)
        if old.flags & HGM_FOLIO_ANON and folio_answer(&m.config.options, old).mapcount == 1:
            return outcome(base_mask(m) + 1, 0)
    copy = folio_alloc(m, h.mapping.file, file_index(h))
    if copy is NULL:
        return outcome(0, ENOMEM)
    copy.flags = HGM_FOLIO_ANON
    anon_vma_prepare(vma)
    if old is not NULL:
        hgm_event_copy(old.nr_pages)
        zap_huge_page(m, h, h.start, h.start + page_mask(h.file) + 1, HGM_BY_FAULT, False)
    return map_private(m, h, copy, False)

cdef inline Outcome private_fault(Machine *m, HugePage *h, const hgm_operation *op, Vma *vma) noexcept nogil:
    """A fault in a private mapping: the page cache's page to read, a copy to write. Whole huge pages only."""
    cdef hgm_folio *page
    cdef Outcome event
    cdef int error
    if not is_leaf(h.entry[0]) and h.folio is not NULL:
        error = lookup_refused(m, h.folio, True)
        if error:
            return outcome(0, error)
        if vma.flags & HGM_OPF_MINOR:
            look_up_and_put(m, &m.context.cost, h.folio)
            event = outcome(0, 0)
            event.event = HGM_EVENT_MINOR
            return event
        if h.folio.flags & HGM_FOLIO_POISONED:
            look_up_and_put(m, &m.context.cost, h.folio)
            return outcome(0, EHWPOISON)
        if op.flags & HGM_OPF_WRITE:    # only its contents are used
            look_up_and_put(m, &m.context.cost, h.folio)
    if not is_leaf(h.entry[0]) and behind_end(h):
        return outcome(0, EFAULT)
    if op.flags & HGM_OPF_WRITE:
        return hugetlb_wp(m, h, vma)
    if h.folio is not NULL:
        return map_private(m, h, h.folio, True)
    page = folio_alloc(m, h.mapping.file, file_index(h))
    if page is NULL:
        return outcome(0, ENOMEM)
    page.flags = HGM_FOLIO_ANON
    anon_vma_prepare(vma)
    return map_private(m, h, page, False)

cdef inline hgm_folio *look_up_or_alloc(Machine *m, const HugePage *h, bint *cached) noexcept nogil:
    """In a race: the page of the page cache, or a new one that comes there, with a reference for the fault; or NULL."""
    cdef hgm_folio *folio
    while True:
        folio = look_up_held(m, h.file, file_index(h))
        cached[0] = folio is not NULL
        if folio is not NULL or file_index(h) >= h.file.size:
            return folio
        folio = folio_alloc(m, h.mapping.file, file_index(h))
        if folio is NULL:
            return NULL
        cut(CHANGES, &h.file.cache[file_index(h)])
        if h.file.cache[file_index(h)] == 0:    # else another thread was first
            page_cache_add(m, folio)
            folio.page._refcount += 1
            race_me().held = folio
            return folio

cdef inline Outcome hugetlb_no_page(Machine *m, HugePage *h, const hgm_operation *op, uint32_t vma_flags,
                                    uint64_t *entry,
                                 int level, uint32_t *path) noexcept nogil:
    """A fault in a shared mapping, at `entry` of `level`, which is none. path: the tables on the way there.

    As HGM v2 does: a leaf of the size of the deepest entry that is there; no table is made. Under the policy base_only
    an HGM mapping gets one base page instead, with the tables that it needs.
    """
    cdef uint64_t offset
    cdef int size, error
    cdef bint hstate_none, cached = True
    cdef Outcome done = outcome(base_mask(m) + 1, 0)
    if RACING:
        race_me().taken = False
        h.folio = look_up_or_alloc(m, h, &cached)
    if behind_end(h):
        return outcome(0, EFAULT)
    if RACING and h.folio is NULL:
        return outcome(0, ENOMEM)
    if h.folio is NULL:
        h.folio = page_cache_alloc(m, h.mapping.file, file_index(h))
        if h.folio is NULL:
            return outcome(0, ENOMEM)
        cached = False
    error = lookup_refused(m, h.folio, True)
    if error:
        return outcome(0, error)
    if cached and vma_flags & HGM_OPF_MINOR:
        look_up_and_put(m, &m.context.cost, h.folio)
        done.done = 0
        done.event = HGM_EVENT_MINOR
        return done
    if RACING and not lock_cached(m, h.file, file_index(h), h.folio):
        look_up_and_put(m, &m.context.cost, h.folio)
        race_me().taken = True
        return done
    size = fault_leaf(m, h, level)
    if m.config.options.base_only and maps_pieces(m, vma_flags):
        size = 0
    offset = op.offset & ~((<uint64_t>1 << m.config.geometry.leaf_shift[size]) - 1)
    if h.folio.flags & HGM_FOLIO_POISONED and (QUIRKS & QUIRK_POISONS_WHOLE or page_poisoned(
            m, h.folio.pfn + ((offset - h.start) >> m.config.geometry.base_shift),
            <uint64_t>1 << (m.config.geometry.leaf_shift[size] - m.config.geometry.base_shift))):
        look_up_and_put(m, &m.context.cost, h.folio)
        return outcome(0, EHWPOISON)
    hstate_none = huge_page_none(h)
    if level > m.config.geometry.leaf_level[size] and not tables_alloc(m, h, &entry, h.mapping.address + offset,
                                                                       &level, 1,
                                                                 path, HGM_BY_FAULT):
        look_up_and_put(m, &m.context.cost, h.folio)
        return outcome(0, ENOMEM)
    if size == h.file.leaf:
        entry = h.entry
    if not install_at(m, h, entry, size, offset, 1, path, HGM_BY_FAULT, hstate_none):
        look_up_and_put(m, &m.context.cost, h.folio)
    race_unlock(HGM_FOLIO_LOCK)
    return done

cdef inline Outcome hugetlb_fault(Machine *m, Mapping *v, Vma *vma, const hgm_operation *op,
                                  HugePage *h) noexcept nogil:
    """An access that the VMA allows; `h` becomes its huge page."""
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef int level
    cdef Locks locks
    cdef Outcome done = outcome(base_mask(m) + 1, 0)
    h[0] = huge_page(m, v, op.offset, True)
    if h.entry is NULL:
        return outcome(0, ENOMEM)
    race_lock(HGM_FAULT_MUTEX, &h.file.cache[file_index(h)], HGM_EXCLUSIVE_LOCK)
    race_lock(HGM_VMA_LOCK, v, HGM_SHARED_LOCK)
    level = h.file.level
    entry = descend(m, entry_for(m, h, op.offset), v.address + op.offset, &level, 1, path)
    if level == PTE:
        cut(READS, entry)
    if RACING:
        race_me().taken = entry[0] & HGM_PTE_MIGRATION != 0
    if entry[0] & HGM_PTE_POISON and vma.flags & HGM_OPF_SHARED:
        return outcome(0, EHWPOISON)
    if entry[0] != 0 and (vma.flags & HGM_OPF_SHARED or is_leaf(entry[0]) and not op.flags & HGM_OPF_WRITE):
        return done
    if m.context.exclusion != ALONE:
        locks = locks_of(m, v, vma, h.start, h.folio)
        m.context.cost.locks += locks_held(&locks, m.context.exclusion)
        huge_page_lock(&locks, m.context.exclusion)
    if vma.flags & HGM_OPF_SHARED:
        done = hugetlb_no_page(m, h, op, vma.flags, entry, level, path)
    else:
        done = private_fault(m, h, op, vma)
    if m.context.exclusion != ALONE:
        huge_page_unlock(&locks, m.context.exclusion)
    return done

cdef inline Outcome touch(Machine *m, const hgm_operation *op, HugePage *h) noexcept nogil:
    """An access: nothing where the page is mapped so that it may be, else a fault.

    Leaves `h`, whose entry is NULL, at the huge page, if all accesses to its VMA map what the page cache holds.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Vma *vma
    cdef uint32_t all = HGM_OPF_SHARED | HGM_OPF_READ | HGM_OPF_WRITE
    cdef Outcome done
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_SHARED_LOCK)
    cut(READS, &v.nr_vmas)
    if process_exited(m, v):
        return outcome(0, ESRCH)
    vma = vma_find(v, op.offset)
    if vma is NULL or not vma.flags & (HGM_OPF_WRITE if op.flags & HGM_OPF_WRITE else HGM_OPF_READ):
        return outcome(0, EFAULT)
    done = hugetlb_fault(m, v, vma, op, h)
    while RACING and race_me().taken:    # what it found was gone when it had the lock: the access comes again
        race_unlock(HGM_VMA_LOCK)
        race_unlock(HGM_FAULT_MUTEX)
        done = hugetlb_fault(m, v, vma, op, h)
    if vma.flags & (all | HGM_OPF_MINOR) != all:
        h.entry = NULL
    return done

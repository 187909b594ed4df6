# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""UFFDIO_CONTINUE: map what the page cache holds, in the largest leaves that fit."""
from libc.errno cimport EAGAIN, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport huge_page_lock, huge_page_unlock, Locks, locks_held, locks_of
from hgmcore.core.machine cimport ALONE, Machine, Mapping, MAX_LEVELS, Vma
from hgmcore.core.table cimport descend, entry_index
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport (
    lock_cached, look_up_and_put, look_up_held, lookup_refused, Outcome, outcome, page_mask, uffd_range_error
)
from hgmcore.operations.hugetlb.huge_page cimport (
    counted, entry_for, file_index, huge_page, huge_page_none, HugePage, install_at, maps_pieces, tables_alloc
)
from hgmcore.operations.hugetlb.loops cimport continue_run

cdef inline int largest_leaf(Machine *m, const HugePage *h, uint64_t offset, uint64_t length,
                             bint pieces) noexcept nogil:
    """The number of the largest leaf that is aligned at `offset` and fits in `length`."""
    cdef int i = h.file.leaf
    if pieces:
        if m.config.options.base_only:
            return 0
        while i > 0 and (offset & ((<uint64_t>1 << m.config.geometry.leaf_shift[i]) - 1) != 0
                         or length >> m.config.geometry.leaf_shift[i] == 0):
            i -= 1
    return i

cdef inline bint leaf_free(Machine *m, const uint64_t *entry, int size) noexcept nogil:
    """Are the entries of leaf number `size` none?"""
    cdef int i
    if RACING and m.config.geometry.leaf_entries[size] == 1:    # install_at() looks, under the lock
        return True
    for i in range(m.config.geometry.leaf_entries[size]):
        cut(READS, &entry[i])
        if entry[i] != 0:
            return False
    return True

cdef inline int hugetlb_mfill_atomic_pte(Machine *m, HugePage *h, uint64_t offset, int size) noexcept nogil:
    """One leaf. 0 or an errno."""
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t address = h.mapping.address + offset
    cdef uint64_t *entry = entry_for(m, h, offset)
    cdef int level = h.file.level, target = m.config.geometry.leaf_level[size], error
    cdef bint hstate_none
    if RACING and m.config.options.lookup_first:
        h.folio = look_up_held(m, h.file, file_index(h))
        if h.folio is NULL:
            return EFAULT
    hstate_none = huge_page_none(h)
    if m.config.options.lookup_first:
        if h.folio is NULL:
            return EFAULT
        error = lookup_refused(m, h.folio, False)
        if error:
            return error
    if not RACING:
        entry = descend(m, entry, address, &level, target, path)
    if (RACING or level > target and entry[0] == 0) and not tables_alloc(m, h, &entry, address, &level, target, path,
                                                                         HGM_BY_CONTINUE):
        if m.config.options.lookup_first:
            look_up_and_put(m, &m.context.cost, h.folio)
        return ENOMEM
    if RACING and not m.config.options.lookup_first:
        h.folio = look_up_held(m, h.file, file_index(h))
    if h.folio is NULL:
        return EFAULT
    if not m.config.options.lookup_first:
        error = lookup_refused(m, h.folio, False)
        if error:
            return error
    if h.folio.flags & HGM_FOLIO_POISONED or level > target or not leaf_free(m, entry, size):
        look_up_and_put(m, &m.context.cost, h.folio)
        return EIO if h.folio.flags & HGM_FOLIO_POISONED else EEXIST
    if RACING and not lock_cached(m, h.file, file_index(h), h.folio):
        look_up_and_put(m, &m.context.cost, h.folio)
        return EFAULT
    if not install_at(m, h, entry, size, offset, 1, path, HGM_BY_CONTINUE, hstate_none):
        look_up_and_put(m, &m.context.cost, h.folio)
    race_unlock(HGM_FOLIO_LOCK)
    return EEXIST if RACING and race_me().taken else 0

cdef inline uint64_t continue_table(Machine *m, HugePage *h, uint64_t offset, uint64_t length) noexcept nogil:
    """Base pages from `offset` on, behind one that this operation installed, up to the end of their table at most.

    Returns the bytes of those that take no other way: none where larger leaves may fit in between, where there is no
    table, or where a look-up may be refused.
    """
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t fan_out = <uint64_t>1 << m.config.geometry.index_bits, free
    cdef uint64_t at = entry_index(m, h.mapping.address + offset, 1), n
    cdef uint64_t *entry
    cdef int level = h.file.level
    if (offset - h.start > page_mask(h.file) or h.file.entries > 1 or m.config.options.overflow_check != HGM_CHECK_NONE
            or (at == 0 or m.config.geometry.group[1] > 1) and not m.config.options.base_only
            or m.context.exclusion != ALONE and (at == 0 or not counted(h)) or RACING):    # another may count it first
        return 0
    n = min(fan_out - at, length >> m.config.geometry.base_shift)
    entry = descend(m, h.entry, h.mapping.address + offset, &level, 1, path)
    if level > 1:
        return 0
    free = hgm_next_entry(entry, 0, n)
    if free:
        continue_run(m, h, entry, free, (offset - h.start) >> m.config.geometry.base_shift, path)
    return free << m.config.geometry.base_shift

cdef inline Outcome mfill_atomic_hugetlb(Machine *m, const hgm_operation *op, HugePage *h) noexcept nogil:
    """Leaves `h`, whose entry is NULL, at the last huge page, if pieces of it may be mapped."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t done = 0, run
    cdef int size, error = 0
    cdef bint pieces
    cdef Vma *vma
    cdef Locks locks
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_SHARED_LOCK)
    cut(READS, &v.nr_vmas)
    error = uffd_range_error(m, op)
    if error:
        return outcome(0, error)
    vma = vma_find(v, op.offset)
    if vma is NULL or op.offset + op.length > vma.end or not vma.flags & HGM_OPF_MINOR:
        return outcome(0, ENOENT)
    pieces = maps_pieces(m, vma.flags)
    if not pieces and (op.offset | op.length) & page_mask(&m.state.files[v.file]):
        return outcome(0, EINVAL)
    while done < op.length:
        if h.entry is NULL or op.offset + done - h.start > page_mask(h.file):
            h[0] = huge_page(m, v, op.offset + done, True)
            if h.entry is NULL:
                return outcome(done, ENOMEM)
        size = largest_leaf(m, h, op.offset + done, op.length - done, pieces)
        race_lock(HGM_FAULT_MUTEX, &h.file.cache[file_index(h)], HGM_EXCLUSIVE_LOCK)
        race_lock(HGM_VMA_LOCK, v, HGM_SHARED_LOCK)
        if m.context.exclusion != ALONE:
            locks = locks_of(m, v, vma, h.start, h.folio)
            m.context.cost.locks += locks_held(&locks, m.context.exclusion)
            huge_page_lock(&locks, m.context.exclusion)
        error = hugetlb_mfill_atomic_pte(m, h, op.offset + done, size)
        if m.context.exclusion != ALONE:
            huge_page_unlock(&locks, m.context.exclusion)
        race_unlock(HGM_VMA_LOCK)
        race_unlock(HGM_FAULT_MUTEX)
        if error:
            break
        done += <uint64_t>1 << m.config.geometry.leaf_shift[size]
        while size == 0 and done < op.length:
            run = continue_table(m, h, op.offset + done, op.length - done)
            if run == 0:
                break
            done += run
    if not pieces:
        h.entry = NULL
    return outcome(done, EAGAIN if error and done else error)

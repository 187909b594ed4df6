# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The system calls on mappings of shmem and anonymous memory, whose VMAs may be cut at any base page."""
from libc.errno cimport EEXIST, EFAULT, EINVAL, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport ANON, File, Machine, Mapping, Vma, VMA_FORKED, VMA_UNACCOUNTED
from hgmcore.core.vma cimport vma_delete, vma_find, vma_search, vma_split
from hgmcore.operations.addresses cimport at_refused, mmap_region
from hgmcore.operations.common cimport (
    base_mask, mprotect_range, Outcome, outcome, process_exited, Range, range_of, round_up, vma_next,
    VmaWalk, walk_vmas
)
from hgmcore.operations.thp.anon cimport anon_fault
from hgmcore.operations.thp.shmem_fault cimport shmem_fault
from hgmcore.operations.thp.zap cimport do_munmap, unmap_page_range, vma_adjust_trans_huge

cdef inline bint is_mergeable_anon_vma(const Vma *a, const Vma *b) noexcept nogil:
    """Have both one anon_vma, or only one of them any, which is not from a fork?"""
    return a.anon_vma == b.anon_vma or (not (a.flags | b.flags) & VMA_FORKED
                                        and (a.anon_vma == 0 or b.anon_vma == 0))

cdef inline void vmas_merge(Mapping *v) noexcept nogil:
    """Neighbours that touch, have the same flags and may have one anon_vma are one VMA."""
    cdef uint32_t i = 1
    cdef Vma *before
    while i < v.nr_vmas:
        before = &v.vmas[i - 1]
        if before.end == v.vmas[i].start and (before.flags | VMA_FORKED) == (v.vmas[i].flags | VMA_FORKED) and (
                is_mergeable_anon_vma(before, &v.vmas[i])):
            before.end = v.vmas[i].end
            before.anon_vma = max(before.anon_vma, v.vmas[i].anon_vma)
            vma_delete(v, i)
        else:
            i += 1

cdef inline Outcome mmap(Machine *m, const hgm_operation *op) noexcept nogil:
    """mmap of a shmem file, or of anonymous memory, private only. A mapping may reach beyond the file."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef File *f = &m.state.files[op.arg]
    cdef uint64_t length = round_up(op.length, base_mask(m))
    cdef int error
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if op.offset & base_mask(m) or op.length == 0 or op.flags & HGM_OPF_HGM:
        return outcome(0, EINVAL)
    if f.kind == ANON and op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR):
        return outcome(0, EINVAL)
    if length < op.length or op.offset + length < length:
        return outcome(0, ENOMEM)
    error = at_refused(m, v, v.at, length, base_mask(m), False) if op.flags & HGM_OPF_AT else 0
    if v.nr_vmas > 0 or error:
        return outcome(0, EEXIST if v.nr_vmas > 0 else error)
    if not mmap_region(m, v, op.arg, op.offset, length, HGM_OPF_READ | HGM_OPF_WRITE
                       | (op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_WP)), op.flags & HGM_OPF_AT != 0):
        return outcome(0, ENOMEM)
    return outcome(op.length, 0)

cdef inline Outcome munmap(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Range r = range_of(m, op, base_mask(m))
    if r.error or op.length == 0:
        return outcome(0, r.error if r.error else EINVAL)
    return outcome(min(do_munmap(m, &m.state.mappings[op.target], r.start, r.end), op.length), 0)

cdef inline uint32_t mprotect_flags(const File *f, const Vma *vma, uint32_t access) noexcept nogil:
    """The VMA's flags with another access. One of anonymous memory that was never faulted is not accounted while nobody
    may write there (mprotect_fixup)."""
    cdef uint32_t flags = (vma.flags & ~<uint32_t>(HGM_OPF_READ | HGM_OPF_WRITE)) | access
    if f.kind != ANON or flags == vma.flags:
        return flags
    if access & HGM_OPF_WRITE:
        return flags & ~<uint32_t>VMA_UNACCOUNTED
    return flags if vma.anon_vma else flags | VMA_UNACCOUNTED

cdef inline Outcome mprotect(Machine *m, const hgm_operation *op) noexcept nogil:
    """ENOMEM where the range has a gap, after the VMAs before it were changed."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = mprotect_range(m, op)
    cdef uint64_t end = r.end, at = r.start, stop
    cdef uint32_t i, flags
    if r.error:
        return outcome(0, r.error)
    i = vma_search(v, at)
    while i < v.nr_vmas and v.vmas[i].start <= at and at < end:
        stop = min(v.vmas[i].end, end)
        flags = mprotect_flags(&m.state.files[v.file], &v.vmas[i], op.flags & (HGM_OPF_READ | HGM_OPF_WRITE))
        if flags != v.vmas[i].flags:
            vma_adjust_trans_huge(m, v, at)
            vma_adjust_trans_huge(m, v, stop)
            if not vma_split(m, v, at) or not vma_split(m, v, stop):
                return outcome(at - op.offset, ENOMEM)
            i = vma_search(v, at)
            v.vmas[i].flags = flags
        at = stop
        i += 1
    vmas_merge(v)
    return outcome(min(at - op.offset, op.length), 0 if at >= end else ENOMEM)

cdef inline Outcome dontneed(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_DONTNEED. From 6.14 on a page table that it empties goes too (CONFIG_PT_RECLAIM)."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef uint64_t done = 0
    cdef VmaWalk w
    if r.error:
        return outcome(0, r.error)
    w = walk_vmas(v, &r)
    while vma_next(v, &w) is not NULL:
        unmap_page_range(m, v, w.start, w.stop, HGM_BY_ZAP, m.config.options.era >= 615
                         or m.config.options.zap_frees_tables, False)
        done += w.stop - w.start
    return outcome(min(done, op.length), ENOMEM if w.gap else 0)

cdef inline Outcome userfaultfd_register(Machine *m, const hgm_operation *op) noexcept nogil:
    """UFFDIO_REGISTER or, with no flag, UFFDIO_UNREGISTER of all that is left of the mapping."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint32_t i
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if v.nr_vmas == 0 or (m.state.files[v.file].kind == ANON and op.flags & HGM_OPF_MINOR):
        return outcome(0, EINVAL)
    for i in range(v.nr_vmas):
        v.vmas[i].flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)) | (
            op.flags & (HGM_OPF_MINOR | HGM_OPF_WP))
    vmas_merge(v)
    return outcome(0, 0)

cdef inline Outcome touch(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Vma *vma = vma_find(v, op.offset)
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if vma is NULL or not vma.flags & (HGM_OPF_WRITE if op.flags & HGM_OPF_WRITE else HGM_OPF_READ):
        return outcome(0, EFAULT)
    if m.state.files[v.file].kind == ANON:
        return anon_fault(m, op, vma)
    return shmem_fault(m, op, vma)

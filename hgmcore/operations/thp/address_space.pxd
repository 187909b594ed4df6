# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The system calls on mappings of shmem and anonymous memory, whose VMAs may be cut at any base page."""
from hgmcore.operations.address_space cimport place
from hgmcore.operations.anon cimport anon_touch
from hgmcore.operations.shmem cimport shmem_continue, shmem_touch
from hgmcore.operations.thp_collapse cimport collapse_memory
from hgmcore.operations.thp_move cimport move_part, resize
from hgmcore.operations.thp_zap cimport *
from hgmcore.core.vma cimport vma_find, vma_insert

cdef inline void vmas_merge(Mapping *v) noexcept nogil:
    """Neighbours that touch and have the same flags are one VMA."""
    cdef uint32_t i = 1
    while i < v.nr_vmas:
        if v.vmas[i - 1].end == v.vmas[i].start and (v.vmas[i - 1].flags | VMA_ANON) == (v.vmas[i].flags | VMA_ANON):
            v.vmas[i - 1].end = v.vmas[i].end
            v.vmas[i - 1].flags |= v.vmas[i].flags
            vma_delete(v, i)
        else:
            i += 1

cdef inline Outcome mmap_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    """mmap of a shmem file, shared only, or of anonymous memory, private only. A mapping may reach beyond the file."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Process *p = &m.state.processes[v.process]
    cdef File *f = &m.state.files[op.arg]
    cdef uint64_t length = whole_pages(m, op.length)
    if p.exited:
        return outcome(0, ESRCH)
    if op.offset & base_mask(m) or op.length == 0 or op.flags & HGM_OPF_HGM:
        return outcome(0, EINVAL)
    if (f.kind == ANON) == (op.flags & HGM_OPF_SHARED != 0) or (f.kind == ANON and op.flags & HGM_OPF_MINOR):
        return outcome(0, EINVAL)
    if length < op.length or op.offset + length < length:
        return outcome(0, ENOMEM)
    if v.nr_vmas > 0:
        return outcome(0, EEXIST)
    if p.root == NO_TABLE:
        p.root = table_alloc(m)
        if p.root == NO_TABLE:
            return outcome(0, ENOMEM)
    if not place(m, p, f, op.offset, length, &v.address):
        return outcome(0, ENOMEM)
    v.file = op.arg
    v.file_offset = op.offset
    v.length = length
    if not vma_insert(m, v, 0, 0, length, HGM_OPF_READ | HGM_OPF_WRITE
                      | (op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_WP))):
        return outcome(0, ENOMEM)
    return outcome(op.length, 0)

cdef inline Outcome munmap_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    if bad_range(m, op) or op.length == 0:
        return outcome(0, EINVAL)
    return outcome(min(unmap_memory(m, &m.state.mappings[op.target], op.offset, op.offset + whole_pages(m, op.length)),
                       op.length), 0)

cdef inline Outcome mprotect_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    """ENOMEM where the range has a gap, after the VMAs before it were changed."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t end = op.offset + whole_pages(m, op.length), at = op.offset, stop
    cdef uint32_t i, flags
    if bad_range(m, op):
        return outcome(0, EINVAL)
    i = vma_search(v, at)
    while i < v.nr_vmas and v.vmas[i].start <= at and at < end:
        stop = min(v.vmas[i].end, end)
        flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_READ | HGM_OPF_WRITE)) | (
            op.flags & (HGM_OPF_READ | HGM_OPF_WRITE))
        if flags != v.vmas[i].flags:
            split_at(m, v, at)
            split_at(m, v, stop)
            if not vma_split(m, v, at) or not vma_split(m, v, stop):
                return outcome(at - op.offset, ENOMEM)
            i = vma_search(v, at)
            v.vmas[i].flags = flags
        at = stop
        i += 1
    vmas_merge(v)
    return outcome(min(at - op.offset, op.length), 0 if at >= end else ENOMEM)

cdef inline Outcome dontneed_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_DONTNEED. From 6.14 on a page table that it empties goes too (CONFIG_PT_RECLAIM)."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t end = op.offset + whole_pages(m, op.length), at = op.offset, stop, done = 0
    cdef uint32_t i
    cdef bint gap = False
    if bad_range(m, op):
        return outcome(0, EINVAL)
    i = vma_search(v, at)
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start >= end:
            gap = True
            break
        gap |= v.vmas[i].start > at
        at = max(at, v.vmas[i].start)
        stop = min(end, v.vmas[i].end)
        zap_memory(m, v, at, stop, HGM_BY_ZAP, m.config.options.era >= 615 or m.config.options.zap_frees_tables)
        done += stop - at
        at = stop
        i += 1
    return outcome(min(done, op.length), ENOMEM if gap else 0)

cdef inline Outcome register_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    """UFFDIO_REGISTER or, with no flag, UFFDIO_UNREGISTER of all that is left of the mapping."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint32_t i
    if v.nr_vmas == 0 or (m.state.files[v.file].kind == ANON and op.flags & HGM_OPF_MINOR):
        return outcome(0, EINVAL)
    for i in range(v.nr_vmas):
        v.vmas[i].flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)) | (
            op.flags & (HGM_OPF_MINOR | HGM_OPF_WP))
    vmas_merge(v)
    return outcome(0, 0)

cdef inline Outcome touch_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Vma *vma = vma_find(v, op.offset)
    if vma is NULL or not vma.flags & (HGM_OPF_WRITE if op.flags & HGM_OPF_WRITE else HGM_OPF_READ):
        return outcome(0, EFAULT)
    if m.state.files[v.file].kind == ANON:
        return anon_touch(m, op, vma)
    return shmem_touch(m, op, vma)

cdef inline Outcome memory_operation(Machine *m, const hgm_operation *op) noexcept nogil:
    """One operation on a mapping of shmem or anonymous memory.

    EINVAL also for what HGM alone has (MADV_SPLIT), and for what is not modelled here: migration and memory failure.
    """
    if m.state.processes[m.state.mappings[op.target].process].exited:
        return outcome(0, ESRCH)
    if op.op == HGM_OP_TOUCH:
        return touch_memory(m, op)
    if op.op == HGM_OP_DONTNEED:
        return dontneed_memory(m, op)
    if op.op == HGM_OP_COLLAPSE and not bad_range(m, op):
        return collapse_memory(m, op, op.offset + whole_pages(m, op.length))
    if op.op == HGM_OP_MREMAP:
        return resize(m, op) if op.arg == 0xffff else move_part(m, op)
    if op.op == HGM_OP_MUNMAP:
        return munmap_memory(m, op)
    if op.op == HGM_OP_MPROTECT:
        return mprotect_memory(m, op)
    if op.op == HGM_OP_REGISTER or op.op == HGM_OP_UNREGISTER:
        return register_memory(m, op)
    return outcome(0, EINVAL)

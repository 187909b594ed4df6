# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mremap of hugetlb: shrink in place, or a part moves to a new mapping."""
from libc.errno cimport EEXIST, EFAULT, EINVAL, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport Machine, Mapping, Vma
from hgmcore.core.share cimport unshare_range
from hgmcore.core.vma cimport vma_delete, vma_find, vma_search, vma_split
from hgmcore.operations.addresses cimport mmap_region, to_refused
from hgmcore.operations.common cimport Outcome, outcome, page_mask, process_exited, Range, range_of, round_up
from hgmcore.operations.hugetlb.address_space cimport do_munmap, free_pgtables, mean
from hgmcore.operations.hugetlb.huge_page cimport huge_page, huge_page_none, HugePage

cdef inline bint move_hugetlb_page_tables(Machine *m, Mapping *v, uint64_t start, uint64_t end,
                                          Mapping *w) noexcept nogil:
    """Move the hstate-level entries of [start, end) to the start of mapping `w`. Nothing is counted."""
    cdef HugePage source, target
    cdef uint64_t at = start
    cdef int i
    unshare_range(m, v, start, end)
    while at < end:
        source = huge_page(m, v, at, False)
        if source.entry is not NULL and not huge_page_none(&source):
            target = huge_page(m, w, at - start, True)
            if target.entry is NULL:
                return False
            for i in range(source.file.entries):
                target.entry[i] = source.entry[i]
                source.entry[i] = 0
        at = source.start + page_mask(source.file) + 1
    return True

cdef inline uint64_t length_there(Machine *m, const hgm_operation *op, uint64_t mask) noexcept nogil:
    """Of an mremap to a new mapping: that one's length, rounded."""
    return round_up(m.state.mappings[op.arg].resized if op.flags & HGM_OPF_RESIZED else op.length, mask)

cdef inline int mremap_to_refused(Machine *m, const hgm_operation *op) noexcept nogil:
    """0 or an errno, before anything is done. Lengths are rounded to huge pages; what moves cannot grow, and stays
    nowhere (VM_DONTEXPAND)."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Mapping *w = &m.state.mappings[op.arg]
    cdef Vma *vma
    cdef uint64_t mask = page_mask(&m.state.files[v.file]), length = length_there(m, op, mask)
    cdef Range r = range_of(m, op, mask)
    cdef int error
    mean(w, v.file)
    error = to_refused(m, v, w, op, &r, length, mask)
    if error or length > r.end - r.start:
        return error if error else EINVAL
    vma = vma_find(v, op.offset)
    if vma is NULL or r.end > vma.end:
        return EFAULT
    if op.flags & HGM_OPF_KEEP:
        return EINVAL
    return EEXIST if w.nr_vmas > 0 else 0

cdef inline Outcome mremap_to(Machine *m, const hgm_operation *op) noexcept nogil:
    """Move a part to a new mapping; it keeps what userfaultfd does not own."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Mapping *w = &m.state.mappings[op.arg]
    cdef uint64_t mask = page_mask(&m.state.files[v.file]), length = length_there(m, op, mask)
    cdef uint64_t end = op.offset + length, old_end = op.offset + round_up(op.length, mask)
    cdef uint32_t flags
    cdef uint64_t anon_vma
    if end < old_end and do_munmap(m, v, end, old_end):
        free_pgtables(m, v, end, old_end)
    flags = vma_find(v, op.offset).flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)
    anon_vma = vma_find(v, op.offset).anon_vma
    if (not mmap_region(m, w, v.file, v.file_offset + op.offset, length, flags, op.flags & HGM_OPF_AT != 0)
            or not move_hugetlb_page_tables(m, v, op.offset, end, w)
            or not vma_split(m, v, op.offset) or not vma_split(m, v, end)):
        return outcome(0, ENOMEM)
    w.vmas[0].anon_vma = anon_vma
    vma_delete(v, vma_search(v, op.offset))
    free_pgtables(m, v, op.offset, end)
    return outcome(op.length, 0)

cdef inline Outcome mremap_in_place(Machine *m, const hgm_operation *op) noexcept nogil:
    """Shrink in place; hugetlb mappings cannot grow (EINVAL)."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t mask = page_mask(&m.state.files[v.file]), length = round_up(op.length, mask)
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if op.length == 0 or length < op.length:
        return outcome(0, EINVAL)
    if v.nr_vmas == 0 or v.vmas[0].start > 0:
        return outcome(0, EFAULT)
    if length > v.length:
        return outcome(0, EINVAL)
    if do_munmap(m, v, length, v.length):
        free_pgtables(m, v, length, v.length)
    v.length = length
    return outcome(op.length, 0)

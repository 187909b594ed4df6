# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What sets flags of VMAs: MADV_SPLIT, UFFDIO_REGISTER and UFFDIO_UNREGISTER."""
from libc.errno cimport EINVAL, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport Machine, Mapping
from hgmcore.core.share cimport unshare_range
from hgmcore.core.vma cimport vma_search, vma_split
from hgmcore.operations.common cimport Outcome, outcome, page_mask, process_exited
from hgmcore.operations.hugetlb.huge_page cimport HugePage
from hgmcore.operations.hugetlb.zap cimport unmap_hugepage_range
from hgmcore.scheme cimport *

cdef inline Outcome madvise_split(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_SPLIT: the range's VMAs may be mapped in pieces from now on.

    HGM v2 changes no table. Under the policy base_only everything in the range is unmapped first.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t mask = page_mask(&m.state.files[v.file]), end = op.offset + op.length, done = 0
    cdef uint64_t start, stop
    cdef uint32_t i
    cdef HugePage h
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if QUIRKS & QUIRK_WHOLE_ONLY or (op.offset | op.length) & mask or end < op.offset:
        return outcome(0, EINVAL)
    if op.length == 0:
        return outcome(0, 0)
    i = vma_search(v, op.offset)
    while i < v.nr_vmas and v.vmas[i].start < end:
        if not v.vmas[i].flags & HGM_OPF_SHARED:
            return outcome(done, EINVAL)
        start = max(v.vmas[i].start, op.offset)
        stop = min(v.vmas[i].end, end)
        if not v.vmas[i].flags & HGM_OPF_HGM:    # a VMA that has the flag stays in one part
            if not vma_split(m, v, start) or not vma_split(m, v, stop):
                return outcome(done, ENOMEM)
            i = vma_search(v, start)
            unshare_range(m, v, start, stop)
            v.vmas[i].flags |= HGM_OPF_HGM
        if m.config.options.base_only:
            unmap_hugepage_range(m, v, start, stop, True, &h)
        done += stop - start
        i += 1
    return outcome(done, ENOMEM if done < op.length else 0)

cdef inline Outcome userfaultfd_register(Machine *m, const hgm_operation *op) noexcept nogil:
    """UFFDIO_REGISTER or, with no flag, UFFDIO_UNREGISTER of all that is left of the mapping."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint32_t i
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if v.nr_vmas == 0:
        return outcome(0, EINVAL)
    for i in range(v.nr_vmas):
        if op.flags & (HGM_OPF_MINOR | HGM_OPF_WP):
            unshare_range(m, v, v.vmas[i].start, v.vmas[i].end)
        v.vmas[i].flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)) | (
            op.flags & (HGM_OPF_MINOR | HGM_OPF_WP))
    return outcome(0, 0)

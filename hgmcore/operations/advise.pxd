# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What only sets flags of VMAs: MADV_SPLIT, UFFDIO_REGISTER and UFFDIO_UNREGISTER."""
from hgmcore.machine cimport Vma
from hgmcore.operations.common cimport *
from hgmcore.vma cimport vma_search, vma_split

cdef inline Outcome split(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_SPLIT of HGM v2: the range's VMAs may be mapped in pieces from now on. Changes no table."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint64_t mask = page_mask(&m.files[v.file]), end = op.offset + op.length, done = 0
    cdef uint32_t i
    cdef Vma *vma
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if NEEDS & WHOLE_ONLY or (op.offset | op.length) & mask or end < op.offset:
        return outcome(0, EINVAL)
    if not vma_split(m, v, op.offset) or not vma_split(m, v, end):
        return outcome(0, ENOMEM)
    i = vma_search(v, op.offset)
    while i < v.nr_vmas and v.vmas[i].start < end:
        vma = &v.vmas[i]
        vma.flags |= HGM_OPF_HGM
        done += vma.end - vma.start
        i += 1
    return outcome(done, ENOMEM if done < op.length else 0)

cdef inline Outcome register(Machine *m, const hgm_operation *op) noexcept nogil:
    """UFFDIO_REGISTER or, with no flag, UFFDIO_UNREGISTER of all that is left of the mapping."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint32_t i
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if v.nr_vmas == 0:
        return outcome(0, EINVAL)
    for i in range(v.nr_vmas):
        v.vmas[i].flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)) | (
            op.flags & (HGM_OPF_MINOR | HGM_OPF_WP))
    return outcome(0, 0)

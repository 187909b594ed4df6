# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mremap: what goes from the address that something moves to may be of either family."""
from libc.errno cimport EINVAL
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport HUGETLB, Machine, Mapping
from hgmcore.operations.common cimport Outcome, outcome, page_mask, round_up
from hgmcore.operations.hugetlb.address_space cimport do_munmap as hugetlb_munmap, free_pgtables, hugetlb_vm_op_split
cimport hgmcore.operations.hugetlb.mremap as hugetlb
cimport hgmcore.operations.thp.mremap as thp
from hgmcore.operations.thp.zap cimport do_munmap as thp_munmap

cdef inline int munmap_addresses(Machine *m, uint32_t process, uint64_t first, uint64_t end) noexcept nogil:
    """Unmap addresses [first, end) of a process. 0; EINVAL: a huge page would be cut."""
    cdef uint32_t next = m.state.processes[process].first_mapping
    cdef uint64_t start, stop
    cdef Mapping *v
    while next:
        v = &m.state.mappings[next - 1]
        next = v.next
        if v.nr_vmas == 0 or v.address >= end or v.address + v.length <= first:
            continue
        start = max(first, v.address) - v.address
        stop = min(end, v.address + v.length) - v.address
        if m.state.files[v.file].kind != HUGETLB:
            thp_munmap(m, v, start, stop)
        elif hugetlb_vm_op_split(m, v, start) or hugetlb_vm_op_split(m, v, stop):
            return EINVAL
        elif hugetlb_munmap(m, v, start, stop):
            free_pgtables(m, v, start, stop)
    return 0

cdef inline bint clear_at(Machine *m, const hgm_operation *op) noexcept nogil:
    """MREMAP_FIXED: unmap what is where the new mapping is to be. False: it cannot go."""
    cdef const Mapping *v = &m.state.mappings[op.target]
    cdef const Mapping *w = &m.state.mappings[op.arg]
    cdef uint64_t mask = (<uint64_t>1 << m.config.geometry.base_shift) - 1
    if m.state.files[v.file].kind == HUGETLB:
        mask = page_mask(&m.state.files[v.file])
    return not op.flags & HGM_OPF_AT or munmap_addresses(m, v.process, w.at, w.at + round_up(
        w.resized if op.flags & HGM_OPF_RESIZED else op.length, mask)) == 0

cdef inline Outcome mremap(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef bint huge = m.state.files[m.state.mappings[op.target].file].kind == HUGETLB
    cdef int error
    if op.arg == HGM_NO_ARG:
        return hugetlb.mremap_in_place(m, op) if huge else thp.mremap_in_place(m, op)
    error = hugetlb.mremap_to_refused(m, op) if huge else thp.mremap_to_refused(m, op)
    if error == 0 and not clear_at(m, op):
        error = EINVAL
    if error:
        return outcome(0, error)
    return hugetlb.mremap_to(m, op) if huge else thp.mremap_to(m, op)

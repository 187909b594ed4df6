# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Mappings and the VMAs that they are cut into."""
from libc.stdlib cimport realloc
from libc.string cimport memmove
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport Machine, Mapping, Vma

cdef inline uint32_t vma_search(const Mapping *v, uint64_t offset) noexcept nogil:
    """The number of the first VMA that ends after `offset`; v.nr_vmas where there is none."""
    cdef uint32_t low = 0, high = v.nr_vmas, middle
    while low < high:
        middle = (low + high) // 2
        if v.vmas[middle].end <= offset:
            low = middle + 1
        else:
            high = middle
    return low

cdef inline Vma *vma_find(const Mapping *v, uint64_t offset) noexcept nogil:
    """The VMA that holds `offset`, or NULL."""
    cdef uint32_t i = vma_search(v, offset)
    return &v.vmas[i] if i < v.nr_vmas and v.vmas[i].start <= offset else NULL

cdef inline bint vma_insert(Machine *m, Mapping *v, uint32_t at, uint64_t start, uint64_t end,
                            uint32_t flags) noexcept nogil:
    """Put a VMA in place `at`. False, and m.context.out_of_memory: no memory."""
    cdef Vma *vmas
    if v.nr_vmas == v.max_vmas:
        vmas = <Vma *>realloc(v.vmas, (2 * v.max_vmas + 2) * sizeof(Vma))
        if vmas is NULL:
            m.context.out_of_memory = True
            return False
        v.vmas = vmas
        v.max_vmas = 2 * v.max_vmas + 2
    memmove(&v.vmas[at + 1], &v.vmas[at], (v.nr_vmas - at) * sizeof(Vma))
    v.vmas[at].start = start
    v.vmas[at].end = end
    v.vmas[at].flags = flags
    v.vmas[at].lock = 0
    v.vmas[at].anon_vma = 0
    v.nr_vmas += 1
    return True

cdef inline void vma_delete(Mapping *v, uint32_t at) noexcept nogil:
    v.nr_vmas -= 1
    memmove(&v.vmas[at], &v.vmas[at + 1], (v.nr_vmas - at) * sizeof(Vma))

cdef inline bint vma_split(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """Cut the VMA that `offset` is inside of, so that one begins there."""
    cdef uint32_t i = vma_search(v, offset)
    cdef uint64_t start
    if i == v.nr_vmas or v.vmas[i].start >= offset:
        return True
    start = v.vmas[i].start
    if not vma_insert(m, v, i, start, offset, v.vmas[i].flags):
        return False
    v.vmas[i].anon_vma = v.vmas[i + 1].anon_vma
    v.vmas[i + 1].start = offset
    return True

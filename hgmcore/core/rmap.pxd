# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The reverse map: from a place in a file to the mappings whose VMAs cover it."""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport File, Machine, Mapping
from hgmcore.core.vma cimport vma_find

cdef inline Mapping *rmap_next(Machine *m, uint32_t file, uint64_t index, uint32_t *at,
                               uint64_t *offset) noexcept nogil:
    """The next mapping, from number `*at` on, that covers huge page `index` of a file, or NULL.

    `*offset` becomes the page's offset in it, `*at` the number to go on from.
    """
    cdef uint64_t byte = index << m.state.files[file].page_shift
    cdef Mapping *v
    while at[0] < m.state.nr_mappings:
        v = &m.state.mappings[at[0]]
        at[0] += 1
        if (v.nr_vmas and v.file == file and byte >= v.file_offset and byte - v.file_offset < v.length
                and vma_find(v, byte - v.file_offset) is not NULL):
            offset[0] = byte - v.file_offset
            return v
    return NULL

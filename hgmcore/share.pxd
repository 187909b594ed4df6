# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Shared page tables: mappings of one file that agree in address and offset use one PMD table (kernel:
huge_pmd_share, huge_pmd_unshare).

A table that is shared counts its pages once, whoever maps them. What is mapped in pieces, or registered with
userfaultfd, never shares.
"""
from hgmcore.hgm cimport *
from hgmcore.machine cimport File, Machine, Mapping, Vma
from hgmcore.table cimport *
from hgmcore.vma cimport vma_find

cdef enum:
    PMD = 2

cdef inline bint may_share(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """Is the table for `offset` one that a sharer could use: does a plain shared VMA cover its whole span?"""
    cdef File *f = &m.files[v.file]
    cdef uint64_t span = <uint64_t>1 << m.geometry.level_shift[PMD + 1]
    cdef uint64_t start = ((v.address + offset) & ~(span - 1)) - v.address
    cdef Vma *vma
    if f.level != PMD or f.entries > 1 or (v.address + offset) & ~(span - 1) < v.address:
        return False
    vma = vma_find(v, offset)
    return (vma is not NULL and vma.start <= start and start + span <= vma.end and vma.flags & HGM_OPF_SHARED
            and not vma.flags & (HGM_OPF_HGM | HGM_OPF_MINOR | HGM_OPF_WP))

cdef inline bint share_table(Machine *m, Mapping *v, uint64_t offset, uint64_t *upper) noexcept nogil:
    """Fill `upper`, the entry above the PMD table for `offset`, with another mapping's table of the same pages."""
    cdef uint64_t span = <uint64_t>1 << m.geometry.level_shift[PMD + 1], at
    cdef uint64_t *other
    cdef Mapping *w
    cdef uint32_t i
    if not may_share(m, v, offset):
        return False
    for i in range(m.nr_mappings):
        w = &m.mappings[i]
        at = v.file_offset + offset - w.file_offset
        if (w == v or w.nr_vmas == 0 or w.file != v.file or v.file_offset + offset < w.file_offset
                or at >= w.length or (w.address + at) & (span - 1) != (v.address + offset) & (span - 1)
                or not may_share(m, w, at)):
            continue
        other = hstate_entry(m, &m.processes[w.process], w.address + at, PMD + 1, False)
        if other is not NULL and is_table(other[0]):
            upper[0] = other[0]
            table_desc(m, table_number(other[0])).sharers += 1
            return True
    return False

cdef inline bint unshare_table(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """If the PMD table for `offset` is shared, take it out of this process. Was it?"""
    cdef uint64_t *upper
    if m.files[v.file].level != PMD or m.processes[v.process].root == 0:
        return False
    upper = hstate_entry(m, &m.processes[v.process], v.address + offset, PMD + 1, False)
    if upper is NULL or not is_table(upper[0]) or table_desc(m, table_number(upper[0])).sharers == 0:
        return False
    table_desc(m, table_number(upper[0])).sharers -= 1
    upper[0] = 0
    return True

cdef inline void unshare_range(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Take every shared table of offsets [start, end) out of this process."""
    cdef uint64_t step = <uint64_t>1 << m.geometry.level_shift[PMD + 1]
    while start < end:
        unshare_table(m, v, start)
        start += step - ((v.address + start) & (step - 1))

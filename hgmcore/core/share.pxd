# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Shared page tables: mappings of one file that agree in address and offset use one PMD table (kernel:
huge_pmd_share, huge_pmd_unshare).

A table that is shared counts its pages once, whoever maps them. Only mappings with the same rights share; what is
mapped in pieces, or registered with userfaultfd, never does.
"""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport File, Machine, Mapping, Vma
from hgmcore.core.table cimport hstate_entry, is_table, PMD, table_desc, table_number
from hgmcore.core.vma cimport vma_find

cdef inline bint vma_may_share(Machine *m, const Mapping *v, const Vma *vma) noexcept nogil:
    """Is the VMA one whose pages shared tables may map, if it covers the whole span of a table?"""
    cdef File *f = &m.state.files[v.file]
    return (f.level == PMD and f.entries == 1 and vma.flags & HGM_OPF_SHARED
            and not vma.flags & (HGM_OPF_HGM | HGM_OPF_MINOR | HGM_OPF_WP)
            and vma.end - vma.start >= <uint64_t>1 << m.config.geometry.level_shift[PMD + 1])

cdef inline Vma *may_share(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """The plain shared VMA that covers the whole span of the table for `offset`, which a sharer could use; or NULL."""
    cdef uint64_t span = <uint64_t>1 << m.config.geometry.level_shift[PMD + 1]
    cdef uint64_t start = ((v.address + offset) & ~(span - 1)) - v.address
    cdef Vma *vma
    if (v.address + offset) & ~(span - 1) < v.address:
        return NULL
    vma = vma_find(v, offset)
    if vma is not NULL and vma_may_share(m, v, vma) and vma.start <= start and start + span <= vma.end:
        return vma
    return NULL

cdef inline bint share_table(Machine *m, Mapping *v, uint64_t offset, uint64_t *upper) noexcept nogil:
    """Fill `upper`, the entry above the PMD table for `offset`, with another mapping's table of the same pages."""
    cdef uint64_t span = <uint64_t>1 << m.config.geometry.level_shift[PMD + 1], at
    cdef uint64_t *other
    cdef Mapping *w
    cdef Vma *mine = may_share(m, v, offset)
    cdef Vma *theirs
    cdef uint32_t i
    if mine is NULL:
        return False
    for i in range(m.state.nr_mappings):
        w = &m.state.mappings[i]
        at = v.file_offset + offset - w.file_offset
        if (w == v or w.nr_vmas == 0 or w.file != v.file or v.file_offset + offset < w.file_offset
                or at >= w.length or (w.address + at) & (span - 1) != (v.address + offset) & (span - 1)):
            continue
        theirs = may_share(m, w, at)
        if theirs is NULL or theirs.flags != mine.flags:
            continue
        other = hstate_entry(m, &m.state.processes[w.process], w.address + at, PMD + 1, False)
        if other is not NULL and is_table(other[0]):
            upper[0] = other[0]
            table_desc(m, table_number(other[0])).sharers += 1
            return True
    return False

cdef inline bint unshare_table(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """If the PMD table for `offset` is shared, take it out of this process. Was it?"""
    cdef uint64_t *upper
    if m.state.files[v.file].level != PMD or m.state.processes[v.process].root == 0:
        return False
    upper = hstate_entry(m, &m.state.processes[v.process], v.address + offset, PMD + 1, False)
    if upper is NULL or not is_table(upper[0]) or table_desc(m, table_number(upper[0])).sharers == 0:
        return False
    table_desc(m, table_number(upper[0])).sharers -= 1
    upper[0] = 0
    return True

cdef inline void unshare_range(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Take every shared table of offsets [start, end) out of this process."""
    cdef uint64_t step = <uint64_t>1 << m.config.geometry.level_shift[PMD + 1]
    while start < end:
        unshare_table(m, v, start)
        start += step - ((v.address + start) & (step - 1))

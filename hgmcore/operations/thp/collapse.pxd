# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""MADV_COLLAPSE of shmem and anonymous memory (mm/khugepaged.c): what a PMD spans becomes one folio, mapped whole."""
from libc.errno cimport EBUSY
from hgmcore.core.folio cimport frames_alloc
from hgmcore.operations.anon cimport anon_alloc
from hgmcore.operations.shmem_file cimport *
from hgmcore.operations.thp_zap cimport *

cdef inline void retract_tables(Machine *m, uint32_t file, uint64_t first) noexcept nogil:
    """Free the page tables, now empty, of all that map a PMD's range of the file from base page `first` on.

    Where userfaultfd protects from writes they stay, as they may hold its marks.
    """
    cdef uint64_t start = first << m.config.geometry.base_shift
    cdef uint32_t i, j
    cdef Mapping *v
    cdef Pmd pmd
    for i in range(m.state.nr_mappings):
        v = &m.state.mappings[i]
        for j in range(v.nr_vmas):
            if (v.file == file and not v.vmas[j].flags & HGM_OPF_WP and v.file_offset + v.vmas[j].start <= start
                    and start + pmd_mask(m) < v.file_offset + v.vmas[j].end
                    and (v.address - v.file_offset) & pmd_mask(m) == 0):
                pmd = pmd_at(m, v, start - v.file_offset, False)
                if pmd.entry is not NULL and is_table(pmd.entry[0]) and table_empty(m, pmd.entry[0]):
                    pte_table_free(m, pmd.entry)

cdef inline int gather_folio(Machine *m, uint32_t file, uint64_t first) noexcept nogil:
    """Put one new folio in place of those that the page cache has in a PMD's range from `first` on, and of its holes
    (collapse_file). Whoever mapped one of them has to fault again. 0 or an errno, as from collapse_shmem().
    """
    cdef uint64_t n = ptes_per_table(m), at
    cdef uint32_t *cache = &m.state.files[file].cache[first]
    cdef hgm_folio *folio
    cdef bint any = False
    for at in range(n):
        if cache[at]:
            any = True
            if extra_references(m, folio_at(m, cache[at] - 1)):
                return EAGAIN
    if not any:
        return -EINVAL
    folio = NULL if allocation_fails(m) else frames_alloc(m, file, first, n)
    if folio is NULL:
        return -ENOMEM
    unmap_pages(m, file, first, first + n)
    for at in range(n):
        if cache[at] and folio_at(m, cache[at] - 1).page._refcount != <int64_t>folio_at(m, cache[at] - 1).nr_pages:
            folio.flags |= HGM_FOLIO_FREED
            return EAGAIN
    for at in range(n):
        if cache[at]:
            cache_remove(m, folio_at(m, cache[at] - 1))
    cache_add(m, folio)
    retract_tables(m, file, first)
    return 0

cdef inline int map_gathered(Machine *m, Pmd *pmd, const Vma *vma, hgm_folio *folio) noexcept nogil:
    """Map a folio that fills the PMD by one leaf, in place of PTEs of it or of nothing (collapse_pte_mapped_thp)."""
    cdef uint64_t ignored = 0, i, n = ptes_per_table(m)
    cdef uint64_t *entries
    cdef bint exchanged = False
    if vma.flags & HGM_OPF_WP:
        return EINVAL
    if is_table(pmd.entry[0]):
        entries = table_entries(m, table_number(pmd.entry[0]))
        for i in range(n):
            if entries[i] != 0 and not maps(folio, entries[i]):
                return -EINVAL
        exchanged = folio_below(m, pmd, folio, &ignored)
        if exchanged:
            zap_folio(m, pmd, entries, 0, n, folio, HGM_BY_COLLAPSE)
        pte_table_free(m, pmd.entry)
    if not install_pmd(m, pmd, folio, 0, HGM_BY_COLLAPSE if exchanged else HGM_BY_FAULT):
        look_up_and_put(m, &m.context.cost, folio)
    return 0

cdef inline int collapse_shmem(Machine *m, Pmd *pmd, const Vma *vma) noexcept nogil:
    """0 or an errno; a negative one, -errno, if nothing behind it is tried (madvise_collapse)."""
    cdef Mapping *v = pmd.mapping
    cdef File *f = &m.state.files[v.file]
    cdef uint64_t first = (v.file_offset + (pmd.address - v.address)) >> m.config.geometry.base_shift, n = ptes_per_table(m)
    cdef hgm_folio *folio = NULL
    cdef int error
    if first + n > f.pages << (f.page_shift - m.config.geometry.base_shift):
        return -EINVAL
    if f.cache[first]:
        folio = folio_at(m, f.cache[first] - 1)
    if folio is NULL or folio.nr_pages < n:
        error = gather_folio(m, v.file, first)
        if error:
            return error
        folio = folio_at(m, f.cache[first] - 1)
    if pmd.entry is NULL:
        pmd[0] = pmd_at(m, v, pmd.address - v.address, True)
        if pmd.entry is NULL:
            return -ENOMEM
    return 0 if is_leaf(pmd.entry[0]) else map_gathered(m, pmd, vma, folio)

cdef inline int collapse_anon(Machine *m, Pmd *pmd, const Vma *vma) noexcept nogil:
    """Copy what PTEs map into a new folio, with zeros where they are none (collapse_huge_page). As collapse_shmem()."""
    cdef uint64_t i, table
    cdef uint64_t *entries
    cdef hgm_folio *folio
    if pmd.entry is NULL:
        return EINVAL
    if pmd.entry[0] == 0:
        return -EINVAL
    if not is_table(pmd.entry[0]):
        return 0
    entries = table_entries(m, table_number(pmd.entry[0]))
    for i in range(ptes_per_table(m)):
        if not is_leaf(entries[i]) and vma.flags & HGM_OPF_WP:
            return -EBUSY
        if is_leaf(entries[i]) and extra_references(m, folio_of(m, frame(entries[i]))):
            return EAGAIN
    folio = anon_alloc(m, pmd.mapping.file, ptes_per_table(m))
    if folio is NULL:
        return -ENOMEM
    zap_ptes_between(m, pmd, pmd.address, pmd.address + pmd_mask(m) + 1, HGM_BY_ZAP)
    table = pmd.entry[0]
    pmd.entry[0] = 0
    deposit(m, pmd, table)
    install_pmd(m, pmd, folio, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    return 0

cdef inline int collapse_vma_memory(Machine *m, Mapping *v, const Vma *vma, uint64_t start,
                                    uint64_t end) noexcept nogil:
    """Collapse every PMD's range inside [start, end), offsets in one VMA. 0, or the last errno (madvise_collapse)."""
    cdef uint64_t first = (v.address + start + pmd_mask(m)) & ~pmd_mask(m), last = (v.address + end) & ~pmd_mask(m)
    cdef int error = 0, failed = 0
    cdef Pmd pmd
    if vma.end - vma.start <= pmd_mask(m) or not pmd_aligned(m, v, vma, vma.end - pmd_mask(m) - 1):
        return EINVAL
    if m.state.files[v.file].kind == ANON and not vma.flags & VMA_ANON or first > last:
        return EINVAL
    while first < last:
        pmd = pmd_at(m, v, first - v.address, False)
        error = collapse_anon(m, &pmd, vma) if m.state.files[v.file].kind == ANON else collapse_shmem(m, &pmd, vma)
        if error:
            failed = abs(error)
        if error < 0:
            break
        first += pmd_mask(m) + 1
    return failed

cdef inline Outcome collapse_memory(Machine *m, const hgm_operation *op, uint64_t end) noexcept nogil:
    """MADV_COLLAPSE of offsets up to `end`, VMA by VMA. The first that fails ends it."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t at = op.offset, stop
    cdef uint32_t i = vma_search(v, at)
    cdef bint gap = False
    cdef int error
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start >= end:
            gap = True
            break
        gap |= v.vmas[i].start > at
        at = max(at, v.vmas[i].start)
        stop = min(end, v.vmas[i].end)
        error = collapse_vma_memory(m, v, &v.vmas[i], at, stop)
        if error:
            return outcome(min(at - op.offset, op.length), error)
        at = stop
        i += 1
    return outcome(min(at - op.offset, op.length), ENOMEM if gap else 0)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""MADV_COLLAPSE of shmem and anonymous memory (mm/khugepaged.c): what a PMD spans becomes one folio, mapped whole."""
from libc.errno cimport EAGAIN, EBUSY, EINVAL, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at, folio_of, frames_alloc
from hgmcore.core.machine cimport ANON, File, Machine, Mapping, Vma
from hgmcore.core.table cimport allocation_fails, is_leaf, is_table, table_entries, table_number
from hgmcore.operations.common cimport (
    base_mask, look_up_and_put, Outcome, outcome, Range, range_of, vma_next, VmaWalk, walk_vmas
)
from hgmcore.operations.thp.anon cimport anon_alloc
from hgmcore.operations.thp.pmd cimport (
    extra_references, folio_below, frame, install_pmd, maps, mm_find_pmd, pgtable_trans_huge_deposit, Pmd, pmd_mask,
    ptes_per_table, thp_vma_suitable_order
)
from hgmcore.operations.thp.shmem_fault cimport shmem_add_to_page_cache, shmem_delete_from_page_cache
from hgmcore.operations.thp.shmem_file cimport unmap_mapping_range
from hgmcore.operations.thp.zap cimport pte_table_free, table_empty, zap_folio, zap_pte_range

cdef inline void retract_page_tables(Machine *m, uint32_t file, uint64_t first) noexcept nogil:
    """Free the page tables, now empty, of all that map a PMD's range of the file from base page `first` on.

    Where userfaultfd protects from writes they stay, as they may hold its marks; and those of private mappings
    that were written to.
    """
    cdef uint64_t start = first << m.config.geometry.base_shift
    cdef uint32_t i, j
    cdef Mapping *v
    cdef Pmd pmd
    for i in range(m.state.nr_mappings):
        v = &m.state.mappings[i]
        for j in range(v.nr_vmas):
            if (v.file == file and not v.vmas[j].flags & HGM_OPF_WP and not v.vmas[j].anon_vma
                    and v.file_offset + v.vmas[j].start <= start
                    and start + pmd_mask(m) < v.file_offset + v.vmas[j].end
                    and (v.address - v.file_offset) & pmd_mask(m) == 0):
                pmd = mm_find_pmd(m, v, start - v.file_offset, False)
                if pmd.entry is not NULL and is_table(pmd.entry[0]) and table_empty(m, pmd.entry[0]):
                    pte_table_free(m, pmd.entry)

cdef inline int collapse_file(Machine *m, uint32_t file, uint64_t first) noexcept nogil:
    """Put one new folio in place of those that the page cache has in a PMD's range from `first` on, and of its holes
   . Whoever mapped one of them has to fault again. 0 or an errno, as from collapse_shmem().
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
    unmap_mapping_range(m, file, first, first + n, False)
    for at in range(n):
        if cache[at] and folio_at(m, cache[at] - 1).page._refcount != <int64_t>folio_at(m, cache[at] - 1).nr_pages:
            folio.flags |= HGM_FOLIO_FREED
            return EAGAIN
    for at in range(n):
        if cache[at]:
            shmem_delete_from_page_cache(m, folio_at(m, cache[at] - 1))
    shmem_add_to_page_cache(m, folio)
    retract_page_tables(m, file, first)
    return 0

cdef inline int collapse_pte_mapped_thp(Machine *m, Pmd *pmd, const Vma *vma, hgm_folio *folio) noexcept nogil:
    """Map a folio that fills the PMD by one leaf, in place of PTEs of it or of nothing."""
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
    """0 or an errno; a negative one, -errno, if nothing behind it is tried."""
    cdef Mapping *v = pmd.mapping
    cdef File *f = &m.state.files[v.file]
    cdef uint64_t first = (v.file_offset + (pmd.address - v.address)) >> m.config.geometry.base_shift
    cdef uint64_t n = ptes_per_table(m)
    cdef hgm_folio *folio = NULL
    cdef int error
    if first + n > f.pages << (f.page_shift - m.config.geometry.base_shift):
        return -EINVAL
    if f.cache[first]:
        folio = folio_at(m, f.cache[first] - 1)
    if folio is NULL or folio.nr_pages < n:
        error = collapse_file(m, v.file, first)
        if error:
            return error
        folio = folio_at(m, f.cache[first] - 1)
    if pmd.entry is NULL:
        pmd[0] = mm_find_pmd(m, v, pmd.address - v.address, True)
        if pmd.entry is NULL:
            return -ENOMEM
    return 0 if is_leaf(pmd.entry[0]) else collapse_pte_mapped_thp(m, pmd, vma, folio)

cdef inline int collapse_huge_page(Machine *m, Pmd *pmd, const Vma *vma) noexcept nogil:
    """Copy what PTEs map into a new folio, with zeros where they are none. As collapse_shmem()."""
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
    folio = anon_alloc(m, pmd.mapping.file, 0, ptes_per_table(m))
    if folio is NULL:
        return -ENOMEM
    zap_pte_range(m, pmd, pmd.address, pmd.address + pmd_mask(m) + 1, HGM_BY_ZAP)
    table = pmd.entry[0]
    pmd.entry[0] = 0
    pgtable_trans_huge_deposit(m, pmd, table)
    install_pmd(m, pmd, folio, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    return 0

cdef inline int madvise_collapse(Machine *m, Mapping *v, const Vma *vma, uint64_t start,
                                 uint64_t end) noexcept nogil:
    """Collapse every PMD's range inside [start, end), offsets in one VMA. 0, or the last errno."""
    cdef uint64_t first = (v.address + start + pmd_mask(m)) & ~pmd_mask(m), last = (v.address + end) & ~pmd_mask(m)
    cdef int error = 0, failed = 0
    cdef Pmd pmd
    if (vma.end - vma.start <= pmd_mask(m)
            or not thp_vma_suitable_order(m, v, vma, vma.end - pmd_mask(m) - 1, pmd_mask(m))):
        return EINVAL
    if m.state.files[v.file].kind == ANON and not vma.anon_vma or first > last:
        return EINVAL
    while first < last:
        pmd = mm_find_pmd(m, v, first - v.address, False)
        error = collapse_huge_page(m, &pmd, vma) if m.state.files[v.file].kind == ANON else collapse_shmem(m, &pmd, vma)
        if error:
            failed = -error if error < 0 else error
        if error < 0:
            break
        first += pmd_mask(m) + 1
    return failed

cdef inline Outcome collapse(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_COLLAPSE, VMA by VMA. The first that fails ends it."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef VmaWalk w
    cdef Vma *vma
    cdef int error
    if r.error:
        return outcome(0, r.error)
    w = walk_vmas(v, &r)
    vma = vma_next(v, &w)
    while vma is not NULL:
        error = madvise_collapse(m, v, vma, w.start, w.stop)
        if error:
            return outcome(min(w.start - op.offset, op.length), error)
        vma = vma_next(v, &w)
    return outcome(min(w.stop - op.offset, op.length), ENOMEM if w.gap else 0)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Removing leaves of shmem and anonymous memory, splitting a PMD, freeing page tables."""
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_of
from hgmcore.core.machine cimport ANON, Machine, Mapping, NO_TABLE
from hgmcore.core.table cimport (
    entry_index, hstate_entry, is_leaf, is_table, PMD, PTE, subtree_free, table_entries, table_number, table_release
)
from hgmcore.core.vma cimport vma_delete, vma_search, vma_split
from hgmcore.operations.addresses cimport range_used
from hgmcore.operations.thp.pmd cimport (
    asks_pieces, folio_below, folio_leaf, folio_subtree, frame, install_ptes, leaf_goes, maps, mm_find_pmd,
    pgtable_trans_huge_withdraw, Pmd, pmd_mask, ptes_per_table
)
from hgmcore.scheme cimport *

cdef inline void pieces_gone(Machine *m, Pmd *pmd, hgm_subtree *s) noexcept nogil:
    """Leaves of a folio were removed below the entry: tell the scheme, also if they were the last."""
    cdef uint64_t ignored = 0
    cdef bint last
    if not asks_pieces() or s.folio.nr_pages == 1:
        return
    s.counted = 1
    if s.origin == HGM_BY_COLLAPSE:    # one replacement: a scheme is told of no last leaf
        hgm_table_free(&m.context.cost, &m.config.options, s)
        return
    last = not folio_below(m, pmd, s.folio, &ignored)
    if s.covers and not NEEDS & NEEDS_SCAN_ALWAYS:
        s.empty = 1
    elif NEEDS & (NEEDS_SCAN | NEEDS_COUNTER):
        s.empty = not folio_below(m, pmd, s.folio, &m.context.cost.entries_scanned)
    if hgm_subtree_zapped(&m.context.cost, &m.config.options, s) and NEEDS & NEEDS_BIT:
        s.counted = 0
    if last:
        hgm_table_free(&m.context.cost, &m.config.options, s)

cdef inline void zap_folio(Machine *m, Pmd *pmd, uint64_t *entries, uint64_t i, uint64_t n, hgm_folio *folio,
                           int origin) noexcept nogil:
    """Remove the folio's leaves among PTEs [i, n) of the table `entries`."""
    cdef hgm_leaf leaf = folio_leaf(m, pmd, folio, 0, 1, origin)
    cdef hgm_subtree s = folio_subtree(m, pmd, folio, origin)
    cdef uint64_t run
    s.covers = leaf.covers = i == 0 and n == ptes_per_table(m)
    while i < n:
        if not maps(folio, entries[i]):
            i += 1
            continue
        leaf.first = frame(entries[i]) - folio.pfn
        entries[i] = 0
        run = 1
        if m.config.options.batch and not QUIRKS & QUIRK_WHOLE_ONLY:
            while i + run < n and maps(folio, entries[i + run]) and (
                    frame(entries[i + run]) == folio.pfn + leaf.first + run):
                entries[i + run] = 0
                run += 1
        leaf.count = <uint32_t>run
        leaf_goes(m, &leaf)
        s.removed += run
        i += run
    m.context.cost.leaf_removes += s.removed
    pieces_gone(m, pmd, &s)

cdef inline void zap_pte_range(Machine *m, Pmd *pmd, uint64_t start, uint64_t end, int origin) noexcept nogil:
    """Empty the PTEs for addresses [start, end), folio by folio; the PMD entry is a table.

    With pmd.keep_cows, those stay that map a private mapping's own pages (should_zap_cows).
    """
    cdef uint64_t *entries = table_entries(m, table_number(pmd.entry[0]))
    cdef uint64_t first = entry_index(m, start, PTE), i = first
    cdef uint64_t n = first + ((end - start) >> m.config.geometry.base_shift)
    cdef hgm_folio *folio
    while i < n:
        if is_leaf(entries[i]):
            folio = folio_of(m, frame(entries[i]))
            if pmd.keep_cows and folio.flags & HGM_FOLIO_ANON:
                i += 1
                continue
            # what stands before `i` is none by now
            zap_folio(m, pmd, entries, i if folio.nr_pages == 1 else first, i + 1 if folio.nr_pages == 1 else n,
                      folio, origin)
        entries[i] = 0
        i += 1

cdef inline void pte_table_free(Machine *m, uint64_t *pmd_entry) noexcept nogil:
    """Free the page table below the entry; it holds no leaf."""
    memset(table_entries(m, table_number(pmd_entry[0])), 0, <size_t>1 << m.config.geometry.table_shift)    # zero pages
    subtree_free(m, pmd_entry, PMD)

cdef inline void zap_huge_pmd(Machine *m, Pmd *pmd, int origin) noexcept nogil:
    """Remove the PMD leaf, or zero page, with the table deposited for it."""
    cdef uint64_t entry = pmd.entry[0], table
    cdef hgm_leaf leaf
    cdef hgm_subtree s
    pmd.entry[0] = 0
    if m.state.files[pmd.mapping.file].kind == ANON:
        table = pgtable_trans_huge_withdraw(m, pmd)
        subtree_free(m, &table, PMD)
    if is_leaf(entry):
        leaf = folio_leaf(m, pmd, folio_of(m, frame(entry)), 0, pmd_mask(m) + 1 >> m.config.geometry.base_shift, origin)
        m.context.cost.leaf_removes += 1
        leaf_goes(m, &leaf)
        s = folio_subtree(m, pmd, leaf.folio, origin)
        s.whole = s.covers = s.empty = 1
        s.removed = 1
        hgm_subtree_zapped(&m.context.cost, &m.config.options, &s)

cdef inline void split_huge_pmd(Machine *m, Pmd *pmd) noexcept nogil:
    """Make room below a PMD leaf that only a part is to be done to.

    A leaf of a file just goes: a fault can bring its pages back. One of anonymous memory is exchanged for PTEs.
    """
    cdef uint64_t entry = pmd.entry[0], i, refs
    cdef uint64_t *entries
    cdef hgm_folio *folio
    cdef hgm_leaf leaf
    if m.state.files[pmd.mapping.file].kind != ANON:
        zap_huge_pmd(m, pmd, HGM_BY_ZAP)
        return
    pmd.entry[0] = pgtable_trans_huge_withdraw(m, pmd)
    entries = table_entries(m, table_number(pmd.entry[0]))
    if not is_leaf(entry):
        for i in range(ptes_per_table(m)):
            entries[i] = HGM_PTE_ZERO
        return
    folio = folio_of(m, frame(entry))
    refs = m.context.cost.ref
    install_ptes(m, pmd, entries, folio, 0, folio.nr_pages, entry & HGM_PTE_EXCLUSIVE, HGM_BY_POISON)
    refs = m.context.cost.ref - min(m.context.cost.ref, refs + 1)    # page_ref_add() of all of them in one step
    m.context.cost.ref -= refs
    hgm_event_refs_merged(folio.page, refs)
    leaf = folio_leaf(m, pmd, folio, 0, folio.nr_pages, HGM_BY_POISON)
    m.context.cost.leaf_removes += 1
    leaf_goes(m, &leaf)

cdef inline void unmap_page_range(Machine *m, Mapping *v, uint64_t start, uint64_t end, int origin,
                            bint free_tables, bint keep_cows) noexcept nogil:
    """Remove the leaves of offsets [start, end), and what a PMD leaf of a file maps beyond them.

    free_tables: free a page table that the range covers. keep_cows: see zap_pte_range().
    """
    cdef Pmd pmd
    cdef uint64_t stop
    while start < end:
        pmd = mm_find_pmd(m, v, start, False)
        pmd.keep_cows = keep_cows
        stop = min(pmd.address + pmd_mask(m) + 1 - v.address, end)
        if pmd.entry is not NULL and pmd.entry[0] != 0:
            if not is_table(pmd.entry[0]) and (stop - start > pmd_mask(m) or m.state.files[v.file].kind != ANON):
                zap_huge_pmd(m, &pmd, origin)
            elif not is_table(pmd.entry[0]):
                split_huge_pmd(m, &pmd)
            if is_table(pmd.entry[0]):
                zap_pte_range(m, &pmd, v.address + start, v.address + stop, origin)
                if free_tables and stop - start > pmd_mask(m):
                    pte_table_free(m, pmd.entry)
        start = stop

cdef inline void vma_adjust_trans_huge(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """The VMA that `offset` is inside of is about to be cut there: no PMD leaf may stand across."""
    cdef Pmd pmd
    cdef uint32_t i = vma_search(v, offset)
    if (v.address + offset) & pmd_mask(m) == 0 or i == v.nr_vmas or v.vmas[i].start >= offset:
        return
    pmd = mm_find_pmd(m, v, offset, False)
    if pmd.entry is not NULL and pmd.entry[0] != 0 and not is_table(pmd.entry[0]):
        split_huge_pmd(m, &pmd)

cdef inline bint table_empty(Machine *m, uint64_t entry) noexcept nogil:
    cdef uint64_t *entries = table_entries(m, table_number(entry))
    cdef uint64_t i
    for i in range(ptes_per_table(m)):
        if entries[i] != 0:
            return False
    return True

cdef inline void free_pgtables(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Free the tables for offsets [start, end), which nothing is mapped in, where no VMA is left."""
    cdef uint64_t at, span
    cdef uint64_t *entry
    cdef int level
    for level in range(PMD, m.config.geometry.levels + 1):
        span = <uint64_t>1 << m.config.geometry.level_shift[level]
        at = (v.address + start) & ~(span - 1)
        while at < v.address + end:
            if not range_used(m, v.process, at, at + span - 1):
                entry = hstate_entry(m, &m.state.processes[v.process], at, level, False)
                if entry is not NULL and is_table(entry[0]):
                    if level == PMD:
                        hgm_event_table_with_munmap()
                        pte_table_free(m, entry)
                    elif table_empty(m, entry[0]):
                        table_release(m, table_number(entry[0]))
                        entry[0] = 0
            at += span

cdef inline uint64_t do_munmap(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Remove the VMAs in [start, end), with what they map and the tables that no VMA needs. Returns their bytes."""
    cdef uint32_t i
    cdef uint64_t done = 0
    start = min(start, v.length)    # what lies behind the mapping is another's, and may be all of the address space
    end = min(end, v.length)
    vma_adjust_trans_huge(m, v, start)
    vma_adjust_trans_huge(m, v, end)
    if not vma_split(m, v, start) or not vma_split(m, v, end):
        return 0
    i = vma_search(v, start)
    while i < v.nr_vmas and v.vmas[i].start < end:
        unmap_page_range(m, v, v.vmas[i].start, v.vmas[i].end, HGM_BY_ZAP, False, False)
        done += v.vmas[i].end - v.vmas[i].start
        vma_delete(v, i)
    if m.state.processes[v.process].root != NO_TABLE:
        free_pgtables(m, v, start, end)
    return done

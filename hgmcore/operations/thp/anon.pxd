# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Anonymous memory: page faults, copy on write, and the copy at fork.

Rules of Linux (mm/memory.c, mm/huge_memory.c). A page that only one process has is known by HGM_PTE_EXCLUSIVE in its
entry, where Linux has PageAnonExclusive; a write to any other asks counts first. The zero page, which reads map, is no
folio and is not counted: HGM_PTE_ZERO stands in its place.
"""
from libc.errno cimport ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_of, frames_alloc
from hgmcore.core.machine cimport ANON, File, Machine, Mapping, NO_TABLE, Vma, VMA_FORKED
from hgmcore.core.table cimport (
    allocation_fails, entry_index, is_leaf, is_table, PMD, subtree_table_alloc, table_entries, table_number,
    upper_table_add
)
from hgmcore.operations.common cimport base_mask, folio_answer, Outcome, outcome, page_mask
from hgmcore.operations.thp.pmd cimport (
    deposit_alloc, frame, install_pmd, install_ptes, maps, mm_find_pmd, pgtable_trans_huge_deposit, Pmd, pmd_mask,
    pte_offset, ptes_per_table, thp_vma_suitable_order
)
from hgmcore.operations.thp.zap cimport split_huge_pmd, zap_pte_range

cdef enum:
    FALLBACK = -1    # VM_FAULT_FALLBACK

cdef inline hgm_folio *anon_alloc(Machine *m, uint32_t file, uint64_t index, uint64_t nr_pages) noexcept nogil:
    """A folio of a process's own, in no page cache and with no reference yet: for anonymous memory, or in place of base
    page `index` of a shmem file. NULL: no memory."""
    cdef bint anon = m.state.files[file].kind == ANON
    cdef hgm_folio *folio = NULL
    if not allocation_fails(m):
        folio = frames_alloc(m, file, m.state.files[file].size if anon else index, nr_pages)
    if folio is not NULL:
        folio.flags = HGM_FOLIO_ANON
        m.state.files[file].size += anon
    return folio

cdef inline bint wp_can_reuse_anon_folio(Machine *m, const hgm_folio *folio, bint by_pmd) noexcept nogil:
    """May a write go to a page that is not exclusive, because nobody else has it any more?

    Linux trusts counts: of a folio mapped by a PMD, or of one page, a single reference (do_huge_pmd_wp_page,
    wp_can_reuse_anon_folio). Of a large folio mapped by PTEs that holds up to 6.14; later, that all references are
    mappings and all of these this process's; a last page is given up for a copy (__wp_can_reuse_large_anon_folio).
    """
    cdef hgm_answer answer
    if by_pmd or folio.nr_pages == 1 or m.config.options.era < 615:
        return folio.page._refcount == 1
    answer = folio_answer(&m.config.options, folio)
    return answer.mapcount > 1 and not answer.maybe_shared and answer.mapcount == folio.page._refcount

cdef inline bint access_huge_pmd(Machine *m, Pmd *pmd, bint write) noexcept nogil:
    """An access to what a PMD leaf, or the zero page of that size, maps. False: it was split, the PTE has to do."""
    cdef hgm_folio *folio
    if not write or pmd.entry[0] & HGM_PTE_EXCLUSIVE:
        return True
    if is_leaf(pmd.entry[0]):
        if wp_can_reuse_anon_folio(m, folio_of(m, frame(pmd.entry[0])), True):
            pmd.entry[0] |= HGM_PTE_EXCLUSIVE
            hgm_event_reuse()
            return True
    elif m.config.options.era >= 615:
        # do_huge_zero_wp_pmd, from 6.13
        folio = anon_alloc(m, pmd.mapping.file, 0, ptes_per_table(m))
        if folio is not NULL:
            install_pmd(m, pmd, folio, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
            return True
    split_huge_pmd(m, pmd)
    return False

cdef inline int do_huge_pmd_anonymous_page(Machine *m, Pmd *pmd, bint write) noexcept nogil:
    """Map a new folio, or the zero page, by a PMD leaf; the entry is none. 0, FALLBACK without a folio, or ENOMEM."""
    cdef uint64_t table
    cdef hgm_folio *folio = NULL
    if write:
        folio = anon_alloc(m, pmd.mapping.file, 0, ptes_per_table(m))
        if folio is NULL:
            return FALLBACK
    if not deposit_alloc(m, &table):
        if write:
            folio.flags |= HGM_FOLIO_FREED
        return ENOMEM
    pgtable_trans_huge_deposit(m, pmd, table)
    if write:
        install_pmd(m, pmd, folio, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    else:
        pmd.entry[0] = HGM_PTE_ZERO
    return 0

cdef inline int wp_page_copy(Machine *m, Pmd *pmd, uint64_t address, uint64_t index) noexcept nogil:
    """Put a base page of the process's own at the address, in place of what its PTE stands for; `index` as for
    anon_alloc(). 0 or ENOMEM."""
    cdef uint64_t *entry = pte_offset(m, pmd, address)
    cdef hgm_folio *copy = anon_alloc(m, pmd.mapping.file, index, 1)
    if copy is NULL:
        return ENOMEM
    hgm_event_copy(is_leaf(entry[0]))
    if entry[0] != 0:
        zap_pte_range(m, pmd, address, address + base_mask(m) + 1, HGM_BY_FAULT)
    install_ptes(m, pmd, entry, copy, 0, 1, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    return 0

cdef inline bint do_anonymous_page(Machine *m, Pmd *pmd, const Vma *vma, uint64_t address) noexcept nogil:
    """Map a new folio of the memory's size, which PTEs map, around the address, if it has its place and no PTE there
    stands for anything. Did it? With userfaultfd never (alloc_anon_folio)."""
    cdef const File *f = &m.state.files[pmd.mapping.file]
    cdef uint64_t i
    cdef uint64_t *entries
    cdef hgm_folio *folio
    if (f.nr_pages == 1 or f.nr_pages >= ptes_per_table(m) or vma.flags & (HGM_OPF_MINOR | HGM_OPF_WP)
            or not thp_vma_suitable_order(m, pmd.mapping, vma, address - pmd.mapping.address, page_mask(f))):
        return False
    entries = pte_offset(m, pmd, address & ~page_mask(f))
    for i in range(f.nr_pages):
        if entries[i] != 0:
            return False
    folio = anon_alloc(m, pmd.mapping.file, 0, f.nr_pages)
    if folio is not NULL:
        install_ptes(m, pmd, entries, folio, 0, f.nr_pages, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    return folio is not NULL

cdef inline int handle_pte_fault(Machine *m, Pmd *pmd, const Vma *vma, uint64_t address, bint write) noexcept nogil:
    """An access to a base page; the PMD entry is a table. 0 or ENOMEM."""
    cdef uint64_t *entry = pte_offset(m, pmd, address)
    if entry[0] & HGM_PTE_EXCLUSIVE or (entry[0] != 0 and not write):
        return 0
    if not write:
        entry[0] = HGM_PTE_ZERO
        return 0
    if is_leaf(entry[0]) and wp_can_reuse_anon_folio(m, folio_of(m, frame(entry[0])), False):
        entry[0] |= HGM_PTE_EXCLUSIVE
        hgm_event_reuse()
        return 0
    if entry[0] == 0 and do_anonymous_page(m, pmd, vma, address):
        return 0
    return wp_page_copy(m, pmd, address, 0)

cdef inline bint reusable_anon_vma(const Vma *vma, const Vma *neighbour) noexcept nogil:
    """May a VMA share the anon_vma of its neighbour: could they be one VMA but for what may be done to them?"""
    cdef uint32_t access = HGM_OPF_READ | HGM_OPF_WRITE
    return neighbour.anon_vma != 0 and not neighbour.flags & VMA_FORKED and (
        (vma.flags | access) == (neighbour.flags | access))

cdef inline void anon_vma_prepare(Machine *m, const Mapping *v, Vma *vma) noexcept nogil:
    """Before the first fault that may give the VMA a folio of its own. A new anon_vma is told from others of the
    mapping by where its VMA began, as no two began at one place."""
    if vma.anon_vma:
        return
    if vma + 1 < v.vmas + v.nr_vmas and (vma + 1).start == vma.end and reusable_anon_vma(vma, vma + 1):
        vma.anon_vma = (vma + 1).anon_vma
    elif vma > v.vmas and (vma - 1).end == vma.start and reusable_anon_vma(vma, vma - 1):
        vma.anon_vma = (vma - 1).anon_vma
    else:
        vma.anon_vma = 1 + (vma.start >> m.config.geometry.base_shift)

cdef inline Outcome anon_fault(Machine *m, const hgm_operation *op, Vma *vma) noexcept nogil:
    """An access: a folio of the memory's size where it fits and nothing is mapped yet, else base pages."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef uint64_t offset = op.offset & ~base_mask(m)
    cdef bint write = op.flags & HGM_OPF_WRITE != 0, huge
    cdef Pmd pmd = mm_find_pmd(m, v, offset, True)
    cdef int error = FALLBACK
    if pmd.entry is NULL:
        return outcome(0, ENOMEM)
    huge = (pmd.entry[0] == 0 and m.state.files[v.file].nr_pages == ptes_per_table(m)
            and thp_vma_suitable_order(m, v, vma, offset, pmd_mask(m)))
    if huge:
        anon_vma_prepare(m, v, vma)
        error = do_huge_pmd_anonymous_page(m, &pmd, write)
        if error != FALLBACK:
            return outcome(0 if error else base_mask(m) + 1, error)
    if pmd.entry[0] == 0:
        if not subtree_table_alloc(m, pmd.entry):
            return outcome(0, ENOMEM)
    elif not is_table(pmd.entry[0]) and access_huge_pmd(m, &pmd, write):
        return outcome(base_mask(m) + 1, 0)
    if write:
        anon_vma_prepare(m, v, vma)
    error = handle_pte_fault(m, &pmd, vma, v.address + offset, write)
    return outcome(0 if error else base_mask(m) + 1, error)

cdef inline int copy_huge_pmd(Machine *m, Pmd *parent, Pmd *child) noexcept nogil:
    """Copy a PMD leaf, or zero page, of anonymous memory: both may only read from now on. 0 or ENOMEM."""
    cdef uint64_t table
    if not deposit_alloc(m, &table):
        return ENOMEM
    pgtable_trans_huge_deposit(m, child, table)
    parent.entry[0] &= ~HGM_PTE_EXCLUSIVE
    if is_leaf(parent.entry[0]):
        install_pmd(m, child, folio_of(m, frame(parent.entry[0])), 0, HGM_BY_FORK)
    else:
        child.entry[0] = parent.entry[0]
    return 0

cdef inline int copy_pte_range(Machine *m, Pmd *parent, Pmd *child, uint64_t start, uint64_t end) noexcept nogil:
    """Copy the PTEs for addresses [start, end), in runs of one folio. 0 or ENOMEM."""
    cdef uint64_t i = 0, j, run, n = (end - start) >> m.config.geometry.base_shift
    cdef uint64_t *source = pte_offset(m, parent, start)
    cdef uint64_t *target
    cdef hgm_folio *folio
    if child.entry[0] == 0 and not subtree_table_alloc(m, child.entry):
        return ENOMEM
    target = pte_offset(m, child, start)
    while i < n:
        run = 1
        if is_leaf(source[i]):
            folio = folio_of(m, frame(source[i]))
            while i + run < n and maps(folio, source[i + run]) and frame(source[i + run]) == frame(source[i]) + run:
                run += 1
            install_ptes(m, child, &target[i], folio, frame(source[i]) - folio.pfn, run, 0, HGM_BY_FORK)
        else:
            target[i] = source[i]
        for j in range(run):
            source[i + j] &= ~HGM_PTE_EXCLUSIVE
        i += run
    return 0

cdef inline bint copy_upper_tables(Machine *m, uint32_t parent, uint32_t child, uint64_t address) noexcept nogil:
    """Make the child's upper tables for an address, down to the last that the parent has. False: no memory."""
    cdef int at = m.config.geometry.levels
    cdef uint64_t *theirs = &table_entries(m, m.state.processes[parent].root)[entry_index(m, address, at)]
    cdef uint64_t *mine = &table_entries(m, m.state.processes[child].root)[entry_index(m, address, at)]
    while at > PMD and theirs[0] != 0:
        if mine[0] == 0 and not upper_table_add(m, mine):
            return False
        at -= 1
        theirs = &table_entries(m, table_number(theirs[0]))[entry_index(m, address, at)]
        mine = &table_entries(m, table_number(mine[0]))[entry_index(m, address, at)]
    return True

cdef inline int copy_page_range(Machine *m, Mapping *v, const Vma *vma, Mapping *w) noexcept nogil:
    """Copy what a VMA of the parent's mapping `v` maps to the child's `w`. 0 or ENOMEM.

    PMD leaves of a file are left out: the child can fault them in; and a private VMA that never had an anonymous folio,
    unless its write protection follows into the child (vma_needs_copy).
    """
    cdef Pmd parent, child
    cdef uint64_t at = vma.start, stop
    cdef bint anon = m.state.files[v.file].kind == ANON
    cdef int error
    if not vma.flags & (HGM_OPF_SHARED | HGM_OPF_WP) and not vma.anon_vma:
        return 0
    while at < vma.end:
        parent = mm_find_pmd(m, v, at, False)
        stop = min(parent.address + pmd_mask(m) + 1 - v.address, vma.end)
        if m.state.processes[v.process].root != NO_TABLE and not copy_upper_tables(m, v.process, w.process,
                                                                                   v.address + at):
            return ENOMEM
        child = mm_find_pmd(m, w, at, False)
        if parent.entry is not NULL and parent.entry[0] != 0 and (anon or is_table(parent.entry[0])):
            if is_table(parent.entry[0]):
                error = copy_pte_range(m, &parent, &child, v.address + at, v.address + stop)
            else:
                error = copy_huge_pmd(m, &parent, &child)
            if error:
                return error
        at = stop
    return 0

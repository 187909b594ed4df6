# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Files of kind shmem: their page cache, and the faults and UFFDIO_CONTINUE that map it.

Rules of Linux 6.18 (mm/filemap.c, mm/memory.c, mm/userfaultfd.c).
"""
from libc.errno cimport EAGAIN, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_alloc, folio_at, folio_number, folio_of, folio_put, frames_alloc, page_poisoned
from hgmcore.core.machine cimport ANON, File, Machine, Mapping, Vma
from hgmcore.core.table cimport allocation_fails, entry_index, is_leaf, is_table, PTE, subtree_table_alloc
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport (
    base_mask, EHWPOISON, exact_counts, look_up_and_put, lookup_refused, Outcome, outcome, page_mask, uffd_range_error
)
from hgmcore.operations.thp.anon cimport anon_alloc, anon_vma_prepare, wp_can_reuse_anon_folio, wp_page_copy
from hgmcore.operations.thp.pmd cimport (
    frame, install_pmd, install_ptes, mm_find_pmd, Pmd, pmd_mask, pte_offset, ptes_per_table, thp_vma_suitable_order
)
from hgmcore.operations.thp.zap cimport split_huge_pmd

cdef enum:
    FAULT_AROUND_BYTES = 65536    # fault_around_bytes, however large a base page is

cdef inline void shmem_add_to_page_cache(Machine *m, hgm_folio *folio) noexcept nogil:
    """The page cache holds a reference for each base page."""
    cdef uint64_t i
    for i in range(folio.index, folio.index + folio.nr_pages):
        m.state.files[folio.file].cache[i] = folio_number(m, folio) + 1
    folio.flags |= HGM_FOLIO_CACHED
    hgm_plain_add(folio, <int32_t>folio.nr_pages)

cdef inline void shmem_delete_from_page_cache(Machine *m, hgm_folio *folio) noexcept nogil:
    cdef uint64_t i
    exact_counts(m, folio)
    for i in range(folio.index, folio.index + folio.nr_pages):
        m.state.files[folio.file].cache[i] = 0
    folio.flags &= ~HGM_FOLIO_CACHED
    folio_put(folio, <int32_t>folio.nr_pages)

cdef inline hgm_folio *shmem_alloc_and_add_folio(Machine *m, uint32_t file, uint64_t index, bint huge) noexcept nogil:
    """Allocate base page `index` into the page cache: if `huge` and nothing of the huge page around it is there yet,
    all of that, else the page alone. NULL: no memory."""
    cdef File *f = &m.state.files[file]
    cdef uint64_t first = index & ~(f.nr_pages - 1), i
    cdef hgm_folio *folio = NULL
    for i in range(first, first + f.nr_pages):
        huge = huge and f.cache[i] == 0
    if huge:
        folio = folio_alloc(m, file, first)
    if folio is NULL and not (huge and f.nr_pages == 1) and not m.context.out_of_memory and not allocation_fails(m):
        folio = frames_alloc(m, file, index, 1)
    if folio is not NULL:
        shmem_add_to_page_cache(m, folio)
    return folio

cdef inline Outcome populate(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t i, first = op.offset * f.nr_pages
    for i in range(first, first + op.length * f.nr_pages):
        if f.cache[i] == 0 and shmem_alloc_and_add_folio(m, op.target, i, True) is NULL:
            return outcome((i - first) << m.config.geometry.base_shift, ENOMEM)
        f.size = max(f.size, i + 1)
        f.length = max(f.length, (i + 1) << m.config.geometry.base_shift)
    return outcome(op.length << f.page_shift, 0)

cdef inline bint do_set_pmd(Machine *m, Pmd *pmd, const Vma *vma, uint64_t offset, hgm_folio *folio) noexcept nogil:
    """Map the folio by a PMD leaf if it fills one, fits the VMA there and the entry is none."""
    if (pmd.entry[0] != 0 or folio.nr_pages != ptes_per_table(m) or folio.flags & HGM_FOLIO_POISONED
            or not thp_vma_suitable_order(m, pmd.mapping, vma, offset, pmd_mask(m))):
        return False
    if not install_pmd(m, pmd, folio, 0, HGM_BY_FAULT):
        look_up_and_put(m, &m.context.cost, folio)
    return True

cdef inline bint pte_alloc(Machine *m, Pmd *pmd) noexcept nogil:
    """Make the PMD entry, none or a table, a table. False: no memory."""
    return pmd.entry[0] != 0 or subtree_table_alloc(m, pmd.entry)

cdef inline void set_pte_range(Machine *m, Pmd *pmd, uint64_t *entry, hgm_folio *folio, uint64_t first,
                               uint64_t n) noexcept nogil:
    """Map base pages [first, first + n) of the folio by those of `n` PTEs that are none; pages that failed stay out.

    The folio was looked up once.
    """
    cdef uint64_t i = 0, run
    cdef bint kept = False
    while i < n:
        run = 0
        while i + run < n and entry[i + run] == 0 and not (
                folio.flags & HGM_FOLIO_POISONED and page_poisoned(m, folio.pfn + first + i + run, 1)):
            run += 1
        if run:
            kept |= install_ptes(m, pmd, &entry[i], folio, first + i, run, 0, HGM_BY_FAULT)
        i += run + 1
    if not kept:
        look_up_and_put(m, &m.context.cost, folio)

cdef inline uint64_t fault_around_pages(Machine *m) noexcept nogil:
    return <uint64_t>FAULT_AROUND_BYTES >> m.config.geometry.base_shift

cdef inline bint should_fault_around(Machine *m, const Vma *vma) noexcept nogil:
    return (m.config.options.fault_around != HGM_AROUND_NONE and not vma.flags & (HGM_OPF_MINOR | HGM_OPF_WP)
            and fault_around_pages(m) > 1)

cdef inline bint folio_fits(Machine *m, const Pmd *pmd, const Vma *vma, const hgm_folio *folio, uint64_t offset,
                            uint64_t page) noexcept nogil:
    """Do all base pages of the folio, of which number `page` belongs at `offset`, lie in the VMA and, by address, in
    one page table?"""
    cdef int shift = m.config.geometry.base_shift
    cdef uint64_t before = page << shift, after = folio.nr_pages - page << shift
    cdef uint64_t inside = pmd.mapping.address + offset - pmd.address
    return (offset - vma.start >= before and vma.end - offset >= after
            and inside >= before and inside + after <= pmd_mask(m) + 1)

cdef inline int filemap_map_pages(Machine *m, Pmd *pmd, const Vma *vma, uint64_t offset, uint64_t index) noexcept nogil:
    """Map what the page cache has around base page `index` of the file. 0 or ENOMEM.

    16: the pages of the aligned 64K around it. folio: also all pages of folios of which one is among those, where the
    folio lies in the VMA and in one page table.
    """
    cdef File *f = &m.state.files[pmd.mapping.file]
    cdef int shift = m.config.geometry.base_shift
    cdef uint64_t pte = entry_index(m, pmd.mapping.address + offset, PTE), vma_page = (offset - vma.start) >> shift
    cdef uint64_t around = fault_around_pages(m)
    cdef uint64_t from_pte = max(pte & ~(around - 1), pte - min(pte, vma_page))
    cdef uint64_t to_pte = min(min(from_pte + around, ptes_per_table(m)),
                               pte + ((vma.end - vma.start) >> shift) - vma_page)
    cdef uint64_t at = index + from_pte - pte, end = min(index + to_pte - pte, f.size), first, last, page, place
    cdef hgm_folio *folio
    cdef uint64_t *entry
    while at < end:
        if f.cache[at] == 0:
            at += 1
            continue
        folio = folio_at(m, f.cache[at] - 1)
        place = offset + ((at - index) << shift)
        if do_set_pmd(m, pmd, vma, offset, folio):
            return 0
        if not pte_alloc(m, pmd):
            return ENOMEM
        page = first = at - folio.index
        last = min(<uint64_t>folio.nr_pages, end - folio.index)
        if m.config.options.fault_around == HGM_AROUND_FOLIO and folio_fits(m, pmd, vma, folio, place, page):
            first = 0
            last = folio.nr_pages
        entry = pte_offset(m, pmd, pmd.mapping.address + place) - (page - first)
        set_pte_range(m, pmd, entry, folio, first, last - first)
        at = folio.index + folio.nr_pages
    return 0

cdef inline int finish_fault(Machine *m, Pmd *pmd, const Vma *vma, uint64_t offset, hgm_folio *folio,
                             uint64_t page) noexcept nogil:
    """Map base page `page` of the folio at `offset`: with the whole folio if that fits and is not mapped yet.

    0 or ENOMEM. With fault_around=none the page alone.
    """
    cdef uint64_t *entry
    cdef uint64_t i
    cdef bint all
    if do_set_pmd(m, pmd, vma, offset, folio):
        return 0
    if not pte_alloc(m, pmd):
        look_up_and_put(m, &m.context.cost, folio)
        return ENOMEM
    entry = pte_offset(m, pmd, pmd.mapping.address + offset)
    all = (m.config.options.fault_around != HGM_AROUND_NONE and not vma.flags & (HGM_OPF_MINOR | HGM_OPF_WP)
           and not folio.flags & HGM_FOLIO_POISONED and folio_fits(m, pmd, vma, folio, offset, page))
    if all:
        for i in range(folio.nr_pages):
            all = all and (entry - page)[i] == 0
    if all:
        set_pte_range(m, pmd, entry - page, folio, 0, folio.nr_pages)
    else:
        set_pte_range(m, pmd, entry, folio, page, 1)
    return 0

cdef inline Outcome private_write(Machine *m, Pmd *pmd, Vma *vma, uint64_t address, uint64_t index) noexcept nogil:
    """A write in a private mapping to what the PMD entry, or a PTE below it, maps (do_wp_page)."""
    cdef uint64_t entry = pte_offset(m, pmd, address)[0]
    cdef hgm_folio *folio = folio_of(m, frame(entry))
    cdef int error
    anon_vma_prepare(m, pmd.mapping, vma)
    if folio.flags & HGM_FOLIO_ANON and wp_can_reuse_anon_folio(m, folio, False):
        pte_offset(m, pmd, address)[0] |= HGM_PTE_EXCLUSIVE
        hgm_event_reuse()
        return outcome(base_mask(m) + 1, 0)
    error = wp_page_copy(m, pmd, address, index)
    return outcome(0 if error else base_mask(m) + 1, error)

cdef inline Outcome finish_cow_fault(Machine *m, Pmd *pmd, uint64_t address, hgm_folio *copy) noexcept nogil:
    """Map the copy of a page that the page cache has; nothing stands for the address."""
    if not pte_alloc(m, pmd):
        copy.flags |= HGM_FOLIO_FREED
        return outcome(0, ENOMEM)
    install_ptes(m, pmd, pte_offset(m, pmd, address), copy, 0, 1, HGM_PTE_EXCLUSIVE, HGM_BY_FAULT)
    return outcome(base_mask(m) + 1, 0)

cdef inline Outcome shmem_fault(Machine *m, const hgm_operation *op, Vma *vma) noexcept nogil:
    """An access, and the fault that it takes where nothing maps its address (do_read_fault, do_shared_fault,
    do_cow_fault) or a private mapping may not be written there. A PMD leaf does not outlive such a write."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef File *f = &m.state.files[v.file]
    cdef uint64_t offset = op.offset & ~base_mask(m), index = (v.file_offset + offset) >> m.config.geometry.base_shift
    cdef Pmd pmd = mm_find_pmd(m, v, offset, True)
    cdef Outcome done = outcome(base_mask(m) + 1, 0)
    cdef uint64_t entry = 0
    cdef hgm_folio *folio = NULL
    cdef hgm_folio *copy = NULL
    cdef int error = 0
    cdef bint existed = False
    cdef bint cow = op.flags & HGM_OPF_WRITE and not vma.flags & HGM_OPF_SHARED
    if pmd.entry is NULL:
        return outcome(0, ENOMEM)
    if cow and is_leaf(pmd.entry[0]):
        split_huge_pmd(m, &pmd)
    if pmd.entry[0] != 0:
        entry = pte_offset(m, &pmd, v.address + offset)[0] if is_table(pmd.entry[0]) else pmd.entry[0]
    if entry == 0 and not op.flags & HGM_OPF_WRITE and should_fault_around(m, vma):
        error = filemap_map_pages(m, &pmd, vma, offset, index)
        if error:
            return outcome(0, error)
        if pmd.entry[0] != 0:
            entry = pte_offset(m, &pmd, v.address + offset)[0] if is_table(pmd.entry[0]) else pmd.entry[0]
    if entry != 0 and entry & HGM_PTE_POISON:
        return outcome(0, EHWPOISON)
    if entry != 0:
        return private_write(m, &pmd, vma, v.address + offset, index) if cow and not entry & HGM_PTE_EXCLUSIVE else done
    if cow:
        anon_vma_prepare(m, v, vma)
        copy = anon_alloc(m, v.file, index, 1)
        if copy is NULL:
            return outcome(0, ENOMEM)
        copy.flags |= HGM_FOLIO_FREED    # until it is mapped
    if index >= f.size:
        return outcome(0, EFAULT)
    if f.cache[index] != 0:
        existed = True
        folio = folio_at(m, f.cache[index] - 1)
        error = lookup_refused(m, folio, True)
        if error:
            return outcome(0, error)
        if vma.flags & HGM_OPF_MINOR:
            look_up_and_put(m, &m.context.cost, folio)
            done.done = 0
            done.event = HGM_EVENT_MINOR
            return done
    else:
        folio = shmem_alloc_and_add_folio(m, v.file, index, f.nr_pages == 1 or thp_vma_suitable_order(
            m, v, vma, offset, page_mask(f)))
        if folio is NULL:
            return outcome(0, ENOMEM)
    if folio.flags & HGM_FOLIO_POISONED and page_poisoned(m, folio.pfn + index - folio.index, 1):
        look_up_and_put(m, &m.context.cost, folio)
        return outcome(0, EHWPOISON)
    if cow:
        if existed:
            look_up_and_put(m, &m.context.cost, folio)
        copy.flags &= ~HGM_FOLIO_FREED
        hgm_event_copy(1)
        return finish_cow_fault(m, &pmd, v.address + offset, copy)
    error = finish_fault(m, &pmd, vma, offset, folio, index - folio.index)
    return outcome(0, error) if error else done

cdef inline int mfill_atomic_pte_continue(Machine *m, Pmd *pmd, uint64_t offset) noexcept nogil:
    """Map one base page of the page cache by a PTE. 0 or an errno."""
    cdef Mapping *v = pmd.mapping
    cdef File *f = &m.state.files[v.file]
    cdef uint64_t index = (v.file_offset + offset) >> m.config.geometry.base_shift
    cdef hgm_folio *folio
    cdef uint64_t *entry
    cdef int error
    if pmd.entry is NULL:
        return ENOMEM
    pmd.none = pmd.entry[0] == 0
    if not pte_alloc(m, pmd):
        return ENOMEM
    if not is_table(pmd.entry[0]):
        return EEXIST
    if index >= f.size:
        return EINVAL
    if f.cache[index] == 0:
        return EFAULT
    folio = folio_at(m, f.cache[index] - 1)
    error = lookup_refused(m, folio, False)
    if error:
        return error
    entry = pte_offset(m, pmd, v.address + offset)
    if folio.flags & HGM_FOLIO_POISONED and page_poisoned(m, folio.pfn + index - folio.index, 1):
        error = EIO
    elif entry[0] != 0:
        error = EEXIST
    if error or not install_ptes(m, pmd, entry, folio, index - folio.index, 1, 0, HGM_BY_CONTINUE):
        look_up_and_put(m, &m.context.cost, folio)
    return error

cdef inline Outcome mfill_atomic(Machine *m, const hgm_operation *op) noexcept nogil:
    """UFFDIO_CONTINUE: base pages only, whatever the size of the folio."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Vma *vma = vma_find(v, op.offset)
    cdef uint64_t done = 0
    cdef int error
    cdef Pmd pmd
    error = uffd_range_error(m, op)
    if error:
        return outcome(0, error)
    if vma is NULL or op.offset + op.length > vma.end or not vma.flags & (HGM_OPF_MINOR | HGM_OPF_WP):
        return outcome(0, ENOENT)
    if m.state.files[v.file].kind == ANON:
        return outcome(0, EINVAL)
    pmd.entry = NULL
    while done < op.length:
        if pmd.entry is NULL or v.address + op.offset + done - pmd.address > pmd_mask(m):
            pmd = mm_find_pmd(m, v, op.offset + done, True)
        error = mfill_atomic_pte_continue(m, &pmd, op.offset + done)
        if error:
            return outcome(done, EAGAIN if done else error)
        done += base_mask(m) + 1
    return outcome(done, 0)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Memory failure of one base page: what maps it is cut until a base-page leaf does, and that one goes."""
from libc.errno cimport EAGAIN, EFAULT, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_get, folio_of, page_poisoned
from hgmcore.core.machine cimport Machine, Mapping, MAX_LEVELS
from hgmcore.core.memory cimport region_grow
from hgmcore.core.rmap cimport rmap_next
from hgmcore.core.share cimport unshare_table
from hgmcore.core.table cimport (
    descend, entry_index, is_leaf, subtree_free, subtree_table_alloc, table_desc, table_entries, table_number
)
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport base_mask, EHWPOISON, Outcome, outcome, page_mask, process_exited
from hgmcore.operations.hugetlb.huge_page cimport (
    entry_for, huge_page, huge_page_none, HugePage, install_at, maps_another, subtree_counted, table_added
)
from hgmcore.operations.hugetlb.zap cimport leaf_like, zap_huge_page
from hgmcore.scheme cimport *

cdef inline int largest_beside(Machine *m, uint64_t offset, uint64_t bad, int below) noexcept nogil:
    """The largest leaf smaller than number `below` that begins at `offset` and, but for a base page, spares `bad`."""
    cdef int i = below - 1
    cdef uint64_t bytes
    while i > 0:
        bytes = <uint64_t>1 << m.config.geometry.leaf_shift[i]
        if offset & (bytes - 1) == 0 and bad - offset >= bytes:
            break
        i -= 1
    return i

cdef inline bint tables_for_cut(Machine *m, int n, uint32_t *tables) noexcept nogil:
    """Get `n` tables; if an allocation fails, once more. False: no memory, none is kept."""
    cdef int _, got
    cdef uint64_t entry
    for _ in range(2):
        got = 0
        while got < n:
            entry = 0
            if not subtree_table_alloc(m, &entry):
                break
            tables[got] = table_number(entry)
            got += 1
        if got == n:
            return True
        while got > 0:
            got -= 1
            entry = <uint64_t>tables[got] << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
            subtree_free(m, &entry, 2)
    return False

cdef inline int cut_leaf(Machine *m, HugePage *h, uint64_t *entry, int level, int size, uint64_t bad,
                         uint32_t *path) noexcept nogil:
    """Replace leaf number `size` at `entry` of `level` by smaller ones so that a base page maps `bad`. 0 or ENOMEM.

    bad: offset in the mapping. One replacement: a scheme is told of no first and no last leaf.
    """
    cdef uint64_t bytes = <uint64_t>1 << m.config.geometry.leaf_shift[size], start = bad & ~(bytes - 1), at = start
    cdef uint64_t address = h.mapping.address + bad
    cdef uint64_t *place
    cdef uint32_t tables[MAX_LEVELS]
    cdef hgm_leaf leaf
    cdef int i, n = level - 1, part, reached
    if not tables_for_cut(m, n, tables):
        return ENOMEM
    leaf = leaf_like(m, h, HGM_BY_POISON)
    leaf.folio = h.folio
    leaf.first = (start - h.start) >> m.config.geometry.base_shift
    leaf.nr_pages = bytes >> m.config.geometry.base_shift
    leaf.count = 1
    leaf.whole = size == h.file.leaf
    place = entry - (entry_index(m, address, level) - entry_index(m, h.mapping.address + start, level))
    for i in range(m.config.geometry.leaf_entries[size]):
        place[i] = 0
    m.context.cost.leaf_removes += 1
    hgm_leaf_remove(&m.context.cost, &m.config.options, &leaf)
    if NEEDS & NEEDS_COUNTER and level < h.file.level:
        table_desc(m, path[level]).children -= 1
        hgm_event_children(1)
    place = entry
    for i in range(n):
        place[0] = <uint64_t>tables[i] << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
        if i == 0 and level == h.file.level and h.file.entries == 1:
            table_added(m, h, HGM_BY_POISON)
            if NEEDS & NEEDS_BIT:
                subtree_counted(m, h)    # with the leaf that was there
        place = &table_entries(m, tables[i])[entry_index(m, address, level - 1 - i)]
    h.leaf_known = True
    while at < start + bytes:
        part = largest_beside(m, at, bad, size)
        reached = h.file.level
        place = descend(m, entry_for(m, h, at), h.mapping.address + at, &reached, m.config.geometry.leaf_level[part],
                        path)
        install_at(m, h, place, part, at, 1, path, HGM_BY_POISON, False)
        at += <uint64_t>1 << m.config.geometry.leaf_shift[part]
    return 0

cdef inline int try_to_unmap_poisoned(Machine *m, HugePage *h, uint64_t bad) noexcept nogil:
    """Unmap base page `bad` (an offset) of `h` and leave a poison entry. 0, EAGAIN: not mapped here, or ENOMEM."""
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef int level = h.file.level, error
    if h.entry is NULL or huge_page_none(h):
        return EAGAIN
    entry = descend(m, entry_for(m, h, bad), h.mapping.address + bad, &level, 1, path)
    error = 0 if is_leaf(entry[0]) else EAGAIN
    if unshare_table(m, h.mapping, h.start):
        return error
    if QUIRKS & QUIRK_POISONS_WHOLE or not vma_find(h.mapping, bad).flags & HGM_OPF_SHARED:    # no pieces
        zap_huge_page(m, h, h.start, h.start + page_mask(h.file) + 1, HGM_BY_ZAP, False)
        return error
    if error:
        return error
    if level > 1 or entry[0] & HGM_PTE_GROUP:
        error = cut_leaf(m, h, entry, level,
                         m.config.geometry.entry_leaf[level] + (1 if entry[0] & HGM_PTE_GROUP else 0), bad, path)
        if error:
            return error
    zap_huge_page(m, h, bad, bad + base_mask(m) + 1, HGM_BY_ZAP, False)
    level = h.file.level
    entry = descend(m, entry_for(m, h, bad), h.mapping.address + bad, &level, 1, path)
    entry[0] = HGM_PTE_POISON
    return 0

cdef inline Outcome hwpoison(Machine *m, const hgm_operation *op) noexcept nogil:
    """memory_failure() of the base page at an address, in every mapping that maps it.

    EFAULT: no page there. EHWPOISON: that base page failed before. EAGAIN: the caller's address is not mapped; the
    page is poisoned all the same. The reference of memory failure stays on the folio.
    """
    cdef Mapping *caller = &m.state.mappings[op.target]
    cdef Mapping *v = caller
    cdef uint64_t bad = op.offset & ~base_mask(m), offset = 0, pfn
    cdef uint32_t at = 0
    cdef HugePage h
    cdef hgm_folio *folio
    cdef int error, result = EAGAIN
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if vma_find(v, bad) is NULL:
        return outcome(0, EFAULT)
    h = huge_page(m, v, bad, False)
    if h.entry is not NULL and is_leaf(h.entry[0]):
        h.folio = folio_of(m, h.entry[0] >> HGM_PTE_FRAME_SHIFT)
    folio = h.folio
    if folio is NULL:
        return outcome(0, EFAULT)
    pfn = folio.pfn + ((bad - h.start) >> m.config.geometry.base_shift)
    if page_poisoned(m, pfn, 1):
        return outcome(0, EHWPOISON)
    if not region_grow(&m.state.poisoned, m.state.poisoned.used + sizeof(uint64_t)):
        m.context.out_of_memory = True
        return outcome(0, ENOMEM)
    (<uint64_t *>m.state.poisoned.base)[m.state.poisoned.used // sizeof(uint64_t) - 1] = pfn
    folio.flags |= HGM_FOLIO_POISONED
    folio.poisons += 1
    folio_get(m, folio, 1)
    result = try_to_unmap_poisoned(m, &h, bad)
    bad -= h.start
    v = rmap_next(m, folio.file, folio.index, &at, &offset)
    while v is not NULL:
        h = huge_page(m, v, offset, False)
        if v != caller and h.entry is not NULL and not maps_another(m, &h, folio):
            h.folio = folio
            error = try_to_unmap_poisoned(m, &h, offset + bad)
            if error == ENOMEM:
                result = error
        v = rmap_next(m, folio.file, folio.index, &at, &offset)
    return outcome(0 if result else base_mask(m) + 1, result)

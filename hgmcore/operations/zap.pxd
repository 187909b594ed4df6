# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Removing leaves: the walk that dontneed, munmap, exit and collapse share."""
from hgmcore.machine cimport Vma
from hgmcore.operations.common cimport *
from hgmcore.vma cimport vma_search

cdef inline uint64_t zap_ptes(Machine *m, uint64_t *entries, uint64_t first, uint64_t last, const hgm_leaf *like,
                              uint64_t page) noexcept nogil:
    """Remove the base-page leaves among entries [first, last); `page` is the base page of the first."""
    cdef hgm_leaf leaf = like[0]
    cdef hgm_cost cost
    cdef uint64_t i, removed = 0
    memset(&cost, 0, sizeof(cost))
    leaf.nr_pages = 1
    leaf.whole = 0
    for i in range(first, last):
        if entries[i] != 0:
            entries[i] = 0
            leaf.first = page + i - first
            hgm_leaf_remove(&cost, &m.options, &leaf)
            removed += 1
    cost.leaf_removes = removed
    cost_add(&m.cost, &cost)
    return removed

cdef inline uint64_t zap_table(Machine *m, uint32_t number, int level, uint64_t start, uint64_t end,
                               const hgm_leaf *like, uint64_t page) noexcept nogil:
    """Remove the leaves in [start, end), addresses that table `number` of `level` spans. Returns how many.

    `like` has what all of them share; `page` is the base page at `start`. No leaf stands across the borders.
    """
    cdef uint64_t *entries = table_entries(m, number)
    cdef int shift = m.geometry.level_shift[level]
    cdef uint64_t step, removed = 0, gone = 0, n
    cdef uint64_t *entry
    cdef hgm_leaf leaf
    if level == 1:
        n = (end - start) >> shift
        gone = removed = zap_ptes(m, entries, entry_index(m, start, 1), entry_index(m, start, 1) + n, like, page)
    else:
        while start < end:
            step = min(((start >> shift) + 1) << shift, end) - start
            entry = &entries[entry_index(m, start, level)]
            if is_table(entry[0]):
                n = zap_table(m, table_number(entry[0]), level - 1, start, start + step, like, page)
                removed += n
                if NEEDS & NEEDS_COUNTER:
                    gone += n > 0 and table_desc(m, table_number(entry[0])).children == 0
            elif entry[0] != 0:
                entry[0] = 0
                leaf = like[0]
                leaf.first = page
                leaf.nr_pages = step >> m.geometry.base_shift
                leaf.whole = 0
                m.cost.leaf_removes += 1
                hgm_leaf_remove(&m.cost, &m.options, &leaf)
                removed += 1
                gone += 1
            start += step
            page += step >> m.geometry.base_shift
    if NEEDS & NEEDS_COUNTER:
        table_desc(m, number).children -= <uint32_t>gone
    return removed

cdef inline hgm_leaf leaf_like(Machine *m, const HugePage *h, int origin) noexcept nogil:
    """What all leaves of a huge page that go away in one operation share."""
    cdef hgm_leaf leaf
    memset(&leaf, 0, sizeof(leaf))
    leaf.folio = h.folio
    leaf.process = h.mapping.process
    leaf.mapping = <uint32_t>(h.mapping - m.mappings)
    leaf.origin = <uint8_t>origin
    return leaf

cdef inline void zap_huge_page(Machine *m, HugePage *h, uint64_t start, uint64_t end, bint free_tables) noexcept nogil:
    """Remove the leaves of offsets [start, end), all in huge page `h`; then free its tables if told to."""
    cdef hgm_leaf leaf = leaf_like(m, h, HGM_BY_ZAP)
    cdef hgm_subtree s = subtree_of(m, h, HGM_BY_ZAP)
    cdef uint64_t address = h.mapping.address
    cdef uint32_t top
    if h.entry is NULL or h.entry[0] == 0:
        return
    s.covers = end - start > page_mask(h.file)
    if is_leaf(h.entry[0]):
        h.entry[0] = 0
        leaf.nr_pages = h.file.nr_pages
        leaf.whole = 1
        m.cost.leaf_removes += 1
        hgm_leaf_remove(&m.cost, &m.options, &leaf)
        s.removed = 1
        s.empty = 1
        hgm_subtree_zapped(&m.cost, &m.options, &s)
        return
    top = table_number(h.entry[0])
    s.removed = zap_table(m, top, h.file.level - 1, address + start, address + end, &leaf,
                          (start - h.start) >> m.geometry.base_shift)
    s.tables_stay = not free_tables
    if s.covers:
        s.empty = 1
    elif s.removed == 0:
        s.empty = 0
    elif NEEDS & NEEDS_COUNTER:
        s.empty = table_desc(m, top).children == 0
    elif NEEDS & NEEDS_SCAN:
        s.empty = not subtree_find_leaf(m, h.entry[0], &m.cost.entries_scanned)
    hgm_subtree_zapped(&m.cost, &m.options, &s)
    if free_tables:
        hgm_table_free(&m.cost, &m.options, &s)
        subtree_free(m, h.entry, h.file.level)

cdef inline void zap_range(Machine *m, Mapping *v, uint64_t start, uint64_t end, bint free_tables) noexcept nogil:
    """Remove the leaves of offsets [start, end), all in one VMA."""
    cdef HugePage h
    cdef uint64_t stop
    while start < end:
        h = huge_page(m, v, start, False)
        stop = min(h.start + page_mask(h.file) + 1, end)
        zap_huge_page(m, &h, start, stop,
                      free_tables or (m.options.zap_frees_tables and stop - start > page_mask(h.file)))
        start = stop

cdef inline bint cuts_leaf(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """Does a leaf stand across `offset`?"""
    cdef HugePage h
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef int level
    if offset & page_mask(&m.files[v.file]) == 0:
        return False
    h = huge_page(m, v, offset, False)
    if h.entry is NULL:
        return False
    level = h.file.level
    entry = descend(m, h.entry, v.address + offset, &level, 1, path)
    return is_leaf(entry[0]) and offset & ((<uint64_t>1 << m.geometry.level_shift[level]) - 1) != 0

cdef inline Outcome dontneed(Machine *m, const hgm_operation *op) noexcept nogil:
    """MADV_DONTNEED: base pages in an HGM VMA, whole huge pages elsewhere; rounds the length as madvise does."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint64_t base = base_mask(m), mask = page_mask(&m.files[v.file])
    cdef uint64_t at, start = op.offset, end, stop, done = 0
    cdef uint32_t i
    cdef Vma *vma
    cdef bint gap = False
    if process_exited(m, v):
        return outcome(0, ESRCH)
    end = start + ((op.length + base) & ~base)
    if start & base or end < start or op.length + base < op.length:
        return outcome(0, EINVAL)
    at = start
    i = vma_search(v, start)
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start >= end:
            gap = True
            break
        vma = &v.vmas[i]
        gap |= vma.start > at
        at = max(at, vma.start)
        stop = min(end, vma.end)
        if vma.flags & HGM_OPF_HGM and not NEEDS & WHOLE_ONLY:
            if cuts_leaf(m, v, at) or cuts_leaf(m, v, stop):
                return outcome(done, EINVAL)
        else:
            if at & mask:
                return outcome(done, EINVAL)
            stop &= ~mask
        zap_range(m, v, at, stop, False)
        done += stop - at
        at = min(end, vma.end)
        i += 1
    return outcome(done, ENOMEM if gap else 0)

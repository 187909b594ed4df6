# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Removing leaves: the walk that every operation shares which takes mappings away."""
from libc.errno cimport EINVAL, ENOMEM
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_of
from hgmcore.core.lock cimport table_lock, table_unlock
from hgmcore.core.machine cimport ALONE, Machine, Mapping, MAX_LEVELS, Vma
from hgmcore.core.share cimport unshare_table
from hgmcore.core.table cimport (
    descend, entry_index, is_leaf, is_table, number_of_table, PMD, PTE, subtree_free, table_desc, table_entries,
    table_number
)
from hgmcore.operations.common cimport (
    base_mask, new_leaf, Outcome, outcome, page_mask, Range, range_of, vma_next, VmaWalk, walk_vmas
)
from hgmcore.operations.hugetlb.huge_page cimport (
    entry_for, find_leaf, huge_page, huge_page_none, huge_page_whole, HugePage, mapped_folio, maps_pieces,
    subtree_of
)
from hgmcore.operations.hugetlb.loops cimport zap_ptes
from hgmcore.scheme cimport *

# What a walk removed: leaves, and children of the table that it started in (leaves, and tables now empty).
cdef struct Zapped:
    uint64_t leaves
    uint64_t children

cdef inline uint64_t migration_entry(uint64_t leaf) noexcept nogil:
    """What stands in place of a leaf while its folio is migrated."""
    return (leaf & ~(HGM_PTE_PRESENT | HGM_PTE_LEAF)) | HGM_PTE_MIGRATION

cdef inline bint entry_locked(Machine *m, uint64_t *entry, int level) noexcept nogil:
    """In a race: lock the table of an entry, unless the entry is a table. False, and no lock: the entry is none."""
    if level > PTE:
        cut(READS, entry)
        if entry[0] == 0 or is_table(entry[0]):
            return entry[0] != 0
    table_lock(table_desc(m, number_of_table(m, entry)), ALONE)
    cut(READS, entry)
    if entry[0] != 0 and not is_table(entry[0]):
        return True
    table_unlock(table_desc(m, number_of_table(m, entry)), ALONE)
    return entry[0] != 0

cdef inline bint leaf_inside(Machine *m, const uint64_t *entry, int level, uint64_t start, uint64_t end) noexcept nogil:
    """In a race: does all of a leaf, which may have come since the range was checked, lie in [start, end)?

    False: its table is unlocked.
    """
    cdef uint64_t bytes = <uint64_t>1 << m.config.geometry.level_shift[level]
    if entry[0] & HGM_PTE_GROUP:
        bytes *= m.config.geometry.group[level]
    if is_table(entry[0]) or entry[0] == 0 or start & (bytes - 1) == 0 and start + bytes <= end:
        return True
    race_unlock(HGM_PT_LOCK)
    return False

cdef inline void children_sub(Machine *m, int level) noexcept nogil:
    """In a race: the table that a removal is in, at `level`, lost a child; a table without any is none of its own."""
    cdef hgm_ptdesc *desc
    cdef uint32_t now
    while race_me().up[level]:
        desc = table_desc(m, race_me().up[level])
        cut(READS, &desc.children)
        now = desc.children - 1
        m.context.cost.underflows += desc.children == 0
        cut(WRITES, &desc.children)
        desc.children = now
        if now:
            return
        level += 1
    race_me().emptied = True

cdef inline Zapped zap_entries(Machine *m, uint64_t *entries, int level, uint64_t start, uint64_t end,
                               const hgm_leaf *like, uint64_t page) noexcept nogil:
    """Remove the leaves in [start, end), addresses below entries of `level` in one table.

    Entries become none; for a migration they become migration entries.
    `like` has what all of them share; `page` is the base page at `start`. No leaf stands across the borders.
    With batch=6.9 or 6.12 a zap tells the scheme at once of base-page leaves that stand side by side.
    """
    cdef int shift = m.config.geometry.level_shift[level], i
    cdef uint64_t step, n
    cdef uint64_t *entry
    cdef uint64_t *table
    cdef hgm_leaf leaf
    cdef hgm_folio *gone = NULL
    cdef Zapped zapped, below
    cdef bint batch = m.config.options.batch and like.origin in (HGM_BY_ZAP, HGM_BY_TRUNCATE)
    cdef bint runs = not RACING and m.config.geometry.group[1] == 1 and like.origin != HGM_BY_MIGRATION and not batch
    zapped.leaves = zapped.children = 0
    if level == PTE and runs:
        zapped.leaves = zap_ptes(m, &entries[entry_index(m, start, 1)], (end - start) >> shift, like, page)
        zapped.children = zapped.leaves
        return zapped
    while start < end:
        entry = &entries[entry_index(m, start, level)]
        step = min(((start >> shift) + 1) << shift, end) - start
        if RACING and not (entry_locked(m, entry, level) and leaf_inside(m, entry, level, start, end)):
            start += step
            page += step >> m.config.geometry.base_shift
            continue
        if is_table(entry[0]):
            table = table_entries(m, table_number(entry[0]))
            if RACING:
                race_me().up[level - 1] = table_number(entry[0])
            if level == PMD and runs:
                below.leaves = zap_ptes(m, &table[entry_index(m, start, 1)], step >> m.config.geometry.base_shift,
                                        like, page)
                below.children = below.leaves
            else:
                below = zap_entries(m, table, level - 1, start, start + step, like, page)
            zapped.leaves += below.leaves
            if NEEDS & NEEDS_COUNTER and below.children and not (RACING and like.origin != HGM_BY_COLLAPSE):
                table_desc(m, table_number(entry[0])).children -= <uint32_t>below.children
                hgm_event_children_go(&table_desc(m, table_number(entry[0])).changed)
                zapped.children += table_desc(m, table_number(entry[0])).children == 0
        elif is_leaf(entry[0]):
            n = 1
            if entry[0] & HGM_PTE_GROUP:
                step = <uint64_t>m.config.geometry.group[level] << shift
            elif batch and level == PTE:
                n = hgm_leaf_run(entry, (end - start) >> shift)
                step = n << shift
            if RACING:
                race_me().zapped = gone = folio_of(m, entry[0] >> HGM_PTE_FRAME_SHIFT)
            for i in range(<int>(step >> shift)):
                cut(WRITES, &entry[i])
                entry[i] = migration_entry(entry[i]) if like.origin == HGM_BY_MIGRATION else 0
            leaf = like[0]
            if RACING:
                leaf.folio = gone
            leaf.first = page
            leaf.nr_pages = (step >> m.config.geometry.base_shift) // n
            leaf.count = <uint32_t>n
            leaf.whole = leaf.nr_pages == leaf.folio.nr_pages
            m.context.cost.leaf_removes += n
            hgm_leaf_remove(&m.context.cost, &m.config.options, &leaf)
            zapped.leaves += n
            zapped.children += n
            if RACING and NEEDS & NEEDS_COUNTER and like.origin != HGM_BY_COLLAPSE:
                children_sub(m, level)
            race_unlock(HGM_PT_LOCK)
        else:
            if not (RACING and like.origin == HGM_BY_MIGRATION):
                cut(WRITES, entry)
                entry[0] = 0
            race_unlock(HGM_PT_LOCK)
        start += step
        page += step >> m.config.geometry.base_shift
    return zapped

cdef inline uint64_t *table_of_entry(Machine *m, const HugePage *h) noexcept nogil:
    """The table that holds the hstate-level entry."""
    return h.entry - entry_index(m, h.mapping.address + h.start, h.file.level)

cdef inline hgm_leaf leaf_like(Machine *m, const HugePage *h, int origin) noexcept nogil:
    """What all leaves of a huge page that go away in one operation share; a private mapping may map a copy."""
    return new_leaf(m, h.mapping, mapped_folio(m, h) if huge_page_whole(h) else h.folio, 0, 1, origin)

cdef inline void group_tables_free(Machine *m, HugePage *h) noexcept nogil:
    """Free the tables below the entries of a contiguous huge page; they hold no leaf."""
    cdef int i
    for i in range(h.file.entries):
        if is_table(h.entry[i]):
            subtree_free(m, &h.entry[i], h.file.level)

cdef inline bint subtree_emptied(Machine *m, const HugePage *h, const hgm_subtree *s) noexcept nogil:
    """Did the operation remove the last leaf?

    True without looking if the operation covered the whole huge page; otherwise found by the counter or the scan that
    the scheme requested.
    """
    if RACING and NEEDS & NEEDS_COUNTER and h.file.entries == 1:
        return race_me().emptied
    if s.covers and not NEEDS & NEEDS_SCAN_ALWAYS:
        return True
    if s.removed == 0:
        return s.covers
    if NEEDS & NEEDS_COUNTER and h.file.entries == 1:
        return table_desc(m, table_number(h.entry[0])).children == 0
    if NEEDS & (NEEDS_SCAN | NEEDS_COUNTER):
        return not find_leaf(m, h, &m.context.cost.entries_scanned)
    return False

cdef inline void zap_huge_page(Machine *m, HugePage *h, uint64_t start, uint64_t end, int origin,
                               bint free_tables) noexcept nogil:
    """Remove the leaves of offsets [start, end), all in huge page `h`; then free its tables if told to."""
    cdef hgm_leaf leaf
    cdef hgm_subtree s
    cdef Zapped zapped
    cdef uint64_t ignored = 0
    cdef bint whole, group
    if h.entry is NULL or origin == HGM_BY_MIGRATION and huge_page_none(h):
        return
    if unshare_table(m, h.mapping, h.start):    # also where nothing is mapped; migration comes only to what is
        h.entry = NULL
        return
    if huge_page_none(h):
        return
    whole = huge_page_whole(h)
    group = h.file.entries > 1 and not whole and find_leaf(m, h, &ignored)
    leaf = leaf_like(m, h, origin)
    s = subtree_of(m, h, origin)
    s.whole = whole
    s.counted |= group
    if whole:
        s.folio = leaf.folio
    s.covers = leaf.covers = end - start > page_mask(h.file)
    if RACING:
        race_me().emptied = False
        memset(race_me().up, 0, sizeof(race_me().up))
    zapped = zap_entries(m, table_of_entry(m, h), h.file.level, h.mapping.address + start, h.mapping.address + end,
                         &leaf, (start - h.start) >> m.config.geometry.base_shift)
    s.removed = zapped.leaves
    if RACING and zapped.leaves and not s.counted:
        s.folio = race_me().zapped
    s.tables_stay = not whole and not free_tables and not (group and not find_leaf(m, h, &ignored))
    s.empty = whole or subtree_emptied(m, h, &s)
    if hgm_subtree_zapped(&m.context.cost, &m.config.options, &s) and NEEDS & NEEDS_BIT:
        s.counted = 0
        cut(CHANGES, h.entry)
        if is_table(h.entry[0]):
            h.entry[0] &= ~HGM_PTE_COUNTED
    if group and not find_leaf(m, h, &ignored):
        hgm_table_free(&m.context.cost, &m.config.options, &s)
    if free_tables and h.file.entries > 1:
        group_tables_free(m, h)
    elif free_tables and is_table(h.entry[0]):
        hgm_table_free(&m.context.cost, &m.config.options, &s)
        cut(WRITES, h.entry)
        if not (RACING and not is_table(h.entry[0])):
            subtree_free(m, h.entry, h.file.level)

cdef inline void unmap_hugepage_range(Machine *m, Mapping *v, uint64_t start, uint64_t end, bint free_tables,
                           HugePage *h) noexcept nogil:
    """Remove the leaves of offsets [start, end), all in one VMA. Leaves `h` at the last huge page."""
    cdef uint64_t stop
    while start < end:
        h[0] = huge_page(m, v, start, False)
        stop = min(h.start + page_mask(h.file) + 1, end)
        zap_huge_page(m, h, start, stop, HGM_BY_ZAP,
                      free_tables or (m.config.options.zap_frees_tables and stop - start > page_mask(h.file)))
        start = stop

cdef inline bint cuts_leaf(Machine *m, Mapping *v, uint64_t offset) noexcept nogil:
    """Does a leaf stand across `offset`?"""
    cdef HugePage h
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef int level
    cdef uint64_t size
    if offset & page_mask(&m.state.files[v.file]) == 0:
        return False
    h = huge_page(m, v, offset, False)
    if h.entry is NULL:
        return False
    level = h.file.level
    entry = descend(m, entry_for(m, &h, offset), v.address + offset, &level, 1, path)
    size = <uint64_t>1 << m.config.geometry.level_shift[level]
    if entry[0] & HGM_PTE_GROUP:
        size *= m.config.geometry.group[level]
    return is_leaf(entry[0]) and offset & (size - 1) != 0

cdef inline Outcome dontneed(Machine *m, const hgm_operation *op, HugePage *h) noexcept nogil:
    """MADV_DONTNEED: base pages in an HGM VMA, whole huge pages elsewhere; rounds the length as madvise does.

    Leaves `h`, whose entry is NULL, at the last huge page, if pieces of it may be mapped.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef uint64_t mask = page_mask(&m.state.files[v.file]), stop, done = 0
    cdef Vma *vma
    cdef VmaWalk w
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_SHARED_LOCK)
    cut(READS, &v.nr_vmas)
    if r.error:
        return outcome(0, r.error)
    race_lock(HGM_VMA_LOCK, v, HGM_EXCLUSIVE_LOCK)
    race_lock(HGM_I_MMAP_LOCK, &m.state.files[v.file], HGM_EXCLUSIVE_LOCK)
    w = walk_vmas(v, &r)
    vma = vma_next(v, &w)
    while vma is not NULL:
        stop = w.stop
        if maps_pieces(m, vma.flags):
            if cuts_leaf(m, v, w.start) or cuts_leaf(m, v, stop):
                return outcome(done, EINVAL)
        else:
            if w.start & mask:
                return outcome(done, EINVAL)
            stop &= ~mask
        unmap_hugepage_range(m, v, w.start, stop, False, h)
        if not maps_pieces(m, vma.flags):
            h.entry = NULL
        done += stop - w.start
        vma = vma_next(v, &w)
    return outcome(done, ENOMEM if w.gap else 0)

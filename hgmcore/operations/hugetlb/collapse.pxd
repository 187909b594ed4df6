# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""MADV_COLLAPSE in an HGM mapping: leaves become one larger leaf.

Known to be wrong: HGM v2 collapses with the mmap lock alone, and locks neither the folio nor the mapping. A hole punch
that runs meanwhile can take the page out of the page cache before the new leaf is written, which then maps a page that
is out of it (`check --races`, under every scheme that maps pieces but subtree_posted). The VMA lock and i_mmap, which
v1 held, do not prevent it, because the punch drops both before it takes the page out. They prevent the rest: a
migration under way leaks the references of leaves that the collapse clears, and a scheme that asks for the first or the
last leaf of a subtree counts the subtree wrongly.
"""
from libc.errno cimport EBUSY, EEXIST, EINVAL, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport table_lock, table_unlock
from hgmcore.core.machine cimport ALONE, Machine, Mapping, MAX_LEVELS
from hgmcore.core.table cimport (
    descend, entry_index, is_leaf, is_table, leaf_entry, number_of_table, subtree_find_leaf, subtree_free, table_desc
)
from hgmcore.core.vma cimport vma_search
from hgmcore.operations.common cimport (
    base_mask, look_up_and_put, look_up_held, Outcome, outcome, page_mask, put_held, Range, range_of
)
from hgmcore.operations.hugetlb.huge_page cimport (
    counted, entry_for, file_index, huge_page, HugePage, install_at, subtree_of
)
from hgmcore.operations.hugetlb.uffd_continue cimport largest_leaf
from hgmcore.operations.hugetlb.zap cimport leaf_like, zap_entries, Zapped
from hgmcore.scheme cimport *

cdef inline bint entries_hold_table(const uint64_t *entry, int n) noexcept nogil:
    """Is one of `n` adjacent entries a table?"""
    cdef int i
    for i in range(n):
        if is_table(entry[i]):
            return True
    return False

cdef inline bint entries_hold_leaf(Machine *m, const uint64_t *entry, int n) noexcept nogil:
    """Is there a leaf at or below one of `n` adjacent entries?"""
    cdef uint64_t ignored = 0
    cdef int i
    for i in range(n):
        if is_leaf(entry[i]) or is_table(entry[i]) and subtree_find_leaf(m, entry[i], &ignored):
            return True
    return False

cdef inline void replace_by_leaf(Machine *m, HugePage *h, uint64_t *entry, int size, uint64_t offset,
                                 const uint32_t *path) noexcept nogil:
    """Put leaf number `size` for `offset` in place of what is at and below `entry`: leaves, or a subtree
    that is counted all the same.

    One replacement, for which the page is looked up: the scheme is told of each leaf, but neither of a last nor of a
    first one.
    """
    cdef int level = m.config.geometry.leaf_level[size], n = m.config.geometry.leaf_entries[size], i
    cdef hgm_leaf leaf = leaf_like(m, h, HGM_BY_COLLAPSE)
    cdef hgm_subtree s = subtree_of(m, h, HGM_BY_COLLAPSE)
    cdef uint64_t bytes = <uint64_t>1 << m.config.geometry.leaf_shift[size], address = h.mapping.address + offset
    cdef uint64_t step = <uint64_t>1 << (m.config.geometry.level_shift[level] - m.config.geometry.base_shift)
    cdef uint64_t *table = entry - entry_index(m, address, level)
    cdef bint whole = size == h.file.leaf
    cdef Zapped zapped
    leaf.first = (offset - h.start) >> m.config.geometry.base_shift
    leaf.folio = h.folio
    leaf.covers = s.covers = whole
    zapped = zap_entries(m, table, level, address, address + bytes, &leaf, leaf.first)
    s.removed = zapped.leaves
    table_lock(table_desc(m, number_of_table(m, entry)), ALONE)
    if whole:
        hgm_table_free(&m.context.cost, &m.config.options, &s)
    cut(WRITES, entry)
    for i in range(n):
        if is_table(entry[i]):
            subtree_free(m, &entry[i], level)
    if NEEDS & NEEDS_COUNTER and not (whole or level == h.file.level):
        table_desc(m, path[level]).children += 1 - <uint32_t>zapped.children
        hgm_event_children(zapped.children != 1)
    leaf.nr_pages = bytes >> m.config.geometry.base_shift
    leaf.count = 1
    leaf.whole = whole
    for i in range(n):
        entry[i] = leaf_entry(h.folio.pfn + leaf.first + i * step) | (HGM_PTE_GROUP if n > 1 else 0)
    m.context.cost.leaf_installs += 1
    if not hgm_leaf_install(&m.context.cost, &m.config.options, &leaf) & HGM_KEEPS:
        look_up_and_put(m, &m.context.cost, h.folio)
    table_unlock(table_desc(m, number_of_table(m, entry)), ALONE)

cdef inline void empty_tables_free(Machine *m, HugePage *h, uint64_t *entry, int level, int n,
                                   bint whole) noexcept nogil:
    """Free the tables below `n` adjacent entries; they hold no leaf. whole: they are all that the huge page has."""
    cdef hgm_subtree s = subtree_of(m, h, HGM_BY_ZAP)
    cdef int i
    s.covers = s.empty = whole
    table_lock(table_desc(m, number_of_table(m, entry)), ALONE)
    if whole and h.file.entries == 1:
        hgm_table_free(&m.context.cost, &m.config.options, &s)
    cut(WRITES, entry)
    for i in range(n):
        if is_table(entry[i]):
            subtree_free(m, &entry[i], level)
    table_unlock(table_desc(m, number_of_table(m, entry)), ALONE)

cdef inline void collapse_target(Machine *m, HugePage *h, uint64_t *entry, int size, uint64_t at,
                                 const uint32_t *path) noexcept nogil:
    """Make what is at and below `entry` leaf number `size`; a table becomes one also if it is empty.

    The entries are cleared instead if the page cache has no page. What is none, or a marker, stays.
    """
    cdef int level = m.config.geometry.leaf_level[size], n = m.config.geometry.leaf_entries[size]
    cdef bint whole = size == h.file.leaf, held = entries_hold_leaf(m, entry, n)
    if not held and not entries_hold_table(entry, n):
        return
    if h.folio is NULL:
        empty_tables_free(m, h, entry, level, n, whole)
    elif held or whole and NEEDS & NEEDS_BIT and h.file.entries == 1 and counted(h):
        replace_by_leaf(m, h, entry, size, at, path)
    else:
        empty_tables_free(m, h, entry, level, n, whole)
        if not install_at(m, h, entry, size, at, 1, path, HGM_BY_FAULT, whole):
            look_up_and_put(m, &m.context.cost, h.folio)

cdef inline Outcome hugetlb_collapse(Machine *m, Mapping *v, uint64_t start, uint64_t end, HugePage *h) noexcept nogil:
    """Targets from `start` on: the largest leaf that is aligned and ends by `end`. h: see collapse."""
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef uint64_t at = start
    cdef int level, target, size, n
    while at < end:
        if h.entry is NULL or at - h.start > page_mask(h.file):
            h[0] = huge_page(m, v, at, False)
        if h.folio is not NULL and h.folio.flags & HGM_FOLIO_POISONED:
            at = min(h.start + page_mask(h.file) + 1, end)
            continue
        size = largest_leaf(m, h, at, end - at, True)
        if h.entry is not NULL:
            level = h.file.level
            target = m.config.geometry.leaf_level[size]
            n = m.config.geometry.leaf_entries[size]
            entry = descend(m, entry_for(m, h, at), v.address + at, &level, target, path)
            if level == target:
                cut(READS, entry)
            if is_leaf(entry[0]) and (level > target or n == 1 and entry[0] & HGM_PTE_GROUP):
                return outcome(at - start, EEXIST)
            if level == target and size > 0 and not (n == 1 and is_leaf(entry[0])) and not entry[0] & HGM_PTE_GROUP:
                if RACING:
                    h.folio = look_up_held(m, h.file, file_index(h))
                    if h.folio is not NULL and h.folio.isolated:
                        put_held()
                        return outcome(at - start, EBUSY)
                collapse_target(m, h, entry, size, at, path)
                if RACING:
                    put_held()
        at += <uint64_t>1 << m.config.geometry.leaf_shift[size]
    return outcome(at - start, 0)

cdef inline Outcome collapse(Machine *m, const hgm_operation *op, HugePage *h) noexcept nogil:
    """MADV_COLLAPSE.

    h: the huge page of this mapping that the record before was about, or with entry NULL; becomes the last of this one.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef uint64_t start = r.start, end = r.end, at, stop
    cdef uint32_t i, first
    cdef Outcome o = outcome(0, 0)
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_EXCLUSIVE_LOCK)
    if RACING and race_repairs() & HGM_V1_COLLAPSE:
        race_lock(HGM_VMA_LOCK, v, HGM_EXCLUSIVE_LOCK)
        race_lock(HGM_I_MMAP_LOCK, &m.state.files[v.file], HGM_EXCLUSIVE_LOCK)
    cut(READS, &v.nr_vmas)
    if r.error:
        return outcome(0, r.error)
    first = i = vma_search(v, start)
    if QUIRKS & QUIRK_WHOLE_ONLY and (end == start or i == v.nr_vmas or v.vmas[i].start >= end):    # madvise of nothing
        return outcome(0, ENOMEM if end > start else 0)
    if QUIRKS & QUIRK_WHOLE_ONLY or m.config.options.base_only:
        return outcome(0, EINVAL)
    at = start
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start > at or not v.vmas[i].flags & HGM_OPF_SHARED:
            return outcome(0, EINVAL)
        at = v.vmas[i].end
        i += 1
    at = start
    i = first
    while at < end and o.error == 0:
        stop = min(end, v.vmas[i].end)
        o = outcome(stop - at, 0)
        if v.vmas[i].flags & HGM_OPF_HGM and not QUIRKS & QUIRK_COLLAPSES_NOTHING:
            o = hugetlb_collapse(m, v, at, stop, h)
        at += o.done
        i += 1
    return outcome(at - start, o.error)

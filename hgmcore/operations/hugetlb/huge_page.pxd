# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One huge page of a mapping: where its entries stand, its subtree, and installing a leaf of it."""
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at, folio_number, folio_of, page_cache_get
from hgmcore.core.lock cimport hgm_get_entry, table_lock, table_unlock
from hgmcore.core.machine cimport ALONE, File, Machine, Mapping, Process, PT_LOCKS
from hgmcore.core.share cimport share_table
from hgmcore.core.table cimport (
    children_add, descend, entry_index, hstate_entry, is_leaf, is_table, leaf_entry, number_of_table,
    subtree_find_leaf, subtree_table_alloc, table_desc, table_entries, table_number, upper_table_add
)
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport new_leaf, new_subtree, page_mask
from hgmcore.scheme cimport *

# One huge page of a mapping, and where it hangs in the page tables.
cdef struct HugePage "hgm_huge_page":
    Mapping *mapping
    File *file
    hgm_folio *folio         # in the page cache, or NULL
    uint64_t *entry          # first hstate-level entry; NULL: no upper tables
    uint64_t start           # offset in the mapping
    bint leaf_known          # this operation installed a leaf in its subtree

cdef inline bint counted(const HugePage *h) noexcept nogil:
    """Is the subtree counted, if the scheme keeps a bit for that?"""
    return not NEEDS & NEEDS_BIT or h.entry[0] & HGM_PTE_COUNTED != 0

cdef inline bint maps_pieces(Machine *m, uint32_t vma_flags) noexcept nogil:
    """May a VMA be mapped in pieces?"""
    return vma_flags & HGM_OPF_HGM and not QUIRKS & QUIRK_WHOLE_ONLY

cdef inline HugePage huge_page(Machine *m, Mapping *v, uint64_t offset, bint alloc) noexcept nogil:
    """The huge page that holds `offset`, which lies in a VMA; `alloc` makes (or shares) the upper tables."""
    cdef HugePage h
    cdef Process *p = &m.state.processes[v.process]
    cdef uint64_t *upper
    cdef uint64_t address
    h.mapping = v
    h.file = &m.state.files[v.file]
    h.start = offset & ~page_mask(h.file)
    h.folio = page_cache_get(m, h.file, (v.file_offset + h.start) >> h.file.page_shift)
    h.entry = NULL
    h.leaf_known = False
    address = v.address + h.start
    upper = hstate_entry(m, p, address, h.file.level + 1, alloc)
    if upper is NULL:
        return h
    if hgm_get_entry(upper) == 0:    # another thread may fill it
        if not alloc:
            return h
        if not share_table(m, v, h.start, upper) and not upper_table_add(m, upper):
            return h
    h.entry = &table_entries(m, table_number(hgm_get_entry(upper)))[entry_index(m, address, h.file.level)]
    return h

cdef inline uint64_t file_index(const HugePage *h) noexcept nogil:
    """The huge page's place in its file."""
    return (h.mapping.file_offset + h.start) >> h.file.page_shift

cdef inline uint64_t *entry_for(Machine *m, const HugePage *h, uint64_t offset) noexcept nogil:
    """The hstate-level entry of `h` that holds `offset`."""
    return &h.entry[(offset - h.start) >> m.config.geometry.level_shift[h.file.level]]

# A huge page of a contiguous size has several hstate-level entries and no table of its own: its subtree are
# those entries and what hangs below them. Its first piece counts as `table_add`, its last as `table_free`.

cdef inline bint huge_page_none(const HugePage *h) noexcept nogil:
    cdef int i
    for i in range(h.file.entries):
        cut(READS, &h.entry[i])
        if h.entry[i] != 0:
            return False
    return True

cdef inline bint huge_page_whole(const HugePage *h) noexcept nogil:
    """Is it mapped by one leaf?"""
    return is_leaf(h.entry[0]) and (h.file.entries == 1 or h.entry[0] & HGM_PTE_GROUP != 0)

cdef inline hgm_folio *mapped_folio(Machine *m, const HugePage *h) noexcept nogil:
    """The folio of a huge page that is mapped by one leaf: that of the page cache, or one that left it, or a copy."""
    cdef uint64_t pfn = h.entry[0] >> HGM_PTE_FRAME_SHIFT
    return h.folio if h.folio is not NULL and h.folio.pfn == pfn else folio_of(m, pfn)

cdef inline bint maps_another(Machine *m, const HugePage *h, const hgm_folio *folio) noexcept nogil:
    """Of a mapping that the reverse map of `folio` names: is what it maps there not this folio, but a private copy, or
    what a private copy was made of?"""
    if folio.flags & HGM_FOLIO_ANON and vma_find(h.mapping, h.start).flags & HGM_OPF_SHARED:
        return True
    return is_leaf(h.entry[0]) and (h.entry[0] >> HGM_PTE_FRAME_SHIFT) - folio.pfn >= folio.nr_pages

cdef inline bint find_leaf(Machine *m, const HugePage *h, uint64_t *scanned) noexcept nogil:
    """Is any part of the huge page mapped? Adds the entries read to `*scanned`; of one entry, those below it."""
    cdef int i
    if h.file.entries == 1:
        return is_leaf(h.entry[0]) or is_table(h.entry[0]) and subtree_find_leaf(m, h.entry[0], scanned)
    for i in range(h.file.entries):
        scanned[0] += 1
        if is_leaf(h.entry[i]) or is_table(h.entry[i]) and subtree_find_leaf(m, h.entry[i], scanned):
            return True
    return False

cdef inline hgm_subtree subtree_of(Machine *m, const HugePage *h, int origin) noexcept nogil:
    """The subtree of a huge page; if the scheme keeps a bit, whether it is counted and for which folio."""
    cdef hgm_subtree s = new_subtree(m, h.mapping, h.folio, origin)
    cdef uint32_t counted_for
    if NEEDS & NEEDS_BIT and h.file.entries == 1 and is_table(h.entry[0]) and h.entry[0] & HGM_PTE_COUNTED:
        s.counted = 1
        counted_for = table_desc(m, table_number(h.entry[0])).folio    # it may have left the page cache since
        s.folio = folio_at(m, counted_for - 1)
    return s

cdef inline void subtree_counted(Machine *m, const HugePage *h) noexcept nogil:
    """Set the bit, and remember whose count it is."""
    cut(CHANGES, h.entry)
    if RACING and not is_table(h.entry[0]):
        return
    h.entry[0] |= HGM_PTE_COUNTED
    table_desc(m, table_number(h.entry[0])).folio = folio_number(m, h.folio) + 1

cdef inline bint table_added(Machine *m, const HugePage *h, int origin) noexcept nogil:
    """The hstate-level entry became a table, or a contiguous huge page is about to get its first piece.

    Did the scheme count the subtree with it?
    """
    cdef hgm_subtree s = subtree_of(m, h, origin)
    cdef bint counted = hgm_table_add(&m.context.cost, &m.config.options, &s)
    if counted and NEEDS & NEEDS_BIT and h.file.entries == 1:
        subtree_counted(m, h)
    return counted

cdef inline bint tables_alloc(Machine *m, HugePage *h, uint64_t **entry, uint64_t address, int *level,
                              int target, uint32_t *path, int origin) noexcept nogil:
    """Walk from a hstate-level entry down to `target`, hanging tables below entries that are none.

    False: an allocation failed; the tables that were made stay.
    """
    while True:
        entry[0] = descend(m, entry[0], address, level, target, path)
        if level[0] == target or entry[0][0] != 0:
            return True
        if RACING:    # the kernel allocates first, takes the lock of the table above, and looks again
            table_lock(table_desc(m, number_of_table(m, entry[0])), ALONE)
            cut(READS, entry[0])
            if entry[0][0] != 0:
                table_unlock(table_desc(m, number_of_table(m, entry[0])), ALONE)
                continue
        if not subtree_table_alloc(m, entry[0]):
            return False
        if level[0] == h.file.level and h.file.entries == 1:
            table_added(m, h, origin)
        if RACING:
            table_unlock(table_desc(m, number_of_table(m, entry[0])), ALONE)

cdef inline int install(Machine *m, hgm_cost *cost, const HugePage *h, uint64_t *entry, uint64_t first,
                        uint64_t nr_pages, uint64_t count, int origin, bint hstate_none,
                        bint first_leaf) noexcept nogil:
    """Fill `count` entries, which are none, with leaves of one entry each, of which the scheme is told at once.

    first, nr_pages: base pages of the first within the huge page. Returns the scheme's answer, HGM_KEEPS and
    HGM_COUNTS.
    """
    cdef hgm_leaf leaf = new_leaf(m, h.mapping, h.folio, first, nr_pages, origin)
    leaf.count = <uint32_t>count
    leaf.whole = leaf.covers = nr_pages == h.file.nr_pages
    leaf.hstate_none = hstate_none
    leaf.first_leaf = first_leaf
    leaf.threads = m.context.exclusion != ALONE
    if not (RACING and entry[0] & HGM_PTE_GROUP):    # else the caller did
        cut(WRITES, entry)
        hgm_fill(entry, count, leaf_entry(h.folio.pfn + first), nr_pages << HGM_PTE_FRAME_SHIFT)
    cost.leaf_installs += count
    return hgm_leaf_install(cost, &m.config.options, &leaf)

cdef inline void group_fill(uint64_t *entry, int n, uint64_t pfn, uint64_t step) noexcept nogil:
    """Fill the `n` entries of a contiguous group with one leaf, whose entries are `step` base pages each."""
    cdef int i
    for i in range(n):
        cut(WRITES, &entry[i])
        entry[i] = leaf_entry(pfn + i * step) | HGM_PTE_GROUP

cdef inline bint install_at(Machine *m, HugePage *h, uint64_t *entry, int size, uint64_t offset,
                            uint64_t count, const uint32_t *path, int origin, bint hstate_none) noexcept nogil:
    """Install leaf number `size` for `offset`, and find out whether it is its subtree's first if the scheme asks.

    count: more than 1 for base pages that stand side by side in one table. The folio is that of `h`. Did the scheme
    keep a look-up's reference?
    """
    cdef int level = m.config.geometry.leaf_level[size]
    cdef uint64_t pages = <uint64_t>1 << (m.config.geometry.leaf_shift[size] - m.config.geometry.base_shift)
    cdef uint64_t step = <uint64_t>1 << (m.config.geometry.level_shift[level] - m.config.geometry.base_shift)
    cdef uint64_t first = (offset - h.start) >> m.config.geometry.base_shift
    cdef bint first_leaf = False, piece = size != h.file.leaf, found
    cdef int answer
    cdef uint64_t ignored = 0
    cdef hgm_ptdesc *desc = table_desc(m, number_of_table(m, entry))
    table_lock(desc, m.context.exclusion)
    if RACING:    # of a group, as in the kernel, only the first entry
        race_me().taken = False
        cut(READS, entry)
        if entry[0] & HGM_PTE_MIGRATION == 0 if origin == HGM_BY_MIGRATION else entry[0] != 0:
            table_unlock(desc, m.context.exclusion)
            race_me().taken = True
            return False
    m.context.cost.locks += m.context.exclusion >= PT_LOCKS
    if h.file.entries > 1:
        found = h.leaf_known or find_leaf(m, h, &m.context.cost.entries_scanned if NEEDS & (NEEDS_SCAN | NEEDS_COUNTER)
                                          else &ignored)
        first_leaf = not found
        if NEEDS & NEEDS_TABLES:
            hstate_none = first_leaf    # what an emptied group left, a table or a bad page, is not counted
        if first_leaf and piece and origin != HGM_BY_POISON and table_added(m, h, origin):
            first_leaf = False
        if NEEDS & NEEDS_COUNTER:
            children_add(m, path, level, h.file.level)
    elif NEEDS & NEEDS_COUNTER:
        first_leaf = children_add(m, path, level, h.file.level)
    elif NEEDS & NEEDS_BIT:
        cut(READS, h.entry)
        first_leaf = h.entry[0] & HGM_PTE_COUNTED == 0
    elif NEEDS & NEEDS_SCAN:
        first_leaf = not h.leaf_known and (
            hstate_none or not find_leaf(m, h, &m.context.cost.entries_scanned))
    if NEEDS & NEEDS_COUNTER and count > 1 and level < h.file.level:
        table_desc(m, path[level]).children += <uint32_t>(count - 1)
    h.leaf_known = True
    if origin == HGM_BY_POISON:    # one replacement: it was counted before
        first_leaf = False
    if RACING and m.config.geometry.leaf_entries[size] > 1:
        group_fill(entry, m.config.geometry.leaf_entries[size], h.folio.pfn + first, step)
    answer = install(m, &m.context.cost, h, entry, first, pages, count, origin, hstate_none, first_leaf)
    if NEEDS & NEEDS_BIT and answer & HGM_COUNTS and piece and h.file.entries == 1:
        subtree_counted(m, h)
    if not RACING and m.config.geometry.leaf_entries[size] > 1:
        group_fill(entry, m.config.geometry.leaf_entries[size], h.folio.pfn + first, step)
    table_unlock(desc, m.context.exclusion)
    return answer & HGM_KEEPS

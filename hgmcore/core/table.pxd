# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Page tables: pages of 64-bit entries in an arena, and the walk through them.

A virtual address is cut into one index for each level, as on x86-64:

      47    39 38    30 29    21 20    12 11         0
     +--------+--------+--------+--------+------------+
     |  PGD 4 |  PUD 3 |  PMD 2 |  PTE 1 |   offset   |
     +--------+--------+--------+--------+------------+
          |        |        |        `----> entry of a base page
          |        |        `-------------> table of level 1, or a leaf of 2M
          |        `----------------------> table of level 2, or a leaf of 1G
          `-------------------------------> table of level 3

The hstate-level entry is the one that spans a huge page; its subtree are the tables below it. Upper tables,
between the root and the hstate level, belong to the process and are not counted as cost.
"""
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport (
    growing_lock, growing_unlock, hgm_fill_entry, hgm_get_entry, hgm_increment, hgm_set_entry
)
from hgmcore.core.machine cimport ALONE, Geometry, Machine, MAX_LEVELS, NO_TABLE, Process
from hgmcore.core.memory cimport region_grow, region_populate

# Levels of entries.
cdef enum:
    PTE = 1
    PMD = 2
    PUD = 3

cdef inline bint is_table(uint64_t entry) noexcept nogil:
    return (entry & (HGM_PTE_PRESENT | HGM_PTE_LEAF)) == HGM_PTE_PRESENT

cdef inline bint is_leaf(uint64_t entry) noexcept nogil:
    return (entry & HGM_PTE_LEAF) != 0

cdef inline uint64_t leaf_entry(uint64_t pfn) noexcept nogil:
    return pfn << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT | HGM_PTE_LEAF

cdef inline uint32_t table_number(uint64_t entry) noexcept nogil:
    return <uint32_t>(entry >> HGM_PTE_FRAME_SHIFT)

cdef inline uint64_t *table_entries(Machine *m, uint64_t number) noexcept nogil:
    return <uint64_t *>(m.state.tables.base + (number << m.config.geometry.table_shift))

cdef inline hgm_ptdesc *table_desc(Machine *m, uint64_t number) noexcept nogil:
    return &(<hgm_ptdesc *>m.state.ptdescs.base)[number]

cdef inline uint64_t number_of_table(Machine *m, const uint64_t *entry) noexcept nogil:
    """The number of the table that an entry stands in."""
    return <uint64_t>(<const unsigned char *>entry - m.state.tables.base) >> m.config.geometry.table_shift

cdef inline uint64_t entry_index(Machine *m, uint64_t address, int level) noexcept nogil:
    return address >> m.config.geometry.level_shift[level] & ((1 << m.config.geometry.index_bits) - 1)

cdef inline uint32_t table_take(Machine *m) noexcept nogil:
    """An empty table page of the machine that owns them; NO_TABLE where the host has no memory."""
    cdef uint32_t number = m.state.free_table
    cdef uint64_t *entries
    if number != NO_TABLE:
        entries = table_entries(m, number)
        m.state.free_table = <uint32_t>entries[0]
        entries[0] = 0
        return number
    number = <uint32_t>(m.state.tables.used >> m.config.geometry.table_shift)
    if (not region_grow(&m.state.ptdescs, (<size_t>number + 1) * sizeof(hgm_ptdesc))
            or not region_grow(&m.state.tables, (<size_t>number + 1) << m.config.geometry.table_shift)):
        return NO_TABLE
    region_populate(&m.state.tables, &m.context.tables_populated)
    return number

cdef inline uint32_t table_alloc(Machine *m) noexcept nogil:
    """The number of an empty table page; NO_TABLE, and m.context.out_of_memory, where the host has no memory."""
    cdef uint32_t number = table_take(growing_lock(m))
    growing_unlock(m)
    m.context.out_of_memory |= number == NO_TABLE
    return number

cdef inline void table_release(Machine *m, uint32_t number) noexcept nogil:
    """Give back a table page that holds no entry, or one process's share of it."""
    cdef Machine *owner
    if table_desc(m, number).sharers:
        table_desc(m, number).sharers -= 1
        return
    if RACING:    # another thread may still be in it: its memory stays what it is
        return
    owner = growing_lock(m)
    table_entries(m, number)[0] = owner.state.free_table
    owner.state.free_table = number
    growing_unlock(m)

cdef inline bint upper_table_add(Machine *m, uint64_t *entry) noexcept nogil:
    """Hang an upper table below `entry`, unless another thread just did. False: no memory."""
    cdef uint32_t number = table_alloc(m)
    if number == NO_TABLE:
        return False
    if not hgm_fill_entry(entry, <uint64_t>number << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT):
        table_release(m, number)
    return True

cdef inline uint64_t *hstate_entry(Machine *m, Process *process, uint64_t address, int level,
                                   bint alloc) noexcept nogil:
    """The entry of `level` for `address`. NULL: upper tables are missing and `alloc` is off, or out of memory."""
    cdef uint64_t *entry = &table_entries(m, process.root)[entry_index(m, address, m.config.geometry.levels)]
    cdef int at = m.config.geometry.levels
    while at > level:
        if hgm_get_entry(entry) == 0 and not (alloc and upper_table_add(m, entry)):
            return NULL
        at -= 1
        entry = &table_entries(m, table_number(hgm_get_entry(entry)))[entry_index(m, address, at)]
    return entry

cdef inline bint allocation_fails(Machine *m) noexcept nogil:
    """Is this internal allocation the one that was told to fail?"""
    if m.context.fail == 0:
        return False
    m.context.fail -= 1
    return m.context.fail == 0

cdef inline bint subtree_table_alloc(Machine *m, uint64_t *entry) noexcept nogil:
    """Hang an empty table below `entry`, which is none, at or below the hstate level. False: no memory."""
    cdef uint32_t number
    if allocation_fails(m):
        return False
    number = table_alloc(m)
    if number == NO_TABLE:
        return False
    cut(WRITES, entry)
    hgm_set_entry(entry, <uint64_t>number << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT)
    m.context.table_allocs += 1
    m.state.nr_tables += 1
    m.context.nr_tables_peak = max(m.context.nr_tables_peak, m.state.nr_tables)
    return True

cdef inline uint64_t *descend(Machine *m, uint64_t *entry, uint64_t address, int *level, int target,
                              uint32_t *path) noexcept nogil:
    """Walk from `entry` of `*level` down to `target`, or to the first entry that is no table.

    `*level` becomes the level reached; path[l] the number of the table walked through that has entries of level l.
    """
    cdef int at = level[0]
    cdef uint64_t value
    if at > target:
        cut(READS, entry)
    value = hgm_get_entry(entry)
    while at > target and is_table(value):
        at -= 1
        path[at] = table_number(value)
        entry = &table_entries(m, path[at])[entry_index(m, address, at)]
        if at > target:
            cut(READS, entry)
        value = hgm_get_entry(entry)
    level[0] = at
    return entry

cdef inline bint subtree_find_leaf(Machine *m, uint64_t entry, uint64_t *scanned) noexcept nogil:
    """Is there a leaf below the table that `entry` points to? Adds the number of entries read to `*scanned`."""
    return hgm_find_leaf(m.state.tables.base, m.config.geometry.index_bits, table_entries(m, table_number(entry)),
                         scanned)

cdef inline void subtree_table_free(Machine *m, uint64_t *entry) noexcept nogil:
    """Free the table below `entry`, which holds no entry. The entry becomes none."""
    cdef uint32_t number = table_number(entry[0])
    hgm_event_table_freed(&table_desc(m, number).changed)
    table_desc(m, number).children = 0
    table_desc(m, number).folio = 0
    table_release(m, number)
    entry[0] = 0
    m.context.table_frees += 1
    m.state.nr_tables -= 1

cdef inline void subtree_free(Machine *m, uint64_t *entry, int level) noexcept nogil:
    """Free the tables below `entry` of `level`, PMD or PUD; they hold no leaf. The entry becomes none.

    The last first, so that tables that are made next come in the order in which they lie.
    """
    cdef uint64_t *entries = table_entries(m, table_number(entry[0]))
    # A table of PTEs points to no table.
    cdef uint64_t i = <uint64_t>1 << m.config.geometry.index_bits if level == PUD else 0
    while i > 0:
        i -= 1
        if entries[i] != 0 and not (RACING and not is_table(entries[i])):
            subtree_table_free(m, &entries[i])
    subtree_table_free(m, entry)

cdef inline void upper_tables_free(Machine *m, uint32_t number, int level) noexcept nogil:
    """Free a process's table `number`, which has entries of `level`, and all below it; nothing is mapped."""
    cdef uint64_t *entries = table_entries(m, number)
    cdef uint64_t i
    for i in range(<uint64_t>1 << m.config.geometry.index_bits):
        if entries[i] != 0 and not (RACING and not is_table(entries[i])):
            upper_tables_free(m, table_number(entries[i]), level - 1)
            entries[i] = 0
    table_release(m, number)

cdef inline bint table_none(Machine *m, uint32_t number) noexcept nogil:
    """Has a table no entry?"""
    cdef uint64_t *entries = table_entries(m, number)
    cdef uint64_t i
    for i in range(<uint64_t>1 << m.config.geometry.index_bits):
        if entries[i] != 0:
            return False
    return True

# Counts of present children, in the table pages' descriptors. A table directly below the hstate-level entry
# that goes from 0 children to 1 got the first leaf of the subtree.

cdef inline bint child_add(hgm_ptdesc *desc, bint threads) noexcept nogil:
    """The table got a child. Is it the first? threads: others may count at the same time, and no lock is held."""
    cdef uint32_t now
    hgm_event_children(1)
    if threads:
        return hgm_increment(&desc.children) == 1
    if RACING:
        cut(READS, &desc.children)
        now = desc.children + 1
        cut(WRITES, &desc.children)
        desc.children = now
        return now == 1
    desc.children += 1
    return desc.children == 1

cdef inline bint children_add(Machine *m, const uint32_t *path, int level, int hstate_level) noexcept nogil:
    """A leaf of `level` was installed. Is it the first of its subtree?"""
    while level < hstate_level:
        if not child_add(table_desc(m, path[level]), m.context.exclusion != ALONE):
            return False
        level += 1
    return True

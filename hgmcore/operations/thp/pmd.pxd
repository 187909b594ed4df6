# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Folios of shmem and anonymous memory: mapped by one entry of PMD level, by base pages, or by both at once.

Here a page table belongs to no folio: below one PMD entry there may be pieces of many. What schemes are told keeps its
meaning all the same: a folio's leaves below one PMD entry are a subtree of their own, as they are for a hugetlb page
of a contiguous size. The folio's first piece there counts as `table_add`, its last as `table_free`. First and last
are found by a scan of the page table, charged to schemes that scan or that count children, as a count of all children
does not tell one folio from another.

A folio of one base page can only be mapped whole. It needs no scheme: everywhere its mappings are counted in its
own _mapcount and _refcount, as in Linux.
"""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport ANON, Machine, Mapping, NO_TABLE, Vma
from hgmcore.core.table cimport (
    entry_index, hstate_entry, is_leaf, is_table, leaf_entry, PMD, PTE, subtree_table_alloc, table_desc,
    table_entries, table_number
)
from hgmcore.operations.common cimport folio_answer, new_leaf, new_subtree
from hgmcore.scheme cimport *

# The entry of PMD level for some part of a mapping.
cdef struct Pmd:
    Mapping *mapping
    uint64_t *entry          # NULL: no upper tables
    uint64_t address         # of the first byte that the entry stands for
    hgm_folio *known         # this step has installed leaves of it here, or NULL
    bint keep_cows           # a zap leaves the own pages of private mappings
    bint none                # the entry was none when the step, or this leaf's part of it, began

cdef inline bint asks_pieces() noexcept nogil:
    """Does the scheme ask for first and last pieces? A constant."""
    return NEEDS & (NEEDS_SCAN | NEEDS_COUNTER | NEEDS_BIT | NEEDS_TABLES | NEEDS_ZAPS) != 0

cdef inline uint64_t pmd_mask(Machine *m) noexcept nogil:
    return (<uint64_t>1 << m.config.geometry.level_shift[PMD]) - 1

cdef inline uint64_t ptes_per_table(Machine *m) noexcept nogil:
    return <uint64_t>1 << m.config.geometry.index_bits

cdef inline Pmd mm_find_pmd(Machine *m, Mapping *v, uint64_t offset, bint alloc) noexcept nogil:
    """The PMD entry for `offset`; `alloc` makes the upper tables."""
    cdef Pmd pmd
    pmd.mapping = v
    pmd.address = (v.address + offset) & ~pmd_mask(m)
    pmd.known = NULL
    pmd.entry = NULL
    pmd.keep_cows = False
    if m.state.processes[v.process].root != NO_TABLE:
        pmd.entry = hstate_entry(m, &m.state.processes[v.process], pmd.address, PMD, alloc)
    pmd.none = pmd.entry is not NULL and pmd.entry[0] == 0
    return pmd

cdef inline uint64_t *pte_offset(Machine *m, const Pmd *pmd, uint64_t address) noexcept nogil:
    """The PTE for `address`; the PMD entry is a table."""
    return &table_entries(m, table_number(pmd.entry[0]))[entry_index(m, address, PTE)]

cdef inline uint64_t frame(uint64_t entry) noexcept nogil:
    return entry >> HGM_PTE_FRAME_SHIFT

cdef inline bint maps(const hgm_folio *folio, uint64_t entry) noexcept nogil:
    """Is the entry a leaf of the folio?"""
    return is_leaf(entry) and frame(entry) - folio.pfn < folio.nr_pages

cdef inline bint folio_below(Machine *m, const Pmd *pmd, const hgm_folio *folio, uint64_t *scanned) noexcept nogil:
    """Does a leaf at or below the PMD entry map the folio? Adds the PTEs read to `*scanned`."""
    cdef uint64_t *entries
    cdef uint64_t i, n = ptes_per_table(m)
    if not is_table(pmd.entry[0]):
        return maps(folio, pmd.entry[0])
    entries = table_entries(m, table_number(pmd.entry[0]))
    for i in range(n):
        if maps(folio, entries[i]):
            scanned[0] += i + 1
            return True
    scanned[0] += n
    return False

cdef inline hgm_leaf folio_leaf(Machine *m, const Pmd *pmd, hgm_folio *folio, uint64_t first, uint64_t nr_pages,
                             int origin) noexcept nogil:
    cdef hgm_leaf leaf = new_leaf(m, pmd.mapping, folio, first, nr_pages, origin)
    leaf.whole = leaf.covers = nr_pages == folio.nr_pages
    leaf.hstate_none = pmd.none
    return leaf

cdef inline hgm_subtree folio_subtree(Machine *m, const Pmd *pmd, hgm_folio *folio, int origin) noexcept nogil:
    """What the folio has below the entry."""
    return new_subtree(m, pmd.mapping, folio, origin)

cdef inline int leaf_comes(Machine *m, const hgm_leaf *leaf) noexcept nogil:
    if leaf.folio.nr_pages == 1:
        hgm_told_begin(&m.config.options, leaf.folio, leaf.origin == HGM_BY_CONTINUE or leaf.origin == HGM_BY_FAULT)
        hgm_ref_add(&m.context.cost, leaf.folio, 1)
        hgm_map_add(&m.context.cost, leaf.folio.page, &leaf.folio.page._mapcount, 1)
        hgm_told_end(&m.config.options, leaf.folio, 0, 0)
        return HGM_KEEPS
    return hgm_leaf_install(&m.context.cost, &m.config.options, leaf)

cdef inline void leaf_goes(Machine *m, const hgm_leaf *leaf) noexcept nogil:
    if leaf.folio.nr_pages == 1:
        hgm_told_begin(&m.config.options, leaf.folio, 0)
        hgm_map_add(&m.context.cost, leaf.folio.page, &leaf.folio.page._mapcount, -1)
        hgm_ref_add(&m.context.cost, leaf.folio, -1)
        hgm_told_end(&m.config.options, leaf.folio, 0, 1)
    else:
        hgm_leaf_remove(&m.context.cost, &m.config.options, leaf)

cdef inline void first_piece(Machine *m, Pmd *pmd, hgm_leaf *leaf) noexcept nogil:
    """A piece is about to come. Where it is the folio's first here: `table_add`, and `first_leaf` if that does not
    count it.

    An entry that this step found none need not be scanned.
    """
    cdef uint64_t ignored = 0
    cdef hgm_subtree s
    if not asks_pieces() or leaf.folio.nr_pages == 1:
        return
    if NEEDS & NEEDS_TABLES:
        leaf.hstate_none = 0    # of the folio's own subtree, as of a contiguous huge page
    if pmd.known == leaf.folio or leaf.origin == HGM_BY_POISON:
        return
    pmd.known = leaf.folio
    if folio_below(m, pmd, leaf.folio, &m.context.cost.entries_scanned if NEEDS & (NEEDS_SCAN | NEEDS_COUNTER)
                   and not pmd.none
                   else &ignored):
        return
    if NEEDS & NEEDS_TABLES:
        leaf.hstate_none = 1
    s = folio_subtree(m, pmd, leaf.folio, leaf.origin)
    leaf.first_leaf = not hgm_table_add(&m.context.cost, &m.config.options, &s)

cdef inline bint install_ptes(Machine *m, Pmd *pmd, uint64_t *entry, hgm_folio *folio, uint64_t first, uint64_t n,
                              uint64_t bits, int origin) noexcept nogil:
    """Map base pages [first, first + n) of the folio by `n` adjacent PTEs, which hold no leaf.

    bits: more of each entry. Did the scheme keep a look-up's reference?
    """
    cdef hgm_leaf leaf = folio_leaf(m, pmd, folio, first, 1, origin)
    cdef bint kept = False
    cdef uint64_t i
    first_piece(m, pmd, &leaf)
    for i in range(n):
        entry[i] = leaf_entry(folio.pfn + first + i) | bits
    m.context.cost.leaf_installs += n
    if (m.config.options.batch and not QUIRKS & QUIRK_WHOLE_ONLY
            or NEEDS & NEEDS_SPLITS and m.config.options.rmap_batch and origin == HGM_BY_POISON):
        leaf.count = <uint32_t>n
        return leaf_comes(m, &leaf) & HGM_KEEPS
    for i in range(n):
        leaf.first = first + i
        kept |= leaf_comes(m, &leaf) & HGM_KEEPS
        leaf.first_leaf = 0
        if NEEDS & NEEDS_TABLES:
            leaf.hstate_none = 0
    return kept

cdef inline bint install_pmd(Machine *m, Pmd *pmd, hgm_folio *folio, uint64_t bits, int origin) noexcept nogil:
    """Map the folio by one leaf; the PMD entry is none. Did the scheme keep a look-up's reference?"""
    cdef hgm_leaf leaf = folio_leaf(m, pmd, folio, 0, folio.nr_pages, origin)
    leaf.first_leaf = asks_pieces() and origin != HGM_BY_COLLAPSE
    pmd.known = folio
    pmd.entry[0] = leaf_entry(folio.pfn) | bits
    m.context.cost.leaf_installs += 1
    return leaf_comes(m, &leaf) & HGM_KEEPS

# A PMD leaf of anonymous memory keeps an empty page table in deposit, so that it can always be split.

cdef inline hgm_ptdesc *pmd_table_desc(Machine *m, const Pmd *pmd) noexcept nogil:
    return table_desc(m, (<unsigned char *>pmd.entry - m.state.tables.base) >> m.config.geometry.table_shift)

cdef inline bint deposit_alloc(Machine *m, uint64_t *table) noexcept nogil:
    """A table for deposit, as an entry. False: no memory."""
    table[0] = 0
    return subtree_table_alloc(m, table)

cdef inline void pgtable_trans_huge_deposit(Machine *m, const Pmd *pmd, uint64_t table) noexcept nogil:
    cdef hgm_ptdesc *desc = pmd_table_desc(m, pmd)
    table_entries(m, table_number(table))[0] = desc.deposited
    desc.deposited = table_number(table)
    desc.nr_deposited += 1

cdef inline uint64_t pgtable_trans_huge_withdraw(Machine *m, const Pmd *pmd) noexcept nogil:
    """Take a deposited table back, as an entry."""
    cdef hgm_ptdesc *desc = pmd_table_desc(m, pmd)
    cdef uint32_t number = desc.deposited
    cdef uint64_t *entries = table_entries(m, number)
    desc.deposited = <uint32_t>entries[0]
    desc.nr_deposited -= 1
    entries[0] = 0
    return <uint64_t>number << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT

cdef inline bint thp_vma_suitable_order(Machine *m, const Mapping *v, const Vma *vma, uint64_t offset,
                                        uint64_t mask) noexcept nogil:
    """Has a folio of mask + 1 bytes its place around `offset`: inside the VMA, and aligned in addresses as in the file?

    Anonymous memory has no other place than its addresses.
    """
    cdef uint64_t start = ((v.address + offset) & ~mask) - v.address
    return (start + v.address >= v.address + vma.start and start + mask < vma.end
            and (m.state.files[v.file].kind == ANON or (v.address - v.file_offset) & mask == 0))

cdef inline bint extra_references(Machine *m, const hgm_folio *folio) noexcept nogil:
    """Has somebody else a reference, by the scheme's own count of mappings (folio_expected_ref_count)?"""
    cdef uint64_t cache = folio.nr_pages if folio.flags & HGM_FOLIO_CACHED else 0
    return folio.page._refcount != <int64_t>cache + folio_answer(&m.config.options, folio).mapcount

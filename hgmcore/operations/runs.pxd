# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Loops over base pages, for what comes in long runs: continues, fork, zap and collapse of a whole table.

Each tells the scheme of one leaf after another, as the slow ways do. What a loop needs stands in locals whose
address goes to inlined functions only, so the compiler keeps it in registers: the costs, the leaf, the options, and a
copy of the folio (of its fields, a scheme may change only `flags`). Memory is read anew behind every atomic, and an
address that must be read first makes the next atomic wait.
"""
from hgmcore.operations.common cimport *

cdef enum:
    AHEAD = 8    # records or pages: an atomic waits for its line, which a prefetch brings in time

cdef inline hgm_leaf base_page_leaf(Machine *m, const HugePage *h, hgm_folio *folio, int origin) noexcept nogil:
    """What the base-page leaves of a run share; neither the first of their subtree nor all of it."""
    cdef hgm_leaf leaf
    leaf.folio = folio
    leaf.first = 0
    leaf.nr_pages = 1
    leaf.count = 1
    leaf.process = h.mapping.process
    leaf.mapping = <uint32_t>(h.mapping - m.mappings)
    leaf.origin = <uint8_t>origin
    leaf.whole = 0
    leaf.covers = 0
    leaf.hstate_none = 0
    leaf.first_leaf = 0
    leaf.threads = 0
    return leaf

cdef inline void look_ups(hgm_cost *cost, hgm_folio *folio, bint real) noexcept nogil:
    """A look-up's reference that does not stay."""
    cost.transient += 2
    if real:
        hgm_get_and_put(folio)

cdef inline void keep_flags(hgm_folio *folio, const hgm_folio *copy) noexcept nogil:
    """A scheme may have set flags in the copy."""
    if copy.flags & ~folio.flags:
        folio.flags |= copy.flags

cdef inline bint may_count(Machine *m, const HugePage *h) noexcept nogil:
    """Is the subtree counted, or this the only thread that may count it? Under NEEDS_BIT."""
    return m.exclusion == ALONE or h.entry[0] & HGM_PTE_COUNTED != 0

cdef inline void expect(const hgm_leaf *leaf) noexcept nogil:
    """The leaves come in order: the struct pages that a scheme counts on are wanted soon."""
    if NEEDS & WRITES_TAILS:
        hgm_prefetch(&leaf.folio.page[leaf.first + AHEAD])

cdef inline uint64_t continue_streak(Machine *m, HugePage *h, const hgm_operation *ops, uint64_t n,
                                     int base_shift, int index_bits, int exclusion) noexcept nogil:
    """The longest run of records that each install one base page below a table of `h` that is there already.

    They belong to the mapping of `h` and need no check but those made here. Returns how many there were; the
    record behind them takes the long way. base_shift, index_bits: of the geometry; exclusion: of the machine.
    """
    cdef uint64_t page = <uint64_t>1 << base_shift, fan_out = <uint64_t>1 << index_bits
    cdef uint64_t outside = ~(page_mask(h.file) & ~(page - 1)), start = h.start
    cdef uint32_t target = <uint32_t>(h.mapping - m.mappings), top = table_number(h.entry[0]), number
    cdef bint two_levels = h.file.level == 3, real = m.options.transient_real, counted = False
    cdef const uint64_t *pmd = table_entries(m, top) if two_levels else h.entry
    cdef unsigned char *tables = m.tables.base
    cdef hgm_ptdesc *descs = <hgm_ptdesc *>m.ptdescs.base
    cdef uint64_t i = 0, offset, pmd_entry, ahead, scanned = 0
    cdef uint64_t *entry
    cdef hgm_options options = m.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, HGM_BY_CONTINUE)
    cdef hgm_cost cost = hgm_no_cost()
    cdef Locks locks
    cdef int answer
    leaf.threads = exclusion != ALONE
    if exclusion == POSTED_LOCKS:
        locks = locks_of(m, h.mapping, vma_find(h.mapping, start), start, h.folio)
    if NEEDS & NEEDS_BIT:
        if exclusion != ALONE and not may_count(m, h):
            return 0
        counted = h.entry[0] & HGM_PTE_COUNTED != 0
    while i < n and ops[i].op == HGM_OP_CONTINUE and ops[i].target == target and ops[i].length == page:
        offset = ops[i].offset - start
        if offset & outside:
            break
        if NEEDS & WRITES_TAILS and i + AHEAD < n:
            ahead = (ops[i + AHEAD].offset - start) & ~outside
            hgm_prefetch(&folio.page[ahead >> base_shift])
            hgm_prefetch(&(<uint64_t *>(tables + (<uint64_t>table_number(pmd[ahead >> (base_shift + index_bits)])
                                                  << (index_bits + 3))))[ahead >> base_shift & (fan_out - 1)])
        pmd_entry = pmd[offset >> (base_shift + index_bits)]
        if not is_table(pmd_entry):
            break
        number = table_number(pmd_entry)
        leaf.first = offset >> base_shift
        entry = &(<uint64_t *>(tables + (<uint64_t>number << (index_bits + 3))))[leaf.first & (fan_out - 1)]
        if entry[0] != 0:
            break
        if exclusion == POSTED_LOCKS:
            huge_page_lock(&locks, exclusion)
        table_lock(&descs[number], exclusion)
        if NEEDS & NEEDS_COUNTER:
            leaf.first_leaf = child_add(&descs[number], exclusion == BY_ATOMICS)
            if leaf.first_leaf and two_levels:
                leaf.first_leaf = child_add(&descs[top], exclusion != ALONE)
        elif NEEDS & NEEDS_BIT:
            leaf.first_leaf = not counted
        elif NEEDS & NEEDS_SCAN:
            leaf.first_leaf = not hgm_find_leaf(tables, index_bits, h.entry[0], &scanned)
        entry[0] = leaf_entry(folio.pfn + leaf.first)
        answer = hgm_leaf_install(&cost, &options, &leaf)
        if NEEDS & NEEDS_BIT and answer & HGM_COUNTS:
            subtree_counted(m, h)
            counted = True
        if not answer & HGM_KEEPS:
            look_ups(&cost, &folio, real)
        table_unlock(&descs[number], exclusion)
        if exclusion == POSTED_LOCKS:
            huge_page_unlock(&locks, exclusion)
        i += 1
    cost.leaf_installs = i
    cost.entries_scanned = scanned
    if exclusion >= PT_LOCKS:
        cost.locks = i * (1 + locks_held(&locks, exclusion))
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.cost, &cost)
    return i

cdef inline uint64_t install_leaves(Machine *m, HugePage *h, uint64_t *entries, uint64_t n, uint64_t first,
                                    uint32_t table, int origin, bint uncounted, int exclusion) noexcept nogil:
    """The loop of install_run. `uncounted`: each is a subtree's first leaf, up to one that the scheme counts it with.

    Returns how many leaves were installed. exclusion: of the machine, a constant.
    """
    cdef bint real = m.options.transient_real
    cdef hgm_options options = m.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, origin)
    cdef hgm_ptdesc *desc = table_desc(m, table)
    cdef hgm_cost cost = hgm_no_cost()
    cdef Locks locks
    cdef uint64_t i = 0
    cdef int answer = 0
    leaf.threads = exclusion != ALONE
    leaf.first_leaf = uncounted
    if exclusion == POSTED_LOCKS:
        locks = locks_of(m, h.mapping, vma_find(h.mapping, h.start), h.start, h.folio)
    while i < n and not (uncounted and answer & HGM_COUNTS):
        leaf.first = first + i
        expect(&leaf)
        if exclusion == POSTED_LOCKS:
            huge_page_lock(&locks, exclusion)
        table_lock(desc, exclusion)
        if NEEDS & NEEDS_COUNTER and exclusion != ALONE:
            child_add(desc, exclusion == BY_ATOMICS)
        entries[i] = leaf_entry(folio.pfn + leaf.first)
        answer = hgm_leaf_install(&cost, &options, &leaf)
        if origin == HGM_BY_CONTINUE and not answer & HGM_KEEPS:
            look_ups(&cost, &folio, real)
        table_unlock(desc, exclusion)
        if exclusion == POSTED_LOCKS:
            huge_page_unlock(&locks, exclusion)
        i += 1
    cost.leaf_installs = i
    if exclusion >= PT_LOCKS:
        cost.locks = i * (1 + locks_held(&locks, exclusion))
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.cost, &cost)
    if uncounted and answer & HGM_COUNTS:
        subtree_counted(m, h)
    return i

cdef inline void install_run(Machine *m, HugePage *h, uint64_t *entries, uint64_t n, uint64_t first,
                             uint32_t table, int origin) noexcept nogil:
    """Install `n` leaves of one base page each in `entries`, which are none, of table number `table`.

    first: the base page of the first of them. Their table has a leaf already. A continue's look-ups are counted.
    """
    cdef uint64_t i = 0
    cdef int exclusion = m.exclusion if origin == HGM_BY_CONTINUE else min(m.exclusion, PT_LOCKS)
    if NEEDS & NEEDS_COUNTER and exclusion == ALONE:
        table_desc(m, table).children += <uint32_t>n
    if NEEDS & NEEDS_BIT and not h.entry[0] & HGM_PTE_COUNTED:
        i = install_leaves(m, h, entries, n, first, table, origin, True, exclusion)
    if exclusion == ALONE:
        install_leaves(m, h, entries + i, n - i, first + i, table, origin, False, ALONE)
    else:
        install_leaves(m, h, entries + i, n - i, first + i, table, origin, False, exclusion)

cdef inline uint64_t zap_ptes(Machine *m, uint64_t *entries, uint64_t n, const hgm_leaf *like, uint64_t page) noexcept nogil:
    """Remove the base-page leaves among `n` entries; `page` is the base page of the first. None is in a group."""
    cdef hgm_options options = m.options
    cdef hgm_folio folio
    cdef hgm_leaf leaf = like[0]
    cdef hgm_cost cost = hgm_no_cost()
    cdef uint64_t i, entry, removed = 0
    if like.folio is NULL:    # nothing is mapped then, but what failed
        memset(entries, 0, n * sizeof(uint64_t))
        return 0
    folio = like.folio[0]
    leaf.folio = &folio
    leaf.nr_pages = 1
    leaf.count = 1
    leaf.whole = 0
    for i in range(n):
        entry = entries[i]
        entries[i] = 0
        removed += entry // HGM_PTE_LEAF & 1    # without a branch: the compiler takes several at a time
        if is_leaf(entry):    # else a base page that failed, or none
            leaf.first = page + i
            expect(&leaf)
            hgm_leaf_remove(&cost, &options, &leaf)
    cost.leaf_removes = removed
    keep_flags(like.folio, &folio)
    hgm_cost_add(&m.cost, &cost)
    return removed

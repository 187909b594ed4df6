# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Streaks: records in a row that each do one thing to one base page, or one table of them, of the same huge page.

They are what recordings consist of: the continues of a postcopy, the accesses of a program, the discards of a balloon,
the collapses behind them.
The first record of a streak goes the long way, with every check. What stays the same behind it, the mapping, its
VMA, the huge page and its place in the tables, is kept from one record to the next; a record that needs more than is
checked here ends the streak. How the loops are written: loops.pxd.
"""
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport huge_page_lock, huge_page_unlock, Locks, locks_held, locks_of, table_lock, table_unlock
from hgmcore.core.machine cimport ALONE, BY_ATOMICS, Machine, NO_TABLE, POSTED_LOCKS, PT_LOCKS
from hgmcore.core.table cimport (
    child_add, is_leaf, is_table, leaf_entry, PUD, subtree_table_free, table_entries, table_number
)
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport base_mask, look_up_and_put, Outcome, page_mask, record
from hgmcore.operations.hugetlb.collapse cimport collapse
from hgmcore.operations.hugetlb.fault cimport touch
from hgmcore.operations.hugetlb.huge_page cimport counted, HugePage, subtree_counted, subtree_of
from hgmcore.operations.hugetlb.loops cimport AHEAD, base_page_leaf, keep_flags, zap_leaves
from hgmcore.operations.hugetlb.uffd_continue cimport mfill_atomic_hugetlb
from hgmcore.operations.hugetlb.zap cimport dontneed, subtree_emptied
from hgmcore.scheme cimport *

cdef inline uint64_t *pte_table(unsigned char *tables, uint64_t entry, int index_bits) noexcept nogil:
    """The table that `entry` points to; `tables`: where table pages of 1 << index_bits entries begin."""
    return <uint64_t *>(tables + (<uint64_t>table_number(entry) << (index_bits + 3)))

cdef inline uint64_t table_bits(int base_shift, int index_bits) noexcept nogil:
    """The bits that differ between the offsets of base pages in one table."""
    return ((<uint64_t>1 << index_bits) - 1) << base_shift

cdef inline bint in_streak(const hgm_operation *op, int kind, uint32_t target, uint64_t page) noexcept nogil:
    """Is a record of that kind, about that mapping, and (all but accesses have a length) one base page?"""
    return op.op == kind and op.target == target and (kind == HGM_OP_TOUCH or op.length == page)

cdef inline uint64_t install_streak "hgm_install_streak"(Machine *m, HugePage *h, const hgm_operation *ops, uint64_t n,
                                                         int kind, int base_shift, int index_bits, bint uncounted,
                                                         int exclusion) noexcept nogil:
    """A streak of UFFDIO_CONTINUEs, or of accesses, below tables of `h` that are there already.

    kind: HGM_OP_CONTINUE or HGM_OP_TOUCH. base_shift, index_bits: of the geometry. exclusion: of the machine.
    uncounted: the subtree is not counted; the streak ends behind a leaf that the scheme counts it with. Returns how
    many records there were.
    """
    cdef uint64_t page = <uint64_t>1 << base_shift, fan_out = <uint64_t>1 << index_bits
    cdef uint64_t in_page = page - 1 if kind == HGM_OP_TOUCH else 0    # an access may be anywhere in its page
    cdef uint64_t elsewhere = ~(table_bits(base_shift, index_bits) | in_page)    # where offsets in a table agree
    cdef uint64_t outside = ~(page_mask(h.file) & ~(page - 1) | in_page), start = h.start
    cdef uint32_t target = <uint32_t>(h.mapping - m.state.mappings), top = table_number(h.entry[0])
    cdef bint two_levels = h.file.level == PUD, real = m.config.options.transient_real, alone = exclusion == ALONE
    cdef const uint64_t *root = table_entries(m, top)    # a load on the way to a count delays the next atomic
    cdef const uint64_t *pmd = root if two_levels else h.entry
    cdef unsigned char *tables = m.state.tables.base
    cdef hgm_ptdesc *descs = <hgm_ptdesc *>m.state.ptdescs.base
    cdef const hgm_operation *op = ops
    cdef const hgm_operation *end = ops + n
    cdef const hgm_operation *looks_ahead = end - min(n, <uint64_t>AHEAD)    # the records before it do
    cdef uint64_t offset = 0, next, pmd_entry, ahead, kept = 0, mapped = 0, scanned = 0, first_entry
    cdef uint64_t *entries
    cdef uint64_t *entry
    cdef hgm_ptdesc *desc
    cdef uint32_t children = 0
    cdef hgm_options options = m.config.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, HGM_BY_CONTINUE if kind == HGM_OP_CONTINUE else HGM_BY_FAULT)
    cdef hgm_cost cost = hgm_no_cost()
    cdef Locks locks
    cdef int answer = 0
    cdef bint more = n > 0 and in_streak(op, kind, target, page)
    leaf.threads = not alone
    leaf.first_leaf = uncounted
    first_entry = leaf_entry(folio.pfn)
    if exclusion == POSTED_LOCKS:
        locks = locks_of(m, h.mapping, vma_find(h.mapping, start), start, h.folio)
    if more:
        offset = op.offset - start
    while more:    # a record of another table than the one before
        pmd_entry = pmd[offset >> (base_shift + index_bits)] if not offset & outside else 0
        if not is_table(pmd_entry):
            break
        desc = &descs[table_number(pmd_entry)]
        entries = pte_table(tables, pmd_entry, index_bits)
        if not NEEDS & NEEDS_SCAN or NEEDS & NEEDS_BIT:    # else the scan, which an atomic delays, needs the register
            entries = hgm_settled(entries)
        if NEEDS & NEEDS_COUNTER and alone:
            children = desc.children    # in a register until the records leave the table
        if op < looks_ahead:    # the records may be in no order: the entry of a later one is wanted soon
            ahead = (op[AHEAD].offset - start) & ~outside
            hgm_prefetch(&pte_table(tables, pmd[ahead >> (base_shift + index_bits)],
                                    index_bits)[ahead >> base_shift & (fan_out - 1)])
        while True:
            if NEEDS & NEEDS_TAILS and op < looks_ahead:
                hgm_prefetch(&folio.page[((op[AHEAD].offset - start) & ~outside) >> base_shift])
            leaf.first = offset >> base_shift
            entry = &entries[leaf.first & (fan_out - 1)]
            if entry[0] != 0:
                if kind == HGM_OP_CONTINUE or not is_leaf(entry[0]):
                    more = False
                    break
                mapped += 1
            else:
                if exclusion == POSTED_LOCKS:
                    huge_page_lock(&locks, exclusion)
                table_lock(desc, exclusion)
                if NEEDS & NEEDS_COUNTER and alone:
                    leaf.first_leaf = False
                    if children == 0:
                        leaf.first_leaf = not two_levels or child_add(&descs[top], False)
                    children += 1
                elif NEEDS & NEEDS_COUNTER:
                    leaf.first_leaf = child_add(desc, exclusion == BY_ATOMICS)
                    if leaf.first_leaf and two_levels:
                        leaf.first_leaf = child_add(&descs[top], True)
                elif NEEDS & NEEDS_SCAN and not NEEDS & NEEDS_BIT:    # the bit says it
                    leaf.first_leaf = not hgm_find_leaf(tables, index_bits, root, &scanned)
                entry[0] = first_entry + (leaf.first << HGM_PTE_FRAME_SHIFT)
                answer = hgm_leaf_install(&cost, &options, &leaf)
                if answer & HGM_KEEPS:
                    kept += 1
                elif real:
                    hgm_get_and_put(&folio)
                table_unlock(desc, exclusion)
                if exclusion == POSTED_LOCKS:
                    huge_page_unlock(&locks, exclusion)
            op += 1
            more = (op < end and in_streak(op, kind, target, page) and not (uncounted and answer & HGM_COUNTS)
                    and not STOPPED)
            if not more:
                break
            next = op.offset - start
            if (next ^ offset) & elsewhere:
                offset = next
                break
            offset = next
        if NEEDS & NEEDS_COUNTER and alone:
            desc.children = children
    n = <uint64_t>(op - ops)
    cost.leaf_installs = n - mapped
    cost.transient = 2 * (cost.leaf_installs - kept)
    cost.entries_scanned = scanned
    if exclusion >= PT_LOCKS:
        cost.locks = n * (1 + locks_held(&locks, exclusion))
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)
    if uncounted and answer & HGM_COUNTS:
        subtree_counted(m, h)
    return n

cdef inline uint64_t zap_streak "hgm_zap_streak"(Machine *m, HugePage *h, const hgm_operation *ops, uint64_t n,
                                                 int base_shift, int index_bits) noexcept nogil:
    """A streak of MADV_DONTNEEDs of one base page each below tables of `h`. Parameters and answer as install_streak."""
    cdef uint64_t page = <uint64_t>1 << base_shift, fan_out = <uint64_t>1 << index_bits
    cdef uint64_t inside = table_bits(base_shift, index_bits)
    cdef uint64_t outside = ~(page_mask(h.file) & ~(page - 1)), start = h.start
    cdef uint32_t target = <uint32_t>(h.mapping - m.state.mappings), top = table_number(h.entry[0]), number = NO_TABLE
    cdef bint two_levels = h.file.level == PUD
    cdef const uint64_t *pmd = table_entries(m, top) if two_levels else h.entry
    cdef unsigned char *tables = m.state.tables.base
    cdef hgm_ptdesc *descs = <hgm_ptdesc *>m.state.ptdescs.base
    cdef uint64_t i = 0, offset, pmd_entry, removed = 0
    cdef uint64_t before = ~(ops[0].offset - start) if n else 0
    cdef uint64_t *entries = NULL
    cdef uint64_t *entry
    cdef hgm_options options = m.config.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, HGM_BY_ZAP)
    cdef hgm_subtree s = subtree_of(m, h, HGM_BY_ZAP)
    cdef hgm_cost cost = hgm_no_cost()
    s.tables_stay = 1
    while (i < n and ops[i].op == HGM_OP_DONTNEED and ops[i].target == target and ops[i].length == page
           and not STOPPED):
        offset = ops[i].offset - start
        if NEEDS & NEEDS_TAILS and i + AHEAD < n:
            hgm_prefetch(&folio.page[((ops[i + AHEAD].offset - start) & ~outside) >> base_shift])
        if (offset ^ before) & ~inside:    # in another table
            if offset & outside:
                break
            pmd_entry = pmd[offset >> (base_shift + index_bits)]
            if not is_table(pmd_entry):
                break
            number = table_number(pmd_entry)
            entries = pte_table(tables, pmd_entry, index_bits)
        before = offset
        leaf.first = offset >> base_shift
        entry = &entries[leaf.first & (fan_out - 1)]
        s.removed = is_leaf(entry[0])
        if s.removed:
            if entry[0] & HGM_PTE_GROUP:
                break
            if NEEDS & NEEDS_COUNTER:
                descs[number].children -= 1
                hgm_event_children(1)
                if two_levels:
                    descs[top].children -= descs[number].children == 0
                    hgm_event_children(descs[number].children == 0)
            removed += 1
        entry[0] = 0
        if s.removed:    # else none was there, or a base page that failed
            hgm_leaf_remove(&cost, &options, &leaf)
        if NEEDS & NEEDS_ZAPS:
            s.empty = subtree_emptied(m, h, &s)
            if hgm_subtree_zapped(&cost, &options, &s) and NEEDS & NEEDS_BIT:
                s.counted = 0
                h.entry[0] &= ~HGM_PTE_COUNTED
        i += 1
    cost.leaf_removes = removed
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)
    return i

cdef inline uint64_t collapse_streak "hgm_collapse_streak"(Machine *m, HugePage *h, const hgm_operation *ops,
                                                           uint64_t n,
                                                           int base_shift, int index_bits) noexcept nogil:
    """A streak of MADV_COLLAPSEs of one table of base pages each, the first of which is mapped. As install_streak."""
    cdef int shift = base_shift + index_bits
    cdef uint64_t bytes = <uint64_t>1 << shift, pages = <uint64_t>1 << index_bits, i = 0, offset, start = h.start, page
    cdef uint64_t outside = ~(page_mask(h.file) & ~(bytes - 1))
    cdef uint32_t target = <uint32_t>(h.mapping - m.state.mappings)
    cdef uint64_t *pmd = table_entries(m, table_number(h.entry[0]))
    cdef unsigned char *tables = m.state.tables.base
    cdef uint64_t *entry
    cdef uint64_t *entries
    cdef hgm_options options = m.config.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, HGM_BY_COLLAPSE)
    cdef hgm_cost cost = hgm_no_cost()
    while (i < n and ops[i].op == HGM_OP_COLLAPSE and ops[i].target == target and ops[i].length == bytes
           and not STOPPED):
        offset = ops[i].offset - start
        entry = &pmd[offset >> shift]
        if offset & outside or not is_table(entry[0]):
            break
        entries = pte_table(tables, entry[0], index_bits)
        if not is_leaf(entries[0]):
            break
        page = offset >> base_shift
        leaf.nr_pages = 1
        zap_leaves(&cost, &options, &leaf, entries, pages, page)
        subtree_table_free(m, entry)    # one child of its table, as the leaf that comes
        entry[0] = leaf_entry(folio.pfn + page)
        leaf.nr_pages = pages
        leaf.first = page
        if not hgm_leaf_install(&cost, &options, &leaf) & HGM_KEEPS:
            look_up_and_put(m, &cost, h.folio)
        i += 1
    cost.leaf_installs = i
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)
    return i

# For what runs most, constants: one thread, tables of 512 entries, pages of 4K.

cdef inline bint usual_tables(const Machine *m) noexcept nogil:
    return m.config.geometry.base_shift == 12 and m.config.geometry.index_bits == 9

cdef inline uint64_t continues "hgm_continues"(Machine *m, HugePage *h, const hgm_operation *ops,
                                               uint64_t n) noexcept nogil:
    if m.context.exclusion == ALONE and usual_tables(m):
        return install_streak(m, h, ops, n, HGM_OP_CONTINUE, 12, 9, False, ALONE)
    return install_streak(m, h, ops, n, HGM_OP_CONTINUE, m.config.geometry.base_shift, m.config.geometry.index_bits,
                          False, m.context.exclusion)

cdef inline uint64_t touches "hgm_touches"(Machine *m, HugePage *h, const hgm_operation *ops,
                                           uint64_t n) noexcept nogil:
    if m.context.exclusion != ALONE:
        return 0
    if usual_tables(m):
        return install_streak(m, h, ops, n, HGM_OP_TOUCH, 12, 9, False, ALONE)
    return install_streak(m, h, ops, n, HGM_OP_TOUCH, m.config.geometry.base_shift, m.config.geometry.index_bits,
                          False, ALONE)

cdef inline uint64_t uncounted "hgm_uncounted"(Machine *m, HugePage *h, const hgm_operation *ops, uint64_t n,
                                               int kind) noexcept nogil:
    """Of a subtree that is not counted, as one of `subtree` after a full zap; only one thread may come to count it."""
    if m.context.exclusion != ALONE:
        return 0
    if kind == HGM_OP_CONTINUE and usual_tables(m):
        return install_streak(m, h, ops, n, HGM_OP_CONTINUE, 12, 9, True, ALONE)
    return install_streak(m, h, ops, n, kind, m.config.geometry.base_shift, m.config.geometry.index_bits, True, ALONE)

cdef inline uint64_t dontneeds "hgm_dontneeds"(Machine *m, HugePage *h, const hgm_operation *ops,
                                               uint64_t n) noexcept nogil:
    if usual_tables(m):
        return zap_streak(m, h, ops, n, 12, 9)
    return zap_streak(m, h, ops, n, m.config.geometry.base_shift, m.config.geometry.index_bits)

cdef inline uint64_t collapses "hgm_collapses"(Machine *m, HugePage *h, const hgm_operation *ops,
                                               uint64_t n) noexcept nogil:
    if usual_tables(m):
        return collapse_streak(m, h, ops, n, 12, 9)
    return collapse_streak(m, h, ops, n, m.config.geometry.base_shift, m.config.geometry.index_bits)

cdef inline uint64_t streak(Machine *m, HugePage *h, const hgm_operation *ops, uint64_t n, int kind) noexcept nogil:
    """The records from ops[0] on that go the short way behind one about huge page `h`. Returns how many there were."""
    if RACING or STOPPED or h.entry is NULL or h.folio is NULL or not is_table(h.entry[0]) or h.file.entries > 1:
        return 0
    if kind == HGM_OP_DONTNEED:
        return dontneeds(m, h, ops, n)
    if h.folio.flags & HGM_FOLIO_POISONED:
        return 0
    if kind == HGM_OP_COLLAPSE:
        return collapses(m, h, ops, n) if h.file.level == PUD and m.config.geometry.group[1] == 1 else 0
    if m.config.options.overflow_check != HGM_CHECK_NONE:
        return 0
    if not counted(h):
        return uncounted(m, h, ops, n, kind)
    return continues(m, h, ops, n) if kind == HGM_OP_CONTINUE else touches(m, h, ops, n)

cdef inline Outcome first_of_streak(Machine *m, const hgm_operation *op, HugePage *h) noexcept nogil:
    """One record, the long way. Leaves `h` at the huge page that it was about, if others of its kind may follow."""
    if op.op == HGM_OP_COLLAPSE:
        return collapse(m, op, h)
    h.entry = NULL
    if op.op == HGM_OP_CONTINUE:
        return mfill_atomic_hugetlb(m, op, h)
    if op.op == HGM_OP_TOUCH:
        return touch(m, op, h)
    return dontneed(m, op, h)

cdef inline uint64_t streaks(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """The records of the kind and the mapping of ops[0] that come in a row; index: the number of ops[0] in its trace.

    continue, touch, dontneed or collapse, on hugetlb. Returns how many there were.
    """
    cdef int kind = ops[0].op
    cdef uint64_t done = base_mask(m) + 1, i = 0
    cdef HugePage h
    cdef Outcome o
    memset(&h, 0, sizeof(h))
    while (i < n and ops[i].op == kind and ops[i].target == ops[0].target and not m.context.out_of_memory
           and not STOPPED):
        o = first_of_streak(m, &ops[i], &h)
        if o.error or o.event or o.done < (done if kind == HGM_OP_TOUCH else ops[i].length):
            record(m, index + i, &o)
        i += 1
        i += streak(m, &h, &ops[i], n - i, kind)
    return i

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Loops over base pages that stand side by side: what one continue, fork, zap or collapse does in one table.

Each tells the scheme of one leaf after another, as the slow ways do. What a loop needs stands in locals whose
address goes to inlined functions only, so the compiler keeps it in registers: the costs, the leaf, the options, and a
copy of the folio (of its fields, a scheme may change only `flags`). After each atomic the compiler reloads everything
behind pointers, and a load that yields the next atomic's address delays it.
"""
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport huge_page_lock, huge_page_unlock, Locks, locks_held, locks_of, table_lock, table_unlock
from hgmcore.core.machine cimport ALONE, BY_ATOMICS, Machine, POSTED_LOCKS, PT_LOCKS
from hgmcore.core.table cimport child_add, is_leaf, leaf_entry, PUD, table_desc
from hgmcore.core.vma cimport vma_find
from hgmcore.operations.common cimport new_leaf
from hgmcore.operations.hugetlb.huge_page cimport counted, HugePage, subtree_counted
from hgmcore.scheme cimport *

cdef extern from "hgmcore/engine.h" nogil:    # the declarations of the loops
    pass

cdef enum:
    AHEAD = 16    # records or pages: an atomic waits for its line, which a prefetch brings in time

cdef inline hgm_leaf base_page_leaf(Machine *m, const HugePage *h, hgm_folio *folio, int origin) noexcept nogil:
    """What the base-page leaves of a run share; neither the first of their subtree nor all of it."""
    return new_leaf(m, h.mapping, folio, 0, 1, origin)

cdef inline void keep_flags(hgm_folio *folio, const hgm_folio *copy) noexcept nogil:
    """A scheme may have set flags in the copy."""
    if copy.flags & ~folio.flags:
        folio.flags |= copy.flags

cdef inline void expect(const hgm_leaf *leaf) noexcept nogil:
    """The leaves come in order: the struct pages that a scheme counts on are wanted soon."""
    if NEEDS & NEEDS_TAILS:
        hgm_prefetch(&leaf.folio.page[leaf.first + AHEAD])

cdef inline uint64_t install_leaves "hgm_install_leaves"(Machine *m, HugePage *h, uint64_t *entries, uint64_t n,
                                                         uint64_t first, uint32_t table, int origin, bint uncounted,
                                                         int exclusion) noexcept nogil:
    """The loop of install_run. uncounted: the subtree is not counted; ends behind a leaf that the scheme counts it
    with.

    Returns how many leaves were installed. exclusion: of the machine, a constant.
    """
    cdef bint real = m.config.options.transient_real
    cdef bint at_once = exclusion == ALONE and not uncounted    # the entries; the scheme is told of each all the same
    cdef hgm_options options = m.config.options
    cdef hgm_folio folio = h.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, h, &folio, origin)
    cdef hgm_ptdesc *desc = table_desc(m, table)
    cdef hgm_cost cost = hgm_no_cost()
    cdef Locks locks
    cdef uint64_t i = 0, kept = 0
    cdef int answer = 0
    leaf.threads = exclusion != ALONE
    leaf.first_leaf = uncounted
    if exclusion == POSTED_LOCKS:
        locks = locks_of(m, h.mapping, vma_find(h.mapping, h.start), h.start, h.folio)
    if at_once and origin != HGM_BY_FORK:    # fork copied them
        hgm_fill(entries, n, leaf_entry(folio.pfn + first), <uint64_t>1 << HGM_PTE_FRAME_SHIFT)
    while i < n and not (uncounted and answer & HGM_COUNTS):
        leaf.first = first + i
        expect(&leaf)
        if exclusion == POSTED_LOCKS:
            huge_page_lock(&locks, exclusion)
        table_lock(desc, exclusion)
        if NEEDS & NEEDS_COUNTER and exclusion != ALONE:
            child_add(desc, exclusion == BY_ATOMICS)
        if not at_once:
            entries[i] = leaf_entry(folio.pfn + leaf.first)
        answer = hgm_leaf_install(&cost, &options, &leaf)
        if answer & HGM_KEEPS:
            kept += 1
        elif origin == HGM_BY_CONTINUE and real:
            hgm_get_and_put(&folio)
        table_unlock(desc, exclusion)
        if exclusion == POSTED_LOCKS:
            huge_page_unlock(&locks, exclusion)
        i += 1
    cost.leaf_installs = i
    if origin == HGM_BY_CONTINUE:
        cost.transient = 2 * (i - kept)
    if exclusion >= PT_LOCKS:
        cost.locks = i * (1 + locks_held(&locks, exclusion))
    keep_flags(h.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)
    if uncounted and answer & HGM_COUNTS:
        subtree_counted(m, h)
    return i

cdef inline void table_gets(Machine *m, const HugePage *h, const uint32_t *path, uint64_t n) noexcept nogil:
    """Table path[1] gets `n` more leaves, or some that count themselves (0). Their subtree has a leaf already."""
    if NEEDS & NEEDS_COUNTER:
        if h.file.level == PUD and table_desc(m, path[1]).children == 0:
            child_add(table_desc(m, path[2]), m.context.exclusion != ALONE)
        if n:    # no store else: another thread may count here now
            table_desc(m, path[1]).children += <uint32_t>n
            hgm_event_children(1)

cdef inline void install_run "hgm_install_run"(Machine *m, HugePage *h, uint64_t *entries, uint64_t n, uint64_t first,
                                               const uint32_t *path, int origin) noexcept nogil:
    """Install `n` leaves of one base page each in `entries` of table path[1]; path: to `entries`.

    first: the base page of the first of them. The entries are none; for a fork they hold the leaves already. Their
    subtree has a leaf already. A continue's look-ups are counted.
    """
    cdef uint64_t i = 0
    cdef int exclusion = m.context.exclusion if origin == HGM_BY_CONTINUE else min(m.context.exclusion, PT_LOCKS)
    table_gets(m, h, path, n if exclusion == ALONE else 0)
    if not counted(h):
        i = install_leaves(m, h, entries, n, first, path[1], origin, True, exclusion)
    if exclusion == ALONE:
        install_leaves(m, h, entries + i, n - i, first + i, path[1], origin, False, ALONE)
    else:
        install_leaves(m, h, entries + i, n - i, first + i, path[1], origin, False, exclusion)

cdef inline void continue_run "hgm_continue_run"(Machine *m, HugePage *h, uint64_t *entries, uint64_t n, uint64_t first,
                                                 const uint32_t *path) noexcept nogil:
    install_run(m, h, entries, n, first, path, HGM_BY_CONTINUE)

cdef inline void fork_run "hgm_fork_run"(Machine *m, HugePage *h, uint64_t *entries, uint64_t n, uint64_t first,
                                         const uint32_t *path) noexcept nogil:
    install_run(m, h, entries, n, first, path, HGM_BY_FORK)

cdef inline uint64_t zap_leaves "hgm_zap_leaves"(hgm_cost *cost, const hgm_options *options, hgm_leaf *leaf,
                                                 uint64_t *entries, uint64_t n, uint64_t page) noexcept nogil:
    """The loop of zap_ptes; costs, options and leaf are locals of its caller. Returns how many leaves there were."""
    cdef uint64_t i, entry, removed = 0
    for i in range(n):
        entry = entries[i]
        entries[i] = 0
        removed += entry // HGM_PTE_LEAF & 1    # without a branch: the compiler takes several at a time
        if is_leaf(entry):    # else a base page that failed, or none
            leaf.first = page + i
            expect(leaf)
            hgm_leaf_remove(cost, options, leaf)
    cost.leaf_removes += removed
    return removed

cdef inline uint64_t zap_ptes "hgm_zap_ptes"(Machine *m, uint64_t *entries, uint64_t n, const hgm_leaf *like,
                                             uint64_t page) noexcept nogil:
    """Remove the base-page leaves among `n` entries; `page` is the base page of the first. None is in a group."""
    cdef hgm_options options = m.config.options
    cdef hgm_folio folio
    cdef hgm_leaf leaf = like[0]
    cdef hgm_cost cost = hgm_no_cost()
    cdef uint64_t removed
    if like.folio is NULL:    # nothing is mapped then, but what failed
        memset(entries, 0, n * sizeof(uint64_t))
        return 0
    folio = like.folio[0]
    leaf.folio = &folio
    leaf.nr_pages = 1
    leaf.count = 1
    leaf.whole = 0
    removed = zap_leaves(&cost, &options, &leaf, entries, n, page)
    keep_flags(like.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)
    return removed

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Shared by both families: results, the range that an operation is about, and the only constructors of `hgm_leaf`
and `hgm_subtree`."""
from libc.errno cimport EFAULT, EINVAL, ENOENT, ENOMEM, ESRCH
from libc.stdint cimport INT32_MAX
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_get, folio_put, page_cache_get
from hgmcore.core.machine cimport File, Machine, Mapping, Vma
from hgmcore.core.memory cimport region_grow
from hgmcore.core.vma cimport vma_search
from hgmcore.scheme cimport *

cdef extern from "hgmcore/host.h" nogil:
    const int EHWPOISON

# What an operation came to: bytes done, and an errno and an event or 0.
cdef struct Outcome:
    uint64_t done
    int error
    uint32_t event

cdef inline uint64_t base_mask(Machine *m) noexcept nogil:
    return (<uint64_t>1 << m.config.geometry.base_shift) - 1

cdef inline uint64_t page_mask(const File *f) noexcept nogil:
    return (<uint64_t>1 << f.page_shift) - 1

cdef inline bint process_exited(Machine *m, const Mapping *v) noexcept nogil:
    return m.state.processes[v.process].exited

cdef inline Outcome outcome(uint64_t done, int error) noexcept nogil:
    cdef Outcome o
    o.done = done
    o.error = error
    o.event = 0
    return o

cdef inline void record(Machine *m, uint64_t index, Outcome *o) noexcept nogil:
    """Keep a result that says more than that the operation did what it was asked to."""
    cdef hgm_result *result
    if not region_grow(&m.context.results, (m.context.nr_results + 1) * sizeof(hgm_result)):
        m.context.out_of_memory = True
        return
    result = &(<hgm_result *>m.context.results.base)[m.context.nr_results]
    m.context.nr_results += 1
    result.index = index
    result.done = o.done
    result.error = o.error
    result.event = o.event

cdef inline void put_held() noexcept nogil:
    """In a race: unlock the folio, and drop the look-up's reference, if it was not passed on to a mapping."""
    cdef hgm_folio *folio = race_me().held
    race_unlock(HGM_FOLIO_LOCK)
    if folio is not NULL:
        folio_put(folio, 1)
        race_me().held = NULL

cdef inline hgm_folio *look_up_held(Machine *m, File *f, uint64_t index) noexcept nogil:
    """In a race: find huge page `index` of the page cache and take a reference, which is one access; or NULL."""
    cdef hgm_folio *folio
    cut(READS, &f.cache[index])
    folio = page_cache_get(m, f, index)
    race_me().held = folio
    if folio is not NULL:
        folio.page._refcount += 1
    return folio

cdef inline bint lock_cached(Machine *m, File *f, uint64_t index, hgm_folio *folio) noexcept nogil:
    """In a race: lock the folio. Is it still in its place in the page cache?"""
    race_lock(HGM_FOLIO_LOCK, folio, HGM_EXCLUSIVE_LOCK)
    cut(READS, &f.cache[index])
    return page_cache_get(m, f, index) == folio

cdef inline void look_up_and_put(Machine *m, hgm_cost *cost, hgm_folio *folio) noexcept nogil:
    """A look-up's reference that does not stay."""
    cost.transient += 2
    if RACING:
        put_held()
        return
    if m.config.options.transient_real:
        hgm_get_and_put(folio)

cdef inline int lookup_refused(Machine *m, hgm_folio *folio, bint fault) noexcept nogil:
    """The overflow check of a look-up: 0 or an errno."""
    cdef int32_t references = hgm_refcount(folio)
    if m.config.options.overflow_check == HGM_CHECK_AFTER and (references == INT32_MAX or references < 0):
        if m.config.options.posted:
            folio_get(m, folio, 1)    # the posting forgot to put it back
        else:
            look_up_and_put(m, &m.context.cost, folio)
        return EFAULT
    if m.config.options.overflow_check == HGM_CHECK_TRY and references <= 0:    # none was taken
        return EFAULT
    if m.config.options.overflow_check == HGM_CHECK_HALF and references > INT32_MAX // 2:
        look_up_and_put(m, &m.context.cost, folio)
        return EFAULT if fault else ENOMEM
    return 0

cdef inline hgm_answer folio_answer(const hgm_options *options, const hgm_folio *folio) noexcept nogil:
    """The scheme's answers; where it has no rule of its own, the general one."""
    cdef hgm_answer answer
    answer.mapcount = 0
    answer.refs = answer.sharers = answer.nr_file_mapped = -1
    answer.mapped = 0
    answer.maybe_shared = -1
    if folio.nr_pages == 1:    # see thp/pmd.pxd
        answer.mapcount = folio.page._mapcount
        answer.mapped = answer.mapcount > 0
    else:
        hgm_answer_folio(options, folio, &answer)
    if answer.maybe_shared < 0:
        answer.maybe_shared = answer.mapcount > 1
    return answer

cdef inline void exact_counts(Machine *m, hgm_folio *folio) noexcept nogil:
    """The folio is about to leave the page cache, or to be split: tell a scheme that asks."""
    if NEEDS & NEEDS_KILL and folio.nr_pages > 1:
        hgm_kill(&m.context.cost, &m.config.options, folio)

# The range that an operation is about, in offsets from the start of its mapping.
cdef struct Range:
    uint64_t start
    uint64_t end             # start + length, rounded up
    int error                # ESRCH: the process has exited; EINVAL: misaligned start, or the end wraps around

cdef inline uint64_t round_up(uint64_t length, uint64_t mask) noexcept nogil:
    return (length + mask) & ~mask

cdef inline Range range_of(Machine *m, const hgm_operation *op, uint64_t mask) noexcept nogil:
    """What munmap, mremap, madvise and mbind check first. mask: of base pages, or of huge pages."""
    cdef Range r
    r.start = op.offset
    r.end = op.offset + round_up(op.length, mask)
    r.error = 0
    if process_exited(m, &m.state.mappings[op.target]):
        r.error = ESRCH
    elif r.start & mask or op.length + mask < op.length or r.end < r.start:
        r.error = EINVAL
    return r

cdef inline Range mprotect_range(Machine *m, const hgm_operation *op) noexcept nogil:
    """range_of() for mprotect, where an end that wraps around is ENOMEM, as a gap is (do_mprotect_pkey)."""
    cdef Range r = range_of(m, op, base_mask(m))
    if r.error == EINVAL and not r.start & base_mask(m):
        r.error = ENOMEM
    return r

cdef inline int uffd_range_error(Machine *m, const hgm_operation *op) noexcept nogil:
    """validate_range() of userfaultfd, which rounds nothing: 0, ESRCH or EINVAL."""
    if process_exited(m, &m.state.mappings[op.target]):
        return ESRCH
    if (op.offset | op.length) & base_mask(m) or op.length == 0 or op.offset + op.length < op.offset:
        return EINVAL
    return 0

# A walk over the VMAs of a range (madvise_walk_vmas), which goes on behind gaps and remembers that there was one.
cdef struct VmaWalk:
    uint32_t next
    uint64_t start           # what the range has of the VMA
    uint64_t stop
    uint64_t end             # of the range
    bint gap

cdef inline VmaWalk walk_vmas(const Mapping *v, const Range *r) noexcept nogil:
    cdef VmaWalk w
    w.next = vma_search(v, r.start)
    w.start = w.stop = r.start
    w.end = r.end
    w.gap = False
    return w

cdef inline Vma *vma_next(const Mapping *v, VmaWalk *w) noexcept nogil:
    """The next VMA of the range, NULL behind the last."""
    cdef Vma *vma
    if w.stop >= w.end:
        return NULL
    if w.next == v.nr_vmas or v.vmas[w.next].start >= w.end:
        w.gap = True
        return NULL
    vma = &v.vmas[w.next]
    w.next += 1
    w.gap |= vma.start > w.stop
    w.start = max(w.stop, vma.start)
    w.stop = min(w.end, vma.end)
    return vma

cdef inline hgm_leaf new_leaf(Machine *m, const Mapping *v, hgm_folio *folio, uint64_t first, uint64_t nr_pages,
                              int origin) noexcept nogil:
    """One leaf of `nr_pages` base pages of the folio, from `first` on; every yes-or-no of it is no."""
    cdef hgm_leaf leaf
    leaf.folio = folio
    leaf.first = first
    leaf.nr_pages = nr_pages
    leaf.count = 1
    leaf.process = v.process
    leaf.mapping = <uint32_t>(v - m.state.mappings)
    leaf.origin = <uint8_t>origin
    leaf.whole = 0
    leaf.covers = 0
    leaf.hstate_none = 0
    leaf.first_leaf = 0
    leaf.threads = 0
    leaf.cpu = m.context.cpu if NEEDS & NEEDS_CPU else 0
    return leaf

cdef inline hgm_subtree new_subtree(Machine *m, const Mapping *v, hgm_folio *folio, int origin) noexcept nogil:
    """What a folio has below one hstate-level entry; every yes-or-no of it is no."""
    cdef hgm_subtree s
    s.folio = folio
    s.removed = 0
    s.process = v.process
    s.mapping = <uint32_t>(v - m.state.mappings)
    s.origin = <uint8_t>origin
    s.covers = 0
    s.whole = 0
    s.tables_stay = 0
    s.empty = 0
    s.counted = 0
    s.cpu = m.context.cpu if NEEDS & NEEDS_CPU else 0
    return s

cdef inline Outcome pin_folio(Machine *m, const hgm_operation *op, hgm_folio *folio) noexcept nogil:
    """Hold `length` extra references. ENOENT: the page is not in the page cache."""
    if folio is NULL:
        return outcome(0, ENOENT)
    if op.length > <uint64_t>(INT32_MAX - folio.pins):
        return outcome(0, EINVAL)
    folio.pins += <int32_t>op.length
    folio_get(m, folio, <int32_t>op.length)
    return outcome(op.length, 0)

cdef inline Outcome unpin_folio(const hgm_operation *op, hgm_folio *folio) noexcept nogil:
    """Drop extra references. ENOENT: no such page. EINVAL: it has not so many."""
    if folio is NULL:
        return outcome(0, ENOENT)
    if op.length > <uint64_t>folio.pins:
        return outcome(0, EINVAL)
    folio.pins -= <int32_t>op.length
    folio_put(folio, <int32_t>op.length)
    return outcome(op.length, 0)

cdef inline bint folio_movable(const hgm_options *options, const hgm_folio *folio, bint table_shared) noexcept nogil:
    """Would mbind(MPOL_MF_MOVE) move it? 6.2 and 6.3: its estimate, by default the count of base page 0, is 1; 6.15: at
    most 1. Never, if a process maps it through a shared page table."""
    cdef hgm_answer answer = folio_answer(options, folio)
    cdef int64_t count = answer.sharers
    if table_shared:
        return False
    if options.era >= 615:
        return (answer.mapcount if count < 0 else count) <= 1
    if count < 0:
        count = folio.page._mapcount if folio.nr_pages == 1 else hgm_page_mapcount(options, folio, 0)
    return count == 1

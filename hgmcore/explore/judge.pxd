# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a state and a step break: the properties of hgmcore.explore.properties, from the page tables alone."""
from libc.string cimport memset

from hgmcore.hgm cimport *
from hgmcore.core.folio cimport cache_refs, folio_at, folio_of
from hgmcore.core.machine cimport Machine, NO_TABLE
from hgmcore.core.table cimport table_entries
from hgmcore.explore.tiny cimport (
    Before, CB, FE, FH, FM, FS, image_take, LK, MAX_FOLIOS, MAX_PAGES, ML, MP, MS, MU, NM, OS, PC, RC, RE, Seen,
    Step, TC, Tiny, Truth, UF
)

cdef inline void truth_below(Tiny *t, Truth *truth, uint32_t table, int level, int process) noexcept nogil:
    cdef Machine *m = &t.m
    cdef uint64_t *entries = table_entries(m, table)
    cdef uint64_t i = 0, pages, pfn, j
    cdef hgm_folio *folio
    cdef Truth *of
    while i < <uint64_t>1 << m.config.geometry.index_bits:
        if entries[i] & HGM_PTE_PRESENT and entries[i] & HGM_PTE_LEAF:
            pages = <uint64_t>1 << (m.config.geometry.level_shift[level] - m.config.geometry.base_shift)
            pfn = entries[i] >> HGM_PTE_FRAME_SHIFT
            if entries[i] & HGM_PTE_GROUP:
                pages *= m.config.geometry.group[level]
                i += m.config.geometry.group[level] - 1
            folio = folio_of(m, pfn)
            of = &truth[folio - folio_at(m, 0)]
            of.leaves += 1
            of.processes |= 1 << process
            for j in range(pfn - folio.pfn, pfn - folio.pfn + pages):
                of.at[j] += 1
        elif entries[i] & HGM_PTE_PRESENT:
            truth_below(t, truth, <uint32_t>(entries[i] >> HGM_PTE_FRAME_SHIFT), level - 1, process)
        i += 1

cdef inline void truths(Tiny *t, Truth *truth) noexcept nogil:
    cdef Machine *m = &t.m
    cdef int p
    memset(truth, 0, m.state.nr_folios * sizeof(Truth))
    for p in range(t.P):
        if m.state.processes[p].root != NO_TABLE:
            truth_below(t, truth, m.state.processes[p].root, m.config.geometry.levels, p)

cdef inline void page_mapcounts(Tiny *t, const hgm_folio *folio, int64_t *out) noexcept nogil:
    cdef uint64_t n, i
    cdef long long j
    n = t.page_mapcount_runs(&t.m, folio, t.runs)
    for i in range(n):
        for j in range(t.runs[3 * i], t.runs[3 * i + 1]):
            out[j] = t.runs[3 * i + 2]

cdef inline void prepare(Tiny *t) noexcept nogil:
    """Keep what holds in the machine now, before steps from here."""
    cdef Machine *m = &t.m
    cdef Before *b = &t.before
    cdef hgm_answer a
    cdef int h
    b.nr_folios = m.state.nr_folios
    truths(t, b.truth)
    for h in range(t.H):
        b.cached[h] = m.state.files[0].cache[h]
        if b.cached[h]:
            b.refcount[h] = folio_at(m, b.cached[h] - 1).page._refcount
            t.answer(&m.config.options, folio_at(m, b.cached[h] - 1), &a)
            b.mapcount[h] = a.mapcount
            page_mapcounts(t, folio_at(m, b.cached[h] - 1), b.page_mapcount[h])
    image_take(t)

cdef inline uint32_t judge_step(Tiny *t, const Step *step, bint fatal) noexcept nogil:
    """The step properties that are broken, of the machine that look() saw. fatal: only those that are fatal."""
    cdef Machine *m = &t.m
    cdef Before *b = &t.before
    cdef Seen *s = &t.seen
    cdef hgm_folio *folio
    cdef hgm_answer a
    cdef int64_t counts[MAX_PAGES]
    cdef uint32_t broken = 0, i, was
    cdef int p, h, k
    cdef bint reachable, changed
    cdef int64_t owners
    if fatal:
        return 0
    for i in range(b.nr_folios):
        folio = folio_at(m, i)
        if folio.flags & HGM_FOLIO_CACHED:
            continue
        reachable = False
        for p in range(t.P):
            for h in range(t.H):
                reachable |= s.mark[p][h] == i + 1
        if not reachable:
            t.premises[LK] += 1
            if folio.page._refcount > folio.pins + folio.poisons:
                broken |= 1 << LK
    if step.moves and b.cached[step.page]:
        was = b.cached[step.page] - 1
        folio = folio_at(m, was)
        owners = b.truth[was].processes
        if folio.pins == 0 and folio.poisons == 0 and step.fail == 0 and owners >> step.process & 1:
            if step.moves == 2:
                t.premises[MS] += 1
                if t.last.error or t.last.done != <uint64_t>1 << m.state.files[0].page_shift:
                    broken |= 1 << MS
            elif owners & (owners - 1):
                t.premises[NM] += 1
                if t.last.done:
                    broken |= 1 << NM
            else:
                t.premises[MP] += 1
                if t.last.error == 0 and t.last.done == 0:
                    broken |= 1 << MP
    if step.op.op == HGM_OP_PUNCH or step.op.op == HGM_OP_TRUNCATE:
        for h in range(t.H):
            if b.cached[h] and s.cached[h] == 0:
                folio = folio_at(m, b.cached[h] - 1)
                if folio.pins == 0 and folio.poisons == 0:
                    t.premises[TC] += 1
                    if folio.page._refcount != 0:
                        broken |= 1 << TC
    if step.refusable and t.last.error and t.last.done == 0:
        for h in range(t.H):
            if b.cached[h] == 0 or b.cached[h] != s.cached[h]:
                continue
            folio = folio_at(m, b.cached[h] - 1)
            t.answer(&m.config.options, folio, &a)
            page_mapcounts(t, folio, counts)
            changed = folio.page._refcount != b.refcount[h] or a.mapcount != b.mapcount[h]
            for k in range(t.N):
                changed |= counts[k] != b.page_mapcount[h][k]
            if changed:
                broken |= 1 << RC
    return broken

cdef inline uint32_t judge_state(Tiny *t, bint fatal, uint32_t *held) noexcept nogil:
    """The state properties that are broken. fatal: only those that are fatal. held: whose premise holds, as bits."""
    cdef Machine *m = &t.m
    cdef Seen *s = &t.seen
    cdef Truth truth[MAX_FOLIOS]
    cdef hgm_folio *folio
    cdef hgm_answer a
    cdef int64_t counts[MAX_PAGES]
    cdef uint32_t broken = 0, i
    cdef int h, p, k
    cdef bint reachable, shared
    truths(t, truth)
    if s.unbounded:
        broken |= 1 << CB
    held[0] = 1 << CB
    for i in range(m.state.nr_folios):
        folio = folio_at(m, i)
        reachable = folio.flags & HGM_FOLIO_CACHED != 0 or truth[i].leaves > 0
        for p in range(t.P):
            for h in range(t.H):
                reachable |= s.mark[p][h] == i + 1
        if not reachable:
            continue
        if truth[i].leaves > 0:
            held[0] |= 1 << FM
        if folio.flags & HGM_FOLIO_CACHED or folio.pins > 0:
            held[0] |= 1 << FH
        if folio.flags & HGM_FOLIO_FREED:
            if truth[i].leaves:
                broken |= 1 << FM
            if folio.flags & HGM_FOLIO_CACHED or folio.pins > 0:
                broken |= 1 << FH
        if fatal:
            continue
        t.answer(&m.config.options, folio, &a)
        page_mapcounts(t, folio, counts)
        shared = truth[i].processes & (truth[i].processes - 1) != 0
        if truth[i].leaves > 0:
            held[0] |= 1 << MU | 1 << PC | 1 << RE
            if not a.mapped:
                broken |= 1 << MU
        if a.mapped:
            held[0] |= 1 << ML
            if truth[i].leaves == 0:
                broken |= 1 << ML
        if shared:
            held[0] |= 1 << FE
            if not a.maybe_shared:
                broken |= 1 << FE
        if a.maybe_shared:
            held[0] |= 1 << FS
            if not shared:
                broken |= 1 << FS
        for k in range(t.N):
            if counts[k] != truth[i].at[k]:
                broken |= 1 << PC
        if (folio.page._refcount - folio.pins - folio.poisons
                - (cache_refs(m, folio) if folio.flags & HGM_FOLIO_CACHED else 0)) != a.mapcount:
            broken |= 1 << RE
    return broken

cdef inline uint32_t below_zero(Tiny *t, uint32_t n) noexcept nogil:
    """Did a reference count of one of the first `n` folios fall below zero? What mappings hold is counted apart."""
    cdef uint32_t i
    cdef int32_t references
    for i in range(n):
        references = folio_at(&t.m, i).page._refcount
        if references < 0 and references > -(1 << 30):
            return 1 << UF
    return 0

cdef inline uint32_t fatal_step(Tiny *t) noexcept nogil:
    cdef uint32_t broken = below_zero(t, t.before.nr_folios)
    if t.m.context.cost.underflows or t.seen.negative:
        broken |= 1 << UF
    if t.m.context.cost.overflows:
        broken |= 1 << OS
    return broken

cdef inline bint freed_in_use(Tiny *t) noexcept nogil:
    cdef Machine *m = &t.m
    cdef uint32_t i
    for i in range(m.state.nr_folios):
        if folio_at(m, i).flags & HGM_FOLIO_FREED and folio_at(m, i).flags & HGM_FOLIO_CACHED:
            return True
    return False

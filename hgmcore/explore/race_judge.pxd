# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a race broke, once both threads are through."""
from libc.string cimport memset

from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at
from hgmcore.core.machine cimport Machine
from hgmcore.explore.judge cimport below_zero, judge_state, truths
from hgmcore.explore.packing cimport look
from hgmcore.explore.tiny cimport LK, MAX_FOLIOS, ML, NR_PROPERTIES, Tiny, Truth, UF

# Beyond the properties of tiny.pxd.
cdef enum:
    LEFT = NR_PROPERTIES          # a leaf maps a page that is out of the cache
    DEADLOCK
    NR_BROKEN

cdef inline uint32_t at_rest(Tiny *t) noexcept nogil:
    """What is wrong with the machine at rest, and after every process exited and every page left the cache.

    t.run: of an engine that runs alone. The machine is used up.
    """
    cdef Machine *m = &t.m
    cdef Truth truth[MAX_FOLIOS]
    cdef hgm_operation op
    cdef hgm_folio *folio
    cdef hgm_answer a
    cdef uint32_t broken, held, i
    cdef int p, h
    cdef bint meant
    look(t)
    broken = judge_state(t, False, &held)
    truths(t, truth)
    for i in range(m.state.nr_folios):
        folio = folio_at(m, i)
        if folio.flags & HGM_FOLIO_CACHED:
            continue
        meant = truth[i].leaves > 0
        if meant:
            broken |= 1 << LEFT
        for p in range(t.P):
            for h in range(t.H):
                meant |= t.seen.mark[p][h] == i + 1
        if not meant and folio.page._refcount > folio.pins + folio.poisons:
            broken |= 1 << LK
    memset(&op, 0, sizeof(op))
    for p in range(t.P):
        if t.seen.unborn >> p & 1 == 0 and not m.state.processes[p].exited:
            op.op, op.target = HGM_OP_EXIT, p
            t.run(m, &op, 1, 0)
    op.op, op.target = HGM_OP_PUNCH, 0
    op.length = <uint64_t>t.H << m.state.files[0].page_shift
    t.run(m, &op, 1, 0)
    for i in range(m.state.nr_folios):
        folio = folio_at(m, i)
        if folio.page._refcount > folio.pins + folio.poisons:
            broken |= 1 << LK
        t.answer(&m.config.options, folio, &a)
        if a.mapped:
            broken |= 1 << ML
    if m.context.cost.underflows or below_zero(t, m.state.nr_folios):
        broken |= 1 << UF
    return broken

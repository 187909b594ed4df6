# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Frames of freed folios come back, once a machine has handed out most that it has.

Between two operations only, since an operation may hold on to a folio that it frees. A folio that a broken scheme frees
while it is mapped, or leaves counted, is not taken: what maps it shall map nothing else.
"""
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at, folio_of, frames_reserved, RECLAIM_STEPS
from hgmcore.core.machine cimport Machine, NO_TABLE
from hgmcore.core.table cimport is_table, PTE, table_entries, table_number

cdef inline void leaves_keep(Machine *m, uint32_t table, int level, hgm_folio **last) noexcept nogil:
    """Clear HGM_FOLIO_FREE of every folio that is mapped below a table. last: the folio met last."""
    cdef uint64_t *entries = table_entries(m, table)
    cdef uint64_t i, pfn
    for i in range(<uint64_t>1 << m.config.geometry.index_bits):
        if entries[i] & (HGM_PTE_LEAF | HGM_PTE_MIGRATION):
            pfn = entries[i] >> HGM_PTE_FRAME_SHIFT
            if last[0] is NULL or pfn - last[0].pfn >= last[0].nr_pages:
                last[0] = folio_of(m, pfn)
                last[0].flags &= ~HGM_FOLIO_FREE
        elif level > PTE and is_table(entries[i]):
            leaves_keep(m, table_number(entries[i]), level - 1, last)

cdef inline void frames_reclaim(Machine *m) noexcept nogil:
    """Look for folios whose frames may be used again: freed, counted nowhere, mapped nowhere, without a pin."""
    cdef hgm_folio *folio
    cdef hgm_folio *last = NULL
    cdef uint32_t i
    m.context.nr_free = 0
    m.context.free_size = 0
    if m.context.touched is not NULL:
        m.context.touched.everything = True
    for i in range(m.state.nr_folios):
        folio = folio_at(m, i)
        if (folio.flags & HGM_FOLIO_FREED and not folio.flags & HGM_FOLIO_CACHED and folio.page._refcount == 0
                and folio.page._mapcount == 0 and folio.pins == 0 and folio.poisons == 0
                and (folio.nr_pages == 1 or folio.page[1]._entire_mapcount == 0)):
            folio.flags |= HGM_FOLIO_FREE
    for i in range(m.state.nr_processes):
        if m.state.processes[i].root != NO_TABLE:
            leaves_keep(m, m.state.processes[i].root, m.config.geometry.levels, &last)
    for i in range(m.state.nr_folios):
        m.context.nr_free += folio_at(m, i).flags & HGM_FOLIO_FREE != 0
    m.context.frames_low = m.context.reclaim_at == 0 and m.context.nr_free == 0
    if not m.context.frames_low:
        m.context.reclaim_at = min(max(m.state.next_pfn, m.context.reclaim_at) + frames_reserved(m) // RECLAIM_STEPS,
                                   frames_reserved(m) - 1)

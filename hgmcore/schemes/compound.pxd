# cython: language_level=3
"""The count that schemes share which keep one map count for a whole huge page: compound_mapcount in page 1."""
from hgmcore.scheme cimport *


cdef inline void compound_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    hgm_map_add(cost, &folio.page[1], &folio.page[1]._entire_mapcount, by)


cdef inline int32_t compound_mapcount(const hgm_folio *folio) noexcept nogil:
    return folio.page[1]._entire_mapcount


cdef inline void compound_answer(const hgm_folio *folio, hgm_answer *answer) noexcept nogil:
    answer.mapcount = compound_mapcount(folio)
    answer.mapped = answer.mapcount > 0

# cython: language_level=3, cdivision=True
"""The map-count word of the huge page as a whole: _entire_mapcount in page 1, compound_mapcount before 6.2.

Schemes that count on base pages count only whole leaves in this word; the other schemes count all their maps in it.
"""
from hgmcore.scheme cimport *


cdef inline int32_t compound_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    return hgm_map_add(cost, &folio.page[1], &folio.page[1]._entire_mapcount, by)


cdef inline int32_t compound_mapcount(const hgm_folio *folio) noexcept nogil:
    return folio.page[1]._entire_mapcount


cdef inline void compound_answer(const hgm_folio *folio, hgm_answer *answer) noexcept nogil:
    answer.mapcount = compound_mapcount(folio)
    answer.mapped = answer.mapcount > 0

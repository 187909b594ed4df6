# cython: language_level=3, cdivision=True
"""_large_mapcount in page 1, from 6.10: all mappings of the folio in one word."""
from hgmcore.scheme cimport *


cdef inline int32_t large_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    return hgm_map_add(cost, &folio.page[1], &folio.page[1]._large_mapcount, by)


cdef inline int32_t large_add_locked(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    """As large_add(), where the caller holds owners_lock(): the lock's atomic is the one that is counted."""
    return hgm_map_add_locked(cost, &folio.page[1], &folio.page[1]._large_mapcount, by)


cdef inline int32_t large_mapcount(const hgm_folio *folio) noexcept nogil:
    return folio.page[1]._large_mapcount


cdef inline void large_answer(const hgm_folio *folio, hgm_answer *answer) noexcept nogil:
    answer.mapcount = large_mapcount(folio)
    answer.mapped = answer.mapcount > 0

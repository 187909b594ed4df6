# cython: language_level=3, cdivision=True
"""Counts of base pages, each in the _mapcount of its own struct page, and _nr_pages_mapped, which THP of 6.2 added.

_nr_pages_mapped in page 1 (kernel: from 6.2, mm/rmap.c) is the number of base pages whose _mapcount is not 0, plus
ENTIRELY_MAPPED while the whole folio is mapped by a leaf.
"""
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_mapcount

cdef enum:
    ENTIRELY_MAPPED = 0x800000
    FOLIO_PAGES_MAPPED = ENTIRELY_MAPPED - 1


cdef inline uint64_t page_counts_add(hgm_cost *cost, const hgm_leaf *leaf, int32_t by) noexcept nogil:
    """Add `by`, 1 or -1, to the count of each base page of a leaf or of a run; returns how many left or reached 0."""
    cdef hgm_page *page = leaf.folio.page
    cdef int32_t at_edge = by > 0    # a count that leaves 0 is 1 now, one that reaches it 0
    cdef uint64_t i, n = 0
    for i in range(leaf.first, leaf.first + leaf.nr_pages * leaf.count):
        if hgm_map_add(cost, &page[i], &page[i]._mapcount, by) == at_edge:
            n += 1
    return n


cdef inline int64_t page_counts_sum(const hgm_folio *folio) noexcept nogil:
    cdef int64_t sum = 0
    cdef uint64_t i
    for i in range(folio.nr_pages):
        sum += folio.page[i]._mapcount
    return sum


cdef inline void nr_pages_mapped_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    hgm_map_add(cost, &folio.page[1], &folio.page[1]._nr_pages_mapped, by)


cdef inline void per_page_add(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf,
                              int32_t by) noexcept nogil:
    """A leaf, or a run of leaves, comes (`by` is 1) or goes (-1).

    A single leaf changes _nr_pages_mapped by an atomic for each count that left or reached 0, and so does a run in
    kernels 6.9 to 6.11; from 6.12 on a run changes _nr_pages_mapped by one atomic.
    """
    cdef uint64_t _, n
    if leaf.whole:
        if compound_add(cost, leaf.folio, by) == (by > 0):
            nr_pages_mapped_add(cost, leaf.folio, by * ENTIRELY_MAPPED)
        return
    n = page_counts_add(cost, leaf, by)
    if leaf.count == 1 or options.batch == HGM_BATCH_6_9:
        for _ in range(n):
            nr_pages_mapped_add(cost, leaf.folio, by)
    elif n > 0:
        nr_pages_mapped_add(cost, leaf.folio, by * <int32_t>n)


cdef inline int64_t per_page_mapcount(const hgm_folio *folio, uint64_t page) noexcept nogil:
    return compound_mapcount(folio) + folio.page[page]._mapcount


cdef inline int64_t per_page_nr_file_mapped(const hgm_folio *folio) noexcept nogil:
    """Base pages of the folio in the statistic NR_FILE_MAPPED: all of them while a whole leaf is mapped."""
    cdef int32_t nr = folio.page[1]._nr_pages_mapped
    return <int64_t>folio.nr_pages if nr >= ENTIRELY_MAPPED else nr


cdef inline void per_page_answer(const hgm_folio *folio, hgm_answer *answer) noexcept nogil:
    cdef int32_t nr = folio.page[1]._nr_pages_mapped
    answer.mapcount = compound_mapcount(folio)
    if nr & FOLIO_PAGES_MAPPED:
        answer.mapcount += page_counts_sum(folio)
    answer.mapped = nr > 0
    answer.nr_file_mapped = per_page_nr_file_mapped(folio)

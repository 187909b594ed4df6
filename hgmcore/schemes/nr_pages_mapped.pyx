# cython: language_level=3, cdivision=True
"""THP-like: a count for each base page, and how many base pages have one (_nr_pages_mapped)

Claim: page_mapcount() means for a huge page mapped in pieces what it means for a THP.
From: "hugetlb: use folio/THP-like map counts", March 2023, James Houghton; THP of Linux 6.2 to 6.9, Hugh Dickins.
State: _refcount of the head; _entire_mapcount and _nr_pages_mapped in page 1; _mapcount of every base page.
_nr_pages_mapped is the number of base pages with a count, plus 0x800000 while a whole leaf is there.
Rule: whole leaf: ref, entire, and the flag when entire leaves or reaches 0. A piece of k base pages: ref once, and for
each of the k its _mapcount, and _nr_pages_mapped where that leaves or reaches 0.
Costs: up to 1 + 2k atomics on k lines; collapse of 1G takes back 262144 counts. Writes every struct page: the
vmemmap optimisation (HVO) is given up.
Known to be wrong: references count leaves, so they differ from the sum of the map counts where a 2M leaf stands in a
1G page; a whole leaf looks only at base page 0 to know whether it is shared.
Right: the map count of every base page.
Adapted: a 2M leaf in a 1G page, which the kernel never had, counts as its 512 base pages.
"""
from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *

cdef extern from *:
    """
    #define HGM_NEEDS 0
    """

cdef enum:
    ENTIRELY_MAPPED = 0x800000


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    cdef hgm_page *page = leaf.folio.page
    cdef uint64_t i
    hgm_ref_add(cost, leaf.folio, 1)
    if leaf.whole:
        if hgm_map_add(cost, &page[1], &page[1]._entire_mapcount, 1) == 1:
            hgm_map_add(cost, &page[1], &page[1]._nr_pages_mapped, ENTIRELY_MAPPED)
    else:
        for i in range(leaf.first, leaf.first + leaf.nr_pages):
            if hgm_map_add(cost, &page[i], &page[i]._mapcount, 1) == 1:
                hgm_map_add(cost, &page[1], &page[1]._nr_pages_mapped, 1)
    return True


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    cdef hgm_page *page = leaf.folio.page
    cdef uint64_t i
    if leaf.whole:
        if hgm_map_add(cost, &page[1], &page[1]._entire_mapcount, -1) == 0:
            hgm_map_add(cost, &page[1], &page[1]._nr_pages_mapped, -ENTIRELY_MAPPED)
    else:
        for i in range(leaf.first, leaf.first + leaf.nr_pages):
            if hgm_map_add(cost, &page[i], &page[i]._mapcount, -1) == 0:
                hgm_map_add(cost, &page[1], &page[1]._nr_pages_mapped, -1)
    hgm_ref_add(cost, leaf.folio, -1)


cdef inline void table_add "hgm_table_add"(hgm_cost *cost, const hgm_options *options,
                                           const hgm_subtree *subtree) noexcept nogil:
    pass


cdef inline void table_free "hgm_table_free"(hgm_cost *cost, const hgm_options *options,
                                             const hgm_subtree *subtree) noexcept nogil:
    pass


cdef inline void subtree_zapped "hgm_subtree_zapped"(hgm_cost *cost, const hgm_options *options,
                                                     const hgm_subtree *subtree) noexcept nogil:
    pass


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return folio.page[1]._entire_mapcount + folio.page[page]._mapcount


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    cdef hgm_page *page = folio.page
    cdef int32_t nr = page[1]._nr_pages_mapped
    cdef uint64_t i
    answer.mapcount = page[1]._entire_mapcount
    if nr & (ENTIRELY_MAPPED - 1):
        for i in range(folio.nr_pages):
            answer.mapcount += page[i]._mapcount
    answer.mapped = nr > 0
    answer.nr_file_mapped = folio.nr_pages if nr >= ENTIRELY_MAPPED else nr


engine = instantiate("nr_pages_mapped", __doc__, {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped"}, {"era": "6.3"})

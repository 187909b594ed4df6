# cython: language_level=3, cdivision=True
"""THP before 6.2: base pages count; PageDoubleMap marks pieces

Claim: page_mapcount() of a base page is one word of its own, however it is mapped.
From: file and shmem THP of Linux before 6.2; replaced by Hugh Dickins, November 2022, for its cost.
State: _refcount of the head; compound_mapcount and the flag PageDoubleMap in page 1; _mapcount of every base page.
Rule: a whole leaf changes _refcount, compound_mapcount and the _mapcount of every base page by 1. A piece of k base
pages changes _refcount and the _mapcount of each of the k by 1, and sets the flag. A whole leaf that finds no base
page mapped clears the flag; nothing else clears it.
Costs: 2 + N atomics on N lines for a whole leaf, 1 + k for a piece. Writes every struct page: the vmemmap
optimisation (HVO) is given up.
Known to be wrong: folio_mapcount() adds up N counts; the flag stays when the last piece has gone; a whole leaf
looks only at base page 0 to know whether it is shared. So does mbind: it does not move a page that is mapped elsewhere
only, and moves one that a second process maps elsewhere. References count leaves, so they differ from the map count
where a 2M leaf stands in a 1G page.
Right: the map count of every base page.
Adapted: the file variant, where hugetlb of that time counted whole mappings only. A 2M leaf in a 1G page, which the
kernel never had, counts as its 512 base pages.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_TAILS
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_mapcount
from hgmcore.schemes.per_page cimport page_counts_add, page_counts_sum


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    cdef hgm_page *page1 = &leaf.folio.page[1]
    cdef uint64_t newly_mapped
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    newly_mapped = page_counts_add(cost, leaf, 1)
    if leaf.whole:
        compound_add(cost, leaf.folio, 1)
        if newly_mapped == leaf.nr_pages:
            hgm_page_flags_clear(page1, HGM_PAGE_DOUBLE_MAP)    # the kernel: plain stores, under the page lock
    elif not page1.flags & HGM_PAGE_DOUBLE_MAP:
        hgm_page_flags_set(page1, HGM_PAGE_DOUBLE_MAP)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if leaf.whole:
        compound_add(cost, leaf.folio, -1)
    page_counts_add(cost, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return folio.page[page]._mapcount


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    cdef int64_t whole = compound_mapcount(folio)
    answer.mapcount = page_counts_sum(folio) + whole - whole * <int64_t>folio.nr_pages
    answer.mapped = answer.mapcount > 0


EXCEPTIONS = {
    "never_false_shared": "definition", "refs_explained": "fault", "moved_when_private": "fault",
    "never_moved_when_shared": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("double_map", __doc__, {"compound": "_entire_mapcount", "double_map": "flags"}, {}, {}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""THP-like: base pages count, and how many have a count

Claim: page_mapcount() means for a huge page mapped in pieces what it means for a THP.
From: "hugetlb: use folio/THP-like map counts", March 2023, James Houghton; THP of Linux 6.2 to 6.9, Hugh Dickins.
State: _refcount of the head; _entire_mapcount and _nr_pages_mapped in page 1; _mapcount of every base page.
_nr_pages_mapped is the number of base pages with a count, plus 0x800000 while a whole leaf is there.
Rule: a whole leaf changes _refcount and _entire_mapcount by 1, and _nr_pages_mapped by 0x800000 when
_entire_mapcount leaves or reaches 0. A piece of k base pages changes _refcount by 1, the _mapcount of each of the k by
1, and _nr_pages_mapped by 1 for each _mapcount that leaves or reaches 0.
Costs: up to 1 + 2k atomics on k lines; collapse of 1G takes back 262144 counts. Writes every struct page: the
vmemmap optimisation (HVO) is given up.
Known to be wrong: references count leaves, so they differ from the sum of the map counts where a 2M leaf stands in
a 1G page; a whole leaf looks only at base page 0 to know whether it is shared, and so does mbind, which does not
move a page that is mapped elsewhere only, and moves one that a second process maps elsewhere.
Right: the map count of every base page.
Adapted: a 2M leaf in a 1G page, which the kernel never had, counts as its 512 base pages.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_TAILS
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.per_page cimport per_page_add, per_page_answer, per_page_mapcount


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    per_page_add(cost, options, leaf, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    per_page_add(cost, options, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return per_page_mapcount(folio, page)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    per_page_answer(folio, answer)


EXCEPTIONS = {
    "never_false_shared": "definition", "refs_explained": "fault", "moved_when_private": "fault",
    "never_moved_when_shared": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("nr_pages_mapped", __doc__,
                     {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped"}, {"era": "6.3"}, {},
                     EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""THP of 6.10 to 6.14: base pages count, and the folio in all

Claim: folio_mapcount() is one read, and tells most folios that are shared from those that are not.
From: THP of Linux 6.10 to 6.14, David Hildenbrand.
State: as nr_pages_mapped, and _large_mapcount in page 1.
Rule: as nr_pages_mapped; besides, _large_mapcount changes by 1 for a whole leaf, by k for a piece of k base pages.
folio_likely_mapped_shared() says no at one mapping or none, yes where a whole leaf is mapped or there are more
mappings than base pages, and else whether base page 0 has more than one mapping.
Costs: up to 2 + 2k atomics on k lines. Writes every struct page: the vmemmap optimisation (HVO) is given up.
Known to be wrong: sharing that misses base page 0 goes unseen. Up to era 6.3 mbind asks that page too: it does not move
a page that is mapped elsewhere only, and moves one that a second process maps elsewhere. From era 6.15 on it moves no
page that has two leaves, whoever maps them. A 2M leaf in a 1G page is one reference and counts as 512, so the two
differ there.
Right: the map count of every base page, and of the folio.
Adapted: to hugetlb, which the kernel leaves out. A 2M leaf in a 1G page, which it never had, counts as its 512 base
pages, and as one reference.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_TAILS
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_mapcount
from hgmcore.schemes.large cimport large_add, large_answer, large_mapcount
from hgmcore.schemes.leaves cimport mappings_of
from hgmcore.schemes.per_page cimport per_page_add, per_page_mapcount, per_page_nr_file_mapped


cdef inline bint likely_mapped_shared(const hgm_folio *folio) noexcept nogil:
    cdef int64_t mapcount = large_mapcount(folio)
    if mapcount <= 1:
        return False
    return compound_mapcount(folio) > 0 or mapcount > <int64_t>folio.nr_pages or folio.page[0]._mapcount > 1


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    per_page_add(cost, options, leaf, 1)
    large_add(cost, leaf.folio, mappings_of(leaf))
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    large_add(cost, leaf.folio, -mappings_of(leaf))
    per_page_add(cost, options, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return per_page_mapcount(folio, page)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    large_answer(folio, answer)
    answer.maybe_shared = likely_mapped_shared(folio)
    answer.nr_file_mapped = per_page_nr_file_mapped(folio)


EXCEPTIONS = {
    "never_false_exclusive": "fault", "refs_explained": "fault", "moved_when_private": "fault",
    "never_moved_when_shared": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("large_mapcount", __doc__,
                     {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped",
                      "large": "_large_mapcount"},
                     {}, {"era": "6.15", "cache_refs": "folio", "batch": "6.12"}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""HGM v2 as posted: base pages count, but no total of them

Claim: page_mapcount() means for a huge page mapped in pieces what it means for a THP.
From: HGM v2, February 2023, James Houghton, with its bugs.
State: _refcount of the head; _entire_mapcount in page 1; _mapcount of every base page. _nr_pages_mapped stays 0.
Rule: a whole leaf changes _refcount and _entire_mapcount by 1. A piece of k base pages changes _refcount by 1, and the
_mapcount of each of the k base pages by 1.
Costs: 1 + k atomics on k lines; collapse of 1G takes back 262144 counts, about a second. Writes every struct page:
the vmemmap optimisation (HVO) is given up.
Known to be wrong: folio_mapcount() and folio_mapped() skip the base pages where _nr_pages_mapped is 0, so a page
that is mapped only in pieces is "not mapped". With overflow_check=after fork's check takes success for failure, and
with model=posted a look-up that is refused keeps its reference for ever. mbind asks base page 0 alone: a page that is
mapped elsewhere only has no sharer and is not moved, and one that a second process maps elsewhere is moved under it.
Memory failure unmaps the whole huge page.
Right: the map count of every base page.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
# As posted, memory failure unmaps the whole huge page, and fork takes the success of its overflow check for failure.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_TAILS
    #define HGM_QUIRKS (HGM_QUIRK_POISONS_WHOLE | HGM_QUIRK_FORK_CHECK_INVERTED)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.per_page cimport page_counts_add


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    if leaf.whole:
        compound_add(cost, leaf.folio, 1)
    else:
        page_counts_add(cost, leaf, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if leaf.whole:
        compound_add(cost, leaf.folio, -1)
    else:
        page_counts_add(cost, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio) + folio.page[page]._mapcount


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "mapped_if_leaf": "fault", "never_false_exclusive": "fault", "refs_explained": "fault",
    "moved_when_private": "fault", "never_moved_when_shared": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("per_page_posted", __doc__, {"entire": "_entire_mapcount"}, {}, {"overflow_check": "after"},
                     EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""Classic hugetlb: the whole huge page is mapped or nothing is

Claim: what Linux does without HGM; the baseline.
From: mainline hugetlb, all versions.
State: _refcount of the head; _entire_mapcount in page 1; from 6.10 (era 6.15) also _large_mapcount, in step.
Rule: a whole leaf installed: reference +1, map +1. A whole leaf removed: reference -1, map -1. Pieces do not exist:
MADV_SPLIT, MADV_COLLAPSE and UFFDIO_CONTINUE of a piece are EINVAL.
Costs: two atomics on two lines for each mapping of a huge page (three with _large_mapcount).
Known to be wrong: two mappings in one process read as shared.
Right: everything else; it only cannot do what HGM is for.
"""
# The engine finds out nothing for this scheme. It refuses every operation that would map a piece, and memory failure
# unmaps the whole huge page.
cdef extern from *:
    """
    #define HGM_NEEDS 0
    #define HGM_QUIRKS (HGM_QUIRK_WHOLE_ONLY | HGM_QUIRK_POISONS_WHOLE)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.large cimport large_add


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, 1)
    compound_add(cost, leaf.folio, 1)
    if options.era >= 615:
        large_add(cost, leaf.folio, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    if options.era >= 615:
        large_add(cost, leaf.folio, -1)
    compound_add(cost, leaf.folio, -1)
    hgm_ref_add(cost, leaf.folio, -1)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)


EXCEPTIONS = {
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("hugetlb", __doc__, {"entire": "_entire_mapcount", "large": "_large_mapcount"}, {}, {}, EXCEPTIONS)

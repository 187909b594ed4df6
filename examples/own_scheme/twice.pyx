# cython: language_level=3
"""Two for each leaf

A scheme outside hgmcore's tree. It counts two in _large_mapcount for each leaf: no use but to show the shape.
"""
# The engine finds out nothing for this scheme.
cdef extern from *:
    """
    #define HGM_NEEDS 0
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_map_add(cost, &leaf.folio.page[1], &leaf.folio.page[1]._large_mapcount, 2)
    return 0    # no HGM_KEEPS: the look-up's reference is put back


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    hgm_map_add(cost, &leaf.folio.page[1], &leaf.folio.page[1]._large_mapcount, -2)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return folio.page[1]._large_mapcount


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    answer.mapcount = folio.page[1]._large_mapcount
    answer.mapped = answer.mapcount > 0


# What the scheme does not promise, as it means something else by it (hgmcore.core.core.PROPERTIES has the names).
EXCEPTIONS = {"page_counts_equal_truth": "definition"}

engine = instantiate("twice", __doc__, {"large": "_large_mapcount"}, {}, {}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""What several schemes ask about a leaf or a subtree."""
from hgmcore.scheme cimport *


cdef inline bint exchanges(uint8_t origin) noexcept nogil:
    """Does the operation put other leaves in a leaf's place? The subtree is one user of the page before and after."""
    return origin == HGM_BY_COLLAPSE or origin == HGM_BY_POISON


cdef inline bint whole_comes(const hgm_leaf *leaf) noexcept nogil:
    """A whole leaf, where its subtree mapped nothing before?"""
    return leaf.whole and not exchanges(leaf.origin)


cdef inline bint whole_goes(const hgm_leaf *leaf) noexcept nogil:
    """A whole leaf, with nothing in its place? A base page that failed has no successor."""
    return leaf.whole and (not exchanges(leaf.origin) or leaf.nr_pages == 1)


cdef inline bint last_leaf_gone(const hgm_subtree *subtree) noexcept nogil:
    return subtree.removed > 0 and subtree.empty


cdef inline int32_t mappings_of(const hgm_leaf *leaf) noexcept nogil:
    """What a leaf, or a run of them, adds to a count of all mappings: 1 if whole, else each base page by itself."""
    return 1 if leaf.whole else <int32_t>(leaf.nr_pages * leaf.count)

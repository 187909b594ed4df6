# cython: language_level=3, cdivision=True
"""Questions that several schemes ask about a leaf or a subtree."""
from hgmcore.scheme cimport *


cdef inline bint exchanges(uint8_t origin) noexcept nogil:
    """True if the operation replaces leaves by other leaves of a subtree, which stays one user of the page."""
    return origin == HGM_BY_COLLAPSE or origin == HGM_BY_POISON


cdef inline bint whole_comes(const hgm_leaf *leaf) noexcept nogil:
    """True if a whole leaf comes that replaces no other leaf."""
    return leaf.whole and not exchanges(leaf.origin)


cdef inline bint whole_goes(const hgm_leaf *leaf) noexcept nogil:
    """True if a whole leaf goes that no leaf replaces. Nothing replaces a failed base page (nr_pages 1)."""
    return leaf.whole and (not exchanges(leaf.origin) or leaf.nr_pages == 1)


cdef inline bint last_leaf_gone(const hgm_subtree *subtree) noexcept nogil:
    """True if this operation removed the subtree's last leaf. `empty` needs HGM_NEEDS_SCAN or HGM_NEEDS_COUNTER."""
    return subtree.removed > 0 and subtree.empty


cdef inline int32_t mappings_of(const hgm_leaf *leaf) noexcept nogil:
    """Mappings of a leaf or a run, as _large_mapcount counts them: 1 if whole, else one for each base page."""
    return 1 if leaf.whole else <int32_t>(leaf.nr_pages * leaf.count)

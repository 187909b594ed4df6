# cython: language_level=3, cdivision=True
"""A tree of counts, whose root says whether there is any

Claim: whether a page is mapped at all is exact and one read, while those who map it write lines of their own; the last
user frees it at once.
From: Scalable NonZero Indicators, Ellen, Lev, Luchangco and Moir, PODC 2007. For folios: derived; a tree of two
levels.
State: _refcount of the head; the root, compound_mapcount in page 1; a node for each process (slots.pxd).
Rule: a leaf installed arrives at the node of its process: the node +1, and where that was 0, before it changes, the
root +1 and the reference +1. A leaf removed departs from the same node: -1, and where it becomes 0, the root -1 and
the reference -1. So the root counts the nodes that are in use: it is not 0 before the first leaf is there, and not 0
as long as one is. Who departs has to know where the other arrived; so a node is for a process, not for a CPU as in the
paper, as a removal knows its process.
Costs: an atomic on the process's own line for each leaf, and two more on two lines for the first and the last of a
process; a CONTINUE still takes and puts back its look-up's reference. A query whether the page is mapped reads page 1;
how many leaves map it nobody can ask. Threads of one process write one node. Published: the paper shows that an arrive
and depart scale with the nodes; no figure here is from it.
Known to be wrong: page_mapcount() of a base page is the number of processes that map any part of the page, also where
nothing maps it. More processes than there are nodes (32, fewer for folios of less than 16 base pages) share nodes, and
two that share one are taken for one. References of others, as pins, fill the same 2^31, and by default nothing checks
them.
Right: whether a page is mapped; who shares it, up to the number of nodes; references agree with the map count; pages 0
to 33 are enough (HVO).
Adapted: the half count of the paper, which makes others help at the root, is not there: the root goes first, and comes
back where another arrived meanwhile.
"""
# The engine looks after the struct pages that have slots. Nodes are for processes by their numbers, so that a search
# exchanges none.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_SLOTS | HGM_NEEDS_NUMBERS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_answer, compound_mapcount
from hgmcore.schemes.slots cimport slot_of


cdef inline int arrive(hgm_cost *cost, const hgm_leaf *leaf, hgm_page *page, int32_t *node) noexcept nogil:
    """The leaf, or a run, arrives; the root first."""
    cdef hgm_cost conflict = hgm_no_cost()
    cdef int32_t n = <int32_t>leaf.count, was
    while True:
        was = node[0]
        if was == 0:
            hgm_ref_add(&conflict, leaf.folio, 1)
            compound_add(&conflict, leaf.folio, 1)
        if hgm_map_swap(cost, page, node, was, was + n):
            cost.ref += was == 0
            cost.map += was == 0
            cost.overflows += conflict.overflows
            return HGM_KEEPS if was == 0 else 0
        if was == 0:    # another thread's leaf came first
            compound_add(&conflict, leaf.folio, -1)
            hgm_ref_add(&conflict, leaf.folio, -1)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    cdef uint32_t slot = slot_of(leaf.folio, leaf.process)
    return arrive(cost, leaf, hgm_slot_page(leaf.folio, slot), hgm_slot(leaf.folio, slot))


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    cdef uint32_t slot = slot_of(leaf.folio, leaf.process)
    if hgm_map_add(cost, hgm_slot_page(leaf.folio, slot), hgm_slot(leaf.folio, slot), -<int32_t>leaf.count) == 0:
        compound_add(cost, leaf.folio, -1)
        hgm_ref_add(cost, leaf.folio, -1)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    compound_answer(folio, answer)
    answer.refs = answer.mapcount


EXCEPTIONS = {
    "page_counts_equal_truth": "definition", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("snzi", __doc__, {"compound": "_entire_mapcount"}, {}, {}, EXCEPTIONS)

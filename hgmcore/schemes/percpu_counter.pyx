# cython: language_level=3, cdivision=True
"""Each CPU counts the maps that it adds and removes

Claim: the map count costs no line that two CPUs write, however many map the page at once.
From: statistical counters of the kernel (this_cpu_inc; struct percpu_counter, lib/percpu_counter.c), the design
count_stat of Paul E. McKenney's perfbook. Nobody has proposed them for folios: derived.
State: _refcount of the head; a slot for each CPU (slots.pxd).
Rule: each leaf installed: reference +1, the slot of the CPU that does it +1. Each leaf removed: reference -1, that of
the CPU that does it -1. The map count is the sum of all slots, each of which may be below 0.
Costs: one atomic for each leaf, on the head, and one plain store. So the reference, which is exact, because its last
user frees the page, stays on a line that all write. A query of the map count reads a line for each CPU. Published, ns
of each of 32 CPUs (AMD EPYC, perfbook's count/data/amd-milan.2024.09.22a): update 3.7, where an atomic on one word
takes 268; read 370, where one word takes 0.7.
Known to be wrong: as head_per_leaf, page_mapcount() of every base page is the number of leaves anywhere; the reference
overflows at 2^31. The sum is of no one moment while other CPUs count.
Right: references agree with the map count; pages 0 to 33 are enough (HVO).
"""
# The engine tells which CPU runs an operation, and looks after the struct pages that have slots.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_CPU | HGM_NEEDS_SLOTS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.slots cimport slot_add, slot_of, slots_sum


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    slot_add(leaf.folio, slot_of(leaf.folio, leaf.cpu), <int32_t>leaf.count)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    slot_add(leaf.folio, slot_of(leaf.folio, leaf.cpu), -<int32_t>leaf.count)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return slots_sum(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    answer.mapcount = slots_sum(folio)
    answer.mapped = answer.mapcount != 0


EXCEPTIONS = {
    "never_false_shared": "definition", "page_counts_equal_truth": "definition", "moved_when_private": "fault",
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("percpu_counter", __doc__, {}, {}, {}, EXCEPTIONS)

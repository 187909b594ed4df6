# cython: language_level=3, cdivision=True
"""References for each CPU, until the kernel needs an exact count

Claim: as long as a page stays in the page cache nobody has to know whether its count is 0; so CPUs count for
themselves, and the count is made exact when the page is to go.
From: struct percpu_ref (lib/percpu-refcount.c), Kent Overstreet, Linux 3.11, there for devices, cgroups and AIO. For
folios: derived.
State: _refcount of the head; in page 1 compound_mapcount, and whether the CPUs count; a slot for each CPU (slots.pxd).
Rule: the first leaf of a page in the page cache takes one reference for all that come (the initial one), and lets the
CPUs count: a leaf installed adds 1 to the slot of its CPU, a leaf removed takes 1 from that of its own. When the page
leaves the page cache or is split, and in truncation and migration, it is killed (percpu_ref_kill()): the slots are
summed into compound_mapcount and, less the initial one, into the reference. From then on, and for a page that is in no
page cache, each leaf is reference +1 and map +1, two atomics. A page that stays in the page cache, as after a
migration that failed, begins anew with the first leaf after its last.
Costs: a plain store for each leaf while CPUs count; a CONTINUE still takes and puts back its look-up's reference. To
kill reads and writes a line for each CPU, and waits for a grace period of RCU in the kernel, which is not modelled. A
query of the map count reads as many lines. Published: percpu_ref as such nothing; an update of one's own count takes
0.35 to 3.8 ns on each of 32 CPUs, where an atomic on one word takes 268 (as percpu_counter).
Known to be wrong: while the CPUs count, the page is "mapped", whether it is or not (percpu_ref_is_zero() says no).
References are one, however many leaves there are, so that they differ from the map count until it is killed. As
head_per_leaf, page_mapcount() of every base page is the number of leaves anywhere. Both counts overflow at 2^31.
Right: the last user frees a page out of the page cache; pages 0 to 33 are enough (HVO).
"""
# The engine tells which CPU runs an operation, looks after the struct pages that have slots, and tells when exact
# counts are due.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_CPU | HGM_NEEDS_SLOTS | HGM_NEEDS_KILL)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_mapcount
from hgmcore.schemes.slots cimport slot_add, slot_of, slots_sum, slots_take


cdef inline int32_t *cpus_count(const hgm_folio *folio) noexcept nogil:
    """1 while the CPUs count (kernel: !__PERCPU_REF_ATOMIC)."""
    return &folio.page[1]._large_mapcount


cdef inline void percpu_ref_kill(hgm_cost *cost, hgm_folio *folio) noexcept nogil:
    """Make the counts exact, if they are not."""
    cdef int32_t leaves
    if not cpus_count(folio)[0]:
        return
    hgm_event_plain(&folio.page[1], 1)
    cpus_count(folio)[0] = 0
    leaves = slots_take(folio)
    if leaves != 0:
        compound_add(cost, folio, leaves)
    if leaves != 1:
        hgm_ref_add(cost, folio, leaves - 1)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    cdef hgm_folio *folio = leaf.folio
    cdef bint first = not cpus_count(folio)[0] and compound_mapcount(folio) == 0 and folio.flags & HGM_FOLIO_CACHED != 0
    if first:    # percpu_ref_init()
        hgm_ref_add(cost, folio, 1)
        hgm_event_plain(&folio.page[1], 1)
        cpus_count(folio)[0] = 1
    if cpus_count(folio)[0]:
        slot_add(folio, slot_of(folio, leaf.cpu), <int32_t>leaf.count)
        return HGM_KEEPS if first else 0
    hgm_ref_add(cost, folio, <int32_t>leaf.count)
    compound_add(cost, folio, <int32_t>leaf.count)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    cdef hgm_folio *folio = leaf.folio
    if leaf.origin == HGM_BY_TRUNCATE or leaf.origin == HGM_BY_MIGRATION:
        percpu_ref_kill(cost, folio)
    if cpus_count(folio)[0]:
        slot_add(folio, slot_of(folio, leaf.cpu), -<int32_t>leaf.count)
        return
    compound_add(cost, folio, -<int32_t>leaf.count)
    hgm_ref_add(cost, folio, -<int32_t>leaf.count)


cdef inline void kill "hgm_kill"(hgm_cost *cost, const hgm_options *options, hgm_folio *folio) noexcept nogil:
    percpu_ref_kill(cost, folio)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio) + slots_sum(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    answer.mapcount = compound_mapcount(folio) + slots_sum(folio)
    answer.mapped = cpus_count(folio)[0] or answer.mapcount > 0
    answer.refs = 1 if cpus_count(folio)[0] else answer.mapcount


EXCEPTIONS = {
    "leaf_if_mapped": "definition", "never_false_shared": "definition", "page_counts_equal_truth": "definition",
    "refs_explained": "definition", "moved_when_private": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("percpu_ref", __doc__, {"compound": "_entire_mapcount", "cpus_count": "_large_mapcount"}, {}, {},
                     EXCEPTIONS)

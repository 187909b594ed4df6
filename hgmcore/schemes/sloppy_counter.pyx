# cython: language_level=3, cdivision=True
"""One count, of which CPUs keep some for themselves

Claim: who maps a page that its CPU has unmapped before writes no shared line.
From: sloppy counters, Boyd-Wickizer and others, "An Analysis of Linux Scalability to Many Cores", OSDI 2010, there for
references of dentries, mounts and routes. For folios: derived.
State: _refcount of the head and compound_mapcount in page 1, which count what is in use and what is spare; a slot for
each CPU (slots.pxd), its spares.
Rule: a leaf installed takes a spare of its CPU, if that has one, else reference +1 and map +1. A leaf removed becomes
a spare of the CPU that does it; where that then has more than 8 (fewer for small folios: a quarter of the base pages),
it gives all back, reference and map. When the page leaves the page cache or is split, and in truncation and migration,
which need exact references, the spares of all CPUs are given back; a page that is in no page cache has none.
Costs: two atomics on two lines for a leaf without a spare, none but a plain store with one; a CONTINUE still takes and
puts back its look-up's reference. A query of the map count reads page 1 and a line for each CPU; to give all back
writes those lines, too. Published: the paper has no figure of a counter alone.
Known to be wrong: as head_per_leaf, page_mapcount() of every base page is the number of leaves anywhere. References
count spares, which no leaf has, and a migration that is refused has given them back all the same. A folio that is in
the page cache does not get free before it leaves that. Both counts overflow at 2^31.
Right: whether a page is mapped at all; the last user frees a page out of the page cache; pages 0 to 33 are enough
(HVO).
"""
# The engine tells which CPU runs an operation, looks after the struct pages that have slots, and tells when exact
# counts are due. Spares matter CPU by CPU, and a search runs each process on a CPU of its own: it exchanges none.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_CPU | HGM_NEEDS_SLOTS | HGM_NEEDS_KILL | HGM_NEEDS_NUMBERS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_mapcount
from hgmcore.schemes.slots cimport slot_add, slot_of, slots_sum, slots_take

cdef enum:
    MOST_SPARE = 8


cdef inline int32_t most_spare(const hgm_folio *folio) noexcept nogil:
    return <int32_t>min(max(folio.nr_pages // 4, <uint64_t>1), <uint64_t>MOST_SPARE)


cdef inline void central_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    if by > 0:
        hgm_ref_add(cost, folio, by)
    if by != 0:
        compound_add(cost, folio, by)
    if by < 0:
        hgm_ref_add(cost, folio, by)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    cdef uint32_t slot = slot_of(leaf.folio, leaf.cpu)
    cdef int32_t n = <int32_t>leaf.count, spare = min(n, hgm_slot(leaf.folio, slot)[0])
    if spare > 0:
        slot_add(leaf.folio, slot, -spare)
    central_add(cost, leaf.folio, n - spare)
    return HGM_KEEPS if n > spare else 0


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    cdef uint32_t slot = slot_of(leaf.folio, leaf.cpu)
    cdef int32_t spare
    if not leaf.folio.flags & HGM_FOLIO_CACHED:
        central_add(cost, leaf.folio, -<int32_t>leaf.count)
        return
    if leaf.origin == HGM_BY_TRUNCATE or leaf.origin == HGM_BY_MIGRATION:
        central_add(cost, leaf.folio, -<int32_t>leaf.count - slots_take(leaf.folio))
        return
    spare = slot_add(leaf.folio, slot, <int32_t>leaf.count)
    if spare > most_spare(leaf.folio):
        slot_add(leaf.folio, slot, -spare)
        central_add(cost, leaf.folio, -spare)


cdef inline void kill "hgm_kill"(hgm_cost *cost, const hgm_options *options, hgm_folio *folio) noexcept nogil:
    central_add(cost, folio, -slots_take(folio))


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return compound_mapcount(folio) - slots_sum(folio)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    answer.mapcount = compound_mapcount(folio) - slots_sum(folio)
    answer.mapped = answer.mapcount > 0
    answer.refs = compound_mapcount(folio)


EXCEPTIONS = {
    "never_false_shared": "definition", "page_counts_equal_truth": "definition", "refs_explained": "definition",
    "moved_when_private": "fault", "refusal_changes_no_count": "definition", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("sloppy_counter", __doc__, {"compound": "_entire_mapcount"}, {}, {}, EXCEPTIONS)

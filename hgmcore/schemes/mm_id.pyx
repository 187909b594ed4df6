# cython: language_level=3, cdivision=True
"""THP of 6.15: as large_mapcount, and two slots for owners

Claim: whether a folio is mapped by one process alone is known exactly, for up to two processes at a time.
From: THP of Linux 6.15 and later, David Hildenbrand, March 2025.
State: as large_mapcount, and in page 1 two slots (_mm_id, _mm_id_mapcount) and a bit: maybe shared.
Rule: as large_mapcount. Under the lock that the change of _large_mapcount takes, a process's mappings also count in
its slot; a process without a slot takes a free one if there is one. The bit is set when a process takes a slot while
others have mappings, and cleared when one slot has all mappings.
Costs: up to 2 + 2k atomics on k lines; the slots cost none of their own. Writes every struct page: the vmemmap
optimisation (HVO) is given up.
Known to be wrong: a third process has no slot and can leave a false "shared" behind, until at most one mapping is
left. mbind goes by the count, as for all hugetlb, and not by the owners: two pieces in one process are not moved. A 2M
leaf in a 1G page is one reference and counts as 512, so the two differ there.
Right: the map count of every base page, and of the folio; who shares it, with two processes.
Adapted: to hugetlb, which the kernel leaves out. A 2M leaf in a 1G page, which it never had, counts as its 512 base
pages, and as one reference.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
# The owners' slots go to the processes that come first: native threads keep the order of operations that could map a
# folio first.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_TAILS | HGM_NEEDS_ORDER)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.large cimport large_answer
from hgmcore.schemes.leaves cimport mappings_of
from hgmcore.schemes.owners cimport owners_add, owners_lock, owners_maybe_shared, owners_sub, owners_unlock
from hgmcore.schemes.per_page cimport per_page_add, per_page_mapcount, per_page_nr_file_mapped


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    per_page_add(cost, options, leaf, 1)
    owners_lock(leaf)
    owners_add(cost, leaf, mappings_of(leaf))
    owners_unlock(leaf)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    owners_sub(cost, leaf.folio, leaf.process, mappings_of(leaf))
    per_page_add(cost, options, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return per_page_mapcount(folio, page)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    large_answer(folio, answer)
    answer.maybe_shared = owners_maybe_shared(folio)
    answer.nr_file_mapped = per_page_nr_file_mapped(folio)


EXCEPTIONS = {
    "never_false_shared": "fault", "refs_explained": "fault", "moved_when_private": "fault",
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("mm_id", __doc__,
                     {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped", "large": "_large_mapcount",
                      "slots": "_mm_id_mapcount", "shared_bit": "_mm_id"},
                     {"era": "6.15"}, {"cache_refs": "folio", "batch": "6.12"}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""RFC of April 2026: entries, and base pages mapped in all

Claim: two words of the folio serve every mix of leaf sizes; neither base pages nor whole leaves need counts.
From: RFC of 12 April 2026, David Hildenbrand.
State: _refcount of the head; in page 1 the number of entries (_large_mapcount), _total_mapped_pages, the two slots
and the bit of mm_id.
Rule: a leaf of any size changes _refcount and the number of entries by 1, and _total_mapped_pages by its base pages.
Slots and bit as mm_id, but a slot counts entries. page_mapcount() is _total_mapped_pages over N: rounded, and at least
1 while anything is mapped.
Costs: two atomics on two lines for each leaf; the total changes under the lock that the change of the entries
takes.
Known to be wrong: page_mapcount() of all that is not mapped evenly; a third process can leave a false "shared"
behind; references and entries overflow after 8192 mappings of a 1G page by 4K. mbind goes by the count, as for all
hugetlb, and not by the owners: two pieces in one process are not moved.
Right: the folio's map count, which agrees with the references for leaves of every size; who shares it, with two
processes; pages 0 and 1 are enough (HVO).
Adapted: to hugetlb, for which the RFC lets the total be the map count.
"""
# The owners' slots go to the processes that come first: native threads keep the order of operations that could map a
# folio first.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_ORDER
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.large cimport large_answer
from hgmcore.schemes.owners cimport (
    average_mapcount, owners_add, owners_lock, owners_maybe_shared, owners_sub, owners_unlock
)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    owners_lock(leaf)
    owners_add(cost, leaf, <int32_t>leaf.count)
    hgm_event_plain(&leaf.folio.page[1], 1)
    leaf.folio.page[1]._total_mapped_pages += <int64_t>(leaf.nr_pages * leaf.count)
    owners_unlock(leaf)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    owners_sub(cost, leaf.folio, leaf.process, <int32_t>leaf.count)
    hgm_event_plain(&leaf.folio.page[1], 1)
    leaf.folio.page[1]._total_mapped_pages -= <int64_t>(leaf.nr_pages * leaf.count)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return average_mapcount(folio, folio.page[1]._total_mapped_pages)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    large_answer(folio, answer)
    answer.maybe_shared = owners_maybe_shared(folio)


EXCEPTIONS = {
    "never_false_shared": "fault", "page_counts_equal_truth": "definition", "moved_when_private": "fault",
    "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("total_mapped_pages", __doc__,
                     {"entries": "_large_mapcount", "total_pages": "_total_mapped_pages", "slots": "_mm_id_mapcount",
                      "shared_bit": "_mm_id"},
                     {"era": "6.15"}, {"cache_refs": "folio", "batch": "6.12"}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""THP of 6.15 with NO_PAGE_MAPCOUNT: only folio and owners

Claim: no base page needs a count; an average will do where one is asked for.
From: Linux 6.15 and later with CONFIG_NO_PAGE_MAPCOUNT, David Hildenbrand, March 2025.
State: _refcount of the head; in page 1 _entire_mapcount, _large_mapcount, the two slots and the bit of mm_id.
Rule: a whole leaf changes _refcount, _entire_mapcount and _large_mapcount by 1. A piece of k base pages changes
_refcount by 1 and _large_mapcount by k. Slots and bit as mm_id. page_mapcount() is the average over all N base pages of
how often each is mapped: rounded, and at least 1 while anything is mapped.
Costs: two atomics on two lines for a piece, three for a whole leaf.
Known to be wrong: page_mapcount() of all that is not mapped evenly; NR_FILE_MAPPED has all N base pages from the
first piece to the last; a third process can leave a false "shared" behind. mbind goes by the count, as for
all hugetlb, and not by the owners: two pieces in one process are not moved. A 2M leaf in a 1G page is one reference and
counts as 512, so the two differ there.
Right: the folio's map count; who shares it, with two processes; pages 0 and 1 are enough (HVO).
Adapted: to hugetlb, which the kernel leaves out. A 2M leaf in a 1G page, which it never had, counts as its 512 base
pages, and as one reference.
"""
# The owners' slots go to the processes that come first: native threads keep the order of operations that could map a
# folio first.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_ORDER
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_add, compound_mapcount
from hgmcore.schemes.large cimport large_answer, large_mapcount
from hgmcore.schemes.leaves cimport mappings_of
from hgmcore.schemes.owners cimport (
    average_mapcount, owners_add, owners_lock, owners_maybe_shared, owners_sub, owners_unlock
)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    if leaf.whole:
        compound_add(cost, leaf.folio, 1)
    owners_lock(leaf)
    owners_add(cost, leaf, mappings_of(leaf))
    owners_unlock(leaf)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    owners_sub(cost, leaf.folio, leaf.process, mappings_of(leaf))
    if leaf.whole:
        compound_add(cost, leaf.folio, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    cdef int64_t whole = compound_mapcount(folio)
    return average_mapcount(folio, whole * <int64_t>folio.nr_pages + large_mapcount(folio) - whole)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    large_answer(folio, answer)
    answer.maybe_shared = owners_maybe_shared(folio)
    answer.nr_file_mapped = <int64_t>folio.nr_pages if answer.mapped else 0


EXCEPTIONS = {
    "never_false_shared": "fault", "page_counts_equal_truth": "definition", "refs_explained": "fault",
    "moved_when_private": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("no_page_mapcount", __doc__,
                     {"entire": "_entire_mapcount", "large": "_large_mapcount", "slots": "_mm_id_mapcount",
                      "shared_bit": "_mm_id"},
                     {"era": "6.15"}, {"cache_refs": "folio", "batch": "6.12"}, EXCEPTIONS)

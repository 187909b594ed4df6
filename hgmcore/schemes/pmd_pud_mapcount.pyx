# cython: language_level=3, cdivision=True
"""A map count for each level: PMD entries, PUD entries, and all entries

Claim: folios larger than what a PMD entry maps can be mapped by PMD entries, without a count on any base page.
From: the LSF/MM/BPF topic on removing CONFIG_PAGE_MAPCOUNT, David Hildenbrand, 17 February 2026: _entire_mapcount
becomes _pmd_mapcount and _pud_mapcount. The RFC of April 2026 took total_mapped_pages instead.
State: _refcount of the head; in page 1 _pmd_mapcount (where _entire_mapcount is), _pud_mapcount (where
_nr_pages_mapped was), _large_mapcount, the two slots and the bit of mm_id.
Rule: each entry that maps a part of the folio changes _large_mapcount by 1, whatever its level; one of the PMD or PUD
level its level's count, too. A leaf changes _refcount by 1. Slots and bit as mm_id, but a slot counts entries. A
contiguous group counts as its entries. page_mapcount() is the average over all N base pages, of entries times
what an entry of their level maps: rounded, and at least 1 while anything is mapped.
Costs: two atomics on two lines for a piece of PTEs, three for a leaf of a higher level.
Known to be wrong: page_mapcount() of all that is not mapped evenly; NR_FILE_MAPPED has all N base pages from the
first piece to the last; a third process can leave a false "shared" behind. mbind goes by the count, as for
all hugetlb, and not by the owners: two pieces in one process are not moved. A contiguous group is one reference and
counts as its entries, so the two differ there.
Right: the folio's number of entries at each level; who shares it, with two processes; pages 0 and 1 are enough (HVO).
Adapted: to hugetlb, which the topic leaves out. The topic names the two words and no more: that _large_mapcount has
every entry once is derived from Linux 6.15, where it has a PMD entry once, and so is the average.
"""
# The owners' slots go to the processes that come first: native threads keep the order of operations that could map a
# folio first.
cdef extern from *:
    """
    #define HGM_NEEDS HGM_NEEDS_ORDER
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.compound cimport compound_mapcount
from hgmcore.schemes.large cimport large_answer, large_mapcount
from hgmcore.schemes.owners cimport (
    average_mapcount, owners_add, owners_lock, owners_maybe_shared, owners_sub, owners_unlock
)


cdef inline int32_t level_add(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf,
                              int32_t by) noexcept nogil:
    """The entries of a leaf or a run. The word of their level, if it has one, changes by as many; `by` is 1 or -1."""
    cdef hgm_page *page1 = &leaf.folio.page[1]
    cdef int order = options.pmd_order
    cdef int32_t entries
    if leaf.nr_pages >> order == 0:
        return <int32_t>(leaf.nr_pages * leaf.count)
    if leaf.nr_pages >> 2 * order == 0:
        entries = <int32_t>((leaf.nr_pages >> order) * leaf.count)
        hgm_map_add(cost, page1, &page1._entire_mapcount, by * entries)
    else:
        entries = <int32_t>((leaf.nr_pages >> 2 * order) * leaf.count)
        hgm_map_add(cost, page1, &page1._nr_pages_mapped, by * entries)
    return entries


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    cdef int32_t entries = level_add(cost, options, leaf, 1)
    owners_lock(leaf)
    owners_add(cost, leaf, entries)
    owners_unlock(leaf)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    owners_sub(cost, leaf.folio, leaf.process, level_add(cost, options, leaf, -1))
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    cdef int64_t pmds = compound_mapcount(folio), puds = folio.page[1]._nr_pages_mapped
    cdef int64_t ptes = large_mapcount(folio) - pmds - puds
    return average_mapcount(folio, ptes + (pmds << options.pmd_order) + (puds << 2 * options.pmd_order))


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

engine = instantiate("pmd_pud_mapcount", __doc__,
                     {"pmd": "_entire_mapcount", "pud": "_nr_pages_mapped", "large": "_large_mapcount",
                      "slots": "_mm_id_mapcount", "shared_bit": "_mm_id"},
                     {"era": "6.15"}, {"cache_refs": "folio", "batch": "6.12"}, EXCEPTIONS)

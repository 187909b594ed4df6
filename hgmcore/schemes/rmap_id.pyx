# cython: language_level=3, cdivision=True
"""November 2023: sums of process numbers tell one owner from several

Claim: whether a folio is mapped by one process alone is known exactly, for any number of processes, in a few words.
From: "mm: precise "mapped shared" vs. "mapped exclusively" detection", David Hildenbrand, 24 November 2023, patches 2
to 20 on 6.7-rc1 (20231124132626.235350-1-david@redhat.com). Not merged: mm_id took its place.
State: as large_mapcount (_large_mapcount was _total_mapcount); in page 1 a count of writers that are at it; in page 3,
where there is one, rmap_values sums of 64 bits.
Rule: as large_mapcount; besides, a process has a sub-number for each sum, and each mapping adds the sub-numbers of its
process. Where all mappings are of one process, each sum is its sub-number times _large_mapcount, and no other
processes' sub-numbers add up to that while mappings are not more than base pages: a sub-number is a number of zeros
and ones to a base that is greater than the folio's base pages. With more mappings than base pages the folio is shared.
Costs: a call of the kernel's rmap code, for a leaf or a run, takes 3 + rmap_values atomics more than nr_pages_mapped:
two for the writers' count, one for _large_mapcount, and the sums. With rmap_exclusive=tracked a writer that finds no
other changes all but the writers' count by plain stores, with "all" the counts of base pages too; rmap_batch=split
makes the pieces of a PMD that is split one call. A query reads 2 + rmap_values words. Writes every struct page: the
vmemmap optimisation (HVO) is given up.
Known to be wrong: a process that maps a page twice has more mappings than base pages, and is "shared". mbind goes by
the count, as for all hugetlb: two pieces in one process are not moved. A 2M leaf in a 1G page is one reference and
counts as 512, so the two differ there.
Right: the map count of every base page, and of the folio; who shares it, with however many processes.
Adapted: to hugetlb, and to folios of more than 1024 base pages, for which the posting had five and six sums. The base
of a sub-number is then the folio's base pages + 1, and it has fewer digits, so that with huge pages of 1G only 4096
processes, or 512 with three sums, differ. For three sums the posting takes 8 digits, whose sum can overflow; here they
are 7. The kernel's sequence number, which tells readers that they met a writer, is a count of writers here.
"""
# The scheme counts on every struct page: the engine prefetches the struct pages ahead of a walk, and option hvo=on
# refuses the scheme.
# The sums are made of the numbers of processes: a search exchanges no processes.
# The engine tells of the pieces of a split PMD as one run, where option rmap_batch says so.
cdef extern from *:
    """
    #define HGM_NEEDS (HGM_NEEDS_TAILS | HGM_NEEDS_NUMBERS | HGM_NEEDS_SPLITS)
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *
from hgmcore.schemes.large cimport large_answer
from hgmcore.schemes.leaves cimport mappings_of
from hgmcore.schemes.per_page cimport ENTIRELY_MAPPED, per_page_mapcount, per_page_nr_file_mapped
from hgmcore.schemes.rmap_sums cimport sums_add, sums_of_one_process


cdef inline int32_t count_add(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf, hgm_page *page,
                              int32_t *word, int32_t by) noexcept nogil:
    """A count of a base page, or of them: plain if all that a lone writer changes is."""
    if options.rmap_exclusive == HGM_EXCLUSIVE_ALL:
        return hgm_map_add_alone(cost, page, word, by, leaf.threads)
    return hgm_map_add(cost, page, word, by)


cdef inline void pages_add(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf, int32_t by) noexcept nogil:
    """As per_page_add(), but that _nr_pages_mapped changes page by page up to batch=6.9 in a split's run, too."""
    cdef hgm_page *page = leaf.folio.page
    cdef int32_t at_edge = by > 0, n = 0
    cdef uint64_t i
    if leaf.whole:
        if count_add(cost, options, leaf, &page[1], &page[1]._entire_mapcount, by) == at_edge:
            count_add(cost, options, leaf, &page[1], &page[1]._nr_pages_mapped, by * ENTIRELY_MAPPED)
        return
    for i in range(leaf.first, leaf.first + leaf.nr_pages * leaf.count):
        if count_add(cost, options, leaf, &page[i], &page[i]._mapcount, by) != at_edge:
            continue
        n += 1
        if options.batch != HGM_BATCH_6_12 or leaf.count == 1:
            count_add(cost, options, leaf, &page[1], &page[1]._nr_pages_mapped, by)
    if n > 0 and options.batch == HGM_BATCH_6_12 and leaf.count > 1:
        count_add(cost, options, leaf, &page[1], &page[1]._nr_pages_mapped, by * n)


cdef inline void rmap_call(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf, int32_t by) noexcept nogil:
    """A leaf, or a run of them, comes (`by` is 1) or goes (-1): one call of the kernel's rmap code."""
    cdef hgm_page *page1 = &leaf.folio.page[1]
    cdef int32_t mappings = by * mappings_of(leaf)
    hgm_map_add(cost, page1, &page1._rmap_atomic_seqcount, 1)
    pages_add(cost, options, leaf, by)
    if options.rmap_exclusive:
        hgm_map_add_alone(cost, page1, &page1._large_mapcount, mappings, leaf.threads)
    else:
        hgm_map_add(cost, page1, &page1._large_mapcount, mappings)
    sums_add(cost, options, leaf, mappings)
    hgm_map_add(cost, page1, &page1._rmap_atomic_seqcount, -1)


cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_ref_add(cost, leaf.folio, <int32_t>leaf.count)
    rmap_call(cost, options, leaf, 1)
    return HGM_KEEPS


cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    rmap_call(cost, options, leaf, -1)
    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)


cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return per_page_mapcount(folio, page)


cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    large_answer(folio, answer)
    answer.maybe_shared = answer.mapcount > <int64_t>folio.nr_pages or (
        answer.mapcount > 0 and not sums_of_one_process(options, folio, answer.mapcount))
    answer.nr_file_mapped = per_page_nr_file_mapped(folio)


EXCEPTIONS = {
    "never_false_shared": "fault", "refs_explained": "fault", "moved_when_private": "fault", "overflow_safe": "fault"
}
"""What the scheme does not promise: by definition, or for a fault that is described above."""

engine = instantiate("rmap_id", __doc__,
                     {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped", "large": "_large_mapcount"},
                     {"era": "6.15"}, {"cache_refs": "folio"}, EXCEPTIONS)

# cython: language_level=3, cdivision=True
"""The sums of rmap_id (kernel, as posted in November 2023: mm/rmap_id.c).

A process's number, from 1 on, is cut into groups of bits, one for each sum. Read as a number to a base greater than the
folio's base pages, a group is the sub-number that each mapping of the process adds to its sum. So a sum is one count
for each bit, side by side, which do not run into each other while the mappings are not more than the base pages:

    folio of 4 pages, base 5      sum, by digits      process 1: 1 = 00001      process 3: 11 = 00011
    two mappings of process 1     00002               each digit is 0 or 2: all of one process
    one of 1 and one of 3         00012               not so: of several
"""
from hgmcore.scheme cimport *

cdef extern from * nogil:
    int __builtin_clzll(unsigned long long)


cdef inline uint64_t sums_base(const hgm_options *options, const hgm_folio *folio) noexcept nogil:
    """Four sums are for folios of up to 1024 base pages, three for up to 512."""
    return max(folio.nr_pages, <uint64_t>1024 if options.rmap_values == 4 else <uint64_t>512) + 1


cdef inline int sums_digits(const hgm_options *options, const hgm_folio *folio) noexcept nogil:
    """Bits of a process's number in each sum: digits that 64 bits hold."""
    if folio.nr_pages > (<uint64_t>1024 if options.rmap_values == 4 else <uint64_t>512):
        return 64 // (64 - __builtin_clzll(folio.nr_pages + 1))
    return 6 if options.rmap_values == 4 else 7


cdef inline uint64_t sub_number(uint64_t base, uint32_t group) noexcept nogil:
    cdef uint64_t number = 0, digit = 1
    while group:
        if group & 1:
            number += digit
        digit *= base
        group >>= 1
    return number


cdef inline hgm_page *sums_page(const hgm_folio *folio) noexcept nogil:
    return &folio.page[3 if folio.nr_pages > 3 else 1]


cdef inline int64_t *sum_at(hgm_page *page, int i) noexcept nogil:
    if i == 0:
        return &page._rmap_val0
    if i == 1:
        return &page._rmap_val1
    return &page._rmap_val2 if i == 2 else &page._rmap_val3


cdef inline void sums_add(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf,
                          int64_t mappings) noexcept nogil:
    """`mappings` more (less, below 0) of the leaf's process."""
    cdef hgm_page *page = sums_page(leaf.folio)
    cdef uint64_t base = sums_base(options, leaf.folio)
    cdef int digits = sums_digits(options, leaf.folio), i
    cdef uint32_t number = leaf.process + 1
    for i in range(options.rmap_values):
        hgm_sum_add(cost, page, sum_at(page, i),
                    mappings * <int64_t>sub_number(base, number & ((<uint32_t>1 << digits) - 1)),
                    options.rmap_exclusive != HGM_EXCLUSIVE_NO, leaf.threads)
        number >>= digits


cdef inline bint sums_of_one_process(const hgm_options *options, const hgm_folio *folio,
                                     int64_t mapcount) noexcept nogil:
    """Are all `mapcount` mappings, not more than base pages, of one process?"""
    cdef hgm_page *page = sums_page(folio)
    cdef uint64_t base = sums_base(options, folio), sum, digit
    cdef int i
    for i in range(options.rmap_values):
        sum = <uint64_t>sum_at(page, i)[0]
        while sum:
            digit = sum % base
            if digit != 0 and digit != <uint64_t>mapcount:
                return False
            sum //= base
    return True

# cython: language_level=3, cdivision=True
"""Who owns a folio's mappings, from 6.15 (kernel: include/linux/rmap.h, CONFIG_MM_ID), and the average that stands in
for counts of base pages.

Page 1 has two slots, each a process (_mm_id) and how many of the folio's mappings are its own (_mm_id_mapcount), and
a bit, "maybe shared". Process numbers from 0 are ids from 1; id 0 is a free slot.

     63            62                                 32  31            30                                  0
    +-------------+-------------------------------------+-------------+-------------------------------------+
    | shared      | _mm_id[1]: id                       | lock        | _mm_id[0]: id                       |
    +-------------+-------------------------------------+-------------+-------------------------------------+

In the kernel a change costs one atomic, which takes the lock; _large_mapcount is a plain word under it. Where no other
thread can change the folio, the simulator does that atomic on _large_mapcount itself and leaves the lock bit 0; all
other words are changed by plain stores.

Where the kernel stores n - 1 for n mappings, this file stores n, so the kernel's conditions read:

    kernel, raw                                          here
    take a free slot with        n - 1                   n
    slot 0: shared if            large != n - 1          large != n
    slot stays taken while       count >= 0              count >= 1
    slot freed with              -1                      0
    not shared if                count == large          count == large (of either slot; all unmapped: 0 == 0)
"""
from hgmcore.core.lock cimport hgm_mm_id_set_word, hgm_mm_id_word, hgm_mm_ids_lock, hgm_mm_ids_unlock
from hgmcore.scheme cimport *
from hgmcore.schemes.large cimport large_add, large_add_locked, large_mapcount

cdef enum:
    UPDATE = 2           # plain stores of each change, in the kernel: _large_mapcount under the lock, and the unlocking
    NOBODY = 0
    ID = 0x7fffffff


cdef inline uint32_t owner(const hgm_page *page1, int slot) noexcept nogil:
    return hgm_mm_id_word(page1, slot) & <uint32_t>ID


cdef inline int owner_slot(const hgm_page *page1, uint32_t id) noexcept nogil:
    """The first slot of `id`, or -1."""
    return 0 if owner(page1, 0) == id else 1 if owner(page1, 1) == id else -1


cdef inline void slot_set(hgm_page *page1, int slot, uint32_t id, int32_t count) noexcept nogil:
    hgm_mm_id_set_word(page1, slot, hgm_mm_id_word(page1, slot) & ~<uint32_t>ID | id)
    page1._mm_id_mapcount[slot] = count


cdef inline bint shared_bit(const hgm_page *page1) noexcept nogil:
    return page1._mm_id[1] > <uint32_t>ID


cdef inline void shared_bit_set(hgm_page *page1) noexcept nogil:
    page1._mm_id[1] |= ~<uint32_t>ID


cdef inline void shared_bit_clear(hgm_page *page1) noexcept nogil:
    page1._mm_id[1] &= <uint32_t>ID


cdef inline void owners_lock(const hgm_leaf *leaf) noexcept nogil:
    if leaf.threads:
        hgm_mm_ids_lock(&leaf.folio.page[1])


cdef inline void owners_unlock(const hgm_leaf *leaf) noexcept nogil:
    if leaf.threads:
        hgm_mm_ids_unlock(&leaf.folio.page[1])


cdef inline void owners_add(hgm_cost *cost, const hgm_leaf *leaf, int32_t n) noexcept nogil:
    """The leaf's process gets `n` more mappings of the folio. Under owners_lock."""
    cdef hgm_folio *folio = leaf.folio
    cdef uint32_t process = leaf.process
    cdef hgm_page *page1 = &folio.page[1]
    cdef int32_t large = large_add_locked(cost, folio, n) if leaf.threads else large_add(cost, folio, n)
    cdef int slot = owner_slot(page1, process + 1)
    hgm_event_plain(page1, UPDATE)
    if slot >= 0:
        hgm_event_plain(page1, 1)
        page1._mm_id_mapcount[slot] += n
        return
    slot = owner_slot(page1, NOBODY)
    if slot >= 0:
        hgm_event_plain(page1, 2)
        slot_set(page1, slot, process + 1, n)
        if slot == 1 or large != n:    # another process has mappings
            hgm_event_plain(page1, not shared_bit(page1))
            shared_bit_set(page1)


cdef inline void owners_sub(hgm_cost *cost, hgm_folio *folio, uint32_t process, int32_t n) noexcept nogil:
    """The process loses `n` of its mappings of the folio."""
    cdef hgm_page *page1 = &folio.page[1]
    cdef int32_t large = large_add(cost, folio, -n)
    cdef int slot = owner_slot(page1, process + 1)
    hgm_event_plain(page1, UPDATE)
    if slot >= 0:
        hgm_event_plain(page1, 1)
        page1._mm_id_mapcount[slot] -= n
        if page1._mm_id_mapcount[slot] >= 1:
            return
        hgm_event_plain(page1, 1)
        slot_set(page1, slot, NOBODY, 0)
    if page1._mm_id_mapcount[0] == large or page1._mm_id_mapcount[1] == large:
        hgm_event_plain(page1, shared_bit(page1))
        shared_bit_clear(page1)


cdef inline bint owners_maybe_shared(const hgm_folio *folio) noexcept nogil:
    """folio_maybe_mapped_shared() of a folio that is not hugetlb. A folio of a single page does not use the bit."""
    return large_mapcount(folio) > 1 and (folio.nr_pages == 1 or shared_bit(&folio.page[1]))


cdef inline int64_t average_mapcount(const hgm_folio *folio, int64_t pages_mapped) noexcept nogil:
    """folio_average_page_mapcount(): `pages_mapped`, the maps of all base pages, over N; rounded, 0 only for 0."""
    cdef int64_t n = <int64_t>folio.nr_pages
    if pages_mapped <= 0:
        return 0
    return max((pages_mapped + n // 2) // n, <int64_t>1)

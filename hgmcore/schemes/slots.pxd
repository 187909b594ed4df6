# cython: language_level=3, cdivision=True
"""Slots (hgm.h): counts that a folio has once for each CPU, or for each process.

CPUs and processes beyond the slots share: their number is taken modulo these. In the kernel they would be memory of
each CPU (alloc_percpu), as many as there are CPUs that are possible.
"""
from hgmcore.scheme cimport *


cdef inline uint32_t slot_of(const hgm_folio *folio, uint32_t number) noexcept nogil:
    """The slot of a CPU or a process."""
    return number % hgm_nr_slots(folio)


cdef inline int32_t slot_add(const hgm_folio *folio, uint32_t slot, int32_t by) noexcept nogil:
    """A CPU changes its own slot; returns its new value."""
    return hgm_slot_add(hgm_slot_page(folio, slot), hgm_slot(folio, slot), by)


cdef inline int32_t slots_sum(const hgm_folio *folio) noexcept nogil:
    """What a reader does: one line for each CPU."""
    cdef uint32_t sum = 0, slot
    for slot in range(hgm_nr_slots(folio)):
        sum += <uint32_t>hgm_slot(folio, slot)[0]
    return <int32_t>sum


cdef inline int32_t slots_take(const hgm_folio *folio) noexcept nogil:
    """Empty all slots, of all CPUs; returns what they came to."""
    cdef int32_t sum = slots_sum(folio)
    cdef uint32_t slot
    for slot in range(hgm_nr_slots(folio)):
        if hgm_slot(folio, slot)[0] != 0:
            slot_add(folio, slot, -hgm_slot(folio, slot)[0])
    return sum

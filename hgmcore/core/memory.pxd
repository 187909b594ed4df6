# cython: language_level=3
"""Regions: arrays that grow in place.

A machine reserves address space once, and each region has a part of it. So pointers into a region stay valid while the
region grows, its memory reads as zero, and the system commits only what somebody touches.
"""
from libc.string cimport memset

cdef extern from "hgmcore/host.h" nogil:
    void *address_space "hgm_host_reserve"(size_t size)
    int munmap(void *addr, size_t length)
    int host_touched "hgm_host_touched"(void *base, size_t size, unsigned char *pages)
    int hgm_host_commit(void *base, size_t size, bint huge)
    void hgm_host_zero(void *base, size_t size)
    long sysconf(int name)
    const int _SC_PAGESIZE

cdef inline size_t host_page() noexcept nogil:
    """Bytes of a page of the machine that this program runs on."""
    return <size_t>sysconf(_SC_PAGESIZE)

cdef enum:
    LARGE = 1 << 28    # bytes from which on memory is given back to the system, not zeroed: what is there stays warm

cdef struct Region:
    unsigned char *base
    size_t used          # bytes handed out
    size_t reserved      # bytes of address space

cdef inline void region_place(Region *region, unsigned char **at, size_t size) noexcept nogil:
    """Give the region the next `size` bytes of a reservation, and move `at` behind them."""
    region.base = at[0]
    region.used = 0
    region.reserved = size
    at[0] += size

cdef inline bint region_grow(Region *region, size_t used) noexcept nogil:
    """Hand out the first `used` bytes. False where the reservation ends."""
    if used > region.reserved:
        return False
    region.used = used
    return True

cdef inline void region_cut(Region *region, size_t used, bint keep) noexcept nogil:
    """Take back what lies behind the first `used` bytes: when it is handed out again it reads as zero.

    keep: none of it goes back to the system, so that it can be handed out again without asking for memory.
    """
    cdef size_t whole = (used + LARGE - 1) & ~<size_t>(LARGE - 1)
    if region.used > used:
        if region.used > whole + LARGE and not keep:    # more than a few pages: the system takes them
            memset(region.base + used, 0, whole - used)
            hgm_host_zero(region.base + whole, region.used - whole)
        else:
            memset(region.base + used, 0, region.used - used)
    region.used = used

cdef inline bint region_prefault(Region *region, size_t size) noexcept nogil:
    """Commit the first `size` bytes, in huge pages where the system has them. False: it refuses."""
    if size > region.reserved:
        return False
    return hgm_host_commit(region.base, size, True) == 0

cdef inline void region_populate(Region *region, size_t *populated) noexcept nogil:
    """Commit memory ahead of `used`, a sixteenth of it at most 1M, so that faults come in batches.

    populated: bytes committed so far. Where the system cannot, pages are committed as they are touched.
    """
    cdef size_t ahead = min(region.used // 16, <size_t>1 << 20) & ~<size_t>4095
    cdef size_t end = min(region.used + ahead, region.reserved) & ~<size_t>4095
    if region.used > populated[0] and end > populated[0]:
        hgm_host_commit(region.base + populated[0], end - populated[0], False)
        populated[0] = end

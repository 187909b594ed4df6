# cython: language_level=3
"""Regions: arrays that grow in place.

A region reserves address space once and makes it usable piece by piece, so that pointers into it stay valid
while it grows, its memory reads as zero, and what nobody touches is never committed.
"""
from libc.stdint cimport uintptr_t

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void *addr, size_t length)
    int mprotect(void *addr, size_t length, int prot)
    int madvise(void *addr, size_t length, int advice)
    int mincore(void *addr, size_t length, unsigned char *vec)
    const int PROT_NONE, PROT_READ, PROT_WRITE
    const int MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    const int MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_POPULATE_WRITE
    void *MAP_FAILED

cdef extern from *:
    """
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23    /* Linux 5.14 */
    #endif
    """

cdef enum:
    GROWTH = 4 << 20     # bytes made usable at a time

cdef struct Region:
    unsigned char *base
    size_t used          # bytes handed out
    size_t usable        # bytes that may be touched
    size_t reserved      # bytes of address space

cdef inline bint region_reserve(Region *region, size_t size) noexcept nogil:
    """Reserve `size` bytes of address space. False where the system refuses."""
    cdef void *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return False
    madvise(base, size, MADV_NOHUGEPAGE)    # small pages: what is not touched is not committed
    region.base = <unsigned char *>base
    region.used = 0
    region.usable = 0
    region.reserved = size
    return True

cdef inline void region_release(Region *region) noexcept nogil:
    if region.base is not NULL:
        munmap(region.base, region.reserved)
        region.base = NULL

cdef inline bint region_usable(Region *region, size_t size) noexcept nogil:
    """Make at least the first `size` bytes usable. False where the reservation ends or the system refuses."""
    cdef size_t usable
    if size > region.usable:
        usable = (size + GROWTH - 1) // GROWTH * GROWTH
        if usable > region.reserved or mprotect(region.base, usable, PROT_READ | PROT_WRITE) != 0:
            return False
        region.usable = usable
    return True

cdef inline bint region_grow(Region *region, size_t used) noexcept nogil:
    """Make the first `used` bytes usable. False where the reservation ends or the system refuses."""
    if not region_usable(region, used):
        return False
    region.used = used
    return True

cdef inline bint region_prefault(Region *region, size_t size) noexcept nogil:
    """Commit the first `size` bytes, in huge pages where the system has them. False: it refuses."""
    if size > region.reserved or not region_usable(region, size):
        return False
    madvise(region.base, size, MADV_HUGEPAGE)
    return madvise(region.base, size, MADV_POPULATE_WRITE) == 0

cdef inline void region_populate(Region *region, size_t *populated) noexcept nogil:
    """Commit memory ahead of `used`, a sixteenth of it at most 1M, so that faults come in batches.

    populated: bytes committed so far. Where the system cannot, pages are committed as they are touched.
    """
    cdef size_t ahead = min(region.used // 16, <size_t>1 << 20) & ~<size_t>4095
    cdef size_t end = min(region.used + ahead, region.usable) & ~<size_t>4095
    if region.used > populated[0] and end > populated[0]:
        madvise(region.base + populated[0], end - populated[0], MADV_POPULATE_WRITE)
        populated[0] = end

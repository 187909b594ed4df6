# cython: language_level=3
"""Regions: arrays that grow in place.

A machine reserves address space once, and each region has a part of it. So pointers into a region stay valid while the
region grows, its memory reads as zero, and the system commits only what somebody touches.
"""
from libc.string cimport memset

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void *addr, size_t length)
    int madvise(void *addr, size_t length, int advice)
    int mincore(void *addr, size_t length, unsigned char *vec)
    const int PROT_READ, PROT_WRITE
    const int MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    const int MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_POPULATE_WRITE
    void *MAP_FAILED

cdef extern from *:
    """
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23    /* Linux 5.14 */
    #endif
    """

cdef extern from "<unistd.h>" nogil:
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

cdef inline void *address_space(size_t size) noexcept nogil:
    """Reserve `size` bytes of address space that read as zero; NULL where the system refuses.

    Nothing is committed before it is touched, and then in small pages: an unused struct page takes nothing.
    """
    cdef void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return NULL
    madvise(base, size, MADV_NOHUGEPAGE)
    return base

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
            madvise(region.base + whole, region.used - whole, MADV_DONTNEED)
        else:
            memset(region.base + used, 0, region.used - used)
    region.used = used

cdef inline bint region_prefault(Region *region, size_t size) noexcept nogil:
    """Commit the first `size` bytes, in huge pages where the system has them. False: it refuses."""
    if size > region.reserved:
        return False
    madvise(region.base, size, MADV_HUGEPAGE)
    return madvise(region.base, size, MADV_POPULATE_WRITE) == 0

cdef inline void region_populate(Region *region, size_t *populated) noexcept nogil:
    """Commit memory ahead of `used`, a sixteenth of it at most 1M, so that faults come in batches.

    populated: bytes committed so far. Where the system cannot, pages are committed as they are touched.
    """
    cdef size_t ahead = min(region.used // 16, <size_t>1 << 20) & ~<size_t>4095
    cdef size_t end = min(region.used + ahead, region.reserved) & ~<size_t>4095
    if region.used > populated[0] and end > populated[0]:
        madvise(region.base + populated[0], end - populated[0], MADV_POPULATE_WRITE)
        populated[0] = end

# cython: language_level=3
"""One operation at a time from Cython, without Python objects (test_doors.py)."""
from hgmcore.hgm cimport *
from hgmcore.library cimport hgm_mapping_continue, hgm_mapping_continue_unchecked, machine_of

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    const int CLOCK_THREAD_CPUTIME_ID


def each(machine, uint64_t pages, bint checked):
    """Nanoseconds of this thread's CPU time for each continue of 4K, in order. ValueError: one did less."""
    cdef hgm_machine *m = machine_of(machine)
    cdef uint64_t i
    cdef int64_t done = 0
    cdef timespec start, stop
    with nogil:
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
        if checked:
            for i in range(pages):
                done += hgm_mapping_continue(m, 0, i << 12, 4096)
        else:
            for i in range(pages):
                done += hgm_mapping_continue_unchecked(m, 0, i << 12, 4096)
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &stop)
    if done != <int64_t>(pages << 12):
        raise ValueError(f"{done} bytes done of {pages << 12}")
    return ((stop.tv_sec - start.tv_sec) * 1e9 + (stop.tv_nsec - start.tv_nsec)) / pages

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Loops that time single events on the processor that runs them, in CPU time of the thread: parts of `calibrate`.

Each loop runs `n` times over memory that the caller made and populated; what stands in it is part of the loop.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <sched.h>
    #include <stdint.h>
    #include <sys/resource.h>
    #include <time.h>

    #ifndef RUSAGE_THREAD
    #define RUSAGE_THREAD 1
    #endif

    typedef struct { int32_t word[16]; } loop_line;		/* as a struct page */

    #define TAIL 12		/* byte 48 */

    static int64_t loop_now(clockid_t clock)
    {
        struct timespec t;

        clock_gettime(clock, &t);
        return t.tv_sec * 1000000000ll + t.tv_nsec;
    }

    static int64_t loop_disturbed(void)
    {
        struct rusage use;

        getrusage(RUSAGE_THREAD, &use);
        return use.ru_nivcsw + use.ru_minflt + use.ru_majflt;
    }

    #define ADD(place) __atomic_fetch_add(place, 1, __ATOMIC_RELAXED)
    #define HERE(place) __asm__ __volatile__("" : "+m" (*(place)))	/* the compiler keeps each store */

    static void loop_atomic(loop_line *lines, uint64_t n)
    {
        for (uint64_t i = 0; i < n; i++)
            ADD(&lines[0].word[TAIL]);
    }

    static void loop_cas(loop_line *lines, uint64_t n)
    {
        for (uint64_t i = 0; i < n; i++) {
            int32_t old = __atomic_load_n(&lines[0].word[TAIL], __ATOMIC_RELAXED);

            __atomic_compare_exchange_n(&lines[0].word[TAIL], &old, old + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        }
    }

    static void loop_tail(loop_line *lines, uint64_t n)
    {
        for (uint64_t i = 0; i < n; i++)
            ADD(&lines[i].word[TAIL]);
    }

    static void loop_plain(loop_line *lines, uint64_t n)	/* an atomic, and four plain adds on its line */
    {
        int32_t *word = lines[0].word;

        for (uint64_t i = 0; i < n; i++) {
            ADD(&word[TAIL]);
            for (int j = 0; j < 4; j++) {
                word[j]++;
                HERE(&word[j]);
            }
        }
    }

    static void loop_lock(loop_line *lines, uint64_t n)
    {
        for (uint64_t i = 0; i < n; i++) {
            while (__atomic_exchange_n(&lines[0].word[0], 1, __ATOMIC_ACQUIRE))
                ;
            __atomic_store_n(&lines[0].word[0], 0, __ATOMIC_RELEASE);
        }
    }

    static void loop_hot_twice(loop_line *lines, uint64_t n)
    {
        for (uint64_t i = 0; i < n; i++) {
            ADD(&lines[0].word[TAIL]);
            ADD(&lines[1].word[TAIL]);
        }
    }

    /* word[1] of line i is where line i leads to: all lines are one ring, in random order */
    static void loop_far_overlapped(loop_line *lines, uint64_t n, const uint32_t *order)
    {
        for (uint64_t i = 0; i < n; i++) {
            ADD(&lines[0].word[TAIL]);
            ADD(&lines[order[i]].word[TAIL]);
        }
    }

    static void loop_far_dependent(loop_line *lines, uint64_t n, uint32_t at)
    {
        for (uint64_t i = 0; i < n; i++) {
            ADD(&lines[0].word[TAIL]);
            at = (uint32_t)__atomic_fetch_add(&lines[at].word[1], 0, __ATOMIC_RELAXED);
        }
        HERE(&lines[at].word[2]);
    }

    static void loop_scan(const uint64_t *entries, uint64_t n)	/* `n` tables of 512 entries, none present */
    {
        for (uint64_t i = 0; i < n; i++)
            for (int j = 0; j < 512; j++) {
                uint64_t entry = ((const volatile uint64_t *)entries)[j];

                if (entry & 0x80)
                    return;
            }
    }

    static int loop_meet(int32_t *here, int32_t threads)	/* 0: the others did not come within 50 ms */
    {
        int64_t end = loop_now(CLOCK_MONOTONIC) + 50000000;

        ADD(here);
        while (__atomic_load_n(here, __ATOMIC_ACQUIRE) < threads)
            if (loop_now(CLOCK_MONOTONIC) > end)
                return 0;
        return 1;
    }
    """
    ctypedef struct loop_line:
        pass
    int64_t loop_now(int clock) nogil
    int64_t loop_disturbed() nogil
    void loop_atomic(loop_line *lines, uint64_t n) nogil
    void loop_cas(loop_line *lines, uint64_t n) nogil
    void loop_tail(loop_line *lines, uint64_t n) nogil
    void loop_plain(loop_line *lines, uint64_t n) nogil
    void loop_lock(loop_line *lines, uint64_t n) nogil
    void loop_hot_twice(loop_line *lines, uint64_t n) nogil
    void loop_far_overlapped(loop_line *lines, uint64_t n, const uint32_t *order) nogil
    void loop_far_dependent(loop_line *lines, uint64_t n, uint32_t at) nogil
    void loop_scan(const uint64_t *entries, uint64_t n) nogil
    bint loop_meet(int *here, int threads) nogil

cdef extern from "<time.h>" nogil:
    const int CLOCK_THREAD_CPUTIME_ID
    const int CLOCK_MONOTONIC

LINE = 64
"""Bytes of a line."""

LOOPS = ("atomic", "cas", "tail", "plain", "lock", "hot_twice", "far_overlapped", "far_dependent", "scan")
"""Names that `run` takes."""


def run(str name, unsigned char[::1] memory, uint64_t n, const uint32_t[::1] order=None):
    """(ns of this thread's CPU time for one turn, disturbed) of `n` turns of a loop.

    memory: lines, as many as the loop needs. order: of "far_overlapped", `n` numbers of lines; of "far_dependent", the
    line to begin with. disturbed: a page fault or an involuntary switch came in between. ValueError: no such loop, or
    too little memory.
    """
    cdef loop_line *lines = <loop_line *>&memory[0]
    cdef int which = LOOPS.index(name) if name in LOOPS else -1
    cdef int64_t before, start, stop
    if which < 0:
        raise ValueError(f"no loop '{name}' (known: {', '.join(LOOPS)})")
    if memory.shape[0] < (n * LINE if name == "tail" else 4096) or n < 1:
        raise ValueError(f"loop {name}: {memory.shape[0]} bytes are too few for {n} turns")
    if name.startswith("far") and (order is None or <uint64_t>order.shape[0] < (n if name == "far_overlapped" else 1)):
        raise ValueError(f"loop {name}: an order of lines is missing")
    with nogil:
        before = loop_disturbed()
        start = loop_now(CLOCK_THREAD_CPUTIME_ID)
        if which == 0:
            loop_atomic(lines, n)
        elif which == 1:
            loop_cas(lines, n)
        elif which == 2:
            loop_tail(lines, n)
        elif which == 3:
            loop_plain(lines, n)
        elif which == 4:
            loop_lock(lines, n)
        elif which == 5:
            loop_hot_twice(lines, n)
        elif which == 6:
            loop_far_overlapped(lines, n, &order[0])
        elif which == 7:
            loop_far_dependent(lines, n, order[0])
        else:
            loop_scan(<const uint64_t *>lines, n)
        stop = loop_now(CLOCK_THREAD_CPUTIME_ID)
        before = loop_disturbed() - before
    return (stop - start) / <double>n, before != 0


def ring(unsigned char[::1] memory, const uint32_t[::1] order):
    """Link the lines of `memory` to one ring in that order, for "far_dependent"; order: a permutation that begins with
    line 0."""
    cdef loop_line *lines = <loop_line *>&memory[0]
    cdef int *words = <int *>lines
    cdef uint64_t i, n = order.shape[0]
    for i in range(n):
        words[<uint64_t>order[i] * 16 + 1] = <int>order[(i + 1) % n]


def together(unsigned char[::1] line, unsigned char[::1] meeting, int threads, uint64_t n):
    """`n` atomics on one line while `threads` threads do the same.

    Returns (wall start, wall stop, CPU time), ns, or None where the others did not come. meeting: a zeroed line.
    """
    cdef loop_line *lines = <loop_line *>&line[0]
    cdef int64_t start, stop, used
    cdef bint met
    with nogil:
        met = loop_meet(<int *>&meeting[0], threads)
        if met:
            used = loop_now(CLOCK_THREAD_CPUTIME_ID)
            start = loop_now(CLOCK_MONOTONIC)
            loop_atomic(lines, n)
            stop = loop_now(CLOCK_MONOTONIC)
            used = loop_now(CLOCK_THREAD_CPUTIME_ID) - used
    return (start, stop, used) if met else None

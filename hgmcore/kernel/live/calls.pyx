# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""System calls and faults in series, timed without a line of Python between two of them.

Nothing is imported, so that a bare interpreter can load this module.

Times are CPU time of the thread in ns, with whether a switch to another program came in between.
"""
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <signal.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <time.h>
    #include <unistd.h>

    #ifndef RUSAGE_THREAD
    #define RUSAGE_THREAD 1
    #endif

    static int64_t calls_now(void)
    {
        struct timespec t;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return t.tv_sec * 1000000000ll + t.tv_nsec;
    }

    static int64_t calls_switches(void)
    {
        struct rusage use;

        getrusage(RUSAGE_THREAD, &use);
        return use.ru_nivcsw;
    }

    static const long CALLS[] = { SYS_madvise, SYS_munmap, SYS_mprotect, SYS_ioctl };

    /* n calls; argument `moves` is `step` more each time; returns how many failed */
    static int64_t calls_series(int call, long a, long b, long c, int moves, long step, int64_t n)
    {
        int64_t failed = 0;

        for (int64_t i = 0; i < n; i++) {
            failed += syscall(CALLS[call], a, b, c) < 0;
            a += moves == 0 ? step : 0;
            c += moves == 2 ? step : 0;
        }
        return failed;
    }

    static void calls_touch(uintptr_t address, long step, int64_t n, int write)
    {
        for (int64_t i = 0; i < n; i++, address += step) {
            volatile char *at = (volatile char *)address;

            if (write)
                *at = 1;
            else
                (void)*at;
        }
    }

    static void calls_fill(uintptr_t address, int64_t n)
    {
        for (int64_t i = 0; i < n; i++, address += 4096)
            memset((void *)address, (int)i, 4096);
    }

    static int64_t calls_fork(void)	/* ns of the parent's side, -1 where it fails; the child ends at once */
    {
        int64_t start = calls_now();
        long pid = syscall(SYS_clone, (long)SIGCHLD, 0l, 0l, 0l, 0l);

        if (pid == 0)
            _exit(0);
        start = calls_now() - start;
        if (pid > 0)
            waitpid(pid, NULL, 0);
        return pid > 0 ? start : -1;
    }
    """
    int64_t calls_now() nogil
    int64_t calls_switches() nogil
    int64_t calls_series(int call, long a, long b, long c, int moves, long step, int64_t n) nogil
    void calls_touch(size_t address, long step, int64_t n, int write) nogil
    void calls_fill(size_t address, int64_t n) nogil
    int64_t calls_fork() nogil

NAMES = ("madvise", "munmap", "mprotect", "ioctl")
"""System calls that `series` takes."""


def address(unsigned char[::1] memory):
    """Where memory begins."""
    return <size_t>&memory[0]


def series(str name, arguments, int64_t n, long step, int moves=0):
    """(ns of one, disturbed, how many failed) of `n` calls; argument number `moves`, 0 or 2, grows by `step` each time.
    """
    cdef int call = NAMES.index(name)
    cdef long a, b, c
    cdef int64_t switches, ns, failed
    a, b, c = arguments
    with nogil:
        switches = calls_switches()
        ns = calls_now()
        failed = calls_series(call, a, b, c, moves, step, n)
        ns = calls_now() - ns
        switches = calls_switches() - switches
    return ns / <double>n, switches != 0, failed


def touch(size_t address, int64_t n, long step, bint write):
    """(ns of one, disturbed) of `n` accesses of a byte each `step` bytes. A bad address ends the program."""
    cdef int64_t switches, ns
    with nogil:
        switches = calls_switches()
        ns = calls_now()
        calls_touch(address, step, n, write)
        ns = calls_now() - ns
        switches = calls_switches() - switches
    return ns / <double>n, switches != 0


def fill(size_t address, int64_t n):
    """(ns of one, disturbed) of writing all of `n` pages of 4K. A bad address ends the program."""
    cdef int64_t switches, ns
    with nogil:
        switches = calls_switches()
        ns = calls_now()
        calls_fill(address, n)
        ns = calls_now() - ns
        switches = calls_switches() - switches
    return ns / <double>n, switches != 0


def fork():
    """(ns of the parent's CPU time, disturbed) of a fork whose child ends at once. OSError."""
    cdef int64_t switches, ns
    with nogil:
        switches = calls_switches()
        ns = calls_fork()
        switches = calls_switches() - switches
    if ns < 0:
        raise OSError("fork failed")
    return <double>ns, switches != 0

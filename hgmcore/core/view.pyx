# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""View: a core's machine as one native thread sees it while others work on it too."""
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.core.lock cimport hgm_meet
from hgmcore.core.machine cimport BY_ATOMICS, Machine
from hgmcore.core.memory cimport address_space, munmap, region_grow, region_place

import numpy as np

from hgmcore.core.machine import RESULT

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    const int CLOCK_MONOTONIC


cdef uint64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * <uint64_t>1000000000 + t.tv_nsec


cdef class View:
    """A copy of the core's machine with costs and results of its own; tables, folios and counts are the core's.

    operations: the records that it will run, as bytes: `continue`, `touch` and `dontneed` only (others change what the
    copy has). views: how many run at the same time. together: several of them fill some of the same huge pages. Nothing
    else may use the core between the making of a stretch's views and their join().
    """
    cdef Machine m
    cdef Core core
    cdef const unsigned char[::1] operations
    cdef uint32_t views
    cdef readonly uint64_t start, stop
    """When it ran, in nanoseconds of CLOCK_MONOTONIC."""

    def __cinit__(self, Core core, const unsigned char[::1] operations, uint32_t views, bint together):
        cdef Machine *m = &self.m
        cdef uint64_t i, n = operations.shape[0] // sizeof(hgm_operation)
        cdef const hgm_operation *op
        cdef unsigned char *results
        core.mutexes()
        m[0] = core.m
        memset(&m.context.results, 0, sizeof(m.context.results))
        memset(&m.context.cost, 0, sizeof(m.context.cost))
        m.context.touched = NULL    # marked below, by one thread
        m.context.nr_results = m.context.table_allocs = m.context.table_frees = 0
        m.context.nr_tables_peak = m.state.nr_tables
        self.core = core
        self.operations = operations
        self.views = views
        if together and m.config.options.locks == HGM_LOCKS_NONE:
            m.context.exclusion = BY_ATOMICS
        for i in range(n):
            op = <const hgm_operation *>&operations[0] + i
            if op.op not in (HGM_OP_CONTINUE, HGM_OP_TOUCH, HGM_OP_DONTNEED) or op.target >= m.state.nr_mappings:
                raise ValueError(f"record {i}: no operation that runs beside others, or of no declared mapping")
        if n and core.m.context.touched is not NULL:
            core.m.context.touched.mark(&core.m, <const hgm_operation *>&operations[0], n)
        results = <unsigned char *>address_space((n + 1) * sizeof(hgm_result))
        if results is NULL:
            raise MemoryError("no address space for the results of a thread")
        region_place(&m.context.results, &results, (n + 1) * sizeof(hgm_result))

    def __dealloc__(self):
        if self.m.context.results.base is not NULL:
            munmap(self.m.context.results.base, self.m.context.results.reserved)

    def run(self, Engine engine):
        """Run the operations, while other threads run other views. MemoryError as from Core.run.

        ValueError: the engine only counts (hgmcore.counting), and so adds without atomics.
        """
        cdef uint64_t n = self.operations.shape[0] // sizeof(hgm_operation), done = 0
        self.core.fits(engine)
        self.m.config.options.scheme = self.core.m.config.options.scheme
        if engine.alone:
            raise ValueError(f"engine {engine.name} was compiled with HGM_ALONE: one thread alone can run it")
        with nogil:
            hgm_meet(&self.m.context.owner.context.ready, self.views)
            self.start = now()
            if n:
                done = engine.run(&self.m, <const hgm_operation *>&self.operations[0], n, 0)
            self.stop = now()
        if done:
            self.core.obeyed(engine, <const hgm_operation *>&self.operations[0] + done - 1, done - 1)
        if self.m.context.out_of_memory:
            raise MemoryError("no memory for page tables or struct pages")

    def results(self):
        """As Core.results, with indices from 0 for the first of the view's own operations."""
        cdef unsigned char[:] out
        rows = np.empty(self.m.context.nr_results, RESULT)
        if len(rows):
            out = rows.view(np.uint8)
            memcpy(&out[0], self.m.context.results.base, self.m.context.nr_results * sizeof(hgm_result))
        return rows


def join(Core core, views, results):
    """Add to the core what the operations of all its views came to: their costs, and `results`, an array of RESULT.

    The peak of page tables is the largest that it can have been, as nobody knows which thread's moment came first.
    """
    cdef Machine *m = &core.m
    cdef View view
    cdef uint64_t before = m.state.nr_tables, peak = before, n = len(results)
    cdef const unsigned char[::1] rows = np.ascontiguousarray(results, RESULT).view(np.uint8)
    for view in views:
        hgm_cost_add(&m.context.cost, &view.m.context.cost)
        m.context.table_allocs += view.m.context.table_allocs
        m.context.table_frees += view.m.context.table_frees
        m.state.nr_tables += view.m.state.nr_tables - before
        peak += view.m.context.nr_tables_peak - before
    m.context.nr_tables_peak = max(m.context.nr_tables_peak, peak)
    m.context.ready = 0
    if n:
        if not region_grow(&m.context.results, (m.context.nr_results + n) * sizeof(hgm_result)):
            raise MemoryError("no memory for results")
        memcpy(m.context.results.base + m.context.nr_results * sizeof(hgm_result), &rows[0], n * sizeof(hgm_result))
        m.context.nr_results += n

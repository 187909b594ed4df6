# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Events: what each operation of a machine comes to in the classes of events that the cost model prices.

Exact, and the same on every machine: nothing here reads a clock or an address of the host. Only an engine that was
compiled with HGM_COUNTING (hgmcore.counting) counts events.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.core.lock cimport FAULT_MUTEXES, LINE as LINE_BYTES
from hgmcore.core.machine cimport ANON, HUGETLB, Machine
from hgmcore.core.memory cimport address_space, munmap
from hgmcore.core.records cimport Records, records_of

import numpy as np

NAMES = ("atomic", "plain", "step", "stat", "far", "moved_blind", "moved_read", "scan", "table_alloc", "table_free",
         "copy", "installs", "removes", "freed", "reused", "split_deferred", "batched", "handoffs")
"""Fields of EVENTS, in the order of hgm_event_counts, whose comments say what each counts."""

EVENTS = np.dtype([(name, "u8") for name in NAMES])
"""dtype of what one operation comes to (Events.run)."""

LINE = np.dtype([("cpus", "u8"), ("updates", "u8"), ("stamp", "u4"), ("cpu", "u2"), ("deferred", "u2")])
"""dtype of a struct page's line (hgm_line): who wrote it and how often."""

cdef enum:
    MAX_CPUS = 1 << 15
    NO_LINE = -2         # the line before none


cdef class Events:
    """Counts the events of one machine's operations.

    core: the machine; engine: one that counts events. lines: how many struct-page lines a CPU has near, its L2 cache
    divided by 64. cpus: how many CPUs run operations. ValueError: a number is out of range, or the engine counts none.
    """
    cdef Core core
    cdef Engine engine
    cdef hgm_events events
    cdef size_t size
    cdef uint64_t frames    # that there were at most
    cdef unsigned char *kinds
    cdef readonly uint32_t cpus

    def __cinit__(self, Core core, Engine engine, uint32_t lines, uint32_t cpus=1):
        cdef Machine *m = &core.m
        core.fits(engine)
        if engine.count_into is NULL:
            raise ValueError(f"engine {engine.name} was compiled without HGM_COUNTING: it counts no events")
        if not 1 <= cpus <= MAX_CPUS:
            raise ValueError(f"cpus: {cpus} is not 1 to {MAX_CPUS}")
        if lines < 1:
            raise ValueError("lines: a CPU has one line near at least")
        self.core, self.engine, self.cpus = core, engine, cpus
        self.events.near = lines
        self.size = m.state.vmemmap.reserved // sizeof(hgm_page) * sizeof(hgm_line)
        self.events.lines = <hgm_line *>address_space(self.size)
        self.events.fetched = <uint64_t *>calloc(cpus, sizeof(uint64_t))
        if self.events.lines is NULL or self.events.fetched is NULL:
            raise MemoryError(f"no address space for the lines of {self.size // sizeof(hgm_line)} struct pages")
        self.forget_writers()

    def __dealloc__(self):
        if self.events.lines is not NULL:
            munmap(self.events.lines, self.size)
        free(self.events.fetched)
        free(self.kinds)

    cdef int known_files(self) except -1:
        """Which files' folios have a statistic of mapped pages."""
        cdef Machine *m = &self.core.m
        cdef uint32_t i
        free(self.kinds)
        self.kinds = <unsigned char *>calloc(m.state.nr_files + 1, 1)
        if self.kinds is NULL:
            raise MemoryError("no memory for the kinds of files")
        for i in range(m.state.nr_files):
            self.kinds[i] = (HGM_NO_STATISTIC if m.state.files[i].kind == HUGETLB
                             else HGM_ANON_STATISTIC if m.state.files[i].kind == ANON else HGM_FILE_STATISTIC)
        self.events.kinds = self.kinds
        self.events.pages = <const hgm_page *>m.state.vmemmap.base
        return 0

    def forget_writers(self):
        """No CPU has written a line yet; what is near stays. So begins the second of two equal runs."""
        cdef uint64_t i
        for i in range(self.frames):
            if self.events.lines[i].stamp:    # else it was never written
                self.events.lines[i].cpu = self.events.lines[i].deferred = 0
                self.events.lines[i].cpus = self.events.lines[i].updates = 0
        if self.core.m.context.fault_mutexes is not NULL:
            for i in range(FAULT_MUTEXES):
                self.core.m.context.fault_mutexes[i * (LINE_BYTES // sizeof(uint32_t)) + 1] = 0
        for i in range(self.cpus):
            self.events.fetched[i] = <uint64_t>NO_LINE

    def run(self, operations, const unsigned short[::1] cpu=None, uint64_t index=0):
        """Run records as Core.run_each() does: an array of EVENTS, one row a record.

        operations: an array of statements.OPERATION, or Records. cpu: number of the CPU that runs each record, below
        `cpus`; None: all run on CPU 0. Errors: Core.run().
        """
        cdef Machine *m = &self.core.m
        cdef Records records = records_of(operations)
        cdef uint64_t n = records.n, i = 0
        cdef hgm_cost *cost = &m.context.cost
        cdef hgm_events *e = &self.events
        cdef uint64_t locks, scanned, allocs, frees, installs, removes
        cdef hgm_event_counts *row
        cdef unsigned char[::1] out
        self.core.idle()
        rows = np.zeros(n, EVENTS)
        if n == 0:
            return rows
        if cpu is not None:
            while i < min(n, <uint64_t>cpu.shape[0]) and cpu[i] < self.cpus:
                i += 1
            if i < n or <uint64_t>cpu.shape[0] != n:
                raise ValueError(f"cpu: not a number below {self.cpus} for each record")
            i = 0
        records.check(m, index)
        self.known_files()
        m.context.tails |= self.engine.dirties_tails
        m.context.out_of_memory = False
        out = rows.view(np.uint8)
        row = <hgm_event_counts *>&out[0]
        self.core.enter()
        with nogil:
            self.engine.count_into(e)
            while i < n and not m.context.out_of_memory:
                locks, scanned = cost.locks, cost.entries_scanned
                installs, removes = cost.leaf_installs, cost.leaf_removes
                allocs, frees = m.context.table_allocs, m.context.table_frees
                memset(&e.counts, 0, sizeof(hgm_event_counts))
                e.cpu = m.context.cpu = cpu[i] if cpu is not None else 0
                e.operation += 1
                self.engine.run(m, &records.first[i], 1, index + i)
                row[i] = e.counts
                row[i].atomic += cost.locks - locks
                row[i].scan = cost.entries_scanned - scanned
                row[i].table_alloc = m.context.table_allocs - allocs
                row[i].table_free += m.context.table_frees - frees
                row[i].installs = cost.leaf_installs - installs
                row[i].removes = cost.leaf_removes - removes
                i += 1
            self.engine.count_into(NULL)
        self.core.leave()
        self.frames = max(self.frames, m.state.next_pfn)
        if m.context.out_of_memory:
            raise MemoryError(f"no memory for page tables, struct pages or results at operation {index + i - 1}")
        return rows

    def lines(self):
        """The line of every struct page, an array of LINE by frame number (a copy)."""
        cdef uint64_t n = self.core.m.state.next_pfn
        cdef unsigned char[::1] out
        lines = np.zeros(n, LINE)
        if n:
            out = lines.view(np.uint8)
            memcpy(&out[0], self.events.lines, n * sizeof(hgm_line))
        return lines

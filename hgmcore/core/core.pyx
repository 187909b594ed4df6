# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Engine and Core: one scheme's interpreter, and a machine that runs records with it."""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from hgmcore.core.folio cimport folio_at
from hgmcore.core.records cimport data_of, Records, records_of
from hgmcore.core.touched cimport touched_start, touched_take
from hgmcore.hgm cimport *

import numpy as np

from hgmcore.sizes import format_size

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    const int CLOCK_THREAD_CPUTIME_ID

cdef enum:
    UNINTERRUPTED = 1 << 16    # records between two looks for signals

EACH = np.dtype([("ref", "u8"), ("map", "u8"), ("transient", "u8"), ("scanned", "u8"), ("leaves", "u8")])
"""dtype of what records cost (Core.run_each): atomics, page-table entries scanned, leaves installed and removed."""

ANSWER = np.dtype([("mapcount", "i8"), ("refs", "i8"), ("sharers", "i8"), ("nr_file_mapped", "i8"), ("mapped", "?"),
                   ("maybe_shared", "?"), ("movable", "?"), ("unused", "V5")])
"""dtype of what the scheme answers about a folio (Core.answers)."""

cdef struct Answer:
    long long mapcount
    long long refs
    long long sharers
    long long nr_file_mapped
    unsigned char mapped
    unsigned char maybe_shared
    unsigned char movable
    unsigned char unused[5]

cdef struct Each:
    uint64_t ref
    uint64_t map
    uint64_t transient
    uint64_t scanned
    uint64_t leaves

PROPERTIES = (
    "never_freed_while_mapped", "never_freed_while_held", "no_leak_at_end", "mapped_if_leaf", "leaf_if_mapped",
    "never_false_exclusive", "never_false_shared", "page_counts_equal_truth", "refs_explained", "no_underflow",
    "counts_bounded", "migration_succeeds_when_unpinned", "moved_when_private", "never_moved_when_shared",
    "truncate_completes", "refusal_changes_no_count", "overflow_safe",
)
"""What a scheme promises where its own file states no exception (Engine.exceptions)."""


cdef dict checked_exceptions(dict exceptions):
    """The exceptions of a scheme if each names a property and its kind. ValueError."""
    for name, kind in exceptions.items():
        if name not in PROPERTIES or kind not in ("definition", "fault"):
            raise ValueError(f"exceptions: '{name}': '{kind}' is no property with 'definition' or 'fault' "
                             f"(properties: {', '.join(PROPERTIES)})")
    return exceptions


cdef class Engine:
    """One accounting scheme with the whole engine compiled around it (hgmcore.schemes.load gives them).

    name: public name. explanation: the scheme's documentation; its first line is a summary. state: the words that it
    keeps, as fields of PAGE in page 1 of a folio. defaults: options whose default differs from the general one.
    posted: the options that model=posted selects. exceptions: properties that the scheme does not promise, each
    "definition" or "fault". whole_only: maps whole huge pages or nothing. writes_tails: counts on struct pages that HVO
    takes away. alone: adds without atomics, so one thread alone can run it. scans: may read page-table entries to find
    out what it wants to know. first_come: its state shows which process was the first to map a huge page.
    """

    def __repr__(self):
        return f"<hgmcore engine {self.name}>"


cdef str most_memory(const Machine *m):
    """The simulated memory that a machine has struct pages for, in words."""
    cdef uint64_t frames = m.state.vmemmap.reserved // sizeof(hgm_page)
    return format_size(frames << m.config.geometry.base_shift >> 20 << 20)


cdef uint64_t known(Core core, Engine engine, const unsigned int[::1] folios) except? 0xffffffffffff:
    """How many `folios` are asked for. IndexError: one of them is none."""
    cdef uint64_t i
    core.fits(engine)
    for i in range(<uint64_t>folios.shape[0]):
        if folios[i] >= core.m.state.nr_folios:
            raise IndexError(f"no folio {folios[i]}")
    return folios.shape[0]


cdef class Core(Contents):
    """One machine that engines run arrays of operation records on, one thread at a time. Parameters: Contents."""

    cdef int fits(self, Engine engine) except -1:
        """ImportError unless the engine was compiled for machines of this layout; both layouts are named."""
        if engine is None or engine.run is NULL:
            raise TypeError("an engine is what a scheme's module gives (hgmcore.schemes.load), not an empty Engine")
        if engine.abi != self.m.abi or engine.machine_size != self.m.size:
            raise ImportError(f"scheme {engine.name} was compiled for HGM_ABI {engine.abi}, machines of "
                              f"{engine.machine_size} bytes; this hgmcore has HGM_ABI {self.m.abi}, machines of "
                              f"{self.m.size} bytes: compile the scheme anew")
        return 0

    cdef int idle(self) except -1:
        """RuntimeError while another thread runs the machine: one thread at a time, or views of it (view.pyx)."""
        if self.busy:
            raise RuntimeError("another thread uses this machine")
        return 0

    def run(self, Engine engine, operations, uint64_t index=0) -> int:
        """Run operation records (Records, or an array of statements.OPERATION), the first of number `index`.

        Returns nanoseconds of this thread's CPU time. ValueError: a number in a record was never declared; nothing is
        run. RuntimeError: another thread runs the machine. MemoryError: there is no more memory or address space; the
        operations up to there are done, and the machine stays usable.
        """
        cdef Machine *m = &self.m
        cdef Records records = records_of(operations)
        cdef uint64_t n = records.n, done = 0, some
        cdef timespec start, stop
        self.fits(engine)
        self.idle()
        self.ran = 0
        if n == 0:
            return 0
        self.busy = True    # before the check, which lets other threads in
        try:
            records.check(m, index)
            m.context.tails |= engine.writes_tails
            m.context.out_of_memory = False
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
            while done < n and not m.context.out_of_memory:
                some = min(n - done, <uint64_t>UNINTERRUPTED)
                with nogil:
                    done += engine.run(m, records.first + done, some, index + done)
                PyErr_CheckSignals()
        finally:
            self.busy = False
            self.ran = done
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &stop)
        if m.context.out_of_memory:
            raise MemoryError("no memory for page tables, struct pages or results at operation "
                              f"{index + (done - 1 if done else 0)}; the machine has {self.reserved} bytes of "
                              f"address space, enough for {most_memory(m)} of simulated memory")
        return (stop.tv_sec - start.tv_sec) * 1000000000 + stop.tv_nsec - start.tv_nsec

    def run_each(self, Engine engine, operations, uint64_t index=0, stops=None):
        """Run records as run() does, part by part, and count what each part costs: an array of EACH, one row a part.

        stops: the numbers of records behind which a part ends, ascending, the last that of all; None: behind each.
        Results and counts are those of run(); the time is not, as no record profits from the part before its own.
        Errors: run(); ValueError: `stops` are not such numbers.
        """
        cdef Machine *m = &self.m
        cdef Records records = records_of(operations)
        cdef uint64_t n = records.n, i = 0, part = 0
        cdef hgm_cost before
        cdef Each *row
        cdef const uint64_t *ends
        self.fits(engine)
        self.idle()
        self.ran = 0
        stops = np.arange(1, n + 1, dtype=np.uint64) if stops is None else np.ascontiguousarray(stops, np.uint64)
        if (np.diff(stops.astype(np.int64)) <= 0).any() or stops.max(initial=0) != n or stops.min(initial=1) == 0:
            raise ValueError(f"stops: not ascending numbers of records of which the last is {n}")
        rows = np.zeros(len(stops), EACH)
        if n == 0:
            return rows
        self.busy = True    # before the check, which lets other threads in
        try:
            records.check(m, index)
        except ValueError:
            self.busy = False
            raise
        m.context.tails |= engine.writes_tails
        m.context.out_of_memory = False
        ends = <const uint64_t *>data_of(stops, False)
        row = <Each *>data_of(rows, True)
        with nogil:
            while i < n and not m.context.out_of_memory:
                before = m.context.cost
                i += engine.run(m, &records.first[i], ends[part] - i, index + i)
                row[part].ref = m.context.cost.ref - before.ref
                row[part].map = m.context.cost.map - before.map
                row[part].transient = m.context.cost.transient - before.transient
                row[part].scanned = m.context.cost.entries_scanned - before.entries_scanned
                row[part].leaves = (m.context.cost.leaf_installs - before.leaf_installs
                                    + m.context.cost.leaf_removes - before.leaf_removes)
                part += 1
        self.busy = False
        self.ran = i
        if m.context.out_of_memory:
            raise MemoryError(f"no memory for page tables, struct pages or results at operation "
                              f"{index + (i - 1 if i else 0)}; the machine has {self.reserved} bytes of address space")
        return rows

    def touched(self, looker):
        """What operations may have touched since `looker` asked last: (files, anonymous); None: anything.

        files: {number: (shift, marks)}; what stands in a file at a place (huge page, of shmem base page) was not
        touched if marks[place >> shift], an array of bool, is False, or the file is not among them. anonymous: whether
        anonymous memory was touched, or a private mapping of shmem. Marks are kept for one looker, the last that asked;
        from then on each operation is looked at, so a machine that is timed should have none. MemoryError.
        """
        cdef Machine *m = &self.m
        self.idle()
        found = touched_take(m) if self.looker is looker and m.context.touched is not NULL else None
        self.looker = looker
        touched_start(m)
        return found

    def page_mapcount(self, Engine engine, uint32_t folio):
        """The scheme's page_mapcount of a folio's base pages: runs (first, last, count), an int64 array (n, 3)."""
        cdef Machine *m = &self.m
        cdef uint64_t n
        cdef long long *row
        self.fits(engine)
        if folio >= m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        with nogil:
            n = engine.page_mapcount_runs(m, folio_at(m, folio), NULL)
        runs = np.empty((n, 3), np.int64)
        row = <long long *>data_of(runs, True)
        with nogil:
            engine.page_mapcount_runs(m, folio_at(m, folio), row)
        return runs

    def answer(self, Engine engine, uint32_t folio):
        """What the scheme answers about a folio: mapcount, mapped, maybe_shared, refs, sharers, nr_file_mapped.

        refs (references of mappings): -1 for one each leaf. sharers, nr_file_mapped: -1 where the scheme has none.
        """
        cdef hgm_answer a
        self.fits(engine)
        if folio >= self.m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        engine.answer(&self.m.config.options, folio_at(&self.m, folio), &a)
        return {"mapcount": a.mapcount, "mapped": bool(a.mapped), "maybe_shared": bool(a.maybe_shared),
                "refs": a.refs, "sharers": a.sharers, "nr_file_mapped": a.nr_file_mapped}

    def movable(self, Engine engine, uint32_t folio, bint table_shared) -> bool:
        """Does mbind(MPOL_MF_MOVE) move a folio, by the era's rule? table_shared: a shared page table maps it."""
        self.fits(engine)
        if folio >= self.m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        return engine.movable(&self.m.config.options, folio_at(&self.m, folio), table_shared)

    def answers(self, Engine engine, const unsigned int[::1] folios, const unsigned char[::1] table_shared):
        """answer() and movable() of many folios at once: an array of ANSWER, a row for each number in `folios`.

        table_shared: of each of them, whether a shared page table maps it. IndexError: as answer().
        """
        cdef Machine *m = &self.m
        cdef uint64_t i, n = known(self, engine, folios)
        cdef hgm_folio *folio
        cdef hgm_answer a
        cdef Answer *row
        if <uint64_t>table_shared.shape[0] != n:
            raise IndexError(f"table_shared: {table_shared.shape[0]} values for {n} folios")
        rows = np.zeros(n, ANSWER)
        if n == 0:
            return rows
        row = <Answer *>data_of(rows, True)
        for i in range(n):
            folio = folio_at(m, folios[i])
            engine.answer(&m.config.options, folio, &a)
            row[i].mapcount = a.mapcount
            row[i].refs = a.refs
            row[i].sharers = a.sharers
            row[i].nr_file_mapped = a.nr_file_mapped
            row[i].mapped = a.mapped != 0
            row[i].maybe_shared = a.maybe_shared != 0
            row[i].movable = engine.movable(&m.config.options, folio, table_shared[i])
        return rows

    def page_mapcounts(self, Engine engine, const unsigned int[::1] folios):
        """page_mapcount() of many folios: (runs, bounds); the runs of folio i are runs[bounds[i]:bounds[i + 1]].

        IndexError: as page_mapcount(). MemoryError: the host has no more memory.
        """
        cdef Machine *m = &self.m
        cdef uint64_t i, n = known(self, engine, folios), used = 0, room = 0, most
        cdef long long *found = NULL
        cdef long long *grown
        bounds = np.zeros(n + 1, np.int64)
        cdef long[::1] bound = bounds
        try:
            with nogil:
                for i in range(n):
                    most = used + folio_at(m, folios[i]).nr_pages
                    if most > room:
                        room = 2 * most
                        grown = <long long *>realloc(found, room * 3 * sizeof(long long))
                        if grown is NULL:
                            break
                        found = grown
                    used += engine.page_mapcount_runs(m, folio_at(m, folios[i]), &found[3 * used])
                    bound[i + 1] = <long>used
            if n and bound[n] == 0:    # each folio has one run at least
                raise MemoryError("no memory for the map counts of base pages")
            runs = np.empty((used, 3), np.int64)
            if used:
                memcpy(data_of(runs, True), found, used * 3 * sizeof(long long))
        finally:
            free(found)
        return runs, bounds

    def asked(self, Engine engine, operations):
        """The bytes (of a pin: references) that each operation record asks to be done: a uint64 array. Cf. run()."""
        cdef Records records = records_of(operations)
        out = np.empty(records.n, np.uint64)
        self.fits(engine)
        records.check(&self.m, 0)
        engine.asked(&self.m, records.first, records.n, <uint64_t *>data_of(out, True))
        return out

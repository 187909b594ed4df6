# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Engine and Core: one scheme's interpreter, and a machine that runs records with it."""
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport (
    PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New, PyCapsule_SetContext
)
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from hgmcore.core.folio cimport folio_at
from hgmcore.core.machine cimport options_of
from hgmcore.core.records cimport data_of, on_one_cpu, Records, records_of
from hgmcore.core.touched cimport touched_start, touched_take
from hgmcore.hgm cimport *

import numpy as np

from hgmcore.options import resolve
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


# The functions of an Engine as C declares them: `struct hgm_core` is the name that a Machine has there.
ctypedef uint64_t (*c_run_function)(hgm_core *, const hgm_operation *, uint64_t, uint64_t) noexcept nogil
ctypedef uint64_t (*c_runs_function)(hgm_core *, const hgm_folio *, long long *) noexcept nogil
ctypedef int (*c_movable_function)(const hgm_options *, const hgm_folio *, int) noexcept nogil
ctypedef void (*c_asked_function)(hgm_core *, const hgm_operation *, uint64_t, uint64_t *) noexcept nogil

cdef const char *ENGINE_CAPSULE = "hgmcore.engine.v1"
cdef const char *MACHINE_CAPSULE = "hgmcore.machine.v1"


cdef void capsule_end(object capsule) noexcept:
    Py_XDECREF(<PyObject *>PyCapsule_GetContext(capsule))


cdef object capsule_of(void *what, const char *name, object owner):
    """A capsule of something that lives as long as its owner, which the capsule keeps alive."""
    capsule = PyCapsule_New(what, name, capsule_end)
    PyCapsule_SetContext(capsule, <void *>owner)
    Py_INCREF(owner)
    return capsule


cdef const hgm_engine *engine_for_c(Engine engine) except NULL:
    """The engine as C code knows it; it lives as long as the Engine."""
    if engine.c.size == 0:
        if engine.run is NULL:
            raise TypeError("an engine is what a scheme's module gives (hgmcore.schemes.load), not an empty Engine")
        engine.c_name = engine.name.encode()
        engine.c.name = engine.c_name
        engine.c.options = options_of(resolve(engine, {}))
        engine.c.core_size = engine.machine_size
        engine.c.flags = (HGM_ENGINE_WHOLE_ONLY * engine.whole_only | HGM_ENGINE_TAILS * engine.writes_tails
                        | HGM_ENGINE_ONE_THREAD * (engine.count_into is not NULL)
                        | HGM_ENGINE_SCANS * engine.scans | HGM_ENGINE_FIRST_COME * engine.first_come
                        | HGM_ENGINE_BY_NUMBER * engine.by_number | HGM_ENGINE_ASKS_CPU * engine.asks_cpu
                        | HGM_ENGINE_SLOTS * engine.has_slots | HGM_ENGINE_DIRTIES * engine.dirties_tails)
        engine.c.run = <c_run_function>engine.run
        engine.c.page_mapcount_runs = <c_runs_function>engine.page_mapcount_runs
        engine.c.answer = engine.answer
        engine.c.movable = <c_movable_function>engine.movable
        engine.c.asked = <c_asked_function>engine.asked
        engine.c.abi = engine.abi
        engine.c.size = sizeof(hgm_engine)
    return &engine.c


cdef dict checked_exceptions(dict exceptions):
    """The exceptions of a scheme if each names a property and its kind. ValueError."""
    for name, kind in exceptions.items():
        if name not in PROPERTIES or kind not in ("definition", "fault"):
            raise ValueError(f"exceptions: '{name}': '{kind}' is no property with 'definition' or 'fault' "
                             f"(properties: {', '.join(PROPERTIES)})")
    return exceptions


class SchemeError(Exception):
    """A scheme misbehaved: a reaction raised, gave up or answered nonsense. The machine did no further record.

    scheme: its name. reaction: which, as "leaf_install". why: the reason; where Python code raised, that is the cause
    of this exception. index: the number of the record, and op its operation (a number, until the API gives it its
    name); None where no record was run, as in an observation. What the record did up to there stays; the counts are
    what the scheme left of them.
    """

    def __init__(self, scheme, reaction, why, index=None, op=None):
        self.scheme, self.reaction, self.why, self.index, self.op = scheme, reaction, why, index, op
        super().__init__(scheme, reaction, why, index, op)

    def __str__(self):
        at = "" if self.index is None else f", at record {self.index}"
        return f"scheme '{self.scheme}': {self.reaction}: {self.why}{at}{'' if self.op is None else f' ({self.op})'}"


cdef class Engine:
    """One accounting scheme with the whole engine compiled around it (hgmcore.schemes.load gives them).

    name: public name. explanation: the scheme's documentation; its first line is a summary. state: the words that it
    keeps, as fields of PAGE in page 1 of a folio. defaults: options whose default differs from the general one.
    posted: the options that model=posted selects. exceptions: properties that the scheme does not promise, each
    "definition" or "fault". whole_only: maps whole huge pages or nothing. writes_tails: counts on struct pages that HVO
    takes away. alone: adds without atomics, so one thread alone can run it. scans: may read page-table entries to find
    out what it wants to know. first_come: its state shows which process was the first to map a page. by_number: its
    state is made of the numbers of processes. asks_cpu: it counts by the CPU that runs an operation. has_slots: it has
    slots (hgm.h).
    """

    def failure(self):
        """The exception that a reaction of this scheme raised since this was asked last, or None."""
        return None

    def __repr__(self):
        return f"<hgmcore engine {self.name}>"

    @property
    def capsule(self):
        """The engine for other extension modules: a capsule "hgmcore.engine.v1" of an hgm_engine (library.h)."""
        return capsule_of(<void *>engine_for_c(self), ENGINE_CAPSULE, self)

    @staticmethod
    def from_capsule(capsule, str explanation="", dict state=None, dict exceptions=None):
        """The engine in a capsule "hgmcore.engine.v1", which another module was compiled with.

        explanation, state, exceptions: as `instantiate` has them. TypeError: there is no such capsule. ImportError,
        which names both: the module was compiled for another HGM_ABI.
        """
        cdef Engine engine = Engine.__new__(Engine)
        cdef const hgm_engine *c
        if not PyCapsule_IsValid(capsule, ENGINE_CAPSULE):
            raise TypeError(f"a {type(capsule).__name__} is no capsule '{ENGINE_CAPSULE.decode()}'")
        c = <const hgm_engine *>PyCapsule_GetPointer(capsule, ENGINE_CAPSULE)
        if c.abi != HGM_ABI or c.size != sizeof(hgm_engine):
            raise ImportError(f"the engine in the capsule was compiled for HGM_ABI {c.abi}, hgm_engine of {c.size} "
                              f"bytes; this hgmcore has HGM_ABI {HGM_ABI}, hgm_engine of {sizeof(hgm_engine)} bytes: "
                              "compile the engine anew")
        engine.capsuled = capsule
        engine.abi, engine.machine_size = c.abi, c.core_size
        engine.run = <run_function>c.run
        engine.page_mapcount_runs = <runs_function>c.page_mapcount_runs
        engine.answer = <answer_function>c.answer
        engine.movable = <movable_function>c.movable
        engine.asked = <asked_function>c.asked
        engine.name, engine.explanation = c.name.decode(), explanation or c.name.decode()
        engine.state, engine.defaults, engine.posted = state or {}, {}, {}
        engine.exceptions = checked_exceptions(exceptions or {})
        engine.whole_only = c.flags & HGM_ENGINE_WHOLE_ONLY != 0
        engine.writes_tails = c.flags & HGM_ENGINE_TAILS != 0
        engine.scans = c.flags & HGM_ENGINE_SCANS != 0
        engine.first_come = c.flags & HGM_ENGINE_FIRST_COME != 0
        engine.by_number = c.flags & HGM_ENGINE_BY_NUMBER != 0
        engine.asks_cpu = c.flags & HGM_ENGINE_ASKS_CPU != 0
        engine.has_slots = c.flags & HGM_ENGINE_SLOTS != 0
        engine.dirties_tails = c.flags & HGM_ENGINE_DIRTIES != 0
        return engine


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
        return 0 if self.bound is engine else self.bind(engine)

    cdef int bind(self, Engine engine) except -1:
        """Give the machine its copy of the engine's table."""
        self.idle()
        memset(&self.scheme, 0, sizeof(hgm_scheme))
        if engine.table is not NULL:
            self.scheme = engine.table[0]
        self.m.config.options.scheme = &self.scheme
        self.bound = engine
        return 0

    cdef int obeyed(self, Engine engine, const hgm_operation *last=NULL, uint64_t index=0) except -1:
        """SchemeError if a reaction failed since this was asked last. last: the last record that ran, of `index`."""
        if self.scheme.failed is NULL:
            return 0
        reaction = "a reaction" if self.scheme.failed_in is NULL else self.scheme.failed_in.decode()
        why, cause = self.scheme.failed.decode(errors="replace"), engine.failure()
        self.scheme.failed = self.scheme.failed_in = NULL
        if cause is not None and not isinstance(cause, Exception):    # Ctrl-C
            raise cause
        if cause is not None:
            why = f"{type(cause).__name__}: {cause}".removesuffix(": ")
        error = SchemeError(engine.name, reaction, why)
        if last is not NULL:
            error.index, error.op = index, last.op
        raise error from cause

    cdef hgm_machine *serve(self, Engine engine) except NULL:
        """The machine as C code and other languages use it, by that engine; it lives as long as this Core."""
        self.fits(engine)
        if self.c.engine is not engine_for_c(engine):
            self.enter()
            self.served, self.c.engine = engine, engine_for_c(engine)
            self.m.context.tails |= engine.dirties_tails
            self.leave()
        return &self.c

    def capsule(self, Engine engine):
        """The machine, run by `engine`, for other modules: a capsule "hgmcore.machine.v1" of an hgm_machine."""
        return capsule_of(<void *>self.serve(engine), MACHINE_CAPSULE, self)

    def address(self, Engine engine) -> int:
        """Where the hgm_machine is that `capsule` has; it is there as long as this object."""
        return <uintptr_t>self.serve(engine)

    @property
    def operations(self) -> int:
        """How many operations ran, by whatever door: the next one has this number in results."""
        return self.c.operations

    @operations.setter
    def operations(self, uint64_t n):
        self.c.operations = n

    cdef uint64_t on_cpu(self, Records records, uint64_t first, uint64_t n) noexcept nogil:
        """The machine's CPU is that of record `first`; returns how many of the next `n` records it runs."""
        if records.cpu is NULL:
            self.m.context.cpu = 0
            return n
        self.m.context.cpu = records.cpu[first]
        return on_one_cpu(records.cpu, first, n)

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
        self.enter()    # before the check, which lets other threads in
        try:
            records.check(m, index)
            m.context.tails |= engine.dirties_tails
            m.context.out_of_memory = False
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
            while done < n and not m.context.out_of_memory:
                some = min(n - done, <uint64_t>UNINTERRUPTED)
                if engine.asks_cpu:
                    some = self.on_cpu(records, done, some)
                with nogil:
                    done += engine.run(m, records.first + done, some, index + done)
                self.obeyed(engine, records.first + done - 1, index + done - 1)
                PyErr_CheckSignals()
        finally:
            self.leave()
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
        cdef uint64_t n = records.n, i = 0, part = 0, some
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
        self.enter()    # before the check, which lets other threads in
        try:
            records.check(m, index)
        except ValueError:
            self.leave()
            raise
        m.context.tails |= engine.dirties_tails
        m.context.out_of_memory = False
        ends = <const uint64_t *>data_of(stops, False)
        row = <Each *>data_of(rows, True)
        with nogil:
            while i < n and not m.context.out_of_memory and self.scheme.failed is NULL:
                before = m.context.cost
                while i < ends[part] and not m.context.out_of_memory and self.scheme.failed is NULL:
                    some = ends[part] - i
                    if engine.asks_cpu:
                        some = self.on_cpu(records, i, some)
                    i += engine.run(m, &records.first[i], some, index + i)
                row[part].ref = m.context.cost.ref - before.ref
                row[part].map = m.context.cost.map - before.map
                row[part].transient = m.context.cost.transient - before.transient
                row[part].scanned = m.context.cost.entries_scanned - before.entries_scanned
                row[part].leaves = (m.context.cost.leaf_installs - before.leaf_installs
                                    + m.context.cost.leaf_removes - before.leaf_removes)
                part += 1
        self.leave()
        self.ran = i
        self.obeyed(engine, &records.first[i - 1], index + i - 1)
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
        return self.page_mapcounts(engine, np.array([folio], np.uint32))[0]

    def answer(self, Engine engine, uint32_t folio):
        """What the scheme answers about a folio: mapcount, mapped, maybe_shared, refs, sharers, nr_file_mapped.

        refs (references of mappings): -1 for one each leaf. sharers, nr_file_mapped: -1 where the scheme has none.
        """
        cdef hgm_answer a
        self.fits(engine)
        if folio >= self.m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        engine.answer(&self.m.config.options, folio_at(&self.m, folio), &a)
        self.obeyed(engine)
        return {"mapcount": a.mapcount, "mapped": bool(a.mapped), "maybe_shared": bool(a.maybe_shared),
                "refs": a.refs, "sharers": a.sharers, "nr_file_mapped": a.nr_file_mapped}

    def movable(self, Engine engine, uint32_t folio, bint table_shared) -> bool:
        """Does mbind(MPOL_MF_MOVE) move a folio, by the era's rule? table_shared: a shared page table maps it."""
        self.fits(engine)
        if folio >= self.m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        found = engine.movable(&self.m.config.options, folio_at(&self.m, folio), table_shared)
        self.obeyed(engine)
        return found

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
        self.obeyed(engine)
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
            self.obeyed(engine)
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

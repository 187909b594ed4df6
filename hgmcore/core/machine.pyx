# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Core: the owner of one simulated machine and its memory."""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_CheckSignals

from hgmcore.core.folio cimport folio_at
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport FAULT_MUTEXES, LINE
from hgmcore.core.machine cimport ALONE, POSTED_LOCKS, PT_LOCKS
from hgmcore.core.memory cimport (
    address_space, host_page, mincore, munmap, region_grow, region_place, region_prefault
)
from hgmcore.core.records cimport Records, records_of
from hgmcore.core.share cimport vma_may_share

import numpy as np

from hgmcore.options import codes

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    const int CLOCK_THREAD_CPUTIME_ID

RESULT = np.dtype([("index", "u8"), ("done", "u8"), ("errno", "i4"), ("event", "u4")])
"""dtype of an operation's result: its index, bytes done, errno (0: none) and event (1: minor; 2, of a `fail`:
the operation that it was for made fewer allocations)."""

PAGE = np.dtype([("flags", "u8"), ("private", "u8"), ("_large_mapcount", "i4"), ("_nr_pages_mapped", "i4"),
                 ("_entire_mapcount", "i4"), ("_pincount", "i4"), ("_mm_id_mapcount", "i4", 2), ("_mm_id", "u4", 2),
                 ("_mapcount", "i4"), ("_refcount", "i4"), ("_total_mapped_pages", "i8")])
"""dtype of a struct page (hgm_page): 64 bytes; counts without the kernel's bias of -1."""

FOLIO = np.dtype([("number", "u4"), ("file", "u4"), ("page", "u4"), ("flags", "u4"), ("pfn", "u8"),
                  ("nr_pages", "u8"), ("pins", "i8"), ("refcount", "i4")])
"""dtype of a row of Core.folios()."""

EACH = np.dtype([("ref", "u8"), ("map", "u8"), ("transient", "u8"), ("scanned", "u8"), ("leaves", "u8")])
"""dtype of what one record costs (Core.run_each): atomics, page-table entries scanned, leaves installed and removed."""

cdef struct Each:
    uint64_t ref
    uint64_t map
    uint64_t transient
    uint64_t scanned
    uint64_t leaves

FOLIO_CACHED = HGM_FOLIO_CACHED
FOLIO_FREED = HGM_FOLIO_FREED
PAGE_DOUBLE_MAP = HGM_PAGE_DOUBLE_MAP

cdef enum:
    UNINTERRUPTED = 1 << 16    # records between two looks for signals
    PART_OF_PAGES = 4096    # bytes of struct pages that are committed together

# Address space of a machine that may grow to 16 TiB mapped by base pages, or 4 TiB of memory. It has regions of 64
# parts each for page tables and struct pages; the others follow from how many entries these have.
cdef size_t PART = <size_t>1 << 30
cdef size_t LEAST = <size_t>256 << 10
cdef enum:
    TABLES = 64
    VMEMMAP = 64
    RESULTS = 16


cdef size_t region_sizes(const Geometry *g, size_t part, size_t *sizes) noexcept nogil:
    """The bytes of each region of a machine, in the order in which regions_place() takes them; returns their sum."""
    cdef size_t page = max(<size_t>PART_OF_PAGES, host_page()), total = 0
    cdef size_t tables = max(TABLES * part, <size_t>64 << g.table_shift), vmemmap = max(VMEMMAP * part, <size_t>1 << 16)
    cdef int i
    sizes[0] = tables
    sizes[1] = (tables >> g.table_shift) * sizeof(hgm_ptdesc)
    sizes[2] = vmemmap
    sizes[3] = vmemmap // sizeof(hgm_page) * sizeof(hgm_folio)
    sizes[4] = vmemmap // sizeof(hgm_page) * sizeof(uint64_t)
    sizes[5] = RESULTS * part
    for i in range(6):
        sizes[i] = (sizes[i] + page - 1) & ~(page - 1)
        total += sizes[i]
    return total


cdef void regions_place(Machine *m, unsigned char *at, const size_t *sizes) noexcept nogil:
    region_place(&m.state.tables, &at, sizes[0])
    region_place(&m.state.ptdescs, &at, sizes[1])
    region_place(&m.state.vmemmap, &at, sizes[2])
    region_place(&m.state.folios, &at, sizes[3])
    region_place(&m.state.poisoned, &at, sizes[4])
    region_place(&m.context.results, &at, sizes[5])


cdef class Window:
    """A view of a core's memory for NumPy; keeps the core alive. Read only: a false entry would mislead the core."""
    cdef Core core
    cdef void *start
    cdef size_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 1, flags)


cdef object window(Core core, void *start, size_t size, dtype):
    cdef Window w = Window.__new__(Window)
    w.core = core
    w.start = start
    w.size = size
    return np.frombuffer(w, dtype) if size else np.empty(0, dtype)


cdef void *grown(void *array, uint32_t n, size_t size) except NULL:
    """The array with room for one more zeroed element behind its first `n`; doubles at powers of two."""
    if n == 0 or n & (n - 1) == 0:
        array = realloc(array, (2 * <size_t>n + 1) * size)
        if array is NULL:
            raise MemoryError("no memory for the machine's tables of names")
    memset(<unsigned char *>array + n * size, 0, size)
    return array


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
    "definition" or "fault". whole_only: maps whole huge pages or nothing. writes_tails: counts
    on struct pages that HVO takes away. first_come: its state shows which process was the first to map a huge page.
    """

    def __repr__(self):
        return f"<hgmcore engine {self.name}>"


cdef class Core:
    """One machine: `geometry` (hgmcore.geometry.Geometry) and resolved `options` (hgmcore.options.resolve).

    reserve: bytes of address space that it may reserve, and so a bound on what it may grow to; None: enough for 4 TiB
    of memory, or what the system gives. Files, processes and mappings are declared and known by number; operations run
    as arrays of records.
    """

    def __cinit__(self, geometry, dict options, reserve=None):
        cdef Machine *m = &self.m
        memset(m, 0, sizeof(Machine))
        m.abi = HGM_ABI
        m.size = sizeof(Machine)
        m.config.geometry.base_shift = geometry.base_shift
        m.config.geometry.index_bits = geometry.index_bits
        m.config.geometry.levels = geometry.levels
        m.config.geometry.table_shift = geometry.index_bits + 3
        for level in range(1, geometry.levels + 1):
            m.config.geometry.level_shift[level] = geometry.level_shift(level)
        m.config.geometry.nr_leaves = len(geometry.leaves)
        for i, leaf in enumerate(geometry.leaves):
            m.config.geometry.leaf_shift[i] = leaf.shift
            m.config.geometry.leaf_level[i] = leaf.level
            m.config.geometry.leaf_entries[i] = leaf.entries
            if leaf.entries == 1:
                m.config.geometry.entry_leaf[leaf.level] = i
                m.config.geometry.group[leaf.level] = 1
            else:
                m.config.geometry.group[leaf.level] = leaf.entries
        code = codes(options)
        m.config.options.era = code["era"]
        m.config.options.cache_refs_folio = code["cache_refs"]
        m.config.options.lookup_first = code["lookup_first"]
        m.config.options.zap_frees_tables = code["zap_frees_tables"]
        m.config.options.rmap_aware = code["rmap_aware"]
        m.config.options.base_only = code["policy"]
        m.config.options.batch = code["batch"]
        m.config.options.transient_real = options["transient"] == "real"
        m.config.options.overflow_check = code["overflow_check"]
        m.config.options.posted = code["model"]
        m.config.options.locks = code["locks"]
        m.context.exclusion = (ALONE, PT_LOCKS, POSTED_LOCKS)[m.config.options.locks]
        m.context.owner = m
        m.state.files = <File *>grown(NULL, 0, sizeof(File))    # there is a file 0 for mappings that never were
        if m.context.exclusion != ALONE:
            self.mutexes()
        m.config.options.fault_around = code["fault_around"]
        self.reserve(0 if reserve is None else <size_t>reserve)
        region_grow(&m.state.tables, <size_t>1 << m.config.geometry.table_shift)

    cdef int mutexes(self) except -1:
        """Make the fault mutexes, which only operations beside others, or option `locks`, take."""
        if self.m.context.fault_mutexes is NULL:
            self.m.context.fault_mutexes = <uint32_t *>calloc(FAULT_MUTEXES, LINE)
            if self.m.context.fault_mutexes is NULL:
                raise MemoryError("no memory for the fault mutexes of a machine")
        return 0

    cdef int reserve(self, size_t bound) except -1:
        """Reserve address space: `bound` bytes at most, or (0) for the largest machine, less where there is less."""
        cdef size_t sizes[6]
        cdef size_t part = PART, total = region_sizes(&self.m.config.geometry, part, sizes)
        if bound:
            while total > bound and part > PART_OF_PAGES // RESULTS:
                part = part // 16 * 15 if part > PART_OF_PAGES else part // 2
                total = region_sizes(&self.m.config.geometry, part, sizes)
            if total > bound:
                raise ValueError(f"reserve: a machine needs at least {total} bytes of address space, not {bound}")
        self.reservation = <unsigned char *>address_space(total)
        while self.reservation is NULL and not bound and total > LEAST:
            part //= 2
            total = region_sizes(&self.m.config.geometry, part, sizes)
            self.reservation = <unsigned char *>address_space(total)
        if self.reservation is NULL:
            raise MemoryError(f"no address space for a machine: {total} bytes")
        self.reserved = total
        regions_place(&self.m, self.reservation, sizes)
        return 0

    def __dealloc__(self):
        cdef Machine *m = &self.m
        cdef uint32_t i
        for i in range(m.state.nr_files):
            free(m.state.files[i].cache)
        for i in range(m.state.nr_mappings):
            free(m.state.mappings[i].vmas)
        free(m.state.files)
        free(m.state.processes)
        free(m.state.mappings)
        free(m.context.fault_mutexes)
        if self.reservation is not NULL:
            munmap(self.reservation, self.reserved)

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

    def add_file(self, geometry, page_size, uint64_t pages, kind="hugetlb") -> int:
        """Declare a file of `pages` huge pages (or folios) of `page_size` bytes. Returns its number.

        kind: hugetlb or shmem; or anon, anonymous memory in folios of that size, which has no pages.
        """
        cdef Machine *m = &self.m
        cdef File *f
        leaf = geometry.leaf(page_size)
        m.state.files = <File *>grown(m.state.files, m.state.nr_files, sizeof(File))
        f = &m.state.files[m.state.nr_files]
        f.kind = <Kind><int>("hugetlb", "shmem", "anon").index(kind)
        f.pages = pages
        f.size = pages << (leaf.shift - m.config.geometry.base_shift) if f.kind == SHMEM else pages
        f.length = pages << leaf.shift
        f.nr_cache = f.size
        f.cache = <uint32_t *>calloc(f.size if f.size else 1, sizeof(uint32_t))
        if f.cache is NULL:
            raise MemoryError(f"no memory for a page cache of {pages} huge pages")
        f.leaf = geometry.leaves.index(leaf)
        f.entries = leaf.entries
        f.page_shift = leaf.shift
        f.level = leaf.level
        f.nr_pages = <uint64_t>1 << (leaf.shift - m.config.geometry.base_shift)
        m.state.nr_files += 1
        return m.state.nr_files - 1

    def add_process(self) -> int:
        """Declare a process. Returns its number."""
        cdef Machine *m = &self.m
        m.state.processes = <Process *>grown(m.state.processes, m.state.nr_processes, sizeof(Process))
        m.state.nr_processes += 1
        return m.state.nr_processes - 1

    def add_mapping(self, uint32_t process, uint32_t name) -> int:
        """Declare a mapping's name (a number that stands for it) in a process. Returns its number."""
        cdef Machine *m = &self.m
        cdef Process *p
        if process >= m.state.nr_processes:
            raise IndexError(f"no process {process}")
        m.state.mappings = <Mapping *>grown(m.state.mappings, m.state.nr_mappings, sizeof(Mapping))
        m.state.mappings[m.state.nr_mappings].process = process
        m.state.mappings[m.state.nr_mappings].name = name
        m.state.nr_mappings += 1
        p = &m.state.processes[process]
        if p.last_mapping:
            m.state.mappings[p.last_mapping - 1].next = m.state.nr_mappings
        else:
            p.first_mapping = m.state.nr_mappings
        p.last_mapping = m.state.nr_mappings
        return m.state.nr_mappings - 1

    def prefault(self, uint64_t tables):
        """Commit memory for `tables` page-table pages and their descriptors. MemoryError: the system refuses."""
        cdef Machine *m = &self.m
        cdef size_t size = (tables + 1) << m.config.geometry.table_shift    # number 0 is none
        if tables > (m.state.tables.reserved >> m.config.geometry.table_shift) - 1 or not (
                region_prefault(&m.state.tables, size)
                and region_prefault(&m.state.ptdescs, (tables + 1) * sizeof(hgm_ptdesc))):
            raise MemoryError(f"no memory for {tables} page tables")
        m.context.tables_populated = max(m.context.tables_populated, size)

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
        if n == 0:
            return 0
        records.check(m, index)
        m.context.tails |= engine.writes_tails
        m.context.out_of_memory = False
        self.busy = True
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start)
        try:
            while done < n and not m.context.out_of_memory:
                some = min(n - done, <uint64_t>UNINTERRUPTED)
                with nogil:
                    done += engine.run(m, records.first + done, some, index + done)
                PyErr_CheckSignals()
        finally:
            self.busy = False
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &stop)
        if m.context.out_of_memory:
            raise MemoryError("no memory for page tables, struct pages or results at operation "
                              f"{index + (done - 1 if done else 0)}; the machine has {self.reserved} bytes of "
                              "address space")
        return (stop.tv_sec - start.tv_sec) * 1000000000 + stop.tv_nsec - start.tv_nsec

    def run_each(self, Engine engine, operations, uint64_t index=0):
        """Run records as run() does, one by one, and count what each costs: an array of EACH, one row a record.

        Results and counts are those of run(); the time is not, as no record profits from the one before. Errors: run().
        """
        cdef Machine *m = &self.m
        cdef Records records = records_of(operations)
        cdef uint64_t n = records.n, i = 0
        cdef hgm_cost before
        cdef Each *row
        cdef unsigned char[::1] out
        self.fits(engine)
        self.idle()
        rows = np.zeros(n, EACH)
        if n == 0:
            return rows
        records.check(m, index)
        m.context.tails |= engine.writes_tails
        m.context.out_of_memory = False
        out = rows.view(np.uint8)
        row = <Each *>&out[0]
        self.busy = True
        with nogil:
            while i < n and not m.context.out_of_memory:
                before = m.context.cost
                engine.run(m, &records.first[i], 1, index + i)
                row[i].ref = m.context.cost.ref - before.ref
                row[i].map = m.context.cost.map - before.map
                row[i].transient = m.context.cost.transient - before.transient
                row[i].scanned = m.context.cost.entries_scanned - before.entries_scanned
                row[i].leaves = (m.context.cost.leaf_installs - before.leaf_installs
                                 + m.context.cost.leaf_removes - before.leaf_removes)
                i += 1
        self.busy = False
        if m.context.out_of_memory:
            raise MemoryError(f"no memory for page tables, struct pages or results at operation {index + i - 1}; "
                              f"the machine has {self.reserved} bytes of address space")
        return rows

    @property
    def nr_results(self) -> int:
        """How many results there are."""
        return self.m.context.nr_results

    def results(self, uint64_t start=0):
        """Results from the `start`-th on that say more than success, as an array of RESULT (a copy)."""
        cdef uint64_t n = self.m.context.nr_results
        start = min(start, n)
        return window(self, self.m.context.results.base + start * sizeof(hgm_result), (n - start) * sizeof(hgm_result),
                      RESULT).copy()

    def folios(self):
        """Every huge page that was ever allocated, as an array of FOLIO."""
        cdef Machine *m = &self.m
        cdef hgm_folio *f
        cdef uint32_t i
        rows = np.empty(m.state.nr_folios, FOLIO)
        cdef unsigned int[:] file = rows["file"], page = rows["page"], flags = rows["flags"]
        cdef unsigned long[:] pfn = rows["pfn"], nr_pages = rows["nr_pages"]
        cdef long[:] pins = rows["pins"]
        cdef int[:] refcount = rows["refcount"]
        for i in range(m.state.nr_folios):
            f = folio_at(m, i)
            file[i] = f.file
            page[i] = f.index
            flags[i] = f.flags
            pfn[i] = f.pfn
            nr_pages[i] = f.nr_pages
            pins[i] = <long>f.pins + f.poisons
            refcount[i] = f.page._refcount
        rows["number"] = np.arange(m.state.nr_folios)
        return rows

    def mappings(self):
        """(process, file, address, length, file offset) of each declared mapping, as a uint64 array (n, 5)."""
        cdef Machine *m = &self.m
        cdef uint32_t i
        rows = np.empty((m.state.nr_mappings, 5), np.uint64)
        cdef unsigned long[:, ::1] row = rows
        for i in range(m.state.nr_mappings):
            row[i, 0] = m.state.mappings[i].process
            row[i, 1] = m.state.mappings[i].file
            row[i, 2] = m.state.mappings[i].address
            row[i, 3] = m.state.mappings[i].length
            row[i, 4] = m.state.mappings[i].file_offset
        return rows

    def vmas(self, uint32_t mapping):
        """(start, end, flags) of what is left of a mapping, by offsets from its start."""
        cdef Mapping *v
        if mapping >= self.m.state.nr_mappings:
            raise IndexError(f"no mapping {mapping}")
        v = &self.m.state.mappings[mapping]
        return [(v.vmas[i].start, v.vmas[i].end, v.vmas[i].flags) for i in range(v.nr_vmas)]

    def may_share(self):
        """Of each file, whether processes may share page tables of it as it is mapped now: an array of bool."""
        cdef Machine *m = &self.m
        cdef Mapping *v
        cdef uint32_t i, j
        files = np.zeros(m.state.nr_files, bool)
        cdef unsigned char[:] file = files.view(np.uint8)
        for i in range(m.state.nr_mappings):
            v = &m.state.mappings[i]
            for j in range(v.nr_vmas):
                file[v.file] |= vma_may_share(m, v, &v.vmas[j])
        return files

    def pages(self, uint64_t pfn, uint64_t n):
        """The struct pages of frames [pfn, pfn + n), as an array of PAGE that is the memory itself, to be read only."""
        if n > self.m.state.next_pfn or pfn > self.m.state.next_pfn - n:
            raise IndexError(f"no frames {pfn} to {pfn} + {n}")
        return window(self, self.m.state.vmemmap.base + pfn * sizeof(hgm_page), n * sizeof(hgm_page), PAGE)

    def table(self, uint32_t number=0, process=None):
        """The entries of a page table, as a uint64 array that is the memory itself, to be read only.

        number: as an entry's frame (entry >> 12) gives it; process: instead, the root table of a process.
        """
        cdef size_t size = <size_t>1 << self.m.config.geometry.table_shift
        if process is not None:
            if not 0 <= process < self.m.state.nr_processes:
                raise IndexError(f"no process {process}")
            number = self.m.state.processes[<uint32_t>process].root
        if number == 0 or (<size_t>number + 1) * size > self.m.state.tables.used:
            raise IndexError(f"no page table {number}")
        return window(self, self.m.state.tables.base + number * size, size, np.uint64)

    def page_mapcount(self, Engine engine, uint32_t folio):
        """The scheme's page_mapcount of a folio's base pages: runs (first, last, count), an int64 array (n, 3)."""
        cdef Machine *m = &self.m
        cdef uint64_t n
        cdef long long[:, ::1] row
        self.fits(engine)
        if folio >= m.state.nr_folios:
            raise IndexError(f"no folio {folio}")
        with nogil:
            n = engine.page_mapcount_runs(m, folio_at(m, folio), NULL)
        runs = np.empty((n, 3), np.int64)
        row = runs
        with nogil:
            engine.page_mapcount_runs(m, folio_at(m, folio), &row[0, 0])
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

    def asked(self, Engine engine, operations):
        """The bytes (of a pin: references) that each operation record asks to be done: a uint64 array. Cf. run()."""
        cdef Records records = records_of(operations)
        out = np.empty(records.n, np.uint64)
        cdef unsigned long[::1] row = out
        self.fits(engine)
        records.check(&self.m, 0)
        if records.n:
            engine.asked(&self.m, records.first, records.n, <uint64_t *>&row[0])
        return out

    def cost(self) -> dict:
        """What was counted so far, but for struct pages: see struct_pages()."""
        cdef Machine *m = &self.m
        cdef hgm_cost *c = &m.context.cost
        return {
            "leaf_installs": c.leaf_installs, "leaf_removes": c.leaf_removes,
            "table_allocs": m.context.table_allocs, "table_frees": m.context.table_frees,
            "atomics": {"persistent": c.ref + c.map, "transient": c.transient, "ref": c.ref, "map": c.map},
            "entries_scanned": c.entries_scanned,
            "table_bytes_peak": m.context.nr_tables_peak << m.config.geometry.table_shift,
            "locks": c.locks, "underflows": c.underflows, "overflows": c.overflows,
        }

    def lines_since(self) -> int:
        """Struct pages that the scheme's atomics touched since the last call of this method."""
        return self.scan_struct_pages(True)[0]

    def struct_pages(self):
        """(lines, bytes): struct pages that the scheme's atomics touched so far, and memory that struct pages take.

        The bytes are counted: the parts of 4096 bytes of the struct pages' memory that hold anything. The others were
        never written; the system has no memory for them.
        """
        return self.scan_struct_pages(False)

    cdef tuple scan_struct_pages(self, bint since):
        """(lines, bytes) as struct_pages() has them; since: lines since the last call with it."""
        cdef Machine *m = &self.m
        cdef hgm_page *page = <hgm_page *>m.state.vmemmap.base
        cdef size_t used = m.state.vmemmap.used, size = host_page(), n, i, j
        cdef uint64_t lines = 0, parts = 0, any
        cdef unsigned char *there
        cdef const uint64_t *words
        cdef hgm_page *one
        n = (used + size - 1) // size
        there = <unsigned char *>malloc(n + 1)
        if there is NULL or n and mincore(page, n * size, there) != 0:
            free(there)
            raise MemoryError("the system does not tell which struct pages are in use")
        with nogil:
            for i in range((used + PART_OF_PAGES - 1) // PART_OF_PAGES):
                if not there[i * PART_OF_PAGES // size] & 1:
                    continue
                words = <const uint64_t *>(<unsigned char *>page + i * PART_OF_PAGES)
                any = 0
                for j in range(PART_OF_PAGES // sizeof(uint64_t)):
                    any |= words[j]
                if not any:
                    continue
                parts += 1
                for j in range(PART_OF_PAGES // sizeof(hgm_page)):
                    one = &(<hgm_page *>words)[j]
                    if one.flags & HGM_PAGE_TOUCHED:
                        lines += 1
                        if since:
                            one.flags = one.flags & ~HGM_PAGE_TOUCHED | HGM_PAGE_TOUCHED_BEFORE
                    elif not since and one.flags & HGM_PAGE_TOUCHED_BEFORE:
                        lines += 1
        free(there)
        return lines, parts * PART_OF_PAGES

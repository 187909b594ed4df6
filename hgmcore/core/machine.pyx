# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Contents: the owner of one simulated machine, what is declared in it, and what it holds."""
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from cpython.buffer cimport PyBuffer_FillInfo

from hgmcore.core.declare cimport (
    file_declare, least_space, machine_begin, machine_end, mapping_declare, mutexes_make, process_declare,
    space_reserved
)
from hgmcore.core.folio cimport folio_at
from hgmcore.core.lock cimport hgm_enter, hgm_leave
from hgmcore.hgm cimport *
from hgmcore.core.memory cimport host_page, host_touched, region_cut, region_prefault
from hgmcore.core.regions cimport PART_OF_PAGES
from hgmcore.core.share cimport vma_may_share
from hgmcore.core.touched cimport touched_free

import numpy as np

from hgmcore.options import core_options

RESULT = np.dtype([("index", "u8"), ("done", "u8"), ("errno", "i4"), ("event", "u4")])
"""dtype of an operation's result: its index, bytes done, errno (0: none) and event (1: minor; 2, of a `fail`:
the operation that it was for made fewer allocations)."""

PAGE = np.dtype([("flags", "u8"), ("private", "u8"), ("_large_mapcount", "i4"), ("_nr_pages_mapped", "i4"),
                 ("_entire_mapcount", "i4"), ("_pincount", "i4"), ("_mm_id_mapcount", "i4", 2), ("_mm_id", "u4", 2),
                 ("_mapcount", "i4"), ("_refcount", "i4"), ("_total_mapped_pages", "i8")])
"""dtype of a struct page (hgm_page): 64 bytes; counts without the kernel's bias of -1."""

FOLIO = np.dtype([("number", "u4"), ("file", "u4"), ("page", "u4"), ("flags", "u4"), ("pfn", "u8"),
                  ("nr_pages", "u8"), ("pins", "i8"), ("refcount", "i4")], align=True)
"""dtype of a row of Contents.folios()."""

FOLIO_CACHED = HGM_FOLIO_CACHED
FOLIO_FREED = HGM_FOLIO_FREED
FOLIO_POISONED = HGM_FOLIO_POISONED
FOLIO_ANON = HGM_FOLIO_ANON
EVENT_NEVER_FIRED = HGM_EVENT_NEVER_FIRED
PAGE_DOUBLE_MAP = HGM_PAGE_DOUBLE_MAP


cdef hgm_options options_of(dict options):
    """Resolved options (hgmcore.options.resolve) as the core has them."""
    cdef hgm_options o
    memset(&o, 0, sizeof(o))
    code = core_options(options)
    o.era = code["era"]
    o.cache_refs_folio = code["cache_refs_folio"]
    o.lookup_first = code["lookup_first"]
    o.zap_frees_tables = code["zap_frees_tables"]
    o.rmap_aware = code["rmap_aware"]
    o.base_only = code["base_only"]
    o.batch = code["batch"]
    o.transient_real = code["transient_real"]
    o.overflow_check = code["overflow_check"]
    o.posted = code["posted"]
    o.locks = code["locks"]
    o.fault_around = code["fault_around"]
    o.rmap_values = code["rmap_values"]
    o.rmap_batch = code["rmap_batch"]
    o.rmap_exclusive = code["rmap_exclusive"]
    o.pmd_order = code["pmd_order"]
    o.top_down = code["top_down"]
    return o


cdef class Window:
    """A view of a machine's memory for NumPy, which keeps it alive. Read only: a false entry would mislead the core."""
    cdef Contents owner
    cdef void *start
    cdef size_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 1, flags)


cdef object window(Contents owner, void *start, size_t size, dtype):
    cdef Window w = Window.__new__(Window)
    w.owner = owner
    w.start = start
    w.size = size
    return np.frombuffer(w, dtype) if size else np.empty(0, dtype)


cdef class Contents:
    """One machine: `geometry` (hgmcore.geometry.Geometry) and resolved `options` (hgmcore.options.resolve).

    reserve: bytes of address space that it may reserve, and so a bound on what it may grow to; None: enough for 4 TiB
    of memory, or what the system gives. Files, processes and mappings are declared and known by number.
    """

    def __cinit__(self, geometry, dict options, reserve=None):
        cdef Machine *m = &self.m
        cdef hgm_geometry g
        cdef hgm_options o = options_of(options)
        cdef size_t bound = 0 if reserve is None else <size_t>reserve
        cdef int error
        memset(&g, 0, sizeof(g))
        g.base_shift = geometry.base_shift
        g.index_bits = geometry.index_bits
        g.levels = geometry.levels
        g.nr_leaves = len(geometry.leaves)
        for i, leaf in enumerate(geometry.leaves):
            g.leaves[i].shift = leaf.shift
            g.leaves[i].level = leaf.level
            g.leaves[i].entries = leaf.entries
        error = machine_begin(m, &g, &o, bound)
        if error == HGM_E_RESERVE:
            raise ValueError(f"reserve: a machine needs at least {least_space(m)} bytes of address space, not {bound}")
        if error == HGM_E_MEMORY:
            raise MemoryError("no memory or address space for a machine")
        if error:
            raise ValueError(f"geometry '{geometry.name}', options {options}: no machine has them")
        self.reserved = space_reserved(m)
        self.c.abi = HGM_ABI
        self.c.size = sizeof(hgm_machine)
        self.c.core = <hgm_core *>m

    cdef int mutexes(self) except -1:
        if not mutexes_make(&self.m):
            raise MemoryError("no memory for the fault mutexes of a machine")
        return 0

    def __dealloc__(self):
        touched_free(&self.m)
        machine_end(&self.m)

    cdef int idle(self) except -1:
        """RuntimeError while another thread runs the machine: one thread at a time, or views of it (view.pyx)."""
        if self.c.busy:
            raise RuntimeError("another thread uses this machine")
        return 0

    cdef int enter(self) except -1:
        """Take the machine for this thread until leave(). RuntimeError as from idle()."""
        if not hgm_enter(&self.c.busy):
            raise RuntimeError("another thread uses this machine")
        return 0

    cdef void leave(self) noexcept:
        hgm_leave(&self.c.busy)

    def add_file(self, geometry, page_size, uint64_t pages, kind="hugetlb") -> int:
        """Declare a file of `pages` huge pages (or folios) of `page_size` bytes. Returns its number.

        kind: hugetlb or shmem; or anon, anonymous memory in folios of that size, without pages. What no leaf of the
        geometry maps, PTEs map.
        """
        cdef Kind code = <Kind><int>("hugetlb", "shmem", "anon").index(kind)
        self.enter()
        number = file_declare(&self.m, code, page_size, pages)
        self.leave()
        if number == HGM_E_MEMORY:
            raise MemoryError(f"no memory for a page cache of {pages} huge pages")
        if number < 0:
            raise ValueError(f"{geometry.name} has no {kind} file of {pages} pages of {page_size} bytes")
        return number

    def add_process(self) -> int:
        """Declare a process. Returns its number."""
        self.enter()
        number = process_declare(&self.m)
        self.leave()
        if number < 0:
            raise MemoryError("no memory for the machine's table of processes")
        return number

    def place_mapping(self, uint32_t mapping, uint64_t at, uint64_t resized):
        """The address and the length that HGM_OPF_AT and HGM_OPF_RESIZED give a declared mapping."""
        if mapping >= self.m.state.nr_mappings:
            raise IndexError(f"no mapping {mapping}")
        self.m.state.mappings[mapping].at = at
        self.m.state.mappings[mapping].resized = resized

    def add_mapping(self, uint32_t process, uint32_t name) -> int:
        """Declare a mapping's name (a number that stands for it) in a process. Returns its number."""
        self.enter()
        number = mapping_declare(&self.m, process, name)
        self.leave()
        if number == HGM_E_MEMORY:
            raise MemoryError("no memory for the machine's table of mappings")
        if number < 0:
            raise IndexError(f"no process {process}")
        return number

    def prefault(self, uint64_t tables):
        """Commit memory for `tables` page-table pages and their descriptors. MemoryError: the system refuses."""
        cdef Machine *m = &self.m
        cdef size_t size = (tables + 1) << m.config.geometry.table_shift    # number 0 is none
        if tables > (m.state.tables.reserved >> m.config.geometry.table_shift) - 1 or not (
                region_prefault(&m.state.tables, size)
                and region_prefault(&m.state.ptdescs, (tables + 1) * sizeof(hgm_ptdesc))):
            raise MemoryError(f"no memory for {tables} page tables")
        m.context.tables_populated = max(m.context.tables_populated, size)

    def prefault_struct_pages(self, uint64_t frames):
        """Commit memory for the struct pages of the first `frames` frames, as far as the system gives it at once."""
        region_prefault(&self.m.state.vmemmap, min(self.m.state.vmemmap.reserved, frames * sizeof(hgm_page)))

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

    def nr_folios(self, uint32_t flags=0) -> int:
        """How many huge pages were ever allocated, or of these have all `flags` (FOLIO_*)."""
        cdef Machine *m = &self.m
        cdef uint32_t i, n = 0
        for i in range(m.state.nr_folios):
            n += folio_at(m, i).flags & flags == flags
        return n

    def folios(self):
        """Every huge page that was ever allocated, as an array of FOLIO."""
        return self.folios_of(np.arange(self.m.state.nr_folios, dtype=np.uint32))

    def folios_of(self, const unsigned int[::1] numbers):
        """The huge pages `numbers`, as an array of FOLIO. IndexError: one of them is none."""
        cdef Machine *m = &self.m
        cdef hgm_folio *f
        cdef uint64_t i
        rows = np.empty(numbers.shape[0], FOLIO)
        cdef unsigned int[:] file = rows["file"], page = rows["page"], flags = rows["flags"]
        cdef unsigned long[:] pfn = rows["pfn"], nr_pages = rows["nr_pages"]
        cdef long[:] pins = rows["pins"]
        cdef int[:] refcount = rows["refcount"]
        for i in range(<uint64_t>numbers.shape[0]):
            if numbers[i] >= m.state.nr_folios:
                raise IndexError(f"no folio {numbers[i]}")
            f = folio_at(m, numbers[i])
            file[i] = f.file
            page[i] = f.index
            flags[i] = f.flags
            pfn[i] = f.pfn
            nr_pages[i] = f.nr_pages
            pins[i] = <long>f.pins + f.poisons
            refcount[i] = f.page._refcount
        rows["number"] = numbers
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

    def areas(self):
        """(process, address, mapping) of each VMA, as a uint64 array (n, 3)."""
        cdef Machine *m = &self.m
        cdef Mapping *v
        cdef uint32_t i, j
        cdef size_t n = 0
        for i in range(m.state.nr_mappings):
            n += m.state.mappings[i].nr_vmas
        rows = np.empty((n, 3), np.uint64)
        cdef unsigned long[:, ::1] row = rows
        n = 0
        for i in range(m.state.nr_mappings):
            v = &m.state.mappings[i]
            for j in range(v.nr_vmas):
                row[n, 0] = v.process
                row[n, 1] = v.address + v.vmas[j].start
                row[n, 2] = i
                n += 1
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

    def root(self, uint32_t process) -> int:
        """The number of a process's root table, 0 before its first mapping. IndexError: no such process."""
        if process >= self.m.state.nr_processes:
            raise IndexError(f"no process {process}")
        return self.m.state.processes[process].root

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
        cdef uint64_t lines = 0, parts = 0
        struct_pages_scan(&self.m, SINCE if since else SO_FAR, &lines, &parts)
        return lines, parts * PART_OF_PAGES

    def forget_cost(self):
        """Costs count from 0 again; the peak of page tables is what there is of them, no struct page was touched."""
        cdef uint64_t lines = 0, parts = 0
        struct_pages_scan(&self.m, FORGET, &lines, &parts)
        self.m.context.cost = hgm_no_cost()
        self.m.context.table_allocs = self.m.context.table_frees = 0
        self.m.context.nr_tables_peak = self.m.state.nr_tables

    def forget_results(self):
        """There are no results any more."""
        region_cut(&self.m.context.results, 0, False)
        self.m.context.nr_results = 0


cdef enum:    # what struct_pages_scan() does with the marks of what the scheme's atomics touched
    SO_FAR    # counts them
    SINCE     # counts the new ones, which are old from then on
    FORGET    # takes them away


cdef int struct_pages_scan(Machine *m, int how, uint64_t *lines, uint64_t *parts) except -1:
    """Look at each part of the struct pages' memory that holds anything: count those parts, and lines as `how` says."""
    cdef hgm_page *page = <hgm_page *>m.state.vmemmap.base
    cdef size_t used = m.state.vmemmap.used, size = host_page(), n, i, j
    cdef uint64_t any
    cdef unsigned char *there
    cdef const uint64_t *words
    cdef hgm_page *one
    n = (used + size - 1) // size
    there = <unsigned char *>malloc(n + 1)
    if there is NULL or n and host_touched(page, n * size, there) != 0:
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
            parts[0] += 1
            for j in range(PART_OF_PAGES // sizeof(hgm_page)):
                one = &(<hgm_page *>words)[j]
                if how == FORGET:
                    if one.flags & (HGM_PAGE_TOUCHED | HGM_PAGE_TOUCHED_BEFORE):
                        one.flags = one.flags & ~(HGM_PAGE_TOUCHED | HGM_PAGE_TOUCHED_BEFORE)
                elif one.flags & HGM_PAGE_TOUCHED:
                    lines[0] += 1
                    if how == SINCE:
                        one.flags = one.flags & ~HGM_PAGE_TOUCHED | HGM_PAGE_TOUCHED_BEFORE
                elif how == SO_FAR and one.flags & HGM_PAGE_TOUCHED_BEFORE:
                    lines[0] += 1
    free(there)
    return 0

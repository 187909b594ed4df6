# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A machine from its beginning to its end: its memory, and the files, processes and mappings that it knows.

Functions return 0 or a number, or an error of library.h. What a failed machine_begin() leaves, machine_end() takes.
"""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport FAULT_MUTEXES, LINE
from hgmcore.core.machine cimport (
    ALONE, ANON, File, Geometry, HUGETLB, Kind, Machine, Mapping, MAX_LEAVES, MAX_LEVELS, POSTED_LOCKS, Process,
    PT_LOCKS, SHMEM
)
from hgmcore.core.memory cimport address_space, munmap, region_grow
from hgmcore.core.regions cimport PART_OF_PAGES, region_sizes, regions_place, RESULTS
from hgmcore.core.table cimport PMD

cdef enum:
    PART = 1 << 30       # of address space, by default, and the least that a machine can do with
    LEAST = 256 << 10

cdef inline bint array_grow(void **array, uint32_t n, size_t size) noexcept nogil:
    """Room for one more zeroed element behind the first `n`; doubles at powers of two. False: no memory."""
    cdef void *grown
    if n == 0 or n & (n - 1) == 0:
        grown = realloc(array[0], (2 * <size_t>n + 1) * size)
        if grown is NULL:
            return False
        array[0] = grown
    memset(<unsigned char *>array[0] + n * size, 0, size)
    return True

cdef inline int geometry_set(Machine *m, const hgm_geometry *g) noexcept nogil:
    cdef int i, level
    if (g.levels < 1 or g.levels >= MAX_LEVELS or g.nr_leaves < 1 or g.nr_leaves > MAX_LEAVES or g.index_bits < 1
            or g.base_shift < 12 or g.leaves[0].shift != g.base_shift
            or g.base_shift + g.levels * g.index_bits > 63):
        return HGM_E_GEOMETRY
    m.config.geometry.base_shift = g.base_shift
    m.config.geometry.index_bits = g.index_bits
    m.config.geometry.levels = g.levels
    m.config.geometry.table_shift = g.index_bits + 3
    for level in range(1, g.levels + 1):
        m.config.geometry.level_shift[level] = g.base_shift + (level - 1) * g.index_bits
    m.config.geometry.nr_leaves = g.nr_leaves
    for i in range(g.nr_leaves):
        level = g.leaves[i].level
        if (level < 1 or level > g.levels or g.leaves[i].shift > 40 or g.leaves[i].entries < 1
                or <int64_t>1 << g.leaves[i].shift
                != <int64_t>g.leaves[i].entries << m.config.geometry.level_shift[level]):
            return HGM_E_GEOMETRY
        m.config.geometry.leaf_shift[i] = g.leaves[i].shift
        m.config.geometry.leaf_level[i] = level
        m.config.geometry.leaf_entries[i] = g.leaves[i].entries
        if g.leaves[i].entries == 1:
            m.config.geometry.entry_leaf[level] = i
            m.config.geometry.group[level] = 1
        else:
            m.config.geometry.group[level] = g.leaves[i].entries
    return 0

cdef inline bint options_fit(const hgm_options *o) noexcept nogil:
    """Does every option have a value that it knows?"""
    return ((o.era == 602 or o.era == 603 or o.era == 615) and o.cache_refs_folio <= 1 and o.lookup_first <= 1
            and o.zap_frees_tables <= 1 and o.rmap_aware <= 1 and o.base_only <= 1 and o.batch <= HGM_BATCH_6_12
            and o.transient_real <= 1 and o.overflow_check <= HGM_CHECK_HALF and o.posted <= 1
            and 3 <= o.rmap_values <= 4 and o.rmap_batch <= 1 and o.rmap_exclusive <= 2
            and o.locks <= HGM_LOCKS_POSTED and o.fault_around <= HGM_AROUND_FOLIO and o.top_down <= 1)

cdef inline bint mutexes_make(Machine *m) noexcept nogil:
    """Make the fault mutexes, which only operations beside others, or option `locks`, take. False: no memory."""
    if m.context.fault_mutexes is NULL:
        m.context.fault_mutexes = <uint32_t *>calloc(FAULT_MUTEXES, LINE)
    return m.context.fault_mutexes is not NULL

cdef inline size_t least_space(const Machine *m) noexcept nogil:
    """The bytes of address space below which no machine of this geometry goes."""
    cdef size_t sizes[6]
    cdef size_t part = PART
    while part > PART_OF_PAGES // RESULTS:
        part = part // 16 * 15 if part > PART_OF_PAGES else part // 2
    return region_sizes(&m.config.geometry, part, sizes)

cdef inline int space_reserve(Machine *m, size_t bound) noexcept nogil:
    """Reserve address space: `bound` bytes at most, or (0) for the largest machine, less where there is less."""
    cdef size_t sizes[6]
    cdef size_t part = PART, total = region_sizes(&m.config.geometry, part, sizes)
    cdef unsigned char *base
    if bound:
        while total > bound and part > PART_OF_PAGES // RESULTS:
            part = part // 16 * 15 if part > PART_OF_PAGES else part // 2
            total = region_sizes(&m.config.geometry, part, sizes)
        if total > bound:
            return HGM_E_RESERVE
    base = <unsigned char *>address_space(total)
    while base is NULL and not bound and total > LEAST:
        part //= 2
        total = region_sizes(&m.config.geometry, part, sizes)
        base = <unsigned char *>address_space(total)
    if base is NULL:
        return HGM_E_MEMORY
    regions_place(m, base, sizes)
    return 0

cdef inline size_t space_reserved(const Machine *m) noexcept nogil:
    """The bytes of address space that the machine has."""
    return (m.state.tables.reserved + m.state.ptdescs.reserved + m.state.vmemmap.reserved + m.state.folios.reserved
            + m.state.poisoned.reserved + m.context.results.reserved)

cdef inline int machine_begin(Machine *m, const hgm_geometry *g, const hgm_options *o, size_t bound) noexcept nogil:
    """Make an empty machine. bound: bytes of address space at most; 0: as many as 4 TiB of simulated memory need."""
    cdef int error
    memset(m, 0, sizeof(Machine))
    m.abi = HGM_ABI
    m.size = sizeof(Machine)
    m.context.owner = m
    error = geometry_set(m, g)
    if error:
        return error
    if not options_fit(o):
        return HGM_E_OPTION
    m.config.options = o[0]
    m.config.options.pmd_order = <uint8_t>g.index_bits
    m.context.exclusion = (ALONE if o.locks == HGM_LOCKS_NONE else PT_LOCKS if o.locks == HGM_LOCKS_PT
                           else POSTED_LOCKS)
    # there is a file 0 for mappings that never were
    if not array_grow(<void **>&m.state.files, 0, sizeof(File)):
        return HGM_E_MEMORY
    if m.context.exclusion != ALONE and not mutexes_make(m):
        return HGM_E_MEMORY
    error = space_reserve(m, bound)
    if error:
        return error
    region_grow(&m.state.tables, <size_t>1 << m.config.geometry.table_shift)
    return 0

cdef inline void machine_end(Machine *m) noexcept nogil:
    """Give back what a machine has; one that is all zero has nothing."""
    cdef uint32_t i
    for i in range(m.state.nr_files):
        free(m.state.files[i].cache)
    for i in range(m.state.nr_mappings):
        free(m.state.mappings[i].vmas)
    free(m.state.files)
    free(m.state.processes)
    free(m.state.mappings)
    free(m.context.fault_mutexes)
    if m.state.tables.base is not NULL:
        munmap(m.state.tables.base, space_reserved(m))
    memset(m, 0, sizeof(Machine))

cdef inline int leaf_of_size(const Machine *m, Kind kind, int shift) noexcept nogil:
    """The number of the leaf that maps a file's pages of 2**shift bytes, or HGM_E_PAGE_SIZE.

    Folios of shmem and anonymous memory are base pages, what one entry of PMD level maps, or a power of two between, of
    4 base pages at least; what no leaf maps, PTEs map.
    """
    cdef const Geometry *g = &m.config.geometry
    cdef int i, found = 0
    for i in range(g.nr_leaves):
        if g.leaf_shift[i] == shift:
            found = i
    if kind == HUGETLB:
        return found if found else HGM_E_PAGE_SIZE
    if shift == g.base_shift or g.base_shift + 2 <= shift <= g.level_shift[PMD]:
        return found
    return HGM_E_PAGE_SIZE

cdef inline int64_t file_declare(Machine *m, Kind kind, uint64_t page_size, uint64_t pages) noexcept nogil:
    """Declare a file of `pages` huge pages (or folios) of `page_size` bytes; anonymous memory has no pages."""
    cdef File *f
    cdef int leaf, shift = 0
    while shift < 63 and <uint64_t>1 << shift < page_size:
        shift += 1
    leaf = leaf_of_size(m, kind, shift) if <uint64_t>1 << shift == page_size else HGM_E_PAGE_SIZE
    if leaf < 0:
        return leaf
    if kind != ANON and not 0 < pages <= <uint64_t>1 << (52 - shift):
        return HGM_E_FILE_SIZE
    if kind == SHMEM and pages > <uint64_t>1 << (32 + m.config.geometry.base_shift - shift):
        return HGM_E_FILE_SIZE
    if not array_grow(<void **>&m.state.files, m.state.nr_files, sizeof(File)):
        return HGM_E_MEMORY
    f = &m.state.files[m.state.nr_files]
    f.kind = kind
    f.pages = pages
    f.size = pages << (shift - m.config.geometry.base_shift) if kind == SHMEM else pages
    f.length = pages << shift
    f.nr_cache = f.size
    f.cache = <uint32_t *>calloc(f.size if f.size else 1, sizeof(uint32_t))
    if f.cache is NULL:
        return HGM_E_MEMORY
    f.leaf = leaf
    f.entries = m.config.geometry.leaf_entries[leaf]
    f.page_shift = shift
    f.level = m.config.geometry.leaf_level[leaf]
    f.nr_pages = <uint64_t>1 << (shift - m.config.geometry.base_shift)
    m.state.nr_files += 1
    return m.state.nr_files - 1

cdef inline int64_t process_declare(Machine *m) noexcept nogil:
    if not array_grow(<void **>&m.state.processes, m.state.nr_processes, sizeof(Process)):
        return HGM_E_MEMORY
    m.state.nr_processes += 1
    return m.state.nr_processes - 1

cdef inline int64_t mapping_declare(Machine *m, uint32_t process, uint32_t name) noexcept nogil:
    """Declare a mapping's name, a number that stands for it, in a process."""
    cdef Mapping *v
    cdef Process *p
    if process >= m.state.nr_processes:
        return HGM_E_UNDECLARED
    if not array_grow(<void **>&m.state.mappings, m.state.nr_mappings, sizeof(Mapping)):
        return HGM_E_MEMORY
    v = &m.state.mappings[m.state.nr_mappings]
    v.process = process
    v.name = name
    m.state.nr_mappings += 1
    p = &m.state.processes[process]
    if p.last_mapping:
        m.state.mappings[p.last_mapping - 1].next = m.state.nr_mappings
    else:
        p.first_mapping = m.state.nr_mappings
    p.last_mapping = m.state.nr_mappings
    return m.state.nr_mappings - 1

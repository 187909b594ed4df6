# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A tiny machine of a search: memory of its own, an image to come back to, steps.

A Tiny is one worker's: threads that search together have one each. Its machine is laid out anew for each state that
is expanded (packing.pxd), and put back behind each step that changed it.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at
from hgmcore.core.core cimport answer_function, run_function, runs_function
from hgmcore.core.machine cimport Context, File, Machine, Mapping, MAX_LEVELS, NO_TABLE, Process, State, Vma
from hgmcore.core.memory cimport Region

cdef enum:
    MAX_PROCESSES = 4
    MAX_HUGE = 2
    MAX_PAGES = 8                 # base pages of a huge page
    MAX_FOLIOS = 128              # that a machine may make; those of a state are far fewer
    MAX_STATE_FOLIOS = MAX_HUGE * (1 + MAX_PROCESSES)
    MAX_TABLES = 256
    MAX_WORDS = 32                # of a packed state
    MAX_PERMUTATIONS = 24
    MAX_FAMILIES = 24

# Properties, by number: the order of hgmcore.explore.properties.
cdef enum:
    FM, FH, LK, MU, ML, FE, FS, PC, RE, UF, CB, MS, MP, NM, TC, RC, OS
    NR_PROPERTIES

cdef enum:
    FATAL_STEP = 1 << UF | 1 << OS
    FATAL_STATE = 1 << FM | 1 << FH | 1 << CB

# What a step needs of the state that it starts from.
cdef enum:
    ALWAYS, MAPPED, UNMAPPED, ALIVE, FORKABLE, PINNABLE, UNPINNABLE

cdef enum:
    UNBORN, BORN, MAPS, EXITED

cdef struct Step:
    hgm_operation op
    unsigned char family
    unsigned char need
    unsigned char process
    unsigned char child
    unsigned char page            # huge page
    unsigned char fail            # number of the internal allocation that fails, 0: none
    unsigned char moves           # 1: migrate, 2: migrate .. all
    unsigned char refusable       # refusal_changes_no_count speaks of it
    unsigned char local           # it looks at the tables of no other process than its own (memo.pxd)
    unsigned char group           # of steps: the process's number, MAX_PROCESSES: of no process

# A folio's mappings, counted from the page tables alone.
cdef struct Truth:
    int64_t leaves
    int64_t at[MAX_PAGES]
    uint32_t processes            # a bit for each that maps it

# The machine as a step left it, in the terms of a packed state.
cdef struct Seen:
    uint64_t word[MAX_PROCESSES]
    uint32_t mark[MAX_PROCESSES][MAX_HUGE]    # folio + 1 that the subtree's counted mark stands for, 0: no mark
    uint32_t cached[MAX_HUGE]                 # folio + 1
    uint32_t unborn                           # a bit for each process
    uint32_t grow
    bint strange                              # something that no state has, as a leaf of a page out of the cache
    bint negative
    bint unbounded

cdef struct Image:
    State state
    unsigned char *data
    size_t tables, ptdescs, vmemmap, folios, poisoned, fixed

# What held before a step.
cdef struct Before:
    uint32_t nr_folios
    uint32_t unborn
    uint32_t cached[MAX_HUGE]
    Truth truth[MAX_FOLIOS]
    int32_t refcount[MAX_HUGE]
    int64_t mapcount[MAX_HUGE]
    int64_t page_mapcount[MAX_HUGE][MAX_PAGES]

# process_bits, ref_bits ..: widths in a packed state (packing.pxd).
cdef struct Tiny:
    Machine m
    run_function run
    answer_function answer
    runs_function page_mapcount_runs
    unsigned char *block
    unsigned char *fixed
    size_t fixed_size
    long long *runs
    Image image
    Before before
    Seen seen
    hgm_result last
    int P, H, N, hstate_level, born
    uint32_t fields
    int keeps, spread             # packing.pxd
    int process_bits, ref_bits, pin_bits, count_bits, id_bits, mark_bits, folio_width, words
    int entry_width[MAX_LEVELS]   # of an entry and all below it, by level
    int folios_at                 # where the folios begin
    int64_t count_bound
    int nr_permutations
    int permutations[MAX_PERMUTATIONS][MAX_PROCESSES]
    int page_symmetry             # symmetry.pxd
    uint64_t premises[NR_PROPERTIES]

cdef inline unsigned char *place_region(Tiny *t, Region *region, unsigned char *at, size_t size) noexcept nogil:
    region.base = at
    region.used = 0
    region.reserved = size
    return at + size

cdef inline bint tiny_place(Tiny *t) noexcept nogil:
    """Give a machine that has none memory of its own. False: the host has none."""
    cdef Machine *m = &t.m
    cdef int i
    cdef size_t sizes[6]
    cdef size_t total = 0, tables = (<size_t>MAX_TABLES << m.config.geometry.table_shift) + 64
    cdef unsigned char *at
    cdef File *file = m.state.files
    cdef Process *processes = m.state.processes
    cdef Mapping *mappings = m.state.mappings
    t.fixed_size = (sizeof(File) + sizeof(uint32_t) * MAX_HUGE + 64
                    + t.P * (sizeof(Process) + sizeof(Mapping) + 4 * sizeof(Vma)))
    sizes[:] = [tables, MAX_TABLES * sizeof(hgm_ptdesc), MAX_FOLIOS * t.N * sizeof(hgm_page),
                MAX_FOLIOS * sizeof(hgm_folio), MAX_FOLIOS * t.N * sizeof(uint64_t), 4096]
    for i in range(6):
        total += sizes[i]
    t.block = <unsigned char *>calloc(1, total + t.fixed_size)
    t.image.data = <unsigned char *>malloc(total + t.fixed_size)
    t.runs = <long long *>malloc(3 * (MAX_PAGES + 1) * sizeof(long long))
    if t.block is NULL or t.image.data is NULL or t.runs is NULL:
        return False
    at = t.block
    at = place_region(t, &m.state.tables, at, sizes[0])
    m.state.tables.reserved -= 64    # a scan reads eight entries at once
    at = place_region(t, &m.state.ptdescs, at, sizes[1])
    at = place_region(t, &m.state.vmemmap, at, sizes[2])
    at = place_region(t, &m.state.folios, at, sizes[3])
    at = place_region(t, &m.state.poisoned, at, sizes[4])
    at = place_region(t, &m.context.results, at, sizes[5])
    t.fixed = at
    m.state.files = <File *>at
    at += sizeof(File)
    m.state.processes = <Process *>at
    at += t.P * sizeof(Process)
    m.state.mappings = <Mapping *>at
    at += t.P * sizeof(Mapping)
    memcpy(m.state.files, file, sizeof(File))
    memcpy(m.state.processes, processes, t.P * sizeof(Process))
    memcpy(m.state.mappings, mappings, t.P * sizeof(Mapping))
    for i in range(t.P):
        m.state.mappings[i].vmas = <Vma *>at
        m.state.mappings[i].max_vmas = 4
        m.state.mappings[i].nr_vmas = 0
        at += 4 * sizeof(Vma)
    m.state.files[0].cache = <uint32_t *>at
    m.context.owner = m
    m.context.tables_populated = <size_t>1 << 40    # it is there
    return True

cdef inline void tiny_free(Tiny *t) noexcept nogil:
    free(t.block)
    free(t.image.data)
    free(t.runs)

cdef inline void image_take(Tiny *t) noexcept nogil:
    cdef Machine *m = &t.m
    cdef unsigned char *at = t.image.data
    t.image.state = m.state
    memcpy(at, m.state.tables.base, m.state.tables.used)
    at += m.state.tables.used
    memcpy(at, m.state.ptdescs.base, m.state.ptdescs.used)
    at += m.state.ptdescs.used
    memcpy(at, m.state.vmemmap.base, m.state.vmemmap.used)
    at += m.state.vmemmap.used
    memcpy(at, m.state.folios.base, m.state.folios.used)
    at += m.state.folios.used
    memcpy(at, m.state.poisoned.base, m.state.poisoned.used)
    at += m.state.poisoned.used
    memcpy(at, t.fixed, t.fixed_size)

cdef inline const unsigned char *region_back(Tiny *t, Region *region, size_t used,
                                             const unsigned char *at) noexcept nogil:
    memcpy(region.base, at, used)
    if region.used > used:
        memset(region.base + used, 0, region.used - used)
    return at + used

cdef inline void image_restore(Tiny *t) noexcept nogil:
    cdef Machine *m = &t.m
    cdef const unsigned char *at = t.image.data
    at = region_back(t, &m.state.tables, t.image.state.tables.used, at)
    at = region_back(t, &m.state.ptdescs, t.image.state.ptdescs.used, at)
    at = region_back(t, &m.state.vmemmap, t.image.state.vmemmap.used, at)
    at = region_back(t, &m.state.folios, t.image.state.folios.used, at)
    at = region_back(t, &m.state.poisoned, t.image.state.poisoned.used, at)
    memcpy(t.fixed, at, t.fixed_size)
    m.state = t.image.state

cdef inline void blank(Tiny *t) noexcept nogil:
    """A machine with nothing in it; all processes unborn or alive without a mapping."""
    cdef Machine *m = &t.m
    cdef int i
    memset(m.state.tables.base, 0, m.state.tables.used)
    memset(m.state.ptdescs.base, 0, m.state.ptdescs.used)
    memset(m.state.vmemmap.base, 0, m.state.vmemmap.used)
    memset(m.state.folios.base, 0, m.state.folios.used)
    m.state.tables.used = <size_t>1 << m.config.geometry.table_shift    # number 0 is none
    m.state.ptdescs.used = sizeof(hgm_ptdesc)
    m.state.vmemmap.used = m.state.folios.used = m.state.poisoned.used = 0
    m.state.next_pfn = 0
    m.state.nr_tables = 0
    m.state.nr_folios = 0
    m.state.free_table = NO_TABLE
    for i in range(t.H):
        m.state.files[0].cache[i] = 0
    for i in range(t.P):
        m.state.processes[i].root = NO_TABLE
        m.state.processes[i].exited = False
        m.state.processes[i].next_address = 0
        m.state.mappings[i].nr_vmas = 0
        m.state.mappings[i].address = 0
        m.state.mappings[i].file = 0
        m.state.mappings[i].file_offset = 0
        m.state.mappings[i].length = <uint64_t>t.H << m.state.files[0].page_shift

cdef inline uint32_t new_table(Tiny *t) noexcept nogil:
    cdef Machine *m = &t.m
    cdef uint32_t number = <uint32_t>(m.state.tables.used >> m.config.geometry.table_shift)
    m.state.tables.used += <size_t>1 << m.config.geometry.table_shift
    m.state.ptdescs.used += sizeof(hgm_ptdesc)
    return number

cdef inline uint32_t new_folio(Tiny *t, uint32_t page) noexcept nogil:
    cdef Machine *m = &t.m
    cdef hgm_folio *folio = folio_at(m, m.state.nr_folios)
    folio.pfn = m.state.next_pfn
    folio.page = &(<hgm_page *>m.state.vmemmap.base)[folio.pfn]
    folio.nr_pages = t.N
    folio.file = 0
    folio.index = page
    m.state.next_pfn += t.N
    m.state.nr_folios += 1
    m.state.vmemmap.used = m.state.next_pfn * sizeof(hgm_page)
    m.state.folios.used = m.state.nr_folios * sizeof(hgm_folio)
    return m.state.nr_folios - 1

cdef inline bint enabled(Tiny *t, const Step *step) noexcept nogil:
    cdef Machine *m = &t.m
    cdef Process *p = &m.state.processes[step.process]
    cdef Mapping *v = &m.state.mappings[step.process]
    cdef uint32_t cached
    if step.need == ALWAYS:
        return True
    if step.need == MAPPED:
        return v.nr_vmas > 0
    if step.need == PINNABLE or step.need == UNPINNABLE:
        cached = m.state.files[0].cache[step.page]
        if cached == 0:
            return False
        if step.need == UNPINNABLE:
            return folio_at(m, cached - 1).pins > 0
        return folio_at(m, cached - 1).pins < <int>step.child    # of pin: maxpins
    if t.before.unborn >> step.process & 1 or p.exited:
        return False
    if step.need == UNMAPPED:
        return v.nr_vmas == 0
    if step.need == FORKABLE:
        return t.before.unborn >> step.child & 1
    return True

cdef inline uint64_t run(Tiny *t, const Step *step) noexcept nogil:
    """One step. Returns how many internal allocations happened (none failed); the result is in t.last."""
    cdef Machine *m = &t.m
    cdef Context *c = &m.context
    cdef uint32_t folios = m.state.nr_folios
    c.cost.underflows = c.cost.overflows = c.cost.leaf_installs = c.cost.leaf_removes = 0
    c.table_allocs = c.nr_results = 0
    c.results.used = 0
    c.fail = step.fail
    c.cpu = step.process    # each process has one of its own
    t.run(m, &step.op, 1, 0)
    if c.nr_results:
        t.last = (<hgm_result *>c.results.base)[0]
    else:
        t.last.error = 0
        t.last.event = 0
        t.last.done = step.op.length
    t.seen.unborn = t.before.unborn
    if step.need == FORKABLE:
        t.seen.unborn &= ~(<uint32_t>1 << step.child)
    return c.table_allocs + m.state.nr_folios - folios

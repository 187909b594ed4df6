# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The search: every step from every state of a tiny machine, level by level, until no new state appears.

A step is one operation record that the scheme's own engine runs (Engine.run), on a machine whose memory this module
owns. States are whole machines packed into a few 64-bit words, without what does not matter: costs, results, frame,
table and folio numbers, addresses. The set of states is exact: it compares whole packed states.

    packed state:  file size | which huge pages are cached | a word for each process | counted marks | folios

    process:       born, mapped, exited | VMA flags | for each huge page the entries at and below the hstate level
    folio:         reference count | freed | pins | then the words of FIELDS that any state of this search uses

Folios are numbered by first appearance: the page cache in order, then the folios that counted marks stand for. With
symmetry, a state is the smallest of those that exchanging processes of the same birth gives.

Which FIELDS a packed state has is found by use: a search that meets a word that is not zero and not among its fields
stops with `grow` set, and is begun anew with it.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.core.folio cimport cache_refs, folio_at, folio_of
from hgmcore.core.machine cimport Context, Core, Engine, File, Machine, Mapping, NO_TABLE, Process, State, Vma
from hgmcore.core.memory cimport Region
from hgmcore.core.table cimport hstate_entry, is_leaf, is_table, leaf_entry, table_desc, table_entries, table_number

import numpy as np

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
    NONE = 0xffffffff

# Fields of a packed state that only some schemes or scopes use.
cdef enum:
    MARKS = 1
    CHILDREN = 2
    POISON = 4
    ENTIRE = 8
    NR_PAGES_MAPPED = 16
    LARGE = 32
    TOTAL = 64
    PER_PAGE = 128
    DOUBLE_MAP = 256
    SLOTS = 512
    STRANGE = 1024                # a word that no field stands for

FIELDS = {"marks": MARKS, "children": CHILDREN, "poison": POISON, "entire": ENTIRE, "nr_pages_mapped": NR_PAGES_MAPPED,
          "large": LARGE, "total": TOTAL, "page counts": PER_PAGE, "double_map": DOUBLE_MAP, "owner slots": SLOTS,
          "another word": STRANGE}

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

STEP = np.dtype([("offset", "<u8"), ("length", "<u8"), ("target", "<u4"), ("arg", "<u2"), ("op", "u1"), ("flags", "u1"),
                 ("family", "u1"), ("need", "u1"), ("process", "u1"), ("child", "u1"), ("page", "u1"), ("fail", "u1"),
                 ("moves", "u1"), ("refusable", "u1")])
NEEDS = {"always": ALWAYS, "mapped": MAPPED, "unmapped": UNMAPPED, "alive": ALIVE, "forkable": FORKABLE,
         "pinnable": PINNABLE, "unpinnable": UNPINNABLE}

cdef struct Bits:
    uint64_t *words
    int at

cdef inline void put(Bits *b, uint64_t value, int width) noexcept nogil:
    cdef int at = b.at & 63
    b.words[b.at >> 6] |= value << at
    if at + width > 64:
        b.words[(b.at >> 6) + 1] |= value >> (64 - at)
    b.at += width

cdef inline uint64_t get(Bits *b, int width) noexcept nogil:
    cdef int at = b.at & 63
    cdef uint64_t value = b.words[b.at >> 6] >> at
    if at + width > 64:
        value |= b.words[(b.at >> 6) + 1] << (64 - at)
    b.at += width
    return value & (~<uint64_t>0 >> (64 - width)) if width else 0

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

cdef struct Link:
    uint32_t parent
    uint16_t step
    uint16_t permutation

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

cdef struct Violation:
    uint32_t parent               # NONE: the initial state itself
    uint32_t step
    uint32_t depth
    uint32_t families
    bint found


cdef class Search:
    """Every state of one scheme on one tiny machine.

    core: a machine with one file, its processes and one mapping in each, on which nothing ran. engine: its scheme.
    born: processes that there are at the start. maxpins: pins that a state may have. steps: an array of STEP, in the
    order in which they are tried. permutations: rows of process numbers, the identity first. fields: of FIELDS, or'ed.
    """
    cdef Core core
    cdef Engine engine
    cdef Machine m
    cdef unsigned char *block
    cdef Image image
    cdef Before before
    cdef Seen seen
    cdef long long *runs
    cdef object steps_array
    cdef const Step *steps
    cdef int nr_steps, nr_families
    cdef int P, H, N, hstate_level, born
    cdef uint32_t fields
    cdef int process_bits, ref_bits, pin_bits, count_bits, words, id_bits, mark_bits
    cdef int64_t count_bound
    cdef int nr_permutations
    cdef int permutations[MAX_PERMUTATIONS][MAX_PROCESSES]
    cdef size_t fixed_size
    cdef unsigned char *fixed
    # the set of states
    cdef uint64_t *keys
    cdef Link *links
    cdef uint32_t *table
    cdef uint64_t nr_states, room, table_size
    cdef uint64_t next_state, level_end
    cdef uint32_t depth_now
    cdef uint64_t[::1] done_, refused_, injected_
    cdef uint64_t premises[NR_PROPERTIES]
    cdef uint64_t *by_depth
    cdef uint64_t generated_, fatal_, orbits_
    cdef Violation violations[NR_PROPERTIES]
    cdef uint32_t broken          # properties that the last step or state judged broke
    cdef hgm_result last

    def __cinit__(self, Core core, Engine engine, int born, int maxpins, steps, permutations, uint32_t fields,
                  bint poison):
        cdef File *f = &core.m.state.files[0]
        cdef int i, j, c
        core.fits(engine)
        self.core, self.engine = core, engine
        self.P, self.H, self.N = core.m.state.nr_processes, <int>f.pages, <int>f.nr_pages
        self.hstate_level, self.born = f.level, born
        if (self.P > MAX_PROCESSES or self.H > MAX_HUGE or self.N > MAX_PAGES or self.N < 2
                or self.H > 1 << core.m.config.geometry.index_bits):
            raise ValueError(f"a search has at most {MAX_PROCESSES} processes and {MAX_HUGE} huge pages of 2 to "
                             f"{MAX_PAGES} base pages")
        self.fields = fields
        self.steps_array = np.ascontiguousarray(steps, STEP)
        self.nr_steps = len(steps)
        self.steps = <const Step *><size_t>self.steps_array.ctypes.data
        self.nr_permutations = len(permutations)
        for i in range(self.nr_permutations):
            for j in range(self.P):
                self.permutations[i][j] = permutations[i][j]
        self.done_ = np.zeros(MAX_FAMILIES, np.uint64)
        self.refused_ = np.zeros(MAX_FAMILIES, np.uint64)
        self.injected_ = np.zeros(MAX_FAMILIES, np.uint64)
        c = self.N if core.m.config.options.cache_refs_folio else 1
        self.count_bound = self.P * self.N
        self.count_bits = int(self.count_bound).bit_length()
        self.pin_bits = int(maxpins).bit_length()
        self.ref_bits = min(32, int(c + maxpins + (self.N if poison else 0) + self.count_bound).bit_length())
        self.id_bits = int(self.P).bit_length()
        self.mark_bits = 4
        self.process_bits = 5 + self.H * self.subtree_bits()
        if self.process_bits > 64:
            raise ValueError("a process of this scope does not fit in a word")
        self.words = (self.state_bits() + 63) // 64
        if self.words > MAX_WORDS:
            raise ValueError("a state of this scope is too large")
        self.place_memory()

    def __dealloc__(self):
        free(self.block)
        free(self.image.data)
        free(self.runs)
        free(self.keys)
        free(self.links)
        free(self.table)
        free(self.by_depth)

    cdef int subtree_bits(self):
        cdef int tables = 1, entries = 1 << self.core.m.config.geometry.index_bits, bits = 2, level = self.hstate_level
        if self.fields & MARKS:
            bits += 2    # counted, and for the page that is cached
        while level > 1:
            if self.fields & CHILDREN:
                bits += tables * (self.core.m.config.geometry.index_bits + 1)
            tables *= entries
            bits += 2 * tables
            level -= 1
        return bits

    cdef int folio_bits(self):
        cdef int bits = self.ref_bits + 1 + self.pin_bits
        bits += self.N if self.fields & POISON else 0
        bits += self.count_bits if self.fields & ENTIRE else 0
        bits += self.count_bits + 1 if self.fields & NR_PAGES_MAPPED else 0
        bits += self.count_bits if self.fields & LARGE else 0
        bits += self.count_bits if self.fields & TOTAL else 0
        bits += self.N * self.count_bits if self.fields & PER_PAGE else 0
        bits += 1 if self.fields & DOUBLE_MAP else 0
        bits += 1 + 2 * (self.id_bits + self.count_bits) if self.fields & SLOTS else 0
        return bits

    cdef int state_bits(self):
        cdef int folios = self.H
        cdef int bits = 2 + self.H + self.P * self.process_bits
        if self.fields & MARKS:
            folios += self.P * self.H
            bits += self.P * self.H * self.mark_bits
        return bits + folios * self.folio_bits()

    cdef int place_memory(self) except -1:
        """Give the machine memory of this object's own, and the tables for the first state."""
        cdef Machine *m = &self.m
        cdef int i
        cdef size_t sizes[6]
        cdef size_t total = 0, tables = (<size_t>MAX_TABLES << self.core.m.config.geometry.table_shift) + 64
        cdef unsigned char *at
        m[0] = self.core.m
        self.fixed_size = (sizeof(File) + sizeof(uint32_t) * MAX_HUGE + 64
                           + self.P * (sizeof(Process) + sizeof(Mapping) + 4 * sizeof(Vma)))
        sizes[:] = [tables, MAX_TABLES * sizeof(hgm_ptdesc), MAX_FOLIOS * self.N * sizeof(hgm_page),
                    MAX_FOLIOS * sizeof(hgm_folio), MAX_FOLIOS * self.N * sizeof(uint64_t), 4096]
        for i in range(6):
            total += sizes[i]
        self.block = <unsigned char *>calloc(1, total + self.fixed_size)
        self.image.data = <unsigned char *>malloc(total + self.fixed_size)
        self.runs = <long long *>malloc(3 * (MAX_PAGES + 1) * sizeof(long long))
        self.room, self.table_size = 1 << 12, 1 << 13
        self.keys = <uint64_t *>malloc(self.room * self.words * sizeof(uint64_t))
        self.links = <Link *>malloc(self.room * sizeof(Link))
        self.table = <uint32_t *>malloc(self.table_size * sizeof(uint32_t))
        self.by_depth = <uint64_t *>calloc(1 << 12, sizeof(uint64_t))
        if (self.block is NULL or self.image.data is NULL or self.runs is NULL or self.keys is NULL
                or self.links is NULL or self.table is NULL or self.by_depth is NULL):
            raise MemoryError("no memory for a search")
        memset(self.table, 0xff, self.table_size * sizeof(uint32_t))
        at = self.block
        at = self.place_region(&m.state.tables, at, sizes[0])
        m.state.tables.reserved -= 64    # a scan reads eight entries at once
        at = self.place_region(&m.state.ptdescs, at, sizes[1])
        at = self.place_region(&m.state.vmemmap, at, sizes[2])
        at = self.place_region(&m.state.folios, at, sizes[3])
        at = self.place_region(&m.state.poisoned, at, sizes[4])
        at = self.place_region(&m.context.results, at, sizes[5])
        self.fixed = at
        m.state.files = <File *>at
        at += sizeof(File)
        m.state.processes = <Process *>at
        at += self.P * sizeof(Process)
        m.state.mappings = <Mapping *>at
        at += self.P * sizeof(Mapping)
        memcpy(m.state.files, self.core.m.state.files, sizeof(File))
        memcpy(m.state.processes, self.core.m.state.processes, self.P * sizeof(Process))
        memcpy(m.state.mappings, self.core.m.state.mappings, self.P * sizeof(Mapping))
        for i in range(self.P):
            m.state.mappings[i].vmas = <Vma *>at
            m.state.mappings[i].max_vmas = 4
            m.state.mappings[i].nr_vmas = 0
            at += 4 * sizeof(Vma)
        m.state.files[0].cache = <uint32_t *>at
        m.context.owner = m
        m.context.tables_populated = <size_t>1 << 40    # it is there
        return 0

    cdef unsigned char *place_region(self, Region *region, unsigned char *at, size_t size):
        region.base = at
        region.used = 0
        region.reserved = size
        return at + size

    # -- a machine and its image

    cdef void image_take(self) noexcept nogil:
        cdef Machine *m = &self.m
        cdef unsigned char *at = self.image.data
        self.image.state = m.state
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
        memcpy(at, self.fixed, self.fixed_size)

    cdef inline const unsigned char *region_back(self, Region *region, size_t used,
                                                 const unsigned char *at) noexcept nogil:
        memcpy(region.base, at, used)
        if region.used > used:
            memset(region.base + used, 0, region.used - used)
        return at + used

    cdef inline void image_restore(self) noexcept nogil:
        cdef Machine *m = &self.m
        cdef const unsigned char *at = self.image.data
        at = self.region_back(&m.state.tables, self.image.state.tables.used, at)
        at = self.region_back(&m.state.ptdescs, self.image.state.ptdescs.used, at)
        at = self.region_back(&m.state.vmemmap, self.image.state.vmemmap.used, at)
        at = self.region_back(&m.state.folios, self.image.state.folios.used, at)
        at = self.region_back(&m.state.poisoned, self.image.state.poisoned.used, at)
        memcpy(self.fixed, at, self.fixed_size)
        m.state = self.image.state

    # -- from a packed state to a machine

    cdef void blank(self) noexcept nogil:
        """A machine with nothing in it; all processes unborn or alive without a mapping."""
        cdef Machine *m = &self.m
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
        for i in range(self.H):
            m.state.files[0].cache[i] = 0
        for i in range(self.P):
            m.state.processes[i].root = NO_TABLE
            m.state.processes[i].exited = False
            m.state.processes[i].next_address = 0
            m.state.mappings[i].nr_vmas = 0
            m.state.mappings[i].address = 0
            m.state.mappings[i].file = 0
            m.state.mappings[i].file_offset = 0
            m.state.mappings[i].length = <uint64_t>self.H << m.state.files[0].page_shift

    cdef uint32_t new_table(self) noexcept nogil:
        cdef Machine *m = &self.m
        cdef uint32_t number = <uint32_t>(m.state.tables.used >> m.config.geometry.table_shift)
        m.state.tables.used += <size_t>1 << m.config.geometry.table_shift
        m.state.ptdescs.used += sizeof(hgm_ptdesc)
        return number

    cdef uint32_t new_folio(self, uint32_t page) noexcept nogil:
        cdef Machine *m = &self.m
        cdef hgm_folio *folio = folio_at(m, m.state.nr_folios)
        folio.pfn = m.state.next_pfn
        folio.page = &(<hgm_page *>m.state.vmemmap.base)[folio.pfn]
        folio.nr_pages = self.N
        folio.file = 0
        folio.index = page
        m.state.next_pfn += self.N
        m.state.nr_folios += 1
        m.state.vmemmap.used = m.state.next_pfn * sizeof(hgm_page)
        m.state.folios.used = m.state.nr_folios * sizeof(hgm_folio)
        return m.state.nr_folios - 1

    cdef void entries_unpack(self, Bits *b, uint64_t *entry, int level, uint64_t pfn) noexcept nogil:
        """What stands at `entry` of `level`, whose first base page is frame `pfn`, and below it."""
        cdef Machine *m = &self.m
        cdef int code = <int>get(b, 2), i, entries = 1 << m.config.geometry.index_bits
        cdef uint64_t step, number
        if code == 0:
            return
        if code == 1 or level == 1 and code == 2:
            entry[0] = leaf_entry(pfn) | (HGM_PTE_GROUP if code == 2 else 0)
        elif code == 3:
            entry[0] = HGM_PTE_POISON
        else:
            number = self.new_table()
            m.state.nr_tables += 1
            entry[0] = number << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
            if self.fields & CHILDREN:
                table_desc(m, number).children = <uint32_t>get(b, m.config.geometry.index_bits + 1)
            step = <uint64_t>1 << (m.config.geometry.level_shift[level - 1] - m.config.geometry.base_shift)
            for i in range(entries):
                self.entries_unpack(b, &table_entries(m, number)[i], level - 1, pfn + i * step)

    cdef void folio_unpack(self, Bits *b, uint32_t number) noexcept nogil:
        cdef Machine *m = &self.m
        cdef hgm_folio *folio = folio_at(m, number)
        cdef hgm_page *page1 = &folio.page[1]
        cdef uint64_t bad, i
        folio.page._refcount = <int32_t>get(b, self.ref_bits)
        folio.flags |= HGM_FOLIO_FREED if get(b, 1) else 0
        folio.pins = <int32_t>get(b, self.pin_bits)
        if self.fields & POISON:
            bad = get(b, self.N)
            for i in range(self.N):
                if bad >> i & 1:
                    (<uint64_t *>m.state.poisoned.base)[m.state.poisoned.used // sizeof(uint64_t)] = folio.pfn + i
                    m.state.poisoned.used += sizeof(uint64_t)
                    folio.poisons += 1
                    folio.flags |= HGM_FOLIO_POISONED
        if self.fields & ENTIRE:
            page1._entire_mapcount = <int32_t>get(b, self.count_bits)
        if self.fields & NR_PAGES_MAPPED:
            page1._nr_pages_mapped = <int32_t>get(b, self.count_bits)
            page1._nr_pages_mapped += <int32_t>get(b, 1) << 23
        if self.fields & LARGE:
            page1._large_mapcount = <int32_t>get(b, self.count_bits)
        if self.fields & TOTAL:
            page1._total_mapped_pages = <int64_t>get(b, self.count_bits)
        if self.fields & PER_PAGE:
            for i in range(self.N):
                folio.page[i]._mapcount = <int32_t>get(b, self.count_bits)
        if self.fields & DOUBLE_MAP and get(b, 1):
            page1.flags |= HGM_PAGE_DOUBLE_MAP
        if self.fields & SLOTS:
            for i in range(2):
                page1._mm_id[i] = <uint32_t>get(b, self.id_bits)
                page1._mm_id_mapcount[i] = <int32_t>get(b, self.count_bits)
            if get(b, 1):
                page1._mm_id[1] |= <uint32_t>1 << 31

    cdef void unpack(self, const uint64_t *key) noexcept nogil:
        """Make the machine the state `key`."""
        cdef Machine *m = &self.m
        cdef Bits b, word
        cdef uint64_t words[MAX_PROCESSES][2]
        cdef uint32_t number
        cdef int p, h, status, level, cached, bits
        cdef uint64_t *entry
        cdef uint32_t held
        cdef int nr_marks = 0, k
        cdef uint64_t *marks[MAX_STATE_FOLIOS]
        cdef uint32_t pages[MAX_STATE_FOLIOS]
        cdef bint counted, same
        cdef Vma *vma
        self.blank()
        self.before.unborn = 0
        b.words = <uint64_t *>key
        b.at = 0
        m.state.files[0].size = get(&b, 2)
        cached = <int>get(&b, self.H)
        for h in range(self.H):
            if cached >> h & 1:
                number = self.new_folio(h)
                m.state.files[0].cache[h] = number + 1
                folio_at(m, number).flags = HGM_FOLIO_CACHED
        for p in range(self.P):
            words[p][0] = get(&b, self.process_bits)
            words[p][1] = 0
            word.words = words[p]
            word.at = 0
            status = <int>get(&word, 2)
            if status == UNBORN:
                self.before.unborn |= 1 << p
            elif status == EXITED:
                m.state.processes[p].exited = True
            elif status == MAPS:
                vma = &m.state.mappings[p].vmas[0]
                m.state.mappings[p].nr_vmas = 1
                m.state.processes[p].next_address = vma.end = m.state.mappings[p].length
                vma.start = 0
                vma.lock = 0
                bits = <int>get(&word, 3)
                vma.flags = HGM_OPF_SHARED | HGM_OPF_READ | HGM_OPF_WRITE | bits << 1
                level = m.config.geometry.levels
                m.state.processes[p].root = number = self.new_table()
                while level > self.hstate_level:
                    table_entries(m, number)[0] = <uint64_t>(number + 1) << HGM_PTE_FRAME_SHIFT | HGM_PTE_PRESENT
                    number = self.new_table()
                    level -= 1
                for h in range(self.H):
                    entry = &table_entries(m, number)[h]
                    counted = same = False
                    if self.fields & MARKS:
                        counted = get(&word, 1)
                        same = get(&word, 1)
                    bits = word.at
                    held = m.state.files[0].cache[h]
                    self.entries_unpack(&word, entry, self.hstate_level, folio_at(m, held - 1).pfn if held else 0)
                    word.at = bits + self.subtree_bits_nogil()
                    if counted:
                        entry[0] |= HGM_PTE_COUNTED
                        if same:
                            table_desc(m, table_number(entry[0])).folio = m.state.files[0].cache[h]
                        else:
                            marks[nr_marks] = entry
                            pages[nr_marks] = h
                            nr_marks += 1
        for k in range(nr_marks):
            number = <uint32_t>get(&b, self.mark_bits)
            while number >= m.state.nr_folios:
                self.new_folio(pages[k])
            table_desc(m, table_number(marks[k][0])).folio = number + 1
        for number in range(m.state.nr_folios):
            self.folio_unpack(&b, number)

    cdef inline int subtree_bits_nogil(self) noexcept nogil:
        """Bits of a subtree behind its mark."""
        return (self.process_bits - 5) // self.H - (2 if self.fields & MARKS else 0)

    # -- from a machine to a packed state

    cdef inline void ptes_look(self, Bits *b, const uint64_t *entries, const hgm_folio *folio,
                               uint64_t first) noexcept nogil:
        """What stands in a table of PTEs: as entries_look() of each."""
        cdef uint64_t codes = 0, e, frame = folio.pfn + first if folio is not NULL else 0
        cdef int i, n = 1 << self.m.config.geometry.index_bits
        cdef bint strange = False
        for i in range(n):
            e = entries[i]
            if e == 0:
                continue
            if is_leaf(e):
                strange |= e >> HGM_PTE_FRAME_SHIFT != frame + i or folio is NULL
                codes |= <uint64_t>(2 if e & HGM_PTE_GROUP else 1) << 2 * i
            else:
                strange |= e != HGM_PTE_POISON
                codes |= <uint64_t>3 << 2 * i
        self.seen.strange |= strange
        put(b, codes, 2 * n)

    cdef void entries_look(self, Bits *b, const uint64_t *entry, int level, const hgm_folio *folio,
                           uint64_t first) noexcept nogil:
        cdef Machine *m = &self.m
        cdef uint64_t e = entry[0], step
        cdef uint32_t number
        cdef int i
        if e == 0:
            put(b, 0, 2)
        elif is_leaf(e):
            if folio is NULL or e >> HGM_PTE_FRAME_SHIFT != folio.pfn + first:
                self.seen.strange = True
            put(b, 2 if e & HGM_PTE_GROUP else 1, 2)
        elif is_table(e) and level > 1:
            put(b, 2, 2)
            number = table_number(e)
            if self.fields & CHILDREN:
                put(b, table_desc(m, number).children, m.config.geometry.index_bits + 1)
                if table_desc(m, number).children > <uint32_t>1 << m.config.geometry.index_bits:
                    self.seen.strange = True
            elif table_desc(m, number).children:
                self.seen.grow |= CHILDREN
            if level == 2:
                self.ptes_look(b, table_entries(m, number), folio, first)
                return
            step = <uint64_t>1 << (m.config.geometry.level_shift[level - 1] - m.config.geometry.base_shift)
            for i in range(1 << m.config.geometry.index_bits):
                self.entries_look(b, &table_entries(m, number)[i], level - 1, folio, first + i * step)
        elif e == HGM_PTE_POISON:
            put(b, 3, 2)
        else:
            self.seen.strange = True

    cdef void look(self) noexcept nogil:
        """See the machine as a packed state does: `self.seen`, but for its folios."""
        cdef Machine *m = &self.m
        cdef Seen *s = &self.seen
        cdef Mapping *v
        cdef Bits b
        cdef uint64_t word[2]
        cdef uint64_t *entry
        cdef hgm_folio *folio
        cdef int p, h, at
        s.grow = 0
        s.strange = s.negative = s.unbounded = False
        for h in range(self.H):
            s.cached[h] = m.state.files[0].cache[h]
        for p in range(self.P):
            word[0] = word[1] = 0
            b.words = word
            b.at = 0
            v = &m.state.mappings[p]
            for h in range(self.H):
                s.mark[p][h] = 0
            if s.unborn >> p & 1:
                put(&b, UNBORN, 2)
            elif m.state.processes[p].exited:
                put(&b, EXITED, 2)
            elif v.nr_vmas == 0:
                put(&b, BORN, 2)
            else:
                put(&b, MAPS, 2)
                if v.nr_vmas > 1:
                    s.strange = True
                put(&b, v.vmas[0].flags >> 1 & 7, 3)
                for h in range(self.H):
                    entry = hstate_entry(m, &m.state.processes[p],
                                         v.address + (<uint64_t>h << m.state.files[0].page_shift), self.hstate_level,
                                         False)
                    folio = folio_at(m, s.cached[h] - 1) if s.cached[h] else NULL
                    if entry is not NULL and entry[0] & HGM_PTE_COUNTED:
                        s.mark[p][h] = table_desc(m, table_number(entry[0])).folio
                        if not self.fields & MARKS:
                            s.grow |= MARKS
                    if self.fields & MARKS:
                        put(&b, s.mark[p][h] != 0, 1)
                        put(&b, s.mark[p][h] != 0 and s.mark[p][h] == s.cached[h], 1)
                    at = b.at
                    if entry is not NULL and entry[0]:
                        self.entries_look(&b, entry, self.hstate_level, folio, 0)
                    b.at = at + self.subtree_bits_nogil()
            s.word[p] = word[0]

    cdef inline void count_pack(self, Bits *b, uint32_t field, int64_t value) noexcept nogil:
        """A map word."""
        if value < 0:
            self.seen.negative |= value > -(<int64_t>1 << 30)    # else it has wrapped: an overflow
            value = 0
        elif value > self.count_bound:
            self.seen.unbounded = True
            value = 0
        if self.fields & field:
            put(b, <uint64_t>value, self.count_bits)
        elif value:
            self.seen.grow |= field

    cdef void folio_pack(self, Bits *b, uint32_t number, const int *inverse) noexcept nogil:
        cdef Machine *m = &self.m
        cdef hgm_folio *folio = folio_at(m, number)
        cdef hgm_page *page1 = &folio.page[1]
        cdef Seen *s = &self.seen
        cdef int64_t references = folio.page._refcount
        cdef int64_t bound = folio.pins + folio.poisons + self.count_bound
        cdef uint64_t bad = 0, i
        cdef uint32_t id
        if folio.flags & HGM_FOLIO_CACHED:
            bound += cache_refs(m, folio)
        if references < 0 or references > bound:
            s.negative |= references < 0 and references > -(<int64_t>1 << 30)
            s.unbounded |= references > bound
            references = 0
        put(b, <uint64_t>references, self.ref_bits)
        put(b, folio.flags & HGM_FOLIO_FREED != 0, 1)
        put(b, <uint64_t>folio.pins, self.pin_bits)
        if self.fields & POISON:
            for i in range(m.state.poisoned.used // sizeof(uint64_t)):
                if (<uint64_t *>m.state.poisoned.base)[i] - folio.pfn < folio.nr_pages:
                    bad |= <uint64_t>1 << ((<uint64_t *>m.state.poisoned.base)[i] - folio.pfn)
            put(b, bad, self.N)
        elif folio.poisons:
            s.grow |= POISON
        self.count_pack(b, ENTIRE, page1._entire_mapcount)
        self.count_pack(b, NR_PAGES_MAPPED,
                        page1._nr_pages_mapped & 0x7fffff if page1._nr_pages_mapped >= 0 else page1._nr_pages_mapped)
        if self.fields & NR_PAGES_MAPPED:
            put(b, page1._nr_pages_mapped >> 23 & 1, 1)
            s.unbounded |= page1._nr_pages_mapped >> 24 > 0
        elif page1._nr_pages_mapped:
            s.grow |= NR_PAGES_MAPPED
        self.count_pack(b, LARGE, page1._large_mapcount)
        self.count_pack(b, TOTAL, page1._total_mapped_pages)
        for i in range(self.N):
            self.count_pack(b, PER_PAGE, folio.page[i]._mapcount)
        if self.fields & DOUBLE_MAP:
            put(b, page1.flags & HGM_PAGE_DOUBLE_MAP != 0, 1)
        elif page1.flags & HGM_PAGE_DOUBLE_MAP:
            s.grow |= DOUBLE_MAP
        if self.fields & SLOTS:
            for i in range(2):
                id = page1._mm_id[i] & 0x7fffffff
                if id > <uint32_t>self.P:
                    s.strange = True
                    id = 0
                put(b, <uint64_t>inverse[id - 1] + 1 if id else 0, self.id_bits)
                self.count_pack(b, SLOTS, page1._mm_id_mapcount[i])
            put(b, page1._mm_id[1] >> 31, 1)
        elif page1._mm_id[0] | page1._mm_id[1]:
            s.grow |= SLOTS
        if page1._pincount:
            s.grow |= STRANGE

    cdef void pack(self, const int *order, uint64_t *key) noexcept nogil:
        """The packed state of the machine that look() saw, with process order[i] in place i."""
        cdef Machine *m = &self.m
        cdef Seen *s = &self.seen
        cdef Bits b
        cdef int inverse[MAX_PROCESSES]
        cdef uint32_t folios[MAX_STATE_FOLIOS]
        cdef uint32_t mark
        cdef int n = 0, i, h, k
        memset(key, 0, self.words * sizeof(uint64_t))
        b.words = key
        b.at = 0
        put(&b, m.state.files[0].size, 2)
        for h in range(self.H):
            put(&b, s.cached[h] != 0, 1)
            if s.cached[h]:
                folios[n] = s.cached[h] - 1
                n += 1
        for i in range(self.P):
            inverse[order[i]] = i
            put(&b, s.word[order[i]], self.process_bits)
        if self.fields & MARKS:
            for i in range(self.P):
                for h in range(self.H):
                    mark = s.mark[order[i]][h]
                    if mark == 0 or mark == s.cached[h]:
                        continue
                    k = 0
                    while k < n and folios[k] != mark - 1:
                        k += 1
                    if k == n:
                        folios[n] = mark - 1
                        n += 1
                    put(&b, k, self.mark_bits)
        for k in range(n):
            self.folio_pack(&b, folios[k], inverse)

    cdef int canonical(self, uint64_t *key, int *orbit) noexcept nogil:
        """Look at the machine and pack it; returns the permutation's number. orbit: states that it stands for."""
        cdef uint64_t other[MAX_WORDS]
        cdef int i, k, chosen = -1, same = 0
        cdef const int *order
        cdef bint sorted
        self.look()
        if self.nr_permutations == 1:
            self.pack(self.permutations[0], key)
            orbit[0] = 1
            return 0
        for i in range(self.nr_permutations):
            order = self.permutations[i]
            sorted = True
            for k in range(1, self.P):
                if k != self.born and self.seen.word[order[k - 1]] > self.seen.word[order[k]]:
                    sorted = False
                    break
            if not sorted:
                continue
            self.pack(order, key if chosen < 0 else other)
            if chosen < 0:
                chosen = i
                same = 1
                continue
            k = self.key_order(other, key)
            if k < 0:
                memcpy(key, other, self.words * sizeof(uint64_t))
                chosen = i
                same = 1
            elif k == 0:
                same += 1
        orbit[0] = self.nr_permutations // same
        return chosen

    cdef int key_order(self, const uint64_t *a, const uint64_t *b) noexcept nogil:
        cdef int i
        for i in range(self.words):
            if a[i] != b[i]:
                return -1 if a[i] < b[i] else 1
        return 0

    # -- the set

    cdef inline uint64_t hash(self, const uint64_t *key) noexcept nogil:
        cdef uint64_t h = <uint64_t>0x9e3779b97f4a7c15
        cdef int i
        for i in range(self.words):
            h = (h ^ key[i]) * <uint64_t>0xd6e8feb86659fd93
            h ^= h >> 32
        return h

    cdef uint32_t find(self, const uint64_t *key) noexcept nogil:
        """The state's number, or NONE."""
        cdef uint64_t at = self.hash(key) & (self.table_size - 1), other
        cdef const uint64_t *there
        cdef int i
        while self.table[at] != NONE:
            there = &self.keys[<uint64_t>self.table[at] * self.words]
            other = 0
            for i in range(self.words):
                other |= there[i] ^ key[i]
            if other == 0:
                return self.table[at]
            at = (at + 1) & (self.table_size - 1)
        return NONE

    cdef bint enter(self, const uint64_t *key, uint32_t parent, int step, int permutation) noexcept nogil:
        """Add a state that is not there. False: the host has no memory."""
        cdef uint64_t i, at
        cdef void *grown
        cdef uint32_t *table
        if self.nr_states == self.room:
            grown = realloc(self.keys, 2 * self.room * self.words * sizeof(uint64_t))
            if grown is NULL:
                return False
            self.keys = <uint64_t *>grown
            grown = realloc(self.links, 2 * self.room * sizeof(Link))
            if grown is NULL:
                return False
            self.links = <Link *>grown
            table = <uint32_t *>malloc(2 * self.table_size * sizeof(uint32_t))
            if table is NULL:
                return False
            self.room *= 2
            free(self.table)
            self.table = table
            self.table_size *= 2
            memset(table, 0xff, self.table_size * sizeof(uint32_t))
            for i in range(self.nr_states):
                at = self.hash(&self.keys[i * self.words]) & (self.table_size - 1)
                while table[at] != NONE:
                    at = (at + 1) & (self.table_size - 1)
                table[at] = <uint32_t>i
        at = self.hash(key) & (self.table_size - 1)
        while self.table[at] != NONE:
            at = (at + 1) & (self.table_size - 1)
        self.table[at] = <uint32_t>self.nr_states
        memcpy(&self.keys[self.nr_states * self.words], key, self.words * sizeof(uint64_t))
        self.links[self.nr_states].parent = parent
        self.links[self.nr_states].step = <uint16_t>step
        self.links[self.nr_states].permutation = <uint16_t>permutation
        self.nr_states += 1
        return True

    # -- truth: from the page tables alone

    cdef void truth_below(self, Truth *truth, uint32_t table, int level, int process) noexcept nogil:
        cdef Machine *m = &self.m
        cdef uint64_t *entries = table_entries(m, table)
        cdef uint64_t i = 0, pages, pfn, j
        cdef hgm_folio *folio
        cdef Truth *t
        while i < <uint64_t>1 << m.config.geometry.index_bits:
            if entries[i] & HGM_PTE_PRESENT and entries[i] & HGM_PTE_LEAF:
                pages = <uint64_t>1 << (m.config.geometry.level_shift[level] - m.config.geometry.base_shift)
                pfn = entries[i] >> HGM_PTE_FRAME_SHIFT
                if entries[i] & HGM_PTE_GROUP:
                    pages *= m.config.geometry.group[level]
                    i += m.config.geometry.group[level] - 1
                folio = folio_of(m, pfn)
                t = &truth[folio - folio_at(m, 0)]
                t.leaves += 1
                t.processes |= 1 << process
                for j in range(pfn - folio.pfn, pfn - folio.pfn + pages):
                    t.at[j] += 1
            elif entries[i] & HGM_PTE_PRESENT:
                self.truth_below(truth, <uint32_t>(entries[i] >> HGM_PTE_FRAME_SHIFT), level - 1, process)
            i += 1

    cdef void truths(self, Truth *truth) noexcept nogil:
        cdef Machine *m = &self.m
        cdef int p
        memset(truth, 0, m.state.nr_folios * sizeof(Truth))
        for p in range(self.P):
            if m.state.processes[p].root != NO_TABLE:
                self.truth_below(truth, m.state.processes[p].root, m.config.geometry.levels, p)

    cdef void page_mapcounts(self, const hgm_folio *folio, int64_t *out) noexcept nogil:
        cdef uint64_t n, i
        cdef long long j
        n = self.engine.page_mapcount_runs(&self.m, folio, self.runs)
        for i in range(n):
            for j in range(self.runs[3 * i], self.runs[3 * i + 1]):
                out[j] = self.runs[3 * i + 2]

    # -- properties

    cdef void prepare(self) noexcept nogil:
        """Keep what holds in the machine now, before steps from here."""
        cdef Machine *m = &self.m
        cdef Before *b = &self.before
        cdef hgm_answer a
        cdef int h
        b.nr_folios = m.state.nr_folios
        self.truths(b.truth)
        for h in range(self.H):
            b.cached[h] = m.state.files[0].cache[h]
            if b.cached[h]:
                b.refcount[h] = folio_at(m, b.cached[h] - 1).page._refcount
                self.engine.answer(&m.config.options, folio_at(m, b.cached[h] - 1), &a)
                b.mapcount[h] = a.mapcount
                self.page_mapcounts(folio_at(m, b.cached[h] - 1), b.page_mapcount[h])
        self.image_take()

    cdef bint enabled(self, const Step *step) noexcept nogil:
        cdef Machine *m = &self.m
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
        if self.before.unborn >> step.process & 1 or p.exited:
            return False
        if step.need == UNMAPPED:
            return v.nr_vmas == 0
        if step.need == FORKABLE:
            return self.before.unborn >> step.child & 1
        return True

    cdef uint64_t run(self, const Step *step) noexcept nogil:
        """One step. Returns how many internal allocations happened (none failed); the result is in self.last."""
        cdef Machine *m = &self.m
        cdef Context *c = &m.context
        cdef uint32_t folios = m.state.nr_folios
        c.cost.underflows = c.cost.overflows = c.cost.leaf_installs = c.cost.leaf_removes = 0
        c.table_allocs = c.nr_results = 0
        c.results.used = 0
        c.fail = step.fail
        self.engine.run(m, &step.op, 1, 0)
        if c.nr_results:
            self.last = (<hgm_result *>c.results.base)[0]
        else:
            self.last.error = 0
            self.last.event = 0
            self.last.done = step.op.length
        self.seen.unborn = self.before.unborn
        if step.need == FORKABLE:
            self.seen.unborn &= ~(<uint32_t>1 << step.child)
        return c.table_allocs + m.state.nr_folios - folios

    cdef uint32_t judge_step(self, const Step *step, bint fatal) noexcept nogil:
        """The step properties that are broken, of the machine that look() saw. fatal: only those that are fatal."""
        cdef Machine *m = &self.m
        cdef Before *b = &self.before
        cdef Seen *s = &self.seen
        cdef hgm_folio *folio
        cdef hgm_answer a
        cdef int64_t counts[MAX_PAGES]
        cdef uint32_t broken = 0, i, was
        cdef int p, h, k
        cdef bint reachable, changed
        cdef int64_t owners
        self.premises[UF] += m.context.cost.leaf_removes > 0
        self.premises[OS] += m.context.cost.leaf_installs > 0
        if fatal:
            return 0
        for i in range(b.nr_folios):
            folio = folio_at(m, i)
            if folio.flags & HGM_FOLIO_CACHED:
                continue
            reachable = False
            for p in range(self.P):
                for h in range(self.H):
                    reachable |= s.mark[p][h] == i + 1
            if not reachable:
                self.premises[LK] += 1
                if folio.page._refcount > folio.pins + folio.poisons:
                    broken |= 1 << LK
        if step.moves and b.cached[step.page]:
            was = b.cached[step.page] - 1
            folio = folio_at(m, was)
            owners = b.truth[was].processes
            if folio.pins == 0 and folio.poisons == 0 and step.fail == 0 and owners >> step.process & 1:
                if step.moves == 2:
                    self.premises[MS] += 1
                    if self.last.error or self.last.done != <uint64_t>1 << m.state.files[0].page_shift:
                        broken |= 1 << MS
                elif owners & (owners - 1):
                    self.premises[NM] += 1
                    if self.last.done:
                        broken |= 1 << NM
                else:
                    self.premises[MP] += 1
                    if self.last.error == 0 and self.last.done == 0:
                        broken |= 1 << MP
        if step.op.op == HGM_OP_PUNCH or step.op.op == HGM_OP_TRUNCATE:
            for h in range(self.H):
                if b.cached[h] and s.cached[h] == 0:
                    folio = folio_at(m, b.cached[h] - 1)
                    if folio.pins == 0 and folio.poisons == 0:
                        self.premises[TC] += 1
                        if folio.page._refcount != 0:
                            broken |= 1 << TC
        if step.refusable and self.last.error and self.last.done == 0:
            self.premises[RC] += 1
            for h in range(self.H):
                if b.cached[h] == 0 or b.cached[h] != s.cached[h]:
                    continue
                folio = folio_at(m, b.cached[h] - 1)
                self.engine.answer(&m.config.options, folio, &a)
                self.page_mapcounts(folio, counts)
                changed = folio.page._refcount != b.refcount[h] or a.mapcount != b.mapcount[h]
                for k in range(self.N):
                    changed |= counts[k] != b.page_mapcount[h][k]
                if changed:
                    broken |= 1 << RC
        return broken

    cdef uint32_t judge_state(self, bint fatal) noexcept nogil:
        """The state properties that are broken. fatal: only those that are fatal."""
        cdef Machine *m = &self.m
        cdef Seen *s = &self.seen
        cdef Truth truth[MAX_FOLIOS]
        cdef hgm_folio *folio
        cdef hgm_answer a
        cdef int64_t counts[MAX_PAGES]
        cdef uint32_t broken = 0, i
        cdef int h, p, k
        cdef bint held, reachable, shared
        self.truths(truth)
        if s.unbounded:
            broken |= 1 << CB
        self.premises[CB] += 1
        for i in range(m.state.nr_folios):
            folio = folio_at(m, i)
            reachable = folio.flags & HGM_FOLIO_CACHED != 0 or truth[i].leaves > 0
            for p in range(self.P):
                for h in range(self.H):
                    reachable |= s.mark[p][h] == i + 1
            if not reachable:
                continue
            held = folio.flags & HGM_FOLIO_CACHED != 0 or folio.pins > 0
            self.premises[FM] += truth[i].leaves > 0
            self.premises[FH] += held
            if folio.flags & HGM_FOLIO_FREED:
                if truth[i].leaves:
                    broken |= 1 << FM
                if held:
                    broken |= 1 << FH
            if fatal:
                continue
            self.engine.answer(&m.config.options, folio, &a)
            self.page_mapcounts(folio, counts)
            shared = truth[i].processes & (truth[i].processes - 1) != 0
            if truth[i].leaves > 0:
                self.premises[MU] += 1
                self.premises[PC] += 1
                self.premises[RE] += 1
                if not a.mapped:
                    broken |= 1 << MU
            if a.mapped:
                self.premises[ML] += 1
                if truth[i].leaves == 0:
                    broken |= 1 << ML
            if shared:
                self.premises[FE] += 1
                if not a.maybe_shared:
                    broken |= 1 << FE
            if a.maybe_shared:
                self.premises[FS] += 1
                if not shared:
                    broken |= 1 << FS
            for k in range(self.N):
                if counts[k] != truth[i].at[k]:
                    broken |= 1 << PC
            if (folio.page._refcount - folio.pins - folio.poisons
                    - (cache_refs(m, folio) if folio.flags & HGM_FOLIO_CACHED else 0)) != a.mapcount:
                broken |= 1 << RE
        return broken

    cdef uint32_t below_zero(self, uint32_t n) noexcept nogil:
        """Did a reference count of one of the first `n` folios fall below zero? What mappings hold is counted apart."""
        cdef uint32_t i
        cdef int32_t references
        for i in range(n):
            references = folio_at(&self.m, i).page._refcount
            if references < 0 and references > -(1 << 30):
                return 1 << UF
        return 0

    cdef uint32_t fatal_step(self) noexcept nogil:
        cdef uint32_t broken = self.below_zero(self.before.nr_folios)
        if self.m.context.cost.underflows or self.seen.negative:
            broken |= 1 << UF
        if self.m.context.cost.overflows:
            broken |= 1 << OS
        return broken

    cdef bint freed_in_use(self) noexcept nogil:
        cdef Machine *m = &self.m
        cdef uint32_t i
        for i in range(m.state.nr_folios):
            if folio_at(m, i).flags & HGM_FOLIO_FREED and folio_at(m, i).flags & HGM_FOLIO_CACHED:
                return True
        return False

    # -- the search

    cdef uint32_t families_to(self, uint32_t state) noexcept nogil:
        cdef uint32_t families = 0
        while self.links[state].parent != NONE:
            families |= <uint32_t>1 << self.steps[self.links[state].step].family
            state = self.links[state].parent
        return families

    cdef void note(self, uint32_t broken, uint32_t parent, int step) noexcept nogil:
        """Keep the best violation of each property in `broken`: shortest, then fewest families, then first."""
        cdef uint32_t families
        cdef Violation *v
        cdef uint32_t depth = self.depth_now + 1 if step >= 0 else 0
        cdef int k
        cdef bint known = False
        for k in range(NR_PROPERTIES):
            v = &self.violations[k]
            if not broken >> k & 1 or v.found and v.depth < depth:
                continue
            if not known:
                families = self.families_to(parent) | <uint32_t>1 << self.steps[step].family if step >= 0 else 0
                known = True
            if v.found and popcount(families) >= popcount(v.families):
                continue
            v.found = True
            v.parent = parent
            v.step = step
            v.depth = depth
            v.families = families

    cdef int expand(self, uint32_t state) noexcept nogil:
        """Every step from a state. 0, or: 1 no memory, 2 a field is missing, 3 something strange."""
        cdef uint64_t key[MAX_WORDS]
        cdef uint64_t start[MAX_WORDS]
        cdef uint64_t allocations = 0
        cdef const Step *step
        cdef int i, permutation, orbit
        cdef uint32_t broken, fatal
        cdef bint new
        memcpy(start, &self.keys[<uint64_t>state * self.words], self.words * sizeof(uint64_t))
        self.unpack(start)
        self.prepare()
        new = False    # the machine is as it was
        for i in range(self.nr_steps):
            step = &self.steps[i]
            if new:
                self.image_restore()
                new = False
            if not self.enabled(step) or step.fail and step.fail > allocations:
                continue
            new = True
            if step.fail:
                self.run(step)
                self.injected_[step.family] += 1
            else:
                allocations = self.run(step)
                if self.last.error:
                    self.refused_[step.family] += 1
                else:
                    self.done_[step.family] += 1
            if self.m.context.out_of_memory:
                return 3
            self.generated_ += 1
            permutation = self.canonical(key, &orbit)
            if self.seen.grow:
                return 2
            fatal = self.fatal_step()
            if self.seen.strange and not fatal:
                return 3
            broken = fatal | self.judge_step(step, fatal != 0)
            if fatal:
                broken |= self.judge_state(True)
            elif self.seen.unbounded or self.freed_in_use():
                broken |= self.judge_state(False)
            elif self.find(key) == NONE:
                broken |= self.judge_state(False)
                if not broken & FATAL_STATE:
                    if not self.enter(key, state, i, permutation):
                        return 1
                    self.orbits_ += orbit
            if broken:
                self.fatal_ += broken & (FATAL_STEP | FATAL_STATE) != 0
                self.note(broken, state, i)
        if new:
            self.image_restore()
        return 0

    def begin(self, first):
        """Run the records of `first` (an array of STEP) on an empty machine: what they leave is the first state.

        False: a field is missing (`grow`).
        """
        cdef uint64_t key[MAX_WORDS]
        cdef int i, orbit
        cdef const Step *steps
        array = np.ascontiguousarray(first, STEP)
        steps = <const Step *><size_t>array.ctypes.data
        self.blank()
        self.m.state.files[0].size = self.H
        self.before.unborn = ((<uint32_t>1 << self.P) - 1) & ~((<uint32_t>1 << self.born) - 1)
        self.before.nr_folios = 0
        for i in range(len(array)):
            self.run(&steps[i])
            if self.last.error:
                raise ValueError("the scope's initial state cannot be reached")
        self.seen.unborn = self.before.unborn
        self.canonical(key, &orbit)
        if self.seen.grow:
            return False
        self.note(self.judge_state(False), NONE, -1)
        if not self.enter(key, NONE, 0, 0):
            raise MemoryError("no memory for states")
        self.orbits_ = orbit
        self.level_end = 1
        self.by_depth[0] = 1
        return True

    def advance(self, uint64_t n, bint one_level=False):
        """Expand the next `n` states at most; one_level: none behind the level that is begun.

        "closed", "more"; "grow": begin anew with the fields of `grow`; "strange": the machine is what no state can be.

        MemoryError: no room for more states; those before are whole.
        """
        cdef int answer = 0
        cdef uint64_t i = 0
        with nogil:
            while i < n and self.next_state < self.nr_states:
                if self.next_state == self.level_end:
                    if one_level and i:
                        break
                    self.depth_now += 1
                    self.by_depth[self.depth_now] = self.nr_states - self.level_end
                    self.level_end = self.nr_states
                answer = self.expand(<uint32_t>self.next_state)
                if answer:
                    break
                self.next_state += 1
                i += 1
        if answer == 1:
            raise MemoryError("no memory for more states")
        if answer == 2:
            return "grow"
        if answer == 3:
            return "strange"
        return "closed" if self.next_state == self.nr_states else "more"

    @property
    def pending(self):
        """States that were entered and not expanded."""
        return self.nr_states - self.next_state

    def replay(self, first, steps):
        """Run `steps` (an array of STEP) one after another behind those of `first`, without packing a state in between.

        Returns the numbers of the properties that the last of them breaks, or the state behind it.
        """
        cdef int i, orbit
        cdef uint64_t key[MAX_WORDS]
        cdef uint32_t fatal, broken = 0
        cdef const Step *step
        array = np.ascontiguousarray(np.concatenate([first, steps]), STEP)
        step = <const Step *><size_t>array.ctypes.data
        self.blank()
        self.m.state.files[0].size = self.H
        self.before.unborn = ((<uint32_t>1 << self.P) - 1) & ~((<uint32_t>1 << self.born) - 1)
        for i in range(len(array)):
            self.prepare()
            self.run(&step[i])
            self.canonical(key, &orbit)
            fatal = self.fatal_step()
            broken = fatal | self.judge_step(&step[i], fatal != 0) | self.judge_state(fatal != 0)
            self.before.unborn = self.seen.unborn
        return [k for k in range(NR_PROPERTIES) if broken >> k & 1]

    def round_trip(self, uint64_t state) -> bool:
        """Is a state, made a machine and packed again, the same?"""
        cdef uint64_t key[MAX_WORDS]
        cdef int orbit
        if state >= self.nr_states:
            raise IndexError(state)
        self.unpack(&self.keys[state * self.words])
        self.seen.unborn = self.before.unborn
        self.canonical(key, &orbit)
        return memcmp(key, &self.keys[state * self.words], self.words * sizeof(uint64_t)) == 0

    def path(self, state):
        """How a state was reached: (step, permutation) from the first on. state: None: nothing."""
        out = []
        if state is None:
            return out
        while self.links[<uint64_t>state].parent != NONE:
            out.append((self.links[<uint64_t>state].step, self.links[<uint64_t>state].permutation))
            state = self.links[<uint64_t>state].parent
        return out[::-1]

    def violation(self, int k):
        """(length, state before its last step or None, that step or None) of the shortest violation of k, or None."""
        cdef Violation *v = &self.violations[k]
        if not v.found:
            return None
        return v.depth, (None if v.parent == NONE else v.parent), (None if v.parent == NONE else v.step)

    @property
    def grow(self):
        """Fields that a state needs and this search has not."""
        return self.seen.grow

    @property
    def distinct(self):
        return self.nr_states

    @property
    def generated(self):
        return self.generated_

    @property
    def fatal(self):
        return self.fatal_

    @property
    def orbits(self):
        """The states that those entered stand for."""
        return self.orbits_

    @property
    def depth(self):
        """The greatest depth at which a state was entered; by_depth: how many at each."""
        return len(self.by_depths) - 1

    @property
    def complete_depth(self):
        """The last depth of which every state was expanded, or -1."""
        cdef int depth = <int>self.depth_now
        return depth if self.next_state == self.level_end else depth - 1

    @property
    def by_depths(self):
        out = [self.by_depth[i] for i in range(self.depth_now + 1)]
        if self.nr_states > self.level_end:
            out.append(self.nr_states - self.level_end)
        return out

    @property
    def bytes_per_state(self):
        """Bytes that one state takes, its place in the set included."""
        return self.words * 8 + sizeof(Link) + 4 * self.table_size / max(1, self.nr_states)

    @property
    def key_bits(self):
        return self.state_bits()

    def executed(self, int family):
        """How often steps of a family did something, were refused, or had an allocation fail."""
        return {"done": self.done_[family], "refused": self.refused_[family], "injected": self.injected_[family]}

    def premise(self, int k):
        return self.premises[k]


cdef extern from *:
    int popcount "__builtin_popcount"(unsigned int) nogil

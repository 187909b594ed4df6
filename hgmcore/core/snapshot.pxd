# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Snapshots: a machine's state and counts as they were at one moment, to be put back exactly.

A snapshot (Copy in C, Snapshot in Python) is one block of memory. It copies what the machine uses, in this order:

    tables | ptdescs | folios | poisoned | results | files | page caches | processes | mappings | VMAs | struct pages

Of struct pages it holds what may differ from zero. A scheme without HGM_NEEDS_TAILS writes only the first UNIT bytes
of a folio's struct pages; else the system is asked which of its pages were touched. Entries of page tables hold
numbers of tables and of frames, so they are valid in any machine; the addresses in a folio, a file and a mapping are
those of the machine that the snapshot is put into.

No thread may run the machine meanwhile. Functions that return a bool give False where the host has no memory; a
snapshot then holds nothing, and a machine is unusable.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at
from hgmcore.core.machine cimport Context, File, Machine, Mapping, Process, State, Vma
from hgmcore.core.memory cimport Region, host_page, host_touched, region_cut

cdef enum:
    UNIT = 4096          # bytes
    SMALL = 16 * UNIT    # so few bytes of struct pages are copied without asking which are in use

# Struct pages from byte `start` of the vmemmap on.
cdef struct Stretch:
    size_t start
    size_t size

cdef struct Copy "hgm_snapshot":
    State state          # its pointers are those of the machine that it was taken of
    Context context
    unsigned char *data
    size_t used
    size_t room
    size_t files         # where in `data` the copies of State.files and of what follows them begin
    Stretch *stretches   # of struct pages
    size_t nr_stretches
    size_t max_stretches

cdef inline void snapshot_init(Copy *s) noexcept nogil:
    memset(s, 0, sizeof(Copy))

cdef inline void snapshot_free(Copy *s) noexcept nogil:
    free(s.data)
    free(s.stretches)
    snapshot_init(s)

cdef inline bint snapshot_put(Copy *s, const void *what, size_t size) noexcept nogil:
    """Append a copy of `size` bytes."""
    cdef unsigned char *data
    cdef size_t room
    if s.used + size > s.room:
        room = max(s.used + size, 2 * s.room)
        data = <unsigned char *>realloc(s.data, room)
        if data is NULL:
            return False
        s.data = data
        s.room = room
    if size:
        memcpy(s.data + s.used, what, size)
    s.used += size
    return True

cdef inline bint stretch_add(Copy *s, size_t start, size_t size) noexcept nogil:
    """Note struct pages that the snapshot has to hold; stretches come in ascending order and may touch or overlap."""
    cdef Stretch *last = &s.stretches[s.nr_stretches - 1]
    cdef Stretch *grown
    if s.nr_stretches and start <= last.start + last.size:
        last.size = max(last.size, start + size - last.start)
        return True
    if s.nr_stretches == s.max_stretches:
        grown = <Stretch *>realloc(s.stretches, (2 * s.max_stretches + 4) * sizeof(Stretch))
        if grown is NULL:
            return False
        s.stretches = grown
        s.max_stretches = 2 * s.max_stretches + 4
    s.stretches[s.nr_stretches].start = start
    s.stretches[s.nr_stretches].size = size
    s.nr_stretches += 1
    return True

cdef inline bint touched_stretches(const Machine *m, Copy *s) noexcept nogil:
    """Note the struct pages that may differ from zero."""
    cdef Machine *machine = <Machine *>m
    cdef size_t used = m.state.vmemmap.used, page, i, n
    cdef unsigned char *there
    cdef hgm_folio *folio
    cdef bint fits = True
    s.nr_stretches = 0
    if used <= SMALL:
        return used == 0 or stretch_add(s, 0, used)
    if not m.context.tails:
        for i in range(m.state.nr_folios):
            folio = folio_at(machine, <uint32_t>i)
            fits = fits and stretch_add(s, folio.pfn * sizeof(hgm_page),
                                        min(<size_t>UNIT, folio.nr_pages * sizeof(hgm_page)))
        return fits
    page = host_page()
    n = (used + page - 1) // page
    there = <unsigned char *>malloc(n)
    if there is NULL or host_touched(m.state.vmemmap.base, n * page, there) != 0:
        free(there)
        return stretch_add(s, 0, used)
    for i in range(n):
        if there[i] & 1:
            fits = fits and stretch_add(s, i * page, min(page, used - i * page))
    free(there)
    return fits

cdef inline bint snapshot_take(const Machine *m, Copy *s) noexcept nogil:
    """Make `s`, which is initialised or holds an older snapshot, a snapshot of the machine."""
    cdef size_t i
    cdef const Mapping *v
    cdef bint fits
    s.used = 0
    s.state = m.state
    s.context = m.context
    fits = (snapshot_put(s, m.state.tables.base, m.state.tables.used)
            and snapshot_put(s, m.state.ptdescs.base, m.state.ptdescs.used)
            and snapshot_put(s, m.state.folios.base, m.state.folios.used)
            and snapshot_put(s, m.state.poisoned.base, m.state.poisoned.used)
            and snapshot_put(s, m.context.results.base, m.context.results.used))
    s.files = s.used
    fits = fits and snapshot_put(s, m.state.files, m.state.nr_files * sizeof(File))
    for i in range(m.state.nr_files):
        fits = fits and snapshot_put(s, m.state.files[i].cache, m.state.files[i].nr_cache * sizeof(uint32_t))
    fits = fits and snapshot_put(s, m.state.processes, m.state.nr_processes * sizeof(Process))
    fits = fits and snapshot_put(s, m.state.mappings, m.state.nr_mappings * sizeof(Mapping))
    for i in range(m.state.nr_mappings):
        v = &m.state.mappings[i]
        fits = fits and snapshot_put(s, v.vmas, v.nr_vmas * sizeof(Vma))
    fits = fits and touched_stretches(m, s)
    for i in range(s.nr_stretches):
        fits = fits and snapshot_put(s, m.state.vmemmap.base + s.stretches[i].start, s.stretches[i].size)
    if not fits:
        snapshot_free(s)
    return fits

cdef inline void take(void *to, size_t size, const unsigned char **at) noexcept nogil:
    """Copy the next `size` bytes of a snapshot, and move `at` behind them."""
    if size:
        memcpy(to, at[0], size)
    at[0] += size

cdef inline void region_restore(Region *region, size_t used, const unsigned char **at, bint keep) noexcept nogil:
    """Give the region its `used` bytes back, the next of the snapshot."""
    region_cut(region, min(used, region.used), keep)
    take(region.base, used, at)
    region.used = used

cdef inline void *array_of(void *array, size_t n, size_t size) noexcept nogil:
    """The array with room for `n` elements and as many more as grown() of machine.pyx expects."""
    return realloc(array, (2 * n + 1) * size)

cdef inline bint files_restore(Machine *m, const Copy *s, const unsigned char **at) noexcept nogil:
    """Put files and their page caches back; files that were declared later go."""
    cdef State *to = &m.state
    cdef uint32_t i, n = s.state.nr_files
    cdef const File *file
    cdef File *files
    cdef uint32_t *cache
    for i in range(n, to.nr_files):
        free(to.files[i].cache)
        to.files[i].cache = NULL
    files = <File *>array_of(to.files, n, sizeof(File))
    if files is NULL:
        to.nr_files = min(to.nr_files, n)
        return False
    if n > to.nr_files:
        memset(files + to.nr_files, 0, (n - to.nr_files) * sizeof(File))
    if n == 0:
        memset(files, 0, sizeof(File))    # there is a file 0 for mappings that never were
    to.files = files
    to.nr_files = n
    file = <const File *>at[0]
    at[0] += n * sizeof(File)
    for i in range(n):
        cache = files[i].cache
        if cache is NULL or files[i].nr_cache != file[i].nr_cache:
            cache = <uint32_t *>realloc(cache, (file[i].nr_cache + 1) * sizeof(uint32_t))
            if cache is NULL:
                return False
        files[i] = file[i]
        files[i].cache = cache
        take(cache, file[i].nr_cache * sizeof(uint32_t), at)
    return True

cdef inline bint mappings_restore(Machine *m, const Copy *s, const unsigned char **at) noexcept nogil:
    """Put processes, mappings and their VMAs back; those that were declared later go."""
    cdef State *to = &m.state
    cdef uint32_t i, n = s.state.nr_mappings
    cdef const Mapping *mapping
    cdef Mapping *mappings
    cdef Process *processes
    cdef Vma *vmas
    cdef uint32_t room
    processes = <Process *>array_of(to.processes, s.state.nr_processes, sizeof(Process))
    if processes is NULL:
        return False
    to.processes = processes
    to.nr_processes = s.state.nr_processes
    take(processes, to.nr_processes * sizeof(Process), at)
    for i in range(n, to.nr_mappings):
        free(to.mappings[i].vmas)
        to.mappings[i].vmas = NULL
    mappings = <Mapping *>array_of(to.mappings, n, sizeof(Mapping))
    if mappings is NULL:
        to.nr_mappings = min(to.nr_mappings, n)
        return False
    if n > to.nr_mappings:
        memset(mappings + to.nr_mappings, 0, (n - to.nr_mappings) * sizeof(Mapping))
    to.mappings = mappings
    to.nr_mappings = n
    mapping = <const Mapping *>at[0]
    at[0] += n * sizeof(Mapping)
    for i in range(n):
        vmas = mappings[i].vmas
        room = mappings[i].max_vmas
        if room < mapping[i].nr_vmas:
            vmas = <Vma *>realloc(vmas, mapping[i].nr_vmas * sizeof(Vma))
            if vmas is NULL:
                return False
            room = mapping[i].nr_vmas
        mappings[i] = mapping[i]
        mappings[i].vmas = vmas
        mappings[i].max_vmas = room
        take(vmas, mapping[i].nr_vmas * sizeof(Vma), at)
    return True

cdef inline void zero_between(Machine *m, size_t start, size_t stop) noexcept nogil:
    """Make the struct pages of bytes [start, stop) zero, of which few may be in use."""
    cdef size_t page, first, n, i
    cdef unsigned char *base = m.state.vmemmap.base
    cdef unsigned char *there
    if stop <= start:
        return
    page = host_page()
    first = start // page
    n = (stop + page - 1) // page - first
    there = <unsigned char *>malloc(n) if stop - start > SMALL else NULL
    if there is NULL or host_touched(base + first * page, n * page, there) != 0:
        free(there)
        memset(base + start, 0, stop - start)
        return
    for i in range(n):
        if there[i] & 1:
            memset(base + max(start, (first + i) * page), 0,
                   min(stop, (first + i + 1) * page) - max(start, (first + i) * page))
    free(there)

cdef inline void struct_pages_restore(Machine *m, const Copy *s, const unsigned char *at) noexcept nogil:
    """Put struct pages back. What the snapshot lacks was zero, and still is where only heads were written."""
    cdef size_t i, behind = 0
    for i in range(s.nr_stretches):
        if m.context.tails:
            zero_between(m, behind, s.stretches[i].start)
        take(m.state.vmemmap.base + s.stretches[i].start, s.stretches[i].size, &at)
        behind = s.stretches[i].start + s.stretches[i].size
    if m.context.tails:
        zero_between(m, behind, s.state.vmemmap.used)

cdef inline bint snapshot_fits(const Machine *m, const Copy *s) noexcept nogil:
    """Are the machine's reservations large enough for the snapshot?"""
    return (s.state.tables.used <= m.state.tables.reserved and s.state.ptdescs.used <= m.state.ptdescs.reserved
            and s.state.vmemmap.used <= m.state.vmemmap.reserved and s.state.folios.used <= m.state.folios.reserved
            and s.state.poisoned.used <= m.state.poisoned.reserved
            and s.context.results.used <= m.context.results.reserved)

cdef inline void other_heads_zero(Machine *m, const Copy *s) noexcept nogil:
    """Make zero the first struct pages of folios that the snapshot lacks, where only first ones are written."""
    cdef const hgm_folio *had = <const hgm_folio *>(s.data + s.state.tables.used + s.state.ptdescs.used)
    cdef hgm_folio *folio
    cdef uint32_t i
    for i in range(m.state.nr_folios):
        folio = folio_at(m, i)
        if i >= s.state.nr_folios or folio.pfn != had[i].pfn or folio.nr_pages != had[i].nr_pages:
            memset(folio.page, 0, min(<size_t>UNIT, folio.nr_pages * sizeof(hgm_page)))

cdef inline bint snapshot_restore(Machine *m, const Copy *s, bint keep) noexcept nogil:
    """Make the machine what it was, or what another machine of the same configuration was: state, counts and results.

    keep: no memory that the machine has goes back to the system. The caller has asked snapshot_fits().
    """
    cdef State *to = &m.state
    cdef Context *c = &m.context
    cdef const unsigned char *at = s.data
    cdef uint32_t i
    if c.touched is not NULL:
        c.touched.everything = True
    c.tails |= s.context.tails
    if c.tails:
        zero_between(m, s.state.vmemmap.used, to.vmemmap.used)
    else:
        other_heads_zero(m, s)
    to.vmemmap.used = s.state.vmemmap.used
    region_restore(&to.tables, s.state.tables.used, &at, keep)
    region_restore(&to.ptdescs, s.state.ptdescs.used, &at, keep)
    region_restore(&to.folios, s.state.folios.used, &at, keep)
    region_restore(&to.poisoned, s.state.poisoned.used, &at, keep)
    region_restore(&c.results, s.context.results.used, &at, keep)
    if not files_restore(m, s, &at) or not mappings_restore(m, s, &at):
        c.out_of_memory = True
        return False
    to.next_pfn = s.state.next_pfn
    to.nr_tables = s.state.nr_tables
    to.nr_folios = s.state.nr_folios
    to.free_table = s.state.free_table
    for i in range(to.nr_folios):
        folio_at(m, i).page = &(<hgm_page *>to.vmemmap.base)[folio_at(m, i).pfn]
    struct_pages_restore(m, s, at)
    c.cost = s.context.cost
    c.table_allocs = s.context.table_allocs
    c.table_frees = s.context.table_frees
    c.nr_tables_peak = s.context.nr_tables_peak
    c.nr_results = s.context.nr_results
    c.fail = s.context.fail
    c.fail_at = s.context.fail_at
    c.out_of_memory = False
    if not keep:
        c.tables_populated = min(c.tables_populated, to.tables.used)
    return True

cdef class Snapshot:
    cdef Copy copy

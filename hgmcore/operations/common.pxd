# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What several operations need: results, the huge page at an offset, installing a leaf."""
from libc.errno cimport EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, ESRCH
from libc.string cimport memset
from hgmcore.hgm cimport *
from hgmcore.folio cimport page_cache_get
from hgmcore.machine cimport File, Machine, Mapping, MAX_LEVELS, Process
from hgmcore.memory cimport region_grow
from hgmcore.scheme cimport *
from hgmcore.table cimport *

# What an operation came to: bytes done, and an errno and an event or 0.
cdef struct Outcome:
    uint64_t done
    int error
    uint32_t event

# One huge page of a mapping, and where it hangs in the page tables.
cdef struct HugePage:
    Mapping *mapping
    File *file
    hgm_folio *folio         # in the page cache, or NULL
    uint64_t *entry          # hstate-level entry; NULL: no upper tables
    uint64_t start           # offset in the mapping
    bint leaf_known          # this operation installed a leaf in its subtree

cdef inline void cost_add(hgm_cost *total, const hgm_cost *cost) noexcept nogil:
    total.ref += cost.ref
    total.map += cost.map
    total.transient += cost.transient
    total.entries_scanned += cost.entries_scanned
    total.leaf_installs += cost.leaf_installs
    total.leaf_removes += cost.leaf_removes
    total.underflows += cost.underflows
    total.overflows += cost.overflows

cdef inline uint64_t base_mask(Machine *m) noexcept nogil:
    return (<uint64_t>1 << m.geometry.base_shift) - 1

cdef inline uint64_t page_mask(const File *f) noexcept nogil:
    return (<uint64_t>1 << f.page_shift) - 1

cdef inline bint process_exited(Machine *m, const Mapping *v) noexcept nogil:
    return m.processes[v.process].exited

cdef inline Outcome outcome(uint64_t done, int error) noexcept nogil:
    cdef Outcome o
    o.done = done
    o.error = error
    o.event = 0
    return o

cdef inline void record(Machine *m, uint64_t index, Outcome *o) noexcept nogil:
    """Keep a result that says more than that the operation did what it was asked to."""
    cdef hgm_result *result
    if not region_grow(&m.results, (m.nr_results + 1) * sizeof(hgm_result)):
        m.out_of_memory = True
        return
    result = &(<hgm_result *>m.results.base)[m.nr_results]
    m.nr_results += 1
    result.index = index
    result.done = o.done
    result.error = o.error
    result.event = o.event

cdef inline HugePage huge_page(Machine *m, Mapping *v, uint64_t offset, bint alloc) noexcept nogil:
    """The huge page that holds `offset`, which lies in a VMA; `alloc` makes the upper tables."""
    cdef HugePage h
    h.mapping = v
    h.file = &m.files[v.file]
    h.start = offset & ~page_mask(h.file)
    h.folio = page_cache_get(m, h.file, (v.file_offset + h.start) >> h.file.page_shift)
    h.entry = hstate_entry(m, &m.processes[v.process], v.address + h.start, h.file.level, alloc)
    h.leaf_known = False
    return h

cdef inline hgm_subtree subtree_of(Machine *m, const HugePage *h, int origin) noexcept nogil:
    cdef hgm_subtree s
    s.folio = h.folio
    s.removed = 0
    s.process = h.mapping.process
    s.mapping = <uint32_t>(h.mapping - m.mappings)
    s.origin = <uint8_t>origin
    s.covers = 0
    s.tables_stay = 0
    s.empty = 0
    s.lookup_first = m.options.lookup_first
    return s

cdef inline bint tables_alloc(Machine *m, HugePage *h, uint64_t **entry, uint64_t address, int *level,
                              int target, uint32_t *path) noexcept nogil:
    """Walk from the hstate-level entry to `target`, hanging tables below entries that are none."""
    cdef hgm_subtree s
    while True:
        entry[0] = descend(m, entry[0], address, level, target, path)
        if level[0] == target or entry[0][0] != 0:
            return True
        if not subtree_table_alloc(m, entry[0]):
            return False
        if level[0] == h.file.level:
            s = subtree_of(m, h, HGM_BY_CONTINUE)
            hgm_table_add(&m.cost, &m.options, &s)

cdef inline void look_up_and_put(Machine *m, hgm_cost *cost, hgm_folio *folio) noexcept nogil:
    """A look-up's reference that does not stay."""
    cost.transient += 2
    if m.options.transient_real:
        hgm_get_and_put(folio)

cdef inline void install(Machine *m, hgm_cost *cost, const HugePage *h, uint64_t *entry, uint64_t first,
                         uint64_t nr_pages, int origin, bint hstate_none, bint first_leaf) noexcept nogil:
    """Fill `entry`, which is none, with a leaf, for an operation that looked the page up.

    first, nr_pages: its base pages within the huge page.
    """
    cdef hgm_leaf leaf
    leaf.folio = h.folio
    leaf.first = first
    leaf.nr_pages = nr_pages
    leaf.process = h.mapping.process
    leaf.mapping = <uint32_t>(h.mapping - m.mappings)
    leaf.origin = <uint8_t>origin
    leaf.whole = nr_pages == h.file.nr_pages
    leaf.hstate_none = hstate_none
    leaf.first_leaf = first_leaf
    entry[0] = leaf_entry(h.folio.pfn + first)
    cost.leaf_installs += 1
    if not hgm_leaf_install(cost, &m.options, &leaf):
        look_up_and_put(m, cost, h.folio)

cdef inline void install_at(Machine *m, HugePage *h, uint64_t *entry, int level, uint64_t offset,
                            const uint32_t *path, int origin, bint hstate_none) noexcept nogil:
    """Install the leaf of `level` for `offset`, and find out whether it is its subtree's first if the scheme asks."""
    cdef bint first_leaf = False
    if NEEDS & NEEDS_COUNTER:
        first_leaf = children_add(m, path, level, h.file.level)
    elif NEEDS & NEEDS_SCAN:
        first_leaf = not h.leaf_known and (
            hstate_none or not subtree_find_leaf(m, h.entry[0], &m.cost.entries_scanned))
        h.leaf_known = True
    install(m, &m.cost, h, entry, (offset - h.start) >> m.geometry.base_shift,
            <uint64_t>1 << (m.geometry.level_shift[level] - m.geometry.base_shift), origin, hstate_none, first_leaf)

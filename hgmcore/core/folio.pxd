# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Huge pages and the page caches of files."""
from libc.stdint cimport INT32_MAX
from libc.string cimport memcmp, memset
from hgmcore.hgm cimport *
from hgmcore.core.lock cimport growing_lock, growing_unlock
from hgmcore.core.machine cimport File, Machine
from hgmcore.core.memory cimport region_grow
from hgmcore.core.table cimport allocation_fails

cdef extern from *:
    """
    static const hgm_page hgm_nothing;
    """
    const hgm_page NOTHING "hgm_nothing"

cdef inline hgm_folio *folio_at(Machine *m, uint32_t number) noexcept nogil:
    return &(<hgm_folio *>m.state.folios.base)[number]

cdef inline hgm_folio *page_cache_get(Machine *m, File *f, uint64_t index) noexcept nogil:
    """The folio at huge page `index` of the file's page cache, or NULL. Takes no reference."""
    cdef uint32_t number = f.cache[index]
    return folio_at(m, number - 1) if number else NULL

cdef inline hgm_folio *folio_of(Machine *m, uint64_t pfn) noexcept nogil:
    """The folio that frame `pfn` belongs to."""
    cdef uint32_t low = 0, high = m.state.nr_folios - 1, middle
    while low < high:
        middle = low + (high - low + 1) // 2
        if folio_at(m, middle).pfn <= pfn:
            low = middle
        else:
            high = middle - 1
    return folio_at(m, low)

cdef inline int32_t cache_refs(Machine *m, const hgm_folio *folio) noexcept nogil:
    """References that the page cache holds on a huge page in it."""
    return <int32_t>folio.nr_pages if m.config.options.cache_refs_folio else 1

# Frames are handed out in ascending order, and those of a freed folio only once most of them are used up: reclaim.pxd.

cdef enum:
    RECLAIM_STEPS = 64     # frames are looked for again after so large a part of them was handed out
    RECLAIM_LEAST = 4096   # frames of a machine that is worth it
    FEW = 4                # struct pages that a scheme without tails counts on

cdef inline uint64_t frames_reserved(Machine *m) noexcept nogil:
    return m.state.vmemmap.reserved // sizeof(hgm_page)

cdef inline hgm_folio *folio_reuse(Machine *m, uint64_t nr_pages) noexcept nogil:
    """A folio of just so many frames that was freed; NULL: none is known."""
    cdef hgm_folio *folio
    cdef uint64_t i
    cdef uint64_t kept = HGM_PAGE_TOUCHED | HGM_PAGE_TOUCHED_BEFORE, flags
    cdef uint32_t number
    number = m.context.free_from if nr_pages == m.context.free_size else 0
    m.context.free_size = nr_pages
    while number < m.state.nr_folios and not (folio_at(m, number).flags & HGM_FOLIO_FREE
                                              and folio_at(m, number).nr_pages == nr_pages):
        number += 1
    m.context.free_from = number
    if number == m.state.nr_folios:
        return NULL
    folio = folio_at(m, number)
    m.context.nr_free -= 1
    for i in range(nr_pages if m.context.tails else min(nr_pages, <uint64_t>FEW)):
        if memcmp(&folio.page[i], &NOTHING, sizeof(hgm_page)) != 0:    # host memory that is not there yet stays so
            flags = folio.page[i].flags & kept
            memset(&folio.page[i], 0, sizeof(hgm_page))
            folio.page[i].flags = flags
    folio.page.flags |= HGM_PAGE_HEAD
    folio.pins = folio.poisons = 0
    return folio

cdef inline hgm_folio *folio_take(Machine *m, uint64_t nr_pages) noexcept nogil:
    """A folio of the next frames of the machine that owns them, NULL where the host has no memory."""
    cdef uint64_t pfn = (m.state.next_pfn + nr_pages - 1) & ~(nr_pages - 1)
    cdef hgm_folio *folio = folio_reuse(m, nr_pages) if m.context.nr_free else NULL
    if folio is not NULL:
        return folio
    if m.context.reclaim_at == 0:
        m.context.reclaim_at = frames_reserved(m) - frames_reserved(m) // 8
    m.context.frames_low |= pfn + nr_pages > m.context.reclaim_at and frames_reserved(m) >= RECLAIM_LEAST
    if (not region_grow(&m.state.vmemmap, (pfn + nr_pages) * sizeof(hgm_page))
            or not region_grow(&m.state.folios, (<size_t>m.state.nr_folios + 1) * sizeof(hgm_folio))):
        m.context.reclaim_at = 0    # until something comes back, before every operation
        m.context.frames_low = True
        return NULL
    folio = folio_at(m, m.state.nr_folios)
    folio.page = &(<hgm_page *>m.state.vmemmap.base)[pfn]
    folio.pfn = pfn
    folio.nr_pages = nr_pages
    folio.page.flags |= HGM_PAGE_HEAD
    m.state.nr_folios += 1
    m.state.next_pfn = pfn + nr_pages
    return folio

cdef inline hgm_folio *frames_alloc(Machine *m, uint32_t file, uint64_t index, uint64_t nr_pages) noexcept nogil:
    """A folio of `nr_pages` base pages, a power of 2, for place `index` of a file: in no page cache, no reference.

    NULL, and m.context.out_of_memory: no memory. Frames are not used again while something maps them.
    """
    cdef hgm_folio *folio
    folio = folio_take(growing_lock(m), nr_pages)
    m.state.nr_folios = m.context.owner.state.nr_folios    # of which this thread may now meet the last
    growing_unlock(m)
    if folio is NULL:
        m.context.out_of_memory = True
        return NULL
    folio.file = file
    folio.index = <uint32_t>index
    folio.flags = 0
    return folio

cdef inline hgm_folio *folio_alloc(Machine *m, uint32_t file, uint64_t index) noexcept nogil:
    """A huge page for place `index` of a file, as from frames_alloc. NULL also: told to fail."""
    return NULL if allocation_fails(m) else frames_alloc(m, file, index, m.state.files[file].nr_pages)

cdef inline uint32_t folio_number(Machine *m, const hgm_folio *folio) noexcept nogil:
    return <uint32_t>(folio - <hgm_folio *>m.state.folios.base)

cdef inline void page_cache_add(Machine *m, hgm_folio *folio) noexcept nogil:
    m.state.files[folio.file].cache[folio.index] = folio_number(m, folio) + 1
    folio.flags |= HGM_FOLIO_CACHED
    folio.page._refcount += cache_refs(m, folio)

cdef inline void folio_get(Machine *m, hgm_folio *folio, int32_t references) noexcept nogil:
    """Take references that no mapping holds."""
    m.context.cost.overflows += folio.page._refcount > INT32_MAX - references
    hgm_plain_add(folio, references)

cdef inline void folio_put(hgm_folio *folio, int32_t references) noexcept nogil:
    """Drop references that no mapping holds."""
    if hgm_plain_add(folio, -references) == 0:
        folio.flags |= HGM_FOLIO_FREED
        hgm_event_freed(folio.page)

cdef inline void page_cache_remove(Machine *m, hgm_folio *folio) noexcept nogil:
    m.state.files[folio.file].cache[folio.index] = 0
    folio.flags &= ~HGM_FOLIO_CACHED
    folio_put(folio, cache_refs(m, folio))

cdef inline hgm_folio *page_cache_alloc(Machine *m, uint32_t file, uint64_t index) noexcept nogil:
    """Allocate huge page `index` of the file into its page cache. NULL as from folio_alloc."""
    cdef hgm_folio *folio = folio_alloc(m, file, index)
    if folio is not NULL:
        page_cache_add(m, folio)
    return folio

cdef inline bint page_poisoned(Machine *m, uint64_t pfn, uint64_t n) noexcept nogil:
    """Did a base page among frames [pfn, pfn + n) fail?"""
    cdef uint64_t *frames = <uint64_t *>m.state.poisoned.base
    cdef size_t i
    for i in range(m.state.poisoned.used // sizeof(uint64_t)):
        if frames[i] - pfn < n:
            return True
    return False

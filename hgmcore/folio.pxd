# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Huge pages and the page caches of files."""
from hgmcore.hgm cimport *
from hgmcore.machine cimport File, Machine
from hgmcore.memory cimport region_grow

cdef inline hgm_folio *folio_at(Machine *m, uint32_t number) noexcept nogil:
    return &(<hgm_folio *>m.folios.base)[number]

cdef inline hgm_folio *page_cache_get(Machine *m, File *f, uint64_t index) noexcept nogil:
    """The folio at huge page `index` of the file's page cache, or NULL. Takes no reference."""
    cdef uint32_t number = f.cache[index]
    return folio_at(m, number - 1) if number else NULL

cdef inline hgm_folio *page_cache_alloc(Machine *m, uint32_t file, uint64_t index) noexcept nogil:
    """Allocate huge page `index` of the file into its page cache. NULL, and m.out_of_memory: no memory."""
    cdef File *f = &m.files[file]
    cdef uint64_t pfn = (m.next_pfn + f.nr_pages - 1) & ~(f.nr_pages - 1)
    cdef hgm_folio *folio
    if (not region_grow(&m.vmemmap, (pfn + f.nr_pages) * sizeof(hgm_page))
            or not region_grow(&m.folios, (<size_t>m.nr_folios + 1) * sizeof(hgm_folio))):
        m.out_of_memory = True
        return NULL
    folio = folio_at(m, m.nr_folios)
    m.nr_folios += 1
    m.next_pfn = pfn + f.nr_pages
    folio.page = &(<hgm_page *>m.vmemmap.base)[pfn]
    folio.pfn = pfn
    folio.nr_pages = f.nr_pages
    folio.file = file
    folio.index = <uint32_t>index
    folio.flags = HGM_FOLIO_CACHED
    folio.page._refcount = <int32_t>f.nr_pages if m.options.cache_refs_folio else 1
    f.cache[index] = m.nr_folios
    return folio

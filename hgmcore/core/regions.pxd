# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The regions of a machine, and how much of its address space each gets."""
from hgmcore.core.machine cimport Geometry, Machine
from hgmcore.core.memory cimport host_page, region_place
from hgmcore.hgm cimport *

# For a machine that may grow to 16 TiB mapped by base pages, or 4 TiB of memory. It has regions of 64 parts each for
# page tables and struct pages; the others follow from how many entries these have.
cdef enum:
    PART_OF_PAGES = 4096    # bytes of struct pages that are committed together
    TABLES = 64
    VMEMMAP = 64
    RESULTS = 16

cdef inline size_t region_sizes(const Geometry *g, size_t part, size_t *sizes) noexcept nogil:
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

cdef inline void regions_place(Machine *m, unsigned char *at, const size_t *sizes) noexcept nogil:
    """Lay the regions out from address `at` on."""
    region_place(&m.state.tables, &at, sizes[0])
    region_place(&m.state.ptdescs, &at, sizes[1])
    region_place(&m.state.vmemmap, &at, sizes[2])
    region_place(&m.state.folios, &at, sizes[3])
    region_place(&m.state.poisoned, &at, sizes[4])
    region_place(&m.context.results, &at, sizes[5])

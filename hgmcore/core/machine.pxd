# cython: language_level=3
"""The simulated machine: memory, page cache, processes and their mappings, as plain C structures.

Everything that the core knows of is here and nothing of it is a Python object, so that operations run without
the GIL. `Contents` owns one machine and its memory; operations run on it by `Core` (core.pxd).
"""
from hgmcore.hgm cimport (
    hgm_cost, hgm_folio, hgm_machine, hgm_operation, hgm_options, hgm_page, hgm_ptdesc, hgm_result, int32_t, uint8_t,
    uint16_t, uint32_t, uint64_t
)
from hgmcore.core.memory cimport Region

cdef enum:
    MAX_LEVELS = 6
    MAX_LEAVES = 6
    NO_TABLE = 0         # table numbers start at 1

# How an operation keeps other threads' operations out of the huge page that it maps (lock.pxd).
cdef enum:
    ALONE                # there are none
    BY_ATOMICS           # locks=none
    PT_LOCKS
    POSTED_LOCKS
cdef enum Kind:
    HUGETLB, SHMEM, ANON

cdef struct Geometry:
    int base_shift
    int index_bits
    int levels                         # level of the root table
    int table_shift                    # log2 of a table page's bytes
    int level_shift[MAX_LEVELS]        # log2 of the bytes below one entry of a level
    int nr_leaves
    int leaf_shift[MAX_LEAVES]         # ascending
    int leaf_level[MAX_LEAVES]
    int leaf_entries[MAX_LEAVES]       # adjacent entries: more than 1 for a contiguous group
    int entry_leaf[MAX_LEVELS]         # number of the leaf that is one entry of a level
    int group[MAX_LEVELS]              # entries in a contiguous group of a level; 1: it has none

# A file, or (ANON) anonymous memory of one folio size. Places in a file are counted in huge pages, in a file of kind
# SHMEM in base pages: a folio there may be split, so each base page has its own place in the page cache.
cdef struct File:
    Kind kind
    uint64_t pages                     # huge pages that it may have
    uint64_t size                      # places before its end; ANON: folios allocated so far
    uint64_t length                    # SHMEM: bytes before its end, the last place may have less than a base page
    int leaf                           # number of the leaf that is a whole huge page
    int page_shift                     # log2 of a huge page's bytes
    int level                          # its hstate level
    int entries                        # hstate-level entries of a huge page: more than 1 for a contiguous size
    uint64_t nr_pages                  # base pages in a huge page
    uint32_t *cache                    # page cache: number of the folio + 1 by place, 0: absent
    uint64_t nr_cache                  # places in it

cdef struct Process:
    uint32_t root                      # table number, NO_TABLE before the first mapping
    bint exited
    uint64_t next_address              # where the next mapping may start
    bint placed                        # a mapping may be anywhere: not each has spans of its own
    uint32_t first_mapping             # number + 1 of the first mapping declared for it, 0: none
    uint32_t last_mapping

cdef enum:
    VMA_FORKED = 0x100         # vma_is_fork_child(): it has its anon_vma from a fork
    VMA_UNACCOUNTED = 0x200    # of anonymous memory, without VM_ACCOUNT

# Part of a mapping, by offsets from its start; flags are HGM_OPF_SHARED, _MINOR, _WP, _HGM, _READ, _WRITE; VMA_*.
cdef struct Vma:
    uint64_t start
    uint64_t end
    uint32_t flags
    uint32_t lock                      # readers of option `locks`
    uint64_t anon_vma                  # of anonymous memory: a fault made it ready for folios of its own; or 0

# A mapping: the range that one mmap made, and the VMAs that are left of it. They are sorted, do not overlap,
# and begin and end at huge pages; of shmem and anonymous memory, at base pages.
cdef struct Mapping:
    uint32_t process
    uint32_t name                      # number of its name
    uint32_t next                      # number + 1 of the process's next mapping, 0: none
    uint32_t file
    uint64_t address
    uint64_t length
    uint64_t file_offset
    uint64_t at                        # the address that HGM_OPF_AT gives it
    uint64_t resized                   # the length that HGM_OPF_RESIZED gives it
    uint32_t nr_vmas
    uint32_t max_vmas
    Vma *vmas

# A machine is three things. What it is: never changes.
cdef struct Config:
    Geometry geometry
    hgm_options options

# What operations change and what counts: can be copied and put back (snapshot.pxd).
cdef struct State:
    Region tables                      # page-table pages
    Region ptdescs                     # their descriptors, by table number
    Region vmemmap                     # struct pages, by frame number
    Region folios                      # hgm_folio, in the order of their frames
    Region poisoned                    # frames of base pages that failed, uint64_t
    uint64_t next_pfn
    uint64_t nr_tables                 # below hstate-level entries only
    uint32_t nr_folios
    uint32_t free_table                # list through the first entry of each free table
    uint32_t nr_files
    uint32_t nr_processes
    uint32_t nr_mappings
    File *files
    Process *processes
    Mapping *mappings

cdef struct Machine "hgm_core"

ctypedef void (*mark_function)(Machine *m, const hgm_operation *ops, uint64_t n) noexcept nogil

# Which huge pages operations may have touched since somebody looked (touched.pyx).
cdef struct Touched:
    mark_function mark
    bint everything
    bint anonymous                     # any of anonymous memory, and of private mappings of shmem
    uint32_t nr_files                  # that there were; what touches a later one touches everything
    unsigned char **bits               # of each file, a bit for each 1 << shift of its places
    unsigned char *any                 # of each file: is a bit set?
    int *shift

# What belongs to a run: what it cost and came to, what fails in it, who else works on the state.
cdef struct Context:
    hgm_cost cost
    uint64_t table_allocs, table_frees, nr_tables_peak    # below hstate-level entries only
    Region results                     # hgm_result
    uint64_t nr_results
    uint64_t fail                      # the internal allocation of the next operation that fails, 0: none
    uint64_t fail_at                   # number + 1 of the `fail` that asked for that, 0: none did
    uint64_t reclaim_at                # the frame from which on freed ones are looked for, 0: not known yet
    uint32_t nr_free                   # folios with HGM_FOLIO_FREE, at most
    uint32_t free_from                 # the first that may be one of `free_size` frames
    uint64_t free_size
    bint frames_low                    # freed frames are to be looked for before the next operation
    bint out_of_memory                 # the host has no more memory for this machine
    int exclusion
    size_t tables_populated            # bytes of the page tables that are committed
    bint tails                         # an engine ran that counts on every struct page, not on the first few of a folio
    Machine *owner                     # itself; of a thread's view of a machine (view.pyx) that machine
    uint32_t growing                   # lock of tables and folios, where views of this machine share them
    uint32_t *fault_mutexes
    uint32_t ready                     # views of this machine that are about to run
    uint16_t cpu                       # that runs operations now, for schemes that ask
    Touched *touched                   # NULL: nobody looks

cdef struct Machine "hgm_core":
    uint32_t abi                       # HGM_ABI, and sizeof(Machine), of the module that made it
    uint32_t size
    Config config
    State state
    Context context

cdef hgm_options options_of(dict options)

cdef class Contents:
    cdef Machine m
    cdef hgm_machine c                 # the same for C (hgmcore/library.h); its `engine` is that of its doors, or NULL
    cdef size_t reserved               # bytes of address space
    cdef int mutexes(self) except -1
    cdef int idle(self) except -1
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef tuple scan_struct_pages(self, bint since)
    cdef object __weakref__

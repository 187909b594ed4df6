# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Where mappings come to stand: in spans of their own, where a trace says, or (addresses=kernel) where Linux 6.18 puts
them, in a process without randomized addresses. Mappings that touch stay apart, where Linux may merge VMAs."""
from libc.errno cimport EEXIST, EINVAL, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport ANON, File, HUGETLB, Machine, Mapping, NO_TABLE, Process
from hgmcore.core.table cimport PMD, table_alloc
from hgmcore.core.vma cimport vma_insert, vma_search
from hgmcore.operations.common cimport Range

cdef enum:
    STACK_GAP = 128 << 20    # below the end of the address space (mmap_base())

cdef inline uint64_t task_size(Machine *m) noexcept nogil:
    """The end of a process's address space."""
    return <uint64_t>1 << (m.config.geometry.level_shift[m.config.geometry.levels] + m.config.geometry.index_bits - 1)

cdef inline uint64_t lowest_used(Machine *m, uint32_t process, uint64_t first, uint64_t last) noexcept nogil:
    """The start of the lowest VMA of the process that has one of the addresses [first, last]; or last + 1."""
    cdef uint32_t next = m.state.processes[process].first_mapping, i
    cdef uint64_t lowest = last + 1
    cdef Mapping *v
    while next:
        v = &m.state.mappings[next - 1]
        next = v.next
        if v.nr_vmas and v.address <= last and v.address + v.length > first:
            i = vma_search(v, first - v.address if first > v.address else 0)
            if i < v.nr_vmas and v.address + v.vmas[i].start <= last:
                lowest = min(lowest, v.address + v.vmas[i].start)
    return lowest

cdef inline bint range_used(Machine *m, uint32_t process, uint64_t first, uint64_t last) noexcept nogil:
    """Does a VMA of the process have one of the addresses [first, last]?"""
    return lowest_used(m, process, first, last) <= last

cdef inline uint64_t unmapped_area_topdown(Machine *m, uint32_t process, uint64_t length) noexcept nogil:
    """The address behind the highest gap of so many bytes; 0: there is none."""
    cdef uint64_t high = task_size(m) - ((<uint64_t>1 << m.config.geometry.base_shift) + STACK_GAP), lowest
    while high > length:
        lowest = lowest_used(m, process, high - length, high - 1)
        if lowest >= high:
            return high
        high = lowest
    return 0

cdef inline uint64_t get_unmapped_area_topdown(Machine *m, uint32_t process, const File *f, uint64_t file_offset,
                                               uint64_t length) noexcept nogil:
    """The address that Linux chooses for a mapping, 0: none is left.

    One of hugetlb is aligned; one of shmem agrees with the file modulo a folio, if it is as long as one
    (shmem_get_unmapped_area); anonymous memory that fills PMDs is aligned (since 6.7).
    """
    cdef uint64_t mask = (<uint64_t>1 << f.page_shift) - 1, offset = file_offset & mask, high
    cdef uint64_t base = (<uint64_t>1 << m.config.geometry.base_shift) - 1
    if f.kind == ANON:
        mask = (<uint64_t>1 << m.config.geometry.level_shift[PMD]) - 1
        offset = 0
    if f.kind == HUGETLB:
        high = unmapped_area_topdown(m, process, length + (mask & ~base))
        return (high - length) & ~mask if high else 0
    high = unmapped_area_topdown(m, process, length)
    if f.kind == ANON and length & mask or length <= mask or offset and offset + length < 2 * (mask + 1) or (
            high and (high - length) & mask == offset):
        return high - length if high else 0
    high = unmapped_area_topdown(m, process, length + (mask + 1 if f.kind == ANON else mask & ~base))
    return high - length - ((high - length - offset) & mask) if high else (
        unmapped_area_topdown(m, process, length) - length)

cdef inline bint get_unmapped_area(Machine *m, uint32_t process, uint32_t file, uint64_t file_offset, uint64_t length,
                                   uint64_t *address) noexcept nogil:
    """Find room for a mapping. False: the address space is full.

    addresses=apart: a mapping of small huge pages agrees in address and file offset modulo the span of the largest
    leaf and has that span to itself, so that mappings of one file at one offset can share the table below it.
    Addresses are used once; where none is left and the process maps nothing, they begin anew.
    """
    cdef Process *p = &m.state.processes[process]
    cdef uint64_t span = <uint64_t>1 << m.config.geometry.leaf_shift[m.config.geometry.nr_leaves - 1]
    cdef uint64_t limit = task_size(m)
    cdef uint64_t at = ((p.next_address + span - 1) & ~(span - 1)) + (file_offset & (span - 1))
    if m.config.options.top_down:
        p.placed = True
        address[0] = get_unmapped_area_topdown(m, process, &m.state.files[file], file_offset, length)
        return address[0] != 0
    if at > limit - length and not range_used(m, process, 0, limit - 1):
        at = file_offset & (span - 1)
    while p.placed and length <= limit and at <= limit - length and range_used(m, process, at & ~(span - 1), (
            at + length - 1) | (span - 1)):
        at += span
    if length > limit or at > limit - length:
        return False
    address[0] = at
    p.next_address = at + length
    return True

cdef inline int at_refused(Machine *m, const Mapping *v, uint64_t at, uint64_t length, uint64_t mask,
                           bint fixed) noexcept nogil:
    """May a mapping come to stand at `at`, a multiple of mask + 1? 0 or an errno. fixed: what is there goes first."""
    if at & mask:
        return EINVAL
    if length > task_size(m) or at > task_size(m) - length:
        return EINVAL if fixed else ENOMEM
    return EEXIST if not fixed and range_used(m, v.process, at, at + length - 1) else 0

cdef inline void mapping_set(Mapping *v, uint32_t file, uint64_t file_offset, uint64_t address,
                             uint64_t length) noexcept nogil:
    """A declared name becomes a mapping, as yet without a VMA."""
    v.file = file
    v.file_offset = file_offset
    v.address = address
    v.length = length

cdef inline bint mmap_region(Machine *m, Mapping *v, uint32_t file, uint64_t file_offset, uint64_t length,
                             uint32_t flags, bint at) noexcept nogil:
    """Put a mapping of one VMA into its process's address space; `at`: at its own address, where nothing is. False: no
    room, or no memory."""
    cdef Process *p = &m.state.processes[v.process]
    cdef uint64_t address = v.at
    if p.root == NO_TABLE:
        p.root = table_alloc(m)
        if p.root == NO_TABLE:
            return False
    if at:
        p.placed = True
    elif not get_unmapped_area(m, v.process, file, file_offset, length, &address):
        return False
    mapping_set(v, file, file_offset, address, length)
    return vma_insert(m, v, 0, 0, length, flags)

cdef inline int to_refused(Machine *m, const Mapping *v, const Mapping *w, const hgm_operation *op, const Range *r,
                           uint64_t length, uint64_t mask) noexcept nogil:
    """What mremap to a new mapping `w`, of `length` bytes, checks before it looks at VMAs (check_mremap_params): 0 or
    an errno. r: the range of `v` that is to move; mask: of pages."""
    cdef uint64_t old = v.address + r.start, old_end = v.address + r.end
    if r.error:
        return r.error
    if length == 0 or length > task_size(m):
        return EINVAL
    if op.flags & HGM_OPF_AT and at_refused(m, w, w.at, length, mask, True):
        return EINVAL
    if op.flags & HGM_OPF_KEEP and length != r.end - r.start:
        return EINVAL
    return EINVAL if op.flags & HGM_OPF_AT and old_end > w.at and w.at + length > old else 0

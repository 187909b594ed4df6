# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mmap, munmap and exit: where mappings come from and go."""
from hgmcore.folio cimport page_cache_alloc
from hgmcore.operations.common cimport *
from hgmcore.operations.zap cimport zap_range
from hgmcore.vma cimport vma_delete, vma_insert, vma_search, vma_split

cdef inline Outcome populate(Machine *m, const hgm_operation *op) noexcept nogil:
    """Bring huge pages [offset, offset + length) of a file into its page cache."""
    cdef File *f = &m.files[op.target]
    cdef uint64_t i
    for i in range(op.offset, op.offset + op.length):
        if page_cache_get(m, f, i) is NULL and page_cache_alloc(m, op.target, i) is NULL:
            return outcome((i - op.offset) << f.page_shift, ENOMEM)
    return outcome(op.length << f.page_shift, 0)

cdef inline bint place(Machine *m, Process *p, const File *f, uint64_t file_offset, uint64_t length,
                       uint64_t *address) noexcept nogil:
    """Find room for a mapping. False: the address space is full.

    A mapping of small huge pages agrees in address and file offset modulo the span of the largest leaf and has
    that span to itself, so that mappings of one file at one offset could share the table below it.
    """
    cdef uint64_t span = <uint64_t>1 << m.geometry.leaf_shift[m.geometry.nr_leaves - 1]
    cdef uint64_t limit = <uint64_t>1 << (m.geometry.level_shift[m.geometry.levels] + m.geometry.index_bits - 1)
    cdef uint64_t at = ((p.next_address + span - 1) & ~(span - 1)) + (file_offset & (span - 1))
    if length > limit or at > limit - length:
        return False
    address[0] = at
    p.next_address = at + length
    return True

cdef inline Outcome mmap_file(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.mappings[op.target]
    cdef Process *p = &m.processes[v.process]
    cdef File *f = &m.files[op.arg]
    cdef uint64_t mask = page_mask(f), length = (op.length + mask) & ~mask
    if p.exited:
        return outcome(0, ESRCH)
    if v.nr_vmas > 0:
        return outcome(0, EEXIST)
    v.file = op.arg
    if op.offset & mask or op.length == 0:
        return outcome(0, EINVAL)
    if length < op.length or op.offset >> f.page_shift > f.pages or (
            length >> f.page_shift > f.pages - (op.offset >> f.page_shift)):
        return outcome(0, ENOMEM)
    if p.root == NO_TABLE:
        p.root = table_alloc(m)
        if p.root == NO_TABLE:
            return outcome(0, ENOMEM)
    if not place(m, p, f, op.offset, length, &v.address):
        return outcome(0, ENOMEM)
    v.file_offset = op.offset
    v.length = length
    if not vma_insert(m, v, 0, 0, length, op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_WP | HGM_OPF_HGM)):
        return outcome(0, ENOMEM)
    return outcome(op.length, 0)

cdef inline uint64_t unmap(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Remove the VMAs in [start, end), with what they map. Returns their bytes."""
    cdef uint32_t i
    cdef uint64_t done = 0
    if not vma_split(m, v, start) or not vma_split(m, v, end):
        return 0
    i = vma_search(v, start)
    while i < v.nr_vmas and v.vmas[i].start < end:
        zap_range(m, v, v.vmas[i].start, v.vmas[i].end, True)
        done += v.vmas[i].end - v.vmas[i].start
        vma_delete(v, i)
    return done

cdef inline Outcome munmap(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.mappings[op.target]
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if (op.offset | op.length) & page_mask(&m.files[v.file]) or op.length == 0 or op.offset + op.length < op.offset:
        return outcome(0, EINVAL)
    return outcome(unmap(m, v, op.offset, op.offset + op.length), 0)

cdef inline Outcome exit_process(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Process *p = &m.processes[op.target]
    cdef uint32_t i
    if p.exited:
        return outcome(0, ESRCH)
    for i in range(m.nr_mappings):
        if m.mappings[i].process == op.target:
            unmap(m, &m.mappings[i], 0, m.mappings[i].length)
    if p.root != NO_TABLE:
        upper_tables_free(m, p.root, m.geometry.levels)
        p.root = NO_TABLE
    p.exited = True
    return outcome(0, 0)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mmap, munmap, mremap, mprotect and exit: where mappings come from, move and go."""
from hgmcore.operations.common cimport *
from hgmcore.operations.zap cimport zap_range
from hgmcore.share cimport unshare_range
from hgmcore.vma cimport vma_delete, vma_insert, vma_search, vma_split

cdef inline bint place(Machine *m, Process *p, const File *f, uint64_t file_offset, uint64_t length,
                       uint64_t *address) noexcept nogil:
    """Find room for a mapping. False: the address space is full.

    A mapping of small huge pages agrees in address and file offset modulo the span of the largest leaf and has
    that span to itself, so that mappings of one file at one offset can share the table below it.
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
    if op.offset & mask or op.length == 0:
        return outcome(0, EINVAL)
    if not op.flags & HGM_OPF_SHARED and maps_pieces(m, op.flags):
        return outcome(0, EINVAL)
    if length < op.length or op.offset >> f.page_shift > f.pages or (
            length >> f.page_shift > f.pages - (op.offset >> f.page_shift)):
        return outcome(0, ENOMEM)
    if v.nr_vmas > 0:
        return outcome(0, EEXIST)
    if p.root == NO_TABLE:
        p.root = table_alloc(m)
        if p.root == NO_TABLE:
            return outcome(0, ENOMEM)
    if not place(m, p, f, op.offset, length, &v.address):
        return outcome(0, ENOMEM)
    v.file = op.arg
    v.file_offset = op.offset
    v.length = length
    if not vma_insert(m, v, 0, 0, length, HGM_OPF_READ | HGM_OPF_WRITE
                      | (op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_WP | HGM_OPF_HGM))):
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

cdef inline bint misaligned(Machine *m, const Mapping *v, const hgm_operation *op) noexcept nogil:
    """Is a range not one of whole huge pages, or empty?"""
    return ((op.offset | op.length) & page_mask(&m.files[v.file]) != 0 or op.length == 0
            or op.offset + op.length < op.offset)

cdef inline Outcome munmap(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.mappings[op.target]
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if misaligned(m, v, op):
        return outcome(0, EINVAL)
    return outcome(unmap(m, v, op.offset, op.offset + op.length), 0)

cdef inline Outcome mprotect(Machine *m, const hgm_operation *op) noexcept nogil:
    """Changes what an access may do; ENOMEM where the range has a gap, after the VMAs before it were changed."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint64_t end = op.offset + op.length, at = op.offset, stop
    cdef uint32_t i, flags
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if (op.offset | op.length) & page_mask(&m.files[v.file]) or end < op.offset:
        return outcome(0, EINVAL)
    i = vma_search(v, at)
    while i < v.nr_vmas and v.vmas[i].start <= at and at < end:
        stop = min(v.vmas[i].end, end)
        flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_READ | HGM_OPF_WRITE)) | (
            op.flags & (HGM_OPF_READ | HGM_OPF_WRITE))
        if flags != v.vmas[i].flags:
            if not vma_split(m, v, at) or not vma_split(m, v, stop):
                return outcome(at - op.offset, ENOMEM)
            i = vma_search(v, at)
            unshare_range(m, v, at, stop)
            v.vmas[i].flags = flags
        at = stop
        i += 1
    return outcome(at - op.offset, 0 if at >= end else ENOMEM)

cdef inline bint move_entries(Machine *m, Mapping *v, uint64_t start, uint64_t end, Mapping *w) noexcept nogil:
    """Move the hstate-level entries of [start, end) to the start of mapping `w`. Nothing is counted."""
    cdef HugePage source, target
    cdef uint64_t at = start
    cdef int i
    unshare_range(m, v, start, end)
    while at < end:
        source = huge_page(m, v, at, False)
        if source.entry is not NULL and not huge_page_none(&source):
            target = huge_page(m, w, at - start, True)
            if target.entry is NULL:
                return False
            for i in range(source.file.entries):
                target.entry[i] = source.entry[i]
                source.entry[i] = 0
        at = source.start + page_mask(source.file) + 1
    return True

cdef inline Outcome mremap_move(Machine *m, Mapping *v, const hgm_operation *op) noexcept nogil:
    """Move a part to a new mapping; it keeps what userfaultfd does not own."""
    cdef Mapping *w = &m.mappings[op.arg]
    cdef Vma *vma
    cdef uint64_t end = op.offset + op.length
    cdef uint32_t flags
    if misaligned(m, v, op):
        return outcome(0, EINVAL)
    vma = vma_find(v, op.offset)
    if vma is NULL or end > vma.end:
        return outcome(0, EFAULT)
    if w.nr_vmas > 0:
        return outcome(0, EEXIST)
    flags = vma.flags
    if not place(m, &m.processes[v.process], &m.files[v.file], v.file_offset + op.offset, op.length, &w.address):
        return outcome(0, ENOMEM)
    w.file = v.file
    w.file_offset = v.file_offset + op.offset
    w.length = op.length
    if (not vma_insert(m, w, 0, 0, op.length, flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP))
            or not move_entries(m, v, op.offset, end, w)
            or not vma_split(m, v, op.offset) or not vma_split(m, v, end)):
        return outcome(0, ENOMEM)
    vma_delete(v, vma_search(v, op.offset))
    return outcome(op.length, 0)

cdef inline Outcome mremap(Machine *m, const hgm_operation *op) noexcept nogil:
    """Shrink in place, or move a part; hugetlb mappings cannot grow (EINVAL)."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint64_t mask = page_mask(&m.files[v.file]), length = (op.length + mask) & ~mask
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if op.arg != 0xffff:
        return mremap_move(m, v, op)
    if op.length == 0 or length < op.length:
        return outcome(0, EINVAL)
    if v.nr_vmas == 0:
        return outcome(0, EFAULT)
    if length > v.length:
        return outcome(0, EINVAL)
    unmap(m, v, length, v.length)
    v.length = length
    return outcome(op.length, 0)

cdef inline Outcome exit_process(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Process *p = &m.processes[op.target]
    cdef uint32_t next = p.first_mapping
    if p.exited:
        return outcome(0, ESRCH)
    while next:
        unmap(m, &m.mappings[next - 1], 0, m.mappings[next - 1].length)
        next = m.mappings[next - 1].next
    if p.root != NO_TABLE:
        upper_tables_free(m, p.root, m.geometry.levels)
        p.root = NO_TABLE
    p.exited = True
    return outcome(0, 0)

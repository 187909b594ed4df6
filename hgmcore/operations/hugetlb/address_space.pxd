# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mmap, munmap and mprotect of hugetlb: where mappings come from and go."""
from libc.errno cimport EEXIST, EINVAL, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport File, Machine, Mapping, Vma
from hgmcore.core.share cimport unshare_range
from hgmcore.core.table cimport entry_index, is_table, table_entries, table_none, table_number, table_release
from hgmcore.core.vma cimport vma_delete, vma_search, vma_split
from hgmcore.operations.addresses cimport at_refused, mmap_region
from hgmcore.operations.common cimport (
    base_mask, mprotect_range, Outcome, outcome, page_mask, process_exited, Range, range_of, round_up
)
from hgmcore.operations.hugetlb.huge_page cimport HugePage, maps_pieces
from hgmcore.operations.hugetlb.zap cimport unmap_hugepage_range

cdef inline void mean(Mapping *v, uint32_t file) noexcept nogil:
    """What a mapping was meant for, until it is mapped, tells what its huge pages are."""
    if v.length == 0:
        v.file = file

cdef inline Outcome mmap(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef File *f = &m.state.files[op.arg]
    cdef uint64_t mask = page_mask(f), length = round_up(op.length, mask)
    cdef int error
    if process_exited(m, v):
        return outcome(0, ESRCH)
    mean(v, op.arg)
    if op.offset & mask or op.length == 0:
        return outcome(0, EINVAL)
    if not op.flags & HGM_OPF_SHARED and maps_pieces(m, op.flags):
        return outcome(0, EINVAL)
    if length < op.length or op.offset >> f.page_shift > f.pages or (
            length >> f.page_shift > f.pages - (op.offset >> f.page_shift)):
        return outcome(0, ENOMEM)
    error = at_refused(m, v, v.at, length, mask, False) if op.flags & HGM_OPF_AT else 0
    if v.nr_vmas > 0 or error:
        return outcome(0, EEXIST if v.nr_vmas > 0 else error)
    if not mmap_region(m, v, op.arg, op.offset, length, HGM_OPF_READ | HGM_OPF_WRITE
                       | (op.flags & (HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_WP | HGM_OPF_HGM)),
                       op.flags & HGM_OPF_AT != 0):
        return outcome(0, ENOMEM)
    f.size = max(f.size, (op.offset + length) >> f.page_shift)    # hugetlbfs_file_mmap() makes the file longer
    return outcome(op.length, 0)

cdef inline uint64_t do_munmap(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Remove the VMAs in [start, end), with what they map. Returns their bytes."""
    cdef HugePage h
    cdef uint32_t i
    cdef uint64_t done = 0
    race_lock(HGM_VMA_LOCK, v, HGM_EXCLUSIVE_LOCK)
    race_lock(HGM_I_MMAP_LOCK, &m.state.files[v.file], HGM_EXCLUSIVE_LOCK)
    if not vma_split(m, v, start) or not vma_split(m, v, end):
        return 0
    i = vma_search(v, start)
    while i < v.nr_vmas and v.vmas[i].start < end:
        unmap_hugepage_range(m, v, v.vmas[i].start, v.vmas[i].end, True, &h)
        done += v.vmas[i].end - v.vmas[i].start
        cut(WRITES, &v.nr_vmas)
        if RACING and i >= v.nr_vmas:    # another thread was first
            break
        vma_delete(v, i)
    race_unlock(HGM_I_MMAP_LOCK)
    race_unlock(HGM_VMA_LOCK)
    return done

cdef inline bint vma_in(const Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Does a VMA of the mapping reach into addresses [start, end)?"""
    cdef uint32_t i
    if v.nr_vmas == 0 or end <= v.address:
        return False
    i = vma_search(v, max(start, v.address) - v.address)
    return i < v.nr_vmas and v.address + v.vmas[i].start < end

cdef inline bint span_used(Machine *m, const Mapping *v, uint64_t start, uint64_t span) noexcept nogil:
    """Does a VMA of the process of `v` reach into the span at `start`? Small ones `v` has to itself, if no mapping was
    placed otherwise: see get_unmapped_area()."""
    cdef uint32_t next = m.state.processes[v.process].first_mapping
    if not m.state.processes[v.process].placed and (
            span <= <uint64_t>1 << m.config.geometry.leaf_shift[m.config.geometry.nr_leaves - 1]):
        return vma_in(v, start, start + span)
    while next:
        if vma_in(&m.state.mappings[next - 1], start, start + span):
            return True
        next = m.state.mappings[next - 1].next
    return False

cdef inline void hugetlb_free_pgd_range(Machine *m, const Mapping *v, uint32_t table, int level, uint64_t start,
                               uint64_t end) noexcept nogil:
    """Below `table`, with entries of `level`: free the upper tables for addresses [start, end) that no VMA uses."""
    cdef uint64_t span = <uint64_t>1 << m.config.geometry.level_shift[level], stop
    cdef uint64_t *entry
    while start < end and level > m.state.files[v.file].level:
        stop = min((start | (span - 1)) + 1, end)
        entry = &table_entries(m, table)[entry_index(m, start, level)]
        if entry[0] != 0 and not (RACING and not is_table(entry[0])):
            hugetlb_free_pgd_range(m, v, table_number(entry[0]), level - 1, start, stop)
            if table_none(m, table_number(entry[0])) and not span_used(m, v, start & ~(span - 1), span):
                table_release(m, table_number(entry[0]))
                entry[0] = 0
        start = stop

cdef inline void free_pgtables(Machine *m, const Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Free the upper tables for offsets [start, end) that no VMA uses."""
    hugetlb_free_pgd_range(m, v, m.state.processes[v.process].root, m.config.geometry.levels, v.address + start,
                           v.address + end)

cdef inline bint hugetlb_vm_op_split(Machine *m, const Mapping *v, uint64_t offset) noexcept nogil:
    """Would a cut at `offset` go through a huge page of a VMA?"""
    cdef uint32_t i = vma_search(v, offset)
    return i < v.nr_vmas and v.vmas[i].start < offset and offset & page_mask(&m.state.files[v.file]) != 0

cdef inline Outcome munmap(Machine *m, const hgm_operation *op) noexcept nogil:
    """The length is rounded to base pages; holes do not matter. EINVAL: a huge page would be cut.

    Where that is at the end, the VMA stays cut at the start (here and in mprotect).
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef uint64_t done, end = r.end
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_EXCLUSIVE_LOCK)
    cut(READS, &v.nr_vmas)
    if r.error or op.length == 0:
        return outcome(0, r.error if r.error else EINVAL)
    if hugetlb_vm_op_split(m, v, op.offset) or not vma_split(m, v, op.offset) or hugetlb_vm_op_split(m, v, end):
        return outcome(0, EINVAL)
    done = do_munmap(m, v, op.offset, end)
    if done:
        free_pgtables(m, v, op.offset, min(end, v.length))
    return outcome(done, 0)

cdef inline Outcome mprotect(Machine *m, const hgm_operation *op) noexcept nogil:
    """Changes what an access may do; the length is rounded to base pages.

    ENOMEM where the range has a gap, EINVAL where a VMA to be changed would be cut in a huge page; those before were
    changed.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = mprotect_range(m, op)
    cdef uint64_t end = r.end, at = r.start, stop
    cdef uint32_t i, flags
    if r.error:
        return outcome(0, r.error)
    i = vma_search(v, at)
    while i < v.nr_vmas and v.vmas[i].start <= at and at < end:
        stop = min(v.vmas[i].end, end)
        flags = (v.vmas[i].flags & ~<uint32_t>(HGM_OPF_READ | HGM_OPF_WRITE)) | (
            op.flags & (HGM_OPF_READ | HGM_OPF_WRITE))
        if flags != v.vmas[i].flags:
            if hugetlb_vm_op_split(m, v, at) or not vma_split(m, v, at) or hugetlb_vm_op_split(m, v, stop):
                return outcome(at - op.offset, EINVAL)
            if not vma_split(m, v, stop):
                return outcome(at - op.offset, ENOMEM)
            i = vma_search(v, at)
            unshare_range(m, v, at, stop)
            v.vmas[i].flags = flags
        at = stop
        i += 1
    return outcome(min(at - op.offset, op.length), 0 if at >= end else ENOMEM)

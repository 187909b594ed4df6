# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Which huge pages operations may have touched since somebody looked.

Marks are made for each record, of an operation and not of a page-table entry, so timed loops know nothing of them: the
interpreter asks once behind a streak whether anybody looks. A mark says where in a file something may have changed: a
count, a flag, what is in the page cache or what maps it. More may be marked than was touched, never less. What is not
found by its place in a file, which is anonymous memory, is marked as a whole; so is everything where frames are used
again, and where a snapshot was put back.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from hgmcore.core.machine cimport ANON, File, HUGETLB, Machine, Mapping, Touched, Vma
from hgmcore.core.table cimport PMD
from hgmcore.core.vma cimport vma_find
from hgmcore.hgm cimport *

import numpy as np

cdef enum:
    MOST = 1 << 20    # bits of a file


cdef void places_mark(Machine *m, uint32_t file, uint64_t first, uint64_t last) noexcept nogil:
    """Mark places [first, last] of a file."""
    cdef Touched *t = m.context.touched
    cdef File *f
    cdef uint64_t i
    if file >= t.nr_files:
        t.everything = True
        return
    f = &m.state.files[file]
    if f.nr_cache == 0 or first >= f.nr_cache:
        return
    first >>= t.shift[file]
    last = min(last, f.nr_cache - 1) >> t.shift[file]
    t.any[file] = 1
    i = first
    while i <= last:
        if i & 7 == 0 and i + 7 <= last:
            t.bits[file][i >> 3] = 0xff
            i += 8
        else:
            t.bits[file][i >> 3] |= <unsigned char>(1 << (i & 7))
            i += 1


cdef void file_mark(Machine *m, uint32_t file) noexcept nogil:
    """Mark all of a file."""
    if m.state.files[file].kind == ANON:
        m.context.touched.anonymous = True
    places_mark(m, file, 0, m.state.files[file].nr_cache)


cdef void bytes_mark(Machine *m, uint32_t file, uint64_t first, uint64_t last) noexcept nogil:
    """Mark what has bytes [first, last] of a file: of shmem, the largest folios around them and beside them."""
    cdef File *f = &m.state.files[file]
    cdef uint64_t most
    if f.kind == ANON:
        m.context.touched.anonymous = True
    elif f.kind == HUGETLB:
        places_mark(m, file, first >> f.page_shift, last >> f.page_shift)
    else:
        most = max(<uint64_t>1 << m.config.geometry.level_shift[PMD], <uint64_t>1 << f.page_shift)
        first = (first & ~(most - 1)) - min(most, first & ~(most - 1))
        places_mark(m, file, first >> m.config.geometry.base_shift,
                    (last | (most - 1)) + most >> m.config.geometry.base_shift)


cdef void range_mark(Machine *m, Mapping *v, uint64_t offset, uint64_t length) noexcept nogil:
    """Mark what bytes [offset, offset + length) of a mapping map, and a table that it may share maps."""
    cdef File *f = &m.state.files[v.file]
    cdef uint64_t last, span, start
    cdef Vma *vma
    if offset >= v.length or length == 0:
        return
    if f.kind != HUGETLB and v.nr_vmas and not v.vmas[0].flags & HGM_OPF_SHARED:
        m.context.touched.anonymous = True
    last = min(offset + length, v.length) - 1 if offset + length > offset else v.length - 1
    if f.kind == HUGETLB and f.level == PMD and f.entries == 1:
        vma = vma_find(v, offset)
        if vma is NULL or (vma.flags & HGM_OPF_SHARED and not vma.flags & (HGM_OPF_HGM | HGM_OPF_MINOR | HGM_OPF_WP)):
            span = <uint64_t>1 << m.config.geometry.level_shift[PMD + 1]
            start = (v.address + offset) & ~(span - 1)
            offset = start - v.address if start > v.address else 0
            last = min(((v.address + last) | (span - 1)) - v.address, v.length - 1)
    bytes_mark(m, v.file, v.file_offset + offset, v.file_offset + last)


cdef void mapping_mark(Machine *m, uint32_t number) noexcept nogil:
    """Mark all that a mapping maps."""
    range_mark(m, &m.state.mappings[number], 0, m.state.mappings[number].length)


cdef void process_mark(Machine *m, uint32_t number) noexcept nogil:
    """Mark all that a process maps."""
    cdef uint32_t v = m.state.processes[number].first_mapping
    while v:
        mapping_mark(m, v - 1)
        v = m.state.mappings[v - 1].next


cdef void operation_mark(Machine *m, const hgm_operation *op) noexcept nogil:
    """Mark what one operation may touch, as the mappings are now."""
    cdef int code = op.op
    cdef uint64_t base = <uint64_t>1 << m.config.geometry.base_shift, first
    if code in (HGM_OP_CONTINUE, HGM_OP_DONTNEED, HGM_OP_COLLAPSE, HGM_OP_MIGRATE):
        range_mark(m, &m.state.mappings[op.target], op.offset, op.length)
    elif code == HGM_OP_TOUCH or code == HGM_OP_HWPOISON:
        range_mark(m, &m.state.mappings[op.target], op.offset & ~(base - 1), base)
    elif code == HGM_OP_PUNCH and op.length:
        bytes_mark(m, op.target, op.offset, op.offset + op.length - 1)
    elif code in (HGM_OP_PUNCH, HGM_OP_TRUNCATE):
        file_mark(m, op.target)
    elif code in (HGM_OP_POPULATE, HGM_OP_PIN, HGM_OP_UNPIN):
        first = op.offset << m.state.files[op.target].page_shift
        bytes_mark(m, op.target, first, first + (
            (max(op.length, <uint64_t>1) if code == HGM_OP_POPULATE else 1) << m.state.files[op.target].page_shift) - 1)
    elif code == HGM_OP_FORK:
        process_mark(m, op.target)
        process_mark(m, op.arg)
    elif code == HGM_OP_EXIT:
        process_mark(m, op.target)
    elif code in (HGM_OP_MMAP, HGM_OP_MREMAP) and op.flags & HGM_OPF_AT:    # what was there is unmapped
        process_mark(m, m.state.mappings[op.target].process)
    elif code in (HGM_OP_MMAP, HGM_OP_REGISTER, HGM_OP_UNREGISTER, HGM_OP_SPLIT, HGM_OP_MUNMAP, HGM_OP_MPROTECT):
        mapping_mark(m, op.target)
    elif code == HGM_OP_MREMAP:
        mapping_mark(m, op.target)
        if op.arg != HGM_NO_ARG:
            mapping_mark(m, op.arg)
    else:    # one that is not known here
        m.context.touched.everything = True


cdef void mark(Machine *m, const hgm_operation *ops, uint64_t n) noexcept nogil:
    """Mark what `n` operations may touch, behind or before which no other changes a mapping."""
    cdef uint64_t i
    for i in range(n):
        if not m.context.touched.everything:
            operation_mark(m, &ops[i])


cdef int touched_start(Machine *m) except -1:
    """Mark from now on, and forget older marks. MemoryError."""
    cdef Touched *t = m.context.touched
    cdef uint32_t i
    if t is not NULL and t.nr_files == m.state.nr_files:
        for i in range(t.nr_files):
            if t.any[i]:
                memset(t.bits[i], 0, size(m, t, i))
        memset(t.any, 0, t.nr_files)
    else:
        touched_free(m)
        t = <Touched *>calloc(1, sizeof(Touched))
        if t is NULL:
            raise MemoryError("no memory for marks of what is touched")
        m.context.touched = t
        t.mark = mark
        t.nr_files = m.state.nr_files
        t.bits = <unsigned char **>calloc(t.nr_files + 1, sizeof(unsigned char *))
        t.any = <unsigned char *>calloc(t.nr_files + 1, 1)
        t.shift = <int *>calloc(t.nr_files + 1, sizeof(int))
        if t.bits is NULL or t.any is NULL or t.shift is NULL:
            touched_free(m)
            raise MemoryError("no memory for marks of what is touched")
        for i in range(t.nr_files):
            while m.state.files[i].nr_cache >> t.shift[i] > MOST:
                t.shift[i] += 1
            t.bits[i] = <unsigned char *>calloc(1, size(m, t, i))
            if t.bits[i] is NULL:
                touched_free(m)
                raise MemoryError("no memory for marks of what is touched")
    t.everything = m.context.nr_free != 0 or m.context.frames_low    # frames that are used again have no place before
    t.anonymous = False
    return 0


cdef inline size_t size(const Machine *m, const Touched *t, uint32_t file) noexcept nogil:
    """Bytes of the bits of a file."""
    return (m.state.files[file].nr_cache >> t.shift[file] >> 3) + 1


cdef object touched_take(Machine *m):
    """What is marked, as Core.touched() gives it."""
    cdef Touched *t = m.context.touched
    cdef unsigned char[::1] out
    if t.everything or t.nr_files != m.state.nr_files:
        return None
    files = {}
    for i in range(t.nr_files):
        if t.any[i]:
            out = copy = np.empty(size(m, t, i), np.uint8)
            memcpy(&out[0], t.bits[i], size(m, t, i))
            files[i] = t.shift[i], np.unpackbits(copy, bitorder="little").view(bool)
    return files, bool(t.anonymous)


cdef void touched_free(Machine *m) noexcept:
    """End the marks."""
    cdef Touched *t = m.context.touched
    cdef uint32_t i
    if t is not NULL:
        for i in range(t.nr_files if t.bits is not NULL else 0):
            free(t.bits[i])
        free(t.bits)
        free(t.any)
        free(t.shift)
        free(t)
    m.context.touched = NULL

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What is done to a shmem file itself: populate, hole punch, truncate, extra references."""
from libc.errno cimport EINVAL
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_at, frames_alloc
from hgmcore.core.machine cimport File, Machine, Mapping
from hgmcore.operations.common cimport base_mask, exact_counts, Outcome, outcome, pin_folio, unpin_folio
from hgmcore.operations.thp.pmd cimport extra_references
from hgmcore.operations.thp.shmem_fault cimport shmem_add_to_page_cache, shmem_delete_from_page_cache
from hgmcore.operations.thp.zap cimport unmap_page_range

cdef inline void unmap_mapping_range(Machine *m, uint32_t file, uint64_t first, uint64_t last,
                                     bint even_cows) noexcept nogil:
    """Unmap base pages [first, last) of a file everywhere; a PMD leaf that maps one of them goes as a whole.

    even_cows: what private mappings have in place of them, too.
    """
    cdef int shift = m.config.geometry.base_shift
    cdef uint64_t start = first << shift, end = last << shift, from_byte, to_byte
    cdef uint32_t i, j
    cdef Mapping *v
    for i in range(m.state.nr_mappings):
        v = &m.state.mappings[i]
        if v.file != file:
            continue
        for j in range(v.nr_vmas):
            from_byte = max(v.file_offset + v.vmas[j].start, start)
            to_byte = min(v.file_offset + v.vmas[j].end, end)
            if from_byte < to_byte:
                unmap_page_range(m, v, from_byte - v.file_offset, to_byte - v.file_offset, HGM_BY_TRUNCATE, False,
                                 not even_cows)

cdef inline void truncate_inode_folio(Machine *m, hgm_folio *folio) noexcept nogil:
    """Unmap a folio and take it out of the page cache."""
    unmap_mapping_range(m, folio.file, folio.index, folio.index + folio.nr_pages, False)
    shmem_delete_from_page_cache(m, folio)

cdef inline bint folio_split(Machine *m, hgm_folio *folio, uint64_t index) noexcept nogil:
    """Split a folio so that base page `index` of the file stands alone: halves, and halves of the half with that page
   . Everybody loses what they had of it mapped. False: somebody else uses it; or no memory.

    Parts behind the end of the file are dropped. The others get frames of their own, as a simulated frame belongs to
    one folio for ever.
    """
    cdef uint64_t first = folio.index, half = folio.nr_pages, other, size = m.state.files[folio.file].size
    cdef uint32_t file = folio.file
    cdef hgm_folio *part
    exact_counts(m, folio)
    if extra_references(m, folio):
        return False
    unmap_mapping_range(m, file, first, first + half, False)
    if folio.page._refcount != <int64_t>folio.nr_pages:    # the scheme's count stays behind: folio_ref_freeze() fails
        return False
    shmem_delete_from_page_cache(m, folio)
    while half > 1:
        half //= 2
        other = first if index >= first + half else first + half
        if other < size:
            part = frames_alloc(m, file, other, half)
            if part is NULL:
                return False
            shmem_add_to_page_cache(m, part)
        if index >= first + half:
            first += half
    if first < size:
        part = frames_alloc(m, file, first, 1)
        if part is NULL:
            return False
        shmem_add_to_page_cache(m, part)
    return True

cdef inline bint truncate_inode_partial_folio(Machine *m, hgm_folio *folio, uint64_t start,
                                              uint64_t end) noexcept nogil:
    """Make bytes [start, end) of the file a hole as far as the folio has them.

    True: the folio was removed or split. False: its bytes are only zeroed. After a split at `start`, the part that
    holds `end` may still be large: it is split too.
    """
    cdef int shift = m.config.geometry.base_shift
    cdef uint64_t first = <uint64_t>folio.index << shift, last = first + (folio.nr_pages << shift)
    cdef uint32_t file = folio.file
    if start <= first and last <= end:
        truncate_inode_folio(m, folio)
        return True
    if folio.nr_pages == 1:
        return True
    if not folio_split(m, folio, max(start, first) >> shift):
        return False
    if end < last and m.state.files[file].cache[end >> shift]:
        folio = folio_at(m, m.state.files[file].cache[end >> shift] - 1)
        if folio.nr_pages > 1:
            folio_split(m, folio, end >> shift)
    return True

cdef inline void shmem_undo_range(Machine *m, uint32_t file, uint64_t start, uint64_t end) noexcept nogil:
    """Make bytes [start, end) of the file a hole: folios inside go, those at the edges are split."""
    cdef File *f = &m.state.files[file]
    cdef uint64_t first = (start + base_mask(m)) >> m.config.geometry.base_shift
    cdef uint64_t last = end >> m.config.geometry.base_shift
    cdef uint64_t edge, at = first
    cdef hgm_folio *folio
    cdef bint same = False    # one folio at both edges
    while at < last:
        folio = folio_at(m, f.cache[at] - 1) if f.cache[at] else NULL
        if folio is NULL:
            at += 1
        elif folio.index >= first and folio.index + folio.nr_pages <= last:
            at = folio.index + folio.nr_pages
            truncate_inode_folio(m, folio)
        else:
            at = folio.index + folio.nr_pages
    edge = start >> m.config.geometry.base_shift
    if f.cache[edge]:
        folio = folio_at(m, f.cache[edge] - 1)
        at = folio.index + folio.nr_pages
        same = end <= at << m.config.geometry.base_shift
        if not truncate_inode_partial_folio(m, folio, start, end):
            first = at
    edge = (end - 1) >> m.config.geometry.base_shift
    if f.cache[edge] and not same:
        folio = folio_at(m, f.cache[edge] - 1)
        at = folio.index
        if not truncate_inode_partial_folio(m, folio, start, end):
            last = at
    at = first
    while at < last:
        if f.cache[at]:
            truncate_inode_partial_folio(m, folio_at(m, f.cache[at] - 1), start, end)
        at += 1

cdef inline Outcome punch_hole(Machine *m, const hgm_operation *op) noexcept nogil:
    """FALLOC_FL_PUNCH_HOLE: base pages inside go; folios that lose some are split, or only zeroed if they cannot be."""
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t base = base_mask(m), end = op.offset + op.length
    cdef uint64_t first = (op.offset + base) >> m.config.geometry.base_shift, last
    if op.length == 0 or end < op.offset:
        return outcome(0, EINVAL)
    end = min(end, f.pages << f.page_shift)
    last = end >> m.config.geometry.base_shift
    if first < last:
        unmap_mapping_range(m, op.target, first, last, False)
    if op.offset < end:
        shmem_undo_range(m, op.target, op.offset, end)
    return outcome(op.length, 0)

cdef inline Outcome truncate(Machine *m, const hgm_operation *op) noexcept nogil:
    """ftruncate: the base pages behind the new end go, and accesses there get SIGBUS.

    A folio across the end is split, also where no base page goes.
    """
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t size = (op.offset + base_mask(m)) >> m.config.geometry.base_shift, end = f.pages << f.page_shift
    if op.offset > end:
        return outcome(0, EINVAL)
    if op.offset < f.length:
        unmap_mapping_range(m, op.target, size, end >> m.config.geometry.base_shift, True)
        f.size = size
        shmem_undo_range(m, op.target, op.offset, end)
    f.size = size
    f.length = op.offset
    return outcome(0, 0)

cdef inline hgm_folio *first_folio(Machine *m, const hgm_operation *op) noexcept nogil:
    """The folio at huge page `offset` of the page cache, or NULL."""
    cdef File *f = &m.state.files[op.target]
    cdef uint32_t number = f.cache[op.offset * f.nr_pages]
    return folio_at(m, number - 1) if number else NULL

cdef inline Outcome pin(Machine *m, const hgm_operation *op) noexcept nogil:
    return pin_folio(m, op, first_folio(m, op))

cdef inline Outcome unpin(Machine *m, const hgm_operation *op) noexcept nogil:
    return unpin_folio(op, first_folio(m, op))

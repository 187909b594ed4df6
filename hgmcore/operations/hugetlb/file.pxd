# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What is done to a file and its page cache: populate, hole punch, truncate, extra references."""
from libc.errno cimport EINVAL, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_put, page_cache_alloc, page_cache_get, page_cache_remove
from hgmcore.core.machine cimport File, Machine, Mapping
from hgmcore.core.rmap cimport rmap_next
from hgmcore.operations.common cimport (
    exact_counts, folio_answer, Outcome, outcome, page_mask, pin_folio, unpin_folio
)
from hgmcore.operations.hugetlb.huge_page cimport huge_page, HugePage
from hgmcore.operations.hugetlb.zap cimport zap_huge_page

cdef inline Outcome populate(Machine *m, const hgm_operation *op) noexcept nogil:
    """Bring huge pages [offset, offset + length) of a file into its page cache."""
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t i
    for i in range(op.offset, op.offset + op.length):
        if page_cache_get(m, f, i) is NULL and page_cache_alloc(m, op.target, i) is NULL:
            return outcome((i - op.offset) << f.page_shift, ENOMEM)
        f.size = max(f.size, i + 1)
    return outcome(op.length << f.page_shift, 0)

cdef inline void remove_inode_single_folio(Machine *m, uint32_t file, uint64_t index) noexcept nogil:
    """In a race: take a page out of the page cache, behind zaps of what mapped it meanwhile; alone, nothing did.

    Before September 2025 the kernel asks whether the page is mapped without its lock. A scheme that answers no though
    there is a leaf, as per_page_posted, subtree, subtree_posted and logical_table can, is believed under either order
    of locks: a leaf that came behind the first zap then maps a page that is out of the page cache.
    """
    cdef File *f = &m.state.files[file]
    cdef hgm_folio *folio
    cdef uint64_t offset = 0
    cdef uint32_t at = 0
    cdef Mapping *v
    cdef HugePage h
    race_lock(HGM_FAULT_MUTEX, &f.cache[index], HGM_EXCLUSIVE_LOCK)
    cut(READS, &f.cache[index])
    folio = page_cache_get(m, f, index)
    if folio is not NULL:
        folio.page._refcount += 1
        if race_repairs() & HGM_FIXED_PUNCH:
            race_lock(HGM_FOLIO_LOCK, folio, HGM_EXCLUSIVE_LOCK)
        cut(READS, &folio.page[1])
        if folio_answer(&m.config.options, folio).mapped:
            v = rmap_next(m, file, index, &at, &offset)
            while v is not NULL:
                race_lock(HGM_VMA_LOCK, v, HGM_EXCLUSIVE_LOCK)
                race_lock(HGM_I_MMAP_LOCK, f, HGM_EXCLUSIVE_LOCK)
                h = huge_page(m, v, offset, False)
                zap_huge_page(m, &h, offset, offset + page_mask(f) + 1, HGM_BY_TRUNCATE, False)
                race_unlock(HGM_I_MMAP_LOCK)
                race_unlock(HGM_VMA_LOCK)
                v = rmap_next(m, file, index, &at, &offset)
        if not race_repairs() & HGM_FIXED_PUNCH:
            race_lock(HGM_FOLIO_LOCK, folio, HGM_EXCLUSIVE_LOCK)
        cut(WRITES, &f.cache[index])
        exact_counts(m, folio)
        page_cache_remove(m, folio)
        race_unlock(HGM_FOLIO_LOCK)
        folio_put(folio, 1)
    race_unlock(HGM_FAULT_MUTEX)

cdef inline void remove_inode_hugepages(Machine *m, uint32_t file, uint64_t first, uint64_t last) noexcept nogil:
    """Unmap huge pages [first, last) of a file everywhere, then take them out of the page cache.

    The reverse map holds no mmap lock, so it frees no page table, whatever zap_frees_tables says.
    """
    cdef File *f = &m.state.files[file]
    cdef uint64_t index, offset = 0
    cdef uint32_t at
    cdef Mapping *v
    cdef HugePage h
    cdef hgm_folio *folio
    for index in range(first, last):
        at = 0
        race_lock(HGM_I_MMAP_LOCK, f, HGM_EXCLUSIVE_LOCK)
        v = rmap_next(m, file, index, &at, &offset)
        while v is not NULL:
            if race_trylock(HGM_VMA_LOCK, v, HGM_EXCLUSIVE_LOCK):    # else remove_inode_single_folio() comes to it
                h = huge_page(m, v, offset, False)
                zap_huge_page(m, &h, offset, offset + page_mask(f) + 1, HGM_BY_TRUNCATE, False)
                race_unlock(HGM_VMA_LOCK)
            v = rmap_next(m, file, index, &at, &offset)
        race_unlock(HGM_I_MMAP_LOCK)
        if RACING:
            remove_inode_single_folio(m, file, index)
            continue
        folio = page_cache_get(m, f, index)
        if folio is not NULL:
            exact_counts(m, folio)
            page_cache_remove(m, folio)

cdef inline Outcome punch_hole(Machine *m, const hgm_operation *op) noexcept nogil:
    """FALLOC_FL_PUNCH_HOLE: whole huge pages go; the edges are only zeroed, their mappings stay."""
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t mask = page_mask(f)
    cdef uint64_t first = (op.offset + mask) >> f.page_shift
    cdef uint64_t last = min((op.offset + op.length) >> f.page_shift, f.pages)
    if op.length == 0 or op.offset + op.length < op.offset:
        return outcome(0, EINVAL)
    if first >= last:
        return outcome(0, 0)
    remove_inode_hugepages(m, op.target, first, last)
    return outcome((last - first) << f.page_shift, 0)

cdef inline Outcome truncate(Machine *m, const hgm_operation *op) noexcept nogil:
    """ftruncate: what is mapped or cached behind the new end goes, and accesses there get SIGBUS."""
    cdef File *f = &m.state.files[op.target]
    cdef uint64_t size = op.offset >> f.page_shift
    if op.offset & page_mask(f) or size > f.pages:
        return outcome(0, EINVAL)
    remove_inode_hugepages(m, op.target, size, f.pages)
    cut(WRITES, &f.size)
    f.size = size
    return outcome(0, 0)

cdef inline Outcome pin(Machine *m, const hgm_operation *op) noexcept nogil:
    return pin_folio(m, op, page_cache_get(m, &m.state.files[op.target], op.offset))

cdef inline Outcome unpin(Machine *m, const hgm_operation *op) noexcept nogil:
    return unpin_folio(op, page_cache_get(m, &m.state.files[op.target], op.offset))

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Migration of huge pages to other memory, as mbind and migrate_pages do it.

A page can only be moved while nobody but the migration knows it: every leaf becomes a migration entry, then its
map count must be 0 and its references those of the page cache and of the isolation (folio_migrate_mapping()).
"""
from libc.errno cimport EAGAIN, EFAULT, ENOMEM
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport cache_refs, folio_alloc, folio_get, folio_number, folio_of, folio_put
from hgmcore.core.machine cimport Machine, Mapping, MAX_LEVELS
from hgmcore.core.rmap cimport rmap_next
from hgmcore.core.table cimport is_leaf, is_table, number_of_table, table_desc, table_entries, table_number
from hgmcore.core.vma cimport vma_search
from hgmcore.operations.common cimport (
    base_mask, folio_answer, folio_movable, Outcome, outcome, page_mask, Range, range_of
)
from hgmcore.operations.hugetlb.huge_page cimport (
    find_leaf, huge_page, huge_page_none, HugePage, install_at, maps_another
)
from hgmcore.operations.hugetlb.zap cimport zap_huge_page

cdef enum:
    ATTEMPTS = 10    # NR_MAX_MIGRATE_PAGES_RETRY, mm/migrate.c

cdef inline bint movable(Machine *m, const HugePage *h) noexcept nogil:
    """Would mbind without MOVE_ALL take the huge page?"""
    return folio_movable(&m.config.options, h.folio, table_desc(m, number_of_table(m, h.entry)).sharers != 0)

cdef inline void remove_migration_ptes(Machine *m, HugePage *h, uint64_t *entries, int level, uint64_t n,
                                       uint64_t offset, uint32_t *path) noexcept nogil:
    """Turn the migration entries at and below `n` entries of `level` into leaves of the folio of `h`."""
    cdef uint64_t i = 0, bytes = <uint64_t>1 << m.config.geometry.level_shift[level]
    cdef int size, j
    while i < n:
        cut(READS, &entries[i])
        if is_table(entries[i]):
            path[level - 1] = table_number(entries[i])
            remove_migration_ptes(m, h, table_entries(m, path[level - 1]), level - 1,
                                  <uint64_t>1 << m.config.geometry.index_bits, offset + i * bytes, path)
        elif entries[i] & HGM_PTE_MIGRATION:
            size = m.config.geometry.entry_leaf[level] + (1 if entries[i] & HGM_PTE_GROUP else 0)
            for j in range(0 if RACING else m.config.geometry.leaf_entries[size]):    # else the install replaces them
                entries[i + j] = 0
            install_at(m, h, &entries[i], size, offset + i * bytes, 1, path, HGM_BY_MIGRATION, huge_page_none(h))
            i += m.config.geometry.leaf_entries[size] - 1
        i += 1

cdef inline void rmap_walk(Machine *m, hgm_folio *old, hgm_folio *new) noexcept nogil:
    """In every mapping of `old`: leaves to migration entries (new NULL), or migration entries to leaves of `new`."""
    cdef uint32_t path[MAX_LEVELS]
    cdef uint32_t at = 0
    cdef uint64_t offset = 0
    cdef Mapping *v = rmap_next(m, old.file, old.index, &at, &offset)
    cdef HugePage h
    while v is not NULL:
        h = huge_page(m, v, offset, False)
        if h.entry is not NULL and not maps_another(m, &h, old):
            if new is NULL:
                h.folio = old
                zap_huge_page(m, &h, offset, offset + page_mask(h.file) + 1, HGM_BY_MIGRATION, False)
            else:
                h.folio = new
                remove_migration_ptes(m, &h, h.entry, h.file.level, h.file.entries, offset, path)
        v = rmap_next(m, old.file, old.index, &at, &offset)

cdef inline bint isolate(Machine *m, hgm_folio *folio) noexcept nogil:
    """In a race: isolate_hugetlb() with the reference just taken, and lock the page.

    False, and the reference is dropped: another migration has the page, or it left the page cache.
    """
    if folio.isolated:
        folio_put(folio, 1)
        return False
    folio.isolated = 1
    race_unlock(HGM_MMAP_LOCK)
    race_lock(HGM_FOLIO_LOCK, folio, HGM_EXCLUSIVE_LOCK)
    if folio.flags & (HGM_FOLIO_CACHED | HGM_FOLIO_ANON):
        return True
    folio.isolated = 0
    race_unlock(HGM_FOLIO_LOCK)
    folio_put(folio, 1)
    return False

cdef inline int unmap_and_move_huge_page(Machine *m, hgm_folio *folio) noexcept nogil:
    """Move one folio. 0; EAGAIN: counts or references did not come out, mappings restored; ENOMEM."""
    cdef hgm_folio *new = folio_alloc(m, folio.file, folio.index)
    cdef bint cached = folio.flags & HGM_FOLIO_CACHED
    cdef int32_t refs = cache_refs(m, folio) if cached else 0
    cdef int _
    if new is NULL:
        return ENOMEM
    new.page._refcount = 1    # the allocation's own
    folio_get(m, folio, 1)
    if RACING:
        if not isolate(m, folio):
            return EAGAIN
        cached = folio.flags & HGM_FOLIO_CACHED
        refs = cache_refs(m, folio) if cached else 0
    for _ in range(1 if RACING else ATTEMPTS):    # more come to the same, if nobody else takes references
        race_lock(HGM_I_MMAP_LOCK, &m.state.files[folio.file], HGM_EXCLUSIVE_LOCK)
        rmap_walk(m, folio, NULL)
        race_unlock(HGM_I_MMAP_LOCK)
        cut(CHANGES, &folio.page._refcount)
        if not folio_answer(&m.config.options, folio).mapped and folio.page._refcount == refs + 1:
            break
        race_lock(HGM_I_MMAP_LOCK, &m.state.files[folio.file], HGM_SHARED_LOCK)
        rmap_walk(m, folio, folio)
        race_unlock(HGM_I_MMAP_LOCK)
    else:
        if RACING:
            folio.isolated = 0
            race_unlock(HGM_FOLIO_LOCK)
        folio_put(new, 1)
        folio_put(folio, 1)
        return EAGAIN
    new.flags = folio.flags
    new.page._refcount = refs
    if cached:
        m.state.files[folio.file].cache[folio.index] = folio_number(m, new) + 1
        folio.flags &= ~HGM_FOLIO_CACHED
    race_lock(HGM_I_MMAP_LOCK, &m.state.files[folio.file], HGM_SHARED_LOCK)
    rmap_walk(m, folio, new)
    race_unlock(HGM_I_MMAP_LOCK)
    if RACING:
        folio.isolated = 0
        race_unlock(HGM_FOLIO_LOCK)
    folio_put(folio, refs + 1)
    return 0

cdef inline Outcome migrate(Machine *m, const hgm_operation *op) noexcept nogil:
    """Each huge page met in the range, once. A shared one is skipped unless `all`; EFAULT: the range has a gap."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef uint64_t at = r.start, end = r.end, ignored = 0, done = 0
    cdef uint32_t i
    cdef int error = 0, failed
    cdef HugePage h
    race_lock(HGM_MMAP_LOCK, &m.state.processes[v.process], HGM_SHARED_LOCK)
    cut(READS, &v.nr_vmas)
    if r.error:
        return outcome(0, r.error)
    i = vma_search(v, at)
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start > at:
            return outcome(0, EFAULT)
        at = v.vmas[i].end
        i += 1
    at = op.offset
    while at < end:
        h = huge_page(m, v, at, False)
        if h.entry is not NULL:
            cut(READS, h.entry)
        if h.entry is not NULL and is_leaf(h.entry[0]):
            h.folio = folio_of(m, h.entry[0] >> HGM_PTE_FRAME_SHIFT)
        if (h.entry is not NULL and h.folio is not NULL and find_leaf(m, &h, &ignored)
                and not h.folio.flags & HGM_FOLIO_POISONED
                and (op.flags & HGM_OPF_ALL or movable(m, &h))):
            failed = unmap_and_move_huge_page(m, h.folio)
            if failed:
                error = failed
            else:
                done += page_mask(h.file) + 1
        at = h.start + page_mask(h.file) + 1
    return outcome(done, error)

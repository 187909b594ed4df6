# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""MADV_COLLAPSE in an HGM mapping: tables that hold leaves become one larger leaf."""
from hgmcore.machine cimport Vma
from hgmcore.operations.common cimport *
from hgmcore.operations.uffd_continue cimport continue_level
from hgmcore.operations.zap cimport leaf_like, zap_table
from hgmcore.vma cimport vma_search

cdef inline void collapse_table(Machine *m, HugePage *h, uint64_t *entry, int level, uint64_t offset) noexcept nogil:
    """Replace the table of `entry`, which holds a leaf, by one leaf of `level` for `offset`.

    One replacement: the scheme is told of each leaf, but neither of a last nor of a first one. The number of
    present children of the table that holds `entry` does not change.
    """
    cdef hgm_leaf leaf = leaf_like(m, h, HGM_BY_COLLAPSE)
    cdef hgm_subtree s = subtree_of(m, h, HGM_BY_COLLAPSE)
    cdef uint64_t size = <uint64_t>1 << m.geometry.level_shift[level]
    cdef uint64_t address = h.mapping.address + offset
    leaf.first = (offset - h.start) >> m.geometry.base_shift
    s.covers = level == h.file.level
    s.removed = zap_table(m, table_number(entry[0]), level - 1, address, address + size, &leaf, leaf.first)
    if level == h.file.level:
        hgm_table_free(&m.cost, &m.options, &s)
    subtree_free(m, entry, level)
    leaf.nr_pages = size >> m.geometry.base_shift
    leaf.whole = level == h.file.level
    entry[0] = leaf_entry(h.folio.pfn + leaf.first)
    m.cost.leaf_installs += 1
    hgm_leaf_install(&m.cost, &m.options, &leaf)

cdef inline Outcome collapse_vma(Machine *m, Mapping *v, uint64_t start, uint64_t end) noexcept nogil:
    """Targets from `start` on: the largest leaf that is aligned and ends by `end`."""
    cdef HugePage h
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef uint64_t ignored, at = start
    cdef int level, target
    while at < end:
        h = huge_page(m, v, at, False)
        target = continue_level(m, &h, at, end - at, True)
        if h.entry is not NULL:
            level = h.file.level
            entry = descend(m, h.entry, v.address + at, &level, target, path)
            if level > target and is_leaf(entry[0]):
                return outcome(at - start, EEXIST)
            if level == target and is_table(entry[0]) and subtree_find_leaf(m, entry[0], &ignored):
                collapse_table(m, &h, entry, level, at)
        at += <uint64_t>1 << m.geometry.level_shift[target]
    return outcome(at - start, 0)

cdef inline Outcome collapse(Machine *m, const hgm_operation *op) noexcept nogil:
    cdef Mapping *v = &m.mappings[op.target]
    cdef uint64_t base = base_mask(m), start = op.offset, end, at, stop
    cdef uint32_t i, first
    cdef Outcome o = outcome(0, 0)
    if process_exited(m, v):
        return outcome(0, ESRCH)
    end = start + ((op.length + base) & ~base)
    if NEEDS & WHOLE_ONLY or start & base or end < start or op.length + base < op.length:
        return outcome(0, EINVAL)
    first = i = vma_search(v, start)
    at = start
    while at < end:
        if i == v.nr_vmas or v.vmas[i].start > at:
            return outcome(0, EINVAL)
        at = v.vmas[i].end
        i += 1
    at = start
    i = first
    while at < end and o.error == 0:
        stop = min(end, v.vmas[i].end)
        o = outcome(stop - at, 0)
        if v.vmas[i].flags & HGM_OPF_HGM:
            o = collapse_vma(m, v, at, stop)
        at += o.done
        i += 1
    return outcome(at - start, o.error)

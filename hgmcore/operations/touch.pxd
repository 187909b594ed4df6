# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""An access, and the page fault that it takes where nothing maps its address."""
from hgmcore.folio cimport page_cache_alloc
from hgmcore.machine cimport Vma
from hgmcore.operations.common cimport *
from hgmcore.vma cimport vma_find

cdef inline Outcome touch(Machine *m, const hgm_operation *op) noexcept nogil:
    """Fault as HGM v2 does: a leaf of the size of the deepest entry that is there; no table is made."""
    cdef Mapping *v = &m.mappings[op.target]
    cdef Vma *vma
    cdef HugePage h
    cdef uint32_t path[MAX_LEVELS]
    cdef uint64_t *entry
    cdef uint64_t offset
    cdef int level
    cdef Outcome done = outcome(base_mask(m) + 1, 0)
    if process_exited(m, v):
        return outcome(0, ESRCH)
    vma = vma_find(v, op.offset)
    if vma is NULL:
        return outcome(0, EFAULT)
    h = huge_page(m, v, op.offset, True)
    if h.entry is NULL:
        return outcome(0, ENOMEM)
    level = h.file.level
    entry = descend(m, h.entry, v.address + op.offset, &level, 1, path)
    if entry[0] != 0:
        return done
    if h.folio is NULL:
        h.folio = page_cache_alloc(m, v.file, (v.file_offset + h.start) >> h.file.page_shift)
        if h.folio is NULL:
            return outcome(0, ENOMEM)
    elif vma.flags & HGM_OPF_MINOR:
        look_up_and_put(m, &m.cost, h.folio)
        done.done = 0
        done.event = HGM_EVENT_MINOR
        return done
    offset = op.offset & ~((<uint64_t>1 << m.geometry.level_shift[level]) - 1)
    install_at(m, &h, entry, level, offset, path, HGM_BY_FAULT, level == h.file.level)
    return done

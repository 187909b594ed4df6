# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""mremap of shmem and anonymous memory: in place, elsewhere with all, or a part to a new mapping."""
from libc.errno cimport EEXIST, EFAULT, EINVAL, ENOMEM, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_of
from hgmcore.core.machine cimport ANON, Machine, Mapping, Process, Vma
from hgmcore.core.table cimport is_leaf, is_table, subtree_table_alloc
from hgmcore.core.vma cimport vma_delete, vma_find, vma_search, vma_split
from hgmcore.operations.addresses cimport get_unmapped_area, mmap_region, range_used, task_size, to_refused
from hgmcore.operations.common cimport base_mask, Outcome, outcome, process_exited, Range, range_of, round_up
from hgmcore.operations.thp.pmd cimport (
    asks_pieces, frame, install_ptes, mm_find_pmd, pgtable_trans_huge_deposit, pgtable_trans_huge_withdraw, Pmd,
    pmd_mask, pte_offset
)
from hgmcore.operations.thp.zap cimport do_munmap, free_pgtables, split_huge_pmd, zap_pte_range

cdef inline void move_ptes(Machine *m, Pmd *source, Pmd *target, uint64_t start, uint64_t end,
                           uint64_t to) noexcept nogil:
    """Move the PTEs for addresses [start, end) to `to`; both PMD entries are tables, and other PTEs stay.

    No mapping comes or goes. But a scheme that counts what is below one PMD entry as one sees a new one begin.
    """
    cdef uint64_t *old = pte_offset(m, source, start)
    cdef uint64_t *new = pte_offset(m, target, to)
    cdef uint64_t i, n = (end - start) >> m.config.geometry.base_shift
    cdef hgm_folio *folio
    for i in range(n):
        if is_leaf(old[i]) and asks_pieces():
            folio = folio_of(m, frame(old[i]))
            install_ptes(m, target, &new[i], folio, frame(old[i]) - folio.pfn, 1, old[i] & HGM_PTE_EXCLUSIVE,
                         HGM_BY_FAULT)
        else:
            new[i] = old[i]
            old[i] = 0
    if asks_pieces():
        zap_pte_range(m, source, start, end, HGM_BY_ZAP)

cdef inline uint64_t move_page_tables(Machine *m, Mapping *v, uint64_t start, uint64_t end, Mapping *w,
                                 uint64_t to) noexcept nogil:
    """Move what offsets [start, end) map to offset `to` of mapping `w`: by PMD entries, where both are aligned.

    Returns the offset that it came to: less than `end` if there was no memory.
    """
    cdef Pmd source, target
    cdef uint64_t at = start, stop, there
    while at < end:
        source = mm_find_pmd(m, v, at, False)
        there = w.address + to + at - start
        stop = at + min(min(end - at, source.address + pmd_mask(m) + 1 - v.address - at), pmd_mask(m) + 1
                        - (there & pmd_mask(m)))
        if source.entry is not NULL and source.entry[0] != 0:
            target = mm_find_pmd(m, w, to + at - start, True)
            if target.entry is NULL:
                return at
            if stop - at <= pmd_mask(m) and not is_table(source.entry[0]):
                split_huge_pmd(m, &source)
            if source.entry[0] == 0:
                pass
            elif stop - at > pmd_mask(m):
                if not is_table(source.entry[0]) and m.state.files[v.file].kind == ANON:
                    pgtable_trans_huge_deposit(m, &target, pgtable_trans_huge_withdraw(m, &source))
                target.entry[0] = source.entry[0]
                source.entry[0] = 0
            elif target.entry[0] == 0 and not subtree_table_alloc(m, target.entry):
                return at
            else:
                move_ptes(m, &source, &target, v.address + at, v.address + stop, there)
        at = stop
    return end

cdef inline uint64_t length_there(Machine *m, const hgm_operation *op) noexcept nogil:
    """Of an mremap to a new mapping: that one's length, rounded."""
    return round_up(m.state.mappings[op.arg].resized if op.flags & HGM_OPF_RESIZED else op.length, base_mask(m))

cdef inline int mremap_to_refused(Machine *m, const hgm_operation *op) noexcept nogil:
    """0 or an errno, before anything is done. A part of no length is a wish for another mapping of the same pages."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Mapping *w = &m.state.mappings[op.arg]
    cdef Range r = range_of(m, op, base_mask(m))
    cdef Vma *vma = vma_find(v, op.offset)
    cdef int error = to_refused(m, v, w, op, &r, length_there(m, op), base_mask(m))
    if error:
        return error
    if vma is not NULL and op.length == 0 and not vma.flags & HGM_OPF_SHARED:
        return EINVAL
    if vma is NULL or r.end > vma.end:
        return EFAULT
    return EEXIST if w.nr_vmas > 0 else 0

cdef inline Outcome mremap_to(Machine *m, const hgm_operation *op) noexcept nogil:
    """A part, rounded to base pages, moves to a new mapping; it keeps what userfaultfd does not own.

    Of two lengths, the part is first cut to the second, or has room behind it afterwards. With HGM_OPF_KEEP the VMA
    stays and maps nothing.
    """
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Mapping *w = &m.state.mappings[op.arg]
    cdef Vma *vma
    cdef uint64_t end = op.offset + round_up(op.length, base_mask(m)), length = length_there(m, op), moved
    cdef uint32_t flags
    cdef uint64_t anon_vma
    if op.offset + length < end:
        do_munmap(m, v, op.offset + length, end)
        end = op.offset + length
    vma = vma_find(v, op.offset)
    flags = vma.flags & ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)
    anon_vma = vma.anon_vma
    if not mmap_region(m, w, v.file, v.file_offset + op.offset, length, flags, op.flags & HGM_OPF_AT != 0):
        return outcome(0, ENOMEM)
    w.vmas[0].anon_vma = anon_vma
    moved = move_page_tables(m, v, op.offset, end, w, 0)
    if moved < end:    # move_vma(): back again, to tables that are still there
        move_page_tables(m, w, 0, moved - op.offset, v, op.offset)
        do_munmap(m, w, 0, length)
        return outcome(0, ENOMEM)
    if op.flags & HGM_OPF_KEEP and vma.start == op.offset and vma.end == end:    # dontunmap_complete()
        vma.anon_vma = 0
    if op.flags & HGM_OPF_KEEP or op.length == 0:
        return outcome(op.length, 0)
    if not vma_split(m, v, op.offset) or not vma_split(m, v, end):
        return outcome(0, ENOMEM)
    vma_delete(v, vma_search(v, op.offset))
    free_pgtables(m, v, op.offset, end)
    return outcome(op.length, 0)

cdef inline Outcome move_vma(Machine *m, Mapping *v, uint64_t length) noexcept nogil:
    """The whole mapping, one VMA, moves to where it has room to grow. ENOMEM: nowhere."""
    cdef uint64_t there, back, moved, old = v.length
    if not get_unmapped_area(m, v.process, v.file, v.file_offset, length, &there):
        return outcome(0, ENOMEM)
    there -= v.address
    back = 0 - there
    moved = move_page_tables(m, v, 0, old, v, there)
    if moved < old:
        move_page_tables(m, v, there, there + moved, v, 0)
        free_pgtables(m, v, there, there + length)
        return outcome(0, ENOMEM)
    v.address += there
    v.length = v.vmas[0].end = length
    v.vmas[0].flags &= ~<uint32_t>(HGM_OPF_MINOR | HGM_OPF_WP)
    free_pgtables(m, v, back, back + old)
    return outcome(length, 0)

cdef inline bint vma_expandable(Machine *m, const Mapping *v, uint64_t length) noexcept nogil:
    """Are the addresses up to `length` free of other mappings?"""
    return length <= task_size(m) - v.address and not range_used(m, v.process, v.address + v.length,
                                                                v.address + length - 1)

cdef inline Outcome mremap_in_place(Machine *m, const hgm_operation *op) noexcept nogil:
    """Shrink, or grow where room is, or (MREMAP_MAYMOVE) move there. EFAULT: its first page, or to grow any page, is
    gone. ENOMEM: no room."""
    cdef Mapping *v = &m.state.mappings[op.target]
    cdef Process *p = &m.state.processes[v.process]
    cdef uint64_t length = round_up(op.length, base_mask(m))
    cdef Outcome moved
    if process_exited(m, v):
        return outcome(0, ESRCH)
    if op.length == 0 or length < op.length:
        return outcome(0, EINVAL)
    if v.nr_vmas == 0 or v.vmas[0].start > 0:
        return outcome(0, EFAULT)
    if length < v.length:
        do_munmap(m, v, length, v.length)
    elif length > v.length:
        if v.vmas[0].end < v.length:
            return outcome(0, EFAULT)
        if not vma_expandable(m, v, length):
            if not op.flags & HGM_OPF_KEEP:
                return outcome(0, ENOMEM)
            moved = move_vma(m, v, length)
            moved.done = min(moved.done, op.length)
            return moved
        v.vmas[0].end = length
        if not p.placed:
            p.next_address = max(p.next_address, v.address + length)
    v.length = length
    return outcome(op.length, 0)

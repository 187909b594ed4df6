# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""fork and exit, which are about the mappings of both families.

fork: a child with the parent's mappings; page tables are copied only where the child could not fault them in.
"""
from libc.errno cimport EFAULT, ENOMEM, ESRCH
from libc.stdint cimport INT32_MAX
from hgmcore.hgm cimport *
from hgmcore.core.folio cimport folio_of
from hgmcore.core.lock cimport table_lock
from hgmcore.core.machine cimport ALONE, HUGETLB, Machine, Mapping, MAX_LEVELS, NO_TABLE, Process, Vma, VMA_FORKED
from hgmcore.core.table cimport (
    is_leaf, is_table, number_of_table, PTE, table_alloc, table_desc, table_entries, table_number, upper_tables_free
)
from hgmcore.core.vma cimport vma_insert
from hgmcore.operations.addresses cimport mapping_set
from hgmcore.operations.common cimport Outcome, outcome, page_mask
from hgmcore.operations.hugetlb.address_space cimport do_munmap as hugetlb_munmap
from hgmcore.operations.hugetlb.huge_page cimport (
    counted, entry_for, huge_page, huge_page_none, HugePage, install_at, mapped_folio, tables_alloc
)
from hgmcore.operations.hugetlb.loops cimport base_page_leaf, fork_run, keep_flags, table_gets
from hgmcore.operations.thp.anon cimport copy_page_range
from hgmcore.operations.thp.zap cimport do_munmap as thp_munmap
from hgmcore.scheme cimport *

cdef inline int copy_refused(Machine *m, const hgm_folio *folio) noexcept nogil:
    """The overflow check of a copied leaf (try_get_page): 0 or an errno. HGM v2 had its sense inverted."""
    cdef int32_t references = folio.page._refcount
    if m.config.options.overflow_check == HGM_CHECK_AFTER and QUIRKS & QUIRK_FORK_CHECK_INVERTED:
        return EFAULT if references > 0 else 0
    if m.config.options.overflow_check in (HGM_CHECK_AFTER, HGM_CHECK_TRY) and references <= 0:
        return EFAULT
    if m.config.options.overflow_check == HGM_CHECK_HALF and references > INT32_MAX // 2:
        return ENOMEM
    return 0

cdef inline int copy_leaves(Machine *m, HugePage *child, uint64_t offset, int size, uint64_t n) noexcept nogil:
    """Install leaf number `size` for `offset` in the child, or (batch) `n` adjacent base pages. 0 or an errno."""
    cdef uint32_t path[MAX_LEVELS]
    cdef int level = child.file.level, error = copy_refused(m, child.folio)
    cdef bint hstate_none = huge_page_none(child)
    cdef uint64_t *entry = entry_for(m, child, offset)
    if error:
        return error
    if not tables_alloc(m, child, &entry, child.mapping.address + offset, &level, m.config.geometry.leaf_level[size],
                        path,
                        HGM_BY_FORK):
        return ENOMEM
    install_at(m, child, entry, size, offset, n, path, HGM_BY_FORK, hstate_none)
    return 0

cdef inline void copy_at_once(Machine *m, HugePage *child, uint64_t first, uint64_t n) noexcept nogil:
    """Tell the scheme of `n` adjacent base-page leaves at once; the subtree has one already."""
    cdef hgm_folio folio = child.folio[0]
    cdef hgm_leaf leaf = base_page_leaf(m, child, &folio, HGM_BY_FORK)
    cdef hgm_options options = m.config.options
    cdef hgm_cost cost = hgm_no_cost()
    leaf.first = first
    leaf.count = <uint32_t>n
    hgm_leaf_install(&cost, &options, &leaf)
    cost.leaf_installs = n
    keep_flags(child.folio, &folio)
    hgm_cost_add(&m.context.cost, &cost)

cdef inline int copy_run(Machine *m, HugePage *child, const uint64_t *entries, uint64_t offset,
                         uint64_t *n) noexcept nogil:
    """Install what the first of `*n` entries of one table have for leaves of base pages, one by one or (batch) at once.

    The first is one. `*n` becomes how many there were.
    """
    cdef uint32_t path[MAX_LEVELS]
    cdef int level = child.file.level
    cdef bint batch = m.config.options.batch
    cdef uint64_t *entry = child.entry
    cdef uint64_t first = (offset - child.start) >> m.config.geometry.base_shift
    # the long way, where one may be the subtree's first, or is to be told of more than here
    if (RACING or child.file.entries > 1 or not child.leaf_known or m.config.options.overflow_check != HGM_CHECK_NONE
            or batch and (m.context.exclusion != ALONE or not counted(child))):
        n[0] = hgm_leaf_run(entries, n[0]) if batch and m.config.options.overflow_check == HGM_CHECK_NONE else 1
        return copy_leaves(m, child, offset, 0, n[0])
    if not tables_alloc(m, child, &entry, child.mapping.address + offset, &level, 1, path, HGM_BY_FORK):
        return ENOMEM
    n[0] = hgm_copy_run(entry, entries, n[0], m.config.geometry.group[1] > 1)
    if batch:
        table_gets(m, child, path, n[0])
        copy_at_once(m, child, first, n[0])
    else:
        fork_run(m, child, entry, n[0], first, path)
    return 0

cdef inline void leaf_locked(Machine *m, HugePage *child, const uint64_t *entry) noexcept nogil:
    """In a race: lock the table of a source entry that is a leaf, and look again."""
    cut(READS, entry)
    if is_leaf(entry[0]):
        table_lock(table_desc(m, number_of_table(m, entry)), ALONE)
        cut(READS, entry)
        if is_leaf(entry[0]):
            child.folio = folio_of(m, entry[0] >> HGM_PTE_FRAME_SHIFT)

cdef inline int copy_entries(Machine *m, HugePage *child, const uint64_t *entries, int level, uint64_t n,
                             uint64_t offset) noexcept nogil:
    """Copy the leaves at and below `n` source entries of `level`, the first of which stands for `offset`."""
    cdef uint64_t i = 0, run, bytes = <uint64_t>1 << m.config.geometry.level_shift[level]
    cdef int error = 0, size
    while i < n and error == 0:
        if RACING:
            leaf_locked(m, child, &entries[i])
        if is_table(entries[i]):
            error = copy_entries(m, child, table_entries(m, table_number(entries[i])), level - 1,
                                 <uint64_t>1 << m.config.geometry.index_bits, offset + i * bytes)
        elif is_leaf(entries[i]) and entries[i] & HGM_PTE_GROUP:
            size = m.config.geometry.entry_leaf[level] + 1
            error = copy_leaves(m, child, offset + i * bytes, size, 1)
            i += m.config.geometry.leaf_entries[size] - 1
        elif is_leaf(entries[i]) and level == PTE:
            run = n - i
            error = copy_run(m, child, &entries[i], offset + i * bytes, &run)
            i += run - 1
        elif is_leaf(entries[i]):
            error = copy_leaves(m, child, offset + i * bytes, m.config.geometry.entry_leaf[level], 1)
        race_unlock(HGM_PT_LOCK)
        i += 1
    return error

cdef inline int copy_hugetlb_page_range(Machine *m, Mapping *v, const Vma *vma, Mapping *w) noexcept nogil:
    """Copy what a VMA of the parent's mapping `v` maps to the child's `w`. 0 or an errno."""
    cdef HugePage parent, child
    cdef uint64_t at = vma.start
    cdef int error
    while at < vma.end:
        parent = huge_page(m, v, at, False)
        if parent.entry is not NULL:    # upper tables as the parent has them
            child = huge_page(m, w, at, True)
            if child.entry is NULL:
                return ENOMEM
        if parent.entry is not NULL and not huge_page_none(&parent):
            if is_leaf(parent.entry[0]):
                child.folio = mapped_folio(m, &parent)
            error = copy_entries(m, &child, parent.entry, parent.file.level, parent.file.entries, at)
            if error:
                return error
        at += page_mask(parent.file) + 1
    return 0

cdef inline int dup_vmas(Machine *m, Mapping *v, Mapping *w) noexcept nogil:
    """Give the child's mapping `w` the VMAs of `v`, and their page tables where fork copies them: of private VMAs that
    had pages of their own, and of those with write protection (vma_needs_copy). 0 or an errno."""
    cdef uint32_t i, flags
    cdef int error
    cut(READS, &v.nr_vmas)
    race_lock(HGM_VMA_LOCK, v, HGM_SHARED_LOCK)
    mapping_set(w, v.file, v.file_offset, v.address, v.length)
    for i in range(v.nr_vmas):
        flags = v.vmas[i].flags
        if not flags & HGM_OPF_WP:    # userfaultfd follows into the child only with the fork event
            flags &= ~<uint32_t>HGM_OPF_MINOR
        if v.vmas[i].anon_vma:
            flags |= VMA_FORKED
        if not vma_insert(m, w, i, v.vmas[i].start, v.vmas[i].end, flags):
            return ENOMEM
        if v.vmas[i].anon_vma:    # a new one
            w.vmas[i].anon_vma = 1 + (v.vmas[i].start >> m.config.geometry.base_shift)
        if flags & HGM_OPF_WP or not flags & HGM_OPF_SHARED:
            if m.state.files[v.file].kind == HUGETLB:
                error = 0
                if flags & HGM_OPF_WP or v.vmas[i].anon_vma:
                    error = copy_hugetlb_page_range(m, v, &v.vmas[i], w)
            else:
                error = copy_page_range(m, v, &v.vmas[i], w)
            if error:
                return error
    return 0

cdef inline void unmap_all(Machine *m, Mapping *v) noexcept nogil:
    if m.state.files[v.file].kind == HUGETLB:
        hugetlb_munmap(m, v, 0, v.length)
    else:
        thp_munmap(m, v, 0, v.length)

cdef inline Outcome exit_mmap(Machine *m, const hgm_operation *op) noexcept nogil:
    """The end of a process: its mappings go, then its upper tables."""
    cdef Process *p = &m.state.processes[op.target]
    cdef uint32_t next = p.first_mapping
    race_lock(HGM_MMAP_LOCK, p, HGM_EXCLUSIVE_LOCK)
    if p.exited:
        return outcome(0, ESRCH)
    while next:
        unmap_all(m, &m.state.mappings[next - 1])
        next = m.state.mappings[next - 1].next
    cut(WRITES, &p.root)
    if p.root != NO_TABLE:
        upper_tables_free(m, p.root, m.config.geometry.levels)
        p.root = NO_TABLE
    p.exited = True
    return outcome(0, 0)

cdef inline Outcome fork(Machine *m, const hgm_operation *op) noexcept nogil:
    """The child has the parent's mappings under their names. If copying fails there is no child."""
    cdef Process *parent = &m.state.processes[op.target]
    cdef Process *child = &m.state.processes[op.arg]
    cdef uint32_t v = parent.first_mapping, w = child.first_mapping
    cdef int error = 0
    race_lock(HGM_MMAP_LOCK, parent, HGM_EXCLUSIVE_LOCK)
    if parent.exited or child.exited:
        child.exited = True
        return outcome(0, ESRCH)
    child.next_address = parent.next_address
    child.placed = parent.placed
    if parent.root != NO_TABLE and child.root == NO_TABLE:
        child.root = table_alloc(m)
        if child.root == NO_TABLE:
            return outcome(0, ENOMEM)
    while v and w and error == 0:
        if m.state.mappings[v - 1].name == m.state.mappings[w - 1].name:
            error = dup_vmas(m, &m.state.mappings[v - 1], &m.state.mappings[w - 1])
            w = m.state.mappings[w - 1].next
        v = m.state.mappings[v - 1].next
    if error:
        w = child.first_mapping
        while w:
            unmap_all(m, &m.state.mappings[w - 1])
            w = m.state.mappings[w - 1].next
        child.exited = True
    return outcome(0, error)

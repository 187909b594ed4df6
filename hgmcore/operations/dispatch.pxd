# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The table of operations: one row for each HGM_OP_*, and the loop that runs records by it.

The functions of a row are called once for each record. Streaks of records on hugetlb take no such call (streaks.pxd).
"""
from libc.errno cimport EINVAL, ESRCH
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport HUGETLB, Machine, Touched
from hgmcore.core.reclaim cimport frames_reclaim
from hgmcore.operations.common cimport base_mask, Outcome, outcome, process_exited, record
from hgmcore.operations.fork cimport exit_mmap, fork
cimport hgmcore.operations.hugetlb.address_space as hugetlb
cimport hgmcore.operations.hugetlb.advise as advise
cimport hgmcore.operations.hugetlb.file as hugetlbfs
from hgmcore.operations.hugetlb.hwpoison cimport hwpoison
from hgmcore.operations.hugetlb.migrate cimport migrate
from hgmcore.operations.hugetlb.streaks cimport streaks
from hgmcore.operations.mremap cimport mremap
cimport hgmcore.operations.thp.address_space as thp
cimport hgmcore.operations.thp.collapse as khugepaged
cimport hgmcore.operations.thp.shmem_fault as shmem_fault
cimport hgmcore.operations.thp.shmem_file as shmem
from hgmcore.scheme cimport STOPPED

# The file that tells which family an operation belongs to.
cdef enum About:
    NO_FILE              # the hugetlb column has what serves both
    TARGET_FILE
    ARG_FILE
    TARGET_MAPPING       # the file that the mapping maps

# What a record asks to be done, in bytes (a pin: references).
cdef enum Asked:
    LENGTH
    HUGE_PAGES           # `length` counts huge pages
    BASE_PAGE

ctypedef Outcome (*operation_function)(Machine *m, const hgm_operation *op) noexcept nogil

cdef struct Row:
    About about
    Asked asked
    operation_function hugetlb       # NULL: streaks()
    operation_function thp           # shmem and anonymous memory

cdef inline Outcome nothing(Machine *m, const hgm_operation *op) noexcept nogil:
    """A record that is no operation of a machine."""
    return outcome(op.length, 0)

cdef inline Outcome unsupported(Machine *m, const hgm_operation *op) noexcept nogil:
    """EINVAL: the kernel refuses it on this kind of memory (only HGM has MADV_SPLIT), or it is not modelled."""
    return outcome(0, ESRCH if process_exited(m, &m.state.mappings[op.target]) else EINVAL)

cdef inline Row row(About about, Asked asked, operation_function by_hugetlb, operation_function by_thp) noexcept nogil:
    cdef Row r
    r.about = about
    r.asked = asked
    r.hugetlb = by_hugetlb
    r.thp = by_thp
    return r

cdef inline Row row_of(int op) noexcept nogil:
    """The table."""
    if op == HGM_OP_POPULATE:
        return row(TARGET_FILE, HUGE_PAGES, hugetlbfs.populate, shmem_fault.populate)
    if op == HGM_OP_MMAP:
        return row(ARG_FILE, LENGTH, hugetlb.mmap, thp.mmap)
    if op == HGM_OP_REGISTER or op == HGM_OP_UNREGISTER:
        return row(TARGET_MAPPING, LENGTH, advise.userfaultfd_register, thp.userfaultfd_register)
    if op == HGM_OP_SPLIT:
        return row(TARGET_MAPPING, LENGTH, advise.madvise_split, unsupported)
    if op == HGM_OP_CONTINUE:
        return row(TARGET_MAPPING, LENGTH, NULL, shmem_fault.mfill_atomic)
    if op == HGM_OP_TOUCH:
        return row(TARGET_MAPPING, BASE_PAGE, NULL, thp.touch)
    if op == HGM_OP_DONTNEED:
        return row(TARGET_MAPPING, LENGTH, NULL, thp.dontneed)
    if op == HGM_OP_COLLAPSE:
        return row(TARGET_MAPPING, LENGTH, NULL, khugepaged.collapse)
    if op == HGM_OP_MUNMAP:
        return row(TARGET_MAPPING, LENGTH, hugetlb.munmap, thp.munmap)
    if op == HGM_OP_MPROTECT:
        return row(TARGET_MAPPING, LENGTH, hugetlb.mprotect, thp.mprotect)
    if op == HGM_OP_MREMAP:
        return row(TARGET_MAPPING, LENGTH, mremap, mremap)
    if op == HGM_OP_FORK:
        return row(NO_FILE, LENGTH, fork, fork)
    if op == HGM_OP_EXIT:
        return row(NO_FILE, LENGTH, exit_mmap, exit_mmap)
    if op == HGM_OP_PUNCH:
        return row(TARGET_FILE, LENGTH, hugetlbfs.punch_hole, shmem.punch_hole)
    if op == HGM_OP_TRUNCATE:
        return row(TARGET_FILE, LENGTH, hugetlbfs.truncate, shmem.truncate)
    if op == HGM_OP_MIGRATE:
        return row(TARGET_MAPPING, LENGTH, migrate, unsupported)
    if op == HGM_OP_HWPOISON:
        return row(TARGET_MAPPING, BASE_PAGE, hwpoison, unsupported)
    if op == HGM_OP_PIN:
        return row(TARGET_FILE, LENGTH, hugetlbfs.pin, shmem.pin)
    if op == HGM_OP_UNPIN:
        return row(TARGET_FILE, LENGTH, hugetlbfs.unpin, shmem.unpin)
    return row(NO_FILE, LENGTH, nothing, nothing)    # file, fail, observe, phase

cdef inline bint on_hugetlb(Machine *m, const hgm_operation *op, About about) noexcept nogil:
    if about == NO_FILE:
        return True
    if about == TARGET_MAPPING:
        return m.state.files[m.state.mappings[op.target].file].kind == HUGETLB
    return m.state.files[op.target if about == TARGET_FILE else op.arg].kind == HUGETLB

cdef inline uint64_t bytes_asked(Machine *m, const hgm_operation *op, Asked asked) noexcept nogil:
    if asked == HUGE_PAGES:
        return op.length << m.state.files[op.target].page_shift
    return base_mask(m) + 1 if asked == BASE_PAGE else op.length

cdef inline void asked(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t *out) noexcept nogil:
    """The bytes (of a pin: references) that each of `n` records asks to be done."""
    cdef uint64_t i
    for i in range(n):
        out[i] = bytes_asked(m, &ops[i], row_of(ops[i].op).asked)

cdef inline void end_of_failure(Machine *m, uint64_t seen) noexcept nogil:
    """The operation that a `fail` was for is over, and `seen` results were there before.

    If it made fewer allocations, the `fail` has a result that says so, before that of the operation.
    """
    cdef Outcome unused
    cdef hgm_result *last
    cdef hgm_result swapped
    if m.context.fail and m.context.fail_at:
        unused = outcome(0, 0)
        unused.event = HGM_EVENT_NEVER_FIRED
        record(m, m.context.fail_at - 1, &unused)
        if m.context.nr_results > seen + 1:
            last = &(<hgm_result *>m.context.results.base)[m.context.nr_results - 1]
            swapped = last[0]
            last[0] = (last - 1)[0]
            (last - 1)[0] = swapped
    m.context.fail = m.context.fail_at = 0

cdef inline uint64_t run(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """Execute `n` records, of which the first has number `index` in its trace.

    Returns how many were executed: fewer only if the host ran out of memory, or the scheme failed in the last of them.
    Results are kept in the machine.
    """
    cdef uint64_t i = 0, seen, streak
    cdef const hgm_operation *op
    cdef Touched *touched = m.context.touched
    cdef Row r
    cdef bint by_hugetlb
    cdef Outcome o
    while i < n and not m.context.out_of_memory and not STOPPED:
        op = &ops[i]
        if op.op == HGM_OP_FAIL:    # for the next operation alone
            end_of_failure(m, m.context.nr_results)
            m.context.fail = op.offset
            m.context.fail_at = index + i + 1
            i += 1
            continue
        if op.op == HGM_OP_OBSERVE or op.op == HGM_OP_PHASE or op.op == HGM_OP_FILE:    # no operation of a machine
            i += 1
            continue
        if m.context.frames_low and m.context.owner is m:
            frames_reclaim(m)
        seen = m.context.nr_results
        r = row_of(op.op)
        by_hugetlb = on_hugetlb(m, op, r.about)
        if by_hugetlb and r.hugetlb is NULL:
            streak = streaks(m, op, 1 if m.context.fail else n - i, index + i)
            if touched is not NULL:
                touched.mark(m, op, streak)
            i += streak
            end_of_failure(m, seen)
            continue
        if touched is not NULL:    # where the mappings are before it, and where they are behind it
            touched.mark(m, op, 1)
        o = r.hugetlb(m, op) if by_hugetlb else r.thp(m, op)
        if touched is not NULL:
            touched.mark(m, op, 1)
        if o.error or o.event or o.done < bytes_asked(m, op, r.asked) or (
                op.op == HGM_OP_MIGRATE and o.done > op.length):
            record(m, index + i, &o)
        end_of_failure(m, seen)
        i += 1
    return i

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The interpreter: operation records to primitives to one scheme's reactions.

Inline functions only. A scheme's .pyx cimports `instantiate`; the C compiler then sees the whole engine and the
scheme's functions in one file and inlines these where they are called. So there is one engine for each scheme
and no call, branch or pointer between them; the pointers of an Engine are followed once for each run of records.
"""
from hgmcore.hgm cimport *
from hgmcore.core.machine cimport Engine, HUGETLB, Machine, checked_exceptions
from hgmcore.operations.address_space cimport exit_process, mmap_file, mprotect, mremap, munmap
from hgmcore.operations.advise cimport register, split
from hgmcore.operations.common cimport Outcome, folio_answer, outcome, record
from hgmcore.operations.file cimport pin, populate, punch, truncate, unpin
from hgmcore.operations.fork cimport fork
from hgmcore.operations.hwpoison cimport hwpoison
from hgmcore.operations.migrate cimport migrate
from hgmcore.operations.shmem_file cimport file_operation
from hgmcore.operations.streaks cimport streaks
from hgmcore.operations.thp_space cimport memory_operation, mmap_memory, shmem_continue
from hgmcore.scheme cimport *

cdef inline uint64_t asked(Machine *m, const hgm_operation *op) noexcept nogil:
    """The bytes (of a pin: references) that an operation is asked to do."""
    if op.op == HGM_OP_POPULATE:
        return op.length << m.state.files[op.target].page_shift
    if op.op == HGM_OP_TOUCH or op.op == HGM_OP_HWPOISON:
        return <uint64_t>1 << m.config.geometry.base_shift
    return op.length

cdef inline bint on_hugetlb(Machine *m, const hgm_operation *op) noexcept nogil:
    """Is the operation's file or mapping one of hugetlb, or has it neither?"""
    if op.op in (HGM_OP_POPULATE, HGM_OP_PUNCH, HGM_OP_TRUNCATE, HGM_OP_PIN, HGM_OP_UNPIN):
        return m.state.files[op.target].kind == HUGETLB
    if op.op == HGM_OP_MMAP:
        return m.state.files[op.arg].kind == HUGETLB
    if op.op in (HGM_OP_FILE, HGM_OP_FORK, HGM_OP_EXIT, HGM_OP_FAIL, HGM_OP_OBSERVE, HGM_OP_PHASE):
        return True
    return m.state.files[m.state.mappings[op.target].file].kind == HUGETLB

cdef inline Outcome execute_memory(Machine *m, const hgm_operation *op) noexcept nogil:
    """One operation on shmem or anonymous memory."""
    if op.op in (HGM_OP_POPULATE, HGM_OP_PUNCH, HGM_OP_TRUNCATE, HGM_OP_PIN, HGM_OP_UNPIN):
        return file_operation(m, op)
    if op.op == HGM_OP_MMAP:
        return mmap_memory(m, op)
    if op.op == HGM_OP_CONTINUE:
        return shmem_continue(m, op)
    return memory_operation(m, op)

cdef inline Outcome execute(Machine *m, const hgm_operation *op) noexcept nogil:
    """One operation on hugetlb, but for those of streaks, or on processes."""
    if op.op == HGM_OP_MMAP:
        return mmap_file(m, op)
    if op.op == HGM_OP_MUNMAP:
        return munmap(m, op)
    if op.op == HGM_OP_MPROTECT:
        return mprotect(m, op)
    if op.op == HGM_OP_MREMAP:
        return mremap(m, op)
    if op.op == HGM_OP_FORK:
        return fork(m, op)
    if op.op == HGM_OP_EXIT:
        return exit_process(m, op)
    if op.op == HGM_OP_POPULATE:
        return populate(m, op)
    if op.op == HGM_OP_PUNCH:
        return punch(m, op)
    if op.op == HGM_OP_TRUNCATE:
        return truncate(m, op)
    if op.op == HGM_OP_MIGRATE:
        return migrate(m, op)
    if op.op == HGM_OP_HWPOISON:
        return hwpoison(m, op)
    if op.op == HGM_OP_PIN:
        return pin(m, op)
    if op.op == HGM_OP_UNPIN:
        return unpin(m, op)
    if op.op == HGM_OP_SPLIT:
        return split(m, op)
    if op.op == HGM_OP_REGISTER or op.op == HGM_OP_UNREGISTER:
        return register(m, op)
    return outcome(asked(m, op), 0)    # file, fail, observe and phase are no operation of a machine

cdef inline uint64_t run(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """Execute `n` records, of which the first has number `index` in its trace.

    Returns how many were executed: fewer only if the host ran out of memory. Results are kept in the machine.
    """
    cdef uint64_t i = 0
    cdef const hgm_operation *op
    cdef Outcome o
    while i < n and not m.context.out_of_memory:
        op = &ops[i]
        if op.op == HGM_OP_FAIL:    # for the next operation alone
            m.context.fail = op.offset
            i += 1
            continue
        if not on_hugetlb(m, op):
            o = execute_memory(m, op)
        elif op.op in (HGM_OP_CONTINUE, HGM_OP_TOUCH, HGM_OP_DONTNEED, HGM_OP_COLLAPSE):
            i += streaks(m, op, 1 if m.context.fail else n - i, index + i)
            m.context.fail = 0
            continue
        else:
            o = execute(m, op)
        m.context.fail = 0
        if o.error or o.event or o.done < asked(m, op) or (op.op == HGM_OP_MIGRATE and o.done > op.length):
            record(m, index + i, &o)
        i += 1
    return i

cdef inline uint64_t page_mapcount_runs(Machine *m, const hgm_folio *folio, long long *out) noexcept nogil:
    """page_mapcount() of a folio's base pages as runs (first, last, count) in `out`; returns their number.

    With `out` NULL only counts them.
    """
    cdef int64_t value, count = hgm_page_mapcount(&m.config.options, folio, 0)
    cdef uint64_t page, first = 0, n = 0
    if folio.nr_pages == 1:
        count = folio.page._mapcount
    for page in range(1, folio.nr_pages + 1):
        value = hgm_page_mapcount(&m.config.options, folio, page) if page < folio.nr_pages else count + 1
        if value != count:
            if out is not NULL:
                out[3 * n] = <long long>first
                out[3 * n + 1] = <long long>page
                out[3 * n + 2] = count
            n += 1
            first = page
            count = value
    return n

cdef inline void answer(const hgm_options *options, const hgm_folio *folio, hgm_answer *a) noexcept nogil:
    a[0] = folio_answer(options, folio)

cdef inline Engine instantiate(str name, str explanation, dict state, dict defaults, dict posted,
                               dict exceptions):
    """The engine of the scheme that this is compiled with.

    explanation: its documentation, first line the summary. state: the words that it keeps, by the name that
    reports use, as fields of hgm_page of page 1. defaults: options whose default differs from the general one;
    posted: those that model=posted selects besides. exceptions: what the scheme does not promise, by the name of the
    property (PROPERTIES): "definition", as the scheme means something else by it, or "fault", which its documentation
    describes. All other properties are promised.
    """
    cdef Engine engine = Engine.__new__(Engine)
    engine.abi = HGM_ABI
    engine.machine_size = sizeof(Machine)
    engine.run = run
    engine.page_mapcount_runs = page_mapcount_runs
    engine.answer = answer
    engine.name = name
    engine.explanation = explanation
    engine.state = state
    engine.defaults = defaults
    engine.posted = posted
    engine.exceptions = checked_exceptions(exceptions)
    engine.whole_only = QUIRKS & QUIRK_WHOLE_ONLY != 0
    engine.writes_tails = NEEDS & NEEDS_TAILS != 0
    engine.first_come = NEEDS & NEEDS_ORDER != 0
    return engine

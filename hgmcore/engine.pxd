# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The interpreter: operation records to primitives to one scheme's reactions.

Inline functions only. A scheme's .pyx cimports `instantiate`; the C compiler then sees the whole engine and the
scheme's functions in one file and inlines these where they are called. So there is one engine for each scheme
and no call, branch or pointer between them; the pointers of an Engine are followed once for each run of records.
"""
from hgmcore.hgm cimport *
from hgmcore.machine cimport Engine, Machine
from hgmcore.operations.address_space cimport exit_process, mmap_file, munmap, populate
from hgmcore.operations.advise cimport register, split
from hgmcore.operations.collapse cimport collapse
from hgmcore.operations.common cimport ENOMEM, Outcome, outcome, record
from hgmcore.operations.touch cimport touch
from hgmcore.operations.uffd_continue cimport uffd_continue
from hgmcore.operations.zap cimport dontneed
from hgmcore.scheme cimport *

cdef inline uint64_t asked(Machine *m, const hgm_operation *op) noexcept nogil:
    """The bytes that an operation is asked to do."""
    if op.op == HGM_OP_POPULATE:
        return op.length << m.files[op.target].page_shift
    if op.op == HGM_OP_TOUCH:
        return <uint64_t>1 << m.geometry.base_shift
    return op.length

cdef inline uint64_t run(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """Execute `n` records, of which the first has number `index` in its trace.

    Returns how many were executed: fewer only if the host ran out of memory. Results are kept in the machine.
    """
    cdef uint64_t i = 0
    cdef const hgm_operation *op
    cdef Outcome o
    while i < n and not m.out_of_memory:
        op = &ops[i]
        if op.op == HGM_OP_CONTINUE:
            i += uffd_continue(m, op, n - i, index + i)
            continue
        elif op.op == HGM_OP_TOUCH:
            o = touch(m, op)
        elif op.op == HGM_OP_DONTNEED:
            o = dontneed(m, op)
        elif op.op == HGM_OP_COLLAPSE:
            o = collapse(m, op)
        elif op.op == HGM_OP_MMAP:
            o = mmap_file(m, op)
        elif op.op == HGM_OP_MUNMAP:
            o = munmap(m, op)
        elif op.op == HGM_OP_POPULATE:
            o = populate(m, op)
        elif op.op == HGM_OP_SPLIT:
            o = split(m, op)
        elif op.op == HGM_OP_REGISTER or op.op == HGM_OP_UNREGISTER:
            o = register(m, op)
        elif op.op == HGM_OP_EXIT:
            o = exit_process(m, op)
        else:    # file and observe do nothing here
            o = outcome(asked(m, op), 0)
        if o.error or o.event or o.done < asked(m, op):
            record(m, index + i, &o)
        i += 1
    return i

cdef inline uint64_t page_mapcount_runs(Machine *m, const hgm_folio *folio, long long *out) noexcept nogil:
    """page_mapcount() of a folio's base pages as runs (first, last, count) in `out`; returns their number.

    With `out` NULL only counts them.
    """
    cdef int64_t value, count = hgm_page_mapcount(&m.options, folio, 0)
    cdef uint64_t page, first = 0, n = 0
    for page in range(1, folio.nr_pages + 1):
        value = hgm_page_mapcount(&m.options, folio, page) if page < folio.nr_pages else count + 1
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
    """The scheme's answers; it may leave those for which it has no rule of its own."""
    a.mapcount = 0
    a.nr_file_mapped = -1
    a.mapped = 0
    a.maybe_shared = -1
    hgm_answer_folio(options, folio, a)
    if a.maybe_shared < 0:
        a.maybe_shared = a.mapcount > 1

cdef inline Engine instantiate(str name, str explanation, dict state, dict defaults):
    """The engine of the scheme that this is compiled with.

    explanation: its documentation, first line the summary. state: the words that it keeps, by the name that
    reports use, as fields of hgm_page of page 1. defaults: options whose default differs from the general one.
    """
    cdef Engine engine = Engine.__new__(Engine)
    engine.run = run
    engine.page_mapcount_runs = page_mapcount_runs
    engine.answer = answer
    engine.name = name
    engine.explanation = explanation
    engine.state = state
    engine.defaults = defaults
    return engine

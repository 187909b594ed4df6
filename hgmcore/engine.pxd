# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The interpreter: operation records to primitives to one scheme's reactions.

Inline functions only. A scheme's .pyx cimports `instantiate`; the C compiler then sees the whole engine and the
scheme's functions in one file and inlines these where they are called. So there is one engine for each scheme
and no call, branch or pointer between them; the pointers of an Engine are followed once for each run of records.
"""
from hgmcore.hgm cimport *
from hgmcore.core.core cimport checked_exceptions, Engine
from hgmcore.core.machine cimport Machine
from hgmcore.operations.common cimport folio_answer, folio_movable
from hgmcore.operations.dispatch cimport asked, run
from hgmcore.scheme cimport *

cdef inline uint64_t page_mapcount_runs(Machine *m, const hgm_folio *folio, long long *out) noexcept nogil:
    """page_mapcount() of a folio's base pages as runs (first, last, count) in `out`; returns their number.

    With `out` NULL only counts them.
    """
    cdef int64_t value, count
    cdef uint64_t page, first = 0, n = 0
    if folio.nr_pages == 1:    # counted without the scheme, which may look at a second struct page
        if out is not NULL:
            out[0] = 0
            out[1] = 1
            out[2] = folio.page._mapcount
        return 1
    count = hgm_page_mapcount(&m.config.options, folio, 0)
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

cdef inline bint movable(const hgm_options *options, const hgm_folio *folio, bint table_shared) noexcept nogil:
    return folio_movable(options, folio, table_shared)

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
    engine.movable = movable
    engine.asked = asked
    engine.name = name
    engine.explanation = explanation
    engine.state = state
    engine.defaults = defaults
    engine.posted = posted
    engine.exceptions = checked_exceptions(exceptions)
    engine.whole_only = QUIRKS & QUIRK_WHOLE_ONLY != 0
    engine.writes_tails = NEEDS & NEEDS_TAILS != 0
    engine.scans = NEEDS & (NEEDS_SCAN | NEEDS_SCAN_ALWAYS | NEEDS_COUNTER) != 0
    engine.race = race_here()
    engine.first_come = NEEDS & NEEDS_ORDER != 0
    engine.by_number = NEEDS & NEEDS_NUMBERS != 0
    engine.asks_cpu = NEEDS & NEEDS_CPU != 0
    engine.has_slots = NEEDS & NEEDS_SLOTS != 0
    engine.dirties_tails = NEEDS & (NEEDS_TAILS | NEEDS_SLOTS) != 0
    engine.count_into = HGM_COUNT_INTO
    engine.alone = HGM_IS_ALONE
    return engine

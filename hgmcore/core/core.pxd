# cython: language_level=3
"""An engine, which is the interpreter compiled around one scheme (hgmcore/engine.pxd), and the machine that it runs."""
from hgmcore.core.machine cimport Contents, Machine
from hgmcore.hgm cimport (
    hgm_answer, hgm_events_function, hgm_folio, hgm_operation, hgm_options, uint32_t, uint64_t
)

ctypedef uint64_t (*run_function)(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil
ctypedef uint64_t (*runs_function)(Machine *m, const hgm_folio *folio, long long *out) noexcept nogil

ctypedef void (*answer_function)(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept nogil

ctypedef bint (*movable_function)(const hgm_options *options, const hgm_folio *folio, bint table_shared) noexcept nogil
ctypedef void (*asked_function)(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t *out) noexcept nogil

cdef class Engine:
    cdef uint32_t abi                  # HGM_ABI and sizeof(Machine) of the module that the engine was compiled in
    cdef uint32_t machine_size
    cdef run_function run
    cdef runs_function page_mapcount_runs
    cdef answer_function answer
    cdef movable_function movable
    cdef asked_function asked
    cdef void *race                    # hgm_race of an engine that is compiled for races, else NULL
    cdef readonly str name, explanation
    cdef readonly dict state, defaults, posted, exceptions
    cdef readonly bint whole_only, writes_tails, scans, first_come, alone
    cdef hgm_events_function count_into    # NULL: no engine that counts events (events.pyx)

cdef class Core(Contents):
    cdef bint busy                     # a thread runs the machine
    cdef object looker                 # who takes what `touched` says
    cdef readonly uint64_t ran         # records that the last run() or run_each() did
    cdef int fits(self, Engine engine) except -1
    cdef int idle(self) except -1

cdef dict checked_exceptions(dict exceptions)

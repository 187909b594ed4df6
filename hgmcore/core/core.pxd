# cython: language_level=3
"""An engine, which is the interpreter compiled around one scheme (hgmcore/engine.pxd), and the machine that it runs."""
from hgmcore.core.machine cimport Contents, Machine
from hgmcore.core.records cimport Records
from hgmcore.hgm cimport (
    hgm_answer, hgm_engine, hgm_events_function, hgm_folio, hgm_machine, hgm_operation, hgm_options, hgm_scheme,
    uint32_t, uint64_t
)

ctypedef uint64_t (*run_function)(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil
ctypedef uint64_t (*runs_function)(Machine *m, const hgm_folio *folio, long long *out) noexcept nogil

ctypedef void (*answer_function)(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) noexcept nogil

ctypedef bint (*movable_function)(const hgm_options *options, const hgm_folio *folio, bint table_shared) noexcept nogil
ctypedef void (*asked_function)(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t *out) noexcept nogil

# Fields are only ever added behind the others, and methods are Python's: so an engine that was compiled before is
# refused (Core.fits) and not misread.
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
    cdef readonly bint whole_only, writes_tails, scans, first_come, by_number, asks_cpu
    cdef readonly bint alone           # it adds without atomics, so one thread alone can run it
    cdef readonly bint has_slots       # it counts in slots (hgm.h)
    cdef bint dirties_tails            # it writes more struct pages of a folio than the first few
    cdef hgm_events_function count_into    # NULL: no engine that counts events (events.pyx)
    cdef hgm_engine c                  # the same for C (hgmcore/library.h), filled by engine_for_c()
    cdef bytes c_name
    cdef object capsuled               # the capsule that it is from; None: of no capsule
    cdef const hgm_scheme *table       # of a scheme that is one (own/callbacks.pyx), else NULL

cdef class Core(Contents):
    cdef object looker                 # who takes what `touched` says
    cdef readonly uint64_t ran         # records that the last run() or run_each() did
    cdef Engine served                 # the engine of the machine's doors, kept alive
    cdef Engine bound                  # the engine whose table `scheme` is a copy of
    cdef hgm_scheme scheme
    cdef int bind(self, Engine engine) except -1
    cdef int obeyed(self, Engine engine, const hgm_operation *last=*, uint64_t index=*) except -1
    cdef int fits(self, Engine engine) except -1
    cdef uint64_t on_cpu(self, Records records, uint64_t first, uint64_t n) noexcept nogil
    cdef hgm_machine *serve(self, Engine engine) except NULL

cdef dict checked_exceptions(dict exceptions)

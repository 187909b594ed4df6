# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Operation records, and whether they name nothing but what a machine has declared.

The interpreter trusts the numbers in a record: one of a file, process, mapping or huge page that was never declared
would lead it out of the machine's memory. So records are looked through before they run.
"""
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from hgmcore.core.machine cimport Machine
from hgmcore.hgm cimport *

cdef inline bint record_fits(const Machine *m, const hgm_operation *op) noexcept nogil:
    """Are the numbers in a record those of declared files, processes, mappings and huge pages?

    What is declared stays so: an answer that is yes holds for every machine that has the same declarations, or more.
    """
    cdef bint mapping = op.target < m.state.nr_mappings, file = op.target < m.state.nr_files
    if op.op == HGM_OP_CONTINUE:
        return mapping
    if op.op >= HGM_NR_OPS:
        return False
    if op.op == HGM_OP_FILE or op.op == HGM_OP_PUNCH or op.op == HGM_OP_TRUNCATE:
        return file
    if op.op == HGM_OP_POPULATE:
        return (file and op.offset <= m.state.files[op.target].pages
                and op.length <= m.state.files[op.target].pages - op.offset)
    if op.op == HGM_OP_PIN or op.op == HGM_OP_UNPIN:
        return file and op.offset < m.state.files[op.target].pages
    if op.op == HGM_OP_MMAP:
        return mapping and op.arg < m.state.nr_files
    if op.op == HGM_OP_MREMAP and op.arg != HGM_NO_ARG:
        return (mapping and op.arg < m.state.nr_mappings
                and m.state.mappings[op.arg].process == m.state.mappings[op.target].process)
    if op.op == HGM_OP_FORK:
        return op.target < m.state.nr_processes and op.arg < m.state.nr_processes
    if op.op == HGM_OP_EXIT:
        return op.target < m.state.nr_processes
    return mapping or op.op in (HGM_OP_FAIL, HGM_OP_OBSERVE, HGM_OP_PHASE)

cdef inline void *data_of(object array, bint written) except? NULL:
    """Where the bytes of a contiguous array are, which it keeps. `written`: BufferError if the array is read-only."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if written else 0))
    PyBuffer_Release(&buffer)
    return buffer.buf

# What record_fits() goes by, as one machine had it.
cdef struct Declarations:
    uint32_t nr_processes
    uint32_t nr_files
    uint32_t nr_mappings
    uint64_t *pages          # of each file
    uint32_t *process        # of each mapping

cdef class Records:
    cdef readonly object operations    # the array
    cdef const hgm_operation *first
    cdef readonly object cpus          # the CPU of each record, an array; or None
    cdef const uint16_t *cpu           # that array, or NULL
    cdef uint64_t n
    cdef readonly bint kept
    cdef Records whole                 # that these are a part of; None: of no others
    cdef bint fitted                   # kept, and checked against a machine that had `known`
    cdef Declarations known
    cdef uint64_t checks
    cdef Records all(self)
    cdef int check(self, const Machine *m, uint64_t index) except -1
    cdef void remember(self, const Machine *m) noexcept

cdef inline uint64_t on_one_cpu(const uint16_t *cpu, uint64_t first, uint64_t n) noexcept nogil:
    """Of `n` records from `first` on, how many the CPU of the first one runs before another does."""
    cdef uint64_t i = 1
    while i < n and cpu[first + i] == cpu[first]:
        i += 1
    return i

cdef Records records_of(operations)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Calls: operations one at a time from Python, each in less than a microsecond, and a journal of all that ran."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memset

import operator

import numpy as np

from hgmcore.core.core cimport Core, Engine
from hgmcore.core.machine cimport Machine, Mapping
from hgmcore.core.records cimport record_fits
from hgmcore.hgm cimport *

from hgmcore.core.core import SchemeError
from hgmcore.errnos import OperationError
from hgmcore.sizes import parse_size

cdef enum:
    SHORT = 4 << 20    # bytes that an operation may be about without letting other Python threads in
    MOST = 4096        # spellings of sizes that are kept

_NOWHERE = (HGM_OP_REGISTER, HGM_OP_UNREGISTER, HGM_OP_FORK, HGM_OP_EXIT)    # operations that have no offset

cdef dict sizes = {}   # what each spelling of a size comes to


cdef uint64_t spelled(object text) except? 0xfedcba9876543210:
    """Bytes of a size given as a text, which is parsed once."""
    cdef PyObject *known = PyDict_GetItem(sizes, text)
    if known is not NULL:
        return <object>known
    value = parse_size(text)
    if len(sizes) >= MOST:
        sizes.clear()
    sizes[text] = value
    return value


cdef inline uint64_t bytes_of(object value) except? 0xfedcba9876543210:
    """Bytes of a size given as an int, a text such as "4K", or what stands for an int (NumPy's)."""
    if PyLong_CheckExact(value):
        return value
    if PyUnicode_CheckExact(value):
        return spelled(value)
    return operator.index(value) if not isinstance(value, str) else spelled(str(value))


cdef inline bint single(object value) noexcept:
    """Is that one number, and no array, list or tuple of them?"""
    if PyLong_CheckExact(value) or PyUnicode_CheckExact(value) or value is None:
        return True
    return not isinstance(value, (list, tuple, range, np.ndarray)) or isinstance(value, np.ndarray) and value.ndim == 0


def size(value) -> int:
    """Bytes of a size given as an int or a text such as "4K". ValueError or TypeError otherwise."""
    if isinstance(value, str):
        return spelled(str(value))
    return operator.index(value)


cdef class Calls:
    """The single operations of one machine: a core, its engine, and how many operations ran.

    names: of the operations by code. operations: how many ran. journal: a list of the records that ran, as bytes;
    None: nobody asked for it. ImportError, TypeError: as Core.run. A subclass has batch(op, target, offset, length,
    arg, flags), which runs an array of operations.
    """
    cdef readonly Core core
    cdef readonly Engine engine
    cdef public list journal
    cdef tuple names

    def __cinit__(self, Core core, Engine engine, tuple names, bint journal=False):
        core.fits(engine)
        self.core = core
        self.engine = engine
        self.names = names
        self.journal = [] if journal else None

    def one(self, int op, uint32_t target, offset=0, length=0, uint16_t arg=0, uint8_t flags=0):
        """Run one operation; `offset` and `length`: sizes, or numbers where the operation counts those.

        Returns bytes done; of arrays, lists or tuples what batch() returns. OperationError: it is refused.
        OverflowError: a number is negative or too large. ValueError: a number was never declared. RuntimeError,
        MemoryError: as Core.run.
        """
        cdef hgm_operation o
        if not (single(offset) and single(length)):
            return self.batch(op, target, offset, length, arg, flags)
        memset(&o, 0, sizeof(o))
        o.offset = bytes_of(offset)
        o.length = bytes_of(length)
        o.target = target
        o.arg = arg
        o.op = <uint8_t>op
        o.flags = flags
        return self.alone(&o)

    def part(self, int op, uint32_t mapping, offset, length, uint8_t flags=0):
        """Run one operation on `length` bytes of a mapping from `offset` on; None: up to its end. Cf. one()."""
        cdef hgm_operation o
        if not (single(offset) and single(length)):
            return self.batch(op, mapping, offset, length, 0, flags)
        memset(&o, 0, sizeof(o))
        o.offset = bytes_of(offset)
        if length is not None:
            o.length = bytes_of(length)
        else:
            o.length = self.mapping(mapping).length
            if o.length < o.offset:
                raise OverflowError(f"offset {offset} lies behind the mapping's end, {o.length}")
            o.length -= o.offset
        o.target = mapping
        o.op = <uint8_t>op
        o.flags = flags
        return self.alone(&o)

    cdef object alone(self, const hgm_operation *o):
        cdef Core core = self.core
        cdef Machine *m = &core.m
        cdef uint64_t before, index, done
        cdef const hgm_result *result
        if core.bound is not self.engine:
            core.fits(self.engine)
        core.enter()
        index, before = core.c.operations, m.context.nr_results
        if not record_fits(m, o):
            core.leave()
            raise ValueError(f"record {index}: an operation, file, process, mapping or page that is not declared")
        m.context.tails |= self.engine.writes_tails
        m.context.out_of_memory = False
        m.context.cpu = 0    # whatever a trace that ran before left there
        if o.length <= SHORT and (o.op == HGM_OP_CONTINUE or o.op == HGM_OP_TOUCH or o.op == HGM_OP_DONTNEED):
            self.engine.run(m, o, 1, index)
        else:
            with nogil:
                self.engine.run(m, o, 1, index)
        core.c.operations = index + 1
        core.leave()
        if self.journal is not None:
            self.journal.append(PyBytes_FromStringAndSize(<const char *>o, sizeof(hgm_operation)))
        if core.scheme.failed is not NULL:
            try:
                core.obeyed(self.engine, o, index)
            except SchemeError as error:
                error.op = self.names[o.op]
                raise
        if m.context.out_of_memory:
            raise MemoryError(f"no memory for page tables, struct pages or results at operation {index}; the machine "
                              f"has {core.reserved} bytes of address space")
        if m.context.nr_results != before:
            result = &(<const hgm_result *>m.context.results.base)[m.context.nr_results - 1]
            if result.index == index:    # else that of a `fail` before it, which never fired
                if result.error:
                    raise OperationError(self.names[o.op], result.error, result.done,
                                         None if o.op in _NOWHERE else o.offset)
                return result.done
        self.engine.asked(m, o, 1, &done)
        return done

    @property
    def operations(self) -> int:
        """How many operations ran, by whatever door."""
        return self.core.c.operations

    @operations.setter
    def operations(self, uint64_t number):
        self.core.c.operations = number

    cdef Mapping *mapping(self, uint32_t number) except NULL:
        if number >= self.core.m.state.nr_mappings:
            raise IndexError(f"no mapping {number}")
        return &self.core.m.state.mappings[number]

    def address(self, uint32_t mapping) -> int:
        """Where a mapping begins."""
        return self.mapping(mapping).address

    def length(self, uint32_t mapping) -> int:
        """Bytes of a mapping, with holes."""
        return self.mapping(mapping).length

    def file(self, uint32_t mapping) -> int:
        """The number of the file that a mapping maps."""
        return self.mapping(mapping).file

    def file_offset(self, uint32_t mapping) -> int:
        """The place in its file, in bytes, that a mapping maps first."""
        return self.mapping(mapping).file_offset

    def mapped(self, uint32_t mapping) -> bool:
        """Is a VMA of a mapping left?"""
        return self.mapping(mapping).nr_vmas != 0

    def exited(self, uint32_t process) -> bool:
        """Has a process ended?"""
        if process >= self.core.m.state.nr_processes:
            raise IndexError(f"no process {process}")
        return self.core.m.state.processes[process].exited

    def clear_results(self):
        """There are no results any more. RuntimeError: another thread runs the machine."""
        self.core.idle()
        self.core.forget_results()

    def reset_cost(self):
        """Costs count from 0 again. RuntimeError: another thread runs the machine."""
        self.core.idle()
        self.core.forget_cost()

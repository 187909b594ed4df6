# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Records: operations that are checked once for all machines of the same declarations."""
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np


cdef class Records:
    """An array of operation records (statements.OPERATION), as machines take them; a slice is a part of them.

    kept: the records are looked through once, and again only for a machine that has declared something else. For that
    the array becomes read-only, and so do the arrays that it is a view of; a view that somebody took before must not be
    written through any more. Otherwise every run looks at them. cpus: the CPU that runs each, uint16, for schemes that
    ask; None: CPU 0. TypeError or ValueError: no contiguous array of them.
    """

    def __cinit__(self, operations, bint kept=False, Records whole=None, cpus=None):
        memset(&self.known, 0, sizeof(self.known))
        if not isinstance(operations, np.ndarray) or operations.ndim != 1 or operations.itemsize != sizeof(
                hgm_operation):
            raise TypeError("operations are an array of dtype statements.OPERATION")
        self.operations = operations
        self.kept = kept
        self.whole = whole
        self.n = len(operations)
        self.first = <const hgm_operation *>data_of(operations, False)
        if cpus is not None:
            self.cpus = np.ascontiguousarray(cpus, np.uint16)
            if <uint64_t>len(self.cpus) != self.n:
                raise ValueError(f"cpus: {len(self.cpus)} of them for {self.n} records")
            self.cpu = <const uint16_t *>data_of(self.cpus, False)
        while kept and isinstance(operations, np.ndarray):
            operations.flags.writeable = False
            operations = operations.base

    def __dealloc__(self):
        free(self.known.pages)
        free(self.known.process)

    def __len__(self):
        return self.n

    def __getitem__(self, part):
        """A part of the records, given as a slice without a step, which shares their check."""
        if not isinstance(part, slice) or part.step is not None:
            raise TypeError("a part of records is a slice without a step")
        return Records(self.operations[part], self.kept, self.all(), None if self.cpus is None else self.cpus[part])

    def __reduce__(self):
        return Records, (self.operations, self.kept, None, self.cpus)

    @property
    def times_checked(self) -> int:
        """How many times all of the records that these are a part of were looked through."""
        return self.all().checks

    cdef Records all(self):
        """The records that these are a part of, or these."""
        return self if self.whole is None else self.whole

    cdef int check(self, const Machine *m, uint64_t index) except -1:
        """ValueError unless every number in the records is declared; index: of the first record, for the message."""
        cdef Records all = self.all() if self.kept else self
        cdef uint64_t i = 0
        if all.fitted and declares(m, &all.known):
            return 0
        with nogil:
            while i < all.n and record_fits(m, &all.first[i]):
                i += 1
        all.checks += 1
        if i < all.n:
            raise ValueError(f"record {i if self.kept else index + i}: an operation, file, process, mapping or page "
                             "that is not declared")
        if self.kept:
            all.remember(m)
        return 0

    cdef void remember(self, const Machine *m) noexcept:
        """Keep what the machine has declared."""
        cdef Declarations *d = &self.known
        cdef uint32_t i
        free(d.pages)
        free(d.process)
        d.nr_processes = m.state.nr_processes
        d.nr_files = m.state.nr_files
        d.nr_mappings = m.state.nr_mappings
        d.pages = <uint64_t *>malloc((d.nr_files + 1) * sizeof(uint64_t))
        d.process = <uint32_t *>malloc((d.nr_mappings + 1) * sizeof(uint32_t))
        self.fitted = d.pages is not NULL and d.process is not NULL
        if not self.fitted:    # they are looked through again
            return
        for i in range(d.nr_files):
            d.pages[i] = m.state.files[i].pages
        for i in range(d.nr_mappings):
            d.process[i] = m.state.mappings[i].process


cdef bint declares(const Machine *m, const Declarations *d) noexcept nogil:
    """Has the machine declared all of that, under the same numbers?"""
    cdef uint32_t i
    if m.state.nr_processes < d.nr_processes or m.state.nr_files < d.nr_files or m.state.nr_mappings < d.nr_mappings:
        return False
    for i in range(d.nr_files):
        if m.state.files[i].pages != d.pages[i]:
            return False
    for i in range(d.nr_mappings):
        if m.state.mappings[i].process != d.process[i]:
            return False
    return True


cdef Records records_of(operations):
    """The Records that these are, or of an array of which every run looks at each."""
    return operations if isinstance(operations, Records) else Records(operations)

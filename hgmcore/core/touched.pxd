# cython: language_level=3
"""Which huge pages operations may have touched since somebody looked (touched.pyx)."""
from hgmcore.core.machine cimport Machine

cdef int touched_start(Machine *m) except -1
cdef object touched_take(Machine *m)
cdef void touched_free(Machine *m) noexcept

# cython: language_level=3
"""hgmcore as a library for Cython: the functions of include/hgmcore/library.h, and the machine behind a Python Machine.

    cdef hgm_machine *m = machine_of(machine)     # an hgmcore.Machine, or its capsule; keep a reference to it
    with nogil:
        done = hgm_mapping_continue(m, mapping, offset, 4096)

A call takes no Python object and no GIL. Functions whose names end in `unchecked` trust the numbers that they get.
examples/cython_simulator is a whole program.
"""
from hgmcore.core.library cimport *

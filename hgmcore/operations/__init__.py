"""The operations of a trace, one file for each family: from a record to primitives.

Each is a Cython declaration file of inline functions that `hgmcore/engine.pxd` compiles together with one
scheme. An operation checks its arguments as the kernel does, walks and changes page tables, and tells the
scheme of each primitive. It never changes a count itself.
"""

"""Schemes of one's own that are not compiled around an engine: a Python class, or a table of function pointers.

One engine (callbacks) calls their reactions. `Scheme` is the class to derive from; `Table` and what stands beside it
are the C structures of hgm.h and scheme.h for ctypes, `CDEF` for cffi.
"""

from hgmcore.own.python import COUNTS, KEEPS, NEEDS, ORIGINS, QUIRKS, WORDS, Folio, Leaf, Subtree
from hgmcore.own.scheme import Scheme

__all__ = ["COUNTS", "KEEPS", "NEEDS", "ORIGINS", "QUIRKS", "WORDS", "Folio", "Leaf", "Scheme", "Subtree"]

"""Types and functions for reactions that numba.cfunc compiles. Needs numba.

A reaction is `@cfunc(LEAF_INSTALL) def leaf_install(cost, options, leaf)`; leaf_of(leaf) has the fields of hgm_leaf
(hgm.h), subtree_of(subtree) those of hgm_subtree. Pointers to folios are numbers; what stands in struct pages is read
by count() and changed by ref_add() and map_add(). An exception in compiled code is lost: a reaction that cannot go on
answers -1.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from hgmcore.own.callbacks import ADDRESSES
from hgmcore.own.tables import Answer, Cost, Leaf, Page, Subtree


def _record(structure):
    """A structure as numba's record, its pointers as numbers."""
    fields = [
        (name, np.uint64 if issubclass(kind, ctypes._Pointer) else np.dtype(kind)) for name, kind in structure._fields_
    ]
    dtype = np.dtype(fields, align=True)
    assert dtype.itemsize == ctypes.sizeof(structure)
    return from_dtype(dtype)


LEAF, SUBTREE, ANSWER = (types.CPointer(_record(structure)) for structure in (Leaf, Subtree, Answer))
_COST = _OPTIONS = types.voidptr

LEAF_INSTALL = types.int32(_COST, _OPTIONS, LEAF)
LEAF_REMOVE = types.void(_COST, _OPTIONS, LEAF)
PAGE_MAPCOUNT = types.int64(_OPTIONS, types.uint64, types.uint64)
ANSWER_FOLIO = types.void(_OPTIONS, types.uint64, ANSWER)
TABLE_ADD = SUBTREE_ZAPPED = types.int32(_COST, _OPTIONS, SUBTREE)
TABLE_FREE = types.void(_COST, _OPTIONS, SUBTREE)


def _function(name, result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments)(ADDRESSES[name])


_ref_add = _function("ref_add", None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32)
_map_add = _function(
    "map_add", ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int32
)
_ref_settle = _function("ref_settle", None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int32)
_map_settle = _function("map_settle", None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)

_PAGE = ctypes.sizeof(Page)
_REFCOUNT, _REF, _MAP = Page._refcount.offset, Cost.ref.offset, Cost.map.offset
_TOUCHED = 1  # HGM_PAGE_TOUCHED


@intrinsic
def _load(typing, address):
    """The word of 64 bits at an address."""

    def code(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.uint64(types.uint64), code


@intrinsic
def _increase(typing, cost, offset):
    """One more in the counter of hgm_cost `offset` bytes into it."""

    def code(context, builder, signature, arguments):
        at = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), ir.IntType(64).as_pointer())
        builder.store(builder.add(builder.load(at), ir.Constant(ir.IntType(64), 1)), at)
        return context.get_dummy_value()

    return types.void(types.voidptr, types.int64), code


@intrinsic
def _atomic_add(typing, address, by):
    """Add to the word of 32 bits at an address by an atomic; what it is then."""

    def code(context, builder, signature, arguments):
        at = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        return builder.add(builder.atomic_rmw("add", at, arguments[1], "monotonic"), arguments[1])

    return types.int32(types.uint64, types.int32), code


@njit(inline="always")
def ref_add(cost, folio, by):
    """hgm_ref_add(cost, folio, by)."""
    page = _load(folio)
    if _load(page) & _TOUCHED == 0:
        _ref_add(cost, folio, by)
        return
    _increase(cost, _REF)
    now = _atomic_add(page + _REFCOUNT, by)
    if now <= 0:
        _ref_settle(cost, folio, by, now)


@njit(inline="always")
def map_add(cost, folio, page, offset, by):
    """hgm_map_add(cost, folio, page, offset, by): the word `offset` bytes (tables.OFFSET) into struct page `page`."""
    at = _load(folio) + types.uint64(page) * types.uint64(_PAGE)
    if _load(at) & _TOUCHED == 0:
        return _map_add(cost, folio, page, offset, by)
    _increase(cost, _MAP)
    now = _atomic_add(at + types.uint64(offset), by)
    if now < 0:
        _map_settle(cost, by, now)
    return now


count = _function("count", ctypes.c_int32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)
"""A word of 32 bits: (folio, page, offset)."""


@njit(inline="always")
def leaf_of(leaf):
    """The fields of a leaf."""
    return carray(leaf, 1)[0]


@njit(inline="always")
def subtree_of(subtree):
    """The fields of a subtree."""
    return carray(subtree, 1)[0]


@njit(inline="always")
def answer(out, mapcount, mapped):
    """Answer folio_mapcount() and folio_mapped(); the rest is left to the general rules."""
    carray(out, 1)[0].mapcount = mapcount
    carray(out, 1)[0].mapped = mapped

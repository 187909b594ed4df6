"""A scheme as a table of function pointers: from C, ctypes, cffi or numba.cfunc.

The structures below are those of hgm.h and scheme.h, field by field. `table()` fills an hgm_scheme of functions in any
of these forms; a table that C code has filled comes as `Table.in_dll(library, "name")`, as a cffi pointer or as a
PyCapsule named "hgmcore.scheme.v1". Each goes wherever a scheme goes: hgmcore.register(), Machine(), a --scheme-file,
an entry point.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import ClassVar

from hgmcore.core.machine import PAGE
from hgmcore.own import callbacks
from hgmcore.own.python import NEEDS, QUIRKS
from hgmcore.own.texts import checked


class Page(ctypes.Structure):
    """hgm_page: 64 bytes."""

    _fields_: ClassVar = [
        ("flags", c_uint64),
        ("private", c_uint64),
        ("_large_mapcount", c_int32),
        ("_nr_pages_mapped", c_int32),
        ("_entire_mapcount", c_int32),
        ("_pincount", c_int32),
        ("_mm_id_mapcount", c_int32 * 2),
        ("_mm_id", c_uint32 * 2),
        ("_mapcount", c_int32),
        ("_refcount", c_int32),
        ("_total_mapped_pages", c_int64),
    ]


class Folio(ctypes.Structure):
    """hgm_folio."""

    _fields_: ClassVar = [
        ("page", POINTER(Page)),
        ("pfn", c_uint64),
        ("nr_pages", c_uint64),
        ("file", c_uint32),
        ("index", c_uint32),
        ("pins", c_int32),
        ("flags", c_uint32),
        ("poisons", c_int32),
        ("isolated", c_uint32),
    ]


class Cost(ctypes.Structure):
    """hgm_cost."""

    _fields_: ClassVar = [
        (name, c_uint64)
        for name in (
            "ref",
            "map",
            "transient",
            "entries_scanned",
            "leaf_installs",
            "leaf_removes",
            "underflows",
            "overflows",
            "locks",
        )
    ]


class Options(ctypes.Structure):
    """hgm_options; `scheme` is the machine's copy of the table."""


class Leaf(ctypes.Structure):
    """hgm_leaf."""

    _fields_: ClassVar = [
        ("folio", POINTER(Folio)),
        ("first", c_uint64),
        ("nr_pages", c_uint64),
        ("count", c_uint32),
        ("process", c_uint32),
        ("mapping", c_uint32),
        ("origin", c_uint8),
        ("whole", c_uint8),
        ("covers", c_uint8),
        ("hstate_none", c_uint8),
        ("first_leaf", c_uint8),
        ("threads", c_uint8),
        ("cpu", c_uint16),
    ]


class Subtree(ctypes.Structure):
    """hgm_subtree."""

    _fields_: ClassVar = [
        ("folio", POINTER(Folio)),
        ("removed", c_uint64),
        ("process", c_uint32),
        ("mapping", c_uint32),
        ("origin", c_uint8),
        ("covers", c_uint8),
        ("whole", c_uint8),
        ("tables_stay", c_uint8),
        ("empty", c_uint8),
        ("counted", c_uint8),
        ("cpu", c_uint16),
    ]


class Answer(ctypes.Structure):
    """hgm_answer."""

    _fields_: ClassVar = [
        ("mapcount", c_int64),
        ("refs", c_int64),
        ("sharers", c_int64),
        ("nr_file_mapped", c_int64),
        ("mapped", c_int32),
        ("maybe_shared", c_int32),
    ]


_LEAF = (POINTER(Cost), POINTER(Options), POINTER(Leaf))
_SUBTREE = (POINTER(Cost), POINTER(Options), POINTER(Subtree))
FUNCTIONS = {
    "leaf_install": CFUNCTYPE(ctypes.c_int, *_LEAF),
    "leaf_remove": CFUNCTYPE(None, *_LEAF),
    "page_mapcount": CFUNCTYPE(c_int64, POINTER(Options), POINTER(Folio), c_uint64),
    "answer_folio": CFUNCTYPE(None, POINTER(Options), POINTER(Folio), POINTER(Answer)),
    "table_add": CFUNCTYPE(ctypes.c_int, *_SUBTREE),
    "table_free": CFUNCTYPE(None, *_SUBTREE),
    "subtree_zapped": CFUNCTYPE(ctypes.c_int, *_SUBTREE),
    "kill": CFUNCTYPE(None, POINTER(Cost), POINTER(Options), POINTER(Folio)),
}
"""The reactions of a table, in its order, as ctypes function types."""

TEXTS = ("name", "explanation", "state", "defaults", "posted", "exceptions")


class Table(ctypes.Structure):
    """hgm_scheme."""

    _fields_: ClassVar = [
        ("abi", c_uint32),
        ("size", c_uint32),
        ("needs", c_uint32),
        ("quirks", c_uint32),
        ("user", c_void_p),
        *((text, c_char_p) for text in TEXTS),
        *FUNCTIONS.items(),
        ("failed", c_char_p),
        ("failed_in", c_char_p),
    ]


Options._fields_ = [
    ("era", c_int32),
    *(
        (name, c_uint8)
        for name in (
            "cache_refs_folio",
            "lookup_first",
            "zap_frees_tables",
            "rmap_aware",
            "base_only",
            "batch",
            "transient_real",
            "overflow_check",
            "posted",
            "locks",
            "fault_around",
            "rmap_values",
            "rmap_batch",
            "rmap_exclusive",
            "pmd_order",
            "top_down",
        )
    ),
    ("scheme", POINTER(Table)),
]

ref_add = CFUNCTYPE(None, POINTER(Cost), POINTER(Folio), c_int32)(callbacks.ADDRESSES["ref_add"])
"""hgm_ref_add(cost, folio, by)."""

map_add = CFUNCTYPE(c_int32, POINTER(Cost), POINTER(Folio), c_uint64, c_uint32, c_int32)(callbacks.ADDRESSES["map_add"])
"""hgm_map_add(cost, folio, page, offset, by): the word `offset` bytes (OFFSET) into struct page `page`."""

count = CFUNCTYPE(c_int32, POINTER(Folio), c_uint64, c_uint32)(callbacks.ADDRESSES["count"])
"""A word of 32 bits: (folio, page, offset)."""

fail = CFUNCTYPE(None, POINTER(Options), c_char_p)(callbacks.ADDRESSES["fail"])
"""hgm_fail(options, why); `why` is bytes that stay."""

OFFSET = {name: PAGE.fields[name][1] for name in PAGE.names}
"""Where each word of a struct page stands, in bytes."""


def _declarations() -> str:
    """The structures above in C."""
    known = {
        c_uint8: "uint8_t",
        c_uint16: "uint16_t",
        c_int32: "int32_t",
        c_uint32: "uint32_t",
        c_int64: "int64_t",
        c_uint64: "uint64_t",
        c_char_p: "const char *",
        c_void_p: "void *",
        None: "void",
    }
    names = {
        Page: "hgm_page",
        Folio: "hgm_folio",
        Cost: "hgm_cost",
        Options: "hgm_options",
        Leaf: "hgm_leaf",
        Subtree: "hgm_subtree",
        Answer: "hgm_answer",
        Table: "hgm_scheme",
    }
    known |= {ctypes.c_int: "int", **names, **{POINTER(kind): f"{name} *" for kind, name in names.items()}}

    def field(name, kind):
        if kind in FUNCTIONS.values():
            arguments = ", ".join(known[one] for one in kind._argtypes_)
            return f"{known[kind._restype_]} (*{name})({arguments});"
        if issubclass(kind, ctypes.Array):
            return f"{known[kind._type_]} {name}[{kind._length_}];"
        return f"{known[kind]} {name};"

    text = "".join(f"typedef struct {name} {name};\n" for name in names.values())
    for kind, name in names.items():
        fields = "\n\t".join(field(*one) for one in kind._fields_)
        text += f"struct {name} {{\n\t{fields}\n}};\n"
    return text


CDEF = _declarations()
"""The same structures for cffi: ffi.cdef(CDEF)."""


class Owner:
    """Keeps what is in a table, and what its Python functions raised."""

    def __init__(self):
        self.kept, self.error = [], None

    def raised(self):
        error, self.error = self.error, None
        return error

    def guarded(self, name, function):
        """A Python function as a ctypes callback whose exceptions end the run."""
        place = 1 if name in ("leaf_install", "leaf_remove", "table_add", "table_free", "subtree_zapped", "kill") else 0

        def guarded(*arguments):
            try:
                return function(*arguments)
            except BaseException as error:
                self.error = self.error or error
                fail(arguments[place], _RAISED)
                return 0

        return FUNCTIONS[name](guarded)


_RAISED = b"it raised"


def table(
    name: str,
    explanation: str,
    *,
    needs=(),
    quirks=(),
    state=None,
    defaults=None,
    posted=None,
    exceptions=None,
    user=None,
    **functions,
) -> Table:
    """The table of a scheme. Texts, needs and quirks as of `hgmcore.Scheme`; user: an address, or None.

    functions: the reactions of scheme.h by name, each a function of a ctypes library, a numba.cfunc, a cffi function
    pointer, an address, or a Python function (slow: a microsecond a call). "tables" and "zaps" go without saying where
    their functions are there. The table keeps what it points to. ValueError, TypeError: what is wrong.
    """
    made, owner = Table(), Owner()
    where = f" '{name}'"
    unknown = [key for key in functions if key not in FUNCTIONS]
    if unknown:
        raise TypeError(f"scheme{where}: {unknown[0]} is no reaction (they are {', '.join(FUNCTIONS)})")
    needs = {needs} if isinstance(needs, str) else set(needs)
    needs |= {"tables"} & {"tables" for key in ("table_add", "table_free") if functions.get(key)}
    needs |= {"kill"} if functions.get("kill") else set()
    needs |= {"zaps"} & {"zaps" for key in ("subtree_zapped",) if functions.get(key)}
    for what, given, known in (("needs", needs, NEEDS), ("quirks", quirks, QUIRKS)):
        for word in given:
            if word not in known:
                raise ValueError(f"scheme{where}: {what}: {word!r} is none of {', '.join(known)}")
    made.abi, made.size = callbacks.ABI, callbacks.SIZE
    made.needs, made.quirks = sum(NEEDS[need] for need in needs), sum(QUIRKS[quirk] for quirk in set(quirks))
    made.user = user
    made.name, made.explanation = name.encode(), explanation.encode()
    for what, given in (("state", state), ("defaults", defaults), ("posted", posted), ("exceptions", exceptions)):
        pairs = checked(where, what, {key: str(value) for key, value in (given or {}).items()})
        setattr(made, what, " ".join(f"{key}={value}" for key, value in pairs.items()).encode())
    for key, function in functions.items():
        if function is not None:
            setattr(made, key, _pointer(key, function, owner))
    made.owner = owner
    return made


def _pointer(name, function, owner):
    """A function in any of the forms that `table` takes, as a ctypes function pointer."""
    owner.kept.append(function)
    if isinstance(function, int):
        return FUNCTIONS[name](function)
    if isinstance(function, ctypes._CFuncPtr):
        return ctypes.cast(function, FUNCTIONS[name])
    if _is_cffi(function):
        return FUNCTIONS[name](_cffi_address(function))
    if isinstance(address := getattr(function, "address", None), int):  # of numba
        return FUNCTIONS[name](address)
    if not callable(function):
        raise TypeError(f"{name}: {function!r} is no function")
    owner.python = True
    return owner.guarded(name, function)


def _is_cffi(value):
    return type(value).__module__ == "_cffi_backend" and hasattr(type(value), "__add__")


def _cffi_address(value):
    import _cffi_backend

    ffi = _cffi_backend.FFI()
    return int(ffi.cast("uintptr_t", ffi.addressof(value) if ffi.typeof(value).kind == "struct" else value))


def is_table(value) -> bool:
    """Is it a table in a form that `engine_of` takes?"""
    kind = type(value)
    return isinstance(value, (Table, POINTER(Table))) or kind.__name__ == "PyCapsule" or _is_cffi(value)


_engines = {}  # address -> (what stands there, engine)


def engine_of(value):
    """The engine of a table: a Table or a pointer to one, a cffi pointer, or a capsule; the same while the table is.

    ImportError: of another HGM_ABI or size. ValueError: something in it is wrong.
    """
    if isinstance(value, Table):
        address = ctypes.addressof(value)
    elif isinstance(value, POINTER(Table)):
        address = ctypes.cast(value, c_void_p).value
    elif _is_cffi(value):
        address = _cffi_address(value)
    else:
        address = callbacks.capsule_address(value)
    if not address:
        raise ValueError("a scheme's table at address 0")
    there = ctypes.string_at(address, ctypes.sizeof(Table))
    if address not in _engines or _engines[address][0] != there:
        owner = getattr(value, "owner", None) or Owner()
        owner.kept.append(value)
        _engines[address] = there, callbacks.engine_at(address, owner, python=getattr(owner, "python", False))
    return _engines[address][1]

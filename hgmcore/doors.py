"""Doors of a Machine for other languages: the functions of include/hgmcore/library.h by ctypes and by cffi.

Both read the header that the package ships, so that there is one list of functions. A door keeps its Machine alive. One
thread at a time uses a machine, by whatever door (library.h has the rules).
"""

from __future__ import annotations

import ctypes
import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from hgmcore.core import library

HEADERS = Path(__file__).parent / "include/hgmcore"
ABI, MACHINE_SIZE, _ = library.layout()


class Interface(NamedTuple):
    """One machine for one language.

    state_address: where its hgm_machine is, an int. state: the same as the language's pointer, the first argument of
    all functions. abi: HGM_ABI. machine: the Machine. lib: functions and numbers by their names in C, as
    `lib.hgm_mapping_continue` and `lib.HGM_OP_CONTINUE`. ffi: for cffi its FFI, in which the types of hgm.h and
    library.h are declared; for ctypes None.
    """

    state_address: int
    state: Any
    abi: int
    machine: Any
    lib: SimpleNamespace
    ffi: Any


def declarations() -> str:
    """The types and functions of hgm.h and library.h as plain C declarations, without preprocessor and comments."""
    text = "\n".join(_plain((HEADERS / name).read_text(encoding="utf-8")) for name in ("hgm.h", "library.h"))
    return "\n".join(["struct hgm_core;", *_TYPE.findall(text),
                      *(f"{result}{name}({', '.join(arguments)});" for name, result, arguments in functions())])


def constants() -> dict[str, int]:
    """HGM_OP_*, HGM_OPF_* and the other numbers of hgm.h and library.h, by their names."""
    found: dict[str, int] = {}
    for name in "hgm.h", "library.h":
        text = (HEADERS / name).read_text(encoding="utf-8")
        found |= {name: int(value, 0) for name, value in re.findall(r"^#define (HGM_\w+) (\w+?)u?(?:ll)?(?=\s|$)", text,
                                                                    re.M) if value[0].isdigit()}
        for members in re.findall(r"^enum \w+ \{(.*?)\};", _plain(text), re.M | re.S):
            value = -1
            for member in filter(None, map(str.strip, members.split(","))):
                name, _, given = member.partition("=")
                value = int(given, 0) if given else value + 1
                found[name.strip()] = value
    return found


_TYPE = re.compile(r"^typedef struct \w+ \{.*?^\} \w+;|^enum \w+ \{.*?\};", re.M | re.S)
_FUNCTION = re.compile(r"^(?!static|typedef)[\w ]+?\**hgm_\w+\([^)]*\);", re.M)


def _plain(text: str) -> str:
    """Without comments and preprocessor; #define NAME NUMBER is put in where it stands for an array's size."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    sizes = dict(re.findall(r"^#define (HGM_\w+) (\d+)$", text, re.M))
    text = re.sub(r"^#.*?(?<!\\)$", "", text, flags=re.M | re.S)
    return re.sub(r"(?<=\[)HGM_\w+(?=\])", lambda found: sizes.get(found[0], found[0]), text)


_SCALARS = {"int": ctypes.c_int, "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint32_t": ctypes.c_uint32,
            "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t, "void": None, "const char *": ctypes.c_char_p}


def _ctype(declared: str):
    """The ctypes type of a C type; of pointers but strings, a void pointer."""
    declared = declared.strip()
    return _SCALARS[declared] if declared in _SCALARS else ctypes.c_void_p


def functions() -> list[tuple[str, str, list[str]]]:
    """(name, result, arguments) of each function of library.h, as C writes them."""
    found = []
    for function in _FUNCTION.findall(_plain((HEADERS / "library.h").read_text(encoding="utf-8"))):
        head, _, arguments = " ".join(function.split()).removesuffix(");").partition("(")
        name = re.split(r"[ *]", head)[-1]
        found.append((name, head.removesuffix(name), arguments.split(", ")))
    return found


@functools.cache
def _ctypes_functions() -> SimpleNamespace:
    addresses = library.addresses()
    found = SimpleNamespace(**constants())
    for name, result, arguments in functions():
        types = [_ctype(re.sub(r"\w+$", "", one)) for one in arguments]
        setattr(found, name, ctypes.CFUNCTYPE(_ctype(result), *types)(addresses[name]))
    return found


def by_ctypes(machine) -> Interface:
    """A Machine for ctypes, and for Numba, which compiles calls of ctypes functions.

    Pointers are void pointers: an array's `ctypes.data`, or ctypes.byref() of a structure.
    """
    address = machine.core.address(machine.engine)
    return Interface(address, ctypes.c_void_p(address), ABI, machine, _ctypes_functions(), None)


@functools.cache
def _cffi():
    try:
        from cffi import FFI
    except ImportError:
        raise ImportError("Machine.cffi needs cffi: pip install cffi") from None
    ffi = FFI()
    ffi.cdef(declarations())
    if ffi.sizeof("hgm_machine") != MACHINE_SIZE:
        raise ImportError(f"hgm_machine has {ffi.sizeof('hgm_machine')} bytes by {HEADERS / 'library.h'}, and "
                          f"{MACHINE_SIZE} where hgmcore was compiled for HGM_ABI {ABI}: install hgmcore anew")
    addresses = library.addresses()
    found = SimpleNamespace(**constants())
    for name, result, arguments in functions():
        setattr(found, name, ffi.cast(f"{result} (*)({', '.join(arguments)})", addresses[name]))
    return ffi, found


def by_cffi(machine) -> Interface:
    """A Machine for cffi. ImportError: there is no cffi, or the header is of another HGM_ABI."""
    ffi, functions = _cffi()
    address = machine.core.address(machine.engine)
    return Interface(address, ffi.cast("hgm_machine *", address), ABI, machine, functions, ffi)

"""The hand-written loops of roofline.c, compiled with the flags of the extension modules."""

from __future__ import annotations

import ctypes
import mmap
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

import hgmcore
from hgmcore.machine import PAGE, RESULT

SOURCE = Path(__file__).with_name("roofline.c")
TABLE = 4096
ENTRIES = 512
PIECES = ENTRIES * ENTRIES    # of 4K in 1G
PRESENT, LEAF = 0x1, 0x80     # hgm.h


def compile_rooflines() -> ctypes.CDLL:
    """Compile and load roofline.c."""
    directory = tempfile.mkdtemp(prefix="hgmcore-roofline-")
    library = Path(directory, "roofline.so")
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    flags = shlex.split(sysconfig.get_config_var("CFLAGS")) + ["-O3", "-g0", "-fPIC", "-shared"]
    subprocess.run([*compiler, *flags, f"-I{hgmcore.get_include()}", str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def committed(size: int) -> np.ndarray:
    """`size` zeroed bytes in base pages that are there, as hgmcore's tables and struct pages are."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    array[:] = 0
    return array


class World(ctypes.Structure):
    """struct world of roofline.c."""

    _fields_ = [("tables", ctypes.c_void_p), ("descs", ctypes.c_void_p), ("page", ctypes.c_void_p),
                ("results", ctypes.c_void_p), ("nr_results", ctypes.c_uint64), ("ns", ctypes.c_uint64),
                ("pud", ctypes.c_uint64 * 2), ("free_table", ctypes.c_uint64)]


class Gigabyte:
    """A huge page of 1G, its tables (1: of the PMD level, 2 to 513: of PTEs) and as many spare ones."""

    def __init__(self, library: ctypes.CDLL, scheme: str):
        self.function = getattr(library, scheme)
        self.function.restype = ctypes.c_uint64
        self.recount = library.recount
        self.recount.restype = ctypes.c_uint64
        nr_tables = 2 * (1 + ENTRIES) + 1
        self.tables = committed(nr_tables * TABLE).view(np.uint64).reshape(nr_tables, ENTRIES)
        self.descs = committed(nr_tables * 64).view(np.uint32).reshape(nr_tables, 16)
        self.pages = committed(PIECES * PAGE.itemsize).view(PAGE)
        self.results = committed(PIECES * RESULT.itemsize)
        self.world = World(*(array.ctypes.data for array in (self.tables, self.descs, self.pages, self.results)))

    def prepare(self, full: bool) -> None:
        """Every base page mapped by a 4K leaf, or none; counts are those of that."""
        pmd, pte, spare = self.tables[1], self.tables[2:2 + ENTRIES], self.tables[2 + ENTRIES:]
        pmd[:] = np.arange(2, 2 + ENTRIES) << 12 | PRESENT
        pte.reshape(-1)[:] = np.arange(PIECES) << 12 | PRESENT | LEAF if full else 0
        spare[:] = 0
        spare[:-1, 0] = np.arange(3 + ENTRIES, len(self.tables))
        self.world.free_table, self.world.pud[0], self.world.pud[1] = 2 + ENTRIES, 1 << 12 | PRESENT, 0
        self.descs[:, 0] = 0
        self.descs[1:2 + ENTRIES, 0] = ENTRIES * full
        self.pages["_mapcount"] = full
        for field in ("_large_mapcount", "_nr_pages_mapped", "_entire_mapcount", "_mm_id_mapcount", "_refcount"):
            self.pages[field][:2] = PIECES * full
        self.pages["_mm_id"][1] = 1, 2

    def run(self, loop: int, operations: np.ndarray) -> tuple[int, int]:
        """Run a loop by its number. Returns leaves done and nanoseconds."""
        self.world.nr_results = 0
        done = self.function(ctypes.byref(self.world), loop, ctypes.c_void_p(operations.ctypes.data),
                             ctypes.c_uint64(len(operations)))
        return done, self.world.ns

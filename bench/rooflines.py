"""The hand-written loops of roofline*.c, compiled with the options of the extension modules and with aligned loops."""

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
from hgmcore.core.machine import PAGE, RESULT

SOURCES = sorted(Path(__file__).parent.glob("roofline*.c"))
TABLE = 4096
ENTRIES = 512
PIECES = ENTRIES * ENTRIES    # of 4K in 1G
WHOLE = 16384    # huge pages of 2M
PRESENT, LEAF = 0x1, 0x80     # hgm.h
EACH_PAGE, CHILDREN = 4, 256    # roofline.c


def compile_rooflines() -> ctypes.CDLL:
    """Compile and load them."""
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    flags = [*shlex.split(sysconfig.get_config_var("CFLAGS")), "-O3", "-g0", "-falign-functions=64", "-falign-loops=32"]
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory, "roofline.so")
        subprocess.run([*compiler, *flags, "-fPIC", "-shared", f"-I{hgmcore.get_include()}", *map(str, SOURCES),
                        "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def committed(size: int) -> np.ndarray:
    """`size` zeroed bytes, committed in base pages as hgmcore's page tables and struct pages are."""
    array = np.frombuffer(small_pages(size), np.uint8)
    array[:] = 0
    return array


def small_pages(size: int) -> mmap.mmap:
    """`size` bytes of address space; the system commits a page of them when it is touched."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


class World(ctypes.Structure):
    """struct world of roofline.h."""

    _fields_ = [("tables", ctypes.c_void_p), ("descs", ctypes.c_void_p), ("page", ctypes.c_void_p),
                ("results", ctypes.c_void_p), ("nr_results", ctypes.c_uint64), ("ns", ctypes.c_uint64),
                ("pud", ctypes.c_uint64 * 2), ("free_table", ctypes.c_uint64), ("cache", ctypes.c_void_p)]


class Gigabyte:
    """A huge page of 1G, its page tables (number 1 of PMDs, 2 to 513 of PTEs) and as many spare tables."""

    leaves = PIECES
    nr_tables = 1 + ENTRIES

    def __init__(self, library: ctypes.CDLL, scheme: str):
        self.function = getattr(library, scheme)
        self.function.restype = ctypes.c_uint64
        self.library = library
        self.scheme = scheme
        self.tables = committed((2 * self.nr_tables + 1) * TABLE).view(np.uint64).reshape(-1, ENTRIES)
        self.descs = committed(len(self.tables) * 64).view(np.uint32).reshape(-1, 16)
        self.pages = self.struct_pages()
        self.results = committed(self.leaves * RESULT.itemsize)
        self.world = World(*(array.ctypes.data for array in (self.tables, self.descs, self.pages, self.results)))

    def struct_pages(self) -> np.ndarray:
        """The struct pages of all base pages, as an array of PAGE."""
        return committed(PIECES * PAGE.itemsize).view(PAGE)

    def does(self, what: int) -> bool:
        """Does the scheme do this for a leaf?"""
        return ctypes.c_int.in_dll(self.library, f"{self.scheme}_does").value & what != 0

    def prepare(self, full: bool) -> None:
        """Map every base page by a 4K leaf, or none; the counts are set to match."""
        pmd, pte = self.tables[1], self.tables[2:2 + ENTRIES]
        pmd[:] = np.arange(2, 2 + ENTRIES) << 12 | PRESENT
        pte.reshape(-1)[:] = np.arange(PIECES) << 12 | PRESENT | LEAF if full else 0
        self.spare_tables()
        self.world.pud[0], self.world.pud[1] = 1 << 12 | PRESENT, 0
        if self.does(CHILDREN):    # otherwise the memory stays untouched, as hgmcore's is
            self.descs[:, 0] = 0
            self.descs[1:2 + ENTRIES, 0] = ENTRIES * full
        if self.does(EACH_PAGE):    # otherwise the caches keep their contents
            self.pages["_mapcount"] = full
        for field in ("_large_mapcount", "_nr_pages_mapped", "_entire_mapcount", "_mm_id_mapcount", "_refcount"):
            self.pages[field][:2] = PIECES * full
        self.pages["_mm_id"][1] = 1, 2

    def spare_tables(self) -> None:
        """Put the empty tables into the free list in the order of their numbers."""
        first = 1 + self.nr_tables
        self.tables[first:] = 0
        self.tables[first:-1, 0] = np.arange(first + 1, len(self.tables))
        self.world.free_table = first

    def recount(self) -> int:
        """Count the leaves in one pass over the tables."""
        self.library.recount.restype = ctypes.c_uint64
        return self.library.recount(ctypes.byref(self.world))

    def run(self, loop: int, operations: np.ndarray) -> tuple[int, int]:
        """Run a loop by its number. Returns leaves done and nanoseconds."""
        self.world.nr_results = 0
        done = self.function(ctypes.byref(self.world), loop, ctypes.c_void_p(operations.ctypes.data),
                             ctypes.c_uint64(self.records(operations)))
        return done, self.world.ns

    def frames(self, process: int) -> np.ndarray:
        """The first frame of each leaf of process 0, or 1 if it was forked."""
        entry = self.world.pud[process]
        entries = np.array([entry], np.uint64)
        if entry and not entry & LEAF:
            entries = self.tables[self.tables[entry >> 12] >> np.uint64(12)].ravel()
        return entries[entries & np.uint64(LEAF) > 0] >> np.uint64(12)

    def records(self, operations: np.ndarray) -> int:
        """The number of iterations of a loop over the records."""
        return len(operations)


class WholePages(Gigabyte):
    """Huge pages of 2M, each mapped whole: tables of PMDs, one behind the other, and as many spare ones."""

    leaves = WHOLE
    nr_tables = WHOLE // ENTRIES

    def __init__(self, library: ctypes.CDLL, scheme: str):
        super().__init__(library, scheme)
        self.cache = np.arange(WHOLE, dtype=np.uint64) * ENTRIES
        self.world.cache = self.cache.ctypes.data

    def struct_pages(self) -> np.ndarray:
        return np.frombuffer(small_pages(WHOLE * ENTRIES * PAGE.itemsize), PAGE)

    def prepare(self, full: bool) -> None:
        leaves = self.cache << np.uint64(12) | np.uint64(PRESENT | LEAF)
        self.tables[1:1 + self.nr_tables].reshape(-1)[:] = leaves if full else 0
        self.spare_tables()
        self.pages["_refcount"][::ENTRIES] = 1 + full
        self.pages["_entire_mapcount"][1::ENTRIES] = full

    def recount(self) -> int:
        return int(np.count_nonzero(self.tables[1:1 + self.nr_tables]))

    def records(self, operations: np.ndarray) -> int:
        return max(len(operations), WHOLE)

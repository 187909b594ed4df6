"""The hand-written loops of roofline.c, compiled with the flags of the extension modules."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

import hgmcore

SOURCE = Path(__file__).with_name("roofline.c")
PAGE = 4096
ENTRIES = 512


def compile_rooflines() -> ctypes.CDLL:
    """Compile and load roofline.c."""
    directory = tempfile.mkdtemp(prefix="hgmcore-roofline-")
    library = Path(directory, "roofline.so")
    compiler = shlex.split(sysconfig.get_config_var("CC"))
    flags = shlex.split(sysconfig.get_config_var("CFLAGS")) + ["-O3", "-g0", "-fPIC", "-shared"]
    subprocess.run([*compiler, *flags, f"-I{hgmcore.get_include()}", str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def aligned(size: int) -> np.ndarray:
    """`size` zeroed bytes at a page's border."""
    memory = np.zeros(size + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start:start + size]


class Gigabyte:
    """What a roofline works on: the two levels of tables of a 1G page, its first struct pages, descriptors."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self.tables = aligned(ENTRIES * PAGE).view(np.uint64)
        self.pmd = (self.tables.ctypes.data + np.arange(ENTRIES) * PAGE).astype(np.uint64)
        self.pages = aligned(PAGE)
        self.descs = aligned((1 + ENTRIES) * 64)

    def reset(self) -> None:
        """Every entry none, every count 0."""
        self.tables[:] = 0
        self.pages[:] = 0
        self.descs[:] = 0

    def run(self, name: str, operations: np.ndarray) -> int:
        """Call the loop `name` on operation records. Returns what it did."""
        function = getattr(self.library, name)
        function.restype = ctypes.c_uint64
        arguments = [self.pmd, self.pages] + ([self.descs] if name == "continue_per_subtree" else [])
        return function(ctypes.c_void_p(operations.ctypes.data), ctypes.c_uint64(len(operations)),
                        *(ctypes.c_void_p(array.ctypes.data) for array in arguments))

"""The scheme of own_scheme.c, called through its table: compiled by the C compiler alone, found by ctypes.

A file like this one is what --scheme-file takes: hgmcore compare --scheme-file own_scheme_c.py --schemes most_leaves
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

import hgmcore as hgm
from hgmcore.own.tables import Table

with tempfile.TemporaryDirectory() as folder:
    library = f"{folder}/own_scheme.so"
    subprocess.run(
        [
            os.environ.get("CC", "cc").split()[-1],
            "-O2",
            "-shared",
            "-fPIC",
            "-I",
            hgm.get_include(),
            Path(__file__).with_name("own_scheme.c"),
            "-o",
            library,
        ],
        check=True,
    )
    own_scheme = Table.in_dll(ctypes.CDLL(library), "own_scheme")

if __name__ == "__main__":
    hgm.register(own_scheme)
    machine = hgm.Machine("most_leaves")
    file = machine.file("F", "2M", 1, populate=True)
    mapping = machine.process("A").mmap(file, minor=True, hgm=True)
    mapping.uffd_continue(0, "64K")
    mapping.dontneed(0, "48K")
    print(machine.observe()["folios"][0]["state"])

"""The scheme of own_scheme.c through cffi, in ABI mode: the table is a symbol of the library. It needs cffi."""

import os
import subprocess
import tempfile
from pathlib import Path

from cffi import FFI

import hgmcore as hgm
from hgmcore.own.tables import CDEF

ffi = FFI()
ffi.cdef(CDEF)
ffi.cdef("extern hgm_scheme own_scheme;")

with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/own_scheme.so"
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
            path,
        ],
        check=True,
    )
    library = ffi.dlopen(path)

own_scheme = library.own_scheme

if __name__ == "__main__":
    machine = hgm.Machine(own_scheme)
    file = machine.file("F", "2M", 1, populate=True)
    machine.process("A").mmap(file, minor=True, hgm=True).uffd_continue(0, "64K")
    print(machine.observe()["folios"][0]["state"])

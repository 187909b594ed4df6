"""One operation at a time, and all in one array, through each door: C, Cython, Numba, ctypes, cffi, Python.

All map one huge page of 1G by 4K in order, under head_per_leaf with the references of look-ups; the same loop as `seqR`
of works.py, whose roofline stands beside it.
"""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from rooflines import PIECES
from works import PIECE_BY_PIECE, WORKS, Guest

import hgmcore as hgm
from hgmcore import export_c

HERE = Path(__file__).parent
SCHEME = "head_per_leaf"
ROUNDS = 7
GOALS = {"C, checked": 45, "C, unchecked": 45, "C, records checked": None, "C, records": 10.5, "Cython, checked": 60,
         "Cython, unchecked": 60, "Numba": 60, "Python, records": 10.5, "cffi": None, "ctypes": None, "Python": None}


class Doors:
    """The loop of each door: a function that maps the whole page and returns nanoseconds for each leaf."""

    def __init__(self, folder):
        self.folder = folder
        self.guest = Guest(SCHEME, transient="real")
        self.machine = self.guest.machine
        self.c = None

    def ready(self):
        self.machine._one("dontneed", 0, 0, 1 << 30)

    def program(self, column):
        """A column of what doors.c prints: the least of its own rounds."""
        if self.c is None:
            export_c.export(self.folder / "hgm", [SCHEME])
            subprocess.run(["make", "-s", "-C", self.folder / "hgm", "libhgm.a"], check=True)
            subprocess.run(["cc", "-O2", f"-I{self.folder}/hgm/include", HERE / "doors.c", self.folder / "hgm/libhgm.a",
                            "-o", self.folder / "doors"], check=True)
            self.c = True
        return float(subprocess.run([self.folder / "doors"], check=True, capture_output=True).stdout.split()[column])

    def cython(self, checked):
        name = "door_loop" + sysconfig.get_config_var("EXT_SUFFIX")
        if not (self.folder / name).exists():
            from Cython.Build import cythonize
            from setuptools import Distribution, Extension

            made = cythonize([Extension("door_loop", [str(HERE / "door_loop.pyx")], include_dirs=[hgm.get_include()])],
                             include_path=[str(Path(hgm.__file__).parent.parent)], build_dir=str(self.folder),
                             quiet=True)
            build = Distribution({"ext_modules": made}).get_command_obj("build_ext")
            build.build_lib, build.build_temp = str(self.folder), str(self.folder)
            build.ensure_finalized()
            build.run()
            sys.path.insert(0, str(self.folder))
        import door_loop

        return door_loop.each(self.machine, PIECES, checked)

    def numba(self):
        numba = pytest.importorskip("numba")
        call, state = self.machine.ctypes.lib.hgm_mapping_continue, self.machine.ctypes.state_address
        if not hasattr(self, "compiled"):
            @numba.njit
            def loop(state, pages):
                for page in range(pages):
                    call(state, 0, page << 12, 4096)
            self.compiled = loop
            loop(state, 1)
            self.ready()
        return timed(self.compiled, state, PIECES) / PIECES

    def call(self, door):
        lib, state, few = door.lib, door.state, PIECES // 32

        def loop(function=lib.hgm_mapping_continue):
            for page in range(few):
                function(state, 0, page << 12, 4096)
        return timed(loop) / few

    def python(self):
        mapping, few = self.guest.mapping, PIECES // 256

        def loop():
            for page in range(few):
                mapping.uffd_continue(page << 12, 4096)
        return timed(loop) / few

    def run(self, name):
        return {"C, checked": lambda: self.program(0), "C, unchecked": lambda: self.program(1),
                "C, records checked": lambda: self.program(2), "C, records": lambda: self.program(3),
                "Cython, checked": lambda: self.cython(True),
                "Cython, unchecked": lambda: self.cython(False), "Numba": self.numba,
                "Python, records": lambda: self.machine.run(PIECE_BY_PIECE) / PIECES,
                "cffi": lambda: self.call(self.machine.cffi), "ctypes": lambda: self.call(self.machine.ctypes),
                "Python": self.python}[name]()


def timed(function, *arguments):
    """Nanoseconds of this thread's CPU time."""
    start = time.thread_time_ns()
    function(*arguments)
    return time.thread_time_ns() - start


@pytest.fixture(scope="module")
def doors(tmp_path_factory, library):
    pytest.importorskip("Cython")
    doors = Doors(tmp_path_factory.mktemp("doors"))
    doors.work = next(work for work in WORKS if work.column == "seqR")
    doors.world = doors.work.world(library, SCHEME)
    return doors


@pytest.mark.parametrize("name", GOALS)
def test_a_door(benchmark, doors, name):
    if name == "cffi":
        pytest.importorskip("cffi")
    times, work, world = [], doors.work, doors.world

    def one_round():
        doors.ready()
        ours = doors.run(name)
        world.prepare(work.full)
        world.recount()
        times.append((ours, world.run(work.loop, work.operations)[1] / world.leaves))

    one_round()    # compiles, and touches the memory for the first time
    times.clear()
    benchmark.pedantic(one_round, rounds=ROUNDS)
    ours, roofline = np.median(times, axis=0)
    benchmark.extra_info.update(language=name, ns=float(ours), roofline=float(roofline), goal=GOALS[name])

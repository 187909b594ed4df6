"""A scheme of one's own through each door, beside the built-in one of the same rule, in the same run."""

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from measure import take_turns
from works import WORKS, Guest

import hgmcore as hgm
from hgmcore import scaffold
from hgmcore.own import KEEPS, tables
from hgmcore.own.tables import OFFSET, Table, table
from hgmcore.schemes import load

WORK = {work.column: work for work in WORKS if work.column in ("seq", "rnd", "zap", "frkB")}
GOALS = {"compiled": 1.05, "C": 1.3, "cffi": 1.3, "numba": 1.3, "Python class": None, "ctypes, Python": None}
"""Of continues in order: ratios to the built-in scheme."""

PYTHON = 150
"""ns that a leaf may take in a Python class."""

HEADER = (scaffold.HERE / "c/@NAME@.h.in").read_text().replace("@NAME@", "own_table")
ENTIRE = OFFSET["_entire_mapcount"]
TABLE = (
    HEADER
    + """
HGM_SCHEME(own_table, .name = "own_table", .explanation = "head_per_leaf in C", .state = "compound=_entire_mapcount");
"""
)


class OwnClass(hgm.Scheme):
    """head_per_leaf in Python"""

    state = {"compound": "_entire_mapcount"}

    def leaf_install(self, leaf):
        leaf.ref_add(1)
        leaf.map_add("_entire_mapcount", 1)
        return KEEPS

    def leaf_remove(self, leaf):
        leaf.map_add("_entire_mapcount", -1)
        leaf.ref_add(-1)

    def answer_folio(self, folio):
        return folio.word("_entire_mapcount")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The path of the table in C, compiled."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_table.c").write_text(TABLE)
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-I", hgm.get_include(), "own_table.c", "-o", "own_table.so"],
        cwd=folder,
        check=True,
    )
    return folder / "own_table.so"


def compiled(folder):
    """The engine of the rule in a package that `hgmcore new-scheme --c` writes."""
    scaffold.write("own_engine", "c", folder / "package")
    root = str(Path(hgm.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder / "package",
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    spec = importlib.util.spec_from_file_location("own_engine", next((folder / "package").glob("own_engine.*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.engine


def by_ctypes():
    def leaf_install(cost, options, leaf):
        leaf = leaf.contents
        tables.ref_add(cost, leaf.folio, leaf.count)
        tables.map_add(cost, leaf.folio, 1, ENTIRE, leaf.count)
        return 1

    def leaf_remove(cost, options, leaf):
        leaf = leaf.contents
        tables.map_add(cost, leaf.folio, 1, ENTIRE, -leaf.count)
        tables.ref_add(cost, leaf.folio, -leaf.count)

    return table(
        "by_ctypes",
        "head_per_leaf by ctypes",
        leaf_install=leaf_install,
        leaf_remove=leaf_remove,
        page_mapcount=lambda options, folio, page: 0,
        answer_folio=lambda options, folio, answer: None,
    )


def by_cffi(library):
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(tables.CDEF)
    ffi.cdef("extern hgm_scheme own_table;")
    return ffi.dlopen(str(library)).own_table


def by_numba():
    pytest.importorskip("numba")
    path = Path(__file__).parent.parent / "examples/own_scheme_numba.py"
    spec = importlib.util.spec_from_file_location("own_scheme_numba", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.by_numba


@pytest.fixture(scope="module")
def scheme(request, library, tmp_path_factory):
    """A scheme by the name of its door."""
    return {
        "compiled": lambda: compiled(tmp_path_factory.mktemp("compiled")),
        "C": lambda: Table.in_dll(ctypes.CDLL(str(library)), "own_table"),
        "cffi": lambda: by_cffi(library),
        "numba": by_numba,
        "Python class": lambda: OwnClass,
        "ctypes, Python": by_ctypes,
    }[request.param]()


@pytest.mark.parametrize(
    "scheme, column",
    [(door, column) for door in GOALS for column in WORK if "ctypes" not in door or column == "seq"],
    indirect=["scheme"],
)
def test_a_door_beside_the_built_in_scheme(benchmark, request, scheme, column):
    work, door = WORK[column], request.node.callspec.params["scheme"]
    engine = load(scheme)

    def place():
        guests = [Guest(one, **work.options) for one in (engine, "head_per_leaf")]

        def side(guest):
            work.before(guest)
            return guest.machine.run(work.operations) / (1 << 18)

        return tuple(lambda guest=guest: side(guest) for guest in guests)

    row = take_turns(benchmark, place)
    goal = PYTHON / row["roofline"] if door == "Python class" else GOALS[door]
    benchmark.extra_info.update(
        door=door,
        work=work.name,
        ns=row["ns"],
        built_in=row["roofline"],
        times=row["ratio"],
        goal=goal if column == "seq" else None,
    )

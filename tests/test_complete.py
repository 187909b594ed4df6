"""Every scheme and operation has all its parts; a test that fails names the missing part."""

import os
import re
from pathlib import Path

import pytest
from built import outdated
from model import SCHEMES, Model

import hgmcore as hgm
from hgmcore.schemes import NAMES, load
from hgmcore.trace.statements import CODES

ROOT = Path(__file__).parent.parent
FIELDS = ("Claim", "From", "State", "Rule", "Costs", "Known to be wrong", "Right")
DECLARATIONS = {"file", "fail", "observe", "phase"}    # statements that no machine executes


def text(*paths):
    return "\n".join(path.read_text() for path in paths)


def missing_of_scheme(name):
    rooflines = text(*sorted((ROOT / "bench").glob("roofline*.c")))
    if not (ROOT / f"hgmcore/schemes/{name}.pyx").exists():
        yield f"hgmcore/schemes/{name}.pyx"
    if name not in SCHEMES:
        yield "its model in tests/model/schemes"
    if not re.search(rf"SCHEME\({name},|^uint64_t {name}\(world", rooflines, re.MULTILINE):
        yield "its roofline in bench/roofline.c"
    if not re.search(rf"^{name} +(\.|\d+[fd!]) ", (ROOT / "README.md").read_text(), re.MULTILINE):
        yield "its row in the matrix of README.md (hgmcore check all)"


def families(name):
    """Whether hugetlb does the operation, and whether shmem and anonymous memory do, by the row in dispatch.pxd."""
    table = (ROOT / "hgmcore/operations/dispatch.pxd").read_text()
    row = re.search(rf"HGM_OP_{name.upper()}\b[^\n]*:\n *return row\(\w+, \w+, ([\w.]+), ([\w.]+)\)", table)
    return [does != "unsupported" for does in row.groups()] if row else [True, True]


def missing_of_operation(name):
    if f"HGM_OP_{name.upper()}" not in text(ROOT / "hgmcore/include/hgmcore/hgm.h"):
        yield "its code in hgm.h"
    if f"HGM_OP_{name.upper()}" not in (ROOT / "hgmcore/hgm.pxd").read_text():
        yield "its code in hgm.pxd"
    if name in DECLARATIONS:
        return
    if f"HGM_OP_{name.upper()}:" not in (ROOT / "hgmcore/operations/dispatch.pxd").read_text().replace(" or", ":"):
        yield "its row in hgmcore/operations/dispatch.pxd"
    if f'"{name}"' not in text(ROOT / "hgmcore/api.py", *sorted((ROOT / "hgmcore/parts").glob("*.py"))):
        yield "its method in hgmcore/parts or api.py"
    if not re.search(rf"[\"'(]{name}[\"' ]", text(*sorted((ROOT / "tests/model").glob("*.py"))) + model_methods()):
        yield "its model in tests/model"
    for does, file in zip(families(name), ("tests/sequences.py", "tests/test_model_thp.py")):
        if does and not re.search(rf"\b{name} |\"{name}\"", (ROOT / file).read_text()):
            yield f"random sequences with it, in {file}"


def model_methods():
    return " ".join(f'"{name.strip("_").removeprefix("do_")}"' for name in dir(Model))


@pytest.mark.parametrize("name", NAMES)
def test_a_scheme_has_all_its_parts(name):
    lacking = "; ".join(missing_of_scheme(name))
    assert not lacking, f"of scheme {name} (CONTRIBUTING.md, A scheme)"


@pytest.mark.parametrize("name", NAMES)
def test_a_scheme_explains_itself(name):
    lacking = [field for field in FIELDS if f"\n{field}: " not in load(name).explanation]
    assert not lacking, f"the docstring of schemes/{name}.pyx lacks these"


@pytest.mark.parametrize("name", CODES)
def test_an_operation_has_all_its_parts(name):
    lacking = "; ".join(missing_of_operation(name))
    assert not lacking, f"of operation {name} (CONTRIBUTING.md, An operation)"


def test_no_scheme_is_left_out():
    files = {path.stem for path in (ROOT / "hgmcore/schemes").glob("*.pyx")}
    assert files == set(NAMES), "hgmcore/schemes/__init__.py, NAMES"
    assert set(SCHEMES) == set(NAMES), "tests/model/schemes/__init__.py"
    assert f" {len(NAMES)} ways of counting\n" in (ROOT / "README.md").read_text(), "README.md, first paragraph"


def test_what_is_missing_is_named():
    assert len(list(missing_of_scheme("no_such_scheme"))) == 4
    assert len(list(missing_of_operation("no_such_operation"))) == 7


def test_the_glossary_ships():
    glossary = (Path(hgm.__file__).parent / "report/glossary.md").read_text()
    words = {cell.strip() for line in glossary.splitlines() if line.startswith("| ")
             for cell in line.split("|")[1].split(",")}
    assert words >= {"folio", "leaf", "piece", "subtree", "HVO", "HGM", "refcount", "mapcount", "entire mapcount"}


def test_engines_older_than_their_sources_are_named(tmp_path):
    for name in ("operations/dispatch.pxd", "schemes/new.pyx", "schemes/old.pyx", "schemes/own.pyx",
                 "schemes/new.cpython.so", "schemes/old.cpython.so", "schemes/own.cpython.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (2, 2))
    os.utime(tmp_path / "schemes/old.cpython.so", (1, 1))
    os.utime(tmp_path / "schemes/own.pyx", (3, 3))
    assert outdated(tmp_path) == ["old", "own"]

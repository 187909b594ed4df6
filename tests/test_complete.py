"""Every scheme and operation has all its parts; a test that fails names the missing part."""

import re
from pathlib import Path

import pytest
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
    rows = [line for line in (ROOT / "bench/README.md").read_text().splitlines() if re.match(rf"{name} *\d", line)]
    if not (ROOT / f"hgmcore/schemes/{name}.pyx").exists():
        yield f"hgmcore/schemes/{name}.pyx"
    if name not in SCHEMES:
        yield "its model in tests/model/schemes"
    if not re.search(rf"SCHEME\({name},|^uint64_t {name}\(world", rooflines, re.MULTILINE):
        yield "its roofline in bench/roofline.c"
    if name != "hugetlb" and len(rows) < 2:    # hugetlb has no pieces, and so no column of the short table
        yield "its rows in the two tables of bench/README.md"


def missing_of_operation(name):
    core = text(*sorted((ROOT / "hgmcore").rglob("*.pxd")))
    if f"HGM_OP_{name.upper()}" not in text(ROOT / "hgmcore/include/hgmcore/hgm.h"):
        yield "its code in hgm.h"
    if f"HGM_OP_{name.upper()}" not in (ROOT / "hgmcore/hgm.pxd").read_text():
        yield "its code in hgm.pxd"
    if name in DECLARATIONS:
        return
    if len(re.findall(rf"\bHGM_OP_{name.upper()}\b", core)) < 2:    # hgm.pxd, and who does it
        yield "what does it, in hgmcore/operations"
    if not re.search(rf"[\"'(]{name}[\"' ]", text(*sorted((ROOT / "tests/model").glob("*.py"))) + model_methods()):
        yield "its model in tests/model"
    if not re.search(rf"\b{name} |\"{name}\"", text(ROOT / "tests/sequences.py")):
        yield "random sequences with it, in tests/sequences.py"


def model_methods():
    return " ".join(f'"{name.strip("_").removeprefix("do_")}"' for name in dir(Model))


@pytest.mark.parametrize("name", NAMES)
def test_a_scheme_has_all_its_parts(name):
    assert not list(missing_of_scheme(name)), f"scheme {name} lacks this (CONTRIBUTING.md, A scheme)"


@pytest.mark.parametrize("name", NAMES)
def test_a_scheme_explains_itself(name):
    lacking = [field for field in FIELDS if f"\n{field}: " not in load(name).explanation]
    assert not lacking, f"the docstring of schemes/{name}.pyx lacks these"


@pytest.mark.parametrize("name", CODES)
def test_an_operation_has_all_its_parts(name):
    assert not list(missing_of_operation(name)), f"operation {name} lacks this (CONTRIBUTING.md, An operation)"


def test_no_scheme_is_left_out():
    files = {path.stem for path in (ROOT / "hgmcore/schemes").glob("*.pyx")}
    assert files == set(NAMES), "hgmcore/schemes/__init__.py, NAMES"
    assert set(SCHEMES) == set(NAMES), "tests/model/schemes/__init__.py"


def test_what_is_missing_is_named():
    assert len(list(missing_of_scheme("no_such_scheme"))) == 4
    assert len(list(missing_of_operation("no_such_operation"))) == 5


def test_the_glossary_ships():
    glossary = (Path(hgm.__file__).parent / "report/glossary.md").read_text()
    words = {cell.strip() for line in glossary.splitlines() if line.startswith("| ")
             for cell in line.split("|")[1].split(",")}
    assert words >= {"folio", "leaf", "piece", "subtree", "HVO", "HGM", "refcount", "mapcount", "entire mapcount"}

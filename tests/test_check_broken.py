"""Schemes that are broken on purpose: a search finds each fault, with a trace of exactly the shortest length."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hgmcore as hgm
from hgmcore.explore.check import Checked
from hgmcore.explore.properties import PROPERTIES
from hgmcore.explore.scopes import find
from hgmcore.schemes import load

PACKAGE = Path(hgm.__file__).parent
SCHEME, CONTINUE = "schemes/head_per_leaf.pyx", "operations/hugetlb/uffd_continue.pxd"
MAP, REF = (
    "    compound_add(cost, leaf.folio, -<int32_t>leaf.count)\n",
    "    hgm_ref_add(cost, leaf.folio, -<int32_t>leaf.count)\n",
)
INSTALL = "    compound_add(cost, leaf.folio, <int32_t>leaf.count)\n"
PUT = "        look_up_and_put(m, &m.context.cost, h.folio)\n        return EIO if"

# What is changed, (file, text, other text), and what comes of it: property -> length.
BROKEN = {
    "collapse does not take back what pieces counted": (
        SCHEME,
        MAP,
        "    if leaf.origin != HGM_BY_COLLAPSE:\n    " + MAP,
        {"RE": 3, "ML": 4, "MS": 4, "CB": 10},
    ),
    "a fault counts twice": (
        SCHEME,
        INSTALL,
        "    if leaf.origin == HGM_BY_FAULT:\n    " + INSTALL + INSTALL,
        {"RE": 1, "PC": 1, "FS": 1, "ML": 2, "MS": 2, "MP": 2, "CB": 9},
    ),
    "a continue that finds its page mapped keeps the reference of its look-up": (
        CONTINUE,
        PUT,
        "        hgm_plain_add(h.folio, 1)\n        return EIO if",
        {"RC": 2, "RE": 2, "LK": 3, "TC": 3, "MS": 3, "CB": 9},
    ),
    "truncate forgets the reference of a whole leaf": (
        SCHEME,
        REF,
        "    if not (leaf.whole and leaf.origin == HGM_BY_TRUNCATE):\n    " + REF,
        {"LK": 2, "TC": 2},
    ),
}

SETUP = """
import os
from Cython.Build import cythonize
from setuptools import Extension, setup

names = sorted(name for name in os.listdir() if name.startswith("broken"))
setup(ext_modules=[module for name in names for module in cythonize(
          [Extension(name, [f"{name}/{name}.pyx"], include_dirs=[f"{name}/hgmcore/include"],
                     extra_compile_args=["-O0", "-g0", "-w"])],
          include_path=[name])],
      options={"build_ext": {"parallel": 2}})
"""


def copied(directory, name, file, text, other):
    """The core's sources with one change, and head_per_leaf as module `name` of them."""
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".pxd", ".h") or path.name == "__init__.py" or path == PACKAGE / SCHEME:
            target = directory / name / "hgmcore" / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    changed = directory / name / "hgmcore" / file
    source = changed.read_text()
    assert source.count(text) == 1, f"{file} has no longer one line to break"
    changed.write_text(source.replace(text, other))
    shutil.move(directory / name / "hgmcore" / SCHEME, directory / name / f"{name}.pyx")


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    directory = tmp_path_factory.mktemp("broken")
    for i, (file, text, other, _) in enumerate(BROKEN.values()):
        copied(directory, f"broken{i}", file, text, other)
    (directory / "setup.py").write_text(SETUP)
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=directory,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr[-3000:]
    found = {}
    for i, fault in enumerate(BROKEN):
        path = next(directory.glob(f"broken{i}.*.so"))
        spec = importlib.util.spec_from_file_location(f"broken{i}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[fault] = module.engine
    return found


def lengths(engine):
    checked = Checked(engine, find("pair")).run()
    assert checked.ended == "closed"
    return {prop.key: len(checked.trace(prop.name)) for prop in PROPERTIES if checked.verdict(prop) == "violated"}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_by_its_shortest_trace(engines, fault):
    whole, broken = lengths(load("head_per_leaf")), lengths(engines[fault])
    news = {key: length for key, length in broken.items() if length < whole.get(key, 99)}
    assert news == BROKEN[fault][3]

"""Engines with one change in the sources, built for a test."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hgmcore as hgm
from hgmcore.explore.check import Checked
from hgmcore.explore.properties import PROPERTIES
from hgmcore.explore.scopes import find
from hgmcore.schemes import load

PACKAGE = Path(hgm.__file__).parent
SCHEME = "schemes/head_per_leaf.pyx"

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


def copied(directory, name, scheme, file, text, other):
    """The core's sources with one change, and a scheme as module `name` of them."""
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".pxd", ".h") or path.name == "__init__.py" or path == PACKAGE / scheme:
            target = directory / name / "hgmcore" / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    changed = directory / name / "hgmcore" / file
    source = changed.read_text()
    assert source.count(text) == 1, f"{file} has no longer one line to break"
    changed.write_text(source.replace(text, other))
    shutil.move(directory / name / "hgmcore" / scheme, directory / name / f"{name}.pyx")


def built(directory, changes, scheme=SCHEME):
    """{fault: engine of the scheme}; changes: fault -> (file, text, other text, ..)."""
    for i, (file, text, other, *_) in enumerate(changes.values()):
        copied(directory, f"broken{i}", scheme, file, text, other)
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
    for i, fault in enumerate(changes):
        path = next(directory.glob(f"broken{i}.*.so"))
        spec = importlib.util.spec_from_file_location(f"broken{i}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[fault] = module.engine
    return found


def lengths(engine):
    """Of each property that the scope pair breaks, the length of its shortest trace, which is replayed."""
    checked = Checked(engine, find("pair")).run()
    assert checked.ended == "closed"
    return {prop.key: len(checked.trace(prop.name)) for prop in PROPERTIES if checked.verdict(prop) == "violated"}


def news(engine):
    """What an engine breaks sooner than head_per_leaf as it is."""
    whole = lengths(load("head_per_leaf"))
    return {key: length for key, length in lengths(engine).items() if length < whole.get(key, 99)}

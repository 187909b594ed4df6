"""Builds the compiled core: seven modules, and one engine for each accounting scheme."""

import ast
import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
SCHEMES = next(
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "hgmcore/schemes/__init__.py").read_text()).body
    if isinstance(node, ast.Assign) and node.targets[0].id == "NAMES"
)
# HGMCORE_SCHEMES=mm_id,subtree builds these alone, for work on one scheme in place; an install has all.
SCHEMES = [name for name in SCHEMES if name in os.environ.get("HGMCORE_SCHEMES", ",".join(SCHEMES)).split(",")]
MODULES = ["core.core", "core.machine", "core.records", "core.snapshot", "core.truth", "core.view", "explore.search",
           *(f"schemes.{name}" for name in SCHEMES)]


def extension(module):
    return Extension(
        f"hgmcore.{module}",
        [f"hgmcore/{module.replace('.', '/')}.pyx"],
        include_dirs=["hgmcore/include"],
        depends=[str(path.relative_to(ROOT)) for path in (ROOT / "hgmcore/include/hgmcore").glob("*.h")],
        # alignment: a loop of a few instructions takes twice as long where it lies across a border; growth: else what
        # is long and seldom runs takes the room for inlining from what the loops over base pages call
        extra_compile_args=["-O3", "-g0", "-Wno-unused-function", "-Wno-attributes", "-falign-loops=32",
                            "--param=inline-unit-growth=200"],
    )


PARALLEL = os.cpu_count() or 1

setup(ext_modules=cythonize([extension(module) for module in MODULES], nthreads=PARALLEL, build_dir="build/cython"),
      options={"build_ext": {"parallel": PARALLEL}})

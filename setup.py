"""Builds the compiled core: nine modules, and two engines for each scheme, a fast one and one that counts events."""

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
MODULES = ["core.core", "core.events", "core.machine", "core.records", "core.snapshot", "core.truth", "core.view",
           "explore.search", "model.loops",
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
CYTHON = "build/cython"


def counting(name):
    """The engine of a scheme that counts events: the same C file under another name, compiled to be small."""
    source, target = (Path(CYTHON) / f"hgmcore/{place}/{name}.c" for place in ("schemes", "counting"))
    text = source.read_text(encoding="utf-8").replace(f"hgmcore.schemes.{name}", f"hgmcore.counting.{name}")
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    found = extension(f"schemes.{name}")
    found.name, found.sources = f"hgmcore.counting.{name}", [str(target)]
    found.define_macros = [("HGM_COUNTING", "1")]
    found.extra_compile_args = ["-O1", "-g0", "-Wno-unused-function", "-Wno-attributes"]
    return found


os.chdir(ROOT)
FAST = cythonize([extension(module) for module in MODULES], nthreads=PARALLEL, build_dir=CYTHON)
setup(ext_modules=[*FAST, *(counting(name) for name in SCHEMES)], options={"build_ext": {"parallel": PARALLEL}})

"""Builds the compiled core, and each scheme's engine four times: to be timed, to count, to count events, for races."""

import ast
import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SCHEMES = next(
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "hgmcore/schemes/__init__.py").read_text()).body
    if isinstance(node, ast.Assign) and node.targets[0].id == "NAMES"
)
# HGMCORE_SCHEMES=mm_id,subtree builds these alone, for work on one scheme in place; an install has all.
SCHEMES = [name for name in SCHEMES if name in os.environ.get("HGMCORE_SCHEMES", ",".join(SCHEMES)).split(",")]
PACKAGE = ROOT / "hgmcore"
MODULES = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.pyx"))
           if path.parent.name != "schemes" or path.stem in SCHEMES]

# HGMCORE_ABI3=3.12 makes one wheel for that Python and all later ones by the limited API; bench/README.md has its cost.
ABI3 = os.environ.get("HGMCORE_ABI3", "")
LIMITED = [("Py_LIMITED_API", f"0x03{int(ABI3.split('.')[1]):02X}0000")] if ABI3 else []
# HGMCORE_FREE_THREADING=1 declares that no module needs the GIL; tests/test_free_threading.py shows whether that holds.
DIRECTIVES = {"freethreading_compatible": True} if os.environ.get("HGMCORE_FREE_THREADING") else {}


def extension(module):
    return Extension(
        f"hgmcore.{module}",
        [f"hgmcore/{module.replace('.', '/')}.pyx"],
        include_dirs=["hgmcore/include"],
        define_macros=LIMITED,
        py_limited_api=bool(ABI3),
        depends=[str(path.relative_to(ROOT)) for path in (ROOT / "hgmcore/include/hgmcore").glob("*.h")],
        # alignment: a loop of a few instructions takes twice as long where it lies across a border; growth: else what
        # is long and seldom runs takes the room for inlining from what the loops over base pages call
        extra_compile_args=["-O3", "-g0", "-Wno-unused-function", "-Wno-attributes", "-falign-loops=32",
                            "--param=inline-unit-growth=200"],
    )


PARALLEL = os.cpu_count() or 1
CYTHON = "build/cython"


def counting(name):
    """The engine of a scheme that counts without atomics: its C file renamed."""
    found = extension(f"schemes.{name}")
    found.name = f"hgmcore.counting.{name}"
    found.define_macros = [*LIMITED, ("HGM_ALONE", "1")]
    return found


def eventful(name):
    """The engine of a scheme that counts events, too."""
    found = counting(name)
    found.name = f"hgmcore.counting.eventful.{name}"
    found.define_macros.append(("HGM_COUNTING", "1"))
    found.extra_compile_args = ["-O1", "-g0", "-Wno-unused-function", "-Wno-attributes"]
    return found


def racing(name):
    """The engine of a scheme that a search of races can cut (hgmcore/include/hgmcore/races.h)."""
    found = eventful(name)
    found.name = f"hgmcore.explore.racing.{name}"
    found.define_macros = [*LIMITED, ("HGM_RACES", "1")]
    return found


def renamed(source, module):
    """A copy of a scheme's C file for another engine of it, `module`; returns the path of the copy."""
    name = Path(source).stem
    target = Path(CYTHON) / f"{module.replace('.', '/')}.c"
    text = Path(source).read_text(encoding="utf-8").replace(f"hgmcore.schemes.{name}", module)
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return str(target)


class BuildExtensions(build_ext):
    """Makes C files of .pyx files where modules are built: an sdist and a package's metadata need none."""

    def run(self):
        made = cythonize([extension(module) for module in MODULES], nthreads=PARALLEL, build_dir=CYTHON,
                         compiler_directives=DIRECTIVES)
        sources = {one.name: one.sources for one in made}
        for one in self.extensions:
            scheme = re.sub(r"\.(counting\.eventful|counting|explore\.racing)\.", ".schemes.", one.name)
            one.sources = sources[scheme] if scheme == one.name else [renamed(sources[scheme][0], one.name)]
        super().run()


os.chdir(ROOT)
setup(ext_modules=[*(extension(module) for module in MODULES), *(counting(name) for name in SCHEMES),
                   *(eventful(name) for name in SCHEMES),
                   *(racing(name) for name in SCHEMES)],
      cmdclass={"build_ext": BuildExtensions},
      options={"build_ext": {"parallel": PARALLEL},
               # an editable install puts the tree on the path, where Cython finds the .pxd files that others cimport
               "editable_wheel": {"mode": "compat"},
               "bdist_wheel": {"py_limited_api": f"cp{ABI3.replace('.', '')}"} if ABI3 else {}})

"""What an sdist has, how long an import takes, and what an install asks for."""

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_an_sdist_has_all_that_a_build_and_the_tests_need(tmp_path):
    pytest.importorskip("Cython")
    done = subprocess.run([sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [path for folder in ("hgmcore", "tests", "bench", "examples") for path in (ROOT / folder).rglob("*")
              if path.suffix in (".py", ".pyx", ".pxd", ".h", ".c", ".md", ".toml", ".hgm", ".parquet", ".bt", ".xz")]
    wanted = {str(path.relative_to(ROOT)) for path in wanted if not re.search(r"__pycache__|/build/", str(path))}
    assert len(wanted) > 300 and not wanted - there
    assert not [name for name in there if name.endswith((".so", ".pyc"))]


def test_an_install_needs_numpy_alone():
    assert [re.match(r"[\w-]+", one)[0] for one in PROJECT["project"]["dependencies"]] == ["numpy"]
    lean = ("import sys; sys.modules.update(dict.fromkeys(['click', 'matplotlib', 'pyarrow', 'rich', 'cffi', 'numba', "
            "'Cython', 'pandas', 'distributed'])); import hgmcore as hgm; m = hgm.Machine('mm_id'); "
            "m.process('A').mmap(m.file('F', '2M', 1, populate=True), minor=True, hgm=True).uffd_continue(0, '4K'); "
            "m.observe(), m.ctypes, m.capsule")
    done = subprocess.run([sys.executable, "-c", lean], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_import_takes_little_more_than_numpy():
    def seconds(module):
        """Of CPU, for the import of a module into a new Python; the least of some."""
        code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
        return min(float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
                   for _ in range(5))

    alone, all_of_it = seconds("numpy"), seconds("hgmcore")
    assert all_of_it < 4 * alone, f"hgmcore {all_of_it:.3f} s, NumPy alone {alone:.3f} s"


def test_wheels_are_configured_for_both_libcs_and_processors():
    linux = PROJECT["tool"]["cibuildwheel"]["linux"]
    assert linux["archs"] == ["x86_64", "aarch64"]
    assert {key for key in linux if key.endswith("image")} == {
        f"{libc}-{arch}-image" for libc in ("manylinux", "musllinux") for arch in linux["archs"]}

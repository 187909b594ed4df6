"""A scheme of somebody else, compiled against what the package ships, runs as the built-in ones do."""

import os
import subprocess
import sys
from pathlib import Path

import hgmcore as hgm

# Counts a whole huge page's mappings in _large_mapcount, two for each leaf; no use but to be told apart.
SCHEME = '''# cython: language_level=3
"""Two for each leaf"""
cdef extern from *:
    """
    #define HGM_NEEDS 0
    """

from hgmcore.engine cimport instantiate
from hgmcore.scheme cimport *

cdef inline int leaf_install "hgm_leaf_install"(hgm_cost *cost, const hgm_options *options,
                                                const hgm_leaf *leaf) noexcept nogil:
    hgm_map_add(cost, &leaf.folio.page[1], &leaf.folio.page[1]._large_mapcount, 2)
    return 0

cdef inline void leaf_remove "hgm_leaf_remove"(hgm_cost *cost, const hgm_options *options,
                                               const hgm_leaf *leaf) noexcept nogil:
    hgm_map_add(cost, &leaf.folio.page[1], &leaf.folio.page[1]._large_mapcount, -2)

cdef inline int64_t page_mapcount "hgm_page_mapcount"(const hgm_options *options, const hgm_folio *folio,
                                                      uint64_t page) noexcept nogil:
    return folio.page[1]._large_mapcount

cdef inline void answer_folio "hgm_answer_folio"(const hgm_options *options, const hgm_folio *folio,
                                                 hgm_answer *answer) noexcept nogil:
    answer.mapcount = folio.page[1]._large_mapcount
    answer.mapped = answer.mapcount > 0

engine = instantiate("twice", __doc__, {"large": "_large_mapcount"}, {}, {}, {})
'''

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

import hgmcore

setup(name="twice", ext_modules=cythonize(
    [Extension("twice", ["twice.pyx"], include_dirs=[hgmcore.get_include()], extra_compile_args=["-O1"])],
    include_path=[{root!r}]))
"""


def test_a_scheme_compiled_elsewhere(tmp_path, monkeypatch):
    root = str(Path(hgm.__file__).parent.parent)
    (tmp_path / "twice.pyx").write_text(SCHEME)
    (tmp_path / "setup.py").write_text(SETUP.format(root=root))
    build = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tmp_path,
                           env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    monkeypatch.syspath_prepend(tmp_path)
    import twice

    machine = hgm.Machine(twice.engine)
    file = machine.file("F", "2M", 1, populate=True)
    mapping = machine.process("A").mmap(file, minor=True, hgm=True)
    mapping.uffd_continue(0, "12K")
    folio = machine.observe()["folios"][0]
    assert (folio["mapcount"], folio["refcount"], folio["state"]) == (6, 1, {"large": 6})
    assert machine.cost()["atomics"] == {"persistent": 3, "transient": 6, "ref": 0, "map": 3}
    mapping.dontneed(0, "12K")
    assert machine.observe()["folios"][0]["mapcount"] == 0

"""A scheme of somebody else, compiled against what the package ships, runs as the built-in ones do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hgmcore as hgm

EXAMPLE = Path(__file__).parent.parent / "examples/own_scheme"
ROOT = str(Path(hgm.__file__).parent.parent)


def run(folder, *arguments):
    """A Python program in `folder`, with what it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, str(folder)])})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example's files and what its setup.py builds of them."""
    folder = tmp_path_factory.mktemp("own_scheme")
    for name in "setup.py", "twice.pyx", "run.py":
        shutil.copy(EXAMPLE / name, folder)
    run(folder, "setup.py", "-q", "build_ext", "--inplace")
    return folder


def test_the_example_runs(folder):
    assert run(folder, "run.py") == "mapcount 6\natomics 3\n"


def test_a_scheme_compiled_elsewhere(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
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

"""Each program of examples/ prints the output that its own text promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hgmcore

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTED = {
    "observe": "mapcount 1000, mappings 1\n",
    "workload": "head_per_leaf {'persistent': 1048578, 'transient': 0, 'ref': 524289, 'map': 524289}\n"
                "logical_counter {'persistent': 2, 'transient': 524288, 'ref': 1, 'map': 1}\n",
    "by_hand": "head_per_leaf [] 512\nsubtree ['refs_not_explained'] 510\nlogical_counter [] 510\n",
    "trial": "before 16\nin the trial 8\nbehind the trial 16\ncollapsed 1 the clone 16\nrestored 16\n",
    "recording": "2269 operations\ntouch 2067\nexit 96\nfork 95\n",
    "plot": "comparison.svg drawn\n",
    "own_scheme_python": "mapcount 32, shared True, state {'compound': 32, 'processes': 3}\n",
    "own_scheme_c": "{'compound': 4, 'most': 16}\n",
    "own_scheme_cffi": "{'compound': 16, 'most': 16}\n",
    "own_scheme_numba": "mapcount 16\n",
}
NEEDS = {"own_scheme_cffi": "cffi", "own_scheme_numba": "numba"}


def run(*arguments, cwd):
    """The output of a Python program."""
    root = str(Path(hgmcore.__file__).parent.parent)
    path = os.pathsep.join([root, str(cwd)])
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_example(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert run(EXAMPLES / f"{name}.py", cwd=tmp_path).endswith(PRINTED[name])


def test_every_example_runs():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)

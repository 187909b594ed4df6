"""Types: checkers accept what users write and refuse what is wrong, and stubs say what compiled modules have."""

import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hgmcore as hgm

ROOT = Path(__file__).parent.parent
USES = ROOT / "tests/typing/uses.py"
STUBBED = ("hgmcore.core", "hgmcore.explore.search", "hgmcore.explore.races", "hgmcore.model.loops",
           "hgmcore.own.callbacks", "hgmcore.own.python", "hgmcore.parts")
needs_mypy = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
PYRIGHT = next(filter(None, map(shutil.which, ("pyright", "basedpyright"))), None)


def refused():
    return {i for i, line in enumerate(USES.read_text().splitlines(), 1) if line.endswith("# refused")}


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@needs_mypy
def test_mypy_refuses_the_lines_that_are_wrong_and_no_others(tmp_path_factory):
    cache = tmp_path_factory.getbasetemp().parent / "mypy"    # one for all workers
    done = run(sys.executable, "-m", "mypy", f"--cache-dir={cache}", str(USES))
    found = {int(line) for line in re.findall(r"uses\.py:(\d+): error", done.stdout)}
    assert found == refused(), done.stdout + done.stderr


@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed")
def test_pyright_refuses_the_same_lines():
    done = run(PYRIGHT, "--outputjson", f"--pythonpath={sys.executable}", str(USES))
    found = {one["range"]["start"]["line"] + 1 for one in json.loads(done.stdout)["generalDiagnostics"]
             if one["severity"] == "error"}
    assert found == refused(), done.stdout


@needs_mypy
def test_stubs_are_true():
    done = run(sys.executable, "-m", "mypy.stubtest", *STUBBED, "--mypy-config-file=pyproject.toml", "--concise",
               "--ignore-disjoint-bases", "--allowlist=tests/typing/stubtest.txt", "--ignore-unused-allowlist")
    assert done.returncode == 0, done.stdout + done.stderr


def public():
    """Yield (name, function) of all that `hgmcore` shows, with the methods of what machines are made of."""
    for name in hgm.__all__:
        value = getattr(hgm, name)
        if inspect.isclass(value):
            continue
        if callable(value):
            yield name, value
    for cls in (hgm.Machine, hgm.OperationError, hgm.Trace, *(getattr(hgm.api, name) for name in hgm.api.__all__)):
        for name, value in inspect.getmembers(cls):
            function = value.fget if isinstance(value, property) else value
            if inspect.isfunction(function) and (not name.startswith("_") or name == "__init__") and (
                    function.__module__.startswith("hgmcore")):
                yield f"{cls.__name__}.{name}", function
    for name in hgm.workloads.NAMES:
        yield f"workloads.{name}", getattr(hgm.workloads, name)


@pytest.mark.parametrize("name", dict(public()))
def test_every_parameter_and_result_has_a_type(name):
    signature = inspect.signature(dict(public())[name])
    lacking = [one.name for one in signature.parameters.values()
               if one.annotation is one.empty and one.name not in ("self", "cls")]
    assert not lacking and signature.return_annotation is not signature.empty, name

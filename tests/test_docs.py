"""Every code block of the documents runs, and every example in a docstring.

A document is Markdown; a block in it is of Python, of the shell (sh), a trace (its first line says so), or output that
is shown and does not run. Blocks of Python of one document run one after another; each block of the shell runs in a
directory of its own, which has the document's trace as small.hgm. `<!-- not run: REASON -->` before a block leaves it
out.
"""

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import hgmcore

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = re.compile(r"<!-- (not run: .+|test command) -->")
MODULES = ["hgmcore.api", "hgmcore.errnos", "hgmcore.inputs", "hgmcore.replay", "hgmcore.steps", "hgmcore.trace.trace",
           "hgmcore.analysis.compare", "hgmcore.schemes",
           *(f"hgmcore.parts.{one.name}" for one in pkgutil.iter_modules([str(ROOT / "hgmcore/parts")]))]


class Block(NamedTuple):
    document: Path
    number: int
    language: str
    text: str
    left_out: bool


def blocks(document):
    """The blocks of a document, numbered; of those that show output nothing is kept."""
    lines = document.read_text().splitlines()
    found, at = [], 0
    while at < len(lines):
        match = re.fullmatch(r"( *)```([\w{}-]*)", lines[at])
        if not match:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i] == f"{match[1]}```")
        before = next((line for line in reversed(lines[:at]) if line.strip()), "")
        text = "\n".join(line.removeprefix(match[1]) for line in lines[at + 1:end]) + "\n"
        language = "trace" if text.startswith("hgmcore-trace 1") else match[2]
        found.append(Block(document, at + 1, language, text, bool(NOT_RUN.fullmatch(before.strip()))))
        at = end + 1
    return found


ALL = [block for document in DOCUMENTS for block in blocks(document)]


def small(document):
    """The first trace of a document, or that of README."""
    return next(block.text for name in (document, DOCUMENTS[0]) for block in blocks(name) if block.language == "trace")


@pytest.fixture
def place(tmp_path):
    """Makes a directory as a reader of a document has it."""
    def made(document):
        (tmp_path / "small.hgm").write_text(small(document))
        shutil.copy(ROOT / "tests/data/qemu-postcopy_4k.qemutrace", tmp_path / "guest.log")
        return tmp_path
    return made


def of(language):
    return [pytest.param(block, id=f"{block.document.name}:{block.number}") for block in ALL
            if block.language == language and not block.left_out]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_python_blocks(document, place, monkeypatch):
    monkeypatch.chdir(place(document))
    names = {}
    for block in blocks(document):
        if block.language == "python" and not block.left_out:
            exec(compile("\n" * block.number + block.text, str(document), "exec"), names)


@pytest.mark.parametrize("block", of("sh"))
def test_shell_blocks(block, place):
    folder = place(block.document)
    scripts = folder / "bin"
    scripts.mkdir()
    (scripts / "hgmcore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hgmcore "$@"\n')
    (scripts / "hgmcore").chmod(0o755)
    (scripts / "python").symlink_to(sys.executable)
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    # status 1 says that `check` found what it looks for; a program that failed says so on standard error
    guard = "trap 'status=$?; [ $status -le 1 ] || exit $status' ERR\n"
    done = subprocess.run(["bash", "-uc", guard + block.text + "\ntrue\n"], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PATH": path})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "not found" not in done.stderr, done.stderr


@pytest.mark.parametrize("block", of("trace"))
def test_traces(block):
    assert len(hgmcore.Trace.parse(block.text, str(block.document)))


def test_blocks_are_of_a_kind_that_is_known():
    known = {"python", "sh", "trace", "", "text", "c", "cython", "toml", "{eval-rst}", "{toctree}", "{include}"}
    assert {block.language for block in ALL} <= known


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert not failed


def documented():
    """Where each function, class and method is that the reference shows, but for properties, and classes of handles."""
    functions = ["hgmcore.inputs.load", "hgmcore.analysis.compare.compare", "hgmcore.replay.replay",
                 "hgmcore.steps.replay_steps", "hgmcore.get_include"]
    classes = ["hgmcore.api.Machine", "hgmcore.parts.file.File", "hgmcore.parts.process.Process",
               "hgmcore.parts.mapping.Mapping", "hgmcore.trace.trace.Trace", "hgmcore.errnos.OperationError"]
    yield from functions
    for path in classes:
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        if not path.startswith("hgmcore.parts"):    # a program asks its machine for those
            yield path
        for one, value in inspect.getmembers(cls):
            if not one.startswith("_") and inspect.isroutine(value) and (
                    getattr(value, "__module__", "").startswith("hgmcore")):
                yield f"{path}.{one}"


@pytest.mark.parametrize("path", list(documented()))
def test_docstrings_have_all_that_numpydoc_asks_for(path):
    """Summary, each parameter with its type, what is returned, and no parameter that is not there."""
    found = pytest.importorskip("numpydoc.validate").validate(path)["errors"]
    asked = {"GL06", "GL07", "GL08", "SS01", "SS03", "PR01", "PR02", "PR03", "PR04", "PR07", "RT01", "RT03", "YD01"}
    assert not [error for error in found if error[0] in asked]

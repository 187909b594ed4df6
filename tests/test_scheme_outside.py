"""A scheme of somebody else, compiled against what the package ships, runs as the built-in ones do."""

import json
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


# -- by name

TRACE = "hgmcore-trace 1\nfile F 2M 1\npopulate F 0 1\nmmap A v F 0 2M shared minor hgm\ncontinue A v 0 12K\n"


@pytest.fixture
def installed(folder, tmp_path):
    """The environment of a process in which a package `twice-scheme` with an entry point is installed."""
    about = tmp_path / "site/twice_scheme-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: twice-scheme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hgmcore.schemes]\ntwice = twice:engine\n")
    (tmp_path / "t.hgm").write_text(TRACE)

    def command(*arguments, status=0):
        paths = os.pathsep.join([ROOT, str(folder), str(tmp_path / "site")])
        done = subprocess.run([sys.executable, "-m", "hgmcore", *arguments], cwd=tmp_path, capture_output=True,
                              text=True, env={**os.environ, "PYTHONPATH": paths})
        assert done.returncode == status, done.stderr
        return done.stderr if status == 2 else done.stdout
    command.points = about / "entry_points.txt"
    return command


def test_an_installed_package_offers_a_scheme(installed):
    assert "twice " in installed("schemes")
    assert "_large_mapcount" in installed("schemes", "twice")
    result = json.loads(installed("compare", "t.hgm", "--schemes", "all", "--repeat", "0", "--json", "-"))
    assert result["schemes"]["twice"]["cost"]["atomics"]["map"] == 3
    assert "large" in installed("step", "t.hgm", "--scheme", "twice")
    assert "twice breaks refs_explained" in installed("check", "twice", "--scope", "pair-small", status=1)


@pytest.mark.parametrize("line, reason", [
    ("twice = nowhere:engine", "scheme 'twice' of package 'twice-scheme' (nowhere:engine) does not load: "
                               "ModuleNotFoundError: No module named 'nowhere'"),
    ("twice = json:loads", "scheme 'twice' of package 'twice-scheme' (json:loads): a function is no scheme (an engine, "
                           "a class derived from hgmcore.Scheme, or a table of callbacks)"),
    ("thrice = twice:engine", "scheme 'thrice' of package 'twice-scheme' (twice:engine) calls itself 'twice'"),
])
def test_a_package_that_is_wrong_is_named(installed, line, reason):
    installed.points.write_text(f"[hgmcore.schemes]\n{line}\n")
    name = line.partition(" ")[0]
    assert installed("replay", "t.hgm", "--scheme", name, status=2) == f"hgmcore: error: {reason}\n"
    assert "subtree" in installed("replay", "t.hgm", "--scheme", "subtree")    # others are not affected


def test_a_file_defines_a_scheme(installed, tmp_path):
    installed.points.unlink()
    (tmp_path / "mine.py").write_text("from twice import engine\n")
    out = installed("compare", "t.hgm", "--scheme-file", "mine.py", "--schemes", "twice,mm_id", "--repeat", "0",
                    "--json", "-")
    assert set(json.loads(out)["schemes"]) == {"twice", "mm_id"}
    assert installed("check", "twice", "--scheme-file", "mine.py", "--races", status=2) == (
        "hgmcore: error: scheme 'twice': --races needs an engine that was compiled for races, which only the schemes "
        "of this package have; check it without --races\n")
    assert "unknown scheme 'twice'" in installed("compare", "t.hgm", "--schemes", "twice", status=2)


@pytest.mark.parametrize("text, reason", [
    ("1 / 0\n", "mine.py: ZeroDivisionError: division by zero"),
    ("x = 1\n", "mine.py: defines no scheme (at its top level: a class derived from hgmcore.Scheme, a table of "
                "callbacks, or an engine)"),
    (None, "mine.py: No such file or directory"),
])
def test_a_file_without_a_scheme_is_refused(installed, tmp_path, text, reason):
    if text:
        (tmp_path / "mine.py").write_text(text)
    assert installed("schemes", "--scheme-file", "mine.py", status=2) == f"hgmcore: error: {reason}\n"


def test_register_gives_a_name(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(hgm.schemes, "_registered", {})
    import twice

    assert hgm.register(twice.engine) is twice.engine
    assert hgm.replay(TRACE.splitlines(), "twice", observe_end=True)["observations"][-1]["folios"][0]["mapcount"] == 6
    assert "twice" in hgm.compare(TRACE.splitlines(), schemes="all", repeat=0)["schemes"]
    with pytest.raises(TypeError, match="a float is no scheme"):
        hgm.register(0.5)
    with pytest.raises(ValueError, match="the name 'mm_id' is that of a scheme that is built in"):
        hgm.register(hgm.schemes.load("mm_id"))

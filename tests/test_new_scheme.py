"""A package that `hgmcore new-scheme` writes builds without a network, passes its own test, and is known by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hgmcore as hgm
from hgmcore import scaffold

ROOT = str(Path(hgm.__file__).parent.parent)
MODES = """
#include <stdlib.h>
/* Which fault to show: of environment variable FAULT. */
static int fault(void) { const char *mode = getenv("FAULT"); return mode ? mode[0] : 0; }
"""


def run(arguments, folder, site=None, status=0, **environment):
    """What a program prints; `site`: where packages are installed."""
    paths = os.pathsep.join([ROOT, *([str(site)] if site else [])])
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status == 2 else done.stdout


def install(folder, site):
    run(
        [
            "pip",
            "install",
            "-q",
            "--no-build-isolation",
            "--no-deps",
            "--no-index",
            "--disable-pip-version-check",
            "--target",
            str(site),
            ".",
        ],
        folder,
    )


@pytest.fixture(scope="module", params=scaffold.KINDS)
def package(request, tmp_path_factory):
    """(kind, folder of the package, where it is installed)."""
    folder = tmp_path_factory.mktemp(request.param)
    out = run(["hgmcore", "new-scheme", "my_rule", f"--{request.param}", "here"], folder)
    assert {Path(line).name for line in out.split()} >= {"pyproject.toml", "README.md", "test_my_rule.py"}
    for path in (folder / "here").rglob("*"):
        assert "@" not in path.name and (path.is_dir() or "@" not in path.read_text().replace("@pytest", ""))
    setup = folder / "here/setup.py"
    if setup.exists():  # as fast as can be is not what is tested here
        setup.write_text(setup.read_text().replace("-O3", "-O0"))
    header = folder / "here/my_rule.h"
    if header.exists():
        text = header.read_text()
        text = text.replace('#include "hgmcore/scheme.h"\n', '#include "hgmcore/scheme.h"\n' + MODES)
        text = text.replace(
            "\thgm_ref_add(cost, leaf->folio, -(int32_t)leaf->count);\n",
            "\tif (fault() == 'c')\n\t\tabort();\n\tif (fault() == 'w')\n\t\tpage->_pincount++;\n"
            "\tif (fault() == 'f')\n\t\thgm_fail(options, \"no more\");\n"
            "\tif (fault() != 'u')\n\t\thgm_ref_add(cost, leaf->folio, -(int32_t)leaf->count);\n",
        )
        header.write_text(text)
    install(folder / "here", folder / "site")
    return request.param, folder / "here", folder / "site"


def test_it_passes_its_own_test(package):
    _, folder, site = package
    assert "4 passed" in run(["pytest", "-q", "-p", "no:cacheprovider", "tests"], folder, site)


def test_it_is_known_by_name(package, tmp_path):
    _, _, site = package
    assert "my_rule " in run(["hgmcore", "schemes"], tmp_path, site)
    assert "One reference and one map" in run(["hgmcore", "schemes", "my_rule"], tmp_path, site)
    result = json.loads(
        run(
            [
                "hgmcore",
                "compare",
                "workload:postcopy,page_size=2M,pages=1",
                "--schemes",
                "head_per_leaf,my_rule",
                "--repeat",
                "0",
                "--json",
                "-",
            ],
            tmp_path,
            site,
        )
    )["schemes"]
    assert result["my_rule"]["cost"] == result["head_per_leaf"]["cost"]
    assert "closed" in run(["hgmcore", "check", "my_rule", "--scope", "pair-small"], tmp_path, site)


def test_a_compiled_scheme_that_misbehaves_is_named(package, tmp_path):
    kind, _, site = package
    if kind != "c":
        pytest.skip("the faults are in the C package")
    program = (
        "from hgmcore.testing import faults; "
        "print(*faults('my_rule', [['file F 2M 1', 'populate F 0 1', 'mmap A v F 0 2M shared minor hgm', "
        "'continue A v 0 4K', 'dontneed A v 0 4K']]), sep='\\n')"
    )
    (tmp_path / "t.py").write_text(program)
    for fault, what in {
        "c": "crashed, at record 4 (dontneed A v 0 4K) of <lines>: SIGABRT",
        "w": "wrote, at record 4 (dontneed A v 0 4K) of <lines>: _pincount of struct page 1 of page 0 of F: 0 to 1; "
        "that is no scheme's",
        "u": "refs_explained, at record 4 (dontneed A v 0 4K) of <lines>: references - C - p - b are the map count",
        "f": "misbehaved, at record 4 (dontneed A v 0 4K) of <lines>: a reaction: no more",
    }.items():
        assert f"scheme 'my_rule': {what}" in run(["t"], tmp_path, f"{site}{os.pathsep}{tmp_path}", FAULT=fault)


@pytest.mark.parametrize(
    "name, error",
    [
        ("mm_id", "the name 'mm_id' is that of a scheme that there is"),
        ("My", "'My' is no name for a scheme and its module"),
        ("class", "'class' is no name for a scheme and its module"),
        ("json", "'json' is the name of another module"),
        ("a-b", "'a-b' is no name for a scheme and its module"),
    ],
)
def test_a_wrong_name_is_refused(name, error, tmp_path):
    assert error in run(["hgmcore", "new-scheme", name], tmp_path, status=2)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    assert run(["hgmcore", "new-scheme", "mine"], tmp_path, status=2) == (
        "hgmcore: error: mine: there is something already\n"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious"]

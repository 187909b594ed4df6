"""Imports and cimports go down the list of layers, or stay in their folder.

pyproject.toml has the layers of Python modules; the cimports' are here: ground < core < schemes, operations < engine.
"""

import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import hgmcore

ROOT = Path(__file__).parent.parent
PACKAGE = Path(hgmcore.__file__).parent

# `from a.b cimport c`, also over several lines; `cimport a.b`
CIMPORT = re.compile(r"^ *(?:from +([\w.]+) +cimport +(\*|\([^)]*\)|[^#\n]*)|cimport +([\w.]+))", re.MULTILINE)

# What a file may cimport, by the first name of the table that its own name begins with.
MAY_CIMPORT = {
    "hgmcore.hgm": (),
    "hgmcore.scheme": ("hgmcore.hgm",),
    "hgmcore.core.": ("hgmcore.hgm", "hgmcore.core."),
    "hgmcore.schemes.owners": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.lock", "hgmcore.schemes."),
    "hgmcore.schemes.": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.schemes.", "hgmcore.engine"),
    "hgmcore.operations.hugetlb.": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.", "hgmcore.operations.common",
                                    "hgmcore.operations.addresses", "hgmcore.operations.hugetlb."),
    "hgmcore.operations.thp.": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.", "hgmcore.operations.common",
                                "hgmcore.operations.addresses", "hgmcore.operations.thp."),
    "hgmcore.operations.": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.", "hgmcore.operations."),
    "hgmcore.own.callbacks": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.engine", "hgmcore.core.core",
                              "hgmcore.core.machine", "hgmcore.operations.dispatch"),
    "hgmcore.own.": ("hgmcore.hgm",),
    "hgmcore.engine": ("hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.", "hgmcore.operations."),
    "hgmcore.explore.": ("hgmcore.hgm", "hgmcore.core.", "hgmcore.explore."),
    "hgmcore.": ("hgmcore.hgm", "hgmcore.core."),
}
# the vocabulary; of all others a file names what it takes
ALL_NAMES_OF = {"hgmcore.hgm", "hgmcore.scheme", "hgmcore.core.library"}


def cimports(path):
    """Yield (module, names) of each cimport of hgmcore's in a file."""
    for match in CIMPORT.finditer(path.read_text()):
        module, names = match[1] or match[3], match[2] or ""
        if module == "hgmcore":
            yield from ((f"hgmcore.{name.split()[0]}", "") for name in names.strip("()").split(","))
        elif module.startswith("hgmcore."):
            yield module, names


def faults(name, found):
    """What is wrong of the cimports of module `name`."""
    allowed = next(allowed for start, allowed in MAY_CIMPORT.items()
                   if name == start or start.endswith(".") and name.startswith(start))
    for module, names in found:
        if not any(module.startswith(start) if start.endswith(".") else module == start for start in allowed):
            yield f"{name} may not cimport {module}"
        if names.strip() == "*" and module not in ALL_NAMES_OF:
            yield f"{name} cimports * of {module}: name what it takes"
        for part in re.findall(r"(?:^|,)\s*(\w+)", names.strip("()")):
            if f"{module}.{part}" in FILES:  # Cython sees no dependency in it, and so rebuilds nothing
                yield f"{name}: cimport {module}.{part}, not {part} from its package"


FILES = {str(path.relative_to(PACKAGE.parent)).rpartition(".")[0].replace("/", "."): path
         for path in sorted([*PACKAGE.rglob("*.pxd"), *PACKAGE.rglob("*.pyx")])}


def test_cimports_go_down():
    wrong = [fault for name, path in FILES.items() for fault in faults(name, cimports(path))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_cimports_are_found():
    assert len(FILES) > 40
    assert sum(len(list(cimports(path))) for path in FILES.values()) > 150


@pytest.mark.parametrize("name, module, names, fault", [
    ("hgmcore.core.table", "hgmcore.operations.common", "x", "may not cimport"),
    ("hgmcore.operations.common", "hgmcore.schemes.leaves", "x", "may not cimport"),
    ("hgmcore.operations.thp.zap", "hgmcore.operations.hugetlb.zap", "x", "may not cimport"),
    ("hgmcore.operations.hugetlb.zap", "hgmcore.operations.thp.zap", "x", "may not cimport"),
    ("hgmcore.schemes.subtree", "hgmcore.operations.common", "x", "may not cimport"),
    ("hgmcore.schemes.subtree", "hgmcore.core.lock", "x", "may not cimport"),
    ("hgmcore.core.table", "hgmcore.core.memory", "*", "name what it takes"),
])
def test_what_is_a_fault(name, module, names, fault):
    assert fault in next(faults(name, [(module, names)]))


def test_imports_go_down(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0, capsys.readouterr().out


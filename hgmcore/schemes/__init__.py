"""The accounting schemes by name: the built-in ones, one file each, and those of other people.

A scheme of somebody else has a name in three ways: an installed package offers it under the entry-point group
`hgmcore.schemes` (name = "module:engine"), a program registers it (`register`), or a file defines it (`load_file`,
`--scheme-file` on the command line).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import runpy
from importlib.metadata import entry_points

from hgmcore.core.core import Engine

NAMES = (
    "hugetlb", "head_per_leaf", "per_page_posted", "nr_pages_mapped", "subtree_posted", "subtree",
    "logical_scan", "logical_table", "logical_counter", "double_map", "large_mapcount", "rmap_id", "mm_id",
    "no_page_mapcount", "pmd_pud_mapcount", "total_mapped_pages", "leaf_and_vma", "per_vma",
    "special_bit", "percpu_counter", "sloppy_counter", "percpu_ref", "snzi",
)
"""Public names of the built-in schemes, in the order in which tables show them. setup.py builds these."""

GROUP = "hgmcore.schemes"
"""The entry-point group under which an installed package offers its schemes."""

_registered: dict[str, Engine] = {}


class UnknownScheme(ValueError):
    """A name that no scheme has."""

    def __init__(self, name: str):
        known = names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown scheme '{name}'{hint} (known: {', '.join(known)})")


def names() -> tuple[str, ...]:
    """Names of all schemes: built in, then of installed packages, then registered ones."""
    return tuple(dict.fromkeys((*NAMES, *_offered(), *_registered)))


def load(name: str) -> Engine:
    """The compiled engine of a scheme: .name, .explanation, .state, .defaults.

    UnknownScheme if there is none; ValueError, which names the package, if an installed package's does not load.
    """
    if name in NAMES:
        return importlib.import_module(f"hgmcore.schemes.{name}").engine
    if name in _registered:
        return _registered[name]
    if name not in _offered():
        raise UnknownScheme(name)
    point = _offered()[name]
    package = f"scheme '{name}' of package '{point.dist.name}' ({point.value})"
    try:
        engine = point.load()
    except Exception as error:  # whatever that package's code raises
        raise ValueError(f"{package} does not load: {type(error).__name__}: {error}") from error
    if not isinstance(engine, Engine):
        raise ValueError(f"{package} is no hgmcore engine but a {type(engine).__name__}")
    if engine.name != name:
        raise ValueError(f"{package} calls itself '{engine.name}'")
    return engine


def register(engine: Engine) -> Engine:
    """Give the scheme of `engine` its name in this program, as if it were built in; returns `engine`.

    A scheme that was registered before under the same name is replaced. TypeError: `engine` is no Engine. ValueError:
    a built-in scheme or one of an installed package has the name.
    """
    if not isinstance(engine, Engine):
        raise TypeError(f"a {type(engine).__name__} is no hgmcore engine")
    if engine.name in NAMES or engine.name in _offered():
        whose = "built in" if engine.name in NAMES else "of an installed package"
        raise ValueError(f"the name '{engine.name}' is that of a scheme that is {whose}")
    _registered[engine.name] = engine
    return engine


def load_file(path: str) -> list[str]:
    """Run a Python file and register every engine that its module names; returns their names.

    OSError: the file cannot be read. ValueError: its code raises, or it defines no scheme.
    """
    with open(path, encoding="utf-8"):
        pass
    try:
        found = runpy.run_path(path)
    except Exception as error:  # whatever the file's code raises
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    engines = {id(value): value for value in found.values() if isinstance(value, Engine)}
    if not engines:
        raise ValueError(f"{path}: defines no scheme (an hgmcore engine at the top level of the file)")
    return [register(engine).name for engine in engines.values() if engine.name not in NAMES]


@functools.cache
def _offered():
    """name -> entry point of the schemes that installed packages offer, without names that are built in."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in NAMES}

"""The accounting schemes by name: the built-in ones, one file each, and those of other people.

A scheme of somebody else has a name in three ways: an installed package offers it under the entry-point group
`hgmcore.schemes` (name = "module:object"), a program registers it (`register`), or a file defines it (`load_file`,
`--scheme-file` on the command line). It is an engine, a Python class, or a table of callbacks (`engine_of`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import runpy
from importlib.metadata import entry_points
from typing import Any, TypeVar

from hgmcore.core.core import Engine
from hgmcore.own import scheme as own
from hgmcore.own import tables
from hgmcore.own.scheme import Scheme

Registered = TypeVar("Registered")

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

    def __init__(self, name: str) -> None:
        self.name = name
        known = names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown scheme '{name}'{hint} (known: {', '.join(known)})")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


def names() -> tuple[str, ...]:
    """Names of all schemes.

    Returns
    -------
    tuple of str
        Those built in, then of installed packages, then registered ones.
    """
    return tuple(dict.fromkeys((*NAMES, *_offered(), *_registered)))


def load(scheme: Any) -> Engine:
    """Find the engine of a scheme.

    Parameters
    ----------
    scheme : str, Engine, class or table
        A name, or what `engine_of` takes.

    Returns
    -------
    Engine
        Its ``name``, ``explanation``, ``state``, ``defaults``, ``exceptions``, and what machines run.

    Raises
    ------
    UnknownScheme
        There is none of that name (a ValueError).
    ValueError
        That of an installed package, which is named, does not load.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> hgm.schemes.load("subtree").explanation.splitlines()[0]
    'RFC v1 made right: a map for each subtree of page tables'
    """
    if not isinstance(scheme, str):
        return engine_of(scheme)
    if scheme in NAMES:
        return importlib.import_module(f"hgmcore.schemes.{scheme}").engine
    if scheme in _registered:
        return _registered[scheme]
    if scheme not in _offered():
        raise UnknownScheme(scheme)
    point = _offered()[scheme]
    package = f"scheme '{scheme}' of package '{point.dist.name}' ({point.value})"
    try:
        found = point.load()
    except Exception as error:  # whatever that package's code raises
        raise ValueError(f"{package} does not load: {type(error).__name__}: {error}") from error
    try:
        engine = engine_of(found)
    except (ImportError, TypeError, ValueError) as error:
        raise ValueError(f"{package}: {error}") from error
    if engine.name != scheme:
        raise ValueError(f"{package} calls itself '{engine.name}'")
    return engine


def engine_of(scheme: Any) -> Engine:
    """The engine of a scheme that is no name, always the same for the same object.

    Parameters
    ----------
    scheme : Engine, class or table
        An Engine, a class derived from `hgmcore.Scheme`, or a table of callbacks (hgmcore.own.tables).

    Returns
    -------
    Engine
        Its engine.

    Raises
    ------
    TypeError
        It is none of these.
    ValueError, ImportError
        What is wrong with it.
    """
    if isinstance(scheme, Engine):
        return scheme
    if isinstance(scheme, Scheme) or isinstance(scheme, type) and issubclass(scheme, Scheme):
        return own.engine_of(scheme)
    if tables.is_table(scheme):
        return tables.engine_of(scheme)
    raise TypeError(f"a {type(scheme).__name__} is no scheme (an engine, a class derived from hgmcore.Scheme, or a "
                    "table of callbacks)")


def register(scheme: Registered) -> Registered:
    """Give a scheme its name in this program, as if it were built in; may decorate a class.

    Parameters
    ----------
    scheme : Engine, class or table
        What `engine_of` takes. One that was registered before under the same name is replaced.

    Returns
    -------
    Engine, class or table
        The same object.

    Raises
    ------
    TypeError
        It is no scheme.
    ValueError
        A built-in scheme or one of an installed package has the name.
    """
    engine = engine_of(scheme)
    if engine.name in NAMES or engine.name in _offered():
        whose = "built in" if engine.name in NAMES else "of an installed package"
        raise ValueError(f"the name '{engine.name}' is that of a scheme that is {whose}")
    _registered[engine.name] = engine
    return scheme


def load_file(path: str) -> list[str]:
    """Run a Python file and register every scheme that its module names.

    Parameters
    ----------
    path : str
        The file. A scheme in it is what `engine_of` takes; a class that has no leaf_install() is none.

    Returns
    -------
    list of str
        The names of its schemes.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Its code raises, or it defines no scheme, or a wrong one.
    """
    with open(path, encoding="utf-8"):
        pass
    try:
        found = runpy.run_path(path)
    except Exception as error:  # whatever the file's code raises
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    schemes = {id(value): value for value in found.values() if _defines(value)}
    if not schemes:
        raise ValueError(f"{path}: defines no scheme (at its top level: a class derived from hgmcore.Scheme, a table "
                         "of callbacks, or an engine)")
    try:
        engines = {id(engine): engine for engine in map(engine_of, schemes.values())}
        own_ones = [engine for engine in engines.values() if not (engine.name in NAMES and engine is load(engine.name))]
        return [register(engine).name for engine in own_ones]
    except (ImportError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _defines(value):
    if isinstance(value, type):
        return issubclass(value, Scheme) and value.leaf_install is not Scheme.leaf_install
    return isinstance(value, (Engine, Scheme)) or tables.is_table(value)


@functools.cache
def _offered():
    """name -> entry point of the schemes that installed packages offer, without names that are built in."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in NAMES}

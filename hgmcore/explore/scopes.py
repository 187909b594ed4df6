"""Scopes: which machine a search plays on and which operations it tries, as text and by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace

from hgmcore.geometry import GEOMETRIES, TINY
from hgmcore.sizes import format_size

FAMILIES = (
    "populate",
    "punch",
    "truncate",
    "pin",
    "unpin",
    "continue",
    "dontneed",
    "collapse",
    "touch",
    "hwpoison",
    "migrate",
    "register",
    "split",
    "munmap",
    "mmap",
    "fork",
    "exit",
)
"""Families of operations, in the order in which a search tries them."""
FAILING = ("continue", "fork", "touch", "migrate", "populate")
NAMES = "ABDE"
"""Of processes."""
MAX_PROCESSES, MAX_HUGE_PAGES, MAX_FAIL = 4, 2, 7


@dataclass(frozen=True)
class Scope:
    """pages: huge pages of the one file. born: processes that there are at the start, each with the whole file mapped;
    the others are children of fork. flags: of every mmap. pins: of huge page 0 at the start. maxpins: beyond which no
    pin is tried. fail: each operation of FAILING also with its 1st to fail-th internal allocation failing.
    """

    name: str
    geometry: str = "tiny-4"
    pages: int = 1
    processes: int = 2
    born: int | None = None
    flags: tuple[str, ...] = ("minor", "hgm")
    populated: bool = False
    pins: int = 0
    maxpins: int = 1
    fail: int = 0
    ops: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    changed: tuple[str, ...] = ()

    def __post_init__(self):
        if self.born is None:
            object.__setattr__(self, "born", self.processes)
        self._check()

    def _check(self):
        _one_of("geometry", self.geometry, TINY)
        for op in self.ops:
            _one_of("family of operations", op, FAMILIES)
        for flag in self.flags:
            _one_of("flag", flag, ("minor", "wp", "hgm"))
        for what, value, most in (
            ("processes", self.processes, MAX_PROCESSES),
            ("pages", self.pages, MAX_HUGE_PAGES),
            ("born", self.born, self.processes),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"scope {self.name}: {what}={value} is not between 1 and {most}")
        for what, value, most in (
            ("pins", self.pins, 2**31 - 2),
            ("maxpins", self.maxpins, 7),
            ("fail", self.fail, MAX_FAIL),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"scope {self.name}: {what}={value} is not between 0 and {most}")
        if not self.ops:
            raise ValueError(f"scope {self.name}: no operations (ops=..)")
        if self.pins and not self.populated:
            raise ValueError(f"scope {self.name}: pins of a page that is not there (populated=yes)")
        if self.pages > 1 << GEOMETRIES[self.geometry].index_bits:
            raise ValueError(f"scope {self.name}: {self.pages} huge pages do not fit in one table of {self.geometry}")

    @property
    def base(self) -> int:
        return GEOMETRIES[self.geometry].base_page

    @property
    def huge(self) -> int:
        """Bytes of a huge page."""
        return GEOMETRIES[self.geometry].leaf_sizes[-1]

    @property
    def base_pages(self) -> int:
        return self.huge // self.base

    @property
    def title(self) -> str:
        return self.name + (f", changed: {' '.join(self.changed)}" if self.changed else "")

    def text(self) -> str:
        """The scope as `--scope` takes it."""
        words = [
            f"geometry={self.geometry}",
            f"pages={self.pages}",
            f"processes={self.processes}",
            f"born={self.born}",
            f"flags={','.join(self.flags)}",
            f"populated={'yes' if self.populated else 'no'}",
            f"pins={self.pins}",
            f"maxpins={self.maxpins}",
            f"fail={self.fail}",
            f"ops={','.join(self.ops)}",
        ]
        return " ".join(words + [f"option:{key}={value}" for key, value in self.options.items()])

    def preamble(self) -> list[str]:
        """The statements before the first step of a trace."""
        size, whole = format_size(self.huge), format_size(self.huge * self.pages)
        lines = [f"file F {size} {self.pages}"]
        lines += [f"mmap {NAMES[p]} v F 0 {whole} shared {' '.join(self.flags)}".rstrip() for p in range(self.born)]
        if self.populated:
            lines.append(f"populate F 0 {self.pages}")
        if self.pins:
            lines.append(f"pin F 0 {self.pins}")
        return lines


def _one_of(what, word, known):
    if word in known:
        return word
    near = difflib.get_close_matches(str(word), known, 1)
    raise ValueError(
        f"unknown {what} '{word}'" + (f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(known)})")
    )


CORE = (
    "populate",
    "punch",
    "truncate",
    "pin",
    "unpin",
    "continue",
    "dontneed",
    "collapse",
    "touch",
    "migrate",
    "munmap",
    "mmap",
    "exit",
)
LEVELS = ("populate", "punch", "continue", "dontneed", "collapse", "migrate", "munmap", "mmap")
FORK = ("populate", "punch", "continue", "dontneed", "collapse", "migrate", "fork", "exit")
POISON = ("populate", "punch", "continue", "dontneed", "touch", "hwpoison", "migrate", "munmap", "mmap")
WITH_WP = ("minor", "wp", "hgm")
OVERFLOW = ("continue", "dontneed", "fork", "exit")

SCOPES = {
    scope.name: scope
    for scope in (
        Scope("one", processes=1, ops=(*CORE, "register")),
        Scope("pair", ops=CORE),
        Scope("pair-small", "tiny-2", ops=CORE),
        Scope("levels", "tiny-2x2", ops=LEVELS),
        Scope("levels-one", "tiny-2x2", processes=1, ops=(*CORE, "register")),
        Scope("group", "tiny-4c", ops=LEVELS),
        Scope("fault", ops=(*CORE, "register")),
        Scope("fork", "tiny-2", processes=3, born=1, flags=WITH_WP, ops=FORK),
        Scope("fork-four", processes=2, born=1, flags=WITH_WP, ops=FORK),
        Scope(
            "fail",
            "tiny-2x2",
            born=1,
            flags=WITH_WP,
            fail=3,
            ops=("populate", "punch", "continue", "dontneed", "munmap", "mmap", "fork", "exit"),
        ),
        Scope(
            "three",
            "tiny-2",
            processes=3,
            ops=("populate", "punch", "continue", "dontneed", "collapse", "migrate", "munmap", "mmap", "exit"),
        ),
        Scope("poison", "tiny-2", ops=POISON),
        Scope("poison-levels", "tiny-2x2", processes=1, ops=POISON),
        Scope("base-only", flags=("minor",), ops=(*CORE, "register", "split"), options={"policy": "base_only"}),
        Scope(
            "two-pages",
            "tiny-2",
            pages=2,
            ops=("populate", "punch", "truncate", "continue", "dontneed", "collapse", "migrate", "munmap", "mmap"),
        ),
        Scope(
            "overflow",
            "tiny-2",
            processes=3,
            born=1,
            flags=WITH_WP,
            populated=True,
            pins=2147483644,
            maxpins=0,
            ops=OVERFLOW,
        ),
        Scope(
            "overflow-half",
            "tiny-2",
            processes=3,
            born=1,
            flags=WITH_WP,
            populated=True,
            pins=1073741821,
            maxpins=0,
            ops=OVERFLOW,
            options={"overflow_check": "half"},
        ),
        Scope("pair-eight", "tiny-8", ops=CORE),
        Scope("triple", processes=3, ops=CORE),
        Scope("four", processes=4, ops=CORE),
        Scope(
            "two-pages-four",
            pages=2,
            ops=("populate", "punch", "continue", "dontneed", "collapse", "migrate", "munmap", "mmap"),
        ),
    )
}
LARGER = ("pair-eight", "triple", "four", "two-pages-four")
"""Scopes of a minute or more: never among those that `all` stands for."""
DEFAULT = ("pair", "levels", "fail", "fork")

_NUMBERS = ("pages", "processes", "born", "pins", "maxpins", "fail")
_WORDS = {"yes": True, "no": False}


def parse(text: str, name: str = "scope") -> Scope:
    """A scope from `key=value` words. ValueError says which word is wrong."""
    values, options = {}, {}
    known = [f.name for f in fields(Scope) if f.name not in ("name", "options", "changed")]
    for word in text.split():
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ValueError(f"scope {name}: '{word}' is not of the form key=value")
        if key in values or key in options:
            raise ValueError(f"scope {name}: '{key}' is given twice")
        if key.startswith("option:"):
            options[key.removeprefix("option:")] = value
            continue
        _one_of(f"key of scope {name}", key, known)
        if key in _NUMBERS:
            if not value.isdecimal():
                raise ValueError(f"scope {name}: {key}={value} is no number")
            values[key] = int(value)
        elif key == "populated":
            values[key] = _WORDS[_one_of("value of populated", value, tuple(_WORDS))]
        elif key in ("flags", "ops"):
            values[key] = tuple(dict.fromkeys(part for part in value.split(",") if part and part != "none"))
        else:
            values[key] = value
    return Scope(name, options=options, **values)


def find(name: str) -> Scope:
    """A named scope. ValueError names near ones."""
    return SCOPES[_one_of("scope", name, tuple(SCOPES))]


def change(scope: Scope, options: dict | None = None, **changes) -> Scope:
    """The scope with other values, which its title then names; None changes nothing."""
    changes = {key: value for key, value in changes.items() if value is not None and value != getattr(scope, key)}
    if "processes" in changes and scope.born == scope.processes:
        changes["born"] = changes["processes"]
    words = [f"{key}={value}" for key, value in changes.items() if key != "born"]
    if options:
        words += [f"{key}={value}" for key, value in options.items()]
        changes["options"] = scope.options | options
    return replace(scope, changed=(*scope.changed, *words), **changes) if words else scope

"""The steps of a scope: what a search tries from each state, as records for the core and as statements of a trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hgmcore.explore.properties import REFUSABLE
from hgmcore.explore.scopes import FAILING, FAMILIES, MAX_PROCESSES, NAMES, Scope
from hgmcore.explore.search import NEEDS, STEP
from hgmcore.geometry import GEOMETRIES
from hgmcore.sizes import format_size
from hgmcore.trace.statements import ALL, CODES, HGM, MINOR, SHARED, WP

PLACED = ("continue", "dontneed", "collapse", "touch", "hwpoison")
"""Families of operations on a part of a huge page."""
LOCAL = ("populate", "pin", "unpin", "continue", "touch", "dontneed", "collapse", "register", "munmap", "mmap", "exit")
"""Families that look at the tables of no other process, nor change them: what they do is kept (memo.pxd)."""
FLAGS = {"minor": MINOR, "wp": WP, "hgm": HGM}


@dataclass(frozen=True)
class Step:
    """One operation, or one whose `fail`-th internal allocation fails. process, child: numbers, or None."""

    family: str
    need: str = "always"
    process: int | None = None
    child: int | None = None
    page: int = 0
    offset: int = 0
    length: int = 0
    flags: int = 0
    words: str = ""
    fail: int = 0

    def renamed(self, scope: Scope, names, pages) -> Step:
        """The same of other processes and base pages; names: numbers of processes in place of 0, 1, ..; pages: of each
        huge page its base pages in place of 0, 1, .."""
        values = dict(self.__dict__)
        values["process"] = None if self.process is None else names[self.process]
        values["child"] = None if self.child is None else names[self.child]
        if self.family in PLACED:
            first = self.offset % scope.huge // scope.base
            page = min(pages[self.page][first : first + self.length // scope.base])
            values["offset"] = self.page * scope.huge + page * scope.base
            values["words"] = _place(self.family, values["offset"], self.length)
        return Step(**values)

    def lines(self) -> list[str]:
        """The statements of a trace."""
        mapping = "" if self.process is None else f" {NAMES[self.process]}"
        if self.process is not None and self.family not in ("fork", "exit"):
            mapping += " v"
        child = "" if self.child is None else f" {NAMES[self.child]}"
        name = "unregister" if self.family == "register" and not self.words else self.family
        line = f"{name}{mapping}{child} {self.words}".rstrip()
        return [f"fail {self.fail}", line] if self.fail else [line]

    def record(self, scope: Scope) -> tuple:
        """A row of STEP."""
        target = 0 if self.process is None else self.process
        name = "unregister" if self.family == "register" and not self.words else self.family
        arg = self.child if self.family == "fork" else 0
        moves = 0 if self.family != "migrate" else 2 if self.flags & ALL else 1
        child = scope.maxpins if self.family == "pin" else self.child or 0
        return (
            self.offset,
            self.length,
            target,
            arg,
            CODES[name],
            self.flags,
            FAMILIES.index(self.family),
            NEEDS[self.need],
            target,
            child,
            self.page,
            self.fail,
            moves,
            self.family in REFUSABLE,
            self.family in LOCAL,
            MAX_PROCESSES if self.process is None else self.process,
        )


def steps_of(scope: Scope) -> list[Step]:
    """Every step of a scope, in the order in which a search tries them: those of no process, then by process and place.

    Of two traces of one length, the search keeps the one whose steps come first.
    """
    steps = []
    for family in FAMILIES:
        if family in scope.ops:
            for step in _family(scope, family):
                steps.append(step)
                if family in FAILING:
                    steps += [Step(**{**step.__dict__, "fail": k}) for k in range(1, scope.fail + 1)]
    return sorted(steps, key=_operands)


def _operands(step):
    process = -1 if step.process is None else step.process
    length = 1 << 62 if step.family == "truncate" else step.length
    return process, step.page, step.offset, length, step.child or 0, FAMILIES.index(step.family), step.flags, step.fail


def first_steps(scope: Scope) -> list[Step]:
    """What makes a scope's first state out of an empty machine."""
    steps = [_mmap(scope, p) for p in range(scope.born)]
    if scope.populated:
        steps.append(Step("populate", length=scope.pages, words=f"F 0 {scope.pages}"))
    if scope.pins:
        steps.append(Step("pin", "pinnable", length=scope.pins, words=f"F 0 {scope.pins}"))
    return steps


def array_of(steps, scope: Scope) -> np.ndarray:
    return np.array([step.record(scope) for step in steps], STEP)


def _place(family, offset, length):
    """Where an operation of PLACED works, as words of its statement."""
    return format_size(offset) + (f" {format_size(length)}" if family in ("continue", "dontneed", "collapse") else "")


def _mmap(scope, p):
    flags = SHARED
    for flag in scope.flags:
        flags |= FLAGS[flag]
    whole = scope.huge * scope.pages
    return Step(
        "mmap",
        "unmapped",
        p,
        length=whole,
        flags=flags,
        words=f"F 0 {format_size(whole)} shared {' '.join(scope.flags)}".rstrip(),
    )


def _family(scope, family):
    huge, base, whole = scope.huge, scope.base, scope.huge * scope.pages
    if family == "truncate":
        return [Step(family, words="F 0")]
    if family in ("populate", "pin", "unpin"):
        need = {"pin": "pinnable", "unpin": "unpinnable"}.get(family, "always")
        return [Step(family, need, page=h, offset=h, length=1, words=f"F {h} 1") for h in range(scope.pages)]
    if family == "punch":
        return [
            Step(family, page=h, offset=h * huge, length=huge, words=f"F {format_size(h * huge)} {format_size(huge)}")
            for h in range(scope.pages)
        ]
    return [step for p in range(scope.processes) for step in _of_process(scope, family, p, huge, base, whole)]


def _of_process(scope, family, p, huge, base, whole):
    everything = f"0 {format_size(whole)}"
    if family in ("continue", "dontneed", "collapse"):
        sizes = [size for size in GEOMETRIES[scope.geometry].leaf_sizes if size > base or family != "collapse"]
        return [
            Step(
                family,
                "mapped",
                p,
                page=at // huge,
                offset=at,
                length=size,
                words=_place(family, at, size),
            )
            for size in sizes
            for at in range(0, whole, size)
        ]
    if family in ("touch", "hwpoison"):
        return [
            Step(family, "mapped", p, page=at // huge, offset=at, length=base, words=_place(family, at, base))
            for at in range(0, whole, base)
        ]
    if family == "migrate":
        return [
            Step(
                family,
                "mapped",
                p,
                page=h,
                offset=h * huge,
                length=huge,
                flags=flags,
                words=f"{format_size(h * huge)} {format_size(huge)}{word}",
            )
            for h in range(scope.pages)
            for flags, word in ((0, ""), (ALL, " all"))
        ]
    if family == "register":
        bits = MINOR | (WP if "wp" in scope.flags else 0)
        return [
            Step(family, "mapped", p),
            Step(family, "mapped", p, flags=bits, words="minor wp" if bits & WP else "minor"),
        ]
    if family in ("split", "munmap"):
        return [Step(family, "mapped", p, length=whole, words=everything)]
    if family == "mmap":
        return [_mmap(scope, p)]
    if family == "fork":
        return [Step(family, "forkable", p, child) for child in range(scope.born, scope.processes) if child != p]
    return [Step(family, "alive", p)]  # exit

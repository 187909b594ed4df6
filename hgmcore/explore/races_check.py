"""Race schemes: two operations at once from every state of a scope, under every choice of locks; what breaks, and how.

Interleavings are sequentially consistent. What the scheme breaks anyway, because either order of the two does or
because it means something else by its definition, is not reported.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter

from hgmcore import schemes
from hgmcore.explore.check import Checked, InternalError
from hgmcore.explore.properties import PROPERTIES
from hgmcore.explore.races import Races
from hgmcore.explore.races_trace import schedule_lines
from hgmcore.explore.scopes import Scope
from hgmcore.explore.steps import array_of, first_steps

CLASSES = {
    "M": "mmap lock of a process",
    "X": "fault mutex of a place in a file",
    "V": "hugetlb VMA lock of a mapping",
    "I": "i_mmap lock of a file",
    "L": "folio lock",
    "T": "page-table lock of a table",
}
"""Classes of locks, in the order of enum hgm_lock_class."""
EVERY = (1 << len(CLASSES)) - 1
LOCKS = {
    "none": 0,
    "pt": 1 << list(CLASSES).index("T"),
    "posted": EVERY,
    **{f"posted-{name}": EVERY & ~(1 << i) for i, name in enumerate(CLASSES)},
    "v1": EVERY | 1 << 8,
    "fixed": EVERY | 2 << 8,
    "repaired": EVERY | 3 << 8,
}
"""Which classes of locks are taken: a bit for each. From bit 8 on, what is done otherwise than HGM v2 did (races.h):
v1: a collapse holds the VMA lock and i_mmap too; fixed: a hole punch asks whether a page is mapped under its lock."""

MORE = {
    "left_mapped": ("LEFT", "no leaf maps a page that left the page cache"),
    "no_deadlock": ("DEAD", "one of the two can always go on"),
}
BREAKS = (*((p.name, p.key) for p in PROPERTIES), *((name, key) for name, (key, _) in MORE.items()))
"""What a race may break, by the numbers of races.pyx: name and letters."""
TEXTS = {p.name: p.text for p in PROPERTIES} | {name: text for name, (_, text) in MORE.items()}

RACED = ("continue", "touch", "dontneed", "collapse", "migrate", "punch", "truncate", "munmap", "fork", "exit")
"""Families of operations that can be cut."""
_OPS = ("populate", "punch", "continue", "dontneed", "collapse", "touch", "migrate", "munmap", "mmap", "exit")
SCOPES = {
    "race": Scope("race", "tiny-2", processes=1, ops=_OPS),
    "race-two": Scope("race-two", "tiny-2", processes=2, ops=_OPS),
}


def racing_engine(name: str):
    """The engine of a scheme that can be cut. ValueError: there is none, as of a scheme outside this package."""
    schemes.load(name)
    try:
        return importlib.import_module(f"hgmcore.explore.racing.{name}").engine
    except ModuleNotFoundError:
        raise ValueError(
            f"scheme '{name}': --races needs an engine that was compiled for races, which only the schemes of this "
            f"package have; check it without --races"
        ) from None


class Raced:
    """Races of one scheme in one scope. ended: None, closed, interrupt or memory."""

    def __init__(self, scheme: str, scope: Scope, symmetry="processes", **given):
        self.checked = Checked(scheme, scope, symmetry, **given).run()
        if self.checked.ended == "interrupt":
            raise KeyboardInterrupt
        if self.checked.ended == "memory":
            raise MemoryError("no memory for the states that races start from")
        if self.checked.ended != "closed":
            raise InternalError(f"scheme {scheme}, scope {scope.title}: the search of states did not close")
        self.engine, self.scope, self.ended = self.checked.engine, scope, None
        self.steps = [step for step in self.checked.steps if step.family in RACED and not step.fail]
        self.races = Races(
            self.checked.core(),
            self.engine,
            racing_engine(self.engine.name),
            scope.born,
            max(scope.maxpins, scope.pins),
            array_of(self.steps, scope),
            self.checked.permutations,
            self.checked.fields,
            "hwpoison" in scope.ops,
            self.checked.search.keys,
        )
        if not self.steps:
            raise ValueError(f"scope {scope.title}: nothing to race: ops has none of {', '.join(RACED)}")
        self.paths = [self.checked.search.path(state) for state in range(self.checked.search.distinct)]
        self.pairs = [(a, b) for a in range(len(self.steps)) for b in range(a, len(self.steps)) if self._together(a, b)]

    def _together(self, a, b):
        """Can both run at once? A process exits when no other thread of it runs any more."""
        first, second = self.steps[a], self.steps[b]
        return first.process != second.process or "exit" not in (first.family, second.family)

    def of(self, start, a: str, b: str, locks: str, preemptions: int | None = None) -> dict:
        """One pair from one state: {name of what is broken: (preemptions, schedule)}.

        start: statements, as Step.lines() has them. a, b: statements. ValueError: the scope has no such step or state,
        or one of the two is not enabled there.
        """
        found = self.races.pair(*self._numbers(start, a, b), LOCKS[locks], preemptions)
        if found is None:
            raise ValueError(f"scope {self.scope.title}: {a} and {b} cannot both run behind {'; '.join(start)}")
        return {BREAKS[k][0]: (switches, schedule) for k, switches, schedule in found}

    def all_outcomes(self, start, a: str, b: str, locks: str) -> list:
        """What one pair from one state can come to (Races.all_outcomes); parameters as of()."""
        return self.races.all_outcomes(*self._numbers(start, a, b), LOCKS[locks])

    def rows_of(self, start, a: str, b: str, locks: str, schedule) -> tuple:
        """A schedule, thread by thread (Races.trace); parameters as of()."""
        return self.races.trace(*self._numbers(start, a, b), LOCKS[locks], schedule)

    def _numbers(self, start, a, b):
        scope, by_line = self.scope, {"; ".join(step.lines()): step for step in self.checked.steps}
        raced = ["; ".join(step.lines()) for step in self.steps]
        for line in (*start, a, b):
            if line not in by_line or line in (a, b) and line not in raced:
                raise ValueError(f"scope {scope.title}: no such step: {line}")
        steps = array_of([by_line[line] for line in start], scope)
        state = self.checked.search.number(array_of(first_steps(scope), scope), steps)
        if state is None:
            raise ValueError(f"scope {scope.title}: {'; '.join(start)} leads to no state of it")
        return state, raced.index(a), raced.index(b)

    def progress(self, locks, states) -> str:
        """How far a run is."""
        return f"races, locks {locks}: {states} of {len(self.paths)} starts, {self.races.states_met:,} states"

    def run(self, locks: str, preemptions: int | None = None, progress=None) -> dict:
        """Every pair from every state. Of each thing broken: in how many pairs, and one of them, with its schedule.

        That one has the fewest preemptions, then the shortest start, then the fewest accesses.
        """
        races, start = self.races, time.perf_counter()
        before = self._counted()
        broken, pairs = {}, 0
        try:
            for state, path in enumerate(self.paths):
                for a, b in self.pairs:
                    found = races.pair(state, a, b, LOCKS[locks], preemptions)
                    if found is None:
                        continue
                    pairs += 1
                    for k, switches, schedule in found:
                        if self.engine.exceptions.get(BREAKS[k][0]) == "definition":
                            continue
                        rank = (switches, len(path), len(schedule), state, a, b)
                        families, best, kept = broken.get(k, (Counter(), None, None))
                        families[" | ".join(sorted((self.steps[a].family, self.steps[b].family)))] += 1
                        broken[k] = (families, *((rank, schedule) if best is None or rank < best else (best, kept)))
                if progress:
                    progress(self, locks, state + 1)
            self.ended = "closed"
        except KeyboardInterrupt:
            self.ended = "interrupt"
        except MemoryError:
            self.ended = "memory"
        return {
            "ended": self.ended,
            "preemptions": preemptions,
            "pairs": pairs,
            **{name: number - before[name] for name, number in self._counted().items()},
            "seconds": time.perf_counter() - start,
            "broken": {BREAKS[k][0]: self._shown(k, locks, *broken[k]) for k in sorted(broken)},
        }

    def _counted(self):
        races = self.races
        return {"states": races.states_met, "outcomes": races.outcomes, "odd": races.odd, "benign": races.benign}

    def _shown(self, number, locks, families, rank, schedule):
        switches, _, _, state, a, b = rank
        scope, start, names = self.scope, [], list(range(self.scope.processes))
        pages = [list(range(scope.base_pages)) for _ in range(scope.pages)]    # which stay who they are
        for step, permutation, _ in self.paths[state]:
            start.append(self.checked.steps[step].renamed(scope, names, pages))
            names = [names[p] for p in self.checked.permutations[permutation]]
        rows, again, _ = self.races.trace(state, a, b, LOCKS[locks], schedule)
        if number not in again:
            raise InternalError(f"scheme {self.engine.name}: a schedule breaks no {BREAKS[number][0]}, as found")
        both = [self.steps[one].renamed(scope, names, pages) for one in (a, b)]
        return {
            "pairs": families.total(),
            "families": dict(families.most_common()),
            "preemptions": switches,
            "start": [line for step in start for line in step.lines()],
            "a": both[0].lines()[0],
            "b": both[1].lines()[0],
            "steps": schedule_lines(rows, self.engine, names),
        }


def race(names, scopes, locks=tuple(LOCKS), preemptions=None, progress=None, **given) -> dict:
    """Race schemes in scopes: {"format", "scopes": {title: {"definition", "schemes": {name: {locks: result}}}}}.

    A result is Raced.run()'s. A KeyboardInterrupt ends it; what was found is returned, with "interrupted". So is what
    was found before memory ran out; "out_of_memory" has the [scope, scheme] that it ended.
    """
    out = {"format": "hgmcore-races 1", "interrupted": False, "out_of_memory": [], "scopes": {}}
    for scope in scopes:
        entry = out["scopes"].setdefault(scope.title, {"definition": scope.text(), "schemes": {}})
        for name in names:
            found = entry["schemes"].setdefault(name, {})
            try:
                raced = Raced(name, scope, **given)
                for choice in locks:
                    found[choice] = raced.run(choice, preemptions, progress)
                    if raced.ended != "closed":
                        break
            except KeyboardInterrupt:
                out["interrupted"] = True
                return out
            except MemoryError:
                out["out_of_memory"].append([scope.title, name])
                continue
            if raced.ended == "memory":
                out["out_of_memory"].append([scope.title, name])
            elif raced.ended == "interrupt":
                out["interrupted"] = True
                return out
    return out


def needs(found: dict) -> list[str] | None:
    """The classes of locks without which two families break what they keep with all; None: not all were raced."""
    if any(f"posted-{name}" not in found for name in CLASSES) or "posted" not in found:
        return None
    return [name for name in CLASSES if _broken(found[f"posted-{name}"]) - _broken(found["posted"])]


def _broken(one):
    return {(prop, families) for prop, entry in one["broken"].items() for families in entry["families"]}


def status(result: dict) -> int:
    """1: something breaks under the posted locks. 0: nothing."""
    return int(
        any(
            found.get("posted", {}).get("broken")
            for scope in result["scopes"].values()
            for found in scope["schemes"].values()
        )
    )

"""Check schemes: search scopes until they close; say of each property whether it holds, or its shortest trace."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass

import numpy as np

from hgmcore import options, schemes
from hgmcore.api import Machine
from hgmcore.core import truth
from hgmcore.core.core import Core, SchemeError
from hgmcore.errnos import error_name
from hgmcore.explore.elsewhere import on_x86_64
from hgmcore.explore.properties import NUMBER, PROPERTIES, asked, promise
from hgmcore.explore.running import NotOnAKernel, sequence
from hgmcore.explore.scopes import FAMILIES, Scope
from hgmcore.explore.search import FIELDS, PAGES, PRIVATE_LIMIT, Search
from hgmcore.explore.steps import array_of, first_steps, steps_of
from hgmcore.geometry import GEOMETRIES
from hgmcore.trace import Trace
from hgmcore.trace.statements import NAMES

PORTION = 4096
"""States that are expanded between two looks at the clock, so that an interrupt is heard within a second."""
SYMMETRIES = ("none", "processes", "pages")
RESERVE = 1 << 20
KEPT_BACK = 16 << 20
"""Bytes of address space that a search leaves, so that where memory runs out there is room to say what was found."""
MARKS = {"promised": "!", "definition": "d", "fault": "f"}
"""Of a property that is violated, by what the scheme says of it."""


class InternalError(RuntimeError):
    """The search contradicts itself: never a finding about a scheme."""


@dataclass(frozen=True)
class Limits:
    """Where a search that does not close ends: steps from the first state, states, seconds. None: no limit."""

    depth: int | None = None
    states: int | None = None
    seconds: float | None = None


def permutations_of(scope: Scope, symmetry: str, engine) -> list[tuple[int, ...]]:
    """The exchanges of processes under which states are the same: those of processes of the same birth.

    None where a scheme's state is made of the processes' numbers.
    """
    if symmetry == "none" or engine.by_number:
        return [tuple(range(scope.processes))]
    return [
        a + b
        for a in itertools.permutations(range(scope.born))
        for b in itertools.permutations(range(scope.born, scope.processes))
    ]


def pages_of(engine, symmetry: str) -> str:
    """Which base pages may be exchanged: a key of PAGES.

    Where counts are kept for each base page, or a scheme is not known, base page 0 stays: some ask it alone. Where each
    slot matters all stay: a refused operation, which did some base pages first, leaves spares behind.
    """
    if symmetry != "pages" or engine.has_slots and engine.by_number:
        return "stay"
    known = engine.name in schemes.NAMES and engine is schemes.load(engine.name)
    return "first stays" if engine.writes_tails or engine.name == "subtree_posted" or not known else "move"


class Checked:
    """The search of one scope for one scheme. ended: closed, depth, states, seconds, memory or interrupt.

    threads: that search side by side; memo: whether what steps do is kept. Neither changes an answer.
    """

    def __init__(self, scheme, scope: Scope, symmetry: str = "processes", threads: int = 1, memo=True, **given):
        self.engine = schemes.load(scheme)
        self.scope, self.symmetry, self.threads = scope, symmetry, threads
        self.memo = memo and "hgm" in scope.flags  # else mappings may share tables
        if symmetry not in SYMMETRIES:
            raise ValueError(f"symmetry: '{symmetry}' is not one of {', '.join(SYMMETRIES)}")
        self.given = scope.options | given
        self.options = options.resolve(self.engine, self.given)
        if self.options["locks"] != "none" or self.options["hvo"] != "off":
            raise ValueError("a search runs one thread with all struct pages: locks=none, hvo=off")
        self.steps = steps_of(scope)
        self.permutations, self.pages = permutations_of(scope, symmetry, self.engine), pages_of(self.engine, symmetry)
        self.ended, self.seconds, self.started = None, 0.0, 0.0
        self.fields, self.search = 0, None

    def core(self) -> Core:
        """A machine on which nothing ran."""
        geometry, scope = GEOMETRIES[self.scope.geometry], self.scope
        core = Core(geometry, self.options, RESERVE)
        core.add_file(geometry, scope.huge, scope.pages)
        for process in range(scope.processes):
            core.add_process()
            core.add_mapping(process, 0)
        return core

    def _new(self) -> Search:
        scope = self.scope
        while True:
            if self.fields & FIELDS["another word"]:
                raise ValueError(
                    f"scheme {self.engine.name}, scope {scope.title}: it writes a word of struct pages that is no "
                    f"count, or a private word from {PRIVATE_LIMIT} on: of that a search cannot keep states"
                )
            if self.fields & FIELDS["private"]:  # they may have numbers of processes, and of pages
                self.permutations, self.pages = permutations_of(scope, "none", self.engine), "stay"
            search = Search(
                self.core(),
                self.engine,
                scope.born,
                max(scope.maxpins, scope.pins),
                array_of(self.steps, scope),
                self.permutations,
                self.fields,
                "hwpoison" in scope.ops,
                PAGES[self.pages],
                self.threads,
                self.memo,
            )
            if search.begin(array_of(first_steps(scope), scope)):
                return search
            self.fields |= search.grow

    def run(self, limits: Limits = Limits(), progress=None) -> Checked:
        """Search until it closes or a limit is met. progress: called with this object now and then.

        KeyboardInterrupt ends it too, with what is known, and so does memory that runs out.
        """
        start = self.started = time.perf_counter()
        kept_back = bytearray(KEPT_BACK)
        self.search = self._new()
        try:
            while self.ended is None:
                self._portion(limits, time.perf_counter() - start)
                if progress:
                    progress(self)
        except KeyboardInterrupt:
            self.ended = "interrupt"
        except MemoryError:
            self.ended = "memory"
        except SchemeError as error:
            error.op = NAMES[error.op] if error.op is not None else None
            raise
        del kept_back
        self.seconds = time.perf_counter() - start
        return self

    def progress(self) -> str:
        """How far the search is."""
        search = self.search
        rate = search.generated / max(time.perf_counter() - self.started, 1e-6)
        return (
            f"depth {search.depth}, {search.distinct:,} states, {search.pending:,} to go, {search.generated:,} steps, "
            f"{rate / 1e6:.1f} M/s, {search.bytes_per_state:.0f} bytes a state"
        )

    def _portion(self, limits, elapsed):
        search = self.search
        if limits.depth is not None and search.complete_depth >= limits.depth - 1:
            self.ended = "depth" if search.pending else "closed"
            return
        if limits.seconds is not None and elapsed >= limits.seconds:
            self.ended = "seconds"
            return
        if limits.states is not None and search.distinct >= limits.states:
            self.ended = "states"
            return
        portion = PORTION
        if limits.states is not None:    # a state leads to no more states than there are steps
            portion = max(1, min(PORTION, (limits.states - search.distinct) // len(self.steps)))
        answer = search.advance(portion, limits.depth is not None)
        if answer == "grow":
            self.fields |= search.grow
            self.search = self._new()
        elif answer == "strange":
            raise InternalError(f"scheme {self.engine.name}, scope {self.scope.title}: a state that no state can be")
        elif answer == "closed":
            self.ended = "closed"

    def trace(self, name: str):
        """The shortest violation of a property as steps of the user's processes, or None."""
        found = self.search.violation(NUMBER[name])
        if found is None:
            return None
        _, state, last = found
        steps, names = [], list(range(self.scope.processes))
        pages = [list(range(self.scope.base_pages)) for _ in range(self.scope.pages)]
        for step, permutation, moved in self.search.path(state):
            steps.append(self.steps[step].renamed(self.scope, names, pages))
            names = [names[p] for p in self.permutations[permutation]]
            pages = [[of[page] for page in places] for of, places in zip(pages, moved, strict=True)]
        if last is not None:
            steps.append(self.steps[last].renamed(self.scope, names, pages))
        broken = self._again().replay(array_of(first_steps(self.scope), self.scope), array_of(steps, self.scope))
        if NUMBER[name] not in broken:
            raise InternalError(
                f"scheme {self.engine.name}, scope {self.scope.title}: a trace that is said to break {name} "
                f"does not: {'; '.join(line for step in steps for line in step.lines())}"
            )
        return steps

    def _again(self) -> Search:
        """A search to replay in: nothing is known in it, and processes are who they are."""
        return Search(
            self.core(),
            self.engine,
            self.scope.born,
            max(self.scope.maxpins, self.scope.pins),
            array_of(self.steps, self.scope),
            permutations_of(self.scope, "none", self.engine),
            self.fields,
            "hwpoison" in self.scope.ops,
        )

    def verdict(self, prop) -> str:
        """proved, bounded, violated, vacuous or unknown."""
        if self.search.violation(NUMBER[prop.name]) is not None:
            return "violated"
        if self.ended == "closed":
            return "proved" if self.search.premise(NUMBER[prop.name]) else "vacuous"
        return "bounded" if self.ended == "depth" else "unknown"

    def executed(self) -> dict:
        return {family: self.search.executed(FAMILIES.index(family)) for family in self.scope.ops}

    def result(self, names=None, elsewhere=False) -> dict:
        """Everything that a report needs, in plain values. names: of properties; None: all. elsewhere: try each
        counterexample on x86-64 too."""
        search = self.search
        properties = {}
        for prop in PROPERTIES:
            if names is not None and prop.name not in names:
                continue
            entry = {
                "verdict": self.verdict(prop),
                "promise": promise(self.engine, prop.name),
                "asked": asked(prop, self.scope),
                "premise": search.premise(NUMBER[prop.name]),
            }
            if entry["verdict"] == "violated":
                steps = self.trace(prop.name)
                entry["length"] = len(steps)
                entry["steps"], entry["sides"] = changes(self, steps)
                entry |= self._live(prop.name, steps)
                entry["trace"] = self.text(prop, steps, entry)
                if elsewhere:
                    lines = on_x86_64(self, prop.name, steps)
                    entry["x86_64"] = lines and "\n".join(lines) + "\n"
            properties[prop.name] = entry
        return {
            "options": self.options,
            "closed": self.ended == "closed",
            "ended": self.ended,
            "depth": search.depth,
            "complete_depth": search.complete_depth,
            "states": search.distinct,
            "by_depth": search.by_depths,
            "generated": search.generated,
            "fatal_steps": search.fatal,
            "executed": self.executed(),
            "symmetry": self.symmetry,
            "orbit_sum": search.orbits,
            "bytes_per_state": search.bytes_per_state,
            "seconds": self.seconds,
            "properties": properties,
        }

    def _live(self, name, steps):
        """{"live": a trace as a sequence for a running kernel}, or {"not_live": why there is none}."""
        try:
            return {"live": sequence(self.scope, steps, f"{self.engine.name}, {self.scope.title}: {name}")}
        except NotOnAKernel as reason:
            return {"not_live": str(reason)}

    def text(self, prop, steps, entry) -> str:
        """A trace as a file: what it breaks and how to replay it as comments, then statements.

        entry: of the property in result(), with what changes() gives.
        """
        scheme, given = self.engine.name, self.given
        words = "".join(f" --option {key}={value}" for key, value in given.items())
        again = f"hgmcore replay FILE --scheme {scheme}{words} --operations all"
        if scheme not in schemes.NAMES:
            again = "hgmcore.replay(FILE, engine)"
        lines = [
            "hgmcore-trace 1",
            f"# {prop.name}: {prop.text} (where {prop.premise}); {promised(promise(self.engine, prop.name))}",
            f"# scheme {scheme}{words}; scope {self.scope.title}; hgmcore {sys.modules['hgmcore'].__version__}",
            f"# {again}",
            f"# on a running kernel: {entry.get('not_live') or 'hgmcore validate --live --sequence FILE.live.jsonl'}",
            f"geometry {self.scope.geometry}",
            *self.scope.preamble(),
        ]
        lines += [line for step in steps for line in step.lines()]
        rows = [
            f"# {' + '.join(row['statement'])}: {row['error'] or row['event'] or 'ok'}"
            + "".join(f"  {word} {before}>{after}" for word, (before, after) in row["changed"].items())
            for row in entry["steps"]
        ]
        sides = [f"# {side}" for side in entry["sides"]]
        return "\n".join([*lines, "#", "# what each step changed", *rows, "#", "# at the end", *sides]) + "\n"


def promised(word: str) -> str:
    return {"promised": "breaks its promise", "definition": "by definition", "fault": "known fault"}[word]


def changes(checked: Checked, steps) -> tuple[list[dict], list[str]]:
    """A trace, replayed on a machine as `hgmcore replay` does: each step's answer and the words that it changed.

    Words are those of the huge pages of the page cache, with the truth beside them. Then both sides at the end: of each
    huge page what the scheme says and what is true.
    """
    scope = checked.scope
    lines = scope.preamble() + [line for step in steps for line in step.lines()]
    trace = Trace.parse("\n".join(["hgmcore-trace 1", f"geometry {scope.geometry}", *lines]))
    machine = Machine(checked.engine, scope.geometry, reserve="4M", **checked.given)
    machine.declare(trace.header)
    at = len(scope.preamble())
    machine.run(trace.records[:at])
    rows, before = [], words_of(machine)
    for step in steps:
        statement = step.lines()
        seen = len(machine.results())
        machine.run(trace.records[at : at + len(statement)])
        at += len(statement)
        after, result = words_of(machine), machine.results(seen)
        result = result[result["index"] == machine.operations - 1]    # not that of a `fail` before
        error, event = (int(result[0]["errno"]), int(result[0]["event"])) if len(result) else (0, 0)
        changed = {
            word: [before.get(word, 0), after.get(word, 0)]
            for word in (*before, *(w for w in after if w not in before))
            if before.get(word, 0) != after.get(word, 0)
        }
        rows.append(
            {
                "statement": statement,
                "error": error_name(error) if error else None,
                "event": "minor" if event else None,
                "done": int(result[0]["done"]) if len(result) else None,
                "changed": changed,
            }
        )
        before = after
    return rows, [side_of(folio) for folio in machine.observe()["folios"]]


def side_of(folio) -> str:
    """What a scheme says of a folio that was observed, and what is true."""
    said = [
        f"{word}: {'yes' if folio[word] is True else 'no' if folio[word] is False else folio[word]}"
        for word in ("refcount", "page_cache_refs", "pins", "mapcount", "mapped", "maybe_shared")
    ]
    true = [f"{word}: {folio['truth'][word]}" for word in ("leaves", "processes")]
    return (
        f"{folio['file']} page {folio['page']}: {', '.join(said)}, page_mapcount: {_each(folio['page_mapcount'])}; "
        f"truth: {', '.join(true)}, page_mapcount: {_each(folio['truth']['page_mapcount'])}"
    )


def _each(runs) -> str:
    """Runs (first, last, count) as the count of each base page."""
    return " ".join(str(count) for first, last, count in runs for _ in range(first, last))


def words_of(machine) -> dict:
    """The words of every huge page that there ever was on a machine, and what maps it: name -> number."""
    words = {}
    folios, leaves = machine.core.folios(), truth.leaves(machine.core)
    for number, folio in enumerate(folios):
        if number + 1 < len(folios) and not (folio["flags"] & 1 or folio["refcount"]):
            continue
        name = f"F{folio['page']}" if folio["flags"] & 1 else f"old{number}"
        pages = machine.core.pages(int(folio["pfn"]), int(folio["nr_pages"]))
        words[f"{name}.ref"] = int(folio["refcount"])
        for word, column in machine.engine.state.items():
            value = pages[1][column]
            if column == "_mm_id":
                value = int(pages[1]["_mm_id"][1]) >> 31
            words[f"{name}.{word}"] = value.tolist() if isinstance(value, np.ndarray) else int(value)
        for i, count in enumerate(pages["_mapcount"].tolist()):
            words[f"{name}._mapcount[{i}]"] = count
        inside = (leaves["pfn"] >= folio["pfn"]) & (leaves["pfn"] < folio["pfn"] + folio["nr_pages"])
        words[f"{name}.leaves"] = int(leaves["count"][inside].sum())
    return words


def check(
    which,
    scopes,
    *,
    limits: Limits = Limits(),
    symmetry="processes",
    threads=1,
    properties=None,
    progress=None,
    elsewhere=False,
    **given,
) -> dict:
    """Check schemes in scopes: {"format", "scopes": {title: {"definition", "schemes": {name: Checked.result()}}}}.

    which: names of schemes, or engines of one's own. elsewhere: as Checked.result takes it. A KeyboardInterrupt ends
    the search that runs; what was found is returned, with "interrupted". So is what was found before memory ran out;
    "out_of_memory" has the [scope, scheme] of searches that it ended.
    """
    for name in properties or ():
        if name not in NUMBER:
            raise ValueError(f"unknown property '{name}' (known: {', '.join(NUMBER)})")
    searches = [(scope, Checked(scheme, scope, symmetry, threads, **given)) for scope in scopes for scheme in which]
    out = {"format": "hgmcore-check 1", "interrupted": False, "out_of_memory": [], "scopes": {}}
    for scope, checked in searches:
        try:
            checked.run(limits, progress)
            found = checked.result(properties, elsewhere)
        except KeyboardInterrupt:  # while it says what it found: those before are whole
            out["interrupted"] = True
            break
        except MemoryError:
            out["out_of_memory"].append([scope.title, checked.engine.name])
            checked.search = None
            continue
        entry = out["scopes"].setdefault(scope.title, {"definition": scope.text(), "schemes": {}})
        entry["schemes"][checked.engine.name] = found
        checked.search = None  # its states are no longer needed
        if checked.ended == "memory":
            out["out_of_memory"].append([scope.title, checked.engine.name])
        if checked.ended == "interrupt":
            out["interrupted"] = True
            break
    return out


def cell(result, name, prop) -> str:
    """A scheme's place in the matrix, over all scopes of a result: what is worst, with the smallest length."""
    entries = [
        (scope["schemes"][name], scope["schemes"][name]["properties"][prop.name])
        for scope in result["scopes"].values()
        if prop.name in scope["schemes"].get(name, {}).get("properties", ())
    ]
    broken = [entry for _, entry in entries if entry["verdict"] == "violated"]
    if broken:
        return f"{min(entry['length'] for entry in broken)}{MARKS[broken[0]['promise']]}"
    verdicts = {entry["verdict"] for _, entry in entries}
    if "unknown" in verdicts:
        return "?"
    if "bounded" in verdicts:
        return f"b{min(found['complete_depth'] + 1 for found, entry in entries if entry['verdict'] == 'bounded')}"
    if "proved" in verdicts:
        return "."
    return "v" if any(entry["asked"] for _, entry in entries) else "-"


def status(result, strict=False) -> int:
    """0: every promise is kept. 1: one is broken; strict: or nothing was proved of something that was asked."""
    for scope in result["scopes"].values():
        for found in scope["schemes"].values():
            for entry in found["properties"].values():
                if entry["verdict"] == "violated" and entry["promise"] == "promised":
                    return 1
                if strict and (
                    entry["verdict"] in ("bounded", "unknown") or entry["verdict"] == "vacuous" and entry["asked"]
                ):
                    return 1
    return 0

"""What a sweep goes over: a TOML file, looked through before anything runs, as one point for each combination."""

from __future__ import annotations

import difflib
import itertools
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from hgmcore import workloads
from hgmcore.analysis.compare import engines_of, why_refused
from hgmcore.analysis.modelled import check_placed, profile_of
from hgmcore.inputs import WORKLOADS
from hgmcore.options import OPTIONS
from hgmcore.sizes import parse_named

KEYS = {
    "inputs": "what is replayed: paths (from the file's own folder), recording:NAME, workload:NAME[,key=value..]",
    "schemes": "\"all\", which is the default, or a list of names",
    "seeds": "a list of values of the parameter `seed` of workloads that have it, or a number n for 1 to n",
    "profiles": "names or files of profiles under which times are modelled",
    "processors": "numbers of CPUs that a trace's threads run on, with profiles",
    "spread": "how far lines move between CPUs, with profiles, as compare --spread",
    "baseline": "the scheme that others are compared with, as compare --baseline",
    "every": "operations between two observations, as compare --every",
    "machine": "memory of the machine whose struct pages are modelled, as compare --machine",
}
TABLES = {
    "sizes": "lists of values of workloads' parameters: pages = [1, 4]",
    "options": "lists of values of options of the schemes: batch = [\"no\", \"6.12\"]",
    "assume": "costs that profiles lack: CLASS = [NS, LOW, HIGH]",
}
"""Every key and table of a sweep's file, and what it means."""


class SpecError(ValueError):
    """A file of a sweep that cannot be used; the text names the file, the key and the reason."""


@dataclass(frozen=True)
class Point:
    """One combination. input: as the file spells it; source: what is loaded; sizes and seed: parameters in it."""

    input: str
    source: str
    sizes: dict = field(default_factory=dict)
    seed: str | None = None
    options: dict = field(default_factory=dict)
    profile: str | None = None
    processors: int | None = None


@dataclass(frozen=True)
class Spec:
    """A sweep: its points, and what holds for all of them. profiles: name -> Profile."""

    file: str
    points: list
    schemes: list
    profiles: dict
    spread: str | None = None
    baseline: str | None = None
    every: int | None = None
    machine: object = "1T"


def load(path) -> Spec:
    """The Spec in the TOML file `path`. OSError; SpecError, which names the key, where it is no sweep."""
    path = os.fspath(path)
    with open(path, "rb") as stream:
        try:
            return _Reader(path, tomllib.load(stream)).spec()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError(f"{path}: {error}") from None


class _Reader:
    """Reads and checks the tables of one file."""

    def __init__(self, path, given):
        self.path, self.given = path, given

    def spec(self):
        for key in self.given:
            self.known(key, {**KEYS, **TABLES}, "key")
        schemes = self.schemes()
        profiles = self.profiles()
        single = {key: self.given[key] for key in ("spread", "baseline", "every", "machine") if key in self.given}
        self.check_single(single, schemes, profiles)
        return Spec(self.path, self.points(self.options(schemes), profiles), schemes, profiles, **single)

    def error(self, key, reason):
        return SpecError(f"{self.path}: {key}: {reason}")

    def known(self, key, allowed, what, table=""):
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise self.error(f"{table}{key}", f"no such {what}{hint} (known: {', '.join(allowed)})")

    def values(self, key, values, kinds=(str,), what="words"):
        """A list of different values of some kinds, not empty; one value stands for a list of it."""
        values = values if isinstance(values, list) else [values]
        if not values:
            raise self.error(key, "the list is empty")
        for value in values:
            if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
                raise self.error(key, f"{value!r} is not one of {what}")
        for index, value in enumerate(values):
            if value in values[:index]:
                raise self.error(key, f"{value!r} stands twice")
        return values

    def table(self, name):
        table = self.given.get(name, {})
        if not isinstance(table, dict):
            raise self.error(name, "is no table: it begins with a line [" + name + "]")
        return table

    def schemes(self):
        """Names of schemes. Those that are named must be able to live with all options, those of "all" need not."""
        names = self.values("schemes", self.given.get("schemes", "all"))
        if "all" in names and len(names) > 1:
            raise self.error("schemes", "'all' stands alone")
        try:
            return [engine.name for engine in engines_of("all" if names == ["all"] else names)]
        except ValueError as error:
            raise self.error("schemes", error) from None

    def options(self, schemes):
        """Every combination of options, their values as `options.OPTIONS` spells them."""
        found = {}
        for name, values in self.table("options").items():
            self.known(name, OPTIONS, "option", "options.")
            key = f"options.{name}"
            spelled = [OPTIONS[name].value(value)
                       for value in self.values(key, values, (str, int, float, bool), "the option's values")]
            if None in spelled:
                bad = values[spelled.index(None)] if isinstance(values, list) else values
                raise self.error(key, f"{bad!r} is not one of {', '.join(OPTIONS[name].values)}")
            found[name] = self.values(key, spelled)
        combined = _product(found)
        named = self.given.get("schemes", "all") not in ("all", ["all"])
        for options in combined:
            refused = [why for why in (why_refused(engine, options) for engine in engines_of(schemes)) if why]
            if refused and (named or len(refused) == len(schemes)):
                raise self.error("options", f"{_spelled(options)}: {refused[0]}")
        return combined

    def profiles(self):
        assume = {}
        for name, three in self.table("assume").items():
            if not (isinstance(three, list) and len(three) == 3 and all(type(x) in (int, float) for x in three)):
                raise self.error(f"assume.{name}", f"{three!r} is not [NS, LOW, HIGH]")
            assume[name] = tuple(three)
        if "profiles" not in self.given:
            for key in ("processors", "spread", "assume"):
                if key in self.given:
                    raise self.error(key, "is for modelled times, and there are no profiles")
            return {}
        found = {}
        for name in self.values("profiles", self.given["profiles"]):
            try:
                found[name] = profile_of(self.beside(name) if name.endswith(".toml") else name, assume)
            except ValueError as error:
                raise self.error("profiles", error) from None
        return found

    def check_single(self, single, schemes, profiles):
        for key, kind in (("spread", str), ("baseline", str), ("every", int), ("machine", (str, int))):
            if key in single and (not isinstance(single[key], kind) or isinstance(single[key], bool)):
                raise self.error(key, f"{single[key]!r} is not what stands there ({KEYS[key]})")
        if single.get("every", 1) < 1:
            raise self.error("every", f"{single['every']} is not a number of operations")
        if single.get("baseline", schemes[0]) not in schemes:
            raise self.error("baseline", f"'{single['baseline']}' is not one of the schemes: {', '.join(schemes)}")
        try:
            if parse_named("machine", single.get("machine", "1T")) == 0:
                raise ValueError("it has no memory")
            check_placed(None, single.get("spread"))
        except ValueError as error:
            raise SpecError(f"{self.path}: {error}") from None

    def points(self, options, profiles):
        processors = self.values("processors", self.given.get("processors", [None]), (int, type(None)), "numbers")
        for cpus in processors:
            if cpus is not None and cpus < 1:
                raise self.error("processors", f"{cpus} is not a number of processors")
        variants = [variant for each in self.inputs() for variant in each]
        return [Point(name, source, sizes, seed, chosen, profile, cpus)
                for (name, source, sizes, seed), chosen, profile, cpus
                in itertools.product(variants, options, profiles or [None], processors)]

    def inputs(self):
        """For each input a list of (its name, what is loaded, sizes, seed)."""
        if "inputs" not in self.given:
            raise self.error("inputs", "is missing: " + KEYS["inputs"])
        sizes = {key: self.values(f"sizes.{key}", values, (str, int, float), "words and numbers")
                 for key, values in self.table("sizes").items()}
        if "seed" in sizes:
            raise self.error("sizes.seed", "seeds stand in the list `seeds`")
        lists = {**sizes, "seed": self.seeds()} if "seeds" in self.given else sizes
        taken, found = set(), []
        for name in self.values("inputs", self.given["inputs"], what="texts"):
            mine = self.parameters(name, lists)
            taken |= mine.keys()
            found.append([self.variant(name, choice) for choice in _product(mine)])
        for key in lists:
            if key not in taken:
                raise self.error("seeds" if key == "seed" else f"sizes.{key}", f"no input has a parameter '{key}'")
        return found

    def seeds(self):
        seeds = self.given["seeds"]
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if not 1 <= seeds <= MOST_SEEDS:
                raise self.error("seeds", f"{seeds} is not a number of seeds (1 to {MOST_SEEDS:,}; one seed: [n])")
            return list(range(1, seeds + 1))
        return self.values("seeds", seeds, (int,), "whole numbers")

    def parameters(self, name, lists):
        """Those of `lists` that an input takes: name of a parameter -> values."""
        if name == "-":
            raise self.error("inputs", "standard input cannot be read again; write a file")
        if not name.startswith(workloads.PREFIX):
            return {}
        workload, *pairs = name.removeprefix(workloads.PREFIX).split(",")
        try:
            known = workloads.parameters(workload, WORKLOADS)
        except ValueError as error:
            raise self.error("inputs", error) from None
        mine = {key: values for key, values in lists.items() if key in known}
        for key in mine.keys() & {pair.partition("=")[0] for pair in pairs}:
            raise self.error("inputs", f"{name}: '{key}' stands there and among the sizes or seeds, too")
        return mine

    def variant(self, name, choice):
        generated = name.startswith(workloads.PREFIX)
        source = name if generated or name.startswith("recording:") else self.beside(name)
        sizes = {key: str(value) for key, value in choice.items()}
        source += "".join(f",{key}={value}" for key, value in sizes.items())
        seed = sizes.pop("seed", None)
        return name, source, sizes, seed

    def beside(self, name):
        """A path that is relative to the folder of the file."""
        return str(Path(self.path).parent / name)


MOST_SEEDS = 1_000_000


def _product(lists):
    """Every choice of one value each: dicts."""
    return [dict(zip(lists, choice, strict=True)) for choice in itertools.product(*lists.values())]


def _spelled(options):
    return ", ".join(f"{name} = {value}" for name, value in options.items())

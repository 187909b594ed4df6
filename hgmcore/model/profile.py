"""Profiles: what each class of event costs on a named processor, and what the kernel's own work takes there.

A profile is a TOML file; each value has its 90 % interval, how it was got and from what. Those that ship stand in
profiles/. Everything that is wrong with a file is said in one line, with the file, the line and the key.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources

from hgmcore.model.contention import Curve
from hgmcore.model.linear import HOWS, Value

FORMAT = "hgmcore-profile 1"

COSTS = {
    "atomic": "a read-modify-write with a lock prefix on a word of a struct page, or a lock taken",
    "plain": "a write without one to a word that keeps counts",
    "step": "a call of the kernel's rmap code that changes a word of a struct page",
    "stat": "the statistics of mapped pages, where they change",
    "far": "on top, where the line is neither near nor next",
    "scan": "a page-table entry read only because the scheme asks",
    "table_alloc": "a page table made", "table_free": "a page table freed",
    "copy": "a base page copied on a write",
}
"""The costs of [cost], beside [cost.moved.DISTANCE]: name -> what it is of."""

DISTANCES = ("sibling", "l3", "socket", "remote")
"""How far a line is moved from the CPU that wrote it last: another thread of the core, sharing its L3 cache, its
socket, or none of these."""

KINDS = ("blind", "read")
"""How a moved line is met: by a read-modify-write alone, or by a load and then a compare-and-swap, as a look-up does.
"""

KERNEL = {
    "continue": "UFFDIO_CONTINUE",
    "fault": "a fault that maps one leaf", "fault_run": "a fault that maps a run of them",
    "write": "a write fault that leaves the page or copies it", "memset": "the same, and all of the page is written",
    "dontneed": "MADV_DONTNEED",
    "dontneed_anon": "MADV_DONTNEED of one base page of anonymous memory",
    "munmap": "munmap or exit, folios stay", "munmap_freed": "munmap or exit that frees folios",
    "fork": "fork", "collapse": "MADV_COLLAPSE", "split": "a PMD leaf split into PTEs",
}
"""The rows of [kernel]: name -> operation."""

PARTS = ("call", "leaf", "free")
"""What a row of [kernel] may have costs for: an operation, a leaf of it, a folio that it frees."""

NEEDED = ("format", "name", "kind", "processor", "cost")
OPTIONAL = ("description", "contention", "fit", "kernel", "warning", "replay_gate", "not_measurable")
PROCESSOR = {"vendor": str, "model": str, "ghz": (int, float), "cpus": int, "l2_bytes": int, "virtual": bool,
             "kernel": str, "date": str}


class ProfileError(ValueError):
    """A profile that cannot be used: file, line where there is one, key, reason."""


@dataclass(frozen=True)
class Profile:
    """costs: {parameter: Value}, with the names of COSTS, "moved.DISTANCE.KIND" and "kernel.ROW.PART". kind: "kernel"
    if it has a [kernel], else "accounting". curve: of contention, or None.
    """

    name: str
    kind: str
    description: str
    processor: dict
    costs: dict
    curve: Curve | None = None
    fit: dict = field(default_factory=dict)
    warnings: tuple = ()
    not_measurable: dict = field(default_factory=dict)
    replay_gate: str = ""

    @property
    def transferred(self) -> bool:
        """Is K(op) another processor's?"""
        return bool(self.fit.get("transferred", False))

    @property
    def form(self) -> float:
        """How far the form's own error is to be trusted: 1, or 2 where K(op) was transferred."""
        return 2.0 if self.transferred else 1.0

    def assuming(self, assumed: dict) -> Profile:
        """The profile with further costs, {parameter: Value}. ProfileError: a name that no profile has."""
        for name in assumed:
            if name not in parameters():
                raise ProfileError(f"--assume {name}: no such cost{_near(name, parameters())}")
        return replace(self, costs={**self.costs, **assumed})


def parameters() -> list:
    """Every name of a cost that a profile may have."""
    return [*COSTS, *(f"moved.{distance}.{kind}" for distance in DISTANCES for kind in KINDS),
            *(f"kernel.{row}.{part}" for row in KERNEL for part in PARTS)]


def names() -> list:
    """The profiles that ship."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def load(name) -> Profile:
    """The profile of that name, or in that file. ProfileError."""
    text = os.fspath(name)
    if text in names():
        return parse((_folder() / f"{text}.toml").read_text(encoding="utf-8"), f"{text}.toml")
    if not text.endswith(".toml") and not os.path.exists(text):
        raise ProfileError(f"no profile '{text}'{_near(text, names())} (known: {', '.join(names())}; or a .toml file)")
    try:
        with open(text, encoding="utf-8") as file:
            return parse(file.read(), text)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{text}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}") from None


def _folder():
    return resources.files("hgmcore.model") / "profiles"


def _near(word, known):
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def parse(text: str, file="<profile>") -> Profile:
    """The profile that a TOML text is. ProfileError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{file}: {error}") from None
    return _Reader(text, file).profile(data)


class _Reader:
    """Checks what a TOML file holds. `path`: keys from the outermost in."""

    def __init__(self, text, file):
        self.lines, self.file = text.splitlines(), file

    def error(self, path, reason):
        return ProfileError(f"{self.file}{self._line(path)}: {'.'.join(path)}: {reason}")

    def _line(self, path):
        """":N" where the key stands, as far as it can be told."""
        section, best = (), ""
        for number, line in enumerate(self.lines, 1):
            header = re.match(r"\s*\[([^\]]+)\]", line)
            if header:
                section = tuple(header[1].replace(" ", "").split("."))
                if section == path[:len(section)]:
                    best = f":{number}"
                continue
            rest = path[len(section):]
            if section == path[:len(section)] and rest and re.match(rf"\s*{re.escape(rest[0])}\s*=", line):
                best = f":{number}"
        return best

    def table(self, value, path):
        if not isinstance(value, dict):
            raise self.error(path, "is no table")
        return value

    def known(self, value, path, allowed, required=()):
        for key in self.table(value, path):
            if key not in allowed:
                raise self.error((*path, key), f"no such key{_near(key, allowed)}")
        for key in required:
            if key not in value:
                raise self.error((*path, key), "is missing")
        return value

    def number(self, value, path, least=0.0):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(path, f"{value!r} is no number")
        if value < least:
            raise self.error(path, f"{value} is below {least:g}")
        return float(value)

    def word(self, value, path, allowed=None):
        if not isinstance(value, str):
            raise self.error(path, f"{value!r} is no text")
        if allowed and value not in allowed:
            raise self.error(path, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def cost(self, entry, path, key="ns", low="low", high="high", how=None, source=None):
        """A Value from three numbers of a table."""
        ns, least, most = (self.number(entry[name], (*path, name)) for name in (key, low, high))
        if least > most:
            raise self.error(path, f"{low} {least:g} is above {high} {most:g}")
        if not least <= ns <= most:
            raise self.error(path, f"{key} {ns:g} is not between {low} {least:g} and {high} {most:g}")
        return Value(ns, least, most, self.word(entry["how"] if how is None else how, (*path, "how"), HOWS),
                     self.word(entry["from"] if source is None else source, (*path, "from")))

    def profile(self, data):
        self.known(data, (), (*NEEDED, *OPTIONAL), NEEDED)
        if data["format"] != FORMAT:
            raise self.error(("format",), f"{data['format']!r} is not '{FORMAT}'")
        kind = self.word(data["kind"], ("kind",), ("kernel", "accounting"))
        if (kind == "kernel") != ("kernel" in data):
            raise self.error(("kind",), f"'{kind}', " + ("but there is no [kernel]" if kind == "kernel"
                                                         else "but there is a [kernel]"))
        processor = self.known(data["processor"], ("processor",), tuple(PROCESSOR), ("cpus", "l2_bytes"))
        for key, value in processor.items():
            if not isinstance(value, PROCESSOR[key]) or isinstance(value, bool) != (PROCESSOR[key] is bool):
                raise self.error(("processor", key), f"{value!r} is not what stands there")
        for key in ("cpus", "l2_bytes"):
            self.number(processor[key], ("processor", key), 1)
        costs = {**self._costs(data["cost"]), **self._kernel(data.get("kernel", {}))}
        warning = data.get("warning", [])
        if not isinstance(warning, list) or not all(isinstance(one, str) for one in warning):
            raise self.error(("warning",), "is no list of texts")
        missing = self.table(data.get("not_measurable", {}), ("not_measurable",))
        for key, reason in missing.items():
            self.word(reason, ("not_measurable", key))
        words = {key: self.word(data.get(key, ""), (key,)) for key in ("name", "description", "replay_gate")}
        return Profile(words["name"], kind, words["description"], processor, costs,
                       self._contention(data.get("contention")), self._fit(data.get("fit", {})), tuple(warning),
                       dict(missing), words["replay_gate"])

    def _costs(self, table):
        costs = {}
        for name, entry in self.known(table, ("cost",), (*COSTS, "moved")).items():
            if name != "moved":
                costs[name] = self._cost(entry, ("cost", name))
                continue
            for distance, kinds in self.known(entry, ("cost", "moved"), DISTANCES).items():
                path = ("cost", "moved", distance)
                for kind, cost in self.known(kinds, path, KINDS).items():
                    costs[f"moved.{distance}.{kind}"] = self._cost(cost, (*path, kind))
        return costs

    def _cost(self, entry, path):
        fields = ("ns", "low", "high", "how", "from")
        return self.cost(self.known(entry, path, fields, fields), path)

    def _kernel(self, table):
        costs = {}
        for row, entry in self.known(table, ("kernel",), tuple(KERNEL)).items():
            path = ("kernel", row)
            fields = {part: (part, f"{part}_low", f"{part}_high") for part in PARTS}
            self.known(entry, path, (*(name for three in fields.values() for name in three), "how", "from"),
                       ("how", "from"))
            for part, three in fields.items():
                if any(name in entry for name in three):
                    for name in three:
                        if name not in entry:
                            raise self.error((*path, name), "is missing")
                    costs[f"kernel.{row}.{part}"] = self.cost(entry, path, *three)
        return costs

    def _contention(self, table):
        if table is None:
            return None
        path, numbers = ("contention",), ("t1", "h", "g", "q", "error")
        self.known(table, path, (*numbers, "valid_to", "how", "from", "points"), ("t1", "valid_to", "how", "from"))
        found = {name: self.number(table[name], (*path, name)) for name in numbers if name in table}
        points = table.get("points", [])
        if not all(isinstance(point, list) and len(point) == 4 for point in points):
            raise self.error((*path, "points"), "is no list of [n, mean, min, max]")
        return Curve(**found, valid_to=int(self.number(table["valid_to"], (*path, "valid_to"), 1)),
                     how=self.word(table["how"], (*path, "how"), HOWS),
                     source=self.word(table["from"], (*path, "from")),
                     points=tuple(tuple(point) for point in points))

    def _fit(self, table):
        path = ("fit",)
        self.known(table, path, ("cells", "residual_mean", "residual_max", "model_error", "transferred", "copy_share"))
        share = table.get("copy_share", [0, 0, 0])
        if not isinstance(share, list) or len(share) != 3:
            raise self.error((*path, "copy_share"), "is no list of [per cent, low, high]")
        for number in share:
            self.number(number, (*path, "copy_share"))
        if not isinstance(table.get("transferred", False), bool):
            raise self.error((*path, "transferred"), "is neither true nor false")
        return dict(table)


def to_toml(one: Profile) -> str:
    """The profile as a file that `parse` takes."""
    lines = [f'format = "{FORMAT}"', f"name = {_text(one.name)}", f'kind = "{one.kind}"',
             f"description = {_text(one.description)}"]
    if one.warnings:
        lines.append(f"warning = [{', '.join(map(_text, one.warnings))}]")
    if one.replay_gate:
        lines.append(f"replay_gate = {_text(one.replay_gate)}")
    lines.append(f"processor = {_inline(one.processor)}")
    if one.fit:
        lines.append(f"fit = {_inline(one.fit)}")
    if one.curve:
        curve = one.curve
        lines.append("contention = " + _inline({
            "t1": curve.t1, "h": curve.h, "g": curve.g, "q": curve.q, "valid_to": curve.valid_to, "error": curve.error,
            "how": curve.how, "from": curve.source, "points": [list(point) for point in curve.points]}))
    if one.not_measurable:
        lines += ["", "[not_measurable]", *(f"{_key(name)} = {_text(why)}" for name, why in one.not_measurable.items())]
    lines += ["", "[cost]", *(f"{name} = {_inline(_of(one.costs[name]))}" for name in COSTS if name in one.costs)]
    for distance in DISTANCES:
        kinds = {kind: one.costs.get(f"moved.{distance}.{kind}") for kind in KINDS}
        if any(kinds.values()):
            lines += ["", f"[cost.moved.{distance}]",
                      *(f"{kind} = {_inline(_of(value))}" for kind, value in kinds.items() if value)]
    if one.kind == "kernel":
        lines += ["", "[kernel]", *filter(None, (_row(one, row) for row in KERNEL))]
    return "\n".join(lines) + "\n"


def _of(value):
    return {"ns": value.ns, "low": value.low, "high": value.high, "how": value.how, "from": value.source}


def _row(one, row):
    parts = {part: one.costs[f"kernel.{row}.{part}"] for part in PARTS if f"kernel.{row}.{part}" in one.costs}
    if not parts:
        return None
    numbers = {key: number for part, value in parts.items()
               for key, number in ((part, value.ns), (f"{part}_low", value.low), (f"{part}_high", value.high))}
    first = next(iter(parts.values()))
    return f"{row} = {_inline({**numbers, 'how': first.how, 'from': first.source})}"


def _text(word):
    return json.dumps(word, ensure_ascii=False)


def _key(name):
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _inline(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    return repr(value if isinstance(value, int) else float(f"{value:.6g}"))

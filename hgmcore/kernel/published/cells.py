"""The published tables, cell by cell, as they ship in tables.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

PTES = 1 << 18
"""Base pages of 1 GiB, the work of each cell."""

KINDS = ("seconds", "change", "bounds", "signs", "exact", "prediction", "figures")
"""Of a table: seconds before and after; a change in per cent; bounds of one; ns before and after of which only the sign
is judged; a count; nothing published here, a change predicted for each stage of a series; figures that stand for
themselves."""


@dataclass(frozen=True)
class Cell:
    """One published figure.

    before, after: {"scheme", "batch", "era"}. published: a change in per cent, (low, high) of a bound, or (before,
    after) of a count. seconds: (before, after) or None. judged: else it was used to fit.
    """

    table: str
    operation: str
    folio: str
    before: dict
    after: dict
    published: object
    seconds: tuple | None
    judged: bool

    @property
    def name(self) -> str:
        scheme = self.after["scheme"]
        if "stage" in self.after:
            return f"{self.operation} {self.after['stage']}"
        return f"{self.operation} {self.folio}" + (f" {scheme}" if self.before["scheme"] != scheme else "")


@dataclass(frozen=True)
class Table:
    """One published table.

    borrowed: costs that its profile takes from another, (profile, names) or None. assumed: {cost: (ns, low, high)}.
    """

    name: str
    title: str
    kind: str
    source: str
    processor: str
    profile: str | None
    borrowed: tuple | None
    assumed: dict
    cells: tuple
    event: str | None = None
    bytes: int | None = None
    cpus: tuple = ()
    figures: tuple = ()


def load() -> dict:
    """The file: {"table": [...], "not_expressed": [...]}."""
    return tomllib.loads((resources.files(__package__) / "tables.toml").read_text(encoding="utf-8"))


def tables() -> list[Table]:
    """Every table, in the order of the file."""
    return [_table(entry) for entry in load()["table"]]


def not_expressed() -> list[dict]:
    """What was published that the simulator cannot express: {"what", "from", "why"}."""
    return load()["not_expressed"]


def _table(entry):
    borrow = entry.get("borrow")
    return Table(entry["name"], entry["title"], entry["kind"], entry["from"], entry["processor"], entry.get("profile"),
                 (borrow["from"], tuple(borrow["costs"])) if borrow else None, entry.get("assume", {}),
                 () if entry["kind"] == "figures" else tuple(_cells(entry)), entry.get("event"), entry.get("bytes"),
                 tuple(entry.get("cpus", ())), tuple(entry["cells"]) if entry["kind"] == "figures" else ())


def _cells(entry):
    for operation, folio, *numbers in entry["cells"]:
        def cell(published, judged=True, seconds=None, **after):
            return Cell(entry["name"], operation, folio, entry["before"], {**entry["after"], **after}, published,
                        seconds, judged)
        if entry["kind"] == "seconds":
            before, after, use = numbers
            yield cell((after / before - 1) * 100, use == "J", (before, after))
        elif entry["kind"] == "change":
            *changes, uses = numbers
            for scheme, change, use in zip(entry["schemes"], changes, uses, strict=True):
                yield cell(float(change), use == "J", scheme=scheme)
        elif entry["kind"] == "prediction":
            for name, stage in entry["stages"].items():
                yield cell(None, judged=False, stage=name, **stage)
        elif entry["kind"] == "signs":
            before, after = numbers
            yield cell((after / before - 1) * 100, seconds=(before, after))
        else:
            yield cell(tuple(numbers))

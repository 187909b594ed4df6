"""What the workloads share: questions, parameters, and the writing of operations in bulk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import Trace
from hgmcore.trace.names import Names
from hgmcore.trace.statements import CODES, MINOR, OPERATION, SHARED
from hgmcore.trace.writer import Writer

PREFIX = "workload:"


Workload = TypeVar("Workload", bound=Callable[..., Trace])


def asks(question: str) -> Callable[[Workload], Workload]:
    """Decorator: the question that a workload answers, as its attribute `question`."""
    def mark(workload: Workload) -> Workload:
        workload.question = question  # type: ignore[attr-defined]
        return workload
    return mark


def spelled(workload: str, call: dict) -> str:
    """How a call is written behind `workload:`."""
    return ",".join([workload, *(f"{key}={value}" for key, value in call.items())])


class Story:
    """A trace in the making: one file `ram` of huge pages, populated, and processes that map all of it.

    call: the workload's arguments, of which page_size, pages, piece and geometry are read here, and seed where there
    is one. pieces: offsets of all pieces, an array of uint64. rng: the generator that `seed` gives.
    """

    def __init__(self, call: dict):
        self.call, self.writer = call, Writer(call["geometry"])
        sizes = (parse_named(key, call[key]) for key in ("page_size", "pages", "piece"))
        self.page_size, self.pages, self.piece = sizes
        self.geometry, self.size = self.writer.names.geometry, self.page_size * self.pages
        self.pieces = pieces(call)
        self.starts = np.arange(self.pages, dtype=np.uint64) * np.uint64(self.page_size)
        self.rng = np.random.default_rng(parse_named("seed", call.get("seed", 1)))
        self.phase("setup")
        self.file = self.writer.file("ram", self.page_size, self.pages)
        self.writer.emit("populate", self.file, 0, self.pages)

    def count(self, key: str, least: int = 1) -> int:
        """A parameter that is a number of at least `least`."""
        value = parse_named(key, self.call[key])
        if value < least:
            raise ValueError(f"{key}: expected at least {least}")
        return value

    def sample(self, key: str, among=None) -> np.ndarray:
        """A share, which parameter `key` gives, of all pieces or of the offsets `among`, at random."""
        among = self.pieces if among is None else among
        return self.rng.choice(among, round(share(key, self.call[key]) * len(among)), replace=False)

    def map(self, process: str, flags: int = SHARED | MINOR) -> int:
        """A new process maps the whole file and may map pieces of its huge pages."""
        mapping = self.writer.mmap(process, "ram", self.file, 0, self.size, flags)
        self.writer.emit("split", mapping, 0, self.size)
        return mapping

    def phase(self, name: str) -> None:
        """What follows belongs to this phase."""
        self.writer.phase(name)

    def many(self, op: str, target: int, offsets, length: int = 0, flags: int = 0) -> None:
        """One operation for each of `offsets`."""
        records = np.zeros(len(offsets), OPERATION)
        records["op"], records["target"], records["offset"] = CODES[op], target, offsets
        records["length"], records["flags"] = length, flags
        self.writer.extend(records)

    def whole(self, op: str, mapping: int) -> None:
        """One operation on all of a mapping."""
        self.writer.emit(op, mapping, 0, self.size)

    def install(self, mapping: int, offsets=None) -> None:
        """One `continue` for each piece, or for those at `offsets`."""
        self.many("continue", mapping, self.pieces if offsets is None else offsets, self.piece)

    def observe(self) -> None:
        """One observation."""
        self.writer.emit("observe", 0)

    def trace(self, workload: str) -> Trace:
        """The Trace of all that was written."""
        return self.writer.trace(PREFIX + workload, {"workload": spelled(workload, self.call)})


def pieces(call):
    """Offsets of all pieces, in order."""
    page_size, pages, piece = (parse_named(key, call[key]) for key in ("page_size", "pages", "piece"))
    base_page = Names(call["geometry"]).geometry.base_page
    if not piece or piece % base_page or page_size % piece:
        raise ValueError(f"piece: {call['piece']} is not a multiple of {format_size(base_page)} that divides "
                         f"a page of {call['page_size']}")
    if not pages:
        raise ValueError("pages: expected at least 1")
    return np.arange(0, page_size * pages, piece, dtype=np.uint64)


def share(name, value):
    try:
        share = float(value)
    except ValueError:
        raise ValueError(f"{name}: {quoted(value)} is not a number") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: {value} is not between 0 and 1")
    return share

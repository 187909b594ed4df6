"""Sequences on machines of any geometry: what a step breaks, told from observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hgmcore.api import Machine
from hgmcore.sizes import format_size
from hgmcore.trace import Trace

WHOLE = ("continue", "touch", "fork", "populate")
"""Families that, refused with nothing done, did nothing at all; others may have come to a second huge page."""
JUDGED = (
    "never_freed_while_mapped",
    "no_leak_at_end",
    "mapped_if_leaf",
    "leaf_if_mapped",
    "never_false_exclusive",
    "never_false_shared",
    "page_counts_equal_truth",
    "refs_explained",
    "no_underflow",
    "refusal_changes_no_count",
    "overflow_safe",
)
"""Properties that can be told from observations."""


@dataclass(frozen=True)
class Ground:
    """Where sequences play. files: (name, bytes of a huge page, huge pages, kind). sizes: bytes of what is mapped at
    once. flags: of mmap, one of them each time."""

    name: str
    geometry: str
    files: tuple
    sizes: tuple
    flags: tuple
    anon: bool = False


def preamble(ground: Ground) -> list[str]:
    """The statements that stay: header and files."""
    lines = ["hgmcore-trace 1", f"geometry {ground.geometry}"]
    return lines + [f"file {name} {format_size(size)} {pages} {kind}".rstrip() for name, size, pages, kind in
                    ground.files]


def counts(observation):
    """Of each folio, the counts that a refusal must not change."""
    return {
        (folio["file"], folio["page"], folio.get("first")): (
            folio["refcount"], folio["mapcount"], np.asarray(folio["page_mapcount"]).tobytes()
        )
        for folio in observation["folios"]
    }


def broken(observation, before, cost, refused) -> set[str]:
    """Names of JUDGED that an observation breaks. before: counts of the one before; refused: with nothing done."""
    found = {"never_freed_while_mapped"} if observation["freed_while_mapped"] else set()
    found |= {"no_underflow"} if cost["underflows"] else set()
    found |= {"overflow_safe"} if cost["overflows"] else set()
    for folio in observation["folios"]:
        true, outside = folio["truth"], folio["page_cache_refs"] + folio["pins"]
        tests = {
            "no_leak_at_end": folio["refcount"] > 0 and not outside and not true["leaves"],
            "mapped_if_leaf": true["leaves"] and not folio["mapped"],
            "leaf_if_mapped": folio["mapped"] and not true["leaves"],
            "never_false_exclusive": true["processes"] > 1 and not folio["maybe_shared"],
            "never_false_shared": folio["maybe_shared"] and true["processes"] < 2,
            "page_counts_equal_truth": not np.array_equal(folio["page_mapcount"], true["page_mapcount"]),
            "refs_explained": folio["refcount"] - outside != folio["mapcount"],
        }
        found |= {name for name, wrong in tests.items() if wrong}
    if refused:
        now = counts(observation)
        if any(now[folio] != before[folio] for folio in now.keys() & before.keys()):
            found.add("refusal_changes_no_count")
    return found


def judged(engine, ground: Ground, lines, given):
    """Yield (number of statements so far, names of what the last one broke). Nothing follows a count below zero."""
    start = preamble(ground)
    trace = Trace.parse("\n".join(start + lines))
    machine = Machine(engine, ground.geometry, reserve="512M", **given)
    machine.declare(trace.header)
    before, seen, wrong = {}, 0, set()
    for i in range(len(trace.operations)):
        machine.run(trace.operations[i : i + 1])
        results = machine.results(seen)
        seen += len(results)
        number = int(trace.lines[i]) - len(start) - 1
        if number < 0:    # a file's
            continue
        family = lines[number].split()[0]
        refused = family in WHOLE and len(results) and results[0]["errno"] and not results[0]["done"]
        observation = machine.observe()
        found = broken(observation, before, machine.cost(), refused)
        yield number + 1, found - wrong
        wrong, before = found, counts(observation)
        if found & {"no_underflow", "overflow_safe", "never_freed_while_mapped"}:
            return

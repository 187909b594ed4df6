"""A trace one operation at a time, and what each changed: page-table entries, struct-page words, answers, the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hgmcore.api import Machine, SchemeLike
from hgmcore.core.machine import FOLIO, PAGE, PAGE_DOUBLE_MAP
from hgmcore.errnos import error_name
from hgmcore.geometry import LEVEL_NAMES
from hgmcore.inputs import load
from hgmcore.parts.pagetables import FRAME_SHIFT, LEAF, flags_of, kind_of
from hgmcore.replay import EVENTS, machine_for, plain
from hgmcore.trace import text

LOCKED = 0x200
SEEN_FLAGS = PAGE_DOUBLE_MAP | LOCKED
"""Flags of a struct page that a kernel has too; the others are the simulator's bookkeeping."""

IN_WORDS = PAGE.itemsize // 8
OF_FOLIO = ("file", "page", "first")
NOT_SAID = {*OF_FOLIO, "pages", "truth", "kpagecount", "hvo", "movable_all", "process", "mapping"}
"""Keys of an observation's rows that name the row, stand twice, or never change."""


@dataclass(frozen=True)
class Step:
    """One operation and what it changed (`replay_steps`).

    The lists have one dict for each change, with ``before`` and ``after``.

    Attributes
    ----------
    index : int
        The operation's number in the trace, from 0.
    line : int or None
        Its line in a text file.
    statement : str
        Its text.
    error : str or None
        The name of its errno, as "EEXIST".
    event : str or None
        "minor"; "never_fired", where a `fail` was for the operation and had no effect.
    done : int
        Bytes that it did.
    cost : dict
        Atomics (``ref``, ``map``, ``transient``), page-table entries ``scanned``, ``leaves`` installed and removed.
    entries : list of dict
        Page-table entries: ``process``, ``mapping`` (None outside of one), ``offset`` (bytes in the mapping, or else
        the address), ``level``, ``entries`` (how many in a row). An entry is None, or a dict of ``kind`` (table, leaf,
        migration, poison, zero), ``frame``, ``flags``, and of a leaf ``folio`` and ``page`` (in base pages of the
        folio); of several in a row the first is shown.
    words : list of dict
        Struct pages: ``folio``, ``page`` and ``pages`` (in base pages of the folio), ``word`` (a field of
        `core.machine.PAGE`).
    answers, truth : list of dict
        What the scheme says, and the recount: ``kind`` (folio, mapping, process), ``name``, ``key``; runs stand for
        arrays over base pages. A folio or mapping that comes or goes changes its key "listed".
    observation : dict
        The whole of it after the operation, as `Machine.observe` gives it.
    """

    index: int
    line: int | None
    statement: str
    error: str | None
    event: str | None
    done: int
    cost: dict[str, int]
    entries: list[dict[str, Any]] = field(repr=False)
    words: list[dict[str, Any]] = field(repr=False)
    answers: list[dict[str, Any]] = field(repr=False)
    truth: list[dict[str, Any]] = field(repr=False)
    observation: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the observation.

        Returns
        -------
        dict
            The attributes by name.
        """
        return plain({name: getattr(self, name) for name in self.__dataclass_fields__ if name != "observation"})


def replay_steps(trace: Any, scheme: SchemeLike, *, start: int = 0, stop: int | None = None,
                 **options: Any) -> Iterator[Step]:
    """Run a trace step by step, and tell what each operation changed.

    Memory is that of the machine twice, whatever the length of the trace; time of a step grows with the page tables and
    folios that there are.

    Parameters
    ----------
    trace : Trace, str, path or lines
        Whatever `hgmcore.load` takes.
    scheme : str, Engine, class or table
        A name of `hgmcore.schemes.names()`, or what `hgmcore.schemes.engine_of` takes.
    start, stop : int, optional
        Numbers of operations: steps are those of [start, stop); the operations before `start` run at once.
    **options
        Options of `hgmcore.options.OPTIONS`.

    Returns
    -------
    iterator of Step
        What each operation changed.

    Raises
    ------
    ValueError
        Unknown scheme or option, or no such operations.
    TraceError
        The trace cannot be used.

    Examples
    --------
    >>> import hgmcore as hgm
    >>> lines = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "continue A v 0 4K"]
    >>> for step in hgm.replay_steps(lines, "head_per_leaf", start=3):
    ...     print(step.statement, "|", step.entries[-1]["level"], step.words[0]["word"], step.cost["ref"])
    continue A v 0 4K | pte _entire_mapcount 1
    """
    trace = load(trace)
    stop = len(trace) if stop is None else stop
    if not 0 <= start <= stop <= len(trace):
        raise ValueError(f"operations {start} to {stop}: not a part of 0 to {len(trace)}")
    return _steps(trace, machine_for(trace, scheme, options), start, stop)


def _steps(trace, machine, start, stop):
    machine.run(trace.records[:start])
    before, seen = _Memory(machine), len(machine.core.results())
    observation = machine.observe()
    for index in range(start, stop):
        record = trace.operations[index:index + 1]
        cost = machine.run_each(record)
        results = machine.results(seen)
        seen += len(results)
        events = [EVENTS[event] for event in results["event"].tolist() if event]  # of a `fail` before, then its own
        results = results[results["index"] == index]
        asked = machine.core.asked(machine.engine, record)
        done = int(results["done"][-1] if len(results) else asked[0])
        after, last, observation = _Memory(machine, before), observation, machine.observe()
        answers, truth = observed_changes(last, observation)
        entries = entry_changes(before, after)
        yield Step(
            index, None if trace.lines is None else int(trace.lines[index]), next(text.spelled(record, trace.header)),
            error_name(results["errno"][-1]) if len(results) and results["errno"][-1] else None,
            events[-1] if events else None, done,
            {name: int(cost[name][0]) for name in cost.dtype.names},
            entries, after.word_changes(before), answers, truth, observation)
        before = after


class _Memory:
    """Page tables, struct pages and mappings of a machine at one moment.

    keys: (process, level, address) of each table, in order; entries: array (tables, entries). pages: the struct pages
    as an array (frames, 8) of uint64. last: the moment before, whose struct pages this object takes over and brings up
    to date; `changed` are the frames of those that differ, and `old` what stood there.
    """

    def __init__(self, machine: Machine, last=None):
        core = machine.core
        self.machine, self.header = machine, machine.header
        self.mappings = core.mappings().astype(np.int64)
        self.folios = core.folios()
        self.starts = self.folios["pfn"].astype(np.int64)
        self._read_tables()
        self._read_pages(last)

    def _read_tables(self):
        found = {(table.process, table.level, table.address): table for table in self.machine.tables()}
        self.keys = keys = sorted(found)
        tables = [found[key].entries for key in keys]
        self.entries = np.stack(tables) if tables else np.empty((0, 1 << self.machine.geometry.index_bits), np.uint64)
        self.row = {key: row for row, key in enumerate(keys)}

    def _read_pages(self, last):
        frames = int((self.starts + self.folios["nr_pages"].astype(np.int64)).max(initial=0))
        now = self.machine.core.pages(0, frames).view(np.uint64).reshape(-1, IN_WORDS)
        if last is None:
            self.pages, self.changed, self.old = now.copy(), np.empty(0, np.int64), now[:0]
            return
        had = last.pages
        if len(had) < frames:
            had = np.concatenate([had, np.zeros((frames - len(had), IN_WORDS), np.uint64)])
        second = self.folios["nr_pages"] > 1
        at = [self.starts, self.starts[second] + 1]
        if self.machine.engine.writes_tails:
            touched = self._touched(last, had, now, np.concatenate(at))
            at += [np.arange(first, first + pages) for first, pages in touched]
        at = np.unique(np.concatenate(at))
        self.changed = at[(had[at] != now[at]).any(1)]
        self.old = had[self.changed]
        had[self.changed] = now[self.changed]
        self.pages, last.pages = had, None

    def _touched(self, last, had, now, heads):
        """(first frame, pages) of the folios of which leaves or counts of the folio as a whole changed: tails may
        have."""
        frames = [heads[(had[heads] != now[heads]).any(1)]]
        for old, new in _pairs(last, self):
            for one in (old, new):
                frames.append((one[(old != new) & (one & np.uint64(LEAF) != 0)] >> np.uint64(12)).astype(np.int64))
        which = np.unique(np.searchsorted(self.starts, np.concatenate(frames), side="right") - 1)
        return [(int(self.starts[i]), int(self.folios["nr_pages"][i])) for i in which if i >= 0]

    def folio(self, pfn):
        """(name, base page in it) of the folio that has frame `pfn`, (None, pfn) where there is none."""
        i = int(np.searchsorted(self.starts, pfn, side="right")) - 1
        if i < 0 or pfn >= self.starts[i] + int(self.folios["nr_pages"][i]):
            return None, int(pfn)
        row = dict(zip(FOLIO.names, self.folios[list(FOLIO.names)][i].tolist()))
        return self.folio_name(row), int(pfn - self.starts[i])

    def folio_name(self, row):
        file = self.header.files[row["file"]]
        page = row["page"]
        if file.kind == "shmem":
            page, first = divmod(page, file.page_size // self.machine.geometry.base_page)
            return f"{file.name} {page}" + (f" {first}" if first else "")
        return f"{file.name} {page}"

    def mapping(self, process, address):
        """(name, offset) of the mapping of a process at an address, (None, address) where there is none."""
        at = self.mappings
        inside = (at[:, 0] == process) & (at[:, 2] <= address) & (address < at[:, 2] + at[:, 3])
        for i in np.flatnonzero(inside)[:1].tolist():
            return self.header.mappings[i].name, address - int(at[i, 2])
        return None, address

    def word_changes(self, last):
        """The words of struct pages that changed: runs of base pages of one folio with the same change."""
        pages = self.pages[self.changed].reshape(-1).view(PAGE)
        olds = np.ascontiguousarray(self.old).reshape(-1).view(PAGE)
        found = []
        for name in PAGE.names:
            new, old = pages[name], olds[name]
            if name == "flags":
                new, old = new & np.uint64(SEEN_FLAGS), old & np.uint64(SEEN_FLAGS)
            differ = np.flatnonzero((new != old).any(1) if new.ndim == 2 else new != old)
            for i in differ.tolist():
                frame, was, now = int(self.changed[i]), old[i].tolist(), new[i].tolist()
                row = found[-1] if found else None
                folio, page = self.folio(frame)
                if row and (row["folio"], row["page"] + row["pages"], row["word"], row["before"], row["after"]) == (
                        folio, page, name, was, now):
                    row["pages"] += 1
                else:
                    found.append({"folio": folio, "page": page, "pages": 1, "word": name, "before": was, "after": now})
        return found


def _pairs(before, after):
    """Yield (entries before, entries after) of the tables that are not the same, a table that is not there as zeros."""
    for _, old, new in _tables_changed(before, after):
        yield old, new


def _tables_changed(before, after):
    if before.keys == after.keys:
        for i in np.flatnonzero((before.entries != after.entries).any(1)).tolist():
            yield before.keys[i], before.entries[i], after.entries[i]
        return
    none = np.zeros(1 << after.machine.geometry.index_bits, np.uint64)
    for key in sorted({*before.keys, *after.keys}):
        old, new = (one.entries[one.row[key]] if key in one.row else none for one in (before, after))
        if not np.array_equal(old, new):
            yield key, old, new


def entry_changes(before, after) -> list:
    """The page-table entries that changed, as Step.entries; highest level first within a process."""
    geometry, found = after.machine.geometry, []
    changed = sorted(_tables_changed(before, after), key=lambda table: (table[0][0], -table[0][1], table[0][2]))
    for (process, level, address), old, new in changed:
        shift = geometry.level_shift(level)
        step = 1 << (shift - geometry.base_shift)
        at = np.flatnonzero(old != new)
        olds, news = old[at].astype(np.int64), new[at].astype(np.int64)
        new_run = np.ones(len(at), bool)
        new_run[1:] = (np.diff(at) != 1) | ~_goes_on(olds, step) | ~_goes_on(news, step)
        for first, end in zip(np.flatnonzero(new_run).tolist(), [*np.flatnonzero(new_run)[1:].tolist(), len(at)]):
            where = address + (int(at[first]) << shift)
            mapping, offset = after.mapping(process, where)
            if mapping is None:
                mapping, offset = before.mapping(process, where)
            found.append({"process": after.header.processes[process], "mapping": mapping, "offset": offset,
                          "level": LEVEL_NAMES[level], "entries": end - first,
                          "before": _entry(int(olds[first]), before), "after": _entry(int(news[first]), after)})
    return found


def _goes_on(entries, step):
    """Of each entry but the first, whether it is what follows in a row: none again, or the next leaf."""
    first, second = entries[:-1], entries[1:]
    leaf = (first & LEAF != 0) & (second == first + (step << 12))
    return leaf | (first == 0) & (second == 0)


def _entry(entry, memory):
    if not entry:
        return None
    kind = kind_of(entry)
    shown = {"kind": kind, "frame": entry >> FRAME_SHIFT, "flags": flags_of(entry)}
    if kind in ("leaf", "migration"):
        shown["folio"], shown["page"] = memory.folio(entry >> 12)
    return shown


def observed_changes(before: dict, after: dict):
    """(what the scheme says otherwise, what the recount finds otherwise) in the second of two observations."""
    answers: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for kind, many in (("folio", "folios"), ("mapping", "mappings"), ("process", "processes")):
        old, new = ({_name(row, kind): row for row in one[many]} for one in (before, after))
        for name in dict.fromkeys([*old, *new]):
            was, now = old.get(name), new.get(name)
            if kind != "process" and (was is None or now is None):
                answers.append({"kind": kind, "name": name, "key": "listed", "before": was is not None,
                                "after": now is not None})
            if now is None:
                continue
            said, true = ([_flat(row, part) for row in (was, now)] for part in ("said", "truth"))
            if kind == "process":    # page tables are there whatever a scheme counts
                said, true = [{}, {}], said
            for changes, (one, other) in ((answers, said), (truth, true)):
                changes += [{"kind": kind, "name": name, "key": key, "before": plain(one.get(key, _blank(value))),
                             "after": plain(value)}
                            for key, value in other.items() if not np.array_equal(one.get(key, _blank(value)), value)]
    if before["freed_while_mapped"] != after["freed_while_mapped"]:
        truth.append({"kind": "machine", "name": "", "key": "freed_while_mapped",
                      "before": before["freed_while_mapped"], "after": after["freed_while_mapped"]})
    return answers, truth


def _name(row, kind):
    keys = {"folio": OF_FOLIO, "mapping": ("process", "mapping"), "process": ("process",)}[kind]
    return " ".join(str(row[key]) for key in keys if key in row and (key != "first" or row[key]))


def _flat(row, part):
    """The numbers, runs and words of a row by key, those deeper as in state.entire; {} of no row."""
    if row is None:
        return {}
    row = row.get("truth", {}) if part == "truth" else {key: row[key] for key in row if key not in NOT_SAID}
    flat = {}
    for key, value in row.items():
        flat.update({f"{key}.{word}": one for word, one in value.items()} if isinstance(value, dict) else {key: value})
    return flat


def _blank(value):
    """What stands for a value that was not there before."""
    if isinstance(value, np.ndarray):
        return np.array([[value[0, 0], value[-1, 1], 0]]) if value.size else value
    return type(value)() if not isinstance(value, str) else "0x0"

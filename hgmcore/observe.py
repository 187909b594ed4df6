"""Observations: what the scheme says of every huge page and mapping, and the truth beside it.

An observer looks anew only at huge pages that an operation may have touched since it looked last (core.touched), and at
the page tables that map them. All else it has from before, and its observations share that: time and memory of an
observation follow what was touched. Arrays over base pages are runs: rows (first, last, value), half-open.
"""

from __future__ import annotations

import numpy as np

from hgmcore.core import truth
from hgmcore.core.machine import FOLIO_FREED
from hgmcore.core.smaps import PART, SHARE
from hgmcore.folios import Folios, Piece, Ragged
from hgmcore.geometry import LEVEL_NAMES, PMD, PTE, PUD
from hgmcore.runs import ascending, merge
from hgmcore.schemes import NAMES
from hgmcore.seen import Seen, areas_of, columns_dtype

BLOCK = 4096
"""Huge pages, by number, of which an observer keeps what it saw together."""

AT_ONCE = 16
"""Blocks that are looked at in one go: a bound on the memory that this takes."""

WALK_ALL = 0.25
"""Share of the huge pages that were touched from which on all page tables are walked."""

MOST_SPANS = 1 << 16
"""Spans of addresses up to which page tables are walked in parts."""


class Observer:
    """One machine's huge pages and mappings as they were when it looked last. Parameters: those of a Machine."""

    def __init__(self, core, engine, geometry, options):
        self.core, self.engine, self.geometry, self.options = core, engine, geometry, options
        self.blocks = []
        self.known = 0
        self.me = object()    # to the core, which so does not hold this object, as that holds the core

    def observation(self, names, index=0) -> dict:
        """The state of the machine as an observation of `hgmcore replay --json`, with NumPy arrays for runs.

        names: a trace.Header, for the names of files, processes and mappings.
        """
        self._look(names)
        folios = Folios([block.piece for block in self.blocks], self.engine.state, list(names.files),
                        self.options["hvo"] == "on", self.geometry.base_page)
        return {"index": index, "folios": folios,
                "mappings": self._mapping_rows(names), "processes": self._process_rows(names),
                "freed_while_mapped": sum(block.freed_while_mapped for block in self.blocks)}

    def _look(self, names):
        """Bring the blocks up to date."""
        touched = self.core.touched(self.me)    # from here on marks are of what comes
        if self.engine.name not in NAMES:    # a scheme of somebody else may keep what it knows anywhere
            touched = None
        count = self.core.nr_folios()
        if touched is None:
            self.blocks, self.known, spans = [], 0, None
            numbers = np.arange(count, dtype=np.uint32)
        else:
            numbers, spans = self._touched(*touched, count, names)
        if not len(numbers):
            return
        leaves, seen_to = truth.leaves(self.core, spans), self.known
        self.known = 0    # if something fails, the next look is a first one
        edges = np.searchsorted(numbers, np.arange(0, count + AT_ONCE * BLOCK, AT_ONCE * BLOCK)).tolist()
        for first, last in zip(edges, edges[1:]):
            if first < last:
                some = numbers[first:last]
                self._renew(some, Seen(self.core, self.engine, self.geometry, self.options, names, some, leaves))
        self.known = max(seen_to, count)

    def _touched(self, files, anonymous, count, names):
        """(numbers of the huge pages that may differ, spans of addresses that map them; None: everywhere)."""
        if not self.known:
            return np.arange(count, dtype=np.uint32), None
        if anonymous:    # private copies are found by no place in a file
            whole = 32, np.ones(1, bool)
            files = {**files, **{i: whole for i, file in enumerate(names.files) if file.kind != "hugetlb"}}
        found = [np.flatnonzero(block.among(files)) + number * BLOCK for number, block in enumerate(self.blocks)]
        numbers = np.concatenate([*found, np.arange(self.known, count)]).astype(np.uint32)
        walk_all = anonymous or WALK_ALL and len(numbers) > WALK_ALL * count
        return numbers, None if walk_all else self._spans(files, names)

    def _spans(self, files, names):
        """Where the mappings of files have what is marked in them: rows of truth.leaves(); None: in too many places."""
        mappings, rows, room = self.core.mappings().astype(np.int64), [np.empty((0, 3), np.int64)], MOST_SPANS
        for number, (shift, marks) in files.items():
            file = names.files[number]
            unit = file.page_size if file.kind == "hugetlb" else self.geometry.base_page
            edges = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0)) << shift
            first, last = edges[::2] * unit, edges[1::2] * unit
            for mapping in np.flatnonzero((mappings[:, 1] == number) & (mappings[:, 3] > 0)).tolist():
                process, _, address, length, offset = mappings[mapping].tolist()
                some = slice(np.searchsorted(last, offset, "right"), np.searchsorted(first, offset + length, "left"))
                room -= some.stop - some.start
                if room < 0:
                    return None
                begin, end = (np.clip(at[some] - offset, 0, length) + address for at in (first, last))
                rows.append(np.stack([np.full(len(begin), process), begin, end], 1))
        rows = np.concatenate(rows)
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        clear = (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] >= rows[:-1, 2])
        return rows.astype(np.uint64) if clear.all() else None    # mappings that are gone overlap others

    def _renew(self, numbers, seen):
        """Put what is seen of some huge pages, ascending, into their blocks."""
        which = numbers // BLOCK
        for number in np.unique(which).tolist():
            first, last = np.searchsorted(which, [number, number + 1]).tolist()
            at = numbers[first:last].astype(np.int64) - number * BLOCK
            if number == len(self.blocks):
                self.blocks.append(Block.empty(self.engine))
            self.blocks[number] = self.blocks[number].renewed(at, seen, first, last)

    def _mapping_rows(self, names):
        """One dict for each mapping of which a VMA is left."""
        mappings = self.core.mappings().astype(np.int64)
        totals, exclusive = np.zeros(len(mappings), SHARE), [[] for _ in mappings]
        for block in self.blocks:
            those = block.shares_by_mapping
            for key in SHARE.names[1:]:
                totals[key][those["mapping"]] += those[key]
            for number, runs in block.parts_by_mapping.items():
                exclusive[number].append(runs)
        areas = areas_of(self.core, self.geometry.base_shift)
        poisoned = areas.cut(truth.poisoned(self.core))
        failed = np.zeros(len(mappings), np.int64)
        np.add.at(failed, areas.mapping_of(poisoned),
                  (poisoned["count"] * poisoned["size"]).astype(np.int64) * self.geometry.base_page)
        kinds = [names.files[file].kind for file in mappings[:, 1].tolist()]
        return [self._mapping_row(names, number, kinds[number], totals[number], exclusive[number], int(failed[number]))
                for number in range(len(mappings)) if self.core.vmas(number)]

    def _mapping_row(self, names, number, kind, total, exclusive, failed):
        """kind: of its file. total: of SHARE. exclusive: runs that pagemap answers alike, an array for each block.

        failed: bytes of base pages.
        """
        base, mapping = self.geometry.base_page, names.mappings[number]
        rss = int(total["levels"].sum()) * base
        private = int(total["private"]) * base
        suffix = "_hugetlb" if kind == "hugetlb" else ""
        runs = np.concatenate([np.empty((0, 3), np.int64), *exclusive])
        if not ascending(runs[:, 0]):
            runs = runs[np.argsort(runs[:, 0], kind="stable")]
        return {
            "process": names.processes[mapping.process], "mapping": mapping.name, "rss": rss,
            "pss": float(total["pss"]),
            f"shared{suffix}": rss - private + failed,  # as smaps_hugetlb_range() has it
            f"private{suffix}": private,
            "levels": {LEVEL_NAMES[level]: int(total["levels"][level]) * base for level in (PTE, PMD, PUD)},
            "exclusive": merge(runs),
            "truth": {"pss": float(total["true_pss"]), "shared": int(total["true_shared"]) * base + failed},
        }

    def _process_rows(self, names):
        """One dict for each process: bytes of its page tables by level, without the root (their sum is VmPTE)."""
        tables = truth.page_tables(self.core) << np.uint64(self.geometry.index_bits + 3)
        return [{"process": name, "page_tables": {LEVEL_NAMES[level]: int(row[level]) for level in (PTE, PMD, PUD)}}
                for name, row in zip(names.processes, tables)]


class Block:
    """What was seen of huge pages in a row, by number; nothing in it ever changes. Fields: those of Seen."""

    def __init__(self, rows, **ragged):
        self.rows, self.ragged = rows, ragged
        listed = rows["listed"]
        freed = (rows["flags"] & FOLIO_FREED != 0) & (rows["truth.leaves"] > 0)
        self.freed_while_mapped = int(np.count_nonzero(freed))
        self.places = rows["file"].astype(np.int64) << 32 | rows["page"]
        self.piece = Piece(rows, ragged["said"], ragged["true"])
        if not (listed.all() and ascending(self.places)):
            some = np.flatnonzero(listed)
            some = some[np.argsort(self.places[some], kind="stable")]
            self.piece = Piece(rows[some], ragged["said"].take(some), ragged["true"].take(some))
        self.shares_by_mapping = _sums(ragged["shares"].rows)
        self.parts_by_mapping = _runs(ragged["parts"].rows)

    @classmethod
    def empty(cls, engine):
        none = {"said": np.empty((0, 3), np.int64), "true": np.empty((0, 3), np.int64),
                "shares": np.empty(0, SHARE), "parts": np.empty(0, PART)}
        return cls(np.empty(0, columns_dtype(engine)),
                   **{key: Ragged(rows, np.zeros(1, np.int64)) for key, rows in none.items()})

    def renewed(self, at, seen, first, last):
        """The block with what is seen of [first, last) at the numbers `at`, ascending; all beyond its end are there."""
        length = max(len(self.rows), int(at[-1]) + 1)
        parts = {key: getattr(seen, key).part(first, last) for key in self.ragged}
        if len(at) == length:
            return Block(seen.rows[first:last].copy(), **{
                key: Ragged(part.rows.copy(), part.bounds) for key, part in parts.items()})
        rows = np.empty(length, self.rows.dtype)
        rows[:len(self.rows)] = self.rows
        rows[at] = seen.rows[first:last]
        return Block(rows, **{key: self.ragged[key].replaced(at, part, length) for key, part in parts.items()})

    def among(self, files):
        """Of each huge page: is it marked in `files` (Core.touched)?"""
        found = np.zeros(len(self.rows), bool)
        for number, (shift, marks) in files.items():
            mine = self.places >> 32 == number
            found[mine] = marks[(self.places[mine] & 0xFFFFFFFF) >> shift]
        return found


def _sums(shares):
    """The sums of `shares` by mapping, in the order that these have: it matters to fractions."""
    shares, edges = _by_mapping(shares)
    out = np.zeros(len(edges) - 1, SHARE)
    out["mapping"] = shares["mapping"][edges[:-1]]
    for key in SHARE.names[1:] if len(shares) else ():
        out[key] = np.add.reduceat(shares[key], edges[:-1])
    return out


def _runs(parts):
    """{mapping: runs [first, last, private] in its pages}, ascending."""
    parts, edges = _by_mapping(parts)
    runs, found = np.stack([parts["first"], parts["last"], parts["private"]], 1), {}
    for first, last in zip(edges.tolist(), edges[1:].tolist()):
        mine = runs[first:last]
        if not ascending(mine[:, 0]):
            mine = mine[np.argsort(mine[:, 0], kind="stable")]
        found[int(parts["mapping"][first])] = merge(mine)
    return found


def _by_mapping(rows):
    """The rows in the order of mappings, and where each mapping's begin, and the end of all."""
    mapping = rows["mapping"].copy()
    if not ascending(mapping):
        order = np.argsort(mapping, kind="stable")
        rows, mapping = rows[order], mapping[order]
    return rows, np.append(np.flatnonzero(np.diff(mapping, prepend=-1)), len(rows))

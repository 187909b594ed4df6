"""The huge pages of an observation: columns, of which a row is made when somebody reads it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from hgmcore.core.machine import PAGE_DOUBLE_MAP


class Ragged:
    """Rows of many items: those of item i are rows[bounds[i]:bounds[i + 1]]. bounds: int64, one more than items."""

    __slots__ = ("rows", "bounds")

    def __init__(self, rows, bounds):
        self.rows, self.bounds = rows, bounds
        rows.flags.writeable = False    # observations share them

    def __len__(self):
        return len(self.bounds) - 1

    def of(self, i):
        return self.rows[self.bounds[i]:self.bounds[i + 1]]

    def part(self, first, last) -> Ragged:
        """The items [first, last)."""
        return Ragged(self.rows[self.bounds[first]:self.bounds[last]],
                      self.bounds[first:last + 1] - self.bounds[first])

    def take(self, items) -> Ragged:
        """The items of an array of numbers, in its order."""
        lengths = np.diff(self.bounds)[items]
        ends = np.append(0, np.cumsum(lengths))
        return Ragged(self.rows[np.repeat(self.bounds[items] - ends[:-1], lengths) + np.arange(ends[-1])], ends)

    def replaced(self, at, new: Ragged, length: int) -> Ragged:
        """`length` items: at the numbers `at`, which ascend, those of `new`; else these, or (behind the last) none."""
        old, stays, lengths = np.diff(self.bounds), np.ones(length, bool), np.zeros(length, np.int64)
        lengths[:len(old)] = old
        changed = np.diff(new.bounds)
        if len(old) == length and np.array_equal(old[at], changed):    # the usual case, and quicker
            rows, starts = self.rows.copy(), self.bounds[at] - new.bounds[:-1]
            rows[np.repeat(starts, changed) + np.arange(len(new.rows))] = new.rows
            return Ragged(rows, self.bounds)
        stays[at] = False
        lengths[at] = changed
        bounds = np.append(0, np.cumsum(lengths))
        kept = np.repeat(stays, lengths)
        rows = np.empty((bounds[-1], *new.rows.shape[1:]), new.rows.dtype)
        rows[kept] = self.rows[np.repeat(stays[:len(old)], old)]
        rows[~kept] = new.rows
        return Ragged(rows, bounds)

    def same_as(self, other) -> bool:
        return np.array_equal(self.bounds, other.bounds) and np.array_equal(self.rows, other.rows)

    def end_to_end(self):
        """Of runs [first, last, value]: as those of one folio, the folios 2**32 pages apart."""
        shift = np.repeat(np.arange(len(self)) << 32, np.diff(self.bounds))
        return self.rows + shift[:, None] * np.array([1, 1, 0])


class Piece:
    """Some folios, by columns; nothing in it ever changes.

    columns: {key: array} or a structured array, a value for each folio; a key "truth.KEY" is a key of "truth",
    "state.FIELD" a field of page 1. said, true: Ragged runs of page_mapcount, the scheme's and the recount's. found:
    what somebody worked out about the piece, by a name of his, so as not to do it again.
    """

    __slots__ = ("columns", "found", "said", "true")

    def __init__(self, columns, said, true):
        self.columns, self.said, self.true, self.found = columns, said, true, {}

    def __len__(self):
        return len(self.said)

    def places(self):
        """A number for each folio that grows with file and page."""
        return self.columns["file"].astype(np.int64) << 32 | self.columns["page"]


class Folios(Sequence):
    """A list of one dict for each huge page, as `hgmcore-replay` has it, made from columns anew at each look.

    pieces: of Piece, each in the order of file and page; observations share those in which nothing changed. state:
    {word: field of page 1}. names: the files of the header. A change of a dict changes nothing else.
    """

    def __init__(self, pieces, state, names, hvo, base_page):
        self.pieces, self.state, self.names, self.hvo, self.base_page = pieces, state, names, hvo, base_page
        self.starts, self._order = [0, *accumulate(map(len, pieces))], None

    def __len__(self):
        return self.starts[-1]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self._row(at) for at in range(len(self))[i]]
        return self._row(range(len(self))[i])

    def __eq__(self, other):
        if not isinstance(other, (list, Folios)):
            return NotImplemented
        return len(self) == len(other) and all(map(same, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        return repr(list(self))

    def _sorted(self):
        """The numbers of all folios, pieces one behind the other, in the order of file and page; a range, if it is."""
        if self._order is None:
            ends = [tuple(piece.places()[[0, -1]].tolist()) for piece in self.pieces if len(piece)]
            if all(one[1] < next[0] for one, next in zip(ends, ends[1:])):
                self._order = range(len(self))
            else:
                self._order = np.argsort(np.concatenate([piece.places() for piece in self.pieces]), kind="stable")
        return self._order

    def _row(self, i):
        at = int(self._sorted()[i])
        number = bisect_right(self.starts, at) - 1
        piece, i = self.pieces[number], at - self.starts[number]
        value = {key: piece.columns[key][i].item() for key in KEYS}
        file, pages, runs = self.names[value["file"]], value["pages"], piece.said.of(i)
        row = {
            "file": file.name, "page": value["page"], "refcount": value["refcount"], "mapcount": value["mapcount"],
            "mapped": value["mapped"], "maybe_shared": value["maybe_shared"],
            "maybe_shared_hugetlb": value["maybe_shared_hugetlb"], "page_mapcount": runs, "kpagecount": runs,
            "state": {word: state_word(word, piece.columns, field, i) for word, field in self.state.items()}
            if pages > 1 else {},
            "expected_refs": value["page_cache_refs"] + value["pins"] + value["refs"],
            "movable": value["movable"], "movable_all": True, "hvo": self.hvo,
            "page_cache_refs": value["page_cache_refs"], "pins": value["pins"],
            "truth": {**{key: value[f"truth.{key}"] for key in ("leaves", "processes", "mappings", "pages_mapped")},
                      "page_mapcount": piece.true.of(i)},
        }
        if file.kind != "hugetlb":
            row["pages"] = pages
            if file.kind == "shmem":
                row["page"], row["first"] = divmod(value["page"], file.page_size // self.base_page)
        if value["nr_file_mapped"] >= 0:
            row["nr_file_mapped"] = value["nr_file_mapped"]
        if not value["cached"]:
            row["in_page_cache"] = False
        return row


COLUMNS = np.dtype([
    ("file", "u4"), ("page", "u4"), ("flags", "u4"), ("mapped", "?"), ("maybe_shared", "?"), ("movable", "?"),
    ("maybe_shared_hugetlb", "?"), ("cached", "?"), ("listed", "?"), ("pages", "i8"), ("refcount", "i8"),
    ("pins", "i8"), ("page_cache_refs", "i8"), ("mapcount", "i8"), ("refs", "i8"), ("nr_file_mapped", "i8"),
    ("truth.leaves", "i8"), ("truth.processes", "i8"), ("truth.mappings", "i8"), ("truth.pages_mapped", "i8")])
"""dtype of the columns of a Piece, without those of page 1."""

KEYS = [name for name in COLUMNS.names or () if name not in ("flags", "listed")]


def of_rows(rows) -> Folios:
    """Folios of dicts as those that Folios gives; only columns and runs are there, no row can be made of them."""
    columns = np.zeros(len(rows), COLUMNS)
    for key in ("mapped", "maybe_shared", "maybe_shared_hugetlb", "mapcount", "page_cache_refs", "pins", "refcount"):
        columns[key] = [row[key] for row in rows]
    for key in ("processes", "leaves"):
        columns[f"truth.{key}"] = [row["truth"][key] for row in rows]
    said, true = (ragged([np.asarray(of["page_mapcount"], np.int64).reshape(-1, 3) for of in some])
                  for some in (rows, [row["truth"] for row in rows]))
    columns["pages"] = said.rows[said.bounds[1:] - 1, 1] if len(said.rows) else 0
    return Folios([Piece(columns, said, true)], {}, [], False, 1)


def ragged(each) -> Ragged:
    """The arrays of runs of several folios."""
    bounds = np.append(0, np.cumsum([len(runs) for runs in each], dtype=np.int64))
    return Ragged(np.concatenate([np.empty((0, 3), np.int64), *each]), bounds)


def same(one, other):
    """Are two rows equal, with arrays in them?"""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


def state_word(word, columns, field, i):
    """A word of a scheme's state, which stands in `field` of folio i's page 1, as reports show it."""
    value = columns[f"state.{field}"][i].tolist()
    if word == "nr_pages_mapped":
        return f"{value:#x}"    # hexadecimal, for its flag
    if word == "slots":
        return [list(slot) for slot in zip((columns["state._mm_id"][i] & 0x7FFFFFFF).tolist(), value)]
    if word == "shared_bit":
        return bool(value[1] >> 31)
    if word == "double_map":
        return bool(value & PAGE_DOUBLE_MAP)
    return value

"""The huge pages of an observation: columns, of which a row is made when somebody reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hgmcore.core.machine import PAGE_DOUBLE_MAP


class Runs:
    """Runs [first, last, value] of many folios: those of folio i are runs[bounds[i]:bounds[i + 1]], an int64 array."""

    def __init__(self, runs, bounds):
        self.runs, self.bounds = runs, bounds

    def of(self, i):
        return self.runs[self.bounds[i]:self.bounds[i + 1]]

    def same_as(self, other) -> bool:
        return np.array_equal(self.bounds, other.bounds) and np.array_equal(self.runs, other.runs)

    def end_to_end(self):
        """As those of one folio, the folios 2**32 pages apart."""
        shift = np.repeat(np.arange(len(self.bounds) - 1) << 32, np.diff(self.bounds))
        return self.runs + shift[:, None] * np.array([1, 1, 0])


class Folios(Sequence):
    """A list of one dict for each huge page, as `hgmcore-replay` has it, made from columns anew at each look.

    columns: {key: array}, a value for each folio; a key "truth.KEY" is a key of "truth". said, true: Runs of
    page_mapcount, the scheme's and the recount's. state: {word: (field, {field: array})} of page 1. files: of the
    header. A change of a dict changes nothing else.
    """

    def __init__(self, columns, said, true, state, names, hvo, base_page):
        self.columns, self.said, self.true, self.state = columns, said, true, state
        self.names, self.hvo, self.base_page = names, hvo, base_page

    def __len__(self):
        return len(self.columns["file"])

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

    def _row(self, i):
        value = {key: column[i].item() for key, column in self.columns.items()}
        file, pages, runs = self.names[value["file"]], value["pages"], self.said.of(i)
        row = {
            "file": file.name, "page": value["page"], "refcount": value["refcount"], "mapcount": value["mapcount"],
            "mapped": value["mapped"], "maybe_shared": value["maybe_shared"],
            "maybe_shared_hugetlb": value["maybe_shared_hugetlb"], "page_mapcount": runs, "kpagecount": runs,
            "state": {word: state_word(word, columns, field, i) for word, (field, columns) in self.state.items()}
            if pages > 1 else {},
            "expected_refs": value["page_cache_refs"] + value["pins"] + value["refs"],
            "movable": value["movable"], "movable_all": True, "hvo": self.hvo,
            "page_cache_refs": value["page_cache_refs"], "pins": value["pins"],
            "truth": {**{key: value[f"truth.{key}"] for key in ("leaves", "processes", "mappings", "pages_mapped")},
                      "page_mapcount": self.true.of(i)},
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


def of_rows(rows) -> Folios:
    """Folios of dicts as those that Folios gives; only columns and runs are there, no row can be made of them."""
    keys = {"mapped": bool, "maybe_shared": bool, "maybe_shared_hugetlb": bool,
            **dict.fromkeys(("mapcount", "page_cache_refs", "pins", "refcount"), np.int64)}
    columns = {key: np.array([row[key] for row in rows], kind) for key, kind in keys.items()}
    columns |= {f"truth.{key}": np.array([row["truth"][key] for row in rows], np.int64)
                for key in ("processes", "leaves")}
    said, true = (runs_of([np.asarray(of["page_mapcount"], np.int64).reshape(-1, 3) for of in some])
                  for some in (rows, [row["truth"] for row in rows]))
    ends = said.runs[said.bounds[1:] - 1, 1] if len(said.runs) else np.zeros(len(rows), np.int64)
    return Folios({**columns, "pages": ends, "file": np.zeros(len(rows), np.int64)}, said, true, {}, [], False, 1)


def runs_of(each) -> Runs:
    """Runs of the arrays of runs of several folios."""
    bounds = np.append(0, np.cumsum([len(runs) for runs in each], dtype=np.int64))
    return Runs(np.concatenate([np.empty((0, 3), np.int64), *each]), bounds)


def same(one, other):
    """Are two rows equal, with arrays in them?"""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


def state_word(word, page1, field, i):
    """A word of a scheme's state, which stands in `field` of folio i's page 1, as reports show it."""
    value = page1[field][i].tolist()
    if word == "nr_pages_mapped":
        return f"{value:#x}"    # hexadecimal, for its flag
    if word == "slots":
        return [list(slot) for slot in zip((page1["_mm_id"][i] & 0x7FFFFFFF).tolist(), value)]
    if word == "shared_bit":
        return bool(value[1] >> 31)
    if word == "double_map":
        return bool(value & PAGE_DOUBLE_MAP)
    return value

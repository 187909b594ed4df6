"""Resident pages of a process and their map counts, as the touches and forks that cause them; in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hgmcore.importers.processes.accesses import PAGE, repeated
from hgmcore.trace.statements import CODES, OPERATION, WRITE
from hgmcore.workloads.guest import Spool

MOST_SHARERS = 1000  # a higher map count is lowered to this, as each one costs a fork

# Consecutive pages. page: address of the first / PAGE.
RUN = np.dtype([("page", "u8"), ("pages", "u8"), ("mapped", "i8")])
# A resident folio. stretch: index of its mapping. offset: bytes from the start of the mapping.
FOLIO = np.dtype([("stretch", "u4"), ("offset", "u8"), ("mapped", "i8")])

_PART = 1 << 16  # pages; longer runs are cut
_WAITING = 1 << 12  # runs that wait to be written together


class _Stretch(NamedTuple):
    """A mapping of the trace, of pages [first, last). pages: of a folio."""

    mapping: int
    shared: bool
    first: int
    last: int
    pages: int


class Resident:
    """Runs of pages, and the mappings of `writer` in which they lie; both in order of address, without overlap.

    Pages are addresses / PAGE. Runs that lie in no mapping are left out.
    """

    def __init__(self, writer):
        self.writer = writer
        self.stretches: list[_Stretch] = []
        self._runs, self._waiting = Spool(RUN), []
        # folios with a map count of 1, and others; of each count how many; how many counts were too large
        self._once, self._others = Spool(FOLIO), Spool(FOLIO)
        self._seen, self._clipped = np.zeros(MOST_SHARERS + 1, dtype=np.int64), 0

    def stretch(self, mapping, shared, first, last, folio):
        """`mapping` is of pages [first, last), in folios of `folio` bytes."""
        self.stretches.append(_Stretch(mapping, shared, first, last, folio // PAGE))

    def run(self, page, pages, mapped):
        """Add `pages` consecutive pages, each of which is mapped `count` times."""
        self._waiting += [(at, min(_PART, page + pages - at), mapped) for at in range(page, page + pages, _PART)]
        if len(self._waiting) >= _WAITING:
            self._flush()

    def write(self, process) -> list[str]:
        """Write the touches and forks of `process` that bring the map counts about, and observe. Returns notes."""
        self._flush()
        self._find_folios()
        mappings = np.array([each.mapping for each in self.stretches], dtype=np.uint32)
        shared = np.array([each.shared for each in self.stretches])
        most = int(np.flatnonzero(self._seen)[-1]) if self._seen.any() else 1
        for count in range(most, 1, -1):
            for folios in self._others if self._seen[count] else ():
                self._touch(folios[folios["mapped"] == count], mappings, shared)
            child = self.writer.fork(process, f"{process}_{count}")
            theirs = np.array([self.writer.child_mapping(child, each.mapping) if each.shared else 0
                               for each in self.stretches], dtype=np.uint32)
            for folios in self._others if shared.any() else ():
                self._touch(folios[(folios["mapped"] >= count) & shared[folios["stretch"]]], theirs, shared)
        for folios in self._once:
            self._touch(folios, mappings, shared)
        self.writer.emit("observe", 0)
        notes = [f"resident: {self._seen.sum()} folios in {len(self.stretches)} mappings; "
                 f"the largest map count is {most}"]
        if self._clipped:
            notes.append(f"map counts above {MOST_SHARERS}, taken as that: {self._clipped}")
        return notes

    def _flush(self):
        self._runs.extend(np.array(self._waiting, dtype=RUN))
        self._waiting.clear()

    def _find_folios(self):
        """Store all resident folios, each once and with the largest count of its pages."""
        firsts, lasts, sizes = (np.array([getattr(each, name) for each in self.stretches], dtype=np.uint64)
                                for name in ("first", "last", "pages"))
        last = np.zeros(0, dtype=FOLIO)
        for runs in self._runs:
            at = np.searchsorted(firsts, runs["page"], side="right") - 1
            taken = (at >= 0) & (runs["page"] < lasts[at])
            runs, at = runs[taken], at[taken]
            if not len(runs):
                continue
            begin, size = runs["page"] - firsts[at], sizes[at]
            end = (begin + runs["pages"] + size - np.uint64(1)) // size
            begin //= size
            for row, step in repeated(end - begin):
                found = np.zeros(len(at[row]), dtype=FOLIO)
                found["stretch"], found["mapped"] = at[row], runs["mapped"][row]
                found["offset"] = (begin[row] + step) * size[row] * np.uint64(PAGE)
                found = np.concatenate([last, found])
                new = np.append(True, (found["stretch"][1:] != found["stretch"][:-1])
                                | (found["offset"][1:] != found["offset"][:-1]))
                mapped = np.maximum.reduceat(found["mapped"], np.flatnonzero(new))
                found = found[new]
                found["mapped"] = mapped
                self._keep(found[:-1])
                last = found[-1:]  # the next run may have more pages of the last folio
        self._keep(last)

    def _keep(self, folios):
        self._clipped += int((folios["mapped"] > MOST_SHARERS).sum())
        folios["mapped"] = folios["mapped"].clip(max=MOST_SHARERS)
        self._seen += np.bincount(folios["mapped"], minlength=len(self._seen))
        self._once.extend(folios[folios["mapped"] == 1])
        self._others.extend(folios[folios["mapped"] > 1])

    def _touch(self, folios, mappings, shared):
        """Touch folios. mappings, shared: of each stretch."""
        records = np.zeros(len(folios), dtype=OPERATION)
        records["op"], records["offset"] = CODES["touch"], folios["offset"]
        records["target"] = mappings[folios["stretch"]]
        records["flags"] = np.where(shared[folios["stretch"]], 0, WRITE)
        self.writer.extend(records)

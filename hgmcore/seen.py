"""What is seen of some huge pages: what the scheme says of them, and the truth beside it.

Counts come from two sources that never meet: the scheme's answers (Core.page_mapcounts, Core.answers) and the leaves
that the truth module recounts from the page tables. What smaps and pagemap say is computed from the scheme's counts as
the kernel of the chosen era does (core.smaps).
"""

from __future__ import annotations

import numpy as np

from hgmcore.core import smaps, truth
from hgmcore.core.machine import FOLIO_CACHED, FOLIO_FREED, PAGE
from hgmcore.folios import COLUMNS, Ragged
from hgmcore.runs import ascending, cover, interval_sums, unique

PSS_SHIFT = 12
"""Fractional bits of the Pss that the kernel sums up, in bytes (fs/proc/task_mmu.c)."""

KEY_SHIFT = 45
"""Process and base page make one number: addresses are below 2**57."""


class Seen:
    """The huge pages `numbers`, ascending (None: all that there ever were), and what maps them.

    leaves: of truth.leaves(), all that map these pages, and maybe more. All frames are numbers of base pages. Gives
    rows (folios.COLUMNS and words of page 1) and, Ragged by huge page: said and true (runs of map counts), shares and
    parts (smaps.SHARE and PART of what maps it).
    """

    def __init__(self, core, engine, geometry, options, names, numbers=None, leaves=None):
        self.core, self.engine, self.geometry, self.options, self.names = core, engine, geometry, options, names
        self.folios = core.folios() if numbers is None else core.folios_of(numbers)
        self.mappings = core.mappings().astype(np.int64)
        leaves = truth.leaves(core) if leaves is None else leaves
        self.areas = areas_of(core, geometry.base_shift)
        self._locate(self.areas.cut(truth.split_at_folios(leaves, self.folios, geometry.base_shift)))
        kinds = [file.kind for file in names.files] or [""]
        self.hugetlb, self.shmem = (np.array([kind == wanted for kind in kinds])[self.folios["file"]]
                                    for wanted in ("hugetlb", "shmem"))
        self._look()
        counts = self._counts()
        by_count = np.full(len(self.folios), options["era"] != "6.15")    # then only counts of base pages are trusted,
        by_count |= engine.writes_tails & ~self.hugetlb                    # and not for hugetlb
        shares, share_bounds, parts, part_bounds = smaps.said_of(
            {"folio": self.folio, "mapping": self.mapping, "page": self.page, "size": self.size,
             "first": self.pfn - self.first[self.folio], "length": self.length,
             "level": self.leaves["level"].astype(np.int64), "shared": self.leaves["shared"].astype(np.int64)},
            (counts.rows, counts.bounds), (self.true.rows, self.true.bounds),
            {"hugetlb": self.hugetlb.astype(np.int64), "by_count": by_count.astype(np.int64),
             "maybe_shared": self.rows["maybe_shared"].astype(np.int64)}, geometry.base_page)
        self.shares, self.parts = Ragged(shares, share_bounds), Ragged(parts, part_bounds)

    def _locate(self, leaves):
        """Sort the runs of leaves by huge page and mapping, and find of each these and its place in the mapping."""
        self.first = self.folios["pfn"].astype(np.int64)
        folio = np.searchsorted(self.first, leaves["pfn"].astype(np.int64), side="right") - 1
        mapping = self.areas.mapping_of(leaves)
        key = folio << 32 | mapping
        if not ascending(key):
            order = np.argsort(key, kind="stable")
            leaves, folio, mapping = leaves[order], folio[order], mapping[order]
        self.leaves, self.folio, self.mapping = leaves, folio, mapping
        self.pfn, self.size = leaves["pfn"].astype(np.int64), leaves["size"].astype(np.int64)
        self.length = leaves["count"].astype(np.int64) * self.size
        self.page = (leaves["address"].astype(np.int64) - self.mappings[mapping, 2]) >> self.geometry.base_shift

    def _look(self):
        """Ask the scheme, and count."""
        core, engine, folios, n = self.core, self.engine, self.folios, len(self.folios)
        rows = np.zeros(n, columns_dtype(engine))
        for key in ("file", "page", "flags", "refcount", "pins"):
            rows[key] = folios[key]
        rows["pages"], rows["cached"] = folios["nr_pages"], folios["flags"] & FOLIO_CACHED != 0
        listed = (folios["refcount"] != 0) & (folios["flags"] & FOLIO_FREED == 0)
        rows["listed"] = listed
        by_pages = self.shmem | (self.options["cache_refs"] == "folio")
        rows["page_cache_refs"] = np.where(by_pages, rows["pages"], 1) * rows["cached"]
        self._count(rows)
        numbers = np.ascontiguousarray(folios["number"][listed])
        table_shared = np.zeros(n, np.uint8)
        table_shared[self.folio[self.leaves["shared"] != 0]] = 1
        answers = core.answers(engine, numbers, table_shared[listed])
        for key in ("mapcount", "mapped", "maybe_shared", "movable", "nr_file_mapped"):
            rows[key][listed] = answers[key]
        rows["maybe_shared_hugetlb"][listed] = answers["mapcount"] > 1
        rows["refs"][listed] = np.where(answers["refs"] < 0, rows["truth.leaves"][listed], answers["refs"])
        self.sharers = np.full(n, -1)
        self.sharers[listed] = answers["sharers"]
        runs, bounds = core.page_mapcounts(engine, numbers)
        lengths = np.zeros(n, np.int64)
        lengths[listed] = np.diff(bounds)
        self.rows, self.said = rows, Ragged(runs, np.append(0, np.cumsum(lengths)))
        fields = [name for name in rows.dtype.names if name.startswith("state.")]
        if fields and n:    # a folio of one base page has no page 1
            at = self.first + (folios["nr_pages"] > 1)
            words = core.pages(0, int(at.max()) + 1)
            for name in fields:
                rows[name] = words[name.removeprefix("state.")][at]

    def _count(self, rows):
        """The recount, in columns of `rows` and in `true`."""
        n = len(self.folios)
        self.true = Ragged(*cover(truth.mapcounts(self.leaves), self.first, rows["pages"]))
        mapped = np.where(self.true.rows[:, 2] > 0, self.true.rows[:, 1] - self.true.rows[:, 0], 0)
        rows["truth.pages_mapped"] = np.diff(np.append(0, np.cumsum(mapped))[self.true.bounds])
        entries = np.where(self.leaves["again"] == 0, self.leaves["count"], 0)
        rows["truth.leaves"] = np.bincount(self.folio, entries, n)
        rows["truth.processes"] = self._distinct(self.leaves["process"])
        rows["truth.mappings"] = self._distinct(self.mapping)

    def _distinct(self, owner):
        """How many different owners (of less than 2**32) the leaves of each folio have."""
        pairs = unique(self.folio << 32 | np.asarray(owner, np.int64))
        return np.bincount(pairs >> 32, minlength=len(self.folios))

    def _counts(self):
        """The counts that smaps goes by: of base pages, or of the folio where it has one (`sharers`)."""
        whole = np.flatnonzero(self.sharers >= 0)
        if not len(whole):
            return self.said
        pages = self.rows["pages"][whole]
        one = Ragged(np.stack([np.zeros_like(pages), pages, self.sharers[whole]], 1), np.arange(len(whole) + 1))
        return self.said.replaced(whole, one, len(self.folios))

    def frame_counts(self):
        """The counts that smaps goes by, as runs of frames [first, last, count]."""
        counts = self._counts()
        return counts.rows + np.repeat(self.first, np.diff(counts.bounds))[:, None] * np.array([1, 1, 0])

    def pss_kb(self, number) -> int:
        """Pss of a mapping in kB as the kernel's smaps rounds it; an observation has the same sum unrounded.

        The kernel rounds the share of each page down to 2**-PSS_SHIFT bytes, and the sum of each VMA to kB. (It leaves
        pages of hugetlb out of Pss; this sum does not.) A page whose count is lost belongs to one mapping.
        """
        counts = self.frame_counts()
        before = interval_sums(counts, (self.geometry.base_page << PSS_SHIFT) // np.maximum(counts[:, 2], 1))
        mine = np.flatnonzero(self.mapping == number)
        page, end, frame = self.page[mine], self.page[mine] + self.length[mine], self.pfn[mine] - self.page[mine]
        total = 0
        for vma in self.core.vmas(number):
            first, last = (offset >> self.geometry.base_shift for offset in vma[:2])
            sums = before(np.clip(end, first, last) + frame) - before(np.clip(page, first, last) + frame)
            total += int(sums.sum()) >> (10 + PSS_SHIFT)
        return total


def columns_dtype(engine):
    """dtype of the rows of Seen under a scheme."""
    fields = sorted({*engine.state.values(), *(["_mm_id"] if "slots" in engine.state else [])})
    return np.dtype([*((name, COLUMNS[name]) for name in COLUMNS.names),
                     *((f"state.{field}", PAGE[field]) for field in fields)])


class Areas:
    """Where the VMAs of each mapping begin. starts: Core.areas(), as int64."""

    def __init__(self, starts, base_shift):
        self.base_shift = base_shift
        keys = (starts[:, 0] << KEY_SHIFT) + (starts[:, 1] >> base_shift)
        order = np.argsort(keys, kind="stable")
        self.keys, self.mappings = keys[order], starts[order, 2]

    def _keys_of(self, leaves):
        """One number for process and first base page of each run of leaves."""
        pages = (leaves["address"] >> np.uint64(self.base_shift)).astype(np.int64)
        return (leaves["process"].astype(np.int64) << KEY_SHIFT) + pages

    def mapping_of(self, leaves):
        """The mapping of each run of leaves, found by process and address."""
        if not len(self.keys):
            return np.zeros(0, np.int64)
        return self.mappings[np.searchsorted(self.keys, self._keys_of(leaves), side="right") - 1]

    def cut(self, leaves):
        """Runs of leaves cut where another mapping begins: mappings may touch, if a trace places them so."""
        if not len(leaves) or not len(self.keys):
            return leaves
        first, length = self._keys_of(leaves), (leaves["count"] * leaves["size"]).astype(np.int64)
        borders = self.keys[np.append(True, self.mappings[1:] != self.mappings[:-1])]
        low = np.searchsorted(borders, first, "right")
        parts = np.searchsorted(borders, first + length, "left") - low + 1
        if (parts == 1).all():
            return leaves
        of = np.repeat(np.arange(len(leaves)), parts)
        part = np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)    # number of the part of its run
        begin = np.where(part == 0, 0, borders[low[of] + part - 1] - first[of])
        end = np.append(begin[1:], 0)
        end = np.where(part == parts[of] - 1, length[of], end)
        cut = leaves[of]
        cut["address"] += (begin << self.base_shift).astype(np.uint64)
        cut["pfn"] += begin.astype(cut["pfn"].dtype)
        cut["count"] = (end - begin) // cut["size"].astype(np.int64)
        return cut


def areas_of(core, base_shift) -> Areas:
    """The Areas of a machine as it is now."""
    return Areas(core.areas().astype(np.int64), base_shift)

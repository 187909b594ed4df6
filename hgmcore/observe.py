"""An observation: what the scheme says of every huge page and mapping, and the truth beside it.

Counts come from two sources that never meet: the scheme's answers (Core.page_mapcount, Core.answer) and the leaves
that the truth module recounts from the page tables. smaps, pagemap and the rest are computed here from the
scheme's counts as the kernel of the chosen era does. Arrays over base pages are runs: rows (first, last, value),
half-open.
"""

from __future__ import annotations

import numpy as np

from hgmcore.core import truth
from hgmcore.core.machine import FOLIO_CACHED, FOLIO_FREED
from hgmcore.folios import Folios, Runs
from hgmcore.geometry import LEVEL_NAMES, PMD, PTE, PUD
from hgmcore.runs import ascending, cover, interval_sums, merge, unique, value_at

SHARED_AT = 2
"""smaps: a page counts as shared from this map count on (Linux fs/proc/task_mmu.c)."""

PSS_SHIFT = 12
"""Fractional bits of the Pss that the kernel sums up, in bytes (fs/proc/task_mmu.c)."""


def observe(core, engine, geometry, options, names, index=0) -> dict:
    """The state of the machine as an observation of `hgmcore replay --json`, with NumPy arrays for runs.

    names: a trace.Header, for the names of files, processes and mappings.
    """
    return Observer(core, engine, geometry, options, names).observation(index)


class Recount:
    """What follows from the page tables alone, whatever a scheme says. All frames are numbers of base pages.

    leaves, poisoned: of truth; folios, mappings: of the core. Leaves are cut at folios. For each run of them: `folio`,
    `mapping`, `page`, its first page in that mapping, and `length`, its pages; `true_pss` and `true_shared` as smaps
    should have them. `poisoned`: pages of each mapping.
    """

    def __init__(self, leaves, folios, mappings, poisoned, areas, geometry):
        base, self.mappings = geometry.base_shift, mappings.astype(np.int64)
        self.first, self.pages = folios["pfn"].astype(np.int64), folios["nr_pages"].astype(np.int64)
        self.find_areas(areas.astype(np.int64), base)
        self.leaves = leaves = self.cut_at_mappings(truth.split_at_folios(leaves, folios, base), base)
        self.true_counts = truth.mapcounts(leaves)
        self.poisoned = np.zeros(len(mappings), np.int64)
        if len(poisoned):
            np.add.at(self.poisoned, self.mapping_of(poisoned, base),
                      (poisoned["count"] * poisoned["size"]).astype(np.int64))
        self.pfn = leaves["pfn"].astype(np.int64)
        self.size = leaves["size"].astype(np.int64)
        self.length = leaves["count"].astype(np.int64) * self.size
        self.folio = self.first.searchsorted(self.pfn, side="right") - 1
        self.mapping = self.mapping_of(leaves, base)
        self.page = ((leaves["address"].astype(np.int64) - self.mappings[self.mapping, 2]) >> base)
        self.end = self.pfn + self.length
        pss = interval_sums(self.true_counts, geometry.base_page / self.true_counts[:, 2])
        shared = interval_sums(self.true_counts, self.true_counts[:, 2] >= SHARED_AT)
        self.true_pss = pss(self.end) - pss(self.pfn)
        self.true_shared = np.where(leaves["shared"], self.length, shared(self.end) - shared(self.pfn))
        self.order = self.mapping.argsort(kind="stable")
        self.bounds = self.mapping[self.order].searchsorted(np.arange(len(mappings) + 1))
        self.of_folios()

    def mapping_of(self, leaves, base):
        """The mapping of each run of leaves, found by process and address."""
        if not len(self.area_keys):
            return np.zeros(0, np.int64)
        return self.area_mapping[self.area_keys.searchsorted(keys_of(leaves, base), side="right") - 1]

    def find_areas(self, areas, base):
        """Where the VMAs of each mapping begin, and that mapping, in order of process and address."""
        keys = areas[:, 0] * (1 << 45) + (areas[:, 1] >> base)
        order = keys.argsort(kind="stable")
        self.area_keys, self.area_mapping = keys[order], areas[order, 2]

    def cut_at_mappings(self, leaves, base):
        """Runs of leaves cut where another mapping begins: mappings may touch, if a trace places them so."""
        if not len(leaves) or not len(self.area_keys):
            return leaves
        first = keys_of(leaves, base)
        borders = self.area_keys[np.append(True, self.area_mapping[1:] != self.area_mapping[:-1])]
        inside = (borders.searchsorted(first + (leaves["count"] * leaves["size"]).astype(np.int64), "left")
                  - borders.searchsorted(first, "right"))
        parts = []
        for run, key, cuts in zip(leaves, first, inside) if inside.any() else ():
            at = borders.searchsorted(key, "right")
            cuts = [0, *(int(border - key) for border in borders[at:at + cuts]), int(run["count"] * run["size"])]
            for begin, end in zip(cuts, cuts[1:]):
                part = run.copy()
                part["address"] += np.uint64(begin << base)
                part["pfn"] += type(part["pfn"])(begin)
                part["count"] = (end - begin) // int(run["size"])
                parts.append(part)
        return np.array(parts, leaves.dtype) if parts else leaves

    def of_folios(self):
        """Of each folio: {key: array}, and Runs of what maps its base pages."""
        runs, bounds = cover(self.true_counts, self.first, self.pages)
        mapped = np.append(0, np.where(runs[:, 2] > 0, runs[:, 1] - runs[:, 0], 0).cumsum())[bounds]
        entries = np.where(self.leaves["again"] == 0, self.leaves["count"], 0)
        self.columns = {"leaves": np.bincount(self.folio, entries, len(self.first)).astype(np.int64),
                        "processes": self.distinct(self.leaves["process"]), "mappings": self.distinct(self.mapping),
                        "pages_mapped": mapped[1:] - mapped[:-1]}
        self.true = Runs(runs, bounds)

    def distinct(self, owner):
        """How many different owners (of less than 2**32) the leaves of each folio have."""
        pairs = unique(self.folio.astype(np.int64) << 32 | np.asarray(owner, np.int64))
        return np.bincount(pairs >> 32, minlength=len(self.first))

    def of(self, number):
        """As of_folios() has it, of the folios `number` alone; the arrays are the caller's."""
        bounds = self.true.bounds
        if len(number) == len(self.first) and ascending(number):
            return dict(self.columns), Runs(self.true.runs.copy(), bounds)
        lengths = (bounds[1:] - bounds[:-1])[number]
        ends = np.append(0, lengths.cumsum())
        rows = (bounds[number] - ends[:-1]).repeat(lengths) + np.arange(ends[-1])
        return {key: column[number] for key, column in self.columns.items()}, Runs(self.true.runs[rows], ends)


def keys_of(leaves, base):
    """One number for process and first base page of each run of leaves, as addresses are below 2**57."""
    return leaves["process"].astype(np.int64) * (1 << 45) + (leaves["address"] >> np.uint64(base)).astype(np.int64)


KEPT, SMALL = 128, 1 << 15
"""Recounts that are kept, and bytes of leaves, folios and mappings up to which one is.

Schemes that are compared on one trace have the same page tables at each observation.
"""
_recounts: dict[tuple, Recount] = {}


def recount(core, folios, geometry) -> Recount:
    """The Recount of a machine: a kept one where all that it follows from is the same, byte for byte."""
    leaves, mappings, poisoned, areas = truth.leaves(core), core.mappings(), truth.poisoned(core), core.areas()
    parts = (leaves, folios["pfn"], folios["nr_pages"], mappings, poisoned, areas)
    if sum(part.nbytes for part in parts) > SMALL:
        return Recount(leaves, folios, mappings, poisoned, areas, geometry)
    key = (geometry.name, *(part.tobytes() for part in parts))
    found = _recounts.pop(key, None) or Recount(leaves, folios, mappings, poisoned, areas, geometry)
    _recounts[key] = found    # the last one is the latest that was used
    for old in list(_recounts)[:-KEPT]:
        _recounts.pop(old, None)
    return found


class Observer:
    """The arrays that one observation is computed from, beside those of its Recount, `real`."""

    def __init__(self, core, engine, geometry, options, names):
        self.core, self.engine, self.geometry, self.options, self.names = core, engine, geometry, options, names
        self.folios = core.folios()
        self.real = recount(core, self.folios, geometry)
        on_hugetlb = np.array([file.kind == "hugetlb" for file in names.files], dtype=bool)
        self.hugetlb = on_hugetlb[self.folios["file"][self.real.folio]] if len(self.real.folio) else np.zeros(0, bool)

    def observation(self, index):
        listed = self.folios[(self.folios["refcount"] != 0) & (self.folios["flags"] & FOLIO_FREED == 0)]
        place = listed["file"].astype(np.int64) << 32 | listed["page"]
        listed = listed if ascending(place) else listed[np.argsort(place, kind="stable")]
        freed = (self.folios["flags"] & FOLIO_FREED).nonzero()[0]
        folios = self.folio_rows(listed)
        return {"index": index, "folios": folios, "mappings": self.mapping_rows(), "processes": self.process_rows(),
                "freed_while_mapped": int(np.isin(freed, self.real.folio).sum()) if len(freed) else 0}

    def folio_rows(self, listed):
        """The folios of `listed`, as Folios; also gathers, by frame, the counts that smaps and the like go by."""
        core, engine = self.core, self.engine
        number, first = np.ascontiguousarray(listed["number"]), self.folios["pfn"].astype(np.int64)
        table_shared = np.zeros(len(first), np.uint8)
        table_shared[self.real.folio[self.real.leaves["shared"] != 0]] = 1
        said = Runs(*core.page_mapcounts(engine, number))
        answers = core.answers(engine, number, table_shared)
        self.shared = np.zeros(len(first) + 1, bool)
        self.shared[number] = answers["maybe_shared"]
        self.counts = self._counts(listed, said, answers["sharers"])
        truths, true = self.real.of(number)
        pages, cached = listed["nr_pages"].astype(np.int64), listed["flags"] & FOLIO_CACHED != 0
        shmem = np.array([file.kind == "shmem" for file in self.names.files] or [False])
        by_pages = shmem[listed["file"]] | (self.options["cache_refs"] == "folio")
        columns = {
            **{key: listed[key].copy() for key in ("file", "page", "refcount", "pins")}, "pages": pages,
            "cached": cached, "page_cache_refs": np.where(by_pages, pages, 1) * cached,
            **{key: answers[key].copy() for key in ("mapcount", "mapped", "maybe_shared", "movable", "nr_file_mapped")},
            "maybe_shared_hugetlb": answers["mapcount"] > 1,
            "refs": np.where(answers["refs"] < 0, truths["leaves"], answers["refs"]),
            **{f"truth.{key}": column for key, column in truths.items()},
        }
        return Folios(columns, said, true, self._state(listed), list(self.names.files), self.options["hvo"] == "on",
                      self.geometry.base_page)

    def _state(self, listed):
        """{word: (field, {field: values})}: the words of the scheme's state in each folio's page 1."""
        fields = sorted({*self.engine.state.values(), *(["_mm_id"] if "slots" in self.engine.state else [])})
        if not len(listed) or not fields:
            return {word: (field, {one: np.zeros(0) for one in fields}) for word, field in self.engine.state.items()}
        many = listed["nr_pages"] > 1    # a folio of one base page has no page 1
        at = listed["pfn"].astype(np.int64) + many
        words = self.core.pages(0, int(at.max()) + 1)
        kept = {field: words[field][at] for field in fields}
        return {word: (field, kept) for word, field in self.engine.state.items()}

    def _counts(self, listed, said, sharers):
        """The counts that smaps goes by, of all frames: of base pages, or of the folio where `sharers` has one."""
        frames, pages = listed["pfn"].astype(np.int64), listed["nr_pages"].astype(np.int64)
        of = np.arange(len(listed)).repeat(said.bounds[1:] - said.bounds[:-1])
        counts = said.runs + frames[of][:, None] * np.array([1, 1, 0])
        if (sharers >= 0).any():
            whole = sharers >= 0
            counts = np.concatenate([counts[~whole[of]], np.stack(
                [frames[whole], (frames + pages)[whole], sharers[whole]], 1)])
        return counts if ascending(counts[:, 0]) else counts[np.argsort(counts[:, 0], kind="stable")]

    def mapping_rows(self):
        """One dict for each mapping of which a VMA is left."""
        real = self.real
        at, exclusive = self.parts(whole=real.size > 1)
        smaps, private = at, exclusive
        if not self.hugetlb.all():
            smaps, private = self.parts(whole=(real.size > 1) & self.hugetlb)
        pss = interval_sums(self.counts, self.geometry.base_page / self.sharers())
        pss = pss(real.end) - pss(real.pfn)
        order, bounds, levels = real.order, real.bounds, real.leaves["level"]
        part_mapping = real.mapping[at["leaf"]]
        part_order = part_mapping.argsort(kind="stable")
        part_bounds = part_mapping[part_order].searchsorted(np.arange(len(real.mappings) + 1))
        private_pages = np.bincount(real.mapping[smaps["leaf"]], private * (smaps["last"] - smaps["first"]),
                                    len(real.mappings)).astype(np.int64)
        base = self.geometry.base_page
        rows = []
        for number in range(len(real.mappings)):
            if not self.core.vmas(number):
                continue
            mine = order[bounds[number]:bounds[number + 1]]
            parts = part_order[part_bounds[number]:part_bounds[number + 1]]
            parts = parts[np.argsort(at["first"][parts], kind="stable")]
            rss = int(real.length[mine].sum()) * base
            private_bytes, failed = int(private_pages[number]) * base, int(real.poisoned[number]) * base
            process, file = real.mappings[number, :2].tolist()
            kind = "_hugetlb" if self.names.files[file].kind == "hugetlb" else ""
            rows.append({
                "process": self.names.processes[process], "mapping": self.names.mappings[number].name,
                "rss": rss, "pss": float(pss[mine].sum()),
                f"shared{kind}": rss - private_bytes + failed,  # as smaps_hugetlb_range() has it
                f"private{kind}": private_bytes,
                "levels": {LEVEL_NAMES[level]: int(pages) * base for level, pages in zip(
                    (PTE, PMD, PUD), np.bincount(levels[mine], real.length[mine], PUD + 1)[PTE:])},
                "exclusive": merge(np.stack([at["first"][parts], at["last"][parts], exclusive[parts]], 1)
                                   .astype(np.int64)),
                "truth": {"pss": float(real.true_pss[mine].sum()),
                          "shared": int(real.true_shared[mine].sum()) * base + failed},
            })
        return rows

    def sharers(self):
        """Among how many mappings Pss divides each page of `self.counts`: a page whose count is lost belongs to one."""
        return np.maximum(self.counts[:, 2], 1)

    def pss_kb(self, number) -> int:
        """Pss of a mapping in kB as the kernel's smaps rounds it; a row of `mapping_rows` has the same sum unrounded.

        The kernel rounds the share of each page down to 2**-PSS_SHIFT bytes, and the sum of each VMA to kB. (It leaves
        pages of hugetlb out of Pss; this sum does not.) Call after `folio_rows`.
        """
        real = self.real
        share = (self.geometry.base_page << PSS_SHIFT) // self.sharers()
        before = interval_sums(self.counts, share)
        mine = np.flatnonzero(real.mapping == number)
        page, end, frame = real.page[mine], real.page[mine] + real.length[mine], real.pfn[mine] - real.page[mine]
        total = 0
        for vma in self.core.vmas(number):
            first, last = (offset >> self.geometry.base_shift for offset in vma[:2])
            sums = before(np.clip(end, first, last) + frame) - before(np.clip(page, first, last) + frame)
            total += int(sums.sum()) >> (10 + PSS_SHIFT)
        return total

    def process_rows(self):
        """One dict for each process: bytes of its page tables by level, without the root (their sum is VmPTE)."""
        tables = truth.page_tables(self.core) << np.uint64(self.geometry.index_bits + 3)
        return [{"process": name, "page_tables": {LEVEL_NAMES[level]: int(row[level]) for level in (PTE, PMD, PUD)}}
                for name, row in zip(self.names.processes, tables)]

    def parts(self, whole):
        """The leaves as parts, cut where what smaps and pagemap answer may change, and that answer: private?

        whole: of each run of leaves, whether each leaf is one part and goes by its first base page. smaps does so with
        hugetlb, pagemap with every leaf; of shmem and anonymous memory smaps looks at each base page.
        Returns the parts as arrays leaf (number of the run of leaves), first and last (pages in the mapping), and a
        bool for each.
        """
        real = self.real
        # base pages: cut where the scheme's count changes; whole leaves: each by itself
        cuts = unique(self.counts[:, :2].reshape(-1))
        low, high = cuts.searchsorted(real.pfn, "right"), cuts.searchsorted(real.end, "left")
        pieces = np.where(whole, real.length // np.maximum(real.size, 1), np.maximum(high - low, 0) + 1)
        leaf = np.repeat(np.arange(len(pieces)), pieces)
        nth = np.arange(len(leaf)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        if len(cuts):
            cut = cuts[np.clip(low[leaf] + nth - 1, 0, len(cuts) - 1)]
        else:
            cut = np.zeros(len(leaf), np.int64)
        pfn = real.pfn[leaf]
        start = np.where(whole[leaf], pfn + nth * real.size[leaf], np.where(nth == 0, pfn, cut))
        stop = np.append(start[1:], 0)
        final = nth == pieces[leaf] - 1
        stop = np.where(final, real.end[leaf], stop)
        shift = real.page[leaf] - real.pfn[leaf]
        shared = value_at(self.counts, start) >= SHARED_AT
        if self.options["era"] == "6.15":    # only counts of base pages are still trusted, and not for hugetlb
            by_pages = self.engine.writes_tails & ~self.hugetlb[leaf]
            shared = np.where(by_pages, shared, self.shared[real.folio[leaf]])
        shared |= real.leaves["shared"][leaf] != 0
        return {"leaf": leaf, "first": start + shift, "last": stop + shift}, ~shared

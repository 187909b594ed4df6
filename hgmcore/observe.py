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


class Observer:
    """The arrays that one observation is computed from; all frames are numbers of base pages."""

    def __init__(self, core, engine, geometry, options, names):
        self.core, self.engine, self.geometry, self.options, self.names = core, engine, geometry, options, names
        self.folios = core.folios()
        self.leaves = truth.split_at_folios(truth.leaves(core), self.folios, geometry.base_shift)
        self.true_counts = truth.mapcounts(self.leaves)
        self.mappings = core.mappings().astype(np.int64)
        self.locate()
        on_hugetlb = np.array([file.kind == "hugetlb" for file in names.files], dtype=bool)
        self.hugetlb = on_hugetlb[self.folios["file"][self.folio]] if len(self.leaves) else np.zeros(0, bool)

    def locate(self):
        """For each run of leaves: its folio, its mapping, its first page in that mapping, its pages."""
        leaves, base = self.leaves, self.geometry.base_shift
        poisoned = truth.poisoned(self.core)
        pages = np.bincount(self.mapping_of(poisoned), poisoned["count"] * poisoned["size"], len(self.mappings))
        self.poisoned = pages.astype(np.int64)
        self.pfn = leaves["pfn"].astype(np.int64)
        self.size = leaves["size"].astype(np.int64)
        self.length = leaves["count"].astype(np.int64) * self.size
        self.folio = np.searchsorted(self.folios["pfn"].astype(np.int64), self.pfn, side="right") - 1
        self.mapping = self.mapping_of(leaves)
        self.page = ((leaves["address"].astype(np.int64) - self.mappings[self.mapping, 2]) >> base)

    def mapping_of(self, leaves):
        """The mapping of each run of leaves, found by process and address: one key, as addresses are below 2**57."""
        base = self.geometry.base_shift
        live = np.flatnonzero(self.mappings[:, 3] > 0)
        order = live[np.lexsort((self.mappings[live, 2], self.mappings[live, 0]))]
        keys = self.mappings[order, 0] * (1 << 45) + (self.mappings[order, 2] >> base)
        pages = (leaves["address"] >> np.uint64(base)).astype(np.int64)
        wanted = leaves["process"].astype(np.int64) * (1 << 45) + pages
        found = np.searchsorted(keys, wanted, side="right") - 1
        return order[found] if len(order) else np.zeros(0, np.int64)

    def observation(self, index):
        listed = self.folios[(self.folios["refcount"] != 0) & (self.folios["flags"] & FOLIO_FREED == 0)]
        place = listed["file"].astype(np.int64) << 32 | listed["page"]
        listed = listed if ascending(place) else listed[np.argsort(place, kind="stable")]
        freed = np.flatnonzero(self.folios["flags"] & FOLIO_FREED != 0)
        folios = self.folio_rows(listed)
        return {"index": index, "folios": folios, "mappings": self.mapping_rows(), "processes": self.process_rows(),
                "freed_while_mapped": int(np.isin(freed, self.folio).sum())}

    def folio_rows(self, listed):
        """The folios of `listed`, as Folios; also gathers, by frame, the counts that smaps and the like go by."""
        core, engine = self.core, self.engine
        number, first = np.ascontiguousarray(listed["number"]), self.folios["pfn"].astype(np.int64)
        table_shared = np.zeros(len(first), np.uint8)
        table_shared[self.folio[self.leaves["shared"] != 0]] = 1
        said = Runs(*core.page_mapcounts(engine, number))
        answers = core.answers(engine, number, table_shared)
        self.shared = np.zeros(len(first) + 1, bool)
        self.shared[number] = answers["maybe_shared"]
        self.counts = self._counts(listed, said, answers["sharers"])
        truths, true = self.folio_truths(number)
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
        of = np.repeat(np.arange(len(listed)), np.diff(said.bounds))
        counts = said.runs + frames[of][:, None] * np.array([1, 1, 0])
        if (sharers >= 0).any():
            whole = sharers >= 0
            counts = np.concatenate([counts[~whole[of]], np.stack(
                [frames[whole], (frames + pages)[whole], sharers[whole]], 1)])
        return counts if ascending(counts[:, 0]) else counts[np.argsort(counts[:, 0], kind="stable")]

    def folio_truths(self, number):
        """The recount of the folios `number`: {key: array}, and Runs of what maps their base pages."""
        n = len(self.folios)
        runs, bounds = cover(self.true_counts, self.folios["pfn"].astype(np.int64),
                             self.folios["nr_pages"].astype(np.int64))
        mapped = np.where(runs[:, 2] > 0, runs[:, 1] - runs[:, 0], 0)
        entries = np.where(self.leaves["again"] == 0, self.leaves["count"], 0)
        columns = {"leaves": np.bincount(self.folio, entries, n).astype(np.int64),
                   "processes": self.distinct(self.leaves["process"]), "mappings": self.distinct(self.mapping),
                   "pages_mapped": np.diff(np.append(0, np.cumsum(mapped))[bounds])}
        if len(number) == n and ascending(number):
            return columns, Runs(runs, bounds)
        lengths = np.diff(bounds)[number]
        ends = np.append(0, np.cumsum(lengths))
        rows = np.repeat(bounds[number] - ends[:-1], lengths) + np.arange(ends[-1])
        return {key: column[number] for key, column in columns.items()}, Runs(runs[rows], ends)

    def distinct(self, owner):
        """How many different owners (of less than 2**32) the leaves of each folio have."""
        pairs = unique(self.folio.astype(np.int64) << 32 | np.asarray(owner, np.int64))
        return np.bincount(pairs >> 32, minlength=len(self.folios))

    def mapping_rows(self):
        """One dict for each mapping of which a VMA is left."""
        at, exclusive = self.parts(whole=self.size > 1)
        smaps, private = self.parts(whole=(self.size > 1) & self.hugetlb) if not self.hugetlb.all() else (at, exclusive)
        pss = interval_sums(self.counts, self.geometry.base_page / self.sharers())
        true_pss = interval_sums(self.true_counts, self.geometry.base_page / self.true_counts[:, 2])
        true_shared = interval_sums(self.true_counts, self.true_counts[:, 2] >= SHARED_AT)
        end = self.pfn + self.length
        columns = {"pss": pss(end) - pss(self.pfn), "true_pss": true_pss(end) - true_pss(self.pfn),
                   "true_shared": np.where(self.leaves["shared"], self.length,
                                           true_shared(end) - true_shared(self.pfn))}
        order = np.argsort(self.mapping, kind="stable")
        bounds = np.searchsorted(self.mapping[order], np.arange(len(self.mappings) + 1))
        part_order = np.argsort(self.mapping[at["leaf"]], kind="stable")
        part_bounds = np.searchsorted(self.mapping[at["leaf"]][part_order], np.arange(len(self.mappings) + 1))
        private_pages = np.bincount(self.mapping[smaps["leaf"]], private * (smaps["last"] - smaps["first"]),
                                    len(self.mappings)).astype(np.int64)
        base = self.geometry.base_page
        rows = []
        for number in range(len(self.mappings)):
            if not self.core.vmas(number):
                continue
            mine = order[bounds[number]:bounds[number + 1]]
            parts = part_order[part_bounds[number]:part_bounds[number + 1]]
            parts = parts[np.argsort(at["first"][parts], kind="stable")]
            rss = int(self.length[mine].sum()) * base
            private_bytes, failed = int(private_pages[number]) * base, int(self.poisoned[number]) * base
            kind = "_hugetlb" if self.names.files[self.mappings[number, 1]].kind == "hugetlb" else ""
            rows.append({
                "process": self.names.processes[self.mappings[number, 0]], "mapping": self.names.mappings[number].name,
                "rss": rss, "pss": float(columns["pss"][mine].sum()),
                f"shared{kind}": rss - private_bytes + failed,  # as smaps_hugetlb_range() has it
                f"private{kind}": private_bytes,
                "levels": {LEVEL_NAMES[level]: int(self.length[mine][self.leaves["level"][mine] == level].sum()) * base
                           for level in (PTE, PMD, PUD)},
                "exclusive": merge(np.stack([at["first"][parts], at["last"][parts], exclusive[parts]], 1)
                                   .astype(np.int64)),
                "truth": {"pss": float(columns["true_pss"][mine].sum()),
                          "shared": int(columns["true_shared"][mine].sum()) * base + failed},
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
        share = (self.geometry.base_page << PSS_SHIFT) // self.sharers()
        before = interval_sums(self.counts, share)
        mine = np.flatnonzero(self.mapping == number)
        page, end, frame = self.page[mine], self.page[mine] + self.length[mine], self.pfn[mine] - self.page[mine]
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
        # base pages: cut where the scheme's count changes; whole leaves: each by itself
        cuts = unique(self.counts[:, :2].reshape(-1))
        low = np.searchsorted(cuts, self.pfn, "right")
        high = np.searchsorted(cuts, self.pfn + self.length, "left")
        pieces = np.where(whole, self.length // np.maximum(self.size, 1), np.maximum(high - low, 0) + 1)
        leaf = np.repeat(np.arange(len(pieces)), pieces)
        nth = np.arange(len(leaf)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        if len(cuts):
            cut = cuts[np.clip(low[leaf] + nth - 1, 0, len(cuts) - 1)]
        else:
            cut = np.zeros(len(leaf), np.int64)
        start = np.where(whole[leaf], self.pfn[leaf] + nth * self.size[leaf], np.where(nth == 0, self.pfn[leaf], cut))
        stop = np.append(start[1:], 0)
        final = nth == pieces[leaf] - 1
        stop = np.where(final, self.pfn[leaf] + self.length[leaf], stop)
        shift = self.page[leaf] - self.pfn[leaf]
        shared = value_at(self.counts, start) >= SHARED_AT
        if self.options["era"] == "6.15":    # only counts of base pages are still trusted, and not for hugetlb
            shared = np.where(self.engine.writes_tails & ~self.hugetlb[leaf], shared, self.shared[self.folio[leaf]])
        shared |= self.leaves["shared"][leaf] != 0
        return {"leaf": leaf, "first": start + shift, "last": stop + shift}, ~shared

"""What a model machine reports of shmem and anonymous memory."""
from collections import defaultdict, namedtuple

from .runs import clipped, coverage, merged

# Adjacent leaves of one kind, or one of PMD level: base pages [page, page + n) of a mapping map those of a folio from
# `first` on.
Part = namedtuple("Part", "mapping page folio first n level")


class Seen:
    """One look at the page tables of a model machine."""

    def __init__(self, model):
        self.model, self.of_folio, self.of_mapping = model, defaultdict(list), defaultdict(list)
        for space in model.spaces.values():
            for number, entry in sorted(space.pmds.items()):
                for slot, folio, first, n, level in runs_of(entry):
                    while n:
                        part = self.part_at(space, number * model.geometry.fanout + slot, folio, first, n, level)
                        self.of_folio[folio].append(part)
                        self.of_mapping[part.mapping].append(part)
                        slot, first, n = slot + part.n, first + part.n, n - part.n
        known = [folio for folio in model.folios if model.files[folio.file].kind != "hugetlb"]
        self.truth = {folio: coverage([(p.first, p.first + p.n) for p in self.of_folio[folio]], folio.pages)
                      for folio in known}
        self.counts = {folio: [(0, 1, folio.mapcount)] if folio.pages == 1 else model.scheme.page_mapcount(folio)
                       for folio in known}
        self.sharers = {folio: self.counts[folio] if folio.pages == 1 else model.scheme.sharer_counts(folio)
                        for folio in known}

    def part_at(self, space, page, folio, first, n, level):
        base = self.model.geometry.base
        mapping = next(m for m in self.model.placed_mappings(space.process)
                       if m.vma_at(page * base - m.address))
        n = min(n, (mapping.address + mapping.vma_at(page * base - mapping.address).last) // base - page)
        return Part(mapping, page - mapping.address // base, folio, first, n, level)

    def folio_row(self, folio):
        model, parts, scheme = self.model, self.of_folio[folio], self.model.scheme
        file, small = model.files[folio.file], folio.pages == 1
        cache_refs = folio.pages if folio.cached else 0
        mapcount, counts, truth = model.mapcount(folio), self.counts[folio], self.truth[folio]
        leaves = sum(p.n if p.level == "pte" else 1 for p in parts)
        subtrees = {(p.mapping.process, model.where(p.mapping, p.page * model.geometry.base)[0]) for p in parts}
        row = {
            "file": folio.file, "page": folio.page, "pages": folio.pages, "refcount": folio.refcount,
            "mapcount": mapcount, "mapped": mapcount > 0 if small else scheme.mapped(folio),
            "maybe_shared": model.maybe_shared(folio), "maybe_shared_hugetlb": mapcount > 1,
            "page_mapcount": counts, "kpagecount": counts,
            "state": {} if small else scheme.state(folio), **({} if small else scheme.extra(folio)),
            "expected_refs": cache_refs + folio.pins + (
                leaves if small else scheme.mapping_refs(folio, leaves, len(subtrees), len(subtrees))),
            "movable": self.movable(folio), "movable_all": True,
            "hvo": model.options["hvo"] == "on", "page_cache_refs": cache_refs, "pins": folio.pins,
            "truth": {"leaves": leaves, "processes": len({p.mapping.process for p in parts}),
                      "mappings": len({p.mapping for p in parts}),
                      "pages_mapped": sum(b - a for a, b, v in truth if v), "page_mapcount": truth}}
        if file.kind == "shmem":
            row["page"], row["first"] = divmod(folio.page, file.page_size // model.geometry.base)
        return row if folio.cached else {**row, "in_page_cache": False}

    def movable(self, folio):
        if folio.pages > 1:
            return self.model.scheme.movable(folio)
        return folio.mapcount <= 1 if self.model.options["era"] == "6.15" else folio.mapcount == 1

    def shared_runs(self, part):
        """smaps: what of the part's base pages is shared, by the count of each; by the folio where pages have none."""
        folio, first, last = part.folio, part.first, part.first + part.n
        if self.by_folio():
            return [(first, last, self.model.maybe_shared(folio))]
        return [(a, b, v >= 2) for a, b, v in clipped(self.sharers[folio], first, last)]

    def by_folio(self):
        return self.model.options["era"] == "6.15" and not self.model.scheme.writes_tails

    def exclusive_runs(self, part):
        """pagemap goes by the first base page of a leaf of PMD level."""
        runs, shift = self.shared_runs(part), part.page - part.first
        if part.level == "pmd":
            runs = [(part.first, part.first + part.n, runs[0][2])]
        return [(a + shift, b + shift, int(not shared)) for a, b, shared in runs]

    def mapping_row(self, mapping):
        base, parts = self.model.geometry.base, self.of_mapping[mapping]
        parts.sort(key=lambda part: part.page)
        levels, shared, pss, true_pss, true_shared = {"pte": 0, "pmd": 0, "pud": 0}, 0, 0.0, 0.0, 0
        for part in parts:
            folio, first, last = part.folio, part.first, part.first + part.n
            levels[part.level] += part.n * base
            shared += sum((b - a) * base for a, b, is_shared in self.shared_runs(part) if is_shared)
            pss += sum((b - a) * base / max(v, 1) for a, b, v in clipped(self.sharers[folio], first, last))
            for a, b, v in clipped(self.truth[folio], first, last):
                true_pss += (b - a) * base / v
                true_shared += (b - a) * base * (v >= 2)
        rss = sum(levels.values())
        return {"process": mapping.process, "mapping": mapping.name, "rss": rss, "pss": pss,
                "shared": shared, "private": rss - shared, "levels": levels,
                "exclusive": merged([run for part in parts for run in self.exclusive_runs(part)]),
                "truth": {"pss": true_pss, "shared": true_shared}}

    def process_rows(self):
        """Bytes of page tables by level, without the root; none where hugetlb has tables too."""
        if any(file.kind == "hugetlb" for file in self.model.files.values()):
            return None
        return [self.process_row(process) for process in self.model.owners]

    def process_row(self, process):
        space, base = self.model.spaces.get(process), self.model.geometry.base
        numbers = {"pte": 0, "pmd": 0, "pud": 0}
        for level, _ in space.upper if space else ():
            numbers[level] += 1
        for entry in space.pmds.values() if space else ():  # of a leaf of anonymous memory: a table in deposit
            anon = not isinstance(entry, dict) and (entry.folio is None or entry.folio.anon)
            numbers["pte"] += isinstance(entry, dict) or anon
        if self.model.geometry.tables < 4:
            numbers["pud"] = 0  # that is the root
        return {"process": process, "page_tables": {level: n * base for level, n in numbers.items()}}


def runs_of(entry):
    """(slot, folio, its first page, pages, level) of what a PMD entry maps; adjacent PTEs together."""
    if not isinstance(entry, dict):
        return [(0, entry.folio, 0, entry.folio.pages, "pmd")] if entry.folio else []
    runs = []
    for slot, (folio, page, _) in sorted(entry.items()):
        if folio is None:
            continue
        if runs and (slot, folio, page) == (runs[-1][0] + runs[-1][3], runs[-1][1], runs[-1][2] + runs[-1][3]):
            runs[-1][3] += 1
        else:
            runs.append([slot, folio, page, 1, "pte"])
    return runs

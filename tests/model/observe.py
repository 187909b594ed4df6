"""What a model machine reports: each scheme's observables, and the truth recounted from the page tables."""
from collections import defaultdict, namedtuple

from .runs import clipped, coverage, merged
from .tables import POISON, Table, leaves_in
from .thp_observe import Seen

# A leaf where it stands: huge page `index` of the mapping; whether several mappings use its subtree's table.
Placed = namedtuple("Placed", "mapping index leaf subtree in_shared_table")


def observe(model):
    """An observation in hgmcore's form, with lists of (first, last, value) as runs."""
    of_folio, of_mapping, seen = defaultdict(list), defaultdict(list), Seen(model)
    for placed in placed_leaves(model):
        of_folio[placed.leaf.folio].append(placed)
        of_mapping[placed.mapping].append(placed)
    truth = {f: coverage({(id(p.subtree), p.leaf.first): (p.leaf.first, p.leaf.first + p.leaf.pages)
                          for p in of_folio[f]}.values(), f.pages) for f in model.folios if on_hugetlb(model, f)}
    counts = {f: model.scheme.sharer_counts(f) for f in truth}
    files = list(model.files)
    listed = sorted((f for f in model.folios if f.refcount != 0 and not f.freed),
                    key=lambda f: (files.index(f.file), f.page, f.pfn))
    return {"folios": [observe_folio(model, f, of_folio[f], truth[f]) if f in truth else seen.folio_row(f)
                       for f in listed],
            "mappings": [observe_mapping(model, m, of_mapping[m], counts, truth)
                         if m.file.kind == "hugetlb" else seen.mapping_row(m)
                         for m in model.mappings.values() if m.vmas],
            "processes": seen.process_rows(),
            "freed_while_mapped": sum(f.freed and bool(of_folio[f] or seen.of_folio[f]) for f in model.folios)}


def on_hugetlb(model, folio):
    return model.files[folio.file].kind == "hugetlb"


def placed_leaves(model):
    for mapping in model.mappings.values():
        for index, subtree in mapping.subtrees():
            shared = model.table_is_shared(mapping, index)
            for leaf in leaves_in(subtree.root):
                yield Placed(mapping, index, leaf, subtree, shared)


def observe_folio(model, folio, placed, truth):
    scheme = model.scheme
    cache_refs = model.cache_refs(folio) if folio.cached else 0
    subtrees = {p.subtree for p in placed}
    leaves = {(p.subtree, p.leaf.first) for p in placed}
    counted = {s for m in model.mappings.values() for _, s in m.subtrees() if s.counted_on is folio}
    mappings = {p.mapping for p in placed}
    shared_table = any(p.in_shared_table for p in placed)
    counts = scheme.page_mapcount(folio)
    row = {
        "file": folio.file, "page": folio.page, "refcount": folio.refcount,
        "mapcount": scheme.mapcount(folio), "mapped": scheme.mapped(folio),
        "maybe_shared": scheme.maybe_shared(folio), "maybe_shared_hugetlb": scheme.mapcount(folio) > 1,
        "page_mapcount": counts, "kpagecount": counts, "state": scheme.state(folio), **scheme.extra(folio),
        "expected_refs": cache_refs + folio.pins
        + scheme.mapping_refs(folio, len(leaves), len(subtrees), len(counted)),
        "movable": scheme.movable(folio) and not shared_table, "movable_all": True,
        "hvo": model.options["hvo"] == "on", "page_cache_refs": cache_refs, "pins": folio.pins,
        "truth": {"leaves": len(leaves), "processes": len({m.process for m in mappings}),
                  "mappings": len(mappings), "pages_mapped": sum(b - a for a, b, v in truth if v),
                  "page_mapcount": truth}}
    return row if folio.cached else {**row, "in_page_cache": False}


def leaf_is_shared(model, placed, counts):
    """By the folio, or by the count of the leaf's first base page."""
    if placed.in_shared_table:
        return True
    leaf = placed.leaf
    if model.options["era"] == "6.15":
        return model.scheme.maybe_shared(leaf.folio)
    return next(v for a, b, v in counts[leaf.folio] if a <= leaf.first < b) >= 2


def base_of_poison(mapping):
    """Bytes for which entries of failed memory stand: smaps takes them for shared."""
    return sum(count_poison(subtree.root) for _, subtree in mapping.subtrees()) * mapping.geometry.base


def count_poison(table):
    return sum(count_poison(entry) if isinstance(entry, Table) else entry == POISON for entry in table.entries.values())


def observe_mapping(model, mapping, placed, counts, truth):
    rss = private = pss = true_pss = 0
    shared = true_shared = base_of_poison(mapping)
    base, names = model.geometry.base, model.geometry.levels
    levels, exclusive = dict.fromkeys(names.values(), 0), []
    for p in sorted(placed, key=lambda p: (p.index, p.leaf.first)):
        folio, first, pages = p.leaf
        last, size = first + pages, pages * base
        is_shared = leaf_is_shared(model, p, counts)
        shared, private, rss = shared + size * is_shared, private + size * (not is_shared), rss + size
        levels[names[model.geometry.leaves[pages]]] += size
        start = p.index * folio.pages
        exclusive.append((start + first, start + last, int(not is_shared)))
        pss += sum((b - a) * base / max(v, 1) for a, b, v in clipped(counts[folio], first, last))
        for a, b, v in clipped(truth[folio], first, last):
            true_pss += (b - a) * base / v
            true_shared += (b - a) * base * (v >= 2 or p.in_shared_table)
    return {"process": mapping.process, "mapping": mapping.name, "rss": rss, "pss": pss,
            "shared_hugetlb": shared, "private_hugetlb": private, "levels": levels,
            "exclusive": merged(exclusive), "truth": {"pss": true_pss, "shared": true_shared}}

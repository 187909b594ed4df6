"""What a model machine reports: each scheme's observables, and the truth recounted from the page tables."""
from .runs import clipped, coverage, merged
from .tables import BASE, LEVELS, leaves_in


def observe(model):
    """An observation in hgmcore's form, with lists of (first, last, value) as runs."""
    placed = placed_leaves(model)
    truth = {f: coverage({(id(t), x.first): (x.first, x.first + x.pages) for _, _, x, t in placed
                          if x.folio is f}.values(), f.pages) for f in model.folios}
    counts = {f: model.scheme.sharer_counts(f) for f in model.folios}
    mapped = {folio for _, _, (folio, *_), _ in placed}
    files = list(model.files)
    listed = sorted((f for f in model.folios if f.refcount != 0 and not f.freed),
                    key=lambda f: (files.index(f.file), f.page, f.pfn))
    return {"folios": [observe_folio(model, f, [p for p in placed if p[2].folio is f], truth[f])
                       for f in listed],
            "mappings": [observe_mapping(model, m, [p for p in placed if p[0] is m], counts, truth)
                         for m in model.mappings.values() if m.vmas],
            "freed_while_mapped": sum(f.freed for f in mapped)}


def placed_leaves(model):
    """Every leaf, with its mapping, its huge page's place within the mapping, and its subtree."""
    return [(mapping, index, leaf, subtree) for mapping in model.mappings.values()
            for index, subtree in mapping.subtrees() for leaf in leaves_in(subtree.root)]


def observe_folio(model, folio, placed, truth):
    scheme = model.scheme
    cache_refs = model.cache_refs(folio) if folio.cached else 0
    subtrees = {subtree for _, _, _, subtree in placed}
    leaves = {(subtree, leaf.first) for _, _, leaf, subtree in placed}
    counted = {id(s) for m in model.mappings.values() for _, s in m.subtrees() if s.counted_on is folio}
    mappings = {mapping for mapping, *_ in placed}
    shared_table = any(model.table_is_shared(mapping, index) for mapping, index, *_ in placed)
    counts = scheme.page_mapcount(folio)
    row = {
        "file": folio.file, "page": folio.page, "refcount": folio.refcount,
        "mapcount": scheme.mapcount(folio), "mapped": scheme.mapped(folio),
        "maybe_shared": scheme.maybe_shared(folio), "maybe_shared_hugetlb": scheme.mapcount(folio) > 1,
        "page_mapcount": counts, "kpagecount": counts, "state": scheme.state(folio), **scheme.extra(folio),
        "expected_refs": cache_refs + folio.pins
        + scheme.mapping_refs(len(leaves), len(subtrees), len(counted)),
        "movable": scheme.movable(folio) and not shared_table, "movable_all": True,
        "hvo": model.options["hvo"] == "on", "page_cache_refs": cache_refs, "pins": folio.pins,
        "truth": {"leaves": len(leaves), "processes": len({m.process for m in mappings}),
                  "mappings": len(mappings), "pages_mapped": sum(b - a for a, b, v in truth if v),
                  "page_mapcount": truth}}
    return row if folio.cached else {**row, "in_page_cache": False}


def leaf_is_shared(model, mapping, index, leaf, counts):
    if model.table_is_shared(mapping, index):
        return True
    if model.options["era"] == "6.15":
        return model.scheme.maybe_shared(leaf.folio)
    return clipped(counts[leaf.folio], leaf.first, leaf.first + 1)[0][2] >= 2


def observe_mapping(model, mapping, placed, counts, truth):
    shared = private = pss = true_pss = true_shared = 0
    levels, exclusive = dict.fromkeys(LEVELS, 0), []
    for _, index, leaf, _ in sorted(placed, key=lambda p: (p[1], p[2].first)):
        first, last, size = leaf.first, leaf.first + leaf.pages, leaf.pages * BASE
        is_shared = leaf_is_shared(model, mapping, index, leaf, counts)
        shared, private = shared + size * is_shared, private + size * (not is_shared)
        levels[next(name for name, pages in LEVELS.items() if pages == leaf.pages)] += size
        start = index * leaf.folio.pages
        exclusive.append((start + first, start + last, int(not is_shared)))
        pss += sum((b - a) * BASE / max(v, 1) for a, b, v in clipped(counts[leaf.folio], first, last))
        for a, b, v in clipped(truth[leaf.folio], first, last):
            true_pss += (b - a) * BASE / v
            true_shared += (b - a) * BASE * (v >= 2 or model.table_is_shared(mapping, index))
    return {"process": mapping.process, "mapping": mapping.name, "rss": shared + private, "pss": pss,
            "shared_hugetlb": shared, "private_hugetlb": private, "levels": levels,
            "exclusive": merged(exclusive), "truth": {"pss": true_pss, "shared": true_shared}}

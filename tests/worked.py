"""Tables of counter values as text, and how each is checked in the reference model and in hgmcore.

In a table of steps the first cell of a row is what is executed (statements parted by `;`) and the others are
what is seen after it.  In a table of schemes the first two cells are schemes and what is seen, and the others
are its values after each of the steps.  `-` is a value that is not stated.
"""
from collections import namedtuple

from comparing import statements

N = 512
SLOTS = "mm_id no_page_mapcount pmd_pud_mapcount total_mapped_pages"
LARGE = f"large_mapcount rmap_id {SLOTS}"
SUBPAGES = "nr_pages_mapped large_mapcount rmap_id mm_id"  # entire + subpage counts, and the number of pages mapped
PER_LEAF = f"""head_per_leaf per_page_posted nr_pages_mapped subtree_posted subtree double_map {LARGE}
    leaf_and_vma per_vma""".replace("\n", " ")
LOGICAL = "logical_scan logical_counter special_bit"
ONE_COUNT = f"subtree subtree_posted {LOGICAL} per_vma"  # a count for each subtree that has a leaf
HGM = f"{PER_LEAF} {LOGICAL} logical_table"
ALL = f"hugetlb {HGM}"

EACH_PIECE = ";".join(f"continue A v {piece * 4}K 4K" for piece in range(N))
PIECES = "file F 2M 1; populate F 0 1; mmap A v F 0 2M shared minor hgm; mmap B v F 0 2M shared"
FORKED = PIECES.replace("minor hgm", "minor wp hgm")
GIGABYTE = "file F 1G 1; populate F 0 1; mmap A v F 0 1G shared minor hgm"

Example = namedtuple("Example", "name scheme options setup steps")  # steps: [(statements, {column: value})]


def cells(table):
    return [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]


def steps_table(name, schemes, setup, table, **options):
    (_, *columns), *rows = cells(table)
    steps = [(step, dict(zip(columns, values))) for step, *values in rows]
    return [Example(name, scheme, options, setup, steps) for scheme in schemes.split()]


def schemes_table(name, setup, steps, table, **options):
    rows, examples = cells(table), []
    for scheme in dict.fromkeys(scheme for schemes, *_ in rows for scheme in schemes.split()):
        mine = [(column, values) for schemes, column, *values in rows if scheme in schemes.split()]
        seen = [{column: values[i] for column, values in mine} for i in range(len(steps))]
        examples.append(Example(name, scheme, options, setup, list(zip(steps, seen))))
    return examples


def kilobytes(mapping):
    shared, private = mapping["shared_hugetlb"] // 1024, mapping["private_hugetlb"] // 1024
    return f"S {shared}" if not private else f"P {private}" if not shared else f"S {shared} P {private}"


def look(column, result, seen, cost, cache_refs):
    """The cell of one column, from an operation's result, an observation and the cost so far."""
    what, *which = column.split()
    folio = seen["folios"][0] if seen["folios"] else {}
    if what == "result":
        error, done, _ = result
        return f"{error} {done}" if error and done else error or str(done)
    if what in ("persistent", "transient", "ref_atomics", "map_atomics"):
        return str(cost["atomics"][what.removesuffix("_atomics")])
    if what == "lines":
        return str(cost[what])
    if what == "ref":  # tables are for one page-cache reference
        return str(folio["refcount"] - (N - 1 if cache_refs == "folio" else 0))
    if what in ("mapped", "movable", "maybe_shared"):
        return "yes" if folio[what] else "no"
    if what in ("mapcount", "nr_file_mapped"):
        return str(folio[what])
    if what in ("entire", "pmd", "pud", "compound", "large", "entries", "total_pages", "vma_count"):
        return str(folio["state"][what])
    if what in ("double_map", "shared_bit"):
        return str(int(folio["state"][what]))
    if what == "slots":  # owner:count
        return " ".join(f"{owner}:{count}" for owner, count in folio["state"][what])
    if what == "nr":
        return folio["state"]["nr_pages_mapped"].removeprefix("0x")
    if what == "pm":
        pages = range(N) if which == ["any"] else [int(which[0])]
        counts = {value for page in pages for a, b, value in folio["page_mapcount"] if a <= page < b}
        return "/".join(map(str, sorted(counts)))
    mapping = next(m for m in seen["mappings"] if [m["process"], m["mapping"]] == which)
    if what == "smaps":
        return kilobytes(mapping)
    if what == "exclusive":
        return "/".join(str(value) for _, _, value in mapping["exclusive"])
    assert what == "levels", column
    return " ".join(f"{level} {size // 1024}K" for level, size in mapping["levels"].items() if size)


def check(replay, example, cache_refs):
    text = ";".join([example.setup, *(f"{step}; observe" for step, _ in example.steps)]).replace(";", "\n")
    ran = replay(text, example.scheme, cache_refs=cache_refs, **example.options)
    results = [before for before, line in zip(ran.operations, statements(text)[1:]) if line == "observe"]
    for (step, expected), result, seen in zip(example.steps, results, ran.observations, strict=True):
        for column, value in expected.items():
            if value != "-":
                assert look(column, result, seen, ran.cost, cache_refs) == value, f"{column} after '{step}'"

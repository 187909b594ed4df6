"""Counter values worked out by hand, table by table; each is checked in the reference model and in hgmcore.

A table is text.  In a table of steps the first cell of a row is what is executed (statements parted by `;`)
and the others are what is seen after it.  In a table of schemes the first two cells are schemes and what is
seen, and the others are its values after each of the steps.  `-` is a value that is not stated.
"""
import re
from collections import namedtuple

import pytest

from comparing import replay_in_core, replay_in_model, statements

N = 512
SLOTS = "mm_id no_page_mapcount total_mapped_pages"
LARGE = f"large_mapcount {SLOTS}"
SUBPAGES = "nr_pages_mapped large_mapcount mm_id"  # entire + subpage counts, and the number of pages mapped
PER_LEAF = f"""head_per_leaf per_page_posted nr_pages_mapped subtree_posted subtree double_map {LARGE}
    leaf_and_vma per_vma""".replace("\n", " ")
LOGICAL = "logical_scan logical_counter special_bit"
ONE_COUNT = f"subtree subtree_posted {LOGICAL} per_vma"  # a count for each subtree that has a leaf
HGM = f"{PER_LEAF} {LOGICAL} logical_table"
ALL = f"hugetlb {HGM}"

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
    if what in ("entire", "compound", "large", "entries", "total_pages", "vma_count"):
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


CLASSIC = """file F 2M 2; populate F 0 1
    mmap A v F 0 2M shared; mmap A w F 0 2M shared; mmap A x F 2M 2M shared minor"""
E0 = steps_table("E0", "hugetlb", CLASSIC, """
step | result  | ref | entire | pm any | smaps A v | smaps A w | exclusive A v
touch A v 0                           | 4096    | 2   | 1      | 1      | P 2048    | S 0       | 1
touch A w 0                           | 4096    | 3   | 2      | 2      | S 2048    | S 2048    | 0
dontneed A w 0 4K                     | 0       | 3   | 2      | 2      | -         | -         | -
dontneed A w 4K 4K                    | EINVAL  | 3   | 2      | 2      | -         | -         | -
dontneed A w 0 2M                     | 2097152 | 2   | 1      | 1      | P 2048    | -         | 1
register A w minor; continue A w 0 4K | EINVAL  | 2   | 1      | 1      | -         | -         | -
continue A w 0 2M                     | 2097152 | 3   | 2      | 2      | S 2048    | S 2048    | 0
continue A w 0 2M                     | EEXIST  | 3   | 2      | 2      | -         | -         | -
continue A x 0 2M                     | EFAULT  | 3   | 2      | 2      | -         | -         | -
munmap A w 0 4K                       | EINVAL  | 3   | 2      | 2      | -         | -         | -
munmap A w 0 2M                       | 2097152 | 2   | 1      | 1      | P 2048    | -         | 1
exit A                                | 0       | 1   | 0      | 0      | -         | -         | -
""")

E1_SETUP = "file F 2M 1; mmap A v F 0 2M shared minor hgm; mmap B v F 0 2M shared"
E1_STEPS = [
    "populate F 0 1",
    "continue A v 0 4K; continue A v 28K 4K; continue A v 2044K 4K",
    "touch B v 0",
    "dontneed A v 28K 4K",
    "dontneed A v 0 2M",
    "munmap A v 0 2M",
    "munmap B v 0 2M",
]
E1 = schemes_table("E1", E1_SETUP, E1_STEPS, f"""
{PER_LEAF}                 | ref            | 1  | 4    | 5      | 4      | 2      | 2      | 1
{LOGICAL}                  | ref            | 1  | 2    | 3      | 3      | 2      | 2      | 1
logical_table              | ref            | 1  | 2    | 3      | 3      | 3      | 2      | 1
head_per_leaf              | mapcount       | 0  | 3    | 4      | 3      | 1      | 1      | 0
head_per_leaf leaf_and_vma | pm any         | 0  | 3    | 4      | 3      | 1      | 1      | 0
head_per_leaf leaf_and_vma | compound       | 0  | 3    | 4      | 3      | 1      | 1      | 0
leaf_and_vma               | vma_count      | 0  | 1    | 2      | 2      | 1      | 1      | 0
{ONE_COUNT}                | mapcount       | 0  | 1    | 2      | 2      | 1      | 1      | 0
{ONE_COUNT}                | pm any         | 0  | 1    | 2      | 2      | 1      | 1      | 0
{ONE_COUNT}                | compound       | 0  | 1    | 2      | 2      | 1      | 1      | 0
logical_table              | mapcount       | 0  | 1    | 2      | 2      | 2      | 1      | 0
logical_table              | compound       | 0  | 1    | 2      | 2      | 2      | 1      | 0
{SUBPAGES} per_page_posted | entire         | 0  | 0    | 1      | 1      | 1      | 1      | 0
no_page_mapcount           | entire         | 0  | 0    | 1      | 1      | 1      | 1      | 0
{SUBPAGES} per_page_posted | pm 0           | 0  | 1    | 2      | 2      | 1      | 1      | 0
{SUBPAGES} per_page_posted | pm 7           | 0  | 1    | 2      | 1      | 1      | 1      | 0
{SUBPAGES} per_page_posted | pm 1           | 0  | 0    | 1      | 1      | 1      | 1      | 0
per_page_posted            | mapcount       | 0  | 0    | 1      | 1      | 1      | 1      | 0
per_page_posted            | mapped         | no | no   | yes    | yes    | yes    | yes    | no
{SUBPAGES}                 | nr             | 0  | 3    | 800003 | 800002 | 800000 | 800000 | 0
{SUBPAGES}                 | mapcount       | 0  | 3    | 4      | 3      | 1      | 1      | 0
{LARGE} double_map         | mapcount       | 0  | 3    | 4      | 3      | 1      | 1      | 0
{SUBPAGES}                 | nr_file_mapped | 0  | 3    | 512    | 512    | 512    | 512    | 0
no_page_mapcount           | nr_file_mapped | 0  | 512  | 512    | 512    | 512    | 512    | 0
double_map                 | compound       | 0  | 0    | 1      | 1      | 1      | 1      | 0
double_map                 | pm 0           | 0  | 1    | 2      | 2      | 1      | 1      | 0
double_map                 | pm 7           | 0  | 1    | 2      | 1      | 1      | 1      | 0
double_map                 | pm 1           | 0  | 0    | 1      | 1      | 1      | 1      | 0
double_map                 | double_map     | 0  | 1    | 1      | 1      | 1      | 1      | 1
large_mapcount             | maybe_shared   | no | no   | yes    | yes    | no     | no     | no
{SLOTS}                    | slots          | 0:0 0:0 | 1:3 0:0 | 1:3 2:1 | 1:2 2:1 | 0:0 2:1 | 0:0 2:1 | 0:0 0:0
{SLOTS}                    | shared_bit     | 0  | 0    | 1      | 1      | 0      | 0      | 0
{SLOTS}                    | maybe_shared   | no | no   | yes    | yes    | no     | no     | no
no_page_mapcount           | large          | 0  | 3    | 4      | 3      | 1      | 1      | 0
no_page_mapcount           | pm any         | 0  | 1    | 1      | 1      | 1      | 1      | 0
total_mapped_pages         | entries        | 0  | 3    | 4      | 3      | 1      | 1      | 0
total_mapped_pages         | total_pages    | 0  | 3    | 515    | 514    | 512    | 512    | 0
total_mapped_pages         | pm any         | 0  | 1    | 1      | 1      | 1      | 1      | 0
{HGM.replace("per_page_posted", "")} | mapped | no | yes | yes    | yes    | yes    | yes    | no
head_per_leaf              | smaps A v      | -  | S 12 | S 12   | S 8    | -      | -      | -
per_page_posted nr_pages_mapped large_mapcount | smaps A v | - | P 12 | S 12 | S 8 | - | - | -
{ONE_COUNT} logical_table leaf_and_vma | smaps A v | - | P 12 | S 12 | S 8 | - | - | -
{SLOTS} double_map         | smaps A v      | -  | P 12 | S 12   | S 8    | -      | -      | -
{HGM}                      | smaps B v      | -  | -    | S 2048 | S 2048 | -      | P 2048 | -
{PER_LEAF} {LOGICAL}       | smaps B v      | -  | -    | S 2048 | S 2048 | P 2048 | P 2048 | -
logical_table              | smaps B v      | -  | -    | S 2048 | S 2048 | S 2048 | P 2048 | -
""")
E1_MOVABLE_62 = f"""
head_per_leaf                  | movable | - | no  | no | no | yes | yes | -
per_page_posted {SUBPAGES}     | movable | - | yes | no | no | yes | yes | -
{ONE_COUNT} leaf_and_vma       | movable | - | yes | no | no | yes | yes | -
logical_table                  | movable | - | yes | no | no | no  | yes | -
"""
E1_MOVABLE_615 = f"""
head_per_leaf {SUBPAGES} {LARGE}                        | movable      | - | no  | - | - | - | - | -
per_page_posted {ONE_COUNT} logical_table leaf_and_vma  | movable      | - | yes | - | - | - | - | -
head_per_leaf nr_pages_mapped                           | maybe_shared | - | yes | - | - | - | - | -
{ONE_COUNT} logical_table leaf_and_vma                  | maybe_shared | - | no  | - | - | - | - | -
per_page_posted {LARGE}                                 | maybe_shared | - | no  | - | - | - | - | -
"""
E1_MOVABLE = [example
              for era, table in (("6.2", E1_MOVABLE_62), ("6.3", E1_MOVABLE_62), ("6.15", E1_MOVABLE_615))
              for example in schemes_table(f"E1-movable-{era}", E1_SETUP, E1_STEPS, table, era=era)]

EACH_PIECE = ";".join(f"continue A v {piece * 4}K 4K" for piece in range(N))
PIECES = "file F 2M 1; populate F 0 1; mmap A v F 0 2M shared minor hgm; mmap B v F 0 2M shared"
FORKED = PIECES.replace("minor hgm", "minor wp hgm")
E4 = schemes_table("E4", FORKED, [EACH_PIECE, "fork A C"], f"""
{PER_LEAF}                              | ref          | 513    | 1025
{LOGICAL} logical_table                 | ref          | 2      | 3
head_per_leaf leaf_and_vma              | mapcount     | 512    | 1024
per_page_posted                         | mapcount     | 0      | 0
{SUBPAGES} {LARGE} double_map           | mapcount     | 512    | 1024
{ONE_COUNT} logical_table               | mapcount     | 1      | 2
{SUBPAGES} per_page_posted double_map   | pm any       | 1      | 2
no_page_mapcount total_mapped_pages     | pm any       | 1      | 2
{SUBPAGES}                              | nr           | 200    | 200
per_page_posted {SUBPAGES}              | entire       | 0      | 0
double_map                              | double_map   | 1      | 1
leaf_and_vma                            | vma_count    | 1      | 2
total_mapped_pages                      | total_pages  | 512    | 1024
large_mapcount                          | maybe_shared | no     | yes
{SLOTS}                                 | slots        | 1:512 0:0 | 1:512 3:512
{SLOTS}                                 | shared_bit   | 0      | 1
head_per_leaf                           | smaps A v    | S 2048 | S 2048
{HGM.replace("head_per_leaf", "")}      | smaps A v    | P 2048 | S 2048
""")

V2_FORK = steps_table("E4-posted", "per_page_posted", FORKED, """
step                           | result | ref
continue A v 28K 4K; fork A C  | EFAULT | 2
""", model="posted")


def mapped_pieces(pieces, wholes):
    """Statements that map so many base pages of a 2M page by PTEs, and the whole of it so many times."""
    text = "file F 2M 1; populate F 0 1"
    for i in range(-(-pieces // N)):
        count = min(N, pieces - i * N)
        text += f"; mmap A p{i} F 0 2M shared minor hgm; continue A p{i} 0 4K"
        text += f"; continue A p{i} 4K {4 * (count - 1)}K" if count > 1 else ""
    for i in range(wholes):
        text += f"; mmap A w{i} F 0 2M shared; touch A w{i} 0"
    return text


AVERAGES = [(1, 0, 1), (767, 0, 1), (768, 0, 2), (1279, 0, 2), (1280, 0, 3), (3, 1, 1), (255, 1, 1), (256, 1, 2),
            (0, 3, 3), (512, 2, 3), (1, 2, 2)]
E10 = [Example(f"E10-{pieces}-{wholes}", scheme, {}, mapped_pieces(pieces, wholes),
               [("populate F 0 1", {"pm any": str(value)})])
       for pieces, wholes, value in AVERAGES for scheme in ("no_page_mapcount", "total_mapped_pages")]

TWO_PAGES = "file F 2M 2; populate F 0 1; mmap B v F 0 4M shared minor hgm; mmap B w F 0 4M shared minor"
E11 = steps_table("E11", HGM, TWO_PAGES, """
step                                    | result
continue B v 36K 4K                     | 4096
continue B v 32K 8K                     | EAGAIN 4096
continue B v 28K 4K; continue B v 24K 4K; continue B v 24K 8K | EEXIST
continue B v 28K 8K                     | EEXIST
continue B v 2044K 8K                   | EAGAIN 4096
continue B v 2M 4K                      | EFAULT
continue B v 2K 4K                      | EINVAL
continue B v 0 2K                       | EINVAL
continue B v 0 0                        | EINVAL
""") + steps_table("E11-hugetlb", ALL, TWO_PAGES, """
step                | result
continue B w 0 4K   | EINVAL
continue B w 0 4M   | EAGAIN 2097152
""") + steps_table("E11-whole", HGM, TWO_PAGES, """
step                 | result
continue B v 0 2M    | 2097152
continue B v 20K 4K  | EEXIST
""")

GIGABYTE = "file F 1G 1; populate F 0 1; mmap A v F 0 1G shared minor hgm"
EMPTY_GIGABYTE = "file F 1G 1; mmap A v F 0 1G shared minor hgm"

FAILED = "continue A v 0 4K; populate F 0 1; "  # the page is not in the cache yet


def fault(name, before, touch, levels, setup=GIGABYTE, **options):
    return steps_table(f"E12-{name}", HGM, setup, f"""
step                                     | levels A v
{before}unregister A v; touch A v {touch} | {levels}
""", **options)


E12 = [
    *fault("empty", "", "3M", "pud 1048576K"),
    *fault("half", "continue A v 0 512M; ", "600M", "pmd 526336K"),
    *fault("piece-beside", "continue A v 0 4K; ", "4K", "pte 8K"),
    *fault("next-pmd", "continue A v 0 4K; ", "0x201400", "pte 4K pmd 2048K"),
    *fault("posted-order", FAILED, "0", "pte 4K", EMPTY_GIGABYTE, lookup_first="no"),
    *fault("lookup-first", FAILED, "0", "pud 1048576K", EMPTY_GIGABYTE, lookup_first="yes"),
]

SPLIT = "file F 2M 1; populate F 0 1; mmap A v F 0 2M shared"
S11 = steps_table("E14-base-only", "head_per_leaf", SPLIT, """
step                                      | result  | ref | mapcount | levels A v
touch A v 0                               | 4096    | 2   | 1        | pmd 2048K
split A v 0 2M                            | 2097152 | 1   | 0        | -
register A v minor; continue A v 20K 4K   | 4096    | 2   | 1        | pte 4K
unregister A v; touch A v 24K             | 4096    | 3   | 2        | pte 8K
collapse A v 0 2M                         | EINVAL  | 3   | 2        | pte 8K
split A v 0 2M                            | 2097152 | 1   | 0        | -
""", policy="base_only") + steps_table("E14-private", HGM, "file F 2M 1; mmap A v F 0 2M private", """
step           | result
split A v 0 2M | EINVAL
""")
E14 = S11 + steps_table("E14", "head_per_leaf", SPLIT, """
step                                      | result  | ref | mapcount
touch A v 0                               | 4096    | 2   | 1
split A v 0 2M                            | 2097152 | 2   | 1
register A v minor; continue A v 20K 4K   | EEXIST  | 2   | 1
unregister A v; touch A v 24K             | 4096    | 2   | 1
split A v 0 2M                            | 2097152 | 2   | 1
""") + steps_table("E14-hugetlb", "hugetlb", SPLIT, """
step                                      | result  | ref | mapcount
touch A v 0; split A v 0 2M               | EINVAL  | 2   | 1
""")

EXAMPLES = [*E0, *E1, *E1_MOVABLE, *E4, *V2_FORK, *E10, *E11, *E12, *E14]


@pytest.mark.parametrize("cache_refs", ["1", "folio"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.name}-{example.scheme}")
def test_example(replay, example, cache_refs):
    check(replay, example, cache_refs)


FOUR = PIECES + "; continue A v 0 4K; continue A v 28K 4K; continue A v 36K 4K; continue A v 2044K 4K"
WHOLE_OTHER = "file F 2M 1; populate F 0 1; mmap B v F 0 2M shared hgm; touch B v 0"
SETUPS = {
    "first piece": (PIECES, "continue A v 28K 4K"),
    "another piece": (PIECES + "; continue A v 0 4K", "continue A v 28K 4K"),
    "whole": (PIECES, "touch B v 28K"),
    "not last": (FOUR, "dontneed A v 28K 4K"),
    "last alone": (PIECES + "; continue A v 28K 4K", "dontneed A v 28K 4K"),
    "full zap": (FOUR, "dontneed A v 0 2M"),
    "munmap after": (FOUR + "; dontneed A v 0 2M", "munmap A v 0 2M"),
    "fork": (FOUR + "; register A v minor wp", "fork A C"),
    "present": (FOUR, "continue A v 28K 4K"),
    "half-way": ("file F 1G 1; populate F 0 1; mmap A v F 0 1G shared minor hgm; fail 2", "continue A v 0 4K"),
    "split": (FOUR, "split A v 0 2M"),
    "collapse": (FOUR, "collapse A v 0 2M"),
    "some of them": (FOUR, "dontneed A v 0 32K"),
    "hwpoison": (WHOLE_OTHER, "hwpoison B v 28K"),
}

# Rules section 4.14b: changes that one operation makes to references (ref), count words, the sum of all
# subpage counts (sub) and the number of pages mapped (nr; F is its flag for a whole mapping).
MATRIX = """
operation     | head_per_leaf | per_page_posted | nr_pages_mapped | subtree
first piece   | ref+1 compound+1  | ref+1 sub+1 | ref+1 sub+1 nr+1    | ref+1 compound+1
another piece | ref+1 compound+1  | ref+1 sub+1 | ref+1 sub+1 nr+1    | ref+1
whole         | ref+1 compound+1  | ref+1 entire+1 | ref+1 entire+1 nr+F | ref+1 compound+1
not last      | ref-1 compound-1  | ref-1 sub-1 | ref-1 sub-1 nr-1    | ref-1
last alone    | ref-1 compound-1  | ref-1 sub-1 | ref-1 sub-1 nr-1    | ref-1
full zap      | ref-4 compound-4  | ref-4 sub-4 | ref-4 sub-4 nr-4    | ref-4 compound-1
munmap after  |                   |             |                     |
fork          | ref+4 compound+4  | ref+4 sub+4 | ref+4 sub+4         | ref+4 compound+1
present       |                   |             |                     |
half-way      |                   |             |                     | compound+1
split         |                   |             |                     |
collapse      | ref-3 compound-3  | ref-3 sub-4 entire+1 | ref-3 sub-4 nr-4 nr+F entire+1 | ref-3
some of them  | ref-2 compound-2  | ref-2 sub-2 | ref-2 sub-2 nr-2    | ref-2
hwpoison      | ref+511 compound+510 | entire-1 | ref+511 entire-1 sub+511 nr-F nr+511 | ref+511

operation     | logical_scan logical_counter special_bit | logical_table | double_map | large_mapcount mm_id
first piece   | ref+1 compound+1 | ref+1 compound+1 | ref+1 sub+1 double_map+1 | ref+1 sub+1 nr+1 large+1
another piece |                  |                  | ref+1 sub+1              | ref+1 sub+1 nr+1 large+1
whole         | ref+1 compound+1 | ref+1 compound+1 | ref+1 sub+512 compound+1 | ref+1 entire+1 nr+F large+1
not last      |                  |                  | ref-1 sub-1              | ref-1 sub-1 nr-1 large-1
last alone    | ref-1 compound-1 |                  | ref-1 sub-1              | ref-1 sub-1 nr-1 large-1
full zap      | ref-1 compound-1 |                  | ref-4 sub-4              | ref-4 sub-4 nr-4 large-4
munmap after  |                  | ref-1 compound-1 |                          |
fork          | ref+1 compound+1 | ref+1 compound+1 | ref+4 sub+4              | ref+4 sub+4 large+4
present       |                  |                  |                          |
half-way      |                  | ref+1 compound+1 |                          |
split         |                  |                  |                          |
collapse      |                  |                  | ref-3 sub+508 compound+1 double_map-1 | ref-3 sub-4 nr-4 nr+F entire+1 large-3
some of them  |                  |                  | ref-2 sub-2              | ref-2 sub-2 nr-2 large-2
hwpoison      | ref+1            | ref+1            | ref+511 sub-1 compound-1 double_map+1 | ref+511 entire-1 sub+511 nr-F nr+511 large+510

operation     | no_page_mapcount | total_mapped_pages | leaf_and_vma | per_vma | subtree_posted
first piece   | ref+1 large+1 | ref+1 entries+1 total_pages+1 | ref+1 compound+1 vma_count+1 | ref+1 compound+1 | ref+1 compound+1
another piece | ref+1 large+1 | ref+1 entries+1 total_pages+1 | ref+1 compound+1 | ref+1 | ref+1
whole         | ref+1 large+1 entire+1 | ref+1 entries+1 total_pages+512 | ref+1 compound+1 vma_count+1 | ref+1 compound+1 | ref+1 compound+1
not last      | ref-1 large-1 | ref-1 entries-1 total_pages-1 | ref-1 compound-1 | ref-1 | ref-1
last alone    | ref-1 large-1 | ref-1 entries-1 total_pages-1 | ref-1 compound-1 vma_count-1 | ref-1 compound-1 | ref-1
full zap      | ref-4 large-4 | ref-4 entries-4 total_pages-4 | ref-4 compound-4 vma_count-1 | ref-4 compound-1 | ref-4 compound-1
munmap after  |               |                               |                              |                  |
fork          | ref+4 large+4 | ref+4 entries+4 total_pages+4 | ref+4 compound+4 vma_count+1 | ref+4 compound+1 | ref+4 compound+1
present       |               |                               |                              |                  |
half-way      |               |                               |                              |                  |
split         |               |                               |                              |                  |
collapse      | ref-3 large-3 entire+1 | ref-3 entries-3 total_pages+508 | ref-3 compound-3 | ref-3 |
some of them  | ref-2 large-2 | ref-2 entries-2 total_pages-2 | ref-2 compound-2 | ref-2 | ref-2
hwpoison      | ref+511 entire-1 large+510 | ref+511 entries+510 total_pages-1 | ref+511 compound+510 | ref+511 | ref+511
"""


def matrix():
    for part in MATRIX.strip().replace("\\\n", "").split("\n\n"):
        (_, *columns), *rows = cells(part)
        for operation, *changes in rows:
            for schemes, change in zip(columns, changes, strict=True):
                yield from ((operation, scheme, change) for scheme in schemes.split())


def words(folio):
    """The numbers of a folio that an operation may change."""
    numbers = {name: int(value, 16) if isinstance(value, str) else int(value)
               for name, value in folio["state"].items() if name not in ("slots", "shared_bit")}
    pages = sum((last - first) * count for first, last, count in folio["page_mapcount"])
    per_page = {"nr_pages_mapped", "double_map"} & numbers.keys() or numbers.keys() == {"entire"}
    whole = 0 if "double_map" in numbers else numbers.get("entire", 0)
    if per_page:
        numbers["sub"] = pages - whole * folio["truth"]["page_mapcount"][-1][1]
    numbers["nr"] = numbers.pop("nr_pages_mapped", 0)
    return {"ref": folio["refcount"], **numbers}


@pytest.mark.parametrize("operation, scheme, change", list(matrix()))
def test_change(replay, operation, scheme, change):
    setup, statement = SETUPS[operation]
    first, *rest = setup.replace("; fail", "; observe; fail").split("; observe")
    text = [first, "observe", *rest, statement, "observe"]
    ran = replay("\n".join(text).replace(";", "\n"), scheme)
    before, after = (words(seen["folios"][0]) for seen in ran.observations)
    expected = dict.fromkeys(before, 0)
    for word in change.split():
        name, value = re.split("(?=[+-])", word)
        expected[name] += int(value.replace("F", str(0x800000)))
    assert {name: after[name] - before[name] for name in before} == expected


# Of an operation: what it returns, references and map count of the page after it; none: the page was freed.
ENDS = f"""
operation | schemes                      | result     | ref and mapcount
punch     | {PER_LEAF} {LOGICAL}         | 2097152    |
punch     | logical_table                | 2097152    | 1 1
truncate  | {PER_LEAF} {LOGICAL}         | 0          |
truncate  | logical_table                | 0          | 1 1
migrate   | head_per_leaf                | 2097152    | 5 4
migrate   | {SUBPAGES} {LARGE} double_map | 2097152   | 5 4
migrate   | leaf_and_vma                 | 2097152    | 5 4
migrate   | per_page_posted              | 2097152    | 5 0
migrate   | per_vma subtree_posted       | 2097152    | 5 1
migrate   | subtree                      | EAGAIN     | 5 1
migrate   | {LOGICAL}                    | 2097152    | 2 1
migrate   | logical_table                | EAGAIN     | 2 1
pinned    | {HGM}                        | EAGAIN     | -
"""
END_STATEMENTS = {"punch": "punch F 0 2M", "truncate": "truncate F 0", "migrate": "migrate A v 0 2M all",
                  "pinned": "pin F 0 1; migrate A v 0 2M all"}


@pytest.mark.parametrize("operation, scheme, result, counts", [
    (operation, scheme, *values) for operation, schemes, *values in cells(ENDS)[1:] for scheme in schemes.split()])
def test_end_of_a_page(replay, operation, scheme, result, counts):
    ran = replay(f"{FOUR}; {END_STATEMENTS[operation]}; observe".replace(";", "\n"), scheme)
    error, done, _ = ran.operations[-2]
    assert (error or str(done)) == result
    folios = [f"{folio['refcount']} {folio['mapcount']}" for folio in ran.observations[0]["folios"]]
    assert counts == "-" or folios == ([counts] if counts else [])


@pytest.mark.parametrize("operation, result, counts", [
    ("punch", "2097152", ""), ("truncate", "0", ""), ("migrate", "2097152", "2 1")])
def test_rmap_aware(replay, operation, result, counts):
    ran = replay(f"{FOUR}; {END_STATEMENTS[operation]}; observe".replace(";", "\n"), "logical_table", rmap_aware="yes")
    error, done, _ = ran.operations[-2]
    assert (error or str(done)) == result
    assert [f"{f['refcount']} {f['mapcount']}" for f in ran.observations[0]["folios"]] == ([counts] if counts else [])


def added_cost(replay, scheme, setup, action, **options):
    """(persistent atomics, transient atomics) of the action, and the distinct lines of it and its setup."""
    before, after = (replay(text.replace(";", "\n"), scheme, **options).cost for text in (setup, setup + ";" + action))
    added = {kind: after["atomics"][kind] - before["atomics"][kind] for kind in after["atomics"]}
    return added["persistent"], added["transient"], after["lines"]


# Rules section 4.14: persistent atomics, transient atomics, and distinct lines including those of the setup:
# of a piece that is not the first (pages 9, then 5), of all 512 pieces, of their fork; the fork with batch=yes.
COSTS = f"""
head_per_leaf                       | 2 0 2 | 1024 0 2   | 1024 0 2   | 2 0 2
per_page_posted                     | 2 0 3 | 1024 0 512 | 1024 0 512 | 513 0 512
nr_pages_mapped                     | 3 0 4 | 1536 0 512 | 1024 0 512 | 513 0 512
subtree subtree_posted              | 1 0 2 | 513 0 2    | 513 0 2    | 2 0 2
{LOGICAL} logical_table             | 0 2 2 | 2 1022 2   | 2 0 2      | 2 0 2
double_map                          | 2 0 3 | 1024 0 512 | 1024 0 512 | 513 0 512
large_mapcount mm_id                | 4 0 4 | 2048 0 512 | 1536 0 512 | 514 0 512
no_page_mapcount total_mapped_pages | 2 0 2 | 1024 0 2   | 1024 0 2   | 2 0 2
leaf_and_vma                        | 2 0 2 | 1025 0 2   | 1025 0 2   | 3 0 2
per_vma                             | 1 0 2 | 513 0 2    | 513 0 2    | 2 0 2
"""


@pytest.mark.parametrize("scheme, row", [(s, row) for schemes, *row in cells(COSTS) for s in schemes.split()])
def test_costs(replay, scheme, row):
    steps = [(PIECES + "; continue A v 36K 4K", "continue A v 20K 4K", {}), (PIECES, EACH_PIECE, {})]
    whole = f"{FORKED}; continue A v 0 4K; continue A v 4K 2044K"
    steps += [(whole, "fork A C", {}), (whole, "fork A C", {"batch": "yes"})]
    for (setup, action, options), cost in zip(steps, row, strict=True):
        assert added_cost(replay, scheme, setup, action, **options) == tuple(map(int, cost.split())), action[:40]


def test_cost_of_classic_map_and_unmap(replay):
    setup = "file F 2M 1; populate F 0 1; mmap A v F 0 2M shared"
    assert added_cost(replay, "hugetlb", setup, "touch A v 0") == (2, 0, 2)
    assert added_cost(replay, "hugetlb", setup + "; touch A v 0", "munmap A v 0 2M") == (2, 0, 2)
    assert added_cost(replay, "hugetlb", setup, "touch A v 0", era="6.15") == (3, 0, 2)


FULL_GIGABYTE = GIGABYTE + ";" + ";".join(
    f"continue A v {2 * i}M 4K; continue A v {2048 * i + 4}K 2044K" for i in range(512))
EACH_2M = ";".join(f"collapse A v {2 * i}M 2M" for i in range(512))


# (ref, map) atomics of the collapse from 4K leaves.  A scheme with per-page counts makes a second atomic for
# each page, on the number of pages mapped: 262145 and 786433 of the map atomics are those of the counts.
COLLAPSES = [
    ("head_per_leaf", (262145, 262145), (263169, 263169)),
    ("per_page_posted", (262145, 262145), (263169, 786433)),
    ("total_mapped_pages", (262145, 262145), (263169, 263169)),
    ("nr_pages_mapped", (262145, 2 * 262145), (263169, 2 * 786433)),
    ("subtree", (262145, 0), (263169, 0)),
    ("logical_scan", (0, 0), (0, 0)),
    ("logical_table", (0, 0), (0, 0)),
    ("logical_counter", (0, 0), (0, 0)),
    ("special_bit", (0, 0), (0, 0)),
    ("per_vma", (262145, 0), (263169, 0)),
]


@pytest.mark.parametrize("run, scheme, direct, via_2m", [
    (replay_in_model, *COLLAPSES[0]), *((replay_in_core, *collapse) for collapse in COLLAPSES)])
def test_collapse_of_a_gigabyte(run, scheme, direct, via_2m):
    def costs(text):
        cost = run(text.replace(";", "\n"), scheme).cost
        return cost["atomics"]["ref"], cost["atomics"]["map"], cost["leaf_installs"], cost["leaf_removes"]

    before = costs(FULL_GIGABYTE)
    for action, atomics, steps in (("collapse A v 0 1G", direct, 0),
                                   (EACH_2M + "; collapse A v 0 1G", via_2m, 512)):
        after = costs(FULL_GIGABYTE + ";" + action)
        change = tuple(b - a for a, b in zip(before, after))
        assert change == (*atomics, steps + 1, steps + N * N)

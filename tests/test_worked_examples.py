"""Counter values worked out by hand, table by table (worked.py says how to read them)."""
import pytest
from worked import (
    ALL,
    EACH_PIECE,
    FORKED,
    GIGABYTE,
    HGM,
    LARGE,
    LOGICAL,
    ONE_COUNT,
    PER_LEAF,
    SLOTS,
    SUBPAGES,
    Example,
    N,
    check,
    schemes_table,
    steps_table,
)

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
pmd_pud_mapcount           | pmd            | 0  | 0    | 1      | 1      | 1      | 1      | 0
pmd_pud_mapcount           | pud            | 0  | 0    | 0      | 0      | 0      | 0      | 0
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
no_page_mapcount pmd_pud_mapcount | nr_file_mapped | 0  | 512  | 512    | 512    | 512    | 512    | 0
double_map                 | compound       | 0  | 0    | 1      | 1      | 1      | 1      | 0
double_map                 | pm 0           | 0  | 1    | 2      | 2      | 1      | 1      | 0
double_map                 | pm 7           | 0  | 1    | 2      | 1      | 1      | 1      | 0
double_map                 | pm 1           | 0  | 0    | 1      | 1      | 1      | 1      | 0
double_map                 | double_map     | 0  | 1    | 1      | 1      | 1      | 1      | 1
large_mapcount             | maybe_shared   | no | no   | yes    | yes    | no     | no     | no
{SLOTS}                    | slots     | 0:0 0:0 | 1:3 0:0 | 1:3 2:1 | 1:2 2:1 | 0:0 2:1 | 0:0 2:1 | 0:0 0:0
{SLOTS}                    | shared_bit     | 0  | 0    | 1      | 1      | 0      | 0      | 0
{SLOTS}                    | maybe_shared   | no | no   | yes    | yes    | no     | no     | no
no_page_mapcount pmd_pud_mapcount | large   | 0  | 3    | 4      | 3      | 1      | 1      | 0
no_page_mapcount pmd_pud_mapcount | pm any  | 0  | 1    | 1      | 1      | 1      | 1      | 0
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

# Two slots for three processes: one that is free again is taken; who has none leaves a false "shared" behind.
CROWDED = "file F 2M 1; populate F 0 1;" + ";".join(f"mmap {p} v F 0 2M shared minor hgm" for p in "ABC")
OWNERS = steps_table("owners", SLOTS, CROWDED, """
step                | slots   | shared_bit | maybe_shared
continue A v 0 4K   | 1:1 0:0 | 0          | no
continue B v 0 4K   | 1:1 2:1 | 1          | yes
dontneed A v 0 4K   | 0:0 2:1 | 0          | no
continue C v 0 4K   | 3:1 2:1 | 1          | yes
continue A v 0 8K   | 3:1 2:1 | 1          | yes
dontneed C v 0 4K   | 0:0 2:1 | 1          | yes
dontneed B v 0 4K   | 0:0 0:0 | 1          | yes
dontneed A v 4K 4K  | 0:0 0:0 | 1          | no
continue A v 4K 4K  | 1:1 0:0 | 1          | yes
dontneed A v 0 2M   | 0:0 0:0 | 0          | no
""")

E4 = schemes_table("E4", FORKED, [EACH_PIECE, "fork A C"], f"""
{PER_LEAF}                              | ref          | 513    | 1025
{LOGICAL} logical_table                 | ref          | 2      | 3
head_per_leaf leaf_and_vma              | mapcount     | 512    | 1024
per_page_posted                         | mapcount     | 0      | 0
{SUBPAGES} {LARGE} double_map           | mapcount     | 512    | 1024
{ONE_COUNT} logical_table               | mapcount     | 1      | 2
{SUBPAGES} per_page_posted double_map   | pm any       | 1      | 2
no_page_mapcount pmd_pud_mapcount total_mapped_pages | pm any       | 1      | 2
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


AVERAGES = [(1, 0, 1), (767, 0, 1), (768, 0, 2), (1279, 0, 2), (1280, 0, 3), (3, 1, 1), (255, 1, 1),
            (256, 1, 2), (0, 3, 3), (512, 2, 3), (1, 2, 2)]
E10 = [Example(f"E10-{pieces}-{wholes}", scheme, {}, mapped_pieces(pieces, wholes),
               [("populate F 0 1", {"pm any": str(value)})])
       for pieces, wholes, value in AVERAGES
       for scheme in ("no_page_mapcount", "pmd_pud_mapcount", "total_mapped_pages")]

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
TWO_KINDS = "file F 2M 2; mmap A v F 0 4M shared; mmap A w F 0 2M private"
NOTHING_TO_SPLIT = steps_table("E14-empty", HGM, TWO_KINDS, """
step                                   | result
split A v 2M 0                         | 0
split A w 0 0                          | 0
register A v minor; continue A v 2M 4K | EINVAL
""")
E14 = S11 + NOTHING_TO_SPLIT + steps_table("E14", "head_per_leaf", SPLIT, """
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

EXAMPLES = [*E0, *E1, *E1_MOVABLE, *OWNERS, *E4, *V2_FORK, *E10, *E11, *E12, *E14]


@pytest.mark.parametrize("cache_refs", ["1", "folio"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.name}-{example.scheme}")
def test_example(replay, example, cache_refs):
    check(replay, example, cache_refs)

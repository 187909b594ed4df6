"""A scheme in functions that numba compiles. It needs numba: pip install numba

hgmcore compare --scheme-file own_scheme_numba.py --schemes head_per_leaf,by_numba
"""

from numba import cfunc

import hgmcore as hgm
from hgmcore.own import numba as own
from hgmcore.own.tables import OFFSET, table

ENTIRE = OFFSET["_entire_mapcount"]


@cfunc(own.LEAF_INSTALL)
def leaf_install(cost, options, leaf):
    count = own.leaf_of(leaf).count
    own.ref_add(cost, own.leaf_of(leaf).folio, count)
    own.map_add(cost, own.leaf_of(leaf).folio, 1, ENTIRE, count)
    return 1  # HGM_KEEPS


@cfunc(own.LEAF_REMOVE)
def leaf_remove(cost, options, leaf):
    count = own.leaf_of(leaf).count
    own.map_add(cost, own.leaf_of(leaf).folio, 1, ENTIRE, -count)
    own.ref_add(cost, own.leaf_of(leaf).folio, -count)


@cfunc(own.PAGE_MAPCOUNT)
def page_mapcount(options, folio, page):
    return own.count(folio, 1, ENTIRE)


@cfunc(own.ANSWER_FOLIO)
def answer_folio(options, folio, answer):
    count = own.count(folio, 1, ENTIRE)
    own.answer(answer, count, count > 0)


by_numba = table(
    "by_numba",
    "One map for each leaf, by numba",
    state={"compound": "_entire_mapcount"},
    exceptions={
        "never_false_shared": "definition",
        "page_counts_equal_truth": "definition",
        "moved_when_private": "fault",
        "overflow_safe": "fault",
    },
    leaf_install=leaf_install,
    leaf_remove=leaf_remove,
    page_mapcount=page_mapcount,
    answer_folio=answer_folio,
)

if __name__ == "__main__":
    machine = hgm.Machine(by_numba)
    file = machine.file("F", "2M", 1, populate=True)
    machine.process("A").mmap(file, minor=True, hgm=True).uffd_continue(0, "64K")
    print("mapcount", machine.observe()["folios"][0]["mapcount"])

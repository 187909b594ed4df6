"""A scheme as a Python class: it keeps a mask of the processes that ever mapped a huge page, in its private word.

As a file of schemes: hgmcore compare --scheme-file own_scheme_python.py --schemes ever_mapped,mm_id
"""

import hgmcore as hgm
from hgmcore.own import KEEPS


class EverMapped(hgm.Scheme):
    """Who ever mapped the page, until nobody does

    Claim: one word that is written plainly says who may share a page, for as many processes as it has bits.
    State: _refcount of the head; _entire_mapcount in page 1, and in its private word a bit for each process, modulo 16.
    Rule: each leaf: reference and map, +1 and -1. A leaf sets its process's bit; the last leaf of all clears the word.
    Known to be wrong: a process that unmapped the page still shares it; references count leaves.
    """

    name = "ever_mapped"
    state = {"compound": "_entire_mapcount", "processes": "private"}
    exceptions = {
        "never_false_shared": "definition", "page_counts_equal_truth": "definition", "moved_when_private": "definition",
        "overflow_safe": "fault",
    }

    def leaf_install(self, leaf):
        leaf.ref_add(1)
        leaf.map_add("_entire_mapcount", 1)
        leaf.folio.store("private", leaf.folio.word("private") | 1 << leaf.process % 16)
        return KEEPS

    def leaf_remove(self, leaf):
        if leaf.map_add("_entire_mapcount", -1) == 0:
            leaf.folio.store("private", 0)
        leaf.ref_add(-1)

    def answer_folio(self, folio):
        processes = folio.word("private").bit_count()
        return {"mapcount": folio.word("_entire_mapcount"), "maybe_shared": processes > 1}


if __name__ == "__main__":
    machine = hgm.Machine(EverMapped)
    file = machine.file("F", "2M", 1, populate=True)
    for name in "A", "B":
        machine.process(name).mmap(file, minor=True, hgm=True).uffd_continue(0, "64K")
    folio = machine.observe()["folios"][0]
    print(f"mapcount {folio['mapcount']}, shared {folio['maybe_shared']}, state {folio['state']}")

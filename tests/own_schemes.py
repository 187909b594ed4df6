"""The rule of head_per_leaf once more through each door, and schemes that misbehave on purpose; for tests."""

import os
import subprocess
from pathlib import Path

import hgmcore as hgm
from hgmcore.own import KEEPS, Scheme
from hgmcore.schemes import load

EXCEPTIONS = dict(load("head_per_leaf").exceptions)
HEADER = Path(__file__).parent.parent / "hgmcore/scaffold/c/@NAME@.h.in"
"""head_per_leaf in C, as the scaffold has it."""


class HeadPerLeaf(Scheme):
    """head_per_leaf in Python"""

    name = "python_head"
    state = {"compound": "_entire_mapcount"}
    exceptions = EXCEPTIONS

    def leaf_install(self, leaf):
        leaf.ref_add(1)
        leaf.map_add("_entire_mapcount", 1)
        return KEEPS

    def leaf_remove(self, leaf):
        leaf.map_add("_entire_mapcount", -1)
        leaf.ref_add(-1)

    def answer_folio(self, folio):
        return folio.word("_entire_mapcount")


class NrPagesMapped(Scheme):
    """nr_pages_mapped in Python"""

    name = "python_pages"
    needs = ("tails",)
    state = {"entire": "_entire_mapcount", "nr_pages_mapped": "_nr_pages_mapped"}
    defaults = {"era": "6.3"}
    exceptions = dict(load("nr_pages_mapped").exceptions)
    WHOLE = 0x800000

    def change(self, leaf, by):
        edge = int(by > 0)
        if leaf.whole:
            if leaf.map_add("_entire_mapcount", by) == edge:
                leaf.folio.map_add("_nr_pages_mapped", by * self.WHOLE)
            return
        n = leaf.pages_add(by)
        if leaf.count == 1 or leaf.options.batch == "6.9":
            for _ in range(n):
                leaf.folio.map_add("_nr_pages_mapped", by)
        elif n:
            leaf.folio.map_add("_nr_pages_mapped", by * n)

    def leaf_install(self, leaf):
        leaf.ref_add(1)
        self.change(leaf, 1)
        return KEEPS

    def leaf_remove(self, leaf):
        self.change(leaf, -1)
        leaf.ref_add(-1)

    def page_mapcount(self, folio, page):
        return folio.word("_entire_mapcount") + folio.word("_mapcount", page)

    def answer_folio(self, folio):
        nr = folio.word("_nr_pages_mapped")
        count = folio.word("_entire_mapcount")
        if nr & self.WHOLE - 1:
            count += sum(folio.word("_mapcount", page) for page in range(folio.nr_pages))
        return {"mapcount": count, "mapped": nr > 0, "nr_file_mapped": folio.nr_pages if nr >= self.WHOLE else nr}


class LogicalCounter(Scheme):
    """logical_counter in Python"""

    name = "python_logical"
    needs = ("counter",)
    state = {"compound": "_entire_mapcount"}
    defaults = {"lookup_first": "yes"}
    exceptions = dict(load("logical_counter").exceptions)

    def leaf_install(self, leaf):
        if not leaf.first_leaf:
            return 0
        leaf.folio.ref_add(1)
        leaf.folio.map_add("_entire_mapcount", 1)
        return KEEPS

    def leaf_remove(self, leaf):
        pass

    def subtree_zapped(self, subtree):
        if not (subtree.removed and subtree.empty):
            return False
        subtree.folio.map_add("_entire_mapcount", -1)
        subtree.folio.ref_add(-1)
        return True

    def answer_folio(self, folio):
        count = folio.word("_entire_mapcount")
        return {"mapcount": count, "refs": count}


def library(folder, text, name="scheme"):
    """A shared library of C text that includes hgmcore/scheme.h."""
    source, target = Path(folder) / f"{name}.c", Path(folder) / f"{name}.so"
    source.write_text(text)
    done = subprocess.run(
        [
            os.environ.get("CC", "cc").split()[-1],
            "-O2",
            "-shared",
            "-fPIC",
            "-I",
            hgm.get_include(),
            str(source),
            "-o",
            str(target),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return str(target)


def c_head(name="c_head", body=None, **changes):
    """C text of head_per_leaf as a table. changes: text -> other text in its functions."""
    text = HEADER.read_text().replace("@NAME@", name)
    for old, new in (body or {}).items():
        assert old in text
        text = text.replace(old, new)
    exceptions = " ".join(f"{key}={value}" for key, value in EXCEPTIONS.items())
    fields = {
        "name": f'"{name}"',
        "explanation": '"head_per_leaf in C"',
        "state": '"compound=_entire_mapcount"',
        "exceptions": f'"{exceptions}"',
        **changes,
    }
    return text + f"HGM_SCHEME({name}, {', '.join(f'.{key} = {value}' for key, value in fields.items())});\n"

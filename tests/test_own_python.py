"""A scheme as a Python class is the compiled scheme of the same rule, in every command and in every state."""

import gc
import os
import random
import subprocess
import sys

import numpy as np
import own_schemes
import pytest

import hgmcore as hgm
from hgmcore.explore.check import Checked
from hgmcore.explore.observed import preamble
from hgmcore.explore.properties import BY_NAME
from hgmcore.explore.scopes import find
from hgmcore.explore.walk import GROUNDS, sequence
from hgmcore.own import KEEPS, Scheme
from hgmcore.replay import machine_for, plain

TWINS = [
    (own_schemes.HeadPerLeaf, "head_per_leaf"),
    (own_schemes.NrPagesMapped, "nr_pages_mapped"),
    (own_schemes.LogicalCounter, "logical_counter"),
]
SMALL = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "continue A v 0 12K"]


def said(result):
    """What a replay says, without the measured time and the scheme's name."""
    result = plain(dict(result))
    result["cost"].pop("ns_per_operation")
    result.pop("scheme")
    return result


def small(scheme=own_schemes.HeadPerLeaf, **options):
    machine = hgm.Machine(scheme, **options)
    file = machine.file("F", "2M", 1, populate=True)
    return machine, machine.process("A").mmap(file, minor=True, hgm=True)


@pytest.mark.parametrize("number", range(len(GROUNDS)))
@pytest.mark.parametrize("scheme, twin", TWINS)
def test_replays_agree_with_the_compiled_scheme(scheme, twin, number):
    ground = GROUNDS[number]
    lines = [*preamble(ground), *sequence(random.Random(number), ground, 40), "observe"]
    for options in ({}, {"batch": "6.12"}):
        assert said(hgm.replay(lines, scheme, **options)) == said(hgm.replay(lines, twin, **options))


@pytest.mark.parametrize("scheme, twin", TWINS)
def test_searches_agree_with_the_compiled_scheme(scheme, twin):
    found = []
    for one in (scheme, twin):
        checked = Checked(one, find("pair-small")).run()
        found.append(
            (
                checked.ended,
                checked.search.distinct,
                checked.search.generated,
                [checked.search.violation(k) for k in range(17)],
            )
        )
    assert found[0] == found[1]
    assert found[0][0] == "closed"


def test_a_run_of_leaves_is_one_call():
    calls = []

    class Runs(own_schemes.HeadPerLeaf):
        """Notes the runs"""

        name = "runs"

        def leaf_remove(self, leaf):
            calls.append(leaf.count)
            super().leaf_remove(leaf)

    machine, mapping = small(Runs, batch="6.12")
    mapping.uffd_continue(0, "64K")
    mapping.munmap()
    assert calls == [16]
    assert machine.observe()["folios"][0]["mapcount"] == 0


def test_snapshots_clones_and_trials_are_exact():
    machine, mapping = small()
    mapping.uffd_continue(0, "64K")
    before, snapshot, clone = machine.observe(), machine.snapshot(), machine.clone()
    with machine.trial():
        mapping.dontneed(0, "32K")
        assert machine.observe()["folios"][0]["mapcount"] == 8
    mapping.munmap()
    machine.restore(snapshot)
    for one in (machine, clone):
        assert plain(one.observe()) == plain(before)
    mapping.dontneed(0, "32K")
    assert clone.observe()["folios"][0]["mapcount"] == 16


def test_threads_count_as_one():
    lines = ["file F 2M 8", "populate F 0 8", "mmap A v F 0 16M shared minor hgm", "mmap B v F 0 16M shared minor hgm"]
    lines += [
        f"@{thread} continue {process} v {page * 4}K 4K"
        for page in range(4096)
        for thread, process in ((1, "A"), (2, "B"))
    ]
    one, two = (hgm.replay(lines, own_schemes.HeadPerLeaf, threads=n, observe_end=True) for n in (1, 2))
    assert two["operations_at_once"] > 4000
    assert plain(one["observations"]) == plain(two["observations"])


def test_a_fault_in_one_of_several_threads_is_reported():
    lines = ["file F 2M 8", "populate F 0 8", "mmap A v F 0 16M shared minor hgm", "mmap B v F 0 16M shared minor hgm"]
    lines += [
        f"@{thread} continue {process} v {page * 4}K 4K"
        for page in range(4096)
        for thread, process in ((1, "A"), (2, "B"))
    ]

    def fails(self, leaf):
        return own_schemes.HeadPerLeaf.leaf_install(self, leaf) if leaf.first < 300 else 1 / 0

    found = r"scheme 'mine': leaf_install: ZeroDivisionError: division by zero, at record \d+ \(continue\)"
    with pytest.raises(hgm.SchemeError, match=found) as raised:
        hgm.replay(lines, variant(leaf_install=fails), threads=2)
    assert 4 + 2 * 200 < raised.value.index < len(lines)


# -- by name


def test_register_gives_a_class_its_name(monkeypatch):
    monkeypatch.setattr(hgm.schemes, "_registered", {})
    assert hgm.register(own_schemes.HeadPerLeaf) is own_schemes.HeadPerLeaf
    assert "python_head" in hgm.schemes.names()
    both = hgm.compare(SMALL, schemes=["python_head", "head_per_leaf"], repeat=0)["schemes"]
    assert both["python_head"]["cost"] == both["head_per_leaf"]["cost"]
    assert [step.words for step in hgm.replay_steps(SMALL, "python_head")] == [
        step.words for step in hgm.replay_steps(SMALL, "head_per_leaf")
    ]


def test_a_scheme_file_serves_every_command(tmp_path):
    (tmp_path / "my.py").write_text("from own_schemes import HeadPerLeaf\n")
    (tmp_path / "t.hgm").write_text("hgmcore-trace 1\n" + "\n".join(SMALL) + "\n")
    roots = [os.path.dirname(os.path.dirname(hgm.__file__)), os.path.dirname(__file__)]
    for command, wanted in {
        "schemes python_head": "head_per_leaf in Python",
        "compare t.hgm --schemes python_head --repeat 0": "python_head",
        "replay t.hgm --scheme python_head": "python_head",
        "step t.hgm --scheme python_head": "_refcount",
        "check python_head --scope pair-small": "closed",
        "explain t.hgm --scheme python_head": "",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "hgmcore", *command.split(), "--scheme-file", "my.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        )
        assert done.returncode == 0 and wanted in done.stdout, (command, done.stdout, done.stderr)


# -- what is refused


def variant(**names):
    return type("Mine", (own_schemes.HeadPerLeaf,), {"__doc__": "Mine", "name": "mine", **names})


@pytest.mark.parametrize(
    "names, error",
    [
        ({"name": "two words"}, "a scheme's name is a word"),
        ({"needs": ("scans",)}, "scheme 'mine': needs: 'scans' is none of scan, counter,"),
        ({"quirks": ("odd",)}, "scheme 'mine': quirks: 'odd' is none of whole_only,"),
        ({"state": {"x": "_x"}}, "scheme 'mine': state: struct page has no word '_x'"),
        ({"defaults": {"era": "7"}}, "scheme 'mine': defaults: era=7 is no option"),
        ({"exceptions": {"always_right": "fault"}}, "scheme 'mine': exceptions: always_right=fault is no property"),
        ({"__doc__": None}, "scheme 'mine': no explanation"),
        ({"leaf_install": Scheme.leaf_install}, "scheme 'mine': class Mine has no method leaf_install"),
    ],
)
def test_a_wrong_class_is_refused(names, error):
    with pytest.raises(ValueError) as raised:
        hgm.Machine(variant(**names))
    assert error in str(raised.value)


def test_what_is_no_scheme_is_refused():
    with pytest.raises(TypeError, match="a type is no scheme"):
        hgm.Machine(int)
    with pytest.raises(TypeError, match="a float is no scheme"):
        hgm.register(0.5)


def test_no_attribute_remembers():
    class Remembers(own_schemes.HeadPerLeaf):
        """Keeps a count of its own"""

        name = "remembers"

        def __init__(self):
            self.leaves = 0

        def leaf_install(self, leaf):
            self.leaves += 1
            return super().leaf_install(leaf)

    _, mapping = small(Remembers)
    with pytest.raises(
        hgm.SchemeError, match="leaf_install: AttributeError: leaves: a scheme remembers nothing outside"
    ):
        mapping.uffd_continue(0, "4K")


# -- misbehaviour


def raises(*_):
    raise ZeroDivisionError("one too many")


FAULTY = {
    "leaf_install": [
        (raises, "ZeroDivisionError: one too many"),
        (lambda *_: 9, "ValueError: answered 9"),
        (lambda *_: "x", "TypeError: answered 'x'"),
        (lambda *_: -1, "ValueError: answered -1"),
        (lambda self, leaf: leaf.map_add("_pincount", 1), "ValueError: struct page has no word '_pincount'"),
        (lambda self, leaf: leaf.map_add("_mapcount", 1, 512), "IndexError: struct page 512"),
        (lambda self, leaf: leaf.map_add("_mapcount", 1, -1), "IndexError: struct page -1"),
        (lambda self, leaf: leaf.map_add("_mapcount", 1, 64), "IndexError: struct page 64"),
        (lambda self, leaf: leaf.folio.store("_refcount", 1), "ValueError: _refcount changes by ref_add"),
        (lambda self, leaf: leaf.ref_add(1 << 40), "OverflowError"),
        (lambda self, leaf: leaf.ref_add("1"), "TypeError"),
        (lambda self, leaf: leaf.pages_add(1), "ValueError: pages_add() counts on every struct page"),
    ],
    "leaf_remove": [(raises, "ZeroDivisionError: one too many")],
    "subtree_zapped": [(raises, "ZeroDivisionError: one too many"), (lambda *_: 2, "ValueError: answered 2")],
    "table_add": [(raises, "ZeroDivisionError: one too many"), (lambda *_: 2, "ValueError: answered 2")],
    "table_free": [(raises, "ZeroDivisionError: one too many")],
}
CASES = [(reaction, function, error) for reaction, many in FAULTY.items() for function, error in many]


@pytest.mark.parametrize("reaction, function, error", CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_a_fault_is_reported_by_name_operation_and_record(reaction, function, error):
    machine = machine_for(
        hgm.load([*SMALL, "dontneed A v 4K 4K", "munmap A v 0 2M"]), variant(**{reaction: function}), {}
    )
    trace = hgm.load([*SMALL, "dontneed A v 4K 4K", "munmap A v 0 2M"])
    index, op = {
        "leaf_install": (3, "continue"),
        "table_add": (3, "continue"),
        "leaf_remove": (4, "dontneed"),
        "subtree_zapped": (4, "dontneed"),
        "table_free": (5, "munmap"),
    }[reaction]
    with pytest.raises(hgm.SchemeError) as raised:
        machine.run(trace)
    found = raised.value
    assert (found.scheme, found.reaction, found.index, found.op) == ("mine", reaction, index, op)
    assert error in found.why and str(found) == f"scheme 'mine': {reaction}: {found.why}, at record {index} ({op})"
    assert machine.operations == index + 1  # it ran up to there and no further
    machine.observe()
    with machine.trial():
        pass  # it can be copied and put back


@pytest.mark.parametrize(
    "answer, error",
    [
        (lambda *_: None, "no number and no dict"),
        (lambda *_: {"mapcount": "x"}, "TypeError: answered mapcount: 'x'"),
        (lambda *_: {"maps": 1}, "ValueError: answered 'maps'"),
        (lambda *_: {"mapcount": 1, "mapped": 5}, "out of its range"),
        (lambda *_: 1 << 40, "out of its range"),
        (lambda *_: 1 << 80, "OverflowError"),
        (lambda *_: {}, "KeyError"),
        (lambda self, folio: folio.map_add("_entire_mapcount", 1), "TypeError: no count may change here"),
        (lambda self, folio: folio.store("private", 1), "TypeError: no word may change here"),
        (raises, "ZeroDivisionError"),
    ],
)
def test_nonsense_answers_are_reported(answer, error):
    machine, mapping = small(variant(answer_folio=answer, page_mapcount=lambda *_: 0))
    mapping.uffd_continue(0, "4K")
    with pytest.raises(hgm.SchemeError, match="scheme 'mine': answer_folio: ") as raised:
        machine.observe()
    assert error in raised.value.why and raised.value.index is None
    mapping.munmap()  # it goes on


def test_counts_that_change_with_each_question():
    numbers = iter(range(10**9))
    machine, mapping = small(variant(page_mapcount=lambda *_: next(numbers)))
    mapping.uffd_continue(0, "4K")
    assert len(machine.observe()["folios"][0]["page_mapcount"]) == 512


def test_a_streak_ends_where_the_scheme_fails():
    calls = []

    def third(self, leaf):
        calls.append(leaf.first)
        if len(calls) == 3:
            raise RuntimeError("enough")
        return own_schemes.HeadPerLeaf.leaf_install(self, leaf)

    machine, mapping = small(variant(leaf_install=third))
    with pytest.raises(hgm.SchemeError, match=r"leaf_install: RuntimeError: enough, at record 4 \(continue\)"):
        mapping.uffd_continue(np.arange(20) * 4096)
    assert len(calls) == 3 and machine.operations == 5
    assert machine.observe()["folios"][0]["truth"]["leaves"] == 3
    mapping.uffd_continue(16 * 4096, "4K")
    assert len(calls) == 4


def test_a_leaf_that_is_kept_is_nothing_later():
    kept = []

    def keeps(self, leaf):
        kept.extend([leaf, leaf.folio])
        return own_schemes.HeadPerLeaf.leaf_install(self, leaf)

    machine, mapping = small(variant(leaf_install=keeps))
    mapping.uffd_continue(0, "4K")
    del machine, mapping
    gc.collect()
    for call in (
        lambda: kept[0].count,
        lambda: kept[0].ref_add(1),
        lambda: kept[1].word("private"),
        lambda: kept[1].ref_add(1),
        lambda: kept[0].folio,
    ):
        with pytest.raises(ReferenceError, match="stand for something only while"):
            call()


def test_a_key_that_interrupts_is_no_fault_of_the_scheme():
    def interrupted(self, leaf):
        raise KeyboardInterrupt

    _, mapping = small(variant(leaf_install=interrupted))
    with pytest.raises(KeyboardInterrupt):
        mapping.uffd_continue(0, "4K")


def test_a_reaction_may_run_another_machine():
    def within(self, leaf):
        hgm.replay(SMALL, "logical_counter")
        hgm.replay(SMALL, own_schemes.LogicalCounter)
        return own_schemes.HeadPerLeaf.leaf_install(self, leaf)

    machine, mapping = small(variant(leaf_install=within))
    mapping.uffd_continue(0, "12K")
    assert machine.observe()["folios"][0]["mapcount"] == 3


def test_a_search_names_the_step_that_fails():
    with pytest.raises(
        hgm.SchemeError, match=r"scheme 'mine': leaf_remove: ZeroDivisionError.* \((dontneed|punch|munmap)\)"
    ):
        Checked(variant(leaf_remove=raises), find("pair-small")).run()


def test_a_search_keeps_private_words():
    """With a word that tells who ever mapped the page there are more states, and none is taken for another."""

    class Ever(own_schemes.HeadPerLeaf):
        """Keeps a mask"""

        name = "ever"

        def leaf_install(self, leaf):
            leaf.folio.store("private", leaf.folio.word("private") | 1 << leaf.process)
            return super().leaf_install(leaf)

        def leaf_remove(self, leaf):
            super().leaf_remove(leaf)
            if leaf.folio.word("_entire_mapcount") == 0:
                leaf.folio.store("private", 0)

        def answer_folio(self, folio):
            masks = folio.word("private")
            return {"mapcount": folio.word("_entire_mapcount"), "maybe_shared": masks.bit_count() > 1}

    plainly, kept = (Checked(one, find("pair-small"), symmetry="none").run() for one in (own_schemes.HeadPerLeaf, Ever))
    assert kept.ended == "closed" and kept.search.distinct > plainly.search.distinct
    assert all(kept.search.round_trip(state) for state in range(kept.search.distinct))
    assert kept.search.violation(5) is None  # never_false_exclusive


@pytest.mark.parametrize("store", [("private", 1 << 16), ("private", -1)])
def test_a_search_refuses_words_that_it_cannot_keep(store):
    def stores(self, leaf):
        leaf.folio.store(*store)
        return own_schemes.HeadPerLeaf.leaf_install(self, leaf)

    with pytest.raises(ValueError, match="scope pair-small: it writes a word of struct pages that is no count"):
        Checked(variant(leaf_install=stores), find("pair-small")).run()


def test_the_command_line_says_it_in_one_line(tmp_path):
    (tmp_path / "my.py").write_text(
        "from own_schemes import HeadPerLeaf\n\nclass Mine(HeadPerLeaf):\n    'Mine'\n    name = 'mine'\n\n"
        "    def leaf_remove(self, leaf):\n        1 / 0\n\ndel HeadPerLeaf\n"
    )
    (tmp_path / "t.hgm").write_text("hgmcore-trace 1\n" + "\n".join([*SMALL, "munmap A v 0 2M"]) + "\n")
    roots = [os.path.dirname(os.path.dirname(hgm.__file__)), os.path.dirname(__file__)]
    for command in (
        "compare t.hgm --schemes mine --repeat 0",
        "replay t.hgm --scheme mine",
        "step t.hgm --scheme mine",
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hgmcore", *command.split(), "--scheme-file", "my.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        )
        assert done.returncode == 2
        assert done.stderr == (
            "hgmcore: error: scheme 'mine': leaf_remove: ZeroDivisionError: division by zero, at record 4 (munmap)\n"
        )


def test_private_words_are_kept_beside_numbers():
    """A search keeps what a scheme has in "private", also of one that is told the numbers of processes."""
    class OneEach(hgm.Scheme):
        """One reference and one map for each huge page that is mapped"""

        name = "one_each"
        needs = ("numbers",)
        state = {"compound": "_entire_mapcount"}

        def leaf_install(self, leaf):
            leaves = leaf.folio.word("private")
            leaf.folio.store("private", leaves + leaf.count)
            if leaves:
                return None
            leaf.folio.ref_add(1)
            leaf.folio.map_add("_entire_mapcount", 1)
            return KEEPS

        def leaf_remove(self, leaf):
            leaves = leaf.folio.word("private") - leaf.count
            leaf.folio.store("private", leaves)
            if not leaves:
                leaf.folio.map_add("_entire_mapcount", -1)
                leaf.folio.ref_add(-1)

        def answer_folio(self, folio):
            return folio.word("_entire_mapcount")

    found = Checked(OneEach, find("pair")).run()
    assert found.ended == "closed"
    for name in ("no_leak_at_end", "mapped_if_leaf", "leaf_if_mapped"):
        assert found.verdict(BY_NAME[name]) == "proved", name


def test_a_name_that_is_built_in_is_refused_in_a_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import hgmcore as hgm\nfrom hgmcore.schemes.mm_id import engine\n\n\nclass Subtree(hgm.Scheme):\n"
                    "    'x'\n    def leaf_install(self, leaf): pass\n    def leaf_remove(self, leaf): pass\n"
                    "    def answer_folio(self, folio): return 0\n")
    with pytest.raises(ValueError, match="the name 'subtree' is that of a scheme that is built in"):
        hgm.schemes.load_file(str(path))

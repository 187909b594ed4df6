"""Races: two operations at once, in every order of their accesses, under every choice of locks."""

import copy
import functools
import itertools
import json
import re

import plain_races
import pytest
from plain_litmus import Litmus

from hgmcore import cli, schemes
from hgmcore.errnos import error_name
from hgmcore.explore import scopes
from hgmcore.explore.races_check import BREAKS, LOCKS, Raced, needs, race, racing_engine, status
from hgmcore.explore.races_file import line_of, run_schedule, schedule_file
from hgmcore.explore.races_litmus import litmus

LETTERS = dict(BREAKS)
OPS = "ops=populate,punch,continue,touch,dontneed,collapse,migrate,munmap,mmap,exit"


@functools.cache
def raced(scheme, geometry):
    return Raced(scheme, scopes.parse(f"geometry={geometry} processes=1 {OPS}"))


def breaks(scheme, geometry, start, a, b, locks):
    """The letters of what breaks."""
    return {LETTERS[name] for name in raced(scheme, geometry).of(start, a, b, locks)}


C0, C1 = "continue A v 0 4K", "continue A v 4K 4K"
POPULATE = "populate F 0 1"
EMPTY_TABLES = [POPULATE, "continue A v 0 4K", "continue A v 8K 4K", "dontneed A v 0 16K"]

NAMED = [
    # two creators hang one table: of one of them, nobody ever finds what it mapped
    ("tiny-4", [POPULATE], C0, C1, "none", {name: {"LK"} for name in schemes.NAMES if name != "hugetlb"}),
    ("tiny-4", [POPULATE], C0, C1, "pt", {"head_per_leaf": set()}),
    # the first leaf is counted twice, in two tables of one subtree
    *(("tiny-2x2", EMPTY_TABLES, C0, "continue A v 8K 4K", locks,
       dict.fromkeys(("logical_scan", "logical_counter", "special_bit"), wanted))
      for locks, wanted in (("none", {"FS", "LK"}), ("pt", {"FS", "LK"}), ("posted", set()))),
    # a group over a plain entry that came after the group was found none
    *(("tiny-4c", [POPULATE, "continue A v 12K 4K"], "continue A v 0 8K", C1, locks, {"head_per_leaf": wanted})
      for locks, wanted in (("none", {"LK"}), ("pt", {"LK"}), ("posted-X", {"LK"}), ("posted", set()))),
    # a page leaves the page cache while it is being mapped
    *(("tiny-2", [POPULATE], "punch F 0 8K", C0, locks, {name: {"LEFT"} for name in schemes.NAMES if name != "hugetlb"})
      for locks in ("none", "pt", "posted-X")),
    # a zap of everything, and a leaf that comes while the subtree is still counted
    *(("tiny-2", [POPULATE, C0], "dontneed A v 0 8K", C1, locks, {"subtree": {"LK"}, "special_bit": {"UF", "MU"}})
      for locks in ("pt", "posted-V")),
    # the last piece goes, the first comes
    ("tiny-2", [POPULATE, C0], "dontneed A v 0 4K", C1, "none",
     {"special_bit": {"UF", "MU"}, "logical_counter": {"UF", "MU"}}),
    ("tiny-2", [POPULATE, C0], "dontneed A v 0 4K", C1, "pt", {"special_bit": {"UF", "MU"}, "logical_counter": set()}),
    # a leaf comes into a table that a collapse has replaced
    *(("tiny-2", [POPULATE, C0], "collapse A v 0 8K", C1, locks, {"head_per_leaf": {"LK"}})
      for locks in ("none", "pt", "posted-M")),
]
ROWS = [(geometry, start, a, b, locks, scheme, wanted)
        for geometry, start, a, b, locks, per_scheme in NAMED for scheme, wanted in per_scheme.items()]


@pytest.mark.parametrize("geometry, start, a, b, locks, scheme, wanted", ROWS,
                         ids=[f"{row[5]}-{row[4]}-{row[2]}-{row[3]}" for row in ROWS])
def test_named_races(geometry, start, a, b, locks, scheme, wanted):
    found = breaks(scheme, geometry, start, a, b, locks)
    assert wanted <= found if wanted else not found, found


# -- against plain Python

PAGES = {"4K 4K": 1, "0 4K": 0, "0 8K": None}
LETTERS_IN_FORCE = {"none": "", "pt": "T", "posted": "MXVILT", "posted-V": "MXILT", "posted-X": "MVILT"}


def program(line, scheme):
    verb, _, _, where = line.split(" ", 3)
    return (plain_races.map_page(PAGES[where], scheme, scheme == "logical_scan") if verb == "continue"
            else plain_races.zap(PAGES[where], scheme))


def compiled_outcomes(run, start, a, b, locks):
    """As plain_races.outcomes()."""
    found = set()
    for answers, memory in run.all_outcomes(start, a, b, locks):
        entry = memory["tables"][memory["hstate"][0, 0][0]][memory["hstate"][0, 0][1]] if memory["hstate"] else 0
        mapped = (0 if entry == 0 else "leaf" if entry & 0x80
                  else tuple("leaf" if below else 0 for below in memory["tables"][entry >> 12]))
        folio = memory["pages"][:2]
        found.add((*(error_name(error) if error else None for error, _, _ in answers),
                   (memory["cache"][0] > 0, int(folio[0]["_refcount"]), int(folio[1]["_entire_mapcount"]), mapped)))
    return found


STARTS = ([POPULATE], [POPULATE, C0], [POPULATE, C0, C1], [POPULATE, "continue A v 0 8K"])
LINES = [f"{verb} A v {where}" for verb in ("continue", "dontneed") for where in PAGES]


@pytest.mark.parametrize("scheme", ["head_per_leaf", "logical_scan"])
@pytest.mark.parametrize("locks", LETTERS_IN_FORCE)
def test_outcomes_are_those_of_plain_python(scheme, locks):
    run = raced(scheme, "tiny-2")
    compared = odd = 0
    for start, (a, b) in itertools.product(STARTS, itertools.combinations_with_replacement(LINES, 2)):
        shared = plain_races.Shared()
        shared.cached, shared.ref = True, 1
        for line in start[1:]:
            assert plain_races.alone(shared, program(line, scheme)) is None
        both = [program(a, scheme), program(b, scheme)]
        one_by_one = set()
        for order in ((0, 1), (1, 0)):
            after, answers = copy.deepcopy(shared), [None, None]
            for i in order:
                answers[i] = plain_races.alone(after, both[i])
            one_by_one.add((*answers, after.outcome()))
        wanted = plain_races.outcomes(copy.deepcopy(shared), both, LETTERS_IN_FORCE[locks])
        assert compiled_outcomes(run, start, a, b, locks) == wanted, (start, a, b)
        compared += len(wanted)
        odd += len(wanted - one_by_one)
    assert compared > 84
    assert (odd > 0) == (locks != "posted" if scheme == "logical_scan" else locks == "none"), odd


# -- the cuts change nothing

@pytest.mark.parametrize("scheme", schemes.NAMES)
@pytest.mark.parametrize("scope", [
    f"geometry=tiny-2 processes=2 {OPS}",
    "geometry=tiny-2 processes=3 born=1 flags=minor,wp,hgm ops=populate,punch,continue,dontneed,collapse,exit,fork",
    "geometry=tiny-4c processes=1 ops=populate,punch,truncate,continue,dontneed,collapse,munmap,mmap,migrate",
    "geometry=tiny-2x2 processes=1 ops=populate,punch,continue,dontneed,collapse,touch,munmap,mmap,migrate",
], ids=["two", "fork", "group", "levels"])
def test_an_operation_alone_is_that_of_a_replay(scheme, scope):
    run = Raced(scheme, scopes.parse(scope))
    for locks in ("none", "repaired"):
        same = [run.races.same_alone(state, step, LOCKS[locks])
                for state in range(run.checked.search.distinct) for step in range(len(run.steps))]
        assert False not in same
        assert same.count(True) > (0 if scheme == "hugetlb" and "4c" in scope else 50)


# -- what is found, and what not

def test_no_race_has_fewer_preemptions():
    run = raced("head_per_leaf", "tiny-4")
    (switches, schedule) = run.of([POPULATE], C0, C1, "none")["no_leak_at_end"]
    assert switches == 1
    assert run.of([POPULATE], C0, C1, "none", 0) == {}
    turns = [(a, b) for a, b in itertools.pairwise(schedule) if a != b]
    assert len(turns) == 2    # away from the one that could go on, and back when the other has ended


@pytest.mark.parametrize("locks, geometry, start, a, b", [
    ("none", "tiny-4", [POPULATE], C0, C1),
    ("posted-X", "tiny-2", [POPULATE], "punch F 0 8K", C0),
    ("posted-X", "tiny-4c", [POPULATE, "continue A v 12K 4K"], "continue A v 0 8K", C1),
    ("posted-M", "tiny-2", [POPULATE, C0], "collapse A v 0 8K", C1),
])
def test_a_lock_that_is_left_out_is_found_with_the_fewest_preemptions(locks, geometry, start, a, b):
    run = raced("head_per_leaf", geometry)
    assert run.of(start, a, b, "posted") == {}
    found = run.of(start, a, b, locks)
    assert found
    fewest = {name: next(bound for bound in range(9) if name in run.of(start, a, b, locks, bound)) for name in found}
    assert {name: switches for name, (switches, _) in found.items()} == fewest
    assert min(fewest.values()) == 1


def test_a_schedule_says_who_changed_what():
    result = race(["head_per_leaf"], [scopes.parse("geometry=tiny-4 processes=1 ops=populate,continue")], ["none"])
    (found,) = result["scopes"].values()
    broken = found["schemes"]["head_per_leaf"]["none"]["broken"]
    entry = broken["no_leak_at_end"]
    assert entry["start"] == [POPULATE]
    *steps, answers = entry["steps"]
    assert {step["thread"] for step in steps} == {"a", "b"}
    hung = [step for step in steps if step["what"] == "write" and step["where"] == "A[F0]"]
    assert len(hung) == 2    # both write the hstate-level entry, and the second wins
    assert hung[0]["changed"]["A[F0]"][0] == "none"
    assert [answer["error"] for answer in answers["answers"]] == [None, None]
    assert sum(after - before for step in steps for word, (before, after) in step["changed"].items()
               if word == "F0.compound") == 2


def test_a_race_that_locks_prevent_has_no_outcome_of_its_own():
    result = race(["head_per_leaf"], [scopes.parse("geometry=tiny-4 processes=1 ops=populate,continue")],
                  ["pt", "posted"])
    (found,) = result["scopes"].values()
    for one in found["schemes"]["head_per_leaf"].values():
        assert one["odd"] == 0 and not one["broken"] and one["outcomes"] > one["pairs"] > 10
    assert status(result) == 0


def test_needs():
    def broken(*families):
        return {"broken": {"left_mapped": {"families": dict.fromkeys(families, 1)}} if families else {}}

    whole = {f"posted-{name}": broken("collapse | punch") for name in "MXVILT"} | {"posted": broken("collapse | punch")}
    assert needs(whole) == []
    assert needs(whole | {"posted-V": broken("collapse | punch", "continue | punch"), "posted-X": broken()}) == ["V"]
    assert needs({"posted": broken()}) is None


def test_the_litmus_test_has_what_both_threads_touch():
    result = race(["head_per_leaf"], [scopes.parse("geometry=tiny-4 processes=1 ops=populate,continue")], ["none"])
    (found,) = result["scopes"].values()
    text = litmus("two-creators", found["schemes"]["head_per_leaf"]["none"]["broken"]["no_leak_at_end"], "title")
    assert text.startswith("C two-creators\n")
    assert text.count("WRITE_ONCE(*a_f0, ") == 2
    assert text.count("= READ_ONCE(*a_f0);") >= 2
    assert text.count("atomic_add(1, f0_compound);") == 2
    assert "P0(" in text and "P1(" in text and "\nexists (" in text and "f0_compound=2" in text
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")")


@pytest.mark.parametrize("scheme", ["head_per_leaf", "special_bit", "logical_counter"])
def test_litmus_tests_are_of_the_format_and_can_end_as_they_ask(scheme):
    scope = scopes.parse("geometry=tiny-2 processes=1 ops=populate,punch,continue,dontneed,collapse,migrate")
    (found,) = race([scheme], [scope], ["none", "pt", "posted-M", "posted-L", "posted"])["scopes"].values()
    tests = 0
    for locks, one in found["schemes"][scheme].items():
        for prop, entry in one["broken"].items():
            test = Litmus(litmus(f"{locks}-{prop}", entry, "title"))
            assert len(test.threads) == 2 and test.can_end()
            tests += 1
    assert tests > 8


def test_the_plain_reader_of_litmus_tests_refuses_others():
    text = "C t\n\n(* t *)\n\n{\n\tx=1;\n}\n\nP0(int *x)\n{\n\tint r0 = READ_ONCE(*x);\n}\n\n" \
        "P1(int *x)\n{\n\tWRITE_ONCE(*x, 2);\n}\n\nexists (0:r0=1 /\\ x=2)\n"
    assert Litmus(text).can_end()
    assert not Litmus(text.replace("r0=1", "r0=3")).can_end()
    for old, new in (("(*x, 2)", "(x, 2)"), ("P1", "P2"), ("{\n\tWRITE_ONCE(*x, 2);\n}", "{\n}"), ("x=2)", "y=2)")):
        with pytest.raises((AssertionError, AttributeError, KeyError)):
            Litmus(text.replace(old, new))


# -- schedules as files

@functools.cache
def written(scheme="head_per_leaf", locks="none", processes=1):
    """{property: text of its schedule}, of a small scope."""
    scope = scopes.parse(f"geometry=tiny-2 processes={processes} ops=populate,punch,continue,dontneed")
    (found,) = race([scheme], [scope], [locks])["scopes"].values()
    return {name: schedule_file(scheme, found["definition"], locks, name, entry)
            for name, entry in found["schemes"][scheme][locks]["broken"].items()}


@pytest.mark.parametrize("scheme, locks, processes", [
    ("head_per_leaf", "none", 1), ("special_bit", "pt", 1), ("subtree", "posted-V", 1), ("mm_id", "none", 2)])
def test_a_schedule_that_is_run_again_breaks_the_same(scheme, locks, processes):
    texts = written(scheme, locks, processes)
    assert texts
    for name, text in texts.items():
        found = run_schedule(text)
        assert name in found["broken"]
        lines = [line for line in text.splitlines() if line.startswith("@")]
        assert [line_of(step) for step in found["steps"][:-1]] == lines


def test_one_after_another_breaks_nothing():
    run, pair = raced("head_per_leaf", "tiny-2"), ([POPULATE], "punch F 0 8K", C0, "none")
    n = next(n for n in range(1, 99) if run.rows_of(*pair, [0] * (n + 1))[2])    # a has ended
    assert run.rows_of(*pair, [0] * n)[1:] == (None, False)
    ends = next(m for m in range(1, 99) if run.rows_of(*pair, [0] * n + [1] * m)[1] is not None)
    assert run.rows_of(*pair, [0] * n + [1] * ends)[1:] == ([], False)


@pytest.mark.parametrize("change, message", [
    (lambda text: text.replace("schedule 1", "schedule 2"), "line 1 is not 'hgmcore-schedule 1'"),
    (lambda text: "", "line 1 is not"),
    (lambda text: text.replace("locks none", "locks nun"), "unknown locks 'nun'"),
    (lambda text: text.replace("locks none\n", ""), "no line 'locks ..'"),
    (lambda text: text.replace("locks none", "locks none\nlocks none"), "line 6: 'locks' is given twice"),
    (lambda text: text.replace("locks none", "lokcs none"), "line 5: 'lokcs none' is no line of a schedule"),
    (lambda text: text.replace("scheme head_per_leaf", "scheme head"), "unknown scheme 'head'"),
    (lambda text: text.replace("tiny-2", "tiny-3"), "unknown geometry 'tiny-3'"),
    (lambda text: text.replace("\nb ", "\nb un"), "no such step: un"),
    (lambda text: text[:text.rindex("@")], "ends before both operations have ended"),
    (lambda text: text + "@a\n", "a cannot go on"),
    (lambda text: text.replace("@b read", "@b write", 1), "not 'write"),
    (lambda text: text.replace("start populate", "start unpopulate"), "no such step: unpopulate"),
])
def test_a_schedule_that_is_none_is_one_error(change, message):
    text = written()["left_mapped"]
    assert change(text) != text
    with pytest.raises(ValueError, match=re.escape(message)):
        run_schedule(change(text))


def test_schedules_by_the_command(tmp_path, capfd):
    assert cli.run(["check", "head_per_leaf", "--races", "--locks", "posted-X", "--traces", str(tmp_path)]) == 0
    files = sorted(tmp_path.glob("*.schedule"))
    assert [file.name for file in files] == ["race-head_per_leaf-posted_X-left_mapped.schedule"] or len(files) > 1
    capfd.readouterr()
    assert cli.run(["replay", "--schedule", str(files[0])]) == 0
    text = capfd.readouterr().out
    assert "locks posted-X" in text and "broken: " in text and all(len(line) <= 80 for line in text.splitlines())
    for arguments, message in (
            ([str(tmp_path / "none")], "No such file or directory"),
            ([str(files[0]), "--scheme", "mm_id"], "--schedule has its scheme"),
            ([str(files[0]), "t.hgm"], "--schedule has its scheme")):
        assert cli.run(["replay", "--schedule", *arguments]) == 2
        error = capfd.readouterr().err
        assert message in error and error.count("\n") == 1


# -- the command

def test_check_races(capfd):
    assert cli.run(["check", "head_per_leaf", "--races", "--scope", "race", "--locks", "pt,posted", "--json", "-"]) == 1
    result = json.loads(capfd.readouterr().out)
    (found,) = result["scopes"].values()
    assert list(found["schemes"]["head_per_leaf"]) == ["pt", "posted"]
    assert cli.run(["check", "head_per_leaf", "--races", "--scope", "race", "--locks", "repaired"]) == 0
    text = capfd.readouterr().out
    assert "sequentially consistent" in text and all(len(line) <= 80 for line in text.splitlines()[:12])


@pytest.mark.parametrize("arguments, message", [
    (["--locks", "postd"], "unknown locks 'postd'"),
    (["--locks", ""], "unknown locks ''"),
    (["--locks", "posted", "--preemptions", "-1"], "preemptions"),
    (["--scope", "rase"], "unknown scope 'rase'"),
    (["--scope", "geometry=tiny-2 processes=1 ops=populate,pin"], "nothing to race"),
    (["--depth", "3"], "--depth goes not with --races"),
    (["--traces", "/dev/null/d"], "/dev/null/d: Not a directory"),
    (["--html", "d"], "--html goes not with --races"),
    (["--on", "x86-64"], "--on goes not with --races"),
    (["--walk", "1"], "--walk goes not with --races"),
    (["--seed", "3"], "--seed goes not with --races"),
    (["--fail", "1"], "--fail goes not with --races"),
    (["--threads", "2"], "--threads goes not with --races"),
    (["--symmetry", "pages"], "--symmetry goes not with --races"),
    (["--litmus", "/dev/null/d"], "/dev/null/d: Not a directory"),
    (["--option", "era=7"], "'7' is not one of"),
])
def test_bad_input(arguments, message, capfd):
    assert cli.run(["check", "head_per_leaf", "--races", *arguments]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


def test_preemptions_go_with_races_alone(capfd):
    assert cli.run(["check", "head_per_leaf", "--preemptions", "0"]) == 2
    assert capfd.readouterr().err == "hgmcore: error: --preemptions goes with --races\n"


def test_a_scheme_from_elsewhere_is_refused(monkeypatch):
    monkeypatch.setitem(schemes._registered, "mine", schemes.load("mm_id"))
    with pytest.raises(ValueError, match="scheme 'mine': --races needs an engine that was compiled for races"):
        racing_engine("mine")

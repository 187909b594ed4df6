"""Searches of tiny machines: pinned numbers, lengths of shortest traces, symmetry, a plain search that agrees."""

import json
import re

import pytest
from click.testing import CliRunner
from plain_search import search

import hgmcore as hgm
from hgmcore.commands.check import check_command
from hgmcore.explore.check import Checked, Limits, check, status
from hgmcore.explore.properties import NUMBER, PROPERTIES
from hgmcore.explore.running import sequence
from hgmcore.explore.scopes import DEFAULT, LARGER, NAMES, SCOPES, change, find, parse
from hgmcore.explore.steps import steps_of
from hgmcore.schemes import NAMES as SCHEMES

SMALL = [name for name in SCOPES if name not in LARGER]

# Distinct states, greatest depth, generated, fatal steps; distinct states with symmetry.
FOLLOWING = ("head_per_leaf", "nr_pages_mapped", "logical_scan", "logical_counter")
PINNED = {
    "one": ((88, 7, 2028, 0, 88), (156, 9, 3728, 324, 156), (224, 10, 5424, 24, 224)),
    "pair-small": ((160, 6, 3616, 0, 92), (576, 11, 14848, 1728, 310), (1458, 17, 40186, 2056, 776)),
    "pair": ((832, 10, 31456, 0, 440), (4752, 15, 189040, 16080, 2434), (15378, 21, 630226, 16840, 7832)),
    "levels": ((1557, 9, 63684, 0, 801), (10059, 15, 416626, 19372, 5089), (15467, 19, 643610, 6796, 7833)),
    "group": ((793, 9, 32128, 0, 412), (5049, 15, 207992, 10107, 2566), (7657, 19, 317490, 3584, 3896)),
    "three": ((576, 7, 15360, 0, 140), (6312, 17, 194040, 24701, 1261), (11316, 22, 362100, 22755, 2259)),
    "fork": ((496, 7, 12560, 0, 282), (5536, 17, 160006, 15648, 2947), (10365, 23, 309602, 12419, 5514)),
    "fail": ((1696, 8, 57225, 0, 1696), (7499, 14, 258185, 13713, 7499), (7220, 16, 250003, 0, 7220)),
}

# What follows from the page tables alone: shapes of a process while the page is cached (twice: with and without a pin,
# where there are pins) and while it is not (for each size that the file may have).
BY_HAND = {
    "pair": 2 * 20**2 + 2 * 4**2,
    "levels": 39**2 + 6**2,
    "group": 28**2 + 3**2,
    "three": 8**3 + 4**3,
    "fork": 7 * 8 * 8 + 3 * 4 * 4,
    "fail": 40 * 41 + 7 * 8,
    "two-pages": 37**2 + 3 * 13**2 + 3 * 5**2,
}

LENGTHS = {
    "hugetlb": "",
    "head_per_leaf": "FS 3, PC 2, MP 4",
    "per_page_posted": "MU 2, FE 2, RE 2, MP 3, NM 3",
    "subtree_posted": "MU 2, ML 3, FE 3, FS 3, PC 2, RE 2, UF 3, CB 23, MS 3, MP 3, NM 4",
    "subtree": "MU 4, ML 3, FE 5, FS 3, PC 2, RE 3, UF 5, MS 3, MP 4, NM 6",
    "logical_scan": "PC 2",
    "logical_table": "FM 7, FH 6, LK 5, MU 4, ML 3, FE 5, FS 3, PC 2, UF 6, MS 3, MP 4, NM 6, TC 3",
}


def numbers(checked):
    found = checked.search
    return found.distinct, found.depth, found.generated, found.fatal


def lengths(checked):
    return {prop.key: found[0] for i, prop in enumerate(PROPERTIES) if (found := checked.search.violation(i))}


def run(scheme, scope, symmetry="none", **options):
    return Checked(scheme, find(scope) if isinstance(scope, str) else scope, symmetry, **options).run()


@pytest.mark.parametrize("scope", PINNED)
@pytest.mark.parametrize(
    "scheme, column", [*((scheme, 0) for scheme in FOLLOWING), ("subtree", 1), ("logical_table", 2)]
)
def test_pinned_numbers(scheme, column, scope):
    *whole, reduced = PINNED[scope][column]
    if scope == "fail" and scheme.startswith("logical_") and column == 0:
        whole[2] = 56955  # with the look-up first, a page that is absent costs no table that could fail
    checked = run(scheme, scope)
    assert checked.ended == "closed" and numbers(checked) == tuple(whole)
    assert run(scheme, scope, "processes").search.distinct == reduced


@pytest.mark.parametrize("scope", BY_HAND)
def test_states_that_follow_from_the_tables_can_be_counted_by_hand(scope):
    assert run("head_per_leaf", scope).search.distinct == BY_HAND[scope]


@pytest.mark.parametrize("scheme", LENGTHS)
def test_shortest_traces_have_their_lengths(scheme):
    expected = dict(word.split() for word in LENGTHS[scheme].split(", ") if word)
    assert lengths(run(scheme, "pair", "processes")) == {key: int(length) for key, length in expected.items()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_symmetry_changes_no_answer(scheme):
    for scope in SMALL:
        whole = run(scheme, scope)
        for symmetry in ("processes", "pages"):
            reduced = run(scheme, scope, symmetry)
            assert reduced.search.orbits == whole.search.distinct, scope
            assert lengths(reduced) == lengths(whole), scope
            assert [reduced.verdict(prop) for prop in PROPERTIES] == [whole.verdict(prop) for prop in PROPERTIES], scope


@pytest.mark.parametrize("scheme", SCHEMES)
def test_traces_name_processes_and_base_pages_as_the_user_does(scheme):
    for scope in ("pair", "levels", "group", "poison", "two-pages"):
        checked = run(scheme, scope, "pages")
        for prop in PROPERTIES:
            if checked.verdict(prop) == "violated":
                assert len(checked.trace(prop.name)) == lengths(checked)[prop.key]  # replayed, or it is an error


def test_base_page_0_cannot_be_exchanged_where_a_scheme_looks_at_it(monkeypatch):
    whole, reduced = run("subtree_posted", "pair"), run("subtree_posted", "pair", "pages")
    assert (whole.search.distinct, lengths(whole)["UF"], lengths(reduced)["UF"]) == (7230, 3, 3)
    monkeypatch.setattr("hgmcore.explore.check.pages_of", lambda engine, symmetry: "move")
    wrong = run("subtree_posted", "pair", "pages")
    assert wrong.search.orbits == 7230 and lengths(wrong)["UF"] > 3  # the identity alone shows nothing


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_is_what_it_is_packed_as(scheme):
    for scope in SMALL:
        search = run(scheme, scope, "processes").search
        assert all(search.round_trip(state) for state in range(search.distinct)), scope


@pytest.mark.parametrize("scheme, scope", [("logical_table", "pair"), ("subtree_posted", "pair"), ("mm_id", "fail")])
def test_threads_change_no_answer(scheme, scope):
    found = []
    for threads in (1, 2, 3):
        result = check([scheme], [find(scope)], symmetry="none", threads=threads)
        entry = result["scopes"][scope]["schemes"][scheme]
        found.append({key: value for key, value in entry.items() if key != "seconds"})
    assert found[0] == found[1] == found[2]


def test_threads_share_what_they_judged():
    one, four = (Checked("head_per_leaf", find("triple"), "none", threads).run().search for threads in (1, 4))
    assert one.ran < one.generated / 4                    # the others were recalled
    assert four.ran < 1.02 * one.ran    # a new state is run once, not by each worker that meets it


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_kept_of_steps_changes_no_answer(scheme):
    for scope in SMALL:
        for symmetry in ("none", "processes"):
            kept = run(scheme, scope, symmetry)
            whole = Checked(scheme, find(scope), symmetry, memo=False).run()
            assert numbers(kept) == numbers(whole), scope
            assert kept.search.by_depths == whole.search.by_depths, scope
            assert kept.executed() == whole.executed(), scope
            for i in range(len(PROPERTIES)):
                assert kept.search.violation(i) == whole.search.violation(i), scope
                assert kept.search.premise(i) == whole.search.premise(i), scope


ALONE = parse("geometry=tiny-4 processes=1 ops=populate,punch,continue,touch,collapse,dontneed,migrate", "alone")
POISONED = parse(
    "geometry=tiny-4c processes=1 ops=populate,punch,continue,dontneed,collapse,munmap,mmap,migrate,hwpoison",
    "poisoned",
)


@pytest.mark.parametrize(
    "scheme, scope",
    [
        *((scheme, "pair-small") for scheme in SCHEMES if scheme != "logical_table"),
        ("logical_table", ALONE),
        ("subtree", "one"),
        ("mm_id", "one"),
        ("head_per_leaf", POISONED),
        ("mm_id", POISONED),
    ],
)
def test_a_plain_search_over_the_model_agrees(scheme, scope):
    scope = find(scope) if isinstance(scope, str) else scope
    found, checked = search(scheme, scope, steps_of(scope), NAMES), run(scheme, scope)
    assert (found.states, found.depth, found.generated, found.fatal) == numbers(checked)
    assert found.lengths == lengths(checked)


@pytest.mark.parametrize("scheme, options", [
    ("mm_id", {"model": "posted"}), ("nr_pages_mapped", {"cache_refs": "folio", "era": "6.15"}),
    ("subtree", {"lookup_first": "no"}), ("per_page_posted", {"model": "posted"})])
def test_a_plain_search_agrees_with_other_options(scheme, options):
    scope = find("one")
    found, checked = search(scheme, scope, steps_of(scope), NAMES, **options), run(scheme, scope, **options)
    assert (found.states, found.depth, found.generated, found.fatal) == numbers(checked)
    assert found.lengths == lengths(checked)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_traces_are_files_that_replay(scheme):
    result = check([scheme], [find(name) for name in DEFAULT])
    for scope in result["scopes"].values():
        for entry in scope["schemes"][scheme]["properties"].values():
            if entry["verdict"] != "violated":
                continue
            trace = hgm.Trace.parse(entry["trace"])
            machine = hgm.Machine(scheme, trace.header.geometry, reserve="4M")
            machine.declare(trace.header)
            machine.run(trace.operations)
            assert entry["length"] == len(entry["steps"]) and entry["steps"][-1]["statement"][-1] in entry["trace"]


def test_the_same_search_gives_the_same_trace():
    assert (
        check(["logical_table"], [find("pair")])["scopes"]["pair"]["schemes"]["logical_table"]["properties"]
        == check(["logical_table"], [find("pair")])["scopes"]["pair"]["schemes"]["logical_table"]["properties"]
    )


@pytest.mark.parametrize(
    "scheme, name, statements",
    [
        (
            "subtree",
            "migration_succeeds_when_unpinned",
            ["populate F 0 1", "continue A v 0 4K", "migrate A v 0 16K all"],
        ),
        ("logical_table", "truncate_completes", ["populate F 0 1", "continue A v 0 4K", "punch F 0 16K"]),
        ("per_page_posted", "never_false_exclusive", ["touch A v 0", "continue B v 0 4K"]),
    ],
)
def test_a_shortest_trace(scheme, name, statements):
    steps = run(scheme, "pair", "processes").trace(name)
    assert [line for step in steps for line in step.lines()] == statements


def test_a_failed_allocation_is_a_statement_before_the_operation():
    steps = run("subtree", "fail", "processes").trace("refusal_changes_no_count")
    assert [line for step in steps for line in step.lines()] == ["populate F 0 1", "fail 2", "continue A v 0 4K"]


def test_a_bounded_search_proves_nothing():
    result = check(["head_per_leaf"], [find("pair")], limits=Limits(depth=3))
    found = result["scopes"]["pair"]["schemes"]["head_per_leaf"]
    assert found["ended"] == "depth" and found["complete_depth"] == 2
    assert {entry["verdict"] for entry in found["properties"].values()} == {"bounded", "violated"}
    assert status(result) == 0 and status(result, strict=True) == 1
    assert check(["head_per_leaf"], [find("pair")], limits=Limits(depth=11))["scopes"]["pair"]["schemes"][
        "head_per_leaf"
    ]["closed"]


def test_nothing_mapped_is_vacuous():
    scope = parse("geometry=tiny-4 ops=populate,punch,truncate")
    result = check(["head_per_leaf"], [scope])
    entries = result["scopes"]["scope"]["schemes"]["head_per_leaf"]["properties"]
    vacuous = {name for name, entry in entries.items() if entry["verdict"] == "vacuous"}
    assert {"never_freed_while_mapped", "mapped_if_leaf", "never_false_exclusive", "page_counts_equal_truth"} <= vacuous
    assert status(result) == 0 and status(result, strict=True) == 1


def test_an_interrupt_leaves_what_is_known():
    def interrupt(checked):
        if checked.search.distinct > 1000:
            raise KeyboardInterrupt

    result = check(["head_per_leaf", "subtree"], [find("pair-eight")], progress=interrupt)
    schemes = result["scopes"]["pair-eight"]["schemes"]
    assert result["interrupted"] and list(schemes) == ["head_per_leaf"]
    entries = schemes["head_per_leaf"]["properties"]
    assert (
        entries["no_underflow"]["verdict"] == "unknown" and entries["page_counts_equal_truth"]["verdict"] == "violated"
    )


def test_a_search_that_was_stopped_says_how_deep_it_was():
    output = invoke("head_per_leaf", "--scope", "fail", "--states", "300").output
    assert "every state of depth 2 was expanded" in output and "continue 335/379/474" in output


def test_progress_has_depth_states_steps_and_rate():
    seen = []
    Checked("head_per_leaf", find("pair")).run(Limits(states=100), progress=lambda run: seen.append(run.progress()))
    assert seen and re.fullmatch(
        r"depth \d+, [\d,]+ states, [\d,]+ to go, [\d,]+ steps, [\d.]+ M/s, \d+ bytes a state", seen[-1])


def test_limits_of_states_and_seconds():
    found = Checked("head_per_leaf", find("pair"), "none").run(Limits(states=300)).search
    assert 300 <= found.distinct < 330 < found.generated
    assert Checked("head_per_leaf", find("pair-eight")).run(Limits(states=3000)).ended == "states"
    assert Checked("head_per_leaf", find("pair-eight")).run(Limits(seconds=1e-6)).ended == "seconds"


@pytest.mark.parametrize(
    "text, message",
    [
        ("geometry=tiny-3 ops=touch", "unknown geometry 'tiny-3'"),
        ("ops=conitnue", "did you mean 'continue'"),
        ("ops=touch processes=9", "between 1 and 4"),
        ("ops=touch pages=x", "no number"),
        ("ops=touch ops=fork", "given twice"),
        ("geometry=tiny-4", "no operations"),
        ("ops=touch colour=red", "unknown key"),
        ("touch", "not of the form"),
        ("ops=touch flags=hmg", "did you mean 'hgm'"),
        ("ops=touch pins=3", "populated=yes"),
    ],
)
def test_a_scope_that_cannot_be_is_one_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_scope_is_its_text():
    for scope in SCOPES.values():
        assert parse(scope.text(), scope.name) == scope
    changed = change(find("pair"), processes=3)
    assert changed.born == 3 and changed.title == "pair, changed: processes=3"


def kind(value):
    return {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}.get(
        type(value), "null"
    )


SCHEME_KEYS = {
    "options": "object",
    "closed": "boolean",
    "ended": "string",
    "depth": "number",
    "complete_depth": "number",
    "states": "number",
    "by_depth": "array",
    "generated": "number",
    "fatal_steps": "number",
    "executed": "object",
    "symmetry": "string",
    "orbit_sum": "number",
    "bytes_per_state": "number",
    "seconds": "number",
    "properties": "object",
}
PROPERTY_KEYS = {"verdict": "string", "promise": "string", "asked": "boolean", "premise": "number"}
VIOLATED_KEYS = PROPERTY_KEYS | {"length": "number", "trace": "string", "steps": "array", "sides": "array"}


def invoke(*arguments):
    return CliRunner().invoke(check_command, arguments, standalone_mode=False)


def test_json(tmp_path):
    path = tmp_path / "out.json"
    answer = invoke(
        "per_page_posted,logical_scan", "--scope", "pair-small", "--json", str(path), "--traces", str(tmp_path / "t")
    )
    assert answer.return_value == 0  # all that is violated is said in the schemes
    result = json.loads(path.read_text())
    assert result["format"] == "hgmcore-check 1"
    for found in result["scopes"]["pair-small"]["schemes"].values():
        assert {key: kind(value) for key, value in found.items()} == SCHEME_KEYS
        assert sum(found["by_depth"]) == found["states"] and len(found["by_depth"]) == found["depth"] + 1
        assert set(found["properties"]) == set(NUMBER)
        for entry in found["properties"].values():
            assert {key: kind(value) for key, value in entry.items()} == (
                VIOLATED_KEYS | {next(key for key in ("live", "not_live") if key in entry): "string"}
                if entry["verdict"] == "violated"
                else PROPERTY_KEYS
            )
    assert len(list((tmp_path / "t").glob("*.hgm"))) == 6


def test_a_page_of_a_counterexample(tmp_path):
    invoke("per_page_posted", "--scope", "pair", "--html", str(tmp_path), "--traces", str(tmp_path))
    name = "per_page_posted-pair-never_false_exclusive"
    page, trace = (tmp_path / f"{name}.html").read_text(), (tmp_path / f"{name}.hgm").read_text()
    assert len(list(tmp_path.glob("*.h*m*"))) == 2 * 5
    assert page.count("<tr>") == 1 + 2 and "continue B v 0 4K" in page and "src=" not in page and "<script" not in page
    assert '<td class="number changed">2</td>' in page  # leaves, or references behind the second step
    assert "maybe_shared: no, page_mapcount: 2 1 1 1; truth: leaves: 2, processes: 2, page_mapcount: 2 1 1 1" in trace
    assert "# hgmcore replay FILE --scheme per_page_posted --operations all" in trace


def test_counterexamples_are_tried_on_x86_64(tmp_path):
    invoke("subtree,per_page_posted", "--scope", "pair,levels", "--on", "x86-64", "--traces", str(tmp_path))
    found = {path.name.removesuffix(".x86-64.hgm") for path in tmp_path.glob("*.x86-64.hgm")}
    assert {"per_page_posted-pair-never_false_exclusive", "subtree-pair-leaf_if_mapped"} <= found
    text = (tmp_path / "per_page_posted-levels-refs_explained.x86-64.hgm").read_text()
    assert "file F 1G 1" in text and hgm.Trace.parse(text).header.geometry == "x86-64"


def test_counterexamples_are_sequences_for_a_running_kernel_or_say_why_not(tmp_path):
    invoke("mm_id,subtree", "--scope", "three,pair,levels", "--traces", str(tmp_path))
    lines = (tmp_path / "mm_id-three-never_false_shared.live.jsonl").read_text().splitlines()
    steps = [step for step in map(json.loads, lines) if step["t"] == "op"]
    assert [(step["proc"], step["op"]) for step in steps[12:]] == [
        ("A", "uffd_continue"), ("B", "uffd_continue"), ("D", "uffd_continue"), ("A", "exit"), ("B", "exit"),
        ("D", "uffd_continue")]
    assert (steps[17]["off"], steps[17]["len"]) == (4096, 4096)
    why = "# on a running kernel: migrate: where pages can go is a matter of the whole machine"
    assert why in (tmp_path / "mm_id-pair-moved_when_private.hgm").read_text().splitlines()
    assert not (tmp_path / "mm_id-pair-moved_when_private.live.jsonl").exists()
    assert "huge pages of 1G" in (tmp_path / "subtree-levels-leaf_if_mapped.hgm").read_text()


def test_a_sequence_fills_a_file_by_a_process_that_maps_nothing_behind_it():
    scope = find("pair-small")
    chosen = {" ".join(step.lines()): step for step in steps_of(scope)}
    names = ("continue A v 0 4K", "populate F 0 1", "touch B v 4K", "truncate F 0", "populate F 0 1", "munmap A v 0 8K",
             "mmap A v F 0 8K shared minor hgm")
    text = sequence(scope, [chosen[name] for name in names], "name")
    steps = [step for step in map(json.loads, text.splitlines()) if step["t"] == "op"]
    assert (steps[0]["op"], steps[0]["off"], steps[0]["len"]) == ("fallocate", 0, 2 << 20)    # empty at first
    asked = [(step["proc"], step.get("advice", step["op"])) for step in steps[9:]]
    assert asked == [
        ("A", "uffd_continue"),
        ("driver", "ftruncate"), ("filler", "mmap"), ("filler", "HUGEPAGE"), ("filler", "POPULATE_WRITE"),
        ("filler", "DONTNEED"), ("B", "write"), ("driver", "ftruncate"),
        ("driver", "ftruncate"), ("filler", "POPULATE_WRITE"), ("filler", "DONTNEED"),
        ("A", "munmap"), ("A", "mmap"), ("A", "HUGEPAGE"), ("A", "uffd_register")]
    assert steps[-1]["region"] == "v2" and [step["i"] for step in steps] == list(range(1, len(steps) + 1))


def test_the_command_says_what_it_found():
    answer = invoke("logical_scan", "--scope", "pair-small")
    assert answer.return_value == 0 and all(len(line) <= 80 for line in answer.output.splitlines())
    assert (
        "closed" in answer.output
        and "logical_scan           .     .     .     .     .     .     .    2d     ." in answer.output
    )
    assert "pair-eight" in invoke("--scopes").output
    # By hand: two processes of 8 shapes, with and without a pin, and of 4 where nothing is cached (file size 0, 1).
    cached, states = 2 * (8 * 9 // 2), 2 * (8 * 9 // 2) + 2 * (4 * 5 // 2)
    assert f"done/refused/failed: populate {states}/0/0, punch {states}/0/0, truncate {states}/0/0" in answer.output
    assert f"pinned (premise held {cached} times)" in answer.output
    twice = invoke("logical_scan", "--scope", "pair-small", "--option", "lookup_first=yes,no")
    assert "changed: lookup_first=no" in twice.output and "changed: lookup_first=yes" in twice.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nosuch"], "unknown scheme 'nosuch'"),
        (["hugetlb", "--scope", "piar"], "did you mean 'pair'"),
        (["hugetlb", "--property", "right"], "unknown property 'right'"),
        ([], "which scheme"),
        (["hugetlb", "--option", "era=9"], "'9' is not one of"),
        (["hugetlb", "--option", "ear=9"], "unknown option 'ear'"),
        (["hugetlb", "--option", "locks=pt"], "locks=none"),
        (["hugetlb", "--processes", "7"], "between 1 and 4"),
        (["hugetlb", "--seconds", "nan"], "nan is no time"),
        (["hugetlb", "--walk", "nan"], "nan is no time"),
        (["hugetlb", "--traces", ""], "--traces: no name is given"),
        (["hugetlb", "--html", ""], "--html: no name is given"),
        (["hugetlb", "--json", ""], "--json: no name is given"),
    ],
)
def test_bad_input_is_one_error(arguments, message):
    answer = invoke(*arguments)
    text = answer.exception.format_message() if hasattr(answer.exception, "format_message") else str(answer.exception)
    assert message in text

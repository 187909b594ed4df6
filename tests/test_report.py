"""Reports: 80 columns of ASCII in which every number is the result's, exact or scaled."""

import copy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import TWO_PROCESSES as TRACE
from made_results import entry
from made_results import result as made_result

from hgmcore import Trace, compare, replay, schemes
from hgmcore.analysis.verdict import verdict
from hgmcore.report import columns
from hgmcore.report.compare import compare_markdown, compare_text, full_tables, scheme_table, screen_table, tied
from hgmcore.report.info import info_text
from hgmcore.report.prose import ascii_only, paragraphs, wrapped
from hgmcore.report.replay import replay_text
from hgmcore.report.schemes import scheme_text, schemes_text
from hgmcore.report.table import (
    Column,
    Table,
    as_html,
    as_markdown,
    as_text,
    atomics,
    count,
    interval,
    kilobytes,
    nanoseconds,
)

UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}


@pytest.fixture(scope="module")
def fork_storm():
    return compare("workload:fork_copies", repeat=6)


@pytest.fixture(scope="module")
def worst(result):
    """The longest scheme names and numbers of every length, in every column."""
    made = copy.deepcopy(result)
    template = made["schemes"]["nr_pages_mapped"]
    made["schemes"] = {}
    for i, name in enumerate(
        ("head_per_leaf", "total_mapped_pages", "no_page_mapcount", "per_page_posted", "subtree_posted")
    ):
        scheme = copy.deepcopy(template)
        big = 10 ** (14 - 2 * i) - 1
        scheme["cost"].update(
            lines=big, entries_scanned=big, atomics=dict.fromkeys(("ref", "map", "persistent", "transient"), big)
        )
        for phase in scheme["phases"].values():
            most = 99 * phase["leaves"]    # for one leaf no scheme has hundreds
            phase["atomics"] = dict.fromkeys(("ref", "map", "persistent", "transient"), min(big, most))
            phase["scanned"] = dict.fromkeys(("operations", "p50", "p99", "max"), big)
        for times in [scheme["measured"]["ns_per_operation"], *scheme["measured"]["phases"].values()]:
            times.update({key: value * 10 ** (8 - i) for key, value in times.items() if key != "runs"})
        scheme["errors"]["own"] = {
            key: {"observations": 9, "worst": big, "last": 1} for key in ("false_shared", "leaked_folios")
        }
        scheme["errors"]["consequences"] = {"pss_error_bytes": {"observations": 9, "worst": float(big), "last": 0.5}}
        made["schemes"][name] = scheme
    made["errors_at"] = dict.fromkeys(made["schemes"], ())
    made["verdict"] = verdict(made)
    return made


def is_of(cell, value):
    """Whether a cell shows a value: exactly, or scaled and rounded to what it shows."""
    if value is None:
        return cell == ""
    if isinstance(value, str):
        return cell == value
    if cell in ("-", "<1", "<1%"):
        return value == 0 if cell == "-" else 0 < value < 1
    if cell == ">99":
        return value >= 99.5
    number, unit = re.fullmatch(r"([-+]?[\d,]+(?:\.\d+)?)([kMGTPE]?)%?", cell).groups()
    decimals = len(number.partition(".")[2])
    scale = UNITS.get(unit, 1)
    return abs(float(number.replace(",", "")) * scale - value) <= 0.5000001 * scale / 10**decimals


@pytest.mark.parametrize("which", ["result", "worst", "fork_storm"])
@pytest.mark.parametrize("full", [False, True])
def test_eighty_columns_of_ascii(which, full, request):
    text = compare_text(request.getfixturevalue(which), full)
    assert max(map(len, text.splitlines())) <= 80
    assert all(" " <= c <= "~" or c == "\n" for c in text)
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("which", ["result", "worst", "fork_storm"])
def test_every_counted_number_is_the_results(which, request):
    made = request.getfixturevalue(which)
    for table in full_tables(made):
        rows = as_text(table)[-len(made["schemes"]) :]
        counted = [i for i, column in enumerate(table.columns) if column.kind in ("count", "errors", "kB", "errors kB")]
        if len(counted) + 1 < len(table.columns):
            continue  # intervals and empty cells have no fixed number of words
        for line, row in zip(rows, table.rows):
            cells = line.split()[1:]
            wanted = [
                value / 1024 if "kB" in table.columns[i].kind else value
                for i, value in enumerate(row)
                if i and value is not None
            ]
            assert len(cells) == len(wanted) and all(map(is_of, cells, wanted)), line


def test_the_screen_has_question_answer_table_and_what_is_untested(result):
    text = compare_text(result)
    places = [
        text.index(word)
        for word in (
            "two processes",
            "QUESTION  Which way of counting fits this input?",
            "ANSWER    ",
            "WARNING   ",
            "UNTESTED  ",
            "scheme  ",
            "; smaps: ",
        )
    ]
    assert places == sorted(places)
    said = " ".join(text.split())
    for part in ("answers", "warnings", "untested"):
        assert result["verdict"][part]
        for sentence in result["verdict"][part]:
            assert " ".join(sentence.split()) in said


def test_a_workloads_question_heads_its_answer(fork_storm):
    assert " ".join(fork_storm["trace"]["question"].split()) in " ".join(compare_text(fork_storm).split())


def test_less_is_on_the_screen_than_in_full(result):
    screen, full = compare_text(result), compare_text(result, full=True)
    assert all(title in full and title not in screen for title in ("COST", "ATOMICS", "MEMORY", "TIME"))
    assert "page_mapcount_wrong_pages: page_mapcount() is not" in full


def rows_of(table):
    return {
        row[0].rstrip("*"): dict(zip([column.title for column in table.columns][1:], row[1:])) for row in table.rows
    }


def test_words_of_the_screen():
    made = made_result(
        {
            "good": entry(),
            "smaps": entry(consequences={"pss_error_bytes": (1, False)}),
            "moves": entry(consequences={"bytes_not_moved": (1, False)}, hvo=False),
            "own": entry(own={"false_shared": (1, False)}),
            "known": entry(own={"false_shared": (1, True)}),
            "idle": entry(leaves=0),
        },
        by_operation={"migrate": 1, "continue": 2},
    )
    rows = rows_of(screen_table(made))
    words = {name: [row[key] for key in ("smaps", "moved", "stale\nafter", "HVO")] for name, row in rows.items()}
    assert words == {
        "good": ["ok", "yes", "-", "yes"],
        "smaps": ["WRONG", "yes", "-", "yes"],
        "moves": ["ok", "no", "-", "NO"],
        "own": ["ok", "yes", "yes", "yes"],
        "known": ["ok", "yes", "(yes)", "yes"],
        "idle": ["-", "-", "-", "yes"],
    }
    made["trace"]["by_operation"].pop("migrate")
    assert "moved" not in rows_of(screen_table(made))["good"], "what was not tested is no column"


def test_stale_names_the_phase_before_the_first_error():
    made = made_result({"a": entry(own={"false_shared": (1, False)})})
    for phase in made["trace"]["phases"]:
        phase["declared"] = True
    for index, where in ((5000, "inst"), (5001, "zap"), (10_000, "zap")):
        made["errors_at"]["a"] = [[5, {"page_mapcount_max_error": 1}], [index, {"false_shared": 1}]]
        assert rows_of(screen_table(made))["a"]["stale\nafter"] == where


def test_no_difference_has_a_mark_and_too_few_runs_have_none():
    schemes_of = {
        "base": entry(),
        "same": entry(runs=(9, 11, 9, 11, 9, 11)),
        "fast": entry(runs=(5,) * 6),
        "less": entry(leaves=10),
    }
    schemes_of["less"]["less_work"] = "did little"
    made = made_result(schemes_of)
    assert {name: tied(made, name, columns.TIME) for name in schemes_of} == {
        "base": False,
        "same": True,
        "fast": False,
        "less": False,
    }
    assert not tied({**made, "repeat": 5}, "same", columns.TIME)
    lines = "\n".join(as_text(scheme_table(made, "", [columns.TIME])))
    assert "10.0 [9.00, 11.0] ~" in lines and "5.00 [5.00, 5.00]\n" in lines


def test_intervals_where_there_is_room():
    times = {"median": 10.61, "low": 10.4, "high": 10.9, "runs": [1, 2]}
    assert interval(times) == "10.6 [10.4, 10.9]" and interval({**times, "tied": True}, 10) == "10.6~"
    assert interval({**times, "runs": [10.61]}) == "10.6", "one run has no interval"


@pytest.mark.parametrize(
    "kept, temporary, text",
    [
        (2, 0, "2"),
        (0, 2, "2t"),
        (2, 2, "2+2t"),
        (0, 0, "0"),
        (0.25, 0, "0.25"),
        (1e-6, 2, "2t"),
        (3.018, 0, "3"),
        (12345, 0, "12,345"),
    ],
)
def test_atomics_of_a_leaf(kept, temporary, text):
    assert atomics({"persistent": kept, "transient": temporary}, 5) == text


def test_short_names_of_phases_differ():
    names = ["install", "postcopy_recorded", "postcopy_generated", "postcards", "fork", "partial_unmap"]
    short = columns.short_names(names)
    assert len(set(short.values())) == len(names) and max(map(len, short.values())) <= 4
    assert short["install"] == "inst" and short["postcopy_recorded"] == "post"


def test_both_readings_of_batch_stand_on_the_screen(fork_storm):
    titles = [column.title for column in screen_table(fork_storm).columns]
    assert any(title.endswith("\nbatch") for title in titles)
    assert "batch: fork and zap with batch=6.12" in " ".join(compare_text(fork_storm).split())


def test_keys_of_columns_differ(fork_storm):
    keys = [one.key for one in columns.measures(fork_storm)]
    assert len(keys) == len(set(keys)) and all(one.table in columns.TABLES for one in columns.measures(fork_storm))


def test_names_of_a_trace_cannot_break_the_report(result):
    made = copy.deepcopy(result)
    made["trace"]["name"] = "x" * 200 + "\x1b[31m\n\u2028é"
    made["trace"]["provenance"] = {"who": "é" * 90, "source": "\x1b"}
    for full in (False, True):
        text = compare_text(made, full)
        assert max(map(len, text.splitlines())) <= 80
        assert text.isascii() and "\x1b" not in text


def test_who_did_less_work_is_marked_and_in_full_said_once(result):
    screen, full = (" ".join(compare_text(result, full).split()) for full in (False, True))
    assert "hugetlb* " in screen and "*: did less of the work" in screen
    assert full.count(f"* hugetlb {result['schemes']['hugetlb']['less_work']}.") == 1
    everybody = made_result({"a": entry(), "b": entry()})
    assert "did less" not in compare_text({**everybody, "verdict": verdict(everybody)})


def test_the_screen_of_every_scheme_is_their_rows_and_a_third_of_a_page():
    """With errors of every kind, warnings and what is untested, and a line of the shell."""
    schemes_of = {}
    for i, name in enumerate(schemes.NAMES):
        schemes_of[name] = entry(atomics=i % 4, runs=(9 + i, 10, 10, 10, 10, 13 + 5 * i), scan=100_000 * (i // 9),
                                 hvo=i % 3 > 0, transient=2 * (i % 2), batched=i % 2, maps_of={"2M": 8192 << i},
                                 own={"false_shared": (1, True)},
                                 consequences={key: (i % 9, False) for key in ("pss_error_bytes", "bytes_not_moved")
                                               if i % 9})
    made = made_result(schemes_of, processes=1, by_operation={"continue": 1, "migrate": 1})
    made["trace"]["question"] = "q" * 100
    text = compare_text({**made, "verdict": verdict(made)})
    assert len(text.splitlines()) <= len(schemes.NAMES) + 33


def test_maps_until_an_overflow_are_a_column_where_they_are_counted():
    few, many = {"2M": 1 << 22, "1G": 8192}, {"2M": 9, "1G": (1 << 31) - 1}
    made = made_result({"a": entry(maps_of=few), "b": entry(maps_of=many), "c": {"refused_why": "why"}})
    made["trace"]["files"] = [{"page_size": 2 << 20, "kind": "hugetlb"}, {"page_size": 1 << 30, "kind": "hugetlb"}]
    table = screen_table(made)
    assert table.columns[-1].title == "maps\nof 1G" and [row[-1] for row in table.rows[:2]] == [8192, (1 << 31) - 1]
    assert [line.split()[-1] for line in as_text(table)[-3:-1]] == ["8,192", "2^31"]
    assert "maps" not in screen_table(made_result({"a": entry()})).columns[-1].title


def test_in_full_every_scheme_has_its_verdict(result):
    full = " ".join(compare_text(result, full=True).split())
    for name, sentence in result["verdict"]["details"].items():
        assert f"{name}: {' '.join(sentence.split())}" in full
        assert f"* {name}: {sentence}" in compare_markdown(result, full=True)


def test_without_times_the_report_repeats_exactly():
    first, second = (compare_text(compare(Trace.parse(TRACE), repeat=0), full=True) for _ in range(2))
    assert first == second
    assert "ns/op" not in first and "TIME" not in first


def test_refused_schemes_stay_in_every_table():
    made = compare(Trace.parse(TRACE), repeat=0, hvo="on")
    refused = [name for name, scheme in made["schemes"].items() if "refused_why" in scheme]
    assert "mm_id" in refused
    for table in (screen_table(made), *full_tables(made)):
        assert [row[0].rstrip("*") for row in table.rows] == list(made["schemes"])
        for row in table.rows:
            assert (row[1:] == ["refused: counts on struct pages that hvo=on takes away"]) == (row[0] in refused)
            assert row[0] in refused or len(row) == len(table.columns)
    assert "| mm_id | refused: counts on" in compare_markdown(made)


def test_a_refused_scheme_stands_in_a_table_of_one_column():
    made = made_result({"a": entry(), "b": {"refused_why": "scheme b counts on struct pages"}})
    table = scheme_table(made, "", [columns.TIME])
    assert as_text(table)[-1] == "b       refused: counts on struct pages"
    assert as_markdown(table)[-1] == "| b | refused: counts on struct pages |"
    assert '<td class="text">b</td><td colspan="1">refused: counts on struct pages</td>' in as_html(table)


def test_a_trace_that_tests_nothing_says_so_and_calls_nobody_right():
    text = compare_text(compare(Trace.parse("hgmcore-trace 1\nfile F 2M 1\npopulate F 0 1\n"), repeat=0), full=True)
    assert "Nothing was tested" in text
    assert "No error" not in text and " ok " not in text and "Nothing goes wrong" not in text


def test_heading_in_full_is_short_and_has_what_a_mail_needs(result):
    made = copy.deepcopy(result)
    made["trace"]["provenance"] = {
        "recorder": "tool 1.2 " * 30,
        "guest": "G" * 200,
        "source": "f.log",
        "licence": "of no use here",
    }
    made["trace"]["files"] *= 40
    made["trace"]["by_operation"] = {f"operation{i}": 1 for i in range(30)}
    heading = compare_text(made, full=True).split("\n\n")[0].split("\n")
    assert len(heading) == 5 and max(map(len, heading)) <= 80
    assert heading[1].startswith("  10 operations: 1 operation0, ") and heading[1].endswith(", ...")
    assert heading[3].startswith("  recorder: tool 1.2 tool") and "; guest: GG" in heading[3]
    assert heading[4] == "  source: f.log"
    assert len(compare_text(made).split("\n\n")[0].split("\n")) == 2


def test_markdown_has_exact_numbers(worst):
    text = compare_markdown(worst, full=True)
    assert "| total_mapped_pages | 999,999,999,999 | 999,999,999,999 |" in text
    assert text.count("| scheme |") == 1 + len(full_tables(worst))


@given(st.integers(0, 10**18 - 1), st.integers(5, 30))
def test_count_fits_and_is_right(value, room):
    text = count(value, room)
    assert len(text) <= room
    assert is_of(text, value)


@given(st.floats(0.01, 1e6))
def test_nanoseconds_have_three_digits(value):
    text = nanoseconds(value)
    assert abs(float(text.replace(",", "")) - value) <= 0.006 * max(value, 1)


def test_kilobytes():
    assert [kilobytes(n) for n in (0, 1, 1023, 1024, 4096.0)] == ["0", "<1", "<1", "1", "4"]
    assert kilobytes(1 << 40) == "1,073,741,824"


def test_group_stands_over_its_columns():
    columns = [Column("name", "text"), Column("a", group="wide group"), Column("b", group="wide group")]
    table = Table("", columns, [["x", 1, 2]])
    assert as_text(table) == ["      wide group", "name  a        b", "----------------", "x     1        2"]


def test_names_are_cut_only_where_they_must_be():
    table = Table("", [Column("name", "text"), Column("n")], [["x" * 100, 1]])
    line = as_text(table)[-1]
    assert len(line) == 80 and line.split()[0].endswith("..")
    table.rows = [["x" * 70, 1]]
    assert as_text(table)[-1].split()[0] == "x" * 70


def test_prose():
    assert wrapped("a,b " * 40)[0] == ("a,b " * 20).strip()
    assert ascii_only("naïve\n") == "na\\xefve\\n"
    assert paragraphs("One: and\nonly.\n\n    kept  as is\n\nCosts: two\natomics.\nRight: all.") == [
        "One: and only.",
        "",
        "    kept  as is",
        "",
        "  Costs  two atomics.",
        "  Right  all.",
    ]


@pytest.mark.parametrize("name", schemes.NAMES)
def test_schemes_explain_themselves(name):
    text = scheme_text(schemes.load(name))
    assert text.startswith(name) and max(map(len, text.splitlines())) <= 80


def test_scheme_texts_tell_options_and_hvo():
    text = scheme_text(schemes.load("mm_id"))
    assert re.search("^  own defaults +era=6.15$", text, re.MULTILINE)
    assert re.search("^  model=posted +cache_refs=folio, batch=6.12$", text, re.MULTILINE)
    assert re.search("^  lives with HVO +no", text, re.MULTILINE)
    text = scheme_text(schemes.load("head_per_leaf"))
    assert re.search("^  model=posted +none", text, re.MULTILINE)
    assert re.search("^  lives with HVO +yes", text, re.MULTILINE)


def test_schemes_are_listed_one_a_line():
    lines = schemes_text([schemes.load(name) for name in schemes.NAMES]).splitlines()
    assert [line.split()[0] for line in lines[: len(schemes.NAMES) + 1] if line] == list(schemes.NAMES)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", schemes.NAMES)
def test_replay_and_info_texts(name):
    trace = Trace.parse(TRACE.replace("file F", "file " + "F" * 70).replace(" F ", " " + "F" * 70 + " "))
    made = replay(trace, name, operations="all")
    text = replay_text(made, trace)
    assert max(map(len, (text + info_text(trace)).splitlines())) <= 80
    for label, key in (("references", "ref"), ("map counts", "map")):
        assert re.search(rf"^  atomics: {label}: +{made['cost']['atomics'][key]}$", text, re.MULTILINE)
    assert text.count("OBSERVATION") == 1
    answer = "EINVAL" if name == "hugetlb" else "EEXIST"
    assert re.search(f"^ +6 +8  continue +0 +{answer}$", text, re.MULTILINE)


@pytest.mark.parametrize("operations", ["failed", "all"])
def test_replay_tells_answers_and_counters(operations):
    trace = Trace.parse(
        TRACE + "continue A v 2044K 8K\ncontinue A v 2036K 16K\ncontinue A v 2M 4K\n"
        "mmap C c F 0 2M shared minor\nfork A D\nmigrate A v 0 2M\ntouch C c 0\n"
    )
    made = replay(trace, "subtree", operations=operations)
    made["counters"] = {"underflows": 7, "overflows": 8}
    text = replay_text(made, trace)
    rows = [tuple(line.split("  ")) for line in text[text.index("ANSWERS") :].split("\n\n")[0].split("\n")[3:]]
    rows = {tuple(cell.strip() for cell in row if cell.strip()) for row in rows}
    assert rows == {
        ("continue", "EEXIST", "nothing", "2"),
        ("continue", "EAGAIN", "in part", "1"),
        ("migrate", "less than asked", "nothing", "1"),
        ("touch", "minor event", "nothing", "1"),
    }
    assert "ANSWERS: 3 of 17 operations refused" in text
    assert re.search("counter underflows: +7$", text, re.MULTILINE)
    assert re.search("counter overflows: +8$", text, re.MULTILINE)


def test_in_full_events_are_told_by_how_often_they_happened():
    made = made_result({"a": entry(), "b": entry(consequences={"migrations_refused": (5, False),
                                                               "bytes_not_moved": (3, False)})})
    made["schemes"]["b"]["errors"]["consequences"]["migrations_refused"]["worst"] = 1
    made["schemes"]["b"]["errors"]["consequences"]["bytes_not_moved"]["worst"] = 8192
    said = " ".join(compare_text({**made, "verdict": verdict(made)}, full=True).split())
    assert "migrations_refused: migration is refused 5 times: b" in said
    assert "3 times, worst 8K, last 0: b" in said


def test_eras_that_differ_are_named_on_the_screen_and_other_options_in_full():
    made = compare(Trace.parse(TRACE), schemes="head_per_leaf,nr_pages_mapped,mm_id,subtree", repeat=0)
    said, full = (" ".join(compare_text(made, full=full).split()) for full in (False, True))
    assert "era: 6.2, whose rules smaps and migration follow; 6.3 of nr_pages_mapped; 6.15 of mm_id." in said
    assert "zap_frees_tables" not in said
    assert ("Option zap_frees_tables differs, as each scheme's kernel has it: no of head_per_leaf, nr_pages_mapped "
            "and mm_id; yes of subtree.") in full
    assert "era: 6.2, whose rules" in compare_markdown(made) and "era:" not in compare_text(
        compare(Trace.parse(TRACE), schemes="head_per_leaf,mm_id", repeat=0, era="6.15", lookup_first="no"))


def test_columns_of_hugetlb_alone_stand_for_hugetlb_alone():
    """Other memory has neither HVO nor, here, a migration: its migrate is EINVAL."""
    made = compare(Trace.parse("hgmcore-trace 1\nfile F 2M 1 shmem\nmmap A v F 0 2M shared\ntouch A v 0\n"
                               "migrate A v 0 2M\n"), schemes="mm_id,subtree", repeat=0)
    titles = [column.title for column in screen_table(made).columns]
    assert "HVO" not in titles and "moved" not in titles
    assert all(one["errors"]["consequences"] == {} for one in made["schemes"].values())
    assert {"HVO", "moved"} <= {column.title for column in screen_table(made_result(
        {"a": entry()}, by_operation={"migrate": 1})).columns}

"""Reports: 80 columns of ASCII in which every number is the result's, exact or scaled; figure and page."""

import copy
import html.parser
import json
import re
import xml.etree.ElementTree as xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import Trace, compare, replay, schemes
from hgmcore.report.compare import compare_markdown, compare_text, cost_table, error_table
from hgmcore.report.info import info_text
from hgmcore.report.prose import ascii_only, paragraphs, wrapped
from hgmcore.report.replay import replay_text
from hgmcore.report.schemes import scheme_text, schemes_text
from hgmcore.report.table import Column, Table, as_text, count, kilobytes, nanoseconds

TRACE = """\
hgmcore-trace 1
file F 2M 2
populate F 0 2
mmap A v F 0 4M shared minor
mmap B w F 0 2M shared minor
split A v 0 4M
continue A v 0 4K
continue A v 0 4K
continue A v 28K 4K
observe
continue B w 0 2M
"""
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}


@pytest.fixture(scope="module")
def result():
    return compare(Trace.parse(TRACE, name="two processes"), repeat=3)


@pytest.fixture(scope="module")
def worst(result):
    """The longest scheme names and numbers of every length, in every column."""
    names = ("total_mapped_pages", "no_page_mapcount", "per_page_posted", "large_mapcount", "subtree_posted")
    made = copy.deepcopy(result)
    made["schemes"] = {}
    for i, name in enumerate(names):
        scheme = copy.deepcopy(result["schemes"]["nr_pages_mapped"])
        cost, error = scheme["cost"], scheme["error"]
        for j, key in enumerate(error):
            error[key] = 987_654_321_987_654 // 10 ** ((3 * i + j) % 14)
        for j, key in enumerate(("lines", "entries_scanned", "table_bytes_peak", "struct_page_bytes")):
            cost[key] = 123_456_789_123_456 // 10 ** (2 * i + j)
        cost["atomics"] = {key: 10 ** (14 - 2 * i) - 1 for key in ("persistent", "transient", "ref", "map")}
        cost["ns_per_operation"], cost["ns_per_operation_stddev"] = 99_999.9 / 10**i, 10_000.0
        made["schemes"][name] = scheme
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


def rows_of(text, title):
    """The cells of the table that follows a title, row by row, first column as the key."""
    body = text[text.index(title):].split("\n")
    rule = next(i for i, line in enumerate(body) if line.startswith("---"))
    rows = {}
    for line in body[rule + 1:]:
        if not line:
            break
        name, *cells = line.split()
        rows[name.rstrip("*")] = cells
    return rows


def expected_cost(scheme):
    cost = scheme["cost"]
    ns = cost["ns_per_operation"]
    return [cost["atomics"]["ref"], cost["atomics"]["map"], cost["atomics"]["transient"], cost["lines"],
            cost["entries_scanned"], (cost["table_bytes_peak"] + cost["struct_page_bytes"]) / 1024, ns,
            100 * cost["ns_per_operation_stddev"] / ns]


def expected_errors(scheme):
    e = scheme["error"]
    return [e["false_shared"], e["false_exclusive"], e["page_mapcount_wrong_pages"],
            e["page_mapcount_max_error"], e["pss_error_bytes"] / 1024, e["smaps_shared_error_bytes"] / 1024,
            e["refs_not_explained"], e["leaked_folios"], e["counter_underflows"]]


@pytest.mark.parametrize("which", ["result", "worst"])
def test_every_number_is_the_results(which, request):
    made = request.getfixturevalue(which)
    text = compare_text(made)
    for title, expected in (("COST", expected_cost), ("ERRORS", expected_errors)):
        rows = rows_of(text, title)
        assert list(rows) == list(made["schemes"])
        for name, scheme in made["schemes"].items():
            wanted = expected(scheme)
            assert len(rows[name]) >= len(wanted)
            for cell, value in zip(rows[name], wanted):
                assert is_of(cell, value), (name, cell, value)


def test_change_is_against_the_first_that_did_all_the_work(result):
    rows = rows_of(compare_text(result), "COST")
    assert rows["head_per_leaf"][-1] == "base"
    assert len(rows["hugetlb"]) == len(rows["head_per_leaf"]) - 1, "hugetlb did less: no change is given"
    base = result["schemes"]["head_per_leaf"]["cost"]["ns_per_operation"]
    for name in ("nr_pages_mapped", "subtree", "logical_scan", "logical_counter"):
        change = 100 * (result["schemes"][name]["cost"]["ns_per_operation"] / base - 1)
        assert is_of(rows[name][-1], change)


@pytest.mark.parametrize("which", ["result", "worst"])
def test_eighty_columns_of_ascii(which, request):
    text = compare_text(request.getfixturevalue(which))
    assert max(map(len, text.splitlines())) <= 80
    assert all(" " <= c <= "~" or c == "\n" for c in text)
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_names_of_a_trace_cannot_break_the_report(result):
    made = copy.deepcopy(result)
    made["trace"]["name"] = "x" * 200 + "\x1b[31m\n\u2028é"
    made["trace"]["provenance"] = {"who": "é" * 90, "options": ",".join(f"key{i}=value" for i in range(20))}
    text = compare_text(made)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii() and "\x1b" not in text


def test_who_did_less_work_is_marked_and_said(result):
    text = compare_text(result)
    assert "hugetlb*" in text
    assert ("* hugetlb refused 4 of 10 operations (EINVAL); less work, so the numbers do not compare. "
            "Classic hugetlb") in " ".join(text.split())
    assert "Every other scheme refused 1 of 10 operations (EEXIST)." in text


def test_without_times_the_report_repeats_exactly():
    first, second = (compare_text(compare(Trace.parse(TRACE), repeat=0)) for _ in range(2))
    assert first == second
    assert "ns/op" not in first


def test_units_are_explained_where_they_stand(result, worst):
    assert "thousands" in compare_text(worst) and "thousands" not in compare_text(result)


def test_rare_errors_are_told(result):
    made = copy.deepcopy(result)
    made["schemes"]["subtree"]["error"].update(mapped_but_reported_unmapped=3, freed_while_mapped=1)
    text = " ".join(compare_text(made).split())
    assert "folios in use reported as unmapped: per_page_posted (1), subtree (3)" in text
    assert "folios freed while mapped: subtree (1)" in text


def test_those_who_refuse_most_do_not_make_the_others_unusual(result):
    """One scheme that refuses less than all others is told so; the others keep their base."""
    made = copy.deepcopy(result)
    made["schemes"]["subtree"].update(refusals={})
    made["schemes"]["subtree"]["error"]["refused_operations"] = 0
    text = compare_text(made)
    assert "subtree refused 0 of 10 operations. RFC v1" in " ".join(text.split())
    assert "The others refused 1 of 10 operations (EEXIST)." in text
    assert rows_of(text, "COST")["head_per_leaf"][-1] == "base"


def test_schemes_with_the_same_refusals_share_a_note(result):
    made = copy.deepcopy(result)
    for name in ("subtree", "mm_id"):
        made["schemes"][name]["refusals"] = {"EEXIST": 2, "EAGAIN": 1}
        made["schemes"][name]["error"]["refused_operations"] = 3
    text = " ".join(compare_text(made).split())
    assert "* subtree and mm_id refused 3 of 10 operations (EEXIST 2, EAGAIN 1); less work" in text
    assert "subtree*" in text and "mm_id*" in text


@pytest.fixture(scope="module")
def with_hvo():
    return compare(Trace.parse(TRACE), repeat=2, hvo="on")


def test_refused_schemes_have_a_row_that_says_why(with_hvo):
    text = compare_text(with_hvo)
    assert max(map(len, text.splitlines())) <= 80
    for title in ("COST", "ERRORS"):
        rows = rows_of(text, title)
        assert list(rows) == list(with_hvo["schemes"])
        for name, scheme in with_hvo["schemes"].items():
            told = " ".join(rows[name]) == "refused: counts on struct pages that hvo=on takes away"
            assert told == ("refused" in scheme)
    table = [line for line in compare_markdown(with_hvo).splitlines() if line.startswith("| mm_id |")]
    assert len(table) == 2 and all("refused: counts" in line for line in table)
    for line, whole in zip(table, (cost_table(with_hvo), error_table(with_hvo))):
        assert line.count("|") == len(whole.columns) + 1


def test_refused_schemes_in_figure_and_page(with_hvo):
    from hgmcore.report.html import compare_html

    page = compare_html(with_hvo)
    assert page.count('<td class="text">mm_id</td><td colspan=') == 2
    svg = page[page.index("<svg"):page.index("</svg>") + 6]
    texts = [element.text for element in xml.fromstring(svg).iter() if element.tag.endswith("text")]
    assert "subtree" in texts and "mm_id" not in texts


def test_struct_pages_of_a_machine_in_a_sentence(result):
    def sentence(made):
        text = " ".join(compare_text(made).split())
        start = text.find("struct pages of a")
        return text[start:].partition(" ERRORS")[0] if start >= 0 else ""

    needing = "per_page_posted, nr_pages_mapped, double_map, large_mapcount and mm_id"
    assert sentence(result) == ("struct pages of a 1T machine (modelled): 2G in 2M pages with HVO; 16G "
                                f"without, as {needing} need it: they count on every struct page")
    trace = Trace.parse("hgmcore-trace 1\nfile F 1G 1\nfile G 2M 1\n")
    assert sentence(compare(trace, schemes="subtree", repeat=0, machine="2T")) == (
        "struct pages of a 2T machine (modelled): 4G in 2M pages, 8M in 1G pages with HVO")
    assert "(modelled): 16G without, as mm_id" in sentence(compare(trace, schemes="mm_id", repeat=0))
    assert sentence(compare(Trace.parse("hgmcore-trace 1\n"), repeat=0)) == ""


def test_heading_is_short_and_has_what_a_mail_needs(result):
    made = copy.deepcopy(result)
    made["trace"]["provenance"] = {"recorder": "tool 1.2 " * 30, "guest": "G" * 200, "source": "f.log",
                                   "licence": "of no use here"}
    made["trace"]["files"] *= 40
    made["trace"]["by_operation"] = {f"operation{i}": 1 for i in range(30)}
    heading = compare_text(made).split("\n\n")[0].split("\n")
    assert len(heading) == 5 and max(map(len, heading)) <= 80
    assert heading[1].startswith("  10 operations: 1 operation0, ") and heading[1].endswith(", ...")
    assert heading[3].startswith("  recorder: tool 1.2 tool") and "; guest: GG" in heading[3]
    assert heading[4] == "  source: f.log"


def test_markdown_has_exact_numbers(worst):
    lines = [line for line in compare_markdown(worst).splitlines() if line.startswith("| total_mapped_pages")]
    cost, errors = ([cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines)
    scheme = worst["schemes"]["total_mapped_pages"]
    for cell, value in [*zip(cost, expected_cost(scheme)), *zip(errors, expected_errors(scheme))]:
        assert not re.search("[kMGTPE]", cell)
        assert is_of(cell, value)


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
        "One: and only.", "", "    kept  as is", "", "  Costs  two atomics.", "  Right  all."]


@pytest.mark.parametrize("name", schemes.NAMES)
def test_schemes_explain_themselves(name):
    text = scheme_text(schemes.load(name))
    assert text.startswith(name) and max(map(len, text.splitlines())) <= 80


def test_scheme_texts_tell_options_and_hvo():
    text = scheme_text(schemes.load("mm_id"))
    assert re.search("^  own defaults +era=6.15$", text, re.MULTILINE)
    assert re.search("^  model=posted +cache_refs=folio, batch=yes$", text, re.MULTILINE)
    assert re.search("^  lives with HVO +no", text, re.MULTILINE)
    text = scheme_text(schemes.load("head_per_leaf"))
    assert re.search("^  model=posted +none", text, re.MULTILINE)
    assert re.search("^  lives with HVO +yes", text, re.MULTILINE)


def test_schemes_are_listed_one_a_line():
    lines = schemes_text([schemes.load(name) for name in schemes.NAMES]).splitlines()
    assert [line.split()[0] for line in lines[:len(schemes.NAMES) + 1] if line] == list(schemes.NAMES)
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
    trace = Trace.parse(TRACE + "continue A v 2044K 8K\ncontinue A v 2036K 16K\ncontinue A v 2M 4K\n"
                        "mmap C c F 0 2M shared minor\nfork A D\nmigrate A v 0 2M\ntouch C c 0\n")
    made = replay(trace, "subtree", operations=operations)
    made["counters"] = {"underflows": 7, "overflows": 8}
    text = replay_text(made, trace)
    rows = [tuple(line.split("  ")) for line in text[text.index("ANSWERS"):].split("\n\n")[0].split("\n")[3:]]
    rows = {tuple(cell.strip() for cell in row if cell.strip()) for row in rows}
    assert rows == {("continue", "EEXIST", "nothing", "2"), ("continue", "EAGAIN", "in part", "1"),
                    ("migrate", "less than asked", "nothing", "1"), ("touch", "minor event", "nothing", "1")}
    assert "ANSWERS: 3 of 17 operations refused" in text
    assert re.search("counter underflows: +7$", text, re.MULTILINE)
    assert re.search("counter overflows: +8$", text, re.MULTILINE)


def test_figure_as_png_and_svg(result):
    from hgmcore.report.plot import image

    assert image(result, "png").startswith(b"\x89PNG")
    svg = image(result, "svg")
    assert svg == image(result, "svg"), "the same result gives the same file"
    texts = [element.text for element in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    for name in result["schemes"]:
        assert name in texts or f"{name}*" in texts
    assert "ns for each operation (measured)" in texts and "atomic operations (counted)" in texts


def test_figure_without_times_and_with_one_scheme():
    from hgmcore.report.plot import image

    assert image(compare(Trace.parse(TRACE), schemes="subtree", repeat=0), "png").startswith(b"\x89PNG")


def test_page_is_whole_and_needs_nothing_else(result):
    from hgmcore.report.html import compare_html

    made = copy.deepcopy(result)
    made["trace"]["provenance"] = {"who": "<script>alert(1)</script>"}
    page = compare_html(made)
    data = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "link", "img", "iframe")
            for key, value in attributes:
                assert not (key in ("src", "href", "xlink:href") and not value.startswith("#"))

        def handle_data(self, text):
            data.append(text)

    Reader().feed(page)
    assert "<svg" in page and page.count("<table>") == 2
    exact = next(text for text in data if text.startswith('{\n "format"'))
    assert json.loads(exact) == json.loads(json.dumps(made))


def test_tables_have_a_value_for_each_column(result):
    for table in (cost_table(result), error_table(result)):
        assert {len(row) for row in table.rows} == {len(table.columns)}

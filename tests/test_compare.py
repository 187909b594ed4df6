"""compare: the whole result, by hand on the compiled core, and what cannot be compared."""

import json

import numpy as np
import pytest

from hgmcore import Trace, compare, replay, schemes
from hgmcore.analysis.compare import engines_of
from hgmcore.analysis.struct_pages import struct_pages
from hgmcore.trace.describe import describe

TWO_PROCESSES = """\
hgmcore-trace 1
file F 2M 1
populate F 0 1
mmap A v F 0 2M shared minor
mmap B w F 0 2M shared minor
split A v 0 2M
continue A v 0 4K
continue A v 28K 4K
continue A v 2044K 4K
observe
continue B w 0 2M
"""


def test_by_hand_on_the_compiled_core():
    """A maps pages 0, 7 and 511 of a 2M page; then B maps it whole. Observed behind every operation."""
    result = compare(Trace.parse(TWO_PROCESSES), repeat=0, every=1)
    assert result["format"] == "hgmcore-compare 2" and tuple(result["schemes"]) == schemes.NAMES
    assert result["observations"] == 10 and result["baseline"] == "head_per_leaf"
    errors = {name: scheme["errors"] for name, scheme in result["schemes"].items()}

    # one count for each leaf: 1 to 4, on every base page; true at last: 1 or 2 (of 3). Pss: see the three terms
    head = errors["head_per_leaf"]
    assert head["own"] == {}
    assert head["per_page"]["page_mapcount_wrong_pages"] == {"observations": 5, "worst": 512, "last": 512}
    assert head["per_page"]["page_mapcount_max_error"] == {"observations": 5, "worst": 3, "last": 3}
    # two leaves, three and (with `observe`) three again; then B is there and the page is shared
    assert head["per_page"]["false_shared"] == {"observations": 3, "worst": 1, "last": 0}
    # at last: Pss of A 3/4 for 3/2 pages, of B 512/4 for 509 + 3/2; Shared of A right, of B 512 pages for 3
    assert head["consequences"]["pss_error_bytes"]["last"] == pytest.approx(4096 * ((1.5 - 0.75) + (510.5 - 128)))
    assert head["consequences"]["smaps_shared_error_bytes"]["last"] == 4096 * 509

    # one count for each base page: right but for the sharing rule of hugetlb, more than one mapping
    pages = errors["nr_pages_mapped"]
    # (smaps asks the first page alone, so all of B's 512 pages are shared, as 3 are)
    assert pages["own"] == {} and list(pages["consequences"]) == ["smaps_shared_error_bytes"]
    assert "page_mapcount_wrong_pages" not in pages["per_page"] and "false_shared" in pages["per_page"]

    # one count for each subtree, 1 then 2: 511, then 509 pages too many; references one for each leaf
    subtree = errors["subtree"]
    assert subtree["per_page"]["page_mapcount_wrong_pages"] == {"observations": 5, "worst": 511, "last": 509}
    assert subtree["own"]["refs_not_explained"] == {"observations": 4, "worst": 2, "last": 2, "known": True}
    for name in ("logical_scan", "logical_counter"):
        assert errors[name]["own"] == {}
        assert errors[name]["per_page"]["page_mapcount_wrong_pages"]["last"] == 509

    # split and three pieces refused; then B alone: other work
    assert result["schemes"]["hugetlb"]["refused"] == {"EINVAL": 4}
    assert list(name for name, scheme in result["schemes"].items() if "less_work" in scheme) == ["hugetlb"]
    assert "hugetlb" not in result["verdict"]["front"]

    # one owner, though three leaves map the page: right by the scheme's own rule, wrong by hugetlb's
    assert errors["mm_id"]["own"] == {} and errors["mm_id"]["per_page"]["false_shared_hugetlb"]["observations"] == 3


def test_costs_are_those_of_a_replay():
    trace = Trace.parse(TWO_PROCESSES)
    scheme = compare(trace, schemes="nr_pages_mapped", repeat=2)["schemes"]["nr_pages_mapped"]
    alone = replay(trace, "nr_pages_mapped")["cost"]
    for key in alone.keys() - {"ns_per_operation", "struct_page_bytes"}:
        assert scheme["cost"][key] == alone[key], key
    assert len(scheme["measured"]["ns_per_operation"]["runs"]) == 2
    assert scheme["memory"]["host_committed"] == alone["struct_page_bytes"]


def test_the_trace_is_not_changed_and_keeps_its_columns():
    trace = Trace.parse(TWO_PROCESSES.replace("\ncontinue A v 28K", "\n@3:100 continue A v 28K"))
    before = trace.to_text()
    compare(trace, schemes="subtree", repeat=1)
    assert trace.to_text() == before


def test_progress_counts_every_pass():
    seen = []
    compare(Trace.parse(TWO_PROCESSES), schemes="subtree,hugetlb", repeat=3,
            progress=lambda done, total, what: seen.append((done, total)))
    assert seen == [(n, 10) for n in range(11)]


def test_without_times_a_result_repeats_exactly_and_is_plain_json():
    first, second = (compare(Trace.parse(TWO_PROCESSES), repeat=0) for _ in range(2))
    assert json.loads(json.dumps(first, allow_nan=False)) == json.loads(json.dumps(second))
    assert first["machine"] is None and not any("measured" in scheme for scheme in first["schemes"].values())


def test_options_hold_for_every_scheme():
    result = compare(Trace.parse(TWO_PROCESSES), schemes=["hugetlb", "subtree"], repeat=0, cache_refs="folio")
    assert result["options"] == {"cache_refs": "folio"}
    assert all(scheme["options"]["cache_refs"] == "folio" for scheme in result["schemes"].values())


def test_options_that_differ_are_told():
    """A kernel's own era is the default of its scheme: who compares two of them must be told."""
    trace = Trace.parse(TWO_PROCESSES)
    differ = compare(trace, schemes="head_per_leaf,nr_pages_mapped,mm_id", repeat=0)["differing_options"]
    assert differ["era"] == {"6.2": ["head_per_leaf"], "6.3": ["nr_pages_mapped"], "6.15": ["mm_id"]}
    assert "batch" not in differ
    same = compare(trace, schemes="head_per_leaf,mm_id", repeat=0, era="6.15", lookup_first="no")
    assert same["differing_options"] == {}


def test_a_workloads_question_is_in_the_result():
    result = compare("workload:scan", schemes="logical_counter", repeat=0)
    assert result["trace"]["question"].endswith("?")
    assert compare(Trace.parse(TWO_PROCESSES), schemes="subtree", repeat=0)["trace"]["question"] is None


def two_threads(first, second, pages=4):
    """Each of two threads maps the pieces of the huge pages of a mapping, in turns."""
    lines = ["hgmcore-trace 1", f"file F 2M {pages}", f"file G 2M {pages}", f"populate F 0 {pages}",
             f"populate G 0 {pages}", f"mmap A v F 0 {2 * pages}M shared minor hgm",
             f"mmap B w G 0 {2 * pages}M shared minor hgm"]
    for at in range(512 * pages):
        lines += [f"@1 continue {first} {4 * at}K 4K", f"@2 continue {second} {4 * at}K 4K"]
    return Trace.parse("\n".join(lines) + "\n")


NEVER_MET = "no two threads of this trace ever had work at the same time"


@pytest.mark.parametrize("repeat", [1, 6])
def test_threads_that_met(repeat):
    """A file for each thread: nothing keeps them apart, and all of their work is done at the same time."""
    result = compare(two_threads("A v", "B w"), schemes="head_per_leaf,mm_id", repeat=repeat, threads=2)
    for scheme in result["schemes"].values():
        assert scheme["measured"]["threads_met"] == 2 * 4 * 512
        assert scheme["refused"] == {} and scheme["cost"]["leaf_installs"] == 2 * 4 * 512
        assert scheme["measured"]["ns_per_operation"]["low"] > 0
    assert not any(NEVER_MET in line for line in result["verdict"]["warnings"]) and result["threads"] == 2


@pytest.mark.parametrize("trace", [
    Trace.parse(TWO_PROCESSES), Trace.parse(TWO_PROCESSES.replace("continue B", "@1 continue B")),
    two_threads("A v", "A v"), two_threads("A v", "B w", pages=1)],
    ids=["one thread", "a single operation", "the same pieces", "too few to start threads for"])
def test_threads_that_never_met_are_told_of(trace):
    result = compare(trace, schemes="subtree", repeat=1, threads=2)
    assert result["schemes"]["subtree"]["measured"]["threads_met"] == 0
    assert any(NEVER_MET in line for line in result["verdict"]["warnings"])
    alone = compare(trace, schemes="subtree", repeat=1)
    assert not any(NEVER_MET in line for line in alone["verdict"]["warnings"])


@pytest.mark.parametrize("arguments, reason", [
    ({"schemes": "head_per_lef"}, "did you mean 'head_per_leaf'"),
    ({"schemes": []}, "no scheme"),
    ({"schemes": ","}, "no scheme"),
    ({"repeat": -1}, "repeat"),
    ({"era": "5"}, "option 'era'"),
    ({"colour": "red"}, "colour"),
    ({"hvo": "maybe"}, "option 'hvo': 'maybe' is not one of"),
    ({"hvo": "on", "era": "5"}, "option 'era'"),
    ({"hvo": "on", "schemes": "nr_pages_mapped,mm_id"}, "counts on struct pages that hvo=on takes away"),
    ({"repeat": True}, "repeat"),
    ({"repeat": 1.5}, "repeat: 1.5 is not a whole number from 0 on"),
    ({"every": "2"}, "every: '2' is not a whole number from 1 on"),
    ({"every": 0}, "every"),
    ({"threads": 0}, "threads"),
    ({"baseline": "mm_ids"}, "baseline: mm_ids is not among"),
    ({"machine": "0"}, "machine"), ({"machine": "3"}, "machine: 3 bytes are no memory, which has 4096 at least"),
    ({"machine": "-1G"}, "machine: .* is negative"),
])
def test_what_cannot_be_compared(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        compare(Trace.parse(TWO_PROCESSES), **arguments)


@pytest.mark.parametrize("wanted, names", [
    (schemes.load("mm_id"), ["mm_id"]), (("subtree", schemes.load("mm_id"), "mm_id"), ["subtree", "mm_id"]),
    (["mm_id,subtree", "hugetlb"], ["mm_id", "subtree", "hugetlb"]), (["mm_id", "all"], None),
    (np.array(["mm_id", "subtree"]), ["mm_id", "subtree"]), ((name for name in ["per_vma"]), ["per_vma"])])
def test_schemes_are_names_engines_and_iterables_of_them(wanted, names):
    found = compare(Trace.parse(TWO_PROCESSES), schemes=wanted, repeat=0)["schemes"]
    assert list(found) == (names or ["mm_id", *(name for name in schemes.NAMES if name != "mm_id")])


@pytest.mark.parametrize("wanted", [3, None, [3], ["mm_id", None]])
def test_what_is_no_scheme_is_named(wanted):
    with pytest.raises(TypeError, match="schemes: (3|None) is neither a name nor an engine"):
        compare(Trace.parse(TWO_PROCESSES), schemes=wanted, repeat=0)


def test_the_baseline_may_be_an_engine_and_options_are_spelled_as_on_the_command_line():
    result = compare(Trace.parse(TWO_PROCESSES), schemes="mm_id,subtree", repeat=0,
                     baseline=schemes.load("subtree"), hvo=False, cache_refs=1)
    assert result["baseline"] == "subtree" and result["options"] == {"hvo": "off", "cache_refs": "1"}


COUNT_ON_TAILS = {"per_page_posted", "nr_pages_mapped", "double_map", "large_mapcount", "mm_id", "rmap_id"}


def test_schemes_that_hvo_rules_out_are_told_why():
    result = compare(Trace.parse(TWO_PROCESSES), repeat=1, hvo="on")
    refused = {name for name, scheme in result["schemes"].items() if "refused_why" in scheme}
    assert refused == COUNT_ON_TAILS == {name for name, scheme in result["schemes"].items() if not scheme["hvo"]}
    assert tuple(result["schemes"]) == schemes.NAMES
    for name, scheme in result["schemes"].items():
        if name in refused:
            assert scheme["refused_why"] == f"scheme {name} counts on struct pages that hvo=on takes away"
            assert "cost" not in scheme and "errors" not in scheme
        else:
            assert scheme["options"]["hvo"] == "on" and scheme["measured"]["ns_per_operation"]["median"] > 0


def counted_struct_pages(base, huge, machine, hvo):
    """Bytes of struct pages, counted page by page of the memory that holds them."""
    kept, pages = 0, machine // base
    for first in range(0, pages, huge // base):
        n = min(huge // base, pages - first)
        vmemmap_pages = -(-n * 64 // base)
        whole = n == huge // base
        kept += base if whole and hvo and vmemmap_pages > 1 else n * 64
    return kept


@pytest.mark.parametrize("geometry, size, huge", [
    ("x86-64", "2M", 2 << 20), ("x86-64", "1G", 1 << 30), ("arm64-4k", "64K", 64 << 10),
    ("arm64-4k", "32M", 32 << 20),
    ("arm64-16k", "2M", 2 << 20), ("arm64-64k", "2M", 2 << 20), ("arm64-64k", "512M", 512 << 20)])
@pytest.mark.parametrize("machine", [4 << 30, (4 << 30) + (1 << 20), 1 << 20])
def test_struct_pages_of_a_machine(geometry, size, huge, machine):
    base = {"arm64-16k": 16384, "arm64-64k": 65536}.get(geometry, 4096)
    header = Trace.parse(f"hgmcore-trace 1\ngeometry {geometry}\nfile F {size} 1\n").header
    for name, hvo in (("subtree", True), ("mm_id", False)):
        modelled = struct_pages(schemes.load(name), header, machine)
        counted = counted_struct_pages(base, huge, machine, hvo)
        assert modelled == {size: counted}


def test_struct_pages_that_hvo_saves():
    """vmemmap_dedup: 7 of 8 pages of struct pages of each 2M page, 4095 of 4096 of each 1G page."""
    result = compare(Trace.parse("hgmcore-trace 1\nfile G 1G 1\nfile F 2M 1\nfile E 2M 1\n"),
                     schemes="subtree,mm_id", repeat=0)
    assert result["machine_size"] == 1 << 40
    need = {name: scheme["struct_pages"] for name, scheme in result["schemes"].items()}
    assert need["mm_id"] == {"2M": 1 << 34, "1G": 1 << 34}
    assert need["subtree"] == {"2M": (1 << 34) - (28 << 10 << 19), "1G": (1 << 34) - (16380 << 10 << 10)}


def test_schemes_by_name_list_and_engine():
    engine = schemes.load("subtree")
    for given in ("subtree, hugetlb,subtree", ["subtree", "hugetlb"], [engine, "hugetlb"]):
        assert [one.name for one in engines_of(given)] == ["subtree", "hugetlb"]
    assert [one.name for one in engines_of("all")] == list(schemes.NAMES) and engines_of(engine) == [engine]


def test_describe():
    facts = describe(Trace.parse(TWO_PROCESSES, name="two.hgm"))
    assert facts == {
        "name": "two.hgm", "operations": 10, "geometry": "x86-64",
        "by_operation": {"continue": 4, "mmap": 2, "file": 1, "populate": 1, "split": 1, "observe": 1},
        "files": [{"name": "F", "page_size": 2 << 20, "pages": 1, "kind": "hugetlb"}],
        "processes": ["A", "B"], "mappings": 2, "threads": 1, "provenance": {}}

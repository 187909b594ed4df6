"""compare: every error measure against numbers worked out by hand, and against dense arrays."""

import importlib

import numpy as np
import pytest
from hgmcore.core.machine import RESULT
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import Trace, schemes
from hgmcore.analysis.compare import (
    compare,
    describe,
    measured,
    refusals,
    scheme_names,
    struct_pages,
)
from hgmcore.analysis.errors import Errors
from hgmcore.runs import difference, end_to_end

module = importlib.import_module("hgmcore.analysis.compare")


def runs(*rows):
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def folio(**changes):
    """A folio of 8 base pages that one process maps by one leaf, in the page cache, all reported right."""
    one = {"refcount": 2, "mapcount": 1, "mapped": True, "maybe_shared": False,
           "maybe_shared_hugetlb": False, "page_cache_refs": 1, "pins": 0, "page_mapcount": runs((0, 8, 1)),
           "truth": {"leaves": 1, "processes": 1, "page_mapcount": runs((0, 8, 1))}}
    truth = {**one["truth"], **changes.pop("truth", {})}
    return {**one, **changes, "truth": truth}


def mapping(pss=4096.0, shared=0, true_pss=4096.0, true_shared=0):
    return {"pss": pss, "shared_hugetlb": shared, "truth": {"pss": true_pss, "shared": true_shared}}


def observation(folios=(), mappings=(), freed=0):
    return {"index": 0, "folios": list(folios), "mappings": list(mappings), "freed_while_mapped": freed}


def errors_of(*observations, errnos=(), underflows=0, overflows=0):
    errors = Errors()
    for one in observations:
        errors(one)
    operations = np.zeros(len(errnos), RESULT)
    operations["errno"] = errnos
    counters = {"underflows": underflows, "overflows": overflows}
    return errors.result({"operations": operations, "counters": counters})


NAMES = ("false_shared", "false_exclusive", "false_shared_hugetlb", "false_exclusive_hugetlb",
         "mapped_but_reported_unmapped", "unmapped_but_reported_mapped", "page_mapcount_max_error",
         "page_mapcount_wrong_pages", "pss_error_bytes", "smaps_shared_error_bytes", "refs_not_explained",
         "leaked_folios", "freed_while_mapped",
         "counter_underflows", "counter_overflows", "refused_operations")

NOTHING = runs((0, 8, 0))
UNMAPPED = {"leaves": 0, "processes": 0, "page_mapcount": NOTHING}

CASES = {
    "right": (observation([folio()], [mapping()]), {}),
    "shared by one": (observation([folio(maybe_shared=True)]), {"false_shared": 1}),
    "shared by one by hugetlb's rule": (observation([folio(maybe_shared_hugetlb=True)]),
                                        {"false_shared_hugetlb": 1}),
    "shared by none": (observation([folio(maybe_shared=True, truth={"processes": 0})]), {"false_shared": 1}),
    "shared by two": (
        observation([folio(maybe_shared=True, maybe_shared_hugetlb=True, truth={"processes": 2})]), {}),
    "exclusive to two": (observation([folio(truth={"processes": 2})]),
                         {"false_exclusive": 1, "false_exclusive_hugetlb": 1}),
    "exclusive to two by hugetlb's rule": (observation([folio(maybe_shared=True, truth={"processes": 2})]),
                                           {"false_exclusive_hugetlb": 1}),
    "mapped, not reported": (observation([folio(mapped=False)]), {"mapped_but_reported_unmapped": 1}),
    "reported, not mapped": (observation([folio(page_mapcount=NOTHING, truth=UNMAPPED)]),
                             {"unmapped_but_reported_mapped": 1}),
    # pages 0 to 2 say 5, not 1; page 7 says 0, not 1
    "page counts": (observation([folio(page_mapcount=runs((0, 3, 5), (3, 7, 1), (7, 8, 0)))]),
                    {"page_mapcount_wrong_pages": 4, "page_mapcount_max_error": 4}),
    "Pss above and below": (observation([], [mapping(pss=5000.5), mapping(pss=4000)]),
                            {"pss_error_bytes": 1000.5}),
    "smaps Shared": (observation([], [mapping(shared=8192), mapping(true_shared=4096)]),
                     {"smaps_shared_error_bytes": 12288}),
    # 2 references, 1 of the page cache, 4 maps; 7 references, of which 1 + 2 + 1 are explained
    "references": (observation([folio(mapcount=4), folio(refcount=7, pins=2)]),
                   {"refs_not_explained": 3 + 3}),
    # no cache, no leaf, no pin: leaked, whatever the scheme's map count explains
    "leak": (observation([folio(page_cache_refs=0, mapcount=2, truth=UNMAPPED, page_mapcount=NOTHING)]),
             {"leaked_folios": 1, "unmapped_but_reported_mapped": 1}),
    "pinned, not leaked": (observation([folio(refcount=1, mapcount=0, page_cache_refs=0, pins=1, mapped=False,
                                              truth=UNMAPPED, page_mapcount=NOTHING)]), {}),
    "freed": (observation(freed=3), {"freed_while_mapped": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_observation(case):
    seen, wrong = CASES[case]
    assert errors_of(seen) == {**dict.fromkeys(NAMES, 0), **wrong}


def test_sums_but_for_the_largest_and_the_end():
    leak = CASES["leak"][0]
    small = observation([folio(maybe_shared=True, page_mapcount=runs((0, 8, 2)))])
    large = observation([folio(maybe_shared=True, page_mapcount=runs((0, 1, 9), (1, 8, 1)))])
    errors = errors_of(leak, large, small)
    assert errors["false_shared"] == 2
    assert errors["page_mapcount_wrong_pages"] == 8 + 1
    assert errors["page_mapcount_max_error"] == 8
    assert errors["leaked_folios"] == 0, "the leak has gone by the end"
    assert errors_of(small, leak)["leaked_folios"] == 1


def test_counters_and_refusals_come_from_the_replay():
    errors = errors_of(errnos=[17, 0, 22, 17], underflows=5, overflows=6)
    assert [errors[key] for key in NAMES[-3:]] == [5, 6, 3]


def test_refusals_by_errno():
    operations = np.zeros(5, RESULT)
    operations["errno"] = [22, 17, 0, 17, 9999]
    assert refusals(operations) == {"EEXIST": 2, "EINVAL": 1, "9999": 1}


def test_compare_names_errnos_as_replay_does():
    """EHWPOISON and EAGAIN: Python's table of errnos lacks the first and has another name for the second."""
    operations = np.zeros(3, RESULT)
    operations["errno"] = [133, 11, 133]
    assert refusals(operations) == {"EHWPOISON": 2, "EAGAIN": 1}


@st.composite
def random_runs(draw):
    edges = draw(st.lists(st.integers(0, 60), unique=True, max_size=16).map(sorted))
    spans = [span for span in zip(edges, edges[1:]) if draw(st.booleans())]
    return runs(*((first, last, draw(st.integers(-2, 3))) for first, last in spans))


def dense(some_runs):
    array = np.zeros(60, dtype=np.int64)
    for first, last, value in some_runs:
        array[first:last] = value
    return array


@given(random_runs(), random_runs())
def test_runs_difference_is_that_of_dense_arrays(one, other):
    apart = np.abs(dense(one) - dense(other))
    assert difference(one, other) == (np.count_nonzero(apart), apart.max())


@given(st.lists(st.tuples(random_runs(), random_runs()), max_size=5))
def test_folios_end_to_end_differ_as_each_alone(pairs):
    together = difference(end_to_end([one for one, _ in pairs]),
                          end_to_end([other for _, other in pairs]))
    alone = [difference(*pair) for pair in pairs]
    assert together == (sum(wrong for wrong, _ in alone), max((largest for _, largest in alone), default=0))


def test_runs_difference_of_a_terabyte_of_pages():
    assert difference(runs((0, 1 << 40, 1)), runs((0, 5, 1), (5, 1 << 40, 3))) == ((1 << 40) - 5, 2)


@given(st.lists(st.floats(0.1, 1000), min_size=2, max_size=9))
def test_median_and_standard_deviation(times):
    result = measured(times)
    assert result["ns_per_operation"] == pytest.approx(np.median(times))
    assert result["ns_per_operation_stddev"] == pytest.approx(np.std(times, ddof=1), abs=1e-9)
    assert result["ns_per_operation_runs"] == times


def test_nothing_measured_and_one_run():
    assert measured([])["ns_per_operation"] is None
    assert (measured([3.0])["ns_per_operation"], measured([3.0])["ns_per_operation_stddev"]) == (3.0, None)


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
    """A maps pages 0, 7 and 511 of a 2M page; observed. Then B maps it whole; observed at the end."""
    result = compare(Trace.parse(TWO_PROCESSES), repeat=0)
    assert result["format"] == "hgmcore-compare 1"
    assert tuple(result["schemes"]) == schemes.NAMES
    assert result["observations"] == 2
    error = {name: scheme["error"] for name, scheme in result["schemes"].items()}
    for measures in error.values():
        assert tuple(measures) == NAMES

    # one count for each leaf: 3, then 4, on every base page; true: 0 or 1 (of 3), then 1 or 2 (of 3)
    head = error["head_per_leaf"]
    assert head["page_mapcount_wrong_pages"] == 512 + 512
    assert head["page_mapcount_max_error"] == 3
    assert (head["false_shared"], head["false_exclusive"], head["refs_not_explained"]) == (1, 0, 0)
    # Pss of A: 3 pages / 3 for 3 pages, then 3/4 for 3/2. Of B: 512/4 for 509 + 3/2
    assert head["pss_error_bytes"] == pytest.approx(4096 * ((3 - 1) + (1.5 - 0.75) + (510.5 - 128)))
    # Shared of A: 3 pages for none, then 3 for 3. Of B: all 512 for 3
    assert head["smaps_shared_error_bytes"] == 4096 * (3 + 509)

    # one count for each base page: right but for the sharing rule of hugetlb, more than one mapping
    pages = error["nr_pages_mapped"]
    assert (pages["page_mapcount_wrong_pages"], pages["pss_error_bytes"], pages["false_shared"]) == (0, 0, 1)

    # one count for each subtree, 1 then 2: 509 pages too many each time; references one for each leaf
    assert error["subtree"]["page_mapcount_wrong_pages"] == 509 + 509
    assert error["subtree"]["refs_not_explained"] == (3 - 1) + (4 - 2)
    for name in ("logical_scan", "logical_counter"):
        assert error[name]["page_mapcount_wrong_pages"] == 509 + 509
        assert (error[name]["refs_not_explained"], error[name]["false_shared"]) == (0, 0)

    # split and three pieces refused; then B alone
    assert error["hugetlb"]["refused_operations"] == 4
    assert result["schemes"]["hugetlb"]["refusals"] == {"EINVAL": 4}

    # one owner, though three leaves map the page: right by the scheme's own rule, wrong by hugetlb's
    assert (error["mm_id"]["false_shared"], error["mm_id"]["false_shared_hugetlb"]) == (0, 1)
    assert error["nr_pages_mapped"]["false_shared_hugetlb"] == 1


def test_costs_are_those_of_a_replay():
    import hgmcore

    trace = Trace.parse(TWO_PROCESSES)
    result = compare(trace, schemes="nr_pages_mapped", repeat=2)
    cost = result["schemes"]["nr_pages_mapped"]["cost"]
    alone = hgmcore.replay(trace, "nr_pages_mapped")["cost"]
    for key in alone.keys() - {"ns_per_operation", "struct_page_bytes"}:
        assert cost[key] == alone[key], key
    assert cost["ns_per_operation"] == np.median(cost["ns_per_operation_runs"]) > 0
    assert len(cost["ns_per_operation_runs"]) == 2


def test_the_trace_is_not_changed_and_keeps_its_columns():
    trace = Trace.parse(TWO_PROCESSES.replace("\ncontinue A v 28K", "\n@3:100 continue A v 28K"))
    before = trace.to_text()
    assert compare(trace, schemes="subtree", repeat=1)["observations"] == 2
    assert trace.to_text() == before


def test_timed_rounds_are_interleaved(monkeypatch):
    order = []
    monkeypatch.setattr(module, "timed_replay", lambda trace, name, **options: order.append(name) or 1.0)
    seen = []
    compare(Trace.parse(TWO_PROCESSES), schemes="subtree,hugetlb", repeat=3,
            progress=lambda done, total, what: seen.append((done, total)))
    assert order == ["subtree", "hugetlb", "hugetlb", "subtree", "subtree", "hugetlb"]
    assert seen == [(n, 8) for n in range(9)]


def test_options_hold_for_every_scheme():
    result = compare(Trace.parse(TWO_PROCESSES), schemes=["hugetlb", "subtree"], repeat=0, cache_refs="folio")
    assert result["options"] == {"cache_refs": "folio"}
    assert all(scheme["options"]["cache_refs"] == "folio" for scheme in result["schemes"].values())
    assert result["schemes"]["subtree"]["error"]["refs_not_explained"] == 4


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
    ({"machine": "0"}, "machine"),
    ({"machine": "-1G"}, "machine: .* is negative"),
])
def test_what_cannot_be_compared(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        compare(Trace.parse(TWO_PROCESSES), **arguments)


COUNT_ON_TAILS = {"per_page_posted", "nr_pages_mapped", "double_map", "large_mapcount", "mm_id"}


def test_schemes_that_hvo_rules_out_are_told_why():
    result = compare(Trace.parse(TWO_PROCESSES), repeat=1, hvo="on")
    refused = {name for name, scheme in result["schemes"].items() if "refused" in scheme}
    assert refused == COUNT_ON_TAILS == {name for name, scheme in result["schemes"].items()
                                         if not scheme["struct_pages"]["hvo"]}
    assert tuple(result["schemes"]) == schemes.NAMES
    for name, scheme in result["schemes"].items():
        if name in refused:
            assert scheme["refused"] == f"scheme {name} counts on struct pages that hvo=on takes away"
            assert "cost" not in scheme and "error" not in scheme
        else:
            assert scheme["options"]["hvo"] == "on" and scheme["cost"]["ns_per_operation"] > 0


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
        assert modelled == {"hvo": hvo, "machine_bytes": {size: counted}}


def test_struct_pages_that_hvo_saves():
    """vmemmap_dedup: 7 of 8 pages of struct pages of each 2M page, 4095 of 4096 of each 1G page."""
    result = compare(Trace.parse("hgmcore-trace 1\nfile G 1G 1\nfile F 2M 1\nfile E 2M 1\n"),
                     schemes="subtree,mm_id", repeat=0)
    assert result["machine_size"] == 1 << 40
    need = {name: scheme["struct_pages"]["machine_bytes"] for name, scheme in result["schemes"].items()}
    assert need["mm_id"] == {"2M": 1 << 34, "1G": 1 << 34}
    assert need["subtree"] == {"2M": (1 << 34) - (28 << 10 << 19), "1G": (1 << 34) - (16380 << 10 << 10)}


def test_scheme_names():
    assert scheme_names("all") == list(schemes.NAMES)
    assert scheme_names("subtree, hugetlb,subtree") == ["subtree", "hugetlb"]


def test_describe():
    facts = describe(Trace.parse(TWO_PROCESSES, name="two.hgm"))
    assert facts == {
        "name": "two.hgm", "operations": 10, "geometry": "x86-64",
        "by_operation": {"continue": 4, "mmap": 2, "file": 1, "populate": 1, "split": 1, "observe": 1},
        "files": [{"name": "F", "page_size": 2 << 20, "pages": 1, "kind": "hugetlb"}],
        "processes": ["A", "B"], "mappings": 2, "threads": 1, "provenance": {}}

"""Errors: every measure against numbers worked out by hand and against dense arrays, and the three groups of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore.analysis.errors import CONSEQUENCES, EVENTS, OWN, PER_PAGE, Errors, of_observation
from hgmcore.folios import ragged
from hgmcore.runs import difference


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
             {"leaked_folios": 1, "unmapped_but_reported_mapped": 1, "pages_not_freed": 8}),
    "pinned, not leaked": (observation([folio(refcount=1, mapcount=0, page_cache_refs=0, pins=1, mapped=False,
                                              truth=UNMAPPED, page_mapcount=NOTHING)]), {}),
    "freed": (observation(freed=3), {"freed_while_mapped": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_observation(case):
    seen, wrong = CASES[case]
    assert {key: value for key, value in of_observation(seen).items() if value} == wrong


def test_every_key_is_in_one_group():
    keys = [*OWN, *PER_PAGE, *CONSEQUENCES]
    assert len(keys) == len(set(keys))
    assert set(of_observation(observation())) | set(EVENTS) == set(keys)


def errors_of(*observations, exceptions=()):
    errors = Errors(dict(exceptions))
    for index, one in enumerate(observations):
        errors({**one, "index": index})
    return errors


def test_how_often_how_bad_and_at_last():
    small = observation([folio(page_mapcount=runs((0, 8, 2)))])
    large = observation([folio(page_mapcount=runs((0, 1, 9), (1, 8, 1)))])
    right = CASES["right"][0]
    found = errors_of(large, small, right, large).result()["per_page"]
    assert found["page_mapcount_wrong_pages"] == {"observations": 3, "worst": 8, "last": 1}
    assert found["page_mapcount_max_error"] == {"observations": 3, "worst": 8, "last": 8}
    assert errors_of(large, right).result()["per_page"]["page_mapcount_max_error"]["last"] == 0


def test_more_observations_of_one_error_make_it_no_worse():
    wrong = CASES["page counts"][0]
    for number in (1, 100):
        found = errors_of(*[wrong] * number).result()["per_page"]["page_mapcount_wrong_pages"]
        assert found == {"observations": number, "worst": 4, "last": 4}


def test_promises_definitions_and_stated_faults_are_kept_apart():
    wrong = observation([folio(maybe_shared=True)], [mapping(pss=5000)])
    for exceptions, group, known in (({}, "own", False), ({"never_false_shared": "definition"}, "per_page", False),
                                     ({"never_false_shared": "fault"}, "own", True)):
        found = errors_of(wrong, exceptions=exceptions).result()
        assert [name for name in ("own", "per_page") if "false_shared" in found[name]] == [group]
        assert found[group]["false_shared"].get("known", False) == known
        assert list(found["consequences"]) == ["pss_error_bytes"], "what a kernel then does is excused by nothing"


def test_events_are_counted_and_not_observed():
    """Of three migrations two leave memory behind; counts go below zero four times, once of these at the end."""
    errors = errors_of(CASES["right"][0])
    errors.events("bytes_not_moved", [4096, 0, 2 << 20])
    errors.events("migrations_refused", [])
    errors.grew("counter_underflows", [0, 3, 3, 4])
    errors.grew("counter_overflows", [0, 0])
    assert errors.result() == {
        "own": {"counter_underflows": {"observations": 4, "worst": 3, "last": 1}}, "per_page": {},
        "consequences": {"bytes_not_moved": {"observations": 2, "worst": 2 << 20, "last": 2 << 20}}}


def test_what_went_wrong_stands_at_its_observation():
    errors = errors_of(CASES["right"][0], CASES["page counts"][0])
    assert errors.at == [(0, {}), (1, {"page_mapcount_wrong_pages": 4, "page_mapcount_max_error": 4})]


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
    together = difference(ragged([one for one, _ in pairs]).end_to_end(),
                          ragged([other for _, other in pairs]).end_to_end())
    alone = [difference(*pair) for pair in pairs]
    assert together == (sum(wrong for wrong, _ in alone), max((largest for _, largest in alone), default=0))


def test_runs_difference_of_a_terabyte_of_pages():
    assert difference(runs((0, 1 << 40, 1)), runs((0, 5, 1), (5, 1 << 40, 3))) == ((1 << 40) - 5, 2)

"""The verdict: each rule on small made-up results, the front against brute force."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import entry, result

from hgmcore import Trace, compare
from hgmcore.analysis.verdict import APART, SLIGHT, verdict

RUNS = st.lists(st.floats(1, 100), min_size=6, max_size=6)


def wrong(**keys):
    """Errors that the scheme's file does not state."""
    return {key: (number, False) for key, number in keys.items()}


@st.composite
def entries(draw):
    return entry(
        atomics=draw(st.sampled_from([0, 1, 1.02, 3])),
        runs=draw(RUNS),
        scan=draw(st.sampled_from([0, 600])),
        hvo=draw(st.booleans()),
        maps_of={"2M": draw(st.sampled_from([8, 16]))},
        own=wrong(false_shared=draw(st.integers(1, 3))) if draw(st.booleans()) else None,
        consequences=wrong(pss_error_bytes=draw(st.integers(1, 3))) if draw(st.booleans()) else None,
    )


SCHEMES = st.lists(entries(), min_size=1, max_size=6).map(lambda made: dict(zip("abcdef", made)))


def counted(one):
    """The counted numbers that a scheme is judged by, worked out apart from the verdict, atomics first."""
    errors = [
        one["errors"][group].get(key, {"observations": 0})["observations"]
        for group, key in (("own", "false_shared"), ("consequences", "pss_error_bytes"))
    ]
    scanned = one["phases"]["install"]["scanned"]["max"]
    atomics = one["cost"]["atomics"]["persistent"] / one["leaves"]
    return [atomics, scanned, not one["hvo"], -one["maps_of"]["2M"], *errors]


def faster(one, other):
    """Is one scheme faster than another in each round, and in the median by the factor APART?"""
    ratios = sorted(a / b for a, b in zip(*(made["measured"]["ns_per_operation"]["runs"] for made in (one, other))))
    return max(ratios) < 1 and (ratios[2] + ratios[3]) / 2 <= 1 / APART


def beats(one, other):
    pairs = list(zip(counted(one), counted(other)))
    margins = [SLIGHT, *(0 for _ in pairs[1:])]
    better = [theirs - mine > margin for (mine, theirs), margin in zip(pairs, margins)] + [faster(one, other)]
    worse = [mine - theirs > margin for (mine, theirs), margin in zip(pairs, margins)] + [faster(other, one)]
    return any(better) and not any(worse)


@given(SCHEMES)
def test_the_front_are_those_that_nobody_beats(schemes):
    found = verdict(result(schemes))
    beaten = {name for name in schemes if any(beats(schemes[other], schemes[name]) for other in schemes)}
    assert set(found["front"]) == set(schemes) - beaten and set(found["beaten"]) == beaten
    for name, by in found["beaten"].items():
        assert beats(schemes[by["by"]], schemes[name]) and by["on"]
        winners = {other for other in schemes if beats(schemes[other], schemes[name])}
        assert by["by"] in found["front"] or not winners & set(found["front"]), "a winner that nobody beats, if any"
        assert f"{by['by']} beats " in found["answers"][0] and name in found["answers"][0]
        assert found["details"][name].startswith(f"beaten by {by['by']} on ")
    assert all(found["details"][name].startswith("beaten by none. ") for name in found["front"])


@given(SCHEMES)
def test_no_scheme_is_called_faster_or_slower_where_a_round_says_otherwise(schemes):
    for line in verdict(result(schemes))["answers"]:
        if not line.startswith("Time of"):
            continue
        for word in ("less", "more"):
            told = re.search(rf"; [\d to]+ % {word} under ([^;.]*)", line)
            base = schemes["a"]
            right = [name for name, one in schemes.items()
                     if (faster(one, base) if word == "less" else faster(base, one))]
            assert bool(told) == bool(right)
            if told:
                assert re.findall(r"\b([a-f])\b", told[1]) == right or told[1] == f"{len(right)} of {len(schemes)}"


def answers(*arguments, **changes):
    return " ".join(verdict(result(*arguments, **changes))["answers"])


def test_times_name_nobody_in_an_order_that_could_be_a_ranking():
    said = answers({"base": entry(), "z": entry(runs=(5,) * 6), "y": entry(runs=(4,) * 6), "x": entry(runs=(20,) * 6),
                    "w": entry(runs=(11,) * 6), "v": entry(runs=(9, 20, 9, 20, 9, 20))})
    assert ("Time of a leaf in install (measured): 20 ns [20, 20] under base; 50 to 60 % less under y and z; 100 % "
            "more under x; 2 others tie (~).") in said
    assert "; 2 others tie (~)." in answers({"a": entry(), "b": entry(), "c": entry()})
    many = {name: entry(runs=(20 + i,) * 6) for i, name in enumerate("bcdef")}
    assert "100 to 140 % more under 5 of 6." in answers({"a": entry(), **many})


def test_times_of_other_work_are_not_told():
    schemes = {"a": entry(), "b": entry(runs=(20,) * 6), "c": entry(runs=(5,) * 6)}
    phases = schemes["c"]["phases"]
    schemes["c"]["phases"] = {**phases, "install": {**phases["install"], "leaves": 1500}}
    assert "100 % more under b" in answers(schemes) and "less under c" not in answers(schemes)


def test_the_time_that_is_told_is_of_the_phase_with_most_operations():
    schemes = {"a": entry(), "b": entry(runs=(20,) * 6)}
    for name, one in schemes.items():
        one["phases"] = {**one["phases"], "zap": {**one["phases"]["zap"], "operations": 9000}}
    assert "Time of a leaf in zap (measured): 36 ns" in answers(schemes)


def test_times_of_a_trace_without_a_long_phase_are_of_operations():
    said = answers({name: entry(leaves=1000, runs=(runs,) * 6) for name, runs in (("a", 10), ("b", 20))})
    assert "Time of an operation (measured): 10 ns [10, 10] under a; 100 % more under b." in said
    other = {"a": entry(leaves=1000), "b": entry(leaves=1000), "c": entry(leaves=1020, runs=(20,) * 6)}
    assert "[10, 10] under a; 1 other ties (~); 1 did other work there." in answers(other)
    few = result({name: entry(leaves=1000, runs=(runs,) * 6) for name, runs in (("a", 10), ("b", 20))})
    assert verdict(few)["beaten"] == {}, "nor do they decide who beats whom"


def test_too_few_runs_show_no_difference_and_are_warned_of():
    made = result({"a": entry(runs=(10,) * 3), "b": entry(runs=(5,) * 3)}, repeat=3)
    found = verdict(made)
    assert "Time of" not in " ".join(found["answers"]) and found["beaten"] == {}
    assert "3 timed runs are too few" in " ".join(found["warnings"])
    assert verdict({**made, "repeat": 1})["warnings"][0].startswith("1 timed run is too few")


def test_noise_and_short_traces_are_warned_of():
    noisy = verdict(result({"a": entry(runs=(10, 10, 10, 10, 10, 13)), "b": entry()}))["warnings"]
    assert len(noisy) == 1 and "too noisy now for a:" in noisy[0]
    short = verdict(result({"a": entry(short=True), "b": entry(short=True, runs=(5,) * 6)}))
    assert "too short" in short["warnings"][0] and "Time of" not in " ".join(short["answers"])
    assert short["beaten"] == {}, "times of a short trace decide nothing"


def test_threads_that_never_met_are_told():
    made = {"a": entry(), "b": entry()}
    assert "no two threads" in " ".join(verdict(result(made, threads=2))["warnings"])
    assert verdict(result({"a": entry(met=5), "b": entry()}, threads=2))["warnings"] == []


def test_less_work_is_not_judged():
    """A scheme that refuses everything is cheapest, and beats nobody."""
    lazy = entry(atomics=0, leaves=10, refused=9000, runs=(1,) * 6)
    found = verdict(result({"a": entry(), "b": entry(), "c": lazy}))
    assert "c" not in found["front"] and "c" not in found["beaten"] and found["front"] == ["a", "b"]
    assert not re.search(r"\bc\b", " ".join(found["answers"])) and "c" not in found["details"]


def test_what_goes_wrong_is_told_of_schemes_that_did_less_too():
    """A migration that silently moves nothing is less work, and an error all the same."""
    lazy = entry(leaves=10, consequences=wrong(bytes_not_moved=4096, pss_error_bytes=3), own=wrong(leaked_folios=1))
    said = answers({"a": entry(), "b": entry(), "c": lazy})
    assert "Under c, mbind silently leaves memory where it is (4,096 times, 4.00K at worst)." in said
    assert "Under c, which did less of the work, smaps is wrong" in said
    assert "c breaks its own promise" in said and "Nothing goes wrong under a and b." in said
    assert "Nothing goes wrong under a." in answers({"a": entry(), "b": entry(consequences=wrong(copies_made=1)),
                                                     "c": entry(leaves=10)})


def test_refused_schemes_are_not_judged():
    found = verdict(result({"a": entry(), "b": {"refused_why": "why"}}))
    assert found["front"] == ["a"] and found["beaten"] == {}


def test_who_beats_whom_and_on_what():
    found = verdict(result({"a": entry(atomics=3, scan=600), "b": entry(atomics=2), "c": entry(scan=600, hvo=False)}))
    assert found["answers"][0] == "b beats a and c (nowhere worse, somewhere better)."
    assert found["beaten"]["a"]["on"] == ["atomics a leaf in install", "atomics a leaf in zap",
                                          "entries scanned for one operation"]
    assert found["details"]["a"].startswith("beaten by b on atomics a leaf in install and zap, entries scanned for one "
                                            "operation. Atomics a leaf: 3 in install and zap; 20 ns [20, 20] a leaf")


def test_of_several_winners_the_one_is_named_that_nobody_beats_and_that_beats_most():
    found = verdict(result({"x": entry(atomics=3, scan=600), "y": entry(atomics=3, scan=300),
                            "few": entry(atomics=2, scan=600), "most": entry(atomics=3)}))
    assert found["front"] == ["few", "most"]
    assert {name: found["beaten"][name]["by"] for name in "xy"} == {"x": "most", "y": "most"}
    # Times that tie are no chain: "top" beats "middle", and "middle" both x and y, but "top" is slower than those.
    found = verdict(result({"x": entry(atomics=2, scan=601), "y": entry(atomics=1, scan=601),
                            "top": entry(atomics=1, runs=(13.2,) * 6),
                            "middle": entry(atomics=1, scan=600, runs=(11.5,) * 6), "only": entry(scan=500)}))
    assert found["beaten"]["middle"]["by"] == "top" and found["beaten"]["y"]["by"] == "middle"
    assert found["beaten"]["x"]["by"] == "only"


@pytest.mark.parametrize("better, worse", [
    ({"atomics": 2}, {"atomics": 2.1}), ({"transient": 0}, {"transient": 1}), ({"scan": 0}, {"scan": 1}),
    ({"hvo": True}, {"hvo": False}), ({"maps_of": {"2M": 1 << 31}}, {"maps_of": {"2M": 8192}}),
    ({}, {"own": wrong(false_shared=1)}), ({}, {"own": {"false_shared": (1, True)}}),
    ({"per_page": wrong(false_shared=1)}, {"per_page": wrong(false_shared=2)}),
    ({"consequences": wrong(pss_error_bytes=1)}, {"consequences": wrong(pss_error_bytes=2)}),
    ({}, {"runs": (15,) * 6}),
])
def test_each_criterion_decides_alone(better, worse):
    found = verdict(result({"a": entry(**worse), "b": entry(**better)}))
    assert found["beaten"].keys() == {"a"} and found["front"] == ["b"]
    both = verdict(result({"a": entry(**{"atomics": 2, **worse}), "b": entry(**{"atomics": 3, **better})}))
    assert ("atomics" in worse) == bool(both["beaten"]), "one that is better elsewhere is not beaten"


@pytest.mark.parametrize("slight", [{"atomics": 2.02}, {"runs": (11,) * 6}, {"runs": (9, 30, 30, 30, 30, 30)}])
def test_slight_differences_and_intervals_that_overlap_decide_nothing(slight):
    assert verdict(result({"a": entry(**slight), "b": entry()}))["beaten"] == {}
    assert answers({"a": entry(**slight), "b": entry(atomics=3)}).startswith("a beats b ")


def test_the_time_of_a_phase_that_is_a_hundredth_of_the_trace_decides_nothing():
    schemes = {"a": entry(), "b": entry()}
    schemes["a"]["measured"]["phases"] = {**schemes["a"]["measured"]["phases"], "zap": entry(
        runs=(20,) * 6)["measured"]["ns_per_operation"]}
    assert verdict(result(schemes))["beaten"].keys() == {"a"}
    for one in schemes.values():
        one["phases"] = {**one["phases"], "zap": {**one["phases"]["zap"], "operations": 20}}
    assert verdict(result(schemes))["beaten"] == {}


def test_an_error_that_is_as_frequent_but_larger_is_worse():
    schemes = {"a": entry(consequences=wrong(pss_error_bytes=3)), "b": entry(consequences=wrong(pss_error_bytes=3))}
    schemes["a"]["errors"]["consequences"]["pss_error_bytes"]["worst"] = 9000
    assert verdict(result(schemes))["beaten"].keys() == {"a"}


def test_schemes_that_beat_nobody_and_those_that_cannot_differ_are_told_so():
    said = answers({"a": entry(atomics=1, scan=600), "b": entry()})
    assert said.startswith("No scheme beats another (nowhere worse, somewhere better).")
    same = result({"a": entry(), "b": entry()})
    assert "The schemes do not differ on this input in anything that is counted." in verdict(same)["answers"]
    one, other = same["schemes"]["a"]["measured"]["phases"], same["schemes"]["b"]["measured"]["phases"]
    one["install"] = other["zap"] = entry(runs=(5,) * 6)["measured"]["ns_per_operation"]
    assert "The schemes do not differ on this input in anything that is counted." in verdict(same)["answers"]
    same["trace"]["files"] = [{"name": "F", "page_size": 4096, "pages": 9, "kind": "shmem"}]
    assert verdict(same)["answers"][0].endswith("counted: each of its folios is one base page.")
    assert "do not differ" not in answers({"a": entry()}), "one scheme has nothing to differ from"


def test_what_decides_are_the_phases_where_atomics_differ_most_in_both_readings():
    schemes = {"a": entry(atomics=0), "b": entry(atomics=3, batched=1), "c": entry(atomics=2, transient=2)}
    assert "Atomics a leaf: 0 to 4 in install and zap." in answers(schemes)
    schemes.pop("c")
    assert "Atomics a leaf: 0 to 3 in install; 0 to 3 in zap (0 to 1 with batch=6.12)." in answers(schemes)
    made = result(schemes)
    made["options"] = {"batch": "6.12"}
    assert "(0 to 1 with batch=no)" in " ".join(verdict(made)["answers"])
    assert "Atomics a leaf" not in answers({"a": entry(), "b": entry(atomics=2.4)}), "half an atomic is needed"
    for name, one in schemes.items():
        for number, leaves in enumerate((4000, 9000, 2000, 9000)):
            counts = entry(atomics=3 * (name == "b"), leaves=2 * leaves)["phases"]["zap"]
            one["phases"] = {**one["phases"], f"more{number}": counts}
    made["trace"]["phases"] += [{**made["trace"]["phases"][0], "name": f"more{number}"} for number in range(4)]
    assert "Atomics a leaf: 0 to 3 in more1, more3 and more0." in verdict(made)["answers"]
    few = {"a": entry(atomics=0, leaves=1000), "b": entry(atomics=3, leaves=1000)}
    assert "Atomics a leaf" not in answers(few), "a phase of few leaves decides nothing"


def test_own_promises_are_told_apart_from_stated_faults_and_definitions():
    found = verdict(
        result(
            {
                "a": entry(own=wrong(false_shared=2)),
                "b": entry(own={"refs_not_explained": (3, True)}),
                "c": entry(per_page=wrong(page_mapcount_wrong_pages=4)),
                "d": entry(own=wrong(false_shared=3)),
            }
        )
    )
    said = " ".join(found["answers"])
    assert ("a and d break their own promise: pages of one process are called shared (2 to 3 of 9 observations, 3 at "
            "worst).") in said
    assert "b break" not in said and "as its file says" in found["details"]["b"]
    assert "page_mapcount" not in said, "a definition is no error"
    assert "Nothing goes wrong under c." in said
    assert "a breaks its own promise" in answers({"a": entry(own=wrong(leaked_folios=1)), "b": entry()})


def test_the_sentence_of_a_scheme_has_its_costs_and_errors():
    one = entry(atomics=2, scan=7, own={"false_shared": (3, True)}, consequences=wrong(pss_error_bytes=2 << 20))
    assert verdict(result({"a": one}))["details"]["a"] == (
        "beaten by none. Atomics a leaf: 2 in install and zap; 20 ns [20, 20] a leaf in install; pages of one process "
        "are called shared (3 of 9 observations, 3 at worst, as its file says); smaps has a wrong Pss (2,097,152 of 9 "
        "observations, 2.00M at worst).")
    few = verdict(result({"a": entry(leaves=4), "b": entry(leaves=4)}))["details"]["a"]
    assert few == "beaten by none. Atomics a leaf: 2 in install and zap.", "of every phase where none is long"


def test_what_a_kernel_does_is_told_with_how_often_over_all_schemes():
    schemes = {name: entry(consequences=wrong(pss_error_bytes=n)) for n, name in enumerate("abcd", start=1)}
    schemes["e"] = entry(consequences=wrong(smaps_shared_error_bytes=6, bytes_not_moved=8192, migrations_refused=1))
    schemes["f"] = entry(consequences=wrong(copies_made=7))
    said = answers(schemes)
    assert "Under all but f, smaps is wrong (1 to 6 of 9 observations, 6 at worst)." in said
    assert "Under e, mbind silently leaves memory where it is (8,192 times, 8.00K at worst)." in said
    assert "Under e, migration is refused (once)." in said
    assert "Under f, writes copy more than they must (7 times)." in said
    assert "Nothing goes wrong" not in said
    more = {name: entry() for name in "ghij"}
    assert "Under 5 of 10, smaps is wrong" in answers({**schemes, **more})
    assert "Under all 4, smaps" in answers({name: schemes[name] for name in "abcd"})


def test_one_verdict_counts_schemes_out_of_one_number():
    """Those that did less of the work are named beside it where something goes wrong under them, too."""
    wrongs = wrong(pss_error_bytes=1, bytes_not_moved=4096)
    schemes = {name: entry(hvo=False, runs=(20,) * 6, consequences=wrongs) for name in "abcde"}
    schemes |= {name: entry() for name in "fghi"}
    schemes["y"] = entry(leaves=100, consequences=wrongs)
    schemes["z"] = entry(leaves=100)
    said = answers(schemes)
    assert "Under 5 of 9 and y, which did less of the work, smaps is wrong (1 of 9 observations" in said
    assert "Under 5 of 9 and y, mbind silently" in said and "HVO is lost under 5 of 9" in said
    assert {*re.findall(r"\d+ of (\d+)(?! observations)", said)} == {"9"}
    only = {**schemes, **{name: entry() for name in "abcde"}}
    assert "Under y, which did less of the work, smaps is wrong" in answers(only)


def test_events_are_told_by_how_often_they_happened_and_not_by_how_many_at_once():
    schemes = {"a": entry(), "b": entry(consequences=wrong(migrations_refused=5, bytes_not_moved=1)),
               "c": entry(consequences=wrong(copies_made=7, bytes_not_moved=3), own=wrong(counter_underflows=4))}
    for name, key, worst in (("b", "migrations_refused", 1), ("b", "bytes_not_moved", 4096), ("c", "copies_made", 2),
                             ("c", "bytes_not_moved", 8192)):
        schemes[name]["errors"]["consequences"][key]["worst"] = worst
    schemes["c"]["errors"]["own"]["counter_underflows"]["worst"] = 1
    said = answers(schemes)
    assert "Under b, migration is refused (5 times)." in said and "writes copy more than they must (7 times)." in said
    assert "Under b and c, mbind silently leaves memory where it is (1 to 3 times, 8.00K at worst)." in said
    assert "c breaks its own promise: counts go below zero (4 times)." in said
    assert "(once, 4.00K)." in answers({"a": entry(), "b": schemes["b"]})
    assert "Under b and d, mbind silently leaves memory where it is (once, 4.00K)." in answers(
        {"a": entry(), "b": schemes["b"], "d": schemes["b"]})


def test_smaps_is_wrong_as_often_as_one_of_its_numbers_is():
    """Pss may be wrong where shared memory is right, and the other way round."""
    made = result({"a": entry(), "b": entry(consequences=wrong(pss_error_bytes=2, smaps_shared_error_bytes=2))})
    made["errors_at"]["b"] = [[1, {"pss_error_bytes": 1}], [2, {"pss_error_bytes": 2, "smaps_shared_error_bytes": 2}],
                              [3, {"smaps_shared_error_bytes": 2}], [4, {"page_mapcount_wrong_pages": 1}]]
    assert "Under b, smaps is wrong (3 of 9 observations, 2 at worst)." in " ".join(verdict(made)["answers"])


def test_a_fail_that_never_fires_and_operations_that_nobody_looked_at_are_warned_of():
    """Without timed runs, too."""
    schemes = {name: entry(runs=None) for name in "abcde"}
    assert verdict(result(schemes, repeat=0))["warnings"] == []
    lazy = {**entry(runs=None, leaves=10), "never_fired": 16}
    assert verdict(result({**schemes, "lazy": lazy}, repeat=0))["warnings"] == [], "it refuses the operation"
    schemes["b"]["never_fired"] = 1
    assert verdict(result(schemes, repeat=0))["warnings"] == [
        "A failure that the trace asks for never fired: 1 under b."]
    for name in "acde":
        schemes[name]["never_fired"] = 3
    for one in schemes.values():
        one["watched"] = {"migrate": {"operations": 5000, "looked_at": 200}}
    assert verdict(result(schemes, repeat=0))["warnings"] == [
        "Failures that the trace asks for never fired: 1 to 3 under all 5.",
        "200 of 5,000 migrate operations, evenly spaced, were looked at for work that was not done."]


def test_what_was_not_tested_is_told():
    untested = verdict(result({"a": entry()}, processes=1, observations=1))["untested"]
    assert [line.split(":")[0].split(" only")[0] for line in untested] == [
        "Sharing",
        "Not in this input",
        "One observation",
    ]
    assert "unmapping" not in untested[1] and "fork" in untested[1] and "migration" in untested[1]
    everything = dict.fromkeys(("fork", "munmap", "collapse", "migrate", "truncate", "hwpoison"), 1)
    assert verdict(result({"a": entry()}, by_operation=everything))["untested"] == []


def test_a_trace_that_tests_nothing_says_so_and_praises_nobody():
    found = compare(Trace.parse("hgmcore-trace 1\nfile F 2M 1\npopulate F 0 1\n"), repeat=0)["verdict"]
    assert found["answers"] == ["Nothing was tested: no scheme mapped or unmapped anything."]
    assert found["untested"] == [], "it is said once"
    assert found["details"] == {}


def test_hvo_is_told_with_what_it_saves():
    said = answers({"a": entry(), "b": entry(hvo=False)})
    assert "HVO is lost under b (16G of struct pages for 1T in 2M pages, not 2G)." in said
    assert "HVO" not in answers({"a": entry(hvo=False), "b": entry(hvo=False)}) + answers({"a": entry()})
    others = {"a": entry(), "b": entry(hvo=False)}
    for one in others.values():
        one["struct_pages"] = {}
    assert "HVO" not in answers(others), "only hugetlb pages have it"


def test_overflow_is_told_for_the_largest_pages_of_the_input():
    few, many = {"2M": (1 << 22) - 1, "1G": 8192}, {"2M": 1 << 31, "1G": (1 << 31) - 1}
    made = result({"a": entry(maps_of=few), "b": entry(maps_of=many)})
    made["trace"]["files"] = [{"name": "F", "page_size": 1 << 30, "pages": 1, "kind": "hugetlb"}]
    said = " ".join(verdict(made)["answers"])
    assert "Under a, a count overflows after 8,192 maps of a 1G page." in said
    assert "overflows" not in answers({"a": entry(maps_of=many), "b": entry(maps_of=many)})
    assert "2M" not in said.partition("overflows")[2]
    made["trace"]["files"][0]["page_size"] = 4096
    found = verdict(made)
    assert "overflows" not in " ".join(found["answers"]) and found["beaten"] == {}, "the input has no such page"
    made = result({"a": entry(maps_of=few), "b": entry(maps_of=many), "c": entry(maps_of=dict.fromkeys(few))})
    made["trace"]["files"] = [{"name": "F", "page_size": 2 << 20, "pages": 1, "kind": "hugetlb"}]
    assert "Under a, a count overflows after 2^22 maps of a 2M page." in " ".join(verdict(made)["answers"])


def test_scans_are_told_from_more_than_a_table_on():
    said = answers({"a": entry(), "b": entry(scan=600), "c": entry(scan=260_606)})
    assert "To find a first or last piece, c reads up to 260,606 entries." in said
    assert "first or last piece" not in answers({"a": entry(), "b": entry(scan=512)})


def test_operations_that_no_scheme_does_are_told_with_their_errors():
    """What a trace asks for in vain is its own fault; what one scheme refuses is that scheme's."""
    lost = {name: entry(leaves=0, refused=3 + n) for n, name in enumerate("ab")}
    assert verdict(result(lost))["answers"][1:] == [
        "At least 3 of 10,000 operations end in an error under each scheme (EAGAIN 3 under a)."]
    assert verdict(result({"a": entry(), "b": entry(refused=9000)}))["warnings"] == []
    assert verdict(result({"a": entry(refused=1000), "b": entry(refused=1000)}))["warnings"] == []
    assert "At least 1,001 of" in verdict(result({"a": entry(refused=1001), "b": entry(refused=1001)}))["warnings"][0]


def test_that_nothing_goes_wrong_under_any_scheme_is_told():
    assert "Nothing goes wrong under a and b." in answers({"a": entry(), "b": entry()})
    clean = {name: entry() for name in "bcdef"}
    assert "Nothing goes wrong under all 5." in answers(clean)
    wrong_ones = {name: entry(consequences=wrong(copies_made=1)) for name in "aghijk"}
    assert "Nothing goes wrong under b, c, d, e and f." in answers({**wrong_ones, **clean})
    more = {name: entry() for name in "xy"}
    assert "Nothing goes wrong under 7 of 13." in answers({**wrong_ones, **clean, **more})


def test_memory_that_cannot_migrate_does_not_test_migration():
    made = result({"a": entry()}, by_operation={"migrate": 5, "fork": 1})
    assert "migration" not in " ".join(verdict(made)["untested"])
    made["trace"]["files"][0]["kind"] = "shmem"
    assert "migration" in " ".join(verdict(made)["untested"])


def test_large_numbers_of_atomics_are_written_out():
    assert "Atomics a leaf: 2 to 514 in install and zap." in answers({"a": entry(), "b": entry(atomics=514)})

"""The verdict: each rule on small made-up results, the front against brute force."""

import re

from hypothesis import given
from hypothesis import strategies as st
from made_results import entry, result

from hgmcore import Trace, compare
from hgmcore.analysis.verdict import verdict

RUNS = st.lists(st.floats(1, 100), min_size=6, max_size=6)


def wrong(**keys):
    """Errors that the scheme's file does not state."""
    return {key: (number, False) for key, number in keys.items()}


@st.composite
def entries(draw):
    return entry(
        atomics=draw(st.integers(0, 3)),
        runs=draw(RUNS),
        scan=draw(st.sampled_from([0, 600])),
        hvo=draw(st.booleans()),
        own=wrong(false_shared=draw(st.integers(1, 3))) if draw(st.booleans()) else None,
        consequences=wrong(pss_error_bytes=draw(st.integers(1, 3))) if draw(st.booleans()) else None,
    )


SCHEMES = st.lists(entries(), min_size=1, max_size=6).map(lambda made: dict(zip("abcdef", made)))


def numbers(one):
    """What a scheme is judged by, worked out apart from the verdict: (low, high) each."""
    times = one["measured"]["ns_per_operation"]
    found = [
        2 * [one["cost"]["atomics"]["persistent"]],
        2 * [one["phases"]["install"]["scanned"]["max"]],
        2 * [not one["hvo"]],
        [times["low"], times["high"]],
    ]
    for group, key in (("own", "false_shared"), ("consequences", "pss_error_bytes")):
        found.append(2 * [one["errors"][group].get(key, {"observations": 0})["observations"]])
    return found


@given(SCHEMES)
def test_the_front_are_those_that_nobody_beats(schemes):
    found = verdict(result(schemes))

    def beats(one, other):
        pairs = list(zip(numbers(schemes[one]), numbers(schemes[other])))
        return any(mine[1] < theirs[0] for mine, theirs in pairs) and not any(
            theirs[1] < mine[0] for mine, theirs in pairs
        )

    beaten = {name for name in schemes if any(beats(other, name) for other in schemes)}
    assert set(found["front"]) == set(schemes) - beaten and set(found["beaten"]) == beaten
    for name, by in found["beaten"].items():
        assert beats(by["by"], name) and by["on"]


@given(SCHEMES)
def test_no_scheme_is_called_faster_or_slower_where_a_round_says_otherwise(schemes):
    for line in verdict(result(schemes))["answers"]:
        if not line.startswith("Time of"):
            continue
        base = schemes["a"]["measured"]["ns_per_operation"]["runs"]
        for sign, word in ((-1, "Less"), (1, "More")):
            told = re.search(rf" {word}: ([^.]*)\.", line)
            for name in re.findall(r"\b([a-f]) [-+]\d", told[1]) if told else ():
                runs = schemes[name]["measured"]["ns_per_operation"]["runs"]
                assert all(sign * (mine - theirs) > 0 for mine, theirs in zip(runs, base)), (line, name)


def answers(*arguments, **changes):
    return " ".join(verdict(result(*arguments, **changes))["answers"])


def test_times_that_overlap_are_tied_and_others_have_a_change():
    said = answers(
        {"a": entry(), "b": entry(runs=(9, 11, 9, 11, 9, 11)), "c": entry(runs=(5,) * 6), "d": entry(runs=(20,) * 6)}
    )
    assert "Less: c -50 %. More: d +100 %. No difference is shown (~) for b." in said


def test_too_few_runs_show_no_difference_and_are_warned_of():
    made = result({"a": entry(runs=(10,) * 3), "b": entry(runs=(5,) * 3)}, repeat=3)
    found = verdict(made)
    assert "Time of" not in " ".join(found["answers"])
    assert "3 timed runs are too few" in " ".join(found["warnings"])


def test_noise_and_short_traces_are_warned_of():
    noisy = verdict(result({"a": entry(runs=(10, 10, 10, 10, 10, 13)), "b": entry()}))["warnings"]
    assert len(noisy) == 1 and "too noisy now for a:" in noisy[0]
    short = verdict(result({"a": entry(short=True), "b": entry(short=True)}))
    assert "too short" in short["warnings"][0] and "Time of" not in " ".join(short["answers"])


def test_threads_that_never_met_are_told():
    made = {"a": entry(), "b": entry()}
    assert "no two threads" in " ".join(verdict(result(made, threads=2))["warnings"])
    assert verdict(result({"a": entry(met=5), "b": entry()}, threads=2))["warnings"] == []


def test_less_work_is_not_judged():
    """A scheme that refuses everything is cheapest, and beats nobody."""
    found = verdict(result({"a": entry(), "b": entry(), "c": entry(atomics=0, leaves=10, refused=9000, runs=(1,) * 6)}))
    assert "c" not in found["front"] and "c" not in found["beaten"] and found["front"] == ["a", "b"]
    assert any(line.startswith("c did less of the work") for line in found["answers"])


def test_own_promises_are_told_apart_from_stated_faults_and_definitions():
    said = answers(
        {
            "a": entry(own=wrong(false_shared=2)),
            "b": entry(own={"refs_not_explained": (3, True)}),
            "c": entry(per_page=wrong(page_mapcount_wrong_pages=4)),
        }
    )
    assert "a breaks its own promise: pages of one process are called shared (2 of 9 observations" in said
    assert "b breaks" not in said and "Faults that their own files state show in b" in said
    assert "page_mapcount" not in said, "a definition is no error"
    assert "Nothing goes wrong under c." in said


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
    assert found["untested"] == ["Nothing was tested: no scheme mapped or unmapped anything."]
    said = " ".join(found["answers"])
    assert "wrong" not in said and "No error" not in said


def test_memory_and_scans():
    said = answers({"a": entry(), "b": entry(hvo=False), "c": entry(scan=260_606)})
    assert "HVO is lost under b: 2G of struct pages a TiB against 16G in 2M pages." in said
    assert "c read up to 260,606 entries for one operation" in said

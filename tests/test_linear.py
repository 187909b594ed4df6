"""Sums of counts times costs, to the digits that were worked out by hand."""

import pytest

from hgmcore.model import linear
from hgmcore.model.events import count_events
from hgmcore.model.linear import MissingCost, Value
from hgmcore.model.modelled import accounting, against, kernel, price
from hgmcore.model.profile import ProfileError, load
from hgmcore.trace import Trace

L2 = 1 << 20
MUNMAP = """hgmcore-trace 1
mmap A v anon:2M 0 2M private
touch A v 0 write
mprotect A v 0 4K r
mprotect A v 0 4K rw
phase zap
munmap A v 0 2M
"""
CONTINUES = ("hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared minor hgm\npopulate F 0 1\nphase counted\n"
             + "".join(f"continue A v {4 * i}K 4K\n" for i in range(512)) + "munmap A v 0 2M\n")


def tenth(interval):
    return tuple(round(number, 1) for number in (interval.value, interval.low, interval.high))


def sums(profile, text, scheme, phase, **options):
    counted = count_events(Trace.parse(text, "<test>"), scheme, L2, **options)
    return accounting(counted.events[phase]), kernel(profile, counted.kernel[phase])[0]


@pytest.mark.parametrize("scheme, own, total, for_one", [
    ("large_mapcount", (3957.3, 3493.7, 4420.9), (16029.1, 14325.9, 17732.3), 31.307),
    ("mm_id", (3965.7, 3502.0, 4429.4), (16037.5, 14334.3, 17740.7), 31.323),
    ("no_page_mapcount", (66.9, 54.6, 79.2), (12138.7, 10499.8, 13777.6), 23.708),
])
def test_munmap_of_a_folio_of_512_ptes_on_a_4210r(scheme, own, total, for_one):
    profile = load("xeon-4210r")
    mine, work = sums(profile, MUNMAP, scheme, "zap", batch="yes")
    assert tenth(linear.interval(profile.costs, mine)) == own
    whole = linear.interval(profile.costs, linear.plus(mine, work))
    assert tenth(whole) == total
    assert round(whole.value / 512, 3) == for_one


@pytest.mark.parametrize("scheme, plain, with_form", [
    ("mm_id", (0.05, 0.00, 0.10), (0.05, -2.42, 2.52)),
    ("no_page_mapcount", (-24.27, -27.57, -20.97), (-24.27, -31.54, -17.00)),
])
def test_the_change_against_large_mapcount(scheme, plain, with_form):
    profile = load("xeon-4210r")
    before, after = (linear.plus(*sums(profile, MUNMAP, name, "zap", batch="yes"))
                     for name in ("large_mapcount", scheme))
    for form, expected in ((0, plain), (profile.form, with_form)):
        found = linear.change(profile.costs, before, after, form)
        assert (round(found.value, 2), round(found.low, 2), round(found.high, 2)) == expected


@pytest.mark.parametrize("scheme, own, total, operation", [
    ("head_per_leaf", (25087.6, 20957.5, 29217.7), 332502.9, 648.2),
    ("mm_id", (35378.9, 31184.6, 39573.2), 342794.2, 668.2),
    ("logical_counter", (6768.3, 6314.4, 7222.2), 314183.6, 612.4),
])
def test_512_continues_and_an_munmap_on_this_kind_of_machine(scheme, own, total, operation):
    profile = load("turin-vm")
    mine, work = sums(profile, CONTINUES, scheme, "counted", batch="no")
    assert tenth(linear.interval(profile.costs, mine)) == own
    assert round(linear.value(profile.costs, work), 1) == 307415.3
    whole = linear.value(profile.costs, linear.plus(mine, work))
    assert (round(whole, 1), round(whole / 513, 1)) == (total, operation)


@pytest.mark.parametrize("scheme, difference, of_the_whole, of_accounting, mark", [
    ("mm_id", (10291.3, 9725.6, 10857.0), 3.10, 41.0, ">"),
    ("logical_counter", (-18319.3, -22411.3, -14227.3), -5.51, -73.0, "<"),
    ("head_per_leaf", (0.0, 0.0, 0.0), 0.0, 0.0, "~"),
])
def test_what_two_schemes_share_cancels(scheme, difference, of_the_whole, of_accounting, mark):
    profile, trace = load("turin-vm"), Trace.parse(CONTINUES, "<test>")
    one, other = (price(profile, count_events(trace, name, L2, batch="no")) for name in (scheme, "head_per_leaf"))
    found = against(profile, one, other)
    assert tuple(round(found["difference_ns"][key], 1) for key in ("value", "low", "high")) == difference
    assert (round(found["percent"]["value"], 2), found["basis"], found["mark"]) == (of_the_whole, "total", mark)
    base = linear.value(profile.costs, other["sums"]["accounting"])
    assert round(100 * found["difference_ns"]["value"] / base, 1) == of_accounting


def test_a_trace_that_needs_an_unknown_cost_is_refused_by_name():
    profile, trace = load("altra"), Trace.parse(CONTINUES, "<test>")
    counted = count_events(trace, "mm_id", L2)
    with pytest.raises(ProfileError, match="profile altra: no cost for 'plain' .*'step'.*--assume CLASS=NS:LOW:HIGH"):
        price(profile, counted)
    assumed = Value(1.0, 0.0, 4.0, "assumed", "a test")
    profile = profile.assuming(dict.fromkeys(("plain", "step", "table_alloc", "table_free"), assumed))
    found = price(profile, counted)
    assert found["leans_on"] == "assumed"
    assert "total" not in found
    with pytest.raises(ProfileError, match="--assume setp: no such cost; did you mean 'step'"):
        profile.assuming({"setp": assumed})


def test_an_operation_that_no_profile_prices_leaves_no_total():
    text = CONTINUES.replace("munmap A v 0 2M", "punch F 0 2M")
    found = price(load("turin-vm"), count_events(Trace.parse(text, "<test>"), "mm_id", L2))
    assert found["no_total"] == {"punch": 1}
    assert "total" not in found
    assert found["accounting"]["value"] > 0


def test_differences_of_assumed_costs_have_a_question_mark():
    costs = {"atomic": Value(5, 5, 5), "plain": Value(2, 1.9, 2.1, "assumed")}

    class Profile:
        pass

    profile = Profile()
    profile.costs = costs
    one, other = ({"sums": {"accounting": counts, "kernel": {}}}
                  for counts in ({"atomic": 10, "plain": 5}, {"atomic": 10}))
    assert against(profile, one, other)["mark"] == ">?"
    assert against(profile, other, one)["mark"] == "<?"


def test_sums():
    assert linear.plus({"a": 1}, {"a": 2, "b": 3}) == {"a": 3, "b": 3}
    assert linear.minus({"a": 1, "b": 2}, {"a": 1, "c": 4}) == {"b": 2, "c": -4}
    costs = {"a": Value(10, 5, 15, "cited"), "b": Value(1, 1, 1)}
    found = linear.interval(costs, {"a": 2})
    assert (found.value, found.low, found.high) == (20, 10, 30)
    assert linear.leans_on(costs, {"a": 1, "b": 1}) == "cited"
    assert linear.leans_on(costs, {"a": 0, "b": 1}) == "measured"
    with pytest.raises(MissingCost) as error:
        linear.value(costs, {"a": 1, "c": 7, "d": 0})
    assert error.value.missing == {"c": 7}
    half = linear.share(costs, {"a": 1}, {"a": 1, "b": 10})
    assert half.value == 50 and half.low < 50 < half.high

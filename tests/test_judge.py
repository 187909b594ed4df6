"""Decisions about a comparison, on small made-up results."""

from hgmcore.analysis.judge import baseline, is_right, partial, ran


def made(refused, **errors):
    """A result of schemes that refused so many operations, or (None) could not run."""
    return {"schemes": {name: {"refused": "why"} if number is None else
                        {"error": {"refused_operations": number, "leaked_folios": 0, **errors.get(name, {})}}
                        for name, number in refused.items()}}


def test_who_did_less_work_than_most_is_not_compared():
    result = made({"a": 3, "b": 0, "c": 0, "d": None})
    assert list(ran(result)) == ["a", "b", "c"]
    assert partial(result) == ["a"] and baseline(result) == "b"


def test_of_two_numbers_as_frequent_the_smaller_is_usual():
    assert partial(made({"a": 3, "b": 0})) == ["a"]


def test_no_baseline_without_another_to_compare():
    assert baseline(made({"a": 3, "b": 0})) is None


def test_refusals_and_the_other_rule_of_sharing_are_no_errors():
    result = made({"a": 2, "b": 2, "c": 2}, b={"leaked_folios": 1}, c={"false_shared_hugetlb": 4})
    assert [name for name in ran(result) if is_right(result, name)] == ["a", "c"]

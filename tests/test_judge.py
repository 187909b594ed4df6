"""Decisions about a comparison, on small made-up results."""

import pytest
from made_results import entry, result

from hgmcore import Trace
from hgmcore.analysis.judge import baseline, broken, less_work, ran


def test_refused_schemes_did_not_run():
    made = result({"a": entry(), "b": {"refused_why": "why"}})
    assert list(ran(made)) == ["a"]


def test_who_did_less_work_than_most_is_told_why():
    less = less_work({"a": entry(refused=9000), "b": entry(), "c": entry(), "d": entry(leaves=4000)})
    assert list(less) == ["a", "d"]
    assert "refused 9,000" in less["a"] and "4,000 leaves, where 5,000 is usual" in less["d"]


def test_a_few_refusals_more_are_no_other_work():
    assert less_work({"a": entry(refused=3), "b": entry(), "c": entry()}) == {}


def header(kind):
    return Trace.parse(f"hgmcore-trace 1\nfile F 2M 1 {kind}\n").header


def test_baselines():
    names = ["mm_id", "subtree", "head_per_leaf"]
    assert baseline(names, header("")) == "head_per_leaf" and baseline(names, header("shmem")) == "mm_id"
    assert baseline(["subtree", "hugetlb"], header("")) == "subtree"
    assert baseline(names, header(""), "subtree") == "subtree" and baseline([], header("")) is None
    with pytest.raises(ValueError, match="hugetlb is not among the schemes"):
        baseline(names, header(""), "hugetlb")


def test_stated_faults_are_no_broken_promise_but_no_praise_either():
    stated, silent = entry(own={"false_shared": (1, True)}), entry(own={"false_shared": (1, False)})
    assert broken(stated) == {} and list(broken(silent)) == ["false_shared"]

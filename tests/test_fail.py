"""`fail`: for the next operation, whatever stands between, and never without a word."""

import pytest

from hgmcore import Trace, replay, replay_steps
from hgmcore.replay import to_json
from hgmcore.trace.phases import phases
from hgmcore.trace.statements import told_to_fail

START = """\
hgmcore-trace 1
file F 2M 1
populate F 0 1
mmap A v F 0 2M shared minor
split A v 0 2M
"""


def answers(text, scheme="mm_id", **options):
    trace = Trace.parse(START + text)
    result = to_json(replay(trace, scheme, operations="all", **options), trace)
    return [(row["op"], row["error"] or row.get("event") or "ok") for row in result["operations"]][4:]


@pytest.mark.parametrize("between", ["", "observe\n", "phase half_way\n", "phase one\nobserve\nphase two\n",
                                     "file G 2M 1\n"])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_no_operation_does_not_swallow_the_failure(between, threads):
    found = answers(f"fail 1\n{between}continue A v 0 4K\n", threads=threads)
    assert found[0] == ("fail", "ok") and found[-1] == ("continue", "ENOMEM")


@pytest.mark.parametrize("operation", ["continue A v 0 4K", "fork A B", "dontneed A v 0 2M"])
@pytest.mark.parametrize("between", ["", "observe\n"])
def test_a_failure_that_never_fires_says_so(operation, between):
    found = answers(f"fail 9\n{between}{operation}\n")
    assert found[0] == ("fail", "never_fired") and found[-1] == (operation.split()[0], "ok")
    assert answers(f"{operation}\n")[-1][1] == "ok"


def test_its_result_stands_before_that_of_the_operation():
    trace = Trace.parse(START + "continue A v 0 4K\nfail 9\ncontinue A v 0 4K\ncontinue A v 0 4K\n")
    rows = replay(trace, "head_per_leaf")["operations"]
    assert [(int(row["index"]), int(row["errno"]) > 0, int(row["event"])) for row in rows] == [
        (5, False, 2), (6, True, 0), (7, True, 0)]


def test_the_second_of_two_counts():
    assert answers("fail 1\nfail 9\ncontinue A v 0 4K\n") == [
        ("fail", "never_fired"), ("fail", "never_fired"), ("continue", "ok")]
    assert answers("fail 9\nfail 1\ncontinue A v 0 4K\n") == [
        ("fail", "never_fired"), ("fail", "ok"), ("continue", "ENOMEM")]


def test_a_step_says_so_too():
    trace = Trace.parse(START + "fail 9\nobserve\ncontinue A v 0 4K\ntouch A v 8K\n")
    assert [step.event for step in replay_steps(trace, "mm_id", start=4)] == [None, None, "never_fired", "minor"]


def test_the_phase_of_what_is_told_to_fail():
    trace = Trace.parse(START + "fail 1\nobserve\ncontinue A v 0 4K\ncontinue A v 4K 4K\n")
    assert told_to_fail(trace.operations).tolist() == [False] * 6 + [True, False]
    cut = phases(trace)
    assert [cut.names[number] for number in cut.number.tolist()][4:] == ["failures", "failures", "failures", "install"]

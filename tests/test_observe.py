"""Observations that look only at what operations touched are those that look at everything, whatever came between."""

import numpy as np
import pytest
import test_model
import test_model_sharing
import test_model_thp
from model import SCHEMES
from sequences import Comparison, run_sequences

import hgmcore as hgm
from hgmcore import observe, recordings
from hgmcore.analysis.errors import of_observation
from hgmcore.replay import machine_for, plain
from hgmcore.seen import Seen
from hgmcore.threads import Threads
from hgmcore.trace.statements import CODES, OPERATION, WRITE


@pytest.fixture
def small_blocks(monkeypatch):
    """So small that few huge pages fill several, and page tables are always walked in parts."""
    for name, value in {"BLOCK": 2, "AT_ONCE": 1, "WALK_ALL": 0}.items():
        monkeypatch.setattr(observe, name, value)


def assert_same_as_a_first_look(machine):
    assert plain(machine.observe()) == plain(machine.clone().observe())


class Looking:
    """A Comparison that compares no model, but looks now and then, also before and after something is taken back."""

    def step(self, statement):
        self.model.run(statement)
        self.core.run(statement)
        self.text.append(statement)
        number, machine = len(self.text), self.core.machine
        if number % 3 == 0 and not statement.startswith("fail"):
            if number % 2 == 0 and self.model.owners:
                before = plain(machine.observe()) if number % 4 == 0 else None
                with machine.trial():
                    self.core.run(f"exit {sorted(self.model.owners)[0]}")
                    if number % 5:
                        machine.observe()
                assert before is None or before == plain(machine.observe())
            assert_same_as_a_first_look(machine)

    def teardown(self):
        pass


OPTIONS = {"fault_around": "folio", "batch": "yes"}


def looking(kind):
    return type("Looking" + kind.__name__, (Looking, kind), {})


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind, strategy, ground", [
    (Comparison, test_model.OPERATIONS, test_model.X86_64),
    (Comparison, test_model.operations(test_model.CROWD), test_model.CROWD),
    (test_model_thp.Memory, test_model_thp.operations(test_model_thp.X86_64), test_model_thp.X86_64),
    (test_model_thp.Memory, test_model_thp.operations(test_model_thp.FORKS), test_model_thp.FORKS),
    (test_model_thp.Memory, test_model_thp.operations(test_model_thp.MIXED), test_model_thp.MIXED),
], ids=["hugetlb", "one page", "shmem", "anonymous", "mixed"])
def test_random_sequences(kind, strategy, ground, scheme):
    run_sequences(looking(kind), strategy, ground, scheme, OPTIONS, steps=30, examples=3)


HUGETLB = """file F 2M 9
populate F 0 8
mmap A v F 0 16M shared minor hgm
mmap B w F 0 18M shared
continue A v 0 4K
continue A v 4K 4K
touch B w 4M write
pin F 3
"""
PRIVATE = """file F 2M 4
populate F 0 2
mmap A v F 0 8M private
touch A v 0 write
touch A v 2M
"""
SHMEM = """file S 2M 4 shmem
populate S 0 4
mmap A s S 0 8M shared
mmap A p S 0 8M private
touch A s 0
touch A p 2M
touch A p 4M write
file T 4K 512 shmem
populate T 0 512
mmap A t T 0 2M shared
touch A t 0
"""
ANON = """mmap A a anon:2M 0 8M private
touch A a 0 write
touch A a 4M write
mmap A b anon:4K 0 64K private
touch A b 0 write
fork A C
"""


@pytest.mark.parametrize("begin, statement", [
    (HUGETLB, "continue A v 6M 4K"), (HUGETLB, "touch B w 8M"), (HUGETLB, "dontneed A v 0 4K"),
    (HUGETLB, "collapse A v 0 2M"), (HUGETLB, "migrate B w 4M 2M"), (HUGETLB, "munmap A v 0 2M"),
    (HUGETLB, "mremap B w 4M 2M x"), (HUGETLB, "punch F 4M 2M"), (HUGETLB, "truncate F 0"), (HUGETLB, "populate F 8 1"),
    (HUGETLB, "pin F 2"), (HUGETLB, "unpin F 3"), (HUGETLB, "hwpoison B w 4M"), (HUGETLB, "exit A"),
    (PRIVATE, "fork A C"), (PRIVATE, "touch A v 2M write"), (PRIVATE, "exit A"),
    (SHMEM, "touch A s 6M"), (SHMEM, "touch A p 2M write"), (SHMEM, "touch A p 6M write"), (SHMEM, "fork A C"),
    (SHMEM, "dontneed A p 4M 4K"), (SHMEM, "punch S 0 4K"), (SHMEM, "collapse A t 0 2M"), (SHMEM, "exit A"),
    (ANON, "touch C a 0 write"), (ANON, "fork C D"), (ANON, "exit A"),
    (ANON, "munmap A b 0 4K"), (ANON, "mprotect A a 4K 4K r"),
], ids=lambda text: text.splitlines()[0] if text.endswith("\n") else text)
def test_each_operation_marks_what_it_touches(begin, statement):
    """One operation between two looks, which differ: so a mark that it leaves out shows."""
    trace = hgm.Trace.parse(f"hgmcore-trace 1\n{begin}{statement}\n")
    machine = machine_for(trace, "mm_id", {})
    machine.run(trace.records[:-1])
    before = plain(machine.observe())
    machine.run(trace.records[-1:])
    full = plain(machine.clone().observe())
    changed = {**before, "index": 0} != {**full, "index": 0}
    assert changed or "migrate" in statement, "it changes nothing that is seen; a migrated page is another one"
    assert plain(machine.observe()) == full


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scheme", ["hugetlb", "head_per_leaf", "mm_id", "logical_counter"])
def test_shared_tables(scheme):
    ground = test_model_sharing.whole_table("x86-64")
    run_sequences(looking(test_model_sharing.Sharing), test_model_sharing.OPERATIONS, ground, scheme, {}, steps=40)


@pytest.mark.parametrize("name", ["qemu-balloon_redis_4k", "python_fork_pool"])
def test_recordings(name):
    trace = recordings.load(name)
    machine, step = machine_for(trace, "mm_id", {}), -(-len(trace) // 5)
    for first in range(0, len(trace), step):
        machine.run(trace.records[first:first + step])
        seen, full = machine.observe(), machine.clone().observe()
        assert plain({**seen, "folios": []}) == plain({**full, "folios": []})
        assert len(seen["folios"]) == len(full["folios"])
        assert all(np.array_equal(one.columns, other.columns) and one.said.same_as(other.said)
                   and one.true.same_as(other.true)
                   for one, other in zip(seen["folios"].pieces, full["folios"].pieces, strict=True))
        assert of_observation(seen) == of_observation(full)


@pytest.mark.usefixtures("small_blocks")
def test_only_what_was_touched_is_looked_at(monkeypatch):
    looked = []
    monkeypatch.setattr(observe, "Seen", lambda *args: looked.append(args[5].tolist()) or Seen(*args))
    machine = hgm.Machine("mm_id")
    mapping = machine.process("A").mmap(machine.file("F", "2M", 9, populate=True), "v", minor=True, hgm=True)
    first = machine.observe()
    assert sum(looked, []) == list(range(9))
    looked.clear()
    mapping.uffd_continue(2 << 20, "4K")
    mapping.uffd_continue(3 << 20, "4K")
    mapping.uffd_continue(14 << 20, "2M")
    second = machine.observe()
    assert sum(looked, []) == [1, 7]
    shared = [one is other for one, other in zip(first["folios"].pieces, second["folios"].pieces)]
    assert shared == [False, True, True, False, True], "what did not change takes no memory anew"
    looked.clear()
    assert plain(machine.observe()) == plain(second) and looked == []
    with machine.trial():
        mapping.dontneed()
    assert plain(machine.observe()) == plain(second) and sum(looked, []) == list(range(9))


def test_threads_mark_what_they_touch():
    trace = hgm.load("workload:postcopy,page_size=2M,pages=4")
    whole = hgm.replay(trace, "head_per_leaf", observe_end=True)
    machine = machine_for(trace, "head_per_leaf", {})
    machine.observe()
    with Threads(machine, trace, 2) as native:
        native.run(0, len(trace))
    assert plain(machine.observe()["folios"]) == plain(whole["observations"][-1]["folios"])


def test_a_failed_look_is_made_good(monkeypatch):
    machine = hgm.Machine("mm_id")
    mapping = machine.process("A").mmap(machine.file("F", "2M", 5, populate=True), "v", minor=True, hgm=True)
    machine.observe()
    mapping.uffd_continue(0, "2M")

    def fail(*args):
        raise MemoryError("none")

    with monkeypatch.context() as once:
        once.setattr(observe, "Seen", fail)
        with pytest.raises(MemoryError):
            machine.observe()
    assert_same_as_a_first_look(machine)


def test_frames_that_are_used_again_are_looked_at():
    """A machine so small that what was freed is handed out again."""
    machine, last = hgm.Machine("mm_id", reserve="3M"), 0
    for number in range(60):
        process = machine.process(f"P{number}")
        mapping = process.mmap(anon="4K", length="2M", name=f"a{number}")
        touches = np.zeros(512, OPERATION)
        touches["op"], touches["target"], touches["flags"] = CODES["touch"], mapping.number, WRITE
        touches["offset"] = np.arange(512) * 4096
        machine.run(touches)
        if number % 8 == 0:
            assert_same_as_a_first_look(machine)
        process.exit()
        reused, last = machine.core.nr_folios() < last + 512, machine.core.nr_folios()
    assert reused
    assert_same_as_a_first_look(machine)

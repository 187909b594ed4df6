"""The parts of a machine as Python objects: equality, iteration, walks, blocks, copies, the journal."""

import copy
import gc
import pickle
import re
import threading
import weakref

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.core.machine import EVENT_NEVER_FIRED
from hgmcore.trace.statements import CODES, OPERATION


@pytest.fixture
def machine():
    m = hgm.Machine("mm_id", journal=True)
    f = m.file("F", page_size="2M", pages=4, populate=True)
    v = m.process("A").mmap(f, name="v", minor=True, hgm=True)
    return m, f, v


def test_names_of_one_thing_are_equal(machine):
    m, f, v = machine
    a = v.process
    b = a.fork("B")
    assert a == m.processes[0] == hgm.api.Process(m, 0) and hash(a) == hash(m.processes[0])
    assert v == a.mapping("v") != b.mapping("v") and f == v.file == m.files[0]
    assert len({f, m.files[0], a, b, v, a.mapping("v")}) == 4
    assert a != hgm.Machine("mm_id").process("A") and a != v and a != 0
    assert [p.name for p in m.processes] == ["A", "B"] and a.mappings == (v,)


def test_what_is_unmapped_is_no_more_listed(machine):
    m, f, v = machine
    a = v.process
    w = a.mmap(f, name="w")
    assert a.mappings == (v, w) and not a.exited
    v.munmap("2M", "4M")
    assert [(vma.start, vma.end) for vma in v.vmas] == [(0, 2 << 20), (6 << 20, 8 << 20)]
    assert v.vmas[0].flags == ("shared", "minor", "hgm", "read", "write")
    w.munmap()
    assert a.mappings == (v,) and w.vmas == () and a.mapping("w") == w
    a.exit()
    assert a.mappings == () and a.exited and m.processes == (a,)


def test_they_show_themselves_as_structs(machine):
    m, f, v = machine
    assert repr(f) == '(struct file){.name = "F", .page_size = 2M, .pages = 4, .kind = hugetlb}'
    assert repr(v.process) == '(struct process){.name = "A", .exited = false, .nr_mappings = 1}'
    assert repr(v) == ('(struct mapping){.process = "A", .name = "v", .file = "F", .address = 0x0, .length = 8M, '
                       '.file_offset = 0, .nr_vmas = 1}')
    assert repr(v.vmas[0]) == "(struct vm_area_struct){.start = 0, .end = 8M, .flags = shared|minor|hgm|read|write}"
    assert repr(m).startswith('(struct machine){.scheme = "mm_id", .geometry = "x86-64", .nr_files = 1, ')


def test_a_walk_shows_each_level(machine):
    m, f, v = machine
    v.uffd_continue(0, "8K")
    steps = v.walk("4K")
    assert [step.level for step in steps] == ["p4d", "pud", "pmd", "pte"]
    assert [step.kind for step in steps] == ["table", "table", "table", "leaf"]
    assert steps[-1].address == v.address + 4096 and steps[-1].size == 4096 and steps[-1].frame == 1
    assert steps[-1].index == 1 and steps[0].frame == steps[1].table
    assert repr(steps[-1]) == "(struct pte_t){.table = 4, .index = 1, .address = 0x1000, .kind = leaf, .frame = 0x1}"
    assert [step.kind for step in v.walk("2M")] == ["table", "table", None]
    assert m.walk(v.process, v.address + 4096) == steps
    assert m.walk(m.process("B"), 0) == []
    with pytest.raises(ValueError, match="not below 2"):
        m.walk(v.process, 1 << 60)


def test_every_table_is_listed(machine):
    m, f, v = machine
    v.uffd_continue(0, "8K")
    v.uffd_continue("2M", "4K")
    v.process.fork("B")
    found = list(m.tables())
    mine = [table for table in found if table.process == 0]
    assert [table.level for table in mine] == [4, 3, 2, 1, 1] and len(found) > len(mine)
    assert list(m.tables(v.process))[0].number == mine[0].number
    assert [int(np.count_nonzero(table.entries)) for table in mine] == [1, 1, 2, 2, 1]
    assert repr(mine[-1]) == ("(struct ptdesc){.process = 0, .level = pte, .address = 0x200000, .number = 5, "
                              ".used = 1}")
    with pytest.raises(ValueError, match="read-only"):
        mine[-1].entries[0] = 0


def test_another_machines_process_is_refused(machine):
    m, _, _ = machine
    other = hgm.Machine("mm_id").process("A")
    for look in (m.page_table, m.tables, lambda process: m.walk(process, 0)):
        with pytest.raises(ValueError, match="process 'A' belongs to another machine"):
            look(other)
    with pytest.raises(TypeError, match="is no process"):
        m.page_table(0)


def test_blocks_take_back_and_close(machine):
    m, f, v = machine
    with m.snapshot() as before:
        v.uffd_continue(0, "8K")
        m.process("B")
    assert m.observe()["folios"][0]["mapcount"] == 0 and len(m.processes) == 1 and m.operations == before.operations
    v.uffd_continue(0)
    for _ in range(2):
        with m.restore(before) as same:
            assert same is m and m.observe()["folios"][0]["mapcount"] == 0
            v.uffd_continue("4K")
    assert m.operations == before.operations
    with m.clone() as other:
        other.processes[0].mapping("v").uffd_continue(0)
        assert m.operations == other.operations - 1
    with pytest.raises(ValueError, match="the machine is closed"):
        other.observe()
    with pytest.raises(KeyError), m.snapshot():
        v.uffd_continue(0)
        raise KeyError
    assert m.observe()["folios"][0]["mapcount"] == 0
    with pytest.raises(hgm.OperationError), m.trial():
        v.uffd_continue(0, "8K")
        v.uffd_continue(0)
    assert m.operations == before.operations


def test_a_closed_machine_gives_its_memory_back():
    with hgm.Machine("mm_id") as m:
        f = m.file("F", "2M", 1, populate=True)
        v = m.process("A").mmap(f)
        core, pages, before = weakref.ref(m.core), f.struct_pages(), m.snapshot()
    assert repr(m) == "<closed Machine mm_id>" and m.closed
    for use in (lambda: v.touch(0), lambda: m.run([]), m.cost, m.results, m.snapshot, m.clone, lambda: v.length,
                lambda: m.process("B"), lambda: m.restore(before)):
        with pytest.raises(ValueError, match="the machine is closed"):
            use()
    gc.collect()
    assert int(pages[0]["_refcount"]) == 1 and core() is not None    # the array keeps it
    del pages
    gc.collect()
    assert core() is None
    m.close()


def test_a_copy_is_a_clone(machine):
    m, f, v = machine
    for other in (copy.copy(m), copy.deepcopy(m)):
        other.processes[0].mapping("v").uffd_continue(0)
        assert other.core is not m.core and m.observe()["folios"][0]["mapcount"] == 0
        assert other.observe()["folios"][0]["mapcount"] == 1
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(m)


def test_errors_and_traces_pickle(machine):
    _, _, v = machine
    v.uffd_continue("4K")
    with pytest.raises(OSError) as refused:
        v.uffd_continue("4K")
    for error in (refused.value, pickle.loads(pickle.dumps(refused.value)), copy.copy(refused.value)):
        assert isinstance(error, hgm.OperationError) and error.strerror == "File exists"
        assert (error.op, error.errno, error.error, error.done, error.offset) == ("continue", 17, "EEXIST", 0, 4096)
        assert str(error) == "continue at 0x1000: EEXIST (0 bytes done)"
    for trace in (hgm.workloads.postcopy(page_size="2M", pages=1, seed=1), hgm.load(["file F 2M 1", "observe"])):
        trace.records
        for other in (pickle.loads(pickle.dumps(trace)), copy.deepcopy(trace), copy.copy(trace)):
            assert other == trace and other.name == trace.name and other.header.provenance == trace.header.provenance
            assert hgm.replay(other, "mm_id")["cost"]["lines"] == hgm.replay(trace, "mm_id")["cost"]["lines"]


def test_results_are_cleared_and_costs_reset(machine):
    m, _, v = machine
    v.uffd_continue(0, "16K")
    v.uffd_continue([0, "4K"])
    assert len(m.results()) == 2 and len(m.results(1)) == 1 and m.cost()["lines"] > 0
    ran, memory = m.operations, m.cost()["struct_page_bytes"]
    before = m.snapshot()
    m.clear_results()
    m.reset_cost()
    cost = m.cost()
    assert len(m.results()) == 0 and m.operations == ran and cost["struct_page_bytes"] == memory
    assert cost["table_bytes_peak"] == 4096
    assert all(not value for key, value in cost.items()
               if key not in ("atomics", "struct_page_bytes", "table_bytes_peak"))
    assert not any(cost["atomics"].values())
    v.uffd_continue(["12K", "16K"])
    assert m.results()["index"].tolist() == [ran] and m.results()["errno"].tolist() == [17]
    assert m.cost()["operations"] == 2 and m.cost()["lines"] == 3
    m.restore(before)
    assert m.cost()["operations"] == ran and len(m.results()) == 2


def test_a_fail_that_never_fired_is_not_the_result_of_the_next_operation(machine):
    m, _, v = machine
    m.fail(7)
    assert v.uffd_continue(0) == 4096
    assert m.results()["event"].tolist() == [EVENT_NEVER_FIRED]
    m.fail(7)
    assert v.uffd_continue([4096])["done"].tolist() == [4096]


def test_arrays_lists_and_texts_for_every_operation(machine):
    m, f, v = machine
    v.uffd_continue(np.arange(4) * 4096)
    assert v.uffd_continue([4 << 12, "20K"], ["4K", 4096])["done"].tolist() == [4096, 4096]
    assert v.touch(("0", 8 << 20))["errno"].tolist() == [0, 14]
    assert v.split(["0", "2M"], "2M")["done"].tolist() == [2 << 20] * 2
    assert v.mprotect([0, "2M"], "2M", "r")["errno"].tolist() == [0, 0]
    assert v.collapse(range(0, 1), "2M")["errno"].tolist() == [0]
    assert v.migrate([0], "2M", everything=True)["done"].tolist() == [2 << 20]
    assert f.pin([0, 1], 2)["done"].tolist() == f.unpin(np.array([0, 1]), [2, 2])["done"].tolist() == [2, 2]
    assert v.dontneed([0, "6M"])["done"].tolist() == [8 << 20, 2 << 20]
    assert v.hwpoison([0, 0])["errno"].tolist() == [11, 133]    # and it is done
    assert v.munmap(["6M"])["done"].tolist() == [2 << 20]
    assert v.mremap(["4M", "2M"])["done"].tolist() == [4 << 20, 2 << 20]
    assert f.punch([0, "2M"], "2M")["done"].tolist() == [2 << 20] * 2 and f.punch(["6M"])["done"].tolist() == [2 << 20]
    assert f.truncate(["4M", "2M"])["errno"].tolist() == [0, 0] and f.truncate("8M") is None
    assert f.populate([0, 2], 2)["done"].tolist() == [4 << 20] * 2 and f.populate(range(4))["errno"].tolist() == [0] * 4
    assert len(v.uffd_continue([])) == 0
    for wrong, error in ((lambda: v.touch([1.5]), TypeError), (lambda: v.touch([-1]), ValueError),
                         (lambda: v.touch(np.array([[1]])), ValueError), (lambda: v.touch([[1]]), TypeError),
                         (lambda: f.pin([0, 9]), ValueError), (lambda: f.populate([3], 2), ValueError),
                         (lambda: v.dontneed([0, 1], [1, 2, 3]), ValueError), (lambda: v.touch(["x"]), ValueError),
                         (lambda: v.dontneed(["8G"]), ValueError), (lambda: v.touch([1 << 64]), ValueError)):
        with pytest.raises(error):
            wrong()


def test_the_verbs_of_traces_and_of_python_are_the_same():
    own = {"continue": "uffd_continue", "file": "file", "observe": "observe"}
    spelled = {name for cls in (hgm.Machine, hgm.api.File, hgm.api.Process, hgm.api.Mapping) for name in vars(cls)}
    spelled |= {"file", "process"}
    assert {own.get(name, name) for name in CODES} - {"phase"} - spelled - {"observe"} == set()


def test_a_journal_is_a_trace_that_comes_to_the_same(machine):
    m, f, v = machine
    b = m.process("B")
    w = b.mmap(anon="2M", length="4M", name="w")
    w.touch([0, "2M"], write=True)
    v.uffd_continue([0, 0])
    m.fail()
    with pytest.raises(hgm.OperationError):
        v.uffd_continue("2M")
    v.process.mmap(f, name="u").touch(0)
    with m.trial():
        v.munmap()
    m.run(np.array([(0, 4096, v.number, 0, CODES["dontneed"], 0)], OPERATION))
    b.fork("C").exit()
    v.mremap("2M", to="x")
    trace = m.trace()
    assert hgm.Trace.parse(trace.to_text()) == trace and trace.header.provenance == {"scheme": "mm_id"}
    again = hgm.replay(trace, "mm_id", observe_end=True)
    seen, now = again["observations"][0], m.observe()
    assert seen["folios"] == now["folios"]
    for key in ("leaf_installs", "leaf_removes", "table_allocs", "atomics", "lines"):
        assert again["cost"][key] == m.cost()[key]
    assert len(trace) == m.operations + 1    # the trace declares its file
    other = hgm.Machine("mm_id", journal=True)
    other.run(trace)
    assert other.trace() == trace
    with pytest.raises(ValueError, match="keeps no journal"):
        hgm.Machine("mm_id").trace()


def test_phases_and_files_of_several_traces_in_a_journal():
    trace = hgm.load(["file F 2M 1", "phase one", "populate F 0 1", "phase two"])
    m = hgm.Machine("mm_id", journal=True)
    m.run(trace)
    m.run(trace)
    assert m.trace().header.phases == ["one", "two"] and m.trace().to_text().count("file F") == 1
    with pytest.raises(ValueError, match="phases"):
        m.run(hgm.load(["file F 2M 1", "phase other"]))


def test_keys_of_an_observation_are_those_of_its_docstring():
    text = hgm.Machine.observe.__doc__
    documented = set(re.findall(r"``(\w+)``", text)) - {"era"}
    found = set()

    def collect(value):
        if isinstance(value, dict):
            found.update(value)
            for key, one in value.items():
                if key != "state":
                    collect(one)
        elif not isinstance(value, (np.ndarray, str, int, float)):
            for one in value:
                collect(one)

    for scheme, kind in (("head_per_leaf", "hugetlb"), ("mm_id", "shmem")):
        m = hgm.Machine(scheme)
        f = m.file("F", "2M", 2, populate=True, kind=kind)
        v, w = m.process("A").mmap(f), m.process("B").mmap(anon="2M", length="2M")
        v.touch(0)
        w.touch(0, write=True)
        collect(m.observe())
    assert documented == found


def test_one_thread_at_a_time_and_single_calls_of_many(machine):
    """Single calls of two threads on machines of their own; on one machine a long operation refuses them."""
    m = hgm.Machine("head_per_leaf")
    f = m.file("F", "1G", 1, populate=True)
    v = m.process("A").mmap(f, minor=True, hgm=True)
    v.uffd_continue(np.arange(1 << 18) * 4096)
    refused, done = [], []

    def other():
        while not done:
            try:
                v.touch(0)
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(200):
        try:
            v.dontneed()
            v.uffd_continue(np.arange(1 << 18) * 4096)
        except RuntimeError as error:
            refused.append(str(error))
        if refused:
            break
    done.append(True)
    thread.join()
    assert refused and set(refused) == {"another thread uses this machine"}
    m.observe()


def test_a_scheme_that_fails_in_a_single_call_is_named():
    class Raises(hgm.Scheme):
        """Raises at its second leaf"""

        state = {"compound": "_entire_mapcount"}

        def leaf_install(self, leaf):
            if leaf.map_add("_entire_mapcount", 1) > 1:
                raise KeyError("no more")

        def leaf_remove(self, leaf):
            leaf.map_add("_entire_mapcount", -1)

        def answer_folio(self, folio):
            return folio.word("_entire_mapcount")

    m = hgm.Machine(Raises)
    v = m.process("A").mmap(m.file("F", "2M", 1, populate=True), minor=True, hgm=True)
    assert v.uffd_continue(0) == 4096
    for call in (lambda: v.uffd_continue("4K"), lambda: v.uffd_continue(["8K"])):
        before = m.operations
        with pytest.raises(hgm.SchemeError, match="leaf_install: KeyError") as failed:
            call()
        assert (failed.value.op, failed.value.index) == ("continue", before) and m.operations == before + 1
    assert v.dontneed() == 2 << 20

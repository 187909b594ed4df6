"""A trace on several native threads: the same counts and answers as in order, and stretches without conflicts."""

import ctypes
import itertools
import threading

import numpy as np
import pytest
from comparing import plain
from hypothesis import given, settings
from hypothesis import strategies as st

import hgmcore as hgm
from hgmcore import stretches, threads
from hgmcore.core.view import View, join
from hgmcore.replay import machine_for, replay
from hgmcore.replay import plain as plain_result
from hgmcore.schemes import NAMES, load
from hgmcore.stretches import Layout
from hgmcore.trace import Trace
from hgmcore.trace.statements import CODES, OPERATION

K, M, G = 2**10, 2**20, 2**30
LOCKS = ("none", "pt", "posted")
AT_ONCE = [name for name in NAMES if not load(name).asks_cpu]    # the others count by CPU: what comes, in order
SCANNING = ("logical_scan", "leaf_and_vma", "per_vma")

START = """hgmcore-trace 1
file F 2M 6
file L 1G 1
populate F 0 4
populate L 0 1
mmap A v F 0 12M shared minor hgm wp
mmap B v F 0 12M shared minor hgm
mmap A w L 0 1G shared minor hgm
mmap A u F 4M 8M shared
mmap B u F 0 8M private
"""


@pytest.fixture
def eager(monkeypatch):
    """However short a stretch is, it runs on several threads."""
    monkeypatch.setattr(threads, "SHORT", 1)


def random_trace(seed, n=900):
    """Operations of four threads, most of which may run at the same time; some fail, some conflict."""
    rng = np.random.default_rng(seed)
    lines = []

    def pick(*values):
        return values[rng.integers(len(values))]

    while len(lines) < n:
        name, size = pick(("A v", 12 * M), ("A v", 12 * M), ("B v", 12 * M), ("A w", 8 * M), ("A u", 8 * M),
                          ("B u", 8 * M))
        at = int(rng.integers(size // (4 * K))) * 4 * K
        huge = at & -(2 * M)
        kind = rng.integers(1000)
        if kind < 850:
            length = pick(4 * K, 4 * K, 4 * K, 4 * K, 8 * K, 64 * K, 2 * M, 4 * M)
            at = huge if length >= 2 * M else at
            line = f"continue {name} {at + pick(*[0] * 30, 1)} {length}"
        elif kind < 900:
            line = f"touch {name} {at}{pick('', ' write')}"
        elif kind < 970:
            line = f"dontneed {name} {pick(at, huge)} {pick(4 * K, 64 * K, 2 * M)}"
        else:
            line = pick("observe", f"collapse {name} {huge} {2 * M}", f"punch F {huge % (12 * M)} {2 * M}",
                        "populate F 0 4", "fail 1", f"pin F {rng.integers(6)} 3", f"munmap B u {huge} {2 * M}",
                        f"hwpoison A v {at}", "mmap B u F 0 8M private")
        lines.append(f"@{rng.integers(1, 5)} {line}")
    return Trace.parse(START + "\n".join(lines) + "\nobserve\n")


def shares(observation):
    """Takes out every Pss: sums of fractions, rounded by the order of frames, which threads allocate as they come."""
    return [part.pop("pss") for row in observation["mappings"] for part in (row, row["truth"])]


def same(trace, scheme, native, **options):
    """Replays in order and on `native` threads; asserts that they agree. Returns the second result."""
    expected = replay(trace, scheme, operations="all", **options)
    got = replay(trace, scheme, operations="all", threads=native, **options)
    assert np.array_equal(got["operations"], expected["operations"])
    assert len(got["observations"]) == len(expected["observations"])
    for one, other in zip(got["observations"], expected["observations"], strict=True):
        one, other = plain(one), plain(other)
        assert shares(one) == pytest.approx(shares(other), rel=1e-12, abs=1e-4)
        assert one == other
    assert got["cost"].pop("table_bytes_peak") >= expected["cost"].pop("table_bytes_peak")
    for result in (got, expected):
        del result["cost"]["ns_per_operation"]
        if scheme in SCANNING:
            del result["cost"]["entries_scanned"]
    assert got["cost"] == expected["cost"] and got["counters"] == expected["counters"]
    return got


@pytest.mark.parametrize("locks", LOCKS)
@pytest.mark.parametrize("scheme", AT_ONCE)
def test_random_traces_come_out_as_in_order(eager, scheme, locks):
    result = same(random_trace(LOCKS.index(locks)), scheme, 2, locks=locks)
    assert result["stretches"] > 20 and result["operations_at_once"] > 200


@pytest.mark.parametrize("options", [{"overflow_check": "half"}, {"policy": "base_only"}, {"lookup_first": "yes"},
                                     {"zap_frees_tables": "yes", "batch": "yes"}, {"model": "posted"}], ids=str)
def test_options(eager, options):
    for scheme in ("logical_table", "subtree", "per_page_posted", "mm_id"):
        same(random_trace(7, 500), scheme, 3, **options)


def test_a_scheme_that_counts_by_cpu_runs_in_order():
    result = same(filling(1, 4, 1), "percpu_counter", 4)
    assert result["stretches"] == result["operations_at_once"] == 0


def filling(owners, pages, seed):
    """Four threads that fill `pages` of 2M for each of `owners` processes, every base page twice, at random."""
    rng = np.random.default_rng(seed)
    text = f"hgmcore-trace 1\nfile F 2M {pages}\npopulate F 0 {pages}\n"
    text += "".join(f"mmap P{i} v F 0 {2 * pages}M shared minor hgm\n" for i in range(owners))
    start = Trace.parse(text)
    operations = np.zeros(owners * pages * 512, OPERATION)
    operations["offset"] = np.arange(len(operations)) // owners * 4 * K
    operations["target"] = np.arange(len(operations)) % owners
    operations["length"], operations["op"] = 4 * K, CODES["continue"]
    operations = np.concatenate([operations[rng.permutation(len(operations))] for _ in range(2)])
    thread = rng.integers(1, 5, len(operations), np.uint32)
    observe = np.zeros(1, OPERATION)
    observe["op"] = CODES["observe"]
    return Trace(start.header, np.concatenate([start.operations, operations, observe]),
                 np.concatenate([np.zeros(len(start), np.uint32), thread, [0]]))


@pytest.mark.parametrize("locks", LOCKS)
@pytest.mark.parametrize("scheme", AT_ONCE)
def test_threads_that_fill_the_same_huge_pages(scheme, locks):
    result = same(filling(1, 12, 1), scheme, 4, locks=locks)
    assert result["operations_at_once"] > 6 * 1024


@pytest.mark.parametrize("locks", LOCKS)
def test_threads_that_meet_in_an_empty_table(eager, locks):
    """One comes to each table with the end of an operation that began in the table before."""
    borders = range(512, 1 << 18, 512)
    lines = [f"@1 {verb} A v {page * 4}K 4K" for page in borders for verb in ("continue", "dontneed")]
    lines.append("observe")
    for page in borders:
        lines.append(f"@1 continue A v {page * 4 - 4}K 8K")
        lines += [f"@2 continue A v {(page + i) * 4}K 4K" for i in (1, 2, 3)]
    lines += [f"@1 dontneed A v {page * 4 - 4}K 20K" for page in borders]
    trace = Trace.parse("hgmcore-trace 1\nfile L 1G 1\npopulate L 0 1\nmmap A v L 0 1G shared minor hgm\n"
                        + "\n".join(lines) + "\nobserve\n")
    same(trace, "logical_counter", 2, locks=locks, policy="base_only")
    for _ in range(100):
        result = replay(trace, "logical_counter", threads=2, locks=locks, policy="base_only")
        assert result["operations_at_once"] > 2000
        assert result["observations"][-1]["folios"][0]["mapcount"] == 0


@pytest.mark.parametrize("scheme", ["double_map", "nr_pages_mapped", "large_mapcount", "logical_counter"])
def test_processes_that_map_one_file(scheme):
    assert same(filling(3, 8, 2), scheme, 4)["operations_at_once"] > 12 * 1024


def test_processes_take_their_slots_in_order():
    """Where a scheme's state tells who came first, those of one huge page take turns."""
    trace = filling(3, 2, 3)
    assert same(trace, "mm_id", 4)["operations_at_once"] == 0
    assert same(trace, "large_mapcount", 4)["operations_at_once"] > 0


@pytest.mark.parametrize("scheme", ["mm_id", "total_mapped_pages", "no_page_mapcount"])
@pytest.mark.parametrize("verb", ["continue", "touch"])
def test_owners_are_counted_under_their_lock(scheme, verb):
    """While somebody holds the bit lock in page 1, a thread that maps a leaf waits, and changes no slot.

    Two threads that race lose an update too seldom to rely on: the atomics on the same line come just before.
    """
    minor, length = ("minor hgm", " 4K") if verb == "continue" else ("hgm", "")
    text = f"hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared {minor}\npopulate F 0 1\n"
    trace = Trace.parse(f"{text}{verb} A v 0{length}\n{verb} A v 8K{length}\n")
    machine = machine_for(trace, scheme, {"policy": "base_only"})
    machine.run(trace.records[:-1])
    page1 = machine.core.pages(1 + int(machine.core.folios()["pfn"][0]), 1)
    slot = ctypes.c_uint32.from_address(page1["_mm_id"].ctypes.data)
    before = page1["_mm_id_mapcount"].tolist()
    view = View(machine.core, trace.operations[-1:].view(np.uint8), 1, True)
    slot.value |= 1 << 31
    thread = threading.Thread(target=view.run, args=(machine.engine,))
    thread.start()
    try:
        thread.join(0.2)
        assert thread.is_alive() and page1["_mm_id_mapcount"].tolist() == before
    finally:
        slot.value &= ~(1 << 31)
        thread.join(60)
    join(machine.core, [view], view.results())
    folio = machine.observe()["folios"][0]
    assert folio["mapcount"] == folio["truth"]["leaves"] == 2
    assert slot.value >> 31 == 0 and folio["state"]["slots"] == [[1, 2], [0, 0]]


def test_page_tables_that_processes_share(eager):
    """Touches far apart meet in one shared table."""
    rng = np.random.default_rng(4)
    names = ("A v", "B v", "C v")
    lines = [f"@{rng.integers(1, 4)} {('touch', 'touch', 'dontneed')[rng.integers(3)]} {names[rng.integers(3)]} "
             f"{rng.integers(1024) * 2}M" for _ in range(600)]
    lines = [line + " 2M" * ("dontneed" in line) for line in lines]
    head = "".join(f"mmap {name} F 0 2G shared\n" for name in names)
    result = same(Trace.parse(f"hgmcore-trace 1\nfile F 2M 1024\n{head}" + "\n".join(lines) + "\nobserve\n"),
                  "head_per_leaf", 3)
    assert result["stretches"] == 0    # each conflicts with the one before of another thread


def test_what_is_told_to_fail_fails(eager):
    """The operation behind `fail` stands alone, whoever's it is."""
    text = "hgmcore-trace 1\nfile F 2M 64\npopulate F 0 64\nmmap A v F 0 128M shared minor hgm\n"
    for i in range(64):
        fail = "@1 fail 1\n" if i % 8 == 0 else ""
        text += f"{fail}@1 continue A v {i * 2}M 4K\n@2 continue A v {i * 2 * K + 4}K 4K\n"
    result = same(Trace.parse(text + "observe\n"), "subtree", 2)
    assert len(result["operations"]["errno"].nonzero()[0]) == 8 and result["stretches"] == 8


def test_different_files_are_touched_at_the_same_time(eager):
    text = "hgmcore-trace 1\n" + "".join(f"file F{i} 2M 64\nmmap P{i} v F{i} 0 128M shared\n" for i in range(4))
    text += "".join(f"@{i % 4 + 1} touch P{i % 4} v {i // 4 * 2}M\n" for i in range(256)) + "observe\n"
    assert same(Trace.parse(text), "head_per_leaf", 4)["stretches"] == 1


@pytest.mark.parametrize("locks, each", [("none", 0), ("pt", 1), ("posted", 4)])
@pytest.mark.parametrize("native", [1, 2])
@pytest.mark.parametrize("length", [4 * K, 2 * M], ids=["piece by piece", "at once"])
def test_locks_of_each_leaf(locks, each, native, length):
    lines = [f"@{i % 2} continue A v {i * length} {length}" for i in range(32 * M // length)]
    trace = Trace.parse("hgmcore-trace 1\nfile F 2M 16\npopulate F 0 16\nmmap A v F 0 32M shared minor hgm\n"
                        + "\n".join(lines) + "\n")
    cost = replay(trace, "nr_pages_mapped", threads=native, locks=locks, policy="base_only")["cost"]
    assert (cost["leaf_installs"], cost["locks"]) == (16 * 512, 16 * 512 * each)
    assert cost["atomics"]["persistent"] == 3 * 16 * 512


def test_a_recording_is_few_stretches():
    trace = hgm.workloads.postcopy(page_size="1G", pages=1, urgent=0.3, observations=2)
    result = same(trace, "nr_pages_mapped", 2)
    assert result["stretches"] == 2 and result["operations_at_once"] == 262144
    assert result["threads"] == 2


def test_one_thread_of_the_trace_stays_one():
    trace = hgm.workloads.random(page_size="2M", pages=8)
    result = replay(trace, "subtree", threads=4)
    assert (result["stretches"], result["operations_at_once"]) == (0, 0)
    assert plain_result(result["operations"]) == []


def test_memory_runs_out_on_a_thread(monkeypatch):
    """What one native thread meets is the replay's error, once all have stopped."""
    stopped, number = [], itertools.count()

    class Poor(View):
        def run(self, engine):
            super().run(engine)
            stopped.append(self)
            if next(number) == 1:
                raise MemoryError("no memory for page tables or struct pages")

    monkeypatch.setattr(threads, "View", Poor)
    with pytest.raises(MemoryError, match="page tables"):
        replay(filling(1, 16, 1), "subtree", threads=4)
    assert len(stopped) == 4


@pytest.mark.parametrize("op, mapping", [("munmap", 0), ("continue", 1)])
def test_a_view_runs_what_leaves_the_mappings_alone(op, mapping):
    machine = hgm.Machine("subtree")
    machine.process("A").mmap(machine.file("F", "2M", 1))
    record = np.zeros(1, OPERATION)
    record["op"], record["target"] = CODES[op], mapping
    with pytest.raises(ValueError, match="record 0"):
        View(machine.core, record.view(np.uint8), 1, True)


@pytest.mark.parametrize("number", [0, -1, 257, 2.0, "2", True, None])
def test_wrong_numbers_of_threads(number):
    with pytest.raises(ValueError, match="is not a number from 1 to 256"):
        replay(Trace.parse("hgmcore-trace 1\n"), "subtree", threads=number)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 5))
def test_threads_of_the_trace_are_dealt_whole(thread, native):
    worker = threads.dealt(np.array(thread, np.uint32), native)
    assert worker.max() < native
    assert len({*zip(thread, worker.tolist())}) == len({*thread})
    assert len({*worker.tolist()}) == min(native, len({*thread}))


# Stretches against their definition. Two mappings of file 0, of 2M pages, and one of file 1, of a 1G page; process 0
# has mappings 0 and 2, process 1 has 1.

PER_TABLE, HUGE = 512, (512, 512 * 512)
KNOWN = Layout(12, 9, np.array([0, 1, 0]), np.array([0, 0, 1]), np.array([0, 1024, 0]), np.array([2048, 1024, 4096]),
               np.array(HUGE), np.array([0, 4]), np.array([False, False]), np.array([False, False]))

places = st.tuples(st.integers(0, 4), st.integers(0, 2)).map(lambda place: place[0] * 512 + place[1])
operation = st.tuples(st.sampled_from(["continue"] * 5 + ["touch", "dontneed"]), st.integers(0, 2), places,
                      st.sampled_from([0, 1, 1, 1, 2, 512, 700]), st.integers(0, 2))


def records(operations):
    out = np.zeros(len(operations), OPERATION)
    for row, (verb, mapping, first, length, _) in zip(out, operations):
        row["op"], row["target"], row["offset"] = CODES[verb], mapping, first * 4 * K
        row["length"] = 0 if verb == "touch" else length * 4 * K
    return out


def used(one, known):
    """(base pages, page tables or base pages to compare, huge pages of files) that an operation is about."""
    verb, mapping, first, length, _ = one
    length = 1 if verb == "touch" else length
    pages = range(min(first, known.pages[mapping]), min(first + length, known.pages[mapping]))
    file = known.file[mapping]
    if known.other[file]:
        huge = {"other" for page in pages}
    else:
        huge = {(file, 0 if known.shared[file] else (known.first[mapping] + page) // known.huge[file])
                for page in pages}
    return pages, {(mapping, page) for page in pages}, {(mapping, page // PER_TABLE) for page in pages}, huge


def conflict(one, other, known, strict):
    """Do two operations of different workers conflict? strict: huge pages whose `continue`s keep their order."""
    if one[4] == other[4]:
        return False
    (these, pages, tables, huge), (those, more_pages, more_tables, more_huge) = used(one, known), used(other, known)
    if one[0] != "continue" or other[0] != "continue" or huge & more_huge & strict:
        return bool(huge & more_huge)
    if len(these) >= PER_TABLE or len(those) >= PER_TABLE:
        return bool(tables & more_tables)
    return bool(pages & more_pages)


@settings(max_examples=150)
@given(st.lists(operation, min_size=1, max_size=25), st.booleans(), st.booleans(), st.booleans(),
       st.lists(st.booleans(), min_size=2, max_size=2))
def test_stretches_are_the_longest_without_conflicts(operations, shared, ordered, first_come, other):
    known = KNOWN._replace(shared=np.array([shared, False]), other=np.array(other))
    owners = {}
    for one in operations:
        for huge in used(one, known)[3]:
            owners.setdefault(huge, set()).add(int(known.process[one[1]]))
    strict = {huge for huge in owners if huge == "other" or ordered or first_come and len(owners[huge]) > 1}
    bounds, together = stretches.stretches(records(operations), np.array([one[4] for one in operations]), known,
                                           ordered=ordered, first_come=first_come)
    expected = [0]
    for i, one in enumerate(operations):
        if any(conflict(before, one, known, strict) for before in operations[expected[-1]:i]):
            expected.append(i)
    assert bounds == [*expected, len(operations)]
    for i, (start, stop) in enumerate(zip(bounds, bounds[1:])):
        workers = {}
        for one in operations[start:stop]:
            for huge in used(one, known)[3]:
                workers.setdefault(huge, set()).add(one[4])
        assert together[i] == any(len(some) > 1 for some in workers.values())


@pytest.mark.parametrize("locks", LOCKS)
def test_ranges_and_single_pages_that_fill_the_same_tables(eager, locks):
    """All but the last piece of each table goes again: a child that was not counted would take the map with it."""
    pages = 512
    start = Trace.parse(f"hgmcore-trace 1\nfile F 2M {pages}\npopulate F 0 {pages}\n"
                        f"mmap A v F 0 {2 * pages}M shared minor hgm\n")
    at = np.arange(pages * 512).reshape(pages, 512)
    ranges, single = at[:, :256:4].ravel(), np.delete(at, np.r_[0:256:4, 1:256:4], axis=1).ravel()
    offset = np.concatenate([ranges, single, at[:, :-1].ravel()]) * 4 * K
    operations = np.zeros(len(offset) + 1, OPERATION)
    operations["offset"][:-1], operations["length"][:-1] = offset, 4 * K
    operations["length"][:len(ranges)] = 8 * K
    operations["op"] = CODES["dontneed"]
    operations["op"][:len(ranges) + len(single)] = CODES["continue"]
    operations["op"][-1] = CODES["observe"]
    thread = np.ones(len(operations), np.uint32)
    thread[len(ranges):len(ranges) + len(single)] = 2
    trace = Trace(start.header, np.concatenate([start.operations, operations]),
                  np.concatenate([np.zeros(len(start), np.uint32), thread]))
    result = same(trace, "logical_counter", 2, locks=locks)
    assert {folio["mapcount"] for folio in result["observations"][-1]["folios"]} == {1}

"""Snapshots are exact: after restore() or clone() a machine answers, costs and goes on as if nothing had happened."""
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from comparing import CoreMachine, plain
from test_invariants import sequence

import hgmcore as hgm
from hgmcore.replay import machine_for
from hgmcore.schemes import NAMES
from hgmcore.trace.statements import CODES, OPERATION

K, M = 2**10, 2**20
OPTIONS = [{}, {"batch": "yes", "fault_around": "folio", "era": "6.15"},
           {"lookup_first": "no", "zap_frees_tables": "no"}]


def on_hugetlb(seed, scheme):
    lines, undo = sequence(seed, scheme, steps=40)
    return lines + undo


def on_memory(seed, scheme):
    """Statements on shmem and anonymous memory at random."""
    pick = random.Random(seed)
    processes, moved, children = ["A"], 0, 0
    lines = ["file S 2M 3 shmem", "file T 4K 700 shmem", "populate S 0 2", "mmap A v S 0 6M shared minor",
             "mmap A t T 0 2M shared", "mmap A w anon:2M 0 6M private", "mmap A x anon:4K 0 1M private"]
    for _ in range(60):
        process, name = pick.choice(processes), pick.choice("vvtwwwx")
        at = pick.choice([0, 0, 4 * K, 8 * K, 2 * M - 4 * K, 2 * M, 2 * M + 4 * K, 4 * M])
        length = pick.choice([4 * K, 8 * K, 64 * K, 2 * M, 4 * M])
        kind = pick.choice(["touch"] * 5 + ["write"] * 5 + ["dontneed", "dontneed", "munmap", "collapse", "mprotect",
                                                            "punch", "fork", "exit", "move", "fail", "truncate", "pin"])
        if kind in ("touch", "write"):
            lines.append(f"touch {process} {name} {at}" + " write" * (kind == "write"))
        elif kind in ("dontneed", "munmap", "collapse"):
            lines.append(f"{kind} {process} {name} {at} {length}")
        elif kind == "mprotect":
            lines.append(f"mprotect {process} {name} {at} {length} {pick.choice(['r', 'rw'])}")
        elif kind == "punch":
            lines.append(f"punch S {pick.choice([0, 4 * K, 2 * M])} {pick.choice([4 * K, 2 * M])}")
        elif kind == "truncate":
            lines.append(f"truncate S {pick.choice([2 * M, 6 * M])}")
        elif kind == "fork" and len(processes) < 4:
            children += 1
            processes.append(f"C{children}")
            lines.append(f"fork {process} {processes[-1]}")
        elif kind == "exit" and len(processes) > 1 and pick.random() < 0.3:
            lines.append(f"exit {processes.pop()}")
        elif kind == "move":
            moved += 1
            lines.append(f"mremap {process} {name} {at} {length} m{moved}")
        elif kind == "fail":
            lines.append(f"fail {pick.choice([1, 2])}")
        elif kind == "pin":
            lines.append(f"{pick.choice(['pin', 'unpin'])} S 0 1")
    return lines


def seen(machine):
    """All data of a machine that can be read: tables, struct pages, folios, results, costs and mappings."""
    core = machine.core
    tables = [core.table(process=p).tolist() for p in range(len(machine.header.processes)) if has_root(core, p)]
    last = int(core.folios()["pfn"].max(initial=0))
    pages = core.pages(0, last).copy() if last else np.zeros(0)
    return (plain(machine.observe()), machine.cost(), machine.results().tolist(), machine.operations, tables,
            pages.tobytes(), [core.vmas(i) for i in range(len(machine.header.mappings))], core.mappings().tolist(),
            [list(table) for table in (machine.header.files, machine.header.processes, machine.header.mappings)])


def has_root(core, process):
    try:
        return len(core.table(process=process)) > 0
    except IndexError:
        return False


def astray(machine, seed, scheme):
    """Change the machine in ways that a restore must undo: operations on what it has, and new declarations."""
    pick = random.Random(seed)
    for mapping in machine.header.mappings:
        number = machine.header.mappings.index(mapping)
        records = np.zeros(6, OPERATION)
        records["op"] = [CODES[name] for name in ("continue", "touch", "dontneed", "collapse", "touch", "munmap")]
        records["target"] = number
        records["offset"] = [pick.choice([0, 4 * K, 2 * M]) for _ in records]
        records["length"] = [4 * K, 0, 4 * K, 2 * M, 0, pick.choice([4 * K, 2 * M])]
        records["flags"][1] = 32
        machine.run(records)
    if f"new{seed}" not in [file.name for file in machine.header.files]:
        file = machine.file(f"new{seed}", pick.choice(["2M", "1G"]), pick.choice([1, 5]), populate=True)
        mapping = machine.process(f"N{seed}").mmap(file, minor=True, hgm=scheme != "hugetlb")
        if scheme != "hugetlb":
            mapping.uffd_continue(np.arange(20) * 4096)


@pytest.mark.parametrize("statements", [on_hugetlb, on_memory])
@pytest.mark.parametrize("scheme", NAMES)
def test_nothing_happened(scheme, statements):
    """One machine runs a random trace; another is led astray and put back, or replaced by its clone, all the way."""
    restored = cloned = 0
    for seed, options in enumerate(OPTIONS):
        pick, lines = random.Random(seed), statements(seed, scheme)
        straight, winding = CoreMachine(scheme, **options), CoreMachine(scheme, **options)
        kept = None
        for number, line in enumerate(lines):
            choice = pick.random()
            machine = winding.machine
            if choice < 0.15:
                before = machine.snapshot()
                astray(machine, number, scheme)
                machine.restore(before)
                restored += 1
            elif choice < 0.25:
                winding.machine = machine.clone()
                astray(machine, number, scheme)    # the clone does not care
                cloned += 1
            elif choice < 0.3:
                kept = machine.snapshot()
            elif choice < 0.4 and kept is not None:    # to the past, elsewhere from there, and to the present again
                present = machine.snapshot()
                machine.restore(kept)
                astray(machine, number + 1000, scheme)
                machine.restore(present)
            assert winding.run(line) == straight.run(line), (seed, line)
            if number % 7 == 6:
                assert seen(winding.machine) == seen(straight.machine), (seed, line)
        assert seen(winding.machine) == seen(straight.machine)
    assert restored > 5 and cloned > 5


def test_a_large_machine_comes_back():
    """More struct pages than a snapshot copies unasked; schemes that write all of them or the first ones of a folio."""
    for scheme in ("head_per_leaf", "nr_pages_mapped"):
        machine = hgm.Machine(scheme)
        file = machine.file("F", "1G", 2, populate=True)
        mapping = machine.process("A").mmap(file, "v", minor=True, hgm=True)
        mapping.uffd_continue(np.arange(0, 262144, 24) * 4096)
        before, state = machine.snapshot(), seen(machine)
        mapping.uffd_continue(np.arange(1, 262144, 24) * 4096)
        mapping.uffd_continue(2**30, "1G")
        other = machine.file("G", "1G", 1, populate=True)
        machine.process("B").mmap(other, minor=True, hgm=True).uffd_continue(np.arange(1000) * 4096)
        after, later = machine.snapshot(), seen(machine)
        machine.restore(before)
        assert seen(machine) == state
        assert seen(machine.clone()) == state
        machine.restore(after)
        assert seen(machine) == later


def test_what_keeps_its_memory_asks_the_system_for_none():
    trace = hgm.Trace.parse("hgmcore-trace 1\nfile F 2M 128\nmmap A v F 0 256M shared minor hgm\npopulate F 0 128\n"
                            "continue A v 0 256M\n")
    machine = machine_for(trace, "special_bit", {"policy": "base_only", "transient": "counted"})
    machine.run(trace.records[:-1])
    before, times = machine.snapshot(), {True: [], False: []}
    for keep in (True, False) * 20:    # 128 tables each time, and as many calls of madvise() or none
        machine.restore(before, keep=keep)
        times[keep].append(machine.run(trace.records[-1:]))
    assert min(times[True]) < 0.85 * min(times[False])
    fresh = machine_for(trace, "special_bit", {"policy": "base_only", "transient": "counted"})
    fresh.run(trace.records[:-1])
    machine.restore(before, keep=True)
    assert machine.cost() == fresh.cost() and machine.observe()["folios"] == fresh.observe()["folios"]


def test_a_trial_is_taken_back_also_where_it_raises():
    machine = hgm.Machine("mm_id")
    mapping = machine.process("A").mmap(machine.file("F", populate=True), minor=True, hgm=True)
    mapping.uffd_continue(0, "4K")
    before = seen(machine)
    with machine.trial():
        mapping.dontneed()
        assert machine.observe()["folios"][0]["mapcount"] == 0
    assert seen(machine) == before
    with pytest.raises(ZeroDivisionError), machine.trial():
        mapping.dontneed()
        1 / 0
    assert seen(machine) == before


def test_a_snapshot_outlives_its_machine():
    machine = hgm.Machine("subtree")
    machine.process("A").mmap(machine.file("F", populate=True), minor=True, hgm=True).uffd_continue(0, "4K")
    snapshot, state = machine.snapshot(), seen(machine)
    del machine
    other = hgm.Machine("subtree")
    other.restore(snapshot)
    assert seen(other) == state and snapshot.nbytes > 4096 and "subtree" in repr(snapshot)


def test_snapshots_of_other_machines_are_refused():
    snapshot = hgm.Machine("subtree").snapshot()
    for other in (hgm.Machine("mm_id"), hgm.Machine("subtree", era="6.2", geometry="arm64-4k"),
                  hgm.Machine("subtree", era="6.15")):
        with pytest.raises(ValueError, match="another scheme, geometry or options"):
            other.restore(snapshot)


def test_a_reservation_is_a_bound():
    """A machine that may not grow says so, keeps what was done, goes on, and takes no snapshot that does not fit."""
    machine = hgm.Machine("head_per_leaf", reserve="2M")
    mapping = machine.process("A").mmap(machine.file("F", "2M", 4000), shared=True, minor=False)
    with pytest.raises(MemoryError, match="bytes of address space"):
        machine.run(np.array([(i << 21, 0, 0, 0, CODES["touch"], 0) for i in range(4000)], OPERATION))
    first = machine.observe()["folios"]
    assert 0 < len(first) < 4000
    mapping.dontneed(0, "2M")
    assert machine.observe()["folios"][0]["mapcount"] == first[0]["mapcount"] - 1
    large = hgm.Machine("head_per_leaf")
    large.file("F", "2M", 4000, populate=True)
    with pytest.raises(MemoryError, match="too small for the snapshot"):
        machine.restore(large.snapshot())
    with pytest.raises(ValueError, match="at least"):
        hgm.Machine("head_per_leaf", reserve="4K")


def test_ten_thousand_machines_live_side_by_side():
    machines = [hgm.Machine("mm_id", reserve="4M") for _ in range(10_000)]
    mappings = [m.process("A").mmap(m.file("F", populate=True), minor=True, hgm=True) for m in machines]
    for number, mapping in enumerate(mappings):
        mapping.uffd_continue((number % 512) * 4096, "4K")
    for machine in machines[::500]:
        assert machine.observe()["folios"][0]["mapcount"] == 1


def test_a_small_address_space_leaves_it_usable():
    code = ("import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30));"
            "import hgmcore as hgm; m = hgm.Machine('mm_id');"
            "v = m.process('A').mmap(m.file('F', '1G', populate=True), minor=True, hgm=True);"
            "import numpy as np; v.uffd_continue(np.arange(262144) * 4096); c = m.clone();"
            "print(c.observe()['folios'][0]['mapcount'])")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={
        **os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert ran.stdout.strip() == "262144", ran.stderr


def test_one_thread_at_a_time():
    """A second thread gets an error, and no count is lost."""
    machine = hgm.Machine("head_per_leaf")
    mapping = machine.process("A").mmap(machine.file("F", "1G", 8, populate=True), minor=True, hgm=True)
    refused, snapshots = [], []

    def fill(part):
        offsets = np.arange(part, 8 * 262144, 2) * 4096
        try:
            mapping.uffd_continue(offsets)
        except RuntimeError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=fill, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        try:
            snapshots.append(machine.snapshot())
            snapshots.clear()
        except RuntimeError as error:
            refused.append(str(error))
    for thread in threads:
        thread.join()
    assert set(refused) == {"another thread uses this machine"}
    folios = machine.observe()["folios"]
    assert sum(folio["mapcount"] for folio in folios) == sum(folio["truth"]["leaves"] for folio in folios)

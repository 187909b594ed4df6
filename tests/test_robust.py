"""Small traces with extreme numbers, and interrupted runs: nothing may crash, hang or reach beyond its mapping."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.schemes import NAMES
from hgmcore.trace.statements import CODES, OPERATION


def machine_of(scheme, *lines):
    trace = hgm.load(list(lines))
    machine = hgm.Machine(scheme)
    machine.declare(trace.header)
    machine.run(trace.operations)
    return machine


@pytest.mark.parametrize("scheme", NAMES)
def test_a_file_of_65536_folios_of_one_page_is_observed(scheme):
    """The last folio's struct page is the last of the machine: nothing behind it may be read."""
    machine = machine_of(
        scheme, "file S 4K 65536 shmem", "populate S 0 65536", "mmap A v S 0 256M shared", "touch A v 0"
    )
    folios = machine.observe()["folios"]
    assert len(folios) == 65536 and folios[0]["page_mapcount"].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("length", ["512T", "4611686018427387904"])
def test_munmap_ends_where_the_mapping_ends(length):
    """It neither walks the rest of the address space nor unmaps what lies there."""
    machine = machine_of(
        "mm_id",
        "mmap A z anon:2M 0 2M private",
        "mmap A w anon:4K 0 4M private",
        "touch A w 0 write",
        "touch A z 0 write",
        f"munmap A z 0 {length}",
    )
    by_name = {row["mapping"]: row["rss"] for row in machine.observe()["mappings"]}
    assert by_name == {"w": 4096}
    assert [folio["truth"]["leaves"] for folio in machine.observe()["folios"]] == [1]


def test_a_long_run_can_be_interrupted():
    """SIGINT ends a run within a second; the machine can still be used."""
    machine = hgm.Machine("logical_scan")
    mapping = machine.process("A").mmap(machine.file("F", "1G", populate=True), minor=True, hgm=True)
    mapping.uffd_continue(2**30 - 4096)
    records = np.zeros(1 << 22, OPERATION)
    records["op"], records["length"] = [CODES["continue"], CODES["dontneed"]] * (1 << 21), 4096
    sent = []

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        machine.run(records)
        timer.join()  # the run was faster than that
        raise AssertionError("the run ended before the signal")
    assert time.monotonic() - sent[0] < 1
    assert mapping.dontneed() == 2**30


def test_a_bare_engine_and_none_are_refused():
    from hgmcore.core.core import Engine

    machine = hgm.Machine("mm_id")
    record = np.zeros(1, OPERATION)
    record["op"] = CODES["observe"]
    for engine in (None, Engine()):
        with pytest.raises(TypeError):
            machine.core.run(engine, record.view(np.uint8))


def test_refusals_do_not_slow_a_call():
    """One call after a hundred thousand refusals takes no longer than after none, by a factor of three."""
    machine = hgm.Machine("head_per_leaf")
    mapping = machine.process("A").mmap(machine.file("F", populate=True), minor=True, hgm=True)

    def calls():
        start = time.thread_time_ns()
        for _ in range(2000):
            mapping.dontneed(0, "4K")
        return time.thread_time_ns() - start

    calls()
    before = min(calls() for _ in range(3))
    mapping.uffd_continue(np.full(100_000, 4097))
    assert len(machine.results()) == 100_000
    assert min(calls() for _ in range(3)) < 3 * before


@pytest.mark.parametrize("file", ["file F 2M 4", "file F 2M 4 shmem", None])
def test_ranges_that_wrap_around(file):
    """mprotect has ENOMEM for an end that is not behind the start (do_mprotect_pkey); the other calls have EINVAL."""
    mapped = [file, "populate F 0 4", "mmap A v F 0 8M shared"] if file else ["mmap A v anon:2M 0 8M private"]
    machine = machine_of("head_per_leaf", *mapped)
    records = np.zeros(8, OPERATION)
    records["op"] = [CODES[op] for op in ("mprotect", "dontneed", "munmap", "mprotect") for _ in range(2)]
    records["offset"], records["length"] = 2 << 20, [2**64 - (2 << 20), 2**64 - 1] * 4
    records["offset"][6:] += 1
    machine.run(records)
    errors = [hgm.Machine.error_name(row) for row in machine.results()[-8:]]
    assert errors == ["ENOMEM"] * 2 + ["EINVAL"] * 6

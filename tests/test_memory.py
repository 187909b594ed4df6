"""Memory: what a replay adds, and what struct pages really take, as the system sees it."""

import numpy as np
import pytest
from comparing import plain

import hgmcore as hgm
from hgmcore.trace.statements import ALL, CODES, NO_ARG, OPERATION

PIECES = 262144
PAGES = 8


def resident():
    """Resident bytes of this process."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024


@pytest.mark.parametrize("scheme", ["head_per_leaf", "nr_pages_mapped", "logical_counter"])
def test_a_replay_adds_little_more_than_its_tables_and_struct_pages(scheme):
    operations = np.zeros(PAGES * PIECES, OPERATION)
    operations["offset"] = np.arange(PAGES * PIECES) * 4096
    operations["length"] = 4096
    operations["op"] = CODES["continue"]
    machine = hgm.Machine(scheme)
    file = machine.file("F", "1G", PAGES, populate=True)
    machine.process("A").mmap(file, minor=True, hgm=True)
    machine.run(operations[:1])
    before, counted = resident(), machine.cost()
    machine.run(operations[1:])
    after, cost = resident(), machine.cost()
    needed = sum(cost[name] - counted[name] for name in ("table_bytes_peak", "struct_page_bytes"))
    assert len(machine.results()) == 0
    assert needed >= PAGES * 512 * 4096
    assert after - before <= 1.2 * needed


def test_struct_pages_that_no_scheme_touches_are_not_there():
    """Struct pages that the vmemmap optimisation would free are never committed, and reading them commits nothing."""
    sizes = {}
    for scheme in ("head_per_leaf", "nr_pages_mapped"):
        machine = hgm.Machine(scheme)
        file = machine.file("F", "1G", 1, populate=True)
        mapping = machine.process("A").mmap(file, minor=True, hgm=True)
        mapping.uffd_continue(np.arange(PIECES) * 4096)
        before = machine.cost()["struct_page_bytes"]
        machine.observe()
        sizes[scheme] = machine.cost()["struct_page_bytes"]
        assert sizes[scheme] == before
    assert sizes == {"head_per_leaf": 4096, "nr_pages_mapped": PIECES * 64}


def migrations(count, length):
    operations = np.zeros(count, OPERATION)
    operations["op"], operations["length"], operations["arg"] = CODES["migrate"], length, NO_ARG
    operations["flags"] = ALL
    return operations


@pytest.mark.parametrize("scheme", ["head_per_leaf", "mm_id"])
def test_frames_of_freed_folios_come_back(scheme):
    """More 1G pages are allocated, one after the other, than there are frames for; so is a file written again."""
    machine = hgm.Machine(scheme)
    file = machine.file("F", "1G", 2, populate=True)
    mapping = machine.process("A").mmap(file, minor=True, hgm=True)
    mapping.uffd_continue(0, "1G")
    mapping.uffd_continue("1G", "4K")
    pieces = [{key: folio[key] for key in ("refcount", "mapcount", "state", "truth")}
              for folio in plain(machine.observe())["folios"]]
    count = 5000 if scheme == "head_per_leaf" else 20
    machine.run(migrations(count, 1 << 30))
    assert len(machine.results()) == 0
    assert [{key: folio[key] for key in ("refcount", "mapcount", "state", "truth")}
            for folio in plain(machine.observe())["folios"]] == pieces
    mapping.munmap()
    file.truncate(0)
    assert machine.observe()["folios"] == []


def test_a_small_machine_lives_on_what_it_frees():
    """Base pages, huge ones and their pieces; what is mapped is never given to another."""
    machine = hgm.Machine("mm_id", reserve="32M")
    process = machine.process("A")
    kept = process.mmap(anon="2M", length="4M", name="kept")
    for offset in range(0, 4 << 20, 1 << 20):
        kept.touch(offset, write=True)
    other = process.mmap(anon="2M", length="8M", name="other")
    seen = plain(machine.observe())["folios"]
    for _ in range(400):
        for offset in range(0, 8 << 20, 2 << 20):
            other.touch(offset, write=True)
        other.dontneed(4096, 8192)
        other.touch(4096, write=True)
        other.dontneed()
    assert plain(machine.observe())["folios"] == seen


def test_a_machine_that_ran_out_of_memory_says_where_and_goes_on():
    machine = hgm.Machine("mm_id", reserve="1M")
    file = machine.file("F", "2M", 64)
    trace = np.zeros(64, OPERATION)
    trace["op"], trace["offset"], trace["length"] = CODES["populate"], np.arange(64), 1
    with pytest.raises(MemoryError, match=r"at operation \d+; the machine has \d+ bytes") as error:
        machine.run(trace)
    number = int(str(error.value).partition("operation ")[2].partition(";")[0])
    assert 0 < number < 64 and machine.operations == number + 1
    folios = machine.observe()["folios"]
    assert len(folios) == number
    file.truncate(0)
    assert machine.observe()["folios"] == []
    file.populate(0, 1)
    assert len(machine.observe()["folios"]) == 1

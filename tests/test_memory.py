"""Memory: what a replay adds, and what struct pages really take, as the system sees it."""

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.trace.statements import CODES, OPERATION

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

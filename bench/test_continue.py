"""4K continues over one 1G page, one operation each, against the least that each scheme must do.

Page tables stand ready and are faulted in on both sides. hgmcore and the roofline take turns, so that noise hits
both; the ratio is of their medians.
"""

import time

import numpy as np
import pytest
from rooflines import Gigabyte

import hgmcore as hgm
from hgmcore.statements import CODES, OPERATION

PIECES = 262144
ROOFLINES = {"head_per_leaf": "continue_per_leaf", "logical_counter": "continue_per_subtree"}
GOAL = 2.0


def continues(order):
    operations = np.zeros(PIECES, OPERATION)
    operations["offset"] = np.arange(PIECES) * 4096
    if order == "random":
        np.random.default_rng(1).shuffle(operations["offset"])
    operations["length"] = 4096
    operations["op"] = CODES["continue"]
    return operations


@pytest.mark.parametrize("order", ["in order", "random"])
@pytest.mark.parametrize("scheme", ROOFLINES)
def test_continue(benchmark, library, scheme, order):
    operations = continues(order)
    machine = hgm.Machine(scheme, zap_frees_tables="no")
    mapping = machine.process("A").mmap(machine.file("F", "1G", 1, populate=True), minor=True, hgm=True)
    memory = Gigabyte(library)
    ours, roofline = [], []
    mapping.uffd_continue(operations["offset"])    # makes the tables

    def prepare():
        memory.reset()
        start = time.perf_counter_ns()
        done = memory.run(ROOFLINES[scheme], operations)
        roofline.append((time.perf_counter_ns() - start) / PIECES)
        assert done == PIECES
        mapping.dontneed()

    benchmark.pedantic(lambda: ours.append(machine.run(operations) / PIECES), setup=prepare, rounds=31)
    assert len(machine.results()) == 0
    assert machine.observe()["folios"][0]["truth"]["leaves"] == PIECES
    ns, least = float(np.median(ours)), float(np.median(roofline))
    benchmark.extra_info.update(work=f"continue 4K x 262144, {order}", scheme=scheme, ns=ns, roofline=least,
                                ratio=ns / least, goal=GOAL)

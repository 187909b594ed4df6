"""Threads without the GIL: machines of their own run side by side; one machine is refused to a second thread, or whole.

With the GIL these tests hold as well. A build that declares that it needs none (HGMCORE_FREE_THREADING of setup.py) is
shown to be right by them where Python has no GIL.
"""

import sys
import threading

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.trace.statements import CODES, OPERATION

PIECES, THREADS = 4096, 4


def continues():
    records = np.zeros(PIECES, OPERATION)
    records["op"], records["offset"], records["length"] = CODES["continue"], np.arange(PIECES) * 4096, 4096
    return records


def machine():
    m = hgm.Machine("mm_id", reserve="1G")
    file = m.file("F", "2M", PIECES // 512, populate=True)
    m.process("A").mmap(file, name="v", minor=True, hgm=True)
    return m


def together(work, *arguments):
    """Run work(*arguments, number) in threads that begin at the same moment; an exception of one is raised here."""
    start, failed = threading.Barrier(THREADS), []

    def body(number):
        start.wait()
        try:
            work(*arguments, number)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=body, args=[number]) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_the_gil_stays_off():
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this Python has a GIL")    # or a module that does not declare itself took it back
    machine()
    assert not sys._is_gil_enabled()


def test_machines_of_their_own():
    costs = [None] * THREADS

    def work(number):
        m, records = machine(), continues()
        m.run(records)
        costs[number] = m.cost()

    for _ in range(3):
        together(work)
        assert costs[0]["leaf_installs"] == PIECES and costs.count(costs[0]) == THREADS


def test_one_machine_is_refused_or_whole():
    m, records = machine(), continues()
    ran, refused = [], []

    def work(number):
        for _ in range(20):
            try:
                m.run(records)
                ran.append(number)
            except RuntimeError as error:
                assert str(error) == "another thread uses this machine"
                refused.append(number)

    together(work)
    assert len(ran) + len(refused) == 20 * THREADS and ran
    assert m.cost()["leaf_installs"] == PIECES    # the first run's; all others met what it left
    assert len(m.results()) == (len(ran) - 1) * PIECES


def test_declarations_of_one_machine():
    m = hgm.Machine("mm_id", reserve="1G")
    made = []

    def work(number):
        for _ in range(200):
            try:
                made.append(m.core.add_process())
            except RuntimeError:
                pass

    together(work)
    assert sorted(made) == list(range(len(made)))


def test_one_engine_gives_one_capsule_to_all():
    engine = hgm.schemes.load("mm_id")
    from hgmcore.core.core import Engine

    names = []
    together(lambda number: names.append(Engine.from_capsule(engine.capsule).name))
    assert names == ["mm_id"] * THREADS

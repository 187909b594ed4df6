"""Every work under every scheme, beside the roofline: a loop that does only what the work and the scheme demand."""

import time

import pytest
from kernel import kernel
from measure import take_turns
from peers import peer
from rooflines import PIECES, Gigabyte
from works import RECOUNT, WORKS, Guest

from hgmcore.core import truth


@pytest.mark.parametrize("work, scheme", [pytest.param(work, scheme, id=f"{work.name}-{scheme}")
                                          for work in WORKS for scheme in work.schemes])
def test_against_the_roofline(benchmark, library, work, scheme):
    guests = []

    def place():
        guest, world = work.guest(scheme, **work.options), work.world(library, scheme)
        guests.append(guest)

        def ours():
            work.before(guest)
            truth.leaves(guest.machine.core)    # what the caches hold then is what a pass over the tables leaves there
            return guest.machine.run(work.operations) / world.leaves

        def roofline():
            world.prepare(work.full)
            world.recount()
            done, ns = world.run(work.loop, work.operations)
            assert done == world.leaves
            return ns / world.leaves

        return ours, roofline

    row = take_turns(benchmark, place)
    assert all(len(guest.machine.results()) == 0 for guest in guests)
    benchmark.extra_info.update(row, work=work.name, column=work.column, scheme=scheme, goal=work.goal,
                                numpy=peer(scheme, work) if work.peer else None, kernel=kernel().get(work.kernel))


def timed(function, *arguments):
    start = time.perf_counter_ns()
    result = function(*arguments)
    return result, (time.perf_counter_ns() - start) / PIECES


def test_recount(benchmark, library):
    def place():
        guest, world = Guest("head_per_leaf"), Gigabyte(library, "head_per_leaf")
        world.prepare(True)

        def ours():
            runs, ns = timed(truth.leaves, guest.machine.core)
            assert runs["count"].tolist() == [PIECES]
            return ns

        def roofline():
            leaves, ns = timed(world.recount)
            assert leaves == PIECES
            return ns

        return ours, roofline

    row = take_turns(benchmark, place)
    benchmark.extra_info.update(row, work="recount of the truth", scheme="(any)", goal=RECOUNT.goal,
                                numpy=peer("head_per_leaf", RECOUNT), kernel=None)

"""Single calls from Python: each operation, beside what no call of that shape can avoid.

The bound is a method of a handle that calls a compiled method with as many arguments, and finds a size that was parsed
before: `Mapping.length` and `calls.size("4K")`. The rest is the operation itself. Goals: 1 us for
`v.uffd_continue(0, "4K")`, 2 us for every other call. CPU time of the thread, the least of 15 rounds of 512 calls.
"""

import time

import pytest

import hgmcore as hgm
from hgmcore.core.calls import size

ROUNDS = 15
TIMES = 512


class Place:
    """A machine with a file of 2M pages that one process maps in pieces, and a second, whole mapping."""

    def __init__(self):
        self.m = m = hgm.Machine("head_per_leaf")
        self.f = m.file("F", page_size="2M", pages=8, populate=True)
        self.a = m.process("A")
        self.v = self.a.mmap(self.f, name="v", minor=True, hgm=True)
        self.w = self.a.mmap(anon="2M", length="16M", name="w")
        self.w.touch(0, write=True)


def again(call):
    def times(place):
        for _ in range(TIMES):
            call(place)
    return times


def each(call):
    def times(place):
        for offset in OFFSETS:
            call(place, offset)
    return times


OFFSETS = [i * 4096 for i in range(TIMES)]
CALLS = {    # name: (the calls that are timed, what makes the machine ready for them, how many calls each makes)
    "uffd_continue": (each(lambda p, o: p.v.uffd_continue(o, "4K")), lambda p: p.v.dontneed(), 1),
    "dontneed": (each(lambda p, o: p.v.dontneed(o, "4K")), lambda p: (p.v.dontneed(), p.v.uffd_continue(OFFSETS)), 1),
    "touch": (again(lambda p: p.w.touch("4K", write=True)), None, 1),
    "split": (again(lambda p: p.v.split(0, "2M")), None, 1),
    "collapse": (again(lambda p: p.v.collapse(0, "2M")), None, 1),
    "mprotect": (again(lambda p: p.w.mprotect(0, "2M", "rw")), None, 1),
    "mremap": (again(lambda p: p.w.mremap("16M")), None, 1),
    "migrate": (again(lambda p: p.v.migrate(0, "2M")), None, 1),
    "register, unregister": (again(lambda p: (p.w.register(wp=True), p.w.unregister())), None, 2),
    "mmap, munmap": (again(lambda p: p.a.mmap(p.f, name="u").munmap()), None, 2),
    "pin, unpin": (again(lambda p: (p.f.pin(0), p.f.unpin(0))), None, 2),
    "populate, punch": (again(lambda p: (p.f.populate(7, 1), p.f.punch("14M", "2M"))), lambda p: p.v.dontneed(), 2),
    "fork, exit": (again(lambda p: p.a.fork(f"B{p.m.operations}").exit()), None, 2),
    "fail": (again(lambda p: p.m.fail(9)), lambda p: p.m.clear_results(), 1),
}


def bound(place):
    for _ in range(TIMES):
        size("4K")
        place.v.length


def measured(function, ready, place):
    """The least nanoseconds of one of TIMES calls, of as many rounds."""
    best = None
    for _ in range(ROUNDS):
        if ready:
            ready(place)
        start = time.thread_time_ns()
        function(place)
        spent = (time.thread_time_ns() - start) / TIMES
        best = spent if best is None else min(best, spent)
    return best


@pytest.mark.parametrize("name", CALLS)
def test_single_call(benchmark, name):
    function, ready, calls = CALLS[name]
    place = Place()
    least = measured(bound, None, place)
    ns = measured(function, ready, place) / calls
    goal = 1000 if name == "uffd_continue" else 2000
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(call=name, call_ns=ns, bound=least, goal=goal)
    print(f"\n{name:22} {ns:7.0f} ns a call, bound {least:4.0f}, ratio {ns / least:5.2f}, goal {goal}"
          f"{' *' if ns > goal else ''}")
    assert ns < goal

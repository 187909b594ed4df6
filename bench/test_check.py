"""The search of `hgmcore check`: steps a second, bytes a state, beside a plain Python search and a C loop.

Goals: 10 million generated steps a second for the cheapest schemes, 3 million for the dearest; at most 32 bytes a
distinct state; all schemes in the default scopes within 15 s. Times are CPU times of the thread.
"""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hgmcore.explore.check import Checked
from hgmcore.explore.scopes import LARGER, NAMES, SCOPES, find
from hgmcore.explore.steps import steps_of
from hgmcore.schemes import NAMES as SCHEMES

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


@pytest.fixture(scope="module")
def roofline(tmp_path_factory):
    library = tmp_path_factory.mktemp("check") / "check.so"
    subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-o", library, Path(__file__).parent / "check.c"], check=True)
    function = ctypes.CDLL(str(library)).copy_hash_probe
    function.argtypes, function.restype = (ctypes.c_uint64, ctypes.c_int, ctypes.c_uint64), ctypes.c_uint64
    return function


def cpu(function):
    start = time.thread_time()
    result = function()
    return result, time.thread_time() - start


@pytest.mark.parametrize(
    "scheme, scope, goal",
    [
        ("head_per_leaf", "pair-eight", 10e6),
        ("logical_counter", "pair-eight", 10e6),
        ("head_per_leaf", "pair", 3e6),
        ("mm_id", "pair", 3e6),
        ("double_map", "pair", 3e6),
        ("logical_table", "pair", 3e6),
    ],
)
def test_check(benchmark, roofline, scheme, scope, goal):
    """The least of three rounds, of the search and of the loop."""
    times, loops = [], []
    for _ in range(3):
        checked, seconds = cpu(lambda: Checked(scheme, find(scope), "none").run())
        search = checked.search
        words = (search.key_bits + 63) // 64
        found, least = cpu(lambda: roofline(search.distinct, words, search.generated))
        assert found == search.generated
        times.append(seconds)
        loops.append(least)
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info |= {
        "search": scope,
        "scheme": scheme,
        "states": search.distinct,
        "steps": search.generated / min(times),
        "loop": search.generated / min(loops),
        "bytes": search.bytes_per_state,
        "key": 8 * words,
        "goal": goal,
    }


@pytest.mark.parametrize(
    "scheme, scope", [("head_per_leaf", "pair-eight"), ("logical_counter", "pair-eight"), ("head_per_leaf", "four")]
)
def test_check_with_two_threads(benchmark, scheme, scope):
    """Of CPU times, so that other programs count little: two threads take half of what both workers take together, and
    what the one thread takes that enters the states."""
    one, two, wall = [], [], {1: [], 2: []}
    for _ in range(3):
        for threads in (1, 2):
            clock, all_threads, mine = time.perf_counter(), time.process_time(), time.thread_time()
            checked = Checked(scheme, find(scope), "none", threads).run()
            clock, all_threads, mine = (
                time.perf_counter() - clock, time.process_time() - all_threads, time.thread_time() - mine)
            wall[threads].append(clock)
            if threads == 1:
                one.append(mine)
            else:
                two.append((all_threads - mine) / 2 + mine)
    benchmark.pedantic(lambda: None, rounds=1)
    generated, alone, both = checked.search.generated, min(one), min(two)
    benchmark.extra_info |= {
        "rate": round(generated / both),
        "unit": "steps",
        "goal": round(1.8 * generated / alone),
        "work": f"check with two threads, {scheme}, {scope}: {alone / both:.2f} of one "
        f"({min(wall[1]) / min(wall[2]):.2f} by the clock)",
    }


def test_check_in_plain_python(benchmark):
    from plain_search import search

    scope = find("pair-small")
    found, seconds = cpu(lambda: search("head_per_leaf", scope, steps_of(scope), NAMES))
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info |= {
        "rate": round(found.generated / seconds),
        "unit": "steps",
        "goal": 0,
        "work": "the same search in plain Python, pair-small",
    }


def test_check_all(benchmark):
    names = [name for name in SCOPES if name not in LARGER]

    def everything():
        searches = [Checked(scheme, find(scope)).run() for scheme in SCHEMES for scope in names]
        assert all(checked.ended == "closed" for checked in searches)
        return sum(checked.search.generated for checked in searches)

    generated, seconds = cpu(everything)
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info |= {
        "rate": round(generated / seconds),
        "unit": "steps",
        "goal": round(generated / 15),
        "work": f"check all, {len(names)} scopes",
    }

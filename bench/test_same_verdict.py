"""The default input, compared three times while the machine is busy, gives one verdict, as does an idle machine."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

TIMES = 3
SECONDS, CORES = 10, 2    # goal: one comparison within so many seconds on two cores

BUSY = [sys.executable, "-c", "while True: sum(range(10_000))"]


@pytest.fixture
def load():
    """As many processes that never rest as there are CPUs."""
    busy = [subprocess.Popen(BUSY) for _ in range(os.cpu_count())]
    yield
    for one in busy:
        one.kill()
        one.wait()


def compared():
    """(result of the default comparison, seconds of CPU time that it took)."""
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "hgmcore", "compare", "--json", "-"], capture_output=True, check=True)
    after = os.times()
    return (json.loads(done.stdout), after.children_user + after.children_system
            - before.children_user - before.children_system)


def words(verdict):
    """What a verdict says, without the digits of measured times."""
    return [re.sub(r"[\d.]+", "#", line) if "(measured)" in line else line for line in verdict["answers"]] + [
        verdict["untested"], verdict["front"], {name: found["by"] for name, found in verdict["beaten"].items()}]


def test_the_verdict_does_not_depend_on_load(load):
    results, seconds = zip(*(compared() for _ in range(TIMES)))
    first, *others = (words(result["verdict"]) for result in results)
    print(*results[0]["verdict"]["answers"], sep="\n")
    print("CPU time, s:", *(f"{one:.1f}" for one in seconds))
    for other in others:
        assert other == first
    for name in results[0]["schemes"]:
        times = [result["schemes"][name]["measured"]["ns_per_operation"] for result in results]
        print(f"{name:20}", *(f"{one['median']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" for one in times))


def test_the_default_takes_seconds():
    start = time.perf_counter()
    _, seconds = compared()
    print(f"CPU time {seconds:.1f} s, in {time.perf_counter() - start:.1f} s")
    assert seconds < SECONDS * CORES

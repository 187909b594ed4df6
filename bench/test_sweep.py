"""A sweep on the local CPUs: comparisons of all schemes a second. Goal: 100 small inputs in 20 s on two of them.

An input is the random filling of one huge page of 2M, observed as often as `compare` does. Observing takes most of it.
"""

import time

from hgmcore.analysis.sweep.drive import sweep
from hgmcore.schemes import NAMES

INPUTS, GOAL = 100, 20


def test_sweep(benchmark, tmp_path):
    spec = tmp_path / "s.toml"
    spec.write_text(f'inputs = "workload:random,page_size=2M,observations=1"\nseeds = {INPUTS}\n')
    start = time.monotonic()
    result = sweep(spec, tmp_path / "out", processes=2)
    seconds = time.monotonic() - start
    assert result["ran"] == INPUTS and result["schemes"] == len(NAMES) and not result["failed"]
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info |= {"rate": round(INPUTS * len(NAMES) / seconds), "unit": "schemes x inputs",
                             "goal": INPUTS * len(NAMES) // GOAL, "work": "sweep of small inputs, two processes"}

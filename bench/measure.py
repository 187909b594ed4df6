"""How it is measured: hgmcore and the roofline take turns, each in memory that was just made ready.

Noise then meets both of a round alike, so the ratio is the median of the rounds' own ratios; the times are medians.
"""

from __future__ import annotations

import time
from typing import Callable

import numpy as np

SECONDS = 0.8    # for one row of the table
ROUNDS = 15, 99    # at least and at most


def take_turns(benchmark, ours: Callable[[], float], roofline: Callable[[], float]) -> dict:
    """Call both, each of which returns its nanoseconds for one leaf, until the time is up.

    Returns ns, roofline and ratio.
    """
    start = time.perf_counter()
    times = [(ours(), roofline())]
    rounds = int(np.clip(SECONDS / (time.perf_counter() - start), *ROUNDS))
    times.clear()
    benchmark.pedantic(lambda: times.append((ours(), roofline())), rounds=rounds)
    mine, least = np.array(times).T
    return {"ns": float(np.median(mine)), "roofline": float(np.median(least)), "ratio": float(np.median(mine / least))}

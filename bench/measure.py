"""The method of measurement: hgmcore and the roofline take turns, each in memory that was just made ready.

Noise then meets both sides of a round alike, so the ratio is the median of the rounds' own ratios; the times are
medians. Speed depends on which physical pages share a place in a cache, so rounds are spread over several allocations.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

SECONDS = 1.0    # seconds for one row of the table
ROUNDS = 5, 40    # rounds at each place, at least and at most
PLACES = 4

Side = Callable[[], float]


def take_turns(benchmark, place: Callable[[], tuple[Side, Side]]) -> dict:
    """Call both sides in turn, place after place, until the time is up.

    place: makes two sides, hgmcore and the roofline, in new memory; each returns its nanoseconds for one leaf. Returns
    ns, roofline and ratio.
    """
    places, start = [place() for _ in range(PLACES)], time.perf_counter()
    for ours, roofline in places:    # the first run touches the memory for the first time
        ours(), roofline()
    each, times = int(np.clip(SECONDS / (time.perf_counter() - start), *ROUNDS)), []

    def one_round():
        ours, roofline = places[len(times) // each]
        times.append((ours(), roofline()))

    benchmark.pedantic(one_round, rounds=each * PLACES)
    mine, least = np.array(times).T
    return {"ns": float(np.median(mine)), "roofline": float(np.median(least)), "ratio": float(np.median(mine / least))}

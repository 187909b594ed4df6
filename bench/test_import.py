"""How fast recordings come in: lines of QEMU's trace log a second, from memory."""

import io
import time

import numpy as np

from hgmcore import importers

LINES = 500_000
GOAL = 500_000    # lines a second


def log():
    """A postcopy of `LINES` placements in random order, as QEMU writes it."""
    base = 0x7F0000000000
    head = f"1@1.000000:postcopy_nhp_range mem0: {base:#x} offset=0x0 length={LINES * 4096:#x}\n"
    pages = np.random.default_rng(1).permutation(LINES) * 4096 + base
    return (head + "".join(f"8742@1795369192.{i % 1000000:06}:postcopy_place_page host={page:#x}\n"
                           for i, page in enumerate(pages.tolist()))).encode()


def test_import_qemu(benchmark):
    text, rates = log(), []

    def read():
        start = time.perf_counter()
        trace, _ = importers.load("qemu").read(io.BytesIO(text), "log", page_size="1G")
        rates.append(LINES / (time.perf_counter() - start))
        return trace

    trace = benchmark.pedantic(read, rounds=5)
    assert np.count_nonzero(trace.operations["op"] == 6) == LINES
    benchmark.extra_info.update(lines_per_second=round(float(np.median(rates))), goal=GOAL)

"""Taking and putting back a snapshot, beside a copy of as many bytes and beside the replay of what led there.

Goals: at most twice the time of the copy for machines of megabytes, and less than the replay by a factor of ten.
"""

import time

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore.core.snapshot import Snapshot

PIECES = 262144


def cpu_ns(function, times):
    """The least CPU time of one call in this thread, of seven rounds of `times` calls."""
    function()
    rounds = []
    for _ in range(7):
        start = time.thread_time_ns()
        for _ in range(times):
            function()
        rounds.append((time.thread_time_ns() - start) / times)
    return min(rounds)


@pytest.mark.parametrize("page_size, pieces, scheme", [
    ("2M", 1, "head_per_leaf"), ("1G", PIECES, "head_per_leaf"), ("1G", PIECES, "mm_id")])
def test_snapshot(benchmark, page_size, pieces, scheme):
    machine = hgm.Machine(scheme)
    mapping = machine.process("A").mmap(machine.file("F", page_size, populate=True), minor=True, hgm=True)
    empty = machine.snapshot()
    offsets = np.arange(pieces) * 4096
    mapping.uffd_continue(offsets)
    full, times = machine.snapshot(), 2000 if pieces == 1 else 10
    source = np.ones(full.nbytes, np.uint8)
    target = np.ones(full.nbytes, np.uint8)

    def replay():
        empty.copy.restore(machine.core)
        mapping.uffd_continue(offsets)

    copied = cpu_ns(lambda: np.copyto(target, source), times)
    replayed = cpu_ns(replay, min(times, 5))
    machine.restore(full)
    taken = cpu_ns(lambda: Snapshot(machine.core), times)
    restored = cpu_ns(lambda: full.copy.restore(machine.core), times)
    benchmark.pedantic(lambda: full.copy.restore(machine.core), rounds=5)
    benchmark.extra_info.update(bytes=full.nbytes, restore_us=restored / 1000, take_us=taken / 1000,
                                copy_us=copied / 1000, replay_us=replayed / 1000)
    print(f"\n{scheme}, {page_size} in {pieces} pieces, {full.nbytes:,} bytes: restore {restored / 1000:.2f} us, take "
          f"{taken / 1000:.2f}, copy of as many bytes {copied / 1000:.2f}, replay {replayed / 1000:.2f}")
    assert restored < replayed / 10 or pieces == 1
    assert restored < 2 * copied or pieces == 1

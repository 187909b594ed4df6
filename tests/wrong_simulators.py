"""Simulators that are wrong on purpose: does validate --live find each within a minute?

    python tests/wrong_simulators.py [--seconds 60] [NAME ..]

As root, where --live can run; some are engines with one change in the sources, which are compiled first.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from broken_engines import built

from hgmcore.kernel.live import run as live
from hgmcore.kernel.live.conditions import check
from hgmcore.kernel.live.files import alone, pool
from hgmcore.kernel.live.sequences import sequence
from hgmcore.kernel.live.session import Session
from hgmcore.kernel.simulated import Simulated

SETTINGS = {
    "counts of another scheme, head_per_leaf": {"scheme": "head_per_leaf"},
    "counts of another scheme, logical_counter": {"scheme": "logical_counter"},
    "cache_refs=1": {"cache_refs": "1", "hugetlb": True},
    "fault_around=16": {"fault_around": "16"},
    "era=6.3": {"era": "6.3"},
}
"""name -> options, `scheme`, and whether it is about hugetlb."""

ANON, SPACE, FILE = (f"operations/thp/{name}.pxd" for name in ("anon", "address_space", "shmem_file"))
SOURCES = {
    "a skipped copy": (ANON, "return folio.page._refcount == 1", "return folio.page._refcount <= 2"),
    "a missed merge": (SPACE, "if before.end == v.vmas[i].start and", "if before.end == 1 + v.vmas[i].start and"),
    "a hole that takes copies along": (FILE, "not even_cows)", "False)"),
    "a fork that copies nothing": (ANON, "if not vma.flags & (HGM_OPF_SHARED | HGM_OPF_WP) and not vma.anon_vma:",
                                   "if not vma.flags & (HGM_OPF_SHARED | HGM_OPF_WP):"),
    "a table that stays": ("operations/thp/zap.pxd", "if free_tables and stop - start > pmd_mask(m):",
                           "if free_tables and stop - start > 2 * pmd_mask(m):"),
    "a folio that disagrees with its address": ("operations/thp/pmd.pxd", "(v.address - v.file_offset) & mask == 0",
                                                "(v.address - v.file_offset) & 4095 == 0"),
}
"""name -> what of the sources is changed in the engine of mm_id."""


def found(session, simulated, hugetlb, seconds):
    """(seconds until a sequence differed, sequences, the difference) or None."""
    start, seed = time.monotonic(), 0
    right, live.Simulated = live.Simulated, simulated
    try:
        while time.monotonic() - start < seconds:
            outcome = live.Outcome(session, sequence(seed, hugetlb=hugetlb), hugetlb)
            seed += 1
            if outcome.differences:
                return time.monotonic() - start, seed, str(outcome.differences[0])
    finally:
        live.Simulated = right
    return None


def wrong(name, engines):
    """A function that makes the wrong simulator, and whether it is about hugetlb."""
    if name in engines:
        return lambda kernel, scheme: Simulated(kernel, engines[name]), False
    given = dict(SETTINGS[name])
    hugetlb, scheme = given.pop("hugetlb", False), given.pop("scheme", None)
    return lambda kernel, usual: Simulated(kernel, scheme or usual, **given), hugetlb


def main(names, seconds):
    check()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        changes = {name: change for name, change in SOURCES.items() if name in names}
        engines = built(Path(directory), changes, "schemes/mm_id.pyx") if changes else {}
        stack.enter_context(alone(False))
        stack.enter_context(pool(any(SETTINGS.get(name, {}).get("hugetlb") for name in names)))
        session = stack.enter_context(Session())
        missed = 0
        for name in names:
            result = found(session, *wrong(name, engines), seconds)
            missed += result is None
            print(f"{name}: " + ("NOT FOUND" if result is None else
                                 f"found after {result[0]:.1f} s, {result[1]} sequences: {result[2]}"), flush=True)
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*SETTINGS, *SOURCES}
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)} (known: {', '.join([*SETTINGS, *SOURCES])})")
    sys.exit(bool(main(arguments.names or [*SETTINGS, *SOURCES], arguments.seconds)))

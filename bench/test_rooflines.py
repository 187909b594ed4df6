"""Each roofline does the scheme's work: it changes the same counts and the same page-table entries as hgmcore."""

import numpy as np
import pytest
from rooflines import PIECES, Gigabyte
from works import WORKS

from hgmcore.core import truth

FIELDS = ("_refcount", "_mapcount", "_entire_mapcount", "_large_mapcount", "_nr_pages_mapped")
ENTIRELY_MAPPED = 0x800000    # in _nr_pages_mapped, once for a whole leaf


def sums(pages):
    return np.array([pages[field].astype(np.int64).sum() for field in FIELDS])


@pytest.mark.parametrize("work, scheme", [pytest.param(work, scheme, id=f"{work.name}-{scheme}")
                                          for work in WORKS if work.world is Gigabyte for scheme in work.schemes])
def test_the_roofline_counts_as_the_scheme_does(library, work, scheme):
    guest, world = work.guest(scheme, **work.options), work.world(library, scheme)
    work.before(guest)
    before = sums(guest.file.struct_pages())
    guest.machine.run(work.operations)
    ours = sums(guest.file.struct_pages()) - before
    world.prepare(work.full)
    before = sums(world.pages)
    done, _ = world.run(work.loop, work.operations)
    difference = sums(world.pages) - before - ours
    difference[-1] %= ENTIRELY_MAPPED
    assert done == PIECES
    assert np.abs(difference).max() <= 1, dict(zip(FIELDS, difference))  # rooflines leave out work per subtree
    runs = truth.leaves(guest.machine.core)
    frames = np.concatenate([np.arange(0), *(run["pfn"] + np.arange(run["count"]) * run["size"] for run in runs)])
    assert np.array_equal(np.concatenate([world.frames(0), world.frames(1)]), frames - frames.min(initial=2**63 - 1))

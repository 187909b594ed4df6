"""Several processes on one file: back ends, forks, and a file that is cut under them."""

from __future__ import annotations

import numpy as np

from hgmcore.trace import Trace
from hgmcore.trace.statements import MINOR, SHARED, WP
from hgmcore.workloads.story import Story, asks

TABLES_COPIED = SHARED | MINOR | WP
"""How a mapping is registered whose page tables fork copies."""


@asks("What do a virtual machine's vhost-user back ends cost, which map the same memory in pieces?")
def backends(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", processes: int | str = 3,
             used: float | str = 0.1, seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """One process maps every piece, others a share of them at random; then the others end one by one.

    processes: how many others. used: the share that each maps, 0 to 1. seed: of the draws. The other parameters are as
    in `sequential`.
    """
    story = Story(locals())
    names = [f"backend{index}" for index in range(story.count("processes"))]
    vmm, others = story.map("vmm"), [story.map(name) for name in names]
    story.phase("install")
    story.install(vmm)
    story.observe()
    story.phase("backends")
    for other in others:
        story.install(other, story.sample("used"))
    story.observe()
    story.phase("exit")
    for name in names:
        story.writer.exit(name)
        story.observe()
    return story.trace("backends")


@asks("What does a fork copy, and do its copies count as sharing?")
def fork_copies(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", children: int | str = 2,
                geometry: str = "x86-64") -> Trace:
    """A process maps every piece and forks with its page tables copied; children end in order.

    children: how many. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("parent", TABLES_COPIED)
    story.phase("install")
    story.install(mapping)
    story.observe()
    story.phase("fork")
    names = [story.writer.fork("parent", f"child{index}") for index in range(story.count("children"))]
    story.observe()
    story.phase("exit")
    for name in names:
        story.writer.exit(name)
    story.observe()
    return story.trace("fork_copies")


@asks("What do many forks cost whose children unmap parts and end in any order?")
def fork_storm(page_size: int | str = "2M", pages: int | str = 16, piece: int | str = "4K", children: int | str = 32,
               gone: float | str = 0.25, seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """A process maps every piece and forks; each child unmaps a share at random; children end in random order.

    children: how many. gone: the share, 0 to 1. seed: of the draws. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("parent", TABLES_COPIED)
    story.phase("install")
    story.install(mapping)
    story.observe()
    story.phase("fork")
    names = [story.writer.fork("parent", f"child{index}") for index in range(story.count("children"))]
    story.observe()
    story.phase("partial_unmap")
    for name in names:
        child = story.writer.child_mapping(name, mapping)
        story.many("dontneed", child, story.sample("gone"), story.piece)
    story.observe()
    story.phase("exit")
    for index in story.rng.permutation(len(names)).tolist():
        story.writer.exit(names[index])
    story.observe()
    return story.trace("fork_storm")


@asks("What is left where a file is punched and truncated while processes map it in pieces?")
def truncation(page_size: int | str = "2M", pages: int | str = 64, piece: int | str = "4K", processes: int | str = 3,
               geometry: str = "x86-64") -> Trace:
    """Processes map every piece; every second huge page is punched, then the file is truncated.

    processes: how many. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    mappings = [story.map(f"p{index}") for index in range(story.count("processes"))]
    story.phase("install")
    for mapping in mappings:
        story.install(mapping)
    story.observe()
    story.phase("punch")
    story.many("punch", story.file, story.starts[::2], story.page_size)
    story.observe()
    story.phase("truncate")
    story.writer.emit("truncate", story.file, 0)
    story.observe()
    story.phase("access")
    story.many("touch", mappings[0], np.array([0], np.uint64))
    story.observe()
    return story.trace("truncation")

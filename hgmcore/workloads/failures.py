"""What goes wrong: refusals, allocations that fail, memory that fails, counts that overflow."""

from __future__ import annotations

import numpy as np

from hgmcore.trace import Trace
from hgmcore.workloads.story import Story, asks


@asks("Is a look-up better before the walk or after it, where some pieces are there already?")
def lookups(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", again: float | str = 0.25,
            seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """Every piece is mapped, and a share of them asked for again, which is refused with EEXIST.

    Compare it with `--option lookup_first=yes` and no. again: the share, 0 to 1. seed: of the draw. The other
    parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("vmm")
    story.phase("install")
    story.install(mapping)
    story.observe()
    story.phase("refused")
    story.install(mapping, story.sample("again"))
    story.observe()
    return story.trace("lookups")


@asks("What is left behind where an error comes after the page table is allocated?")
def errors(page_size: int | str = "1G", pages: int | str = 8, piece: int | str = "4K",
           geometry: str = "x86-64") -> Trace:
    """On each huge page a `continue` across two page tables, in which the 1st, 2nd, 3rd, .. allocation fails.

    Then the same once more without a failure, once more when it is there (EEXIST), and everything is unmapped. Where a
    huge page has one page table only, two pieces of it are mapped. The parameters are as in `sequential`.
    """
    story = Story(locals())
    reach = story.geometry.base_page << story.geometry.index_bits
    first = reach - story.piece if story.piece < reach < story.page_size else 0
    length = min(2 * story.piece, story.page_size)
    mapping = story.map("vmm")
    story.phase("failures")
    for index, start in enumerate(story.starts.tolist()):
        story.writer.emit("fail", 0, index % 3 + 1)
        story.writer.emit("continue", mapping, start + first, length)
        story.observe()
    story.phase("install")
    story.many("continue", mapping, story.starts + np.uint64(first), length)
    story.observe()
    story.phase("refused")
    story.many("continue", mapping, story.starts + np.uint64(first), length)
    story.observe()
    story.phase("zap")
    story.whole("dontneed", mapping)
    story.observe()
    return story.trace("errors")


@asks("What does a memory failure of one base page take away, and from whom?")
def memory_failure(page_size: int | str = "2M", pages: int | str = 16, piece: int | str = "4K",
                   processes: int | str = 2, seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """Processes map every piece; then one base page of each huge page fails, and both it and others are accessed.

    processes: how many. seed: of the pages that fail. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    mappings = [story.map(f"p{index}") for index in range(story.count("processes"))]
    story.phase("install")
    for mapping in mappings:
        story.install(mapping)
    story.observe()
    base = story.geometry.base_page
    failing = story.rng.integers(0, story.page_size // base, story.pages, dtype=np.uint64)
    failed = story.starts + failing * np.uint64(base)
    story.phase("failures")
    story.many("hwpoison", mappings[0], failed)
    story.observe()
    story.phase("access")
    for mapping in mappings:
        story.many("touch", mapping, failed)
        story.many("touch", mapping, story.rng.choice(story.pieces, min(64, len(story.pieces)), replace=False))
    story.observe()
    return story.trace("memory_failure")


@asks("After how many mappings of a huge page does a count overflow?")
def overflow(page_size: int | str = "2M", pages: int | str = 1, piece: int | str = "4K", room: int | str = 8,
             processes: int | str = 12, geometry: str = "x86-64") -> Trace:
    """Pins leave room in the reference count for `room` processes that map every piece; `processes` do.

    A scheme with one reference for each leaf overflows at process room + 1; one with a reference for each mapping does
    not. Compare it with `--option overflow_check=after`. Unscaled, 2^31 references are 8,192 mappings of a 1G page in
    pieces of 4K. room, processes: as said. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    rooms = story.count("room") * (story.page_size // story.piece)
    mappings = [story.map(f"p{index}") for index in range(story.count("processes"))]
    story.phase("pins")
    for page in range(story.pages):
        story.writer.emit("pin", story.file, page, (1 << 31) - 1 - 1 - rooms)  # INT_MAX, less that of the page cache
    story.phase("install")
    for mapping in mappings:
        story.install(mapping)
        story.observe()
    return story.trace("overflow")



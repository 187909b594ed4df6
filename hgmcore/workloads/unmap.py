"""One guest whose pieces go again: unmapped, given back, collapsed, migrated."""

from __future__ import annotations

import numpy as np

from hgmcore.sizes import parse_named, quoted
from hgmcore.trace import Trace
from hgmcore.trace.names import Names
from hgmcore.workloads.story import Story, asks

ORDERS = ("ascending", "descending", "random", "fragmented")


@asks("What does unmapping in pieces cost, in each order, and when is the huge page known to be unmapped?")
def unmap(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", order: str = "random",
          seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """Every piece is mapped, and then unmapped one by one.

    order: ascending, descending, random, or fragmented: every second piece first, then the others. seed: of the
    random order. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    if order not in ORDERS:
        raise ValueError(f"order: {quoted(str(order))} is not one of {', '.join(ORDERS)}")
    gone = story.pieces
    if order == "descending":
        gone = gone[::-1]
    elif order == "random":
        gone = story.rng.permutation(gone)
    elif order == "fragmented":
        gone = np.concatenate([gone[::2], gone[1::2]])
    mapping = story.map("vmm")
    story.phase("install")
    story.install(mapping)
    story.observe()
    story.phase("partial_unmap")
    story.many("dontneed", mapping, gone[:len(gone) // 2], story.piece)
    story.observe()
    story.many("dontneed", mapping, gone[len(gone) // 2:], story.piece)
    story.observe()
    return story.trace("unmap")


@asks("How many entries does it read to learn, by a scan, that the last piece of a huge page has gone?")
def scan(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", geometry: str = "x86-64") -> Trace:
    """The first piece and the last of each huge page alone stay mapped; the first goes, and then the last.

    Before, all pieces were mapped, so that all page tables are there. The parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("vmm")
    story.phase("install")
    story.install(mapping)
    story.phase("partial_unmap")
    inner = story.pieces % np.uint64(story.page_size)
    inner = story.pieces[(inner != 0) & (inner != story.page_size - story.piece)]
    story.many("dontneed", mapping, inner, story.piece)
    story.observe()
    story.phase("last_piece")
    if story.piece < story.page_size:
        story.many("dontneed", mapping, story.starts, story.piece)
    story.many("dontneed", mapping, story.starts + np.uint64(story.page_size - story.piece), story.piece)
    story.observe()
    return story.trace("scan")


@asks("What remains of the schemes' differences where huge pages are mapped by base pages only?")
def base_pages(page_size: int | str = "1G", pages: int | str = 1, seed: int | str = 1,
               geometry: str = "x86-64") -> Trace:
    """Two processes map every base page, in order and at random; the second one's half goes, then all of it.

    Nothing is collapsed. Compare it with `--option policy=base_only`. seed: of the random order. The other parameters
    are as in `sequential`.
    """
    call = locals()
    story = _of_base_pages(call)
    one, two = story.map("vmm"), story.map("reader")
    story.phase("install")
    story.install(one)
    order = story.rng.permutation(story.pieces)
    story.install(two, order)
    story.observe()
    story.phase("partial_unmap")
    story.many("dontneed", two, order[:len(order) // 2], story.piece)
    story.observe()
    story.phase("zap")
    story.writer.exit("reader")
    story.observe()
    return story.trace("base_pages")


@asks("Are smaps and migration right for a huge page of which one process maps two pieces?")
def two_pieces(page_size: int | str = "2M", pages: int | str = 64, piece: int | str = "4K",
               geometry: str = "x86-64") -> Trace:
    """One process maps the first piece and the last of each huge page; then migration is asked to move them.

    The parameters are as in `sequential`; the huge page has at least two pieces.
    """
    story = Story(locals())
    if story.piece == story.page_size:
        raise ValueError("piece: a huge page has at least two here")
    mapping = story.map("vmm")
    story.phase("install")
    story.install(mapping, story.starts)
    story.observe()
    story.install(mapping, story.starts + np.uint64(story.page_size - story.piece))
    story.observe()
    story.phase("migrate")
    story.many("migrate", mapping, story.starts, story.page_size)
    story.observe()
    return story.trace("two_pieces")


@asks("Which schemes live where struct pages are given back (hvo=on), and what do they cost there?")
def hvo(page_size: int | str = "1G", pages: int | str = 2, piece: int | str = "4K", geometry: str = "x86-64") -> Trace:
    """Huge pages mapped whole, and then in pieces: compare it with `--option hvo=on` and off.

    The parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("vmm")
    story.phase("whole")
    story.many("continue", mapping, story.starts, story.page_size)
    story.observe()
    story.phase("zap")
    story.whole("dontneed", mapping)
    story.phase("install")
    story.install(mapping)
    story.observe()
    story.phase("collapse")
    story.whole("collapse", mapping)
    story.observe()
    return story.trace("hvo")


@asks("What do collapse and mapping in pieces again cost, and is anything left behind?")
def resplit(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", rounds: int | str = 2,
            geometry: str = "x86-64") -> Trace:
    """Map all pieces, collapse, unmap, split again, `rounds` times.

    rounds: how often. The other parameters are as in `sequential`.
    """
    story = Story(locals())
    mapping = story.map("vmm")
    for _ in range(story.count("rounds")):
        story.phase("install")
        story.install(mapping)
        story.observe()
        story.phase("collapse")
        story.whole("collapse", mapping)
        story.observe()
        story.phase("zap")
        story.whole("dontneed", mapping)
        story.whole("split", mapping)
        story.observe()
    return story.trace("resplit")


@asks("What do a balloon and free-page reporting cost, which give back base pages and larger blocks?")
def balloon(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", inflate: float | str = 0.25,
            block: int | str = "2M", seed: int | str = 1, geometry: str = "x86-64") -> Trace:
    """A balloon takes pieces at random, free-page reporting takes blocks, and accesses bring all back.

    inflate: the share that the balloon takes, and again that reporting takes, 0 to 1. block: bytes of a reported block;
    a multiple of `piece` that divides the huge page. seed: of both. The other parameters are as in `sequential`.
    """
    call = locals()
    story = Story(call)
    reported = _blocks(story, call, block)
    mapping = story.map("vmm")
    story.phase("install")
    story.install(mapping)
    story.observe()
    taken = story.sample("inflate")
    blocks = story.sample("inflate", reported)
    size = int(reported[1] - reported[0]) if len(reported) > 1 else story.size
    story.phase("balloon")
    story.many("dontneed", mapping, taken, story.piece)
    story.observe()
    story.phase("reporting")
    story.many("dontneed", mapping, blocks, size)
    story.observe()
    story.phase("access")
    lost = np.isin(story.pieces, taken) | np.isin(story.pieces // np.uint64(size) * np.uint64(size), blocks)
    story.install(mapping, story.pieces[lost])
    story.observe()
    return story.trace("balloon")


def _blocks(story, call, block):
    """Offsets of all blocks that may be reported."""
    size = parse_named("block", block)
    if not size or size % story.piece or story.page_size % size:
        raise ValueError(f"block: {block} is not a multiple of {call['piece']} that divides a page of "
                         f"{call['page_size']}")
    return np.arange(0, story.size, size, dtype=np.uint64)


def _of_base_pages(call):
    """The Story of a workload whose pieces are base pages."""
    story = Story(call | {"piece": Names(call["geometry"]).geometry.base_page})
    story.call = call
    return story

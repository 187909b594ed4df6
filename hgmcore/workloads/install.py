"""A guest whose memory arrives: the order of the pieces.

All have the frame of `workloads.guest.guest_memory`: the file is populated, mapped shared and minor, and split; then
one `continue` for each piece, with observations spaced evenly between them; then one collapse of everything and an
observation. They declare no phases, as their kinds of operation are their phases.
"""

from __future__ import annotations

import numpy as np

from hgmcore.sizes import parse_named
from hgmcore.trace import Trace
from hgmcore.trace.writer import Writer
from hgmcore.workloads.guest import REQUESTS, STREAM, continues, guest_memory
from hgmcore.workloads.story import PREFIX, asks, pieces, share, spelled


@asks("What does mapping a huge page piece by piece cost where the copy runs from start to end?")
def sequential(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", observations: int | str = 8,
               geometry: str = "x86-64") -> Trace:
    """Pieces in order of address: what a copy from start to end maps.

    page_size: bytes of a huge page. pages: huge pages. piece: bytes that each `continue` maps; a multiple of
    the base page that divides the huge page. observations: how many before the last, evenly spaced. geometry:
    of the page tables. Sizes may be spelled as in "4K".
    """
    call = locals()
    return _guest("sequential", call, pieces(call))


@asks("What does the order of the pieces change, where demand paging has the worst locality?")
def random(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", seed: int | str = 1,
           observations: int | str = 8, geometry: str = "x86-64") -> Trace:
    """Pieces in random order, every one once: the worst locality that demand paging can have.

    seed: of the order. The other parameters are as in `sequential`.
    """
    call = locals()
    return _guest("random", call, np.random.default_rng(parse_named("seed", seed)).permutation(pieces(call)))


@asks("What does postcopy migration cost: a stream in order, and pieces that an access waits for?")
def postcopy(page_size: int | str = "1G", pages: int | str = 1, piece: int | str = "4K", urgent: float | str = 0.002,
             seed: int | str = 1, observations: int | str = 8, geometry: str = "x86-64") -> Trace:
    """Postcopy migration: a background stream in order of address, and pieces that an access waits for.

    A share `urgent` of all pieces is drawn at random. Each is asked for at a moment drawn evenly from the
    time before the stream would have brought it, and comes then, marked urgent, by thread 2; the stream is
    thread 1 and skips what is there. The default share is near that of a recorded redis guest: 579 of
    257,561 pages.

    urgent: from 0 to 1. seed: of the draws. The other parameters are as in `sequential`.
    """
    call = locals()
    offsets, rng = pieces(call), np.random.default_rng(parse_named("seed", seed))
    asked = rng.choice(len(offsets), size=round(share("urgent", urgent) * len(offsets)), replace=False)
    moment = np.arange(len(offsets), dtype=np.float64)
    moment[asked] *= rng.random(len(asked))
    order = np.argsort(moment, kind="stable")
    waited = np.zeros(len(offsets), dtype=bool)
    waited[asked] = True
    waited = waited[order]
    thread = np.where(waited, REQUESTS, STREAM)
    return _guest("postcopy", call, offsets[order], urgent=waited, thread=thread)


def _guest(workload, call, offsets, urgent=False, thread=0):
    """The Trace of a workload that was called with the arguments `call`."""
    sizes = {key: parse_named(key, call[key]) for key in ("page_size", "pages", "observations")}
    writer = Writer(call["geometry"])
    parts = continues(offsets, parse_named("piece", call["piece"]), urgent, thread)
    guest_memory(writer, [parts], len(parts), **sizes)
    return writer.trace(PREFIX + workload, {"workload": spelled(workload, call)})

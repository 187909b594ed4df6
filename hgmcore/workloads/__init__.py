"""Synthetic traces: one guest whose memory, a file of huge pages, is mapped piece by piece.

Each workload is a function of keyword parameters that returns a Trace; `workload:NAME,key=value` spells a
call. All have the frame of `importers.guest.guest_memory`: the file is populated, mapped shared and minor, and
split; then one `continue` for each piece, with observations spaced evenly between them; then one collapse of
everything and an observation. Workloads differ in the order of the pieces alone.
"""

from __future__ import annotations

import inspect

import numpy as np

from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import Trace
from hgmcore.trace.names import Names
from hgmcore.trace.writer import Writer
from hgmcore.workloads.guest import REQUESTS, STREAM, continues, guest_memory

PREFIX = "workload:"


def sequential(page_size="1G", pages=1, piece="4K", observations=8, geometry="x86-64"):
    """Pieces in order of address: what a copy from start to end maps.

    page_size: bytes of a huge page. pages: huge pages. piece: bytes that each `continue` maps; a multiple of
    the base page that divides the huge page. observations: how many before the last, evenly spaced. geometry:
    of the page tables. Sizes may be spelled as in "4K".
    """
    call = locals()
    return _guest("sequential", call, _pieces(call))


def random(page_size="1G", pages=1, piece="4K", seed=1, observations=8, geometry="x86-64"):
    """Pieces in random order, every one once: the worst locality that demand paging can have.

    seed: of the order. The other parameters are as in `sequential`.
    """
    call = locals()
    return _guest("random", call, np.random.default_rng(parse_named("seed", seed)).permutation(_pieces(call)))


def postcopy(page_size="1G", pages=1, piece="4K", urgent=0.002, seed=1, observations=8, geometry="x86-64"):
    """Postcopy migration: a background stream in order of address, and pieces that an access waits for.

    A share `urgent` of all pieces is drawn at random. Each is asked for at a moment drawn evenly from the
    time before the stream would have brought it, and comes then, marked urgent, by thread 2; the stream is
    thread 1 and skips what is there. The default share is near that of a recorded redis guest: 579 of
    257,561 pages.

    urgent: from 0 to 1. seed: of the draws. The other parameters are as in `sequential`.
    """
    call = locals()
    offsets, rng = _pieces(call), np.random.default_rng(parse_named("seed", seed))
    asked = rng.choice(len(offsets), size=round(_share("urgent", urgent) * len(offsets)), replace=False)
    moment = np.arange(len(offsets), dtype=np.float64)
    moment[asked] *= rng.random(len(asked))
    order = np.argsort(moment, kind="stable")
    waited = np.zeros(len(offsets), dtype=bool)
    waited[asked] = True
    waited = waited[order]
    thread = np.where(waited, REQUESTS, STREAM)
    return _guest("postcopy", call, offsets[order], urgent=waited, thread=thread)


WORKLOADS = {workload.__name__: workload for workload in (sequential, random, postcopy)}
NAMES = tuple(WORKLOADS)


def load(name: str):
    """The workload `name`, a function; its docstring explains it. ValueError lists the known names."""
    if name not in WORKLOADS:
        raise ValueError(f"unknown workload {quoted(name)} (known: {', '.join(NAMES)})")
    return WORKLOADS[name]


def parameters(name: str) -> dict:
    """Parameters of workload `name` and their defaults."""
    return {key: parameter.default for key, parameter in inspect.signature(load(name)).parameters.items()}


def parse(spec: str) -> Trace:
    """The Trace that `workload:NAME[,key=value...]` spells. ValueError or TraceError where it spells none."""
    name, *pairs = spec.removeprefix(PREFIX).split(",")
    known, given = parameters(name), {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in known:
            raise ValueError(f"workload {name!r} has no parameter {quoted(key)} (it has {', '.join(known)})")
        if not equals or not value:
            raise ValueError(f"workload {name!r}: expected {key}=VALUE, found {quoted(pair)}")
        if key in given:
            raise ValueError(f"workload {name!r}: {key!r} stands twice")
        given[key] = value
    return load(name)(**given)


def _guest(workload, call, offsets, urgent=False, thread=0):
    """The Trace of a workload that was called with the arguments `call`."""
    sizes = {key: parse_named(key, call[key]) for key in ("page_size", "pages", "observations")}
    spec = ",".join([workload, *(f"{key}={value}" for key, value in call.items())])
    writer = Writer(call["geometry"])
    parts = continues(offsets, parse_named("piece", call["piece"]), urgent, thread)
    guest_memory(writer, [parts], len(parts), **sizes)
    return writer.trace(PREFIX + workload, {"workload": spec})


def _pieces(call):
    """Offsets of all pieces, in order."""
    page_size, pages, piece = (parse_named(key, call[key]) for key in ("page_size", "pages", "piece"))
    base_page = Names(call["geometry"]).geometry.base_page
    if not piece or piece % base_page or page_size % piece:
        raise ValueError(f"piece: {call['piece']} is not a multiple of {format_size(base_page)} that divides "
                         f"a page of {call['page_size']}")
    if not pages:
        raise ValueError("pages: expected at least 1")
    return np.arange(0, page_size * pages, piece, dtype=np.uint64)


def _share(name, value):
    try:
        share = float(value)
    except ValueError:
        raise ValueError(f"{name}: {quoted(value)} is not a number") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: {value} is not between 0 and 1")
    return share

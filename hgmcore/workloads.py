"""Synthetic traces: one guest whose memory, a file of huge pages, is mapped piece by piece.

Each workload is a function of keyword parameters that returns a Trace; `workload:NAME,key=value` spells a
call. All have the same frame: the file is populated, mapped shared and minor, and split; then one `continue`
for each piece, with observations spaced evenly between them; then one collapse of everything and an
observation. Workloads differ in the order of the pieces alone.
"""

from __future__ import annotations

import inspect

import numpy as np

from hgmcore.names import Names
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.statements import CODES, MINOR, OPERATION, SHARED, URGENT
from hgmcore.trace import NO_TIME, File, Header, Mapping, Trace

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
    thread = np.where(waited, 2, 1).astype(np.uint32)
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


def guest_memory(name, offsets, piece, *, page_size, pages, observations, geometry="x86-64", urgent=None,
                 thread=None, time=None, process="vmm", memory="ram", provenance=None) -> Trace:
    """One process that maps a whole file of huge pages in pieces, in the frame described above.

    name: of the trace. process, memory: what the process, and the file and mapping, are called.
    offsets: array (n,) of bytes from the start of the file, in the order of the `continue`s, each of `piece`
    bytes. urgent: array (n,) of bool; thread: (n,) of uint32; time: (n,) of int64 ns; each may be None.
    page_size: bytes. observations: how many before the one at the end. Raises TraceError.
    """
    count, size = len(offsets), page_size * pages
    files, mappings = [File(memory, page_size, pages)], [Mapping(0, memory)]
    body = np.zeros(count, dtype=OPERATION)
    body["op"], body["offset"], body["length"] = CODES["continue"], offsets, piece
    if urgent is not None:
        body["flags"][urgent] = URGENT
    observations = min(observations, count)
    cuts = np.arange(1, observations + 1) * count // max(observations, 1)
    before = _records(("file",), ("populate", 0, pages), ("mmap", 0, size, SHARED | MINOR),
                      ("split", 0, size))
    after = _records(("collapse", 0, size), ("observe",))

    def framed(column, value, between):
        """A column of the body with what stands between, before and after."""
        if column is None:
            return None
        ends = [np.full(len(part), value, dtype=column.dtype) for part in (before, after)]
        return np.concatenate([ends[0], np.insert(column, cuts, between), ends[1]])

    operations = np.concatenate([before, np.insert(body, cuts, _records(("observe",))[0]), after])
    header = Header(geometry, files, [process], mappings, provenance or {})
    return Trace(header, operations, framed(thread, 0, 0), framed(time, NO_TIME, NO_TIME), name=name)


def _records(*statements):
    """Records of (name, offset, length, flags), all of target 0."""
    records = np.zeros(len(statements), dtype=OPERATION)
    for record, (name, *rest) in zip(records, statements):
        offset, length, flags = (*rest, 0, 0, 0)[:3]
        record["op"], record["offset"], record["length"], record["flags"] = CODES[name], offset, length, flags
    return records


def _guest(workload, call, offsets, **columns):
    """The Trace of a workload that was called with the arguments `call`."""
    sizes = {key: parse_named(key, call[key]) for key in ("page_size", "pages", "observations")}
    spec = ",".join([workload, *(f"{key}={value}" for key, value in call.items())])
    return guest_memory(PREFIX + workload, offsets, parse_named("piece", call["piece"]), **sizes, **columns,
                        geometry=call["geometry"], provenance={"workload": spec})


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

"""From a program to its HGM trace: the pages that it touches become the postcopy of a guest that runs it.

A program's recording tells which pages it touched and in which order. Here its memory is that of a virtual
machine that has just been moved by postcopy: nothing is mapped yet, every piece arrives by UFFDIO_CONTINUE, and
a piece that the program touches for the first time is asked for at once.

Where memory lies. The addresses of a program are sparse: each window of addresses of the size and alignment of
a huge page in which something is touched gets one huge page of the guest's file, in the order of the first
touch. Offsets within a window are kept. What is unmapped and mapped again at one address is one piece: a host
does not see what a guest's kernel does with its memory.

What becomes of a touch. The first of a piece, of `piece` bytes, is an `urgent` `continue` of it by thread 2. With
`background=R` a stream by thread 1 brings R other pieces for each piece that is touched, in order of offset, skips
what is there, and brings all that still lacks at the end: a migration moves all memory, also what nobody asks for. A
touch of a piece that is there is left out, or with `later=touch` is a `touch` by the thread that the recording gives.

The frame is that of all guests, recorded or generated: see `guest_memory`.
"""

from __future__ import annotations

import numpy as np

from hgmcore.files import Spool
from hgmcore.sizes import format_size, parse_named, quoted
from hgmcore.trace import NO_TIME, Trace, TraceError
from hgmcore.trace.names import Names
from hgmcore.trace.statements import CODES, MINOR, OPERATION, SHARED, URGENT, WRITE
from hgmcore.trace.writer import Writer

STREAM, REQUESTS = 1, 2  # threads: of the background stream, and of what an access waits for
PAGE = 4096  # bytes; unit of page numbers
MOST_PIECES = 1 << 28  # that a background stream may bring
FEW_PIECES, PIECES_A_LINE = 1 << 22, 1 << 10

# Of a guest's trace.
PART = np.dtype([("operation", OPERATION), ("thread", "<u4"), ("", "V4"), ("time", "<i8")])
_NEW = URGENT  # flag of a logged touch: the first of its piece
_CHUNK = 1 << 16  # parts


def too_many(pieces: int, lines: int) -> bool:
    """Are they more pieces than a recording of so many lines may become, so that a small one does not fill the disk?"""
    return pieces > min(MOST_PIECES, FEW_PIECES + PIECES_A_LINE * lines)


def guest_memory(writer, parts, count, *, page_size, pages, observations, process="vmm", memory="ram",
                 before=()) -> None:
    """Write the trace of one process that maps a whole file of huge pages in pieces.

    The file is populated, mapped shared and minor, and split; then come the operations of `before` and of
    `parts`, arrays of PART, with observations evenly spaced between those of `parts`, `count` in all; then one
    collapse of everything, and an observation. Raises ValueError.

    writer: a new Writer. page_size: bytes. pages: huge pages. observations: how many before the one at the end.
    process, memory: what the process, and the file and mapping, are called.
    """
    size = page_size * pages
    file = writer.file(memory, page_size, pages)
    writer.emit("populate", file, 0, pages)
    mapping = writer.mmap(writer.process(process), memory, file, 0, size, SHARED | MINOR)
    writer.emit("split", mapping, 0, size)
    for part in before:
        writer.extend(part["operation"], part["thread"], part["time"])
    observe = np.zeros(1, dtype=PART)
    observe["operation"]["op"], observe["time"] = CODES["observe"], NO_TIME
    observations = min(observations, count)
    cuts = np.arange(1, observations + 1) * count // max(observations, 1)
    done = 0
    for part in parts:
        inside = cuts[(cuts > done) & (cuts <= done + len(part))] - done
        done += len(part)
        part = np.insert(part, inside, observe)
        writer.extend(part["operation"], part["thread"], part["time"])
    writer.emit("collapse", mapping, 0, size)
    writer.emit("observe", 0)


def continues(offsets, piece, urgent=False, thread=0, time=NO_TIME):
    """Parts that map one piece each. offsets: array (n,) of bytes; the others: arrays (n,) or one value."""
    parts = np.zeros(len(offsets), dtype=PART)
    operation = parts["operation"]
    operation["op"], operation["offset"], operation["length"] = CODES["continue"], offsets, piece
    operation["flags"] = np.where(urgent, URGENT, 0)
    parts["thread"], parts["time"] = thread, time
    return parts


class Guest:
    """What a program touches, on its way to a Trace. Keywords: as `hgmcore.importers.options.GUEST` explains them.

    Memory grows with the number of distinct pieces, not of touches. Raises ValueError for a bad option.
    """

    def __init__(self, page_size="1G", piece="4K", background="0", later="drop", observations=8,
                 geometry="x86-64"):
        self.page_size, self.piece = parse_named("page_size", page_size), parse_named("piece", piece)
        base_page = Names(geometry).geometry.base_page
        if not self.piece or self.piece % base_page or self.page_size % self.piece:
            raise ValueError(f"piece: {format_size(self.piece)} is not a multiple of {format_size(base_page)} that "
                             f"divides a page of {format_size(self.page_size)}")
        self.background = _ratio(background)
        if later not in ("drop", "touch"):
            raise ValueError(f"later: {quoted(later)} is not one of drop, touch")
        self.keep = later == "touch"
        self.observations = parse_named("observations", observations)
        self.geometry = geometry
        self.touches = self.pieces = 0
        self.windows: dict[int, int] = {}  # window of addresses -> huge page
        self._there = np.zeros(0, dtype=np.uint64)  # pieces of the address space, in order
        self._log = Spool(PART)

    def touch(self, pages, write=False, thread=0, time=NO_TIME) -> None:
        """Touch pages in this order.

        pages: array (n,) of addresses divided by PAGE. write: whether each is written; thread, time: as in a
        trace; arrays (n,), or one value for all.
        """
        pieces = np.asarray(pages, dtype=np.uint64) // np.uint64(self.piece // PAGE)
        self.touches += len(pieces)
        new = np.flatnonzero(~is_in(pieces, self._there))
        distinct, first = np.unique(pieces[new], return_index=True)
        new = new[np.sort(first)]
        if len(new):
            self.pieces += len(new)
            self._there = np.insert(self._there, np.searchsorted(self._there, distinct), distinct)
            self._find_windows(pieces[new])
        if not self.keep:
            pieces, write, thread, time = (
                values[new] if np.ndim(values) else values for values in (pieces, write, thread, time))
        if len(pieces):
            is_new = np.zeros(len(pieces), dtype=bool)
            is_new[new if self.keep else slice(None)] = True
            parts = np.zeros(len(pieces), dtype=PART)
            operation = parts["operation"]
            operation["op"], operation["offset"] = CODES["touch"], self._offsets(pieces)
            operation["flags"] = np.where(write, WRITE, 0) | np.where(is_new, _NEW, 0)
            parts["thread"], parts["time"] = thread, time
            self._log.extend(parts)

    def trace(self, name, process="vmm", memory="ram", provenance=None) -> Trace:
        """The Trace of everything touched. Raises TraceError where nothing was, or where it becomes too long."""
        if not self.pieces:
            raise TraceError(name, "nothing is touched: it has no page fault, no userfaultfd placement and no call "
                                   "that populates memory")
        writer = Writer(self.geometry)
        log, parts = self._log, (self._requests(parts) for parts in self._log)
        if self.background:
            log = parts = self._with_stream(name)
        guest_memory(writer, parts, len(log), page_size=self.page_size, pages=len(self.windows), memory=memory,
                     observations=self.observations, process=process)
        return writer.trace(name, provenance)

    def notes(self) -> list[str]:
        """What a user should know of how addresses became offsets."""
        first = ", ".join(hex(window * self.page_size) for window in list(self.windows)[:4])
        more = ", .." if len(self.windows) > 4 else ""
        return [f"touched {self.pieces} pieces of {format_size(self.piece)} in {len(self.windows)} windows of "
                f"{format_size(self.page_size)}, each a huge page of the file: {first}{more}"]

    def _find_windows(self, pieces):
        """Give each window in which a piece lies a huge page."""
        windows = pieces // np.uint64(self.page_size // self.piece)
        distinct, first = np.unique(windows, return_index=True)
        for window in distinct[np.argsort(first)].tolist():
            self.windows.setdefault(window, len(self.windows))

    def _offsets(self, pieces):
        """Where pieces of the address space lie in the file, in bytes."""
        per_page = np.uint64(self.page_size // self.piece)
        distinct, which = np.unique(pieces // per_page, return_inverse=True)
        page = np.array([self.windows[window] for window in distinct.tolist()], dtype=np.uint64)[which]
        return (page * per_page + pieces % per_page) * np.uint64(self.piece)

    def _requests(self, parts):
        """Make those of `parts` that are marked new urgent `continue`s."""
        operation, new = parts["operation"], parts["operation"]["flags"] & _NEW != 0
        operation["op"][new], operation["length"][new] = CODES["continue"], self.piece
        operation["flags"][new] = URGENT
        parts["thread"][new] = REQUESTS
        return parts

    def _with_stream(self, name):
        """What was logged, with the background stream in it: a Spool."""
        total = len(self.windows) * (self.page_size // self.piece)
        if too_many(total, self.touches):
            raise TraceError(name, f"a background stream would bring {total:,} pieces of {len(self.windows)} "
                                   f"pages of {format_size(self.page_size)} for {self.touches:,} touches: choose a "
                                   "smaller page_size")
        there, stream, out = bytearray(total), _Stream(self.background), Spool(PART)
        for parts in self._log:
            late, where, brought = np.zeros(len(parts), dtype=bool), [], []
            first = np.flatnonzero(parts["operation"]["flags"] & _NEW)
            pieces = parts["operation"]["offset"][first] // np.uint64(self.piece)
            for index, piece in zip(first.tolist(), pieces.tolist()):
                late[index], there[piece] = there[piece], 1
                for streamed in stream.step(there):
                    where.append(index + 1)
                    brought.append(streamed)
            parts["operation"]["flags"][late] &= WRITE
            parts = np.insert(self._requests(parts), where, self._streamed(brought))
            gone = np.zeros(0, dtype=np.int64) if self.keep else np.flatnonzero(late)
            out.extend(np.delete(parts, gone + np.searchsorted(where, gone, side="right")))
        rest = np.flatnonzero(np.frombuffer(there, dtype=np.uint8) == 0)
        for start in range(0, len(rest), _CHUNK):
            out.extend(self._streamed(rest[start:start + _CHUNK]))
        return out

    def _streamed(self, pieces):
        return continues(np.array(pieces, dtype=np.uint64) * np.uint64(self.piece), self.piece, thread=STREAM)


class _Stream:
    """The background stream: `ratio` pieces for each step, in order of offset."""

    def __init__(self, ratio):
        self.ratio, self.owed, self.at = ratio, 0.0, 0

    def step(self, there):
        """Pieces that are brought now; they are marked in `there`, bytes that are 0 for what still lacks."""
        self.owed += self.ratio
        while self.owed >= 1 and self.at >= 0:
            self.owed -= 1
            self.at = there.find(0, self.at)
            if self.at >= 0:
                there[self.at] = 1
                yield self.at


def is_in(values, ordered):
    """Whether each value is one of `ordered`."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    where = np.searchsorted(ordered, values)
    return ordered[where.clip(max=len(ordered) - 1)] == values


def _ratio(text):
    try:
        ratio = float(text)
    except ValueError:
        raise ValueError(f"background: {quoted(str(text))} is not a number") from None
    if not 0 <= ratio < MOST_PIECES:
        raise ValueError(f"background: {text} is not between 0 and {MOST_PIECES}")
    return ratio

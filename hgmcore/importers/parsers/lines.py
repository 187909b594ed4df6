"""Lines of a text recording as arrays: no Python object for each line.

A Block holds some whole lines. Its functions take and return positions in `data`, one for each line of
interest, so that a field is found and read for many lines at once.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 20  # bytes; arrays of its lines stay in a second-level cache
LONGEST_LINE = 1 << 20  # bytes
MARGIN = 64  # zero bytes on both sides of the lines, so that a window never leaves the array

_DIGITS = np.full(256, 255, dtype=np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


class Block:
    """number: of the first line. starts, ends: arrays (n,), where each line begins and where its end is."""

    def __init__(self, number: int, text: bytes):
        margin = bytes(MARGIN)
        self.number = number
        self.bytes = margin + text + margin
        self.data = np.frombuffer(self.bytes, dtype=np.uint8)
        newlines = np.flatnonzero(self.data == ord("\n"))
        self.starts = np.concatenate([[MARGIN], newlines[:-1] + 1])
        self.ends = newlines - (self.data[newlines - 1] == ord("\r"))
        self._positions: dict[str, np.ndarray] = {}  # text -> where it stands, for texts that were looked for

    def __len__(self) -> int:
        return len(self.starts)

    def line(self, index: int) -> bytes:
        """Line `index` of the block, without its end-of-line."""
        return self.bytes[self.starts[index]:self.ends[index]]

    def find(self, text: str, starts, ends):
        """Where `text`, in ASCII, first begins in each [start, end); `end` where it does not occur."""
        there = self._positions.get(text)
        if there is None:
            there = np.flatnonzero(self.data == ord(text[0]))
            for at in range(1, len(text)):
                there = there[self.data[there + at] == ord(text[at])]
            there = self._positions[text] = np.append(there, len(self.data))
        return np.minimum(there[np.searchsorted(there, starts)], ends)

    def begins(self, text: bytes, starts):
        """Whether `text`, of at most MARGIN bytes, stands at each start."""
        return self.windows(starts, len(text)) == np.frombuffer(text, dtype=f"V{len(text)}")[0]

    def number_at(self, starts, ends, base: int = 10):
        """(values as uint64, whether it is one) of the digits that fill each [start, end); base 10 or 16.

        A number has at most 19 decimal or 16 hexadecimal digits.
        """
        count = ends - starts
        width = min(int(count.max(initial=1)), 19 if base == 10 else 16)
        good = (count > 0) & (count <= width)
        digits = _DIGITS[self.windows(ends - width, width).view(np.uint8).reshape(-1, width)]
        if count.min(initial=width) < width:
            digits[np.arange(width) < width - count[:, None]] = 0
        if digits.max(initial=0) >= base:
            good &= (digits < base).all(axis=1)
        values = np.zeros(len(starts), dtype=np.uint64)
        for column in digits.T:
            values = values * np.uint64(base) + column
        return values, good

    def windows(self, starts, width):
        """The `width` bytes at each start, at most MARGIN, as one void value each."""
        count = len(self.data) - width + 1
        return np.ndarray(count, dtype=f"V{width}", buffer=self.data, strides=(1,))[starts]


def blocks(stream, report):
    """Blocks of the lines of `stream`, counted in `report`.

    A line of which more than LONGEST_LINE bytes would have to be kept is skipped, so that memory is bounded.
    """
    rest, dropping = b"", False
    while data := stream.read(BLOCK):
        text = rest + data
        end = text.rfind(b"\n") + 1
        text, rest = text[:end], text[end:]
        if dropping and text:
            text, dropping = text.partition(b"\n")[2], False
        if text:
            yield _block(text, report)
        if len(rest) > LONGEST_LINE and not dropping:
            report.lines += 1
            report.skip(f"a line of more than {LONGEST_LINE} bytes", report.lines)
            dropping = True
        if dropping:
            rest = b""
    if rest:
        yield _block(rest + b"\n", report)


def _block(text, report):
    block = Block(report.lines + 1, text)
    report.lines += len(block)
    return block

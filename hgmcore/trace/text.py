"""The text form of a trace: one statement a line, as `hgmcore.trace.statements` gives them."""

from __future__ import annotations

import json
import re
import struct
from array import array

import numpy as np

from hgmcore.sizes import LIMIT, quoted
from hgmcore.trace.header import NO_TIME, Columns, Header, TraceError
from hgmcore.trace.names import Names
from hgmcore.trace.statements import ARG, OP, OPERATION, form, form_of, usage

FIRST_LINE = "hgmcore-trace 1"
LONGEST_LINE = 1 << 20  # bytes
CHUNK = 1 << 16  # statements written at a time

# Provenance has no statement: it stands in comments above the first one, so that no form loses it.
_PROVENANCE = re.compile(r'# provenance ([\w.-]+): (".*")\s*', re.ASCII)

_pack = struct.Struct("<QQIHBB").pack  # as OPERATION


def read(head: bytes, stream, name: str) -> Columns:
    """Read a text trace of which `head` was read from `stream` already. Raises TraceError with the line."""
    first = head.split(b"\n", 1)[0].split(b"#", 1)[0].split()
    if first[:1] != [b"hgmcore-trace"]:
        found = quoted(head[:80].split(b"\n", 1)[0].decode("utf-8", "replace")) if head else "an empty file"
        raise TraceError(name, f"not a trace: the first line must be {FIRST_LINE!r}, found {found}", 1)
    if first[1:] != [b"1"]:
        version = b" ".join(first[1:]).decode("utf-8", "replace")
        raise TraceError(name, f"unknown version {quoted(version)} of the trace format (known: 1)", 1)
    parser = _Parser(name)
    for number, text in _blocks(head, stream, name):
        parser.feed(number, text)
    return parser.columns()


def _blocks(head, stream, name):
    """(number of the first line, text) of blocks of whole lines."""
    number, rest, data = 1, b"", head
    while data:
        block, newline, rest = (rest + data).rpartition(b"\n")
        if newline:
            yield number, _decode(block, number, name)
            number += block.count(b"\n") + 1
        if len(rest) > LONGEST_LINE:
            raise TraceError(name, f"a line of more than {LONGEST_LINE} bytes", number)
        data = stream.read(1 << 20)
    yield number, _decode(rest, number, name)


def _decode(block, number, name):
    """The text of `block`, which begins with line `number`."""
    nul = block.find(b"\0")
    if nul >= 0:
        raise TraceError(name, "a NUL byte (not a text file?)", number + block.count(b"\n", 0, nul))
    try:
        return block.decode()
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise TraceError(name, f"byte 0x{block[error.start]:02x} is not UTF-8", line) from None


class _Parser:
    """Collects records from lines."""

    def __init__(self, name):
        self.name = name
        self.names, self.geometry, self.provenance = Names(), False, {}
        self.records, self.lines = bytearray(), array("I")
        # Statements with a prefix: their indices, threads and times.
        self.prefixed, self.threads, self.times = array("Q"), array("I"), array("q")

    def feed(self, number, text):
        """Take the lines of `text`, the first of which is line `number` of the file."""
        records, lines = self.records, self.lines
        for number, line in enumerate(text.split("\n"), number):
            if "#" in line:
                line = self._without_comment(line)
            words = line.split()
            if not words or number == 1:
                continue
            try:
                if words[0][0] == "@":
                    self._prefix(words.pop(0))
                if words[:1] == ["geometry"]:
                    self._geometry(words)
                    continue
                records += _record(words, self.names)
            except ValueError as error:
                raise TraceError(self.name, str(error), number) from None
            lines.append(number)

    def columns(self):
        """The Columns of all lines so far."""
        names, count = self.names, len(self.lines)
        header = Header(names.geometry.name, names.files, names.processes, names.mappings, self.provenance,
                        names.phases)
        thread, time = np.zeros(count, np.uint32), np.full(count, NO_TIME, np.int64)
        thread[self.prefixed], time[self.prefixed] = self.threads, self.times
        operations = np.frombuffer(self.records, dtype=OPERATION)
        return Columns(header, operations, thread, time, np.array(self.lines, np.uint32))

    def _without_comment(self, line):
        match = None if self.lines else _PROVENANCE.fullmatch(line)
        if match:
            try:
                self.provenance[match[1]] = json.loads(match[2])
            except ValueError:
                pass  # a comment like any other
        return line[:line.index("#")]

    def _prefix(self, word):
        thread, colon, time = word[1:].partition(":")
        if not _is_count(thread, 1 << 32) or (colon and not _is_count(time, LIMIT)):
            raise ValueError(f"prefix {quoted(word)} is not @THREAD or @THREAD:NANOSECONDS")
        self.prefixed.append(len(self.lines))
        self.threads.append(int(thread))
        self.times.append(int(time) if colon else NO_TIME)

    def _geometry(self, words):
        if self.prefixed[-1:] == array("Q", [len(self.lines)]):
            raise ValueError("geometry: a prefix belongs to an operation")
        if self.lines or self.geometry:
            raise ValueError("geometry: must stand once, before the first statement")
        if len(words) != 2:
            raise ValueError("geometry: expected 'geometry NAME'")
        try:
            self.names = Names(words[1])
        except ValueError as error:
            raise ValueError(f"geometry: {error}") from None
        self.geometry = True


def _is_count(word, limit):
    return word.isascii() and word.isdecimal() and len(word) < 20 and int(word) < limit


def _record(words, names):
    """The bytes of the record that `words` spell. Raises ValueError with the reason."""
    if not words:
        raise ValueError("a prefix without a statement")
    statement = form(words[0], len(words) - 1)
    record = statement.blank.copy()
    at = 1
    try:
        for operand in statement.operands:
            at = operand.read(words, at, record, names)
        if at < len(words):
            raise ValueError(f"unexpected {quoted(words[at])} (expected: {usage(words[0])})")
    except ValueError as error:
        raise ValueError(f"{words[0]}: {error}") from None
    except IndexError:
        raise ValueError(f"{words[0]}: {operand.usage} is missing (expected: {usage(words[0])})") from None
    return _pack(*record)


def write(trace, stream) -> None:
    """Write the text form of `trace` to a stream of bytes."""
    header = trace.header
    lines = [FIRST_LINE]
    lines += [f"# provenance {key}: {json.dumps(value)}" for key, value in header.provenance.items()]
    if header.geometry != Header.geometry:
        lines.append(f"geometry {header.geometry}")
    for part in trace.chunks(CHUNK):
        lines += spelled(trace.operations[part], header)
        if trace.thread is not None or trace.time is not None:
            head = len(lines) - len(trace.operations[part])
            lines[head:] = map(str.__add__, _prefixes(trace, part), lines[head:])
        stream.write("\n".join(lines + [""]).encode())
        lines = []
    if lines:
        stream.write("\n".join(lines + [""]).encode())


def spelled(operations, header):
    """Yield the statement of each record, without a prefix."""
    for record in operations.tolist():
        statement = form_of(record[OP], record[ARG])
        words = [statement.name]
        for operand in statement.operands:
            if word := operand.write(record, header):
                words.append(word)
        yield " ".join(words)


def _prefixes(trace, part):
    count = len(trace.operations[part])
    threads = trace.thread[part].tolist() if trace.thread is not None else [0] * count
    times = trace.time[part].tolist() if trace.time is not None else [NO_TIME] * count
    for thread, time in zip(threads, times):
        yield f"@{thread}:{time} " if time != NO_TIME else f"@{thread} " if thread else ""

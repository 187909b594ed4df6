"""A comparison as a timeline that Perfetto opens: a file of TrackEvent packets, in Protocol Buffers.

Only the few fields that are needed are written, by number as in Perfetto's trace_packet.proto, track_event.proto,
track_descriptor.proto, counter_descriptor.proto, process_descriptor.proto and debug_annotation.proto.
"""

from __future__ import annotations

import itertools
import struct

import numpy as np

from hgmcore.analysis.course import clock, course, points
from hgmcore.analysis.words import WORDS
from hgmcore.report.prose import printable
from hgmcore.trace.phases import phases as phases_of

SEQUENCE = 1  # one writer wrote all packets
SLICES = 5000  # most slices of phases; a trace that changes more often between phases has none
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4  # TrackEvent.Type


def timeline_bytes(trace, result) -> bytes:
    """The timeline of `result`, of compare(trace, ...), as the bytes of a file for ui.perfetto.dev.

    Tracks: the phases; how many operations a second there are, where the trace has times; and for each scheme atomics
    and entries scanned for each operation, as counters, and an instant where an observation shows an error, with its
    kinds and sizes as arguments. A trace without times takes a microsecond for each operation. A refused scheme
    has a track that says why. The counters are counted anew, with the options of the result.
    """
    return b"".join(_packets(trace, result))


def _packets(trace, result):
    """Yield each packet as it stands in the file."""
    now, recorded = clock(trace)
    tracks = _Tracks()
    unit = "recorded times" if recorded else "1 us is one operation"
    root = tracks.add(f"{result['trace']['name']} ({unit})", process=1)
    yield root.packet
    stops = points(len(trace))
    edges = np.concatenate([[0], stops])
    yield from _phases(trace, now, tracks, root)
    if recorded:
        rate = tracks.add("operations a second", root, counter="1/s")
        yield rate.packet
        took = np.maximum(np.diff(now[edges]), 1)
        yield from _counter(rate, now[edges], np.diff(edges) * 1e9 / took)
    for number, (name, entry) in enumerate(result["schemes"].items(), start=2):
        process = tracks.add(name, process=number)
        yield process.packet
        if "refused_why" in entry:
            errors = tracks.add("refused", process)
            yield errors.packet
            yield _event(0, errors, INSTANT, "refused", {"why": entry["refused_why"]})
            continue
        sums = course(trace, name, stops, **result["options"])
        for key, what in (("atomics", "atomics"), ("scanned", "entries scanned")):
            track = tracks.add(f"{what} for each operation", process, counter="1/operation")
            yield track.packet
            yield from _counter(track, now[edges], np.diff(sums[key], prepend=0) / np.diff(edges))
        errors = tracks.add("observations with errors", process)
        yield errors.packet
        for index, found in result["errors_at"].get(name, ()):
            title = ", ".join(WORDS.get(key, key) for key in found)
            yield _event(now[min(index, len(trace))], errors, INSTANT, title, found)


def _phases(trace, now, tracks, root):
    """A slice for each stretch of operations of one phase."""
    cut = phases_of(trace)
    starts = np.flatnonzero(np.diff(cut.number, prepend=cut.number[:1] + 1)) if len(trace) else np.zeros(0, np.int64)
    if not 0 < len(starts) <= SLICES:
        return
    track = tracks.add("phases", root)
    yield track.packet
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(trace)], strict=True):
        name = cut.names[cut.number[start]]
        yield _event(now[start], track, BEGIN, name, {"first": start, "operations": stop - start})
        yield _event(now[stop], track, END)


def _counter(track, times, values):
    """Each value from its point in time to the next; 0 behind the last."""
    for time, value in zip(times.tolist(), [*values.tolist(), 0.0], strict=True):
        yield _event(time, track, COUNTER, value=value)


class _Track:
    def __init__(self, uuid, packet):
        self.uuid, self.packet = uuid, packet


class _Tracks:
    """Makes tracks, each with a number of its own and the packet that tells of it."""

    def __init__(self):
        self._numbers = itertools.count(1)

    def add(self, name, parent=None, process=None, counter=None):
        """A track below another one, or of a process of its own; counter: its unit, for a track of numbers."""
        uuid = next(self._numbers)
        fields = [_number(1, uuid), _text(2, name)]
        if parent:
            fields.append(_number(5, parent.uuid))
        if process:
            fields.append(_bytes(3, _number(1, process) + _text(6, name)))
        if counter:
            fields.append(_bytes(8, _text(6, counter)))
        first = _number(13, 1) if uuid == 1 else b""  # SEQ_INCREMENTAL_STATE_CLEARED
        return _Track(uuid, _packet(_number(10, SEQUENCE) + first + _bytes(60, b"".join(fields))))


def _event(time, track, kind, name=None, arguments=None, value=None):
    """A packet with one TrackEvent at `time` nanoseconds."""
    fields = [_number(9, kind), _number(11, track.uuid)]
    if name is not None:
        fields.append(_text(23, name))
    if value is not None:
        fields.append(_double(44, value))
    for key, argument in (arguments or {}).items():
        as_value = _text(6, argument) if isinstance(argument, str) else \
            _double(5, argument) if isinstance(argument, float) else _number(3, argument)
        fields.append(_bytes(4, _text(10, key) + as_value))
    return _packet(_number(8, int(time)) + _number(10, SEQUENCE) + _bytes(11, b"".join(fields)))


def _packet(content):
    return _bytes(1, content)


def _varint(value):
    """A number of at least 0, seven bits in a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _double(field, value):
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field, content):
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field, text):
    return _bytes(field, printable(text).encode())

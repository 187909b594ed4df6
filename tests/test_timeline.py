"""The timeline of a comparison, read back by an independent reader: phases, counters and errors at their times."""

import struct

import numpy as np
import pytest

from hgmcore import Trace, compare
from hgmcore.analysis.course import clock, course, points
from hgmcore.report.timeline import BEGIN, COUNTER, END, INSTANT, timeline_bytes

TRACE = """\
hgmcore-trace 1
file F 2M 2
populate F 0 2
mmap A v F 0 4M shared minor
mmap B w F 0 2M shared minor
phase map_pieces
split A v 0 4M
continue A v 0 4K
continue A v 28K 4K
continue B w 0 2M
phase unmap
dontneed A v 0 4K
dontneed A v 28K 4K
"""
SCHEMES = "head_per_leaf,subtree,logical_scan,mm_id"


def fields(data):
    """The fields of a message: [(number, value)], values as ints, bytes or, of eight bytes, as doubles."""
    found, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found.append((key >> 3, varint()))
        elif key & 7 == 1:
            found.append((key >> 3, struct.unpack_from("<d", data, at)[0]))
            at += 8
        else:
            assert key & 7 == 2
            length = varint()
            assert at + length <= len(data)
            found.append((key >> 3, data[at:at + length]))
            at += length
    return found


def read(data):
    """(tracks, events): uuid -> {name, parent, process, unit}, and [{time, kind, track, name, value, arguments}]."""
    tracks, events = {}, []
    for number, packet in fields(data):
        assert number == 1
        packet = dict(fields(packet))
        assert packet[10] == 1, "all packets are of one sequence"
        if 60 in packet:
            track = dict(fields(packet[60]))
            tracks[track[1]] = {"name": track[2].decode(), "parent": track.get(5), "process": 3 in track,
                                "unit": dict(fields(track[8]))[6].decode() if 8 in track else None}
            continue
        event = fields(packet[11])
        arguments = {}
        for annotation in (dict(fields(value)) for key, value in event if key == 4):
            name = annotation.pop(10).decode()
            (arguments[name],) = annotation.values()
        event = dict(event)
        assert event[11] in tracks, "a track is told of before its events"
        events.append({"time": packet[8], "kind": event[9], "track": event[11], "value": event.get(44),
                       "name": event[23].decode() if 23 in event else None, "arguments": arguments})
    return tracks, events


@pytest.fixture(scope="module")
def made():
    trace = Trace.parse(TRACE, name="small")
    result = compare(trace, schemes=SCHEMES, repeat=0)
    return trace, result, *read(timeline_bytes(trace, result))


def track_of(tracks, name, scheme=None):
    (uuid,) = (uuid for uuid, track in tracks.items()
               if track["name"] == name and (scheme is None or tracks[track["parent"]]["name"] == scheme))
    return uuid


def test_phases_are_slices(made):
    trace, result, tracks, events = made
    mine = [event for event in events if event["track"] == track_of(tracks, "phases")]
    assert [event["kind"] for event in mine] == [BEGIN, END] * 3
    found = [(begin["name"], begin["time"] // 1000, (end["time"] - begin["time"]) // 1000)
             for begin, end in zip(mine[::2], mine[1::2])]
    wanted = [(phase["name"], phase["first"], phase["operations"]) for phase in result["trace"]["phases"]]
    assert sorted(found) == sorted(wanted)


def test_counters_add_up_to_what_was_counted(made):
    trace, result, tracks, events = made
    for name, entry in result["schemes"].items():
        cost = entry["cost"]
        atomics = cost["atomics"]["persistent"] + cost["atomics"]["transient"]
        for title, total in (("atomics for each operation", atomics),
                             ("entries scanned for each operation", cost["entries_scanned"])):
            track = track_of(tracks, title, name)
            assert tracks[track]["unit"] == "1/operation"
            mine = [event for event in events if event["track"] == track]
            assert all(event["kind"] == COUNTER for event in mine) and mine[-1]["value"] == 0
            times = np.array([event["time"] for event in mine]) / 1000
            assert np.diff(times) @ np.array([event["value"] for event in mine[:-1]]) == pytest.approx(total)
    assert result["schemes"]["logical_scan"]["cost"]["entries_scanned"] > 0


def test_observations_with_errors_are_instants(made):
    trace, result, tracks, events = made
    assert any(result["errors_at"].values())
    for name, found in result["errors_at"].items():
        track = track_of(tracks, "observations with errors", name)
        mine = [event for event in events if event["track"] == track]
        assert [[event["time"] // 1000, event["arguments"]] for event in mine] == found
        assert all(event["kind"] == INSTANT and event["name"] for event in mine)


def test_refused_schemes_have_a_track_that_says_why():
    trace = Trace.parse(TRACE)
    result = compare(trace, schemes="subtree,mm_id", repeat=0, hvo="on")
    tracks, events = read(timeline_bytes(trace, result))
    (event,) = (event for event in events if event["track"] == track_of(tracks, "refused", "mm_id"))
    assert event["arguments"]["why"].decode() == result["schemes"]["mm_id"]["refused_why"]


def test_times_of_the_trace_are_kept_and_give_a_rate():
    lines = TRACE.splitlines()
    timed = [f"@0:{5_000_000_000 + 1000 * i * i} {line}" if i > 5 else line for i, line in enumerate(lines)]
    trace = Trace.parse("\n".join(timed) + "\n")
    result = compare(trace, schemes="subtree", repeat=0)
    tracks, events = read(timeline_bytes(trace, result))
    mine = [event for event in events if event["track"] == track_of(tracks, "operations a second")]
    seconds = np.diff([event["time"] for event in mine]) / 1e9
    assert seconds[-2] == pytest.approx((12 * 12 - 11 * 11) / 1e6)
    assert mine[-3]["value"] == pytest.approx(1 / seconds[-2])


@pytest.mark.parametrize("times, recorded", [
    ([5, 6, 7], True), ([None, 6, 7], True), ([5, None, 7], False), ([5, 4, 7], False), ([None, None, None], False)])
def test_clock(times, recorded):
    prefix = ["" if time is None else f"@0:{time} " for time in times]
    trace = Trace.parse("hgmcore-trace 1\nfile F 2M 1\n" + "".join(f"{one}observe\n" for one in prefix))
    found, kept = clock(trace)
    assert kept == recorded and len(found) == len(trace) + 1 and (np.diff(found) >= 0).all() and found[0] == 0


def test_points_of_a_course():
    assert points(0).tolist() == [] and points(3).tolist() == [1, 2, 3]
    assert len(points(10_000)) == 256 and points(10_000)[-1] == 10_000
    trace = Trace.parse(TRACE)
    whole, last = course(trace, "mm_id", np.array([len(trace)])), course(trace, "mm_id", points(len(trace)))
    assert all(whole[key][-1] == last[key][-1] for key in whole) and whole["leaves"][0] == 5


def test_an_empty_trace_has_a_timeline():
    trace = Trace.parse("hgmcore-trace 1\n")
    tracks, events = read(timeline_bytes(trace, compare(trace, schemes="subtree", repeat=0)))
    assert not events or all(event["kind"] == COUNTER for event in events)


def test_the_command_writes_every_face(tmp_path, monkeypatch, capsys):
    from hgmcore.__main__ import main

    (tmp_path / "t.hgm").write_text(TRACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["hgmcore", "compare", "t.hgm", "--repeat", "0", "--schemes", SCHEMES,
                                     "--csv", "r.csv", "--parquet", "r.parquet", "--timeline", "r.perfetto-trace"])
    assert main() == 0
    rows = (tmp_path / "r.csv").read_text().splitlines()
    assert rows[0].startswith("scheme,phase,group,key,value,low,high,unit,label") and len(rows) > 200
    assert (tmp_path / "r.parquet").read_bytes()[:4] == b"PAR1"
    tracks, events = read((tmp_path / "r.perfetto-trace").read_bytes())
    assert {track["name"] for track in tracks.values() if track["process"]} > set(SCHEMES.split(",")) and events

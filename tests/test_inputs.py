"""The inputs that `load` accepts: traces, paths, names, streams, lines; and how it refuses others."""

import io
from pathlib import Path

import pytest

import hgmcore as hgm
from hgmcore.inputs import load_input

LINES = ["file F 2M 1", "mmap A v F 0 2M shared"]


def test_every_kind_of_source(tmp_path, monkeypatch):
    trace = hgm.load(LINES)
    path = tmp_path / "a.hgm"
    trace.save(path)
    assert hgm.load(trace) is trace
    assert hgm.load(path) == hgm.load(str(path)) == hgm.load(Path(path)) == trace
    assert hgm.load(io.BytesIO(path.read_bytes())) == trace
    assert hgm.load(["hgmcore-trace 1\n", *(line + "\n" for line in LINES)]) == trace == hgm.load(tuple(LINES))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert hgm.load("-") == trace
    assert hgm.load("workload:random,page_size=2M") == hgm.workloads.random(page_size="2M")
    assert hgm.load("recording:postgres_hugepages_pgbench").name == "recording:postgres_hugepages_pgbench"
    assert load_input(None).name == "workload:guest_life"


@pytest.mark.parametrize("source, error, reason", [
    (7, TypeError, "a int is no trace"), (None, TypeError, "a NoneType is no trace"),
    ([1], TypeError, "a int is no line of a trace"), ("recording:no", ValueError, "unknown recording 'no'"),
    ("workload:no", ValueError, "unknown workload 'no' .known: .*guest_life"),
    ("workload:guest_life,x=1", ValueError, "has no parameter 'x' .it has seed"),
    (["nonsense"], hgm.TraceError, "<lines>:2: unknown statement 'nonsense'"),
    ("/nowhere.hgm", hgm.TraceError, "/nowhere.hgm: No such file")])
def test_what_is_no_source(source, error, reason):
    with pytest.raises(error, match=reason):
        hgm.load(source)


def test_an_empty_name_is_one_clear_error():
    with pytest.raises(ValueError, match="input: '' names nothing"):
        hgm.load("")

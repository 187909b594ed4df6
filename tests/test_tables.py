"""Results as Arrow and pandas tables, CSV and Parquet; and what takes traces takes paths, names and lines."""

import csv
import io
import json
import sys

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import hgmcore as hgm
from hgmcore.arrow import arrow_table
from hgmcore.replay import to_json
from hgmcore.report.long import columns_of, long_csv, long_parquet
from hgmcore.trace.statements import OPERATION

LINES = ["file F 2M 1", "populate F 0 1", "mmap A v F 0 2M shared minor hgm", "continue A v 0 4K", "observe"]
NAMES = ["scheme", "part", "index", "of", "key", "value", "truth"]


def test_a_replay_is_a_table():
    result = hgm.replay(LINES, "head_per_leaf")
    table = pyarrow.RecordBatchReader.from_stream(result).read_all()
    assert table.column_names == NAMES and table == result.to_arrow()
    rows = table.to_pylist()
    found = {(row["part"], row["of"], row["key"]): row for row in rows}
    assert found["cost", None, "atomics.ref"]["value"] == result["cost"]["atomics"]["ref"] == 1
    assert found["folio", "F 0", "mapcount"] == {
        "scheme": "head_per_leaf", "part": "folio", "index": 4, "of": "F 0", "key": "mapcount", "value": 1.0,
        "truth": None}
    assert found["mapping", "A v", "pss"]["truth"] == 4096 and found["folio", "F 0", "leaves"]["value"] is None
    assert isinstance(result, dict) and json.dumps(to_json(result, hgm.load(LINES)))


def test_a_replay_is_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = hgm.replay(LINES, "subtree").to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame.columns.tolist() == NAMES
    assert frame[frame.key == "rss"].value.tolist() == [4096.0]


def test_csv_and_parquet():
    columns = columns_of([{"a": 1, "b": "x,\"y\""}, {"b": "z", "c": 2.5}])
    assert columns == {"a": [1, None], "b": ["x,\"y\"", "z"], "c": [None, 2.5]}
    assert list(csv.reader(io.StringIO(long_csv(columns)))) == [["a", "b", "c"], ["1", "x,\"y\"", ""], ["", "z", "2.5"]]
    assert parquet.read_table(io.BytesIO(long_parquet(columns))).to_pydict() == columns
    assert columns_of([{"a": 1}], ["b", "a"]) == {"b": [None], "a": [1]}
    assert arrow_table({"n": np.arange(3)}).to_pydict() == {"n": [0, 1, 2]}


def test_without_pyarrow_one_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'hgmcore\[cli\]'"):
        arrow_table({"a": [1]})


def test_sources_wherever_a_trace_stands(tmp_path):
    trace = hgm.load(LINES)
    path = tmp_path / "t.hgm"
    trace.save(path)
    want = hgm.replay(trace, "mm_id")["observations"][0]["folios"][0]["mapcount"]
    for source in (LINES, tuple(LINES), np.array(LINES), str(path), path):
        assert hgm.load(source) == trace
        assert hgm.replay(source, "mm_id")["observations"][0]["folios"][0]["mapcount"] == want
        machine = hgm.Machine("mm_id")
        machine.run(source)
        assert machine.observe()["folios"][0]["mapcount"] == want
    assert next(hgm.replay_steps("workload:random,page_size=2M", "subtree")).statement.startswith("file ")
    engine = hgm.schemes.load("mm_id")
    assert hgm.replay(path, engine)["scheme"] == "mm_id" == hgm.Machine(engine).engine.name
    assert next(hgm.replay_steps(LINES, engine)).index == 0


def test_a_machine_goes_on_with_a_trace_that_begins_as_it_does():
    machine = hgm.Machine("head_per_leaf")
    machine.run(LINES)
    rows = machine.run_each([*LINES[:1], "mmap A v F 0 2M shared minor hgm", "continue A v 4K 4K", "fork A B"])
    assert rows["leaves"].tolist() == [0, 0, 1, 0] and machine.operations == 9


@pytest.mark.parametrize("source, error, reason", [
    (["file G 2M 1"], ValueError, "<lines> does not begin with the file declarations that the machine has"),
    (["file F 2M 1", "mmap B v F 0 2M shared"], ValueError, "process declarations"),
    (["hgmcore-trace 1", "geometry arm64-4k", "file F 2M 1"], ValueError, "geometry arm64-4k, the machine of x86-64"),
    (7, TypeError, "a int is no trace"), (np.zeros(3), TypeError, "dtype"),
    (["x"], hgm.TraceError, "unknown statement")])
def test_what_a_machine_does_not_run(source, error, reason):
    machine = hgm.Machine("head_per_leaf")
    machine.run(LINES)
    before = machine.operations
    with pytest.raises(error, match=reason):
        machine.run(source)
    assert machine.operations == before and len(machine.header.files) == 1


def test_records_alone_are_no_trace():
    with pytest.raises(TypeError, match=r"names and files stand in a header: hgmcore.Trace\(header, array\)"):
        hgm.load(np.zeros(1, OPERATION))

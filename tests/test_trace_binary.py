"""Parquet files that hold no trace or a damaged one: each is refused in one line, none crashes."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_trace import EVERY, in_binary, parse, refusal
from test_trace_errors import NO_VAX

from hgmcore.trace import Trace, TraceError
from hgmcore.trace.statements import NAMES


def load(table):
    stream = io.BytesIO()
    pq.write_table(table, stream)
    stream.name = "t.parquet"
    stream.seek(0)
    return Trace.load(stream)


def table_of(trace):
    return pq.read_table(io.BytesIO(in_binary(trace)))


def with_column(table, name, values, kind=None):
    array = pa.array(values, kind or table.schema.field(name).type)
    metadata = table.schema.metadata
    return table.set_column(table.schema.get_field_index(name), name, array).replace_schema_metadata(metadata)


def with_header(table, change):
    header = json.loads(table.schema.metadata[b"hgmcore-trace"])
    change(header)
    return table.replace_schema_metadata({b"hgmcore-trace": json.dumps(header).encode()})


def test_untouched_tables_load():
    assert load(table_of(Trace.parse(EVERY))) == Trace.parse(EVERY)
    as_int64 = table_of(Trace.parse(EVERY))
    for name in as_int64.column_names:
        as_int64 = with_column(as_int64, name, as_int64[name].to_pylist(), pa.int64())
    assert load(as_int64) == Trace.parse(EVERY)


BODY = "continue A v 0 4K urgent\n@5:7 pin F 1 2\nfork A B\nmremap A v 0 4K w\nregister A v wp\n"  # 2..6


@pytest.mark.parametrize("column, row, value, reason", [
    ("op", 2, 99, "statement 2: unknown operation code 99"),
    ("op", 2, len(NAMES), f"statement 2: unknown operation code {len(NAMES)}"),
    ("op", 6, 22, "statement 6: observe: flags 4 hold a bit that it does not have"),
    ("target", 2, 9, "statement 2: continue: target 9 is none of 3 mapping entries"),
    ("target", 2, 1, "statement 2: continue: a mapping is used before it is declared"),
    ("target", 3, 1, "statement 3: pin: target 1 is none of 1 file entries"),
    ("target", 4, 1, "statement 4: fork: the parent is used before it is declared"),
    ("target", 5, 1, "statement 5: mremap: mapping 'w' belongs to another process"),
    ("arg", 1, 1, "statement 1: mmap: arg 1 is none of 1 file entries"),
    ("arg", 2, 1, "statement 2: continue: column 'arg' is 1, expected 0"),
    ("arg", 4, 7, "statement 4: fork: arg 7 is none of 2 process entries"),
    ("arg", 4, 0, "statement 4: fork: process 'A' exists already"),
    ("arg", 5, 3, "statement 5: mremap: arg 3 is none of 3 mapping entries"),
    ("arg", 5, 0, "the header's mapping table is not what the statements declare, in their order"),
    ("arg", 5, 0xFFFF, "statement 5: mremap: column 'offset' is 8192, expected 0"),
    ("flags", 2, 32, "statement 2: continue: flags 32 hold a bit that it does not have"),
    ("flags", 6, 0, "statement 6: register: none of minor|wp.. is given"),
    ("offset", 2, 2**63,
     "statement 2: continue: OFFSET 9223372036854775808 is too large (numbers are below 2**63)"),
    ("offset", 3, 4, "statement 3: pin: huge page 4 lies beyond file 'F' of 4"),
    ("offset", 0, 1, "statement 0: file: column 'offset' is 1, expected 0"),
    ("length", 4, 1, "statement 4: fork: column 'length' is 1, expected 0"),
    ("time", 3, -2, "statement 3: pin: negative time"),
])
def test_a_tampered_column(column, row, value, reason):
    table = table_of(parse(BODY.replace("mremap A v 0", "mremap A v 8K")))
    values = table[column].to_pylist()
    values[row] = value
    assert refusal(load, with_column(table, column, values)) == f"t.parquet: {reason}"


@pytest.mark.parametrize("column, values, kind, reason", [
    ("op", ["x"] * 7, pa.string(), "column 'op' holds string, expected uint8"),
    ("offset", [0.5] * 7, pa.float64(), "column 'offset' holds double, expected uint64"),
    ("offset", [0, -1, 0, 0, 0, 0, 0], pa.int64(), "column 'offset': Integer value -1 not in range: 0 to "
                                                   "9223372036854775807"),
    ("op", [300] * 7, pa.int64(), "column 'op': Integer value 300 not in range: 0 to 255"),
    ("thread", [None] * 7, pa.uint32(), "column 'thread' has 7 empty entries"),
])
def test_a_column_of_another_type(column, values, kind, reason):
    table = with_column(table_of(parse(BODY)), column, values, kind)
    assert refusal(load, table) == f"t.parquet: {reason}"


def test_columns_missing_and_unknown():
    table = table_of(parse(BODY))
    assert refusal(load, table.drop_columns("length")) == "t.parquet: the column 'length' is missing"
    extra = table.append_column("colour", pa.array([1] * 7)).replace_schema_metadata(table.schema.metadata)
    assert refusal(load, extra) == "t.parquet: unknown column 'colour'"
    assert load(table.drop_columns(["thread", "time"])) == parse(BODY.replace("@5:7 ", ""))


@pytest.mark.parametrize("change, reason", [
    (lambda h: h.update(version=2), "unknown version 2 of the format (known: 1)"),
    (lambda h: h.pop("files"), "damaged header: KeyError: 'files'"),
    (lambda h: h.update(geometry="vax"), NO_VAX),
    (lambda h: h.update(geometry=4), "damaged header: ValueError: 4 where str is expected"),
    (lambda h: h.update(files={}), "statement 0: file: target 0 is none of 0 file entries"),
    (lambda h: h["files"][0].update(pages="4"), "damaged header: ValueError: '4' where int is expected"),
    (lambda h: h["files"][0].update(pages=-4), "damaged header: ValueError: -4 where int is expected"),
    (lambda h: h["files"][0].update(colour=1),
     "damaged header: ValueError: fields ['colour', 'kind', 'name', 'page_size', 'pages'], "
     "expected ['kind', 'name', 'page_size', 'pages']"),
    (lambda h: h["files"][0].update(page_size=3 << 20),
     "statement 0: file: x86-64 has no hugetlb pages of 3M (it has 2M, 1G)"),
    (lambda h: h["files"][0].update(name="a b"),
     "statement 0: file: 'a b' cannot name a file (a letter or _, then letters, digits, _ . -)"),
    (lambda h: h["files"][0].update(kind="anon"),
     "statement 0: file: unknown kind of file 'anon' (known: hugetlb, shmem)"),
    (lambda h: h["mappings"][0].update(process=9), "the header's mapping 'v' belongs to no process"),
    (lambda h: h["processes"].append("Z"),
     "the header's process table is not what the statements declare, in their order"),
    (lambda h: h["mappings"].reverse(),
     "the header's mapping table is not what the statements declare, in their order"),
    (lambda h: h["mappings"].append({"process": 0, "name": "x"}),
     "the header's mapping table is not what the statements declare, in their order"),
    (lambda h: h.update(provenance={"a b": "c"}), "provenance: 'a b' is not a word with a text"),
    (lambda h: h.update(provenance={"a": 1}), "damaged header: ValueError: 1 where str is expected"),
    (lambda h: h.update(provenance=[]),
     "damaged header: AttributeError: 'list' object has no attribute 'items'"),
])
def test_a_tampered_header(change, reason):
    assert refusal(load, with_header(table_of(parse(BODY)), change)) == f"t.parquet: {reason}"


def test_a_header_that_is_no_json():
    table = table_of(parse(BODY)).replace_schema_metadata({b"hgmcore-trace": b"{"})
    assert refusal(load, table).startswith("t.parquet: damaged header: JSONDecodeError: ")


def test_foreign_parquet():
    assert refusal(load, pa.table({"op": [1, 2]})) == (
        "t.parquet: Parquet, but not a trace: its metadata has no 'hgmcore-trace'")


@pytest.mark.parametrize("kept", [4, 5, 100, 0.5, -1])
def test_truncated_parquet(tmp_path, kept):
    whole = in_binary(Trace.parse(EVERY))
    kept = int(len(whole) * kept) if isinstance(kept, float) else kept
    path = tmp_path / "t.parquet"
    path.write_bytes(whole[:kept])
    assert refusal(Trace.load, path).startswith(f"{path}: damaged or truncated Parquet: ")


def test_damaged_parquet_never_crashes():
    whole = in_binary(parse(BODY))
    random = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole)
        for at in random.integers(4, len(data), size=3):
            data[at] = random.integers(256)
        try:
            Trace.load(io.BytesIO(data))
        except TraceError as error:
            assert str(error).startswith("<file>: ")


def test_without_pyarrow(monkeypatch, tmp_path):
    (tmp_path / "t.parquet").write_bytes(in_binary(parse(BODY)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: Trace.load(tmp_path / "t.parquet"), lambda: parse(BODY).save(tmp_path / "u")):
        with pytest.raises(ImportError, match=r"binary traces need pyarrow: pip install 'hgmcore\[cli\]'"):
            call()
    assert parse(BODY).to_text()

"""Long form of a comparison: every number has one row, in CSV, in Parquet and through Arrow alike."""

import csv
import io
import json

import pyarrow
from made_results import TWO_PROCESSES as TRACE
from pyarrow import parquet

from hgmcore import Trace, compare
from hgmcore.analysis.long import COLUMNS, long, long_rows
from hgmcore.report.long import long_csv, long_parquet


def find(rows, **wanted):
    """The value of the one row that has all of `wanted`."""
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row["value"]


def test_rows_have_the_results_numbers(result):
    rows = long_rows(result)
    assert {row["scheme"] for row in rows} == set(result["schemes"])
    for name, entry in result["schemes"].items():
        assert find(rows, scheme=name, phase=None, key="atomics.map") == entry["cost"]["atomics"]["map"]
        for phase, counts in entry["phases"].items():
            assert find(rows, scheme=name, phase=phase, group="cost", key="leaves") == counts["leaves"]
            assert find(rows, scheme=name, phase=phase, group="scanned", key="max") == counts["scanned"]["max"]
        for group, errors in entry["errors"].items():
            for key, count in errors.items():
                for part in ("observations", "worst", "last"):
                    assert find(rows, scheme=name, group=group, key=f"{key}.{part}") == count[part]
        assert find(rows, scheme=name, group="memory", key="tables_peak") == entry["memory"]["tables_peak"]
        assert find(rows, scheme=name, group="front") == (name in result["verdict"]["front"])
        for errno, number in entry["refused"].items():
            assert find(rows, scheme=name, group="refused", key=errno) == number


def test_no_number_of_a_scheme_is_left_out(result):
    """Counts all numbers of an entry, but for single runs and what every scheme has in common."""
    def numbers(value):
        if isinstance(value, dict):
            return sum(numbers(inner) for key, inner in value.items() if key not in ("runs", "known"))
        return isinstance(value, (bool, int, float)) or value is None

    parts = ("cost", "memory", "struct_pages", "maps_of", "errors", "refused", "less_done", "phases", "phases_batched",
             "measured")
    rows = long_rows(result)
    for name, entry in result["schemes"].items():
        mine = [row for row in rows if row["scheme"] == name and row["group"] != "front"]
        ends = sum(row["low"] is not None for row in mine)
        assert len(mine) + 2 * ends == sum(numbers(entry.get(part) or {}) for part in parts), name


def test_every_row_says_what_its_number_is(result):
    units = {"ref": "atomics", "leaves": "leaves", "lines": "pages", "entries_scanned": "entries", "p99": "entries",
             "table_bytes_peak": "bytes", "ns_per_operation": "ns/operation", "pss_error_bytes.worst": "bytes",
             "false_shared.observations": "observations"}
    for row in long_rows(result):
        assert row["label"] == ("measured" if row["group"] == "measured" else
                                "modelled" if row["group"] == "struct_pages" else row["label"])
        assert row["label"] in ("counted", "modelled", "measured", "published")
        assert row["unit"] == units.get(row["key"].removeprefix("atomics."), row["unit"])
    times = [row for row in long_rows(result) if row["key"] == "ns_per_operation"]
    assert times and all(row["low"] <= row["value"] <= row["high"] for row in times)
    assert {row["phase"] for row in times} == {None, *(phase["name"] for phase in result["trace"]["phases"])}


def test_rows_are_told_apart_by_scheme_phase_group_and_key(result):
    keys = [tuple(row[key] for key in ("scheme", "phase", "group", "key")) for row in long_rows(result)]
    assert len(set(keys)) == len(keys) > 500


def test_refused_and_lazy_schemes_say_why(result):
    made = compare(Trace.parse(TRACE), schemes="subtree,mm_id", repeat=0, hvo="on")
    (row,) = (row for row in long_rows(made) if row["scheme"] == "mm_id")
    assert row["value"] is None and row["note"] == made["schemes"]["mm_id"]["refused_why"]
    notes = {row["scheme"]: row["note"] for row in long_rows(result)}
    assert notes == {name: entry.get("less_work", "") for name, entry in result["schemes"].items()}
    assert notes["hugetlb"]


def test_csv_parquet_and_arrow_have_the_same_rows(result):
    rows = long_rows(result)
    table = pyarrow.RecordBatchReader.from_stream(result).read_all()
    assert table.column_names == list(COLUMNS) and table.to_pylist() == rows
    assert parquet.read_table(io.BytesIO(long_parquet(result.long()))).to_pylist() == rows
    read = list(csv.DictReader(io.StringIO(long_csv(result.long()))))
    for text, row in zip(read, rows, strict=True):
        for key, value in row.items():
            assert text[key] == "" if value is None else type(value)(text[key]) == value


def test_a_result_is_still_plain_json(result):
    assert isinstance(result, dict)
    read = json.loads(json.dumps(result))
    assert read == result and long(read) == result.long()


def test_modelled_numbers_of_a_comparison(modelled):
    rows = [row for row in long_rows(modelled) if row["group"] == "modelled"]
    for name, entry in modelled["schemes"].items():
        of = {row["key"]: row for row in rows if row["scheme"] == name and row["phase"] is None}
        if "refused_why" in entry:
            assert not of and any(row["scheme"] == name and row["note"] for row in long_rows(modelled))
        else:
            time = entry["modelled"]["accounting"]
            assert [of["accounting"][key] for key in ("value", "low", "high")] == [time[key] for key in (
                "value", "low", "high")]


def test_modelled_numbers_have_their_interval():
    entry = {"cost": {}, "memory": {}, "struct_pages": {}, "errors": {}, "refused": {}, "less_done": {}, "phases": {},
             "modelled": {"accounting": {"value": 2.0, "low": 1.0, "high": 3.0}, "leans_on": "x",
                          "phases": {"zap": {"accounting": {"value": 5.0, "low": 4.0, "high": 6.0}}}}}
    rows = long_rows({"schemes": {"a": entry}, "labels": {}, "verdict": {"front": []}})[1:]
    assert [(row["phase"], row["key"], row["value"], row["low"], row["high"], row["label"]) for row in rows] == [
        (None, "accounting", 2.0, 1.0, 3.0, "modelled"), ("zap", "accounting", 5.0, 4.0, 6.0, "modelled")]

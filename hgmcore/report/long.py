"""The long form of a result, one row for each number, as CSV and as Parquet."""

from __future__ import annotations

import csv
import io

from hgmcore.arrow import arrow_table


def long_csv(columns: dict) -> str:
    """Columns (name -> values, all of one length) as CSV with a head line; None is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return stream.getvalue()


def long_parquet(columns: dict) -> bytes:
    """Columns as a Parquet file. ImportError where pyarrow is missing."""
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(arrow_table(columns), stream)
    return stream.getvalue()


def columns_of(rows, names=None) -> dict:
    """Rows, dicts of which each may lack some keys, as columns: name -> list, None where a row has no such key.

    names: the columns in order; default: every key, in the order of first mention.
    """
    rows = list(rows)
    names = list(dict.fromkeys(key for row in rows for key in row)) if names is None else names
    return {name: [row.get(name) for row in rows] for name in names}

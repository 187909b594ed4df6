"""The binary form of a trace: Parquet, one row a statement, the header as JSON in the schema's metadata."""

from __future__ import annotations

import json

import numpy as np

from hgmcore.trace.header import Columns, Header, TraceError
from hgmcore.trace.names import File, Mapping
from hgmcore.trace.statements import OPERATION

MAGIC = b"PAR1"
KEY = b"hgmcore-trace"
VERSION = 1
ROW_GROUP = 1 << 20  # rows

COLUMNS = {**{name: OPERATION[name] for name in ("op", "target", "offset", "length", "arg", "flags")},
           "thread": np.dtype("<u4"), "time": np.dtype("<i8")}
OPTIONAL = ("thread", "time")
DELTA = ("offset", "time")  # mostly ascending in small steps; the other columns hold few distinct values


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("binary traces need pyarrow: pip install 'hgmcore[cli]'") from error
    return pyarrow


def write(trace, stream) -> None:
    """Write the binary form of `trace` to a stream of bytes. Raises ImportError without pyarrow."""
    pa = _pyarrow()
    columns = {name: trace.operations[name] for name in COLUMNS if name not in OPTIONAL}
    columns |= {name: getattr(trace, name) for name in OPTIONAL if getattr(trace, name) is not None}
    fields = [pa.field(name, pa.from_numpy_dtype(COLUMNS[name]), nullable=False) for name in columns]
    schema = pa.schema(fields, metadata={KEY: header_json(trace.header)})
    with pa.parquet.ParquetWriter(
            stream, schema, compression="zstd", compression_level=9, version="2.6",
            use_dictionary=[name for name in columns if name not in DELTA],
            column_encoding={name: "DELTA_BINARY_PACKED" for name in columns if name in DELTA}) as writer:
        for part in trace.chunks(ROW_GROUP):
            arrays = [pa.array(np.ascontiguousarray(column[part])) for column in columns.values()]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP)


def read(stream, name: str) -> Columns:
    """Read a binary trace from a seekable stream of bytes. Raises TraceError; ImportError without pyarrow."""
    pa = _pyarrow()
    try:
        file = pa.parquet.ParquetFile(stream)
        header = _header(file.schema_arrow.metadata, name)
        columns = _columns(pa, file, name)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TraceError(name, f"damaged or truncated Parquet: {_first_line(error)}") from error
    operations = np.zeros(len(columns["op"]), dtype=OPERATION)
    for column in OPERATION.names:
        operations[column] = columns[column]
    return Columns(header, operations, columns.get("thread"), columns.get("time"))


def read_header(path) -> Header:
    """The header alone of the binary trace at `path`."""
    pa = _pyarrow()
    return _header(pa.parquet.read_schema(path).metadata, str(path))


def _columns(pa, file, name):
    """The columns as arrays of exactly their dtypes."""
    present = file.schema_arrow.names
    for column in COLUMNS:
        if column not in present and column not in OPTIONAL:
            raise TraceError(name, f"the column {column!r} is missing")
    columns = {}
    for field in file.schema_arrow:
        dtype = COLUMNS.get(field.name)
        if dtype is None:
            raise TraceError(name, f"unknown column {field.name!r}")
        if not pa.types.is_integer(field.type):
            raise TraceError(name, f"column {field.name!r} holds {field.type}, expected {dtype}")
        values = file.read(columns=[field.name], use_threads=False).column(0)
        if values.null_count:
            raise TraceError(name, f"column {field.name!r} has {values.null_count} empty entries")
        try:
            columns[field.name] = values.cast(pa.from_numpy_dtype(dtype)).to_numpy()
        except pa.ArrowInvalid as error:
            raise TraceError(name, f"column {field.name!r}: {_first_line(error)}") from error
    if len({len(values) for values in columns.values()}) > 1:
        raise TraceError(name, "the columns are not of one length")
    return columns


def header_json(header):
    tables = {"version": VERSION, **vars(header)}
    for table in ("files", "mappings"):
        tables[table] = [{key: value for key, value in entry._asdict().items() if value is not None}
                         for entry in tables[table]]
    return json.dumps(tables).encode()


def _header(metadata, name):
    """The Header in a schema's metadata."""
    if KEY not in (metadata or {}):
        raise TraceError(name, f"Parquet, but not a trace: its metadata has no {KEY.decode()!r}")
    try:
        tables = json.loads(metadata[KEY])
        if tables["version"] != VERSION:
            raise TraceError(name, f"unknown version {tables['version']!r} of the format (known: {VERSION})")
        return Header(
            _of(str, tables["geometry"]),
            [File(**_typed(file, name=str, page_size=int, pages=int, kind=str)) for file in tables["files"]],
            [_of(str, process) for process in tables["processes"]],
            [Mapping(**_typed(mapping, ("address", "length"), process=int, name=str, address=int, length=int))
             for mapping in tables["mappings"]],
            {key: _of(str, value) for key, value in tables["provenance"].items()},
            [_of(str, phase) for phase in tables.get("phases", [])])  # older files have none
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TraceError(name, f"damaged header: {type(error).__name__}: {_first_line(error)}") from error


def _typed(entry, optional=(), **types):
    """The fields of a JSON object, which must have these, or lack those that are optional, and no others."""
    if not set(types) - set(optional) <= set(entry) <= set(types):
        raise ValueError(f"fields {sorted(entry)}, expected {sorted(types)}")
    return {field: _of(types[field], value) for field, value in entry.items()}


def _of(kind, value):
    if type(value) is not kind or (kind is int and value < 0):
        raise ValueError(f"{value!r} where {kind.__name__} is expected")
    return value


def _first_line(error):
    return (str(error).splitlines() or [""])[0]

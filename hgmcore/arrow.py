"""Results as tables: dicts of columns in Arrow's form, which pandas, polars and DuckDB take without a copy.

Only `pyarrow` (of hgmcore[cli]) can make them; it is imported when a table is asked for, not before.
"""

from __future__ import annotations

from typing import Any


def arrow_table(columns: dict[str, Any]) -> Any:
    """The pyarrow.Table of columns: name -> values (a list, where None is null, or an array), all of one length.

    ImportError, with what to install, where pyarrow is missing.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("tables need pyarrow: pip install 'hgmcore[cli]'") from error
    return pyarrow.table({name: values if hasattr(values, "dtype") else list(values)
                          for name, values in columns.items()})


class Tabular(dict[str, Any]):
    """A result, a dict, that is also a table with one row for each number (columns: see `long`).

    A subclass defines `long()`: name of a column -> its values. What knows the Arrow C stream interface takes a result
    as it
    is: pyarrow.RecordBatchReader.from_stream(result). (pyarrow.table(result) sees the dict instead; use to_arrow().)
    """

    def long(self) -> dict[str, Any]:
        """The columns of the long form."""
        raise NotImplementedError

    def to_arrow(self) -> Any:
        """The long form as a pyarrow.Table."""
        return arrow_table(self.long())

    def to_pandas(self) -> Any:
        """The long form as a pandas.DataFrame. ImportError where pandas is missing."""
        return self.to_arrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

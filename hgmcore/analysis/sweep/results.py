"""What a sweep has found: a line of JSON for each task as soon as it is done; at the end one Parquet file of all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from hgmcore.analysis.long import COLUMNS
from hgmcore.files import writing

LINES, TABLE = "results.jsonl", "results.parquet"
"""The files of a sweep's directory: one line for each task that was done, and the table of the sweep."""

FORMAT = "hgmcore-sweep 1, lines"
NUMBERS = ("value", "low", "high")
BATCH = 1 << 17  # rows


class Results:
    """The lines of a directory, held by one sweep at a time. `done` has the tasks that need not run again."""

    def __init__(self, directory):
        """OSError: the directory cannot be made or written. ValueError: another sweep holds it, or a line is none."""
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path, self._places, self._failed = self.directory / LINES, {}, {}
        self._stream = open(self.path, "a+b")
        try:
            self._hold()
            self._read()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()

    def __contains__(self, task_id):
        return task_id in self._places

    def _hold(self):
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.directory}: another sweep writes there now") from None

    def _read(self):
        """Find each task's last line. A line that was cut short, as its writer was killed, is taken off."""
        self._stream.seek(0)
        end = 0
        for number, line in enumerate(self._stream, 1):
            if not line.endswith(b"\n"):
                break
            self._note(line, end, number)
            end += len(line)
        self._stream.truncate(end)

    def _note(self, line, place, number=0):
        try:
            found = json.loads(line)
            task_id, failed = found["task"], found.get("error")
            if found["format"] != FORMAT or failed is None and not isinstance(found["numbers"], list):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path}:{number}: is no line of a sweep") from None
        if failed is None:
            self._places[task_id] = place
            self._failed.pop(task_id, None)
        else:
            self._failed[task_id] = failed

    def add(self, task_id, numbers=None, error=None) -> None:
        """Write down what a task found, its numbers or why it has none, at once."""
        found = {"format": FORMAT, "task": task_id, **({"error": error} if error else {"numbers": numbers})}
        line = json.dumps(found, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        self._stream.seek(0, os.SEEK_END)
        place = self._stream.tell()
        self._stream.write(line)
        self._stream.flush()
        self._note(line, place)

    def numbers(self, task_id) -> list:
        """The numbers of a task that is done."""
        self._stream.seek(self._places[task_id])
        return json.loads(self._stream.readline())["numbers"]

    def errors(self) -> dict:
        """{task: why it has no numbers}."""
        return dict(self._failed)

    def write_table(self, points, tasks) -> int:
        """Write the Parquet file of all points whose task is done, in their order; returns the number of rows."""
        import pyarrow
        from pyarrow import parquet

        axes = axes_of(points)
        schema = pyarrow.schema([("task", _word(pyarrow))] + [
            (name, pyarrow.int64() if name in ("seed", "processors") else _word(pyarrow)) for name in axes] + [
            (name, pyarrow.float64() if name in NUMBERS else _word(pyarrow)) for name in COLUMNS])
        rows = 0
        with writing(str(self.directory / TABLE)) as stream, parquet.ParquetWriter(stream, schema) as writer:
            for columns in self._batches(points, tasks, axes):
                table = pyarrow.table({name: pyarrow.array(columns[name], schema.field(name).type)
                                       for name in schema.names}, schema)
                writer.write_table(table)
                rows += len(table)
        return rows

    def _batches(self, points, tasks, axes):
        """Yield columns, name -> list, of some points at a time."""
        columns = _empty(axes)
        for point, task in zip(points, tasks, strict=True):
            if task.id not in self:
                continue
            numbers = self.numbers(task.id)
            for name, value in {"task": task.id, **axes_values(point, axes)}.items():
                columns[name] += [value] * len(numbers)
            for name, column in zip(COLUMNS, zip(*numbers, strict=True), strict=True):
                columns[name] += column
            if len(columns["task"]) >= BATCH:
                yield columns
                columns = _empty(axes)
        if columns["task"]:
            yield columns


def _empty(axes):
    return {name: [] for name in ("task", *axes, *COLUMNS)}


def _word(pyarrow):
    """Words repeat, so a column of them is a dictionary; every reader shows them as text."""
    return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())


def axes_of(points) -> list:
    """The columns that tell points apart, in order: input, sizes, seed, options, profile, processors.

    Sizes and options have columns of their own, `size_NAME` and `option_NAME`.
    """
    sizes, options = _keys(point.sizes for point in points), _keys(point.options for point in points)
    return ["input", *(f"size_{name}" for name in sizes), "seed", *(f"option_{name}" for name in options), "profile",
            "processors"]


def axes_values(point, axes) -> dict:
    """The values of those columns; None where a point has none."""
    seed = None if point.seed is None else int(point.seed)
    return {"input": point.input, "seed": seed, "profile": point.profile, "processors": point.processors,
            **{name: point.sizes.get(name.removeprefix("size_")) for name in axes if name.startswith("size_")},
            **{name: point.options.get(name.removeprefix("option_")) for name in axes if name.startswith("option_")}}


def _keys(dicts):
    return list(dict.fromkeys(key for each in dicts for key in each))


def points_named(point) -> str:
    """A point in words, for messages."""
    parts = [point.source, *(f"{key}={value}" for key, value in point.options.items())]
    parts += [point.profile] * (point.profile is not None)
    parts += [f"{point.processors} CPUs"] * (point.processors is not None)
    return ", ".join(parts)


def remove_table(directory) -> None:
    """Take away a table that an earlier sweep wrote, so that none is taken for this one's."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(Path(directory) / TABLE)

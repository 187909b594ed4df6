"""Files: written whole or not at all; and temporary ones that hold what does not fit in memory."""

from __future__ import annotations

import contextlib
import os
import tempfile

import numpy as np

_CHUNK = 1 << 16  # items


def check_writable(path):
    """Raise OSError now, before the work, if `path` cannot be written."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(21, "Is a directory", path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "No such file or directory", path)
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise PermissionError(13, "Permission denied", path)


@contextlib.contextmanager
def writing(path):
    """A stream of bytes that becomes the file `path` at the end of the block, or nothing if the block raises.

    The bytes go to a temporary file beside `path`, which then takes its place. A pipe or a device is written to
    directly: renaming would put a file in its place. Raises OSError, whose filename is `path`.
    """
    special = os.path.exists(path) and not os.path.isfile(path)
    target = os.path.realpath(path)
    temporary = path if special else f"{target}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as stream:
            yield stream
        if not special:
            os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        if not special and os.path.exists(temporary):
            os.unlink(temporary)


def write_file(path, data):
    """Write bytes to `path`, as `writing` does."""
    with writing(path) as stream:
        stream.write(data)


class Spool:
    """Items of a dtype in an unnamed temporary file, in order; iteration gives them in arrays."""

    def __init__(self, dtype):
        self._file, self._count, self._dtype = tempfile.TemporaryFile(), 0, dtype

    def __len__(self):
        return self._count

    def extend(self, items):
        self._file.write(np.ascontiguousarray(items).data)
        self._count += len(items)

    def __iter__(self):
        self._file.seek(0)
        while data := self._file.read(_CHUNK * self._dtype.itemsize):
            yield np.frombuffer(data, dtype=self._dtype).copy()
        self._file.seek(0, 2)

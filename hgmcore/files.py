"""Files: written whole or not at all; and temporary ones that hold what does not fit in memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
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

    The bytes go to a new file beside `path`, which then takes its place with the mode and, as far as this user may give
    them, the owner and group that `path` had. A pipe or a device is written to directly: renaming would put a file in
    its place. Raises OSError, whose filename is `path`.
    """
    target = os.path.realpath(path)
    try:
        before = os.stat(target) if os.path.lexists(target) else None
        if before and not stat.S_ISREG(before.st_mode):
            with open(target, "wb") as stream:
                yield stream
            return
        # O_EXCL: neither a file nor a symbolic link that somebody else put there
        temporary = f"{target}.{secrets.token_hex(6)}.part"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if before else 0o666)
        try:
            with open(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                if before:
                    _be_like(descriptor, before)
                os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _be_like(descriptor, before):
    """Give an open file the owner, group and mode of another, as far as this user may."""
    for owner, group in ((before.st_uid, -1), (-1, before.st_gid)):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


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

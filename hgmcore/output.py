"""Writing results: files appear whole or not at all; progress only where somebody watches."""

import contextlib
import json
import os
import sys

CHUNK = 1 << 16


def check_writable(path):
    """Raise OSError now, before the work, if `path` cannot be written."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(21, "Is a directory", path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "No such file or directory", path)
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise PermissionError(13, "Permission denied", path)


def write_file(path, data):
    """Write bytes to `path` by way of a temporary file beside it; a device or pipe is written to directly."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            stream.write(data)
        return
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_json(path, result):
    """Write a result as JSON to `path`, or to standard output if that is "-"."""
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if path != "-":
        write_file(path, text.encode())
        return
    # In parts: an unbuffered sys.stdout (PYTHONUNBUFFERED) takes a part of a large text for all of it.
    for start in range(0, len(text), CHUNK):
        sys.stdout.write(text[start:start + CHUNK])


@contextlib.contextmanager
def progress(quiet=False):
    """A function (done, total, what) that shows a progress bar on a terminal; None where there is none."""
    if quiet or not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what="": bar.update(task, completed=done, total=total, description=what)

"""What commands write: JSON, and progress where somebody watches."""

import contextlib
import json
import sys

from hgmcore.files import write_file

CHUNK = 1 << 16


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

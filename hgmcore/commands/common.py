"""Parts that several verbs of the command line have in common: options, help texts, exit statuses, output."""

import contextlib
import importlib.util
import json
import sys

import click

from hgmcore import __version__, recordings
from hgmcore.files import check_writable, write_file
from hgmcore.report.prose import WIDTH, listed, printable
from hgmcore.report.schemes import options_explained

OK, DIFFERENT = 0, 1
"""Exit statuses of a verb that ran: done, and for validate that the simulator differs from the kernel."""

CHUNK = 1 << 16

INPUT_HELP = f"""\
\b
INPUT is one of
  FILE                         a trace, text (.hgm) or binary; - is stdin
  recording:NAME               a recording of a real program, of the package
  workload:NAME[,key=value..]  generated; `hgmcore workloads` lists them
  nothing                      recording:{recordings.DEFAULT}
"""

OPTION_HELP = """
\b
Options of the schemes, as --option KEY=VALUE, the default first
""" + "\n".join(listed(options_explained(), WIDTH - 2)) + "\n"


def pairs(context, parameter, values):
    """A repeated KEY=VALUE as a dict."""
    given = {}
    for value in values:
        key, equals, setting = value.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        if key in given:
            raise click.BadParameter(f"{key!r} is given twice")
        given[key] = setting
    return given


def output_file(*suffixes):
    """A callback that refuses, before any work, an output of another suffix or that cannot be written."""
    def check(context, parameter, path):
        if path is None or (path == "-" and parameter.name == "json_file"):
            return path
        if path == "-":
            raise click.BadParameter("'-' is no file: this output cannot go to standard output")
        if suffixes and not path.lower().endswith(suffixes):
            raise click.BadParameter(f"{path!r} does not end in {' or '.join(suffixes)}")
        check_writable(path)
        return path
    return check


def require(module, what):
    if importlib.util.find_spec(module) is None:
        raise click.ClickException(f"{what} needs {module}: pip install 'hgmcore[cli]'")


version_option = click.version_option(__version__, prog_name="hgmcore", message="%(prog)s %(version)s")
json_option = click.option(
    "--json", "json_file", metavar="FILE", callback=output_file(),
    help="Write the exact result as JSON; - is standard output, and then nothing else is.")
option_option = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", callback=pairs,
    help="An option of the schemes (below); may be repeated.")
output_option = click.option(
    "-o", "--output", required=True, metavar="TRACE", callback=output_file(),
    help="The trace to write: text if it ends in .hgm, else binary (Parquet).")
provenance_option = click.option(
    "--provenance", multiple=True, metavar="KEY=VALUE", callback=pairs,
    help="What the recording does not say of itself, to keep in the trace; may be repeated.")


def command(epilog="", **attributes):
    """A command with --version, and with examples that keep their lines."""
    return lambda function: click.command(epilog=epilog, **attributes)(version_option(function))


def echo_written(trace, output):
    """Say what was written where."""
    click.echo(f"{printable(output)}: {len(trace):,} operations")


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

"""Parts that several verbs of the command line have in common: options, help texts, exit statuses, output."""

import collections
import contextlib
import importlib.util
import json
import os
import stat
import sys

import click

from hgmcore import __version__, schemes
from hgmcore.files import check_writable, write_file
from hgmcore.inputs import DEFAULT
from hgmcore.report.prose import WIDTH, listed, printable
from hgmcore.report.schemes import options_explained
from hgmcore.trace import text

OK, DIFFERENT = 0, 1
"""Exit statuses of a verb that ran: done, and for validate that the simulator differs from the kernel."""

CHUNK = 1 << 16

INPUT_HELP = f"""\
\b
INPUT is one of
  FILE                         a trace, text (.hgm) or binary; - is stdin
  recording:NAME               a recording of a real program, of the package
  workload:NAME[,key=value..]  generated; `hgmcore workloads` lists them
  nothing                      {DEFAULT}
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


def union(context, parameter, lists):
    """Names out of lists with commas, all of a repeated option together, each once and in the order of first
    mention."""
    names = [name.strip() for names in lists for name in names.split(",")]
    return list(dict.fromkeys(filter(None, names)))


def scheme_list(context, parameter, lists):
    """As `union`, of schemes that exist; "all" stands for every scheme."""
    names = union(context, parameter, lists)
    if not names:
        raise click.BadParameter("no scheme is named")
    names = list(dict.fromkeys(each for name in names for each in (schemes.names() if name == "all" else [name])))
    for name in names:
        schemes.load(name)
    return names


def scheme_list_option(*names, help, **attributes):
    """An option that takes schemes, separated by commas, and may be repeated: the value is a list of names."""
    return click.option(*names, multiple=True, metavar="NAME[,NAME..]", callback=scheme_list, help=help, **attributes)


def output_file(*suffixes, stdout=False):
    """A callback that refuses, before any work, an output of another suffix or that cannot be written.

    stdout: "-" stands for standard output, as it does for --json.
    """
    def check(context, parameter, path):
        if path is None or (path == "-" and (stdout or parameter.name == "json_file")):
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
scheme_file_option = click.option(
    "--scheme-file", multiple=True, metavar="FILE.py", is_eager=True, expose_value=False,
    callback=lambda context, parameter, paths: [schemes.load_file(path) for path in paths],
    help="Also know the schemes that a Python file defines; may be repeated.")
option_option = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", callback=pairs,
    help="An option of the schemes (below); may be repeated.")
output_option = click.option(
    "-o", "--output", required=True, metavar="TRACE", callback=output_file(stdout=True),
    help="The trace to write: text if it ends in .hgm, else binary (Parquet); - is text on standard output, and then "
         "nothing else is.")
provenance_option = click.option(
    "--provenance", multiple=True, metavar="KEY=VALUE", callback=pairs,
    help="What the recording does not say of itself, to keep in the trace; may be repeated.")


class Command(click.Command):
    """A command that refuses an option which is given twice and cannot be, where click would keep the last silently."""

    def make_parser(self, context):
        parser = super().make_parser(context)
        parse = parser.parse_args

        def parse_args(args):
            values, rest, order = parse(args=args)
            for parameter, times in collections.Counter(order).items():
                if times > 1 and isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag):
                    raise click.UsageError(f"{max(parameter.opts, key=len)} is given twice")
            return values, rest, order

        parser.parse_args = parse_args
        return parser


def command(epilog="", **attributes):
    """A command with --version, and with examples that keep their lines."""
    return lambda function: click.command(epilog=epilog, cls=Command, **attributes)(version_option(function))


def save_trace(trace, output):
    """Write a trace to `output`, as text to standard output if that is "-"."""
    if output != "-":
        trace.save(output)
        return
    sys.stdout.flush()
    text.write(trace, sys.stdout.buffer)


def outputs_apart(**outputs):
    """UsageError where two of the outputs (name of the option -> its file or None) are one file, or both "-"."""
    taken = {}
    for name, output in outputs.items():
        place = output if output in (None, "-") else os.path.realpath(output)
        if place and place in taken:
            to = "standard output" if output == "-" else printable(output)
            raise click.UsageError(f"--{taken[place]} and --{name.replace('_', '-')} both write to {to}")
        taken[place] = name.replace("_", "-")


def echo_written(trace, output):
    """Say what was written where."""
    click.echo(f"{printable(output)}: {len(trace):,} operations")


def write_json(path, result):
    """Write a result as JSON to `path`, or to standard output if that is "-"."""
    written = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if path != "-":
        write_file(path, written.encode())
        return
    # In parts: an unbuffered sys.stdout (PYTHONUNBUFFERED) takes a part of a large text for all of it.
    for start in range(0, len(written), CHUNK):
        sys.stdout.write(written[start:start + CHUNK])


@contextlib.contextmanager
def progress(quiet=False):
    """A function (done, total, what) that shows a progress bar on a terminal; None where there is none.

    The bar goes to standard error. It shows also where standard output goes to a file, but not where that goes into a
    pipe, for what reads the pipe (a pager) may use the same terminal.
    """
    if quiet or not sys.stderr.isatty() or is_pipe(sys.stdout):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what="": bar.update(task, completed=done, total=total, description=what)


def is_pipe(stream):
    """Whether a stream of this process goes into a pipe or a socket."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return True
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

"""The command line: reads an input, calls the library, writes a report. Nothing is computed here."""

import importlib.util
import os
import sys

import click

from hgmcore import __version__, importers, recordings, schemes, workloads
from hgmcore.analysis.compare import compare as run_compare
from hgmcore.analysis.compare import scheme_names, why_refused
from hgmcore.analysis.costs import cost_table, cost_text
from hgmcore.commands.output import progress, write_json
from hgmcore.files import check_writable, write_file
from hgmcore.inputs import WORKLOADS, load_input
from hgmcore.kernel.validate import SHIPPED, validate_text
from hgmcore.kernel.validate import validate as run_validate
from hgmcore.options import resolve
from hgmcore.replay import replay as run_replay
from hgmcore.replay import to_json
from hgmcore.report import compare as report
from hgmcore.report import listing
from hgmcore.report.prose import WIDTH, ascii_only, listed, printable
from hgmcore.sizes import parse_size
from hgmcore.threads import MOST
from hgmcore.trace import TraceError
from hgmcore.trace.describe import describe

OK, DIFFERENT, UNUSABLE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

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
""" + "\n".join(listed(listing.options_explained(), WIDTH - 2)) + "\n"


def run(arguments=None):
    """Run the command line and return its exit status; every failure is one line on standard error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it is closed
            setattr(sys, name, open(os.devnull, mode))
    try:
        status = cli.main(args=arguments, prog_name="hgmcore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except (BrokenPipeError, SystemExit):  # click exits where a pipe breaks in a command, and only there
        _drop_output()
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message())
    except ImportError as error:
        if "hgmcore[cli]" not in str(error):
            raise
        return _complain(str(error))
    except MemoryError as error:
        return _complain(f"out of memory{': ' + str(error) if str(error) else ''}")
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except (ValueError, TraceError) as error:
        return _complain(str(error))


def _drop_output():
    """Nobody takes our output, or there is no room for it; Python must not try to write the rest at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _complain(message):
    print("hgmcore: error: " + printable(" ".join(message.split())), file=sys.stderr)
    return UNUSABLE


def _pairs(context, parameter, values):
    """A repeated KEY=VALUE as a dict."""
    pairs = {}
    for value in values:
        key, equals, setting = value.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        if key in pairs:
            raise click.BadParameter(f"{key!r} is given twice")
        pairs[key] = setting
    return pairs


def _file(*suffixes):
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


def _require(module, what):
    if importlib.util.find_spec(module) is None:
        raise click.ClickException(f"{what} needs {module}: pip install 'hgmcore[cli]'")


def _size(context, parameter, text):
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if size == 0:
        raise click.BadParameter("a machine has some memory")
    return size


version_option = click.version_option(__version__, prog_name="hgmcore", message="%(prog)s %(version)s")
json_option = click.option(
    "--json", "json_file", metavar="FILE", callback=_file(),
    help="Write the exact result as JSON; - is standard output, and then nothing else is.")
option_option = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", callback=_pairs,
    help="An option of the schemes (below); may be repeated.")
output_option = click.option(
    "-o", "--output", required=True, metavar="TRACE", callback=_file(),
    help="The trace to write: text if it ends in .hgm, else binary (Parquet).")
provenance_option = click.option(
    "--provenance", multiple=True, metavar="KEY=VALUE", callback=_pairs,
    help="What the recording does not say of itself, to keep in the trace; may be repeated.")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.pass_context
def cli(context):
    """Compare schemes that count references and mappings of huge pages.

    \b
    hgmcore compare                         the schemes on a recorded QEMU postcopy
    hgmcore compare my.hgm --plot my.svg    on your own trace, with a figure
    hgmcore schemes subtree                 what a scheme does and where it is wrong
    hgmcore COMMAND --help                  more, with examples
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def command(epilog="", **attributes):
    """A command of the group, with --version and with examples that keep their lines."""
    return lambda function: cli.command(epilog=epilog, **attributes)(version_option(function))


@command(epilog=INPUT_HELP + OPTION_HELP + """
\b
Examples
  hgmcore compare
  hgmcore compare my.hgm --schemes head_per_leaf,subtree,logical_counter
  hgmcore compare workload:postcopy,page_size=1G,pages=4 --option era=6.15
  hgmcore compare --json - | jq .schemes.subtree.error
  hgmcore compare my.hgmt --plot my.png --html my.html
""")
@click.argument("input", required=False)
@click.option("--schemes", "names", default="all", metavar="LIST", show_default=True,
              help="Schemes to compare, separated by commas; `hgmcore schemes` lists them.")
@option_option
@click.option("--repeat", type=click.IntRange(min=0), default=5, show_default=True, metavar="N",
              help="Timed replays of each scheme; 0: none, so that the output is the same everywhere.")
@click.option("--machine", default="1T", show_default=True, metavar="SIZE", callback=_size,
              help="Memory of a machine, all in huge pages, whose struct pages are modelled: 512G, 4T.")
@json_option
@click.option("--plot", metavar="FILE", callback=_file(".png", ".svg"),
              help="Draw the comparison, as .png or .svg.")
@click.option("--html", metavar="FILE", callback=_file(),
              help="Write one page with tables, figure and provenance.")
@click.option("--markdown", is_flag=True, help="Print Markdown, with exact numbers, instead of text.")
def compare(input, names, options, repeat, machine, json_file, plot, html, markdown):
    """Replay a trace under several schemes: what each costs, and what each gets wrong.

    Costs are counted (atomics, struct pages, entries scanned, memory: the same on every machine) and measured
    (ns for each operation). Errors are differences from a recount of the page tables.
    """
    if markdown and json_file == "-":
        raise click.UsageError("--markdown and --json - both write to standard output")
    if plot or html:
        _require("matplotlib", "--plot" if plot else "--html")
    for name in scheme_names(names):
        why_refused(schemes.load(name), options)
    trace = load_input(input)
    with progress(quiet=json_file == "-") as show:
        result = run_compare(trace, schemes=names, repeat=repeat, progress=show, machine=machine, **options)
    if plot:
        from hgmcore.report.plot import image

        write_file(plot, image(result, plot.lower().rpartition(".")[2]))
    if html:
        from hgmcore.report.html import compare_html

        write_file(html, compare_html(result).encode())
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(report.compare_markdown(result) if markdown else report.compare_text(result), nl=False)


@command(epilog=INPUT_HELP + OPTION_HELP + """
\b
Examples
  hgmcore replay my.hgm --scheme head_per_leaf
  hgmcore replay my.hgm --scheme subtree --operations all --json all.json
  hgmcore replay my.hgm --scheme mm_id --threads 2 --option locks=posted
""")
@click.argument("input", required=False)
@click.option("--scheme", required=True, metavar="NAME", help="The scheme to replay under.")
@option_option
@click.option("--threads", type=click.IntRange(1, MOST), default=1, show_default=True, metavar="N",
              help="Native threads to replay with: operations of different threads of the trace run at the same time "
                   "where their order cannot matter. Counts and answers stay the same; ns/op shows what threads gain, "
                   "or lose on counters that they share. --option locks=pt or locks=posted adds the kernel's locks.")
@click.option("--operations", type=click.Choice(["all", "failed"]), default="failed", show_default=True,
              help="Which operations to list: all, or those that failed or did less than they were asked to.")
@json_option
def replay(input, scheme, options, threads, operations, json_file):
    """Replay a trace under one scheme: the answer to each operation, costs, and every observation."""
    resolve(schemes.load(scheme), options)
    trace = load_input(input)
    with progress(quiet=json_file == "-") as show:
        result = run_replay(trace, scheme, operations=operations, threads=threads, progress=show, **options)
    if json_file:
        write_json(json_file, to_json(result, trace))
    if json_file != "-":
        click.echo(listing.replay_text(result, trace), nl=False)


@command(epilog=INPUT_HELP + """
\b
Examples
  hgmcore info my.hgm
  hgmcore info --json - | jq .by_operation
""")
@click.argument("input", required=False)
@json_option
def info(input, json_file):
    """Tell what is in a trace: operations, files, processes, where it comes from."""
    trace = load_input(input)
    if json_file:
        write_json(json_file, {"format": "hgmcore-info 1", **describe(trace)})
    if json_file != "-":
        click.echo(listing.info_text(trace), nl=False)


@command(name="schemes", epilog="""
\b
Examples
  hgmcore schemes
  hgmcore schemes logical_counter
  hgmcore schemes --costs --page-size 1G
""")
@click.argument("name", required=False)
@click.option("--costs", is_flag=True, help="Count what each kind of operation costs under each scheme.")
@click.option("--page-size", default="2M", show_default=True, metavar="SIZE", help="Huge page for --costs: 2M or 1G.")
@json_option
def list_schemes(name, costs, page_size, json_file):
    """List the schemes and their options, or explain one, or count what single operations cost."""
    engines = [schemes.load(one) for one in ([name] if name else schemes.NAMES)]
    if costs:
        table = cost_table([engine.name for engine in engines], page_size=page_size)
        if json_file:
            write_json(json_file, {"format": "hgmcore-costs 1", "page_size": page_size, "costs": table})
        if json_file != "-":
            click.echo(cost_text(table, page_size), nl=False)
        return
    if json_file:
        write_json(json_file, {"format": "hgmcore-schemes 1", "schemes": {
            engine.name: {"explanation": engine.explanation.strip(), "state": list(engine.state),
                          "defaults": dict(engine.defaults), "posted": dict(engine.posted),
                          "hvo": not engine.writes_tails} for engine in engines}})
    if json_file != "-":
        click.echo(listing.scheme_text(engines[0]) if name else listing.schemes_text(engines), nl=False)


@command(name="workloads", epilog="""
\b
Examples
  hgmcore workloads
  hgmcore workloads postcopy
  hgmcore compare workload:postcopy,page_size=2M,pages=100
""")
@click.argument("name", required=False)
@json_option
def list_workloads(name, json_file):
    """List the workloads that can be generated and the recordings, or explain a workload."""
    names = [name] if name else WORKLOADS
    known = {one: (workloads.load(one, WORKLOADS), workloads.parameters(one, WORKLOADS)) for one in names}
    if json_file:
        write_json(json_file, {"format": "hgmcore-workloads 1", "workloads": {
            one: {"question": function.question, "explanation": listing.documentation(function),
                  "parameters": parameters}
            for one, (function, parameters) in known.items()}})
    if json_file != "-":
        text = (listing.workload_text(name, *known[name]) if name
                else listing.workloads_text(known, recordings.RECORDINGS))
        click.echo(text, nl=False)


@command(epilog="""
\b
Examples
  hgmcore convert my.hgm -o my.hgmt
  hgmcore convert my.hgmt -o my.hgm
  hgmcore convert workload:random,pages=2 -o random.hgm
""")
@click.argument("input")
@output_option
@json_option
def convert(input, output, json_file):
    """Convert a trace between text and binary: all statements, names, threads, times and provenance stay.

    Comments, spacing and how numbers are spelled are not part of a trace and are not kept.
    """
    trace = load_input(input)
    trace.save(output)
    if json_file:
        write_json(json_file, {"format": "hgmcore-convert 1", "output": output, **describe(trace)})
    if json_file != "-":
        _echo_written(trace, output)


def _echo_written(trace, output):
    click.echo(f"{printable(output)}: {len(trace):,} operations")


@command(epilog="""
\b
Examples
  hgmcore validate
  hgmcore validate my-recordings/ --json differences.json
  hgmcore validate --live --seconds 60 --seed 7
""")
@click.argument("directory", required=False)
@click.option("--live", is_flag=True, help="Random operations on this kernel instead (Linux, root).")
@click.option("--seed", type=click.IntRange(0), help="--live: the first sequence; the same seed, the same sequences.  [0]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="--live: for how long.  [10]")
@click.option("--hugetlb", is_flag=True, help="--live: every second sequence on hugetlb files; nr_hugepages is raised "
              "meanwhile and put back.")
@click.option("--time", "timed", is_flag=True, help="--live: also time the sequences in the kernel and in the simulator.")
@json_option
def validate(directory, live, seed, seconds, hugetlb, timed, json_file):
    """Do again what running kernels did, and compare: map counts, page tables, smaps, errors.

    DIRECTORY holds kernel recordings (*.jsonl, plain or packed); default: those of the package, of Linux 6.18 and
    6.12. With --live, random sequences of operations on real huge pages of shmem and anonymous memory are compared
    after each step; no setting is changed and nothing stays behind. Exit status 1 where the simulator differs: a
    sequence of --live is then shrunk to a short one and printed as a trace.
    """
    if live:
        return _validate_live(directory, json_file, seed or 0, seconds or 10.0, hugetlb, timed)
    if seed is not None or seconds is not None or hugetlb or timed:
        raise click.UsageError("--seed, --seconds, --hugetlb and --time are for --live")
    with progress(quiet=json_file == "-") as show:
        result = run_validate(directory or SHIPPED, progress=show)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(validate_text(result), nl=False)
    return OK if result["equal"] == result["observations"] else DIFFERENT


def _validate_live(directory, json_file, seed, seconds, hugetlb, timed):
    if directory:
        raise click.UsageError("--live makes its own recordings: no DIRECTORY")
    from hgmcore.kernel.live import live_text, validate_live  # the rest of hgmcore runs where this cannot be imported

    with progress(quiet=json_file == "-") as show:
        result = validate_live(seed, seconds, hugetlb, timed, progress=show)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(live_text(result), nl=False)
    return DIFFERENT if result["difference"] else OK


class Formats(click.Group):
    """One command for each importer, with the importer's options."""

    def format_epilog(self, context, formatter):
        """How each format is recorded."""
        formatter.write("\nHow to record, and to import what was recorded\n")
        for name in importers.NAMES:
            formatter.write("\n".join(["", f"  {name}", *importers.commands(name), ""]))

    def list_commands(self, context):
        return list(importers.NAMES)

    def get_command(self, context, name):
        importer = importers.load(name)
        parameters = [
            click.Option([f"--{option.name.replace('_', '-')}"], default=option.default, type=str,
                         show_default=option.default is not None, help=option.help)
            for option in importer.options]
        made = click.Command(name, params=[click.Argument(["input"]), *parameters],
                             help=listing.click_help(importer.explanation),
                             short_help=importer.explanation.strip().splitlines()[0],
                             callback=lambda **given: import_recording(name, **given))
        for option in (output_option, provenance_option, json_option, version_option):
            made = option(made)
        return made


@cli.group(name="import", cls=Formats, no_args_is_help=False)
@version_option
def import_():
    """Turn a recording of another tool into a trace.

    \b
    hgmcore import qemu postcopy.log -o guest.hgmt
    hgmcore import qemu --help                 what it reads, and its options

    INPUT may be packed (gzip, bzip2, xz, zstd), or - for standard input. What was read, used and skipped is told,
    and why.
    """


def import_recording(name, input, output, provenance, json_file, **options):
    """Read a recording, write the trace, tell what was read, used and skipped."""
    given = {key: value for key, value in options.items() if value is not None}
    with progress(quiet=json_file == "-") as show:
        trace, counts = importers.read(name, input, provenance, show, **given)
        trace.save(output)
    if json_file:
        write_json(json_file, {"format": "hgmcore-import 1", "output": output, "report": counts.to_dict(),
                               **describe(trace)})
    if json_file != "-":
        click.echo("\n".join(map(ascii_only, str(counts).splitlines())))
        _echo_written(trace, output)

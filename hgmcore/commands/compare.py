"""`hgmcore compare`: a trace under several schemes."""

import importlib

import click

from hgmcore import schemes
from hgmcore.analysis.compare import compare as run_compare
from hgmcore.analysis.compare import why_refused
from hgmcore.analysis.measure import ROUNDS
from hgmcore.analysis.modelled import profile_of
from hgmcore.commands.common import (
    INPUT_HELP,
    OPTION_HELP,
    command,
    json_option,
    option_option,
    output_file,
    outputs_apart,
    pairs,
    progress,
    require,
    scheme_file_option,
    scheme_list,
    write_json,
)
from hgmcore.files import write_file
from hgmcore.inputs import load_input
from hgmcore.model.profile import DISTANCES
from hgmcore.report.columns import GUIDE
from hgmcore.report.compare import compare_markdown, compare_text
from hgmcore.report.prose import WIDTH, listed
from hgmcore.sizes import parse_size


def size(context, parameter, text):
    """The bytes of a size that is not 0."""
    try:
        number = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if number == 0:
        raise click.BadParameter("a machine has some memory")
    return number


def assumptions(context, parameter, values):
    """COST=NS:LOW:HIGH, repeated, as {cost: (ns, low, high)}."""
    found = {}
    for name, text in pairs(context, parameter, values).items():
        try:
            ns, low, high = (float(number) for number in text.split(":"))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not of the form NS:LOW:HIGH") from None
        found[name] = (ns, low, high)
    return found


@command(epilog=INPUT_HELP + """
\b
How to read the screen
""" + "\n".join(listed([
    ("ANSWER", "follows from the numbers alone. One scheme beats another if it is nowhere worse and somewhere better; "
               "--full has on what"),
    ("UNTESTED", "what this input cannot tell"), *GUIDE.items()], WIDTH - 2)) + """

\b
Examples
  hgmcore compare
  hgmcore compare my.hgm --schemes head_per_leaf,subtree,logical_counter
  hgmcore compare workload:postcopy,page_size=1G,pages=4 --option era=6.15
  hgmcore compare my.hgm --repeat 0 --every 1 --full
  hgmcore compare workload:fork_storm --option batch=6.12 --baseline mm_id
  hgmcore compare --json - | jq .verdict
""" + OPTION_HELP)
@click.argument("input", required=False)
@click.option("--schemes", "names", multiple=True, default=("all",), metavar="LIST", callback=scheme_list,
              help="Schemes to compare, separated by commas; may be repeated; `hgmcore schemes` lists them.  "
                   "[default: all]")
@scheme_file_option
@option_option
@click.option("--baseline", metavar="NAME",
              help="The scheme that others are compared with.  [default: head_per_leaf for hugetlb, mm_id for the "
                   "rest]")
@click.option("--every", type=click.IntRange(min=1), metavar="N",
              help="Look for errors after every N operations.  [default: about 64 times in all]")
@click.option("--repeat", type=click.IntRange(min=0), default=ROUNDS, show_default=True, metavar="N",
              help=f"Timed runs of each scheme behind one that warms up; below {ROUNDS}, no difference is shown; 0: "
                   "none, "
                   "so that the output is the same everywhere.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Native threads of the timed runs.")
@click.option("--machine", default="1T", show_default=True, metavar="SIZE", callback=size,
              help="Memory of a machine, all in huge pages, whose struct pages are modelled: 512G, 4T.")
@click.option("--profile", metavar="NAME",
              help="Model times of a processor, too: a name that `hgmcore profiles` lists, or a .toml file.")
@click.option("--cpus", type=click.IntRange(min=1), metavar="N",
              help="--profile: CPUs that the trace's threads run on.  [default: one for each]")
@click.option("--spread", type=click.Choice(DISTANCES),
              help="--profile: how far lines move between CPUs.  [default: l3]")
@click.option("--assume", multiple=True, metavar="COST=NS:LOW:HIGH", callback=assumptions,
              help="--profile: a cost that the profile lacks, with its interval; may be repeated.")
@json_option
@click.option("--csv", "csv_file", metavar="FILE", callback=output_file(),
              help="Write every number in long form, a row each, as CSV.")
@click.option("--parquet", metavar="FILE", callback=output_file(), help="Write the same as Parquet.")
@click.option("--plot", metavar="FILE", callback=output_file(".png", ".svg"),
              help="Draw the comparison, as .png or .svg.")
@click.option("--plot-addresses", metavar="FILE", callback=output_file(".png", ".svg"),
              help="Draw where the trace works and when, and who miscounts meanwhile, as .png or .svg.")
@click.option("--html", metavar="FILE", callback=output_file(),
              help="Write one page with tables, figure and provenance.")
@click.option("--timeline", metavar="FILE", callback=output_file(),
              help="Write a timeline for ui.perfetto.dev: phases, costs and errors over the course of the trace.")
@click.option("--full", is_flag=True, help="Print every column, every phase and every error.")
@click.option("--markdown", is_flag=True, help="Print Markdown, with exact numbers, instead of text.")
def compare(input, names, options, baseline, every, repeat, threads, machine, profile, cpus, spread, assume, json_file,
            csv_file, parquet, plot, plot_addresses, html, timeline, full, markdown):
    """Replay a trace under several schemes: what each costs, what each gets wrong, and what follows from that.

    The answer comes first, in sentences; a table is under it; both fit a screen of 80 columns and 50 lines. Costs are
    counted (the same on every machine) and measured (ns of a leaf, warm). Errors are of three kinds: what breaks the
    scheme's own promise, what differs from the truth of single base pages, and what a kernel then does with the answer.
    """
    outputs_apart(json=json_file, csv=csv_file, parquet=parquet, plot=plot, plot_addresses=plot_addresses, html=html,
                  timeline=timeline)
    if markdown and json_file == "-":
        raise click.UsageError("--markdown and --json - both write to standard output")
    if not profile and (cpus or spread or assume):
        raise click.UsageError("--cpus, --spread and --assume are for --profile")
    if profile:
        profile = profile_of(profile, assume)
    for file, option in ((plot, "--plot"), (plot_addresses, "--plot-addresses"), (html, "--html")):
        if file:
            require("matplotlib", option)
    if parquet:
        require("pyarrow", "--parquet")
    for name in names:
        why_refused(schemes.load(name), options)
    trace = load_input(input)
    with progress(quiet=json_file == "-") as show:
        result = run_compare(trace, schemes=names, repeat=repeat, every=every, baseline=baseline, threads=threads,
                             progress=show, machine=machine, profile=profile, cpus=cpus, spread=spread, **options)
    if plot:
        write_file(plot, _face("plot").image(result, suffix(plot)))
    if plot_addresses:
        write_file(plot_addresses, _face("plot").address_image(trace, result, suffix(plot_addresses), every))
    if html:
        write_file(html, _face("html").compare_html(result).encode())
    if csv_file:
        write_file(csv_file, _face("long").long_csv(result.long()).encode())
    if parquet:
        write_file(parquet, _face("long").long_parquet(result.long()))
    if timeline:
        write_file(timeline, _face("timeline").timeline_bytes(trace, result))
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo((compare_markdown if markdown else compare_text)(result, full), nl=False)


def suffix(path):
    """"png" of a.PNG."""
    return path.lower().rpartition(".")[2]


def _face(name):
    """A module of `report` that is imported only where it is asked for."""
    return importlib.import_module(f"hgmcore.report.{name}")

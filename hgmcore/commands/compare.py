"""`hgmcore compare`: a trace under several schemes."""

import click

from hgmcore import schemes
from hgmcore.analysis.compare import compare as run_compare
from hgmcore.analysis.compare import scheme_names, why_refused
from hgmcore.commands.common import (
    INPUT_HELP,
    OPTION_HELP,
    command,
    json_option,
    option_option,
    output_file,
    progress,
    require,
    write_json,
)
from hgmcore.files import write_file
from hgmcore.inputs import load_input
from hgmcore.report.compare import compare_markdown, compare_text
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
@click.option("--machine", default="1T", show_default=True, metavar="SIZE", callback=size,
              help="Memory of a machine, all in huge pages, whose struct pages are modelled: 512G, 4T.")
@json_option
@click.option("--plot", metavar="FILE", callback=output_file(".png", ".svg"),
              help="Draw the comparison, as .png or .svg.")
@click.option("--html", metavar="FILE", callback=output_file(),
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
        require("matplotlib", "--plot" if plot else "--html")
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
        click.echo(compare_markdown(result) if markdown else compare_text(result), nl=False)

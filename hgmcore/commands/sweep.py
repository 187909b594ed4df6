"""`hgmcore sweep`: comparisons over many inputs, options, profiles and processors."""

from pathlib import Path

import click

from hgmcore.analysis.sweep.drive import sweep as run_sweep
from hgmcore.analysis.sweep.results import LINES, TABLE
from hgmcore.analysis.sweep.spec import KEYS, TABLES
from hgmcore.commands.common import (
    DIFFERENT,
    OK,
    command,
    json_option,
    output_file,
    progress,
    require,
    write_json,
)
from hgmcore.files import write_file
from hgmcore.report.prose import WIDTH, listed
from hgmcore.report.sweep import sweep_image, sweep_text

EXAMPLE = """\
  inputs = ["workload:postcopy", "recording:python_fork_pool", "my.hgm"]
  schemes = ["head_per_leaf", "subtree", "mm_id"]
  seeds = 10                           # 1 to 10
  [sizes]
  page_size = ["2M", "1G"]
  pages = [1, 4]
  [options]
  batch = ["no", "6.12"]
"""


@command(name="sweep", epilog="""
\b
SPEC.toml, an example: every combination is a point
""" + EXAMPLE + """
\b
Its keys; a value may stand alone where a list of values may
""" + "\n".join(listed([*KEYS.items(), *((f"[{name}]", text) for name, text in TABLES.items())], WIDTH - 2)) + f"""

Sizes and seeds hold for the workloads that have such a parameter; other inputs run without. A scheme that is named must
be able to live with all options; of "all", those that cannot are in the results with the reason.

DIRECTORY/{LINES} gets a line whenever a comparison is done. The same command goes on where an interrupted sweep
stopped, and runs only what is new after SPEC.toml or an input changed. DIRECTORY/{TABLE} has a row for each number,
as compare --parquet, behind columns for the point.

\b
Examples
  hgmcore sweep my.toml
  hgmcore sweep my.toml -o results --plot my.svg
  duckdb -c "SELECT scheme, size_pages, value FROM 'my.sweep/{TABLE}'
             WHERE key = 'atomics.map' AND phase IS NULL"
\b
On a Dask cluster; its workers need the same hgmcore
  dask scheduler &
  dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1 &
  hgmcore sweep my.toml --scheduler tcp://127.0.0.1:8786
""")
@click.argument("spec", metavar="SPEC.toml")
@click.option("-o", "--output", "directory", metavar="DIRECTORY",
              help="Where results are kept.  [default: SPEC.sweep, here]")
@click.option("--scheduler", metavar="ADDRESS", help="Run on the Dask cluster whose scheduler has this address.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N",
              help="Processes of this machine that share the work.  [default: one for each CPU]")
@click.option("--plot", metavar="FILE", callback=output_file(".png", ".svg"),
              help="Draw costs along the first axis that varies, as .png or .svg.")
@json_option
def sweep(spec, directory, scheduler, processes, plot, json_file):
    """Compare schemes over every combination of inputs, sizes, options, profiles, processors and seeds.

    Costs and errors are counted, and times modelled, never measured, so that the numbers are the same to the last bit
    wherever and in whatever order they were made. Exit status 1: some comparisons failed, as the results say.
    """
    require("pyarrow", "sweep")
    if plot:
        require("matplotlib", "--plot")
    if scheduler and processes:
        raise click.UsageError("--processes are of this machine, and --scheduler runs all on a cluster")
    directory = directory or f"{Path(spec).stem}.sweep"
    with progress(quiet=json_file == "-") as show:
        result = run_sweep(spec, directory, scheduler=scheduler, processes=processes, progress=show)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(sweep_text(result), nl=False)
    if plot:
        write_file(plot, sweep_image(result["table"], plot.lower().rpartition(".")[2]))

    return DIFFERENT if result["failed"] else OK

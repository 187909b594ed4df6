"""`hgmcore replay`: a trace under one scheme, or a schedule of a race."""

import sys
from pathlib import Path

import click

from hgmcore import schemes
from hgmcore.commands.common import (
    INPUT_HELP,
    OPTION_HELP,
    command,
    json_option,
    option_option,
    progress,
    scheme_file_option,
    write_json,
)
from hgmcore.explore.races_file import run_schedule
from hgmcore.inputs import load_input
from hgmcore.options import resolve
from hgmcore.replay import replay as run_replay
from hgmcore.replay import to_json
from hgmcore.report.races import schedule_replay_text
from hgmcore.report.replay import replay_text
from hgmcore.threads import MOST


@command(epilog=INPUT_HELP + OPTION_HELP + """
\b
Examples
  hgmcore replay my.hgm --scheme head_per_leaf
  hgmcore replay my.hgm --scheme subtree --operations all --json all.json
  hgmcore replay my.hgm --scheme mm_id --threads 2 --option locks=posted
  hgmcore replay --schedule head_per_leaf-race-none-no_leak_at_end.schedule
""")
@click.argument("input", required=False)
@click.option("--scheme", metavar="NAME", help="The scheme to replay under.  [required]")
@scheme_file_option
@option_option
@click.option("--threads", type=click.IntRange(1, MOST), default=1, show_default=True, metavar="N",
              help="Native threads to replay with: operations of different threads of the trace run at the same time "
                   "where their order cannot matter. Counts and answers stay the same; ns/op shows what threads gain, "
                   "or lose on counters that they share. --option locks=pt or locks=posted adds the kernel's locks.")
@click.option("--operations", type=click.Choice(["all", "failed"]), default="failed", show_default=True,
              help="Which operations to list: all, or those that failed or did less than they were asked to.")
@click.option("--schedule", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True),
              help="A schedule that check --races --traces wrote, instead of a trace: two operations by accesses.")
@json_option
def replay(input, scheme, options, threads, operations, schedule, json_file):
    """Replay a trace under one scheme: the answer to each operation, costs, and every observation."""
    if schedule is not None:
        if input or scheme or options or threads != 1 or operations != "failed":
            raise click.UsageError("--schedule has its scheme, its options and its operations in its file")
        return _replay_schedule(schedule, json_file)
    if scheme is None:
        raise click.UsageError("Missing option '--scheme'.")
    resolve(schemes.load(scheme), options)
    trace = load_input(input)
    with progress() as show:
        result = run_replay(trace, scheme, operations=operations, threads=threads, progress=show, **options)
    if json_file:
        write_json(json_file, to_json(result, trace))
    if json_file != "-":
        click.echo(replay_text(result, trace), nl=False)


def _replay_schedule(path, json_file):
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    result = run_schedule(text)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(schedule_replay_text(result), nl=False)

"""`hgmcore info`: what is in a trace."""

import click

from hgmcore.commands.common import INPUT_HELP, command, json_option, write_json
from hgmcore.inputs import load_input
from hgmcore.report.info import info_text
from hgmcore.trace.describe import describe


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
        click.echo(info_text(trace), nl=False)

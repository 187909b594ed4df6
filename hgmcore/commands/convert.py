"""`hgmcore convert`: a trace from one form to the other."""

import click

from hgmcore.commands.common import (
    command,
    echo_written,
    json_option,
    output_option,
    outputs_apart,
    save_trace,
    write_json,
)
from hgmcore.inputs import load_input
from hgmcore.trace.describe import describe


@command(epilog="""
\b
Examples
  hgmcore convert my.hgm -o my.hgmt
  hgmcore convert my.hgmt -o my.hgm
  hgmcore convert my.hgmt -o - | less
  hgmcore convert workload:random,pages=2 -o random.hgm
""")
@click.argument("input")
@output_option
@json_option
def convert(input, output, json_file):
    """Convert a trace between text and binary: all statements, names, threads, times and provenance stay.

    Comments, spacing and how numbers are spelled are not part of a trace and are not kept.
    """
    outputs_apart(output=output, json=json_file)
    trace = load_input(input)
    save_trace(trace, output)
    if json_file:
        write_json(json_file, {"format": "hgmcore-convert 1", "output": output, **describe(trace)})
    if "-" not in (json_file, output):
        echo_written(trace, output)

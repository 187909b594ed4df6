"""`hgmcore workloads`: the inputs that come with the package."""

import click

from hgmcore import recordings, workloads
from hgmcore.commands.common import command, json_option, write_json
from hgmcore.inputs import WORKLOADS
from hgmcore.report.workloads import documentation, workload_text, workloads_text


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
            one: {"question": function.question, "explanation": documentation(function), "parameters": parameters}
            for one, (function, parameters) in known.items()}})
    if json_file != "-":
        text = (workload_text(name, *known[name]) if name
                else workloads_text(known, recordings.RECORDINGS))
        click.echo(text, nl=False)

"""`hgmcore schemes`: the schemes, their options, and what single operations cost under each."""

import click

from hgmcore import schemes
from hgmcore.analysis.costs import cost_table
from hgmcore.commands.common import command, json_option, scheme_file_option, write_json
from hgmcore.report.costs import cost_text
from hgmcore.report.schemes import scheme_text, schemes_text


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
@scheme_file_option
@json_option
def list_schemes(name, costs, page_size, json_file):
    """List the schemes and their options, or explain one, or count what single operations cost."""
    engines = [schemes.load(one) for one in ([name] if name else schemes.names())]
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
        click.echo(scheme_text(engines[0]) if name else schemes_text(engines), nl=False)

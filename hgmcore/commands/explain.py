"""`hgmcore explain`: the shortest part of a trace that shows a scheme's first error."""

import click

from hgmcore import schemes
from hgmcore.analysis.explain import SECONDS
from hgmcore.analysis.explain import explain as run_explain
from hgmcore.analysis.properties import PROPERTIES, checked
from hgmcore.commands.common import (
    INPUT_HELP,
    OPTION_HELP,
    command,
    json_option,
    option_option,
    progress,
    scheme_file_option,
    union,
    write_json,
)
from hgmcore.inputs import load_input
from hgmcore.options import resolve
from hgmcore.report.explain import explain_text
from hgmcore.report.prose import WIDTH, listed


def given(context, parameter, lists):
    """As `union`; None where the option is not given."""
    return union(context, parameter, lists) if lists else None


PROPERTY_HELP = """
\b
Properties, as --property NAME, the gravest first
""" + "\n".join(listed([(name, meaning) for name, (_, meaning) in PROPERTIES.items()], WIDTH - 2)) + "\n"


@command(epilog=INPUT_HELP + PROPERTY_HELP + OPTION_HELP + """
\b
Examples
  hgmcore explain my.hgm --scheme subtree
  hgmcore explain --scheme head_per_leaf --property false_shared
  hgmcore explain my.hgm --scheme mm_id --json - | jq -r .trace
""")
@click.argument("input", required=False)
@click.option("--scheme", required=True, metavar="NAME", help="The scheme whose error to explain.")
@scheme_file_option
@option_option
@click.option("--property", "properties", multiple=True, metavar="NAME[,NAME..]", callback=given,
              help="What counts as an error (below); may be repeated.  [all]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=SECONDS, show_default=True,
              help="How long to make the part shorter.")
@json_option
def explain(input, scheme, options, properties, seconds, json_file):
    """Find the shortest part of a trace that still shows a scheme's first error, and what each of its operations
    changes.

    An error is an answer of the scheme that differs from the recount of the page tables. It is looked for at each
    `observe` of the trace, at 64 operations evenly spaced, and at the end; of several at once the gravest is explained.
    What the scheme defines otherwise is explained only where nothing else is wrong.
    """
    resolve(schemes.load(scheme), options)
    if properties is not None and not properties:
        raise click.UsageError("--property names no property")
    checked(properties)
    trace = load_input(input)
    with progress() as show:
        result = run_explain(trace, scheme, properties=properties, seconds=seconds, progress=show, **options)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(explain_text(result, scheme, options), nl=False)

"""`hgmcore help`: references, each made from what the program itself goes by."""

import json
from pathlib import Path

import click

from hgmcore import report
from hgmcore.commands.common import command
from hgmcore.report.formats import schemas
from hgmcore.report.prose import listed
from hgmcore.report.schemes import options_explained
from hgmcore.trace.statements import reference

GLOSSARY = Path(report.__file__).parent / "glossary.md"


def trace():
    """Every statement of a trace, with an example."""
    return reference()


def options():
    """The options of the schemes, the default first."""
    head = "Options of the schemes, as --option KEY=VALUE, the default first:"
    return "\n".join([head, "", *listed(options_explained())])


def json_schemas():
    """The JSON schemas of all formats, as one JSON object."""
    return json.dumps(schemas(), indent=1)


def glossary():
    """The words that hgmcore uses."""
    rows = [line.strip("| ").split(" | ", 1) for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")]
    return "\n".join(["Glossary", ""] + [line for word, meaning in rows[1:]
                                         for line in [word, *listed([("", meaning.replace("`", ""))])]])


TOPICS = {"trace": trace, "options": options, "json": json_schemas, "glossary": glossary}


@command(name="help", epilog="""
\b
Examples
  hgmcore help trace
  hgmcore help glossary
  hgmcore help json | jq '."hgmcore-replay 1"'
""")
@click.argument("topic", type=click.Choice(list(TOPICS)), required=False)
@click.pass_context
def help_(context, topic):
    """Print a reference.

    \b
    trace      every statement of a trace, with an example
    options    the options of the schemes
    json       JSON schemas of all that --json writes
    glossary   the words that hgmcore uses
    """
    if topic is None:
        click.echo(context.get_help())
        return
    click.echo(TOPICS[topic]().rstrip("\n"))

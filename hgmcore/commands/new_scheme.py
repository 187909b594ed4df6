"""`hgmcore new-scheme`: a package for a scheme of one's own."""

import click

from hgmcore import scaffold
from hgmcore.commands.common import command


@command(
    name="new-scheme",
    epilog="""
\b
Examples
  hgmcore new-scheme mine                    mine/, with a Python class
  hgmcore new-scheme mine --cython src/mine  compiled: as fast as those built in
\b
Then, in that folder
  pip install --no-build-isolation .         hgmcore schemes lists it
  pytest                                     its own test against the truth
""",
)
@click.argument("name")
@click.argument("directory", required=False, type=click.Path(file_okay=False))
@click.option("--python", "kind", flag_value="python", default=True, help="A Python class (default).")
@click.option("--c", "kind", flag_value="c", help="C, compiled into an engine of its own.")
@click.option("--cython", "kind", flag_value="cython", help="Cython, compiled into an engine of its own.")
def new_scheme(name, directory, kind):
    """Write a package for a scheme of your own: NAME, in DIRECTORY (default: NAME).

    It builds and passes its own test as it is: it counts as head_per_leaf does, and waits for your rule. Once
    installed, the scheme is known by name to every command.
    """
    for path in scaffold.write(name, kind, directory or name):
        click.echo(path)

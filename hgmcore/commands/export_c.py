"""`hgmcore export-c`: the core as C sources."""

import os
import sys

import click

from hgmcore import __version__, schemes
from hgmcore.commands.common import command, scheme_list_option
from hgmcore.export_c import export


@command(name="export-c", epilog="""
\b
Examples
  hgmcore export-c hgm && make -C hgm
  hgmcore export-c hgm --schemes mm_id,subtree
  make -C hgm CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar
""")
@click.argument("directory")
@scheme_list_option("--schemes", "names", default=(",".join(schemes.NAMES),),
                    help="Schemes to write; all that are built in, if left out.")
def export_c_command(directory, names):
    """Write the core as C sources that need libc alone: headers, a file for each scheme, a makefile.

    `make` in DIRECTORY builds libhgm.a and libhgm.so; a program includes hgmcore.h. Needs Cython.
    """
    def progress(name):
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{name}", err=True, nl=False)

    try:
        files = export(directory, names, __version__, progress)
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    click.echo(f"{len(files)} files in {directory}; `make -C {directory}` builds libhgm.a and libhgm.so")
    return os.EX_OK

"""`hgmcore import FORMAT`: a recording of another tool becomes a trace."""

import click

from hgmcore import importers
from hgmcore.commands.common import (
    Command,
    echo_written,
    json_option,
    output_option,
    outputs_apart,
    progress,
    provenance_option,
    save_trace,
    version_option,
    write_json,
)
from hgmcore.report.prose import ascii_only, click_help
from hgmcore.trace.describe import describe


class Formats(click.Group):
    """One command for each importer, with the importer's options."""

    def format_epilog(self, context, formatter):
        """How each format is recorded."""
        formatter.write("\nHow to record, and to import what was recorded\n")
        for name in importers.NAMES:
            formatter.write("\n".join(["", f"  {name}", *importers.commands(name), ""]))

    def list_commands(self, context):
        return list(importers.NAMES)

    def get_command(self, context, name):
        importer = importers.load(name)
        parameters = [
            click.Option([f"--{option.name.replace('_', '-')}"], default=option.default, type=str,
                         show_default=option.default is not None, help=option.help)
            for option in importer.options]
        made = Command(name, params=[click.Argument(["input"]), *parameters],
                             help=click_help(importer.explanation),
                             short_help=importer.explanation.strip().splitlines()[0],
                             callback=lambda **given: import_recording(name, **given))
        for option in (output_option, provenance_option, json_option, version_option):
            made = option(made)
        return made


@click.group(name="import", cls=Formats, no_args_is_help=False)
@version_option
def import_():
    """Turn a recording of another tool into a trace.

    \b
    hgmcore import qemu postcopy.log -o guest.hgmt
    hgmcore import qemu --help                 what it reads, and its options

    INPUT may be packed (gzip, bzip2, xz, zstd), or - for standard input. What was read, used and skipped is told,
    and why.
    """


def import_recording(name, input, output, provenance, json_file, **options):
    """Read a recording, write the trace, tell what was read, used and skipped."""
    outputs_apart(output=output, json=json_file)
    given = {key: value for key, value in options.items() if value is not None}
    with progress() as show:
        trace, counts = importers.read(name, input, provenance, show, **given)
    save_trace(trace, output)
    if json_file:
        write_json(json_file, {"format": "hgmcore-import 1", "output": output, "report": counts.to_dict(),
                               **describe(trace)})
    if json_file != "-":
        click.echo("\n".join(map(ascii_only, str(counts).splitlines())), err=output == "-")
    if "-" not in (json_file, output):
        echo_written(trace, output)

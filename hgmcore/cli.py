"""The command line: puts the verbs of hgmcore.commands together; each failure is one line and an exit status."""

import os
import sys

import click

from hgmcore.commands.calibrate import calibrate
from hgmcore.commands.check import check_command
from hgmcore.commands.common import OK, version_option
from hgmcore.commands.compare import compare
from hgmcore.commands.convert import convert
from hgmcore.commands.explain import explain
from hgmcore.commands.export_c import export_c_command
from hgmcore.commands.help import help_
from hgmcore.commands.import_ import import_
from hgmcore.commands.info import info
from hgmcore.commands.new_scheme import new_scheme
from hgmcore.commands.profiles import list_profiles
from hgmcore.commands.replay import replay
from hgmcore.commands.schemes import list_schemes
from hgmcore.commands.step import step
from hgmcore.commands.sweep import sweep
from hgmcore.commands.validate import validate
from hgmcore.commands.workloads import list_workloads
from hgmcore.core.core import SchemeError
from hgmcore.explore.check import InternalError
from hgmcore.report.prose import printable
from hgmcore.trace import TraceError

UNUSABLE, CONTRADICTION, INTERRUPTED, PIPE_CLOSED = 2, 3, 130, 141


def run(arguments=None):
    """Run the command line and return its exit status; every failure is one line on standard error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it is closed
            setattr(sys, name, open(os.devnull, mode))
    try:
        status = cli.main(args=arguments, prog_name="hgmcore", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except (BrokenPipeError, SystemExit):  # click exits where a pipe breaks in a command, and only there
        _drop_output()
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message())
    except ImportError as error:
        if "hgmcore[cli]" not in str(error):
            raise
        return _complain(str(error))
    except MemoryError as error:
        return _complain(f"out of memory{': ' + str(error) if str(error) else ''}")
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except InternalError as error:
        _complain(str(error))
        return CONTRADICTION
    except (ValueError, TraceError, SchemeError) as error:
        return _complain(str(error))


def _drop_output():
    """Nobody takes our output, or there is no room for it; Python must not try to write the rest at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _complain(message):
    print("hgmcore: error: " + printable(" ".join(message.split())), file=sys.stderr)
    return UNUSABLE


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.pass_context
def cli(context):
    """Compare schemes that count references and mappings of huge pages.

    \b
    hgmcore compare                         the schemes on a recorded QEMU postcopy
    hgmcore compare my.hgm --plot my.svg    on your own trace, with a figure
    hgmcore schemes subtree                 what a scheme does and where it is wrong
    hgmcore step my.hgm --scheme subtree    what each operation of a trace changes
    hgmcore explain --scheme subtree        the shortest trace with its first error
    hgmcore help trace                      all statements of a trace
    hgmcore COMMAND --help                  more, with examples
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for verb in (calibrate, check_command, compare, convert, explain, export_c_command, help_, import_, info, list_profiles,
             list_schemes, list_workloads, new_scheme, replay, step, sweep, validate):
    cli.add_command(verb)

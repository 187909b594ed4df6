"""`hgmcore step`: what each operation of a trace changed."""

import contextlib
import json
import sys

import click

from hgmcore import schemes
from hgmcore.commands.common import (
    INPUT_HELP,
    OPTION_HELP,
    command,
    json_option,
    option_option,
    output_file,
    outputs_apart,
    progress,
    scheme_file_option,
    scheme_list_option,
)
from hgmcore.files import write_file, writing
from hgmcore.inputs import load_input
from hgmcore.options import resolve
from hgmcore.report.step import step_head, step_html, step_html_rows, step_json, step_text
from hgmcore.steps import replay_steps

MOST_IN_HTML = 5000


@command(epilog=INPUT_HELP + OPTION_HELP + """
\b
Examples
  hgmcore step my.hgm --scheme subtree
  hgmcore step my.hgm --scheme subtree,mm_id --html my.html
  hgmcore step --scheme mm_id --from 1000 --to 1010
  hgmcore step my.hgm --scheme mm_id --json - | jq .words
""")
@click.argument("input", required=False)
@scheme_list_option("--scheme", "names", required=True, help="The scheme, or several to see side by side.")
@scheme_file_option
@option_option
@click.option("--from", "start", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="The first operation to show, by its number from 0 on; those before it run at once.")
@click.option("--to", "stop", type=click.IntRange(min=0), metavar="N",
              help="The one behind the last to show.  [the end]")
@click.option("--html", metavar="FILE", callback=output_file(),
              help=f"Write one page with a slider instead of text; at most {MOST_IN_HTML:,} operations.")
@json_option
def step(input, names, options, start, stop, html, json_file):
    """Show what each operation of a trace changes under a scheme: page-table entries, words of struct pages, the
    scheme's answers, and the truth.

    On a terminal the text goes to the pager. With --json, JSON lines: one that names the trace, then one for each
    operation and scheme. Text and JSON are written as they are made, so that a long trace needs no more memory than a
    short one. One operation takes a millisecond or more, longer where there are many page tables: look at a part of a
    long trace, with --from and --to.
    """
    outputs_apart(html=html, json=json_file)
    for name in names:
        resolve(schemes.load(name), options)
    trace = load_input(input)
    stop = len(trace) if stop is None else stop
    if not start <= stop <= len(trace):
        raise click.UsageError(f"--from {start} --to {stop} is not a part of the trace's {len(trace)} operations")
    if html and stop - start > MOST_IN_HTML:
        raise click.UsageError(f"--html takes at most {MOST_IN_HTML} operations, not {stop - start}: choose with "
                               "--from and --to")
    head = step_head(trace, names, start, stop)
    with progress(quiet=not html) as show:
        each = _counted(_together(trace, names, start, stop, options), stop - start, show)
        if html:
            rows = _also_json(each, json_file, trace, names, start, stop, options, step_html_rows)
            write_file(html, step_html(head, list(rows)).encode())
        elif json_file:
            for _ in _also_json(each, json_file, trace, names, start, stop, options, lambda steps: None):
                pass
        else:
            _page("\n".join(head) + "\n", map(step_text, each))


def _together(trace, names, start, stop, options):
    """Yield {scheme: Step} of each operation."""
    runs = [replay_steps(trace, name, start=start, stop=stop, **options) for name in names]
    for steps in zip(*runs):
        yield dict(zip(names, steps))


def _counted(each, total, show):
    for done, steps in enumerate(each):
        yield steps
        if show:
            show(done + 1, total)


def _also_json(each, json_file, trace, names, start, stop, options, shown):
    """Yield shown(steps) for each of `each`, and write all as JSON lines where a file for them is given."""
    with _lines(json_file) as write:
        write(json.dumps({"format": "hgmcore-step 1", "trace": trace.name, "geometry": trace.header.geometry,
                          "schemes": names, "options": options, "from": start, "to": stop}) + "\n")
        for steps in each:
            for name, one in steps.items():
                write(step_json(name, one) if json_file else "")
            yield shown(steps)


@contextlib.contextmanager
def _lines(path):
    """A function that writes text to a file, to standard output ("-"), or nowhere (None)."""
    if path is None or path == "-":
        yield sys.stdout.write if path else lambda text: None
        return
    with writing(path) as stream:
        yield lambda text: stream.write(text.encode())


def _page(head, texts):
    """Text by and by: to the pager on a terminal, else to standard output."""
    if sys.stdout.isatty() and sys.stdin.isatty():
        click.echo_via_pager(part for parts in ([head], ("\n" + text for text in texts)) for part in parts)
        return
    sys.stdout.write(head)
    for text in texts:
        sys.stdout.write("\n" + text)

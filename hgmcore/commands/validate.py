"""`hgmcore validate`: the simulator against running kernels."""

import click

from hgmcore.commands.common import DIFFERENT, OK, command, json_option, progress, write_json
from hgmcore.kernel.published.validate import refit
from hgmcore.kernel.published.validate import validate as validate_published
from hgmcore.kernel.validate import SHIPPED
from hgmcore.kernel.validate import validate as run_validate
from hgmcore.model.profile import load as load_profile
from hgmcore.report.published import published_text, refit_text
from hgmcore.report.validate import validate_text


@command(epilog="""
\b
Examples
  hgmcore validate
  hgmcore validate --published
  hgmcore validate my-recordings/ --json differences.json
  hgmcore validate --live --seconds 60 --seed 7
  hgmcore validate --live --sequence traces/mm_id-pair-moved_when_private.live.jsonl
""")
@click.argument("directory", required=False)
@click.option("--live", is_flag=True, help="Random operations on this kernel instead (Linux, root).")
@click.option("--seed", type=click.IntRange(0),
              help="--live: the first sequence; the same seed, the same sequences.  [0]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="--live: for how long.  [10]")
@click.option("--hugetlb", is_flag=True, help="--live: every second sequence on hugetlb files; nr_hugepages is raised "
              "meanwhile and put back.")
@click.option("--folios", is_flag=True, help="--live: every second sequence on folios of 16K to 1M; settings of "
              "transparent huge pages are changed meanwhile and put back.")
@click.option("--time", "timed", is_flag=True,
              help="--live: also time the sequences in the kernel and in the simulator.")
@click.option("--sequence", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
              help="--live: what this file asks of a kernel, once, not random sequences: a kernel recording, or what "
              "check --traces writes.")
@click.option("--published", is_flag=True,
              help="What kernel developers measured and published, against the cost model's predictions.")
@click.option("--fit", is_flag=True, help="--published: fit the cells that are marked for it again, instead.")
@json_option
def validate(directory, live, seed, seconds, hugetlb, folios, timed, sequence, published, fit, json_file):
    """Do again what running kernels did, and compare: map counts, page tables, smaps, errors.

    DIRECTORY holds kernel recordings (*.jsonl, plain or packed); default: those of the package, of Linux 6.18 and
    6.12. With --live, random sequences of operations on real huge pages of shmem and anonymous memory are compared
    after each step; no setting is changed and nothing stays behind. Exit status 1 where the simulator differs: a
    sequence of --live is then shrunk to a short one and printed as a trace.

    With --published, times from public mails are predicted, each with an interval, and scored beside two baselines;
    exit status 1 where a goal is missed.
    """
    if published or fit:
        if directory or live or seed is not None or seconds is not None or hugetlb or folios or timed or sequence:
            raise click.UsageError("--published takes no DIRECTORY and nothing of --live")
        return _validate_published(json_file, fit)
    if sequence:
        if not live or directory or seed is not None or seconds is not None or hugetlb or folios or timed:
            raise click.UsageError("--sequence needs --live, and takes no DIRECTORY, --seed, --seconds, --hugetlb or "
                                   "--time")
        from hgmcore.kernel.live import validate_sequence

        return _shown_live(validate_sequence(sequence), json_file)
    if live:
        return _validate_live(directory, json_file, seed or 0, seconds or 10.0, hugetlb, folios, timed)
    if seed is not None or seconds is not None or hugetlb or folios or timed:
        raise click.UsageError("--seed, --seconds, --hugetlb, --folios and --time are for --live")
    with progress() as show:
        result = run_validate(directory or SHIPPED, progress=show)
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(validate_text(result), nl=False)
    return OK if result["equal"] == result["observations"] else DIFFERENT


def _validate_live(directory, json_file, seed, seconds, hugetlb, folios, timed):
    if directory:
        raise click.UsageError("--live makes its own recordings: no DIRECTORY")
    from hgmcore.kernel.live import validate_live  # the rest of hgmcore runs where this cannot be imported

    with progress() as show:
        result = validate_live(seed, seconds, hugetlb, timed, progress=show, folios=folios)
    return _shown_live(result, json_file)


def _shown_live(result, json_file):
    from hgmcore.kernel.live import live_text

    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(live_text(result), nl=False)
    return DIFFERENT if result["difference"] else OK


def _validate_published(json_file, fit):
    if fit:
        found = refit()
        if json_file:
            write_json(json_file, {"format": "hgmcore-validate-published-fit 1",
                                   "costs": {name: dict(zip(("value", "low", "high"), three))
                                             for name, three in found.items()}})
        if json_file != "-":
            click.echo(refit_text(found, load_profile("xeon-4210r")), nl=False)
        return OK
    result = validate_published()
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(published_text(result), nl=False)
    return OK if result["ok"] else DIFFERENT

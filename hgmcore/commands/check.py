"""`hgmcore check`: every sequence of operations over a tiny machine."""

import contextlib
import itertools
import math
import sys
from pathlib import Path

import click

from hgmcore.analysis.compare import engines_of
from hgmcore.commands.common import OK, OPTION_HELP, command, json_option, scheme_file_option, write_json
from hgmcore.explore import races_check, races_litmus
from hgmcore.explore import scopes as known
from hgmcore.explore.check import SYMMETRIES, Limits, check, status
from hgmcore.explore.races_file import schedule_file
from hgmcore.explore.walk import walk as walk_over
from hgmcore.files import write_file
from hgmcore.geometry import TINY
from hgmcore.options import OPTIONS
from hgmcore.report.check import check_text, scopes_text, walk_text
from hgmcore.report.check_html import counterexample_html
from hgmcore.report.races import races_text

OUT_OF_MEMORY = 2
"""Exit status where memory ran out and no promise is seen to be broken; as of bad input."""


def _seconds(context, parameter, value):
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no time")
    return value


def _option_lists(context, parameter, values):
    """Repeated KEY=VALUE[,VALUE..] as a list of dicts, one for each choice."""
    lists = {}
    for value in values:
        key, equals, words = value.partition("=")
        if not (key and equals and words):
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        if key in lists:
            raise click.BadParameter(f"{key!r} is given twice")
        if key not in OPTIONS:
            raise click.BadParameter(f"unknown option '{key}' (known: {', '.join(OPTIONS)})")
        lists[key] = words.split(",")
    return [dict(zip(lists, choice, strict=True)) for choice in itertools.product(*lists.values())]


def _locks(context, parameter, text):
    """NAME[,NAME..] as a tuple of choices of locks; None: not given."""
    names = None if text is None else tuple(dict.fromkeys(text.split(",")))
    for name in names or ():
        if name not in races_check.LOCKS:
            raise click.BadParameter(f"unknown locks '{name}' (known: {', '.join(races_check.LOCKS)})")
    return names


def _scopes(texts, scheme, races):
    """Scopes by name, as text, or from a file; none: the usual ones."""
    if races and not texts:
        return [races_check.SCOPES["race"]]
    if not texts:
        return [
            known.SCOPES[name]
            for name in known.SCOPES
            if (name not in known.LARGER if scheme == "all" else name in known.DEFAULT)
        ]
    found = []
    for text in texts:
        if "=" in text:
            found.append(known.parse(text))
        elif Path(text).suffix or "/" in text:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
            found.append(known.parse(" ".join(line.partition("#")[0] for line in lines), Path(text).stem))
        else:
            found += [races_check.SCOPES.get(name) or known.find(name) for name in text.split(",")]
    return found


@contextlib.contextmanager
def _progress(quiet):
    """A function that shows how far a search is, on a terminal; None where there is none."""
    if quiet or not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield None
        return

    def show(run, *more):
        line = f"\r\033[K{run.engine.name}, {run.scope.title}: {run.progress(*more)}"
        print(line, end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@command(
    name="check",
    epilog=OPTION_HELP
    + """
\b
Examples
  hgmcore check logical_table
  hgmcore check all --json matrix.json
  hgmcore check subtree --scope pair --property leaf_if_mapped --traces .
  hgmcore check logical_counter --races --locks pt,posted,posted-V
  hgmcore check mm_id --scope "geometry=tiny-4 processes=2 ops=populate,continue,fork,exit born=1 flags=minor,wp,hgm"
""",
)
@click.argument("scheme", required=False)
@click.option(
    "--scope",
    "texts",
    multiple=True,
    metavar="SCOPE",
    help="A named scope or several, NAME[,NAME..]; a scope as "
    'text, "key=value .."; or a file of it. May be repeated.  [pair, levels, fail and fork; of all: all but the large]',
)
@scheme_file_option
@click.option("--scopes", "list_scopes", is_flag=True, help="List the named scopes and their text, and check nothing.")
@click.option("--geometry", type=click.Choice(TINY), help="Another geometry for each scope.")
@click.option("--processes", type=int, metavar="N", help="Another number of processes.")
@click.option("--pages", type=int, metavar="N", help="Another number of huge pages.")
@click.option(
    "--fail", type=int, metavar="N", help="Let each of the first N internal allocations of an operation fail."
)
@click.option(
    "--depth", type=click.IntRange(1), metavar="N", help="Sequences of at most N operations: nothing is proved then."
)
@click.option("--states", type=click.IntRange(1), metavar="N", help="Stop a search behind so many states.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    callback=_seconds,
    help="Stop a search after so long.",
)
@click.option(
    "--symmetry",
    type=click.Choice(SYMMETRIES),
    default="processes",
    show_default=True,
    help="States that are the same but for which process is which are one; pages: or which base page.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that search side by side; they change no answer.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE[,VALUE..]",
    callback=_option_lists,
    help="An option of the schemes (below); of several values each is a search of its own. May be repeated.",
)
@click.option(
    "--races",
    is_flag=True,
    help="Race two operations from every state of the scopes, in every order of their accesses.  [scope race, of one "
    "process; race-two has two]",
)
@click.option(
    "--locks",
    callback=_locks,
    metavar="LOCKS[,LOCKS..]",
    help="With --races, which locks are taken: none, pt (the page-table locks), posted (those of HGM v2), or posted-K "
    "without one class K of these: M X V I L T.  [each in turn]",
)
@click.option(
    "--preemptions",
    type=click.IntRange(0),
    metavar="N",
    help="With --races, switch at most N times from an operation that could go on.",
)
@click.option(
    "--litmus",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="With --races, write the racy core of each schedule there, as a test for herd7 -conf linux-kernel.cfg.",
)
@click.option("--property", "properties", multiple=True, metavar="NAME[,NAME..]", help="Report these alone.")
@click.option(
    "--traces", metavar="DIR", type=click.Path(file_okay=False), help="Write each shortest trace there, to replay, "
    "and where a running kernel has the operations, a sequence for validate --live --sequence; with --races each "
    "schedule, for replay --schedule; with --walk what it found."
)
@click.option(
    "--on",
    "elsewhere",
    type=click.Choice(["x86-64"]),
    help="Rewrite each shortest trace for huge pages of 2M and 1G and run it there; --traces has those that break the "
    "same property.",
)
@click.option(
    "--html", metavar="DIR", type=click.Path(file_okay=False), help="Write a page of each shortest trace there."
)
@click.option(
    "--walk",
    type=click.FloatRange(0, min_open=True),
    callback=_seconds,
    metavar="SECONDS",
    help="Random sequences on larger machines instead: real geometries, up to 8 processes, shmem, anonymous memory. "
    "What breaks a property is made short; nothing is proved.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="--walk: the same seed, the same sequences.",
)
@click.option(
    "--strict", is_flag=True, help="Exit status 1 also where something that was asked is vacuous, bounded or unknown."
)
@json_option
def check_command(
    scheme,
    texts,
    list_scopes,
    geometry,
    processes,
    pages,
    fail,
    depth,
    states,
    seconds,
    symmetry,
    threads,
    options,
    races,
    locks,
    preemptions,
    litmus,
    properties,
    traces,
    elsewhere,
    html,
    walk,
    seed,
    strict,
    json_file,
):
    """Try every sequence of operations over a tiny machine: is a property kept, for sequences of any length?

    SCHEME is a scheme, several separated by commas, or all. The machine has huge pages of 2 to 8 base pages, so it has
    finitely many states; a search that meets no new one any more proves its properties. Exit status 0: every promise is
    kept; 1: one is broken; 2: bad input, or memory ran out; 3: the search contradicts itself. Ctrl-C prints what is
    known; what is unknown is no failure but under --strict.

    With --races two operations run at once instead, cut before each access to shared memory and each lock; memory is
    sequentially consistent. Exit status 1: something breaks under the posted locks.
    """
    if list_scopes:
        click.echo(scopes_text(known.SCOPES.values()), nl=False)
        return 0
    if scheme is None:
        raise click.UsageError("which scheme? (a name, or all)")
    for name, path in {"traces": traces, "html": html, "litmus": litmus, "json": json_file}.items():
        if path == "":
            raise click.UsageError(f"--{name}: no name is given")
    engines = engines_of(scheme)
    of_searches = {"depth": depth, "states": states, "seconds": seconds, "property": properties, "strict": strict,
                   "html": html, "on": elsewhere, "fail": fail, "symmetry": symmetry != "processes",
                   "threads": threads != 1}
    if races:
        _refuse("goes not with --races", **of_searches, walk=walk, seed=seed)
    else:
        _refuse("goes with --races", locks=locks, preemptions=preemptions, litmus=litmus)
    if walk:
        _refuse("goes not with --walk", **of_searches, geometry=geometry, processes=processes, pages=pages)
        return _walk(engines, walk, seed, texts, options, json_file, traces)
    _refuse("goes with --walk", seed=seed)
    chosen = [
        known.change(scope, choice, geometry=geometry, processes=processes, pages=pages, fail=fail)
        for scope in _scopes(texts, scheme, races)
        for choice in options
    ]
    wanted = [name for text in properties for name in text.split(",")] or None
    if races:
        names = [engine.name for engine in engines]
        for name in names:
            races_check.racing_engine(name)
        for directory in filter(None, (litmus, traces)):
            Path(directory).mkdir(parents=True, exist_ok=True)
        with _progress(json_file == "-") as show:
            result = races_check.race(names, chosen, locks or tuple(races_check.LOCKS), preemptions, show)
        if json_file:
            write_json(json_file, result)
        if json_file != "-":
            click.echo(races_text(result), nl=False)
        if litmus:
            _write_races(litmus, "litmus", result, lambda *race: races_litmus.litmus(
                race[0], race[-1], f"scheme {race[1]}, locks {race[3]}: {race[4]} is broken"))
        if traces:
            _write_races(traces, "schedule", result, lambda *race: schedule_file(*race[1:]))
        memory = _memory(result["out_of_memory"])
        return races_check.status(result) or memory
    with _progress(json_file == "-") as show:
        result = check(
            engines,
            chosen,
            limits=Limits(depth, states, seconds),
            symmetry=symmetry,
            threads=threads,
            properties=wanted,
            progress=show,
            elsewhere=elsewhere is not None,
        )
    if json_file:
        write_json(json_file, result)
    if traces:
        _write_each(traces, "hgm", result, lambda scheme, scope, prop, entry: entry["trace"])
        _write_each(traces, "live.jsonl", result, lambda scheme, scope, prop, entry: entry.get("live"))
        _write_each(traces, "x86-64.hgm", result, lambda scheme, scope, prop, entry: entry.get("x86_64"))
    if html:
        _write_each(html, "html", result, counterexample_html)
    if json_file != "-":
        click.echo(check_text(result), nl=False)
    memory = _memory(result["out_of_memory"])
    return status(result, strict) or memory


def _memory(searches):
    """Say where memory ran out, in one line. searches: [scope, scheme] of each; returns the exit status."""
    if not searches:
        return OK
    names = [f"scheme {name}, scope {title}" for title, name in searches]
    more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
    text = f"{'; '.join(names[:3])}{more}"
    click.echo(f"hgmcore: error: out of memory: {text}: what is not said of it is unknown", err=True)
    return OUT_OF_MEMORY


def _refuse(why, **options):
    """Complain of an option that was given."""
    for name, value in options.items():
        if value not in (None, False, (), 0) or name in ("preemptions", "fail") and value == 0:
            raise click.UsageError(f"--{name} {why}")


def _write_races(directory, suffix, result, text_of):
    """A file of each schedule. text_of: of a name, the scheme, the scope's text, locks, the property and its entry."""
    for title, scope in result["scopes"].items():
        for name, found in scope["schemes"].items():
            for locks, one in found.items():
                for prop, entry in one["broken"].items():
                    words = "".join(c if c.isalnum() else "_" for c in title)
                    file = "-".join([words, name, locks, prop])
                    _write(directory, f"{file}.{suffix}", text_of(file, name, scope["definition"], locks, prop, entry))


def _walk(engines, seconds, seed, texts, options, json_file, traces):
    if texts or len(options) > 1:
        raise click.UsageError("--walk has grounds of its own, not --scope, and one value of each --option")
    if traces:
        Path(traces).mkdir(parents=True, exist_ok=True)
    result = walk_over(engines, seconds, seed, **options[0])
    if json_file:
        write_json(json_file, result)
    if json_file != "-":
        click.echo(walk_text(result), nl=False)
    if traces:
        for name, found in result["schemes"].items():
            for prop, entry in found["properties"].items():
                _write(traces, f"{name}-walk-{prop}.hgm", entry["trace"])
                _write(traces, f"{name}-walk-{prop}.live.jsonl", entry.get("live"))
    if result["out_of_memory"]:
        click.echo("hgmcore: error: out of memory: the walk ended there", err=True)
        return OUT_OF_MEMORY
    entries = [entry for found in result["schemes"].values() for entry in found["properties"].values()]
    return int(any(entry["promise"] == "promised" for entry in entries))


def _write_each(directory, suffix, result, text_of):
    """A file of each counterexample that has a text."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for title, scope in result["scopes"].items():
        for name, found in scope["schemes"].items():
            for prop, entry in found["properties"].items():
                words = "".join(c if c.isalnum() or c in "-=." else "_" for c in title)
                _write(directory, f"{name}-{words}-{prop}.{suffix}",
                       text_of(name, title, prop, entry) if "trace" in entry else None)


def _write(directory, name, text):
    """A file, if there is a text for it."""
    if text:
        write_file(str(Path(directory) / name), text.encode())

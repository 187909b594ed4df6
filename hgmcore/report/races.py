"""The page of `hgmcore check --races`: which locks keep a scheme whole, and the schedules of what breaks."""

from hgmcore.explore.races_check import BREAKS, CLASSES, TEXTS, needs
from hgmcore.explore.races_file import line_of
from hgmcore.report.prose import each, listed, wrapped

KEYS = dict(BREAKS)
STRICTEST = ("repaired", "v1", "fixed", "posted", *(f"posted-{name}" for name in CLASSES), "pt", "none")
"""Choices of locks from the one that allows least on."""


REPAIRS = (
    ("v1", "as posted, and a collapse holds the VMA lock and i_mmap for writing"),
    ("fixed", "as posted, and a hole punch locks the folio before it asks for mappings"),
    ("repaired", "both"),
)


def races_text(result):
    """Numbers, the matrix of schemes and locks, and the shortest schedules, as text of 80 columns."""
    lines = []
    for title, scope in result["scopes"].items():
        lines += [*_numbers(title, scope), "", *_matrix(scope), ""]
    lines += wrapped(
        "Every interleaving of the accesses of two operations, as if memory were sequentially consistent: what a "
        "processor or a compiler reorders is not looked at. A cell names what some interleaving breaks and neither "
        "order of the two does; '.' is nothing."
    )
    without = [(f"posted-{name}", f"without the {text}") for name, text in CLASSES.items()]
    lines += ["", *listed([*without, *REPAIRS]), ""]
    lines += listed([(KEYS[name], f"{name}: {text}") for name, text in TEXTS.items() if name in _seen(result)])
    lines += _schedules(result)
    if result["interrupted"]:
        lines.append("Interrupted: what was not raced is unknown.")
    return "\n".join(lines) + "\n"


def _seen(result):
    return {
        name
        for scope in result["scopes"].values()
        for found in scope["schemes"].values()
        for one in found.values()
        for name in one["broken"]
    }


def _numbers(title, scope):
    yield from wrapped(f"races in scope {title}")
    yield f"  {'scheme':18} {'locks':9} {'pairs':>7} {'states':>10} {'outcomes':>9} {'odd':>6} {'benign':>6} {'s':>6}"
    for name, found in scope["schemes"].items():
        for locks, one in found.items():
            bound = "" if one["preemptions"] is None else f"  bounded ({one['preemptions']} preemptions)"
            if one["ended"] != "closed":
                bound += f"  {one['ended']}"
            yield (
                f"  {name:18} {locks:9} {one['pairs']:7,} {one['states']:10,} {one['outcomes']:9,} {one['odd']:6,} "
                f"{one['benign']:6,} {one['seconds']:6.2f}{bound}"
            )


def _cell(one):
    return ",".join(KEYS[name] for name in one["broken"]) or "."


def _matrix(scope):
    """Rows are schemes, columns are choices of locks."""
    columns = list(dict.fromkeys(locks for found in scope["schemes"].values() for locks in found))
    for name, found in scope["schemes"].items():
        wanted = needs(found)
        yield f"{name}" + ("" if wanted is None else f": needs {each(wanted) if wanted else 'no lock by itself'}")
        for locks in columns:
            if locks in found:
                yield f"  {locks:9} {_cell(found[locks])}"


def _schedules(result):
    """Of each scheme and thing broken, the schedule with the fewest preemptions under the most locks that have one."""
    shown = set()
    for title, scope in result["scopes"].items():
        for name, found in scope["schemes"].items():
            for locks in STRICTEST:
                for prop, entry in found.get(locks, {}).get("broken", {}).items():
                    if (name, prop) not in shown:
                        shown.add((name, prop))
                        families = ", ".join(f"{n:,} {both}" for both, n in entry["families"].items())
                        many = "s" * (entry["preemptions"] != 1)
                        yield ""
                        yield from wrapped(
                            f"{name}, locks {locks}, scope {title}: {prop} is broken in {entry['pairs']:,} pairs "
                            f"({families}); with {entry['preemptions']} preemption{many}:"
                        )
                        yield from schedule_text(entry)


def schedule_replay_text(result):
    """What `hgmcore replay --schedule` found."""
    lines = [f"{result['scheme']}, locks {result['locks']}", *schedule_text(result), ""]
    if result["broken"]:
        lines += [f"broken: {name}: {TEXTS[name]}" for name in result["broken"]]
    else:
        lines.append("Nothing is broken that neither order of the two breaks.")
    return "\n".join(line for part in lines for line in wrapped(part, "", "  ") or [""]) + "\n"


def schedule_text(entry):
    """A schedule, a line for each access."""
    yield f"  {'; '.join(entry['start']) or 'nothing yet'}"
    yield f"  a: {entry['a']}"
    yield f"  b: {entry['b']}"
    for step in entry["steps"][:-1]:
        yield f"    {line_of(step)}"
    yield "    " + "; ".join(
        f"{who}: {answer['error'] or answer['event'] or 'ok'}"
        for who, answer in zip("ab", entry["steps"][-1]["answers"], strict=True)
    )

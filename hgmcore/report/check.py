"""The page of `hgmcore check`: a line for each search, the matrix, and traces of broken promises."""

from hgmcore.explore.check import MARKS, cell
from hgmcore.explore.properties import PROPERTIES
from hgmcore.report.prose import each, listed, wrapped

WORDS = {
    ".": "proved, for sequences of any length of the scope's operations",
    "3!": "breaks its promise, in 3 steps",
    "3d": "violated in 3 steps by the scheme's own definition",
    "3f": "a fault that is known, in 3 steps",
    "v": "vacuous: the premise never held",
    "-": "not asked",
    "b8": "not broken in up to 8 steps",
    "?": "unknown",
}
ENDED = {"interrupt": "stopped"}
STEPS = ("done", "refused", "injected")
COLUMNS = (PROPERTIES[:9], PROPERTIES[9:])
"""Of the matrix, in parts of at most 80 characters."""


def check_text(result):
    """Searches, matrix and broken promises as text of 80 columns."""
    lines = [line for title, scope in result["scopes"].items() for line in _searches(title, scope)]
    lines += ["", *_matrix(result), *_traces(result)]
    if result["interrupted"]:
        lines.append("Interrupted: what no search finished is unknown.")
    return "\n".join(lines) + "\n"


def _searches(title, scope):
    yield from wrapped(f"scope {title}")
    head = f"{'depth':>5} {'states':>9} {'generated':>10} {'fatal':>6} {'s':>6} {'M/s':>4} {'B':>4}"
    yield f"  {'scheme':18} {'':7} {head}"
    for name, found in scope["schemes"].items():
        seconds = found["seconds"]
        rate = f"{found['generated'] / seconds / 1e6:4.1f}" if seconds > 0.001 else "   -"
        yield (
            f"  {name:18} {ENDED.get(found['ended'], found['ended']):7} {found['depth']:5} {found['states']:9,}"
            f" {found['generated']:10,} {found['fatal_steps']:6,} {seconds:6.2f} {rate} {found['bytes_per_state']:4.0f}"
        )
        never = [family for family, times in found["executed"].items() if not times["done"]]
        if never:
            yield from wrapped(f"never done: {', '.join(never)}", " " * 4, " " * 6)
        if found["ended"] != "closed":
            yield from wrapped(f"every state of depth {found['complete_depth']} was expanded"
                               if found["complete_depth"] >= 0 else "no state was expanded", " " * 4)
    yield from wrapped(_executed(scope["schemes"].values()), " " * 2, " " * 4)


def _executed(searches):
    """How often each family was done, refused, and had an allocation that failed; over all schemes of a scope."""
    times = {}
    for found in searches:
        for family, counts in found["executed"].items():
            before = times.get(family, (0, 0, 0))
            times[family] = [a + b for a, b in zip(before, (counts[k] for k in STEPS), strict=True)]
    return f"done/refused/failed: {', '.join(_times(family, *counts) for family, counts in times.items())}"


def _times(family, done, refused, injected):
    return f"{family} {done:,}/{refused:,}/{injected:,}"


def _matrix(result):
    names = list(dict.fromkeys(name for scope in result["scopes"].values() for name in scope["schemes"]))
    for part in COLUMNS:
        shown = [
            prop
            for prop in part
            if any(
                prop.name in found["properties"]
                for scope in result["scopes"].values()
                for found in scope["schemes"].values()
            )
        ]
        if not shown:
            continue
        yield " ".join([f"{'':18}", *(f"{prop.key:>5}" for prop in shown)])
        for name in names:
            yield " ".join([f"{name:18}", *(f"{cell(result, name, prop):>5}" for prop in shown)])
        yield ""
        yield from listed([(prop.key, f"{prop.name}: {prop.text}{_held(result, names, prop)}") for prop in shown])
        yield ""
    yield from listed(WORDS.items())
    if any(found["fatal_steps"] for scope in result["scopes"].values() for found in scope["schemes"].values()):
        yield ""
        yield from wrapped(
            "fatal: steps behind which all counts are noise. They are judged and not followed, so what is proved "
            "of a scheme that has some is proved up to the first of them."
        )


def _held(result, names, prop):
    """How often a property's premise held, if there is one scheme."""
    if len(names) > 1:
        return ""
    found = [scope["schemes"][names[0]]["properties"] for scope in result["scopes"].values() if scope["schemes"]]
    times = sum(properties[prop.name]["premise"] for properties in found if prop.name in properties)
    return f" (premise held {times:,} time{'s' * (times != 1)})"


def _traces(result):
    """Of each scheme and property the shortest trace, and in how many scopes the promise is broken."""
    broken = {}
    for title, scope in result["scopes"].items():
        for name, found in scope["schemes"].items():
            for prop, entry in found["properties"].items():
                if entry["verdict"] == "violated" and entry["promise"] == "promised":
                    broken.setdefault((name, prop), []).append((entry["length"], title, entry))
    for (name, prop), entries in broken.items():
        _, title, entry = min(entries, key=lambda one: one[0])
        others = [one[1] for one in entries if one[1] != title]
        yield ""
        also = ", also on x86-64" if entry.get("x86_64") else ""
        yield from wrapped(
            f"{name} breaks {prop} in scope {title}{', also in ' + each(others) if others else ''}{also}:"
        )
        yield from (
            f"  {'; '.join(step['statement'])}" + (f"  ({step['error']})" if step["error"] else "")
            for step in entry["steps"]
        )


def walk_text(result):
    """What a random walk met: of each scheme the properties that broke, and the traces of broken promises."""
    lines = [f"random walk, seed {result['seed']}: nothing that did not break is proved", ""]
    for name, found in result["schemes"].items():
        broken = ", ".join(
            f"{prop} {entry['length']}{MARKS[entry['promise']]}" for prop, entry in found["properties"].items()
        )
        lines += wrapped(
            f"{name}: {found['sequences']:,} sequences, {found['steps']:,} steps: {broken or 'nothing broke'}", "", "  "
        )
    for name, found in result["schemes"].items():
        for prop, entry in found["properties"].items():
            if entry["promise"] == "promised":
                lines += ["", f"{name} breaks {prop} (ground {entry['ground']}, sequence {entry['number']}):"]
                lines += [f"  {line}" for line in entry["trace"].splitlines() if not line.startswith("#")]
    return "\n".join(lines) + "\n"


def scopes_text(scopes):
    """The named scopes, each as its text."""
    lines = []
    for scope in scopes:
        lines += [scope.name, *wrapped(scope.text(), "  ", "    ")]
    return "\n".join(lines) + "\n"

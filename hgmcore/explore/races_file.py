"""A schedule of a race as a file: what `check --races --traces` writes and `replay --schedule` runs.

    hgmcore-schedule 1
    scheme head_per_leaf
    locks none
    scope geometry=tiny-4 processes=1 ops=populate,continue
    start populate F 0 1
    a continue A v 0 4K
    b continue A v 4K 4K
    @a read A[F0] = none
    @b write A[F0] = none  A[F0] none>table

A line @a or @b lets that thread do its next access, or take its next lock. What it is said to be is compared; what
stands behind " = " (the word before) and behind two blanks (the words that changed) is for the reader. `#` begins a
comment.
"""

from __future__ import annotations

from hgmcore.explore import scopes
from hgmcore.explore.races_check import BREAKS, LOCKS, TEXTS, Raced
from hgmcore.explore.races_trace import VERBS, schedule_lines

FORMAT = "hgmcore-schedule 1"
ONCE = ("scheme", "locks", "scope", "a", "b")


def access(step) -> str:
    """What a step of a schedule does, as words of its line."""
    return f"{step['what']} {step['where']}"


def line_of(step) -> str:
    reads = step["value"] is not None and step["what"] in VERBS
    value = f" = {step['value']}" if reads else ""
    changed = "".join(f"  {word} {before}>{after}" for word, (before, after) in step["changed"].items())
    return f"@{step['thread']} {access(step)}{value}{changed}"


def schedule_file(scheme: str, definition: str, locks: str, name: str, entry: dict) -> str:
    """entry: what Raced.run() keeps of the broken property `name`. definition: the scope's text."""
    many = "s" * (entry["preemptions"] != 1)
    answers = [answer["error"] or answer["event"] or "ok" for answer in entry["steps"][-1]["answers"]]
    lines = [
        FORMAT,
        f"# {name} is broken, with {entry['preemptions']} preemption{many}: {TEXTS[name]}",
        "# hgmcore replay --schedule FILE",
        f"scheme {scheme}",
        f"locks {locks}",
        f"scope {definition}",
        *(f"start {line}" for line in _joined(entry["start"])),
        f"a {entry['a']}",
        f"b {entry['b']}",
        *(line_of(step) for step in entry["steps"][:-1]),
        f"# a: {answers[0]}; b: {answers[1]}",
    ]
    return "\n".join(lines) + "\n"


def _joined(lines):
    """Statements of steps: `fail k` is of the one behind it."""
    out, fail = [], ""
    for line in lines:
        if line.startswith("fail "):
            fail = f"{line}; "
        else:
            out.append(fail + line)
            fail = ""
    return out


def parse(text: str) -> tuple[dict, list]:
    """(values by word, with "start" as a list; [(line number, thread, access or "")]). ValueError names the line."""
    lines = text.splitlines()
    if not lines or lines[0].split("#")[0].strip() != FORMAT:
        raise ValueError(f"schedule: line 1 is not '{FORMAT}'")
    values, turns = {"start": []}, []
    for number, line in enumerate(lines[1:], start=2):
        line = line.partition("#")[0].rstrip()
        word, _, rest = line.partition(" ")
        if word in ("@a", "@b"):
            turns.append((number, "ab".index(word[1]), rest.split("  ")[0].partition(" = ")[0].strip()))
        elif word == "start" and rest:
            values["start"].append(rest)
        elif word in ONCE and rest:
            if word in values:
                raise ValueError(f"schedule: line {number}: '{word}' is given twice")
            values[word] = rest
        elif line:
            raise ValueError(f"schedule: line {number}: '{line}' is no line of a schedule")
    for word in ONCE:
        if word not in values:
            raise ValueError(f"schedule: no line '{word} ..'")
    if values["locks"] not in LOCKS:
        raise ValueError(f"schedule: unknown locks '{values['locks']}' (known: {', '.join(LOCKS)})")
    return values, turns


def run_schedule(text: str) -> dict:
    """Run a schedule: {"format", "scheme", "scope", "locks", "start", "a", "b", "steps", "broken"}.

    steps: as schedule_lines() gives them. broken: names of what neither order of the two operations breaks and this one
    does. ValueError: the text is no schedule, or not one of this scheme.
    """
    values, turns = parse(text)
    raced = Raced(values["scheme"], scopes.parse(values["scope"]), symmetry="none")
    rows, broken, stuck = raced.rows_of(values["start"], values["a"], values["b"], values["locks"],
                                        [thread for _, thread, _ in turns])
    steps = schedule_lines(rows, raced.engine, list(range(raced.scope.processes)))
    for (number, _, wanted), step in zip(turns, steps[:-1], strict=False):    # turns: more, where it is stuck
        if wanted and wanted != access(step):
            raise ValueError(f"schedule: line {number}: {step['thread']} does '{access(step)}' there, not '{wanted}'")
    if stuck:
        number, thread = turns[len(rows) - 1][:2]
        raise ValueError(f"schedule: line {number}: {'ab'[thread]} cannot go on: it has ended or waits for a lock")
    if broken is None:
        raise ValueError("schedule: it ends before both operations have ended")
    return {
        "format": FORMAT,
        **{word: values[word] for word in ("scheme", "scope", "locks", "start", "a", "b")},
        "steps": steps,
        "broken": [BREAKS[k][0] for k in broken],
    }

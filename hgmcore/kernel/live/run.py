"""Random sequences on the running kernel and in the simulator, compared after each step."""

import contextlib
import io
import time
from collections import Counter
from pathlib import Path

from hgmcore.kernel.live.conditions import check
from hgmcore.kernel.live.files import Folios, alone, pool
from hgmcore.kernel.live.given import given, shown
from hgmcore.kernel.live.sequences import folio_of, giant_of, sequence
from hgmcore.kernel.live.session import Session
from hgmcore.kernel.live.shrink import shortest
from hgmcore.kernel.live.timing import Times
from hgmcore.kernel.simulated import KINDS, Simulated
from hgmcore.trace import text

TIMES = 3  # a difference must appear this often, else another program on the machine caused it
SHRINKING = 60  # seconds for finding a shorter sequence
_COLLAPSED = Path("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed")


def scheme_of(hugetlb):
    """The scheme that stands for the running kernel."""
    return "hugetlb" if hugetlb else "mm_id"


class Outcome:
    """One sequence on both sides, up to the first difference.

    recording: the kernel's steps. differences: those of the last step, empty where all was equal. simulated: has the
    counts of what was compared. reasons: of steps whose answer the simulator leaves out, a Counter.
    """

    def __init__(self, session, statements, hugetlb):
        self.recording, self.differences, self.reasons = [], [], Counter()
        self.scheme = scheme_of(hugetlb)
        with contextlib.closing(session.record(statements)) as steps:
            for step in steps:
                self.recording.append(step)
                self._compare(step)
                if self.differences:
                    break
        self.steps = sum(step["t"] == "op" for step in self.recording)

    def _compare(self, step):
        if step["t"] == "scenario":
            self.simulated = Simulated(step["kernel"], self.scheme)
        elif step["t"] == "file":
            self.simulated.file(step)
        elif step["t"] == "op":
            self.differences = self.simulated.step(step)
            if self.simulated.reason:
                self.reasons[self.simulated.reason] += 1
        elif step["t"] == "obs":
            self.differences += self.simulated.differences(step)

    def first(self):
        """The key by which two differences are the same."""
        difference = self.differences[0]
        return difference.op, difference.kind, *([difference.kernel] if difference.kind == "error" else [])

    def trace(self):
        """The sequence as the text of a trace."""
        stream, writer = io.BytesIO(), self.simulated.writer
        writer.emit("observe", 0)
        text.write(writer.trace("live", {"kernel": self.recording[0]["kernel"]}), stream)
        return stream.getvalue().decode()


def validate_live(seed=0, seconds=10.0, hugetlb=False, timed=False, progress=None, folios=False):
    """Run sequences seed, seed + 1, ... for `seconds` or until one differs: "hgmcore-validate-live 1", as JSON types.

    hugetlb: every second sequence is on hugetlb files, and nr_hugepages is raised meanwhile. folios: of the others,
    every second has folios between 4K and 2M, and settings are changed meanwhile. timed: the same
    sequences are then timed, see `timing`. progress: called with (tenths of seconds gone, all).
    Of the result, "disturbed" are sequences left out because khugepaged collapsed pages meanwhile; "not_repeated" are
    the seeds of differences that the kernel did not show again, and "not_repeated_differences" what each was (seed,
    differences, trace, of the whole sequence); "difference" is None, or has of the shortest sequence that
    shows it "recording" (the kernel's steps), "trace" and "differences" (text).
    ValueError: this machine cannot, and what is missing; OSError: the pool of huge pages.
    """
    check()
    run = _Run(seed, hugetlb, folios)
    settings = Folios() if folios else contextlib.nullcontext()
    with alone(folios), settings as run.settings, pool(hugetlb) as run.giant, Session() as session:
        start = time.monotonic()
        while (gone := time.monotonic() - start) < seconds and not run.difference:
            if progress:
                progress(int(10 * gone), int(10 * seconds))
            run.next(session)
        times = Times(session).of(run.done) if timed else None
    return {**run.result(), "times": times}


def validate_sequence(path):
    """Run the statements of a file once: "hgmcore-validate-live 1", as JSON types, with what the kernel showed.

    path: a kernel recording, of which only what was asked counts, so that one without results will do (`given`). A
    difference must appear TIMES times, and is not shrunk. "shown" has a line for each step. ValueError: this machine
    cannot, or the file cannot be run, and why; OSError: the file, or the pool of huge pages.
    """
    statements = given(path)
    check()
    hugetlb = any(statement.get("kind") == "hugetlb" for statement in statements)
    run = _Run(0, hugetlb)
    with alone(False), pool(hugetlb), Session() as session:
        outcomes = [Outcome(session, statements, hugetlb)]
        while outcomes[0].differences and len(outcomes) < TIMES:
            outcomes.append(Outcome(session, statements, hugetlb))
    outcome = outcomes[0]
    run.add(outcome, statements)
    if outcome.differences:
        found = {"seed": 0, "differences": [str(each) for each in outcome.differences], "trace": outcome.trace()}
        if all(other.differences and other.first() == outcome.first() for other in outcomes):
            run.difference = {**found, "scheme": outcome.scheme, "recording": outcome.recording}
        else:
            run.not_repeated, run.unsure = [0], [found]
    return {**run.result(), "times": None, "sequence": str(path), "shown": list(shown(outcome.recording))}


class _Run:
    """The result so far."""

    def __init__(self, seed, hugetlb, folios=False):
        self.seed, self.hugetlb, self.folios, self.settings = seed, hugetlb, folios, None
        self.giant = False
        self.done, self.disturbed, self.not_repeated = [], 0, []
        self.unsure = []
        self.kernel, self.steps, self.difference = "", 0, None
        self.reasons, self.compared, self.equal, self.nonzero = Counter(), Counter(), Counter(), Counter()

    def next(self, session):
        """Run one more."""
        seed = self.seed + len(self.done) + self.disturbed + len(self.not_repeated)
        hugetlb = self.hugetlb and seed % 2 == 1
        folio = folio_of(seed) if self.folios and not hugetlb and seed // (1 + self.hugetlb) % 2 else None
        if self.settings:
            self.settings.use(folio)
        giant = giant_of(seed, self.giant) if hugetlb else None
        statements, before = sequence(seed, hugetlb=hugetlb, folio=folio, giant=giant), _COLLAPSED.read_text()
        outcome = Outcome(session, statements, hugetlb)
        if outcome.differences and _COLLAPSED.read_text() != before:
            self.disturbed += 1
            return
        if outcome.differences:
            self.difference = _shortest(session, statements, hugetlb, outcome, seed)
            if not self.difference:
                self.not_repeated.append(seed)
                self.unsure.append({"seed": seed, "differences": [str(each) for each in outcome.differences],
                                    "trace": outcome.trace()})
                return
        self.add(outcome, statements)

    def add(self, outcome, statements):
        """Count an outcome."""
        self.done.append((statements, outcome.scheme == scheme_of(True)))
        self.kernel = outcome.recording[0]["kernel"]
        self.steps += outcome.steps
        self.reasons.update(outcome.reasons)
        for name in ("compared", "equal", "nonzero"):
            getattr(self, name).update(getattr(outcome.simulated, name))

    def result(self):
        return {"format": "hgmcore-validate-live 1", "kernel": self.kernel, "seed": self.seed, "hugetlb": self.hugetlb,
                "sequences": len(self.done), "steps": self.steps, "disturbed": self.disturbed,
                "not_repeated": self.not_repeated, "not_repeated_differences": self.unsure,
                "out_of_scope": dict(self.reasons),
                "values": {kind: {"compared": self.compared[kind], "not_zero": self.nonzero[kind],
                                  "equal": self.equal[kind]} for kind in KINDS if self.compared[kind]},
                "difference": self.difference}


def _shortest(session, statements, hugetlb, outcome, seed):
    """The difference with the shortest sequence that shows it, None where the kernel does not show it again."""
    until = time.monotonic() + SHRINKING

    def fails(candidate):
        if time.monotonic() > until:
            return False
        other = Outcome(session, candidate, hugetlb)
        return bool(other.differences) and other.first() == outcome.first()

    if not all(fails(statements) for _ in range(TIMES - 1)):
        return None
    found = Outcome(session, shortest(statements, fails), hugetlb)
    return {"seed": seed, "scheme": found.scheme, "differences": [str(difference) for difference in found.differences],
            "trace": found.trace(), "recording": found.recording}

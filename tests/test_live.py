"""Against the running kernel, where that can be: random sequences are equal, what differs is found, nothing stays."""

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wrong_simulators import found, wrong

from hgmcore import Trace, cli, importers, replay
from hgmcore.explore.running import sequence as rewritten
from hgmcore.explore.scopes import find
from hgmcore.explore.steps import steps_of
from hgmcore.kernel.live import conditions, missing, validate_live
from hgmcore.kernel.live import run as live_run
from hgmcore.kernel.live.files import pool
from hgmcore.kernel.live.kernel import HUGE, PAGE
from hgmcore.kernel.live.references import References
from hgmcore.kernel.live.report import live_text
from hgmcore.kernel.live.sequences import sequence
from hgmcore.kernel.live.session import Session
from hgmcore.kernel.live.shrink import shortest
from hgmcore.kernel.simulated import Simulated
from hgmcore.kernel.validate import SHIPPED

LACKING = missing()
live = pytest.mark.skipif(LACKING is not None, reason=f"against the running kernel: {LACKING}")


WORKER = b"hgmcore/kernel/live/worker.py"


def workers(of):
    """Processes of the sessions that process `of` started, as far as they run the worker script."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        stat = read(path / "stat").rpartition(b")")[2].split()
        if stat and WORKER in read(path / "cmdline"):
            found[int(path.name)] = int(stat[1]), stat[3]  # parent and session
    sessions = {session for parent, session in found.values() if parent == of}
    return {pid for pid, (_, session) in found.items() if session in sessions}


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def gone(pids, seconds=60):
    """Nobody may wait for those whose parent died: one that ended has no command line, though it still has a number."""
    until = time.monotonic() + seconds
    while there := any(WORKER in read(Path(f"/proc/{pid}/cmdline")) for pid in pids):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return not there


def mounts():
    """File systems like those that sequences have their files on."""
    return [line for line in Path("/proc/mounts").read_text().splitlines() if "huge=advise" in line]


def undisturbed(test):
    """Runs a test again that failed while khugepaged collapsed pages: they may have been those of the test."""
    @functools.wraps(test)
    def run(*arguments, **keywords):
        for last in (False, False, False, True):
            before = live_run._COLLAPSED.read_text()
            try:
                return test(*arguments, **keywords)
            except AssertionError:
                if last or live_run._COLLAPSED.read_text() == before:
                    raise

    return run


def without_results(recording):
    return [{key: value for key, value in step.items() if key not in ("ns", "features")} for step in recording]


@live
def test_random_sequences_are_equal():
    result = validate_live(seed=0, seconds=3)
    assert result["difference"] is None, live_text(result)
    assert result["sequences"] > 0 and result["steps"] > 20 * result["sequences"]
    for kind in ("map count", "leaf", "exclusive bit", "error", "Pss", "page-table pages"):
        values = result["values"][kind]
        assert values["equal"] == values["compared"] >= values["not_zero"] > 0
    assert json.loads(json.dumps(result)) == result
    text = live_text(result)
    assert text.isascii() and all(len(line) <= 80 for line in text.splitlines())


STEPS = ("continue A v 0 4K", "populate F 0 1", "continue A v 4K 4K", "continue B v 0 4K", "touch B v 4K",
         "collapse A v 0 8K", "punch F 0 8K", "truncate F 0", "populate F 0 1", "munmap A v 0 8K",
         "mmap A v F 0 8K shared minor hgm", "continue A v 0 8K", "exit B", "dontneed A v 0 4K")


def a_sequence(path):
    """A file of statements of a tiny machine, rewritten for a kernel."""
    scope = find("pair-small")
    known = {" ".join(step.lines()): step for step in steps_of(scope)}
    path.write_text(rewritten(scope, [known[words] for words in STEPS], "name"))
    return str(path)


@live
@undisturbed
def test_a_sequence_of_a_counterexample_runs_once_and_is_equal(tmp_path, capsys):
    path = a_sequence(tmp_path / "x.live.jsonl")
    assert cli.run(["validate", "--live", "--sequence", path, "--json", str(tmp_path / "x.json")]) == 0
    text = capsys.readouterr().out
    assert "A uffd_continue v 0K 4K: EFAULT" in text and "B uffd_continue v 0K 4K: ok; F 0..1: 1" in text
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["difference"] is None and not result["not_repeated"] and len(result["shown"]) == result["steps"]
    assert result["values"]["map count"]["not_zero"] > 512


@live
@undisturbed
def test_a_sequence_that_differs_is_shown_as_it_is(tmp_path, capsys, monkeypatch):
    path = a_sequence(tmp_path / "x.live.jsonl")
    monkeypatch.setattr(live_run, "Simulated", Wrong)
    assert cli.run(["validate", "--live", "--sequence", path]) == 1
    assert "the simulator" in capsys.readouterr().out


class Wrong(Simulated):
    """A simulator that lets no CONTINUE through."""

    def step(self, op):
        return super().step({**op, "len": 0} if op["op"] == "uffd_continue" else op)


@live
@undisturbed
def test_a_recording_is_a_sequence(capsys):
    assert cli.run(["validate", "--live", "--sequence", str(next(SHIPPED.glob("a08*")))]) == 0
    assert "values equal" in capsys.readouterr().out


@pytest.mark.parametrize("lines, message", [
    ([], "no operations"),
    ([{"t": "op", "i": 1, "proc": "A", "op": "hwpoison", "region": "v"}], "line 2: hwpoison: a sequence has no such"),
    ([{"t": "op", "i": 1, "proc": "A", "op": "munmap", "region": "v", "off": 0}], "line 2: munmap: no 'len'"),
    ([{"t": "op", "i": 1, "proc": "A", "op": "munmap", "region": "v", "off": 0, "len": 1 << 40}], "up to 1G"),
    ([{"t": "op", "i": 1, "proc": "A", "op": "madvise", "region": "v", "off": 0, "len": 1, "advice": "X"}],
     "unknown advice 'X'"),
    ([{"t": "file", "file": "F", "kind": "ext4", "size": 4096, "page": 4096}], "a file of 'ext4'"),
    ([{"t": "file", "file": "F", "kind": "shmem", "size": 1 << 40, "page": 4096}], "at most 1G"),
])
def test_a_sequence_that_cannot_be_run_is_one_error(tmp_path, capsys, lines, message):
    path = tmp_path / "x.jsonl"
    lines = [{"t": "scenario", "name": "n", "kernel": ""}, *lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.run(["validate", "--live", "--sequence", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_sequence_is_for_live_alone(tmp_path, capsys):
    path = a_sequence(tmp_path / "x.jsonl")
    for arguments in (["--sequence", path], ["--live", "--seed", "1", "--sequence", path]):
        assert cli.run(["validate", *arguments]) == 2
        assert "--sequence needs --live" in capsys.readouterr().err


@live
@pytest.mark.parametrize("name", ["a01", "a02", "a04", "a08", "a16", "c01", "c02"])
@undisturbed
def test_this_kernel_shows_what_another_showed(name):
    """The harness by itself: the steps of a recording that ships, done here, give its answers and observations."""
    with importers.open_input(next(SHIPPED.glob(f"{name}*"))) as (stream, _, _):
        recorded = [json.loads(line) for line in stream]
    with Session() as session:
        here = list(session.record(recorded))
    steps = [[step for step in steps if step["t"] in ("op", "obs")] for steps in (recorded, here)]
    assert len(steps[0]) == len(steps[1]) > 10
    for then, now in zip(*steps):
        assert selected(now, then) == then


def selected(now, then):
    """The parts of `now` that `then` has; how long ago a page was referenced is nobody's doing."""
    if isinstance(then, dict):
        if "Referenced" in then:
            now = {**now, "Referenced": then["Referenced"]}
        return {key: selected(now[key], value) if key in now else None for key, value in then.items()}
    return now


@live
def test_a_simulator_that_differs_is_caught_with_a_short_sequence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(live_run, "Simulated", lambda kernel, scheme: Simulated(kernel, scheme, fault_around="none"))
    monkeypatch.setattr(live_run, "SHRINKING", 3600)
    assert cli.run(["validate", "--live", "--seconds", "3600", "--json", "-"]) == 1
    difference = json.loads(capsys.readouterr().out)["difference"]
    assert "leaf" in difference["differences"][0]
    ops = [step for step in difference["recording"] if step["t"] == "op"]
    assert 2 <= len(ops) <= 6  # at least an mmap and an access
    (tmp_path / "short.hgm").write_text(difference["trace"])
    trace = Trace.load(str(tmp_path / "short.hgm"))
    assert len(replay(trace, difference["scheme"], fault_around="folio")["observations"]) == 1
    steps = [f"{step['op']}" for step in ops]
    assert "mmap" in steps[:2] and steps[-1] in ("read", "write", "madvise")  # of a child, maybe


@live
@undisturbed
def test_the_same_seed_does_the_same():
    with Session() as session:
        first, second = (without_results(session.record(sequence(5, steps=12))) for _ in range(2))
    keys = ("map", "mapcount", "excl", "smaps", "vmas")
    assert [strip(step, keys) for step in first] == [strip(step, keys) for step in second]


def strip(step, keys):
    if step["t"] != "obs":
        return step
    return [{name: {key: region[key] for key in keys} for name, region in process["regions"].items()}
            for process in step["procs"].values()]


@live
def test_nothing_stays():
    gc.collect()  # what other tests left open is closed now, not meanwhile
    mounted, descriptors = mounts(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt), Session() as session:
        for step in session.record(sequence(3)):
            if step["t"] == "obs" and step["i"] == 10:
                mine = workers(os.getpid())
                raise KeyboardInterrupt
    assert len(mine) >= 2 and gone(mine)  # the nursery and a process of the sequence
    assert mounts() == mounted
    assert len(os.listdir("/proc/self/fd")) == descriptors


@live
def test_nothing_stays_of_a_run_that_is_killed():
    program = subprocess.Popen([sys.executable, "-m", "hgmcore", "validate", "--live", "--seconds", "3600"],
                               stdout=subprocess.DEVNULL)
    while len(mine := workers(program.pid)) < 2 and program.poll() is None:
        time.sleep(0.05)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert len(mine) >= 2 and gone(mine)


@live
def test_times_stand_side_by_side(capsys):
    assert cli.run(["validate", "--live", "--seconds", "0.5", "--time"]) == 0
    text = capsys.readouterr().out
    assert "TIME of an operation" in text and "simulator" in text
    times = validate_live(seconds=0.5, timed=True)["times"]
    for sides in times.values():
        for side in ("kernel", "simulator"):
            assert sorted(sides[side]) == sides[side]
    assert times["mmap"]["kernel"][1] > 0


def test_sequences_repeat_and_hold_every_kind_of_operation():
    assert sequence(7) == sequence(7) != sequence(8)
    ops = [s for seed in range(40) for s in sequence(seed) if s["t"] == "op"]
    assert {op["op"] for op in ops} == {
        "mmap", "munmap", "mprotect", "mremap", "madvise", "read", "write", "fork", "exit", "fallocate", "ftruncate",
        "uffd_open", "uffd_register", "uffd_unregister", "uffd_continue", "mlock", "munlock", "pin", "unpin"}
    assert {"DONTNEED", "DONTNEED_LOCKED", "COLD", "FREE", "REMOVE", "COLLAPSE", "POPULATE_READ", "POPULATE_WRITE",
            "HUGEPAGE"} <= {op.get("advice") for op in ops}
    hugetlb = [s for seed in range(10) for s in sequence(seed, hugetlb=True)]
    assert {s["kind"] for s in hugetlb if s["t"] == "file"} == {"hugetlb"}


def test_shrinking_keeps_what_matters():
    def op(name, **fields):
        return {"t": "op", "proc": "A", "op": name, **fields}

    def fails(statements):
        names = [s.get("op") for s in statements]
        return "read" in names and "mmap" in names[:names.index("read")]

    long = [op("fork", child="B"), op("mmap", off=0, len=HUGE), op("madvise", advice="HUGEPAGE", off=0, len=HUGE),
            op("munmap", off=0, len=HUGE), op("read", off=5 * PAGE, len=3 * PAGE), op("exit")]
    assert shortest(long, fails) == [*long[1:3], op("read", off=0, len=PAGE)]


def test_what_is_missing_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(conditions.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(conditions.sys, "platform", "linux")
    monkeypatch.setattr(conditions.platform, "machine", lambda: "x86_64")
    assert cli.run(["validate", "--live"]) == 2
    error = capsys.readouterr().err
    assert error == ("hgmcore: error: --live cannot run here: not root (the kernel's page counts are for root only)\n")
    monkeypatch.setattr(conditions.sys, "platform", "darwin")
    assert missing() == "not Linux on x86-64 or arm64"


@pytest.mark.parametrize("arguments", [
    ["--seed", "3"], ["--seconds", "1"], ["--hugetlb"], ["--time"], ["--live", "somewhere"]])
def test_options_of_live_are_for_live(arguments, capsys):
    assert cli.run(["validate", *arguments]) == 2
    assert "--live" in capsys.readouterr().err


def settings():
    return {path: path.read_text() for kind in ("enabled", "shmem_enabled")
            for path in Path("/sys/kernel/mm/transparent_hugepage").glob(f"hugepages-*/{kind}")}


@live
def test_folios_between_are_equal_and_settings_are_put_back():
    before = settings()
    result = validate_live(seed=1, seconds=1, folios=True)
    assert result["difference"] is None, live_text(result)
    assert result["sequences"] > 0 and settings() == before


@live
@pytest.mark.parametrize("name", ["counts of another scheme, logical_counter", "cache_refs=1", "era=6.3"])
def test_a_simulator_that_is_wrong_is_found(name):
    """tests/wrong_simulators.py has more of them."""
    if name == "cache_refs=1":
        try:
            References().close()
        except OSError as reason:
            pytest.skip(f"nobody shows reference counts: {reason}")
    with pool(name == "cache_refs=1"), Session() as session:
        assert found(session, *wrong(name, {}), 100) is not None


@live
@pytest.mark.parametrize("seed, hugetlb, folio", [(3, False, None), (4, True, None), (5, False, 1 << 16)])
def test_sequences_have_all_that_there_is(seed, hugetlb, folio):
    """In a hundred of them; and the same for the same seed."""
    made = [sequence(number, hugetlb=hugetlb, folio=folio) for number in range(seed, seed + 100)]
    assert made[7] == sequence(seed + 7, hugetlb=hugetlb, folio=folio)
    steps = [step for statements in made for step in statements if step["t"] == "op"]
    assert {"pin", "unpin", "fork", "mremap"} <= {step["op"] for step in steps}
    flags = {step["flags"] for step in steps if step["op"] == "mremap"}
    assert flags == {0, 3, 7} and {step["flags"] for step in steps if step["op"] == "mmap"} == {"SHARED", "PRIVATE"}
    assert max(len(statements) for statements in made) > 150
    assert max(step["size"] for statements in made for step in statements if step["t"] == "file") > 6 << 20
    misaligned = [step for step in steps if step["op"] == "mmap" and step["addr_mod_2M"] != step["fileoff"] % HUGE]
    assert bool(misaligned) != hugetlb

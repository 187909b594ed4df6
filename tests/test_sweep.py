"""Sweeps: what is asked is checked first, what is done stays, and numbers are the same however they were made."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import parquet

import hgmcore as hgm
from hgmcore import cli
from hgmcore.analysis.long import COLUMNS, long_rows
from hgmcore.analysis.sweep import task as tasks
from hgmcore.analysis.sweep.drive import sweep
from hgmcore.analysis.sweep.processes import WorkerDied, run_here
from hgmcore.analysis.sweep.spec import SpecError, load
from hgmcore.model.profile import load as load_profile
from hgmcore.report.sweep import sweep_figure, sweep_image

TRACE = "hgmcore-trace 1\nfile F 2M 1\npopulate F 0 1\nmmap A v F 0 2M shared minor hgm\ncontinue A v 0 4K\n"
SPEC = """\
inputs = ["workload:postcopy,observations=1", "my.hgm"]
schemes = ["head_per_leaf", "mm_id"]
seeds = [1, 2]
every = 100
[sizes]
page_size = "2M"
pages = [1, 2]
[options]
batch = ["no", "6.12"]
"""
POINTS = 10


NUMBER = ["mm_id", None, "cost", "leaves", 1.0, None, None, "leaves", "counted", ""]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.hgm").write_text(TRACE)
    Path("s.toml").write_text(SPEC)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The directory of a sweep of SPEC that ran on one process without interruption."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "my.hgm").write_text(TRACE)
    (folder / "s.toml").write_text(SPEC)
    result = sweep(folder / "s.toml", folder / "out", processes=1)
    assert (result["points"], result["tasks"], result["ran"], result["failed"]) == (POINTS, POINTS, POINTS, [])
    return folder / "out"


def lines(directory):
    return (Path(directory) / "results.jsonl").read_text().splitlines()


def same(directory, done):
    assert (Path(directory) / "results.parquet").read_bytes() == (done / "results.parquet").read_bytes()
    assert sorted(lines(directory)) == sorted(lines(done))


def refused(capfd, *arguments):
    assert cli.run(["sweep", "s.toml", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


@pytest.mark.parametrize("change, error", [
    ("scheme = 'mm_id'\n", "scheme: no such key; did you mean 'schemes'?"),
    ("schemes = ['mm_di']\n", "schemes: unknown scheme 'mm_di'; did you mean 'mm_id'?"),
    ("schemes = ['all', 'mm_id']\n", "schemes: 'all' stands alone"),
    ("schemes = []\n", "schemes: the list is empty"),
    ("schemes = [1]\n", "schemes: 1 is not one of words"),
    ("schemes = ['mm_id', 'mm_id']\n", "schemes: 'mm_id' stands twice"),
    ("inputs = ['workload:postcopi']\n", "inputs: unknown workload 'postcopi'"),
    ("inputs = ['other.hgm']\n", "other.hgm: No such file"),
    ("inputs = ['recording:none']\n", "inputs: "),
    ("inputs = ['-']\n", "inputs: standard input cannot be read again"),
    ("inputs = ['my.hgm']\nseeds = 2\n", "seeds: no input has a parameter 'seed'"),
    ("inputs = ['workload:postcopy,seed=1']\nseeds = 2\n", "'seed' stands there and among the sizes or seeds"),
    ("seeds = 0\n", "seeds: 0 is not a number of seeds"),
    ("inputs = ['workload:postcopy']\n[sizes]\npage = 1\n", "sizes.page: no input has a parameter 'page'"),
    ("inputs = ['workload:postcopy']\n[sizes]\npage_size = '3M'\n", "inputs: "),
    ("inputs = ['workload:postcopy']\n[sizes]\nseed = 1\n", "seeds stand in the list"),
    ("sizes = 1\n", "sizes: is no table"),
    ("[options]\nbacth = 'no'\n", "options.bacth: no such option; did you mean 'batch'?"),
    ("[options]\nbatch = ['no', 'maybe']\n", "options.batch: 'maybe' is not one of no, 6.9, 6.12"),
    ("[options]\nbatch = ['6.12', 'yes']\n", "options.batch: '6.12' stands twice"),
    ("schemes = ['subtree', 'mm_id']\n[options]\nhvo = ['off', 'on']\n", "options: hvo = on: scheme mm_id counts on"),
    ("profiles = ['no_such_profile']\n", "profiles: "),
    ("processors = [1]\n", "processors: is for modelled times, and there are no profiles"),
    ("every = 0\n", "every: 0 is not a number of operations"),
    ("every = '7'\n", "every: '7' is not what stands there"),
    ("machine = '1Q'\n", "machine: "),
    ("schemes = ['mm_id']\nbaseline = 'hugetlb'\n", "baseline: 'hugetlb' is not one of the schemes: mm_id"),
    ("inputs = \n", "Invalid value"),
])
def test_one_error_before_anything_runs(change, error, capfd):
    Path("s.toml").write_text(("" if "inputs" in change else "inputs = 'my.hgm'\n") + change)
    message = refused(capfd)
    assert message.startswith("hgmcore: error: s.toml: ") and error in message
    assert not Path("s.sweep").exists()


def test_a_profile_that_lacks_what_is_needed(capfd):
    assert "step" not in load_profile("epyc-milan-vm").costs
    Path("s.toml").write_text("inputs = 'my.hgm'\nprofiles = ['turin-vm', 'epyc-milan-vm']\n")
    assert "s.toml: profiles: profile epyc-milan-vm: " in refused(capfd)
    with open("s.toml", "a") as stream:
        stream.write("processors = [1, 2]\n[assume]\nstep = [10, 5, 20]\ntable_alloc = [900, 800, 1000]\n")
    assert not sweep("s.toml", "out", processes=1)["failed"]
    rows = parquet.read_table("out/results.parquet").to_pylist()
    named = {(row["profile"], row["processors"]) for row in rows if row["key"] == "accounting" and row["value"] > 0}
    assert named == {(profile, cpus) for profile in ("turin-vm", "epyc-milan-vm") for cpus in (1, 2)}


def test_a_spec_that_is_missing_or_has_no_inputs(capfd):
    Path("s.toml").write_text("seeds = 1\n")
    assert "s.toml: inputs: is missing" in refused(capfd)
    Path("s.toml").unlink()
    assert "s.toml: No such file" in refused(capfd)


def test_every_combination_is_a_point():
    points = load("s.toml").points
    assert len({(p.source, tuple(p.options.items())) for p in points}) == POINTS
    generated = [p for p in points if p.input.startswith("workload")]
    assert {(p.sizes["pages"], p.seed, p.options["batch"]) for p in generated} == {
        (pages, seed, batch) for pages in "12" for seed in "12" for batch in ("no", "6.12")}
    assert generated[0].source == "workload:postcopy,observations=1,page_size=2M,pages=1,seed=1"
    assert [p.sizes for p in points if p.input == "my.hgm"] == [{}, {}]


def test_the_numbers_are_those_of_compare(done):
    rows = parquet.read_table(done / "results.parquet").to_pylist()
    mine = [{name: row[name] for name in COLUMNS} for row in rows
            if (row["size_pages"], row["seed"], row["option_batch"]) == ("2", 1, "6.12")]
    trace = hgm.load("workload:postcopy,page_size=2M,pages=2,seed=1,observations=1")
    assert mine == long_rows(hgm.compare(trace, "head_per_leaf,mm_id", 0, every=100, batch="6.12"))
    of_file = [row for row in rows if row["input"] == "my.hgm"]
    assert of_file and all(row["size_pages"] is None and row["seed"] is None for row in of_file)


def test_two_processes_give_the_same_file(done):
    sweep("s.toml", "out", processes=2)
    same("out", done)


def test_a_sweep_goes_on_where_it_was_cut_off(done):
    sweep("s.toml", "out", processes=1)
    written = Path("out/results.jsonl")
    kept = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(kept[:4]) + kept[4][:1000])
    result = sweep("s.toml", "out", processes=1)
    assert (result["tasks"], result["ran"]) == (POINTS, POINTS - 4)
    same("out", done)
    assert sweep("s.toml", "out")["ran"] == 0


def test_what_is_new_alone_runs(done):
    def ran():
        return sweep("s.toml", "out", processes=1)["ran"]
    Path("s.toml").write_text(SPEC.replace("[1, 2]\n[op", "[1]\n[op").replace("seeds = [1, 2]", "seeds = 1"))
    assert ran() == 4
    Path("s.toml").write_text(SPEC)
    assert ran() == POINTS - 4
    same("out", done)
    Path("my.hgm").write_text("# a comment changes nothing\n".join(TRACE.partition("\n")[::2]).replace("1#", "1\n#"))
    assert ran() == 0
    Path("my.hgm").write_text(TRACE + "continue A v 4K 4K\n")
    assert ran() == 2


def test_an_identity_depends_on_all_that_matters(monkeypatch):
    def ids(change=("", "")):
        Path("s.toml").write_text(SPEC.replace(*change))
        return {task.id for task in tasks.tasks_of(load("s.toml"))}
    first = ids()
    for change in (('"mm_id"', '"subtree"'), ("every = 100", "every = 50"), ("every = 100", "machine = '2T'"),
                   ("every = 100", "every = 100\nbaseline = 'mm_id'"), ('["no", "6.12"]', '["6.9"]')):
        assert not first & ids(change), change
    assert ids(('["no", "6.12"]', '["no", "yes"]')) == first
    monkeypatch.setattr(tasks, "program", lambda: "another")
    assert not first & ids()


def test_points_that_differ_in_nothing_run_once():
    Path("copy.hgm").write_text(TRACE)
    Path("s.toml").write_text("inputs = ['my.hgm', 'copy.hgm']\nschemes = 'hugetlb'\n")
    result = sweep("s.toml", "out", processes=2)
    assert (result["points"], result["tasks"], result["ran"]) == (2, 1, 1)
    assert set(parquet.read_table("out/results.parquet")["input"].to_pylist()) == {"my.hgm", "copy.hgm"}


def test_all_schemes_those_that_cannot_say_why():
    Path("s.toml").write_text("inputs = 'my.hgm'\n[options]\nhvo = true\n")
    assert not sweep("s.toml", "out", processes=1)["failed"]
    notes = {row["note"] for row in parquet.read_table("out/results.parquet").to_pylist() if row["scheme"] == "mm_id"}
    assert len(notes) == 1 and "hvo=on takes away" in notes.pop()


def test_pandas_and_duckdb_read_it(done):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    path = str(done / "results.parquet")
    frame = pandas.read_parquet(path)
    wanted = frame[(frame.key == "atomics.map") & frame.phase.isna()]
    found = duckdb.sql(f"SELECT scheme, size_pages, seed, option_batch, value FROM '{path}' "
                       "WHERE key = 'atomics.map' AND phase IS NULL").fetchall()
    assert len(found) == 2 * POINTS and wanted.value.tolist() == [row[-1] for row in found]
    assert {row[:2] for row in found} == {(scheme, pages) for scheme in ("head_per_leaf", "mm_id")
                                          for pages in ("1", "2", None)}


def test_a_directory_is_one_sweeps_at_a_time(done, capfd):
    from hgmcore.analysis.sweep.results import Results

    with Results("s.sweep"):
        assert "s.sweep: another sweep writes there now" in refused(capfd)
    Path("s.sweep/results.jsonl").write_text('{"format": "something else"}\n')
    assert "results.jsonl:1: is no line of a sweep" in refused(capfd)


def test_the_figure_shows_each_scheme(done):
    figure = sweep_figure(done / "results.parquet")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["head_per_leaf", "mm_id"]
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 4    # 2 inputs, batch no and 6.12; along pages, the seeds together
    values = [line.get_ydata().tolist() for axes in shown for line in axes.lines if len(line.get_ydata()) == 2]
    assert [2.0, 2.0] in values
    assert sweep_image(done / "results.parquet", "png").startswith(b"\x89PNG")


def test_the_command(done, capfd):
    assert cli.run(["sweep", "s.toml", "-o", str(done), "--plot", "s.svg"]) == 0
    out, err = capfd.readouterr()
    assert f"{POINTS} had been done, 0 ran" in out and err == ""
    assert "mm_id" in Path("s.svg").read_text()
    assert cli.run(["sweep", "s.toml", "-o", str(done), "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["tasks"] == POINTS
    assert "on a cluster" in refused(capfd, "--processes", "2", "--scheduler", "tcp://127.0.0.1:1")


@dataclass(frozen=True)
class Deadly:
    """A task that kills the process which runs it, as often as `deaths` says."""
    id: str
    deaths: int


def deadly(task):
    marks = Path(f"mark-{task.id}")
    with marks.open("a") as stream:
        stream.write("x")
    if len(marks.read_text()) <= task.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.id == "wrong":
        raise ValueError("a reason")
    return [task.id]


def test_a_process_that_dies_costs_its_own_task_alone():
    some = [Deadly(str(i), deaths) for i, deaths in enumerate([0, 1, 0, 99, 0, 0])] + [Deadly("wrong", 0)]
    answers = {task.id: (numbers, error) for task, numbers, error in run_here(some, 2, deadly)}
    assert {name for name, (numbers, _) in answers.items() if numbers == [name]} == {"0", "1", "2", "4", "5"}
    assert isinstance(answers["3"][1], WorkerDied) and "ValueError: a reason" in str(answers["wrong"][1])
    assert [len(Path(f"mark-{i}").read_text()) for i in range(6)] == [1, 2, 1, 2, 1, 1]


def test_a_task_that_fails_is_told_and_tried_again(done, monkeypatch, capfd):
    from hgmcore.analysis.sweep import drive

    def failing(missing, processes):
        for task in missing:
            yield (task, None, RuntimeError("no luck")) if task.options["batch"] == "no" else (task, [NUMBER], None)

    with monkeypatch.context() as patched:
        patched.setattr(drive, "run_here", failing)
        assert cli.run(["sweep", "s.toml"]) == 1
    out = capfd.readouterr().out
    assert f"{POINTS // 2} points failed" in out and "no luck" in out
    assert sweep("s.toml", "s.sweep", processes=1)["ran"] == POINTS // 2


def test_interrupted_it_keeps_what_is_done(done):
    Path("s.toml").write_text(SPEC.replace("pages = [1, 2]", "pages = [2, 1]"))
    program = [sys.executable, "-m", "hgmcore", "sweep", "s.toml", "-o", "out", "--processes", "1"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: Path("out/results.jsonl").exists() and len(lines("out")) >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and process.stderr.read().strip() == b""
    kept = len(lines("out"))
    assert len(set(parquet.read_table("out/results.parquet")["task"].to_pylist())) == kept < POINTS
    Path("s.toml").write_text(SPEC)
    assert sweep("s.toml", "out", processes=1)["ran"] == POINTS - kept
    same("out", done)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The address of a scheduler, and the processes of its two workers."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("hgmcore.analysis.sweep.cluster.PATIENCE", 120)    # on a busy machine workers start slowly
    where = tmp_path / "scheduler.json"
    started = [start_dask("scheduler", "--port", "0", "--scheduler-file", where)]
    started += [start_dask("worker", "--scheduler-file", where, "--nthreads", "1", "--no-nanny", "--local-directory",
                           tmp_path / f"w{i}") for i in range(2)]
    wait_for(where.exists)
    wait_for(lambda: where.read_text().endswith("}"))
    yield json.loads(where.read_text())["address"], started[1:]
    for process in started:
        process.kill()
        process.wait()


def start_dask(*arguments):
    arguments = [sys.executable, "-m", "dask", *map(str, arguments), *(
        ["--host", "127.0.0.1", "--no-dashboard"] if arguments[0] == "scheduler" else ["--no-dashboard"])]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_on_a_cluster_of_which_a_worker_is_killed(done, cluster):
    address, workers = cluster
    seen = []

    def kill_one(finished, total, what):
        if finished == 3:
            workers[0].kill()
        seen.append(finished)

    result = sweep("s.toml", "out", scheduler=address, progress=kill_one)
    assert result["failed"] == [] and result["ran"] == POINTS and seen == list(range(POINTS + 1))
    assert workers[0].wait(60) == -signal.SIGKILL and workers[1].poll() is None
    same("out", done)
    assert sweep("s.toml", "out", scheduler=address)["ran"] == 0


def test_a_scheduler_that_does_not_answer(capfd, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("hgmcore.analysis.sweep.cluster.PATIENCE", 1)
    assert "--scheduler tcp://127.0.0.1:1: no Dask scheduler answers" in refused(
        capfd, "--scheduler", "tcp://127.0.0.1:1")
    assert "--scheduler nonsense://x: no Dask scheduler answers" in refused(capfd, "--scheduler", "nonsense://x")
    assert not Path("s.sweep").exists()


def test_a_worker_with_another_hgmcore_is_refused(monkeypatch):
    (task, *_) = tasks.tasks_of(load("s.toml"))
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="another hgmcore"):
        patched.setattr(tasks, "program", lambda: "another")
        tasks.run(task)
    changed = next(task for task in tasks.tasks_of(load("s.toml")) if task.source == "my.hgm")
    Path("my.hgm").write_text(TRACE + "continue A v 4K 4K\n")
    tasks._loaded.cache_clear()
    with pytest.raises(RuntimeError, match="my.hgm: it has changed since the sweep began"):
        tasks.run(changed)


def test_a_spec_error_is_a_value_error():
    assert issubclass(SpecError, ValueError)

"""The command line: what it prints, where, with which exit status; one line for every error, no traceback."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hgmcore import Trace, __version__, recordings, schemes, workloads
from hgmcore.cli import run
from hgmcore.options import OPTIONS

TEXT = """\
hgmcore-trace 1
file F 2M 2
populate F 0 2
mmap A v F 0 4M shared minor
split A v 0 4M
continue A v 0 4K
continue A v 0 4K
observe
"""
HGMCORE = [sys.executable, "-m", "hgmcore"]
COMMANDS = ("compare", "replay", "step", "explain", "validate", "info", "schemes", "workloads", "convert", "import",
            "help")


@pytest.fixture(autouse=True)
def trace(tmp_path, monkeypatch):
    """The tests run in an empty directory with the trace t.hgm."""
    monkeypatch.chdir(tmp_path)
    Path("t.hgm").write_text(TEXT)


def command(*arguments, **keywords):
    """Run `hgmcore` as a process of its own."""
    keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 600, **keywords}
    return subprocess.run([*HGMCORE, *arguments], **keywords)


def error(capfd, *arguments):
    """The one line of error of a command that must fail."""
    before = sorted(os.listdir())
    assert run(list(arguments)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("hgmcore: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert sorted(os.listdir()) == before, "a command that fails writes nothing"
    return err


def printed(capfd, *arguments):
    """The output of a command that must succeed."""
    assert run(list(arguments)) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


def result_of(capfd, *arguments):
    """The JSON of a command that must succeed."""
    return json.loads(printed(capfd, *arguments, "--json", "-"))


WRONG = {
    "no such command": (["compere"], "compere"),
    "no such option": (["compare", "t.hgm", "--colour"], "--colour"),
    "no such file": (["compare", "missing.hgm"], "missing.hgm: No such file"),
    "a directory": (["compare", "."], "Is a directory"),
    "not a trace": (["compare", __file__], "first line"),
    "malformed line": (["compare", "bad.hgm"], "bad.hgm:2: "),
    "unknown scheme": (["compare", "t.hgm", "--schemes", "subtre"], "did you mean 'subtree'? (known: huge"),
    "no scheme": (["compare", "t.hgm", "--schemes", ","], "no scheme"),
    "unknown scheme to replay": (["replay", "t.hgm", "--scheme", "foo"], "known: hugetlb"),
    "no scheme to replay": (["replay", "t.hgm"], "--scheme"),
    "unknown scheme to explain": (["schemes", "foo"], "known: hugetlb"),
    "unknown option": (["compare", "t.hgm", "--option", "colour=red"], "option 'colour' (known: cache_refs"),
    "refused by the only scheme": (["compare", "t.hgm", "--schemes", "mm_id", "--option", "hvo=on"],
                                   "scheme mm_id counts on struct pages that hvo=on takes away"),
    "refused by the scheme": (["replay", "t.hgm", "--scheme", "mm_id", "--option", "hvo=on"],
                              "scheme mm_id counts on struct pages that hvo=on takes away"),
    "machine without memory": (["compare", "t.hgm", "--machine", "0"], "--machine"),
    "machine of what": (["compare", "t.hgm", "--machine", "big"], "'big' is not a number"),
    "unknown value": (["compare", "t.hgm", "--option", "era=5"], "'5' is not one of 6.2, 6.3, 6.15"),
    "not key=value": (["compare", "t.hgm", "--option", "era"], "'era' is not of the form key=value"),
    "a parameter, not an option": (["compare", "t.hgm", "--option", "schemes=all"], "option 'schemes'"),
    "likewise": (["replay", "t.hgm", "--scheme", "subtree", "--option", "observer=x"], "option 'observer'"),
    "a name with escapes": (["compare", "\x1b[31m$x$\n"], "\\x1b[31m$x$"),
    "twice": (["compare", "t.hgm", "--option", "era=6.2", "--option", "era=6.3"], "given twice"),
    "repeat": (["compare", "t.hgm", "--repeat", "-1"], "--repeat"),
    "every": (["compare", "t.hgm", "--every", "0"], "--every"),
    "no threads": (["compare", "t.hgm", "--threads", "0"], "--threads"),
    "unknown baseline": (["compare", "t.hgm", "--baseline", "mm_ids"], "baseline: mm_ids is not among"),
    "repeat word": (["compare", "t.hgm", "--repeat", "often"], "often"),
    "scheme twice": (["replay", "t.hgm", "--scheme", "subtree", "--scheme", "mm_id"], "--scheme is given twice"),
    "output twice": (["convert", "t.hgm", "-o", "a.hgm", "--output", "b.hgm"], "--output is given twice"),
    "option of an importer twice": (["import", "qemu", "t.hgm", "-o", "u.hgm", "--piece", "4K", "--piece", "2M"],
                                    "--piece is given twice"),
    "trace and JSON on standard output": (["convert", "t.hgm", "-o", "-", "--json", "-"],
                                          "--output and --json both write to standard output"),
    "no thread": (["replay", "t.hgm", "--scheme", "subtree", "--threads", "0"], "0 is not in the range"),
    "many threads": (["replay", "t.hgm", "--scheme", "subtree", "--threads", "1000"], "1000 is not in the range"),
    "which operations": (["replay", "t.hgm", "--scheme", "subtree", "--operations", "some"], "some"),
    "unknown recording": (["compare", "recording:foo"], "known: " + recordings.NAMES[0]),
    "unknown workload": (["compare", "workload:foo"], "known: sequential"),
    "unknown parameter": (["compare", "workload:random,colour=red"], "colour"),
    "unknown format": (["import", "foo", "t.hgm", "-o", "u.hgm"], "known: qemu"),
    "no format": (["import"], "ommand"),
    "not of the format": (["import", "qemu", "t.hgm", "-o", "u.hgm"], "not a QEMU trace log"),
    "plot suffix": (["compare", "t.hgm", "--plot", "p.gif"], "does not end in .png or .svg"),
    "addresses suffix": (["compare", "t.hgm", "--plot-addresses", "p.gif"], "does not end in .png or .svg"),
    "two outputs, one file": (["compare", "t.hgm", "--csv", "a", "--html", "./a"], "--csv and --html both write to"),
    "two pages, one file": (["step", "t.hgm", "--scheme", "mm_id", "--html", "a", "--json", "a"], "both write to a"),
    "trace and JSON": (["convert", "t.hgm", "-o", "a", "--json", "a"], "--output and --json both write to a"),
    "no property": (["explain", "t.hgm", "--scheme", "mm_id", "--property", ","], "names no property"),
    "plot nowhere": (["compare", "t.hgm", "--plot", "no/p.png"], "no/p.png: No such file"),
    "json nowhere": (["compare", "t.hgm", "--json", "no/r.json"], "no/r.json: No such file"),
    "json a directory": (["compare", "t.hgm", "--json", "."], "Is a directory"),
    "html nowhere": (["compare", "t.hgm", "--html", "no/r.html"], "no/r.html: No such file"),
    "convert nowhere": (["convert", "t.hgm", "-o", "no/t.hgmt"], "no/t.hgmt: No such file"),
    "convert without output": (["convert", "t.hgm"], "--output"),
    "two on standard output": (["compare", "t.hgm", "--json", "-", "--markdown"], "standard output"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_status_2(case, capfd):
    Path("bad.hgm").write_text("hgmcore-trace 1\nfile F 2M many\n")
    arguments, reason = WRONG[case]
    assert reason in error(capfd, *arguments)


def test_wrong_input_of_a_real_process():
    done = command("compare", "missing.hgm")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"hgmcore: error: missing.hgm: No such file or directory\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_directory(capfd):
    os.mkdir("locked", 0o555)
    assert "Permission denied" in error(capfd, "compare", "t.hgm", "--json", "locked/r.json")


def test_out_of_memory(capfd, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("no memory for page tables at operation 7")

    monkeypatch.setattr("hgmcore.commands.compare.run_compare", fail)
    assert error(capfd, "compare", "t.hgm") == ("hgmcore: error: out of memory: no memory for page tables at "
                                                "operation 7\n")


def test_interrupt_is_status_130(capfd, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("hgmcore.commands.compare.run_compare", interrupt)
    assert run(["compare", "t.hgm"]) == 130
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("missing, arguments", [
    ("click", ["compare", "t.hgm"]), ("matplotlib", ["compare", "t.hgm", "--plot", "p.png"]),
    ("pyarrow", ["convert", "t.hgm", "-o", "t.hgmt"])])
def test_missing_extra_is_one_line(missing, arguments, monkeypatch):
    Path("sitecustomize.py").write_text(f"import sys; sys.modules[{missing!r}] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.getcwd(), prepend=os.pathsep)
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and b"pip install 'hgmcore[cli]'" in done.stderr
    assert missing.encode() in done.stderr


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help_and_version(arguments, capfd):
    text = printed(capfd, *arguments, "--help")
    assert "Usage: hgmcore" in text and "hgmcore " in text.partition("\n")[2]
    assert printed(capfd, *arguments, "--version") == f"hgmcore {__version__}\n"


def test_without_a_command_there_is_help(capfd):
    text = printed(capfd)
    for name in COMMANDS:
        assert f"\n  {name} " in text


def test_examples_in_help_run(capfd):
    """Every `hgmcore` line of the helps is a command that exists, with options that exist."""
    helps = [printed(capfd, "--help"), *(printed(capfd, name, "--help") for name in COMMANDS)]
    lines = [line.strip() for line in "".join(helps).splitlines()]
    examples = [line.split() for line in lines if line.startswith("hgmcore ")]
    assert len(examples) > 10
    for _, name, *rest in examples:
        if name != "COMMAND":
            assert name in COMMANDS
            known = printed(capfd, name, *rest[:name == "import"], "--help")
            assert [word for word in rest if word.startswith("--") and word not in known] == []


def test_compare_prints_a_report_and_nothing_else():
    done = command("compare", "t.hgm")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("ascii")
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in schemes.NAMES)


def test_compare_reads_standard_input():
    done = command("compare", "-", "--schemes", "subtree", "--repeat", "0", input=TEXT.encode())
    assert done.returncode == 0 and done.stdout.startswith(b"hgmcore compare: <stdin>\n")


def test_compare_json(capfd):
    result = result_of(capfd, "compare", "t.hgm", "--schemes", "subtree,hugetlb")
    assert result["format"] == "hgmcore-compare 2"
    assert list(result["schemes"]) == ["subtree", "hugetlb"]
    assert result["schemes"]["subtree"]["cost"]["leaf_installs"] == 1
    assert result["schemes"]["subtree"]["refused"] == {"EEXIST": 1}
    assert len(result["schemes"]["subtree"]["measured"]["ns_per_operation"]["runs"]) >= 6


def test_compare_joins_lists_of_schemes(capfd):
    result = result_of(capfd, "compare", "t.hgm", "--repeat", "0", "--schemes", "subtree,hugetlb", "--schemes",
                       "mm_id,subtree", "--baseline", "mm_id", "--every", "1")
    assert list(result["schemes"]) == ["subtree", "hugetlb", "mm_id"] and result["baseline"] == "mm_id"
    assert result["observations"] == result["trace"]["operations"]


def test_compare_in_full_and_with_threads(capfd):
    text = printed(capfd, "compare", "t.hgm", "--schemes", "subtree,mm_id", "--full", "--threads", "2", "--repeat", "1")
    assert "ATOMICS a leaf" in text and "no two threads" in " ".join(text.split())
    assert "1 timed runs are too few" in text.replace("\n", " ") or "too few" in text


def test_compare_writes_every_output_at_once(capfd):
    files = ("--json", "r.json", "--plot", "p.svg", "--html", "r.html")
    text = printed(capfd, "compare", "t.hgm", "--repeat", "1", *files)
    assert text.startswith("hgmcore compare: t.hgm")
    result = json.loads(Path("r.json").read_text())
    assert set(result["schemes"]) == set(schemes.NAMES)
    assert Path("p.svg").read_text().startswith("<?xml")
    assert Path("r.html").read_text().startswith("<!DOCTYPE html>")
    assert sorted(os.listdir()) == ["p.svg", "r.html", "r.json", "t.hgm"], "no temporary file is left"


def test_any_file_name(capfd):
    name = os.fsdecode(b"$\\x$ <b> \x1b \xff.hgm")
    os.rename("t.hgm", name)
    files = ("--json", "r.json", "--plot", "p.svg", "--html", "r.html")
    text = printed(capfd, "compare", name, "--repeat", "0", *files)
    assert text.isascii() and "\x1b" not in text
    assert "\x1b" not in Path("r.html").read_text() and "<b>" not in Path("r.html").read_text()
    assert json.loads(Path("r.json").read_text())["trace"]["name"] == name


def test_compare_png_and_markdown(capfd):
    text = printed(capfd, "compare", "t.hgm", "--repeat", "0", "--plot", "p.png", "--plot-addresses", "a.SVG",
                   "--markdown")
    assert "| scheme |" in text
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert "schemes that miscount" in Path("a.SVG").read_text()


def test_options_reach_the_schemes(capfd):
    result = result_of(capfd, "compare", "t.hgm", "--option", "cache_refs=folio", "--repeat", "0")
    assert result["options"] == {"cache_refs": "folio"}
    assert result["schemes"]["subtree"]["options"]["cache_refs"] == "folio"


def test_one_refused_scheme_does_not_stop_the_others(capfd):
    result = result_of(capfd, "compare", "t.hgm", "--option", "hvo=on", "--repeat", "0", "--machine", "64G")
    assert set(result["schemes"]) == set(schemes.NAMES)
    assert "hvo=on" in result["schemes"]["mm_id"]["refused_why"]
    assert result["schemes"]["subtree"]["struct_pages"] == {"2M": 32768 * 4096}
    assert result["machine_size"] == 64 << 30
    text = printed(capfd, "compare", "t.hgm", "--option", "hvo=on", "--repeat", "0")
    assert re.search("mm_id +refused: counts on", text)


@pytest.mark.parametrize("name", ["compare", "replay"])
def test_help_lists_every_option_with_its_values(name, capfd):
    text = printed(capfd, name, "--help")
    for option, meaning in OPTIONS.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [option])
        assert line.split()[1] == "|".join(meaning.values) + ":"
    assert max(map(len, text.splitlines())) <= 80


def test_compare_without_input_is_a_guests_life(capfd):
    result = result_of(capfd, "compare", "--schemes", "logical_counter", "--repeat", "0")
    assert result["trace"]["name"] == "workload:guest_life"
    names = [phase["name"] for phase in result["trace"]["phases"]]
    assert "postcopy_recorded" in names and "fork_generated" in names
    assert result["trace"]["provenance"]


def test_output_over_a_link_and_to_a_device(capfd):
    Path("real.json").write_text("old")
    os.symlink("real.json", "link.json")
    printed(capfd, "info", "t.hgm", "--json", "link.json")
    assert os.path.islink("link.json")
    assert json.loads(Path("real.json").read_text())["operations"] == 7
    printed(capfd, "info", "t.hgm", "--json", "/dev/null")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_pipe_is_quiet(unbuffered):
    arguments = ["replay", "workload:random,page_size=2M,pages=40", "--scheme", "hugetlb", "--json", "-"]
    process = subprocess.Popen([*HGMCORE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(600) == 141


@pytest.mark.parametrize("closed, arguments, status", [
    ("<&-", ["compare", "-"], 2), ("<&-", ["import", "lackey", "-", "-o", "o.hgm"], 2),
    (">&-", ["info", "t.hgm"], 0), (">&-", ["convert", "t.hgm", "-o", "o.hgmt"], 0), ("2>&-", ["info", "missing"], 2)])
def test_standard_streams_that_are_closed(closed, arguments, status):
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *HGMCORE, *arguments], capture_output=True)
    assert done.returncode == status
    assert done.stderr.count(b"\n") == (closed == "<&-")


HALF = """
import sys, time
from hgmcore import __main__
from hgmcore.trace import text

def write(trace, stream):
    stream.write(b"half")
    print("begun", flush=True)
    time.sleep(3600)

text.write, sys.argv = write, ["hgmcore", "convert", "t.hgm", "-o", "o.hgm"]
sys.exit(__main__.main())
"""


def test_a_signal_leaves_no_half_of_a_file():
    with subprocess.Popen([sys.executable, "-c", HALF], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n" and len(os.listdir()) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 130
    assert os.listdir() == ["t.hgm"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_device(unbuffered):
    with open("/dev/full", "wb") as full:
        done = command("info", "t.hgm", stdout=full, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 2
    assert done.stderr == b"hgmcore: error: standard output: No space left on device\n"


def test_replay(capfd):
    text = printed(capfd, "replay", "t.hgm", "--scheme", "nr_pages_mapped")
    assert "EEXIST" in text and "OBSERVATION, statement 6" in text
    result = result_of(capfd, "replay", "t.hgm", "--scheme", "nr_pages_mapped")
    assert result["format"] == "hgmcore-replay 1"
    assert result["operations"] == [{"index": 5, "op": "continue", "error": "EEXIST", "done": 0}]
    assert result["observations"][0]["folios"][0]["page_mapcount"] == [[0, 1, 1], [1, 512, 0]]
    every = result_of(capfd, "replay", "t.hgm", "--scheme", "subtree", "--operations", "all")
    assert [operation["op"] for operation in every["operations"]] == [
        "file", "populate", "mmap", "split", "continue", "continue", "observe"]


def test_info(capfd):
    text = printed(capfd, "info", "t.hgm")
    assert "2 x 2M hugetlb" in text and max(map(len, text.splitlines())) <= 80
    assert result_of(capfd, "info", "t.hgm")["by_operation"]["continue"] == 2


def test_convert_there_and_back(capfd):
    assert printed(capfd, "convert", "t.hgm", "-o", "t.hgmt") == "t.hgmt: 7 operations\n"
    text = printed(capfd, "convert", "t.hgmt", "-o", "back.hgm", "--json", "r.json")
    assert text == "back.hgm: 7 operations\n"
    assert Trace.load("back.hgm") == Trace.load("t.hgmt") == Trace.load("t.hgm")
    assert json.loads(Path("r.json").read_text())["output"] == "back.hgm"


def test_a_trace_to_standard_output(capfd):
    assert printed(capfd, "convert", "t.hgm", "-o", "-") == Trace.load("t.hgm").to_text()
    assert not Path("-").exists()
    assert printed(capfd, "convert", "t.hgm", "-o", "-", "--json", "r.json").startswith("hgmcore-trace 1\n")
    Path("q.log").write_text(LOG)
    assert run(["import", "qemu", "q.log", "-o", "-", "--page-size", "2M"]) == 0
    out, err = capfd.readouterr()
    assert Trace.parse(out).header.processes == ["qemu"] and err.startswith("q.log: 4 lines\n")


def test_a_trace_into_a_pipe():
    first = subprocess.Popen([*HGMCORE, "convert", "t.hgm", "-o", "-"], stdout=subprocess.PIPE)
    done = command("info", "-", "--json", "-", stdin=first.stdout)
    assert first.wait(600) == 0 and json.loads(done.stdout)["operations"] == 7


def test_schemes_and_workloads(capfd):
    listed = printed(capfd, "schemes")
    assert all(name in listed for name in schemes.NAMES)
    assert "Known to be wrong" in printed(capfd, "schemes", "subtree")
    assert list(result_of(capfd, "schemes")["schemes"]) == list(schemes.NAMES)
    listed = printed(capfd, "workloads")
    assert all(name in listed for name in (*workloads.NAMES, *recordings.NAMES))
    assert "urgent" in printed(capfd, "workloads", "postcopy")
    assert result_of(capfd, "workloads", "postcopy")["workloads"]["postcopy"]["parameters"]["pages"] == 1


LOG = """\
8568@1795369131.000100:postcopy_init_range mem0: 0x7f8320000000 offset=0x0 length=0x400000
8568@1795369131.000200:postcopy_ram_fault_thread_request Request for HVA=0x7f8320005000 rb=mem0 offset=0x5000
8742@1795369132.000000:postcopy_place_page host=0x7f8320005000
8742@1795369132.000100:postcopy_place_page_zero host=0x7f8320006000
"""


def test_import(capfd):
    Path("q.log").write_text(LOG)
    options = ("--page-size", "2M", "--observations", "1", "--provenance", "guest=none", "--json", "r.json")
    text = printed(capfd, "import", "qemu", "q.log", "-o", "q.hgm", *options)
    assert "q.log: 4 lines" in text and "q.hgm: " in text
    trace = Trace.load("q.hgm")
    assert "continue qemu mem0 20K 4K urgent" in trace.to_text()
    assert json.loads(Path("r.json").read_text())["provenance"]["guest"] == "none"


def on_terminal(*arguments, stdout=None):
    """(what a command writes to a terminal, its status); stdout: a file or pipe instead of the terminal, as for
    Popen."""
    import pty

    master, terminal = pty.openpty()
    process = subprocess.Popen([*HGMCORE, *arguments], stdout=stdout or terminal, stderr=terminal,
                               env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    if stdout == subprocess.PIPE:
        process.stdout.read()
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the terminal's other end was closed
        pass
    os.close(master)
    return shown, process.wait(600)


def test_progress_on_a_terminal():
    shown, status = on_terminal("compare", "t.hgm")
    bar, _, report = shown.partition(b"hgmcore compare")
    assert status == 0 and b"\x1b[" in bar and b"%" in bar and b"\x1b[" not in report


def test_progress_stays_where_output_goes_to_a_file():
    with open("out", "wb") as out:
        shown, status = on_terminal("replay", "t.hgm", "--scheme", "subtree", "--json", "-", stdout=out)
    assert status == 0 and b"%" in shown and b"\x1b[" in shown
    assert json.loads(Path("out").read_text())["scheme"] == "subtree"


def test_no_progress_into_a_pipe():
    assert on_terminal("replay", "t.hgm", "--scheme", "subtree", stdout=subprocess.PIPE) == (b"", 0)

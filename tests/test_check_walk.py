"""The random walk of `hgmcore check --walk`: sequences that can be read, the same for a seed; faults found and made
short."""

import json
import random

import pytest
from click.testing import CliRunner

from hgmcore import cli
from hgmcore.commands.check import check_command
from hgmcore.explore.observed import judged, preamble
from hgmcore.explore.running import NotOnAKernel, sequence_of_walk
from hgmcore.explore.walk import GROUNDS, sequence, shrunk, walk
from hgmcore.schemes import load
from hgmcore.trace import Trace


@pytest.mark.parametrize("ground", GROUNDS, ids=lambda ground: ground.name)
def test_sequences_are_traces_and_the_same_for_a_seed(ground):
    families = set()
    for seed in range(20):
        lines = sequence(random.Random(seed), ground)
        assert lines == sequence(random.Random(seed), ground)
        assert len(Trace.parse("\n".join(preamble(ground) + lines)).operations) == len(lines) + len(ground.files)
        families |= {line.split()[0] for line in lines}
    assert {"touch", "dontneed", "fork", "exit", "migrate"} <= families


def test_a_fault_is_found_and_made_short():
    engine, ground = load("per_page_posted"), GROUNDS[0]
    lines = next(
        lines[:length]
        for seed in range(20)
        for lines in [sequence(random.Random(seed), ground)]
        for length, names in judged(engine, ground, lines, {})
        if "mapped_if_leaf" in names
    )
    short = shrunk(engine, ground, lines, "mapped_if_leaf", {})
    assert len(short) <= 4 < len(lines) and short[-1].split()[0] in ("continue", "touch")
    assert any("mapped_if_leaf" in names for _, names in judged(engine, ground, short, {}))


def test_a_walk_says_what_it_met():
    found = walk(["subtree_posted", "hugetlb"], 6)["schemes"]
    assert found["hugetlb"]["sequences"] and not found["hugetlb"]["properties"]
    for name, entry in found["subtree_posted"]["properties"].items():
        assert entry["promise"] in ("fault", "definition"), name
        assert entry["length"] <= 10 and Trace.parse(entry["trace"])


def test_the_command_walks(tmp_path):
    answer = CliRunner().invoke(
        check_command, ["logical_counter", "--walk", "2", "--seed", "5", "--json", str(tmp_path / "w")],
        standalone_mode=False)
    assert answer.return_value == 0 and "random walk, seed 5" in answer.output
    assert json.loads((tmp_path / "w").read_text())["format"] == "hgmcore-walk 1"
    wrong = CliRunner().invoke(check_command, ["mm_id", "--walk", "2", "--scope", "pair"], standalone_mode=False)
    assert "grounds of its own" in wrong.exception.format_message()


def test_what_a_walk_finds_is_a_sequence_for_a_running_kernel_or_says_why_not():
    ground = next(ground for ground in GROUNDS if ground.name == "shmem")
    found = walk(["per_page_posted"], 10, grounds=(ground,))["schemes"]["per_page_posted"]["properties"]
    entry = found["mapped_if_leaf"]
    assert "validate --live --sequence" in entry["trace"] and Trace.parse(entry["trace"])
    first, file, *statements = map(json.loads, entry["live"].splitlines())
    assert first["t"] == "scenario" and (file["kind"], file["size"]) == ("shmem", 3 * 2**21)
    steps = [statement for statement in statements if statement["t"] == "op"]
    assert steps[-1]["op"] in ("read", "write", "uffd_continue") and steps[-1]["len"] >= 4096


@pytest.mark.parametrize("geometry, lines, message", [
    ("tiny-4c", [], "tiny-4c: it is not x86-64"),
    ("x86-64", ["file G 1G 1", "mmap A v G 0 1G shared"], "folios of shmem have 2M, not 1G"),
    ("x86-64", ["file F 2M 1", "mmap A v F 0 2M shared minor wp hgm"], "wp: "),
    ("x86-64", ["file F 2M 1", "mmap A v F 0 2M shared", "migrate A v 0 2M"], "migrate: "),
])
def test_a_kernel_cannot_do_everything(geometry, lines, message):
    with pytest.raises(NotOnAKernel, match=message):
        sequence_of_walk(geometry, lines, "name")


def test_a_sequence_has_all_mappings_of_a_process():
    lines = ["file F 2M 2 shmem", "file G 1G 1", "populate G 0 1", "mmap A v anon:2M 0 4M private",
             "mmap A w F 0 4M shared", "touch A v 0", "touch A v 4K write", "fork A D", "touch D w 2M",
             "munmap D v 0 4M"]
    text = sequence_of_walk("x86-64", lines, "name")
    statements = [json.loads(line) for line in text.splitlines()]
    steps = [(s["proc"], s["op"], s.get("region")) for s in statements if s["t"] == "op"]
    assert steps == [
        ("driver", "fallocate", "F"),
        ("A", "mmap", "v"), ("A", "madvise", "v"), ("A", "mmap", "w"), ("A", "madvise", "w"),
        ("A", "read", "v"), ("A", "write", "v"), ("A", "fork", None), ("D", "read", "w"), ("D", "munmap", "v")]
    maps = {s["region"]: s for s in statements if s.get("op") == "mmap"}
    assert maps["v"]["flags"] == "PRIVATE" and "file" not in maps["v"] and maps["w"]["file"] == "F"


@pytest.mark.parametrize("option", [["--depth", "3"],
                                    ["--states", "3"], ["--seconds", "3"], ["--html", "d"], ["--strict"],
                                    ["--property", "no_underflow"], ["--on", "x86-64"], ["--fail", "1"],
                                    ["--symmetry", "none"], ["--threads", "2"], ["--geometry", "tiny-2"],
                                    ["--processes", "3"], ["--pages", "2"]])
def test_options_of_searches_go_not_with_a_walk(option, capfd):
    assert cli.run(["check", "mm_id", "--walk", "1", *option]) == 2
    assert capfd.readouterr().err == f"hgmcore: error: {option[0]} goes not with --walk\n"


def test_a_walk_writes_its_traces(tmp_path, capfd):
    assert cli.run(["check", "per_page_posted", "--walk", "4", "--traces", str(tmp_path / "t")]) == 0
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert any(name.startswith("per_page_posted-walk-") and name.endswith(".hgm") for name in names)
    assert cli.run(["check", "mm_id", "--seed", "3"]) == 2
    assert "--seed goes with --walk" in capfd.readouterr().err

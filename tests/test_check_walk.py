"""The random walk of `hgmcore check --walk`: sequences that can be read, the same for a seed; faults found and made
short."""

import json
import random

import pytest
from click.testing import CliRunner

from hgmcore.commands.check import check_command
from hgmcore.explore.walk import GROUNDS, judged, preamble, sequence, shrunk, walk
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

"""The published tables: counts, predictions to a tenth, scores, the exact count, what each class is good for."""

import json
import tomllib
from importlib import resources

import pytest

from hgmcore.cli import run
from hgmcore.kernel.published import cells, counts, fit, validate
from hgmcore.kernel.published.scores import correlation, missed, ranks, score
from hgmcore.model.profile import load

PREDICTED = {
    "T1": {"fork 4K": 0.0, "fork 16K": -21.0, "fork 64K": -26.2, "fork 2M": -27.9, "munmap 4K": 0.0,
           "munmap 16K": -21.7, "munmap 64K": -43.1, "munmap 512K": -55.1, "munmap 2M": -56.6},
    "T2": {f"{operation} {folio} {scheme}": value for operation, folio, *both in (
        ("munmap", "16K", 1.6, -5.5), ("munmap", "64K", 0.9, -13.4), ("munmap", "256K", 0.4, -20.5),
        ("munmap", "1M", 0.1, -23.7), ("munmap", "2M", 0.1, -24.3),
        ("fork", "16K", 5.8, -11.0), ("fork", "64K", 1.6, -16.9), ("fork", "256K", 0.4, -18.6),
        ("fork", "1M", 0.1, -19.0), ("fork", "2M", 0.1, -19.1),
        ("cow-byte", "16K", 0.3, -0.1), ("cow-byte", "64K", 0.3, -0.1),
        ("reuse-byte", "16K", -64.0, -64.0), ("reuse-byte", "2M", -64.0, -64.0),
    ) for scheme, value in zip(("mm_id", "no_page_mapcount"), both)},
    "total mapcount": {"fork 16K large_mapcount": 4.4, "fork 32K large_mapcount": 2.3, "fork 64K large_mapcount": 1.2,
                       "munmap 16K large_mapcount": 1.4, "munmap 32K large_mapcount": 1.1,
                       "munmap 64K large_mapcount": 0.8, "munmap 128K large_mapcount": 0.5,
                       "munmap 2M large_mapcount": 0.0},
}


@pytest.fixture(scope="module")
def result():
    return validate.validate()


def table(result, name):
    return next(entry for entry in result["tables"] if entry["name"] == name)


@pytest.mark.parametrize("operation, scheme, batch, of_n", [
    ("munmap", "nr_pages_mapped", "no", lambda n: 3 * n), ("munmap", "nr_pages_mapped", "6.9", lambda n: 2 * n + 1),
    ("munmap", "nr_pages_mapped", "6.12", lambda n: n + 2), ("munmap", "large_mapcount", "no", lambda n: 4 * n),
    ("munmap", "mm_id", "6.9", lambda n: 2 * n + 2), ("munmap", "mm_id", "6.12", lambda n: n + 3),
    ("munmap", "no_page_mapcount", "no", lambda n: 2 * n), ("munmap", "no_page_mapcount", "6.12", lambda n: 2),
    ("fork", "nr_pages_mapped", "no", lambda n: 2 * n), ("fork", "nr_pages_mapped", "6.9", lambda n: n + 1),
    ("fork", "large_mapcount", "no", lambda n: 3 * n), ("fork", "mm_id", "6.12", lambda n: n + 2),
    ("fork", "no_page_mapcount", "no", lambda n: 2 * n), ("fork", "no_page_mapcount", "6.9", lambda n: 2),
])
@pytest.mark.parametrize("pages", [4, 16, 128, 512])
def test_atomics_of_a_folio_of_n_ptes(operation, scheme, batch, of_n, pages):
    found = counts.run(operation, pages, scheme, folios=2, batch=batch, era="6.3")
    assert found["atomic"] == 2 * of_n(pages)
    assert found["step"] == 2 * (pages if batch == "no" else 1)


@pytest.mark.parametrize("name", PREDICTED)
def test_predictions_are_those_worked_out(result, name):
    rows = {row["cell"]: row["predicted"]["value"] for row in table(result, name)["rows"]}
    off = {cell: (rows[cell], value) for cell, value in PREDICTED[name].items() if abs(rows[cell] - value) > 0.101}
    assert not off


def test_the_exact_count(result):
    assert [row["predicted"] for row in table(result, "lazyfree")["rows"]] == [[2048, 0]]


def test_signs_of_reclaim(result):
    rows = table(result, "reclaim")["rows"]
    assert [row["miss"] for row in rows] == [False, False]
    assert rows[0]["predicted"] == pytest.approx(-12, abs=0.5)
    assert rows[1]["predicted"] == pytest.approx(-1, abs=0.2)


def test_scores(result):
    plain, everything = result["sets"]["T1 + T2, fork and munmap"], result["sets"]["all"]
    assert (plain["scores"]["cells"], plain["scores"]["signed"]) == (19, 10)
    assert (plain["scores"]["sign"], plain["scores"]["null"]) == (1.0, 1.0)
    assert plain["scores"]["rank"] == pytest.approx(0.965, abs=0.002)
    assert plain["scores"]["mean_error"] == pytest.approx(1.62, abs=0.02)
    assert plain["baselines"]["a + b atomics"]["mean_error"] == pytest.approx(9.22, abs=0.02)
    assert plain["baselines"]["a(op) + b atomics"]["mean_error"] == pytest.approx(8.66, abs=0.02)
    assert (everything["scores"]["cells"], everything["scores"]["sign"]) == (38, 1.0)
    assert everything["scores"]["mean_error"] == pytest.approx(0.96, abs=0.02)
    assert everything["scores"]["covered"] >= 0.95
    assert all(all(each["goals"].values()) for each in result["sets"].values())
    assert result["better_than_both_baselines"] == {"T1": True, "T2": True}
    assert result["ok"]


def test_misses_are_marked_and_have_a_cause(result):
    rows = [row for entry in result["tables"] for row in entry["rows"] if row["miss"]]
    named = {row["cell"]: row.get("cause") for row in rows}
    assert named["munmap 1M no_page_mapcount"] == "unknown"
    assert "munmap 2M no_page_mapcount" not in named    # it was used to fit
    assert {"fork 32K large_mapcount", "fork 64K large_mapcount"} <= named.keys()


def test_the_shipped_profile_is_what_its_cells_fit():
    profile, found = load("xeon-4210r"), validate.refit()
    digits = {"plain": 1, "step": 1, "stat": 1, "kernel.munmap_freed.free": 0, "kernel.fork.leaf": 0,
              "kernel.munmap_freed.leaf": 1}
    for name, (value, low, high) in found.items():
        cost = profile.costs[name]
        assert round(value, digits[name]) == cost.ns, name
        width = cost.high - cost.low
        assert abs(low - cost.low) < 0.1 * width and abs(high - cost.high) < 0.1 * width, name    # 1,000 random draws


def test_cells_used_to_fit_are_those_that_the_profile_names():
    marked = [f"{table.name} {cell.name}" for table in cells.tables() if table.kind in validate.JUDGED
              for cell in table.cells if not cell.judged]
    assert sorted(marked) == sorted(load("xeon-4210r").fit["cells"])


def test_a_baseline_knows_atomics_alone():
    chosen = [cell for table in cells.tables() if table.kind in validate.JUDGED
              for cell in table.cells if not cell.judged]
    price, values = fit.baseline("a + b atomics", chosen)
    assert [round(value, 1) for value in values] == [26.5, 15.5]
    assert price({"atomic": 2.0, "stat": 9.0}, "fork") == pytest.approx(values[0] + 2 * values[1])


def test_scoring():
    assert ranks([3, 1, 1]).tolist() == [2, 0.5, 0.5]
    assert correlation([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert correlation([1, 1], [1, 2]) is None
    found = score([-10, 1, 4], [-20, 5, 0], [(-25, 0), (0, 2), (3, 5)])
    assert (found["sign"], found["null"], found["covered"]) == (1.0, 1.0, pytest.approx(1 / 3))
    assert found["mean_error"] == pytest.approx(6)
    assert score([1], [9])["null"] is None
    assert missed(1, -3, -9, 9) and missed(0, 6, -9, 9) and missed(0, 2, -1, 1) and not missed(1, 2, 0, 3)


def test_every_table_has_its_provenance():
    text = (resources.files("hgmcore.kernel.published") / "tables.toml").read_text()
    for entry in tomllib.loads(text)["table"]:
        assert entry["from"] and entry["processor"]
    assert all(one["why"] and one["from"] for one in cells.not_expressed())


def test_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "published.json"
    assert run(["validate", "--published", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "Every goal is reached." in text
    assert "! munmap 1M no_page_mapcount: published -29.0" in text
    assert "F munmap 2M no_page_mapcount" in text
    assert "reclaim 64K: published 2048 -> 0, counted 2048 -> 0" in text
    assert json.loads(path.read_text())["format"] == "hgmcore-validate-published 1"
    assert run(["validate", "--published", "--live"]) == 2
    assert "--published takes no DIRECTORY and nothing of --live" in capsys.readouterr().err


# Of one folio of 2M, or of one base page of it: atomic, plain, step, stat, copy. The posting's stages, in its order.
NOVEMBER_2023 = """
baseline  remap 1028 0 513 0 0   | munmap 1536 0 512 512 0    | fork 1024 0 512 0 0    | dontneed 3 0 1 1 0
rmap-id   remap 4619 0 513 0 0   | munmap 5120 0 512 512 0    | fork 4608 0 512 0 0    | dontneed 10 0 1 1 0
batch     remap 1040 0 2 0 0     | munmap 4608 0 512 512 0    | fork 4096 0 512 0 0    | dontneed 9 0 1 1 0
exclusive remap 1032 8 2 0 0     | munmap 2560 2048 512 512 0 | fork 2048 2048 512 0 0 | dontneed 5 4 1 1 0
all       remap 6 1034 2 0 0     | munmap 1536 3072 512 512 0 | fork 1536 2560 512 0 0 | dontneed 3 6 1 1 0
baseline  cow 4 0 2 1 1          | cow-byte 4 0 2 1 1         | reuse 5 0 2 2 1        | reuse-byte 5 0 2 2 1
rmap-id   cow 11 0 2 1 1         | cow-byte 11 0 2 1 1        | reuse 0 0 0 0 0        | reuse-byte 0 0 0 0 0
batch     cow 10 0 2 1 1         | cow-byte 10 0 2 1 1        | reuse 0 0 0 0 0        | reuse-byte 0 0 0 0 0
exclusive cow 6 4 2 1 1          | cow-byte 6 4 2 1 1         | reuse 0 0 0 0 0        | reuse-byte 0 0 0 0 0
all       cow 5 5 2 1 1          | cow-byte 5 5 2 1 1         | reuse 0 0 0 0 0        | reuse-byte 0 0 0 0 0
"""
COUNTS = [(line.split()[0], *cell.split()) for line in NOVEMBER_2023.strip().splitlines()
          for cell in line.removeprefix(line.split()[0]).split("|")]


@pytest.mark.parametrize("stage, operation, expected", [(stage, operation, [int(each) for each in numbers])
                                                        for stage, operation, *numbers in COUNTS])
def test_counts_of_november_2023(stage, operation, expected):
    entry = next(entry for entry in cells.load()["table"] if entry["name"] == "T3 4210R")
    options = entry["before"] if stage == "baseline" else {**entry["after"], **entry["stages"][stage]}
    found = counts.run(operation, 512, **options)
    each = counts.FOLIOS * (1 if operation in ("remap", "munmap", "fork") else 512)
    exact = operation.startswith("reuse") and stage == "baseline"    # the last page of a folio is no more shared
    assert [round(found[name] / each, 1 if exact else 9) for name in ("atomic", "plain", "step", "stat", "copy")] == \
        expected


def test_predictions_for_november_2023(result):
    """All of the series, both processors; held to the digits so that a change of the model shows."""
    found = {(entry["name"], row["cell"]): row["predicted"] for entry in result["tables"]
             if entry["kind"] == "prediction" for row in entry["rows"]}
    assert len(found) == 2 * 4 * 8
    assert all(each["low"] <= each["value"] <= each["high"] for each in found.values())
    assert [round(found["T3 4210R", f"{operation} all"]["value"], 1) for operation in
            ("remap", "munmap", "fork", "cow", "cow-byte", "reuse", "reuse-byte", "dontneed")] == \
        [-30.1, 14.1, 32.9, 0.7, 0.8, -54.1, -64.0, 1.5]
    forks = [found["T3 7313", f"fork {stage}"]["value"] for stage in ("rmap-id", "batch", "exclusive", "all")]
    assert [round(each, 1) for each in forks] == [35.4, 30.3, 14.1, 10.0]


def test_figures_of_counters_stand_beside_the_schemes_that_count_so(result):
    entry = table(result, "counters")
    schemes = {row["scheme"]: row for row in entry["rows"] if row["scheme"]}
    assert schemes.keys() == {"head_per_leaf", "percpu_counter", "percpu_ref", "sloppy_counter"}
    assert schemes["head_per_leaf"]["update"][3] == 268.1 and schemes["percpu_counter"]["read"][3] == 369.9
    assert all(len(row[what]) == len(entry["cpus"]) for row in entry["rows"] for what in ("update", "read"))
    curve = load("epyc-milan-vm").curve    # fitted to the row of one place
    assert [point[1] for point in curve.points] == pytest.approx(schemes["head_per_leaf"]["update"], rel=1e-3)

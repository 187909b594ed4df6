"""Folios by columns: each row is what the machine says of that folio alone, and errors of columns are those of rows."""

import numpy as np
import pytest
import test_model
import test_model_thp
from sequences import Comparison, run_sequences

import hgmcore as hgm
from hgmcore import recordings
from hgmcore.analysis.errors import of_observation
from hgmcore.core.machine import FOLIO_FREED
from hgmcore.replay import machine_for, plain
from hgmcore.schemes import NAMES

TRACES = {"qemu-postcopy_redis_4k": 4, "python_fork_pool": 2}    # how many parts are looked at


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("scheme", NAMES)
def test_each_row_is_what_the_machine_says_of_that_folio(scheme, name):
    trace = recordings.load(name)
    machine, core = (made := machine_for(trace, scheme, {})), made.core
    part = -(-len(trace) // TRACES[name])
    for first in range(0, len(trace), part):
        machine.run(trace.records[first:first + part])
        seen = machine.observe()
        known = {(folio["file"], folio["page"]): folio for folio in core.folios() if folio["flags"] & 2 == 0}
        files = [file.name for file in machine.header.files]
        for row in seen["folios"][:100]:
            if "first" in row:
                continue
            folio = known[files.index(row["file"]), row["page"]]
            answer = core.answer(machine.engine, folio["number"])
            assert row["refcount"] == folio["refcount"]
            assert {key: row[key] for key in ("mapcount", "mapped", "maybe_shared")} == {
                key: answer[key] for key in ("mapcount", "mapped", "maybe_shared")}
            assert np.array_equal(row["page_mapcount"], core.page_mapcount(machine.engine, folio["number"]))
        rows = {**seen, "folios": list(seen["folios"])}
        assert of_observation(seen) == of_observation(rows) == of_observation(plain(rows))


class Rows:
    """A Comparison that compares no model, but each row with what the machine says of that folio alone."""

    def step(self, statement):
        self.model.run(statement)
        self.core.run(statement)
        self.text.append(statement)
        if len(self.text) % 4 == 0 and not statement.startswith("fail"):
            self.compare(self.core.machine)

    def compare(self, machine):
        core, files = machine.core, [file.name for file in machine.header.files]
        rows = core.folios()
        listed = rows[(rows["refcount"] != 0) & (rows["flags"] & FOLIO_FREED == 0)]
        seen = machine.observe()
        assert len(seen["folios"]) == len(listed)
        by_name = {}
        for row in seen["folios"]:
            file = machine.header.files[files.index(row["file"])]
            place = row["page"] * (file.page_size // machine.geometry.base_page) + row["first"] if "first" in row else (
                row["page"])
            by_name.setdefault((files.index(row["file"]), place), []).append(row)
        for folio in listed:    # of private copies of one place there are several
            alike = by_name[folio["file"], folio["page"]]
            answer = core.answer(machine.engine, folio["number"])
            counts = core.page_mapcount(machine.engine, folio["number"])
            keys = ("mapcount", "mapped", "maybe_shared")
            assert any(row["refcount"] == folio["refcount"] and np.array_equal(row["page_mapcount"], counts)
                       and all(row[key] == answer[key] for key in keys) for row in alike)
        assert of_observation(seen) == of_observation(plain(seen))

    def teardown(self):
        pass


@pytest.mark.parametrize("scheme", NAMES)
@pytest.mark.parametrize("kind, strategy, ground", [
    (Comparison, test_model.OPERATIONS, test_model.X86_64),
    (test_model_thp.Memory, test_model_thp.operations(test_model_thp.MIXED), test_model_thp.MIXED),
], ids=["hugetlb", "mixed"])
def test_rows_of_random_sequences(kind, strategy, ground, scheme):
    run_sequences(type("Rows" + kind.__name__, (Rows, kind), {}), strategy, ground, scheme, {}, steps=30, examples=3)


def test_folios_are_a_list():
    machine = hgm.Machine("mm_id")
    machine.process("A").mmap(machine.file("F", "2M", 3, populate=True), "v", minor=True).uffd_continue(0, "2M")
    folios = machine.observe()["folios"]
    assert len(folios) == 3 and [row["page"] for row in folios] == [0, 1, 2]
    assert folios[-1]["page"] == 2 and [row["page"] for row in folios[1:]] == [1, 2]
    assert folios == machine.observe()["folios"] and folios == list(folios) and folios != []
    assert plain(folios)[0]["page_mapcount"] == [[0, 512, 1]] and repr(folios).startswith("[{'file': 'F', ")
    before = plain(folios)
    machine.process("B").mmap(machine.file("G", "2M", 1, populate=True), "w", minor=True).uffd_continue(0, "2M")
    assert plain(folios) == before and folios != machine.observe()["folios"]    # of their moment, not of a later one
    with pytest.raises(IndexError):
        folios[3]

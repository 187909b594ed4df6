"""Records are looked through once for all machines that have declared the same, and never run where they do not fit."""

import copy

import numpy as np
import pytest

import hgmcore as hgm
from hgmcore import Trace, schemes
from hgmcore.core.records import Records
from hgmcore.trace.statements import CODES, OPERATION

TEXT = """hgmcore-trace 1
file F 2M 4
populate F 0 4
mmap A v F 0 8M shared hgm minor
mmap B w F 0 8M shared hgm minor
register A v minor
continue A v 0 4K
continue A v 4K 4K
touch B w 0
dontneed A v 0 8M
"""


def machine_of(trace, scheme="mm_id"):
    machine = hgm.Machine(scheme, trace.header.geometry)
    machine.declare(trace.header)
    return machine


def test_once_for_all_schemes_rounds_and_segments():
    trace = Trace.parse(TEXT)
    hgm.compare(trace, "all", repeat=3, every=2)
    for scheme in schemes.NAMES:
        hgm.replay(trace, scheme, observe_end=True)
        hgm.Machine(scheme).run(trace)
        list(hgm.replay_steps(trace, scheme, start=3, stop=5))
    assert trace.records.times_checked == 1


def test_again_for_a_machine_that_declared_something_else():
    trace = Trace.parse(TEXT)
    machine_of(trace).run(trace.records)
    more = machine_of(trace)
    more.file("G", "2M", 1)
    more.run(trace.records)
    assert trace.records.times_checked == 1

    smaller = Trace.parse(TEXT.replace("F 2M 4", "F 2M 3").replace("populate F 0 4", "populate F 0 3"))
    with pytest.raises(ValueError, match="^record 1: "):    # what is populated lies behind the file's end
        machine_of(smaller).run(trace.records)
    assert trace.records.times_checked == 2
    machine_of(Trace.parse(TEXT.replace("F 2M 4", "F 2M 5"))).run(trace.records)
    assert trace.records.times_checked == 3


def test_a_mapping_of_another_process_is_another_declaration():
    trace = Trace.parse(TEXT + "mremap A v 0 2M x\n")
    other = Trace.parse(TEXT + "mmap B x F 0 2M shared\n")
    machine_of(trace).run(trace.records)
    with pytest.raises(ValueError, match=f"^record {len(trace) - 1}: "):
        machine_of(other).run(trace.records)


@pytest.mark.parametrize("part", [slice(None), slice(5), slice(5, None)])
def test_no_part_of_records_that_do_not_fit_runs(part):
    trace = Trace.parse(TEXT)
    machine_of(trace).run(trace.records)
    for _ in range(2):
        machine = hgm.Machine("mm_id")
        machine.file("F", "2M", 4)
        machine.process("A")._mapping("v")
        for run in (machine.run, machine.run_each):
            with pytest.raises(ValueError, match="^record 3: an operation, file, process, mapping or page"):
                run(trace.records[part])
        assert machine.cost()["table_allocs"] == 0 and machine.operations == 0


def test_a_restored_machine_has_declared_less():
    trace = Trace.parse(TEXT)
    machine = hgm.Machine("mm_id")
    nothing = machine.snapshot()
    machine.declare(trace.header)
    machine.run(trace.records)
    machine.restore(nothing)
    with pytest.raises(ValueError, match="^record 0: "):
        machine.run(trace.records)


def test_nobody_edits_them_behind_the_check():
    whole = np.zeros(4, OPERATION)
    whole["op"] = CODES["observe"]
    trace = Trace(Trace.parse("hgmcore-trace 1\n").header, whole[1:3])
    trace.operations["op"][0] = CODES["fail"]
    trace.operations["length"][0] = 1
    hgm.replay(trace, "mm_id")
    for array in (whole, trace.operations, trace.operations["op"], trace.records[1:].operations):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


def test_arrays_of_ones_own_are_looked_at_by_each_run():
    trace = Trace.parse(TEXT)
    operations, machine = trace.operations.copy(), machine_of(trace)
    machine.run(operations)
    operations["target"][-1] = 2
    with pytest.raises(ValueError, match="^record 17: "):
        machine.run(operations)
    assert operations.flags.writeable


def test_parts_and_copies():
    trace = Trace.parse(TEXT)
    machine_of(trace).run(trace.records)
    part = trace.records[2:5]
    assert len(part) == 3 and part.times_checked == 1 and len(part[1:]) == 2
    assert np.array_equal(part[1:].operations, trace.operations[3:5])
    for wrong in (3, slice(0, 4, 2)):
        with pytest.raises(TypeError, match="slice without a step"):
            trace.records[wrong]
    other = copy.deepcopy(trace)
    assert other == trace and other.records.times_checked == 0
    machine_of(other).run(other.records)
    with pytest.raises(TypeError, match="array of dtype statements.OPERATION"):
        Records(np.zeros(3))
    with pytest.raises((TypeError, ValueError)):
        Records(trace.operations[::2])

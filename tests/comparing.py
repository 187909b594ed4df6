"""Traces run on the reference model and on hgmcore, with results in one form that can be compared."""
import errno
from collections import namedtuple
from functools import lru_cache

import numpy as np
import pytest
from model import Model, merged

from hgmcore.folios import Folios

# operations: (error, done, event) of each statement.
Replayed = namedtuple("Replayed", "operations observations cost counters")
COST = ("leaf_installs", "leaf_removes", "table_allocs", "table_frees", "entries_scanned", "table_bytes_peak",
        "struct_page_bytes", "lines", "atomics")


def statements(text):
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def replay_in_model(text, scheme, **options):
    model, operations, observations = Model(scheme, **options), [], []
    for statement in statements(text):
        if statement == "observe":
            observations.append(model.observe())
            operations.append((None, 0, None))
        else:
            result = model.run(statement)
            operations.append((result.error, result.done, result.event))
    return Replayed(operations, observations, model.cost(), model.counters())


def replay_in_core(text, scheme, **options):
    from hgmcore import Trace
    from hgmcore.replay import replay, to_json

    geometry = options.pop("geometry", "x86-64")
    trace = Trace.parse(f"hgmcore-trace 1\ngeometry {geometry}\n{text}")
    result = replay(trace, scheme, operations="all", **options)
    reported = to_json(result, trace)["operations"]
    operations = [(entry.get("error"), entry["done"], None if entry["op"] == "fail" else entry.get("event"))
                  for entry in reported]
    assert [entry["index"] for entry in reported] == list(range(len(trace)))
    observations = [plain(seen) for seen in result["observations"]]
    return Replayed(operations, observations, plain_cost(result["cost"]), result["counters"])


@lru_cache(1000)
def parse(text):
    from hgmcore import Trace

    return Trace.parse(text)


class CoreMachine:
    """hgmcore.Machine, driven by one statement of a trace after another."""

    def __init__(self, scheme, geometry="x86-64", **options):
        import hgmcore

        self.machine = hgmcore.Machine(scheme, geometry=geometry, **options)
        self.text = f"hgmcore-trace 1\ngeometry {geometry}\n"  # all statements so far that declared a name

    def run(self, statement):
        """(errno name, bytes done, event)"""
        trace = parse(self.text + statement + "\n")
        known = self.machine.header
        if (len(trace.header.files), len(trace.header.processes), len(trace.header.mappings)) != (
                len(known.files), len(known.processes), len(known.mappings)):
            self.text += statement + "\n"
        self.machine.declare(trace.header)
        before = len(self.machine.results())
        self.machine.run(trace.operations[-1:])
        for result in self.machine.results(before):
            if result["index"] != self.machine.operations - 1:  # a `fail` before, which never fired
                continue
            event = "minor" if result["event"] else None
            return error_name(int(result["errno"])), int(result["done"]), event
        return None, asked(trace, self.machine.geometry), None


def asked(trace, geometry):
    """Bytes that the last statement does if it succeeds."""
    from hgmcore.trace.statements import NAMES

    record, verb = trace.operations[-1], NAMES[trace.operations["op"][-1]]
    if verb in ("touch", "hwpoison"):
        return geometry.base_page
    unit = trace.header.files[record["target"]].page_size if verb == "populate" else 1
    return int(record["length"]) * unit


def plain_cost(cost):
    return {name: cost[name] for name in COST}


def plain(value):
    """An observation of hgmcore in the model's form: lists of tuples as runs, which must be well formed."""
    if isinstance(value, dict):
        return {name: plain(below) for name, below in value.items()}
    if isinstance(value, (list, Folios)):
        return [plain(below) for below in value]
    if isinstance(value, np.ndarray):
        runs = [tuple(run) for run in value.tolist()]
        assert value.shape == (len(runs), 3) and value.dtype == np.int64
        assert all(first < last for first, last, _ in runs)
        assert all(before[1] <= after[0] for before, after in zip(runs, runs[1:])), runs
        assert merged(runs) == runs, "equal neighbours are one run"
        return runs
    return value.item() if isinstance(value, np.generic) else value


def assert_same(expected, got, where="observation"):
    """Assert that `got` has every key of `expected` with an equal value; it may have more keys."""
    if expected == got:
        return
    if isinstance(expected, dict):
        missing = expected.keys() - got.keys()
        assert not missing, f"{where}: no {missing}"
        for name in expected:
            assert_same(expected[name], got[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(expected) == len(got), f"{where}: expected {expected}, got {got}"
        for i, (a, b) in enumerate(zip(expected, got)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert got == pytest.approx(expected), where
    else:
        assert got == expected, f"{where}: expected {expected}, got {got}"


def assert_same_observation(expected, got):
    """Assert that two observations are the same, whatever the order of mappings."""
    assert_same(expected["folios"], got["folios"], "folios")
    assert len(expected["mappings"]) == len(got["mappings"])
    by_name = [{(row["process"], row["mapping"]): row for row in seen["mappings"]}
               for seen in (expected, got)]
    assert_same(*by_name, "mappings")
    if expected["processes"] is not None:  # a replay also knows names that later statements declare
        tables = [{row["process"]: row["page_tables"] for row in seen["processes"]} for seen in (expected, got)]
        assert_same(*tables, "processes")
    assert_same(expected["freed_while_mapped"], got["freed_while_mapped"], "freed_while_mapped")


def error_name(number):
    names = {**errno.errorcode, errno.EAGAIN: "EAGAIN", 133: "EHWPOISON"}
    return names[number] if number else None

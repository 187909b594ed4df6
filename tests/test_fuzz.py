"""Short passes of the fuzzers, by Hypothesis; `python tests/fuzz.py` runs long ones."""

import pytest
from fuzzing import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hgmcore import importers


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_in_is_taken_or_refused(target):
    @settings(max_examples=40, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def feed(chance):
        TARGETS[target](chance)

    feed()


def test_every_importer_is_fuzzed():
    assert set(importers.NAMES) <= set(TARGETS)

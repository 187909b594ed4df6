"""Set-up of all tests: fixtures, import paths of programs that tests start, and settings against chance.

`replay` runs a trace's text on the reference model or on hgmcore; `result` is a comparison. Hypothesis tries the same
examples in each run unless HGMCORE_EXAMPLES is set (sequences.py).
"""
import logging
import os
from pathlib import Path

import pytest
from built import outdated
from comparing import replay_in_core, replay_in_model
from hypothesis import HealthCheck, settings
from made_results import TWO_PROCESSES

import hgmcore

# A busy machine may be slow, so an example has no deadline.
settings.register_profile("hgmcore", deadline=None, derandomize=not os.environ.get("HGMCORE_EXAMPLES"),
                          database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hgmcore")
logging.getLogger("matplotlib").setLevel(logging.ERROR)    # it may write a warning while it builds its list of fonts

# Child processes find hgmcore where this process found it. The current directory may be a tree that is not built.
PATHS = [str(Path(hgmcore.__file__).parent.parent), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONSAFEPATH"] = "1"
# These variables change the output of the programs under test.
for name in ("PYTHONDEVMODE", "PYTHONWARNINGS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def result():
    """The comparison of a small trace under all schemes, which tests must not change."""
    return hgmcore.compare(hgmcore.Trace.parse(TWO_PROCESSES, name="two processes"), repeat=6)


@pytest.fixture(scope="session")
def modelled():
    """The same with modelled times, not measured, and with schemes that are refused."""
    trace = hgmcore.Trace.parse(TWO_PROCESSES, name="two processes")
    return hgmcore.compare(trace, repeat=0, profile="turin-vm", hvo="on")


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch):
    """A scheme that a test registers is not there in the next."""
    monkeypatch.setattr("hgmcore.schemes._registered", dict(hgmcore.schemes._registered))


@pytest.fixture(params=[replay_in_model, replay_in_core], ids=["model", "core"])
def replay(request):
    return request.param


def pytest_terminal_summary(terminalreporter):
    old = outdated(Path(hgmcore.__file__).parent)
    if old and terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.section("compiled before their sources changed (setup.py build_ext --inplace)")
        terminalreporter.write_line(" ".join(old))

"""For all tests: `replay`, a fixture that runs a trace's text on the reference model and on hgmcore, and where the
programs that tests start find hgmcore, and what is in this directory; and that no test fails by chance.

HGMCORE_EXAMPLES lets hypothesis search anew each time (sequences.py).
"""
import logging
import os
from pathlib import Path

import pytest
from comparing import replay_in_core, replay_in_model
from hypothesis import HealthCheck, settings

import hgmcore

# The same examples each time, however long one takes on a busy machine.
settings.register_profile("hgmcore", deadline=None, derandomize=not os.environ.get("HGMCORE_EXAMPLES"),
                          database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hgmcore")
logging.getLogger("matplotlib").setLevel(logging.ERROR)    # else it may say that it looks for fonts

# Where this process found it, not in the current directory, which may be that of a tree that is not built.
PATHS = [str(Path(hgmcore.__file__).parent.parent), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONSAFEPATH"] = "1"
# These change what programs write, and where to.
for name in ("PYTHONDEVMODE", "PYTHONWARNINGS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)


@pytest.fixture(params=[replay_in_model, replay_in_core], ids=["model", "core"])
def replay(request):
    return request.param

"""For all tests: `replay`, a fixture that runs a trace's text on the reference model and on hgmcore, and where the
programs that tests start find hgmcore, and what is in this directory."""
import os
from pathlib import Path

import pytest

import hgmcore
from comparing import replay_in_core, replay_in_model

# Where this process found it, not in the current directory, which may be that of a tree that is not built.
PATHS = [str(Path(hgmcore.__file__).parent.parent), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(params=[replay_in_model, replay_in_core], ids=["model", "core"])
def replay(request):
    return request.param

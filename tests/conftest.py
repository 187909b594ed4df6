"""`replay`, a fixture that runs a trace's text on the reference model and on hgmcore."""
import pytest

from comparing import replay_in_core, replay_in_model


@pytest.fixture(params=[replay_in_model, replay_in_core], ids=["model", "core"])
def replay(request):
    return request.param

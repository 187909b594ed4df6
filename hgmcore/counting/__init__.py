"""The schemes' engines once more, compiled to count events (include/hgmcore/events.h) and not to be fast.

setup.py makes each from the C file of the scheme's module, under another name and with HGM_COUNTING.
"""

from __future__ import annotations

import importlib

from hgmcore.schemes import NAMES


def load(engine):
    """The engine that counts events for the scheme of `engine`. LookupError: there is none, as for a foreign scheme."""
    if engine.name not in NAMES:
        raise LookupError(f"scheme {engine.name} was not compiled to count events, which modelled times are made of")
    return importlib.import_module(f"hgmcore.counting.{engine.name}").engine

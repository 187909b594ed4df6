"""The schemes' engines once more, compiled to count and not to be timed.

They change counts by plain additions, as one thread runs them. Those in `eventful` can count events as well
(include/hgmcore/events.h), which takes twice the time. setup.py makes each from the C file of the scheme's module,
under another name and with HGM_ALONE, and HGM_COUNTING for events.
"""

from __future__ import annotations

import importlib

from hgmcore import schemes
from hgmcore.schemes import NAMES


def load(engine):
    """The engine that counts events for the scheme of `engine`. LookupError: there is none, as for a foreign scheme."""
    if engine.name not in NAMES:
        raise LookupError(f"scheme {engine.name} was not compiled to count events, which modelled times are made of")
    return importlib.import_module(f"hgmcore.counting.eventful.{engine.name}").engine


def without_atomics(scheme):
    """The engine that counts for a scheme, by its name or engine; of a foreign scheme its own, which has atomics.

    Costs, results and answers are the same. ValueError: the scheme is unknown.
    """
    engine = schemes.load(scheme) if isinstance(scheme, str) else scheme
    own = engine.name not in NAMES or engine is not schemes.load(engine.name)
    return engine if own else importlib.import_module(f"hgmcore.counting.{engine.name}").engine

"""What the tests of the importers of system calls share: imports of text, and a plain model of address spaces."""

import io
from pathlib import Path

import numpy as np

from hgmcore import importers
from hgmcore.trace.statements import NAMES

DATA = Path(__file__).parent / "data"


def load(format, text, **options):
    """(Trace, Report) of a recording given as text or bytes, without observations unless they are asked for."""
    text = text if isinstance(text, bytes) else text.encode()
    return importers.load(format).read(io.BytesIO(text), "log", **{"observations": "0"} | options)


def statements(trace):
    """The statements of a trace as text, without thread and time."""
    lines = [line for line in trace.to_text().splitlines()[1:] if not line.startswith("# provenance")]
    return [line.partition(" ")[2] if line.startswith("@") else line for line in lines]


def counted(report):
    """What a report says, in no order."""
    return {**report.to_dict(), "skipped": sorted(map(str, report.to_dict()["skipped"]))}


def text_of(trace):
    """The text of a trace without its provenance."""
    return "".join(f"{line}\n" for line in trace.to_text().splitlines() if not line.startswith("# provenance"))


def operations(trace, *names):
    """(name, target, offset, length, flags) of the operations of these names."""
    chosen = trace.operations[np.isin(trace.operations["op"], [NAMES.index(name) for name in names])]
    return [(NAMES[op], *rest) for op, *rest in
            chosen[["op", "target", "offset", "length", "flags"]].tolist()]

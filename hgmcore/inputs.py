"""What a command takes as input: a file, standard input, a recording of the package, or a workload."""

from hgmcore import recordings, workloads
from hgmcore.trace import Trace


def load_input(spec):
    """The Trace that `spec` names, the default recording if it is None. Raises TraceError or ValueError."""
    if spec is None:
        return recordings.load(recordings.DEFAULT)
    if spec.startswith("recording:"):
        return recordings.load(spec.removeprefix("recording:"))
    if spec.startswith(workloads.PREFIX):
        return workloads.parse(spec)
    return Trace.load(spec)

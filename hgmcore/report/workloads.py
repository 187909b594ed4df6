"""The pages of `hgmcore workloads`: all inputs in a line each, or one workload explained."""

import inspect

from hgmcore.report.prose import blocks, listed, paragraphs, wrapped


def workloads_text(known, recordings):
    """Every workload and every recording in a line. known: name -> (function, parameters)."""
    return blocks(
        ["Workloads, as inputs: workload:NAME[,key=value...]"],
        listed([(name, function.question) for name, (function, _) in known.items()]),
        ["Recordings, as inputs: recording:NAME"],
        listed([(recording.name, recording.description) for recording in recordings]),
        ["`hgmcore workloads NAME` explains a workload, `hgmcore info recording:NAME` a", "recording."])


def workload_text(name, function, parameters):
    """One workload explained."""
    return blocks([f"workload:{name}[,key=value...]"], wrapped(function.question), paragraphs(documentation(function)),
                  ["Defaults:"], listed([(key, str(value)) for key, value in parameters.items()]))


def documentation(function):
    """The docstring of a function, without its indentation."""
    return inspect.getdoc(function)

"""Synthetic traces, each for one question; `hgmcore workloads` lists them.

Each workload is a function of keyword parameters that returns a Trace, with its `question`; `workload:NAME,key=value`
spells a call. One module for each family; `story` has what they share.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hgmcore.sizes import quoted
from hgmcore.trace import Trace
from hgmcore.workloads.failures import errors, lookups, memory_failure, overflow
from hgmcore.workloads.install import postcopy, random, sequential
from hgmcore.workloads.processes import backends, fork_copies, fork_storm, truncation
from hgmcore.workloads.story import PREFIX
from hgmcore.workloads.unmap import balloon, base_pages, hvo, resplit, scan, two_pieces, unmap

WORKLOADS: dict[str, Callable[..., Trace]] = {workload.__name__: workload for workload in (
    sequential, random, postcopy, lookups, errors, unmap, scan, base_pages, two_pieces, overflow, hvo, fork_copies,
    memory_failure, backends, fork_storm, resplit, balloon, truncation)}
NAMES = tuple(WORKLOADS)


def load(name: str, known: Mapping[str, Callable[..., Trace]] = WORKLOADS) -> Callable[..., Trace]:
    """The workload `name`, a function with its `question`; its docstring explains it.

    known: name -> function. ValueError lists the known names.
    """
    if name not in known:
        raise ValueError(f"unknown workload {quoted(name)} (known: {', '.join(known)})")
    return known[name]


def parameters(name: str, known: Mapping[str, Callable[..., Trace]] = WORKLOADS) -> dict[str, Any]:
    """Parameters of workload `name` and their defaults."""
    return {key: parameter.default for key, parameter in inspect.signature(load(name, known)).parameters.items()}


def parse(spec: str, known: Mapping[str, Callable[..., Trace]] = WORKLOADS) -> Trace:
    """The Trace that `workload:NAME[,key=value...]` spells. ValueError or TraceError where it spells none."""
    name, *pairs = spec.removeprefix(PREFIX).split(",")
    allowed, given = parameters(name, known), {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in allowed:
            raise ValueError(f"workload {name!r} has no parameter {quoted(key)} (it has {', '.join(allowed)})")
        if not equals or not value:
            raise ValueError(f"workload {name!r}: expected {key}=VALUE, found {quoted(pair)}")
        if key in given:
            raise ValueError(f"workload {name!r}: {key!r} stands twice")
        given[key] = value
    return load(name, known)(**given)

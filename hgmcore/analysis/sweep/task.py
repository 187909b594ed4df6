"""One comparison of a sweep: what identifies it, and how it is run, wherever that is."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import hgmcore
from hgmcore import inputs, schemes
from hgmcore.analysis.compare import compare
from hgmcore.analysis.long import COLUMNS, long_rows
from hgmcore.analysis.sweep.spec import SpecError
from hgmcore.model.profile import to_toml
from hgmcore.trace import TraceError
from hgmcore.trace.binary import header_json

CHUNK = 1 << 20  # operations

SHOWS = ("commands", "explore", "importers", "kernel", "live", "report")
"""Folders of the package on which no number depends."""


@dataclass(frozen=True)
class Task:
    """A comparison of several schemes. id: a hash of all that its numbers depend on. content: of the trace's."""

    id: str
    source: str
    content: str
    program: str
    schemes: tuple
    options: dict
    profile: object    # a Profile, or None
    processors: int | None
    spread: str | None
    baseline: str | None
    every: int | None
    machine: object


def run(task: Task, trace=None) -> list:
    """The numbers of a task, a list of lists in the order of `analysis.long.COLUMNS`.

    trace: its Trace, if the caller has it. RuntimeError: this process would not replay what the sweep was made for.
    """
    if task.program != program():
        raise RuntimeError(f"the worker has another hgmcore than the sweep (here: {hgmcore.__version__})")
    if trace is None:
        trace, content = _loaded(task.source)
        if content != task.content:
            raise RuntimeError(f"{task.source}: it has changed since the sweep began")
    model = {} if task.profile is None else {"profile": task.profile, "cpus": task.processors, "spread": task.spread}
    result = compare(trace, task.schemes, repeat=0, every=task.every, baseline=task.baseline, machine=task.machine,
                     **model, **task.options)
    return [[row[name] for name in COLUMNS] for row in long_rows(result)]


def tasks_of(spec, loaded=None) -> list:
    """The Task of each point of `spec`; points that differ in nothing that matters have the same one.

    loaded: called as loaded(source, trace) for each input that is a file. SpecError: an input cannot be used.
    """
    common = {"program": program(), "schemes": tuple(spec.schemes), "spread": spec.spread, "baseline": spec.baseline,
              "every": spec.every, "machine": spec.machine}
    outside = {name: schemes.load(name).explanation for name in spec.schemes if name not in schemes.NAMES}
    contents, lengths = {}, {}
    for point in spec.points:
        if point.source not in contents:
            contents[point.source], lengths[point.source] = _content_of(spec, point, loaded)
    _check_profiles(spec, min(spec.points, key=lambda point: lengths[point.source]))
    found = []
    for point in spec.points:
        mine = {**common, "content": contents[point.source], "options": point.options, "processors": point.processors}
        profile = spec.profiles.get(point.profile)
        named = {**mine, "profile": profile and to_toml(profile), "outside": outside}
        found.append(Task(_hash(json.dumps(named, sort_keys=True).encode()), point.source, profile=profile, **mine))
    return found


def _content_of(spec, point, loaded):
    try:
        trace, content = _loaded(point.source)
    except (OSError, ValueError, TraceError) as error:
        raise SpecError(f"{spec.file}: inputs: {error}") from None
    if loaded and inputs_file(point.source):
        loaded(point.source, trace)
    return content, len(trace)


def _check_profiles(spec, point):
    """SpecError if a profile lacks a cost that even `point`, the shortest, needs on the most processors."""
    cpus = max((each.processors for each in spec.points if each.processors), default=None)
    for profile in spec.profiles.values():
        trace, _ = _loaded(point.source)
        try:
            compare(trace, spec.schemes, repeat=0, every=max(1, len(trace)), profile=profile, cpus=cpus,
                    spread=spec.spread, **point.options)
        except ValueError as error:
            raise SpecError(f"{spec.file}: profiles: {error}") from None


def inputs_file(source) -> bool:
    """Whether an input is a file, which other machines may not have."""
    return not source.startswith(("workload:", "recording:"))


@functools.lru_cache(2)
def _loaded(source):
    """The Trace of an input and a hash of its content. Tasks of one input follow one another."""
    trace = inputs.load(source)
    return trace, content_of(trace)


def content_of(trace) -> str:
    """A hash of all that a trace holds."""
    digest = hashlib.sha256(header_json(trace.header))
    for part in trace.chunks(CHUNK):
        for column in (trace.operations, trace.thread, trace.time):
            digest.update(b"-" if column is None else column[part].tobytes())
    return digest.hexdigest()[:DIGITS]


@functools.cache
def program() -> str:
    """A hash of the sources of hgmcore that numbers depend on, and its version."""
    package = Path(hgmcore.__file__).parent
    digest = hashlib.sha256(hgmcore.__version__.encode())
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.suffix in (".py", ".pyx", ".pxd", ".h") and name.parts[0] not in SHOWS:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:DIGITS]


def _hash(data):
    return hashlib.sha256(data).hexdigest()[:DIGITS]


DIGITS = 32

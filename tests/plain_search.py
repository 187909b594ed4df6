"""A search in plain Python over the reference model: every step from every state, breadth first, judged by its tables.

It shares with hgmcore only the text of the steps. Slow: about a thousand steps a second.
"""

import copyreg
import pickle
from dataclasses import dataclass

from model import Model
from model import geometry as model_geometry
from model.geometry import Geometry
from model.memory import Cost
from model.tables import POISON, Leaf, leaves_in

K = 2**10
TINY = {
    "tiny-2": Geometry(4 * K, 2, {1: 1, 2: 2}, tables=5),
    "tiny-4": Geometry(4 * K, 4, {1: 1, 4: 4}, tables=5),
    "tiny-8": Geometry(4 * K, 8, {1: 1, 8: 8}, tables=5),
    "tiny-2x2": Geometry(4 * K, 2, {1: 1, 2: 2, 4: 4}, tables=5),
    "tiny-4c": Geometry(4 * K, 4, {1: 1, 2: 1, 4: 4}, tables=5),
}
model_geometry.GEOMETRIES.update(TINY)

FATAL_STATE = {"FM", "FH", "CB"}
REFUSABLE = {"continue", "touch", "fork", "populate", "migrate", "collapse", "dontneed"}


@dataclass
class Found:
    states: int = 0
    depth: int = 0
    generated: int = 0
    fatal: int = 0
    lengths: dict = None


@dataclass
class World:
    """A model, and which processes were born."""

    model: Model
    born: set


def packed_of(world):
    """A world to come back to; folios that nothing reaches are forgotten."""
    world.model.folios = owned(world)
    return pickle.dumps(world)


copyreg.pickle(Cost, lambda cost: (Cost, (), {"lines": set(), "frames": set()}, None, iter(dict(cost).items())))


def owned(world):
    """Folios that something reaches, in the order of a packed state."""
    found = []
    for file in world.model.files.values():
        found += [file.cache[page] for page in sorted(file.cache)]
    for mapping in world.model.mappings.values():
        if mapping.vmas:
            for _, subtree in mapping.subtrees():
                found += [leaf.folio for leaf in leaves_in(subtree.root)]
                found += [subtree.counted_on] if subtree.counted_on else []
    return list({id(f): f for f in found}.values())


def shape(table, number):
    """A table as nested tuples."""
    return tuple(
        (
            slot,
            ("poison",)
            if entry == POISON
            else (number[id(entry.folio)], entry.first, entry.pages)
            if isinstance(entry, Leaf)
            else shape(entry, number),
        )
        for slot, entry in sorted(table.entries.items())
    )


def spread_of(model, f, owner):
    """What matters of the slots: each, or the sum. owner: names of processes by their numbers."""
    if getattr(model.scheme, "slots_of_processes", False):
        return tuple(sorted((owner[slot + 1], count) for slot, count in f.spread.items() if count))
    if getattr(model.scheme, "slots_each", False):
        return tuple(sorted((slot, count) for slot, count in f.spread.items() if count))
    return sum(f.spread.values())


def key_of(world, names):
    model, folios = world.model, owned(world)
    number = {id(f): i for i, f in enumerate(folios)}
    owner = {n: name for name, n in model.owners.items()}  # they are numbered as they come
    parts = []
    for file in model.files.values():
        parts.append((file.size, tuple((page, number[id(f)]) for page, f in sorted(file.cache.items()))))
    for name in names:
        mapping = model.mappings.get((name, "v"))
        flags = hangs = ()
        if mapping and mapping.vmas:
            flags = tuple((v.first, v.last, v.minor, v.wp, v.hgm) for v in mapping.vmas)
            hangs = tuple(
                (index, shape(s.root, number), number[id(s.counted_on)] if s.counted_on else None)
                for index, s in mapping.subtrees()
                if s.root.entries
            )
        parts.append((name in world.born, name in model.exited, flags, hangs))
    for f in folios:
        parts.append(
            (
                f.refcount,
                f.cached,
                f.freed,
                f.pins,
                tuple(sorted(f.bad)),
                f.compound,
                f.entire,
                f.pmds,
                f.puds,
                f.large,
                f.total_pages,
                f.vma_count,
                f.nr_pages_mapped,
                f.double_map,
                tuple((owner.get(who), count) for who, count in f.slots),
                f.shared_bit,
                spread_of(model, f, owner),
                tuple(sorted((owner[who], count) for who, count in f.owned.items() if count)),
                tuple(f.subpages[i] + f.every_page for i in range(f.pages)),
            )
        )
    return tuple(parts)


def enabled(world, step, names, scope):
    model, family = world.model, step.family
    name = None if step.process is None else names[step.process]
    mapping = model.mappings.get((name, "v")) if name else None
    mapped = bool(mapping and mapping.vmas)
    alive = name in world.born and name not in model.exited
    cached = next(iter(model.files.values())).cache.get(step.page)
    if family == "pin":
        return cached is not None and cached.pins < scope.maxpins
    if family == "unpin":
        return cached is not None and cached.pins > 0
    if name is None:
        return True
    if family == "mmap":
        return alive and not mapped
    if family == "fork":
        return alive and names[step.child] not in world.born
    return alive if family == "exit" else mapped


def truth(world):
    """Of each folio's id: leaves over each base page, leaves, processes."""
    found = {}
    for mapping in world.model.mappings.values():
        if mapping.vmas:
            for _, subtree in mapping.subtrees():
                for leaf in leaves_in(subtree.root):
                    pages, leaves, processes = found.setdefault(id(leaf.folio), ([0] * leaf.folio.pages, [], set()))
                    leaves.append(leaf)
                    processes.add(mapping.process)
                    for i in range(leaf.first, leaf.first + leaf.pages):
                        pages[i] += 1
    return found


def counts(model, folio):
    out = [0] * folio.pages
    for first, last, value in model.scheme.page_mapcount(folio):
        out[first:last] = [value] * (last - first)
    return out


def broken_state(world, processes):
    """State properties that are broken."""
    model, mapped, broken = world.model, truth(world), set()
    for f in owned(world):
        pages, leaves, owners = mapped.get(id(f), ([0] * f.pages, [], set()))
        c = model.cache_refs(f) if f.cached else 0
        bound = processes * f.pages
        words = [
            f.compound,
            f.entire,
            f.pmds,
            f.puds,
            f.large,
            f.total_pages,
            f.vma_count,
            f.nr_pages_mapped & 0x7FFFFF,
            *(f.subpages[i] + f.every_page for i in range(f.pages)),
            *(count for _, count in f.slots),
            *(f.spread.values() if getattr(model.scheme, "slots_each", False) else [sum(f.spread.values())]),
        ]
        tests = [
            ("FM", f.freed and leaves),
            ("FH", f.freed and (f.cached or f.pins)),
            ("CB", any(word > bound for word in words) or f.refcount > c + f.pins + bound),
            ("MU", leaves and not model.scheme.mapped(f)),
            ("ML", model.scheme.mapped(f) and not leaves),
            ("FE", len(owners) > 1 and not model.scheme.maybe_shared(f)),
            ("FS", model.scheme.maybe_shared(f) and len(owners) < 2),
            ("PC", counts(model, f) != pages),
            ("RE", f.refcount - c - f.pins != model.scheme.mapcount(f)),
        ]
        broken |= {name for name, wrong in tests if wrong}
    return broken


def search(scheme, scope, steps, names, **options):
    """Every state of a scope. steps: of hgmcore.explore, for their statements alone. names: of processes."""
    model = Model(scheme, scope.geometry, **scope.options, **options)
    world = World(model, set(names[: scope.born]))
    for line in scope.preamble():
        model.run(line)
    found = Found(lengths={})

    def note(broken, depth):
        for name in broken:
            found.lengths.setdefault(name, depth)

    note(broken_state(world, scope.processes), 0)
    seen, frontier, depth = {key_of(world, names)}, [packed_of(world)], 0
    while frontier:
        depth, following = depth + 1, []
        for packed in frontier:
            was = pickle.loads(packed)
            for step in steps:
                if enabled(was, step, names, scope):
                    take(pickle.loads(packed), step, names, scope, found, note, depth, seen, following)
        if following:
            found.depth = depth
        frontier = following
    found.states = len(seen)
    return found


def take(world, step, names, scope, found, note, depth, seen, following):
    model, file = world.model, next(iter(world.model.files.values()))
    reachable, mapped, cached = owned(world), truth(world), dict(file.cache)
    before = {page: (f.refcount, model.scheme.mapcount(f), counts(model, f)) for page, f in cached.items()}
    counted = model.counters()
    model.scheme.cpu = step.process or 0  # each process has one of its own
    for line in step.lines():
        result = model.run(line)
    found.generated += 1
    if step.family == "fork":
        world.born.add(names[step.child])
    broken, after = set(), owned(world)
    words = [w for f in reachable for w in (f.refcount, f.compound, f.entire, f.pmds, f.puds, f.large, f.total_pages,
                                            f.vma_count)]
    if model.counters()["underflows"] > counted["underflows"] or any(-(2**30) < w < 0 for w in words):
        broken.add("UF")
    if model.counters()["overflows"] > counted["overflows"]:
        broken.add("OS")
    if broken:
        found.fatal += 1
        note(broken | broken_state(world, scope.processes) & FATAL_STATE, depth)
        return
    lost = [f for f in reachable if not any(f is g for g in after)]
    if any(f.refcount > f.pins for f in lost):
        broken.add("LK")
    if step.family == "migrate" and step.page in cached:
        f = cached[step.page]
        owners = mapped.get(id(f), (0, 0, set()))[2]
        if f.pins == 0 and not f.bad and names[step.process] in owners:
            if "all" in step.words:
                broken |= {"MS"} if result.error or result.done != scope.huge else set()
            elif len(owners) > 1:
                broken |= {"NM"} if result.done else set()
            elif not result.error and not result.done:
                broken.add("MP")
    if step.family in ("punch", "truncate"):
        broken |= {"TC" for page, f in cached.items() if page not in file.cache and not f.pins and f.refcount}
    if step.family in REFUSABLE and result.error and not result.done:
        broken |= {
            "RC"
            for page, f in cached.items()
            if file.cache.get(page) is f and (f.refcount, model.scheme.mapcount(f), counts(model, f)) != before[page]
        }
    key = key_of(world, names)
    if key not in seen:
        state = broken_state(world, scope.processes)
        broken |= state
        if state & FATAL_STATE:
            found.fatal += 1
        else:
            seen.add(key)
            following.append(packed_of(world))
    note(broken, depth)

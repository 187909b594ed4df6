# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One worker of a search: every step from a state, judged; what may be new is kept aside until states are entered.

Workers only read the set of states while they expand, and one thread enters what they kept, in the order of states and
steps. So the states, their numbers, and the traces are the same with any number of threads.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.explore.judge cimport fatal_step, freed_in_use, judge_state, judge_step, prepare
from hgmcore.explore.packing cimport canonical, unpack
from hgmcore.explore.states cimport key_hash, NONE, States, states_find
from hgmcore.explore.tiny cimport (
    enabled, FATAL_STATE, FATAL_STEP, image_restore, MAX_FAMILIES, MAX_WORDS, NR_PROPERTIES, run, Step, Tiny,
    tiny_free
)

cdef extern from *:
    int popcount "__builtin_popcount"(unsigned int) nogil

cdef enum:
    CHUNK = 32                    # states that a worker expands at a time
    RECENT = 1024

# Why a worker stops.
cdef enum:
    GOES_ON, NO_MEMORY, FIELD_MISSING, STRANGE_STATE

# The shortest violation of a property. parent: NONE: the first state itself.
cdef struct Violation:
    bint found
    uint32_t parent
    uint32_t step
    uint32_t depth
    uint32_t families

# A state that the set does not have, or not yet.
cdef struct Candidate:
    uint64_t hash
    uint32_t parent
    uint32_t step
    uint32_t orbit                # states that it stands for
    uint32_t broken
    uint32_t held

cdef struct Worker:
    Tiny t
    const Step *steps
    int nr_steps
    int answer
    uint64_t *keys
    Candidate *candidates
    uint64_t nr, room
    uint32_t recent[RECENT]       # candidates of this chunk by hash, + 1
    uint64_t generated, fatal
    uint64_t done[MAX_FAMILIES]
    uint64_t refused[MAX_FAMILIES]
    uint64_t injected[MAX_FAMILIES]
    Violation violations[NR_PROPERTIES]

cdef inline void worker_free(Worker *w) noexcept nogil:
    tiny_free(&w.t)
    free(w.keys)
    free(w.candidates)

cdef inline uint32_t families_to(const States *s, const Step *steps, uint32_t state) noexcept nogil:
    cdef uint32_t families = 0
    while s.parents[state] != NONE:
        families |= <uint32_t>1 << steps[s.steps[state]].family
        state = s.parents[state]
    return families

cdef inline bint is_better(const Violation *a, const Violation *b) noexcept nogil:
    """Shorter, else fewer different families, else the first in the order of states and steps."""
    if not b.found or a.depth != b.depth:
        return not b.found or a.depth < b.depth
    if popcount(a.families) != popcount(b.families):
        return popcount(a.families) < popcount(b.families)
    return a.parent < b.parent or a.parent == b.parent and a.step < b.step

cdef inline void note(Violation *best, const States *s, const Step *steps, uint32_t broken, uint32_t parent, int step,
                      uint32_t depth) noexcept nogil:
    """Keep the best violation of each property in `broken`. depth: of the step."""
    cdef Violation v
    cdef int k
    v.found = False
    for k in range(NR_PROPERTIES):
        if not broken >> k & 1 or best[k].found and best[k].depth < depth:
            continue
        if not v.found:
            v.found = True
            v.parent, v.step, v.depth, v.families = parent, step, depth, 0
            if parent != NONE:
                v.families = families_to(s, steps, parent) | <uint32_t>1 << steps[step].family
        if is_better(&v, &best[k]):
            best[k] = v

cdef inline bint keep(Worker *w, const uint64_t *key, uint64_t hash, uint32_t parent, int step, int orbit,
                      uint32_t broken, uint32_t held) noexcept nogil:
    cdef uint64_t room = 2 * w.room if w.room else 1 << 12
    cdef int words = w.t.words
    cdef void *grown
    cdef Candidate *c
    if w.nr == w.room:
        grown = realloc(w.keys, room * words * sizeof(uint64_t))
        if grown is NULL:
            return False
        w.keys = <uint64_t *>grown
        grown = realloc(w.candidates, room * sizeof(Candidate))
        if grown is NULL:
            return False
        w.candidates = <Candidate *>grown
        w.room = room
    memcpy(&w.keys[w.nr * words], key, words * sizeof(uint64_t))
    c = &w.candidates[w.nr]
    c.hash, c.parent, c.step, c.orbit, c.broken, c.held = hash, parent, <uint32_t>step, <uint32_t>orbit, broken, held
    w.nr += 1
    w.recent[hash % RECENT] = <uint32_t>w.nr
    return True

cdef inline bint kept(const Worker *w, const uint64_t *key, uint64_t hash) noexcept nogil:
    """Is a state surely among the candidates of this chunk? It may be so without being seen."""
    cdef uint32_t number = w.recent[hash % RECENT]
    cdef int i
    if number == 0 or w.candidates[number - 1].hash != hash:
        return False
    for i in range(w.t.words):
        if w.keys[<uint64_t>(number - 1) * w.t.words + i] != key[i]:
            return False
    return True

cdef inline int expand(Worker *w, const States *s, uint32_t state, uint32_t depth) noexcept nogil:
    """Every step from a state that is `depth` steps from the first; returns why it stops before its end."""
    cdef Tiny *t = &w.t
    cdef uint64_t key[MAX_WORDS]
    cdef uint64_t allocations = 0, hash
    cdef const Step *step
    cdef int i, orbit
    cdef uint32_t broken, fatal, held
    cdef bint changed = False
    unpack(t, &s.keys[<uint64_t>state * s.words])
    prepare(t)
    for i in range(w.nr_steps):
        step = &w.steps[i]
        if changed:
            image_restore(t)
            changed = False
        if not enabled(t, step) or step.fail and step.fail > allocations:
            continue
        changed = True
        if step.fail:
            run(t, step)
            w.injected[step.family] += 1
        else:
            allocations = run(t, step)
            if t.last.error:
                w.refused[step.family] += 1
            else:
                w.done[step.family] += 1
        if t.m.context.out_of_memory:
            return STRANGE_STATE
        w.generated += 1
        canonical(t, key, &orbit)
        if t.seen.grow:
            return FIELD_MISSING
        fatal = fatal_step(t)
        if t.seen.strange and not fatal:
            return STRANGE_STATE
        broken = fatal | judge_step(t, step, fatal != 0)
        if fatal:
            broken |= judge_state(t, True, &held)
        elif t.seen.unbounded or freed_in_use(t):
            broken |= judge_state(t, False, &held)
        else:
            hash = key_hash(key, s.words)
            if not kept(w, key, hash) and states_find(s, key, hash) == NONE:
                held = 0
                fatal = judge_state(t, False, &held)
                if fatal & FATAL_STATE:
                    broken |= fatal
                elif not keep(w, key, hash, state, i, orbit, fatal, held):
                    return NO_MEMORY
        if broken:
            w.fatal += broken & (FATAL_STEP | FATAL_STATE) != 0
            note(w.violations, s, w.steps, broken, state, i, depth + 1)
    return GOES_ON

cdef inline int expand_chunk(Worker *w, const States *s, uint64_t first, uint64_t last, uint32_t depth) noexcept nogil:
    cdef uint64_t state
    memset(w.recent, 0, sizeof(w.recent))
    for state in range(first, last):
        w.answer = expand(w, s, <uint32_t>state, depth)
        if w.answer:
            return w.answer
    return GOES_ON

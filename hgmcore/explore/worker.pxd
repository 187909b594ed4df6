# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One worker of a search: every step from a state, judged; what may be new is kept aside until states are entered.

Workers only read the set of states while they expand, and one thread enters what they kept, in the order of states and
steps. So the states, their numbers, and the traces are the same with any number of threads.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from hgmcore.hgm cimport *
from hgmcore.explore.judge cimport fatal_step, freed_in_use, judge_state, judge_step, prepare
from hgmcore.explore.judged cimport Judged, judged_add, judged_find
from hgmcore.explore.memo cimport (
    DELTA, INJECTED, INSTALLS, LAST, Memo, memo_add, memo_close, memo_find, REFUSED, REFUSES, REMOVES, RUN,
    STEP_BITS
)
from hgmcore.explore.packing cimport look, pack, unpack
from hgmcore.explore.states cimport key_hash, NONE, States, states_find
from hgmcore.explore.symmetry cimport canonical, canonical_key, Chosen, key_order
from hgmcore.explore.tiny cimport (
    enabled, FATAL_STATE, FATAL_STEP, image_restore, MAX_FAMILIES, MAX_WORDS, NR_PROPERTIES, OS, RC, run, Step,
    Tiny, tiny_free, UF
)

cdef extern from *:
    int popcount "__builtin_popcount"(unsigned int) nogil

cdef enum:
    CHUNK = 32                    # states that a worker expands at a time
    RECENT = 1 << 15

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
    Memo memo
    Judged judged
    bint loaded, changed          # the machine is the state that is expanded; a step was run on it
    bint records                  # a record of the memo is written
    uint64_t allocations          # of the last step without a failure
    const Step *steps
    int nr_steps
    const Step *failing           # in which a reaction of the scheme failed; NULL: none
    int answer
    uint64_t *keys
    Candidate *candidates
    uint64_t nr, room
    uint32_t recent[RECENT]       # candidates by hash, + 1
    uint64_t generated, fatal
    uint64_t ran                  # steps that the engine did; the others were recalled
    uint64_t done[MAX_FAMILIES]
    uint64_t refused[MAX_FAMILIES]
    uint64_t injected[MAX_FAMILIES]
    Violation violations[NR_PROPERTIES]

cdef inline void worker_free(Worker *w) noexcept nogil:
    tiny_free(&w.t)
    free(w.memo.entries)
    free(w.judged.verdicts)
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

cdef inline bint keep(Worker *w, const uint64_t *key, uint64_t hash, uint32_t parent, int step, uint32_t orbit,
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
    c.hash, c.parent, c.step, c.orbit, c.broken, c.held = hash, parent, <uint32_t>step, orbit, broken, held
    w.nr += 1
    w.recent[hash % RECENT] = <uint32_t>w.nr
    return True

cdef inline bint kept(const Worker *w, const uint64_t *key, uint64_t hash) noexcept nogil:
    """Is a state surely among the candidates? It may be so without being seen."""
    cdef uint32_t number = w.recent[hash % RECENT]
    cdef int i
    if number == 0 or w.candidates[number - 1].hash != hash:
        return False
    for i in range(w.t.words):
        if w.keys[<uint64_t>(number - 1) * w.t.words + i] != key[i]:
            return False
    return True

cdef inline void count(Worker *w, const Step *step, uint64_t entry) noexcept nogil:
    """A step was taken; entry: what came of it, in the bits of memo.pxd."""
    w.generated += 1
    if entry & INJECTED:
        w.injected[step.family] += 1
    elif entry & REFUSED:
        w.refused[step.family] += 1
    else:
        w.done[step.family] += 1
    w.t.premises[UF] += entry & REMOVES != 0
    w.t.premises[OS] += entry & INSTALLS != 0
    w.t.premises[RC] += entry & REFUSES != 0

cdef inline uint64_t entry_of(const Tiny *t, const Step *step, int number) noexcept nogil:
    """What came of a step that was run."""
    cdef uint64_t entry = number
    if step.fail:
        entry |= INJECTED
    elif t.last.error:
        entry |= REFUSED
    if t.m.context.cost.leaf_removes:
        entry |= REMOVES
    if t.m.context.cost.leaf_installs:
        entry |= INSTALLS
    if step.refusable and t.last.error and t.last.done == 0:
        entry |= REFUSES
    return entry

cdef inline void load(Worker *w, const uint64_t *key) noexcept nogil:
    """Make the machine the state `key`: a new one, or as it was before the last step."""
    if not w.loaded:
        unpack(&w.t, key)
        prepare(&w.t)
        w.loaded = True
    elif w.changed:
        image_restore(&w.t)
    w.changed = False

cdef inline int take(Worker *w, const States *s, const uint64_t *start, uint32_t state, int number, uint32_t depth,
                     const uint64_t *expected) noexcept nogil:
    """Run a step from a state, judge it, keep what may be new. expected: what the memo says, then it is counted."""
    cdef Tiny *t = &w.t
    cdef const Step *step = &w.steps[number]
    cdef uint64_t raw[MAX_WORDS]
    cdef uint64_t key[MAX_WORDS]
    cdef uint64_t hash, entry, allocations
    cdef uint32_t broken, fatal, held = 0
    cdef Chosen c
    load(w, start)
    if expected is NULL and (not enabled(t, step) or step.fail and step.fail > w.allocations):
        return GOES_ON
    w.changed = True
    w.ran += 1
    allocations = run(t, step)
    if t.m.config.options.scheme.failed is not NULL:
        w.failing = step
        return STRANGE_STATE
    if step.fail == 0:
        w.allocations = allocations
    if t.m.context.out_of_memory:
        return STRANGE_STATE
    entry = entry_of(t, step, number)
    if expected is NULL:
        count(w, step, entry)
    look(t)
    pack(t, t.permutations[0], raw)
    if t.seen.grow:
        return FIELD_MISSING
    fatal = fatal_step(t)
    if t.seen.strange and not fatal:
        broken = judge_state(t, True, &held)
        if broken == 0:
            return STRANGE_STATE
        if w.records and step.local and expected is NULL:
            memo_add(&w.memo, entry | RUN, start, start)
        w.fatal += 1    # as a leaf of a page that was freed
        note(w.violations, s, w.steps, broken, state, number, depth + 1)
        return GOES_ON
    if expected is not NULL and key_order(t, raw, expected):
        return STRANGE_STATE
    broken = fatal | judge_step(t, step, fatal != 0)
    if fatal:
        broken |= judge_state(t, True, &held)
    elif t.seen.unbounded or freed_in_use(t):
        broken |= judge_state(t, False, &held)
    else:
        if w.records and step.local and expected is NULL:
            memo_add(&w.memo, entry | RUN if broken else entry, start, raw)
        canonical(t, raw, key, &c)
        hash = key_hash(key, s.words)
        if states_find(s, key, hash) == NONE and not kept(w, key, hash):
            fatal = judge_state(t, False, &held)
            if fatal & FATAL_STATE:
                broken |= fatal
            elif not keep(w, key, hash, state, number, c.orbit, fatal, held):
                return NO_MEMORY
            else:
                judged_add(&w.judged, key, hash, s.words, fatal, held)
        if broken:
            w.fatal += broken & FATAL_STATE != 0
            note(w.violations, s, w.steps, broken, state, number, depth + 1)
        return GOES_ON
    if w.records and step.local and expected is NULL:
        memo_add(&w.memo, entry | RUN, start, start)
    w.fatal += broken & (FATAL_STEP | FATAL_STATE) != 0
    note(w.violations, s, w.steps, broken, state, number, depth + 1)
    return GOES_ON

cdef inline int recall(Worker *w, const States *s, const uint64_t *start, uint32_t state, int first, int last,
                       uint32_t depth, const uint64_t *entry) noexcept nogil:
    """As take() of the steps from `first` to before `last`, of which the local ones are in a record of the memo."""
    cdef Tiny *t = &w.t
    cdef uint64_t raw[MAX_WORDS]
    cdef uint64_t key[MAX_WORDS]
    cdef uint64_t hash, e
    cdef const uint64_t *verdict
    cdef int i, k, answer
    cdef Chosen c
    for i in range(first, last):
        e = entry[0]
        if not w.steps[i].local:
            answer = take(w, s, start, state, i, depth, NULL)
            if answer:
                return answer
            continue
        if e & LAST or e & STEP_BITS != <uint64_t>i:
            continue    # not enabled
        entry += 1
        if e & RUN:
            w.allocations = 1 << 20    # the record has those that may fail
            answer = take(w, s, start, state, i, depth, NULL)
            if answer:
                return answer
            continue
        count(w, &w.steps[i], e)
        if not e & DELTA:
            continue
        for k in range(s.words):
            raw[k] = start[k] ^ entry[k]
        entry += s.words
        canonical_key(t, raw, key, &c)
        hash = key_hash(key, s.words)
        if states_find(s, key, hash) != NONE or kept(w, key, hash):
            continue
        verdict = judged_find(&w.judged, key, hash, s.words)
        if verdict is NULL:
            answer = take(w, s, start, state, i, depth, raw)
            if answer:
                return answer
        elif not keep(w, key, hash, state, i, c.orbit, <uint32_t>verdict[0], <uint32_t>verdict[1]):
            return NO_MEMORY
    return GOES_ON

cdef inline int expand(Worker *w, const States *s, uint32_t state, uint32_t depth) noexcept nogil:
    """Every step from a state that is `depth` steps from the first; returns why it stops before its end."""
    cdef uint64_t start[MAX_WORDS]
    cdef const uint64_t *entry
    cdef int i = 0, end, group, answer
    memcpy(start, &s.keys[<uint64_t>state * s.words], s.words * sizeof(uint64_t))
    w.loaded = w.changed = w.records = False
    while i < w.nr_steps:
        end = i
        group = w.steps[i].group
        while end < w.nr_steps and w.steps[end].group == group:
            end += 1
        if w.memo.on:
            entry = memo_find(&w.memo, start, group, end - i, &w.records)
            if entry is not NULL:
                answer = recall(w, s, start, state, i, end, depth, entry)
                if answer:
                    return answer
                i = end
                continue
        while i < end:
            answer = take(w, s, start, state, i, depth, NULL)
            if answer:
                return answer
            i += 1
        if w.records:
            memo_close(&w.memo)
            w.records = False
    return GOES_ON

cdef inline void forget(Worker *w) noexcept nogil:
    """The candidates were entered."""
    cdef uint64_t i
    for i in range(w.nr):
        w.recent[w.candidates[i].hash % RECENT] = 0
    w.nr = w.judged.used = 0

cdef inline int expand_chunk(Worker *w, const States *s, uint64_t first, uint64_t last, uint32_t depth) noexcept nogil:
    cdef uint64_t state
    for state in range(first, last):
        w.answer = expand(w, s, <uint32_t>state, depth)
        if w.answer:
            return w.answer
    return GOES_ON

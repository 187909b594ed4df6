# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The search: every step from every state of a tiny machine, level by level, until no new state appears.

A step is one operation record that the scheme's own engine runs (Engine.run), on a machine whose memory the search
owns (tiny.pxd). States are whole machines in a few words (packing.pxd), in an exact set (states.pxd); workers expand
them (worker.pxd) and judge what they find (judge.pxd).

Which fields a packed state has is found by use: a search that meets a word that is not zero and not among its fields
stops with `grow` set, and is begun anew with it.
"""
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.explore.judge cimport fatal_step, judge_state, judge_step, prepare
from hgmcore.explore.judged cimport judged_clear, judged_new
from hgmcore.explore.making cimport tiny_make
from hgmcore.explore.memo cimport GROUPS, Memo, memo_empty, memo_new, STEP_BITS
from hgmcore.explore.packing cimport (
    Bits, CHILDREN, DOUBLE_MAP, ENTIRE, LARGE, look, MARKS, NR_PAGES_MAPPED, pack, PER_PAGE, POISON, PRIVATE,
    PRIVATE_BITS, replace, SLOTS, SPREAD, state_bits, STRANGE, TOTAL, unpack
)
from hgmcore.explore.states cimport (
    AHEAD, bytes_of_state, key_hash, NONE, States, states_enter, states_expect, states_find, states_free, states_new
)
from hgmcore.explore.symmetry cimport canonical, Chosen, FIRST_STAYS, PAGES_MOVE, PAGES_STAY
from hgmcore.explore.tiny cimport (
    ALIVE, ALWAYS, blank, FORKABLE, MAPPED, MAX_WORDS, NR_PROPERTIES, PINNABLE, run, Step, Tiny, UNMAPPED, UNPINNABLE
)
from hgmcore.explore.worker cimport (
    Candidate, CHUNK, expand_chunk, FIELD_MISSING, forget, GOES_ON, is_better, NO_MEMORY, note, STRANGE_STATE,
    Violation, Worker, worker_free
)

import numpy as np

cdef extern from *:
    uint64_t fetch_add "__atomic_fetch_add"(uint64_t *at, uint64_t value, int order) noexcept nogil

cdef enum:
    MAX_CHUNKS = 128              # that workers expand before what they found is entered
    MAX_DEPTH = 1 << 12

PAGES = {"stay": PAGES_STAY, "first stays": FIRST_STAYS, "move": PAGES_MOVE}
FIELDS = {"marks": MARKS, "children": CHILDREN, "poison": POISON, "entire": ENTIRE, "nr_pages_mapped": NR_PAGES_MAPPED,
          "large": LARGE, "total": TOTAL, "page counts": PER_PAGE, "double_map": DOUBLE_MAP, "owner slots": SLOTS,
          "another word": STRANGE, "spread": SPREAD, "private": PRIVATE}
PRIVATE_LIMIT = 1 << PRIVATE_BITS

STEP = np.dtype([("offset", "<u8"), ("length", "<u8"), ("target", "<u4"), ("arg", "<u2"), ("op", "u1"), ("flags", "u1"),
                 ("family", "u1"), ("need", "u1"), ("process", "u1"), ("child", "u1"), ("page", "u1"), ("fail", "u1"),
                 ("moves", "u1"), ("refusable", "u1"),
                 ("local", "u1"), ("group", "u1")], align=True)
NEEDS = {"always": ALWAYS, "mapped": MAPPED, "unmapped": UNMAPPED, "alive": ALIVE, "forkable": FORKABLE,
         "pinnable": PINNABLE, "unpinnable": UNPINNABLE}


def _started(threads):
    """A pool whose threads run already, so that a search does not find out half-way that it cannot have them."""
    pool, all_here = ThreadPoolExecutor(threads), Barrier(threads)
    try:
        wait([pool.submit(all_here.wait) for _ in range(threads)])
    except RuntimeError:    # can't start new thread
        all_here.abort()
        raise MemoryError("no memory for a thread") from None
    return pool


cdef Chosen see(Tiny *t, uint64_t *key) noexcept nogil:
    """Look at the machine and pack it."""
    cdef Chosen c
    cdef uint64_t raw[MAX_WORDS]
    look(t)
    pack(t, t.permutations[0], raw)
    canonical(t, raw, key, &c)
    return c


cdef class Search:
    """Every state of one scheme on one tiny machine.

    core: a machine with one file, its processes and one mapping in each, on which nothing ran. engine: its scheme.
    born: processes that there are at the start. maxpins: pins that a state may have. steps: an array of STEP, in the
    order in which they are tried. permutations: rows of process numbers, the identity first. fields: of FIELDS, or'ed.
    poison: whether base pages may fail. pages: of PAGES, which base pages may be exchanged. threads:
    that expand states side by side; memo: keep what steps do (memo.pxd). Neither changes an answer.
    """
    cdef Core core
    cdef Engine engine
    cdef States states
    cdef Worker **workers
    cdef int nr_workers
    cdef object steps_array, pool
    cdef const Step *steps
    cdef uint64_t next_state, level_end
    cdef uint32_t depth_now
    cdef uint64_t *by_depth
    cdef uint64_t premises[NR_PROPERTIES]
    cdef uint64_t orbits_
    cdef Violation violations[NR_PROPERTIES]
    # chunks of states that workers expand now
    cdef uint64_t first, last, chunk
    cdef int owner[MAX_CHUNKS]
    cdef uint64_t from_[MAX_CHUNKS]
    cdef uint64_t to[MAX_CHUNKS]

    def __cinit__(self, Core core, Engine engine, int born, int maxpins, steps, permutations, uint32_t fields,
                  bint poison, int pages=PAGES_STAY, int threads=1, bint memo=True):
        cdef int i
        cdef Worker *w
        core.fits(engine)
        self.core, self.engine = core, engine
        self.steps_array = np.ascontiguousarray(steps, STEP)
        self.steps = <const Step *><size_t>self.steps_array.ctypes.data
        self.workers = <Worker **>calloc(threads, sizeof(Worker *))
        self.by_depth = <uint64_t *>calloc(MAX_DEPTH, sizeof(uint64_t))
        if self.workers is NULL or self.by_depth is NULL:
            raise MemoryError("no memory for a search")
        for i in range(threads):
            w = self.workers[i] = <Worker *>calloc(1, sizeof(Worker))
            if w is NULL:
                raise MemoryError("no memory for a search")
            self.nr_workers += 1
            w.steps, w.nr_steps = self.steps, len(steps)
            tiny_make(&w.t, core, engine, born, maxpins, permutations, pages, fields, poison)
            self.make_memo(w, memo, threads)
            if threads > 1 and not judged_new(&w.judged, NULL if i == 0 else &self.workers[0].judged):
                raise MemoryError("no memory for a search")
        if not states_new(&self.states, self.workers[0].t.words):
            raise MemoryError("no memory for a search")
        self.pool = _started(threads) if threads > 1 else None

    def __dealloc__(self):
        cdef int i
        if self.nr_workers:
            free(self.workers[0].memo.slots)
            free(self.workers[0].judged.slots)
        for i in range(self.nr_workers):
            worker_free(self.workers[i])
            free(self.workers[i])
        free(self.workers)
        free(self.by_depth)
        states_free(&self.states)

    cdef int make_memo(self, Worker *w, bint wanted, int threads) except -1:
        """Marks say of a folio only by a number that depends on all processes; then there is no memo."""
        cdef Memo *o = &w.memo
        cdef Tiny *t = &w.t
        cdef int g, i
        cdef Bits b
        o.on = wanted and not t.fields & MARKS and w.nr_steps <= STEP_BITS
        if not o.on:
            return 0
        if not memo_new(o, t.words, NULL if w is self.workers[0] else &self.workers[0].memo, threads):
            raise MemoryError("no memory for a search")
        for g in range(GROUPS):
            for i in range(t.words):
                o.mask[g][i] = ~<uint64_t>0
            b.words = o.mask[g]
            b.at = 2 + t.H
            for i in range(t.P):
                if i == g:
                    b.at += t.process_bits
                else:
                    replace(&b, 0, t.process_bits)
        return 0

    cdef Tiny *empty(self):
        """A machine with nothing in it, in the first worker's memory."""
        cdef Tiny *t = &self.workers[0].t
        blank(t)
        t.m.state.files[0].size = t.H
        t.seen.unborn = t.before.unborn = ((<uint32_t>1 << t.P) - 1) & ~((<uint32_t>1 << t.born) - 1)
        t.before.nr_folios = 0
        return t

    def begin(self, first):
        """Run the records of `first` (an array of STEP) on an empty machine: what they leave is the first state.

        False: a field is missing (`grow`).
        """
        cdef uint64_t key[MAX_WORDS]
        cdef int i
        cdef uint32_t held
        cdef Chosen c
        cdef Tiny *t = self.empty()
        cdef const Step *steps
        array = np.ascontiguousarray(first, STEP)
        steps = <const Step *><size_t>array.ctypes.data
        for i in range(len(array)):
            run(t, &steps[i])
            self.core.obeyed(self.engine, &steps[i].op, i)
            if t.last.error:
                raise ValueError("the scope's initial state cannot be reached")
        c = see(t, key)
        if t.seen.grow:
            return False
        note(self.violations, &self.states, self.steps, judge_state(t, False, &held), NONE, 0, 0)
        self.enter(key, key_hash(key, t.words), NONE, 0, c.orbit, held)
        self.level_end = 1
        self.by_depth[0] = 1
        return True

    cdef bint enter(self, const uint64_t *key, uint64_t hash, uint32_t parent, int step, uint32_t orbit,
                    uint32_t held) noexcept nogil:
        cdef int k
        if not states_enter(&self.states, key, hash, parent, step):
            return False
        self.orbits_ += orbit
        for k in range(NR_PROPERTIES):
            self.premises[k] += held >> k & 1
        return True

    cdef void empty_memo(self) noexcept nogil:
        """Where a worker's is full; no worker may run."""
        cdef int i
        cdef bint full = False
        for i in range(self.nr_workers):
            full |= self.workers[i].memo.full
        if full:
            for i in range(self.nr_workers):
                memo_empty(&self.workers[i].memo)

    cdef int enter_chunk(self, int chunk) noexcept nogil:
        """Enter what a chunk's worker kept, in the order in which it found it."""
        cdef Worker *w = self.workers[self.owner[chunk]]
        cdef Candidate *c
        cdef const uint64_t *key
        cdef uint64_t i
        for i in range(self.from_[chunk], self.to[chunk]):
            if i + AHEAD < self.to[chunk]:
                states_expect(&self.states, w.candidates[i + AHEAD].hash)
            c = &w.candidates[i]
            key = &w.keys[i * self.states.words]
            if states_find(&self.states, key, c.hash) != NONE:
                continue
            if not self.enter(key, c.hash, c.parent, c.step, c.orbit, c.held):
                return NO_MEMORY
            if c.broken:
                note(self.violations, &self.states, self.steps, c.broken, c.parent, c.step, self.depth_now + 1)
        return GOES_ON

    def _work(self, int number):
        """Expand chunks until none is left."""
        cdef Worker *w = self.workers[number]
        cdef uint64_t chunk, first
        with nogil:
            forget(w)
            while True:
                chunk = fetch_add(&self.chunk, 1, 0)
                first = self.first + chunk * CHUNK
                if first >= self.last:
                    break
                self.owner[chunk] = number
                self.from_[chunk] = w.nr
                expand_chunk(w, &self.states, first, min(first + CHUNK, self.last), self.depth_now)
                self.to[chunk] = w.nr
                if w.answer:
                    break

    cdef int expand_alone(self, uint64_t first, uint64_t last) noexcept nogil:
        cdef int answer
        cdef uint64_t end
        self.owner[0] = 0
        self.from_[0] = 0
        while first < last:
            end = min(first + CHUNK, last)
            forget(self.workers[0])
            self.empty_memo()
            answer = expand_chunk(self.workers[0], &self.states, first, end, self.depth_now)
            if answer == GOES_ON:
                self.to[0] = self.workers[0].nr
                answer = self.enter_chunk(0)
            if answer:
                return answer
            first = end
        return GOES_ON

    cdef int obeyed(self) except -1:
        """SchemeError if a reaction failed, in the step that the search stopped at."""
        cdef int i
        for i in range(self.nr_workers):
            if self.workers[i].failing is not NULL:
                return self.core.obeyed(self.engine, &self.workers[i].failing.op, self.depth_now)
        return self.core.obeyed(self.engine)

    cdef int expand_states(self, uint64_t first, uint64_t last) except -1:
        """Expand states of one level, and enter what comes of them."""
        cdef int answer = GOES_ON, i
        cdef uint64_t end
        if self.nr_workers == 1 or last - first < 4 * CHUNK:
            with nogil:
                answer = self.expand_alone(first, last)
            return answer
        while first < last and answer == GOES_ON:
            end = min(last, first + MAX_CHUNKS * CHUNK)
            self.first, self.last, self.chunk = first, end, 0
            self.empty_memo()
            judged_clear(&self.workers[0].judged)
            futures = [self.pool.submit(self._work, i) for i in range(self.nr_workers)]
            try:
                wait(futures)
            finally:    # Ctrl-C: no worker may run while others read what was found
                self.chunk = MAX_CHUNKS
                wait(futures)
            for future in futures:
                future.result()
            for i in range(self.nr_workers):
                answer = max(answer, self.workers[i].answer)
            if answer == GOES_ON:
                with nogil:
                    for i in range(<int>((end - first + CHUNK - 1) // CHUNK)):
                        answer = self.enter_chunk(i)
                        if answer:
                            break
            first = end
        return answer

    def advance(self, uint64_t n, bint one_level=False):
        """Expand the next `n` states at most; one_level: none behind the level that is begun.

        "closed", "more"; "grow": begin anew with the fields of `grow`; "strange": the machine is what no state can be.

        MemoryError: no room for more states; those before are whole.
        """
        cdef int answer = GOES_ON
        cdef uint64_t i = 0, size
        while i < n and self.next_state < self.states.nr:
            if self.next_state == self.level_end:
                if one_level and i:
                    break
                self.depth_now += 1
                self.by_depth[self.depth_now] = self.states.nr - self.level_end
                self.level_end = self.states.nr
            size = min(n - i, self.level_end - self.next_state)
            answer = self.expand_states(self.next_state, self.next_state + size)
            if answer:
                break
            self.next_state += size
            i += size
        if answer == NO_MEMORY:
            raise MemoryError("no memory for more states")
        self.obeyed()
        if answer == FIELD_MISSING:
            return "grow"
        if answer == STRANGE_STATE:
            return "strange"
        return "closed" if self.next_state == self.states.nr else "more"

    @property
    def pending(self):
        """States that were entered and not expanded."""
        return self.states.nr - self.next_state

    def replay(self, first, steps):
        """Run `steps` (an array of STEP) one after another behind those of `first`, without packing a state in between.

        Returns the numbers of the properties that the last of them breaks, or the state behind it.
        """
        cdef int i
        cdef uint64_t key[MAX_WORDS]
        cdef uint32_t fatal, held, broken = 0
        cdef Tiny *t = self.empty()
        cdef const Step *step
        array = np.ascontiguousarray(np.concatenate([first, steps]), STEP)
        step = <const Step *><size_t>array.ctypes.data
        for i in range(len(array)):
            prepare(t)
            run(t, &step[i])
            see(t, key)
            fatal = fatal_step(t)
            broken = fatal | judge_step(t, &step[i], fatal != 0) | judge_state(t, fatal != 0, &held)
            t.before.unborn = t.seen.unborn
        return [k for k in range(NR_PROPERTIES) if broken >> k & 1]

    def number(self, first, steps):
        """The number of the state that `steps` lead to, behind those of `first` (arrays of STEP); None: not entered."""
        cdef uint64_t key[MAX_WORDS]
        cdef uint32_t number
        cdef Tiny *t = &self.workers[0].t
        self.replay(first, steps)
        see(t, key)
        number = states_find(&self.states, key, key_hash(key, t.words))
        return None if number == NONE else number

    def round_trip(self, uint64_t state) -> bool:
        """Is a state, made a machine and packed again, the same?"""
        cdef uint64_t key[MAX_WORDS]
        cdef Tiny *t = &self.workers[0].t
        if state >= self.states.nr:
            raise IndexError(state)
        unpack(t, &self.states.keys[state * t.words])
        t.seen.unborn = t.before.unborn
        see(t, key)
        return memcmp(key, &self.states.keys[state * t.words], t.words * sizeof(uint64_t)) == 0

    def path(self, state):
        """How a state was reached, from the first on; None: nothing. For each step: (step, permutation, pages).

        permutation: number of the one that made the state behind the step the least; pages: of each huge page, which
        base page then came to each place.
        """
        cdef uint64_t key[MAX_WORDS]
        cdef uint32_t parent
        cdef int h, k
        cdef Chosen c
        cdef Tiny *t = &self.workers[0].t
        out = []
        while state is not None and self.states.parents[<uint64_t>state] != NONE:
            parent = self.states.parents[<uint64_t>state]
            unpack(t, &self.states.keys[<uint64_t>parent * t.words])
            run(t, &self.steps[self.states.steps[<uint64_t>state]])
            c = see(t, key)
            pages = [[c.pages[h][k] if t.page_symmetry != PAGES_STAY else k for k in range(t.N)] for h in range(t.H)]
            out.append((self.states.steps[<uint64_t>state], c.permutation, pages))
            state = parent
        return out[::-1]

    def violation(self, int k):
        """(length, state before its last step or None, that step or None) of the shortest violation of k, or None."""
        cdef Violation best = self.violations[k]
        cdef int i
        for i in range(self.nr_workers):
            if self.workers[i].violations[k].found and is_better(&self.workers[i].violations[k], &best):
                best = self.workers[i].violations[k]
        if not best.found:
            return None
        return best.depth, (None if best.parent == NONE else best.parent), (None if best.parent == NONE else best.step)

    @property
    def keys(self):
        """All states, packed: an array of words, one row each."""
        cdef uint64_t[:, ::1] keys = <uint64_t[:self.states.nr, :self.states.words]>self.states.keys
        return np.array(keys)

    @property
    def grow(self):
        """Fields that a state needs and this search has not."""
        grow = 0
        for i in range(self.nr_workers):
            grow |= self.workers[i].t.seen.grow
        return grow

    @property
    def distinct(self):
        return self.states.nr

    @property
    def generated(self):
        return sum([self.workers[i].generated for i in range(self.nr_workers)])

    @property
    def ran(self):
        """Steps that the engine ran; what came of the others was known."""
        return sum([self.workers[i].ran for i in range(self.nr_workers)])

    @property
    def fatal(self):
        return sum([self.workers[i].fatal for i in range(self.nr_workers)])

    @property
    def orbits(self):
        """The states that those entered stand for."""
        return self.orbits_

    @property
    def depth(self):
        """The greatest depth at which a state was entered; by_depth: how many at each."""
        return len(self.by_depths) - 1

    @property
    def complete_depth(self):
        """The last depth of which every state was expanded, or -1."""
        cdef int depth = <int>self.depth_now
        return depth if self.next_state == self.level_end else depth - 1

    @property
    def by_depths(self):
        out = [self.by_depth[i] for i in range(self.depth_now + 1)]
        if self.states.nr > self.level_end:
            out.append(self.states.nr - self.level_end)
        return out

    @property
    def bytes_per_state(self):
        """Bytes that one state takes, its place in the set included."""
        return bytes_of_state(&self.states)

    @property
    def key_bits(self):
        return state_bits(&self.workers[0].t)

    def executed(self, int family):
        """How often steps of a family did something, were refused, or had an allocation fail."""
        return {"done": sum([self.workers[i].done[family] for i in range(self.nr_workers)]),
                "refused": sum([self.workers[i].refused[family] for i in range(self.nr_workers)]),
                "injected": sum([self.workers[i].injected[family] for i in range(self.nr_workers)])}

    def premise(self, int k):
        """How often a property's premise held: at states, or at generated steps."""
        return self.premises[k] + sum([self.workers[i].t.premises[k] for i in range(self.nr_workers)])

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Races: two operations at once from one state of a tiny machine, in every order of their accesses.

Each operation is a thread that is cut before each access to memory that the other may reach, and before each lock
(race_threads.pxd). A global state is the machine, both threads and the locks that they hold (race_state.pxd); from each
the explorer lets either thread go on to its next cut, so it meets every interleaving. They are sequentially consistent:
that a processor or a compiler may reorder accesses is out of scope.

States are visited by rising number of preemptions: switches away from a thread that could have gone on.
"""
from libc.string cimport memcmp, memset

from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.explore.graph cimport Graph, graph_clear, graph_free, graph_new, Node, node_enter, NOWHERE
from hgmcore.explore.making cimport tiny_make
from hgmcore.explore.packing cimport look, pack, unpack
from hgmcore.explore.pool cimport NO_PIECE, pool_clear
from hgmcore.explore.race_judge cimport at_rest, DEADLOCK, NR_BROKEN
from hgmcore.explore.race_memory cimport memory, place
from hgmcore.explore.race_state cimport (
    machine_restore, machine_take, race_begin, race_free, race_new, thread_restore, thread_take
)
from hgmcore.explore.race_threads cimport (
    alone, answers_of, by_itself, ended, go, HGM_ACCESSES, hgm_coroutine, HGM_ENDED, hgm_race, HGM_TRIES, HGM_WAITS,
    hooks, Race, runnable, start
)
from hgmcore.explore.states cimport key_hash, NONE, States, states_enter, states_find, states_free, states_new
from hgmcore.explore.symmetry cimport canonical, Chosen, PAGES_STAY
from hgmcore.explore.tiny cimport enabled, FORKABLE, MAX_PROCESSES, MAX_WORDS, Step, Tiny

import numpy as np

from hgmcore.core.machine import PAGE
from hgmcore.explore.search import STEP

ACCESSES, WAITS, TRIES = HGM_ACCESSES, HGM_WAITS, HGM_TRIES

# The worst that a pair came to: fewest preemptions, then fewest steps.
cdef struct Worst:
    bint found
    uint32_t preemptions
    uint32_t depth
    uint32_t node

cdef class Races:
    """Interleavings of pairs of steps of one scheme on one tiny machine.

    core, engine, born, maxpins, steps, permutations, fields, poison: as of the Search that closed. racing: the engine
    that can be cut. keys: the states that the search found, rows of words.
    """
    cdef Core core
    cdef Engine engine
    cdef Engine racing
    cdef Race r
    cdef States states
    cdef object steps_array
    cdef const Step *steps
    cdef Graph graph
    cdef uint32_t a, b            # the pair: numbers of steps
    cdef uint32_t start           # the machine that it starts from
    cdef uint64_t sequential[2][MAX_WORDS]
    cdef hgm_result answers[2][2]
    cdef uint32_t anyway          # what either order breaks
    cdef Worst worst[NR_BROKEN]
    cdef list collected           # outcomes, where somebody asks for them
    cdef readonly uint64_t outcomes, odd, benign, unjudged

    def __cinit__(self, Core core, Engine engine, Engine racing, int born, int maxpins, steps, permutations,
                  uint32_t fields, bint poison, const uint64_t[:, ::1] keys):
        cdef uint64_t i
        core.fits(engine)
        if racing.race is NULL:
            raise ValueError(f"the engine of {racing.name} was not compiled for races")
        self.core, self.engine, self.racing = core, engine, racing
        self.r.hooks = <hgm_race *>racing.race
        self.steps_array = np.ascontiguousarray(steps, STEP)
        self.steps = <const Step *><size_t>self.steps_array.ctypes.data
        tiny_make(&self.r.t, core, racing, born, maxpins, permutations, PAGES_STAY, fields, poison)
        if <int>keys.shape[1] != self.r.t.words:
            raise ValueError("these states are not of this scope")
        if not race_new(&self.r) or not states_new(&self.states, self.r.t.words) or not graph_new(&self.graph):
            raise MemoryError("no memory for races")
        for i in range(<uint64_t>keys.shape[0]):
            if not states_enter(&self.states, &keys[i, 0], key_hash(&keys[i, 0], self.r.t.words), NONE, 0):
                raise MemoryError("no memory for races")

    def __dealloc__(self):
        race_free(&self.r)
        states_free(&self.states)
        graph_free(&self.graph)

    # -- judging

    cdef uint32_t rest(self) noexcept nogil:
        by_itself(&self.r)
        return at_rest(&self.r.t)

    cdef void unborn_after(self) noexcept nogil:
        """Which processes there are not, behind both steps."""
        cdef const Step *step
        cdef int i
        self.r.t.seen.unborn = self.r.t.before.unborn
        for i in range(2):
            step = &self.steps[self.b if i else self.a]
            if step.need == FORKABLE:
                self.r.t.seen.unborn &= ~(<uint32_t>1 << step.child)

    cdef void pack_now(self, uint64_t *key) noexcept nogil:
        """The machine behind both steps as a packed state, each process in its own place."""
        cdef int order[MAX_PROCESSES]
        cdef int i
        for i in range(MAX_PROCESSES):
            order[i] = i
        self.unborn_after()
        look(&self.r.t)
        pack(&self.r.t, order, key)

    cdef void one_after_another(self, int first) noexcept nogil:
        """Keep what running step `first` of the pair and then the other comes to."""
        machine_restore(&self.r, self.start)
        alone(&self.r, first)
        alone(&self.r, 1 - first)
        self.pack_now(self.sequential[first])
        answers_of(&self.r, self.answers[first])
        self.anyway |= self.rest()

    cdef uint32_t outcome(self) noexcept nogil:
        """Both threads have ended: is it what some order comes to, and if not, what is wrong with it?"""
        cdef Tiny *t = &self.r.t
        cdef uint64_t key[MAX_WORDS]
        cdef hgm_result answers[2]
        cdef uint64_t least[MAX_WORDS]
        cdef Chosen chosen
        cdef int i
        cdef uint32_t broken
        cdef bint clean
        self.outcomes += 1
        if self.collected is not None:
            self.collect()
        self.pack_now(key)
        clean = not (t.seen.strange or t.seen.negative or t.seen.unbounded or t.seen.grow
                     or t.m.context.cost.underflows)
        answers_of(&self.r, answers)
        if clean:
            for i in range(2):
                if (memcmp(key, self.sequential[i], t.words * sizeof(uint64_t)) == 0
                        and memcmp(answers, self.answers[i], sizeof(answers)) == 0):
                    return 0
        self.odd += 1
        if clean:
            canonical(t, key, least, &chosen)
            if states_find(&self.states, least, key_hash(least, t.words)) != NONE:
                self.benign += 1
                return 0
        broken = self.rest() & ~self.anyway
        if broken == 0:
            self.unjudged += 1
        return broken

    cdef int collect(self) except -1 with gil:
        cdef hgm_result answers[2]
        answers_of(&self.r, answers)
        both = [(answers[i].error, answers[i].done, answers[i].event) for i in range(2)]
        self.collected.append((both, self.words()))
        return 0

    cdef dict words(self):
        """memory() of now, with the struct pages as an array."""
        cdef dict found = memory(&self.r.t, &self.r.beside)
        found["pages"] = np.frombuffer(found["pages"], PAGE)
        return found

    cdef void note(self, uint32_t broken, uint32_t node) noexcept nogil:
        cdef int k
        cdef Worst *w
        cdef const Node *n = &self.graph.nodes[node]
        for k in range(NR_BROKEN):
            w = &self.worst[k]
            if broken >> k & 1 and (not w.found or n.preemptions < w.preemptions
                                    or n.preemptions == w.preemptions and n.depth < w.depth):
                w.found, w.preemptions, w.depth, w.node = True, n.preemptions, n.depth, node

    # -- the graph of global states

    cdef int expand(self, uint32_t number) noexcept nogil:
        """Let either thread go on from a state. 0: the host has no memory."""
        cdef Node n = self.graph.nodes[number]
        cdef Node next
        cdef int i
        cdef bint can[2]
        machine_restore(&self.r, n.machine)
        for i in range(2):
            thread_restore(&self.r, i, n.thread[i])
        for i in range(2):
            can[i] = runnable(&self.r, i)
        if not can[0] and not can[1]:
            if n.same:    # judged before
                return 1
            if ended(&self.r):
                hooks(&self.r, False)
                self.note(self.outcome(), number)
                hooks(&self.r, True)
            else:
                self.note(1 << DEADLOCK, number)
            return 1
        for i in range(2):
            if not can[i]:
                continue
            if i == 1 and can[0]:
                machine_restore(&self.r, n.machine)
                thread_restore(&self.r, 1, n.thread[1])
            go(&self.r, i)
            next.machine = machine_take(&self.r)
            next.thread[i] = thread_take(&self.r, i)
            next.thread[1 - i] = n.thread[1 - i]
            if next.machine == NO_PIECE or next.thread[i] == NO_PIECE:
                return 0
            next.parent, next.depth, next.last = number, n.depth + 1, i
            next.preemptions = n.preemptions + (n.last == 1 - i and can[1 - i])
            if not node_enter(&self.graph, &next):
                return 0
        return 1

    cdef int explore(self, uint32_t bound) noexcept nogil:
        """Every interleaving with at most `bound` preemptions from the start. 0: the host has no memory."""
        cdef Node first
        cdef int i
        cdef uint64_t at
        cdef uint32_t preemptions = 0, node
        pool_clear(&self.r.stacks)
        graph_clear(&self.graph)
        memset(self.worst, 0, sizeof(self.worst))
        machine_restore(&self.r, self.start)
        hooks(&self.r, True)
        for i in range(2):
            start(&self.r, i)
            first.thread[i] = thread_take(&self.r, i)
            if first.thread[i] == NO_PIECE:
                return 0
        first.machine = machine_take(&self.r)
        first.parent = NOWHERE
        first.preemptions = first.depth = 0
        first.last = -1
        if first.machine == NO_PIECE or not node_enter(&self.graph, &first):
            return 0
        while preemptions <= bound and self.graph.queue_used[preemptions & 1]:
            at = 0
            while at < self.graph.queue_used[preemptions & 1]:
                node = self.graph.queue[preemptions & 1][at]
                at += 1
                if self.graph.nodes[node].done:
                    continue
                self.graph.nodes[node].done = 1
                if not self.expand(node):
                    return 0
            self.graph.queue_used[preemptions & 1] = 0
            preemptions += 1
        return 1

    @property
    def states_met(self):
        """Global states, of all pairs so far."""
        return self.graph.states

    def pair(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks, bound=None):
        """Race steps `a` and `b` from a state. locks: a bit for each class that is taken; from bit 8 on, repairs.

        None: one of them is not enabled there. Else [(number of what is broken, preemptions, schedule)], the schedule
        being the thread (0: a) of each access in turn. MemoryError: the states do not fit.
        """
        cdef int k, answer
        cdef uint32_t limit = NONE if bound is None else bound
        self.begin(state, a, b, locks)
        if not enabled(&self.r.t, &self.steps[a]) or not enabled(&self.r.t, &self.steps[b]):
            return None
        self.start = race_begin(&self.r)
        self.anyway = 0
        self.one_after_another(0)
        self.one_after_another(1)
        answer = self.explore(limit)
        hooks(&self.r, False)
        if not answer:
            raise MemoryError("no memory for the states of a race")
        return [(k, self.worst[k].preemptions, self.schedule(self.worst[k].node)) for k in range(NR_BROKEN)
                if self.worst[k].found]

    def same_alone(self, uint64_t state, uint32_t a, uint32_t locks):
        """Does step `a`, cut everywhere with nobody else about, come to what the scheme's own engine comes to?

        None: it is not enabled.
        """
        cdef uint64_t keys[2][MAX_WORDS]
        cdef hgm_result answers[2][2]
        cdef int i
        self.begin(state, a, a, locks)
        if not enabled(&self.r.t, &self.steps[a]):
            return None
        self.start = race_begin(&self.r)
        for i in range(2):
            machine_restore(&self.r, self.start)
            if i == 0:
                self.engine.run(&self.r.t.m, &self.r.operations[0], 1, 0)
            else:
                hooks(&self.r, True)
                start(&self.r, 0)
                while self.r.threads[0].next != HGM_ENDED:
                    go(&self.r, 0)
                hooks(&self.r, False)
            answers_of(&self.r, answers[i])
            self.pack_now(keys[i])
        return (memcmp(keys[0], keys[1], self.r.t.words * sizeof(uint64_t)) == 0
                and memcmp(&answers[0][0], &answers[1][0], sizeof(hgm_result)) == 0 and self.r.beside.nr_locks == 0)

    def all_outcomes(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks):
        """All that a pair can come to: (answers of both as (error, done, event), memory as memory() gives it)."""
        self.collected = []
        try:
            self.pair(state, a, b, locks)
            return self.collected
        finally:
            self.collected = None

    cdef int begin(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks) except -1:
        if state >= self.states.nr or a >= len(self.steps_array) or b >= len(self.steps_array):
            raise IndexError("no such state or step")
        unpack(&self.r.t, &self.states.keys[state * self.r.t.words])
        self.a, self.b = a, b
        self.r.operations[0], self.r.operations[1] = self.steps[a].op, self.steps[b].op
        hooks(&self.r, False)    # an exception may have left them
        self.r.hooks.repairs, self.r.locks = locks >> 8, locks
        return 0

    def schedule(self, uint32_t node):
        out = []
        while self.graph.nodes[node].parent != NOWHERE:
            out.append(self.graph.nodes[node].last)
            node = self.graph.nodes[node].parent
        return bytes(out[::-1])

    # -- a schedule, step by step

    def trace(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks, schedule):
        """Run a schedule again: (rows, numbers of what is broken behind it, whether it is stuck).

        A row of each access, and one at the end: (thread, what, which, how, place, memory before). what: ACCESSES,
        WAITS, TRIES; which: of enum hgm_access, or of hgm_lock_class. place, memory: as place() and memory() give them.
        At the end, thread is None, and what are the two answers: [(error, done, event)]. What is broken is None where
        a thread could go on. Stuck: the next thread of the schedule, behind these rows, cannot.
        """
        cdef int i
        cdef hgm_coroutine *c
        cdef hgm_result answers[2]
        cdef uint32_t wrong
        cdef bint stuck = False
        rows, broken = [], None
        self.begin(state, a, b, locks)
        if not enabled(&self.r.t, &self.steps[a]) or not enabled(&self.r.t, &self.steps[b]):
            raise ValueError("no such schedule: one of the two cannot run there")
        self.start = race_begin(&self.r)
        self.anyway = 0
        self.one_after_another(0)
        self.one_after_another(1)
        machine_restore(&self.r, self.start)
        hooks(&self.r, True)
        for i in range(2):
            start(&self.r, i)
        for i in schedule:
            c = self.r.threads[i]
            if not runnable(&self.r, i):
                stuck = True
                break
            rows.append((i, c.next, c.access, c.how, place(&self.r.t, c.where), self.words()))
            go(&self.r, i)
        hooks(&self.r, False)
        answers_of(&self.r, answers)
        both = [(answers[i].error, answers[i].done, answers[i].event) for i in range(2)]
        rows.append((None, both, 0, 0, None, self.words()))
        if ended(&self.r):
            wrong = self.outcome()
            broken = [i for i in range(NR_BROKEN) if wrong >> i & 1]
        elif not runnable(&self.r, 0) and not runnable(&self.r, 1):
            broken = [DEADLOCK]
        return rows, broken, stuck

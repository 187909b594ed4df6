# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Races: two operations at once from one state of a tiny machine, in every order of their accesses.

The operations are those of the scheme's engine, compiled a second time so that a thread can be cut before each access
to memory that the other may reach and before each lock (races.h). Each runs on a stack of its own (coroutine.h). A
global state is the machine, both threads and the locks that they hold, compared byte by byte; from each the explorer
lets either thread go on to its next cut, so it meets every interleaving. They are sequentially consistent: that a
processor or a compiler may reorder accesses is out of scope.

States are visited by rising number of preemptions: switches away from a thread that could have gone on.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from hgmcore.hgm cimport *
from hgmcore.core.core cimport Core, Engine
from hgmcore.core.machine cimport Machine, State
from hgmcore.core.core cimport run_function
from hgmcore.explore.graph cimport Graph, graph_clear, graph_free, graph_new, Node, node_enter, NOWHERE
from hgmcore.explore.making cimport tiny_make
from hgmcore.explore.packing cimport look, pack, unpack
from hgmcore.explore.pool cimport NO_PIECE, Pool, pool_clear, pool_free, pool_new, pool_number, pool_piece
from hgmcore.explore.race_judge cimport at_rest, DEADLOCK, NR_BROKEN
from hgmcore.explore.race_memory cimport Beside, Held, memory, place
from hgmcore.explore.states cimport key_hash, NONE, States, states_enter, states_find, states_free, states_new
from hgmcore.explore.symmetry cimport canonical, Chosen, PAGES_STAY
from hgmcore.explore.tiny cimport (
    enabled, FORKABLE, image_restore, image_take, MAX_PROCESSES, MAX_WORDS, Step, Tiny, tiny_free
)

import numpy as np

from hgmcore.core.machine import PAGE
from hgmcore.explore.search import STEP

ACCESSES, WAITS, TRIES = HGM_ACCESSES, HGM_WAITS, HGM_TRIES

cdef extern from "hgmcore/races.h" nogil:
    struct hgm_race:
        void (*cut)(int access, const void *where) noexcept nogil
        int (*lock)(int lock, const void *of, int how, int wait) noexcept nogil
        void (*unlock)(int lock) noexcept nogil
        hgm_racer *me
        uint32_t repairs

cdef extern from "hgmcore/coroutine.h" nogil:
    enum:
        HGM_ACCESSES, HGM_WAITS, HGM_TRIES, HGM_ENDED

    ctypedef struct hgm_coroutine:
        hgm_racer racer
        uint64_t low
        const void *where
        int32_t next
        int32_t access
        int32_t how
        int32_t number

    void hgm_coroutine_start(hgm_coroutine *c, void (*body)() noexcept nogil) noexcept
    void hgm_coroutine_resume(hgm_coroutine *c) noexcept
    void hgm_coroutine_forget(hgm_coroutine *c) noexcept
    void hgm_coroutine_cut(hgm_coroutine *c) noexcept
    uint64_t hgm_coroutine_size(const hgm_coroutine *c) noexcept
    const unsigned char *hgm_coroutine_bytes(const hgm_coroutine *c) noexcept
    void hgm_coroutine_restore(hgm_coroutine *c, const unsigned char *bytes, uint64_t size) noexcept

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **to, size_t alignment, size_t size)

# The worst that a pair came to: fewest preemptions, then fewest steps.
cdef struct Worst:
    bint found
    uint32_t preemptions
    uint32_t depth
    uint32_t node

# Of the explorer that runs now, for functions that engines call. The GIL, which it keeps, makes it the only one.
cdef hgm_coroutine *running
cdef Beside beside
cdef uint32_t locks_in_force
cdef run_function running_run
cdef Machine *running_machine
cdef hgm_operation operations[2]


cdef void cut_here(int access, const void *where) noexcept nogil:
    cdef hgm_coroutine *c = running
    c.next, c.access, c.where = HGM_ACCESSES, access, where
    hgm_coroutine_cut(c)

cdef int lock_here(int lock, const void *of, int how, int wait) noexcept nogil:
    cdef hgm_coroutine *c = running
    cdef Held *held
    if not locks_in_force >> lock & 1:
        return 1
    c.next, c.access, c.where, c.how = HGM_WAITS if wait else HGM_TRIES, lock, of, how
    hgm_coroutine_cut(c)
    if not wait and not lock_free(c):
        return 0
    held = &beside.locks[beside.nr_locks]
    held.of, held.lock, held.how, held.owner = of, lock, how, c.number
    beside.nr_locks += 1
    return 1

cdef void unlock_here(int lock) noexcept nogil:
    cdef int64_t i
    for i in range(<int64_t>beside.nr_locks - 1, -1, -1):
        if beside.locks[i].lock == lock and beside.locks[i].owner == running.number:
            unlock(i)
            return

cdef void unlock(uint64_t i) noexcept nogil:
    beside.nr_locks -= 1
    while i < beside.nr_locks:
        beside.locks[i] = beside.locks[i + 1]
        i += 1
    memset(&beside.locks[beside.nr_locks], 0, sizeof(Held))

cdef bint lock_free(const hgm_coroutine *c) noexcept nogil:
    """Could the thread take the lock that it wants?"""
    cdef uint64_t i
    cdef const Held *held
    for i in range(beside.nr_locks):
        held = &beside.locks[i]
        if (held.owner != c.number and held.lock == c.access and held.of == c.where
                and (held.how or c.how)):
            return False
    return True

cdef void body() noexcept nogil:
    """A thread: one operation."""
    running_run(running_machine, &operations[running.number], 1, running.number)
    running.next = HGM_ENDED


cdef class Races:
    """Interleavings of pairs of steps of one scheme on one tiny machine.

    core, engine, born, maxpins, steps, permutations, fields, poison: as of the Search that closed. racing: the engine
    that can be cut. keys: the states that the search found, rows of words.
    """
    cdef Core core
    cdef Engine engine
    cdef Engine racing
    cdef hgm_race *race
    cdef Tiny t
    cdef States states
    cdef object steps_array
    cdef const Step *steps
    cdef hgm_coroutine *threads[2]
    cdef hgm_racer solo           # of an operation that runs alone
    cdef Pool machines
    cdef Pool stacks
    cdef unsigned char *scratch
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
        cdef void *placed
        core.fits(engine)
        if racing.race is NULL:
            raise ValueError(f"the engine of {racing.name} was not compiled for races")
        self.core, self.engine, self.racing = core, engine, racing
        self.race = <hgm_race *>racing.race
        self.steps_array = np.ascontiguousarray(steps, STEP)
        self.steps = <const Step *><size_t>self.steps_array.ctypes.data
        tiny_make(&self.t, core, racing, born, maxpins, permutations, PAGES_STAY, fields, poison)
        if <int>keys.shape[1] != self.t.words:
            raise ValueError("these states are not of this scope")
        if not states_new(&self.states, self.t.words) or not pool_new(&self.machines) or not pool_new(&self.stacks):
            raise MemoryError("no memory for races")
        for i in range(<uint64_t>keys.shape[0]):
            if not states_enter(&self.states, &keys[i, 0], key_hash(&keys[i, 0], self.t.words), NONE, 0):
                raise MemoryError("no memory for races")
        for i in range(2):
            if posix_memalign(&placed, 64, sizeof(hgm_coroutine)):
                raise MemoryError("no memory for races")
            self.threads[i] = <hgm_coroutine *>placed
        self.scratch = <unsigned char *>calloc(1, 1 << 20)
        if self.scratch is NULL or not graph_new(&self.graph):
            raise MemoryError("no memory for races")

    def __dealloc__(self):
        cdef int i
        tiny_free(&self.t)
        states_free(&self.states)
        pool_free(&self.machines)
        pool_free(&self.stacks)
        for i in range(2):
            free(self.threads[i])
        free(self.scratch)
        graph_free(&self.graph)

    # -- a global state, taken and put back

    cdef uint32_t machine_take(self) noexcept nogil:
        """The number of the machine as it is now, with what is beside it; NO_PIECE: no memory."""
        cdef Tiny *t = &self.t
        cdef unsigned char *data = t.image.data
        cdef size_t size
        beside.underflows, beside.overflows = t.m.context.cost.underflows, t.m.context.cost.overflows
        beside.nr_results = t.m.context.nr_results
        memcpy(beside.results, t.m.context.results.base, sizeof(beside.results))
        t.image.data = self.scratch + sizeof(Beside) + sizeof(State)
        image_take(t)
        t.image.data = data
        memcpy(self.scratch, &beside, sizeof(Beside))
        memcpy(self.scratch + sizeof(Beside), &t.image.state, sizeof(State))
        size = (t.m.state.tables.used + t.m.state.ptdescs.used + t.m.state.vmemmap.used + t.m.state.folios.used
                + t.m.state.poisoned.used + t.fixed_size + sizeof(Beside) + sizeof(State) + 7) & ~<size_t>7
        return pool_number(&self.machines, self.scratch, size)

    cdef void machine_restore(self, uint32_t number) noexcept nogil:
        cdef Tiny *t = &self.t
        cdef unsigned char *data = t.image.data
        cdef const unsigned char *piece = pool_piece(&self.machines, number)
        memcpy(&beside, piece, sizeof(Beside))
        memcpy(&t.image.state, piece + sizeof(Beside), sizeof(State))
        t.image.data = <unsigned char *>piece + sizeof(Beside) + sizeof(State)
        image_restore(t)
        t.image.data = data
        t.m.context.cost.underflows, t.m.context.cost.overflows = beside.underflows, beside.overflows
        t.m.context.nr_results = beside.nr_results
        t.m.context.results.used = beside.nr_results * sizeof(hgm_result)
        memcpy(t.m.context.results.base, beside.results, sizeof(beside.results))

    cdef uint32_t thread_take(self, int i) noexcept nogil:
        return pool_number(&self.stacks, hgm_coroutine_bytes(self.threads[i]), hgm_coroutine_size(self.threads[i]))

    cdef void thread_restore(self, int i, uint32_t number) noexcept nogil:
        hgm_coroutine_restore(self.threads[i], pool_piece(&self.stacks, number), self.stacks.pieces[number].size)

    # -- running

    cdef void hooks(self, bint on) noexcept nogil:
        self.race.cut = NULL
        self.race.lock = NULL
        self.race.unlock = NULL
        if on:
            self.race.cut, self.race.lock, self.race.unlock = cut_here, lock_here, unlock_here

    cdef void go(self, int i) noexcept nogil:
        """Let thread `i` go on to its next cut, or its end."""
        global running
        cdef hgm_coroutine *c = self.threads[i]
        cdef int64_t k
        running = c
        self.race.me = &c.racer
        hgm_coroutine_resume(c)
        if c.next == HGM_ENDED:
            for k in range(<int64_t>beside.nr_locks - 1, -1, -1):
                if beside.locks[k].owner == i:
                    unlock(k)
            hgm_coroutine_forget(c)

    cdef bint runnable(self, int i) noexcept nogil:
        cdef const hgm_coroutine *c = self.threads[i]
        return c.next != HGM_ENDED and (c.next != HGM_WAITS or lock_free(c))

    cdef void alone(self, const hgm_operation *op, int number) noexcept nogil:
        """An operation without cuts."""
        memset(&self.solo, 0, sizeof(hgm_racer))
        self.race.me = &self.solo
        self.racing.run(&self.t.m, op, 1, number)

    cdef void fresh(self) noexcept nogil:
        """A run begins: no results, no costs."""
        cdef Machine *m = &self.t.m
        memset(&m.context.cost, 0, sizeof(m.context.cost))
        memset(&beside, 0, sizeof(beside))
        memset(m.context.results.base, 0, 2 * sizeof(hgm_result))
        m.context.nr_results = 0
        m.context.results.used = 0
        m.context.fail = 0

    cdef void answers_of(self, hgm_result *out) noexcept nogil:
        """What both operations answered."""
        cdef Machine *m = &self.t.m
        cdef const hgm_result *results = <const hgm_result *>m.context.results.base
        cdef uint64_t i
        for i in range(2):
            memset(&out[i], 0, sizeof(hgm_result))
            out[i].done = operations[i].length
        for i in range(m.context.nr_results):
            out[results[i].index] = results[i]
        out[0].index = out[1].index = 0

    # -- judging

    cdef uint32_t rest(self) noexcept nogil:
        memset(&self.solo, 0, sizeof(hgm_racer))
        self.race.me = &self.solo
        return at_rest(&self.t)

    cdef void unborn_after(self) noexcept nogil:
        """Which processes there are not, behind both steps."""
        cdef const Step *step
        cdef int i
        self.t.seen.unborn = self.t.before.unborn
        for i in range(2):
            step = &self.steps[self.b if i else self.a]
            if step.need == FORKABLE:
                self.t.seen.unborn &= ~(<uint32_t>1 << step.child)

    cdef void pack_now(self, uint64_t *key) noexcept nogil:
        """The machine behind both steps as a packed state, each process in its own place."""
        cdef int order[MAX_PROCESSES]
        cdef int i
        for i in range(MAX_PROCESSES):
            order[i] = i
        self.unborn_after()
        look(&self.t)
        pack(&self.t, order, key)

    cdef void one_after_another(self, int first) noexcept nogil:
        """Keep what running step `first` of the pair and then the other comes to."""
        self.machine_restore(self.start)
        self.alone(&operations[first], first)
        self.alone(&operations[1 - first], 1 - first)
        self.pack_now(self.sequential[first])
        self.answers_of(self.answers[first])
        self.anyway |= self.rest()

    cdef uint32_t outcome(self) noexcept nogil:
        """Both threads have ended: is it what some order comes to, and if not, what is wrong with it?"""
        cdef Tiny *t = &self.t
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
        self.answers_of(answers)
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
        self.answers_of(answers)
        both = [(answers[i].error, answers[i].done, answers[i].event) for i in range(2)]
        self.collected.append((both, self.words()))
        return 0

    cdef dict words(self):
        """memory() of now, with the struct pages as an array."""
        cdef dict found = memory(&self.t, &beside)
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
        self.machine_restore(n.machine)
        for i in range(2):
            self.thread_restore(i, n.thread[i])
        for i in range(2):
            can[i] = self.runnable(i)
        if not can[0] and not can[1]:
            if n.same:    # judged before
                return 1
            if self.threads[0].next == HGM_ENDED and self.threads[1].next == HGM_ENDED:
                self.hooks(False)
                self.note(self.outcome(), number)
                self.hooks(True)
            else:
                self.note(1 << DEADLOCK, number)
            return 1
        for i in range(2):
            if not can[i]:
                continue
            if i == 1 and can[0]:
                self.machine_restore(n.machine)
                self.thread_restore(1, n.thread[1])
            self.go(i)
            next.machine = self.machine_take()
            next.thread[i] = self.thread_take(i)
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
        pool_clear(&self.stacks)
        graph_clear(&self.graph)
        memset(self.worst, 0, sizeof(self.worst))
        self.machine_restore(self.start)
        self.hooks(True)
        for i in range(2):
            self.threads[i].number = i
            hgm_coroutine_start(self.threads[i], body)
            self.go(i)
            first.thread[i] = self.thread_take(i)
            if first.thread[i] == NO_PIECE:
                return 0
        first.machine = self.machine_take()
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
        if not enabled(&self.t, &self.steps[a]) or not enabled(&self.t, &self.steps[b]):
            return None
        self.fresh()
        pool_clear(&self.machines)
        self.start = self.machine_take()
        self.anyway = 0
        self.one_after_another(0)
        self.one_after_another(1)
        answer = self.explore(limit)
        self.hooks(False)
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
        if not enabled(&self.t, &self.steps[a]):
            return None
        self.fresh()
        pool_clear(&self.machines)
        self.start = self.machine_take()
        for i in range(2):
            self.machine_restore(self.start)
            if i == 0:
                self.engine.run(&self.t.m, &operations[0], 1, 0)
            else:
                self.hooks(True)
                self.threads[0].number = 0
                hgm_coroutine_start(self.threads[0], body)
                while self.threads[0].next != HGM_ENDED:
                    self.go(0)
                self.hooks(False)
            self.answers_of(answers[i])
            self.pack_now(keys[i])
        return (memcmp(keys[0], keys[1], self.t.words * sizeof(uint64_t)) == 0
                and memcmp(&answers[0][0], &answers[1][0], sizeof(hgm_result)) == 0 and beside.nr_locks == 0)

    def all_outcomes(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks):
        """All that a pair can come to: (answers of both as (error, done, event), memory as memory() gives it)."""
        self.collected = []
        try:
            self.pair(state, a, b, locks)
            return self.collected
        finally:
            self.collected = None

    cdef int begin(self, uint64_t state, uint32_t a, uint32_t b, uint32_t locks) except -1:
        global locks_in_force, running_run, running_machine
        if state >= self.states.nr or a >= len(self.steps_array) or b >= len(self.steps_array):
            raise IndexError("no such state or step")
        unpack(&self.t, &self.states.keys[state * self.t.words])
        self.a, self.b = a, b
        operations[0], operations[1] = self.steps[a].op, self.steps[b].op
        self.hooks(False)    # an exception may have left them
        self.race.repairs = locks >> 8
        locks_in_force, running_run, running_machine = locks, self.racing.run, &self.t.m
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
        if not enabled(&self.t, &self.steps[a]) or not enabled(&self.t, &self.steps[b]):
            raise ValueError("no such schedule: one of the two cannot run there")
        self.fresh()
        pool_clear(&self.machines)
        self.start = self.machine_take()
        self.anyway = 0
        self.one_after_another(0)
        self.one_after_another(1)
        self.machine_restore(self.start)
        self.hooks(True)
        for i in range(2):
            self.threads[i].number = i
            hgm_coroutine_start(self.threads[i], body)
            self.go(i)
        for i in schedule:
            c = self.threads[i]
            if not self.runnable(i):
                stuck = True
                break
            rows.append((i, c.next, c.access, c.how, place(&self.t, c.where), self.words()))
            self.go(i)
        self.hooks(False)
        self.answers_of(answers)
        both = [(answers[i].error, answers[i].done, answers[i].event) for i in range(2)]
        rows.append((None, both, 0, 0, None, self.words()))
        if self.threads[0].next == HGM_ENDED and self.threads[1].next == HGM_ENDED:
            wrong = self.outcome()
            broken = [i for i in range(NR_BROKEN) if wrong >> i & 1]
        elif not self.runnable(0) and not self.runnable(1):
            broken = [DEADLOCK]
        return rows, broken, stuck

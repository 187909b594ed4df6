# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The graph of global states of a race: nodes, each entered once, and those that wait to be expanded.

They wait by the number of preemptions that led to them, this one and one more; a node that is met again with fewer
moves up.
"""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from hgmcore.hgm cimport *

cdef enum:
    NOWHERE = 0xffffffff          # the parent of the first node

cdef struct Node:
    uint32_t machine
    uint32_t thread[2]
    uint32_t parent
    uint32_t preemptions
    uint32_t depth
    signed char last              # who went last, -1 at the start
    unsigned char done            # it was expanded
    unsigned char same            # another node differs from it in `last` alone

cdef struct Graph:
    Node *nodes
    uint64_t nr, room
    uint64_t states               # nodes that differ in more than `last`, over all graphs
    uint32_t *table               # open addressing; a node's number + 1, 0: the slot is empty
    uint64_t table_size           # a power of two
    uint32_t *queue[2]            # by the lowest bit of the number of preemptions
    uint64_t queue_used[2]
    uint64_t queue_room[2]

cdef inline bint graph_new(Graph *g) noexcept nogil:
    """False: the host has no memory."""
    g.table_size = 1 << 12
    g.table = <uint32_t *>calloc(g.table_size, sizeof(uint32_t))
    return g.table is not NULL

cdef inline void graph_free(Graph *g) noexcept nogil:
    free(g.nodes)
    free(g.table)
    free(g.queue[0])
    free(g.queue[1])

cdef inline void graph_clear(Graph *g) noexcept nogil:
    memset(g.table, 0, g.table_size * sizeof(uint32_t))
    g.nr = g.queue_used[0] = g.queue_used[1] = 0

cdef inline uint64_t node_hash(const Node *n) noexcept nogil:
    cdef uint64_t h = (<uint64_t>n.machine << 32 | n.thread[0]) * <uint64_t>0x9e3779b97f4a7c15
    h = (h ^ n.thread[1]) * <uint64_t>0xd6e8feb86659fd93
    return h ^ h >> 32

cdef inline bint push(Graph *g, uint32_t node, uint32_t preemptions) noexcept nogil:
    cdef int q = preemptions & 1
    cdef void *grown
    if g.queue_used[q] == g.queue_room[q]:
        grown = realloc(g.queue[q], (2 * g.queue_room[q] + 1024) * sizeof(uint32_t))
        if grown is NULL:
            return False
        g.queue[q] = <uint32_t *>grown
        g.queue_room[q] = 2 * g.queue_room[q] + 1024
    g.queue[q][g.queue_used[q]] = node
    g.queue_used[q] += 1
    return True

cdef inline bint node_enter(Graph *g, Node *n) noexcept nogil:
    """A state that a step led to: into the queue of its number of preemptions, unless it is known with as few.

    False: the host has no memory.
    """
    cdef uint64_t at = node_hash(n) & (g.table_size - 1), i
    cdef Node *other
    cdef void *grown
    cdef uint32_t *table
    n.same = n.done = 0
    while g.table[at]:
        other = &g.nodes[g.table[at] - 1]
        if (other.machine == n.machine and other.thread[0] == n.thread[0] and other.thread[1] == n.thread[1]):
            if other.last == n.last:
                if n.preemptions >= other.preemptions:
                    return True
                other.preemptions, other.parent, other.depth = n.preemptions, n.parent, n.depth
                return push(g, g.table[at] - 1, n.preemptions)
            n.same = 1
        at = (at + 1) & (g.table_size - 1)
    if g.nr == g.room:
        grown = realloc(g.nodes, (2 * g.room + 1024) * sizeof(Node))
        if grown is NULL:
            return False
        g.nodes = <Node *>grown
        g.room = 2 * g.room + 1024
    g.nodes[g.nr] = n[0]
    g.nr += 1
    g.table[at] = <uint32_t>g.nr
    g.states += not n.same
    if 2 * g.nr > g.table_size:
        table = <uint32_t *>calloc(2 * g.table_size, sizeof(uint32_t))
        if table is NULL:
            return False
        free(g.table)
        g.table = table
        g.table_size *= 2
        for i in range(g.nr):
            at = node_hash(&g.nodes[i]) & (g.table_size - 1)
            while table[at]:
                at = (at + 1) & (g.table_size - 1)
            table[at] = <uint32_t>(i + 1)
    return push(g, <uint32_t>g.nr - 1, n.preemptions)

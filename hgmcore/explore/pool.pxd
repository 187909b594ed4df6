# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pieces of memory by number: two that are equal have one number, two that differ never."""
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from hgmcore.hgm cimport *

cdef enum:
    NO_PIECE = 0xffffffff

cdef struct Piece:
    uint64_t at                   # in `bytes`
    uint64_t size                 # a multiple of 8
    uint64_t hash

cdef struct Pool:
    unsigned char *bytes
    uint64_t used, room
    Piece *pieces
    uint32_t nr, pieces_room
    uint32_t *table               # open addressing; NO_PIECE: the slot is empty
    uint32_t table_size           # a power of two

cdef inline void pool_free(Pool *p) noexcept nogil:
    free(p.bytes)
    free(p.pieces)
    free(p.table)

cdef inline void pool_clear(Pool *p) noexcept nogil:
    p.used = 0
    p.nr = 0
    memset(p.table, 0xff, p.table_size * sizeof(uint32_t))

cdef inline bint pool_new(Pool *p) noexcept nogil:
    """An empty pool. False: the host has no memory."""
    p.room, p.pieces_room, p.table_size = 1 << 18, 1 << 8, 1 << 9
    p.bytes = <unsigned char *>malloc(p.room)
    p.pieces = <Piece *>malloc(p.pieces_room * sizeof(Piece))
    p.table = <uint32_t *>malloc(p.table_size * sizeof(uint32_t))
    if p.bytes is NULL or p.pieces is NULL or p.table is NULL:
        return False
    pool_clear(p)
    return True

cdef inline uint64_t bytes_hash(const unsigned char *bytes, uint64_t size) noexcept nogil:
    cdef const uint64_t *words = <const uint64_t *>bytes
    cdef uint64_t a = size, b = <uint64_t>0x9e3779b97f4a7c15, i, n = size // 16
    for i in range(n):
        a = (a ^ words[2 * i]) * <uint64_t>0xd6e8feb86659fd93
        a ^= a >> 29
        b = (b ^ words[2 * i + 1]) * <uint64_t>0xa0761d6478bd642f
        b ^= b >> 31
    if size & 8:
        a = (a ^ words[2 * n]) * <uint64_t>0xd6e8feb86659fd93
    a ^= b * <uint64_t>0xe7037ed1a0b428db
    return a ^ a >> 32

cdef inline bint pool_grow(Pool *p, uint64_t size) noexcept nogil:
    """Room for one more piece. False: the host has no memory."""
    cdef void *grown
    cdef uint32_t i, at
    while p.used + size > p.room:
        grown = realloc(p.bytes, 2 * p.room)
        if grown is NULL:
            return False
        p.bytes = <unsigned char *>grown
        p.room *= 2
    if p.nr == p.pieces_room:
        grown = realloc(p.pieces, 2 * p.pieces_room * sizeof(Piece))
        if grown is NULL:
            return False
        p.pieces = <Piece *>grown
        p.pieces_room *= 2
        grown = realloc(p.table, 2 * p.table_size * sizeof(uint32_t))
        if grown is NULL:
            return False
        p.table = <uint32_t *>grown
        p.table_size *= 2
        memset(p.table, 0xff, p.table_size * sizeof(uint32_t))
        for i in range(p.nr):
            at = <uint32_t>p.pieces[i].hash & (p.table_size - 1)
            while p.table[at] != NO_PIECE:
                at = (at + 1) & (p.table_size - 1)
            p.table[at] = i
    return True

cdef inline const unsigned char *pool_piece(const Pool *p, uint32_t number) noexcept nogil:
    return p.bytes + p.pieces[number].at

cdef inline uint32_t pool_number(Pool *p, const unsigned char *bytes, uint64_t size) noexcept nogil:
    """The number of a piece, which is kept. NO_PIECE: the host has no memory."""
    cdef uint64_t hash = bytes_hash(bytes, size)
    cdef uint32_t at = <uint32_t>hash & (p.table_size - 1), number
    cdef const Piece *piece
    while p.table[at] != NO_PIECE:
        piece = &p.pieces[p.table[at]]
        if piece.hash == hash and piece.size == size and memcmp(p.bytes + piece.at, bytes, size) == 0:
            return p.table[at]
        at = (at + 1) & (p.table_size - 1)
    if not pool_grow(p, size):
        return NO_PIECE
    number = p.nr
    at = <uint32_t>hash & (p.table_size - 1)
    while p.table[at] != NO_PIECE:
        at = (at + 1) & (p.table_size - 1)
    p.table[at] = number
    p.pieces[number].at, p.pieces[number].size, p.pieces[number].hash = p.used, size, hash
    memcpy(p.bytes + p.used, bytes, size)
    p.used += size
    p.nr += 1
    return number

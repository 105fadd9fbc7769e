"""Shards of keys and owners of shards; see ring.pyi."""

from array import array

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport ceil
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

cdef extern from *:
    """
    #define XXH_INLINE_ALL
    #include <xxhash.h>
    static inline uint64_t scaled(uint64_t hash, uint64_t bound) {
        return (uint64_t)(((unsigned __int128)hash * bound) >> 64);
    }
    """
    uint64_t XXH3_64bits(const void* data, size_t length) nogil
    uint64_t XXH3_64bits_withSeed(const void* data, size_t length, uint64_t seed) nogil
    uint64_t scaled(uint64_t hash, uint64_t bound) nogil

MAX_SHARDS = 1 << 20
MAX_MEMBERS = 4096


cdef uint64_t hash_of(str text, uint64_t seed) except? 0:
    cdef Py_ssize_t length
    cdef const char* utf8 = PyUnicode_AsUTF8AndSize(text, &length)
    return XXH3_64bits_withSeed(utf8, length, seed)


def _check_shards(shards):
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"number of shards = {shards}: must be from 1 to {MAX_SHARDS}")


cdef class ShardHash:
    cdef uint64_t seed
    cdef uint64_t shards

    def __init__(self, str persistence_id not None, shards):
        _check_shards(shards)
        self.seed = hash_of(persistence_id, 0)
        self.shards = shards

    cpdef uint32_t shard(self, str key) except? 0:
        return <uint32_t>scaled(hash_of(key, self.seed), self.shards)


cdef struct Shard:
    uint64_t score  # with the member that it was offered to last
    uint16_t member


cdef class _Matching:
    """Deferred acceptance (Gale and Shapley 1962): a shard offers itself to members, best first; a full member keeps
    the best. Both sides rank a pair by its score, so the outcome is the one that taking all pairs best first has."""

    cdef uint32_t shards
    cdef uint32_t members
    cdef uint32_t capacity
    cdef uint64_t* names  # hash of each member's name, members sorted by name
    cdef Shard* offers
    cdef uint32_t* held  # capacity places for each member: a heap, its worst shard first
    cdef uint32_t* counts

    def __cinit__(self, uint32_t shards, uint32_t members, uint32_t capacity):
        self.shards, self.members, self.capacity = shards, members, capacity
        self.names = <uint64_t*>malloc(members * sizeof(uint64_t))
        self.offers = <Shard*>malloc(shards * sizeof(Shard))
        self.held = <uint32_t*>malloc(<size_t>members * capacity * sizeof(uint32_t))
        self.counts = <uint32_t*>calloc(members, sizeof(uint32_t))
        if not (self.names and self.offers and self.held and self.counts):
            raise MemoryError

    def __dealloc__(self):
        free(self.names)
        free(self.offers)
        free(self.held)
        free(self.counts)

    cdef void run(self) noexcept nogil:
        cdef uint32_t first, shard
        for first in range(self.shards):
            shard = first
            self.offers[shard].score = 0
            while self.offer(&shard):
                pass

    cdef bint offer(self, uint32_t* shard) noexcept nogil:
        """Offer a shard to the next member of its ranking. True: a shard, this one or another, has to go on."""
        cdef Shard* offered = &self.offers[shard[0]]
        self.next_member(shard[0], offered)
        cdef uint32_t* heap = self.held + <size_t>offered.member * self.capacity
        cdef uint32_t worst
        if self.counts[offered.member] < self.capacity:
            self.sift_up(heap, self.counts[offered.member], shard[0])
            self.counts[offered.member] += 1
            return False
        worst = heap[0]
        if self.is_worse(shard[0], worst):
            return True
        self.sift_down(heap, shard[0])
        shard[0] = worst
        return True

    cdef void next_member(self, uint32_t shard, Shard* offered) noexcept nogil:
        """The best member below the one that refused. Score 0: none has refused yet."""
        cdef uint64_t score, best = 0
        cdef uint32_t member, chosen = 0
        for member in range(self.members):
            score = score_of(self.names[member], shard)
            if score > best and (offered.score == 0 or score < offered.score):
                best, chosen = score, member
        offered.score, offered.member = best, <uint16_t>chosen

    cdef inline bint is_worse(self, uint32_t one, uint32_t other) noexcept nogil:
        cdef uint64_t a = self.offers[one].score, b = self.offers[other].score
        return a < b or (a == b and one > other)

    cdef void sift_up(self, uint32_t* heap, uint32_t place, uint32_t shard) noexcept nogil:
        cdef uint32_t parent
        while place:
            parent = (place - 1) >> 1
            if not self.is_worse(shard, heap[parent]):
                break
            heap[place] = heap[parent]
            place = parent
        heap[place] = shard

    cdef void sift_down(self, uint32_t* heap, uint32_t shard) noexcept nogil:
        """Put `shard` in the place of the worst."""
        cdef uint32_t place = 0, child = 1
        while child < self.capacity:
            if child + 1 < self.capacity and self.is_worse(heap[child + 1], heap[child]):
                child += 1
            if not self.is_worse(heap[child], shard):
                break
            heap[place] = heap[child]
            place = child
            child = 2 * place + 1
        heap[place] = shard


cdef inline uint64_t score_of(uint64_t name, uint32_t shard) noexcept nogil:
    """Never 0. The finalizer of splitmix64 over the pair; within one shard two members do not collide, because it is
    one to one (0 and 1 aside)."""
    cdef uint64_t x = name + <uint64_t>0x9E3779B97F4A7C15 * (<uint64_t>shard + 1)
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    x ^= x >> 31
    return x if x else 1


def assign(members, shards, double load=1.25):
    _check_shards(shards)
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise ValueError(f"{len(members)} members: must be from 1 to {MAX_MEMBERS}")
    if not load >= 1:
        raise ValueError(f"load = {load}: must not be below 1")
    if len(set(members)) != len(members):
        raise ValueError("two members have the same name")
    cdef uint32_t count = len(members), place
    cdef uint32_t capacity = <uint32_t>min(ceil(load * shards / count), shards)
    cdef _Matching matching = _Matching(shards, count, capacity)
    order = sorted(range(count), key=members.__getitem__)
    for place in range(count):
        matching.names[place] = hash_of(members[order[place]], 0)
    with nogil:
        matching.run()
    return array("H", [order[matching.offers[place].member] for place in range(matching.shards)])

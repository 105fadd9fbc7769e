"""Shapes of the CRDT kernels in memory: one `State` owns everything below it.

    State -> Context        the dots it has seen, as a prefix per replica and runs beyond
          -> Node           one CRDT; the root, and one below every key of a map
               -> Table     elements of a set, keys of a map: entries, index and bytes
               -> Item      what a counter, register or vote keeps for one replica; a dot of a flag

A dot is one word: 16 bits for the replica's slot in this state, 4 bits for flags of the entry that holds it, 44 for n.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define XXH_INLINE_ALL
    #include <xxhash.h>
    typedef unsigned __int128 u128;
    typedef __int128 i128;
    """
    ctypedef unsigned long long u128
    ctypedef long long i128

cdef struct Buffer:
    uint8_t* data
    size_t size
    size_t room

cdef struct List:
    uint32_t* data
    uint32_t size
    uint32_t room

cdef struct Dots:
    uint64_t* data
    uint32_t size
    uint32_t room

cdef struct Run:  # of dots, packed, both ends included
    uint64_t first
    uint64_t last

cdef struct Context:
    uint64_t* prefix  # by slot; ENDLESS for a pruned replica
    uint32_t slots
    Run* cloud  # ascending, never adjacent
    uint32_t runs
    uint32_t room

cdef struct Element:  # of a set, or key of a map
    uint32_t tag  # number of its type URL; in maps << 3 | kind - 1
    uint32_t hash
    uint64_t url_hash
    const uint8_t* data
    uint32_t size

cdef struct Entry:  # of a table
    uint64_t dots  # one dot, none, or MANY and the number of a run of them; with flags
    uint32_t offset  # in the arena: tag, size, bytes
    uint32_t hash

cdef struct Table:
    Entry* entries
    uint32_t used
    uint32_t room
    uint32_t free  # first of the unused entries, chained by their hash
    uint32_t live  # with dots
    uint32_t count  # live, or kept for a delta or a view
    uint32_t* index  # by hash, linear probing: low bits an entry's number, high bits of its hash
    uint32_t buckets
    uint32_t index_bits
    uint8_t* arena
    size_t size
    size_t arena_room
    size_t dead
    uint64_t** many  # dots of entries with more than one: count, dots
    uint32_t many_used
    uint32_t many_room
    List many_free

cdef struct Item:
    uint64_t dot
    int64_t time  # of registers
    uint64_t incarnation  # of votes
    u128 plus
    u128 minus
    PyObject* value  # of registers: serialized Any
    bint vote
    bint met  # while joining

cdef struct Node:
    uint8_t kind
    bint pending  # the user function may have to be told of changes here
    bint stale  # a change of the user function was ignored: it holds what nobody here knows
    uint32_t kinds  # of maps: types that entries have or had, as bits
    bint whole  # the next delta names no elements that were removed here: the receiver has to look at all
    uint64_t salt  # of digests: where in the tree
    Node* parent
    uint32_t at  # entry in the parent's table
    Item* items
    uint32_t count
    uint32_t room
    Table* table
    Node** children  # of maps, by entry
    uint32_t children_room
    List pendings  # entries
    List touched  # entries, by own changes since the last delta
    uint32_t known_keys  # the user function has
    i128 known_sum
    PyObject* known_value
    bint known_flag
    uint32_t known_for
    uint32_t known_total

cdef struct Reader:  # of encoded states and deltas
    const uint8_t* start
    const uint8_t* p
    const uint8_t* end
    uint32_t replicas
    uint32_t* slots  # by index of the message
    uint64_t* ids
    uint32_t pruned
    uint32_t urls
    uint32_t* types  # by index of the message
    uint64_t* url_hashes
    uint32_t index  # of the last dot
    uint64_t n
    Context context
    List hashes  # of all elements, in order
    uint32_t next_hash
    Dots dots  # of the entry just read
    uint64_t added  # bytes that would be new, at most


cdef class Bounds:
    cdef readonly uint64_t max_state_size
    cdef readonly uint32_t max_depth
    cdef readonly uint32_t max_replicas
    cdef readonly uint32_t max_cloud


cdef class State:
    cdef readonly int kind
    cdef readonly uint64_t replica
    cdef uint64_t incarnation
    cdef Bounds bounds
    cdef Node* root
    cdef Context context
    cdef uint64_t* ids  # replica by slot
    cdef uint32_t slots
    cdef uint32_t slots_room
    cdef dict slot_of
    cdef uint8_t* gone  # by slot: pruned
    cdef uint32_t own  # slot
    cdef uint64_t own_last
    cdef list urls  # type URLs by number
    cdef dict type_of
    cdef uint64_t* url_hashes
    cdef const uint8_t** url_data
    cdef uint32_t* url_sizes
    cdef uint32_t types_room
    cdef uint32_t last_type
    cdef uint64_t sum_low  # digest of all entries
    cdef uint64_t sum_high
    cdef uint64_t bytes_held  # estimate of the encoded length
    cdef uint64_t taken  # own dots up to this one were in a delta
    cdef Dots covered  # dots removed since the last delta
    cdef bint all_fresh  # the next delta is the whole state
    cdef bint collecting  # a union of deltas: names of removed elements stay
    cdef bint view_open
    cdef bint behind  # others' changes were merged that the user function has not seen
    cdef Context seen
    cdef frozenset members
    cdef int64_t absent
    cdef uint32_t votes  # nodes of votes in the tree
    cdef Dots scratch
    cdef bint changed  # by the join under way
    cdef list arriving  # type URLs of a message that are new
    cdef int _check_kind(self, int kind) except -1
    cdef int _check_room(self, uint64_t added) except -1
    cdef bint _merge(self, Reader* reader, bytes data) except -1
    cdef bint _join(self, Reader* reader, Context* joined) except -1
    cdef int _follow_own(self, bint complete) except -1
    cdef int _check_joined(self, bytes data) except -1
    cdef int _see_all(self) except -1

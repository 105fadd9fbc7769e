# cython: auto_pickle=False
"""CRDTs: the replicated state behind every CRDT entity. crdt.pyi documents it, crdt.pxd has the shapes in memory.

Beside the journal, below entities and replication: it knows serialized messages and nothing else. One compiled module
in parts:

    crdt_memory.pxi    memory that grows
    crdt_context.pxi   causal contexts
    crdt_table.pxi     elements and keys
    crdt_node.pxi      the tree: the only place where stores change
    crdt_reader.pxi    encoded states and deltas: reading and checking
    crdt_join.pxi      joining them
    crdt_change.pxi    own changes, and what they cover
    crdt_delta.pxi     CrdtDelta messages of the user function
    crdt_view.pxi      what the user function is told
    crdt_writer.pxi    encoding
    crdt_plain.pxi     states and values as Python objects
    crdt.pyx           State
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from stateside._speedups.protobuf cimport (
    LEN, VARINT, Field, is_ascii, put_length, put_text, put_varint, read_field, text_size, varint_size, zigzag,
)
from stateside._speedups.protobuf cimport Reader as WireReader

import os

cdef extern from *:
    """
    #define COUNT_MASK 0xFFFFFFFFFFFULL
    #define FLAG_PENDING (1ULL << 44)
    #define FLAG_KNOWN (1ULL << 45)
    #define FLAG_TOUCHED (1ULL << 46)
    #define FLAG_MET (1ULL << 47)
    #define ALL_FLAGS (15ULL << 44)
    #define NO_NUMBER_VALUE 0xFFFFFFFFFFFFFFFFULL
    #define ODD_MULTIPLIER 0x9E3779B97F4A7C15ULL

    static inline unsigned long long fold(unsigned long long a, unsigned long long b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (unsigned long long)product ^ (unsigned long long)(product >> 64);
    }

    /* The part of a digest for one dot: of what hangs on it, the replica and its count. */
    static inline void mix_dot(
        unsigned long long low, unsigned long long high, unsigned long long replica, unsigned long long n,
        uint64_t* out_low, uint64_t* out_high
    ) {
        unsigned long long dot = fold(replica ^ 0xA0761D6478BD642FULL, n * ODD_MULTIPLIER + 0xE7037ED1A0B428DBULL);
        *out_low = fold(low ^ dot, high ^ 0x8EBC6AF09C88C6E3ULL) + dot;
        *out_high = fold(high + dot, low ^ 0x589965CC75374CC3ULL) ^ high;
    }
    """
    const uint64_t ENDLESS "COUNT_MASK"  # prefix of a pruned replica; counts stay below
    const uint64_t PENDING "FLAG_PENDING"  # of an entry: the user function may have to be told
    const uint64_t KNOWN "FLAG_KNOWN"  # the user function has it
    const uint64_t LOST "FLAG_KNOWN"  # in a union of deltas: a key that was removed
    const uint64_t TOUCHED "FLAG_TOUCHED"  # by own changes since the last delta
    const uint64_t MET "FLAG_MET"  # by the join under way
    const uint64_t FLAGS "ALL_FLAGS"
    const uint64_t NO_NUMBER "NO_NUMBER_VALUE"
    const uint64_t ODD "ODD_MULTIPLIER"
    void mix_dot(uint64_t low, uint64_t high, uint64_t replica, uint64_t n, uint64_t* out_low, uint64_t* out_high) nogil

cdef extern from "xxhash.h" nogil:
    ctypedef struct XXH128_hash_t:
        uint64_t low64
        uint64_t high64
    uint64_t XXH3_64bits(const void* data, size_t size)
    uint64_t XXH3_64bits_withSeed(const void* data, size_t size, uint64_t seed)
    XXH128_hash_t XXH3_128bits_withSeed(const void* data, size_t size, uint64_t seed)

cpdef enum:
    GCOUNTER = 1
    PNCOUNTER = 2
    GSET = 3
    ORSET = 4
    LWWREGISTER = 5
    FLAG = 6
    ORMAP = 7
    VOTE = 8
    FORMAT = 1

cdef enum:
    MANY = 0xFFFF  # in place of a slot: an entry with more than one dot
    ENTRY_SIZE = 6  # of an encoded element above its value, roughly
    SUM_BITS = 112  # of a replica's part of a counter: 2^44 changes of 2^63 each, and room
    MAX_URLS = 1048576
    MAX_COVERED = 1048576
    NAMED = 1  # flag of an encoded store: it names all that lost dots
    # Codes of a dot.
    NONE = 0
    NEXT = 1  # of the dot before: same replica, n + 1
    NEAR = 2  # same replica, another n
    FAR = 3
    SEVERAL = 4
    # What is encoded.
    ALL = 0  # a state
    FRESH = 1  # a delta of own changes
    UNION = 2  # a union of deltas
    CLOCK_REVERSE = 1
    CLOCK_CUSTOM = 2
    CLOCK_AUTO_INCREMENT = 3
    # Tags of protobuf fields.
    INT_1 = 1 << 3 | VARINT
    INT_2 = 2 << 3 | VARINT
    INT_3 = 3 << 3 | VARINT
    LEN_1 = 1 << 3 | LEN
    LEN_2 = 2 << 3 | LEN
    LEN_3 = 3 << 3 | LEN
    LEN_4 = 4 << 3 | LEN

cdef extern from *:
    """
    #define NO_ENTRY_VALUE 0xFFFFFFFFU
    #define GONE_VALUE 0xFFFFFFFEU
    """
    const uint32_t NO_ENTRY "NO_ENTRY_VALUE"
    const uint32_t GONE "GONE_VALUE"  # an error, where NO_ENTRY is an answer

NAMES = ("nothing", "GCounter", "PNCounter", "GSet", "ORSet", "LWWRegister", "Flag", "ORMap", "Vote")
cdef uint64_t SEED = <uint64_t>int.from_bytes(os.urandom(8), "little")  # of tables: nobody can choose collisions
cdef Py_ssize_t live = 0
cdef const uint8_t* NOTHING = b""  # of no length, but not NULL


class CrdtError(ValueError):
    """Base. The text names what was wrong."""


class Rejected(CrdtError):
    """A user function's delta that may not be applied. The state is untouched."""


class Malformed(CrdtError):
    """Bytes that are no CrdtDelta, no replica's delta and no state, or are beyond a bound. The state is untouched."""


include "crdt_memory.pxi"
include "crdt_context.pxi"
include "crdt_table.pxi"
include "crdt_node.pxi"
include "crdt_reader.pxi"
include "crdt_join.pxi"
include "crdt_change.pxi"
include "crdt_delta.pxi"
include "crdt_view.pxi"
include "crdt_writer.pxi"
include "crdt_plain.pxi"


@cython.final
cdef class Bounds:
    def __init__(
        self,
        *,
        uint64_t max_state_size=64 * 1024 * 1024,
        uint32_t max_depth=32,
        uint32_t max_replicas=4096,
        uint32_t max_cloud=100_000,
    ):
        if not 1 <= max_depth <= 100:
            raise ValueError(f"max_depth is {max_depth}; it must be between 1 and 100")
        if not 1 <= max_replicas < MANY:
            raise ValueError(f"max_replicas is {max_replicas}; it must be between 1 and {MANY - 1}")
        self.max_state_size = max_state_size
        self.max_depth = max_depth
        self.max_replicas = max_replicas
        self.max_cloud = max_cloud


cdef Bounds DEFAULT_BOUNDS = Bounds()
cdef Bounds NO_BOUNDS = Bounds(max_state_size=(1 << 63), max_depth=100, max_replicas=MANY - 1, max_cloud=(1 << 32) - 1)


def kind_of(bytes data not None):
    if len(data) < 2 or start_of(data)[0] != FORMAT or not GCOUNTER <= start_of(data)[1] <= VOTE:
        raise Malformed("neither a state nor a delta of a replica: unknown version or type at byte 0")
    return start_of(data)[1]


def kind_of_delta(bytes delta not None):
    cdef Parsing parsing = Parsing()
    cdef Span member
    return read_member(parsing, whole_of(parsing, delta), &member)


def join_deltas(deltas):
    cdef State union = None
    for delta in deltas:
        if union is None:
            union = State(kind_of(delta), 0, 0, NO_BOUNDS)
            union.collecting = True
        union.merge(delta)
    if union is None:
        raise Malformed("no deltas to join")
    return Writer(union, False).message(&union.context, True, UNION)


def live_states():
    return live


@cython.final
cdef class State:
    def __cinit__(self, int kind, uint64_t replica, uint64_t incarnation=0, Bounds bounds=None):
        global live
        live += 1
        if not GCOUNTER <= kind <= VOTE:
            raise CrdtError(f"{kind} is no type of a CRDT")
        self.kind = kind
        self.replica = replica
        self.incarnation = incarnation
        self.bounds = bounds if bounds is not None else DEFAULT_BOUNDS
        self.slot_of = {}
        self.urls = []
        self.type_of = {}
        self.arriving = []
        self.members = frozenset((incarnation,))
        self.root = new_node(self, kind, NULL, 0, <uint64_t>kind * ODD)
        add_slot(self, replica)

    def __dealloc__(self):
        global live
        live -= 1
        free_node(self, self.root)
        free(self.ids)
        free(self.gone)
        free(self.url_hashes)
        free(self.url_data)
        free(self.url_sizes)
        release_context(&self.context)
        release_context(&self.seen)
        release_dots(&self.covered)
        release_dots(&self.scratch)

    @staticmethod
    def decode(bytes data not None, uint64_t replica, uint64_t incarnation=0, Bounds bounds=None):
        cdef State state = State(kind_of(data), replica, incarnation, bounds)
        state.merge(data)
        return state

    # --- changes of the user function

    def apply(self, bytes delta not None, int64_t now):
        cdef Parsing parsing = Parsing()
        cdef Span member
        cdef int kind = read_member(parsing, whole_of(parsing, delta), &member)
        if not kind:
            raise Rejected("Empty delta")
        self._check_kind(kind)
        check_change(parsing, kind, member, <int>self.bounds.max_depth)
        if parsing.switches_off:
            check_flags(self, parsing, self.root, kind, member)
        self._check_room(parsing.added)
        apply_change(self, parsing, self.root, member, now)

    cdef int _check_kind(self, int kind) except -1:
        if kind != self.kind:
            raise Rejected(f"Type mismatch: this entity is a {NAMES[self.kind]}, the delta one of a {NAMES[kind]}")
        if self.gone[self.own]:
            raise Rejected(f"replica {self.replica} was pruned from this state")
        return 0

    cdef int _check_room(self, uint64_t added) except -1:
        if self.bytes_held + added > self.bounds.max_state_size and added > ENTRY_SIZE:
            raise Malformed(f"the state would be larger than {self.bounds.max_state_size} bytes")
        return 0

    def take_delta(self):
        if self.all_fresh:
            delta = self.encode()
        elif self.own_last == self.taken and self.covered.size == 0:
            return b""
        else:
            delta = write_delta(self)
        forget_touched(self, self.root)
        self.all_fresh = False
        self.taken = self.own_last
        self.covered.size = 0
        if self.covered.room > 1024:
            release_dots(&self.covered)
        return delta

    # --- changes of others

    def merge(self, bytes data not None):
        cdef Reader reader
        memset(&reader, 0, sizeof(Reader))
        reader.start = reader.p = start_of(data)
        reader.end = reader.start + len(data)
        try:
            return self._merge(&reader, data)
        finally:
            release_reader(&reader)

    cdef bint _merge(self, Reader* reader, bytes data) except -1:
        cdef const uint8_t* store
        cdef Context joined
        read_header(self, reader)
        store = reader.p
        check_store(reader, self.kind, <int>self.bounds.max_depth)
        if reader.p != reader.end:
            return refuse(reader, "trailing bytes")
        if self.bytes_held + reader.added > self.bounds.max_state_size:
            self._check_joined(data)
        memset(&joined, 0, sizeof(Context))
        try:
            copy_context(&joined, &self.context)
            unite(&joined, &reader.context)
            if cloud_size(&joined) > self.bounds.max_cloud:
                return refuse(reader, f"more than {self.bounds.max_cloud} dots beyond the prefixes")
            reader.p = store
            return self._join(reader, &joined)
        finally:
            release_context(&joined)

    cdef bint _join(self, Reader* reader, Context* joined) except -1:
        """The checked store, then the context that follows."""
        cdef uint32_t i
        cdef bint complete = self.own_last == self.taken
        reader.index = 0
        reader.n = 0
        adopt_names(self, reader)
        self.changed = not same_context(joined, &self.context)
        join_store(self, reader, self.root)
        for i in range(reader.pruned):
            self.gone[reader.slots[reader.replicas + i]] = 1
            strip_slot(joined, reader.slots[reader.replicas + i], ENDLESS)
        swap_contexts(&self.context, joined)
        self._follow_own(complete)
        self.behind = self.behind or self.changed
        return self.changed

    cdef int _follow_own(self, bint complete) except -1:
        """Own changes that came back from others, after a loss here, are not to be sent again."""
        cdef uint64_t last
        if self.gone[self.own]:
            return 0
        last = last_of(&self.context, self.own)
        if last > self.own_last:
            self.own_last = last
            if complete:
                self.taken = last
            else:
                self.all_fresh = True
        return 0

    cdef int _check_joined(self, bytes data) except -1:
        """The slow way to see what the state would be: join a copy."""
        cdef State copy = State(self.kind, self.replica, 0, NO_BOUNDS)
        copy.merge(self.encode())
        copy.merge(data)
        if copy.bytes_held > self.bounds.max_state_size and copy.bytes_held > self.bytes_held:
            raise Malformed(f"the state would be larger than {self.bounds.max_state_size} bytes")
        return 0

    def prune(self, uint64_t gone, uint64_t heir):
        cdef uint32_t slot
        if heir != self.replica or gone == heir:
            raise CrdtError("only an heir prunes, and another replica than itself")
        if self.gone[self.own]:
            raise CrdtError(f"replica {self.replica} was pruned itself")
        slot = slot_for(self, gone)
        if slot == NO_ENTRY:
            slot = add_slot(self, gone)
        if self.gone[slot]:
            return
        inherit(self, self.root, slot)
        widen(&self.context, slot + 1)
        strip_slot(&self.context, slot, ENDLESS)
        self.gone[slot] = 1
        self.all_fresh = True

    @property
    def pruned(self):
        return frozenset([self.ids[slot] for slot in range(self.slots) if self.gone[slot]])

    def names(self, uint64_t replica):
        cdef uint32_t slot = slot_for(self, replica)
        return slot != NO_ENTRY and not self.gone[slot]

    def forget_pruned(self, uint64_t gone):
        cdef uint32_t slot = slot_for(self, gone)
        if slot != NO_ENTRY and self.gone[slot]:
            self.gone[slot] = 0
            strip_slot(&self.context, slot, 0)

    # --- the user function's view

    def open_view(self):
        cdef Buffer out
        memset(&out, 0, sizeof(Buffer))
        if self.view_open:
            self.close_view()
        self.view_open = True
        self._see_all()
        append_byte(&out, <uint8_t>(self.kind << 3 | LEN))
        put_whole(&out, self, self.root)
        insert_length(&out, 1)
        return taken_from(&out)

    def take_change(self):
        cdef Buffer out
        if self.behind:
            self._see_all()
        if not self.root.pending:
            return b""
        memset(&out, 0, sizeof(Buffer))
        append_byte(&out, <uint8_t>(self.kind << 3 | LEN))
        if put_difference(&out, self, self.root) != WRITTEN:
            release(&out)
            return b""
        insert_length(&out, 1)
        return taken_from(&out)

    cdef int _see_all(self) except -1:
        self.behind = False
        return copy_context(&self.seen, &self.context)

    def close_view(self):
        self.view_open = False
        self.behind = False
        forget_view(self, self.root)

    def set_members(self, incarnations, int64_t absent=0):
        if absent < 0:
            raise ValueError(f"absent is {absent}; it must not be negative")
        self.members = frozenset(incarnations)
        self.absent = absent
        if not self.view_open:
            return False
        if self.votes:
            tell_votes(self, self.root)
        return differs(self, self.root)

    # --- as a whole

    def encode(self, bint canonical=False):
        return Writer(self, canonical).message(&self.context, True, ALL)

    def digest(self):
        """Of the entries the running sum, of the context all of it."""
        cdef uint64_t[5] words
        cdef uint64_t low = self.sum_low, high = self.sum_high
        cdef uint64_t part_low, part_high
        cdef uint32_t slot, i
        for slot in range(min(self.context.slots, self.slots)):
            if self.context.prefix[slot]:
                mix_dot(1, 2, self.ids[slot], self.context.prefix[slot], &part_low, &part_high)
                low += part_low
                high += part_high
        for i in range(self.context.runs):
            slot = slot_in(self.context.cloud[i].first)
            mix_dot(3, count_in(self.context.cloud[i].first), self.ids[slot], count_in(self.context.cloud[i].last),
                    &part_low, &part_high)
            low += part_low
            high += part_high
        words[0], words[1], words[2], words[3], words[4] = low, high, self.kind, 0, 0
        cdef XXH128_hash_t sum = XXH3_128bits_withSeed(words, sizeof(words), FORMAT)
        memcpy(words, &sum, 16)
        return PyBytes_FromStringAndSize(<const char*>words, 16)

    @property
    def size(self):
        return self.bytes_held + 16 + 16 * self.slots

    def dump(self):
        return self.kind, dumped_context(self), dumped_store(self, self.root), self.pruned

    # --- single operations

    def value(self):
        return value_of(self, self.root)

    def increment(self, amount=1):
        if self.kind == PNCOUNTER:
            if not INT64_MIN <= amount <= INT64_MAX:
                raise Rejected("a change of a PNCounter must be a signed number of 64 bits")
            self._check_kind(PNCOUNTER)
            count_up(self, self.root, amount, 0)
            return
        self._check_kind(GCOUNTER)
        if not 0 <= amount <= INT64_MAX:
            raise Rejected("Cannot decrement a GCounter")
        count_up(self, self.root, 0, amount)

    def add(self, bytes element not None):
        cdef Element found
        self._check_kind(GSET if self.kind == GSET else ORSET)
        any_element(self, element, &found, True)
        self._check_room(found.size + ENTRY_SIZE)
        add_element(self, self.root, &found)

    def remove(self, bytes element not None):
        cdef Element found
        self._check_kind(ORMAP if self.kind == ORMAP else ORSET)
        if any_element(self, element, &found, False):
            if self.kind == ORMAP:
                remove_key(self, self.root, &found, 0)
            else:
                remove_element(self, self.root, &found)

    def clear(self):
        self._check_kind(ORMAP if self.kind == ORMAP else ORSET)
        clear(self, self.root)

    def contains(self, bytes element not None):
        cdef Element found
        cdef uint32_t at
        if self.root.table == NULL:
            raise Rejected(f"Type mismatch: a {NAMES[self.kind]} has no elements")
        if not any_element(self, element, &found, False):
            return False
        if self.kind == ORMAP:
            return visible_kind(self, self.root, &found) != 0
        at = find(self.root.table, &found)
        return at != NO_ENTRY and has_dots(self.root.table.entries[at].dots)

    def set(self, bytes value not None, int64_t now, uint64_t clock=0, int64_t custom=0):
        self._check_kind(LWWREGISTER)
        self._check_room(len(value))
        return bool(write_register(
            self, self.root, canonical_any(value), next_time(winner(self, self.root), clock, custom, now)
        ))

    def enable(self):
        self._check_kind(FLAG)
        switch_on(self, self.root)

    def vote(self, bint vote):
        self._check_kind(VOTE)
        cast_vote(self, self.root, vote)


# --- names -----------------------------------------------------------------------------------------------------------

cdef inline const uint8_t* start_of(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)


cdef void swap_contexts(Context* a, Context* b) noexcept:
    cdef Context kept = a[0]
    a[0] = b[0]
    b[0] = kept


cdef uint32_t add_slot(State state, uint64_t replica) except? NO_ENTRY:
    """A replica that was not known."""
    cdef uint32_t slot = state.slots
    if slot >= state.bounds.max_replicas:
        raise Malformed(f"more than {state.bounds.max_replicas} replicas")
    if slot == state.slots_room:
        state.slots_room = state.slots_room * 2 if state.slots_room else 4
        state.ids = <uint64_t*>resized(state.ids, state.slots_room * sizeof(uint64_t))
        state.gone = <uint8_t*>resized(state.gone, state.slots_room)
    state.ids[slot] = replica
    state.gone[slot] = 0
    state.slot_of[replica] = slot
    state.slots = slot + 1
    return slot


cdef inline bint is_url(State state, uint32_t type, const uint8_t* url, size_t size) noexcept:
    return (
        type < <uint32_t>PyList_GET_SIZE(state.urls) and state.url_sizes[type] == size
        and memcmp(state.url_data[type], url, size) == 0
    )


cdef uint32_t find_type(State state, const uint8_t* url, size_t size, bint adopt) except? GONE:
    """Number of a type URL; NO_ENTRY if it is not known and not to be."""
    cdef bytes name = PyBytes_FromStringAndSize(<const char*>url, <Py_ssize_t>size)
    found = state.type_of.get(name)
    if found is None:
        if not adopt:
            return NO_ENTRY
        found = add_type(state, name)
    state.last_type = found
    return state.last_type


cdef uint32_t add_type(State state, bytes url) except? GONE:
    cdef uint32_t type = <uint32_t>len(state.urls)
    if type >= MAX_URLS:
        raise Malformed(f"more than {MAX_URLS} type URLs")
    if type == state.types_room:
        state.types_room = state.types_room * 2 if state.types_room else 4
        state.url_hashes = <uint64_t*>resized(state.url_hashes, state.types_room * sizeof(uint64_t))
        state.url_data = <const uint8_t**>resized(state.url_data, state.types_room * sizeof(uint8_t*))
        state.url_sizes = <uint32_t*>resized(state.url_sizes, state.types_room * sizeof(uint32_t))
    state.url_hashes[type] = XXH3_64bits(PyBytes_AS_STRING(url), len(url))
    state.url_data[type] = start_of(url)
    state.url_sizes[type] = <uint32_t>len(url)
    state.urls.append(url)
    state.type_of[url] = type
    return type

# What is stored, as the loop's thread reads it. See logreader.pyx.

from libc.stdint cimport uint32_t, uint64_t

from stateside._speedups.lmdb cimport MDB_cursor, MDB_txn, MDB_val
from stateside._speedups.logwriter cimport Writer

# First argument of `explain`. The public names are ErrorKind in log.pyx.
cdef enum Kind:
    TAKEN = 1
    STALE = 2
    CORRUPT = 3
    ORPHAN = 4
    NO_SPACE = 5
    QUEUE = 6
    FLUSH_FAILED = 7
    TOO_LARGE = 8
    ENTITY = 9
    CLOSED = 10
    FORMAT = 11
    STORE = 12
    HAS_VALUE = 13
    HAS_EVENTS = 14
    OTHER_SHARDS = 15

# An entity id in UTF-8; the text itself is kept alive by the caller.
cdef struct Name:
    const char* data
    size_t size

# Where a record begins: its first sequence (a value's version) and its offset in the log.
cdef struct Place:
    uint64_t sequence
    uint64_t offset

# What an append is checked against.
cdef struct HeadMark:
    uint64_t last_sequence
    uint64_t epoch
    bint keeps_value  # versions of a value instead of events

# The places of one entity's records that the index may not have yet, ascending. Of a value: the last one only.
cdef class Tail:
    cdef Place* places
    cdef uint32_t count
    cdef uint32_t capacity
    cdef int add(self, uint64_t sequence, uint64_t offset) except -1
    cdef int put(self, uint64_t version, uint64_t offset) except -1
    cdef bint floor(self, uint64_t sequence, Place* found) noexcept

cdef class LogReader:
    cdef Writer* writer
    cdef object explain
    cdef MDB_txn* txn
    cdef MDB_cursor* index_cursor
    cdef MDB_cursor* log_cursor
    cdef dict young_tails, old_tails

    cdef int open(self, Writer* writer) except -1
    cdef void close(self) noexcept
    cdef uint64_t scan_tail(self, uint64_t indexed) except? 0
    cdef int scan_record(self, uint64_t offset, MDB_val* value) except -1
    cdef int note(self, str entity, const char* record, uint64_t offset) except -1
    cdef tuple load(self, str entity, Name name)
    cdef tuple read(self, str entity, Name name, uint64_t sequence, size_t max_bytes)
    cdef int find_head(self, str entity, Name name, HeadMark* head) except -1
    cdef tuple read_log(self, Name prefix, uint64_t offset, uint32_t limit, size_t max_bytes)
    cdef bint scan_log(self, Name prefix, uint64_t* offset, uint32_t limit, size_t max_bytes, list entries) except -1
    cdef int log_record(self, MDB_val* value, uint64_t offset, Name prefix) except -1
    cdef list entities(self, bytes prefix, bytes after, Py_ssize_t limit)
    cdef int indexed_entities(self, bytes prefix, bytes after, Py_ssize_t limit, list found) except -1
    cdef list tail_entities(self, bytes prefix, bytes after)

    cdef int begin(self) except -1
    cdef int renew(self) noexcept
    cdef void end(self) noexcept
    cdef const char* last_record(self, str entity, Name name, Place* place) except? NULL
    cdef tuple load_value(self, str entity, Name name, Place* place)
    cdef bint collect(self, str entity, Name name, uint64_t sequence, size_t max_bytes, list events) except -1
    cdef bint first_place(self, str entity, Name name, uint64_t sequence, Place* place, bint* indexed) except -1
    cdef bint next_place(self, str entity, Name name, uint64_t expected, Place* place, bint* indexed) except -1
    cdef bint tail_floor(self, str entity, uint64_t sequence, Place* place) except -1
    cdef bint index_floor(self, Name name, uint64_t sequence, Place* place) noexcept
    cdef bint index_next(self, Name name, Place* place) noexcept
    cdef const char* record_at(self, str entity, Name name, Place* place, bint whole) except NULL
    cdef bint snapshot_of(self, str entity, Name name, MDB_val* value) except -1

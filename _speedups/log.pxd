# The loop's half of the journal's store. See log.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from stateside._speedups.lmdb cimport MDB_txn
from stateside._speedups.logreader cimport HeadMark, LogReader, Name
from stateside._speedups.logwriter cimport Batch, Item, Outcome, Writer

# One append or put as it was asked for.
cdef struct Append:
    Name name
    uint64_t first_sequence
    uint64_t epoch
    size_t size
    uint8_t flags
    bint gap_allowed  # a restored value may leave out versions

# What an append of an entity is checked against. Appends in flight count.
cdef class Mark:
    cdef HeadMark head

cdef class Log:
    cdef Writer writer
    cdef LogReader reader
    cdef Batch[2] batches
    cdef Batch* gathering
    cdef Batch* flying  # NULL: the writer rests
    cdef list gathering_waiters, gathering_entities, flying_waiters, flying_entities, refused
    cdef bint kicked  # a hand-over at the end of this loop turn is arranged
    cdef bint closing
    cdef bint told_broken
    cdef int trouble
    cdef object path, loop, explain, error_type, on_broken, thread, drained
    cdef size_t queue_bytes, record_bytes
    cdef uint32_t queue_appends, mark_limit
    cdef dict young_marks, old_marks
    cdef uint64_t next_offset
    cdef readonly uint64_t stored_offset
    cdef readonly bint opened
    cdef readonly int state
    cdef readonly uint64_t epoch  # of the latest claim through this object; 0: none
    cdef readonly uint64_t appends, events, values, batch_size_last, batch_size_max
    cdef readonly str identity
    cdef public object on_events  # called after a batch with events was stored and answered

    cdef int check(self, int code) except -1
    cdef int open_environment(self) except -1
    cdef int open_databases(self) except -1
    cdef int open_meta(self, MDB_txn* txn) except -1
    cdef bytes get_meta(self, MDB_txn* txn, bytes name)
    cdef int put_meta(self, MDB_txn* txn, bytes name, bytes value) except -1
    cdef int try_meta(self, MDB_txn* txn, bytes name, bytes value) noexcept
    cdef object write_claim(self, uint64_t number_of_shards)

    cdef Name name_of(self, str entity) except *
    cdef int take(self, str entity, Append* asked, list events, bytes snapshot, object waiter) except -1
    cdef object refusal(self, str entity, Append* asked)
    cdef object sequence_error(self, str entity, Append* asked, HeadMark* head)
    cdef object state_error(self, str entity)
    cdef int refuse(self, object waiter, object error) except -1
    cdef int gather(self, Append* asked, list events, bytes snapshot) except -1
    cdef int kick(self) except -1
    cdef int hand_over(self) except -1
    cdef int complete(self, Outcome* outcome) except -1
    cdef int note_stored(self, Outcome* outcome) except -1
    cdef int forget_failed(self) except -1
    cdef int answer(self, list waiters, list entities, int code) except -1
    cdef int tell_broken(self) except -1

    cdef Mark mark(self, str entity, Name name)
    cdef int rotate_marks(self) except -1

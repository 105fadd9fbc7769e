"""Shape of `generator`; generator.pyi documents it."""

from libc.stdint cimport int64_t, uint64_t
from stateside._speedups.h2 cimport Call, Channel, ClientCall, Handler


cdef class Latencies:
    cdef int64_t* counts
    cdef readonly int64_t count, total_ns, max_ns

    cdef void record(self, int64_t ns) noexcept


cdef class Keys:
    cdef readonly str distribution
    cdef readonly int64_t population
    cdef bytes prefix
    cdef int kind, digits
    cdef double share, theta, zetan, eta, alpha, second
    cdef uint64_t random_state
    cdef int64_t turn

    cdef int64_t pick(self) noexcept
    cdef int64_t zipf(self) noexcept
    cdef double random(self) noexcept


cdef class Command:
    cdef readonly str name
    cdef readonly Latencies latencies
    cdef readonly int64_t completed, failed
    cdef readonly dict statuses
    cdef bytes path, tag, rest, expected
    cdef list messages
    cdef double weight
    cdef bint echoes


cdef class Generator:
    cdef readonly list commands, problems
    cdef readonly Latencies window
    cdef readonly int64_t begun, completed, failed, in_flight, late
    cdef readonly bint stopping
    cdef object loop, on_done
    cdef int timer
    cdef Keys keys
    cdef list channels, idle
    cdef Command only
    cdef double total_weight
    cdef Py_ssize_t next_channel
    cdef int64_t max_in_flight, to_begin, started_ns, scheduled
    cdef double interval

    cdef int begin(self, Slot slot, int64_t due_ns) except -1
    cdef int ended(self, Slot slot, int status, str message) except -1
    cdef int go_on(self, Slot slot) except -1
    cdef int begin_due(self) except -1
    cdef int check_done(self) except -1
    cdef int fail(self, Command command, int status, str problem) except -1
    cdef Command pick(self)
    cdef bytes message(self, Command command)
    cdef bytes write(self, Command command, int64_t key)


cdef class Slot(Handler):
    cdef Generator generator
    cdef Channel channel
    cdef Command command
    cdef bytes sent
    cdef int64_t due_ns
    cdef int answers
    cdef bint wrong


cdef class StreamReader:
    cdef readonly int64_t completed, failed, in_flight
    cdef readonly list problems
    cdef bytes path, message
    cdef list readings
    cdef bint stopping
    cdef object on_done

    cdef int ended(self, str problem) except -1


cdef class Reading(Handler):
    cdef StreamReader reader
    cdef ClientCall call
    cdef uint64_t received
    cdef bint wrong

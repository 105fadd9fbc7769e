"""Shape of `native`; native.pyi documents it."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from stateside._speedups.h2 cimport Call, Handler, ServerCall

cdef struct Slice:
    const uint8_t* data
    Py_ssize_t size

cdef struct Command:
    int64_t id
    Slice name
    Slice type_url
    Slice value


cdef class EntityStream:
    cdef int64_t sequence
    cdef bint begun, commanded


cdef class EntityEcho(Handler):
    cdef readonly int64_t inits, replayed, commands, emitted, violations
    cdef readonly str last_violation
    cdef readonly int64_t first_replayed_ns, last_replayed_ns

    cdef int begin(self, EntityStream stream) except -1
    cdef int replay(self, EntityStream stream, const uint8_t* p, const uint8_t* end) except -1
    cdef int answer(self, Call call, EntityStream stream, const uint8_t* p, const uint8_t* end) except -1
    cdef int violated(self, Call call, str rule) except -1


cdef class ValueStream:
    cdef int64_t updates
    cdef bint begun


cdef class ValueEcho(Handler):
    cdef readonly int64_t inits, commands, updates, violations
    cdef readonly str last_violation

    cdef int begin(self, ValueStream stream, const uint8_t* p, const uint8_t* end) except -1
    cdef int answer(self, Call call, ValueStream stream, const uint8_t* p, const uint8_t* end) except -1


cdef class CounterEcho(Handler):
    cdef readonly int64_t inits, commands, deltas, violations
    cdef readonly str last_violation


cdef class ActionEcho(Handler):
    cdef readonly int64_t calls


cdef class EndlessAction(Handler):
    cdef readonly int64_t calls, sent, open

    cdef int fill(self, Call call) except -1


cdef class DirectEcho(Handler):
    cdef readonly int64_t calls

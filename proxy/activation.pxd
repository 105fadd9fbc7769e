"""Shape of activation.py for the compiler: with it the way of a command is C from the transport to the user function's
stream and back, while the module stays Python to read. What is not typed here behaves as it is written there."""

from stateside._speedups.h2 cimport Handler
from stateside._speedups.wire cimport CommandWriter, KeyScanner, Outgoing
from stateside.proxy.service_metrics cimport EntityMetrics

cdef int READY, BUSY, STORING, CLOSING


cdef class EntityMethod(Handler):
    cdef public bint takes_clients, streamed
    cdef public object entities, model  # `entities` may be somebody who stands before them
    cdef public str name, output_type_url
    cdef KeyScanner _scanner
    cdef CommandWriter _writer
    cdef dict _active

    cpdef object on_request(self, object call, bytes message)
    cpdef bytes write(self, bytes key, long long command_id, bytes payload)


cdef class NotingMethod(EntityMethod):
    cpdef object on_request(self, object call, bytes message)


cdef class Entities:
    cdef public dict active, methods
    cdef public object journal, user_function, timers, router, settings, model, links, shard_of
    cdef public EntityMetrics metrics
    cdef public double relay_timeout, passivation_timeout, check_interval, crash_close_timeout
    cdef public Py_ssize_t stash_depth
    cdef public tuple timeouts


cdef class Activation(Handler):
    cdef public Entities entities
    cdef public object channel, close_as, stash, stream, client
    cdef public Outgoing reply
    cdef public str key, log_id
    cdef public bytes key_utf8, payload
    cdef public EntityMethod method
    cdef public int state, refusals, loads
    cdef public long long command_id, last_sequence, served
    cdef public double due, touched, activated, received, sent, answered, stored_from

    cpdef object on_command(self, object call, EntityMethod method, bytes payload)
    cpdef object on_ready_command(self, object call, EntityMethod method, bytes payload)
    cpdef object _ready(self, double now)
    cpdef object _send(self, object call, EntityMethod method, bytes payload, double received)
    cpdef bint _expected(self, object call, Outgoing reply) except -1
    cpdef object _answer(self, Outgoing reply, double now)
    cpdef object _next(self, double now)
    cpdef tuple _completed(self, double now)
    cpdef object _store(self, Outgoing reply, double now)
    cpdef object _stored(self, Outgoing reply)
    cpdef object on_appended(self, object error)

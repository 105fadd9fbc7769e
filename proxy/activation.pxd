"""Shape of activation.py for the compiler: with it the way of a command is C from the transport to the user function's
stream and back, while the module stays Python to read. What is not typed here behaves as it is written there."""

from stateside._speedups.h2 cimport Handler
from stateside._speedups.wire cimport KeyScanner

cdef int READY, BUSY, STORING, CLOSING


cdef class EntityMethod(Handler):
    cdef public bint takes_clients
    cdef public object entities, model
    cdef public str name, output_type_url
    cdef public object write
    cdef readonly KeyScanner _scanner
    cdef dict _active

    cpdef object on_request(self, object call, bytes message)


cdef class NotingMethod(EntityMethod):
    cpdef object on_request(self, object call, bytes message)


cdef class Activation(Handler):
    cdef public object entities, channel, close_as, reply, stash, stream, client
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
    cpdef bint _expected(self, object call, object reply) except -1
    cpdef object _answer(self, object reply, double now)
    cpdef object _next(self, double now)
    cpdef tuple _completed(self, double now)

"""Shape of action.py for the compiler."""

from stateside._speedups.h2 cimport Handler
from stateside._speedups.wire cimport ActionOut, ActionWriter
from stateside.proxy.service_metrics cimport ActionMetrics


cdef class ActionMethod(Handler):
    cdef public Actions actions
    cdef public object model, _machine
    cdef public str name, output_type_url
    cdef public bytes path
    cdef public bint takes_clients
    cdef readonly ActionWriter writer

    cpdef object on_request(self, object call, bytes message)
    cpdef object on_message(self, object call, bytes message)
    cpdef object on_half_close(self, object call)
    cpdef object on_drain(self, object call)
    cpdef object on_cancel(self, object call, int status)


cdef class Actions:
    cdef public object user_function, timers, router, settings, loop, model
    cdef public ActionMetrics metrics
    cdef public double timeout, due, touched
    cdef public dict waiting, methods


cdef class ActionCall(Handler):
    cdef public Actions actions
    cdef public object channel, client, stream
    cdef public double deadline, given
    cdef public tuple first
    cdef public bint half_closed
    cdef public ActionMethod method
    cdef public int refusals

    cpdef object _ask(self)
    cpdef object on_stream(self, object stream)
    cpdef object on_end(self, object call, int status, str message)
    cpdef object on_drain(self, object call)
    cpdef object on_outcome(self, int status, str message)
    cpdef ActionOut _scan(self, bytes message)
    cpdef object _released(self)


cdef class SingleReply(ActionCall):
    cdef public ActionOut reply

    cpdef object on_message(self, object call, bytes message)
    cpdef object on_outcome(self, int status, str message)
    cpdef object _answer(self, ActionOut reply)


cdef class ReplyStream(ActionCall):
    cdef public str expected_type
    cdef public object forwarded
    cdef public bint is_full, item_is_open
    cdef public tuple outcome

    cpdef object on_message(self, object call, bytes message)
    cpdef object on_outcome(self, int status, str message)

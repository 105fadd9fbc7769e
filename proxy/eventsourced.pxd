"""Shape of eventsourced.py for the compiler."""

from stateside._speedups.wire cimport Outgoing
from stateside.proxy.activation cimport Activation


cdef class EventSourced(Activation):
    cpdef object on_message(self, object call, bytes message)
    cpdef object _stored(self, Outgoing reply)

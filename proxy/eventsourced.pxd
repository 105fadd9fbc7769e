"""Shape of eventsourced.py for the compiler."""

from stateside._speedups.wire cimport StreamOut, scan_event_sourced_out
from stateside.proxy.activation cimport Activation


cdef class EventSourced(Activation):
    cpdef object on_message(self, object call, bytes message)

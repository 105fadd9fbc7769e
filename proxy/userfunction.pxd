"""Shape of userfunction.py for the compiler."""

from stateside._speedups.h2 cimport Handler


cdef class UserFunction:
    cdef public object _settings, _tls, _make_room, _connecting
    cdef public list _channels, _roomy
    cdef public dict waiting
    cdef public bint _refused, _closed
    cdef public long long streams, refused
    cdef object __weakref__

    cpdef object request(self, bytes path, object borrower, double deadline=*)
    cpdef object release(self, object borrower)
    cpdef bint _open(self, bytes path, object borrower, double deadline) except -1
    cpdef long long _room(self, object channel) except? -1

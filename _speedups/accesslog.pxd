"""Shape of the access log: the transport writes lines into it without making an object."""

from libc.stdint cimport int64_t

cdef enum:
    STAMP_SIZE = 20  # 2026-11-21T22:43:58.


cdef struct Buffer:
    char *data
    Py_ssize_t size
    Py_ssize_t room
    Py_ssize_t lines


cdef class AccessLog:
    cdef readonly bint is_json
    cdef readonly bint wants_keys
    cdef readonly int64_t lines  # written or waiting
    cdef readonly int64_t dropped
    cdef Py_ssize_t most
    cdef Buffer filling, draining
    cdef bint in_drain
    cdef int64_t stamped
    cdef double offset  # of the wall clock to the other
    cdef char stamp[STAMP_SIZE + 1]

    cdef void line(
        self, double now, double seconds, str peer, bytes protocol, bytes method, bytes status,
        int64_t bytes_in, int64_t bytes_out, str key) noexcept
    cdef void stamp_second(self, int64_t second) noexcept


cdef bytes escaped(bytes text, Py_ssize_t most)

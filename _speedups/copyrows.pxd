# Records of the log as rows for Postgres. See copyrows.pyx.

from libc.stdint cimport uint64_t

# What a batch does to one entity.
cdef class Head:
    cdef readonly bytes entity
    cdef readonly uint64_t first_sequence
    cdef readonly uint64_t last_sequence
    cdef readonly bint is_value
    cdef readonly bint has_snapshot  # an append in the batch brought one
    cdef readonly bytes value

cdef class CopyRows:
    cdef readonly dict heads
    cdef readonly uint64_t events
    cdef readonly uint64_t records
    cdef readonly uint64_t bytes_in
    cdef readonly bytes checksum
    cdef readonly uint64_t next_offset
    cdef char* data
    cdef size_t used
    cdef size_t capacity

    cdef int reserve(self, size_t size) except -1
    cdef int add_events(self, Head head, const char* record) except -1

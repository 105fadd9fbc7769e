"""Shape of the histogram: for those who count without Python."""

from libc.stdint cimport int64_t

cdef enum:
    MAX_BOUNDS = 32


cdef class Histogram:
    cdef readonly tuple bounds
    cdef readonly double sum
    cdef double edges[MAX_BOUNDS]
    cdef int64_t tallies[MAX_BOUNDS + 1]
    cdef int size

    cpdef object observe(self, double value)
    cdef inline void add(self, double value) noexcept:
        cdef int at = 0
        while at < self.size and self.edges[at] < value:
            at += 1
        self.tallies[at] += 1
        self.sum += value

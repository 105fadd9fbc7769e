"""Counts in fixed buckets, a few nanoseconds each: what the way of a command observes (contract: histogram.pyi).

The buckets are looked through from the lowest, because that is where nearly all observations of a healthy proxy fall.
"""


cdef class Histogram:
    def __init__(self, bounds):
        cdef int at
        self.bounds = tuple(bounds)
        if not 0 < len(self.bounds) <= MAX_BOUNDS:
            raise ValueError(f"{len(self.bounds)} bounds: from 1 to {MAX_BOUNDS} are possible")
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds are {self.bounds}: they have to ascend")
        self.size = len(self.bounds)
        for at in range(self.size):
            self.edges[at] = self.bounds[at]

    @property
    def counts(self):
        return [self.tallies[at] for at in range(self.size + 1)]

    @property
    def count(self):
        return sum(self.counts)

    cpdef object observe(self, double value):
        self.add(value)

"""What a load is run against, beside a pool of records: designs to compare with, and other faces of the engine."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t


cdef class Baseline:
    """A design to compare with: the four functions of Design, over a ledger."""

    @property
    def cached(self):
        return self.design.cached(self.design.self)


cdef class Face(Baseline):
    """What the harness asks of its pool it may be asked itself."""

    cdef int open(self, tuple sizes, void* (*take)(void*, uint32_t, size_t) noexcept nogil,
                  void (*give)(void*, uint32_t, void*) noexcept nogil) except -1:
        self.sizes = sizes
        self.design.take = take
        self.design.give = give
        self.design.self = <void*>self
        return 0

    cdef void failed_with(self, error) noexcept:
        if self.error is None:
            self.error = error

    def __getattr__(self, name):
        return getattr(self.pool, name)

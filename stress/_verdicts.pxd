# What must hold in a world: after each step, and at the end.
from libc.stdint cimport uint32_t, uint64_t

from deferpool._pool cimport Pool
from stress._grounds cimport Grounds


cdef class Verdicts(Grounds):
    cdef void look_around(self) noexcept nogil
    cdef void look_at(self, const Pool* pool) noexcept nogil
    cdef void agree(self, uint64_t said, uint64_t own, uint64_t which) noexcept nogil
    cdef void count_in(self, const void* item, uint32_t cls) noexcept nogil

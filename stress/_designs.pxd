# What the nogil threads of the stress suite take from, and give back to.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool._face cimport ItemPool
from stress._ledger cimport Ledger

# A design under test: deferpool's pool, or a baseline of the same shape.
cdef struct Design:
    void* (*take)(void* self, uint32_t thread, size_t size) noexcept nogil
    void (*give)(void* self, uint32_t thread, void* record) noexcept nogil
    uint64_t (*cached)(void* self) noexcept nogil
    void* self

cdef class Baseline:
    cdef Design design
    cdef Ledger ledger

# A face of the engine whose items the threads take and give as if they were records. See _faces.pyx.
cdef class Face(Baseline):
    cdef readonly ItemPool pool
    cdef readonly tuple sizes           # of records that stand for its classes
    cdef readonly object error          # the first that no caller expected
    cdef int open(self, tuple sizes, void* (*take)(void*, uint32_t, size_t) noexcept nogil,
                  void (*give)(void*, uint32_t, void*) noexcept nogil) except -1
    cdef void failed_with(self, error) noexcept

# What the nogil threads of the stress suite share. See _load.pyx.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool.records cimport Allocator

# The harness's own count of the allocator's calls; it fails one call in `fail_one_in`, if that is not 0.
cdef struct Counts:
    uint64_t created, destroyed         # of records
    uint64_t meta_created, meta_destroyed
    uint64_t calls, refused
    uint64_t fail_one_in, seed

# Of one thread; only it writes, everybody reads. Padded: threads must not slow each other through the harness.
cdef struct Track:
    uint64_t takes                      # begun
    uint64_t failed                     # of those: ended without a record
    uint64_t gives                      # done
    uint64_t past                       # of the takes: past the last class
    uint64_t random
    char line[88]

cdef struct Sample:
    double seconds
    uint64_t cached                     # published by the Ps and the central pool
    uint64_t fullest
    uint64_t outside                    # the harness's own: at least so many records were cached at that moment
    uint64_t gives                      # records given back so far

# A design under test: deferpool's pool, or a baseline of the same shape.
cdef struct Design:
    void* (*take)(void* self, uint32_t thread, size_t size) noexcept nogil
    void (*give)(void* self, uint32_t thread, void* record) noexcept nogil
    uint64_t (*cached)(void* self) noexcept nogil
    void* self

cdef class Ledger:
    cdef Counts counts
    cdef Allocator allocator

cdef class Baseline:
    cdef Design design
    cdef Ledger ledger

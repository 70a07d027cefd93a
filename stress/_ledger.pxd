# The allocator of a pool under test, which counts its calls by itself and refuses some when told. See _ledger.pyx.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool.records cimport Allocator

# Where a pool asks for memory once it has been made.
cdef enum:
    RECORD
    BATCH_OF_POINTERS
    CACHES                              # the local caches of one P; whatever is neither of the others
    SITES

cdef struct Site:
    uint64_t calls                      # while the ledger is armed
    uint64_t refused
    uint64_t at                         # this call is refused, counted from 1; 0: none

cdef struct Counts:
    uint64_t created, destroyed         # of records
    uint64_t meta_created, meta_destroyed
    uint64_t one_in, seed               # one call in so many is refused, at random; 0: none
    size_t batch                        # bytes of a batch: how a call for one is known
    uint32_t armed
    Site sites[SITES]

cdef void system_release(void* memory) noexcept nogil       # of what alloc gave, without counting it

cdef class Ledger:
    cdef Counts counts
    cdef Allocator allocator

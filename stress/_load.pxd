# What the nogil threads of the stress suite share. See _load.pyx.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool._face cimport ItemPool
from stress._ledger cimport Ledger

# Of one thread; only it writes, everybody reads. Padded: threads must not slow each other through the harness.
cdef struct Track:
    uint64_t takes                      # begun
    uint64_t failed                     # of those: ended without a record
    uint64_t gives                      # done
    uint64_t past                       # of the takes: past the last class
    uint64_t random
    uint64_t decisions                  # hash of what it has decided to do, in order
    uint64_t events                     # written to its ring so far
    uint64_t read                       # of records, when there are no checks: so that reading is not optimized away
    char line[64]

# One take or give, in the ring of the thread that did it.
cdef struct Event:
    uint64_t what                       # record's address, size, take or give
    uint64_t when                       # by the processor's time stamp counter

# What a thread number holds between two calls: a thread that ends may leave it to the next of its number.
cdef struct Hand:
    uint64_t done                       # operations, where a number has several lives
    uint64_t* records[256]              # NULL where there was no memory
    uint32_t sizes[256]                 # 0: nothing here

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

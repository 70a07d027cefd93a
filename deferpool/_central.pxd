# Central pool: the items of one pool and one class that no P holds.
#
# Per class some stripes, each a stack of full batches and a stack of spare empty ones under one lock. A lock is
# held to exchange pointers, never to walk items, allocate or free, so its length does not depend on `cap`.
# `limit` counts the whole pool: room is reserved in `held` before a batch is published and given back after one
# is taken. Keeps total-bound and reuse. Knows nothing of Ps.
from libc.stdint cimport uint32_t, uint64_t

from deferpool._platform cimport alloc_fn, release_fn

cdef struct Batch:
    Batch* next
    uint64_t n
    void* items[1]                      # room for Central.half of them

# What somebody did with the items of a stripe, written down under its lock at the next visit.
cdef struct Tally:
    uint64_t gets                       # items handed to callers from the central pool
    uint64_t puts                       # items given back to the central pool directly
    uint64_t refills, pushed            # transfers into local caches, and how many items they moved
    uint64_t spills, popped             # transfers out of them, drains included in `popped`

cdef struct Stripe:
    uint32_t lock
    uint32_t spares
    Batch* full                         # newest first; under the lock
    Batch* spare                        # under the lock
    uint64_t items                      # in `full`; written under the lock, looked at without it
    Tally tally                         # likewise
    uint64_t created                    # these three: atomic, off every fast path
    uint64_t destroyed
    uint64_t dropped                    # of the destroyed: those the limit or missing memory sent away
    char line[24]

cdef struct Central:
    Stripe* stripes                     # class by class
    uint32_t classes
    uint32_t mask                       # stripes per class less one
    uint32_t half                       # items in a full batch
    uint32_t max_spares                 # per stripe
    uint64_t limit
    alloc_fn alloc                      # memory for batches
    release_fn release
    void* arg
    char line[64]
    uint64_t held                       # items in all full batches, or about to be; never past limit
    char line2[56]

cdef bint open_central(Central* c, uint32_t classes, uint32_t stripes, uint32_t half, uint64_t limit,
                       alloc_fn alloc, release_fn release, void* arg) noexcept nogil
cdef void close_central(Central* c) noexcept nogil

# Whole batches. A batch in hand belongs to its thread, and holds `n` items or none.
cdef Batch* take_full(Central* c, uint32_t cls, uint32_t home) noexcept nogil
cdef Batch* take_empty(Central* c, uint32_t cls, uint32_t home) noexcept nogil
cdef void give_back(Central* c, uint32_t cls, uint32_t home, Batch* batch, const Tally* tally) noexcept nogil
cdef void note(Central* c, uint32_t cls, uint32_t home, const Tally* tally) noexcept nogil
cdef void trim_central(Central* c) noexcept nogil
cdef uint64_t reserve(Central* c, uint64_t n) noexcept nogil

# Single items, for a thread that has no P now.
cdef void* take_one(Central* c, uint32_t cls, uint32_t home) noexcept nogil
cdef bint put_one(Central* c, uint32_t cls, uint32_t home, void* item, const Tally* tally) noexcept nogil

# For a fork: every lock, in order; and in the child `held` anew, for some who had reserved room are gone.
cdef void recount(Central* c) noexcept nogil
cdef void hold_central(Central* c) noexcept nogil
cdef void unhold_central(Central* c) noexcept nogil

cdef inline Stripe* stripe_of(const Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    return &c.stripes[cls * (c.mask + 1) + (home & c.mask)]

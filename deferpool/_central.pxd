# Central pool: the items of one pool and one class that no P holds.
#
# Per class some stripes, each a stack of full batches and a stack of spare empty ones under one lock. A lock is
# held to exchange pointers, never to walk items, allocate or free, so its length does not depend on `cap`.
# `limit` counts the whole pool, in units: an item of a class weighs so many. Room below it is handed out to stripes, and
# stays with a stripe when its items go: so a stripe that empties and fills again asks nobody. Only where none is left does
# a thread take what other stripes have to spare, and only where they have none is the pool full. Room has no class: what
# is too little for an item of one is found by others. Keeps total-bound and reuse. Knows nothing of Ps.
from libc.stdint cimport uint32_t, uint64_t

from deferpool._platform cimport alloc_fn, count, load64, lock, release_fn, store64, unlock

# What is fixed of a class.
cdef struct Terms:
    uint32_t cap                        # items in a local cache; 0: there is none, all go to the central pool
    uint32_t half                       # items in a full batch: half of them, and one at least
    uint32_t max_spares                 # empty batches per stripe
    uint32_t unused
    uint64_t weight                     # units of the limit that an item takes; at least 1

cdef struct Batch:
    Batch* next
    uint64_t n
    void* items[1]                      # room for Terms.half of them

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
    uint64_t room                       # for more of them, in units; likewise
    uint64_t most                       # of them at any time; under the lock
    Tally tally                         # likewise
    uint64_t created                    # these three: atomic, off every fast path
    uint64_t destroyed
    uint64_t dropped                    # of the destroyed: those the limit or missing memory sent away
    const Terms* terms                  # of its class

cdef struct Central:
    Stripe* stripes                     # class by class
    uint32_t classes
    uint32_t mask                       # stripes per class less one
    Terms* terms                        # by class
    uint64_t limit                      # units
    alloc_fn alloc                      # memory for batches
    release_fn release
    void* arg
    char line[64]
    uint64_t reserved                   # units: items, room of all stripes, what threads have in hand; never past limit
    char line2[56]

cdef bint open_central(Central* c, uint32_t classes, uint32_t stripes, const uint32_t* caps, const uint64_t* weights,
                       uint64_t limit, alloc_fn alloc, release_fn release, void* arg) noexcept nogil
cdef void close_central(Central* c) noexcept nogil

cdef Batch* new_batch(Central* c, const Terms* terms) noexcept nogil
cdef uint64_t find_room(Central* c, uint64_t want) noexcept nogil
cdef uint64_t items_in(const Central* c) noexcept nogil     # no more than `limit` has units for
cdef void note(Stripe* stripe, const Tally* tally) noexcept nogil
cdef void trim_central(Central* c) noexcept nogil

# Single items, for a thread that has no P now.
cdef void* take_one(Central* c, uint32_t cls, uint32_t home) noexcept nogil
cdef bint put_one(Central* c, Stripe* stripe, void* item, const Tally* tally) noexcept nogil

# For a fork: every lock, in order; and in the child `reserved` anew, for some who had room in hand are gone.
cdef void recount(Central* c) noexcept nogil
cdef void hold_central(Central* c) noexcept nogil
cdef void unhold_central(Central* c) noexcept nogil

cdef inline Stripe* stripe_of(const Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    return &c.stripes[cls * (c.mask + 1) + (home & c.mask)]


# ---- under the lock of a stripe -----------------------------------------------------------------------

cdef inline uint64_t take_room(Stripe* stripe, uint64_t want) noexcept nogil:
    """Under the lock: up to so many units of what it has to spare."""
    cdef uint64_t n = min(want, stripe.room)
    store64(&stripe.room, stripe.room - n)
    return n


cdef inline void write_down(Stripe* stripe, const Tally* tally) noexcept nogil:
    """Under the lock. Most of a tally is 0, and the compiler knows it."""
    if tally.gets:
        count(&stripe.tally.gets, tally.gets)
    if tally.puts:
        count(&stripe.tally.puts, tally.puts)
    if tally.refills:
        count(&stripe.tally.refills, tally.refills)
    if tally.pushed:
        count(&stripe.tally.pushed, tally.pushed)
    if tally.spills:
        count(&stripe.tally.spills, tally.spills)
    if tally.popped:
        count(&stripe.tally.popped, tally.popped)


cdef inline Batch* take_spare(Stripe* stripe) noexcept nogil:
    """Under the lock; NULL when there is none."""
    cdef Batch* batch = stripe.spare
    if batch != NULL:
        stripe.spare = batch.next
        stripe.spares -= 1
    return batch


cdef inline bint keep_spare(Stripe* stripe, Batch* batch) noexcept nogil:
    """Under the lock. False: there are enough, and the caller frees it once the lock is given back."""
    if stripe.spares >= stripe.terms.max_spares:
        return False
    batch.next = stripe.spare
    stripe.spare = batch
    stripe.spares += 1
    return True


# ---- whole batches: one exchange under one lock, inlined into refill and spill -------------------------
#
# A batch in hand belongs to its thread, and holds `n` items or none; room in hand is counted in `reserved` still.

cdef inline Batch* take_full(Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    """The newest batch of the home stripe, else of another; NULL when there is none. An empty stripe costs one look.

    Another stripe gets an empty batch in exchange: whoever fills it needs that again, and so its lock, which is in
    somebody else's cache, is taken once and not twice.
    """
    cdef uint32_t i
    cdef Stripe* mine = stripe_of(c, cls, home)
    cdef Stripe* stripe
    cdef Batch* batch = NULL
    cdef Batch* empty = NULL
    for i in range(c.mask + 1):
        stripe = stripe_of(c, cls, home + i)
        if load64(&stripe.items) == 0:
            continue
        if i and empty == NULL:
            lock(&mine.lock)
            empty = take_spare(mine)
            unlock(&mine.lock)
        lock(&stripe.lock)
        batch = stripe.full
        if batch != NULL:
            stripe.full = batch.next
            store64(&stripe.items, stripe.items - batch.n)
            store64(&stripe.room, stripe.room + batch.n * stripe.terms.weight)
            if empty != NULL and keep_spare(stripe, empty):
                empty = NULL
        unlock(&stripe.lock)
        if batch != NULL:
            break
    if empty != NULL:
        c.release(c.arg, empty)
    return batch


cdef inline Batch* take_empty(Central* c, Stripe* stripe, uint64_t want, uint64_t* room) noexcept nogil:
    """A spare batch, else a new one, and so many units of room, or as many as the stripe has.

    NULL when there is no memory: no room then either.
    """
    cdef Batch* batch
    lock(&stripe.lock)
    batch = take_spare(stripe)
    room[0] = take_room(stripe, want) if batch != NULL else 0
    unlock(&stripe.lock)
    return batch if batch != NULL else new_batch(c, stripe.terms)


cdef inline bint give_back(Central* c, Stripe* stripe, Batch* batch, uint64_t room, const Tally* tally) noexcept nogil:
    """Publishes a batch with items, or keeps an empty one spare; what is left of the room in hand is the stripe's.

    True when the stripe holds more items than it ever did.
    """
    cdef bint kept = True, more = False
    lock(&stripe.lock)
    store64(&stripe.room, stripe.room + (room - batch.n * stripe.terms.weight))
    if batch.n:
        batch.next = stripe.full
        stripe.full = batch
        store64(&stripe.items, stripe.items + batch.n)
        more = stripe.items > stripe.most
        if more:
            stripe.most = stripe.items
    else:
        kept = keep_spare(stripe, batch)
    write_down(stripe, tally)
    unlock(&stripe.lock)
    if not kept:
        c.release(c.arg, batch)
    return more

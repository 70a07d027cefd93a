"""The central pool of one pool: stripes of batch stacks. See _central.pxd for what may be touched when."""
from libc.stdint cimport uint32_t, uint64_t

from deferpool._platform cimport (
    add64, alloc_fn, cas64, count, line_alloc, line_free, load64, lock, release_fn, store64, unlock,
)


cdef bint open_central(Central* c, uint32_t classes, uint32_t stripes, uint32_t half, uint64_t limit,
                       alloc_fn alloc, release_fn release, void* arg) noexcept nogil:
    cdef uint64_t spares = 64
    c.stripes = <Stripe*>line_alloc(alloc, arg, <size_t>classes * stripes * sizeof(Stripe))
    if c.stripes == NULL:
        return False
    c.classes = classes
    c.mask = stripes - 1
    c.half = half
    c.limit = limit
    if limit // half < spares:          # never more spares than the limit could fill
        spares = limit // half + 1
    c.max_spares = <uint32_t>spares
    c.alloc = alloc
    c.release = release
    c.arg = arg
    return True


cdef void close_central(Central* c) noexcept nogil:
    """Frees what holds the items; they themselves must have been taken out."""
    if c.stripes == NULL:
        return
    trim_central(c)
    line_free(c.release, c.arg, c.stripes)
    c.stripes = NULL


cdef uint64_t reserve(Central* c, uint64_t n) noexcept nogil:
    """Room for up to n items below the limit; how many it gave."""
    cdef uint64_t held, room
    while True:
        held = load64(&c.held)
        room = c.limit - held
        if room < n:
            n = room
        if n == 0:
            return 0
        if cas64(&c.held, held, held + n):
            return n


cdef inline void unreserve(Central* c, uint64_t n) noexcept nogil:
    add64(&c.held, 0 - n)


cdef inline void write_down(Stripe* stripe, const Tally* tally) noexcept nogil:
    count(&stripe.tally.gets, tally.gets)
    count(&stripe.tally.puts, tally.puts)
    count(&stripe.tally.refills, tally.refills)
    count(&stripe.tally.pushed, tally.pushed)
    count(&stripe.tally.spills, tally.spills)
    count(&stripe.tally.popped, tally.popped)


cdef inline bint keep_spare(Central* c, Stripe* stripe, Batch* batch) noexcept nogil:
    """Under the lock. False: there are enough, and the caller frees it once the lock is given back."""
    if stripe.spares >= c.max_spares:
        return False
    batch.next = stripe.spare
    stripe.spare = batch
    stripe.spares += 1
    return True


# ---- whole batches ------------------------------------------------------------------------------------

cdef Batch* take_full(Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    """The newest batch of the home stripe, else of another; NULL when there is none. An empty stripe costs one look."""
    cdef uint32_t i
    cdef Stripe* stripe
    cdef Batch* batch
    for i in range(c.mask + 1):
        stripe = stripe_of(c, cls, home + i)
        if load64(&stripe.items) == 0:
            continue
        lock(&stripe.lock)
        batch = stripe.full
        if batch != NULL:
            stripe.full = batch.next
            store64(&stripe.items, stripe.items - batch.n)
        unlock(&stripe.lock)
        if batch != NULL:
            unreserve(c, batch.n)
            return batch
    return NULL


cdef Batch* take_empty(Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    """A spare batch, else a new one; NULL when there is no memory."""
    cdef Stripe* stripe = stripe_of(c, cls, home)
    cdef Batch* batch
    lock(&stripe.lock)
    batch = stripe.spare
    if batch != NULL:
        stripe.spare = batch.next
        stripe.spares -= 1
    unlock(&stripe.lock)
    if batch == NULL:
        batch = <Batch*>c.alloc(c.arg, sizeof(Batch) + (c.half - 1) * sizeof(void*))
        if batch != NULL:
            batch.n = 0
    return batch


cdef void give_back(Central* c, uint32_t cls, uint32_t home, Batch* batch, const Tally* tally) noexcept nogil:
    """Publishes a batch with items (their room is reserved), or keeps an empty one spare; and writes the tally down."""
    cdef Stripe* stripe = stripe_of(c, cls, home)
    cdef bint kept = True
    lock(&stripe.lock)
    if batch.n:
        batch.next = stripe.full
        stripe.full = batch
        store64(&stripe.items, stripe.items + batch.n)
    else:
        kept = keep_spare(c, stripe, batch)
    write_down(stripe, tally)
    unlock(&stripe.lock)
    if not kept:
        c.release(c.arg, batch)


cdef void note(Central* c, uint32_t cls, uint32_t home, const Tally* tally) noexcept nogil:
    """Writes a tally down when there is no batch to give back with it."""
    cdef Stripe* stripe = stripe_of(c, cls, home)
    lock(&stripe.lock)
    write_down(stripe, tally)
    unlock(&stripe.lock)


cdef void trim_central(Central* c) noexcept nogil:
    """Frees the spare batches."""
    cdef uint32_t i
    cdef Batch* spare
    cdef Batch* batch
    for i in range(c.classes * (c.mask + 1)):
        lock(&c.stripes[i].lock)
        spare = c.stripes[i].spare
        c.stripes[i].spare = NULL
        c.stripes[i].spares = 0
        unlock(&c.stripes[i].lock)
        while spare != NULL:
            batch = spare
            spare = batch.next
            c.release(c.arg, batch)


# ---- single items -------------------------------------------------------------------------------------

cdef void* take_one(Central* c, uint32_t cls, uint32_t home) noexcept nogil:
    cdef uint32_t i
    cdef Stripe* stripe
    cdef Batch* batch
    cdef Batch* surplus = NULL
    cdef void* item = NULL
    for i in range(c.mask + 1):
        stripe = stripe_of(c, cls, home + i)
        if load64(&stripe.items) == 0:
            continue
        lock(&stripe.lock)
        batch = stripe.full
        if batch != NULL:
            batch.n -= 1
            item = batch.items[batch.n]
            store64(&stripe.items, stripe.items - 1)
            count(&stripe.tally.gets, 1)
            if batch.n == 0:
                stripe.full = batch.next
                if not keep_spare(c, stripe, batch):
                    surplus = batch
        unlock(&stripe.lock)
        if item != NULL:
            unreserve(c, 1)
            if surplus != NULL:
                c.release(c.arg, surplus)
            return item
    return NULL


cdef bint put_one(Central* c, uint32_t cls, uint32_t home, void* item, const Tally* tally) noexcept nogil:
    """False when the limit or missing memory forbids it: the caller drops the item, and nothing is written down."""
    cdef Stripe* stripe = stripe_of(c, cls, home)
    cdef Batch* batch
    cdef Batch* fresh = NULL
    cdef bint done = False
    if reserve(c, 1) == 0:
        return False
    while True:
        lock(&stripe.lock)
        batch = stripe.full
        if batch == NULL or batch.n == c.half:
            batch = fresh
            if batch == NULL and stripe.spare != NULL:
                batch = stripe.spare
                stripe.spare = batch.next
                stripe.spares -= 1
            if batch != NULL:
                batch.n = 0
                batch.next = stripe.full
                stripe.full = batch
                fresh = NULL
        if batch != NULL:
            batch.items[batch.n] = item
            batch.n += 1
            store64(&stripe.items, stripe.items + 1)
            write_down(stripe, tally)
            done = True
        unlock(&stripe.lock)
        if done or fresh != NULL:
            break
        fresh = <Batch*>c.alloc(c.arg, sizeof(Batch) + (c.half - 1) * sizeof(void*))
        if fresh == NULL:
            break
    if fresh != NULL:                   # somebody else made room meanwhile
        c.release(c.arg, fresh)
    if not done:
        unreserve(c, 1)
    return done


# ---- fork ---------------------------------------------------------------------------------------------

cdef void hold_central(Central* c) noexcept nogil:
    cdef uint32_t i
    for i in range(c.classes * (c.mask + 1)):
        lock(&c.stripes[i].lock)


cdef void unhold_central(Central* c) noexcept nogil:
    cdef uint32_t i
    for i in range(c.classes * (c.mask + 1)):
        unlock(&c.stripes[i].lock)


cdef void recount(Central* c) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t items = 0
    for i in range(c.classes * (c.mask + 1)):
        items += c.stripes[i].items
    store64(&c.held, items)

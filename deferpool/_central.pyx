"""The central pool of one pool: stripes of batch stacks. See _central.pxd for what may be touched when."""
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from deferpool._platform cimport (
    add64, alloc_fn, cas64, count, line_alloc, line_free, load64, lock, release_fn, store64, unlock,
)


cdef bint open_central(Central* c, uint32_t classes, uint32_t stripes, const uint32_t* caps, const uint64_t* weights,
                       uint64_t limit, alloc_fn alloc, release_fn release, void* arg) noexcept nogil:
    cdef size_t all_stripes = <size_t>classes * stripes * sizeof(Stripe)
    cdef uint64_t batches
    cdef uint32_t i
    cdef Terms* terms
    c.stripes = <Stripe*>line_alloc(alloc, arg, all_stripes + classes * sizeof(Terms))
    if c.stripes == NULL:
        return False
    c.terms = <Terms*>(<char*>c.stripes + all_stripes)
    for i in range(classes):
        terms = &c.terms[i]
        terms.cap = caps[i]
        terms.half = max(caps[i] // 2, <uint32_t>1)
        terms.weight = weights[i]
        batches = limit // (terms.half * terms.weight)
        terms.max_spares = 64 if batches >= 64 else <uint32_t>batches + 1   # never more than the limit could fill
    for i in range(classes * stripes):
        c.stripes[i].terms = &c.terms[i // stripes]
    c.classes = classes
    c.mask = stripes - 1
    c.limit = limit
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


# ---- room -------------------------------------------------------------------------------------------------

cdef uint64_t reserve(Central* c, uint64_t n) noexcept nogil:
    """Up to n units of room that no stripe has yet; how many it gave."""
    cdef uint64_t reserved, left
    while True:
        reserved = load64(&c.reserved)
        left = c.limit - reserved
        if left < n:
            n = left
        if n == 0:
            return 0
        if cas64(&c.reserved, reserved, reserved + n):
            return n


cdef uint64_t find_room(Central* c, uint64_t want) noexcept nogil:
    """So many units of room, else as many as there are: from the pool, and then from all other stripes."""
    cdef uint64_t found = reserve(c, want)
    cdef uint32_t i
    for i in range(c.classes * (c.mask + 1)):
        if found == want:
            break
        if load64(&c.stripes[i].room):
            lock(&c.stripes[i].lock)
            found += take_room(&c.stripes[i], want - found)
            unlock(&c.stripes[i].lock)
    return found


cdef uint64_t items_in(const Central* c) noexcept nogil:
    """While batches move from stripe to stripe one may be met twice; but there are no more than had room."""
    cdef uint64_t items = 0, lightest = UINT64_MAX
    cdef uint32_t i
    for i in range(c.classes * (c.mask + 1)):
        items += load64(&c.stripes[i].items)
    for i in range(c.classes):
        lightest = min(lightest, c.terms[i].weight)
    return min(items, load64(&c.reserved) // lightest)


# ---- whole batches ------------------------------------------------------------------------------------

cdef Batch* new_batch(Central* c, const Terms* terms) noexcept nogil:
    cdef Batch* batch = <Batch*>c.alloc(c.arg, sizeof(Batch) + (terms.half - 1) * sizeof(void*))
    if batch != NULL:
        batch.n = 0
    return batch


cdef void note(Stripe* stripe, const Tally* tally) noexcept nogil:
    """Writes a tally down when there is no batch to give back with it."""
    lock(&stripe.lock)
    write_down(stripe, tally)
    unlock(&stripe.lock)


cdef void trim_central(Central* c) noexcept nogil:
    """Frees the spare batches, and gives the room back to the pool."""
    cdef uint32_t i
    cdef uint64_t room
    cdef Batch* spare
    cdef Batch* batch
    for i in range(c.classes * (c.mask + 1)):
        lock(&c.stripes[i].lock)
        spare = c.stripes[i].spare
        c.stripes[i].spare = NULL
        c.stripes[i].spares = 0
        room = take_room(&c.stripes[i], UINT64_MAX)
        unlock(&c.stripes[i].lock)
        add64(&c.reserved, 0 - room)
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
            store64(&stripe.room, stripe.room + stripe.terms.weight)
            count(&stripe.tally.gets, 1)
            if batch.n == 0:
                stripe.full = batch.next
                if not keep_spare(stripe, batch):
                    surplus = batch
        unlock(&stripe.lock)
        if item != NULL:
            if surplus != NULL:
                c.release(c.arg, surplus)
            return item
    return NULL


cdef inline bint put_under_lock(Stripe* stripe, void* item, Batch** fresh) noexcept nogil:
    """Onto the newest batch, a spare one or the fresh one in hand. False when there is none of these."""
    cdef Batch* batch = stripe.full
    if batch == NULL or batch.n == stripe.terms.half:
        batch = take_spare(stripe)
        if batch == NULL:
            batch = fresh[0]
            fresh[0] = NULL
        if batch == NULL:
            return False
        batch.n = 0
        batch.next = stripe.full
        stripe.full = batch
    batch.items[batch.n] = item
    batch.n += 1
    store64(&stripe.items, stripe.items + 1)
    return True


cdef bint put_one(Central* c, Stripe* stripe, void* item, const Tally* tally) noexcept nogil:
    """False when the limit or missing memory forbids it: the caller drops the item, and nothing is written down."""
    cdef Batch* fresh = NULL
    cdef uint64_t room = 0, weight = stripe.terms.weight
    cdef bint done = False
    while True:
        lock(&stripe.lock)
        room += take_room(stripe, weight - room)
        if room == weight and put_under_lock(stripe, item, &fresh):
            write_down(stripe, tally)
            done = True
        unlock(&stripe.lock)
        if done:
            break
        if room < weight:
            room += find_room(c, weight - room)
            if room < weight:
                break
        else:
            fresh = new_batch(c, stripe.terms)
            if fresh == NULL:
                break
    if fresh != NULL:                   # somebody else made room for it meanwhile
        c.release(c.arg, fresh)
    if room and not done:
        add64(&c.reserved, 0 - room)
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
    cdef uint64_t reserved = 0
    for i in range(c.classes * (c.mask + 1)):
        reserved += c.stripes[i].items * c.stripes[i].terms.weight + c.stripes[i].room
    store64(&c.reserved, reserved)

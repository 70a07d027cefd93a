"""One pool, below its inlined fast path: the primitives in either mode, refill and spill, and the slow paths.

refill and spill run outside any section: a thread that waits for a lock, allocates or walks items holds no P.
Between two primitives it may have moved to another P, so each looks for itself whether the cache fits.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from deferpool._central cimport (
    Batch, Central, Stripe, Tally, Terms, close_central, find_room, give_back, hold_central, items_in, note, open_central,
    put_one, recount, stripe_of, take_empty, take_full, take_one, trim_central, unhold_central,
)
from deferpool._platform cimport (
    LINE, add64, alloc_fn, cas64, likely, line_alloc, line_free, load32, load64, lock, plain_alloc, plain_release,
    release_fn, store32, store64, unlock,
)
from deferpool._sched cimport Member, Registry, acquirep, link, releasep, start_for, stop_for, unlink
from deferpool._sections cimport (
    DONE, NO_P, ONE_POP, UNFIT, Cache, P, count_of, newest_of, number_hint, pops_of, section_pop, section_popn,
    section_push, section_pushn, set_number_base, word_of_empty,
)

cdef extern from "thread.h" nogil:
    """
    #if defined(DP_EXPLORE)
    #define dp_last_p (*dp_model_last_p())
    #else
    static DP_OF_THREAD uint32_t dp_last_p;
    #endif
    """
    uint32_t last_p "dp_last_p"         # of this thread, portable mode: where it looks for a P first


# ---- the four primitives, in either mode ----------------------------------------------------------------
#
# DONE, UNFIT (empty, full or no room) or NO_P. `at` is the class's place. In portable mode the same happens between
# acquirep and releasep; the store of `word` is the commit there too, for those who read the counts meanwhile.

cdef inline Cache* local_cache(Pool* pool, uint32_t p, uint32_t at) noexcept nogil:
    return <Cache*>(pool.front.caches[p] + at)

cdef inline Cache* cache_of(Pool* pool, uint32_t p, uint32_t cls) noexcept nogil:
    return local_cache(pool, p, place_of(pool, cls))


cdef inline int pop(Pool* pool, uint32_t at, void** item) noexcept nogil:
    cdef int status = UNFIT
    cdef uint32_t number
    cdef P* p
    cdef Cache* cache
    if not load32(&pool.front.sched.portable):
        return section_pop(&pool.front, at, item)
    p = acquirep(pool.front.sched, &last_p, &number)
    if p == NULL:
        return NO_P
    cache = local_cache(pool, number, at)
    item[0] = newest_of(cache)[0]
    if likely(item[0] != NULL):
        store64(&cache.word, cache.word + ONE_POP)
        status = DONE
    releasep(p)
    return status


cdef inline int push(Pool* pool, uint32_t at, void* item) noexcept nogil:
    cdef int status = UNFIT
    cdef uint32_t number
    cdef P* p
    cdef Cache* cache
    cdef void** newest
    if not load32(&pool.front.sched.portable):
        return section_push(&pool.front, at, item)
    p = acquirep(pool.front.sched, &last_p, &number)
    if p == NULL:
        return NO_P
    cache = local_cache(pool, number, at)
    newest = newest_of(cache)
    if likely(newest + 1 != <void**>cache):
        newest[1] = item
        store64(&cache.word, cache.word + 1)
        status = DONE
    releasep(p)
    return status


cdef int popn(Pool* pool, uint32_t at, uint32_t n, void** items) noexcept nogil:
    cdef int status = UNFIT
    cdef uint32_t number
    cdef P* p
    cdef Cache* cache
    if not load32(&pool.front.sched.portable):
        return section_popn(&pool.front, at, n, items)
    p = acquirep(pool.front.sched, &last_p, &number)
    if p == NULL:
        return NO_P
    cache = local_cache(pool, number, at)
    if newest_of(cache) + 1 == <void**>cache:
        take_top(cache, n, items)
        status = DONE
    releasep(p)
    return status


cdef int pushn(Pool* pool, uint32_t at, uint32_t n, void** items) noexcept nogil:
    cdef int status = UNFIT
    cdef uint32_t number, i
    cdef P* p
    cdef Cache* cache
    cdef void** newest
    if not load32(&pool.front.sched.portable):
        return section_pushn(&pool.front, at, n, items)
    p = acquirep(pool.front.sched, &last_p, &number)
    if p == NULL:
        return NO_P
    cache = local_cache(pool, number, at)
    newest = newest_of(cache)
    if newest + n < <void**>cache:
        for i in range(n):
            newest[1 + i] = items[i]
        store64(&cache.word, cache.word + n)
        status = DONE
    releasep(p)
    return status


cdef inline void take_top(Cache* cache, uint32_t n, void** items) noexcept nogil:
    """The newest n, oldest first, by whoever owns the P."""
    cdef uint32_t i
    cdef void** oldest = newest_of(cache) + 1 - n
    for i in range(n):
        items[i] = oldest[i]
    store64(&cache.word, cache.word - n)


cdef uint64_t cached_on(const Pool* pool, uint32_t p, uint32_t cls) noexcept nogil:
    return count_of(load64(&cache_of(<Pool*>pool, p, cls).word), terms_of(pool, cls).cap)


cdef inline uint32_t home_of(Pool* pool) noexcept nogil:
    """Which stripe this thread visits first: that of its P, or of the P it had."""
    return last_p - 1 if load32(&pool.front.sched.portable) else number_hint(pool.front.sched)


cdef bint spread(uint32_t number) noexcept nogil:
    return set_number_base(number)


# ---- to and from the allocator ----------------------------------------------------------------------------

cdef void* make(Pool* pool, uint32_t cls, uint32_t home) noexcept nogil:
    cdef void* item = pool.ops.make(pool.ops.face, cls)
    if item != NULL:
        add64(&stripe_of(&pool.central, cls, home).created, 1)
    return item


cdef void drop(Pool* pool, uint32_t cls, uint32_t home, void* item, bint past_limit) noexcept nogil:
    cdef Stripe* stripe = stripe_of(&pool.central, cls, home)
    pool.ops.drop(pool.ops.face, item, cls)
    add64(&stripe.destroyed, 1)
    if past_limit:
        add64(&stripe.dropped, 1)


cdef void drop_past(Pool* pool, uint32_t cls, uint32_t home, Batch* batch, uint64_t kept) noexcept nogil:
    """Cuts a batch in hand down to its first `kept` items, the oldest, and drops the others."""
    while batch.n > kept:
        batch.n -= 1
        drop(pool, cls, home, batch.items[batch.n], True)


# ---- refill and spill -------------------------------------------------------------------------------------

cdef void* refill(Pool* pool, uint32_t cls) noexcept nogil:
    """For an empty local cache: one item of a central batch to the caller, the others onto the P. Else a new item."""
    cdef uint32_t home = home_of(pool)
    cdef Tally tally = Tally(gets=1, puts=0, refills=1, pushed=0, spills=0, popped=0)
    cdef void* item
    cdef uint64_t room = 0, weight = terms_of(pool, cls).weight
    cdef Batch* batch = take_full(&pool.central, cls, home)
    if batch == NULL:
        return make(pool, cls, home)
    batch.n -= 1
    item = batch.items[batch.n]
    if batch.n:
        if pushn(pool, place_of(pool, cls), <uint32_t>batch.n, batch.items) == DONE:
            tally.pushed = batch.n
            batch.n = 0
        else:
            room = find_room(&pool.central, batch.n * weight)
            drop_past(pool, cls, home, batch, room // weight)
    give_back(&pool.central, stripe_of(&pool.central, cls, home), batch, room, &tally)
    return item


cdef bint spill(Pool* pool, uint32_t cls) noexcept nogil:
    """For a full local cache: its newer half to the central pool. False when there is no memory for a batch."""
    cdef uint32_t home = home_of(pool)
    cdef Tally tally = Tally(gets=0, puts=0, refills=0, pushed=0, spills=0, popped=0)
    cdef Stripe* stripe = stripe_of(&pool.central, cls, home)
    cdef uint32_t half = terms_of(pool, cls).half
    cdef uint64_t room, weight = terms_of(pool, cls).weight, want = half * weight
    cdef bint more
    cdef Batch* batch = take_empty(&pool.central, stripe, want, &room)
    if batch == NULL:
        return False
    if popn(pool, place_of(pool, cls), half, batch.items) == DONE:
        batch.n = half
        tally.spills = 1
        tally.popped = half
        if room < want:
            room += find_room(&pool.central, want - room)
            drop_past(pool, cls, home, batch, room // weight)
    more = give_back(&pool.central, stripe, batch, room, &tally)
    if tally.spills and (more or load64(&pool.central.reserved) > load64(&pool.noted)):
        note_peak(pool)
    return True


# ---- the slow paths ---------------------------------------------------------------------------------------

cdef void* get_slow(Pool* pool, uint32_t at, int status) noexcept nogil:
    cdef void* item
    if status == NO_P:                  # portable mode; or the caller's compiler could not inline the sections
        status = pop(pool, at, &item)
        if likely(status == DONE):
            return item
    return get_central(pool, class_at(pool, at), status)


cdef void put_slow(Pool* pool, void* item, uint32_t at, int status) noexcept nogil:
    if status == NO_P:
        status = push(pool, at, item)
        if likely(status == DONE):
            return
    put_central(pool, item, at, status)


cdef void* get_central(Pool* pool, uint32_t cls, int status) noexcept nogil:
    cdef void* item
    if status == UNFIT and terms_of(pool, cls).cap:
        return refill(pool, cls)
    item = take_one(&pool.central, cls, home_of(pool))
    if item == NULL:
        item = make(pool, cls, home_of(pool))
    return item


cdef void put_central(Pool* pool, void* item, uint32_t at, int status) noexcept nogil:
    cdef uint32_t cls = class_at(pool, at), home, tries
    cdef Stripe* stripe
    cdef Tally tally
    for tries in range(3):              # each spill may have emptied another P than the one we push to next
        if status != UNFIT or terms_of(pool, cls).cap == 0 or not spill(pool, cls):
            break
        status = push(pool, at, item)
    if status == DONE:
        return
    home = home_of(pool)
    stripe = stripe_of(&pool.central, cls, home)
    tally = Tally(gets=0, puts=1, refills=0, pushed=0, spills=0, popped=0)
    if not put_one(&pool.central, stripe, item, &tally):
        note(stripe, &tally)
        drop(pool, cls, home, item, True)


# ---- for faces that do part of this themselves ---------------------------------------------------------------

cdef void count_made(Pool* pool, uint32_t cls) noexcept nogil:
    add64(&stripe_of(&pool.central, cls, home_of(pool)).created, 1)


cdef void discard(Pool* pool, void* item, uint32_t cls) noexcept nogil:
    cdef uint32_t home = home_of(pool)
    cdef Tally tally = Tally(gets=0, puts=1, refills=0, pushed=0, spills=0, popped=0)
    note(stripe_of(&pool.central, cls, home), &tally)
    drop(pool, cls, home, item, False)


# ---- looking, without stopping anybody ----------------------------------------------------------------------

cdef void look(Pool* pool, Look* seen) noexcept nogil:
    cdef uint32_t i, cls, n
    seen.local = 0
    seen.fullest = 0
    for i in range(load32(&pool.member.equipped)):
        for cls in range(pool.classes):
            n = count_of(load64(&cache_of(pool, i, cls).word), terms_of(pool, cls).cap)
            seen.local += n
            if n > seen.fullest:
                seen.fullest = n
    seen.central = items_in(&pool.central)


cdef uint64_t raise_peak(Pool* pool, uint64_t cached) noexcept nogil:
    """The highest figure ever seen, this one included."""
    cdef uint64_t peak
    while True:
        peak = load64(&pool.peak)
        if cached <= peak:
            return peak
        if cas64(&pool.peak, peak, cached):
            return cached


cdef void note_peak(Pool* pool) noexcept nogil:
    cdef Look seen
    look(pool, &seen)
    store64(&pool.noted, load64(&pool.central.reserved))
    raise_peak(pool, seen.local + seen.central)


cdef void add_up(Pool* pool, Figures* f) noexcept nogil:
    cdef uint32_t i, cls
    cdef uint64_t word
    cdef Stripe* stripe
    memset(f, 0, sizeof(Figures))
    for i in range(load32(&pool.member.equipped)):
        for cls in range(pool.classes):
            word = load64(&cache_of(pool, i, cls).word)
            f.local += count_of(word, terms_of(pool, cls).cap)
            f.pops += pops_of(word)
    for i in range(pool.classes * (pool.central.mask + 1)):
        stripe = &pool.central.stripes[i]
        f.tally.gets += load64(&stripe.tally.gets)
        f.tally.puts += load64(&stripe.tally.puts)
        f.tally.refills += load64(&stripe.tally.refills)
        f.tally.pushed += load64(&stripe.tally.pushed)
        f.tally.spills += load64(&stripe.tally.spills)
        f.tally.popped += load64(&stripe.tally.popped)
        f.created += load64(&stripe.created)
        f.destroyed += load64(&stripe.destroyed)
        f.dropped += load64(&stripe.dropped)
    f.central = items_in(&pool.central)
    # a local cache: count = pushes + pushed - pops - popped; every new item answers one get
    f.gets = f.tally.gets + f.pops + f.created
    f.puts = f.tally.puts + f.local + f.pops + f.tally.popped - f.tally.pushed


cdef void weigh(Pool* pool, const uint64_t* sizes, Bytes* bytes_) noexcept nogil:
    cdef uint32_t i, cls
    cdef uint64_t local, central
    cdef int64_t out
    cdef Stripe* stripe
    memset(bytes_, 0, sizeof(Bytes))
    for cls in range(pool.classes):
        local = central = 0
        out = 0
        for i in range(load32(&pool.member.equipped)):
            local += count_of(load64(&cache_of(pool, i, cls).word), terms_of(pool, cls).cap)
        for i in range(pool.central.mask + 1):
            stripe = stripe_of(&pool.central, cls, i)
            central += load64(&stripe.items)
            out += load64(&stripe.created) - load64(&stripe.destroyed)
        out -= local + central
        bytes_.local += local * sizes[cls]
        bytes_.central += central * sizes[cls]
        bytes_.out += max(out, 0) * sizes[cls]


# ---- taking items from a P that is not ours ------------------------------------------------------------------

cdef enum: HAND = 256                   # at most this many pointers at a time, and never more than a batch

cdef int take_from(Pool* pool, Registry* registry, uint32_t p, uint32_t cls, bint retired_only, uint32_t most,
                   void** hand) noexcept nogil:
    """Up to `most` items of a stopped or retired P, into `hand`: how many, or less than 0, an error number."""
    cdef uint32_t n = 0
    cdef int error = 0
    cdef bint active
    cdef Cache* cache = cache_of(pool, p, cls)
    lock(&registry.lock)
    active = p < registry.state.procs
    if not (active and retired_only):
        if active:
            error = stop_for(registry, &pool.member, p)
        if not error:
            n = min(count_of(cache.word, terms_of(pool, cls).cap), most)
            take_top(cache, n, hand)
            if active:
                start_for(registry, &pool.member, p)
    unlock(&registry.lock)
    return -error if error else <int>n


cdef int drain(Pool* pool, Registry* registry, uint32_t p, uint32_t cls, bint retired_only, bint keep) noexcept nogil:
    """Empties one local cache, into the central pool (keep) or to the allocator. 0 or an error number."""
    cdef void* hand[HAND]
    cdef Tally tally = Tally(gets=0, puts=0, refills=0, pushed=0, spills=0, popped=1)
    cdef Stripe* stripe = stripe_of(&pool.central, cls, p)
    cdef int n, i
    cdef const Terms* terms = terms_of(pool, cls)
    cdef uint32_t visits, most = min(terms.half, <uint32_t>HAND)
    if terms.cap == 0:
        return 0
    for visits in range(terms.cap // most + 1):     # a busy P refills: do not chase it
        n = take_from(pool, registry, p, cls, retired_only, most, hand)
        if n <= 0:
            return -n
        if keep:
            for i in range(n):
                if not put_one(&pool.central, stripe, hand[i], &tally):
                    note(stripe, &tally)
                    drop(pool, cls, p, hand[i], True)
        else:
            for i in range(n):                          # all, before anybody's code runs, which may ask what is out
                note(stripe, &tally)
            for i in range(n):
                drop(pool, cls, p, hand[i], False)
    return 0


cdef void* get_anywhere(Pool* pool, uint32_t cls) noexcept nogil:
    cdef void* item
    cdef uint32_t p
    cdef Tally tally = Tally(gets=1, puts=0, refills=0, pushed=0, spills=0, popped=1)
    if pop(pool, place_of(pool, cls), &item) == DONE:
        return item
    item = take_one(&pool.central, cls, home_of(pool))
    if item != NULL:
        return item
    for p in range(load32(&pool.member.equipped)):
        if count_of(load64(&cache_of(pool, p, cls).word), terms_of(pool, cls).cap) == 0:
            continue
        if take_from(pool, <Registry*>pool.front.sched, p, cls, False, 1, &item) == 1:
            note(stripe_of(&pool.central, cls, p), &tally)
            return item
    return NULL


cdef int each_cached(Pool* pool, int (*visit)(void* item, void* arg) noexcept, void* arg) noexcept:
    cdef uint32_t i, cls, n
    cdef uint64_t at
    cdef int answer
    cdef Cache* cache
    cdef Batch* batch
    if pool.central.stripes == NULL:
        return 0
    for i in range(pool.member.equipped):
        for cls in range(pool.classes):
            cache = cache_of(pool, i, cls)
            for n in range(count_of(cache.word, terms_of(pool, cls).cap)):
                answer = visit(newest_of(cache)[-<int64_t>n], arg)
                if answer:
                    return answer
    for i in range(pool.classes * (pool.central.mask + 1)):
        batch = pool.central.stripes[i].full
        while batch != NULL:
            for at in range(batch.n):
                answer = visit(batch.items[at], arg)
                if answer:
                    return answer
            batch = batch.next
    return 0


cdef void clear_central(Pool* pool) noexcept nogil:
    """Takes out what the central pool holds, batch by batch, and gives it to the allocator."""
    cdef Central* c = &pool.central
    cdef uint64_t most
    cdef uint32_t cls
    cdef Batch* batch
    for cls in range(pool.classes):
        most = load64(&c.reserved) // c.terms[cls].weight + 1
        while most:                     # others may put meanwhile: do not chase them for ever
            batch = take_full(c, cls, 0)
            if batch == NULL:
                break
            while batch.n:
                batch.n -= 1
                drop(pool, cls, 0, batch.items[batch.n], False)
                most -= most > 0
            c.release(c.arg, batch)
    trim_central(c)


cdef void drain_retired(Pool* pool) noexcept nogil:
    """What removed Ps hold goes to the central pool, and past the limit to the allocator."""
    cdef uint32_t p, cls
    for p in range(load32(&pool.front.sched.procs), load32(&pool.member.equipped)):
        for cls in range(pool.classes):
            drain(pool, <Registry*>pool.front.sched, p, cls, True, True)


cdef int clear(Pool* pool) noexcept nogil:
    """All that is cached goes to the allocator. 0, or why a P could not be stopped: the central pool is empty even then."""
    cdef uint32_t p, cls
    cdef int error = 0
    for p in range(load32(&pool.member.equipped)):
        for cls in range(pool.classes):
            if not error:
                error = drain(pool, <Registry*>pool.front.sched, p, cls, False, False)
    clear_central(pool)
    return error


# ---- memory and fork ----------------------------------------------------------------------------------------

cdef char* new_caches(Pool* pool) noexcept nogil:
    """The local caches of one P, empty; NULL when there is no memory."""
    cdef char* caches = <char*>line_alloc(pool.alloc, pool.arg, <size_t>pool.classes * pool.stride)
    cdef uint32_t cls
    if caches != NULL:
        for cls in range(pool.classes):
            (<Cache*>(caches + place_of(pool, cls))).word = word_of_empty(terms_of(pool, cls).cap)
    return caches


cdef bint equip(Pool* pool, Registry* registry, uint32_t procs) noexcept nogil:
    """Gives every P below procs its local caches. False when there is no memory; what is there stays."""
    cdef uint32_t have
    cdef char* memory
    while True:
        have = load32(&pool.member.equipped)
        if have >= procs:
            return True
        memory = new_caches(pool)
        if memory == NULL:
            return False
        lock(&registry.lock)
        if pool.member.equipped == have:
            pool.front.caches[have] = memory
            store32(&pool.member.equipped, have + 1)
            memory = NULL
        unlock(&registry.lock)
        line_free(pool.release, pool.arg, memory)       # NULL, unless another thread was faster


cdef inline Pool* pool_of(Member* member) noexcept nogil:
    return <Pool*>(<char*>member - <size_t>&(<Pool*>NULL).member)

cdef bint equip_member(Member* member, uint32_t procs) noexcept nogil:
    cdef Pool* pool = pool_of(member)
    return equip(pool, <Registry*>pool.front.sched, procs)

cdef void hold(Member* member) noexcept nogil:
    hold_central(&pool_of(member).central)

cdef void orphan(Member* member) noexcept nogil:
    """Room that lost threads had reserved is given back, and what they had in hand counts as live from now on."""
    cdef Pool* pool = pool_of(member)
    cdef Figures f
    recount(&pool.central)
    add_up(pool, &f)
    pool.orphans = f.created - f.destroyed - f.local - f.central - (f.gets - f.puts)

cdef void unhold(Member* member) noexcept nogil:
    unhold_central(&pool_of(member).central)


# ---- the beginning and the end --------------------------------------------------------------------------------

cdef uint32_t stripes_for(Registry* registry) noexcept nogil:
    cdef uint32_t n = 1
    while n < min(registry.cpus, 16u):
        n *= 2
    return n


cdef uint32_t open_pool(Pool* pool, Registry* registry, uint32_t classes, const uint32_t* caps, const uint64_t* weights,
                        uint64_t limit, alloc_fn alloc, release_fn release, void* arg) noexcept nogil:
    cdef uint32_t i, procs
    pool.front.sched = &registry.state
    pool.front.area = registry.state.area
    pool.front.number = registry.state.number
    pool.front.cap = 0
    for i in range(classes):
        pool.front.cap = max(pool.front.cap, caps[i])
    pool.classes = classes
    # a NULL, the slots, the word: every class has the place of the longest cache
    pool.stride = <uint32_t>((2 * sizeof(uint64_t) + pool.front.cap * sizeof(void*) + LINE - 1) // LINE * LINE)
    pool.alloc = alloc if alloc != NULL else plain_alloc
    pool.release = release if release != NULL else plain_release
    pool.arg = arg
    pool.member.front = &pool.front
    pool.member.equip = equip_member
    pool.member.hold = hold
    pool.member.unhold = unhold
    pool.member.orphan = orphan
    if not open_central(&pool.central, classes, stripes_for(registry), caps, weights, limit, pool.alloc, pool.release, arg):
        return THE_POOL
    while not link(registry, &pool.member):
        procs = load32(&registry.state.procs)
        if not equip(pool, registry, procs):
            return procs
    return NOTHING_MISSING


cdef void close_pool(Pool* pool, Registry* registry) noexcept nogil:
    """Gives everything cached back to the allocator. Nobody else uses the pool any more."""
    cdef uint32_t i, cls, n
    cdef Cache* cache
    if pool.member.link != NULL:
        unlink(registry, &pool.member)
    if pool.central.stripes != NULL:
        for i in range(pool.member.equipped):
            for cls in range(pool.classes):
                cache = cache_of(pool, i, cls)
                for n in range(count_of(cache.word, terms_of(pool, cls).cap)):
                    drop(pool, cls, 0, newest_of(cache)[-<int64_t>n], False)
        clear_central(pool)
        close_central(&pool.central)
    for i in range(pool.member.equipped):
        line_free(pool.release, pool.arg, pool.front.caches[i])
    if pool.ops.close != NULL:
        pool.ops.close(pool.ops.face)

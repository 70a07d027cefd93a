"""One pool, below its inlined fast path: the primitives in either mode, refill and spill, and the slow paths.

refill and spill run outside any section: a thread that waits for a lock, allocates or walks items holds no P.
Between two primitives it may have moved to another P, so each looks for itself whether the cache fits.
"""
import os
from operator import index

cimport cython
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from deferpool._central cimport (
    Batch, Central, Stripe, Tally, Terms, close_central, find_room, give_back, hold_central, items_in, note, open_central,
    put_one, recount, stripe_of, take_empty, take_full, take_one, trim_central, unhold_central,
)
from deferpool._cpython cimport is_finalizing
from deferpool._platform cimport (
    DONE, LINE, MAX_CAP, MAX_PROCS, NO_P, ONE_POP, UNFIT, Cache, P, add64, alloc_fn, cas64, count_of, likely, line_alloc,
    line_free, load32, load64, lock, newest_of, number_hint, plain_alloc, plain_release, pops_of, release_fn, section_pop,
    section_popn, section_push, section_pushn, set_number_base, store32, store64, unlock, word_of_empty,
)
from deferpool._sched cimport Member, Registry, Sched, acquirep, default_sched, link, releasep, remember, start, stop, unlink

from deferpool._environment import flag

cdef extern from "Python.h":
    void PyObject_GC_Track(void*) noexcept
    void PyObject_GC_UnTrack(void*) noexcept
    const unsigned long HEAP_TYPE "Py_TPFLAGS_HEAPTYPE"

cdef extern from "sharing.h":
    int SHARED "SHARING_SHARED"
    void sharing_begin(PyObject* pool) noexcept
    void sharing_never(uint64_t* sharing) noexcept

cdef uint64_t shared_pools = 0

cdef extern from "platform.h" nogil:
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
            error = stop(registry, p, p + 1)
        if not error:
            n = min(count_of(cache.word, terms_of(pool, cls).cap), most)
            take_top(cache, n, hand)
            if active:
                start(registry, p, p + 1)
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
        for i in range(n):
            if not keep:
                note(stripe, &tally)
                drop(pool, cls, p, hand[i], False)
            elif not put_one(&pool.central, stripe, hand[i], &tally):
                note(stripe, &tally)
                drop(pool, cls, p, hand[i], True)
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


# ---- what all faces share -------------------------------------------------------------------------------------

def _integer(name, value, wanted="an integer"):
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}") from None


cdef object shown(number):
    """Python writes no integer of more than some thousand digits."""
    return number if -2**1000 < number < 2**1000 else f"{'-' if number < 0 else ''}2**{number.bit_length() - 1} or more"


cdef Allocator* checked_allocator(capsule) except NULL:
    """What a capsule holds, which must be kept as long as the allocator is used."""
    cdef Allocator* given
    if not PyCapsule_IsValid(capsule, "deferpool.Allocator"):
        raise TypeError(f"allocator must be a capsule named 'deferpool.Allocator', not {type(capsule).__name__}")
    given = <Allocator*>PyCapsule_GetPointer(capsule, "deferpool.Allocator")
    if given.alloc == NULL or given.release == NULL:
        raise ValueError("an Allocator must have alloc and release")
    return given


cdef bint checked_debug(debug) except -1:
    return flag("DEFERPOOL_DEBUG") if debug is None else bool(debug)


cdef uint32_t checked_cap(cap) except 0:
    cap = _integer("cap", cap)
    if cap < 2 or cap > MAX_CAP or cap % 2:
        raise ValueError(f"cap must be even and from 2 to {MAX_CAP}, not {cap}")
    return cap


cdef uint64_t checked_limit(name, limit, uint64_t least=0) except? 0:
    if limit is None:
        return UINT64_MAX
    limit = _integer(name, limit, "an integer or None")
    if not least <= limit < 2**63:
        raise ValueError(f"{name} must be None or from {least} to 2**63 - 1, not {limit}")
    return limit


cdef uint32_t stripes_for(Registry* registry):
    cdef uint32_t n = 1
    while n < min(registry.cpus, 16u):
        n *= 2
    return n


# no_gc_clear: to be emptied it needs its Sched, even when both are found in one cycle.
@cython.no_gc_clear
cdef class ItemPool:
    """One pool of items. Not made by itself: see RecordPool."""

    def __cinit__(self, *args, **kwargs):
        if type(self) is ItemPool or type(self).__flags__ & HEAP_TYPE:      # those that Python makes are
            raise TypeError("an ItemPool is not made by itself: see RecordPool")
        self.clear_on_gc = True
        PyObject_GC_UnTrack(<void*>self)

    # Here and not in the faces: Cython ends weak references before this, but not before a subclass's own, and the
    # GIL is given up meanwhile: another thread could take up a pool whose memory is on its way out.
    def __dealloc__(self):
        """Gives everything cached back to the allocator. Nobody else uses the pool any more."""
        cdef Pool* pool = &self.pool
        cdef Registry* registry = self.owner.registry if self.owner is not None else NULL
        cdef uint32_t i, cls, n
        cdef Cache* cache
        with nogil:
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

    cdef int open(self, Sched sched, uint32_t classes, cap, limit,
                  alloc_fn alloc, release_fn release, void* arg) except -1:
        cdef uint32_t caps[MAX_CLASSES]
        cdef uint64_t weights[MAX_CLASSES]
        cdef uint32_t i
        caps[0] = checked_cap(cap)
        weights[0] = 1
        for i in range(1, classes):
            caps[i] = caps[0]
            weights[i] = 1
        return self.open_weighted(sched, classes, caps, weights, checked_limit("limit", limit), alloc, release, arg)

    cdef int open_weighted(self, Sched sched, uint32_t classes, const uint32_t* caps, const uint64_t* weights,
                           uint64_t limit, alloc_fn alloc, release_fn release, void* arg) except -1:
        cdef Pool* pool = &self.pool
        cdef Registry* registry
        cdef uint32_t procs, i
        cdef bint done
        self.owner = sched if sched is not None else default_sched()
        registry = self.owner.registry
        pool.front.sched = &registry.state
        pool.front.area = registry.state.area
        pool.front.number = registry.state.number
        pool.member.front = &pool.front
        pool.front.cap = 0
        for i in range(classes):
            pool.front.cap = max(pool.front.cap, caps[i])
        pool.classes = classes
        # a NULL, the slots, the word: every class has the place of the longest cache
        pool.stride = <uint32_t>((2 * sizeof(uint64_t) + pool.front.cap * sizeof(void*) + LINE - 1) // LINE * LINE)
        if (alloc == NULL) != (release == NULL):
            raise ValueError("an Allocator must have both alloc_meta and release_meta, or none of them")
        pool.alloc = alloc if alloc != NULL else plain_alloc
        pool.release = release if release != NULL else plain_release
        pool.arg = arg
        pool.member.equip = equip_member
        pool.member.hold = hold
        pool.member.unhold = unhold
        pool.member.orphan = orphan
        if not open_central(&pool.central, classes, stripes_for(registry), caps, weights, limit,
                            pool.alloc, pool.release, arg):
            raise MemoryError("no memory for a pool")
        while not link(registry, &pool.member):
            procs = self.owner.procs
            with nogil:
                done = equip(pool, registry, procs)
            if not done:
                raise MemoryError(f"no memory for the local caches of {procs} Ps")
        self.registered = remember(self.owner.pools, self)
        sharing_begin(<PyObject*>self)
        if self.allocator_owner is not None:
            sharing_never(self.sharing)     # what it has of the allocator is to go back
        return 0

    # Without the GIL, unless a face's items are Python's.

    cdef void empty_retired(self) noexcept:
        with nogil:
            drain_retired(&self.pool)

    cdef void empty_central(self) noexcept:
        with nogil:
            clear_central(&self.pool)

    cdef int empty(self) noexcept:
        cdef int error
        with nogil:
            error = clear(&self.pool)
        return error

    cdef void ready(self) noexcept:
        PyObject_GC_Track(<void*>self)

    cdef void stay_known(self) noexcept:
        """The collector ends weak references before finalizers run, and another one of these may have the pool again."""
        if self.registered is not None and not is_finalizing() and self.registered() is None:
            self.registered = remember(self.owner.pools, self)

    def _drain_retired(self):
        """For Sched: the last part of procresize for one pool."""
        self.empty_retired()

    def _clear_central(self):
        """For Sched: what clearpools does to one pool."""
        self.empty_central()

    def _clear_for_gc(self):
        """For Sched: what a full collection does to one pool."""
        cdef Figures figures
        if self.clear_on_gc:
            self.empty_central()
        if self.sharing[SHARED]:        # nobody learns when it is dropped; but then nobody uses it any more
            add_up(&self.pool, &figures)
            self.idle = self.idle + 1 if figures.gets == self.gets_before else 0
            self.gets_before = figures.gets
            if self.idle >= 2:
                self.clear()

    def clear(self):
        """Gives every cached item up, to the allocator or to `on_drop`: those of the central pool and of all local caches.

        Other threads may go on meanwhile; what they give back during the call may stay. OSError when the kernel
        refuses to stop a P. Thread-safe.
        """
        cdef int error = self.empty()
        if error:
            raise OSError(error, f"a P could not be stopped: {os.strerror(error)}")

    @property
    def sched(self):
        """The Sched whose Ps hold the local caches."""
        return self.owner

    @property
    def cap(self):
        """Most items in one local cache: of one class on one P. Where classes differ, the most of any."""
        return self.pool.front.cap

    @property
    def limit(self):
        """Most items in the central pool, all classes together; None for no limit."""
        return None if self.pool.central.limit == UINT64_MAX else self.pool.central.limit

    @property
    def bound(self):
        """Most items that can ever be cached: procs * classes * cap + limit. None without a limit.

        Until a procresize downwards returns, it counts the Ps that are being removed.
        """
        return self._bound(self.owner.counted())

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} can be neither copied nor pickled")

    def _bound(self, procs):
        limit = self.limit
        return None if limit is None else procs * self._local_bound() + limit

    def _local_bound(self):
        """Most items in the local caches of one P."""
        cdef uint32_t cls
        cdef uint64_t items = 0
        for cls in range(self.pool.classes):
            items += terms_of(&self.pool, cls).cap
        return items

    def stats(self):
        """The pool's figures: a dict. Never blocks or slows anybody, and so is no snapshot.

        Keys: `name`; in items: `created` and `destroyed` (by the allocator), `live` (out with callers), `cached` (local
        and central together), `central`, `bypassed` (gets past the last class; included in the others), `gets`,
        `puts`, `dropped` (sent to the allocator because of the limit or for want of memory to keep it), `peak_cached` (most seen at transfers and
        reads), `bound` (None without a limit); in transfers: `refills`, `spills`; and `per_p`: for each P the
        cached count of each class. Each part is within its own bound, so their sum is within `bound`; at rest
        created = live + cached + destroyed. Thread-safe.
        """
        cdef Pool* pool = &self.pool
        cdef uint32_t i, cls, equipped = load32(&pool.member.equipped), procs = self.owner.counted()
        cdef uint64_t local = 0, n
        cdef uint64_t bypass_puts = load64(&pool.bypass_puts), bypass_gets = load64(&pool.bypass_gets)
        cdef Figures f
        add_up(pool, &f)
        per_p = []
        for i in range(equipped):
            counts = []
            for cls in range(pool.classes):
                n = count_of(load64(&cache_of(pool, i, cls).word), terms_of(pool, cls).cap)
                counts.append(n)
                local += n
            if i < procs:
                per_p.append(counts)
        live = <int64_t>(f.gets + bypass_gets - f.puts - bypass_puts + pool.orphans)
        return {
            "name": self.name, "created": f.created + bypass_gets, "destroyed": f.destroyed + bypass_puts, "live": max(0, live),
            "cached": local + f.central, "central": f.central, "bypassed": bypass_gets,
            "gets": f.gets + bypass_gets, "puts": f.puts + bypass_puts,
            "refills": f.tally.refills, "spills": f.tally.spills, "dropped": f.dropped,
            "peak_cached": raise_peak(pool, local + f.central), "bound": self._bound(procs), "per_p": per_p,
        }

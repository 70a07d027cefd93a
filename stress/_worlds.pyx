"""Small worlds for the schedule explorer: a real RecordPool, two or three threads with a few operations each.

The pool is the shipped one, compiled with schedule points. Its memory comes from an arena that is copied back before
each schedule, so a world is made once and run a million times. After each step, and at the end, the invariants are
checked from outside: by the arena's own book of who has which record, by walking the central pool, by the words of
the local caches. Nothing the engine says of itself is believed.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from deferpool._central cimport Batch, Stripe, Terms
from deferpool._platform cimport load32
from deferpool._pool cimport Figures, Pool, add_up, clear, clear_central, drain_retired, place_of
from deferpool._sched cimport Registry, Sched, after_fork_in_child, before_fork, link, resize, settle, unlink
from deferpool._sections cimport FREE, RETIRED, Cache, count_of, slots_of, word_of_empty
from deferpool.records cimport CACHED, Allocator, Header, RecordPool
from stress._fibers cimport FIBERS, WORLD_FAULTS, Controller, set_up_as

import deferpool

cdef extern from "points.h":
    enum: DP_COPY
    void announce "dp_step"(int, const void*) noexcept nogil

cdef enum:
    UNITS = 1 << 13                     # of 16 bytes
    ARENA = 16 * UNITS
    HELD = 24                           # records that one thread can have
    OPS = 24                            # operations of one thread
    PS = 8                              # Ps that a world can have
    EIO = 5
    STAMP = 0x5A5A5A00                  # in every word of a record that is out, plus its thread

cdef enum Op:
    NEW, FREE_OLDEST, FREE_NEWEST, RESIZE, CLEARPOOLS, CLEAR, REFUSE, REFUSE_ALL, REFUSE_BARRIER, FORK, OPEN, CLOSE

OPERATIONS = {"new": NEW, "free": FREE_OLDEST, "free-newest": FREE_NEWEST, "resize": RESIZE, "clearpools": CLEARPOOLS,
              "clear": CLEAR, "refuse": REFUSE, "refuse-all": REFUSE_ALL, "refuse-barrier": REFUSE_BARRIER,
              "fork": FORK, "open": OPEN, "close": CLOSE}

cdef enum Fault:
    LOCAL_BOUND = WORLD_FAULTS
    LIMIT, TOTAL_BOUND, TOTAL_BOUND_BOOKS, BATCH, REUSE, TAKEN_TWICE, GIVEN_AWAY, DESTROYED, PINNED, MARK, NOT_REFUSED
    CLEARED_LOCAL, CLEARED_TOO_LITTLE, RESIZE_LEFT, LOST, TWICE, STRANGER, MIXED_UP, HELD_COUNT, STATS, LEFT_LOCKED, LEFT_OPEN, BOUND_LEFT
    PINNED_POOL, SPARES, META_LEFT, UNEQUIPPED, TOUCHED, RESERVED

FAULTS = (
    "deadlock: thread {a} waits, and nobody can go on",
    "no progress: too many steps in one schedule",
    "the schedule does not fit this build: step {a} cannot be taken",
    "crash: signal {a}",
    "local-bound: the cache of class {b} on P {a} holds {c}",
    "total-bound: the central pool holds {a} of a limit of {b}, {c} reserved",
    "total-bound: {a} cached, as published, the bound is {b}",
    "total-bound: by the books {a} cached, the bound is {b} and {c} may be in transfer",
    "total-bound: a batch of class {a} holds {b} items",
    "reuse: a record of class {a} was made while the central pool had some all the time",
    "one-owner: record {a:#x} was handed out, but {b}",
    "one-owner: record {a:#x} of this thread was overwritten or is not its own any more",
    "one-owner: record {a:#x} went to the allocator, but {b}",
    "no-pin: record {a:#x} was handed out with {b:#x} in word {c}",
    "one-owner: record {a:#x} was handed out with the mark {b:#x}",
    "failure: no record for thread {a}, and no allocation had been refused",
    "clear: clearpools changed the local caches from {a} to {b} items",
    "clear: {a} items are left, and nobody gave one back meanwhile",
    "resize: P {a} was removed and holds {b} items of class {c}",
    "conservation: {a} records are neither live nor cached nor destroyed",
    "one-owner: record {a:#x} is cached twice",
    "one-owner: {a:#x} is cached, but {b}",
    "one-owner: {a:#x} is cached among class {b}, and is of class {c}",
    "conservation: {a} are counted as held in the central pool, {b} are there",
    "conservation: stats() says {a}, the books say {b} ({c})",
    "a lock or a P is still held at the end: {a}",
    "the mode at the end: sections may use {a} Ps, and {b} are in use",
    "resize: the bound still counts {a} Ps, and {b} are in use",
    "resize: a pool is pinned {a} times at the end",
    "failure: a stripe counts {a} spare batches and has {b}",
    "failure: {a} pieces of the pool's own memory are out, and {b} are in use",
    "resize: a pool has caches on {a} Ps, and {b} are in use",
    "resize: a pool that has ended was given caches on {a} Ps",
    "conservation: room for {a} items is handed out below the limit, {b} items are there, and room for {c} more",
)

# Of each 16 bytes of the arena: whose they are, if a record begins there.
cdef enum:
    NOBODY, POOLED, GONE, OWNED         # OWNED + thread

OWNERS = ("it is none of the pool's", "it is with the pool", "it is destroyed already")


cdef struct Operation:
    int what
    int32_t argument

cdef struct Thread:
    void* held[HELD]
    uint32_t n
    uint32_t refuse_in                  # the allocation after so many fails; 0: none
    bint refuse_all
    bint refused                        # one did, in this operation
    int doing                           # the operation it is in, or -1
    uint32_t cls                        # of NEW
    uint64_t seen_empty                 # of NEW: stripes that had nothing, at some time since it began
    uint64_t takes, failed, gives, past

# All that changes in a schedule, apart from the engine's own memory.
cdef struct State:
    Thread thread[FIBERS]
    uint64_t created, destroyed, refused
    uint64_t meta                       # pieces of the pools' own memory that are out
    bint second_open                    # the second pool, that threads open and close
    bint second_ended
    size_t used                         # bytes of the arena
    uint64_t local, walked              # items, at the last look
    bint grew                           # the caches, while somebody cleared them
    bint vanished                       # other threads: this is a forked child
    uint32_t resizes                    # under way
    uint32_t most_procs                 # Ps that may hold items, by the world's own count
    uint64_t peak_live


cdef class World(Controller):
    """One world. `threads`: a list of (set-up, operations), each a list of (name, argument); see worlds.py."""
    cdef readonly Sched sched
    cdef readonly RecordPool pool_object
    cdef Pool* pool
    cdef Registry* registry
    cdef RecordPool records
    cdef RecordPool others              # a second pool of the same Sched: opened, and closed, by threads
    cdef Pool* second
    cdef Pool saved_second
    cdef Allocator allocator
    cdef char* arena
    cdef uint8_t* owner
    cdef char* saved_arena
    cdef uint8_t* saved_owner
    cdef Pool saved_pool
    cdef Registry saved_registry
    cdef char saved_ps[PS * 64]
    cdef State state, saved_state
    cdef Operation ops[FIBERS][OPS]
    cdef uint32_t n_ops[FIBERS]
    cdef uint64_t lightest              # weight of an item
    cdef uint32_t setting_up            # whose operations run before the schedule; FIBERS: nobody's
    cdef void* early[PS * 256]          # slots as a fork copies them first

    def __init__(self, threads, uint32_t procs, uint32_t cpus, uint32_t numbers, sizes, cap, limit, bint sections,
                 bint tallies, caps, weights):
        cdef uint32_t before = 0, fiber, i
        cdef size_t at
        self.fibers = len(threads)
        self.numbers = numbers
        self.current = FIBERS
        self.arena = <char*>calloc(ARENA + 64, 1)
        self.saved_arena = <char*>calloc(ARENA, 1)
        self.owner = <uint8_t*>calloc(UNITS, 1)
        self.saved_owner = <uint8_t*>calloc(UNITS, 1)
        if not (self.arena and self.saved_arena and self.owner and self.saved_owner):
            raise MemoryError("no memory for a world")
        self.arena += 64 - <size_t>self.arena % 64
        self.allocator = Allocator(alloc=make_record, release=drop_record, alloc_meta=make_memory,
                                   release_meta=drop_memory, arg=<void*>self)
        for fiber in range(FIBERS):
            self.state.thread[fiber].doing = -1
        self.setting_up = FIBERS
        self.state.most_procs = procs
        self.sched = Sched(procs, clear_on_gc=False)
        self.registry = self.sched.registry
        self.registry.cpus = cpus       # of this world, not of the machine
        self.registry.sections = sections
        if resize(self.registry, procs, &before):
            raise MemoryError("no memory for a world")
        settle(self.registry, True)
        self.pool = NULL
        self.records = RecordPool(sizes, cap=cap, limit=limit, sched=self.sched, debug=False,
                                  allocator=PyCapsule_New(&self.allocator, "deferpool.Allocator", NULL))
        self.pool_object = self.records
        self.pool = &self.records.pool
        self.set_terms(caps, weights)
        self.others = RecordPool((16,), cap=2, limit=2, sched=self.sched, debug=False,
                                 allocator=PyCapsule_New(&self.allocator, "deferpool.Allocator", NULL))
        self.second = &self.others.pool
        unlink(self.registry, &self.second.member)
        for fiber, (setup, operations) in enumerate(threads):
            for i, (name, argument) in enumerate(setup):
                self.ops[fiber][i] = Operation(OPERATIONS[name], argument)
            self.n_ops[fiber] = len(setup)
            self.setting_up = fiber
            set_up_as(fiber % numbers)
            for i in range(self.n_ops[fiber]):
                self.operate(fiber, &self.ops[fiber][i])
            for i, (name, argument) in enumerate(operations):
                self.ops[fiber][i] = Operation(OPERATIONS[name], argument)
            self.n_ops[fiber] = len(operations)
        self.setting_up = FIBERS
        set_up_as(0)
        memcpy(self.saved_arena, self.arena, self.state.used)
        memcpy(self.saved_owner, self.owner, UNITS)
        self.saved_pool = self.pool[0]
        self.saved_second = self.second[0]
        self.saved_registry = self.registry[0]
        memcpy(self.saved_ps, self.registry.state.ps, sizeof(self.saved_ps))
        self.saved_state = self.state
        self.decide_on(self.registry, sizeof(Registry))
        self.decide_on(self.registry.state.ps, PS * 64)
        self.decide_on(self.pool, sizeof(Pool))
        self.decide_on(self.second, sizeof(Pool))
        self.decide_on(self.arena, ARENA)
        self.hush(tallies)

    cdef void set_terms(self, caps, weights) except *:
        """Of each class, in an empty pool, as a face other than RecordPool might have asked for."""
        cdef Terms* terms
        cdef uint32_t cls, p
        self.lightest = min(weights)
        for cls in range(self.pool.classes):
            terms = &self.pool.central.terms[cls]
            terms.cap = caps[cls]
            terms.half = max(terms.cap // 2, 1u)
            terms.weight = weights[cls]
            for p in range(self.pool.member.equipped):
                self.cache(p, cls).word = word_of_empty(terms.cap)

    def __dealloc__(self):
        if self.saved_state.used:
            self.restore()              # no lock is left as a schedule left it: the pools end after this
            link(self.registry, &self.second.member)
        free(self.saved_arena)
        free(self.saved_owner)
        free(self.owner)
        # the arena stays: the pools, which end after this, still write to it

    cdef void hush(self, bint tallies) noexcept nogil:
        """Statistics that nothing but stats() reads: who comes first there makes no difference to anything else."""
        cdef uint32_t i
        cdef Stripe* stripe
        self.be_quiet(&self.pool.peak)
        self.be_quiet(&self.pool.noted)
        self.be_quiet(&self.registry.state.restarts)
        self.be_quiet(&self.registry.state.hints)
        for i in range(self.pool.classes * (self.pool.central.mask + 1)):
            stripe = &self.pool.central.stripes[i]
            self.be_quiet(&stripe.created)
            self.be_quiet(&stripe.destroyed)
            self.be_quiet(&stripe.dropped)
            if tallies:                 # this world is for them
                continue
            self.be_quiet(&stripe.tally.gets)
            self.be_quiet(&stripe.tally.puts)
            self.be_quiet(&stripe.tally.refills)
            self.be_quiet(&stripe.tally.pushed)
            self.be_quiet(&stripe.tally.spills)
            self.be_quiet(&stripe.tally.popped)

    cdef void restore(self) noexcept nogil:
        memcpy(self.arena, self.saved_arena, self.saved_state.used)
        if self.state.used > self.saved_state.used:
            memset(self.arena + self.saved_state.used, 0, self.state.used - self.saved_state.used)
        memcpy(self.owner, self.saved_owner, self.state.used // 16 + 1)
        self.pool[0] = self.saved_pool
        self.second[0] = self.saved_second
        self.saved_registry.next = self.registry.next       # other Scheds come and go
        self.registry[0] = self.saved_registry
        memcpy(self.registry.state.ps, self.saved_ps, sizeof(self.saved_ps))
        self.state = self.saved_state

    # -- the arena: memory that nobody else has had in this schedule ---------------------------------------------

    cdef uint32_t who(self) noexcept nogil:
        return self.setting_up if self.current >= FIBERS else self.current

    cdef void* carve(self, size_t size) noexcept nogil:
        """Zeroed memory; NULL when this allocation is to fail."""
        cdef uint32_t me = self.who()
        cdef Thread* t
        cdef char* memory
        if me < FIBERS:
            t = &self.state.thread[me]
            if t.refuse_in:
                t.refuse_in -= 1
                if t.refuse_in == 0:
                    t.refused = True
                    self.state.refused += 1
                    return NULL
            if t.refuse_all:
                t.refused = True
                self.state.refused += 1
                return NULL
        if self.state.used + size + 16 > ARENA:
            return NULL
        memory = self.arena + self.state.used
        self.state.used = (self.state.used + size + 15) // 16 * 16
        return memory

    cdef void* make_record(self, size_t size) noexcept nogil:
        cdef uint32_t me = self.who(), stripes = self.pool.central.mask + 1, i
        cdef Thread* t
        cdef void* memory
        if me < FIBERS and self.state.thread[me].doing == NEW:
            t = &self.state.thread[me]
            for i in range(stripes):
                if not t.seen_empty >> i & 1 and self.pool.central.stripes[t.cls * stripes + i].items:
                    self.broken(REUSE, t.cls, 0, 0)
        memory = self.carve(size)
        if memory != NULL:
            self.state.created += 1
            self.owner[self.unit_of(memory)] = POOLED
        return memory

    cdef void drop_record(self, void* memory) noexcept nogil:
        cdef size_t unit = self.unit_of(memory)
        if unit >= <size_t>UNITS or self.owner[unit] != POOLED:
            self.broken(DESTROYED, <size_t>memory, self.owner[unit] if unit < <size_t>UNITS else <int>NOBODY, 0)
            return
        self.owner[unit] = GONE
        self.state.destroyed += 1

    cdef void* make_memory(self, size_t size) noexcept nogil:
        cdef void* memory = self.carve(size)
        self.state.meta += memory != NULL
        return memory

    cdef void drop_memory(self) noexcept nogil:
        self.state.meta -= 1

    # -- what the threads do -------------------------------------------------------------------------------------

    cdef void body(self, uint32_t fiber) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_ops[fiber]):
            self.operate(fiber, &self.ops[fiber][i])

    cdef void operate(self, uint32_t me, const Operation* op) noexcept nogil:
        cdef Thread* t = &self.state.thread[me]
        cdef uint32_t i
        t.refused = False
        t.doing = op.what
        if op.what == NEW:
            self.take(me, op.argument)
        elif op.what == FREE_OLDEST and t.n:
            self.give(me, 0)
        elif op.what == FREE_NEWEST and t.n:
            self.give(me, t.n - 1)
        elif op.what == RESIZE:
            self.change(me, op.argument)
        elif op.what == CLEARPOOLS:
            self.state.grew = False
            clear_central(self.pool)
            self.look_around()
            if not self.state.grew and self.state.walked:
                self.broken(CLEARED_TOO_LITTLE, self.state.walked, 0, 0)
        elif op.what == CLEAR:
            self.state.grew = False
            i = clear(self.pool)
            self.look_around()
            if not i and not self.state.grew and self.state.walked + self.state.local:
                self.broken(CLEARED_TOO_LITTLE, self.state.walked + self.state.local, 0, 0)
        elif op.what == REFUSE:
            t.refuse_in = op.argument
        elif op.what == REFUSE_ALL:
            t.refuse_all = True
        elif op.what == REFUSE_BARRIER:
            self.barrier_error = EIO
        elif op.what == OPEN:
            self.open_second()
        elif op.what == CLOSE:
            self.close_second()
        elif op.what == FORK:
            self.split(me)
        t.doing = -1

    cdef void take(self, uint32_t me, uint32_t cls) noexcept nogil:
        cdef Thread* t = &self.state.thread[me]
        cdef uint64_t* record
        cdef Header* header
        cdef size_t unit, word
        cdef uint32_t i
        cdef uint64_t live = 0
        t.cls = cls
        t.seen_empty = 0
        t.takes += 1
        record = <uint64_t*>self.records.new(<size_t>self.records.layout.units[cls] * 16)
        if record == NULL:
            t.failed += 1
            if not t.refused:
                self.broken(NOT_REFUSED, me, 0, 0)
            return
        header = <Header*>record - 1
        unit = self.unit_of(header)
        if unit >= <size_t>UNITS or self.owner[unit] != POOLED:
            self.broken(TAKEN_TWICE, <size_t>record, self.owner[unit] if unit < <size_t>UNITS else <int>NOBODY, 0)
            return
        self.owner[unit] = OWNED + me
        if header.mark != self.records.layout.token:
            self.broken(MARK, <size_t>record, header.mark - self.records.layout.token, 0)
        for word in range(<size_t>self.records.layout.units[cls] * 2):
            if record[word]:
                self.broken(PINNED, <size_t>record, record[word], word)
            record[word] = <uint64_t>STAMP + me
        t.held[t.n] = record
        t.n += 1
        for i in range(self.fibers):
            live += self.state.thread[i].n
        if live > self.state.peak_live:
            self.state.peak_live = live

    cdef void give(self, uint32_t me, uint32_t which) noexcept nogil:
        cdef Thread* t = &self.state.thread[me]
        cdef uint64_t* record = <uint64_t*>t.held[which]
        cdef Header* header = <Header*>record - 1
        cdef size_t word
        cdef uint32_t i
        for i in range(which, t.n - 1):
            t.held[i] = t.held[i + 1]
        t.n -= 1
        if self.owner[self.unit_of(header)] != OWNED + me:
            self.broken(GIVEN_AWAY, <size_t>record, 0, 0)
        for word in range(<size_t>(header.shape >> 35) + 2):
            if record[word] != <uint64_t>STAMP + me:
                self.broken(GIVEN_AWAY, <size_t>record, 0, 0)
        self.owner[self.unit_of(header)] = POOLED
        self.records.free(record)
        t.gives += 1

    cdef void change(self, uint32_t me, uint32_t procs) noexcept nogil:
        """What Sched.procresize does, but for Python's part of it."""
        cdef uint32_t before, p, cls
        cdef uint64_t n
        self.state.resizes += 1
        self.state.most_procs = max(self.state.most_procs, procs)
        if not resize(self.registry, procs, &before):
            drain_retired(self.pool)
            settle(self.registry, True)
        self.state.resizes -= 1
        if self.state.resizes == 0 and not self.state.vanished:
            self.state.most_procs = self.registry.state.procs
            for p in range(self.registry.state.procs, self.pool.member.equipped):
                for cls in range(self.pool.classes):
                    n = self.count(p, cls)
                    if n:
                        self.broken(RESIZE_LEFT, p, n, cls)

    cdef void open_second(self) noexcept nogil:
        """The end of ItemPool.open: it becomes one of the Sched's pools once it has caches on all Ps."""
        while not link(self.registry, &self.second.member):
            if not self.second.member.equip(&self.second.member, load32(&self.registry.state.procs)):
                return
        self.state.second_open = True

    cdef void close_second(self) noexcept nogil:
        """What happens to a pool that ends, as far as its Sched is concerned: whoever still looks at it crashes."""
        cdef uint32_t p
        unlink(self.registry, &self.second.member)
        self.state.second_open = False
        for p in range(self.second.member.equipped):
            self.second.front.caches[p] = NULL
            self.state.meta -= 1
        self.second.member.equipped = 0
        self.second.member.equip = NULL
        self.state.second_ended = True

    cdef void split(self, uint32_t me) noexcept nogil:
        """A fork, seen from the child. The kernel copies page after page while other threads run on: slots here first."""
        cdef uint32_t p, cls, i, n = 0
        cdef void** slots
        before_fork()
        for p in range(self.pool.member.equipped):
            for cls in range(self.pool.classes):
                slots = slots_of(self.cache(p, cls), self.pool.front.cap)
                for i in range(self.pool.front.cap):
                    self.early[n] = slots[i]
                    n += 1
        announce(DP_COPY, self.registry)
        n = 0
        for p in range(self.pool.member.equipped):
            for cls in range(self.pool.classes):
                slots = slots_of(self.cache(p, cls), self.pool.front.cap)
                for i in range(self.pool.front.cap):
                    slots[i] = self.early[n]
                    n += 1
        self.vanish_others()
        self.state.vanished = True
        self.state.resizes = 0
        after_fork_in_child()

    # -- what must hold --------------------------------------------------------------------------------------------

    cdef inline size_t unit_of(self, const void* header) noexcept nogil:
        return (<size_t>header - <size_t>self.arena) // 16

    cdef inline Cache* cache(self, uint32_t p, uint32_t cls) noexcept nogil:
        return <Cache*>(self.pool.front.caches[p] + place_of(self.pool, cls))

    cdef inline uint64_t count(self, uint32_t p, uint32_t cls) noexcept nogil:
        return count_of(self.cache(p, cls).word, self.pool.central.terms[cls].cap)

    cdef void look_around(self) noexcept nogil:
        """What is cached now, by the words and by walking; each part within its own bound."""
        cdef uint64_t local = 0, walked = 0, units = 0, caps = 0, n, outside = 0
        cdef uint32_t p, cls, i, stripes = self.pool.central.mask + 1, fiber
        cdef Stripe* stripe
        cdef Batch* batch
        cdef Thread* t
        for p in range(self.pool.member.equipped):
            for cls in range(self.pool.classes):
                n = self.count(p, cls)
                if n > self.pool.central.terms[cls].cap:
                    self.broken(LOCAL_BOUND, p, cls, n)
                local += n
        for i in range(self.pool.classes * stripes):
            stripe = &self.pool.central.stripes[i]
            batch = stripe.full
            while batch != NULL:
                if batch.n > stripe.terms.half:
                    self.broken(BATCH, i // stripes, batch.n, 0)
                walked += batch.n
                units += batch.n * stripe.terms.weight
                batch = batch.next
            if stripe.items == 0 or stripe.full == NULL:
                for fiber in range(self.fibers):
                    t = &self.state.thread[fiber]
                    if t.cls == i // stripes:
                        t.seen_empty |= <uint64_t>1 << (i % stripes)
        if self.pool.central.limit != UINT64_MAX:
            if units > self.pool.central.limit or self.pool.central.reserved > self.pool.central.limit:
                self.broken(LIMIT, units, self.pool.central.limit, self.pool.central.reserved)
            for cls in range(self.pool.classes):
                caps += self.pool.central.terms[cls].cap
            n = min(self.registry.counted, self.state.most_procs) * caps + self.pool.central.limit // self.lightest
            if local + walked > n:
                self.broken(TOTAL_BOUND, local + walked, n, 0)
            for fiber in range(self.fibers):
                t = &self.state.thread[fiber]
                outside += t.gives + t.failed - t.takes
            outside += self.state.created - self.state.destroyed
            if <long long>outside > <long long>(n + self.fibers * self.pool.front.cap // 2):
                self.broken(TOTAL_BOUND_BOOKS, outside, n, self.fibers * self.pool.front.cap // 2)
        if self.current < FIBERS and self.state.thread[self.current].doing == CLEARPOOLS and local != self.state.local:
            self.broken(CLEARED_LOCAL, self.state.local, local, 0)
        if local > self.state.local or walked > self.state.walked:
            self.state.grew = True
        self.state.local = local
        self.state.walked = walked

    cdef void check(self) noexcept nogil:
        self.look_around()

    cdef void finish(self) noexcept nogil:
        """At rest: everything is in one place, the figures agree, and nobody has left a door locked or open."""
        cdef uint32_t p, cls, i, stripes = self.pool.central.mask + 1, fiber
        cdef uint64_t cached = 0, n, live = 0, in_hand, takes = 0, gives = 0, items = 0, units = 0, room = 0
        cdef uint64_t meta = 2 + self.pool.member.equipped + self.second.member.equipped   # the stripes of both, the caches
        cdef Stripe* stripe
        cdef Batch* batch
        cdef Registry* r = self.registry
        cdef Figures f
        self.look_around()
        for p in range(self.pool.member.equipped):
            for cls in range(self.pool.classes):
                for i in range(self.count(p, cls)):
                    self.count_in(slots_of(self.cache(p, cls), self.pool.central.terms[cls].cap)[i], cls)
                n = self.count(p, cls)
                cached += n
                if p >= r.state.procs and n and not self.state.vanished:
                    self.broken(RESIZE_LEFT, p, n, cls)
        for i in range(self.pool.classes * stripes):
            stripe = &self.pool.central.stripes[i]
            if stripe.lock:
                self.broken(LEFT_LOCKED, <size_t>&stripe.lock, 0, 0)
            n = 0
            batch = stripe.full
            while batch != NULL:
                for p in range(<uint32_t>batch.n):
                    self.count_in(batch.items[p], i // stripes)
                n += batch.n
                meta += 1
                batch = batch.next
            if n != stripe.items:
                self.broken(HELD_COUNT, stripe.items, n, 0)
            items += n
            units += n * stripe.terms.weight
            room += stripe.room
            n = 0
            batch = stripe.spare
            while batch != NULL:
                n += 1
                batch = batch.next
            if n != stripe.spares or n > stripe.terms.max_spares:
                self.broken(SPARES, stripe.spares, n, 0)
            meta += n
        cached += items
        if units + room != self.pool.central.reserved:
            self.broken(RESERVED, self.pool.central.reserved, units, room)
        for fiber in range(self.fibers):
            live += self.state.thread[fiber].n
            takes += self.state.thread[fiber].takes - self.state.thread[fiber].failed
            gives += self.state.thread[fiber].gives
        in_hand = self.state.created - self.state.destroyed - cached - live
        if in_hand and not self.state.vanished:
            self.broken(LOST, in_hand, 0, 0)
        add_up(self.pool, &f)
        if not self.state.vanished:
            self.agree(f.gets, takes, 0)
            self.agree(f.puts, gives, 1)
        self.agree(f.created, self.state.created, 2)
        self.agree(f.destroyed, self.state.destroyed, 3)
        self.agree(f.local + f.central, cached, 4)
        if self.state.vanished:
            self.agree(f.created - f.destroyed - f.local - f.central, f.gets - f.puts + self.pool.orphans, 5)
        if r.lock:
            self.broken(LEFT_LOCKED, <size_t>&r.lock, 0, 0)
        for p in range(<uint32_t>PS):
            if r.state.ps[p].holder != (FREE if p < r.state.procs else RETIRED):
                self.broken(LEFT_LOCKED, <size_t>&r.state.ps[p].holder, 0, 0)
        if r.counted != r.state.procs and not self.state.vanished:
            self.broken(BOUND_LEFT, r.counted, r.state.procs, 0)
        if self.pool.member.pins or self.second.member.pins:
            self.broken(PINNED_POOL, self.pool.member.pins + self.second.member.pins, 0, 0)
        if meta != self.state.meta and not self.state.vanished:     # what lost threads had in hand is lost
            self.broken(META_LEFT, self.state.meta, meta, 0)
        self.look_at(self.pool)
        if self.state.second_open:
            self.look_at(self.second)
        if self.state.second_ended and self.second.member.equipped:
            self.broken(TOUCHED, self.second.member.equipped, 0, 0)

    cdef void look_at(self, const Pool* pool) noexcept nogil:
        """A pool of the Sched has caches on all Ps, and is open to sections when they are on."""
        cdef Registry* r = self.registry
        if pool.member.equipped < r.state.procs:
            self.broken(UNEQUIPPED, pool.member.equipped, r.state.procs, 0)
        if pool.front.open != (0 if r.state.portable else r.state.procs):
            self.broken(LEFT_OPEN, pool.front.open, r.state.procs, 0)

    cdef void agree(self, uint64_t said, uint64_t own, uint64_t which) noexcept nogil:
        if said != own:
            self.broken(STATS, said, own, which)

    cdef void count_in(self, const void* item, uint32_t cls) noexcept nogil:
        """A cached item: the pool's, of this class, marked so, zeroed, and here only."""
        cdef size_t unit = self.unit_of(item)
        cdef const uint64_t* words = <const uint64_t*>item
        cdef size_t word
        if unit >= <size_t>UNITS or self.owner[unit] != POOLED:
            self.broken(STRANGER, <size_t>item, self.owner[unit] if unit < <size_t>UNITS else <int>NOBODY, 0)
            return
        self.owner[unit] = GONE         # for the rest of this count
        if (<Header*>item).mark != self.records.layout.token + CACHED:
            self.broken(MARK, <size_t>item, (<Header*>item).mark - self.records.layout.token, 0)
        if (<Header*>item).shape != self.records.layout.shape[cls]:
            self.broken(MIXED_UP, <size_t>item, cls, (<uint32_t>(<Header*>item).shape) // self.pool.stride)
        for word in range(2, 4 + ((<Header*>item).shape >> 35)):
            if words[word]:
                self.broken(PINNED, <size_t>item, words[word], word - 2)

    # -- for people ------------------------------------------------------------------------------------------------

    def explain(self):
        """One sentence for the fault of the schedule that ran last; None when it held."""
        if not self.failed:
            return None
        a, b, c = self.evidence[0], self.evidence[1], self.evidence[2]
        if self.fault in (TAKEN_TWICE, DESTROYED, STRANGER):
            b = OWNERS[b] if b < OWNED else f"thread {'ABCD'[b - OWNED]} has it"
        elif self.fault == LEFT_LOCKED:
            a = self.name_of(a)
        elif self.fault == STATS:
            c = ("gets", "puts", "created", "destroyed", "cached", "live")[c]
        elif self.fault in (0, NOT_REFUSED):
            a = "ABCD"[a]
        return FAULTS[self.fault].format(a=a, b=b, c=c)

    def name_of(self, size_t address):
        """What lies at an address: P 0's holder, a stripe's lock."""
        cdef uint32_t p, cls, i
        cdef Registry* r = self.registry
        cdef Stripe* stripe
        names = {<size_t>&r.lock: "registry lock", <size_t>&r.state.portable: "mode", <size_t>&r.state.procs: "procs",
                 <size_t>&r.counted: "counted", <size_t>&self.pool.front.open: "open", <size_t>&self.pool.front: "",
                 <size_t>&self.pool.member.equipped: "equipped", <size_t>&self.pool.central.reserved: "reserved", 0: ""}
        for p in range(<uint32_t>PS):
            names[<size_t>&r.state.ps[p].holder] = f"P{p} holder"
        for p in range(self.pool.member.equipped):
            for cls in range(self.pool.classes):
                names[<size_t>&self.cache(p, cls).word] = f"P{p} class {cls}"
        for cls in range(self.pool.classes):
            for i in range(self.pool.central.mask + 1):
                stripe = &self.pool.central.stripes[cls * (self.pool.central.mask + 1) + i]
                names[<size_t>&stripe.lock] = f"stripe {cls}.{i} lock"
                names[<size_t>&stripe.items] = f"stripe {cls}.{i} items"
                names[<size_t>&stripe.room] = f"stripe {cls}.{i} room"
        return names.get(address, f"{address:#x}")

    def count_in_word(self, word):
        """How many items a local cache's word stands for."""
        return count_of(word, self.pool.front.cap)


# ---- the arena -------------------------------------------------------------------------------------------------------

cdef void* make_record(void* arg, size_t size) noexcept nogil:
    return (<World>arg).make_record(size)

cdef void drop_record(void* arg, void* memory) noexcept nogil:
    (<World>arg).drop_record(memory)

cdef void* make_memory(void* arg, size_t size) noexcept nogil:
    return (<World>arg).make_memory(size)

cdef void drop_memory(void* arg, void* memory) noexcept nogil:
    (<World>arg).drop_memory()

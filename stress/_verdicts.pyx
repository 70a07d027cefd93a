"""What must hold in a small world, after each step and at the end, and how it is told when it does not.

All of it is checked from outside: by the world's own book, by walking the central pool, by the words of the local caches.
"""
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from deferpool._central cimport Batch, Stripe
from deferpool._pool cimport Figures, Pool, add_up
from deferpool._sched cimport Registry
from deferpool._sections cimport FREE, RETIRED, count_of, slots_of
from deferpool.records cimport CACHED, Header
from stress._fibers cimport FIBERS
from stress._grounds cimport (
    BATCH, BOUND_LEFT, CLEARED_LOCAL, CLEARPOOLS, COUNTED, DESTROYED, HELD_COUNT, LEFT_LOCKED, LEFT_OPEN, LIMIT, LOCAL_BOUND, LOST, MARK,
    META_LEFT, MIXED_UP, NOBODY, NOT_REFUSED, OWNED, PINNED, PINNED_POOL, POOLED, PS, RESERVED, RESIZE_LEFT, SPARES, STATS,
    STRANGER, TAKEN_TWICE, TOTAL_BOUND, TOTAL_BOUND_BOOKS, TOUCHED, TWICE, UNEQUIPPED, UNITS, Thread,
)

# In the order of Fault, after the controller's own.
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

OWNERS = ("it is none of the pool's", "it is with the pool", "it is cached twice", "it is destroyed already")

if len(FAULTS) != RESERVED + 1:
    raise AssertionError(f"{len(FAULTS)} sentences for {RESERVED + 1} faults")


cdef class Verdicts(Grounds):
    """A world that is looked at."""

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
        if unit < <size_t>UNITS and self.owner[unit] == COUNTED:
            self.broken(TWICE, <size_t>item, 0, 0)
            return
        if unit >= <size_t>UNITS or self.owner[unit] != POOLED:
            self.broken(STRANGER, <size_t>item, self.owner[unit] if unit < <size_t>UNITS else <int>NOBODY, 0)
            return
        self.owner[unit] = COUNTED
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

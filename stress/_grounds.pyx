"""What a small world is made of: the shipped pools, on memory that is copied back before each schedule.

A world is made once and run a million times. The book of who has which record is the world's own; nothing that the engine says
of itself is believed.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from deferpool._central cimport Stripe, Terms
from deferpool._sched cimport link, resize, settle, unlink
from deferpool._sections cimport word_of_empty
from stress._fibers cimport set_up_as


cdef class Grounds(Controller):
    """Two pools of one Sched, and the arena that their memory comes from."""

    def __init__(self, uint32_t fibers, uint32_t procs, uint32_t cpus, uint32_t numbers, sizes, cap, limit,
                 bint sections, caps, weights):
        cdef uint32_t before = 0, fiber
        self.fibers = fibers
        self.numbers = numbers
        self.current = FIBERS
        self.arena = <char*>calloc(ARENA + 64, 1)
        self.saved_arena = <char*>calloc(ARENA, 1)
        self.owner = <uint8_t*>calloc(UNITS, 1)
        self.saved_owner = <uint8_t*>calloc(UNITS, 1)
        if not (self.arena and self.saved_arena and self.owner and self.saved_owner):
            raise MemoryError("no memory for a world")
        self.arena_offset = 64 - <size_t>self.arena % 64
        self.arena += self.arena_offset
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
        self.pool = &self.records.pool
        self.set_terms(caps, weights)
        self.others = RecordPool((16,), cap=2, limit=2, sched=self.sched, debug=False,
                                 allocator=PyCapsule_New(&self.allocator, "deferpool.Allocator", NULL))
        self.second = &self.others.pool
        unlink(self.registry, &self.second.member)

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

    cdef void keep(self, bint tallies) noexcept nogil:
        """What is now is what each schedule starts from. `tallies`: statistics are steps like any others."""
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

    def __dealloc__(self):
        if self.saved_state.used:
            self.restore()              # no lock is left as a schedule left it: the pools end after this
            link(self.registry, &self.second.member)
        self.records = self.others = None       # while what they write to is there
        free(self.saved_arena)
        free(self.saved_owner)
        free(self.owner)
        free(self.arena - self.arena_offset)

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
                    return NULL
            if t.refuse_all:
                t.refused = True
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


# ---- what the pools call -----------------------------------------------------------------------------------------------

cdef void* make_record(void* arg, size_t size) noexcept nogil:
    return (<Grounds>arg).make_record(size)

cdef void drop_record(void* arg, void* memory) noexcept nogil:
    (<Grounds>arg).drop_record(memory)

cdef void* make_memory(void* arg, size_t size) noexcept nogil:
    return (<Grounds>arg).make_memory(size)

cdef void drop_memory(void* arg, void* memory) noexcept nogil:
    (<Grounds>arg).drop_memory()

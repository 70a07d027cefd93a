"""Small worlds for the schedule explorer: a real RecordPool, two or three threads with a few operations each.

The pool is the shipped one, compiled with schedule points.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t

from deferpool._platform cimport load32
from deferpool._pool cimport clear, clear_central, drain_retired
from deferpool._sched cimport after_fork_in_child, before_fork, link, resize, settle, unlink
from deferpool._sections cimport slots_of
from deferpool.records cimport Header
from stress._fibers cimport FIBERS, set_up_as
from stress._grounds cimport (
    CLEAR, CLEARED_TOO_LITTLE, CLEARPOOLS, CLOSE, FORK, FREE_NEWEST, FREE_OLDEST, GIVEN_AWAY, MARK, NEW, NOBODY, NOT_REFUSED, OPEN,
    OWNED, PINNED, POOLED, PS, REFUSE, REFUSE_ALL, REFUSE_BARRIER, RESIZE, RESIZE_LEFT, STAMP, TAKEN_TWICE, UNITS, Thread,
)
from stress._verdicts cimport Verdicts

cdef extern from "points.h":
    enum: DP_COPY
    void announce "dp_step"(int, const void*) noexcept nogil

cdef enum:
    OPS = 24                            # operations of one thread
    EIO = 5

OPERATIONS = {"new": NEW, "free": FREE_OLDEST, "free-newest": FREE_NEWEST, "resize": RESIZE, "clearpools": CLEARPOOLS,
              "clear": CLEAR, "refuse": REFUSE, "refuse-all": REFUSE_ALL, "refuse-barrier": REFUSE_BARRIER,
              "fork": FORK, "open": OPEN, "close": CLOSE}

cdef struct Operation:
    int what
    int32_t argument


cdef class World(Verdicts):
    """One world. `threads`: a list of (set-up, operations), each a list of (name, argument); see worlds.py."""
    cdef Operation ops[FIBERS][OPS]
    cdef uint32_t n_ops[FIBERS]
    cdef void* early[PS * 256]          # slots as a fork copies them first

    def __init__(self, threads, uint32_t procs, uint32_t cpus, uint32_t numbers, sizes, cap, limit, bint sections,
                 bint tallies, caps, weights):
        cdef uint32_t fiber, i
        Verdicts.__init__(self, len(threads), procs, cpus, numbers, sizes, cap, limit, sections, caps, weights)
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
        self.keep(tallies)

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

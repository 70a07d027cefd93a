# Sched: which M may touch which P's local caches now.
#
# It owns the Ps, their number, the mode (sections or portable) and the registry of pools. Keeps the
# invariants resize and fork. Lock order: list of Scheds, registry, Ps, and then the pools' own.
from libc.stdint cimport uint32_t

from deferpool._platform cimport cas32, likely, load32, store32
from deferpool._sections cimport FREE, HELD, Front, P, SchedState

# A pool as its Sched knows it. Linked, and `equipped` written, under the registry lock.
cdef struct Member:
    Member* next
    Member** link                               # what points at this one
    Front* front                                # its `open` is written by who stops the Ps
    uint32_t equipped                           # Ps below this have caches of the pool
    uint32_t pins                               # resizes that equip it now; its memory stays until there are none
    bint (*equip)(Member*, uint32_t) noexcept nogil     # give the Ps below a number their caches; no lock is held
    void (*hold)(Member*) noexcept nogil        # a fork begins: take every central lock
    void (*unhold)(Member*) noexcept nogil      # and give them back
    void (*orphan)(Member*) noexcept nogil      # in a child, before that: what other threads had in hand is lost

cdef struct Registry:
    SchedState state                            # first: what sections and portable takes read
    uint32_t lock                               # guards all below, and every change of state
    uint32_t cpus                               # fewer Ps than this need portable mode
    bint sections                               # whether this Sched may use sections at all
    uint32_t counted                            # Ps below this may hold items: more than procs, until drained
    uint32_t draining                           # procresizes that have not returned
    Member* members
    Registry* next                              # all Scheds of the process, under registries_lock


cdef class Sched:
    cdef Registry* registry
    cdef readonly bint clear_on_gc
    cdef dict pools                             # serial number: weak reference; the Python side of the registry
    cdef object __weakref__
    cdef list live_pools(self)
    cdef uint32_t counted(self) noexcept        # Ps that may hold items

cdef Sched default_sched()
cdef object remember(dict register, thing)

# For pools: link and unlink a member. link fails, and changes nothing, when caches are missing.
cdef bint link(Registry* registry, Member* member) noexcept nogil
cdef void unlink(Registry* registry, Member* member) noexcept nogil

# A change of the number of Ps: first, last, and between them the pools drain what was removed. 0 or an error number.
cdef int resize(Registry* registry, uint32_t n, uint32_t* before) noexcept nogil
cdef void settle(Registry* registry, bint drained) noexcept nogil

# What pthread_atfork calls.
cdef void before_fork() noexcept nogil
cdef void after_fork() noexcept nogil
cdef void after_fork_in_child() noexcept nogil

# What this thread has written, every running thread sees from now on. False where the kernel has no such barrier.
cdef bint fence_all() noexcept nogil

# Portable mode, where a thread's last P is not to be had: tries a few others and never waits.
cdef P* acquirep_elsewhere(SchedState* state, uint32_t* last, uint32_t* number) noexcept nogil

# Take one P's local caches of one pool from its CPU or its thread, and give them back. 0 or an error number; under the registry
# lock.
cdef int stop_for(Registry* registry, Member* member, uint32_t p) noexcept nogil
cdef void start_for(Registry* registry, Member* member, uint32_t p) noexcept nogil


cdef inline P* acquirep(SchedState* state, uint32_t* last, uint32_t* number) noexcept nogil:
    """Portable mode: a P of one's own until releasep, or NULL. First the one that the thread had last.

    `last` is the thread's own note of where it was, plus one; 0 in a new thread.
    """
    cdef uint32_t i = last[0] - 1
    cdef P* p = &state.ps[i]
    if not likely(i < load32(&state.procs) and cas32(&p.holder, FREE, HELD)):
        return acquirep_elsewhere(state, last, number)
    if not likely(load32(&state.portable)):
        store32(&p.holder, FREE)                 # sections have it again: the mode has changed
        return NULL
    number[0] = i
    return p


cdef inline void releasep(P* p) noexcept nogil:
    store32(&p.holder, FREE)

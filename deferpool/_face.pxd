# What all faces share: the class that has a pool, its figures, and the checks of its arguments.
from libc.stdint cimport uint32_t, uint64_t

from deferpool._platform cimport alloc_fn, release_fn
from deferpool._pool cimport Allocator, Pool
from deferpool._sched cimport Sched

cdef uint64_t shared_pools              # see sharing.h: of all faces together

cdef class ItemPool:
    """Base of the faces: opens, watches, clears and closes one pool. A face sets pool.ops before all else."""
    cdef Pool pool
    cdef Sched owner
    cdef object allocator_owner         # whom to keep alive as long as memory may go back to it
    cdef object __weakref__
    cdef object registered              # the weak reference that its Sched has
    cdef readonly object name           # for stats and repr; or None
    cdef readonly bint clear_on_gc      # whether full collections clear its central pool
    cdef uint64_t sharing[3]            # see sharing.h
    cdef uint64_t gets_before, idle     # at the last full collection; and since how many of them
    cdef void empty_retired(self) noexcept
    cdef void empty_central(self) noexcept
    cdef int empty(self) noexcept       # all of it: 0 or an error number
    cdef void ready(self) noexcept      # the last of a face's __cinit__: until then the collector shows it to nobody
    cdef void stay_known(self) noexcept # for a face's finalizer
    cdef int open(self, Sched sched, uint32_t classes, cap, limit,
                  alloc_fn alloc, release_fn release, void* arg) except -1
    # The same with a cap for each class (0: no local caches of it), what its items weigh, and a limit in these units.
    cdef int open_weighted(self, Sched sched, uint32_t classes, const uint32_t* caps, const uint64_t* weights,
                           uint64_t limit, alloc_fn alloc, release_fn release, void* arg) except -1

# Arguments of the faces.
cdef Allocator* checked_allocator(capsule) except NULL
cdef checked_name(name)                                 # a str, or None
cdef bint checked_debug(debug) except -1                # None: what DEFERPOOL_DEBUG says
cdef uint32_t checked_cap(cap) except 0
cdef uint64_t checked_limit(name, limit, uint64_t least=*) except? 0    # UINT64_MAX for None

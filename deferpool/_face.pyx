"""What all faces share: ItemPool, and the checks of their arguments."""
import os
from operator import index

cimport cython
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t

from deferpool._cpython cimport is_finalizing, shown
from deferpool._platform cimport alloc_fn, load32, load64, release_fn
from deferpool._pool cimport (
    MAX_CLASSES, THE_POOL, Allocator, Figures, Pool, add_up, cached_on, clear, clear_central, close_pool, drain_retired,
    open_pool, raise_peak, terms_of,
)
from deferpool._sched cimport Registry, Sched, default_sched, remember
from deferpool._sections cimport MAX_CAP

from deferpool._environment import flag

cdef extern from "Python.h":
    void PyObject_GC_Track(void*) noexcept
    void PyObject_GC_UnTrack(void*) noexcept
    object PyUnicode_FromObject(object)
    const unsigned long HEAP_TYPE "Py_TPFLAGS_HEAPTYPE"

cdef extern from "sharing.h":
    int SHARED "SHARING_SHARED"
    void sharing_begin(PyObject* pool) noexcept
    void sharing_never(uint64_t* sharing) noexcept

cdef uint64_t shared_pools = 0


# ---- arguments ------------------------------------------------------------------------------------------------

def _integer(name, value, wanted="an integer"):
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}") from None


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
        raise ValueError(f"cap must be even and from 2 to {MAX_CAP}, not {shown(cap)}")
    return cap


cdef uint64_t checked_limit(name, limit, uint64_t least=0) except? 0:
    if limit is None:
        return UINT64_MAX
    limit = _integer(name, limit, "an integer or None")
    if not least <= limit < 2**63:
        raise ValueError(f"{name} must be None or from {least} to 2**63 - 1, not {shown(limit)}")
    return limit


cdef checked_name(name):
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    return PyUnicode_FromObject(name)       # of a subclass, which may refer to anything: its text


# ---- the class ------------------------------------------------------------------------------------------------

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
        cdef Registry* registry = self.owner.registry if self.owner is not None else NULL
        with nogil:
            close_pool(&self.pool, registry)

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
        cdef Registry* registry
        cdef uint32_t missing
        if (alloc == NULL) != (release == NULL):
            raise ValueError("an Allocator must have both alloc_meta and release_meta, or none of them")
        self.owner = sched if sched is not None else default_sched()
        registry = self.owner.registry
        with nogil:
            missing = open_pool(&self.pool, registry, classes, caps, weights, limit, alloc, release, arg)
        if missing:
            raise MemoryError("no memory for " + (f"the local caches of {missing} Ps" if missing != THE_POOL else "a pool"))
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
        and central together), `central`, `bypassed` (gets past the last class; included in the others), `gets` and
        `puts`, `dropped` (sent to the allocator because of the limit or for want of memory to keep it), `peak_cached`
        (most seen at transfers and reads), `bound` (None without a limit); in transfers: `refills`, `spills`; and
        `per_p`: for each P the cached count of each class. In a forked child, what other threads had in hand counts as
        got and live. Each part is within its own bound, so their sum is within `bound`; at rest
        created = live + cached + destroyed. Thread-safe.
        """
        cdef Pool* pool = &self.pool
        cdef uint32_t i, cls, equipped = load32(&pool.member.equipped), procs = self.owner.counted()
        cdef uint64_t local = 0, n
        cdef uint64_t bypass_puts = load64(&pool.bypass_puts), bypass_gets = load64(&pool.bypass_gets), gets, puts
        cdef Figures f
        add_up(pool, &f)
        per_p = []
        for i in range(equipped):
            counts = []
            for cls in range(pool.classes):
                n = cached_on(pool, i, cls)
                counts.append(n)
                local += n
            if i < procs:
                per_p.append(counts)
        gets = f.gets + bypass_gets
        puts = f.puts + bypass_puts
        if pool.orphans > 0:                            # these had been taken, if not by their callers yet
            gets += pool.orphans
        else:                                           # or were counted as taken, on their way to the allocator
            puts -= pool.orphans
        live = <int64_t>(gets - puts)
        return {
            "name": self.name, "created": f.created + bypass_gets, "destroyed": f.destroyed + bypass_puts, "live": max(0, live),
            "cached": local + f.central, "central": f.central, "bypassed": bypass_gets,
            "gets": gets, "puts": puts,
            "refills": f.tally.refills, "spills": f.tally.spills, "dropped": f.dropped,
            "peak_cached": raise_peak(pool, local + f.central), "bound": self._bound(procs), "per_p": per_p,
        }

"""Pool: Python objects that are kept to be used again, never more of them than its bound.

A plain pool's acquire and release are a section each. Whatever an option asks for beyond that (`how`) is done by the
careful ones.

A thread that moves objects holds the GIL, or without a GIL is attached, all the while. So the collector, which runs when
no thread is in the middle of anything, sees each cached object once.
"""
import time
from _thread import allocate_lock
from types import GenericAlias

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from deferpool._careful cimport (
    CHECKS, CLOSED, ENDED, LIMITED, RESETS, WATCHED, CarefulPool, acquire_carefully, back_from_line, drop_object,
    find_for_line, forget, let_go, look_after, lose, make_object, mark, note_given, out, release_carefully, report_lost, shut,
    tell_drained,
)
from deferpool._cpython cimport (
    INCREF, METH_FASTCALL, METH_KEYWORDS, METH_O, NONE, Endings, PyMethodDef, PyTypeObject, add_method, destructor,
    end_in_turn, name_arguments, traverseproc, visitproc,
)
from deferpool._face cimport ItemPool, checked_allocator, checked_debug, checked_limit, checked_name, shared_pools
from deferpool._platform cimport likely, load32, load64
from deferpool._pool cimport (
    Allocator, FaceOps, clear, clear_central, discard, drain_retired, each_cached, get, place_of, put,
)
from deferpool._sched cimport Sched
from deferpool._waiting cimport Line, raise_error_later

from deferpool._careful import acquire_in_task
from deferpool._watch import Watch

cdef extern from "lease.h":
    ctypedef struct LeaseStruct "Lease":
        PyObject* pool
        PyObject* item "object"
        double timeout
    PyObject* lease_new(PyObject* pool, double timeout) except NULL
    int lease_take(LeaseStruct* lease, PyObject* item) except -1
    PyObject* lease_leave(LeaseStruct* lease) except NULL
    PyTypeObject Lease_Type
    int lease_ready(object enter_in_task, object leave_in_task) except -1

cdef extern from *:
    """
    static DP_OF_THREAD dp_endings dp_pools_end;
    """
    Endings endings "dp_pools_end"

cdef extern from "sharing.h":
    void sharing_note(PyObject* pool, uint64_t* sharing, uint64_t* all) noexcept

cdef double FOR_EVER = -1.0


@cython.final
@cython.no_gc_clear
cdef class Pool(CarefulPool):
    """A bounded pool of Python objects that are worth more than 150 ns or so to make:

        parsers = Pool(Parser, reset=Parser.clear)
        with parsers.lease() as parser:
            parser.feed(data)

    Objects wait in small caches, one for each P, over a central pool with a limit: `bound` is the most that are ever cached.

    Parameters:
        new: makes an object, without arguments. What it raises, acquire raises; None is a TypeError.
        reset: called with an object that is released, before it is cached. If it raises, the object is dropped and
            release raises that.
        check: called with a cached object that is about to be acquired: whether it is still good. If not, it is dropped and
            another taken; if it raises, it is dropped and acquire raises that.
        on_drop: called with each object that leaves for good: past the limit, cleared, closed, discarded, failed in check or
            reset. What it raises goes to sys.unraisablehook. Not for what is out still when the collector ends the pool.
        cap: most objects in one local cache: even, 2 to 32,766.
        limit: most objects in the central pool; None for no limit.
        max_live: most objects out and cached together; None for no limit. acquire then waits its turn when all are out:
            first come, first served. An object that is not out cannot be released then (ValueError). One that leaves counts
            until on_drop has returned, which must not wait for another. Without max_live acquire never waits.
        name: for stats() and messages.
        debug: finds double releases and foreign objects (ValueError), attributes and methods used after the release
            (RuntimeError, for objects of most classes written in Python) and objects never released (ResourceWarning with the place of
            acquisition), which takes some microseconds a call. Default: what DEFERPOOL_DEBUG says (1: on). Without it a pool takes whatever is
            released to it.
        clear_on_gc: whether full garbage collections clear the central pool (where its Sched wants that at all).
        sched: the Sched whose Ps to use. Default: the runtime's.
        allocator: a capsule named "deferpool.Allocator" around a struct Allocator (_pool.pxd), for the memory of the caches
            themselves. Default: the C library's.

    Raises ValueError or TypeError for bad arguments, MemoryError. Thread-safe. The garbage collector sees cached objects: one
    that refers to its own pool can be collected with it. A pool that is dropped is closed. None of the functions is
    called with anything held, so each may use the pool. In a forked child, what other threads had out stays out for ever.
    Without a GIL Python ends an object that another thread has made only when that thread runs Python code again.
    """
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, new, *, reset=None, check=None, on_drop=None, cap=32, limit=1024, max_live=None, name=None,
                  debug=None, bint clear_on_gc=True, Sched sched=None, allocator=None):
        cdef Allocator* given
        self.pool.ops = FaceOps(make=<void* (*)(void*, uint32_t) noexcept nogil><void*>make_object,
                                drop=<void (*)(void*, void*, uint32_t) noexcept nogil><void*>drop_object,
                                close=NULL, face=<void*>self)
        for role, function in (("new", new), ("reset", reset), ("check", check), ("on_drop", on_drop)):
            if not callable(function) and (function is not None or role == "new"):
                raise TypeError(f"{role} must be callable, not {type(function).__name__}")
        self.name = checked_name(name)
        self.new = new
        self.reset = reset
        self.check = check
        self.on_drop = on_drop
        self.clear_on_gc = clear_on_gc
        self.how = (CHECKS if check is not None else 0) | (RESETS if reset is not None else 0)
        if max_live is not None:
            self.most = checked_limit("max_live", max_live, 1)
            self.line = Line.__new__(Line)
            self.line.open(self, find_for_line, back_from_line)
            self.how |= LIMITED
        if checked_debug(debug):
            self.how |= WATCHED
        elif self.how & LIMITED:
            self.made = {}
        if self.how & (LIMITED | WATCHED):
            self.taken = set()
        if self.how & WATCHED:
            self.watch = Watch(repr(self), self.taken)
        if allocator is not None:
            given = checked_allocator(allocator)
            self.allocator_owner = allocator
            self.open(sched, 1, cap, limit, given.alloc_meta, given.release_meta, given.arg)
        else:
            self.open(sched, 1, cap, limit, NULL, NULL, NULL)
        self.place = place_of(&self.pool, 0)
        self.ready()

    def __del__(self):
        cdef PyObject* kind
        cdef PyObject* error
        cdef PyObject* trace
        PyErr_Fetch(&kind, &error, &trace)
        if self.pool.central.stripes != NULL:
            shut(self)
            self.empty()
            if self.watch is not None:
                report_lost(self)
            mark(self, ENDED)
        PyErr_Restore(kind, error, trace)

    def __dealloc__(self):
        # not empty only where the kernel refused to stop a P
        self.pool.ops.drop = forget
        each_cached(&self.pool, let_go, NULL)

    def acquire_async(self, timeout=None):
        """As acquire, to be awaited in an asyncio task: it waits without blocking the event loop. Safe to cancel.

        Tasks of one event loop that wait go on in the order in which they came, whichever threads release.
        """
        return acquire_in_task(self, timeout_of(timeout))

    def discard(self, obj, /):
        """Instead of release, for an object that must not be used again: it leaves for good.

        Raises TypeError for None; in debug mode and with max_live ValueError for an object that is not out. Thread-safe.
        """
        if obj is None:
            raise TypeError("None is no object of a pool")
        if load32(&self.how) & (LIMITED | WATCHED):
            note_given(self, <PyObject*>obj)
        INCREF(<PyObject*>obj)
        lose(self, <PyObject*>obj)

    def close(self):
        """Ends the pool: cached objects are dropped now, those that are out as soon as they are released.

        acquire raises RuntimeError from now on, also where somebody waits. To close twice changes nothing. Thread-safe.
        """
        shut(self)
        self.clear()

    def drain(self, timeout=None):
        """Closes the pool and waits until everything that is out has been released or discarded.

        It counts: an object that is lost is waited for, and one that was released twice, or is not of this pool, makes up for
        another (neither can be released in debug mode or with max_live).

        Parameters:
            timeout: seconds; None: for ever.

        Raises TimeoutError, which tells how many are still out; the pool is closed nevertheless. Thread-safe.
        """
        cdef double seconds = timeout_of(timeout), until = time.monotonic() + seconds
        if self.drained is None:
            drained = allocate_lock()
            drained.acquire()
            self.drained = drained
        self.close()
        while out(self) > 0:
            left = until - time.monotonic() if seconds >= 0 else 0.1
            if left <= 0:
                raise TimeoutError(f"{out(self)} of {self!r} are still out")
            self.drained.acquire(True, min(left, 0.1))
        tell_drained(self)              # whoever else waits

    @property
    def max_live(self):
        """Most objects out and cached together; None for no limit."""
        return self.most if self.line is not None else None

    @property
    def debug(self):
        """Whether it looks for misuse."""
        return self.watch is not None

    @property
    def closed(self):
        """Whether close was called."""
        return bool(load32(&self.how) & CLOSED)

    def _bound(self, procs):
        bound = ItemPool._bound(self, procs)
        return bound if self.line is None else self.most if bound is None else min(bound, self.most)

    def stats(self):
        """ItemPool.stats, and `max_live`, `waiting` (how many callers of acquire wait) and `out` in debug mode: how
        many objects each place in the program has out, by "file:line"."""
        figures = ItemPool.stats(self)
        if self.line is not None:
            self.line.look_for_fork()
        figures["max_live"] = self.max_live
        figures["waiting"] = load64(&self.line.waiting) if self.line is not None else 0
        if self.watch is not None:
            figures["out"] = self.watch.places()
        return figures

    cdef void empty_retired(self) noexcept:
        drain_retired(&self.pool)

    cdef void empty_central(self) noexcept:
        clear_central(&self.pool)

    cdef int empty(self) noexcept:
        return clear(&self.pool)

    def __repr__(self):
        made_by = getattr(self.new, "__qualname__", None) or type(self.new).__name__
        return f"<deferpool.Pool{f' {self.name!r}' if self.name is not None else ''} of {made_by}>"


cdef double timeout_of(timeout) except -2.0:
    cdef double seconds
    if timeout is None:
        return FOR_EVER
    try:
        seconds = timeout
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}") from None
    except OverflowError:
        raise ValueError("timeout must not be negative" if timeout < 0 else "timeout is too large for a number of seconds") \
            from None
    if seconds != seconds:
        raise ValueError("timeout must be a number of seconds, not NaN")
    if seconds < 0:
        raise ValueError(f"timeout must not be negative: {timeout}")
    return seconds


cdef double timeout_given(PyObject** given, Py_ssize_t count, PyObject* names, name) except -2.0:
    """The one argument of acquire and lease, by position or by name."""
    cdef Py_ssize_t named = 0 if names == NULL else len(<tuple>names)
    if count + named > 1:
        raise TypeError(f"{name}() takes at most 1 argument ({count + named} given)")
    if count + named == 0:
        return FOR_EVER
    if named and (<tuple>names)[0] != "timeout":
        raise TypeError(f"{name}() got an unexpected keyword argument {(<tuple>names)[0]!r}")
    return timeout_of(<object>given[0])


# ---- acquire ------------------------------------------------------------------------------------------------------

cdef PyObject* acquire(Pool self, PyObject** given, Py_ssize_t count, PyObject* names) except NULL:
    if not likely(count == 0 and names == NULL):
        return acquire_within(self, timeout_given(given, count, names, "acquire"))
    return acquire_within(self, FOR_EVER)


cdef inline PyObject* acquire_within "dp_pool_acquire"(Pool self, double timeout) except NULL:
    cdef void* item = get(&self.pool, self.place)
    sharing_note(<PyObject*>self, self.sharing, &shared_pools)
    if likely(item != NULL and load32(&self.how) == 0):
        return <PyObject*>item
    return acquire_carefully(self, item, timeout)


# ---- release ------------------------------------------------------------------------------------------------------

cdef PyObject* release(Pool self, PyObject* thing) except NULL:
    release_here(self, thing)
    INCREF(NONE)
    return NONE


cdef inline int release_here "dp_pool_release"(Pool self, PyObject* thing) except -1:
    if likely(load32(&self.how) == 0 and thing != NONE):
        INCREF(thing)
        put(&self.pool, thing, self.place)
        if not likely(load32(&self.how) == 0):
            look_after(self)            # it was closed at that very moment
        return 0
    return release_carefully(self, thing)


# ---- lease ------------------------------------------------------------------------------------------------------------

cdef PyObject* lease(Pool self, PyObject** given, Py_ssize_t count, PyObject* names) except NULL:
    if likely(count == 0 and names == NULL):
        return lease_new(<PyObject*>self, FOR_EVER)
    return lease_new(<PyObject*>self, timeout_given(given, count, names, "lease"))


cdef void lose_leased "dp_pool_lose"(Pool self, PyObject* thing) noexcept:
    """A lease ends that nobody has left."""
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* trace
    if load32(&self.how) & ENDED:
        INCREF(thing)
        discard(&self.pool, thing, 0)
        return
    PyErr_Fetch(&kind, &error, &trace)
    try:
        self.discard(<object>thing)
    except ValueError:                  # somebody has released it by hand
        pass
    except BaseException as error_:
        raise_error_later(error_)
    PyErr_Restore(kind, error, trace)


cdef void lose_unreleased "dp_pool_lose_unreleased"(Pool self, PyObject* thing) noexcept:
    """Its release has failed, and it is out still; but its lease has been left, and nobody will try again."""
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* trace
    PyErr_Fetch(&kind, &error, &trace)
    if self.taken is not None and <size_t>thing in self.taken:
        self.taken.discard(<size_t>thing)
        INCREF(thing)
        lose(self, thing)
    PyErr_Restore(kind, error, trace)


async def _enter_in_task(lease_):
    cdef LeaseStruct* self = <LeaseStruct*><PyObject*>lease_
    item = await acquire_in_task(<Pool>self.pool, self.timeout)
    INCREF(<PyObject*>item)
    lease_take(self, <PyObject*>item)
    return item


async def _leave_in_task(lease_):
    lease_leave(<LeaseStruct*><PyObject*>lease_)


# ---- how the classes get what a class statement cannot say ------------------------------------------------------------

cdef traverseproc traverse_attributes
cdef destructor dealloc_attributes

cdef void dealloc(PyObject* self) noexcept:
    end_in_turn(&endings, self, &(<Pool>self).next_dead, dealloc_attributes)


cdef int traverse(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef int answer = traverse_attributes(self, visit, arg)
    return answer if answer else each_cached(&(<Pool>self).pool, <int (*)(void*, void*) noexcept>visit, arg)


cdef PyMethodDef acquire_definition = PyMethodDef(
    ml_name=b"acquire", ml_meth=<void*>acquire, ml_flags=METH_FASTCALL | METH_KEYWORDS, ml_doc=b"""acquire($self, timeout=None)
--

An object: a cached one, else a new one.

Parameters:
    timeout: with max_live, seconds to wait at most; None: for ever.

Raises TimeoutError; RuntimeError when the pool is closed; what new or check raise; TypeError when new returns None; ValueError or
TypeError for a bad timeout. Thread-safe.""")

cdef PyMethodDef release_definition = PyMethodDef(
    ml_name=b"release", ml_meth=<void*>release, ml_flags=METH_O, ml_doc=b"""release($self, obj, /)
--

Gives an object back. It must not be used any more.

Raises TypeError for None; what reset raises (the object is dropped then); in debug mode and with max_live ValueError for an object that
is not out. Thread-safe.""")

cdef PyMethodDef lease_definition = PyMethodDef(
    ml_name=b"lease", ml_meth=<void*>lease, ml_flags=METH_FASTCALL | METH_KEYWORDS, ml_doc=b"""lease($self, timeout=None)
--

An object for the time of a with or async with statement: acquired at its begin, released at its end; or not released, if the lease's
own discard() was called meanwhile.

Parameters:
    timeout: as for acquire.

Raises as acquire and release do, where these happen. Thread-safe; one lease is for one with statement at a time.""")


cdef void publish() except *:
    global traverse_attributes, dealloc_attributes
    cdef PyTypeObject* kind = <PyTypeObject*>Pool
    add_method(kind, &acquire_definition)
    add_method(kind, &release_definition)
    add_method(kind, &lease_definition)
    traverse_attributes = kind.tp_traverse
    kind.tp_traverse = traverse
    dealloc_attributes = kind.tp_dealloc
    kind.tp_dealloc = dealloc
    lease_ready(_enter_in_task, _leave_in_task)
    name_arguments(kind)

publish()
Lease = <object><PyObject*>&Lease_Type

"""What a Pool's options do around the engine's get and put: they run the user's functions, always with nothing held."""
import time
from weakref import ref

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t

from deferpool._cpython cimport (
    DECREF, INCREF, NONE, XDECREF, TypeError_, call_none, call_one, is_finalizing, occurred, pass_on, put_raised,
)
from deferpool._face cimport ItemPool
from deferpool._handles cimport add
from deferpool._platform cimport cas32, cas64, load32, load64
from deferpool._pool cimport Figures, add_up, count_made, discard, get, get_anywhere, put
from deferpool._sched cimport fence_all
from deferpool._waiting cimport CLOSED_LINE, ITEM, LEFT, NOTHING, PERMIT, Waiter, raise_error_later

from deferpool._waiting import wait_in_task
from deferpool._watch import named

cdef extern from "Python.h":
    void set_error "PyErr_SetString"(PyObject*, const char*) noexcept
    void write_unraisable "PyErr_WriteUnraisable"(PyObject*) noexcept
    Py_ssize_t count_of_references "Py_REFCNT"(PyObject*) noexcept


# no_gc_clear: whoever gives back while the collector takes a cycle apart finds all of it. Of functions nothing is left to
# call then, so what is dropped after the pool's own finalizer is dropped without a word.
@cython.no_gc_clear
cdef class CarefulPool(ItemPool):
    """What Pool is made of."""


# ---- acquire ------------------------------------------------------------------------------------------------------

cdef PyObject* acquire_carefully(CarefulPool self, void* item, double timeout) except NULL:
    """`item` was cached, or nothing was."""
    cdef uint64_t got = may_take(self, &item)
    if got == NOTHING:
        got = self.line.wait(timeout).take(&item)
    return prepared(self, got, item)


async def acquire_in_task(CarefulPool self, double timeout):
    cdef void* item = get(&self.pool, self.place)
    cdef uint64_t got = may_take(self, &item)
    cdef PyObject* found
    if got == NOTHING:
        got = LEFT
        until = time.monotonic() + timeout
        while got == LEFT:
            waiter = await wait_in_task(self.line, timeout if timeout < 0 else max(0.0, until - time.monotonic()))
            got = (<Waiter>waiter).take(&item)
    found = prepared(self, got, item)
    result = <object>found
    DECREF(found)
    return result


cdef uint64_t may_take(CarefulPool self, void** item) except CLOSED_LINE:
    """ITEM: the one in hand; PERMIT: to make one; NOTHING: it must wait, and has nothing in hand."""
    cdef uint32_t how = load32(&self.how)
    if item[0] == NULL and occurred() != NULL:  # new raised; a pool that is plain has called it already
        pass_on()
    if how & CLOSED:
        if item[0] != NULL:
            lose_after_close(self, item[0])
        refuse_closed(self)
    if how & LIMITED and not self.line.empty():     # others came before
        if item[0] != NULL:
            put(&self.pool, item[0], self.place)
            item[0] = NULL
        return NOTHING
    if item[0] != NULL:
        return ITEM
    return PERMIT if not how & LIMITED or reserve(self) else NOTHING


cdef PyObject* prepared(CarefulPool self, uint64_t got, void* item) except NULL:
    """An object that is good, new if need be."""
    cdef uint32_t how = load32(&self.how)
    if got == CLOSED_LINE:
        refuse_closed(self)
    while got == ITEM:
        if how & WATCHED:
            wake_up(self, item)
        if not how & CHECKS or is_good(self, item):
            break
        item = NULL if how & LIMITED else get(&self.pool, self.place)
        if item == NULL:
            got = PERMIT
    if got == PERMIT:
        item = make_carefully(self)
    if load32(&self.how) & CLOSED:      # meanwhile: whoever drains it does not know of this one
        lose_after_close(self, item)
        refuse_closed(self)
    if how & (LIMITED | WATCHED):
        if got == PERMIT and is_out_already(self, item):
            refuse_twice_made(self, item)
        try:
            note_taken(self, item, got == PERMIT)
        except BaseException:
            lose(self, item)
            raise
    return <PyObject*>item


cdef int wake_up(CarefulPool self, void* item) except -1:
    try:
        self.watch.wakes(<object>item)
    except BaseException:
        lose(self, item)
        raise
    return 0


cdef void lose_after_close(CarefulPool self, void* item) noexcept:
    """What was cached still, perhaps with others, which a refill has brought to this P."""
    lose(self, item)
    self.empty()


cdef int refuse_twice_made(CarefulPool self, void* item) except -1:
    """It is somebody's: nothing leaves, and what this caller was allowed to make is free again."""
    cdef object made = <object><PyObject*>item
    DECREF(<PyObject*>item)
    INCREF(NONE)
    lose(self, NONE)
    raise ValueError(f"new returned an object that is out already: {named(made)}")


cdef int refuse_closed(CarefulPool self) except -1:
    raise RuntimeError(f"{self!r} is closed")


cdef bint is_good(CarefulPool self, void* item) except -1:
    """What `check` says of it. One that is not good is dropped; what it leaves room for is still the caller's to make."""
    cdef bint good = False
    cdef bint asked = False
    try:
        good = bool(self.check(<object>item))
        asked = True
    finally:
        if not good:
            if asked and self.line is not None:
                add(&self.existing, 1)
            discard(&self.pool, item, 0)
    return good


cdef void* make_carefully(CarefulPool self) except NULL:
    """The caller may make one. If it cannot, somebody else may."""
    cdef PyObject* made = make_one(self)
    if made == NULL:
        if self.line is not None:
            add(&self.existing, UINT64_MAX)
            self.line.serve()           # keeps the error
        pass_on()
    count_made(&self.pool, 0)
    return made


cdef PyObject* make_one(CarefulPool self) noexcept:
    """NULL with an error."""
    cdef PyObject* made = call_none(<PyObject*>self.new)
    if made == NONE:
        DECREF(made)
        set_error(TypeError_, b"new returned None, which is no object for a pool")
        return NULL
    return made


# A limit on what is out is kept only if nothing comes back that is not out; in debug mode with all that can be said of it.
# One that was lost stays in `taken` until Python makes another object in its place.

cdef bint is_out_already(CarefulPool self, void* item) except -1:
    """What `new` has returned: not one that lies where another was lost."""
    if <size_t>item not in self.taken:
        return False
    weak = self.made.get(<size_t>item) if self.watch is None else self.watch.weak(<size_t>item)
    return weak() is <object><PyObject*>item if weak is not None else count_of_references(<PyObject*>item) > 1


cdef int note_taken(CarefulPool self, void* item, bint new) except -1:
    if self.watch is not None:
        self.watch.taken(<object>item, new)
    elif new:
        try:
            self.made[<size_t>item] = ref(<object><PyObject*>item)
        except TypeError:
            self.made.pop(<size_t>item, None)
    self.taken.add(<size_t>item)
    return 0


cdef int note_given(CarefulPool self, PyObject* thing) except -1:
    try:
        self.taken.remove(<size_t>thing)        # of two threads that release it, one finds it there
    except KeyError:
        if self.watch is not None:
            raise ValueError(self.watch.why_not(<object>thing)) from None
        raise ValueError(f"{named(<object>thing)} is not out of {self!r}: released twice, or not of this pool") from None
    if self.watch is not None:
        try:
            self.watch.given(<object>thing)
        except BaseException:
            self.taken.add(<size_t>thing)
            raise
    return 0


# ---- release ------------------------------------------------------------------------------------------------------

cdef int release_carefully(CarefulPool self, PyObject* thing) except -1:
    cdef uint32_t how = load32(&self.how)
    if thing == NONE:
        raise TypeError("None is no object of a pool")
    if how & (LIMITED | WATCHED):
        note_given(self, thing)
    if how & CLOSED:
        INCREF(thing)
        lose(self, thing)
        return 0
    if how & RESETS:
        try:
            self.reset(<object>thing)
        except BaseException:
            INCREF(thing)
            lose(self, thing)
            raise
    INCREF(thing)
    if how & WATCHED:
        try:
            self.watch.rests(<object>thing)
        except BaseException:
            lose(self, thing)
            raise
    put(&self.pool, thing, self.place)
    look_after(self)
    return 0


cdef void look_after(CarefulPool self) noexcept:
    """After something was cached: a closed pool keeps nothing, and whoever waits gets it."""
    if load32(&self.how) & CLOSED:
        self.empty()
        tell_drained(self)
    elif self.line is not None and not self.line.empty():
        self.line.serve()


cdef void lose(CarefulPool self, void* item) noexcept:
    """For an object in hand that counts as out: it leaves for good, and the reference in hand with it."""
    discard(&self.pool, item, 0)
    if load32(&self.how) & CLOSED:
        tell_drained(self)


# ---- what the engine asks of this face ------------------------------------------------------------------------------

cdef void* make_object(void* face, uint32_t cls) noexcept:
    """For a plain pool. Where more is to be done, acquire does it, and this is NULL without an error."""
    return make_one(<CarefulPool>face) if load32(&(<CarefulPool>face).how) == 0 else NULL


cdef void drop_object(void* face, void* item, uint32_t cls) noexcept:
    cdef PyObject* kind
    cdef PyObject* error
    cdef PyObject* trace
    cdef PyObject* answer
    cdef CarefulPool self = <CarefulPool>face
    if load32(&self.how) & ENDED:
        DECREF(<PyObject*>item)
        return
    PyErr_Fetch(&kind, &error, &trace)
    if self.made is not None:
        self.made.pop(<size_t>item, None)
    elif self.watch is not None and item != NONE:
        try:
            self.watch.dropped(<object>item)
        except BaseException as error_:
            raise_error_later(error_)
    if self.on_drop is not None and item != NONE:       # None stands for what has not left: see refuse_twice_made
        answer = call_one(<PyObject*>self.on_drop, <PyObject*>item)
        if answer == NULL:
            write_unraisable(<PyObject*>self.on_drop)
        XDECREF(answer)
    DECREF(<PyObject*>item)
    if self.line is not None:
        add(&self.existing, UINT64_MAX)
        if not self.line.empty():
            self.line.serve()
    PyErr_Restore(kind, error, trace)


cdef void forget(void* face, void* item, uint32_t cls) noexcept nogil:
    pass


cdef int let_go(void* item, void* nothing) noexcept:
    DECREF(<PyObject*>item)
    return 0


# ---- max_live -------------------------------------------------------------------------------------------------------

cdef bint reserve(CarefulPool self) noexcept:
    """Leave to make an object."""
    cdef uint64_t existing
    while True:
        existing = load64(&self.existing)
        if existing >= self.most:
            return False
        if cas64(&self.existing, existing, existing + 1):
            return True


cdef uint64_t find_for_line(void* owner, void** item) noexcept:
    cdef CarefulPool self = <CarefulPool>owner
    if load32(&self.how) & CLOSED:
        return NOTHING
    item[0] = get_anywhere(&self.pool, 0)
    if item[0] != NULL:
        return ITEM
    return PERMIT if reserve(self) else NOTHING


cdef void back_from_line(void* owner, uint64_t what, void* item) noexcept:
    """Not served to anybody. The line looks itself whether somebody has come meanwhile."""
    cdef CarefulPool self = <CarefulPool>owner
    if what == PERMIT:
        add(&self.existing, UINT64_MAX)
    elif load32(&self.how) & CLOSED:
        discard(&self.pool, item, 0)
    else:
        put(&self.pool, item, self.place)


# ---- the end ----------------------------------------------------------------------------------------------------------

cdef void mark(CarefulPool self, uint32_t bit) noexcept:
    cdef uint32_t how = load32(&self.how)
    while not how & bit and not cas32(&self.how, how, how | bit):
        how = load32(&self.how)


cdef void report_lost(CarefulPool self) noexcept:
    """What is out now will hardly be released any more."""
    try:
        for seen in self.watch.still_out():
            try:
                self.watch.lost(seen)
            except Exception as error:          # a warning that is an error does not hide the next
                tell_unraisable(self, error)
    except Exception as error:
        tell_unraisable(self, error)


cdef void tell_unraisable(CarefulPool self, error) noexcept:
    if not is_finalizing():                     # where modules may have lost their names
        INCREF(<PyObject*>error)
        put_raised(<PyObject*>error)
        write_unraisable(<PyObject*>self)


cdef void shut(CarefulPool self) noexcept:
    mark(self, CLOSED)
    fence_all()                         # whoever has not seen it yet has cached what it releases, and that is found
    if self.line is not None:
        self.line.close()


cdef int64_t out(CarefulPool self) noexcept:
    """How many objects callers have."""
    cdef Figures figures
    add_up(&self.pool, &figures)
    return <int64_t>(figures.gets - figures.puts)


cdef void tell_drained(CarefulPool self) noexcept:
    """By a lock, for which nobody holds another: this is called from finalizers, in the middle of anything."""
    if self.drained is not None and out(self) <= 0 and self.drained.locked():
        try:
            self.drained.release()
        except BaseException as error:
            if not isinstance(error, RuntimeError):     # somebody else has told it meanwhile
                raise_error_later(error)

"""A fair line of threads and tasks that wait for things. See _waiting.pxd for how it is served."""
from _thread import TIMEOUT_MAX, allocate_lock
from collections import deque
from weakref import WeakKeyDictionary, ref

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint64_t

from deferpool._cpython cimport INCREF, put_raised, raise_later
from deferpool._handles cimport add
from deferpool._platform cimport cas64, load64, store64

cdef extern from "unistd.h" nogil:
    int getpid()


# no_gc_clear: to give back what it was served it needs its line, even when both are found in one cycle.
@cython.no_gc_clear
cdef class Waiter:
    """One thread or task in line."""

    def __dealloc__(self):
        cdef void* item
        cdef uint64_t got = self.take(&item)
        if got == ITEM or got == PERMIT:    # an exception came between being served and taking it
            self.line.back(self.line.owner, got, item)
            self.line.serve()

    cdef uint64_t take(self, void** item) noexcept:
        """What it was served, once; then LEFT."""
        cdef uint64_t got = load64(&self.got)
        while not cas64(&self.got, got, LEFT):
            got = load64(&self.got)
        item[0] = self.item
        return got

    cdef bint leave(self) noexcept:
        """True: it is out of the line with nothing. False: it has been served already."""
        if not cas64(&self.got, NOTHING, LEFT):
            return False
        try:
            self.line.waiters.remove(self)
        except ValueError:              # whoever serves has it in hand, and will see that it has gone
            return True
        add(&self.line.waiting, UINT64_MAX)
        return True

    cdef bint wake(self, PyObject** raised) noexcept:
        """False: its event loop is closed, or does not take calls. What that raises first, of all, is left there."""
        if self.lock is not None:
            self.lock.release()
            return True
        for last in range(2):           # an exception may come before anything was done, or after: once more is harmless
            try:
                self.loop.call_soon_threadsafe(_settle_in_order, self.served, self.future)
                return True
            except BaseException as error:
                if isinstance(error, RuntimeError) and self.loop.is_closed():
                    break
                if raised[0] == NULL:
                    INCREF(<PyObject*>error)
                    raised[0] = <PyObject*>error
        return False


cdef void raise_error_later(error) noexcept:
    INCREF(<PyObject*>error)
    put_raised(<PyObject*>error)
    raise_later(<PyObject*>error)


def _settle(future):
    if not future.done():
        future.set_result(None)


def _settle_in_order(served, future):
    """What a loop is told of a task: that it goes on. So do those that were served before, whose own calls may be late."""
    try:
        while served:
            earlier = served.popleft()()
            if earlier is not None:
                _settle(earlier)
    finally:
        _settle(future)


cdef class Line:
    cdef void open(self, object owner, find_fn find, back_fn back):
        self.owner = <void*>owner
        self.find = find
        self.back = back
        self.waiters = deque()
        self.loops = WeakKeyDictionary()
        self.process = getpid()

    cdef void look_for_fork(self) noexcept:
        """In a child: those who waited have stayed behind."""
        cdef int process = getpid()
        if self.process != process:
            self.waiters.clear()
            self.loops.clear()
            store64(&self.waiting, 0)
            store64(&self.serving, 0)
            self.process = process

    cdef Waiter join(self, Waiter waiter):
        """To the end of the line; and it is served, if there is something."""
        self.look_for_fork()
        waiter.line = self
        waiter.owner = <object>self.owner
        self.waiters.append(waiter)
        add(&self.waiting, 1)
        self.serve()
        return waiter

    cdef void close(self) noexcept:
        """All who wait are told that there is nothing any more, and so is whoever comes from now on."""
        cas64(&self.over, 0, 1)
        self.serve()

    cdef void serve(self) noexcept:
        """Hands out what can be found, as long as somebody waits; or the news that the line is closed."""
        cdef PyObject* kind
        cdef PyObject* error
        cdef PyObject* trace
        cdef void* item
        cdef uint64_t what
        cdef Waiter first = None
        cdef Waiter last = None
        cdef Waiter waiter
        PyErr_Fetch(&kind, &error, &trace)
        self.look_for_fork()
        while True:
            first = None
            while self.is_mine_to_serve():
                while not self.empty():
                    item = NULL
                    what = CLOSED_LINE if load64(&self.over) else self.find(self.owner, &item)
                    if what == NOTHING:
                        break
                    waiter = self.hand(what, item)
                    if waiter is None:
                        if what == CLOSED_LINE:
                            break
                        self.back(self.owner, what, item)
                    elif first is None:
                        first = last = waiter
                    else:
                        last.next = waiter
                        last = waiter
                if cas64(&self.serving, 1, 0):
                    break
                cas64(&self.serving, 2, 0)
            if not self.wake(first):
                break
        PyErr_Restore(kind, error, trace)

    cdef bint wake(self, Waiter first) noexcept:
        """In the order in which they were served. True: something could not be told to its waiter, and is free again."""
        cdef void* item
        cdef uint64_t got
        cdef Waiter waiter
        cdef PyObject* raised = NULL
        cdef bint free = False
        while first is not None:
            waiter = first
            first = waiter.next
            waiter.next = None
            if not waiter.wake(&raised):
                got = waiter.take(&item)
                if got == ITEM or got == PERMIT:
                    self.back(self.owner, got, item)
                    free = True
        if raised != NULL:              # not before: it would come out of an event loop's code that wakes the next one
            put_raised(raised)
            raise_later(raised)
        return free

    cdef bint is_mine_to_serve(self) noexcept:
        """False: somebody else serves, and has been told to look once more."""
        while not cas64(&self.serving, 0, 1):
            if cas64(&self.serving, 1, 2) or cas64(&self.serving, 2, 2):
                return False
        return True

    cdef Waiter hand(self, uint64_t what, void* item):
        """To the first in line who is still there, and has yet to be woken. None: nobody was."""
        cdef Waiter waiter
        while True:
            try:
                waiter = <Waiter>self.waiters.popleft()
            except IndexError:
                return None
            add(&self.waiting, UINT64_MAX)
            waiter.item = item
            if cas64(&waiter.got, NOTHING, what):
                if waiter.served is not None:
                    try:
                        waiter.served.append(waiter.weak)
                    except MemoryError:  # then it waits for the call of its own
                        pass
                return waiter

    cdef Waiter wait(self, double timeout):
        """A thread waits, at most so many seconds; less than 0: for ever. What came of it is in the waiter."""
        cdef Waiter waiter = Waiter.__new__(Waiter)
        waiter.lock = allocate_lock()
        waiter.lock.acquire()
        self.join(waiter)
        try:
            if waiter.lock.acquire(True, -1 if timeout < 0 else min(timeout, TIMEOUT_MAX)):
                return waiter
        except BaseException:
            waiter.leave()
            raise
        if waiter.leave():
            raise TimeoutError(f"nothing became free within {timeout} s")
        return waiter                   # served at the last moment


async def wait_in_task(Line line, double timeout):
    """The same for a task of asyncio. It finds LEFT in the waiter if its loop did not seem to hear, and did."""
    from asyncio import get_running_loop
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.loop = get_running_loop()
    waiter.future = waiter.loop.create_future()
    waiter.weak = ref(waiter.future)
    waiter.served = line.loops.get(waiter.loop)
    if waiter.served is None:
        waiter.served = line.loops.setdefault(waiter.loop, deque())
    line.join(waiter)
    timer = waiter.loop.call_later(timeout, _settle_in_order, waiter.served, waiter.future) if timeout >= 0 else None
    try:
        await waiter.future
    except BaseException:
        waiter.leave()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if waiter.leave():
        raise TimeoutError(f"nothing became free within {timeout} s")
    return waiter

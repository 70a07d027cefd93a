"""A fair line of threads and tasks that wait for things. See _waiting.pxd for how it is served."""
from _thread import TIMEOUT_MAX, allocate_lock
from collections import deque

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore, PyErr_SetInterrupt
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint64_t

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
        """What it was served, once."""
        cdef uint64_t got = load64(&self.got)
        cas64(&self.got, got, LEFT)
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

    cdef bint wake(self) noexcept:
        """False: its event loop is closed."""
        if self.lock is not None:
            self.lock.release()
            return True
        try:
            self.loop.call_soon_threadsafe(_settle, self.future)
        except RuntimeError:
            return False
        except KeyboardInterrupt:       # it may have come before anything was done
            if self.wake():
                PyErr_SetInterrupt()
                return True
            return False
        return True


def _settle(future):
    if not future.done():
        future.set_result(None)


cdef class Line:
    cdef void open(self, object owner, find_fn find, back_fn back):
        self.owner = <void*>owner
        self.find = find
        self.back = back
        self.waiters = deque()
        self.process = getpid()

    cdef void look_for_fork(self) noexcept:
        """In a child: those who waited have stayed behind."""
        cdef int process = getpid()
        if self.process != process:
            self.waiters.clear()
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

    cdef void serve(self) noexcept:
        """Hands out what can be found, as long as somebody waits."""
        cdef PyObject* kind
        cdef PyObject* error
        cdef PyObject* trace
        cdef void* item
        cdef uint64_t what
        PyErr_Fetch(&kind, &error, &trace)
        self.look_for_fork()
        while self.is_mine_to_serve():
            while not self.empty():
                item = NULL
                what = self.find(self.owner, &item)
                if what == NOTHING:
                    break
                if not self.hand(what, item):
                    self.back(self.owner, what, item)
            if cas64(&self.serving, 1, 0):
                break
            cas64(&self.serving, 2, 0)
        PyErr_Restore(kind, error, trace)

    cdef bint is_mine_to_serve(self) noexcept:
        """False: somebody else serves, and has been told to look once more."""
        while not cas64(&self.serving, 0, 1):
            if cas64(&self.serving, 1, 2) or cas64(&self.serving, 2, 2):
                return False
        return True

    cdef bint hand(self, uint64_t what, void* item) noexcept:
        """To the first in line who is still there. False: nobody was."""
        cdef Waiter waiter
        while True:
            try:
                waiter = <Waiter>self.waiters.popleft()
            except IndexError:
                return False
            add(&self.waiting, UINT64_MAX)
            waiter.item = item
            if cas64(&waiter.got, NOTHING, what):
                if waiter.wake():
                    return True
                store64(&waiter.got, LEFT)

    cdef void close(self) noexcept:
        """All who wait are told that there is nothing any more."""
        while self.hand(CLOSED_LINE, NULL):
            pass

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
    """The same for a task of asyncio."""
    from asyncio import get_running_loop
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.loop = get_running_loop()
    waiter.future = waiter.loop.create_future()
    line.join(waiter)
    timer = waiter.loop.call_later(timeout, _settle, waiter.future) if timeout >= 0 else None
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

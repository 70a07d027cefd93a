# A fair line of threads and tasks that wait for things: who came first is served first.
#
# The line knows nothing of the things. Whoever may have made one free calls `serve`, which asks `find` for things as long
# as somebody waits. Only one thread serves at a time and nobody waits for it: who finds it busy leaves a note that there
# is more to do. Whoever has been served is woken after that, since an event loop's code runs then, and with it anybody's
# finalizers, which may call anything here and wait. So a thread may be slow to tell an event loop of the task that it
# served; the loop lets tasks go on in the order in which they were served all the same, since the next call that reaches
# it brings the news of all who were served before.
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from deferpool._platform cimport cas64

cdef enum:                              # what a waiter has got
    NOTHING = 0
    ITEM = 1
    PERMIT = 2                          # to make an item
    CLOSED_LINE = 3                     # there will be none any more
    LEFT = 4                            # it has gone away

# A free thing for the first in line: ITEM or PERMIT, or NOTHING. And one back that nobody is there for.
ctypedef uint64_t (*find_fn)(void* owner, void** item) noexcept
ctypedef void (*back_fn)(void* owner, uint64_t what, void* item) noexcept

cdef void raise_error_later(error) noexcept            # where it cannot be raised, and must not be lost

cdef class Line:
    cdef find_fn find
    cdef back_fn back
    cdef void* owner
    cdef object waiters                 # a deque; each of its methods is one step
    cdef object loops                   # of tasks: for each event loop those who were served, until it has heard of them
    cdef uint64_t waiting               # how many are in it
    cdef uint64_t over                  # nothing will be served any more
    cdef uint64_t serving               # 1: somebody does; 2: and has to look once more when done
    cdef int process                    # whose threads these are
    cdef void open(self, object owner, find_fn find, back_fn back)
    cdef void serve(self) noexcept
    cdef void close(self) noexcept
    cdef void look_for_fork(self) noexcept
    cdef bint is_mine_to_serve(self) noexcept
    cdef Waiter hand(self, uint64_t what, void* item)
    cdef bint wake(self, Waiter first) noexcept
    cdef Waiter join(self, Waiter waiter)
    cdef Waiter wait(self, double timeout)

    cdef inline bint empty(self) noexcept:
        """Nobody waits; and whoever joins after this finds what this thread made free before it."""
        return cas64(&self.waiting, 0, 0)

cdef class Waiter:
    cdef uint64_t got
    cdef void* item
    cdef Line line
    cdef object owner                   # what `item` is to be given back to, should nobody take it
    cdef object lock                    # a thread's: held until it is woken
    cdef object loop, future            # a task's
    cdef object weak                    # to the future; made beforehand: whoever serves makes nothing that the collector knows
    cdef object served                  # its loop's deque of weak references to the futures of those it has yet to hear of
    cdef Waiter next                    # of those that have been served and are to be woken
    cdef bint leave(self) noexcept      # before it was served
    cdef uint64_t take(self, void** item) noexcept
    cdef bint wake(self, PyObject** error) noexcept

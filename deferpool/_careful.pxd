# What a pool's options ask for, beyond a section each for acquire and release. See _careful.pyx.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from deferpool._face cimport ItemPool
from deferpool._waiting cimport Line

cdef enum:                              # `how`: what a call has to do beyond its section
    CHECKS = 1
    RESETS = 2
    LIMITED = 4                         # max_live
    WATCHED = 8                         # debug
    CLOSED = 16
    ENDED = 32                          # its finalizer has run: the collector may be taking its functions apart

cdef class CarefulPool(ItemPool):
    cdef uint32_t place
    cdef uint32_t how
    cdef Line line                      # of those who wait; None without max_live
    cdef uint64_t existing              # objects that there are or that somebody may make; at most max_live
    cdef uint64_t most
    cdef set taken                      # addresses of what is out
    cdef dict made                      # with max_live: by address, weak references to what there is and can have one
    cdef PyObject* next_dead            # the next in line to be deallocated
    cdef readonly object new, reset, check, on_drop
    cdef object watch                   # None without debug
    cdef object drained                 # a lock, once somebody waits for what is out: released when nothing is

cdef PyObject* acquire_carefully(CarefulPool self, void* item, double timeout) except NULL
cdef int release_carefully(CarefulPool self, PyObject* thing) except -1
cdef int note_given(CarefulPool self, PyObject* thing) except -1
cdef void lose(CarefulPool self, void* item) noexcept
cdef void look_after(CarefulPool self) noexcept
cdef void mark(CarefulPool self, uint32_t bit) noexcept
cdef void shut(CarefulPool self) noexcept
cdef void report_lost(CarefulPool self) noexcept
cdef int64_t out(CarefulPool self) noexcept
cdef void tell_drained(CarefulPool self) noexcept

# What the engine asks of this face; and in its end, when there is nothing to be told any more.
cdef void* make_object(void* face, uint32_t cls) noexcept
cdef void drop_object(void* face, void* item, uint32_t cls) noexcept
cdef void forget(void* face, void* item, uint32_t cls) noexcept nogil
cdef int let_go(void* item, void* nothing) noexcept

# What the line of those who wait asks.
cdef uint64_t find_for_line(void* owner, void** item) noexcept
cdef void back_from_line(void* owner, uint64_t what, void* item) noexcept

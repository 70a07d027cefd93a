# Calls that run when their function ends: the records they wait in, and the functions that they wait for.
#
# A record is taken from a RecordPool by newdefer and goes back by freedefer, as in Go. It belongs to one activation
# of one function, and is touched by no other thread.
from cpython.object cimport PyObject

from deferpool._cpython cimport vectorcallfunc
from deferpool._frames cimport Frame

# One deferred call.
cdef struct Call:
    void* below                         # the Call before it; while it runs, the exception handled outside, borrowed
    PyObject* function                  # this and all below: owned
    PyObject* names                     # of the last arguments, a tuple, or NULL
    Py_ssize_t count                    # of all arguments; vectorcall may write here while it runs, and puts it back
    PyObject* arguments[1]

# One activation of a deferring function, from its beginning until its last deferred call has ended.
cdef struct Activation:
    Activation* outer                   # those that are on, or wait on, this thread's stack: a list, the newest first
    Activation* inner
    const void* frame                   # of the function, once it is known; when it has returned, this record itself
    const void* here                    # the frame in which its deferred calls run: the one below, or the generator's own
    PyObject* function                  # borrowed
    Call* last                          # the newest of its deferred calls
    Call* calling                       # the one that runs now
    PyObject* raised                    # the exception in flight, owned, or NULL
    PyObject* beneath                   # what it has replaced and recover must not stop: owned, or NULL
    PyObject* result                    # of the function: owned, or NULL

cdef Call* newdefer(Py_ssize_t count) noexcept
cdef void freedefer(Call* call) noexcept

# What else generators and coroutines need.
cdef void enter_here(Activation* a) noexcept
cdef void leave(Activation* a) noexcept
cdef PyObject* run(Activation* a, Call* call) noexcept
cdef PyObject* show_in_flight(Activation* a) noexcept
cdef void replace(Activation* a, PyObject* raised) noexcept
cdef PyObject* outcome(Activation* a) noexcept

# What recover needs, to see who calls it.
cdef Activation* newest() noexcept
cdef bint is_of(Activation* a, Frame* frame) noexcept
cdef const void* below(const Frame* frame) noexcept
cdef Frame* out_of_comprehensions(Frame* frame) noexcept
cdef bint is_exception(PyObject* raised) noexcept

cdef inline bint has_ended(Activation* a) noexcept:
    return a.frame == <const void*>a                        # no frame lies there

cdef class Deferring:
    cdef vectorcallfunc vectorcall
    cdef object function
    cdef object driver                  # of generators and coroutines: of _deferring.py, under the function's name
    cdef bint awaits                    # whether its deferred calls may give something to be awaited
    cdef bint steps                     # whether it gives an asynchronous generator
    cdef dict __dict__
    cdef object __weakref__

cpdef Deferring deferring_function(function)

# What a driver waits for: see _bodies.pyx.
from cpython.object cimport PyObject

from deferpool._defer cimport Activation, Call

# What send gives, PySendResult; what goes with it is in `result`.
cdef enum:
    RETURNED = 0
    FAILED = -1
    YIELDED = 1

cdef class Guard

cdef class Body:
    cdef Activation activation
    cdef object driven                  # that which runs, or None
    cdef object inner                   # the function's own, until it has ended
    cdef object function                # that of the activation
    cdef Call* current                  # a deferred call whose awaitable is being driven
    cdef bint awaits                    # whether what deferred calls give is awaited
    cdef bint steps                     # whether the function's own is an asynchronous generator, driven step by step
    cdef bint begun, running
    cdef bint dropped                   # and ends therefore, without its driver
    cdef object sent, thrown            # to an asynchronous generator, with its next step
    cdef bint hides                     # the collector sees the function's own as a part of this
    cdef object hook                    # of an asynchronous generator's event loop, which wants to close what is dropped
    cdef bint watched, offered          # that it is dropped is told to this; and to the loop
    cdef Guard guard
    cdef PyObject* next_dead            # the next in line to be deallocated
    cdef object beneath                 # the context of the GeneratorExit that it ended with when it was closed, or None
    cdef bint closed                    # the function has returned although it was closed
    cdef readonly object result         # what it gave then
    cdef readonly bint ended            # everything has run

# A finalizer runs once in an object's life; this one is a second.
cdef class Guard:
    cdef PyObject* body                 # borrowed
    cdef object nothing                 # what may refer to something, the collector finalizes before it clears

cdef bint is_driver(PyObject* code) noexcept
cdef int resume(Body body, PyObject* value, PyObject** result) noexcept
cdef bint take_step(Body body) noexcept
cdef int throw_into_driven(Body body, PyObject* error, PyObject** result) noexcept
cdef int go_on(Body body, int status, PyObject** result) noexcept
cdef int end_now(Body body, PyObject** result) noexcept
cdef const char* kind_of(Body body) noexcept
cdef PyObject* ask(PyObject* thing, name, PyObject* const* arguments, Py_ssize_t count) noexcept
cdef void watch(Body body) noexcept

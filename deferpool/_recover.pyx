"""recover: who calls it, and what it stops.

It serves the function whose deferred call has called it, which is seen by the frames: that of the deferred call lies on
the one in which the function's deferred calls run.
"""
from functools import partial
from types import FunctionType, MethodType

from cpython.object cimport PyObject

from deferpool._bodies cimport is_driver
from deferpool._cpython cimport (
    DECREF, INCREF, METH_FASTCALL, METH_KEYWORDS, NONE, XDECREF, PyMethodDef, PyTypeObject, TypeError_, builtin,
    complain,
)
from deferpool._defer cimport (
    Activation, Deferring, below, has_ended, is_exception, is_of, newest, out_of_comprehensions,
)
from deferpool._frames cimport Frame, code_at, frame_now

from deferpool._goexit import Goexit

cdef extern from "Python.h":
    bint is_instance "PyObject_TypeCheck"(PyObject*, PyTypeObject*) noexcept
    bint is_function "PyFunction_Check"(PyObject*) noexcept
    PyObject* function_code "PyFunction_GET_CODE"(PyObject*) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject*) noexcept
    PyObject* tuple_item "PyTuple_GET_ITEM"(PyObject*, Py_ssize_t) noexcept
    int compare "PyUnicode_CompareWithASCIIString"(PyObject*, const char*) noexcept
    PyObject* context_of "PyException_GetContext"(PyObject*) noexcept
    int CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR


# ---- who calls it ----------------------------------------------------------------------------------

cdef PyObject* code_of(PyObject* function) noexcept:
    """Borrowed: of the Python function that is run when this is called; NULL when it is none."""
    cdef object called = <object>function
    cdef int steps
    for steps in range(16):
        if type(called) is Deferring:
            called = (<Deferring>called).function
        elif type(called) is MethodType:
            called = called.__func__
        elif type(called) is partial:
            called = called.func
        elif is_function(<PyObject*>called):
            return function_code(<PyObject*>called)
        else:
            called = getattr(type(called), "__call__", None)
            if type(called) not in (FunctionType, Deferring, MethodType):
                return NULL
    return NULL


cdef bint runs(Activation* a, const void* here, PyObject* code) noexcept:
    """Whether the deferred call that `a` runs now is a function with this code, above this frame."""
    return a.calling != NULL and a.here == here and code_of(a.calling.function) == code


cdef bint is_driven(PyObject* code) noexcept:
    """Of a generator or coroutine, which is driven by another."""
    return bool((<object>code).co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR))


cdef const void* above_driver(const Frame* here) noexcept:
    """Where a generator or coroutine is resumed from; its driver lies between, unless that is being closed."""
    return below(here) if is_driver(code_at(here)) else <const void*>here


cdef Activation* deferred_by(Activation* a) noexcept:
    """The activation of which `a` is itself a deferred call; NULL when it is none."""
    cdef const void* here = a.here
    cdef PyObject* code = function_code(a.function)
    cdef Activation* by = a.outer
    if here != NULL and is_driven(code):
        here = above_driver(<const Frame*>here)
    while by != NULL and not runs(by, here, code):
        by = by.outer
    return by


cdef Activation* recovering(Frame* frame) noexcept:
    """Whose deferred call runs in the frame."""
    cdef const void* here = below(frame)
    cdef PyObject* code = code_at(frame)
    cdef Activation* a = newest()
    while a != NULL:
        if a.calling == NULL and not has_ended(a) and is_of(a, frame):
            return deferred_by(a)
        if runs(a, here, code):
            return a
        a = a.outer
    return NULL


cdef Activation* calling_recover() noexcept:
    """Of which recover is itself a deferred call that runs now; NULL when there is none."""
    cdef Activation* a = newest()
    while a != NULL and (a.calling == NULL or a.calling.function != recover_itself):
        a = a.outer
    return a


# ---- what it stops -----------------------------------------------------------------------------------------

cdef PyObject* stop(Activation* a, PyObject* returning) noexcept:
    """Stops the exception in flight, and gives it; None when there is none, or none that may be stopped."""
    cdef PyObject* raised = a.raised if a != NULL else NULL
    cdef PyObject* before
    if raised == NULL or not is_exception(raised):
        INCREF(NONE)
        return NONE
    a.raised = a.beneath if a.beneath != NULL else ended_thread(raised, <PyObject*>a.calling.below)
    a.beneath = NULL
    before = a.result
    INCREF(returning)
    a.result = returning
    XDECREF(before)
    return raised


cdef PyObject* ended_thread(PyObject* raised, PyObject* around) noexcept:
    """The Goexit that this exception came in place of, in a function further in: it goes on. Not one that was being
    handled already, around the function."""
    cdef PyObject* error = context_of(raised)
    cdef PyObject* further
    cdef int steps
    for steps in range(1000):
        if error == NULL or error == around:
            break
        if is_instance(error, <PyTypeObject*>Goexit_):
            return error
        further = context_of(error)
        DECREF(error)
        error = further
    XDECREF(error)
    return NULL


# ---- what users call ---------------------------------------------------------------------------------------

cdef bint wants(PyObject* names, Py_ssize_t positional, PyObject* const* arguments, PyObject** returning) noexcept:
    """The arguments of recover. False, and an exception, when they are others."""
    returning[0] = NONE
    if positional:
        complain(TypeError_, "recover() takes no positional arguments (%zd given)", positional)
        return False
    if names != NULL and tuple_size(names):
        if tuple_size(names) > 1 or compare(tuple_item(names, 0), "returning") != 0:
            complain(TypeError_, "recover() takes one keyword argument, 'returning', not %R", names)
            return False
        returning[0] = arguments[0]
    return True


cdef PyObject* call_recover(PyObject* module, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    cdef PyObject* returning
    cdef Frame* frame = frame_now()
    cdef Activation* a
    if not wants(names, count, arguments, &returning):
        return NULL
    a = calling_recover()
    if a != NULL:                       # it serves the function whose deferred call has deferred it
        a = deferred_by(a)
    elif frame != NULL:
        a = recovering(out_of_comprehensions(frame))
    return stop(a, returning)


cdef PyMethodDef recover_definition = PyMethodDef(
    ml_name=b"recover", ml_meth=<void*>call_recover, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""recover(*, returning=None)
--

In a deferred call: stops the exception that its function is ending with, and returns it.

The function then returns `returning`. Anywhere else, called by anything else, and when there is no exception or one that is
no Exception (KeyboardInterrupt, CancelledError, Goexit ...), it returns None and changes nothing.""")

recover = builtin(&recover_definition)
cdef PyObject* recover_itself = <PyObject*>recover
cdef PyObject* Goexit_ = <PyObject*>Goexit

"""Deferring generators and coroutines: how they are called, and how their drivers resume what they wait for.

Calling one gives another generator or coroutine, of a driver (_deferring.py), which waits for a Body. So this is all
that a Body is asked for: the methods of a generator.
"""
from inspect import CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from types import FunctionType

from cpython.object cimport PyObject

from deferpool._bodies cimport (
    FAILED, RETURNED, YIELDED, Body, ask, end_now, go_on, kind_of, resume, take_step, throw_into_driven, watch,
)
from deferpool._cpython cimport (
    DECREF, INCREF, METH_FASTCALL, METH_NOARGS, METH_O, NONE, XDECREF, XINCREF, PyMethodDef, PyTypeObject,
    RuntimeError_, TypeError_, add_method, complain, new_of, put_raised, take_raised, type_of, vectorcall,
)
from deferpool._defer cimport Deferring, deferring_function
from deferpool._frames cimport frame_of_generator

cdef extern from "coroutines.h":
    void stop_with "dp_stop_with"(PyObject* value) noexcept

cdef extern from "interpreter.h":
    bint hide_from_collector "dp_hide_from_collector"(PyObject*) noexcept

cdef extern from "Python.h":
    PyObject* GeneratorExit_ "PyExc_GeneratorExit"
    PyObject* ValueError_ "PyExc_ValueError"
    bint matches "PyErr_ExceptionMatches"(PyObject*) noexcept
    bint is_generator "PyGen_CheckExact"(PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    bint is_asynchronous_generator "PyAsyncGen_CheckExact"(PyObject*) noexcept
    bint is_exception_class "PyExceptionClass_Check"(PyObject*) noexcept
    bint is_exception_instance "PyExceptionInstance_Check"(PyObject*) noexcept
    bint is_traceback "PyTraceBack_Check"(PyObject*) noexcept
    int set_traceback "PyException_SetTraceback"(PyObject*, PyObject*) noexcept
    PyObject* context_of "PyException_GetContext"(PyObject*) noexcept
    void restore "PyErr_Restore"(PyObject*, PyObject*, PyObject*) noexcept


# ---- calling one ------------------------------------------------------------------------------------------------

def make(function, driver):
    """A deferring function of one that gives what the driver, a function, gives."""
    cdef Deferring made = deferring_function(function)
    flags = function.__code__.co_flags
    made.vectorcall = call_generator
    made.driver = FunctionType(driver.__code__, driver.__globals__, function.__name__)
    made.driver.__qualname__ = function.__qualname__
    made.awaits = not flags & CO_GENERATOR or flags & CO_ITERABLE_COROUTINE
    made.steps = not flags & (CO_GENERATOR | CO_COROUTINE)
    return made


cdef PyObject* call_generator(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names) noexcept:
    """The driver's is made first, so that the collector ends it first."""
    cdef Deferring deferring = <Deferring>self
    cdef PyObject* given[1]
    cdef PyObject* inner
    cdef PyObject* driving = NULL
    given[0] = new_body(deferring)
    if given[0] == NULL:
        return NULL
    driving = vectorcall(<PyObject*>deferring.driver, given, 1, NULL)
    inner = vectorcall(<PyObject*>deferring.function, arguments, count, names) if driving != NULL else NULL
    if inner != NULL and not is_of_its_kind(deferring, inner):
        complain(TypeError_, "%R gives %.200s: its code has been replaced", <PyObject*>deferring, type_of(inner).tp_name)
        DECREF(inner)
        inner = NULL
    if inner == NULL:
        if driving != NULL:
            give_up(driving)
    else:
        fill(<Body>given[0], inner)
        DECREF(inner)
    DECREF(given[0])
    return driving if inner != NULL else NULL


cdef bint is_of_its_kind(Deferring deferring, PyObject* inner) noexcept:
    if deferring.steps:
        return is_asynchronous_generator(inner)
    return is_generator(inner) or (deferring.awaits and is_coroutine(inner))


cdef PyObject* new_body(Deferring deferring) noexcept:
    cdef PyObject* made = new_of(<PyTypeObject*>Body)
    cdef Body body
    if made == NULL:
        return NULL
    body = <Body>made
    body.function = deferring.function
    body.awaits = deferring.awaits
    body.steps = deferring.steps
    return made


cdef void fill(Body body, PyObject* inner) noexcept:
    body.activation.frame = <const void*>frame_of_generator(inner)
    body.activation.function = <PyObject*>body.function
    body.inner = <object>inner
    body.hides = hide_from_collector(inner)
    if not body.steps:
        body.driven = <object>inner


cdef void give_up(PyObject* driving) noexcept:
    """It will not be begun, which is no reason for a coroutine to complain. Keeps the error."""
    cdef PyObject* error = take_raised()
    cdef PyObject* done
    if is_coroutine(driving):
        done = ask(driving, "close", NULL, 0)
        XDECREF(done)
    DECREF(driving)
    put_raised(error)


# ---- send, throw and close --------------------------------------------------------------------------------------

cdef bint may_go_on(Body body) noexcept:
    if not body.running:
        return True
    complain(ValueError_, "%s already executing", kind_of(body))
    return False


cdef int send_body(PyObject* self, PyObject* value, PyObject** result) noexcept:
    cdef Body body = <Body>self
    cdef int status = FAILED
    result[0] = NULL
    if not may_go_on(body):
        return FAILED
    if body.ended and body.steps:       # while it was dropped, and somebody has kept its driver
        INCREF(NONE)
        result[0] = NONE
        return RETURNED
    if body.driven is None and (body.inner is None or not body.steps):
        complain(RuntimeError_, "nothing is driven here")
        return FAILED
    if body.steps and not body.begun:
        watch(body)
    body.begun = body.running = True
    if body.driven is not None or take_step(body):
        status = resume(body, value, result)
    status = go_on(body, status, result)
    body.running = False
    return status


cdef PyObject* next_body(PyObject* self) noexcept:
    return sent(self, NONE)


cdef PyObject* sent(PyObject* self, PyObject* value) noexcept:
    cdef PyObject* result
    cdef int status = send_body(self, value, &result)
    return as_iterators_say(status, result)


cdef PyObject* as_iterators_say(int status, PyObject* result) noexcept:
    """What is returned is the value of a StopIteration."""
    if status == RETURNED:
        stop_with(result)
    return result if status == YIELDED else NULL


cdef PyObject* throw_into_body(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept:
    cdef Body body = <Body>self
    cdef PyObject* result = NULL
    cdef PyObject* error
    cdef int status
    if not may_go_on(body):
        return NULL
    throw_here(arguments, count)
    if body.driven is None:
        return NULL
    error = take_raised()
    body.running = True
    status = throw_into_driven(body, error, &result)
    DECREF(error)
    status = go_on(body, status, &result)
    body.running = False
    return as_iterators_say(status, result)


cdef void throw_here(PyObject* const* arguments, Py_ssize_t count) noexcept:
    """Raises it: an exception, or a class, what to make one with, and a traceback. Or says why that cannot be."""
    cdef PyObject* kind = arguments[0] if count else NONE
    cdef PyObject* value = arguments[1] if count > 1 and arguments[1] != NONE else NULL
    cdef PyObject* trace = arguments[2] if count > 2 and arguments[2] != NONE else NULL
    if trace != NULL and not is_traceback(trace):
        complain(TypeError_, "throw() third argument must be a traceback object")
    elif is_exception_instance(kind) and value == NULL:
        INCREF(kind)
        if trace != NULL:
            set_traceback(kind, trace)
        put_raised(kind)
    elif is_exception_class(kind):
        INCREF(kind)
        XINCREF(value)
        XINCREF(trace)
        restore(kind, value, trace)
        put_raised(take_raised())       # made now, as Python makes it
    elif is_exception_instance(kind):
        complain(TypeError_, "instance exception may not have a separate value")
    else:
        complain(TypeError_, "exceptions must be classes or instances deriving from BaseException, not %.100s",
                 type_of(kind).tp_name)


cdef PyObject* close_body(PyObject* self, PyObject* nothing) noexcept:
    """The driver is being closed, and will get a GeneratorExit after this."""
    cdef PyObject* exit
    cdef PyObject* context
    cdef Body body = <Body>self
    cdef PyObject* result = NULL
    if body.running and body.dropped:   # what it has let go of had its driver, which ends too
        INCREF(NONE)
        return NONE
    if not may_go_on(body):
        return NULL
    if body.driven is not None:
        if end_now(body, &result) == RETURNED:
            body.closed = True
            body.result = <object>result
            DECREF(result)
        elif not matches(GeneratorExit_):
            return NULL
        else:
            exit = take_raised()
            context = context_of(exit)
            if context != NULL:
                body.beneath = <object>context
                DECREF(context)
            DECREF(exit)
    INCREF(NONE)
    return NONE


cdef PyMethodDef next_definition = PyMethodDef(ml_name=b"__next__", ml_meth=<void*>next_method, ml_flags=METH_NOARGS,
                                               ml_doc=NULL)
cdef PyMethodDef send_definition = PyMethodDef(ml_name=b"send", ml_meth=<void*>sent, ml_flags=METH_O, ml_doc=NULL)
cdef PyMethodDef throw_definition = PyMethodDef(ml_name=b"throw", ml_meth=<void*>throw_into_body,
                                                ml_flags=METH_FASTCALL, ml_doc=NULL)
cdef PyMethodDef close_definition = PyMethodDef(ml_name=b"close", ml_meth=<void*>close_body, ml_flags=METH_NOARGS,
                                                ml_doc=NULL)


cdef PyObject* next_method(PyObject* self, PyObject* nothing) noexcept:
    return sent(self, NONE)


cdef void equip() except *:
    """Body is resumed without a StopIteration."""
    cdef PyTypeObject* kind = <PyTypeObject*>Body
    kind.tp_iternext = next_body
    kind.tp_as_async.am_send = send_body
    add_method(kind, &next_definition)
    add_method(kind, &send_definition)
    add_method(kind, &throw_definition)
    add_method(kind, &close_definition)

equip()

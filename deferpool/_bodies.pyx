"""Generators and coroutines that defer: they stop in the middle, and go on somewhere else.

Calling one gives another generator or coroutine, of a driver (_deferring.py), which waits for a Body: that drives the
function's own and then, one after the other, what the deferred calls give to be awaited. Its activation is on the
thread's list only while one of them runs, on whichever thread that is.
"""
from inspect import CO_ITERABLE_COROUTINE
from types import FunctionType, GeneratorType

cimport cython
from cpython.object cimport PyObject

from deferpool._cpython cimport (
    DECREF, INCREF, METH_FASTCALL, METH_NOARGS, METH_O, NONE, XDECREF, PyErr_SetObject, PyMethodDef, PyTypeObject,
    RuntimeError_, add_method, call_none, call_one, inquiry, put_raised, swap_handled, take_raised, traverseproc, type_of,
    visitproc,
)
from deferpool._defer cimport (
    Activation, Call, Deferring, deferring_function, enter_here, freedefer, has_ended, leave, outcome, refuse, replace, run,
)

cdef extern from "frames.h":
    ctypedef struct Frame "dp_frame":
        pass
    Frame* frame_of_generator "dp_frame_of_generator"(PyObject* generator) noexcept
    PyObject* vectorcall "dp_call"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept

cdef extern from "Python.h":
    PyObject* StopIteration_ "PyExc_StopIteration"
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    int send "PyIter_Send"(PyObject*, PyObject*, PyObject**) noexcept
    void PyErr_NoMemory() noexcept
    void PyErr_Clear() noexcept

cdef enum:
    RETURNED = 0                        # what send gives, PySendResult
    FAILED = -1
    YIELDED = 1


# ---- calling one ------------------------------------------------------------------------------------------------

def make(function, driver, bint awaits):
    """A deferring function of one that gives a generator or the like.

    Parameters:
        driver: the function whose generator drives it.
        awaits: whether what deferred calls give is awaited.
    """
    cdef Deferring made = deferring_function(function)
    made.vectorcall = call_generator
    made.driver = FunctionType(driver.__code__, driver.__globals__, function.__name__)
    made.driver.__qualname__ = function.__qualname__
    made.awaits = awaits
    return made


cdef PyObject* call_generator(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names) noexcept:
    cdef Deferring deferring = <Deferring>self
    cdef PyObject* given[1]
    cdef PyObject* result
    cdef PyObject* inner = vectorcall(<PyObject*>deferring.function, arguments, count, names)
    if inner == NULL:
        return NULL
    given[0] = new_body(inner, deferring)
    DECREF(inner)
    if given[0] == NULL:
        return NULL
    result = vectorcall(<PyObject*>deferring.driver, given, 1, NULL)
    DECREF(given[0])
    return result


cdef PyObject* new_body(PyObject* inner, Deferring deferring) noexcept:
    cdef Body body
    try:
        body = Body.__new__(Body)
    except MemoryError:
        PyErr_NoMemory()
        return NULL
    body.activation.frame = <const void*>frame_of_generator(inner)
    body.driven = <object>inner
    body.inner = <object>inner
    body.activation.function = <PyObject*>deferring.function
    body.function = deferring.function
    body.awaits = deferring.awaits
    INCREF(<PyObject*>body)
    return <PyObject*>body


# ---- what drivers wait for --------------------------------------------------------------------------------------

@cython.final
cdef class Body:
    """First its function's own generator or coroutine, then awaitables that were deferred."""
    cdef Activation activation
    cdef object driven                  # that which runs, or None
    cdef object inner
    cdef object function                # that of the activation
    cdef Call* current                  # a deferred call whose awaitable is being driven
    cdef bint awaits
    cdef bint finishes

    def __iter__(self):
        return self

    def __next__(self):                 # for its slot: the function there is replaced below
        raise StopIteration

    def __await__(self):
        return self

    def __init__(self):
        raise TypeError("made by deferring generators and coroutines only")

    def __del__(self):
        if self.inner is not None and is_coroutine(<PyObject*>self.inner) and not has_ended(&self.activation):
            self.inner.close()          # it never began, and has no need to say so: its driver does

    def __dealloc__(self):
        drop_all(self)

    @property
    def pending(self):
        """Whether there are deferred calls."""
        return self.activation.last != NULL

    @property
    def generator(self):
        """The function's own."""
        return self.inner

    def step(self, awaitable):
        """To be awaited next: one step of the function's own asynchronous generator."""
        self.driven = awaitable
        return self

    def returned(self, result):
        """The function has ended, and given this."""
        cdef PyObject* before = self.activation.result
        self.end()
        INCREF(<PyObject*>result)
        self.activation.result = <PyObject*>result
        XDECREF(before)

    def raised(self):
        """The function, or a deferred call, has raised what is being handled."""
        cdef PyObject* error = swap_handled(NULL)
        if error == NULL:
            raise RuntimeError("nothing has been raised")
        self.end()
        self.settle()
        drop_line(<object>error)
        INCREF(error)
        XDECREF(swap_handled(error))
        replace(&self.activation, error)

    cdef void end(self) noexcept:
        self.activation.frame = &self.activation
        self.inner = None
        self.driven = None

    cdef void settle(self) noexcept:
        cdef Call* call = self.current
        self.current = NULL
        self.activation.calling = NULL
        self.driven = None
        if call != NULL:
            freedefer(call)

    def call(self):
        """Runs the newest deferred call. True when it gave something to be awaited."""
        cdef Activation* a = &self.activation
        cdef Call* call
        cdef PyObject* result
        self.settle()
        call = a.last
        if call == NULL:
            return False
        a.last = call.below
        enter_here(a)
        result = run(a, call)
        leave(a)
        self.current = call             # only now may the collector read it: vectorcall had written over its count
        if result != NULL and self.awaits:
            result = awaited(self, result)
        if result == NULL:
            replace(a, take_raised())
        else:
            DECREF(result)
        if self.driven is None:
            self.settle()
            return False
        if a.raised != NULL:            # what is awaited sees it, too
            INCREF(a.raised)
        XDECREF(swap_handled(a.raised))
        return True

    def finish(self):
        """To be awaited last: gives what the function gives in the end."""
        self.settle()
        self.finishes = True
        return self


cdef PyObject* awaited(Body body, PyObject* result) noexcept:
    """Takes what is to be awaited as the next to be driven. NULL, and an exception, when it cannot be."""
    cdef PyTypeObject* kind = type_of(result)
    cdef PyObject* iterator
    if is_coroutine(result):
        body.driven = <object>result
    elif is_iterable_coroutine(<object>result):
        body.driven = <object>result
    elif kind.tp_as_async != NULL and kind.tp_as_async.am_await != NULL:
        iterator = (<PyObject* (*)(PyObject*) noexcept>kind.tp_as_async.am_await)(result)
        DECREF(result)
        if iterator == NULL:
            return NULL
        body.driven = <object>iterator
        return iterator
    return result


cdef bint is_iterable_coroutine(thing) noexcept:
    return type(thing) is GeneratorType and bool(thing.gi_code.co_flags & CO_ITERABLE_COROUTINE)


cdef int send_body(PyObject* self, PyObject* value, PyObject** result) noexcept:
    cdef Body body = <Body>self
    cdef Activation* a = &body.activation
    cdef int status
    cdef PyObject* driven
    if body.finishes:
        XDECREF(swap_handled(NULL))
        result[0] = outcome(a)
        return FAILED if result[0] == NULL else RETURNED
    if body.driven is None:
        result[0] = NULL
        refuse(RuntimeError_, "nothing is driven here")
        return FAILED
    driven = <PyObject*>body.driven
    INCREF(driven)
    enter_here(a)
    status = send(driven, value, result)
    leave(a)
    DECREF(driven)
    return status


cdef PyObject* next_body(PyObject* self) noexcept:
    return sent(self, NONE)


cdef PyObject* sent(PyObject* self, PyObject* value) noexcept:
    """The same as iterators say it: what is returned is the value of a StopIteration."""
    cdef PyObject* result
    cdef PyObject* ending
    cdef int status = send_body(self, value, &result)
    if status == RETURNED:
        ending = call_one(StopIteration_, result)
        DECREF(result)
        if ending != NULL:
            PyErr_SetObject(StopIteration_, ending)
            DECREF(ending)
        return NULL
    return result if status == YIELDED else NULL


cdef PyObject* throw_into_body(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept:
    return ask(<Body>self, "throw", arguments, count)


cdef PyObject* close_body(PyObject* self, PyObject* nothing) noexcept:
    return ask(<Body>self, "close", NULL, 0)


cdef PyObject* ask(Body body, name, PyObject* const* arguments, Py_ssize_t count) noexcept:
    """throw and close, of what is driven."""
    cdef Activation* a = &body.activation
    cdef PyObject* driven = <PyObject*>body.driven
    cdef PyObject* method
    cdef PyObject* result
    method = attribute(driven, <PyObject*>name)
    if method == NULL:
        PyErr_Clear()
        if count == 0:
            INCREF(NONE)
            return NONE
        return throw_here(arguments, count)
    INCREF(driven)
    enter_here(a)
    result = vectorcall(method, arguments, <size_t>count, NULL)
    leave(a)
    DECREF(driven)
    DECREF(method)
    return result


cdef PyObject* throw_here(PyObject* const* arguments, Py_ssize_t count) noexcept:
    """For an iterator without throw: the exception comes from here."""
    cdef PyObject* error = arguments[0]
    if isinstance(<object>error, BaseException):
        INCREF(error)
    else:
        error = call_none(error) if count < 2 or arguments[1] == NONE else call_one(error, arguments[1])
        if error == NULL:
            return NULL
    put_raised(error)
    return NULL


# ---- what the collector must see of a Body, beside its objects --------------------------------------------------

cdef int visit_call(Call* call, visitproc visit, void* arg) noexcept:
    cdef Py_ssize_t i
    cdef int found = visit(call.function, arg)
    for i in range(call.count):
        if found:
            break
        found = visit(call.arguments[i], arg)
    return found


cdef int traverse_body(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef Activation* a = &(<Body>self).activation
    cdef Call* call = a.last
    cdef int found = 0
    while call != NULL and not found:
        found = visit_call(call, visit, arg)
        call = call.below
    if not found and (<Body>self).current != NULL:
        found = visit_call((<Body>self).current, visit, arg)
    if a.raised != NULL and not found:
        found = visit(a.raised, arg)
    if a.beneath != NULL and not found:
        found = visit(a.beneath, arg)
    if a.result != NULL and not found:
        found = visit(a.result, arg)
    return found if found else traverse_objects(self, visit, arg)


cdef int clear_body(PyObject* self) noexcept:
    drop_all(<Body>self)
    return clear_objects(self)


cdef void drop_all(Body body) noexcept:
    cdef Activation* a = &body.activation
    cdef Call* call
    cdef PyObject* held
    body.settle()
    while a.last != NULL:
        call = a.last
        a.last = call.below
        freedefer(call)
    held = a.raised
    a.raised = NULL
    XDECREF(held)
    held = a.beneath
    a.beneath = NULL
    XDECREF(held)
    held = a.result
    a.result = NULL
    XDECREF(held)


# ---- tracebacks ---------------------------------------------------------------------------------------------------

cdef object driver_codes = ()

def drivers(*functions):
    """Whose lines are hidden from tracebacks."""
    global driver_codes
    driver_codes = tuple(function.__code__ for function in functions)


cdef void drop_line(error) noexcept:
    """Of the driver, which is the newest in the traceback."""
    cdef object line = error.__traceback__
    if line is not None and line.tb_frame.f_code in driver_codes:
        error.__traceback__ = line.tb_next


def hide():
    """Takes the driver's own line out of the traceback of what is being handled."""
    cdef PyObject* error = swap_handled(NULL)
    if error != NULL:
        drop_line(<object>error)
        XDECREF(swap_handled(error))


# ---- what a class statement cannot say ----------------------------------------------------------------------------

cdef traverseproc traverse_objects
cdef inquiry clear_objects

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
    global traverse_objects, clear_objects
    cdef PyTypeObject* kind = <PyTypeObject*>Body
    traverse_objects = kind.tp_traverse
    clear_objects = kind.tp_clear
    kind.tp_traverse = traverse_body
    kind.tp_clear = clear_body
    kind.tp_iternext = next_body
    kind.tp_as_async.am_send = send_body
    add_method(kind, &next_definition)
    add_method(kind, &send_definition)
    add_method(kind, &throw_definition)
    add_method(kind, &close_definition)

equip()

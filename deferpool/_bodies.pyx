"""Generators and coroutines that defer: they stop in the middle, and go on somewhere else.

Calling one gives another generator or coroutine, of a driver (_deferring.py), which waits for a Body: that drives the
function's own and then, one after the other, what the deferred calls give to be awaited. Its activation is on the
thread's list only while one of them runs, on whichever thread that is. All of this happens in here, where no signal's
handler can come in between and make an end of the driver.
"""
from inspect import CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from types import FunctionType

cimport cython
from cpython.object cimport PyObject

from deferpool._cpython cimport (
    DECREF, INCREF, METH_FASTCALL, METH_NOARGS, METH_O, NONE, XDECREF, XINCREF, PyErr_SetObject, PyMethodDef, PyTypeObject,
    RuntimeError_, TypeError_, add_method, call_none, inquiry, put_raised, swap_handled, take_raised,
    traverseproc, type_of, visitproc,
)
from deferpool._defer cimport (
    Activation, Call, Deferring, deferring_function, enter_here, freedefer, is_driver, leave, outcome, refuse,
    replace, run, show_in_flight,
)

cdef extern from "coroutines.h":
    bint can_be_awaited "dp_can_be_awaited"(PyObject*) noexcept
    PyObject* iterator_of "dp_iterator_of"(PyObject* awaitable) noexcept
    void stop_with "dp_stop_with"(PyObject* value) noexcept
    int thrown_outcome "dp_thrown_outcome"(PyObject** outcome) noexcept
    void stop_is_error "dp_no_stop"(PyObject* kind, const char* said) noexcept

cdef extern from "frames.h":
    ctypedef struct Hooks "dp_hooks":
        pass
    void without_hooks "dp_without_hooks"(Hooks*, PyObject*) noexcept
    void with_hooks "dp_with_hooks"(const Hooks*) noexcept
    void close_when_dropped "dp_close_when_dropped"(PyObject*) noexcept
    bint hide_from_collector "dp_hide_from_collector"(PyObject*) noexcept
    traverseproc traverse_of "dp_traverse_of"(PyObject*) noexcept
    ctypedef struct Frame "dp_frame":
        pass
    PyObject* code_of_line "dp_line_code"(PyObject* traceback) noexcept
    PyObject* lines_after "dp_lines_after"(PyObject* traceback) noexcept
    Frame* frame_of_generator "dp_frame_of_generator"(PyObject* generator) noexcept
    PyObject* handled "dp_handled"() noexcept
    PyObject* vectorcall "dp_call"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept

cdef extern from "Python.h":
    PyObject* StopIteration_ "PyExc_StopIteration"
    PyObject* StopAsyncIteration_ "PyExc_StopAsyncIteration"
    PyObject* GeneratorExit_ "PyExc_GeneratorExit"
    PyObject* AttributeError_ "PyExc_AttributeError"
    PyObject* ValueError_ "PyExc_ValueError"
    bint matches "PyErr_ExceptionMatches"(PyObject*) noexcept
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    bint is_exception_class "PyExceptionClass_Check"(PyObject*) noexcept
    bint is_exception_instance "PyExceptionInstance_Check"(PyObject*) noexcept
    int send "PyIter_Send"(PyObject*, PyObject*, PyObject**) noexcept
    PyObject* traceback_of "PyException_GetTraceback"(PyObject*) noexcept
    int set_traceback "PyException_SetTraceback"(PyObject*, PyObject*) noexcept
    bint is_traceback "PyTraceBack_Check"(PyObject*) noexcept
    void restore "PyErr_Restore"(PyObject*, PyObject*, PyObject*) noexcept
    void complain "PyErr_Format"(PyObject*, const char*, ...) noexcept
    void write_unraisable "PyErr_WriteUnraisable"(PyObject*) noexcept
    Py_ssize_t count_of_references "Py_REFCNT"(PyObject*) noexcept
    void set_context "PyException_SetContext"(PyObject*, PyObject*) noexcept
    void PyErr_NoMemory() noexcept
    void PyErr_Clear() noexcept

cdef enum:
    RETURNED = 0                        # what send gives, PySendResult
    FAILED = -1
    YIELDED = 1


cdef object does_nothing = id


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
    if inner == NULL:
        if driving != NULL:
            give_up(driving)
    else:
        fill(<Body>given[0], inner)
        DECREF(inner)
    DECREF(given[0])
    return driving if inner != NULL else NULL


cdef PyObject* new_body(Deferring deferring) noexcept:
    cdef Body body
    try:
        body = Body.__new__(Body)
    except MemoryError:
        PyErr_NoMemory()
        return NULL
    body.function = deferring.function
    body.awaits = deferring.awaits
    body.steps = deferring.steps
    INCREF(<PyObject*>body)
    return <PyObject*>body


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


cdef PyObject* ask(PyObject* thing, name, PyObject* const* arguments, Py_ssize_t count) noexcept:
    """Calls a method."""
    cdef PyObject* method = attribute(thing, <PyObject*>name)
    cdef PyObject* result
    if method == NULL:
        return NULL
    result = vectorcall(method, arguments, <size_t>count, NULL)
    DECREF(method)
    return result


# ---- what drivers wait for --------------------------------------------------------------------------------------

@cython.final
cdef class Body:
    """First its function's own generator or coroutine, then awaitables that were deferred."""
    cdef Activation activation
    cdef object driven                  # that which runs, or None
    cdef object inner                   # the function's own, until it has ended
    cdef object function                # that of the activation
    cdef Call* current                  # a deferred call whose awaitable is being driven
    cdef bint awaits                    # whether what deferred calls give is awaited
    cdef bint steps                     # whether the function's own is an asynchronous generator, driven step by step
    cdef bint begun, running
    cdef object sent, thrown            # to an asynchronous generator, with its next step
    cdef bint hides                     # the collector sees the function's own as a part of this
    cdef bint closed                    # the function has returned although it was closed
    cdef readonly object result         # what it gave then
    cdef readonly bint ended            # everything has run

    def __iter__(self):
        return self

    def __next__(self):                 # for its slot: the function there is replaced below
        raise StopIteration

    def __await__(self):
        return self

    def __init__(self):
        raise TypeError("made by deferring generators and coroutines only")

    def __del__(self):
        if not self.begun and self.inner is not None and is_coroutine(<PyObject*>self.inner):
            self.inner.close()          # it never began, and has no need to say so: its driver does

    def __dealloc__(self):
        if self.begun and not self.ended:
            end_dropped(self)
        drop_all(self)

    def gives(self, sent):
        """What the next step of an asynchronous generator is to be given."""
        self.sent = sent

    # These two are properties because Python looks for signals after each call, and not after these.

    @property
    def takes(self):
        """What has been thrown into the driver of an asynchronous generator, whose next step is to be given it. False when
        that has ended, and the driver is to go on with it."""
        cdef PyObject* error = without_line()
        if self.ended or self.running or error == NULL:
            return False
        self.thrown = <object>error
        return True

    @property
    def returned(self):
        """Whether the function was closed and has returned in spite of it: `result`. If not, the driver goes on with its
        exception."""
        without_line()
        return self.closed

    cdef void end(self) noexcept:
        self.activation.frame = &self.activation
        if self.steps and self.inner is not None:
            close_when_dropped(<PyObject*>self.inner)
        self.inner = None
        self.driven = None

    cdef void settle(self) noexcept:
        cdef Call* call = self.current
        self.current = NULL
        self.activation.calling = NULL
        self.driven = None
        if call != NULL:
            freedefer(call)


# ---- going on ---------------------------------------------------------------------------------------------------
#
# Like send, each of these gives a status, and what goes with it in `result`.

cdef int resume(Body body, PyObject* value, PyObject** result) noexcept:
    """What is driven, by a value."""
    cdef PyObject* driven = <PyObject*>body.driven
    cdef PyObject* before = NULL
    cdef bint shown
    cdef int status
    INCREF(driven)
    shown = begin(body, &before)
    status = send(driven, value, result)
    pause(body, shown, before)
    DECREF(driven)
    return status


cdef bint begin(Body body, PyObject** before) noexcept:
    """What is driven runs from here to pause. Whether it is what a deferred call gave, and sees an exception in flight."""
    cdef bint shown = body.current != NULL and body.activation.raised != NULL
    enter_here(&body.activation)
    if shown:
        before[0] = show_in_flight(&body.activation)
    return shown


cdef void pause(Body body, bint shown, PyObject* before) noexcept:
    if shown:
        XDECREF(swap_handled(before))
    leave(&body.activation)


cdef int go_on(Body body, int status, PyObject** result) noexcept:
    """After what was driven has yielded, or ended, with this."""
    cdef Activation* a = &body.activation
    if status == YIELDED:
        return YIELDED
    if body.inner is None:
        note(body, status, result[0])
    elif body.steps and status == RETURNED:     # a step: the function has yielded this
        body.driven = None
        return RETURNED
    else:
        if status == RETURNED:
            a.result = result[0]
        elif body.steps and matches(StopAsyncIteration_):
            PyErr_Clear()
        else:
            a.raised = take_raised()
        body.end()
    return run_deferred(body, result)


cdef void note(Body body, int status, PyObject* result) noexcept:
    """What a deferred call has given, or what it gave to be awaited."""
    cdef PyObject* raised = take_raised() if status == FAILED else NULL
    body.settle()
    if status == FAILED:
        replace(&body.activation, raised)
    else:
        DECREF(result)


cdef int run_deferred(Body body, PyObject** result) noexcept:
    """All that is left, up to what must wait."""
    cdef Activation* a = &body.activation
    cdef Call* call
    cdef int status
    while a.last != NULL:
        call = a.last
        a.last = <Call*>call.below
        enter_here(a)
        result[0] = run(a, call)
        leave(a)
        body.current = call             # only now may the collector read it: vectorcall had written over its count
        a.calling = call
        status = FAILED if result[0] == NULL else RETURNED
        if status == RETURNED and body.awaits and can_be_awaited(result[0]):
            status = await_it(body, result)
            if status == YIELDED:
                return YIELDED
        note(body, status, result[0])
    body.ended = True
    result[0] = outcome(a)
    if result[0] != NULL:
        return RETURNED
    no_stop(body)
    return FAILED


cdef int await_it(Body body, PyObject** result) noexcept:
    """What a deferred call has given is the next to be driven."""
    cdef PyObject* before = NULL
    cdef bint shown = begin(body, &before)
    cdef PyObject* iterator = iterator_of(result[0])    # takes it over
    pause(body, shown, before)
    result[0] = NULL
    if iterator == NULL:
        return FAILED
    body.driven = <object>iterator
    DECREF(iterator)
    return resume(body, NONE, result)


cdef void no_stop(Body body) noexcept:
    """Nothing that tells the end of a generator leaves one as an exception."""
    if body.steps:
        stop_is_error(StopIteration_, b"async generator raised StopIteration")
        stop_is_error(StopAsyncIteration_, b"async generator raised StopAsyncIteration")
    elif body.awaits:
        stop_is_error(StopIteration_, b"coroutine raised StopIteration")
    else:
        stop_is_error(StopIteration_, b"generator raised StopIteration")


cdef const char* kind_of(Body body) noexcept:
    return b"async generator" if body.steps else b"coroutine" if body.awaits else b"generator"


cdef bint may_go_on(Body body) noexcept:
    if not body.running:
        return True
    complain(ValueError_, "%s already executing", kind_of(body))
    return False


# ---- send, throw and close --------------------------------------------------------------------------------------

cdef int send_body(PyObject* self, PyObject* value, PyObject** result) noexcept:
    cdef Body body = <Body>self
    cdef int status = FAILED
    result[0] = NULL
    if not may_go_on(body):
        return FAILED
    if body.driven is None and (body.inner is None or not body.steps):
        refuse(RuntimeError_, "nothing is driven here")
        return FAILED
    body.begun = body.running = True
    if body.driven is not None or take_step(body):
        status = resume(body, value, result)
    status = go_on(body, status, result)
    body.running = False
    return status


cdef bint take_step(Body body) noexcept:
    """The next one of an asynchronous generator is driven. False, and an exception, when it takes none."""
    cdef PyObject* given[1]
    cdef PyObject* step
    cdef Hooks hooks
    thrown, sent = body.thrown, body.sent
    body.thrown = body.sent = None
    given[0] = <PyObject*>(sent if thrown is None else thrown)
    without_hooks(&hooks, <PyObject*>does_nothing)     # the loop is told of the driver's, and the driver ends this one
    step = ask(<PyObject*>body.inner, "asend" if thrown is None else "athrow", given, 1)
    with_hooks(&hooks)
    if step == NULL:
        return False
    body.driven = <object>step
    DECREF(step)
    return True


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


cdef int throw_into_driven(Body body, PyObject* error, PyObject** result) noexcept:
    cdef PyObject* driven = <PyObject*>body.driven
    cdef PyObject* before = NULL
    cdef PyObject* method
    cdef bint shown
    cdef int status
    INCREF(driven)
    shown = begin(body, &before)
    method = attribute(driven, <PyObject*>"throw")
    if method != NULL:
        result[0] = vectorcall(method, &error, 1, NULL)
        DECREF(method)
    elif matches(AttributeError_):
        PyErr_Clear()
        INCREF(error)
        put_raised(error)
    status = thrown_outcome(result) if method != NULL else FAILED
    if status == FAILED:
        chain(body)
    pause(body, shown, before)
    DECREF(driven)
    return status


cdef void chain(Body body) noexcept:
    """What was thrown into what a deferred call gave has the exception in flight as its context."""
    cdef PyObject* raised
    if body.current != NULL and body.activation.raised != NULL:
        raised = take_raised()
        PyErr_SetObject(<PyObject*>type_of(raised), raised)
        DECREF(raised)


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
    cdef Body body = <Body>self
    cdef PyObject* result = NULL
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
            PyErr_Clear()
    INCREF(NONE)
    return NONE


cdef void end_dropped(Body body) noexcept:
    """Its driver has ended without it: an exception came where Python code cannot be without any."""
    cdef PyObject* result = NULL
    if end_now(body, &result) == RETURNED:
        DECREF(result)
    elif matches(GeneratorExit_):
        PyErr_Clear()
    else:
        write_unraisable(<PyObject*>body.function)


cdef int end_now(Body body, PyObject** result) noexcept:
    """By a GeneratorExit; and all that is left runs."""
    cdef PyObject* exit = new_exit()
    cdef int status = FAILED
    if exit == NULL:
        exit = take_raised()            # for want of memory by that
    body.running = True
    if body.driven is None:
        body.thrown = <object>exit
        if take_step(body):
            status = resume(body, NONE, result)
    elif body.inner is not None:
        status = throw_into_driven(body, exit, result)
    else:
        status = close_driven(body, exit)
    DECREF(exit)
    status = go_on(body, status, result)
    while not body.ended:               # somebody goes on in spite of it
        DECREF(result[0])
        complain(RuntimeError_, "%s ignored GeneratorExit", kind_of(body))
        status = go_on(body, FAILED, result)
    body.running = False
    return status


cdef PyObject* new_exit() noexcept:
    """A GeneratorExit, with what the caller handles as its context. NULL, and an exception, when there is no memory."""
    cdef PyObject* around = handled()
    cdef PyObject* exit = call_none(GeneratorExit_)
    if exit == NULL:
        XDECREF(around)
    elif around != NULL:
        set_context(exit, around)
    return exit


cdef int close_driven(Body body, PyObject* exit) noexcept:
    """What a deferred call gave to be awaited is closed, and whoever awaits it gets the GeneratorExit. FAILED."""
    cdef PyObject* driven = <PyObject*>body.driven
    cdef PyObject* before = NULL
    cdef PyObject* close
    cdef PyObject* done = NULL
    cdef bint shown
    INCREF(driven)
    shown = begin(body, &before)
    close = attribute(driven, <PyObject*>"close")
    if close != NULL:
        done = call_none(close)
        DECREF(close)
    if done != NULL or (close == NULL and matches(AttributeError_)):
        PyErr_Clear()
        XDECREF(done)
        INCREF(exit)
        put_raised(exit)
    chain(body)
    pause(body, shown, before)
    DECREF(driven)
    return FAILED


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
        call = <Call*>call.below
    if not found and (<Body>self).current != NULL:
        found = visit_call((<Body>self).current, visit, arg)
    if a.raised != NULL and not found:
        found = visit(a.raised, arg)
    if a.beneath != NULL and not found:
        found = visit(a.beneath, arg)
    if a.result != NULL and not found:
        found = visit(a.result, arg)
    if not found and (<Body>self).hides and (<Body>self).inner is not None:
        found = visit_hidden(<Body>self, visit, arg)
    return found if found else traverse_objects(self, visit, arg)


cdef int visit_hidden(Body body, visitproc visit, void* arg) noexcept:
    """What the function's own refers to, if nobody else has that."""
    cdef PyObject* inner = <PyObject*>body.inner
    cdef Py_ssize_t own = 1 + (<PyObject*>body.driven == inner) + (body.steps and body.driven is not None)
    return traverse_of(inner)(inner, visit, arg) if count_of_references(inner) <= own else 0


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
        a.last = <Call*>call.below
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

cdef PyObject* without_line() noexcept:
    """What is being handled, borrowed, or NULL; the driver's own line, the newest in its traceback, is gone from that."""
    cdef PyObject* error = swap_handled(NULL)
    cdef PyObject* line
    cdef PyObject* rest
    if error == NULL:
        return NULL
    line = traceback_of(error)
    if line != NULL:
        if is_traceback(line) and is_driver(code_of_line(line)):
            rest = lines_after(line)
            set_traceback(error, rest if rest != NULL else NONE)
        DECREF(line)
    XDECREF(swap_handled(error))        # up to Python 3.10 with its traceback
    return error


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

"""defer and recover: calls that run when their function ends, last in, first out.

A deferring function is called through an object that notes an Activation, calls it, and then runs what it has deferred.
`defer` finds the activation of the function that calls it by that function's frame; `recover` finds the one whose
deferred call it is called by, by the frame below. What user code calls is written as the interpreter's own functions
are, for speed, and so that no line of this file shows up in a traceback.
"""
from functools import partial, update_wrapper
from inspect import CO_ITERABLE_COROUTINE
from sys import modules
from types import FunctionType, GeneratorType, MethodType

cimport cython
from cpython.object cimport PyObject

from deferpool._cpython cimport (
    DECREF, INCREF, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, METH_O, NONE, XDECREF, PyMethodDef, PyTypeObject,
    add_method, inquiry, make_immortal, traverseproc, visitproc,
)
from deferpool.records cimport RecordPool

cdef extern from "frames.h":
    """
    #if defined(_MSC_VER)
    static __declspec(thread) void *dp_innermost;
    static __declspec(thread) PyThreadState *dp_thread;
    #elif defined(__GLIBC__)
    static __thread void *dp_innermost __attribute__((tls_model("initial-exec")));
    static __thread PyThreadState *dp_thread __attribute__((tls_model("initial-exec")));
    #else
    static __thread void *dp_innermost;
    static __thread PyThreadState *dp_thread;
    #endif
    """
    Activation* innermost "dp_innermost"    # of this thread
    ctypedef struct PyThreadState:
        pass
    PyThreadState* thread "dp_thread"       # of the interpreter's, where there is an innermost one
    PyThreadState* this_thread "PyThreadState_GET"() noexcept
    Frame* frame_of_thread "dp_frame_of_thread"(PyThreadState*) noexcept
    bint is_callable "dp_is_callable"(PyObject*) noexcept
    PyObject* vectorcall "dp_call"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    PyObject* function_vectorcall "dp_call_function"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    ctypedef struct Frame "dp_frame":
        pass
    Frame* frame_now "dp_frame_now"() noexcept
    Frame* frame_below "dp_frame_below"(const Frame*) noexcept
    PyObject* code_at "dp_frame_code"(const Frame*) noexcept
    bint frame_is_of "dp_frame_is_of"(const Frame*, PyObject* function) noexcept
    Frame* frame_of_generator "dp_frame_of_generator"(PyObject* generator) noexcept
    PyObject* take_raised "dp_take_raised"() noexcept
    void put_raised "dp_raise"(PyObject* exception) noexcept
    PyObject* swap_handled "dp_swap_handled"(PyObject* exception) noexcept

cdef extern from "Python.h":
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    const size_t HAVE_VECTORCALL "Py_TPFLAGS_HAVE_VECTORCALL"
    const size_t METHOD_DESCRIPTOR "Py_TPFLAGS_METHOD_DESCRIPTOR"
    const size_t OFFSET "PY_VECTORCALL_ARGUMENTS_OFFSET"
    PyObject* TypeError_ "PyExc_TypeError"
    PyObject* RuntimeError_ "PyExc_RuntimeError"
    PyObject* Exception_ "PyExc_Exception"
    PyObject* StopIteration_ "PyExc_StopIteration"
    PyTypeObject* type_of "Py_TYPE"(PyObject*) noexcept
    PyObject* call_vectorcall "PyVectorcall_Call"(PyObject*, PyObject*, PyObject*) noexcept
    PyObject* call_none "PyObject_CallNoArgs"(PyObject*) noexcept
    PyObject* call_one "PyObject_CallOneArg"(PyObject*, PyObject*) noexcept
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    bint is_function "PyFunction_Check"(PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    bint is_instance "PyObject_TypeCheck"(PyObject*, PyTypeObject*) noexcept
    PyObject* function_code "PyFunction_GET_CODE"(PyObject*) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject*) noexcept
    PyObject* tuple_item "PyTuple_GET_ITEM"(PyObject*, Py_ssize_t) noexcept
    int send "PyIter_Send"(PyObject*, PyObject*, PyObject**) noexcept
    PyObject* new_cfunction "PyCFunction_NewEx"(PyMethodDef*, PyObject*, PyObject*) noexcept
    object bound "PyMethod_New"(object, object)
    void PyErr_NoMemory() noexcept
    void PyErr_SetObject(PyObject*, PyObject*) noexcept
    void PyErr_Clear() noexcept

cdef enum:
    RETURNED = 0                        # what send gives, PySendResult
    FAILED = -1
    YIELDED = 1


# ---- records ------------------------------------------------------------------------------------------------

cdef enum: WITHOUT_ARGUMENTS = 4 * sizeof(void*)

CALL_SIZES = tuple(WITHOUT_ARGUMENTS + 16 * i for i in range(5))         # up to 0, 2, 4, 6, 8 arguments
ACTIVATION_SIZE = sizeof(Activation)
cdef RecordPool calls = RecordPool(CALL_SIZES)
cdef RecordPool activations = RecordPool([ACTIVATION_SIZE])
cdef RecordPool own_calls, own_activations


def size_of_call(Py_ssize_t arguments):
    return WITHOUT_ARGUMENTS + arguments * sizeof(void*)


def take_records_from(RecordPool of_calls=None, RecordPool of_activations=None):
    """For stress: new records are of these pools; without any, of the library's own again. No deferring function may run."""
    global calls, activations
    calls = of_calls or own_calls
    activations = of_activations or own_activations


cdef inline Call* newdefer(Py_ssize_t count) noexcept:
    """A record for a call with so many arguments; NULL, and no exception, when there is no memory."""
    return <Call*>calls.new(WITHOUT_ARGUMENTS + <size_t>count * sizeof(void*))


cdef inline void freedefer(Call* call) noexcept:
    """Drops what the call refers to and gives the record back."""
    cdef Py_ssize_t i
    for i in range(call.count):
        DECREF(call.arguments[i])
    DECREF(call.function)
    XDECREF(call.names)
    calls.free(call)


# ---- activations --------------------------------------------------------------------------------------------

cdef inline void enter(Activation* a) noexcept:
    global innermost
    cdef Activation* outer = innermost
    a.outer = outer
    a.inner = NULL
    if outer != NULL:
        outer.inner = a
    innermost = a


cdef inline void leave(Activation* a) noexcept:
    """Mostly the innermost one; a greenlet's may end in any order."""
    global innermost
    if a.outer != NULL:
        a.outer.inner = a.inner
    if a.inner != NULL:
        a.inner.outer = a.outer
    else:
        innermost = a.outer


cdef inline bint has_ended(Activation* a) noexcept:
    return a.frame == <const void*>a                        # no frame lies there


cdef const void* bottom() noexcept:
    """What stands for a frame where there is none below: without greenlets one is enough, NULL."""
    cdef PyObject* current
    if "greenlet" not in modules:
        return NULL
    try:
        now = modules["greenlet"].getcurrent()
    except BaseException:               # it is just being imported
        return NULL
    return <const void*><PyObject*>now  # it lives: it runs


cdef inline const void* below(const Frame* frame) noexcept:
    cdef const void* found = <const void*>frame_below(frame)
    return found if found != NULL else bottom()


cdef bint is_of(Activation* a, Frame* frame) noexcept:
    """Whether this is the activation of the function that runs in the frame."""
    if a.frame != NULL:
        return a.frame == <const void*>frame
    return frame_is_of(frame, a.function) and below(frame) == a.here


cdef Activation* activation_of(Frame* frame) noexcept:
    """Of the function that runs in the frame, which is marked as its own; NULL when that is not a deferring one."""
    cdef Activation* a = innermost
    while a != NULL:
        if is_of(a, frame):
            a.frame = frame
            return a
        a = a.outer
    return NULL


# ---- ending -------------------------------------------------------------------------------------------------

cdef bint is_exception(PyObject* raised) noexcept:
    return is_instance(raised, <PyTypeObject*>Exception_)


cdef void replace(Activation* a, PyObject* raised) noexcept:
    """Takes over an exception that replaces what is in flight. What recover must not stop is kept beneath it."""
    cdef PyObject* before = a.raised
    a.raised = raised
    if before == NULL:
        return
    if before != raised and a.beneath == NULL and not is_exception(before) and is_exception(raised):
        a.beneath = before
    else:
        DECREF(before)
    if a.beneath != NULL and not is_exception(raised):
        before = a.beneath
        a.beneath = NULL
        DECREF(before)


cdef PyObject* run(Activation* a, Call* call) noexcept:
    """One deferred call, which sees the exception in flight as a finally clause does. NULL: it has raised."""
    cdef PyObject* result
    cdef PyObject* before
    if call.function == recover_itself:
        return recover_as_deferred(a, call)
    a.calling = call.function
    if a.raised == NULL:
        result = vectorcall(call.function, call.arguments, keyword_free(call) | OFFSET, call.names)
    else:
        INCREF(a.raised)
        before = swap_handled(a.raised)
        result = vectorcall(call.function, call.arguments, keyword_free(call) | OFFSET, call.names)
        XDECREF(swap_handled(before))
    return result


cdef inline size_t keyword_free(Call* call) noexcept:
    return <size_t>(call.count - (tuple_size(call.names) if call.names != NULL else 0))


cdef PyObject* unwind(Activation* a, PyObject* result) noexcept:
    """All that has been deferred, after the function has given this; then what it gives in the end."""
    cdef Call* call
    if result == NULL:
        a.raised = take_raised()
    a.result = result
    a.frame = a                         # it has ended: another function's frame may lie there next
    while a.last != NULL:
        call = a.last
        a.last = call.below
        result = run(a, call)
        a.calling = NULL
        if result == NULL:
            replace(a, take_raised())
        else:
            DECREF(result)
        freedefer(call)
    return outcome(a)


cdef PyObject* outcome(Activation* a) noexcept:
    cdef PyObject* result = a.result
    cdef PyObject* raised = a.raised
    cdef PyObject* beneath = a.beneath
    a.result = NULL
    a.raised = NULL
    a.beneath = NULL
    XDECREF(beneath)
    if raised != NULL:
        XDECREF(result)
        put_raised(raised)
        return NULL
    if result == NULL:
        INCREF(NONE)
        return NONE
    return result


# ---- recover: who calls it ----------------------------------------------------------------------------------

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
            if type(called) is not FunctionType and type(called) is not Deferring:
                return NULL
    return NULL


cdef bint runs(Activation* a, const void* here, PyObject* code) noexcept:
    """Whether the deferred call that `a` runs now is a function with this code, above this frame."""
    return a.calling != NULL and a.here == here and code_of(a.calling) == code


cdef Activation* deferred_by(Activation* a) noexcept:
    """The activation of which `a` is itself a deferred call; NULL when it is none."""
    cdef const void* here = a.here
    cdef PyObject* code
    cdef Activation* by = a.outer
    if a.function != NULL:
        code = function_code(a.function)
    else:                               # a generator's own frame lies between
        here = below(<const Frame*>here)
        code = (<Body>body_of(a)).code
    while by != NULL and not runs(by, here, code):
        by = by.outer
    return by


cdef Activation* recovering(Frame* frame) noexcept:
    """Whose deferred call runs in the frame."""
    cdef const void* here = below(frame)
    cdef PyObject* code = code_at(frame)
    cdef Activation* a = innermost
    while a != NULL:
        if a.calling == NULL and not has_ended(a) and is_of(a, frame):
            return deferred_by(a)
        if runs(a, here, code):
            return a
        a = a.outer
    return NULL


cdef PyObject* stop(Activation* a, PyObject* returning) noexcept:
    """Stops the exception in flight, and gives it; None when there is none, or none that may be stopped."""
    cdef PyObject* raised = a.raised if a != NULL else NULL
    cdef PyObject* before
    if raised == NULL or not is_exception(raised):
        INCREF(NONE)
        return NONE
    a.raised = a.beneath if a.beneath != NULL else ended_thread(raised)
    a.beneath = NULL
    before = a.result
    INCREF(returning)
    a.result = returning
    XDECREF(before)
    return raised


cdef PyObject* ended_thread(PyObject* raised) noexcept:
    """The Goexit that this exception came in place of, in a function further in: it goes on."""
    cdef object error = (<object>raised).__context__
    cdef int steps
    for steps in range(1000):
        if error is None:
            return NULL
        if isinstance(error, Goexit):
            INCREF(<PyObject*>error)
            return <PyObject*>error
        error = error.__context__
    return NULL


cdef bint wants(PyObject* names, Py_ssize_t positional, PyObject* const* arguments, PyObject** returning) noexcept:
    """The arguments of recover. False, and an exception, when they are others."""
    returning[0] = NONE
    if positional:
        refuse(TypeError_, f"recover() takes no positional arguments ({positional} given)")
        return False
    if names != NULL and tuple_size(names):
        if tuple_size(names) > 1 or <object>tuple_item(names, 0) != "returning":
            refuse(TypeError_, f"recover() takes one keyword argument, 'returning', not {', '.join(<object>names)}")
            return False
        returning[0] = arguments[0]
    return True


# ---- what users call ----------------------------------------------------------------------------------------

cdef PyObject* refuse(PyObject* kind, text) noexcept:
    PyErr_SetObject(kind, <PyObject*>text)
    return NULL


cdef PyObject* call_defer(PyObject* module, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    cdef Activation* a = innermost
    cdef Call* call
    cdef Py_ssize_t i
    if a == NULL or a.frame != <const void*>frame_of_thread(thread):
        a = find(frame_now())
        if a == NULL:
            return NULL
    if count < 1:
        return refuse(TypeError_, "defer() needs a callable, and then its arguments")
    if not is_callable(arguments[0]):
        return refuse(TypeError_, f"defer() needs a callable, not {type(<object>arguments[0]).__name__}")
    if names != NULL:
        count += tuple_size(names)
    call = newdefer(count - 1)
    if call == NULL:
        PyErr_NoMemory()
        return NULL
    for i in range(1, count):
        INCREF(arguments[i])
        call.arguments[i - 1] = arguments[i]
    if names != NULL:
        INCREF(names)
        call.names = names
    call.count = count - 1
    INCREF(arguments[0])
    call.function = arguments[0]
    call.below = a.last
    a.last = call
    INCREF(arguments[0])
    return arguments[0]


cdef Activation* find(Frame* frame) noexcept:
    """The slow way: at a function's first defer. NULL, and an exception, in a function that is not deferring."""
    cdef Activation* a
    if frame != NULL:
        a = activation_of(frame)
        if a == NULL and (<object>code_at(frame)).co_name in ("<listcomp>", "<setcomp>", "<dictcomp>"):
            frame = frame_below(frame)          # up to Python 3.11 a comprehension is a function of its own
            a = activation_of(frame)
        if a != NULL:
            return a
        refuse(RuntimeError_, f"defer() in {qualified_name(<object>code_at(frame))}, which is not @deferring")
    else:
        refuse(RuntimeError_, "defer() outside of any Python function")
    return NULL


cdef object qualified_name(object code):
    return f"{getattr(code, 'co_qualname', code.co_name)}()" if code.co_name != "<module>" else "a module"


cdef PyObject* call_recover(PyObject* module, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    cdef PyObject* returning
    cdef Frame* frame = frame_now()
    if not wants(names, count, arguments, &returning):
        return NULL
    return stop(recovering(frame) if frame != NULL else NULL, returning)


cdef PyObject* recover_as_deferred(Activation* a, Call* call) noexcept:
    """recover is itself the deferred call: it serves the function whose deferred call has deferred it."""
    cdef PyObject* returning
    if not wants(call.names, <Py_ssize_t>keyword_free(call), call.arguments, &returning):
        return NULL
    return stop(deferred_by(a), returning)


cdef PyObject* call_goexit(PyObject* module, PyObject* nothing) noexcept:
    cdef PyObject* ending = call_none(<PyObject*>Goexit)
    if ending != NULL:
        PyErr_SetObject(<PyObject*>type_of(ending), ending)
        DECREF(ending)
    return NULL


# ---- deferring functions ------------------------------------------------------------------------------------

cdef PyObject* call_function(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names) noexcept:
    cdef PyObject* function = <PyObject*>(<Deferring>self).function
    cdef PyObject* result
    cdef Activation* a = <Activation*>activations.new(sizeof(Activation))
    if a == NULL:
        PyErr_NoMemory()
        return NULL
    global thread
    thread = this_thread()
    a.function = function
    a.here = <const void*>frame_of_thread(thread)
    if a.here == NULL:
        a.here = bottom()
    enter(a)
    result = function_vectorcall(function, arguments, count, names)
    if a.last != NULL:
        result = unwind(a, result)
    leave(a)
    activations.free(a)
    return result


cdef PyObject* call_generator(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names) noexcept:
    """For generators and coroutines: another one, which drives the function's own and then what that has deferred."""
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
    body.code = function_code(<PyObject*>deferring.function)
    body.awaits = deferring.awaits
    INCREF(<PyObject*>body)
    return <PyObject*>body


@cython.final
cdef class Deferring:
    """What @deferring makes of a function: called like it, and with its names, signature and attributes."""
    cdef vectorcallfunc vectorcall
    cdef object function
    cdef object driver                  # of generators and coroutines: _drivers.py, under the function's name
    cdef bint awaits
    cdef dict __dict__
    cdef object __weakref__

    def __init__(self):
        raise TypeError("deferring functions are made by @deferring")

    def __get__(self, instance, owner):
        return self if instance is None else bound(self, instance)

    def __getattr__(self, name):
        return getattr(self.function, name)

    @property
    def __class__(self):
        return FunctionType             # so inspect, and whoever asks for a function, gets the answers of one

    def __repr__(self):
        return f"<deferring function {self.__qualname__} at {<size_t><PyObject*>self:#x}>"

    def __reduce__(self):
        return self.__qualname__        # as functions are pickled: by name


cdef object deferring_function(function, driver, awaits):
    cdef Deferring made = Deferring.__new__(Deferring)
    made.vectorcall = call_function if driver is None else call_generator
    made.function = function
    made.awaits = awaits
    if driver is not None:
        made.driver = FunctionType(driver.__code__, driver.__globals__, function.__name__)
        made.driver.__qualname__ = function.__qualname__
    update_wrapper(made, function)
    if function.__closure__ is None and "<locals>" not in function.__qualname__:
        make_immortal(<PyObject*>made)  # as free-threaded Python 3.13 does with such functions themselves
    return made


def make(function, driver=None, awaits=False):
    """A deferring function. driver: the generator function, or the like, that drives what this one returns."""
    return deferring_function(function, driver, awaits)


# ---- generators and coroutines --------------------------------------------------------------------------------

@cython.final
cdef class Body:
    """What a driver waits for: first its function's own generator or coroutine, then awaitables that were deferred.

    Its activation is on the thread's list only while one of them runs, on whichever thread that is.
    """
    cdef Activation activation
    cdef object driven                  # that which runs, or None
    cdef object inner
    cdef PyObject* code                 # borrowed from the function
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
        a.here = <const void*>frame_now()
        enter(a)
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
    elif kind.tp_as_async != NULL and kind.tp_as_async.am_await != NULL or is_iterable_coroutine(<object>result):
        if is_iterable_coroutine(<object>result):
            body.driven = <object>result
            return result
        iterator = (<PyObject* (*)(PyObject*) noexcept>kind.tp_as_async.am_await)(result)
        DECREF(result)
        if iterator == NULL:
            return NULL
        body.driven = <object>iterator
        return iterator
    return result


cdef bint is_iterable_coroutine(thing) noexcept:
    return type(thing) is GeneratorType and bool(thing.gi_code.co_flags & CO_ITERABLE_COROUTINE)


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
    global thread
    thread = this_thread()
    a.here = <const void*>frame_of_thread(thread)
    enter(a)
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
    global thread
    thread = this_thread()
    a.here = <const void*>frame_of_thread(thread)
    enter(a)
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


# ---- types and functions that the class statements above cannot say --------------------------------------------

cdef traverseproc traverse_objects
cdef inquiry clear_objects
cdef ptrdiff_t body_offset
cdef PyObject* recover_itself           # what users see of it

cdef PyObject* body_of(Activation* a) noexcept:
    return <PyObject*>(<char*>a - body_offset)


cdef PyMethodDef defer_definition = PyMethodDef(
    ml_name=b"defer", ml_meth=<void*>call_defer, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""defer($module, function, /, *args, **kwargs)
--

Calls function(*args, **kwargs) when the function that says so ends, and returns function: so it decorates, too.

The arguments are evaluated now. Deferred calls run last in, first out, however the function ends; one that raises does
not stop the others. In a coroutine one that gives an awaitable is awaited.

Raises RuntimeError in a function that is not @deferring, TypeError for what is not callable, MemoryError. Each thread,
coroutine and greenlet has its own deferred calls.""")

cdef PyMethodDef recover_definition = PyMethodDef(
    ml_name=b"recover", ml_meth=<void*>call_recover, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""recover($module, /, *, returning=None)
--

In a deferred call: stops the exception that its function is ending with, and returns it.

The function then returns `returning`. Anywhere else, called by anything else, and when there is no exception or one that is
no Exception (KeyboardInterrupt, CancelledError, Goexit ...), it returns None and changes nothing.""")

cdef PyMethodDef goexit_definition = PyMethodDef(
    ml_name=b"goexit", ml_meth=<void*>call_goexit, ml_flags=METH_NOARGS,
    ml_doc=b"""goexit($module, /)
--

Ends the thread: raises Goexit, which runs the deferred calls of every function and cannot be recovered.""")

cdef PyMethodDef next_definition = PyMethodDef(ml_name=b"__next__", ml_meth=<void*>next_method, ml_flags=METH_NOARGS,
                                               ml_doc=NULL)
cdef PyMethodDef send_definition = PyMethodDef(ml_name=b"send", ml_meth=<void*>sent, ml_flags=METH_O, ml_doc=NULL)
cdef PyMethodDef throw_definition = PyMethodDef(ml_name=b"throw", ml_meth=<void*>throw_into_body,
                                                ml_flags=METH_FASTCALL, ml_doc=NULL)
cdef PyMethodDef close_definition = PyMethodDef(ml_name=b"close", ml_meth=<void*>close_body, ml_flags=METH_NOARGS,
                                                ml_doc=NULL)
cdef PyMethodDef call_definition = PyMethodDef(ml_name=b"__call__", ml_meth=<void*>call_method,
                                               ml_flags=METH_FASTCALL | METH_KEYWORDS, ml_doc=NULL)


cdef PyObject* next_method(PyObject* self, PyObject* nothing) noexcept:
    return sent(self, NONE)


cdef PyObject* call_method(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    return (<Deferring>self).vectorcall(self, arguments, <size_t>count, names)


cdef object builtin(PyMethodDef* definition):
    cdef object name = "deferpool"
    cdef PyObject* made = new_cfunction(definition, NULL, <PyObject*>name)
    if made == NULL:
        raise MemoryError
    make_immortal(made)
    result = <object>made
    DECREF(made)
    return result


cdef void equip() except *:
    """Deferring is called as vectorcall does it, Body is resumed without a StopIteration."""
    global traverse_objects, clear_objects, body_offset
    cdef PyTypeObject* kind = <PyTypeObject*>Deferring
    cdef Deferring one = Deferring.__new__(Deferring)
    cdef Body body = Body.__new__(Body)
    kind.tp_vectorcall_offset = <char*>&one.vectorcall - <char*><PyObject*>one
    kind.tp_call = call_vectorcall
    kind.tp_flags |= HAVE_VECTORCALL | METHOD_DESCRIPTOR
    add_method(kind, &call_definition)
    kind = <PyTypeObject*>Body
    body_offset = <char*>&body.activation - <char*><PyObject*>body
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


class Goexit(BaseException):
    """Ends a thread, and runs the deferred calls of every function on the way. recover does not stop it.

    A threading.Thread that ends with it does so silently.
    """

    def __init__(self, *args):
        BaseException.__init__(self, *args)
        silence_threads()


def silence_threads():
    """threading's hook for uncaught exceptions is one, for all threads, and says nothing of a SystemExit only."""
    import threading

    before = threading.excepthook
    if getattr(before, "without_goexit", False):
        return

    def excepthook(args, /):
        if not issubclass(args.exc_type, Goexit):
            before(args)

    excepthook.without_goexit = True
    threading.excepthook = excepthook


equip()
own_calls = calls
own_activations = activations
make_immortal(<PyObject*>calls)
make_immortal(<PyObject*>activations)
defer = builtin(&defer_definition)
recover = builtin(&recover_definition)
goexit = builtin(&goexit_definition)
recover_itself = <PyObject*>recover

"""defer: calls that run when their function ends, last in, first out.

A deferring function is called through an object that notes an Activation, calls it, and then runs what it has deferred.
`defer` finds the activation of the function that calls it by that function's frame; `recover` finds the one whose
deferred call it is called by, by the frame below. What user code calls is written as the interpreter's own functions
are, for speed, and so that no line of this file shows up in a traceback.
"""
from functools import update_wrapper
from sys import modules
from types import FunctionType

cimport cython
from cpython.object cimport PyObject

from deferpool._cpython cimport (
    DECREF, HAVE_VECTORCALL, INCREF, METH_FASTCALL, METH_KEYWORDS, METHOD_DESCRIPTOR, NONE, XDECREF, PyErr_NoMemory,
    PyMethodDef, PyTypeObject, RuntimeError_, TypeError_, add_method, builtin, call_none, complain, handled, is_callable,
    make_immortal, put_raised, swap_handled, take_raised, type_of, vectorcall,
)
from deferpool._frames cimport (
    Frame, PyThreadState, code_at, frame_below, frame_is_of, frame_now, frame_of_thread, name_of_code, this_thread,
)
from deferpool.records cimport RecordPool

cdef extern from "interpreter.h":
    """
    static DP_OF_THREAD void *dp_innermost;
    static DP_OF_THREAD PyThreadState *dp_thread;
    """
    Activation* innermost "dp_innermost"    # of this thread
    PyThreadState* thread "dp_thread"       # of the interpreter's, where there is an innermost one
    PyObject* call_function_itself "dp_call_function"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept

cdef extern from "Python.h":
    const size_t OFFSET "PY_VECTORCALL_ARGUMENTS_OFFSET"
    PyObject* Exception_ "PyExc_Exception"
    PyObject* call_vectorcall "PyVectorcall_Call"(PyObject*, PyObject*, PyObject*) noexcept
    bint is_instance "PyObject_TypeCheck"(PyObject*, PyTypeObject*) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject*) noexcept
    PyObject* get_item "PyDict_GetItem"(PyObject*, PyObject*) noexcept
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    void PyErr_Clear() noexcept
    int compare "PyUnicode_CompareWithASCIIString"(PyObject*, const char*) noexcept
    object bound "PyMethod_New"(object, object)
    int PyObject_GenericSetAttr(object, object, object) except -1


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


cdef void leave(Activation* a) noexcept:
    """Mostly the innermost one; a greenlet's may end in any order."""
    global innermost
    if a.outer != NULL:
        a.outer.inner = a.inner
    if a.inner != NULL:
        a.inner.outer = a.outer
    else:
        innermost = a.outer


cdef Activation* newest() noexcept:
    return innermost


cdef void enter_here(Activation* a) noexcept:
    """Of a function that has a frame of its own, and is about to be resumed, or its deferred calls are."""
    global thread
    thread = this_thread()
    a.here = <const void*>frame_of_thread(thread)
    enter(a)


cdef const void* bottom() noexcept:
    """What stands for a frame where there is none below: without greenlets one is enough, NULL."""
    cdef PyObject* greenlet = get_item(<PyObject*>modules, <PyObject*>"greenlet")
    cdef PyObject* getcurrent
    cdef PyObject* now = NULL
    if greenlet == NULL:
        return NULL
    getcurrent = attribute(greenlet, <PyObject*>"getcurrent")
    if getcurrent != NULL:
        now = call_none(getcurrent)
        DECREF(getcurrent)
    if now == NULL:                     # it is just being imported
        PyErr_Clear()
        return NULL
    DECREF(now)                         # it lives: it runs
    return <const void*>now


cdef const void* below(const Frame* frame) noexcept:
    cdef const void* found = <const void*>frame_below(frame)
    return found if found != NULL else bottom()


cdef bint is_of(Activation* a, Frame* frame) noexcept:
    """Whether this is the activation of the function that runs in the frame."""
    if a.frame != NULL:
        return a.frame == <const void*>frame
    if not frame_is_of(frame, a.function):
        return False
    return below(frame) == a.here or (a.here == NULL and frame_below(frame) == NULL)   # greenlets have come meanwhile


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
    a.calling = call
    if a.raised == NULL:
        result = vectorcall(call.function, call.arguments, keyword_free(call) | OFFSET, call.names)
    else:
        before = show_in_flight(a)
        result = vectorcall(call.function, call.arguments, keyword_free(call) | OFFSET, call.names)
        XDECREF(swap_handled(before))
    return result


cdef PyObject* show_in_flight(Activation* a) noexcept:
    """sys.exc_info() shows the exception in flight until what this gives is swapped in again."""
    cdef PyObject* before
    cdef PyObject* around
    INCREF(a.raised)
    before = swap_handled(a.raised)
    around = before if before != NULL else handled_further_out()
    a.calling.below = <void*>around     # whoever handles it does so meanwhile
    return before


cdef PyObject* handled_further_out() noexcept:
    """Borrowed."""
    cdef PyObject* found = handled()
    XDECREF(found)
    return found


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
        a.last = <Call*>call.below
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


# ---- what users call ----------------------------------------------------------------------------------------

cdef PyObject* call_defer(PyObject* module, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    cdef Activation* a = innermost
    cdef Call* call
    cdef Py_ssize_t i
    if a == NULL or a.frame != <const void*>frame_of_thread(thread):
        a = find(frame_now())
        if a == NULL:
            return NULL
    if count < 1:
        return complain(TypeError_, "defer() needs a callable, and then its arguments")
    if not is_callable(arguments[0]):
        return complain(TypeError_, "defer() needs a callable, not %.200s", type_of(arguments[0]).tp_name)
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
    call.below = <void*>a.last
    a.last = call
    INCREF(arguments[0])
    return arguments[0]


cdef Activation* find(Frame* frame) noexcept:
    """The slow way: at a function's first defer. NULL, and an exception, in a function that is not deferring."""
    cdef Activation* a
    cdef PyObject* name
    if frame != NULL:
        a = activation_of(frame)
        if a == NULL:
            frame = out_of_comprehensions(frame)
            a = activation_of(frame)
        if a != NULL:
            return a
        name = name_of_code(code_at(frame))
        if compare(name, "<module>") == 0:
            complain(RuntimeError_, "defer() in a module, which is not @deferring")
        else:
            complain(RuntimeError_, "defer() in %U(), which is not @deferring", name)
    else:
        complain(RuntimeError_, "defer() outside of any Python function")
    return NULL


cdef Frame* out_of_comprehensions(Frame* frame) noexcept:
    """Up to Python 3.11 a comprehension is a function of its own."""
    cdef Frame* outer
    while (<object>code_at(frame)).co_name in ("<listcomp>", "<setcomp>", "<dictcomp>"):
        outer = frame_below(frame)
        if outer == NULL:
            break
        frame = outer
    return frame


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
    result = call_function_itself(function, arguments, count, names)
    if a.last != NULL:
        result = unwind(a, result)
    leave(a)
    activations.free(a)
    return result


@cython.final
@cython.no_gc_clear                     # the function can break every cycle, and is called as long as this exists
cdef class Deferring:
    """What @deferring makes of a function: called like it, and with its names, signature and attributes."""

    def __init__(self):
        raise TypeError("deferring functions are made by @deferring")

    def __get__(self, instance, owner):
        return self if instance is None else bound(self, instance)

    def __set_name__(self, owner, name):
        if name == "__init_subclass__" or name == "__class_getitem__":      # as Python does with functions of these names
            setattr(owner, name, classmethod(self))
        elif name == "__new__":
            setattr(owner, name, staticmethod(self))

    def __setattr__(self, name, value):
        if name == "__defaults__" or name == "__kwdefaults__":
            setattr(self.function, name, value)
        elif name == "__code__":
            raise TypeError(f"the code of {self!r} cannot be replaced: put @deferring above what does that")
        else:
            PyObject_GenericSetAttr(self, name, value)

    def __getattr__(self, name):
        return getattr(self.function, name)

    @property
    def __class__(self):
        return FunctionType             # so inspect, and whoever asks for a function, gets the answers of one

    def __repr__(self):
        return f"<deferring function {self.__qualname__} at {<size_t><PyObject*>self:#x}>"

    def __reduce__(self):
        return self.__qualname__        # as functions are pickled: by name


cpdef Deferring deferring_function(function):
    """Of one that runs from its beginning to its end."""
    cdef Deferring made = Deferring.__new__(Deferring)
    made.vectorcall = call_function
    made.function = function
    update_wrapper(made, function)
    if function.__closure__ is None and "<locals>" not in function.__qualname__:
        make_immortal(<PyObject*>made)  # as free-threaded Python 3.13 does with such functions themselves
    return made


# ---- types and functions that the class statements above cannot say --------------------------------------------

cdef PyMethodDef defer_definition = PyMethodDef(
    ml_name=b"defer", ml_meth=<void*>call_defer, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""defer(function, /, *args, **kwargs)
--

Calls function(*args, **kwargs) when the function that says so ends, and returns function: so it decorates, too.

The arguments are evaluated now. Deferred calls run last in, first out, however the function ends; one that raises does
not stop the others. In a coroutine one that gives an awaitable is awaited.

Raises RuntimeError in a function that is not @deferring, TypeError for what is not callable, MemoryError. Each thread,
coroutine and greenlet has its own deferred calls.""")

cdef PyMethodDef call_definition = PyMethodDef(ml_name=b"__call__", ml_meth=<void*>call_method,
                                               ml_flags=METH_FASTCALL | METH_KEYWORDS, ml_doc=NULL)


cdef PyObject* call_method(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    if (<Deferring>self).vectorcall == NULL:
        return complain(TypeError_, "deferring functions are made by @deferring")
    return (<Deferring>self).vectorcall(self, arguments, <size_t>count, names)


cdef void equip() except *:
    """Deferring is called as vectorcall does it."""
    cdef PyTypeObject* kind = <PyTypeObject*>Deferring
    cdef Deferring one = Deferring.__new__(Deferring)
    kind.tp_vectorcall_offset = <char*>&one.vectorcall - <char*><PyObject*>one
    kind.tp_call = call_vectorcall
    kind.tp_flags |= HAVE_VECTORCALL | METHOD_DESCRIPTOR
    add_method(kind, &call_definition)


equip()
own_calls = calls
own_activations = activations
make_immortal(<PyObject*>calls)
make_immortal(<PyObject*>activations)
defer = builtin(&defer_definition)

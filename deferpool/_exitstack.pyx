"""ExitStack and AsyncExitStack: contextlib's, compiled.

An entry is what contextlib makes a closure or a bound method for: a callable and what it is called with. All that user
code calls is written as the interpreter's own methods are, for speed, and so that no line of this file shows up in a
traceback.
"""
import sys
from inspect import CO_ITERABLE_COROUTINE
from types import GeneratorType, GenericAlias, MethodType

from deferpool._aclose import aclose

cimport cython
from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "frames.h":
    PyObject* take_raised "dp_take_raised"() noexcept
    void put_raised "dp_raise"(PyObject* exception) noexcept
    PyObject* handled "dp_handled"() noexcept
    PyObject* vectorcall "dp_call"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept

cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject*, void*) noexcept
    ctypedef int (*traverseproc)(PyObject*, visitproc, void*) noexcept
    ctypedef int (*inquiry)(PyObject*) noexcept
    ctypedef struct PyAsyncMethods:
        PyObject* (*am_await)(PyObject*) noexcept
        int (*am_send)(PyObject*, PyObject*, PyObject**) noexcept
    ctypedef struct PyTypeObject:
        PyObject* (*tp_iternext)(PyObject*) noexcept
        PyAsyncMethods* tp_as_async
        traverseproc tp_traverse
        inquiry tp_clear
        PyObject* tp_dict
        Py_ssize_t tp_dictoffset
    ctypedef PyObject* (*getter)(PyObject*, void*) noexcept
    ctypedef int (*setter)(PyObject*, PyObject*, void*) noexcept
    ctypedef struct PyGetSetDef:
        const char* name
        getter get
        setter set
        const char* doc
        void* closure
    PyObject* get_dict "PyObject_GenericGetDict"(PyObject*, void*) noexcept
    int set_dict "PyObject_GenericSetDict"(PyObject*, PyObject*, void*) noexcept
    object PyDescr_NewGetSet(PyTypeObject*, PyGetSetDef*)
    ctypedef struct PyMethodDef:
        const char* ml_name
        void* ml_meth
        int ml_flags
        const char* ml_doc
    int METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, METH_O
    const size_t OFFSET "PY_VECTORCALL_ARGUMENTS_OFFSET"
    PyObject* NONE "Py_None"
    PyObject* TRUE "Py_True"
    PyObject* FALSE "Py_False"
    PyObject* TypeError_ "PyExc_TypeError"
    PyObject* AttributeError_ "PyExc_AttributeError"
    PyObject* RuntimeError_ "PyExc_RuntimeError"
    PyObject* StopIteration_ "PyExc_StopIteration"
    PyObject* GeneratorExit_ "PyExc_GeneratorExit"
    void INCREF "Py_INCREF"(PyObject*) noexcept
    void DECREF "Py_DECREF"(PyObject*) noexcept
    void XDECREF "Py_XDECREF"(PyObject*) noexcept
    PyTypeObject* type_of "Py_TYPE"(PyObject*) noexcept
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    int truth "PyObject_IsTrue"(PyObject*) noexcept
    PyObject* new_tuple "PyTuple_New"(Py_ssize_t) noexcept
    void set_item "PyTuple_SET_ITEM"(PyObject*, Py_ssize_t, PyObject*) noexcept
    PyObject** items_of "dp_tuple_items"(PyObject*) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject*) noexcept
    PyObject* traceback_of "PyException_GetTraceback"(PyObject*) noexcept
    PyObject* context_of "PyException_GetContext"(PyObject*) noexcept
    void set_context "PyException_SetContext"(PyObject*, PyObject*) noexcept
    void set_cause "PyException_SetCause"(PyObject*, PyObject*) noexcept
    bint is_exception "PyExceptionInstance_Check"(PyObject*) noexcept
    bint error_matches "PyErr_ExceptionMatches"(PyObject*) noexcept
    PyObject* call_none "PyObject_CallNoArgs"(PyObject*) noexcept
    PyObject* call_one "PyObject_CallOneArg"(PyObject*, PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    int send "PyIter_Send"(PyObject*, PyObject*, PyObject**) noexcept
    void PyErr_SetObject(PyObject*, PyObject*) noexcept
    void PyErr_Clear() noexcept
    void PyErr_SetNone(PyObject*) noexcept
    void write_unraisable "PyErr_WriteUnraisable"(PyObject*) noexcept
    bint given_matches "PyErr_GivenExceptionMatches"(PyObject*, PyObject*) noexcept
    void PyErr_NoMemory() noexcept
    void PyType_Modified(PyTypeObject*) noexcept
    object PyDescr_NewMethod(PyTypeObject*, PyMethodDef*)

cdef extern from *:
    """
    #define dp_tuple_items(tuple) (((PyTupleObject *)(tuple))->ob_item)
    """

# How an entry is called.
cdef enum:
    CALLBACK = 0                        # with its arguments; what it returns does not count
    EXIT = 1                            # with the exception's type, value and traceback
    METHOD = 2                          # the same, and its object before them
    ASYNCHRONOUS = 4                    # one of these, and what it gives is to be awaited

cdef struct Entry:
    PyObject* function                  # all of it is owned
    PyObject* of                        # METHOD: its object. CALLBACK: its arguments, a tuple, or NULL
    PyObject* names                     # CALLBACK: of the last arguments, a tuple, or NULL
    int kind

# What send gives, PySendResult.
cdef enum:
    RETURNED = 0
    FAILED = -1
    YIELDED = 1

cdef enum: INLINE = 4                   # entries that need no memory of their own

# What an exit passes on from entry to entry.
cdef struct Exiting:
    PyObject* details[3]                # type, value, traceback, borrowed or owned by the next three; None: no exception
    PyObject* raised                    # owned: what an entry has raised, and is not suppressed
    PyObject* traceback                 # owned, of that
    PyObject* frame                     # owned, or NULL: what was being handled when it began
    bint received
    bint suppressed


cdef class Entries:
    """What ExitStack and AsyncExitStack have in common."""
    cdef Entry* entries
    cdef Py_ssize_t count, room
    cdef Entry inline[INLINE]
    cdef PyObject* attributes           # the instance's dictionary, made when the first is set; Cython would make it now
    cdef object none                    # for a type without objects the collector has no room
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self.entries = self.inline
        self.room = INLINE

    def __dealloc__(self):
        drop_all(self)
        XDECREF(self.attributes)
        if self.entries != self.inline:
            free(self.entries)

    def __reduce_ex__(self, protocol):
        if self.count:
            raise TypeError(f"cannot pickle {type(self).__name__!r} object that has something to exit")
        return type(self), (), vars(self) or None

    @property
    def _exit_callbacks(self):
        """As contextlib has them: (is it synchronous, callback), the first one first. A copy."""
        return [(not self.entries[i].kind & ASYNCHRONOUS, as_callback(&self.entries[i])) for i in range(self.count)]


cdef object as_callback(Entry* entry):
    if entry.kind & 3 == METHOD:
        return MethodType(<object>entry.function, <object>entry.of)
    if entry.kind & 3 == EXIT:
        return <object>entry.function
    arguments = <object>entry.of if entry.of != NULL else ()
    names = <object>entry.names if entry.names != NULL else ()
    return closure(<object>entry.function, arguments[:len(arguments) - len(names)],
                   dict(zip(names, arguments[len(arguments) - len(names):])), bool(entry.kind & ASYNCHRONOUS))


def closure(callback, arguments, named, asynchronous):
    if asynchronous:
        async def made(exc_type, exc, tb):
            await callback(*arguments, **named)
    else:
        def made(exc_type, exc, tb):
            callback(*arguments, **named)
    made.__wrapped__ = callback
    return made


# ---- entries --------------------------------------------------------------------------------------------------

cdef bint add(Entries stack, int kind, PyObject* function, PyObject* of, PyObject* names) noexcept:
    """Takes over one reference of each. False, and an exception, when there is no memory."""
    cdef Entry* entry
    if stack.count == stack.room and not grow(stack):
        DECREF(function)
        XDECREF(of)
        XDECREF(names)
        return False
    entry = &stack.entries[stack.count]
    entry.function = function
    entry.of = of
    entry.names = names
    entry.kind = kind
    stack.count += 1
    return True


cdef bint grow(Entries stack) noexcept:
    cdef Py_ssize_t room = 2 * stack.room
    cdef Entry* entries
    if stack.entries == stack.inline:
        entries = <Entry*>malloc(<size_t>room * sizeof(Entry))
        if entries != NULL:
            memcpy(entries, stack.inline, sizeof(stack.inline))
    else:
        entries = <Entry*>realloc(stack.entries, <size_t>room * sizeof(Entry))
    if entries == NULL:
        PyErr_NoMemory()
        return False
    stack.entries = entries
    stack.room = room
    return True


cdef void drop(Entry* entry) noexcept:
    DECREF(entry.function)
    XDECREF(entry.of)
    XDECREF(entry.names)


cdef void drop_all(Entries stack) noexcept:
    cdef Entry entry
    while stack.count:
        stack.count -= 1
        entry = stack.entries[stack.count]
        drop(&entry)


cdef PyObject* refuse(PyObject* kind, text) noexcept:
    PyErr_SetObject(kind, <PyObject*>text)
    return NULL


cdef bint says_type_error = sys.version_info >= (3, 11)

cdef PyObject* not_a_manager(PyObject* cm, adjective) noexcept:
    """As the interpreter's own contextlib says it."""
    cdef PyObject* missing
    cdef PyObject* error
    if not says_type_error or not error_matches(AttributeError_):
        return NULL
    missing = take_raised()
    kind = type(<object>cm)
    refuse(TypeError_, f"'{kind.__module__}.{kind.__qualname__}' object does not support the {adjective}context manager "
                       "protocol")
    error = take_raised()
    set_context(error, missing)
    set_cause(error, NULL)              # "from None"
    put_raised(error)
    return NULL


# ---- registering ------------------------------------------------------------------------------------------------

cdef PyObject* enter_context(PyObject* self, PyObject* cm) noexcept:
    cdef PyObject* kind = <PyObject*>type_of(cm)
    cdef PyObject* begin
    cdef PyObject* end
    cdef PyObject* result
    if says_type_error:
        begin = attribute(kind, <PyObject*>"__enter__")
        end = attribute(kind, <PyObject*>"__exit__") if begin != NULL else NULL
    else:
        end = attribute(kind, <PyObject*>"__exit__")
        begin = attribute(kind, <PyObject*>"__enter__") if end != NULL else NULL
    if begin == NULL or end == NULL:
        XDECREF(begin)
        XDECREF(end)
        return not_a_manager(cm, "")
    result = vectorcall(begin, &cm, 1, NULL)
    DECREF(begin)
    if result == NULL:
        DECREF(end)
        return NULL
    INCREF(cm)
    if not add(<Entries>self, METHOD, end, cm, NULL):
        DECREF(result)
        return NULL
    return result


cdef PyObject* push_any(PyObject* self, PyObject* exit, name, int asynchronous) noexcept:
    cdef PyObject* end = attribute(<PyObject*>type_of(exit), <PyObject*>name)
    INCREF(exit)
    if end != NULL:
        if not add(<Entries>self, METHOD | asynchronous, end, exit, NULL):
            return NULL
    elif error_matches(AttributeError_):
        PyErr_Clear()
        if not add(<Entries>self, EXIT | asynchronous, exit, NULL, NULL):
            return NULL
    else:
        DECREF(exit)
        return NULL
    INCREF(exit)
    return exit


cdef PyObject* push(PyObject* self, PyObject* exit) noexcept:
    return push_any(self, exit, "__exit__", 0)


cdef PyObject* push_async_exit(PyObject* self, PyObject* exit) noexcept:
    return push_any(self, exit, "__aexit__", ASYNCHRONOUS)


cdef PyObject* add_callback(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names, name,
                            int asynchronous) noexcept:
    cdef PyObject* given = NULL
    cdef Py_ssize_t i
    if count < 1:
        return refuse(TypeError_, f"{name}() missing 1 required positional argument: 'callback'")
    if names != NULL:
        count += tuple_size(names)
    if count > 1:
        given = new_tuple(count - 1)
        if given == NULL:
            return NULL
        for i in range(1, count):
            INCREF(arguments[i])
            set_item(given, i - 1, arguments[i])
        if names != NULL:
            INCREF(names)
    INCREF(arguments[0])
    if not add(<Entries>self, CALLBACK | asynchronous, arguments[0], given, names if count > 1 else NULL):
        return NULL
    INCREF(arguments[0])
    return arguments[0]


cdef PyObject* callback(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    return add_callback(self, arguments, count, names, "callback", 0)


cdef PyObject* push_async_callback(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                                   PyObject* names) noexcept:
    return add_callback(self, arguments, count, names, "push_async_callback", ASYNCHRONOUS)


cdef PyObject* pop_all(PyObject* self, PyObject* nothing) noexcept:
    cdef Entries old = <Entries>self
    cdef Entries new
    cdef PyObject* made = call_none(<PyObject*>type_of(self))
    if made == NULL:
        return NULL
    if not isinstance(<object>made, Entries):
        DECREF(made)
        return refuse(TypeError_, f"{type(old).__name__}() did not make a stack")
    new = <Entries>made
    drop_all(new)
    if new.entries != new.inline:
        free(new.entries)
        new.entries = new.inline
    if old.entries == old.inline:
        memcpy(new.inline, old.inline, sizeof(old.inline))
        new.room = INLINE
    else:
        new.entries = old.entries
        new.room = old.room
        old.entries = old.inline
        old.room = INLINE
    new.count = old.count
    old.count = 0
    return made


cdef PyObject* itself(PyObject* self, PyObject* nothing) noexcept:
    INCREF(self)
    return self


# ---- exiting ----------------------------------------------------------------------------------------------------

cdef void begin_exit(Exiting* e, PyObject* const* details) noexcept:
    memset(e, 0, sizeof(Exiting))
    memcpy(e.details, details, sizeof(e.details))
    e.received = details[1] != NONE
    e.frame = handled()


cdef PyObject* call_entry(Exiting* e, Entry* entry) noexcept:
    cdef PyObject* arguments[5]
    cdef size_t named = 0
    if entry.kind & 3 == CALLBACK:
        if entry.of == NULL:
            return vectorcall(entry.function, &arguments[1], OFFSET, NULL)
        if entry.names != NULL:
            named = <size_t>tuple_size(entry.names)
        return vectorcall(entry.function, items_of(entry.of), <size_t>tuple_size(entry.of) - named, entry.names)
    memcpy(&arguments[2], e.details, sizeof(e.details))
    if entry.kind & 3 == METHOD:
        arguments[1] = entry.of
        return vectorcall(entry.function, &arguments[1], 4 | OFFSET, NULL)
    return vectorcall(entry.function, &arguments[2], 3 | OFFSET, NULL)


cdef int take_answer(Exiting* e, Entry* entry, PyObject* result) noexcept:
    """What an entry gave, or the exception that it raised."""
    cdef int suppresses = 0
    if result != NULL:
        if entry.kind & 3 != CALLBACK:
            suppresses = 0 if result == NONE else truth(result)
        DECREF(result)
        if suppresses == 0:
            return 0
        if suppresses > 0:
            e.suppressed = True
            replace(e, NULL)
            return 0
    result = take_raised()
    fix_context(result, e.details[1], e.frame)
    replace(e, result)
    return 0


cdef void replace(Exiting* e, PyObject* raised) noexcept:
    cdef PyObject* before = e.raised
    cdef PyObject* traceback = e.traceback
    e.raised = raised
    e.traceback = traceback_of(raised) if raised != NULL else NULL
    e.details[0] = <PyObject*>type_of(raised) if raised != NULL else NONE
    e.details[1] = raised if raised != NULL else NONE
    e.details[2] = e.traceback if e.traceback != NULL else NONE
    XDECREF(before)
    XDECREF(traceback)


cdef void fix_context(PyObject* new, PyObject* old, PyObject* frame) noexcept:
    """The end of the new exception's chain, where it shows what was handled when the exit began, shows the old one."""
    cdef PyObject* context
    while True:
        context = context_of(new)
        XDECREF(context)                # the exception has it
        if context == NULL or context == old:
            return
        if context == frame:
            break
        new = context
    if old == NONE:
        old = NULL
    else:
        INCREF(old)
    set_context(new, old)


cdef PyObject* end_exit(Exiting* e) noexcept:
    cdef PyObject* raised = e.raised
    cdef PyObject* traceback = e.traceback
    cdef PyObject* result
    XDECREF(e.frame)
    e.frame = NULL
    e.raised = NULL
    e.traceback = NULL
    XDECREF(traceback)
    if raised != NULL:
        put_raised(raised)
        return NULL
    result = TRUE if e.received and e.suppressed else FALSE
    INCREF(result)
    return result


cdef PyObject* leave(PyObject* self, PyObject* const* details, Py_ssize_t count) noexcept:
    cdef Entries stack = <Entries>self
    cdef Exiting e
    cdef Entry entry
    if count != 3:
        return refuse(TypeError_, f"__exit__() takes 3 arguments ({count} given)")
    begin_exit(&e, details)
    while stack.count:
        stack.count -= 1
        entry = stack.entries[stack.count]
        take_answer(&e, &entry, call_entry(&e, &entry))
        drop(&entry)
    return end_exit(&e)


cdef PyObject* close(PyObject* self, PyObject* nothing) noexcept:
    cdef PyObject* arguments[3]
    cdef PyObject* method
    cdef PyObject* result
    arguments[0] = arguments[1] = arguments[2] = NONE
    method = attribute(self, <PyObject*>"__exit__")
    if method == NULL:
        return NULL
    result = vectorcall(method, arguments, 3, NULL)
    DECREF(method)
    if result == NULL:
        return NULL
    DECREF(result)
    INCREF(NONE)
    return NONE


# ---- for AsyncExitStack: what is awaited -----------------------------------------------------------------------------

@cython.final
cdef class Awaited:
    """What AsyncExitStack's methods give: resumed by whoever awaits it, it drives one awaitable after the other.

    An exit calls its stack's entries, last in, first out, and drives what they give. An entering drives what a manager's
    __aenter__ gives, and then has the stack leave it.
    """
    cdef Entries stack
    cdef PyObject* driven               # owned: the iterator of what is being awaited, or NULL
    cdef PyObject* manager              # owned: of an entering
    cdef PyObject* leave                # owned: its type's __aexit__, once it has been looked up
    cdef Exiting e                      # of an exit
    cdef Entry entry                    # of an exit: the one that is being awaited, if `open`
    cdef bint open
    cdef bint began
    cdef object given                   # owns the details that an exit began with

    def __init__(self):
        raise TypeError("made by AsyncExitStack only")

    def __iter__(self):
        return self

    def __next__(self):                 # for its slot: the function there is replaced below
        raise StopIteration

    def __await__(self):
        return self

    def __del__(self):
        """As for a coroutine that is forgotten in its middle: it is closed, and so is what it still has to exit."""
        cdef PyObject* closed
        if self.driven != NULL:
            closed = close_awaited(<PyObject*>self, NULL)
            if closed != NULL:
                DECREF(closed)
            else:
                write_unraisable(<PyObject*>self)

    def __dealloc__(self):
        drop_awaited(self)


cdef void drop_awaited(Awaited a) noexcept:
    cdef PyObject* held
    XDECREF(a.e.frame)
    XDECREF(a.e.raised)
    XDECREF(a.e.traceback)
    memset(&a.e, 0, sizeof(Exiting))
    if a.open:
        a.open = False
        drop(&a.entry)
    held = a.driven
    a.driven = NULL
    XDECREF(held)
    held = a.manager
    a.manager = NULL
    XDECREF(held)
    held = a.leave
    a.leave = NULL
    XDECREF(held)


cdef PyObject* iterator_of(PyObject* awaitable) noexcept:
    """Takes over what is to be awaited. NULL, and an exception, when it cannot be."""
    cdef PyTypeObject* kind = type_of(awaitable)
    cdef PyObject* iterator = NULL
    if is_coroutine(awaitable) or is_iterable_coroutine(<object>awaitable):
        return awaitable
    if kind.tp_as_async != NULL and kind.tp_as_async.am_await != NULL:
        iterator = kind.tp_as_async.am_await(awaitable)
    else:
        refuse(TypeError_, f"object {type(<object>awaitable).__name__} can't be used in 'await' expression")
    DECREF(awaitable)
    return iterator


cdef bint is_iterable_coroutine(thing) noexcept:
    return type(thing) is GeneratorType and bool(thing.gi_code.co_flags & CO_ITERABLE_COROUTINE)


cdef PyObject* new_exit(PyObject* self, PyObject* const* details, Py_ssize_t count) noexcept:
    """__aexit__"""
    cdef Awaited a
    if count != 3:
        return refuse(TypeError_, f"__aexit__() takes 3 arguments ({count} given)")
    try:
        a = Awaited.__new__(Awaited)
        if details[1] != NONE:
            a.given = (<object>details[0], <object>details[1], <object>details[2])
    except MemoryError:
        PyErr_NoMemory()
        return NULL
    a.stack = <Entries>self
    memcpy(a.e.details, details, sizeof(a.e.details))
    INCREF(<PyObject*>a)
    return <PyObject*>a


cdef PyObject* new_entering(PyObject* self, PyObject* manager) noexcept:
    """enter_async_context, and __aenter__, which enters nothing."""
    cdef Awaited a
    try:
        a = Awaited.__new__(Awaited)
    except MemoryError:
        PyErr_NoMemory()
        return NULL
    a.stack = <Entries>self
    INCREF(manager)
    a.manager = manager
    INCREF(<PyObject*>a)
    return <PyObject*>a


cdef PyObject* new_itself(PyObject* self, PyObject* nothing) noexcept:
    return new_entering(self, self)


# What drives: each gives PySendResult.

cdef int send_awaited(PyObject* self, PyObject* value, PyObject** result) noexcept:
    cdef int status = start_or_go_on(<Awaited>self, value, result)
    if status == FAILED:
        not_an_ending()
    return status


cdef void not_an_ending() noexcept:
    """A StopIteration that comes out of what is awaited would look as if it had returned: coroutines say this."""
    cdef PyObject* error
    cdef PyObject* cause
    if error_matches(StopIteration_):
        cause = take_raised()
        refuse(RuntimeError_, "coroutine raised StopIteration")
        error = take_raised()
        INCREF(cause)
        set_context(error, cause)
        set_cause(error, cause)
        put_raised(error)


cdef int start_or_go_on(Awaited a, PyObject* value, PyObject** result) noexcept:
    if not a.began:
        a.began = True
        if a.manager == NULL:
            a.e.received = a.e.details[1] != NONE
            a.e.frame = handled()
        elif a.manager == <PyObject*>a.stack:
            INCREF(a.manager)
            result[0] = a.manager
            return RETURNED
        elif not begin_entering(a):
            result[0] = NULL
            return FAILED
    return go_on(a, value, result)


cdef int go_on(Awaited a, PyObject* value, PyObject** result) noexcept:
    cdef int status
    while True:
        if a.driven == NULL:
            if a.manager != NULL:
                return already_awaited(result)
            if not next_entry(a):
                result[0] = end_exit(&a.e)
                return FAILED if result[0] == NULL else RETURNED
            value = NONE
        status = send(a.driven, value, result)
        if status == YIELDED:
            return YIELDED
        drop_driven(a)
        if a.manager != NULL:
            return entered(a, status, result)
        take_answer(&a.e, &a.entry, result[0] if status == RETURNED else NULL)
        a.open = False
        drop(&a.entry)


cdef int already_awaited(PyObject** result) noexcept:
    refuse(RuntimeError_, "cannot reuse already awaited coroutine")
    result[0] = NULL
    return FAILED


cdef void drop_driven(Awaited a) noexcept:
    cdef PyObject* driven = a.driven
    a.driven = NULL
    DECREF(driven)


cdef bint next_entry(Awaited a) noexcept:
    """Calls entries until one gives something to be awaited. False: there are no more."""
    cdef PyObject* given
    while a.stack.count:
        a.stack.count -= 1
        a.entry = a.stack.entries[a.stack.count]
        a.open = True
        given = call_entry(&a.e, &a.entry)
        if given != NULL and a.entry.kind & ASYNCHRONOUS:
            a.driven = iterator_of(given)
            if a.driven != NULL:
                return True
            given = NULL
        take_answer(&a.e, &a.entry, given)
        a.open = False
        drop(&a.entry)
    return False


cdef bint begin_entering(Awaited a) noexcept:
    cdef PyObject* kind = <PyObject*>type_of(a.manager)
    cdef PyObject* begin = attribute(kind, <PyObject*>"__aenter__")
    cdef PyObject* given
    a.leave = attribute(kind, <PyObject*>"__aexit__") if begin != NULL else NULL
    if a.leave == NULL:
        XDECREF(begin)
        not_a_manager(a.manager, "asynchronous ")
        return False
    given = vectorcall(begin, &a.manager, 1, NULL)
    DECREF(begin)
    a.driven = iterator_of(given) if given != NULL else NULL
    return a.driven != NULL


cdef int entered(Awaited a, int status, PyObject** result) noexcept:
    cdef PyObject* leave = a.leave
    if status == RETURNED:
        INCREF(a.manager)
        a.leave = NULL
        if not add(a.stack, METHOD | ASYNCHRONOUS, leave, a.manager, NULL):
            DECREF(result[0])
            result[0] = NULL
            return FAILED
    return status


cdef PyObject* next_awaited(PyObject* self) noexcept:
    return sent(self, NONE)


cdef PyObject* next_method(PyObject* self, PyObject* nothing) noexcept:
    return sent(self, NONE)


cdef PyObject* sent(PyObject* self, PyObject* value) noexcept:
    cdef PyObject* result
    cdef int status = send_awaited(self, value, &result)
    return as_iterators_say(status, result)


cdef PyObject* as_iterators_say(int status, PyObject* result) noexcept:
    """What is returned is the value of a StopIteration."""
    cdef PyObject* ending
    if status == RETURNED:
        ending = call_one(StopIteration_, result)
        DECREF(result)
        if ending != NULL:
            PyErr_SetObject(StopIteration_, ending)
            DECREF(ending)
        return NULL
    return result if status == YIELDED else NULL


cdef PyObject* throw_into(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept:
    cdef Awaited a = <Awaited>self
    cdef PyObject* answer
    cdef PyObject* method
    if a.driven == NULL:
        return throw_here(arguments, count)
    if given_matches(arguments[0], GeneratorExit_):         # as in generators: what is driven is closed
        if close_driven(a):
            throw_here(arguments, count)
        return ended_with(a, NULL)
    method = attribute(a.driven, <PyObject*>"throw")
    if method == NULL:
        PyErr_Clear()
        answer = throw_here(arguments, count)
    else:
        answer = vectorcall(method, arguments, <size_t>count, NULL)
        DECREF(method)
    return answer if answer != NULL else ended_with(a, returned_value())


cdef bint close_driven(Awaited a) noexcept:
    """False: and an exception, when that has raised."""
    cdef PyObject* method = attribute(a.driven, <PyObject*>"close")
    cdef PyObject* result
    if method == NULL:
        PyErr_Clear()
        return True
    result = call_none(method)
    DECREF(method)
    XDECREF(result)
    return result != NULL


cdef PyObject* ended_with(Awaited a, PyObject* value) noexcept:
    """Goes on after what was driven has ended, by this or, when it is NULL, by the exception that has been raised."""
    cdef PyObject* result = value
    cdef int status
    drop_driven(a)
    if a.manager != NULL:
        status = entered(a, RETURNED if value != NULL else FAILED, &result)
    else:
        take_answer(&a.e, &a.entry, value)
        a.open = False
        drop(&a.entry)
        status = go_on(a, NONE, &result)
    if status == FAILED:
        not_an_ending()
    return as_iterators_say(status, result)


cdef PyObject* returned_value() noexcept:
    """Of the StopIteration that has been raised; NULL, and the exception as it was, when it is another one."""
    cdef PyObject* value
    if not error_matches(StopIteration_):
        return NULL
    error = take_raised()
    value = attribute(error, <PyObject*>"value")
    DECREF(error)
    return value


cdef PyObject* close_awaited(PyObject* self, PyObject* nothing) noexcept:
    cdef PyObject* answer
    if (<Awaited>self).driven == NULL:
        INCREF(NONE)
        return NONE
    if close_driven(<Awaited>self):
        PyErr_SetNone(GeneratorExit_)
    answer = ended_with(<Awaited>self, NULL)
    if answer != NULL:
        DECREF(answer)
        return refuse(RuntimeError_, "coroutine ignored GeneratorExit")
    if error_matches(GeneratorExit_) or error_matches(StopIteration_):
        PyErr_Clear()
        INCREF(NONE)
        return NONE
    return NULL


cdef PyObject* throw_here(PyObject* const* arguments, Py_ssize_t count) noexcept:
    cdef PyObject* error = arguments[0]
    if is_exception(error):
        INCREF(error)
    else:
        error = call_none(error) if count < 2 or arguments[1] == NONE else call_one(error, arguments[1])
        if error == NULL:
            return NULL
    put_raised(error)
    return NULL


# ---- what the collector must see ----------------------------------------------------------------------------------

cdef traverseproc traverse_entries_objects, traverse_awaited_objects
cdef inquiry clear_entries_objects, clear_awaited_objects

cdef int visit_entry(Entry* entry, visitproc visit, void* arg) noexcept:
    cdef int found = visit(entry.function, arg)
    if not found and entry.of != NULL:
        found = visit(entry.of, arg)
    return found


cdef int traverse_entries(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef Py_ssize_t i
    cdef int found = 0
    for i in range((<Entries>self).count):
        found = visit_entry(&(<Entries>self).entries[i], visit, arg)
        if found:
            return found
    if (<Entries>self).attributes != NULL:
        found = visit((<Entries>self).attributes, arg)
        if found:
            return found
    return traverse_entries_objects(self, visit, arg)


cdef int clear_entries(PyObject* self) noexcept:
    cdef PyObject* attributes = (<Entries>self).attributes
    drop_all(<Entries>self)
    (<Entries>self).attributes = NULL
    XDECREF(attributes)
    return clear_entries_objects(self)


cdef int traverse_awaited(PyObject* self, visitproc visit, void* arg) noexcept:
    cdef Awaited a = <Awaited>self
    cdef int found = visit_entry(&a.entry, visit, arg) if a.open else 0
    cdef PyObject* held[6]
    cdef int i
    held[:] = [a.driven, a.manager, a.leave, a.e.raised, a.e.traceback, a.e.frame]
    for i in range(6):
        if held[i] != NULL and not found:
            found = visit(held[i], arg)
    return found if found else traverse_awaited_objects(self, visit, arg)


cdef int clear_awaited(PyObject* self) noexcept:
    drop_awaited(<Awaited>self)
    return clear_awaited_objects(self)


# ---- the classes -----------------------------------------------------------------------------------------------------

cdef class ExitStack(Entries):
    """contextlib.ExitStack, several times faster: every method, behaviour and error is the same.

    One stack is for one thread at a time.
    """


cdef class AsyncExitStack(Entries):
    """contextlib.AsyncExitStack, several times faster: every method, behaviour and error is the same.

    One stack is for one task at a time.
    """


cdef PyMethodDef enter_context_definition = PyMethodDef(
    ml_name=b"enter_context", ml_meth=<void*>enter_context, ml_flags=METH_O, ml_doc=b"""enter_context($self, cm, /)
--

Enters a context manager, which the stack leaves, and returns what that gives.""")
cdef PyMethodDef push_definition = PyMethodDef(
    ml_name=b"push", ml_meth=<void*>push, ml_flags=METH_O, ml_doc=b"""push($self, exit, /)
--

Leaves a context manager that has been entered, or calls what has __exit__'s signature. Returns it.""")
cdef PyMethodDef callback_definition = PyMethodDef(
    ml_name=b"callback", ml_meth=<void*>callback, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""callback($self, callback, /, *args, **kwds)
--

Calls callback(*args, **kwds), which cannot suppress exceptions. Returns it.""")
cdef PyMethodDef pop_all_definition = PyMethodDef(
    ml_name=b"pop_all", ml_meth=<void*>pop_all, ml_flags=METH_NOARGS, ml_doc=b"""pop_all($self, /)
--

A new stack of the same type with all that this one had.""")
cdef PyMethodDef enter_definition = PyMethodDef(
    ml_name=b"__enter__", ml_meth=<void*>itself, ml_flags=METH_NOARGS, ml_doc=NULL)
cdef PyMethodDef exit_definition = PyMethodDef(
    ml_name=b"__exit__", ml_meth=<void*>leave, ml_flags=METH_FASTCALL, ml_doc=NULL)
cdef PyMethodDef close_definition = PyMethodDef(
    ml_name=b"close", ml_meth=<void*>close, ml_flags=METH_NOARGS, ml_doc=b"""close($self, /)
--

Leaves and calls everything now.""")
cdef PyMethodDef push_async_exit_definition = PyMethodDef(
    ml_name=b"push_async_exit", ml_meth=<void*>push_async_exit, ml_flags=METH_O, ml_doc=b"""push_async_exit($self, exit, /)
--

Leaves an asynchronous context manager that has been entered, or awaits what has __aexit__'s signature. Returns it.""")
cdef PyMethodDef push_async_callback_definition = PyMethodDef(
    ml_name=b"push_async_callback", ml_meth=<void*>push_async_callback, ml_flags=METH_FASTCALL | METH_KEYWORDS,
    ml_doc=b"""push_async_callback($self, callback, /, *args, **kwds)
--

Awaits callback(*args, **kwds), which cannot suppress exceptions. Returns it.""")


cdef PyMethodDef enter_async_context_definition = PyMethodDef(
    ml_name=b"enter_async_context", ml_meth=<void*>new_entering, ml_flags=METH_O, ml_doc=b"""enter_async_context($self, cm, /)
--

To be awaited: enters an asynchronous context manager, which the stack leaves, and gives what that gives.""")
cdef PyMethodDef aenter_definition = PyMethodDef(
    ml_name=b"__aenter__", ml_meth=<void*>new_itself, ml_flags=METH_NOARGS, ml_doc=NULL)
cdef PyMethodDef aexit_definition = PyMethodDef(
    ml_name=b"__aexit__", ml_meth=<void*>new_exit, ml_flags=METH_FASTCALL, ml_doc=NULL)
cdef PyMethodDef next_definition = PyMethodDef(
    ml_name=b"__next__", ml_meth=<void*>next_method, ml_flags=METH_NOARGS, ml_doc=NULL)
cdef PyMethodDef send_definition = PyMethodDef(ml_name=b"send", ml_meth=<void*>sent, ml_flags=METH_O, ml_doc=NULL)
cdef PyMethodDef throw_definition = PyMethodDef(
    ml_name=b"throw", ml_meth=<void*>throw_into, ml_flags=METH_FASTCALL, ml_doc=NULL)
cdef PyMethodDef awaited_close_definition = PyMethodDef(
    ml_name=b"close", ml_meth=<void*>close_awaited, ml_flags=METH_NOARGS, ml_doc=NULL)


cdef PyGetSetDef attributes_definition = PyGetSetDef(name=b"__dict__", get=get_dict, set=set_dict, doc=NULL, closure=NULL)


cdef void add_method(PyTypeObject* kind, PyMethodDef* definition) except *:
    (<dict>kind.tp_dict)[(<bytes>definition.ml_name).decode()] = PyDescr_NewMethod(kind, definition)


cdef void equip() except *:
    global traverse_entries_objects, clear_entries_objects, traverse_awaited_objects, clear_awaited_objects
    cdef PyTypeObject* kind = <PyTypeObject*>Entries
    cdef Entries one = Entries.__new__(Entries)
    cdef Py_ssize_t attributes = <char*>&one.attributes - <char*><PyObject*>one
    traverse_entries_objects = kind.tp_traverse
    clear_entries_objects = kind.tp_clear
    add_method(kind, &enter_context_definition)
    add_method(kind, &push_definition)
    add_method(kind, &callback_definition)
    add_method(kind, &pop_all_definition)
    PyType_Modified(kind)
    kind = <PyTypeObject*>ExitStack
    kind.tp_dictoffset = attributes
    (<dict>kind.tp_dict)["__dict__"] = PyDescr_NewGetSet(kind, &attributes_definition)
    kind.tp_traverse = traverse_entries
    kind.tp_clear = clear_entries
    add_method(kind, &enter_definition)
    add_method(kind, &exit_definition)
    add_method(kind, &close_definition)
    PyType_Modified(kind)
    kind = <PyTypeObject*>AsyncExitStack
    kind.tp_dictoffset = attributes
    (<dict>kind.tp_dict)["__dict__"] = PyDescr_NewGetSet(kind, &attributes_definition)
    kind.tp_traverse = traverse_entries
    kind.tp_clear = clear_entries
    add_method(kind, &push_async_exit_definition)
    add_method(kind, &push_async_callback_definition)
    add_method(kind, &enter_async_context_definition)
    add_method(kind, &aenter_definition)
    add_method(kind, &aexit_definition)
    (<dict>kind.tp_dict)["aclose"] = aclose
    PyType_Modified(kind)
    kind = <PyTypeObject*>Awaited
    traverse_awaited_objects = kind.tp_traverse
    clear_awaited_objects = kind.tp_clear
    kind.tp_traverse = traverse_awaited
    kind.tp_clear = clear_awaited
    kind.tp_iternext = next_awaited
    kind.tp_as_async.am_send = send_awaited
    add_method(kind, &next_definition)
    add_method(kind, &send_definition)
    add_method(kind, &throw_definition)
    add_method(kind, &awaited_close_definition)
    PyType_Modified(kind)

equip()

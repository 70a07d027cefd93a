"""What the driver of a deferring generator or coroutine waits for: a Body, which does all that goes on in it.

It drives the function's own generator or coroutine and then, one after the other, what the deferred calls give to be
awaited. Its activation is on the thread's list only while one of them runs, on whichever thread that is. All of this
happens in here, where no signal's handler can come in between and make an end of the driver.
"""
cimport cython
from cpython.object cimport PyObject

from deferpool._cpython cimport (
    DECREF, INCREF, METH_O, NONE, XDECREF, PyErr_SetObject, PyMethodDef, PyTypeObject, RuntimeError_, builtin, call_none,
    Endings, call_one, complain, destructor, end_in_turn, handled, inquiry, new_of, put_raised, swap_handled, take_raised,
    traverseproc, type_of, vectorcall, visitproc,
)
from deferpool._defer cimport Activation, Call, enter_here, freedefer, leave, outcome, replace, run, show_in_flight
from deferpool._frames cimport Frame, code_at, code_of_line, first_local, frame_now, generator_in, lines_after

cdef extern from "coroutines.h":
    bint can_be_awaited "dp_can_be_awaited"(PyObject*) noexcept
    PyObject* iterator_of "dp_iterator_of"(PyObject* awaitable) noexcept
    int thrown_outcome "dp_thrown_outcome"(PyObject** outcome) noexcept
    void stop_is_error "dp_no_stop"(PyObject* kind, const char* said) noexcept

cdef extern from "interpreter.h":
    ctypedef struct Hooks "dp_hooks":
        pass
    void without_hooks "dp_without_hooks"(Hooks*, PyObject*) noexcept
    void with_hooks "dp_with_hooks"(const Hooks*) noexcept
    PyObject** finalizer_of "dp_finalizer_of"(PyObject*) noexcept
    traverseproc traverse_of "dp_traverse_of"(PyObject*) noexcept

cdef extern from *:
    """
    static DP_OF_THREAD dp_endings dp_bodies_end;
    """
    Endings endings "dp_bodies_end"

cdef extern from "Python.h":
    PyObject* StopIteration_ "PyExc_StopIteration"
    PyObject* StopAsyncIteration_ "PyExc_StopAsyncIteration"
    PyObject* GeneratorExit_ "PyExc_GeneratorExit"
    PyObject* AttributeError_ "PyExc_AttributeError"
    bint matches "PyErr_ExceptionMatches"(PyObject*) noexcept
    PyObject* attribute "PyObject_GetAttr"(PyObject*, PyObject*) noexcept
    bint is_coroutine "PyCoro_CheckExact"(PyObject*) noexcept
    bint is_asynchronous_generator "PyAsyncGen_CheckExact"(PyObject*) noexcept
    int send "PyIter_Send"(PyObject*, PyObject*, PyObject**) noexcept
    PyObject* traceback_of "PyException_GetTraceback"(PyObject*) noexcept
    int set_traceback "PyException_SetTraceback"(PyObject*, PyObject*) noexcept
    bint is_traceback "PyTraceBack_Check"(PyObject*) noexcept
    void write_unraisable "PyErr_WriteUnraisable"(PyObject*) noexcept
    Py_ssize_t count_of_references "Py_REFCNT"(PyObject*) noexcept
    void set_context "PyException_SetContext"(PyObject*, PyObject*) noexcept
    void PyErr_Clear() noexcept

cdef object does_nothing = id


@cython.final
cdef class Body:
    """First its function's own generator or coroutine, then awaitables that were deferred."""

    def __iter__(self):
        return self

    def __next__(self):                 # for its slot: the function there is replaced by that of _generators
        raise StopIteration

    def __await__(self):
        return self

    def __init__(self):
        raise TypeError("made by deferring generators and coroutines only")

    def __del__(self):
        if not self.begun:
            if self.inner is not None and is_coroutine(<PyObject*>self.inner):
                self.inner.close()      # it never began, and has no need to say so: its driver does
        elif not self.ended and not (self.watched and count_of_references(<PyObject*>self) > 1):
            end_dropped(self)           # else the collector has found it, and its driver or guard, which ends it

    def __dealloc__(self):
        if self.guard is not None:
            self.guard.body = NULL
            if not self.ended:
                end_dropped(self)
        drop_all(self)

    def gives(self, sent):
        """What the next step of an asynchronous generator is to be given."""
        self.sent = sent

    # These two are properties because Python looks for signals after each call, and not after these.

    @property
    def takes(self):
        """What has been thrown into the driver of an asynchronous generator, whose next step is to be given it. False when
        there is no next one, or it is in the middle of one: the driver is to go on with it."""
        cdef PyObject* error = without_line()
        if self.inner is None or self.driven is not None or self.running or error == NULL:
            return False
        self.thrown = <object>error
        return True

    @property
    def returned(self):
        """Whether the function was closed and has returned in spite of it: `result`. If not, the driver goes on with its
        exception."""
        cdef PyObject* error = without_line()
        if error != NULL and self.beneath is not None:
            INCREF(<PyObject*>self.beneath)
            set_context(error, <PyObject*>self.beneath)
            self.beneath = None
        return self.closed


# ---- what is done to what is driven -----------------------------------------------------------------------------
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


cdef PyObject* ask(PyObject* thing, name, PyObject* const* arguments, Py_ssize_t count) noexcept:
    """Calls a method."""
    cdef PyObject* method = attribute(thing, <PyObject*>name)
    cdef PyObject* result
    if method == NULL:
        return NULL
    result = vectorcall(method, arguments, <size_t>count, NULL)
    DECREF(method)
    return result


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


cdef void chain(Body body) noexcept:
    """What was thrown into what a deferred call gave has the exception in flight as its context."""
    cdef PyObject* raised
    if body.current != NULL and body.activation.raised != NULL:
        raised = take_raised()
        PyErr_SetObject(<PyObject*>type_of(raised), raised)
        DECREF(raised)


# ---- going on ---------------------------------------------------------------------------------------------------

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
        end_function(body)
    return run_deferred(body, result)


cdef void end_function(Body body) noexcept:
    cdef PyObject** slot
    body.activation.frame = &body.activation
    if body.steps and body.inner is not None:
        slot = finalizer_of(<PyObject*>body.inner)
        XDECREF(slot[0])
        slot[0] = NULL                  # from now on it closes itself
    body.inner = None
    body.driven = None


cdef void note(Body body, int status, PyObject* result) noexcept:
    """What a deferred call has given, or what it gave to be awaited."""
    cdef PyObject* raised = take_raised() if status == FAILED else NULL
    settle(body)
    if status == FAILED:
        replace(&body.activation, raised)
    else:
        DECREF(result)


cdef void settle(Body body) noexcept:
    cdef Call* call = body.current
    body.current = NULL
    body.activation.calling = NULL
    body.driven = None
    if call != NULL:
        freedefer(call)


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


# ---- an end before its time -------------------------------------------------------------------------------------

cdef void end_dropped(Body body) noexcept:
    """Its driver has ended without it: an exception came where Python code cannot be without any."""
    cdef PyObject* result = NULL
    body.dropped = True
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


# ---- asynchronous generators that are dropped -------------------------------------------------------------------
#
# Nobody closes one where there is no event loop, or where the loop has been closed. All that is left must run then and
# there, before the collector clears anything: finalizers do so, and no deallocation.

cdef void watch(Body body) noexcept:
    """Its driver begins: that it is dropped is told here, and not to the event loop."""
    cdef Frame* frame = frame_now()
    cdef PyObject* driver
    cdef PyObject** slot
    if frame == NULL or not is_driver(code_at(frame)):
        return
    driver = generator_in(frame)
    if driver == NULL:
        return
    slot = finalizer_of(driver)
    if slot[0] != NULL:
        body.hook = <object>slot[0]
        DECREF(slot[0])
    INCREF(<PyObject*>driver_dropped)
    slot[0] = <PyObject*>driver_dropped
    body.watched = True


cdef PyObject* tell_dropped(PyObject* module, PyObject* driver) noexcept:
    """The loop may close it, with its awaits. One that does not take it forgets it."""
    cdef PyObject* found = first_local(driver) if is_asynchronous_generator(driver) else NULL
    cdef PyObject* done
    cdef PyObject* error = NULL
    cdef Py_ssize_t before = count_of_references(driver)
    cdef Body body
    if found == NULL or type_of(found) != <PyTypeObject*>Body:
        INCREF(NONE)
        return NONE
    body = <Body>found
    if body.hook is not None and not body.offered:
        body.offered = True
        done = call_one(<PyObject*>body.hook, driver)
        if done == NULL:
            error = take_raised()
        else:
            DECREF(done)
    if error != NULL or count_of_references(driver) <= before or not guard(body):
        if not body.ended and not body.running:
            end_dropped(body)
    if error != NULL:
        put_raised(error)
        return NULL
    INCREF(NONE)
    return NONE


cdef PyMethodDef dropped_definition = PyMethodDef(ml_name=b"driver_dropped", ml_meth=<void*>tell_dropped,
                                                  ml_flags=METH_O, ml_doc=NULL)


@cython.final
cdef class Guard:
    def __init__(self):
        raise TypeError("made by deferring generators and coroutines only")

    def __del__(self):
        if self.body != NULL and not (<Body>self.body).ended:
            end_dropped(<Body>self.body)


cdef bint guard(Body body) noexcept:
    """It was taken, and may be lost again: the finalizers of its driver, and perhaps its own, have run. False when there is
    no memory."""
    cdef PyObject* made = new_of(<PyTypeObject*>Guard)
    if made == NULL:
        PyErr_Clear()
        return False
    body.guard = <Guard>made
    body.guard.body = <PyObject*>body
    DECREF(made)
    return True


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
    settle(body)
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


# ---- drivers, and their lines in tracebacks ---------------------------------------------------------------------

cdef tuple driver_codes = ()

cdef bint is_driver(PyObject* code) noexcept:
    for each in driver_codes:
        if <PyObject*>each == code:     # by identity: to compare them would recurse
            return True
    return False


def drivers(*functions):
    """What drives generators and coroutines."""
    global driver_codes
    driver_codes = tuple([function.__code__ for function in functions])


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


cdef traverseproc traverse_objects
cdef inquiry clear_objects
cdef destructor dealloc_objects

cdef void dealloc_body(PyObject* self) noexcept:
    """One that ends another, which one of its deferred calls had, does so within its own end."""
    end_in_turn(&endings, self, &(<Body>self).next_dead, dealloc_objects)



cdef void equip() noexcept:
    """The collector sees all of a Body; and one that ends another in a call that it has deferred does not nest."""
    global traverse_objects, clear_objects, dealloc_objects
    cdef PyTypeObject* kind = <PyTypeObject*>Body
    traverse_objects = kind.tp_traverse
    clear_objects = kind.tp_clear
    kind.tp_traverse = traverse_body
    kind.tp_clear = clear_body
    dealloc_objects = kind.tp_dealloc
    kind.tp_dealloc = dealloc_body

equip()
cdef object driver_dropped = builtin(&dropped_definition)

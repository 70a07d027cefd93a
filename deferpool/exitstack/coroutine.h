/* coroutine.h: what AsyncExitStack's methods return, as Python sees it. */
#ifndef DEFERPOOL_EXITSTACK_COROUTINE_H
#define DEFERPOOL_EXITSTACK_COROUTINE_H

#include "awaiting.h"

/* 0 when it can go on now. */
static inline int refused(Coroutine *coroutine)
{
    if (DP_USUALLY(!coroutine->running && coroutine->state != FINISHED))
        return 0;
    if (coroutine->running)
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    else
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return 1;
}

static PySendResult coroutine_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    Coroutine *coroutine = (Coroutine *)self;
    PySendResult how = START;
    PyObject *outcome = NULL;
    *result = NULL;
    if (refused(coroutine))
        return PYGEN_ERROR;
    if (coroutine->state == CREATED && value != Py_None) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    if (Py_EnterRecursiveCall(" while calling a Python object"))
        return PYGEN_ERROR;
    coroutine->running = 1;
    if (coroutine->state == STARTED) {
        how = PyIter_Send(coroutine->inner, value, &outcome);
        if (how != PYGEN_NEXT)
            Py_CLEAR(coroutine->inner);
    }
    coroutine->state = STARTED;
    if (how == PYGEN_NEXT)
        *result = outcome;
    else
        how = go_on(coroutine, how, outcome, result);
    coroutine->running = 0;
    Py_LeaveRecursiveCall();
    return how;
}

#if PY_VERSION_HEX >= 0x030C0000
/* Whether nobody but its coroutine has this StopIteration, and nobody has changed it, nor the collector cleared it. */
static inline int is_reusable(PyObject *stop)
{
    PyStopIterationObject *fields = (PyStopIterationObject *)stop;
#ifdef Py_GIL_DISABLED
    if (stop->ob_tid != _Py_ThreadId() || stop->ob_ref_local != 1 || stop->ob_ref_shared != 0)
        return 0;
#else
    if (Py_REFCNT(stop) != 1)
        return 0;
#endif
    return fields->dict == NULL && fields->notes == NULL && fields->traceback == NULL && fields->context == NULL &&
           fields->cause == NULL && fields->value != NULL && fields->args != NULL &&
           PyTuple_GET_SIZE(fields->args) == 1 && Py_REFCNT(fields->args) == 1;
}

/* Its value, which is stolen. */
static inline void set_stop(PyObject *stop, PyObject *value)
{
    PyStopIterationObject *fields = (PyStopIterationObject *)stop;
    PyObject *before = fields->value, *arg = PyTuple_GET_ITEM(fields->args, 0);
    Py_INCREF(value);
    fields->value = value;
    PyTuple_SET_ITEM(fields->args, 0, value);
    if (!PyObject_GC_IsTracked(fields->args)) /* the collector may have found that it held nothing that matters */
        PyObject_GC_Track(fields->args);
    Py_DECREF(before);
    Py_DECREF(arg);
}

/* Raises StopIteration(value) for `await`, which from 3.12 on understands nothing else; steals the value. A new one
 * each time would cost as much as all the rest. */
static inline void stop_awaiting(Coroutine *coroutine, PyObject *value)
{
    if (coroutine->stop == NULL || !is_reusable(coroutine->stop)) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, Py_None);
        if (stop == NULL) {
            Py_DECREF(value);
            return;
        }
        Py_XDECREF(coroutine->stop);
        coroutine->stop = stop;
    }
    set_stop(coroutine->stop, value);
    Py_INCREF(coroutine->stop);
    PyErr_SetRaisedException(coroutine->stop);
}

/* Before the coroutine is kept for later: so is its StopIteration, without the value. */
static inline void keep_stop(Coroutine *coroutine)
{
    if (coroutine->stop == NULL)
        return;
    if (is_reusable(coroutine->stop)) {
        Py_INCREF(Py_None);
        set_stop(coroutine->stop, Py_None);
    }
    else
        Py_CLEAR(coroutine->stop);
}
#else
static inline void stop_awaiting(Coroutine *Py_UNUSED(coroutine), PyObject *value)
{
    dp_stop_with(value);
}

static inline void keep_stop(Coroutine *Py_UNUSED(coroutine))
{
}
#endif

/* For callers that know iterators only: NULL alone means that None is returned. */
static PyObject *coroutine_iternext(PyObject *self)
{
    PyObject *result;
    switch (coroutine_am_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result == Py_None)
            Py_DECREF(result);
        else
            stop_awaiting((Coroutine *)self, result);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *coroutine_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult how = coroutine_am_send(self, value, &result);
    if (how == PYGEN_NEXT)
        return result;
    if (how == PYGEN_RETURN)
        dp_stop_with(result);
    return NULL;
}

/* inner.close(), if it has one. 0, or -1 with an error. */
static int close_inner(PyObject *inner)
{
    PyObject *close = PyObject_GetAttr(inner, name_close), *done;
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    done = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The exception of throw(exception) or throw(type, value, traceback): a new reference, or NULL with an error. */
static PyObject *thrown(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type, *value, *traceback, *raised;
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw expected at %s %d argument%s, got %zd", nargs ? "most" : "least",
                     nargs ? 3 : 1, nargs ? "s" : "", nargs);
        return NULL;
    }
    type = args[0];
    value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    traceback = nargs > 2 && args[2] != Py_None ? args[2] : NULL;
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
        return NULL;
    }
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return NULL;
        }
        raised = type;
        Py_INCREF(raised);
    }
    else if (PyExceptionClass_Check(type)) {
        int is_made = value != NULL && PyExceptionInstance_Check(value) ? PyObject_IsInstance(value, type) : 0;
        if (is_made < 0)
            return NULL;
        if (is_made) {
            raised = value;
            Py_INCREF(raised);
        }
        else if (value == NULL)
            raised = PyObject_CallNoArgs(type);
        else if (PyTuple_Check(value))
            raised = PyObject_Call(type, value, NULL);
        else
            raised = PyObject_CallOneArg(type, value);
        if (raised != NULL && !PyExceptionInstance_Check(raised)) {
            PyErr_Format(PyExc_TypeError, "calling %R should have returned an instance of BaseException, not %s", type,
                         Py_TYPE(raised)->tp_name);
            Py_CLEAR(raised);
        }
    }
    else {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    if (raised != NULL && traceback != NULL && PyException_SetTraceback(raised, traceback) < 0)
        Py_CLEAR(raised);
    return raised;
}

/* Throws it into what is being awaited; what comes of that, as of a send. Steals it. */
static PySendResult throw_into(Coroutine *coroutine, PyObject *raised, PyObject *const *args, Py_ssize_t nargs,
                               PyObject **outcome)
{
    PyObject *inner = coroutine->inner, *throw;
    *outcome = NULL;
    if (PyErr_GivenExceptionMatches(raised, PyExc_GeneratorExit)) {
        int closed = close_inner(inner);
        Py_CLEAR(coroutine->inner);
        if (closed == 0)
            dp_raise(raised);
        else
            Py_DECREF(raised);
        return PYGEN_ERROR;
    }
    throw = PyObject_GetAttr(inner, name_throw);
    if (throw == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
            Py_INCREF(raised);
            dp_raise(raised);
        }
    }
    else if (PyCoro_CheckExact(inner) || PyGen_CheckExact(inner) || Py_IS_TYPE(inner, &Coroutine_Type))
        *outcome = PyObject_CallOneArg(throw, raised);
    else
        *outcome = PyObject_Vectorcall(throw, args, nargs, NULL);
    Py_XDECREF(throw);
    Py_DECREF(raised);
    if (*outcome != NULL)
        return PYGEN_NEXT;
    Py_CLEAR(coroutine->inner);
    return throw == NULL ? PYGEN_ERROR : dp_thrown_outcome(outcome);
}

static PyObject *coroutine_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Coroutine *coroutine = (Coroutine *)self;
    PyObject *raised, *outcome, *result = NULL;
    PySendResult how;
    raised = thrown(args, nargs);
    if (raised == NULL)
        return NULL;
    if (refused(coroutine)) {
        Py_DECREF(raised);
        return NULL;
    }
    if (coroutine->state == CREATED) {
        finish(coroutine);
        dp_raise(raised);
#if PY_VERSION_HEX < 0x030C0000
        no_stop_iteration();
#endif
        return NULL;
    }
    if (Py_EnterRecursiveCall(" while calling a Python object")) {
        Py_DECREF(raised);
        return NULL;
    }
    coroutine->running = 1;
    how = throw_into(coroutine, raised, args, nargs, &outcome);
    if (how == PYGEN_NEXT)
        result = outcome;
    else
        how = go_on(coroutine, how, outcome, &result);
    coroutine->running = 0;
    Py_LeaveRecursiveCall();
    if (how == PYGEN_RETURN) {
        dp_stop_with(result);
        return NULL;
    }
    return result;
}

static PyObject *coroutine_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Coroutine *coroutine = (Coroutine *)self;
    PyObject *result = NULL;
    PySendResult how;
    int closed;
    if (coroutine->state != FINISHED && refused(coroutine))
        return NULL;
    if (coroutine->state != STARTED) {
        finish(coroutine);
        Py_RETURN_NONE;
    }
    if (Py_EnterRecursiveCall(" while calling a Python object"))
        return NULL;
    coroutine->running = 1;
    closed = close_inner(coroutine->inner);
    Py_CLEAR(coroutine->inner);
    if (closed == 0)
        PyErr_SetNone(PyExc_GeneratorExit);
    how = go_on(coroutine, PYGEN_ERROR, NULL, &result);
    coroutine->running = 0;
    Py_LeaveRecursiveCall();
    Py_XDECREF(result);
    if (how == PYGEN_NEXT) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine ignored GeneratorExit");
        return NULL;
    }
    if (how == PYGEN_ERROR) {
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

static PyObject *coroutine_await(PyObject *self)
{
    if (((Coroutine *)self)->inner != NULL)
        return dp_being_awaited();
    Py_INCREF(self);
    return self;
}

static PyObject *coroutine_await_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return coroutine_await(self);
}

static int coroutine_traverse(Coroutine *coroutine, visitproc visit, void *arg)
{
    Py_VISIT(coroutine->stack);
    Py_VISIT(coroutine->inner);
    Py_VISIT(coroutine->unwinding.details[0]);
    Py_VISIT(coroutine->unwinding.details[1]);
    Py_VISIT(coroutine->unwinding.details[2]);
    Py_VISIT(coroutine->frame_exception);
    Py_VISIT(coroutine->cm);
    Py_VISIT(coroutine->exit);
    Py_VISIT(coroutine->stop);
    return 0;
}

static int coroutine_clear(Coroutine *coroutine)
{
    finish(coroutine);
    Py_CLEAR(coroutine->stop);
    return 0;
}

static void coroutine_finalize(PyObject *self)
{
    Coroutine *coroutine = (Coroutine *)self;
    PyObject *before, *done = NULL;
    if (coroutine->state == FINISHED)
        return;
    before = PyErr_Occurred() ? dp_take_raised() : NULL;
    if (coroutine->state == CREATED) {
        PyObject *warnings = PyImport_ImportModule("warnings");
        if (warnings != NULL)
            done = PyObject_CallMethod(warnings, "_warn_unawaited_coroutine", "O", self);
        Py_XDECREF(warnings);
        if (done == NULL)
            PyErr_WriteUnraisable(self);
        coroutine->state = FINISHED; /* what it holds goes at its end, and not from in here: chains of them are deep */
    }
    else {
        done = coroutine_close(self, NULL);
        if (done == NULL)
            PyErr_WriteUnraisable(self);
    }
    Py_XDECREF(done);
    if (before != NULL)
        dp_raise(before);
}

/* One that was not awaited to its end, or that the collector has cleared. */
static void coroutine_end(PyObject *self)
{
    Coroutine *coroutine = (Coroutine *)self;
    if (coroutine->weakrefs != NULL) /* made by whoever was told that it was never awaited */
        PyObject_ClearWeakRefs(self);
    coroutine_clear(coroutine);
    PyObject_GC_Del(self);
}

static void coroutine_dealloc(Coroutine *coroutine)
{
    static DP_OF_THREAD dp_endings endings;
    PyObject *self = (PyObject *)coroutine;
    PyObject_GC_UnTrack(self); /* before anybody is told: the collector may run meanwhile */
    if (coroutine->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (!DP_USUALLY(coroutine->state == FINISHED && !PyObject_GC_IsFinalized(self))) {
        dp_end_in_turn(&endings, self, &coroutine->weakrefs, coroutine_end);
        return;
    }
    keep_stop(coroutine); /* it holds nothing else any more */
    if (!keep(&used_coroutines, coroutine)) {
        Py_CLEAR(coroutine->stop);
        PyObject_GC_Del(coroutine);
    }
}

static PyObject *coroutine_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object %s at %p>", QUALNAMES[(int)((Coroutine *)self)->what], self);
}

static PyObject *coroutine_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(QUALNAMES[(int)((Coroutine *)self)->what]);
}

static PyObject *coroutine_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(strchr(QUALNAMES[(int)((Coroutine *)self)->what], '.') + 1);
}

static PyObject *coroutine_get_await(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *inner = ((Coroutine *)self)->inner;
    inner = inner != NULL ? inner : Py_None;
    Py_INCREF(inner);
    return inner;
}

static PyObject *coroutine_get_running(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Coroutine *)self)->running);
}

static PyObject *coroutine_get_suspended(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Coroutine *)self)->state == STARTED && !((Coroutine *)self)->running);
}

static PyObject *coroutine_get_origin(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyMethodDef coroutine_methods[] = {
    {"send", coroutine_send, METH_O, "Goes on with a value, up to the next yield or StopIteration."},
    {"throw", (PyCFunction)(void (*)(void))coroutine_throw, METH_FASTCALL, "Goes on with an exception."},
    {"close", coroutine_close, METH_NOARGS, "Ends it by GeneratorExit."},
    {"__await__", coroutine_await_method, METH_NOARGS, "What `await` iterates over."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef coroutine_getset[] = {
    {"__name__", coroutine_get_name, NULL, NULL, NULL},
    {"__qualname__", coroutine_get_qualname, NULL, NULL, NULL},
    {"cr_await", coroutine_get_await, NULL, "What is being awaited, or None.", NULL},
    {"cr_running", coroutine_get_running, NULL, NULL, NULL},
    {"cr_suspended", coroutine_get_suspended, NULL, NULL, NULL},
    {"cr_origin", coroutine_get_origin, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyAsyncMethods coroutine_as_async = {
    .am_await = coroutine_await,
    .am_send = coroutine_am_send,
};

#ifndef Py_TPFLAGS_HAVE_AM_SEND
#define Py_TPFLAGS_HAVE_AM_SEND 0
#endif

static PyTypeObject Coroutine_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "deferpool._exitstack.coroutine",
    .tp_basicsize = sizeof(Coroutine),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_AM_SEND | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What AsyncExitStack's methods return, to be awaited once. Not for two threads at the same time.",
    .tp_dealloc = (destructor)coroutine_dealloc,
    .tp_finalize = coroutine_finalize,
    .tp_traverse = (traverseproc)coroutine_traverse,
    .tp_clear = (inquiry)coroutine_clear,
    .tp_weaklistoffset = offsetof(Coroutine, weakrefs),
    .tp_repr = coroutine_repr,
    .tp_as_async = &coroutine_as_async,
    .tp_iter = PyObject_SelfIter, /* for `yield from` in a generator of types.coroutine */
    .tp_iternext = coroutine_iternext,
    .tp_methods = coroutine_methods,
    .tp_getset = coroutine_getset,
};

#endif

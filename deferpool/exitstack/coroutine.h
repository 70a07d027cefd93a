/* coroutine.h: what AsyncExitStack's methods return, as Python sees it. */
#ifndef DEFERPOOL_EXITSTACK_COROUTINE_H
#define DEFERPOOL_EXITSTACK_COROUTINE_H

#include "resuming.h"

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

/* One that was not awaited to its end, or of which the collector has known. */
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
    if (!DP_USUALLY(coroutine->stack == NULL && !PyObject_GC_IsFinalized(self))) {
        dp_end_in_turn(&endings, self, &coroutine->weakrefs, coroutine_end);
        return;
    }
    keep_told(coroutine); /* it holds nothing else any more */
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

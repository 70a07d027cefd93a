/* result.h: how a coroutine's result is told to `await`, without a new StopIteration each time. */
#ifndef DEFERPOOL_EXITSTACK_RESULT_H
#define DEFERPOOL_EXITSTACK_RESULT_H

#include "awaiting.h"

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
static inline void set_told(PyObject *stop, PyObject *value)
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
static inline void tell_result(Coroutine *coroutine, PyObject *value)
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
    set_told(coroutine->stop, value);
    Py_INCREF(coroutine->stop);
    PyErr_SetRaisedException(coroutine->stop);
}

/* Before the coroutine is kept for later: so is its StopIteration, without the value. */
static inline void keep_told(Coroutine *coroutine)
{
    if (coroutine->stop == NULL)
        return;
    if (is_reusable(coroutine->stop)) {
        Py_INCREF(Py_None);
        set_told(coroutine->stop, Py_None);
    }
    else
        Py_CLEAR(coroutine->stop);
}
#else
static inline void tell_result(Coroutine *Py_UNUSED(coroutine), PyObject *value)
{
    dp_stop_with(value);
}

static inline void keep_told(Coroutine *Py_UNUSED(coroutine))
{
}
#endif

#endif

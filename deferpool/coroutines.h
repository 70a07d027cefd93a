/* coroutines.h: what `await` does, and how coroutines tell their end, for those that are written in C. */
#ifndef DEFERPOOL_COROUTINES_H
#define DEFERPOOL_COROUTINES_H

#include "interpreter.h"

/* ---- what is awaited ------------------------------------------------------------------------------------------------ */

static inline PyObject *dp_being_awaited(void)
{
    PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
    return NULL;
}

/* A generator of types.coroutine. */
static inline int dp_is_iterable_coroutine(PyObject *object)
{
    int flags;
    if (!PyGen_CheckExact(object))
        return 0;
#if PY_VERSION_HEX >= 0x030C0000
    PyCodeObject *code = PyGen_GetCode((PyGenObject *)object);
    flags = code->co_flags;
    Py_DECREF(code);
#else
    flags = ((PyCodeObject *)((PyGenObject *)object)->gi_code)->co_flags;
#endif
    return flags & CO_ITERABLE_COROUTINE;
}

/* The iterator that `await` would use. Steals the awaitable. */
static inline PyObject *dp_iterator_of(PyObject *awaitable)
{
    PyTypeObject *type = Py_TYPE(awaitable);
    PyObject *iterator = NULL;
    if (DP_USUALLY(PyCoro_CheckExact(awaitable))) {
        if (Py_REFCNT(awaitable) > 1) { /* somebody else may be awaiting it */
            PyObject *inner = PyObject_GetAttrString(awaitable, "cr_await");
            int awaited = inner != Py_None;
            Py_XDECREF(inner);
            if (awaited) {
                Py_DECREF(awaitable);
                return inner == NULL ? NULL : dp_being_awaited();
            }
        }
        return awaitable;
    }
    if (dp_is_iterable_coroutine(awaitable))
        return awaitable;
    if (type->tp_as_async == NULL || type->tp_as_async->am_await == NULL)
#if PY_VERSION_HEX >= 0x030E0000
        PyErr_Format(PyExc_TypeError, "'%.100s' object can't be awaited", type->tp_name);
#else
        PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression", type->tp_name);
#endif
    else {
        iterator = type->tp_as_async->am_await(awaitable);
        if (iterator != NULL && (PyCoro_CheckExact(iterator) || dp_is_iterable_coroutine(iterator))) {
            PyErr_SetString(PyExc_TypeError, "__await__() returned a coroutine");
            Py_CLEAR(iterator);
        }
        else if (iterator != NULL && !PyIter_Check(iterator)) {
            PyErr_Format(PyExc_TypeError, "__await__() returned non-iterator of type '%.100s'", Py_TYPE(iterator)->tp_name);
            Py_CLEAR(iterator);
        }
    }
    Py_DECREF(awaitable);
    return iterator;
}

static inline int dp_can_be_awaited(PyObject *object)
{
    PyAsyncMethods *methods = Py_TYPE(object)->tp_as_async;
    return (methods != NULL && methods->am_await != NULL) || dp_is_iterable_coroutine(object);
}

/* ---- how it ends ---------------------------------------------------------------------------------------------------- */

/* Raises StopIteration(value); steals the value. */
static inline void dp_stop_with(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

/* What throw(), which has given this, comes to as send() would tell it. */
static inline PySendResult dp_thrown_outcome(PyObject **outcome)
{
    PyObject *stop;
    if (*outcome != NULL)
        return PYGEN_NEXT;
    if (PyErr_Occurred() == NULL) {
        *outcome = Py_None;
        Py_INCREF(Py_None);
        return PYGEN_RETURN;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return PYGEN_ERROR;
    stop = dp_take_raised();
    *outcome = ((PyStopIterationObject *)stop)->value;
    if (*outcome == NULL) /* of a subclass whose __init__ does not call it */
        *outcome = Py_None;
    Py_INCREF(*outcome);
    Py_DECREF(stop);
    return PYGEN_RETURN;
}

/* PEP 479: what tells the end of a coroutine must not leave one as an exception; it becomes a RuntimeError. */
static inline void dp_no_stop(PyObject *kind, const char *said)
{
    PyObject *stop, *error;
    if (!PyErr_ExceptionMatches(kind))
        return;
    stop = dp_take_raised();
    PyErr_SetString(PyExc_RuntimeError, said);
    error = dp_take_raised();
    Py_INCREF(stop);
    PyException_SetCause(error, stop);
    PyException_SetContext(error, stop);
    dp_raise(error);
}
#endif

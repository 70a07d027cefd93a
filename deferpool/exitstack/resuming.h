/* resuming.h: how a coroutine goes on: with a value, with an exception, to its end. */
#ifndef DEFERPOOL_EXITSTACK_RESUMING_H
#define DEFERPOOL_EXITSTACK_RESUMING_H

#include "result.h"

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
            tell_result((Coroutine *)self, result);
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

#endif

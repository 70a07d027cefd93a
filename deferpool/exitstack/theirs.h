/* theirs.h: what is contextlib's, and the names that both of us look up. */
#ifndef DEFERPOOL_EXITSTACK_THEIRS_H
#define DEFERPOOL_EXITSTACK_THEIRS_H

#include "../interpreter.h"

static PyObject *name_enter, *name_exit, *name_aenter, *name_aexit, *name_append, *name_pop, *name_wrapped,
    *name_exit_callbacks, *name_throw, *name_close;

/* contextlib's own functions, for all that is unusual; and its private ones as they are in its classes. */
static struct {
    PyObject *init, *callback, *push, *enter_context, *pop_all, *close, *push_async_exit, *push_async_callback;
    PyObject *enter_async_context, *create_cb_wrapper, *create_async_cb_wrapper, *deque, *empty;
} theirs;
static PyObject *private_names, *private_values; /* tuples */

static int get(PyObject *object, const char *name, PyObject **place)
{
    *place = PyObject_GetAttrString(object, name);
    return *place == NULL ? -1 : 0;
}

static int intern(const char *text, PyObject **place)
{
    *place = PyUnicode_InternFromString(text);
    return *place == NULL ? -1 : 0;
}

#endif

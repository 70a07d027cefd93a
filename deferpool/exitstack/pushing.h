/* pushing.h: the methods that push, and pop_all. */
#ifndef DEFERPOOL_EXITSTACK_PUSHING_H
#define DEFERPOOL_EXITSTACK_PUSHING_H

#include "life.h"

/* contextlib's own function with the same arguments. */
static DP_RARELY PyObject *their_way(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *names)
{
    Py_ssize_t total = nargs + (names ? PyTuple_GET_SIZE(names) : 0);
    PyObject *result, **all = PyMem_Malloc((total + 1) * sizeof(PyObject *));
    if (all == NULL)
        return PyErr_NoMemory();
    all[0] = self;
    if (total)
        memcpy(all + 1, args, total * sizeof(PyObject *));
    result = PyObject_Vectorcall(function, all, nargs + 1, names);
    PyMem_Free(all);
    return result;
}

/* type.name as Python finds it. 1 and a new reference; 0 when there is none; -1 with an error. */
static inline int find(PyTypeObject *type, PyObject *name, PyObject **found)
{
    PyTypeObject *meta = Py_TYPE(type);
    if (DP_USUALLY(meta->tp_getattro == PyType_Type.tp_getattro)) {
        PyObject *above = meta == &PyType_Type ? NULL : dp_in_type(meta, name);
        if (DP_USUALLY(above == NULL)) {
            PyObject *attribute = dp_in_type(type, name);
            descrgetfunc get;
            *found = attribute;
            if (attribute == NULL)
                return 0;
            if (DP_USUALLY(Py_IS_TYPE(attribute, &PyFunction_Type) || Py_IS_TYPE(attribute, &PyMethodDescr_Type)))
                return 1; /* looked up in a class these are themselves */
            get = Py_TYPE(attribute)->tp_descr_get;
            if (get == NULL)
                return 1;
            *found = get(attribute, NULL, (PyObject *)type);
            Py_DECREF(attribute);
            if (*found != NULL)
                return 1;
            goto failed;
        }
        Py_DECREF(above);
    }
    *found = PyObject_GetAttr((PyObject *)type, name);
    if (*found != NULL)
        return 1;
failed:
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return 0;
}

static inline PyObject *push_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                                      unsigned awaited, PyObject *their)
{
    PyObject *called = nargs ? args[0] : NULL;
    int pushed;
    if (DP_USUALLY(names == NULL && nargs >= 1 && nargs <= 3))
        pushed = push_entry((Stack *)self, CALLBACK | awaited, (unsigned)nargs - 1, called, nargs > 1 ? args[1] : NULL,
                            nargs > 2 ? args[2] : NULL);
    else if (nargs == 0)
        pushed = 1;
    else {
        Py_ssize_t i, total = nargs - 1 + (names ? PyTuple_GET_SIZE(names) : 0);
        PyObject *values = PyTuple_New(total);
        if (values == NULL)
            return NULL;
        for (i = 0; i < total; i++) {
            Py_INCREF(args[i + 1]);
            PyTuple_SET_ITEM(values, i, args[i + 1]);
        }
        pushed = push_entry((Stack *)self, CALLBACKS | awaited, 0, called, values, names);
        Py_DECREF(values);
    }
    if (DP_USUALLY(pushed == 0)) {
        Py_INCREF(called);
        return called;
    }
    return pushed < 0 ? NULL : their_way(their, self, args, nargs, names);
}

static PyObject *stack_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return push_callback(self, args, nargs, names, 0, theirs.callback);
}

static PyObject *stack_push_async_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return push_callback(self, args, nargs, names, AWAITED, theirs.push_async_callback);
}

/* The __exit__ of an object's class. As push_entry; what cannot be called cannot be bound either. */
static inline int push_method(Stack *stack, unsigned awaited, PyObject *method, PyObject *self)
{
    if (DP_USUALLY(dp_is_callable(method)))
        return push_entry(stack, METHOD | awaited, 0, method, self, NULL);
    PyErr_SetString(PyExc_TypeError, "first argument must be callable");
    return -1;
}

static inline PyObject *push_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                                  unsigned awaited, PyObject *name, PyObject *their)
{
    PyObject *exit, *method;
    int found, pushed;
    if (!DP_USUALLY(nargs == 1 && names == NULL && ((Stack *)self)->deque == NULL))
        return their_way(their, self, args, nargs, names);
    exit = args[0];
    found = find(Py_TYPE(exit), name, &method);
    if (found < 0)
        return NULL;
    if (found) {
        pushed = push_method((Stack *)self, awaited, method, exit);
        Py_DECREF(method);
    }
    else
        pushed = push_entry((Stack *)self, FUNCTION | awaited, 0, exit, NULL, NULL);
    if (DP_USUALLY(pushed == 0)) {
        Py_INCREF(exit);
        return exit;
    }
    return pushed < 0 ? NULL : their_way(their, self, args, nargs, names);
}

static PyObject *stack_push(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return push_exit(self, args, nargs, names, 0, name_exit, theirs.push);
}

static PyObject *stack_push_async_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return push_exit(self, args, nargs, names, AWAITED, name_aexit, theirs.push_async_exit);
}

/* self.name(cm, method) of contextlib's, for a stack that has become a deque while a context was entered. */
static DP_RARELY int push_their_way(PyObject *self, const char *name, PyObject *cm, PyObject *method)
{
    PyObject *done = PyObject_CallMethod(self, name, "OO", cm, method);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *stack_enter_context(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *cm, *enter, *exit = NULL, *result;
    int found, pushed;
    if (!DP_USUALLY(nargs == 1 && names == NULL && ((Stack *)self)->deque == NULL))
        return their_way(theirs.enter_context, self, args, nargs, names);
    cm = args[0];
    found = find(Py_TYPE(cm), name_enter, &enter);
    if (found > 0) {
        found = find(Py_TYPE(cm), name_exit, &exit);
        if (found <= 0)
            Py_DECREF(enter);
    }
    if (found <= 0) /* no context manager: the error is contextlib's */
        return found < 0 ? NULL : their_way(theirs.enter_context, self, args, nargs, names);
    {
        PyObject *self_of_it[2];
        self_of_it[0] = NULL;
        self_of_it[1] = cm;
        result = dp_call(enter, self_of_it + 1, 1 | OFFSET, NULL);
    }
    Py_DECREF(enter);
    if (DP_USUALLY(result != NULL)) {
        pushed = push_method((Stack *)self, 0, exit, cm);
        if (pushed > 0)
            pushed = push_their_way(self, "_push_cm_exit", cm, exit);
        if (pushed < 0)
            Py_CLEAR(result);
    }
    Py_DECREF(exit);
    return result;
}

static PyObject *stack_pop_all(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Stack *stack = (Stack *)self, *other, before;
    PyObject *made;
    if (nargs || names != NULL || stack->deque != NULL)
        return their_way(theirs.pop_all, self, args, nargs, names);
    made = PyObject_CallNoArgs((PyObject *)Py_TYPE(self));
    if (made == NULL)
        return NULL;
    if (!is_stack(made) || stack->deque != NULL) {
        PyObject *deque = get_exit_callbacks(stack, NULL), *empty = PyObject_CallNoArgs(theirs.deque);
        int failed = deque == NULL || empty == NULL || PyObject_SetAttr(made, name_exit_callbacks, deque) < 0 ||
                     set_exit_callbacks(stack, empty, NULL) < 0;
        Py_XDECREF(deque);
        Py_XDECREF(empty);
        if (failed)
            Py_CLEAR(made);
        return made;
    }
    other = (Stack *)made;
    {
        Entry *entries;
        Py_ssize_t count, room;
        lock(stack);
        entries = stack->entries;
        count = stack->count;
        room = stack->room;
        stack->entries = NULL;
        stack->count = stack->room = 0;
        unlock(stack);
        lock(other);
        before.deque = other->deque;
        before.entries = other->entries;
        before.count = other->count;
        other->deque = NULL;
        other->entries = entries;
        other->count = count;
        other->room = room;
        unlock(other);
    }
    drop_all(before.entries, before.count); /* what its __init__ has pushed is lost, as in contextlib */
    Py_XDECREF(before.deque);
    return made;
}

#endif

/* deque.h: a stack in contextlib's shape. */
#ifndef DEFERPOOL_EXITSTACK_DEQUE_H
#define DEFERPOOL_EXITSTACK_DEQUE_H

#include "stack.h"

/* The pair that contextlib would have pushed. */
static PyObject *as_pair(Entry *entry)
{
    PyObject *wrapper, *pair;
    int awaited = entry->kind & AWAITED;
    switch (entry->kind & KIND) {
    case FUNCTION:
        wrapper = entry->call;
        Py_INCREF(wrapper);
        break;
    case METHOD:
        wrapper = PyMethod_New(entry->call, entry->a);
        break;
    default: {
        PyObject *create = awaited ? theirs.create_async_cb_wrapper : theirs.create_cb_wrapper;
        PyObject *few[3], **args = few;
        PyObject *names = entry->kind & CALLBACKS & KIND ? entry->b : NULL;
        Py_ssize_t i, total = entry->nargs, named = names ? PyTuple_GET_SIZE(names) : 0;
        if ((entry->kind & KIND) == CALLBACKS) {
            total = PyTuple_GET_SIZE(entry->a);
            args = PyMem_Malloc((total + 1) * sizeof(PyObject *));
            if (args == NULL)
                return PyErr_NoMemory();
            for (i = 0; i < total; i++)
                args[i + 1] = PyTuple_GET_ITEM(entry->a, i);
        }
        else {
            args[1] = entry->a;
            args[2] = entry->b;
        }
        args[0] = entry->call;
        wrapper = PyObject_Vectorcall(create, args, total - named + 1, names);
        if (args != few)
            PyMem_Free(args);
        if (wrapper != NULL && PyObject_SetAttr(wrapper, name_wrapped, entry->call) < 0)
            Py_CLEAR(wrapper);
    }
    }
    if (wrapper == NULL)
        return NULL;
    pair = PyTuple_Pack(2, awaited ? Py_False : Py_True, wrapper);
    Py_DECREF(wrapper);
    return pair;
}

/* Turns the stack into a deque, if it is none yet. 0, or -1 with an error. */
static DP_RARELY int to_deque(Stack *stack)
{
    for (;;) {
        PyObject *deque, *pair, *done;
        Entry entry, *entries = NULL;
        Py_ssize_t i, count;
        deque = PyObject_CallNoArgs(theirs.deque);
        for (i = 0; deque != NULL; i++) {
            lock(stack);
            if (stack->deque != NULL || i >= stack->count) {
                unlock(stack);
                break;
            }
            entry = stack->entries[i];
            Py_INCREF(entry.call);
            Py_XINCREF(entry.a);
            Py_XINCREF(entry.b);
            unlock(stack);
            pair = as_pair(&entry);
            drop(&entry);
            done = pair == NULL ? NULL : PyObject_CallMethodOneArg(deque, name_append, pair);
            Py_XDECREF(pair);
            if (done == NULL)
                Py_CLEAR(deque);
            Py_XDECREF(done);
        }
        if (deque == NULL)
            return -1;
        lock(stack);
        count = stack->count;
        if (stack->deque == NULL && count == i) {
            stack->deque = deque;
            deque = NULL;
            entries = stack->entries;
            stack->entries = NULL;
            stack->count = stack->room = 0;
        }
        i = stack->deque != NULL;
        unlock(stack);
        Py_XDECREF(deque);
        if (entries != NULL)
            drop_all(entries, count);
        if (i)
            return 0; /* else another thread has pushed or popped meanwhile */
    }
}

static PyObject *get_exit_callbacks(Stack *stack, void *Py_UNUSED(closure))
{
    PyObject *deque;
    if (to_deque(stack) < 0)
        return NULL;
    lock(stack);
    deque = stack->deque;
    Py_XINCREF(deque);
    unlock(stack);
    return deque != NULL ? deque : PyObject_CallNoArgs(theirs.deque); /* none: another thread has just emptied it */
}

/* Drops all that the stack has, for this deque or, NULL, for nothing. Steals the deque. */
static void replace_all(Stack *stack, PyObject *deque)
{
    PyObject *before;
    Entry *entries;
    Py_ssize_t count;
    lock(stack);
    before = stack->deque;
    entries = stack->entries;
    count = stack->count;
    stack->deque = deque;
    stack->entries = NULL;
    stack->count = stack->room = 0;
    unlock(stack);
    drop_all(entries, count);
    Py_XDECREF(before);
}

static int set_exit_callbacks(Stack *stack, PyObject *deque, void *Py_UNUSED(closure))
{
    if (deque == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_exit_callbacks cannot be deleted");
        return -1;
    }
    Py_INCREF(deque);
    replace_all(stack, deque);
    return 0;
}

/* Whether a subclass has its own idea of what contextlib's classes call when something is pushed. */
static int is_overridden(PyTypeObject *type)
{
    Py_ssize_t i;
    for (i = 0; i < PyTuple_GET_SIZE(private_names); i++) {
        PyObject *found = dp_in_type(type, PyTuple_GET_ITEM(private_names, i));
        int same = found == NULL || found == PyTuple_GET_ITEM(private_values, i);
        Py_XDECREF(found);
        if (!same)
            return 1;
    }
    return 0;
}

#endif

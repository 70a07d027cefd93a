/* stack.h: a stack, and its entries: pushed, popped, called. */
#ifndef DEFERPOOL_EXITSTACK_STACK_H
#define DEFERPOOL_EXITSTACK_STACK_H

#include "kept.h"
#include "theirs.h"

#define OFFSET PY_VECTORCALL_ARGUMENTS_OFFSET

enum {
    CALLBACK,  /* call(), call(a) or call(a, b); what it returns means nothing */
    CALLBACKS, /* the same with a tuple of arguments, a, and the names of the last ones, b or NULL */
    METHOD,    /* call(a, type, value, traceback): the __exit__ of a's class */
    FUNCTION,  /* call(type, value, traceback) */
    KIND = 7,
    AWAITED = 8 /* besides: the result is awaited */
};

typedef struct {
    unsigned kind, nargs;
    PyObject *call, *a, *b;
} Entry;

typedef struct {
    PyObject_HEAD
    PyObject *dict, *weakrefs;
    PyObject *deque; /* contextlib's own shape of it, once it is asked for */
    Entry *entries;
    Py_ssize_t count, room;
#ifdef Py_GIL_DISABLED
    int busy;
#endif
} Stack;

#define KEPT_ROOM 64 /* a used stack with more room for entries is not kept */

static PyTypeObject Stack_Type, Coroutine_Type;
static PyTypeObject *Sync, *Async; /* ExitStack, AsyncExitStack */
static Kept used_stacks, used_coroutines;

static inline int is_stack(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    return type == Sync || type == Async || PyType_IsSubtype(type, &Stack_Type);
}

/* Without the GIL a stack that several threads use must not break; a lock is held for a few moves of pointers, and
 * nothing in between can run Python code or stop. */
static inline void lock(Stack *stack)
{
#ifdef Py_GIL_DISABLED
    while (_Py_atomic_exchange_int(&stack->busy, 1)) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
#else
    (void)stack;
#endif
}

static inline void unlock(Stack *stack)
{
#ifdef Py_GIL_DISABLED
    _Py_atomic_store_int_release(&stack->busy, 0);
#else
    (void)stack;
#endif
}

static inline void drop(Entry *entry)
{
    Py_DECREF(entry->call);
    Py_XDECREF(entry->a);
    Py_XDECREF(entry->b);
}

static void drop_all(Entry *entries, Py_ssize_t count)
{
    while (count)
        drop(&entries[--count]);
    PyMem_RawFree(entries);
}

static DP_RARELY int grow(Stack *stack)
{
    Py_ssize_t room = stack->room ? stack->room * 2 : 8;
    Entry *entries = PyMem_RawRealloc(stack->entries, room * sizeof(Entry));
    if (entries == NULL)
        return -1;
    stack->entries = entries;
    stack->room = room;
    return 0;
}

/* 0 when it is pushed; 1 when the stack is a deque, to be pushed on by contextlib's own function; -1 with an error. */
static inline int push_entry(Stack *stack, unsigned kind, unsigned nargs, PyObject *called, PyObject *a, PyObject *b)
{
    Entry *entry;
    lock(stack);
    if (stack->deque != NULL) {
        unlock(stack);
        return 1;
    }
    if (stack->count == stack->room && grow(stack) < 0) {
        unlock(stack);
        PyErr_NoMemory();
        return -1;
    }
    entry = &stack->entries[stack->count++];
    entry->kind = kind;
    entry->nargs = nargs;
    entry->call = called;
    entry->a = a;
    entry->b = b;
    Py_INCREF(called);
    Py_XINCREF(a);
    Py_XINCREF(b);
    unlock(stack);
    return 0;
}

/* `is_sync, cb = self._exit_callbacks.pop()`, for `while self._exit_callbacks`. Steals the deque. */
static DP_RARELY int pop_pair(PyObject *deque, Entry *entry)
{
    PyObject *pair, *items = NULL;
    int is_sync, found = PyObject_IsTrue(deque);
    if (found > 0) {
        found = -1;
        pair = PyObject_CallMethodNoArgs(deque, name_pop);
        items = pair == NULL ? NULL : PySequence_Tuple(pair);
        Py_XDECREF(pair);
        if (items != NULL && PyTuple_GET_SIZE(items) != 2)
            PyErr_SetString(PyExc_ValueError, "an exit callback must be a pair (is_sync, callback)");
        else if (items != NULL && (is_sync = PyObject_IsTrue(PyTuple_GET_ITEM(items, 0))) >= 0) {
            entry->kind = FUNCTION | (is_sync ? 0 : AWAITED);
            entry->nargs = 0;
            entry->call = PyTuple_GET_ITEM(items, 1);
            Py_INCREF(entry->call);
            entry->a = entry->b = NULL;
            found = 1;
        }
        Py_XDECREF(items);
    }
    Py_DECREF(deque);
    return found;
}

/* 1 when there is one; 0 when there is none left; -1 with an error. */
static inline int pop_entry(Stack *stack, Entry *entry)
{
    PyObject *deque;
    lock(stack);
    if (DP_USUALLY(stack->deque == NULL)) {
        if (stack->count == 0) {
            unlock(stack);
            return 0;
        }
        *entry = stack->entries[--stack->count];
        unlock(stack);
        return 1;
    }
    deque = stack->deque;
    Py_INCREF(deque);
    unlock(stack);
    return pop_pair(deque, entry);
}

static PyObject *call_callback(Entry *entry)
{
    PyObject *args[3];
    if (entry->kind & CALLBACKS) {
        Py_ssize_t names = entry->b ? PyTuple_GET_SIZE(entry->b) : 0;
        return dp_call(entry->call, ((PyTupleObject *)entry->a)->ob_item, PyTuple_GET_SIZE(entry->a) - names, entry->b);
    }
    args[0] = NULL;
    args[1] = entry->a;
    args[2] = entry->b;
    return dp_call(entry->call, args + 1, entry->nargs | OFFSET, NULL);
}

static inline PyObject *call_exit(Entry *entry, PyObject *const *details)
{
    PyObject *args[5];
    args[0] = NULL;
    args[1] = entry->a;
    args[2] = details[0];
    args[3] = details[1];
    args[4] = details[2];
    if ((entry->kind & KIND) == METHOD)
        return dp_call(entry->call, args + 1, 4 | OFFSET, NULL);
    return dp_call(entry->call, args + 2, 3 | OFFSET, NULL);
}

#endif

/* life.h: how a stack begins and ends. */
#ifndef DEFERPOOL_EXITSTACK_LIFE_H
#define DEFERPOOL_EXITSTACK_LIFE_H

#include "deque.h"

static PyObject *stack_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Stack *stack;
    int exact = type == Sync || type == Async;
    if (DP_USUALLY(exact && (stack = take_kept(&used_stacks)) != NULL)) {
        PyObject_Init((PyObject *)stack, type);
        PyObject_GC_Track(stack);
        return (PyObject *)stack;
    }
    if (type == &Stack_Type || PyType_HasFeature(type, Py_TPFLAGS_IS_ABSTRACT)) {
        if (type != &Stack_Type)
            return PyBaseObject_Type.tp_new(type, theirs.empty, NULL);
        PyErr_SetString(PyExc_TypeError, "cannot create '_BaseExitStack' instances");
        return NULL;
    }
    stack = (Stack *)type->tp_alloc(type, 0);
    if (stack != NULL && !exact && is_overridden(type) && to_deque(stack) < 0)
        Py_CLEAR(stack);
    return (PyObject *)stack;
}

static int stack_init(Stack *stack, PyObject *args, PyObject *kwargs)
{
    PyObject *deque;
    int given = PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0);
    if (DP_USUALLY(!given && stack->count == 0 && stack->deque == NULL))
        return 0;
    if (given) {
        Py_ssize_t i, n = PyTuple_GET_SIZE(args);
        PyObject *all = PyTuple_New(n + 1), *done = NULL;
        if (all != NULL) {
            Py_INCREF(stack);
            PyTuple_SET_ITEM(all, 0, (PyObject *)stack);
            for (i = 0; i < n; i++) {
                PyObject *arg = PyTuple_GET_ITEM(args, i);
                Py_INCREF(arg);
                PyTuple_SET_ITEM(all, i + 1, arg);
            }
            done = PyObject_Call(theirs.init, all, kwargs); /* the error of wrong arguments */
            Py_DECREF(all);
        }
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    deque = PyObject_CallNoArgs(theirs.deque); /* called again: what it had is forgotten */
    if (deque == NULL)
        return -1;
    replace_all(stack, deque);
    return 0;
}

/* How Python 3.12 and later call the two classes. */
static PyObject *stack_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *names)
{
    PyTypeObject *made = (PyTypeObject *)type;
    Py_ssize_t i, nargs = PyVectorcall_NARGS(nargsf);
    PyObject *positional, *named = NULL, *result = NULL;
    if (DP_USUALLY(nargs == 0 && names == NULL && made->tp_new == stack_new && made->tp_init == (initproc)stack_init))
        return stack_new(made, NULL, NULL);
    positional = PyTuple_New(nargs);
    if (positional == NULL)
        return NULL;
    for (i = 0; i < nargs; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(positional, i, args[i]);
    }
    if (names == NULL || (named = PyDict_New()) != NULL) {
        for (i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++)
            if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), args[nargs + i]) < 0)
                break;
        if (names == NULL || i == PyTuple_GET_SIZE(names))
            result = PyType_Type.tp_call(type, positional, named);
    }
    Py_XDECREF(named);
    Py_DECREF(positional);
    return result;
}

static int stack_traverse(Stack *stack, visitproc visit, void *arg)
{
    Py_ssize_t i;
    Py_VISIT(stack->dict);
    Py_VISIT(stack->deque);
    for (i = 0; i < stack->count; i++) {
        Py_VISIT(stack->entries[i].call);
        Py_VISIT(stack->entries[i].a);
        Py_VISIT(stack->entries[i].b);
    }
    Py_VISIT(Py_TYPE(stack)); /* for subclasses too: Python leaves it to the base class that is a heap type */
    return 0;
}

static int stack_clear(Stack *stack)
{
    replace_all(stack, NULL);
    Py_CLEAR(stack->dict);
    return 0;
}

static inline void stack_release(Stack *stack)
{
    PyTypeObject *type = Py_TYPE(stack);
    if (!DP_USUALLY((type == Sync || type == Async) && stack->room <= KEPT_ROOM && keep(&used_stacks, stack))) {
        PyMem_RawFree(stack->entries);
        type->tp_free(stack);
    }
    Py_DECREF(type); /* a heap type, always: see stack_new */
}

static void stack_end(PyObject *self)
{
    stack_clear((Stack *)self);
    stack_release((Stack *)self);
}

static void stack_dealloc(Stack *stack)
{
    static DP_OF_THREAD dp_endings endings;
    PyObject_GC_UnTrack(stack);
    if (DP_USUALLY(stack->weakrefs == NULL && stack->count == 0 && stack->dict == NULL && stack->deque == NULL)) {
        stack_release(stack);
        return;
    }
    if (stack->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)stack);
    dp_end_in_turn(&endings, (PyObject *)stack, &stack->weakrefs, stack_end);
}

#endif

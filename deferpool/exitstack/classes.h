/* classes.h: the classes get their methods. */
#ifndef DEFERPOOL_EXITSTACK_CLASSES_H
#define DEFERPOOL_EXITSTACK_CLASSES_H

#include "functions.h"

#define FAST (METH_FASTCALL | METH_KEYWORDS)
#define AS_FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef both_methods[] = {
    {"callback", AS_FAST(stack_callback), FAST,
     "callback($self, callback, /, *args, **kwds)\n--\n\nRegisters a callback with its arguments, and returns it.\n\n"
     "It cannot suppress exceptions."},
    {"push", AS_FAST(stack_push), FAST,
     "push($self, /, exit)\n--\n\nRegisters an object with an __exit__ method, or a function with its signature, and "
     "returns it.\n\nThe object is not entered. It can suppress exceptions as __exit__ can."},
    {"enter_context", AS_FAST(stack_enter_context), FAST,
     "enter_context($self, /, cm)\n--\n\nEnters a context manager, registers its __exit__ and returns what __enter__ "
     "has returned."},
    {"pop_all", AS_FAST(stack_pop_all), FAST,
     "pop_all($self, /)\n--\n\nMoves all callbacks to a new stack, and returns that. None is called."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef sync_methods[] = {
    {"close", AS_FAST(stack_close), FAST, "close($self, /)\n--\n\nUnwinds the stack now."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef async_methods[] = {
    {"push_async_exit", AS_FAST(stack_push_async_exit), FAST,
     "push_async_exit($self, /, exit)\n--\n\nRegisters an object with an __aexit__ method, or a coroutine function with "
     "its signature, and returns it.\n\nThe object is not entered. It can suppress exceptions as __aexit__ can."},
    {"push_async_callback", AS_FAST(stack_push_async_callback), FAST,
     "push_async_callback($self, callback, /, *args, **kwds)\n--\n\nRegisters a coroutine function with its arguments, "
     "and returns it.\n\nIt cannot suppress exceptions."},
    {NULL, NULL, 0, NULL},
};

/* Steals the method, which may be NULL with an error. All threads look it up: nobody counts who does. */
static int add(PyTypeObject *type, const char *name, PyObject *method)
{
    int failed = method == NULL || PyObject_SetAttrString((PyObject *)type, name, method) < 0;
    if (!failed)
        dp_make_immortal(method);
    Py_XDECREF(method);
    return failed ? -1 : 0;
}

static int add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (; methods->ml_name != NULL; methods++)
        if (add(type, methods->ml_name, PyDescr_NewMethod(type, methods)) < 0)
            return -1;
    return 0;
}

/* Takes the place of contextlib's function of that name. */
static int add_function(PyTypeObject *type, PyObject *their_class, const char *name, vectorcallfunc vectorcall)
{
    Function *function = PyObject_GC_New(Function, &Function_Type);
    if (function == NULL)
        return -1;
    function->vectorcall = vectorcall;
    function->weakrefs = NULL;
    function->their = PyObject_GetAttrString(their_class, name);
    PyObject_GC_Track(function);
    if (function->their == NULL) {
        Py_DECREF(function);
        return -1;
    }
    return add(type, name, (PyObject *)function);
}

/* The class from which both are derived. */
static PyObject *exitstack_base(void)
{
    if (PyType_Ready(&Stack_Type) < 0 || PyType_Ready(&Coroutine_Type) < 0 || PyType_Ready(&Function_Type) < 0)
        return NULL;
    Py_INCREF(&Stack_Type);
    return (PyObject *)&Stack_Type;
}

/* What a subclass would have inherited anyway, without the detours that Python takes for a class written in Python. */
static void make_fast(PyTypeObject *type)
{
    type->tp_dealloc = (destructor)stack_dealloc;
    type->tp_traverse = (traverseproc)stack_traverse;
    type->tp_clear = (inquiry)stack_clear;
    type->tp_new = stack_new;
    type->tp_init = (initproc)stack_init;
#if PY_VERSION_HEX >= 0x030C0000
    type->tp_vectorcall = stack_vectorcall;
#else
    (void)stack_vectorcall;
#endif
    dp_make_immortal((PyObject *)type);
}

/* Gives the two classes their methods; names and values are contextlib's private ones. 0, or -1 with an error. */
static int exitstack_finish(PyObject *sync, PyObject *async, PyObject *their_sync, PyObject *their_async,
                            PyObject *deque, PyObject *names, PyObject *values)
{
    if (((PyTypeObject *)sync)->tp_basicsize != sizeof(Stack) || ((PyTypeObject *)async)->tp_basicsize != sizeof(Stack)) {
        PyErr_SetString(PyExc_SystemError, "ExitStack and AsyncExitStack must not add to their base class");
        return -1;
    }
    Py_INCREF(deque);
    theirs.deque = deque;
    Py_INCREF(names);
    private_names = names;
    Py_INCREF(values);
    private_values = values;
    theirs.empty = PyTuple_New(0);
    if (theirs.empty == NULL || intern("__enter__", &name_enter) < 0 || intern("__exit__", &name_exit) < 0 ||
        intern("__aenter__", &name_aenter) < 0 || intern("__aexit__", &name_aexit) < 0 ||
        intern("append", &name_append) < 0 || intern("pop", &name_pop) < 0 || intern("throw", &name_throw) < 0 ||
        intern("close", &name_close) < 0 || intern("__wrapped__", &name_wrapped) < 0 ||
        intern("_exit_callbacks", &name_exit_callbacks) < 0)
        return -1;
    if (get(their_sync, "__init__", &theirs.init) < 0 || get(their_sync, "callback", &theirs.callback) < 0 ||
        get(their_sync, "push", &theirs.push) < 0 || get(their_sync, "enter_context", &theirs.enter_context) < 0 ||
        get(their_sync, "pop_all", &theirs.pop_all) < 0 || get(their_sync, "close", &theirs.close) < 0 ||
        get(their_async, "push_async_exit", &theirs.push_async_exit) < 0 ||
        get(their_async, "push_async_callback", &theirs.push_async_callback) < 0 ||
        get(their_async, "enter_async_context", &theirs.enter_async_context) < 0 ||
        get(their_sync, "_create_cb_wrapper", &theirs.create_cb_wrapper) < 0 ||
        get(their_async, "_create_async_cb_wrapper", &theirs.create_async_cb_wrapper) < 0)
        return -1;
    Py_INCREF(sync);
    Sync = (PyTypeObject *)sync;
    Py_INCREF(async);
    Async = (PyTypeObject *)async;
    if (add_methods(Sync, both_methods) < 0 || add_methods(Async, both_methods) < 0 ||
        add_methods(Sync, sync_methods) < 0 || add_methods(Async, async_methods) < 0 ||
        add_function(Sync, their_sync, "__enter__", enter_vectorcall) < 0 ||
        add_function(Sync, their_sync, "__exit__", exit_vectorcall) < 0 ||
        add_function(Async, their_async, "__aenter__", aenter_vectorcall) < 0 ||
        add_function(Async, their_async, "__aexit__", aexit_vectorcall) < 0 ||
        add_function(Async, their_async, "aclose", aclose_vectorcall) < 0 ||
        add_function(Async, their_async, "enter_async_context", enter_async_vectorcall) < 0)
        return -1;
    make_fast(Sync);
    make_fast(Async);
    Stack_Type.tp_flags &= ~Py_TPFLAGS_BASETYPE;
    return 0;
}

#endif

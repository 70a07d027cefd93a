/* functions.h: methods that look like contextlib's. */
#ifndef DEFERPOOL_EXITSTACK_FUNCTIONS_H
#define DEFERPOOL_EXITSTACK_FUNCTIONS_H

#include "coroutine.h"

/* A function in a class. It binds like a Python function; all that it is asked for besides being called, its code
 * with the flag of coroutine functions included, it has from the function of contextlib whose place it takes. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *their;
    PyObject *weakrefs;
} Function;

static PyTypeObject Function_Type;

static PyObject *exit_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (DP_USUALLY(PyVectorcall_NARGS(nargsf) == 4 && names == NULL && is_stack(args[0]) &&
                  (args[2] == Py_None || PyExceptionInstance_Check(args[2]))))
        return unwind((Stack *)args[0], args + 1);
    return PyObject_Vectorcall(((Function *)self)->their, args, nargsf, names);
}

static PyObject *enter_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (DP_USUALLY(PyVectorcall_NARGS(nargsf) == 1 && names == NULL)) {
        Py_INCREF(args[0]);
        return args[0];
    }
    return PyObject_Vectorcall(((Function *)self)->their, args, nargsf, names);
}

static PyObject *aexit_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (DP_USUALLY(PyVectorcall_NARGS(nargsf) == 4 && names == NULL && is_stack(args[0]) &&
                  (args[2] == Py_None || PyExceptionInstance_Check(args[2])))) {
        PyObject *coroutine = coroutine_new(AEXIT, args[0]);
        if (coroutine != NULL) {
            start_unwinding(&((Coroutine *)coroutine)->unwinding, args + 1);
            PyObject_GC_Track(coroutine);
        }
        return coroutine;
    }
    return PyObject_Vectorcall(((Function *)self)->their, args, nargsf, names);
}

static inline PyObject *simple_coroutine(int what, PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (DP_USUALLY(PyVectorcall_NARGS(nargsf) == 1 && names == NULL && is_stack(args[0]))) {
        PyObject *coroutine = coroutine_new(what, args[0]);
        if (coroutine != NULL)
            PyObject_GC_Track(coroutine);
        return coroutine;
    }
    return PyObject_Vectorcall(((Function *)self)->their, args, nargsf, names);
}

static PyObject *aenter_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    return simple_coroutine(AENTER, self, args, nargsf, names);
}

static PyObject *aclose_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    return simple_coroutine(ACLOSE, self, args, nargsf, names);
}

static PyObject *enter_async_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (DP_USUALLY(PyVectorcall_NARGS(nargsf) == 2 && names == NULL && is_stack(args[0]) &&
                  ((Stack *)args[0])->deque == NULL)) {
        PyObject *coroutine = coroutine_new(ENTER_ASYNC, args[0]);
        if (coroutine != NULL) {
            Py_INCREF(args[1]);
            ((Coroutine *)coroutine)->cm = args[1];
            PyObject_GC_Track(coroutine);
        }
        return coroutine;
    }
    return PyObject_Vectorcall(((Function *)self)->their, args, nargsf, names);
}

static PyObject *function_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    if (object == NULL || object == Py_None) {
        Py_INCREF(self);
        return self;
    }
    return PyMethod_New(self, object);
}

static PyObject *function_getattro(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return found;
    PyErr_Clear();
    return PyObject_GetAttr(((Function *)self)->their, name);
}

static PyObject *function_repr(PyObject *self)
{
    return PyObject_Repr(((Function *)self)->their);
}

static PyObject *function_get_doc(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(((Function *)self)->their, "__doc__");
}

/* A class's function is pickled and copied by its name, as every function is. */
static PyObject *function_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(((Function *)self)->their, "__qualname__");
}

static int function_traverse(Function *function, visitproc visit, void *arg)
{
    Py_VISIT(function->their);
    return 0;
}

static int function_clear(Function *function)
{
    Py_CLEAR(function->their);
    return 0;
}

static void function_dealloc(Function *function)
{
    PyObject_GC_UnTrack(function);
    if (function->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)function);
    function_clear(function);
    PyObject_GC_Del(function);
}

static PyMethodDef function_methods[] = {
    {"__reduce__", function_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef function_getset[] = {
    {"__doc__", function_get_doc, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Function_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "deferpool._exitstack.function",
    .tp_basicsize = sizeof(Function),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)function_dealloc,
    .tp_traverse = (traverseproc)function_traverse,
    .tp_clear = (inquiry)function_clear,
    .tp_weaklistoffset = offsetof(Function, weakrefs),
    .tp_vectorcall_offset = offsetof(Function, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = function_get,
    .tp_getattro = function_getattro,
    .tp_repr = function_repr,
    .tp_methods = function_methods,
    .tp_getset = function_getset,
};

static PyGetSetDef stack_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_exit_callbacks", (getter)get_exit_callbacks, (setter)set_exit_callbacks,
     "contextlib's deque of pairs (is_sync, callback).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Stack_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "deferpool._exitstack._BaseExitStack",
    .tp_basicsize = sizeof(Stack),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_doc = "_BaseExitStack()\n--\n\nWhat ExitStack and AsyncExitStack are both derived from.", /* their signature */
    .tp_new = stack_new,
    .tp_init = (initproc)stack_init,
    .tp_dealloc = (destructor)stack_dealloc,
    .tp_traverse = (traverseproc)stack_traverse,
    .tp_clear = (inquiry)stack_clear,
    .tp_dictoffset = offsetof(Stack, dict),
    .tp_weaklistoffset = offsetof(Stack, weakrefs),
    .tp_getset = stack_getset,
};

#endif

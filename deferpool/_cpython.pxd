# What Cython code says to CPython itself, where Cython's own words for it are slower or say something else.
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject*, void*) noexcept
    ctypedef int (*traverseproc)(PyObject*, visitproc, void*) noexcept
    ctypedef int (*inquiry)(PyObject*) noexcept
    ctypedef void (*destructor)(PyObject*) noexcept
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    ctypedef struct PyAsyncMethods:
        int (*am_send)(PyObject*, PyObject*, PyObject**) noexcept
        void* am_await
    ctypedef struct PyTypeObject:
        size_t tp_flags
        Py_ssize_t tp_vectorcall_offset
        PyObject* (*tp_call)(PyObject*, PyObject*, PyObject*) noexcept
        PyAsyncMethods* tp_as_async
        PyObject* (*tp_iternext)(PyObject*) noexcept
        traverseproc tp_traverse
        inquiry tp_clear
        const char* tp_name
        destructor tp_dealloc
        PyObject* tp_dict
        PyObject* (*tp_new)(PyTypeObject*, PyObject*, PyObject*) noexcept
    # Cython's own way to make and to end an object takes longer; the fields of one that is made so are not set.
    object new_object "_PyObject_New"(PyTypeObject*)
    void free_object "PyObject_Free"(void*)
    ctypedef struct PyMethodDef:
        const char* ml_name
        void* ml_meth
        int ml_flags
        const char* ml_doc
    int METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, METH_O
    PyObject* new_cfunction "PyCFunction_NewEx"(PyMethodDef*, PyObject*, PyObject*) noexcept
    const size_t HAVE_VECTORCALL "Py_TPFLAGS_HAVE_VECTORCALL"
    const size_t METHOD_DESCRIPTOR "Py_TPFLAGS_METHOD_DESCRIPTOR"
    PyTypeObject* type_of "Py_TYPE"(PyObject*) noexcept
    PyObject* call_none "PyObject_CallNoArgs"(PyObject*) noexcept
    PyObject* call_one "PyObject_CallOneArg"(PyObject*, PyObject*) noexcept
    PyObject* TypeError_ "PyExc_TypeError"
    PyObject* RuntimeError_ "PyExc_RuntimeError"
    void PyErr_SetObject(PyObject*, PyObject*) noexcept
    # All that is said here also says it when there is no memory; an f-string would leave no error at all.
    PyObject* complain "PyErr_Format"(PyObject* kind, const char* said, ...) noexcept
    void PyErr_NoMemory() noexcept
    object new_method "PyDescr_NewMethod"(PyTypeObject*, PyMethodDef*)
    void PyType_Modified(PyTypeObject*) noexcept
    void INCREF "Py_INCREF"(PyObject*) noexcept
    void DECREF "Py_DECREF"(PyObject*) noexcept
    void XINCREF "Py_XINCREF"(PyObject*) noexcept
    void XDECREF "Py_XDECREF"(PyObject*) noexcept
    PyObject* occurred "PyErr_Occurred"() noexcept
    PyObject* NONE "Py_None"

cdef extern from "interpreter.h":
    bint is_callable "dp_is_callable"(PyObject*) noexcept
    PyObject* vectorcall "dp_call"(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    void make_immortal "dp_make_immortal"(PyObject*) noexcept
    void name_arguments "dp_name_arguments"(PyTypeObject*) noexcept     # of one class in a module
    PyObject* take_raised "dp_take_raised"() noexcept
    void put_raised "dp_raise"(PyObject* exception) noexcept
    ctypedef struct Endings "dp_endings":
        pass
    void end_in_turn "dp_end_in_turn"(Endings* of_this_thread, PyObject*, PyObject** link, destructor further) noexcept
    bint is_finalizing "dp_is_finalizing"() noexcept
    PyObject* swap_handled "dp_swap_handled"(PyObject* exception) noexcept
    PyObject* handled "dp_handled"() noexcept
    void raise_later "dp_raise_later"(PyObject* where) noexcept
    int pass_on "dp_pass_on"() except -1            # the error that is set already


cdef inline void add_method(PyTypeObject* kind, PyMethodDef* definition) except *:
    """The interpreter's own kind of method: the reference count of what Cython makes of a def statement is one that
    all threads share."""
    method = new_method(kind, definition)
    make_immortal(<PyObject*>method)
    (<dict>kind.tp_dict)[(<bytes>definition.ml_name).decode()] = method
    PyType_Modified(kind)


cdef inline object builtin(PyMethodDef* definition):
    """A function of this library, of the interpreter's own kind, for the same reason."""
    cdef object name = "deferpool"
    cdef PyObject* made = new_cfunction(definition, NULL, <PyObject*>name)
    if made == NULL:
        raise MemoryError
    make_immortal(made)
    result = <object>made
    DECREF(made)
    return result


cdef inline PyObject* new_of(PyTypeObject* kind) noexcept:
    """One of a class of Cython's. NULL, and MemoryError, when there is no memory: an except clause would want some."""
    return kind.tp_new(kind, <PyObject*>(), NULL)


cdef inline object shown(number):
    """Python writes no integer of more than some thousand digits."""
    return number if -2**1000 < number < 2**1000 else f"{'-' if number < 0 else ''}2**{number.bit_length() - 1} or more"

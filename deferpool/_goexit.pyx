"""Goexit: the end of a thread, by an exception that runs the deferred calls of every function on the way."""
from cpython.object cimport PyObject

from deferpool._cpython cimport DECREF, METH_NOARGS, PyErr_SetObject, PyMethodDef, builtin, call_none, type_of


class Goexit(BaseException):
    """Ends a thread, and runs the deferred calls of every function on the way. recover does not stop it.

    A threading.Thread that ends with it does so silently.
    """

    def __init__(self, *args):
        BaseException.__init__(self, *args)
        silence_threads()


def silence_threads():
    """threading's hook for uncaught exceptions is one, for all threads, and says nothing of a SystemExit only."""
    import threading

    before = threading.excepthook
    if getattr(before, "without_goexit", False):
        return

    def excepthook(args, /):
        if not issubclass(args.exc_type, Goexit):
            before(args)

    excepthook.without_goexit = True
    threading.excepthook = excepthook


cdef PyObject* call_goexit(PyObject* module, PyObject* nothing) noexcept:
    cdef PyObject* ending = call_none(<PyObject*>Goexit)
    if ending != NULL:
        PyErr_SetObject(<PyObject*>type_of(ending), ending)
        DECREF(ending)
    return NULL


cdef PyMethodDef goexit_definition = PyMethodDef(
    ml_name=b"goexit", ml_meth=<void*>call_goexit, ml_flags=METH_NOARGS,
    ml_doc=b"""goexit()
--

Ends the thread: raises Goexit, which runs the deferred calls of every function and cannot be recovered.""")

goexit = builtin(&goexit_definition)

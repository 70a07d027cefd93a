/* frames.h: what only CPython itself knows: which function is running, and which exception it is handling.
 *
 * CPython keeps a record of each running function; its layout differs from version to version, and this file is all
 * that knows it. A version it does not know is asked by way of frame objects, which is slow and right.
 */
#ifndef DEFERPOOL_FRAMES_H
#define DEFERPOOL_FRAMES_H

#include <Python.h>
#include <frameobject.h>

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000 && !defined(PYPY_VERSION)
#define DP_KNOWN_FRAMES 1
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#define DP_BUILD_CORE 1
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <internal/pycore_frame.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#ifdef DP_BUILD_CORE
#undef Py_BUILD_CORE
#endif

typedef struct _PyInterpreterFrame dp_frame;

#if PY_VERSION_HEX >= 0x030D0000
#define DP_RUNNING(thread) ((thread)->current_frame)
#define DP_CODE(frame) ((frame)->f_executable)
#define DP_FUNCTION(frame) ((frame)->f_funcobj)
#elif PY_VERSION_HEX >= 0x030C0000
#define DP_RUNNING(thread) ((thread)->cframe->current_frame)
#define DP_CODE(frame) ((PyObject *)(frame)->f_code)
#define DP_FUNCTION(frame) ((frame)->f_funcobj)
#else
#define DP_RUNNING(thread) ((thread)->cframe->current_frame)
#define DP_CODE(frame) ((PyObject *)(frame)->f_code)
#define DP_FUNCTION(frame) ((PyObject *)(frame)->f_func)
#endif

/* Between C and Python 3.12 and later put a frame of the interpreter's own, which is no function's. */
static inline dp_frame *dp_function_at(dp_frame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000
    while (frame && frame->owner == FRAME_OWNED_BY_CSTACK) frame = frame->previous;
#endif
    return frame;
}
static inline dp_frame *dp_frame_of_thread(PyThreadState *thread) { return dp_function_at(DP_RUNNING(thread)); }
static inline dp_frame *dp_frame_below(const dp_frame *frame) { return dp_function_at(frame->previous); }
static inline PyObject *dp_frame_code(const dp_frame *frame) { return DP_CODE(frame); }
static inline int dp_frame_is_of(const dp_frame *frame, PyObject *function) { return DP_FUNCTION(frame) == function; }
static inline dp_frame *dp_frame_of_generator(PyObject *generator)
{
    return (dp_frame *)((PyGenObject *)generator)->gi_iframe;
}

#else /* frame objects: one exists for each running function in 3.10, and is made on demand later */

typedef PyFrameObject dp_frame;

static inline dp_frame *dp_borrowed(PyFrameObject *frame) /* whoever runs, or what it was called by, keeps it alive */
{
    Py_XDECREF(frame);
    return frame;
}
static inline dp_frame *dp_frame_of_thread(PyThreadState *thread)
{
    return dp_borrowed(PyThreadState_GetFrame(thread));
}
static inline dp_frame *dp_frame_below(const dp_frame *frame) { return dp_borrowed(PyFrame_GetBack((PyFrameObject *)frame)); }
static inline PyObject *dp_frame_code(const dp_frame *frame)
{
    PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
    Py_DECREF(code); /* the frame has it */
    return (PyObject *)code;
}
static inline int dp_frame_is_of(const dp_frame *frame, PyObject *function)
{
    return dp_frame_code(frame) == PyFunction_GET_CODE(function);
}
static inline dp_frame *dp_frame_of_generator(PyObject *generator)
{
    static PyObject *names[3];
    static const char *const spelled[3] = {"gi_frame", "cr_frame", "ag_frame"};
    int kind = PyGen_CheckExact(generator) ? 0 : PyCoro_CheckExact(generator) ? 1 : 2;
    PyObject *frame;
    if (!names[kind]) names[kind] = PyUnicode_InternFromString(spelled[kind]);
    frame = names[kind] ? PyObject_GetAttr(generator, names[kind]) : NULL;
    if (!frame) return NULL;
    return dp_borrowed((PyFrameObject *)frame);
}
#endif

static inline dp_frame *dp_frame_now(void) { return dp_frame_of_thread(PyThreadState_GET()); }

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static inline int dp_is_callable(PyObject *thing) { return Py_TYPE(thing)->tp_call != NULL; }

/* As PyObject_Vectorcall, in fewer steps. */
static inline PyObject *dp_call(PyObject *called, PyObject *const *arguments, size_t count, PyObject *names)
{
    PyTypeObject *type = Py_TYPE(called);
    vectorcallfunc call;
    if (PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL)) {
        memcpy(&call, (char *)called + type->tp_vectorcall_offset, sizeof call);
        if (call) return call(called, arguments, count, names);
    }
    return PyObject_Vectorcall(called, arguments, count, names);
}
static inline PyObject *dp_call_function(PyObject *function, PyObject *const *arguments, size_t count, PyObject *names)
{
    return ((PyFunctionObject *)function)->vectorcall(function, arguments, count, names);
}

/* ---- the exception in flight, and the one that is being handled ------------------------------------------------ */

/* The error indicator, as one exception that is the caller's now. */
static inline PyObject *dp_take_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Takes the exception over. */
static inline void dp_raise(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyObject *type = (PyObject *)Py_TYPE(exception);
    Py_INCREF(type);
    PyErr_Restore(type, exception, PyException_GetTraceback(exception));
#endif
}

/* What sys.exc_info() shows in the function or generator that runs now: put in, and what was there is the caller's.
 * Either may be NULL. What is raised meanwhile gets it as its __context__, as in an except or finally clause. */
static inline PyObject *dp_swap_handled(PyObject *exception)
{
    _PyErr_StackItem *item = PyThreadState_GET()->exc_info;
    PyObject *before = item->exc_value;
    item->exc_value = exception;
#if PY_VERSION_HEX < 0x030B0000
    PyObject *type = item->exc_type, *traceback = item->exc_traceback;
    item->exc_type = exception ? (PyObject *)Py_TYPE(exception) : NULL;
    Py_XINCREF(item->exc_type);
    item->exc_traceback = exception ? PyException_GetTraceback(exception) : NULL;
    Py_XDECREF(type);
    Py_XDECREF(traceback);
#endif
    if (before == Py_None) {
        Py_DECREF(before);
        before = NULL;
    }
    return before;
}

/* What sys.exc_info() shows, wherever it is being handled: a new reference, or NULL. */
static inline PyObject *dp_handled(void)
{
    _PyErr_StackItem *item = PyThreadState_GET()->exc_info;
    while ((item->exc_value == NULL || item->exc_value == Py_None) && item->previous_item) item = item->previous_item;
    if (item->exc_value == NULL || item->exc_value == Py_None) return NULL;
    Py_INCREF(item->exc_value);
    return item->exc_value;
}

/* ---- reference counts --------------------------------------------------------------------------------------------- */

/* Where threads run at once, counting the references of what all of them call is what they wait for. Free-threaded 3.13
 * does this with module-level functions; later versions have a way of their own. */
static inline void dp_make_immortal(PyObject *thing)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    PyUnstable_Object_EnableDeferredRefcount(thing);
#elif defined(Py_GIL_DISABLED)
    thing->ob_tid = _Py_UNOWNED_TID;
    thing->ob_ref_local = _Py_IMMORTAL_REFCNT_LOCAL;
    thing->ob_ref_shared = 0;
#else
    (void)thing;
#endif
}
#endif

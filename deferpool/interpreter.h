/* interpreter.h: CPython's own services in the form that compiled functions need, version by version. */
#ifndef DEFERPOOL_INTERPRETER_H
#define DEFERPOOL_INTERPRETER_H

#include <Python.h>
#include <stddef.h>
#include <string.h>

#include "thread.h"

#if defined(__GNUC__) || defined(__clang__)
#define DP_USUALLY(x) __builtin_expect(!!(x), 1)
#define DP_RARELY __attribute__((noinline, cold))
#else
#define DP_USUALLY(x) (x)
#define DP_RARELY
#endif

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

/* An attribute of a type that no __getattr__ has a say in: a new reference, or NULL without an error. */
static inline PyObject *dp_in_type(PyTypeObject *type, PyObject *name)
{
#ifdef Py_GIL_DISABLED
    return _PyType_LookupRef(type, name);
#else
    PyObject *found = _PyType_Lookup(type, name);
    Py_XINCREF(found);
    return found;
#endif
}

/* ---- the exception in flight, and the one that is being handled ------------------------------------------------ */

/* The error indicator, as one exception that is the caller's now. */
static inline PyObject *dp_take_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *raised = PyErr_GetRaisedException();
#else
    PyObject *type, *raised, *traceback;
    PyErr_Fetch(&type, &raised, &traceback);
    if (type) PyErr_NormalizeException(&type, &raised, &traceback);
    if (traceback) PyException_SetTraceback(raised, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
#endif
    if (raised) return raised;
    PyErr_SetString(PyExc_SystemError, "error return without exception set"); /* a broken extension gave NULL only */
    return dp_take_raised();
}

/* Raises it as it is: neither its context nor its traceback changes. Takes it over. */
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

#ifdef __cplusplus
extern "C"
#endif
PyAPI_FUNC(int) _PyOS_IsMainThread(void); /* which newer headers keep to themselves */

static inline int dp_raise_pending(void *exception)
{
    dp_raise((PyObject *)exception);
    return -1;
}

/* The error indicator, where it cannot be raised and must not be lost: a signal's handler may have raised it. In the main
 * thread it comes out of whatever Python code runs next, as a signal's does; elsewhere sys.unraisablehook is told. */
static inline void dp_raise_later(PyObject *where)
{
    PyObject *exception = dp_take_raised();
    if (_PyOS_IsMainThread() && Py_AddPendingCall(dp_raise_pending, exception) == 0) return;
    dp_raise(exception);
    PyErr_WriteUnraisable(where);
}

/* For Cython code that finds an error set already: it goes on as if it had come from this call. */
static inline int dp_pass_on(void) { return -1; }

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

/* ---- asynchronous generators ------------------------------------------------------------------------------------------- */

/* One that is begun between these two is unknown to the event loop, and the collector does not close it. */
typedef struct dp_hooks {
    PyObject *firstiter, *finalizer;
} dp_hooks;

static inline void dp_without_hooks(dp_hooks *saved, PyObject *nothing) /* nothing: a callable without effect */
{
    PyThreadState *thread = PyThreadState_GET();
    saved->firstiter = thread->async_gen_firstiter;
    saved->finalizer = thread->async_gen_finalizer;
    thread->async_gen_firstiter = NULL;
    thread->async_gen_finalizer = nothing; /* borrowed: who is begun takes a reference */
}
static inline void dp_with_hooks(const dp_hooks *saved)
{
    PyThreadState *thread = PyThreadState_GET();
    thread->async_gen_firstiter = saved->firstiter;
    thread->async_gen_finalizer = saved->finalizer;
}

/* What is told when it is dropped in its middle, once it has begun: it closes itself where that is NULL. */
static inline PyObject **dp_finalizer_of(PyObject *generator)
{
#if PY_VERSION_HEX < 0x030B0000
    return &((PyAsyncGenObject *)generator)->ag_finalizer;
#elif PY_VERSION_HEX < 0x030E0000
    return &((PyAsyncGenObject *)generator)->ag_origin_or_finalizer;
#else
    static PyObject *unknown;
    (void)generator;
    return &unknown;
#endif
}

/* ---- the collector ------------------------------------------------------------------------------------------------------- */

/* Without a GIL the collector ends what it has found in any order. An object that it does not know is ended by the one that
 * has it, which must show it what that one refers to. With the GIL the order is that of their beginnings. */
static inline int dp_hide_from_collector(PyObject *object)
{
#ifdef Py_GIL_DISABLED
    PyObject_GC_UnTrack(object);
    return 1;
#else
    (void)object;
    return 0;
#endif
}
static inline traverseproc dp_traverse_of(PyObject *object) { return Py_TYPE(object)->tp_traverse; }

/* ---- wrong arguments of a class ------------------------------------------------------------------------------------ */

/* How the one class of the including module that does this made its objects before. */
static inline newfunc *dp_unnamed_new(void)
{
    static newfunc before;
    return &before;
}

static inline PyObject *dp_named_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char theirs[] = "__cinit__()";
    PyObject *made = (*dp_unnamed_new())(type, args, kwargs), *error, *said, *named;
    const char *text, *name = strrchr(type->tp_name, '.');
    if (made || !PyErr_ExceptionMatches(PyExc_TypeError)) return made;
    error = dp_take_raised();
    said = PyObject_Str(error);
    text = said ? PyUnicode_AsUTF8(said) : NULL;
    if (text && strncmp(text, theirs, sizeof theirs - 1) == 0) {
        named = Py_BuildValue("(N)", PyUnicode_FromFormat("%s()%s", name ? name + 1 : type->tp_name, text + sizeof theirs - 1));
        if (named) PyObject_SetAttrString(error, "args", named);
        Py_XDECREF(named);
    }
    Py_XDECREF(said);
    PyErr_Clear(); /* said less well, if there was no memory for it */
    dp_raise(error);
    return NULL;
}

/* Errors about the arguments of a class call it by its name, as those of a function do. */
static inline void dp_name_arguments(PyTypeObject *type)
{
    *dp_unnamed_new() = type->tp_new;
    type->tp_new = dp_named_new;
    type->tp_vectorcall = NULL; /* newer Cython's, which would not call it */
}

/* ---- the interpreter's end ---------------------------------------------------------------------------------------- */

/* It is on its way out: modules may have lost their names. */
static inline int dp_is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
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

/* ---- deallocation ------------------------------------------------------------------------------------------------- */

/* Objects that end others of their class within their own deallocation: in long chains they would exhaust the stack, and soon
 * after the limit of recursion, where Python is patient for some fifty calls, all of it. From a depth on they end one after the
 * other, when the outermost has ended. Python's own trashcan knows nothing of finalizers, and from 3.13 on allows too much. */
typedef struct dp_endings {
    int depth;
    PyObject *waiting;
} dp_endings;

#define DP_ENDINGS_DEEP 10

static inline void dp_end_now(PyObject *object, destructor further)
{
    if (Py_TYPE(object)->tp_finalize) { /* Cython calls it only where its own deallocation is in the type */
        PyObject_GC_Track(object);
        if (PyObject_CallFinalizerFromDealloc(object) < 0)
            return; /* it lives */
        PyObject_GC_UnTrack(object);
    }
    further(object);
}

/* `further` is the deallocation proper, and `link` a field that nobody reads any more, or that is NULL where the class
 * has a finalizer. */
static inline void dp_end_in_turn(dp_endings *endings, PyObject *object, PyObject **link, destructor further)
{
    ptrdiff_t at = (char *)link - (char *)object;
    PyObject_GC_UnTrack(object);
    if (endings->depth >= DP_ENDINGS_DEEP) {
        *link = endings->waiting;
        endings->waiting = object;
        return;
    }
    endings->depth++;
    dp_end_now(object, further);
    while (endings->depth == 1 && endings->waiting) {
        object = endings->waiting;
        link = (PyObject **)((char *)object + at);
        endings->waiting = *link;
        *link = NULL;
        dp_end_now(object, further);
    }
    endings->depth--;
}
#endif

/* frames.h: what only CPython itself knows: which function is running.
 *
 * CPython keeps a record of each running function; its layout differs from version to version, and this file is all
 * that knows it. A version it does not know is asked by way of frame objects, which is slow and right.
 */
#ifndef DEFERPOOL_FRAMES_H
#define DEFERPOOL_FRAMES_H

#include "interpreter.h"
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

/* The generator that runs in the frame, borrowed; NULL when that is a function's. */
static inline PyObject *dp_generator_in(const dp_frame *frame)
{
    if (frame->owner != FRAME_OWNED_BY_GENERATOR) return NULL;
    return (PyObject *)((char *)frame - offsetof(PyGenObject, gi_iframe));
}
/* Of one that is suspended, borrowed; else NULL. */
static inline PyObject *dp_first_local(PyObject *generator)
{
    return ((PyGenObject *)generator)->gi_frame_state < 0 ? dp_frame_of_generator(generator)->localsplus[0] : NULL;
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
#if PY_VERSION_HEX < 0x030B0000
static inline PyObject *dp_generator_in(const dp_frame *frame) { return frame->f_gen; }
static inline PyObject *dp_first_local(PyObject *generator)
{
    PyFrameObject *frame = ((PyGenObject *)generator)->gi_frame;
    return frame ? frame->f_localsplus[0] : NULL;
}
#else
static inline PyObject *dp_generator_in(const dp_frame *frame) { return NULL; }
static inline PyObject *dp_first_local(PyObject *generator) { return NULL; }
#endif
#endif

/* What a function with this code is called, borrowed. */
static inline PyObject *dp_name_of_code(PyObject *code)
{
#if PY_VERSION_HEX >= 0x030B0000
    return ((PyCodeObject *)code)->co_qualname;
#else
    return ((PyCodeObject *)code)->co_name;
#endif
}

/* The code of a traceback's first line, borrowed, and the lines after it, borrowed or NULL. No code of anybody's runs. */
static inline PyObject *dp_line_code(PyObject *traceback)
{
    PyCodeObject *code = PyFrame_GetCode(((PyTracebackObject *)traceback)->tb_frame);
    Py_DECREF(code); /* the frame has it */
    return (PyObject *)code;
}
static inline PyObject *dp_lines_after(PyObject *traceback) { return (PyObject *)((PyTracebackObject *)traceback)->tb_next; }

static inline dp_frame *dp_frame_now(void) { return dp_frame_of_thread(PyThreadState_GET()); }
#endif

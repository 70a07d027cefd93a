/* unwinding.h: how a stack is unwound. */
#ifndef DEFERPOOL_EXITSTACK_UNWINDING_H
#define DEFERPOOL_EXITSTACK_UNWINDING_H

#include "stack.h"

/* What happens to the details of the exception while one callback after the other is called. */
typedef struct {
    PyObject *details[3]; /* owned: type, value, traceback, or three times None */
    char received, suppressed, pending;
} Unwinding;

static inline void set_details(Unwinding *unwinding, PyObject *type, PyObject *value, PyObject *traceback)
{
    PyObject *before[3];
    memcpy(before, unwinding->details, sizeof before);
    Py_INCREF(type);
    Py_INCREF(value);
    Py_INCREF(traceback);
    unwinding->details[0] = type;
    unwinding->details[1] = value;
    unwinding->details[2] = traceback;
    Py_XDECREF(before[0]);
    Py_XDECREF(before[1]);
    Py_XDECREF(before[2]);
}

static DP_RARELY void set_details_of(Unwinding *unwinding, PyObject *raised)
{
    PyObject *traceback = PyException_GetTraceback(raised);
    set_details(unwinding, (PyObject *)Py_TYPE(raised), raised, traceback ? traceback : Py_None);
    Py_XDECREF(traceback);
}

static inline void start_unwinding(Unwinding *unwinding, PyObject *const *details)
{
    memset(unwinding, 0, sizeof *unwinding);
    set_details(unwinding, details[0], details[1], details[2]);
#if PY_VERSION_HEX >= 0x030D0000
    unwinding->received = details[1] != Py_None;
    if (details[0] != Py_None && details[1] == Py_None)
        set_details(unwinding, Py_None, Py_None, Py_None);
#else
    unwinding->received = details[0] != Py_None;
#endif
}

/* An exception that no Python function has raised has no traceback; contextlib's would have its own lines. */
static DP_RARELY void give_traceback(Unwinding *unwinding)
{
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    PyObject *raised = unwinding->details[1];
    if (frame == NULL)
        return;
    Py_INCREF(raised);
    dp_raise(raised);
    PyTraceBack_Here(frame);
    raised = dp_take_raised(); /* with it; or, without memory, a MemoryError, and it has none */
    Py_DECREF(raised);
    set_details_of(unwinding, unwinding->details[1]);
}

/* What the next exit gets. From Python 3.13 on that is the traceback as it is now. */
static inline void refresh(Unwinding *unwinding)
{
    if (DP_USUALLY(unwinding->details[1] == Py_None))
        return;
#if PY_VERSION_HEX >= 0x030D0000
    set_details_of(unwinding, unwinding->details[1]);
#endif
    if (unwinding->pending && unwinding->details[2] == Py_None)
        give_traceback(unwinding);
}

/* Makes old the context of raised, as if the with statements were nested. Where the contexts run in a circle, which
 * contextlib follows for ever, they stay as they are. */
static void fix_context(PyObject *raised, PyObject *old, PyObject *frame_exception)
{
    PyObject *end = raised, *context, *met = raised;
    size_t steps, turn = 8;
    if (old == Py_None)
        old = NULL;
    Py_INCREF(end);
    for (steps = 1;; steps++) {
        context = PyException_GetContext(end);
        if (context == NULL || context == old || context == met)
            break; /* it is right already, or a circle */
        if (steps == turn) {
            met = context; /* borrowed: only compared */
            turn *= 2;
        }
        if (context == frame_exception) {
            Py_XINCREF(old);
            PyException_SetContext(end, old);
            break;
        }
        Py_DECREF(end);
        end = context;
    }
    Py_XDECREF(context);
    Py_DECREF(end);
}

/* A callback has raised. */
static DP_RARELY void note_raised(Unwinding *unwinding, PyObject *frame_exception)
{
    PyObject *raised = dp_take_raised();
    fix_context(raised, unwinding->details[1], frame_exception);
    unwinding->pending = 1;
    set_details_of(unwinding, raised);
    Py_DECREF(raised);
}

/* A callback that can suppress has returned this, which is stolen. -1 when its truth is an error. */
static inline int note_result(Unwinding *unwinding, PyObject *result)
{
    int truth = result == Py_None || result == Py_False ? 0 : PyObject_IsTrue(result);
    Py_DECREF(result);
    if (truth > 0) {
        unwinding->suppressed = 1;
        unwinding->pending = 0;
        set_details(unwinding, Py_None, Py_None, Py_None);
    }
    return truth < 0 ? -1 : 0;
}

static inline void drop_details(Unwinding *unwinding)
{
    Py_CLEAR(unwinding->details[0]);
    Py_CLEAR(unwinding->details[1]);
    Py_CLEAR(unwinding->details[2]);
}

static PyObject *unwind(Stack *stack, PyObject *const *details)
{
    Unwinding unwinding;
    Entry entry;
    int found;
    PyObject *result;
    if (Py_EnterRecursiveCall(" while calling a Python object"))
        return NULL;
    start_unwinding(&unwinding, details);
    while ((found = pop_entry(stack, &entry)) > 0) {
        if (DP_USUALLY(entry.kind <= CALLBACKS)) {
            result = call_callback(&entry);
            if (DP_USUALLY(result != NULL))
                Py_DECREF(result);
        }
        else if (entry.kind & AWAITED) { /* only in a class that is both kinds of stack */
            PyErr_SetNone(PyExc_AssertionError);
            drop(&entry);
            found = -1;
            break;
        }
        else {
            refresh(&unwinding);
            result = call_exit(&entry, unwinding.details);
            if (DP_USUALLY(result != NULL) && note_result(&unwinding, result) < 0)
                result = NULL;
        }
        if (result == NULL) {
            PyObject *frame_exception = dp_handled();
            note_raised(&unwinding, frame_exception);
            Py_XDECREF(frame_exception);
        }
        drop(&entry);
    }
    Py_LeaveRecursiveCall();
    result = NULL;
    if (found == 0) {
        if (unwinding.pending) {
            Py_INCREF(unwinding.details[1]);
            dp_raise(unwinding.details[1]);
        }
        else {
            result = unwinding.received && unwinding.suppressed ? Py_True : Py_False;
            Py_INCREF(result);
        }
    }
    drop_details(&unwinding);
    return result;
}

static PyObject *stack_close(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *details[5], *done;
    if (nargs || names != NULL)
        return their_way(theirs.close, self, args, nargs, names);
    details[1] = self;
    details[2] = details[3] = details[4] = Py_None;
    done = PyObject_VectorcallMethod(name_exit, details + 1, 4 | OFFSET, NULL);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    Py_RETURN_NONE;
}

#endif

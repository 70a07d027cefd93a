/* awaiting.h: what AsyncExitStack's methods do while they are awaited. */
#ifndef DEFERPOOL_EXITSTACK_AWAITING_H
#define DEFERPOOL_EXITSTACK_AWAITING_H

#include "../coroutines.h"
#include "pushing.h"
#include "unwinding.h"

/* What the async methods return: an object that does what contextlib's coroutines do. It can be awaited, made a task
 * of, thrown into and closed; one that is dropped before it was awaited says so, as a coroutine does. */

enum { AENTER, AEXIT, ENTER_ASYNC, ACLOSE, DELEGATE };
enum { CREATED, STARTED, FINISHED };

static const char *const QUALNAMES[] = {"AsyncExitStack.__aenter__", "AsyncExitStack.__aexit__",
                                        "AsyncExitStack.enter_async_context", "AsyncExitStack.aclose",
                                        "AsyncExitStack.enter_async_context"};

typedef struct {
    PyObject_HEAD
    PyObject *weakrefs;
    Stack *stack;
    PyObject *inner; /* the iterator of what is being awaited */
    Unwinding unwinding;
    PyObject *frame_exception;
    PyObject *cm, *exit; /* being entered */
    PyObject *stop;      /* the StopIteration that told a result last, to be used again */
    char what, state, running;
    char ignored; /* the result of what is being awaited means nothing */
    char wrapped; /* in contextlib a coroutine would be awaiting it */
} Coroutine;

static PyObject *coroutine_new(int what, PyObject *stack)
{
    Coroutine *coroutine = take_kept(&used_coroutines);
    if (DP_USUALLY(coroutine != NULL))
        PyObject_Init((PyObject *)coroutine, &Coroutine_Type);
    else {
        coroutine = PyObject_GC_New(Coroutine, &Coroutine_Type);
        if (coroutine == NULL)
            return NULL;
        memset((char *)coroutine + sizeof(PyObject), 0, sizeof *coroutine - sizeof(PyObject));
    }
    Py_INCREF(stack);
    coroutine->stack = (Stack *)stack;
    coroutine->what = (char)what;
    coroutine->state = CREATED;
    return (PyObject *)coroutine;
}

/* It needs nothing any more. */
static void finish(Coroutine *coroutine)
{
    coroutine->state = FINISHED;
    Py_CLEAR(coroutine->stack);
    Py_CLEAR(coroutine->inner);
    drop_details(&coroutine->unwinding);
    Py_CLEAR(coroutine->frame_exception);
    Py_CLEAR(coroutine->cm);
    Py_CLEAR(coroutine->exit);
}

/* Awaits an object, which is stolen, up to its first yield. NULL for it: an error that has been raised already. */
static inline PySendResult begin(Coroutine *coroutine, PyObject *awaitable, PyObject **outcome)
{
    PyObject *iterator;
    PySendResult how;
    *outcome = NULL;
    if (awaitable == NULL || (iterator = dp_iterator_of(awaitable)) == NULL)
        return PYGEN_ERROR;
    how = PyIter_Send(iterator, Py_None, outcome);
    if (how == PYGEN_NEXT)
        coroutine->inner = iterator;
    else
        Py_DECREF(iterator);
    return how;
}

/* StopIteration must not leave a coroutine. */
static inline void no_stop_iteration(void)
{
    dp_no_stop(PyExc_StopIteration, "coroutine raised StopIteration");
}

static PySendResult failed(Coroutine *coroutine)
{
    finish(coroutine);
    no_stop_iteration();
    return PYGEN_ERROR;
}

/* Goes on with unwinding; how and outcome are of the callback that was awaited last, or START. */
#define START ((PySendResult)99)

static PySendResult go_on_unwinding(Coroutine *coroutine, PySendResult how, PyObject *outcome, PyObject **result)
{
    Unwinding *unwinding = &coroutine->unwinding;
    Entry entry;
    int found;
    for (;;) {
        if (how == PYGEN_RETURN) {
            if (coroutine->ignored)
                Py_DECREF(outcome);
            else if (note_result(unwinding, outcome) < 0)
                how = PYGEN_ERROR;
        }
        if (how == PYGEN_ERROR) {
            if (coroutine->wrapped)
                no_stop_iteration();
            note_raised(unwinding, coroutine->frame_exception);
        }
        found = pop_entry(coroutine->stack, &entry);
        if (found <= 0)
            break;
        coroutine->ignored = (entry.kind & KIND) <= CALLBACKS;
        coroutine->wrapped = coroutine->ignored && entry.kind & AWAITED;
        if (coroutine->ignored)
            outcome = call_callback(&entry);
        else {
            refresh(unwinding);
            outcome = call_exit(&entry, unwinding->details);
        }
        if (entry.kind & AWAITED)
            how = begin(coroutine, outcome, &outcome);
        else
            how = outcome == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        drop(&entry);
        if (how == PYGEN_NEXT) {
            *result = outcome;
            return PYGEN_NEXT;
        }
    }
    if (found < 0)
        return failed(coroutine);
    if (unwinding->pending) {
        Py_INCREF(unwinding->details[1]);
        dp_raise(unwinding->details[1]);
        return failed(coroutine);
    }
    *result = unwinding->received && unwinding->suppressed ? Py_True : Py_False;
    Py_INCREF(*result);
    finish(coroutine);
    return PYGEN_RETURN;
}

static PySendResult start_entering(Coroutine *coroutine, PyObject **outcome)
{
    PyObject *cm = coroutine->cm, *enter, *entered, *args[2];
    int found = find(Py_TYPE(cm), name_aenter, &enter);
    args[0] = (PyObject *)coroutine->stack;
    args[1] = cm;
    if (found > 0) {
        found = find(Py_TYPE(cm), name_aexit, &coroutine->exit);
        if (found <= 0)
            Py_DECREF(enter);
    }
    if (found < 0)
        return PYGEN_ERROR;
    if (found == 0) { /* no context manager: the error is contextlib's */
        coroutine->what = DELEGATE;
        return begin(coroutine, PyObject_Vectorcall(theirs.enter_async_context, args, 2, NULL), outcome);
    }
    entered = dp_call(enter, args + 1, 1 | OFFSET, NULL);
    Py_DECREF(enter);
    return begin(coroutine, entered, outcome);
}

static PySendResult start_closing(Coroutine *coroutine, PyObject **outcome)
{
    PyObject *args[5];
    args[1] = (PyObject *)coroutine->stack;
    args[2] = args[3] = args[4] = Py_None;
    return begin(coroutine, PyObject_VectorcallMethod(name_aexit, args + 1, 4 | OFFSET, NULL), outcome);
}

/* Runs up to the next yield or the end; how and outcome as above. */
static PySendResult go_on(Coroutine *coroutine, PySendResult how, PyObject *outcome, PyObject **result)
{
    if (coroutine->what == AEXIT) {
        if (how == START)
            coroutine->frame_exception = dp_handled();
        return go_on_unwinding(coroutine, how, outcome, result);
    }
    if (how == START) {
        if (coroutine->what == AENTER) {
            *result = (PyObject *)coroutine->stack;
            coroutine->stack = NULL;
            finish(coroutine);
            return PYGEN_RETURN;
        }
        how = coroutine->what == ENTER_ASYNC ? start_entering(coroutine, &outcome) : start_closing(coroutine, &outcome);
    }
    *result = outcome;
    if (how == PYGEN_NEXT)
        return PYGEN_NEXT;
    if (how == PYGEN_ERROR)
        return failed(coroutine);
    if (coroutine->what == ENTER_ASYNC) {
        PyObject *stack = (PyObject *)coroutine->stack, *cm = coroutine->cm, *exit = coroutine->exit;
        int pushed = push_method(coroutine->stack, AWAITED, exit, cm);
        if (pushed > 0)
            pushed = push_their_way(stack, "_push_async_cm_exit", cm, exit);
        if (pushed < 0) {
            Py_CLEAR(*result);
            return failed(coroutine);
        }
    }
    else if (coroutine->what == ACLOSE) {
        Py_DECREF(*result);
        *result = Py_None;
        Py_INCREF(Py_None);
    }
    finish(coroutine);
    return PYGEN_RETURN;
}

#endif

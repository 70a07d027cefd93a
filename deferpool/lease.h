/* lease.h: what `with pool.lease() as object` works on.
 *
 * The with statement looks __enter__ and __exit__ up in the type and binds each to the object. Bound methods are objects,
 * and to make two of them costs as much as the rest; so what these two bind to is the lease itself, which can be called:
 * without arguments it enters, with three it leaves.
 *
 * A lease is for one with statement at a time. One that goes away without having been left has its object dropped, since
 * somebody may still use that. No finalizer does so: the collector would call it before that of a generator which is in the
 * middle of the with statement.
 */
#ifndef DEFERPOOL_LEASE_H
#define DEFERPOOL_LEASE_H

#include "interpreter.h"

static PyTypeObject Lease_Type;

typedef struct Lease {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *pool, *object; /* object: NULL outside of with; DISCARDED */
    double timeout;          /* seconds; less than 0: for ever */
} Lease;

#define DISCARDED ((PyObject *)&Lease_Type) /* in with still, and its object has been discarded */

/* Without a GIL two threads may have one lease: one of them gets the object, and the other an error. */
static inline int lease_change(Lease *lease, PyObject *before, PyObject *after)
{
#ifdef Py_GIL_DISABLED
    return __atomic_compare_exchange_n(&lease->object, &before, after, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
#else
    if (lease->object != before) return 0;
    lease->object = after;
    return 1;
#endif
}

/* What the pool does for it: functions of objects.pyx, so near that the compiler can put them here. */
struct __pyx_obj_9deferpool_7objects_Pool;
typedef struct __pyx_obj_9deferpool_7objects_Pool Pool;
static inline PyObject *dp_pool_acquire(Pool *pool, double timeout);
static inline int dp_pool_release(Pool *pool, PyObject *object);
static void dp_pool_lose(Pool *pool, PyObject *object);
static void dp_pool_lose_unreleased(Pool *pool, PyObject *object);

static PyObject *enter_in_task, *leave_in_task; /* coroutine functions of a lease */

/* Leases that were used before, kept as they are: the collector knows them all the time, since to make it forget one and
 * learn of it again costs 3 of 33 ns. Not where threads run at once, nor where references are counted. */
#if !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG)
#define DP_KEPT_LEASES 8
static Lease *kept_leases[DP_KEPT_LEASES];
static int kept_lease_count;
#endif

static int lease_take(Lease *lease, PyObject *object)
{
    if (DP_USUALLY(lease_change(lease, NULL, object))) return 0;
    dp_pool_release((Pool *)lease->pool, object);
    Py_DECREF(object);
    PyErr_SetString(PyExc_RuntimeError, "this lease is in use already");
    return -1;
}

static PyObject *not_in_use(void)
{
    PyErr_SetString(PyExc_RuntimeError, "this lease is not in use");
    return NULL;
}

static PyObject *lease_enter(Lease *lease)
{
    PyObject *object;
    if (!DP_USUALLY(lease->pool != NULL)) return not_in_use(); /* a kept one, which only the collector can show */
    object = dp_pool_acquire((Pool *)lease->pool, lease->timeout);
    if (object == NULL) return NULL;
    Py_INCREF(object); /* the caller's; before another thread can leave with the lease's */
    if (DP_USUALLY(lease_take(lease, object) == 0)) return object;
    Py_DECREF(object);
    return NULL;
}

static PyObject *lease_leave(Lease *lease)
{
    PyObject *object = lease->object;
    int failed;
    if (!DP_USUALLY(object != NULL && lease_change(lease, object, NULL))) return not_in_use();
    if (object == DISCARDED) Py_RETURN_NONE;
    failed = dp_pool_release((Pool *)lease->pool, object);
    if (failed) dp_pool_lose_unreleased((Pool *)lease->pool, object);
    Py_DECREF(object);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *wrong_arguments(void)
{
    PyErr_SetString(PyExc_TypeError, "a lease is entered without arguments and left with three");
    return NULL;
}

static PyObject *lease_call(PyObject *self, PyObject *const *arguments, size_t count, PyObject *names)
{
    (void)arguments;
    if (names == NULL) {
        if (PyVectorcall_NARGS(count) == 0) return lease_enter((Lease *)self);
        if (PyVectorcall_NARGS(count) == 3) return lease_leave((Lease *)self);
    }
    return wrong_arguments();
}

/* ---- __enter__ and __exit__ as the type has them ------------------------------------------------------------------ */

typedef struct Edge {
    PyObject_HEAD
    vectorcallfunc call;
    Py_ssize_t count; /* of arguments, the lease included */
} Edge;

static PyObject *edge_get(PyObject *edge, PyObject *lease, PyObject *type)
{
    (void)type;
    return Py_NewRef(lease == NULL || lease == Py_None ? edge : lease);
}

/* Not bound: as Lease.__enter__(lease) and Lease.__exit__(lease, type, value, traceback). */
static PyObject *edge_call(PyObject *edge, PyObject *const *arguments, size_t count, PyObject *names)
{
    if (PyVectorcall_NARGS(count) != ((Edge *)edge)->count || names != NULL || !Py_IS_TYPE(arguments[0], &Lease_Type))
        return wrong_arguments();
    return lease_call(arguments[0], arguments + 1, ((Edge *)edge)->count - 1, NULL);
}

static PyTypeObject Edge_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "deferpool.objects.Edge",
    .tp_basicsize = sizeof(Edge),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(Edge, call),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = edge_get,
};

static int add_edge(const char *name, Py_ssize_t count)
{
    Edge *edge = PyObject_New(Edge, &Edge_Type);
    int failed;
    if (edge == NULL) return -1;
    edge->call = edge_call;
    edge->count = count;
    failed = PyDict_SetItemString(Lease_Type.tp_dict, name, (PyObject *)edge);
    dp_make_immortal((PyObject *)edge);
    Py_DECREF(edge);
    return failed;
}

/* ---- the type -------------------------------------------------------------------------------------------------------- */

static PyObject *lease_new(PyObject *pool, double timeout)
{
    Lease *lease;
#ifdef DP_KEPT_LEASES
    if (DP_USUALLY(kept_lease_count > 0)) {
        lease = kept_leases[--kept_lease_count];
        lease->pool = Py_NewRef(pool);
        lease->timeout = timeout;
        return (PyObject *)lease;
    }
#endif
    lease = PyObject_GC_New(Lease, &Lease_Type);
    if (lease == NULL) return NULL;
    lease->call = lease_call;
    lease->object = NULL;
    lease->pool = Py_NewRef(pool);
    lease->timeout = timeout;
    PyObject_GC_Track(lease);
    return (PyObject *)lease;
}

static void lease_end_in_use(PyObject *self)
{
    Lease *lease = (Lease *)self;
    dp_pool_lose((Pool *)lease->pool, lease->object);
    Py_DECREF(lease->object);
    Py_DECREF(lease->pool);
    PyObject_GC_Del(self);
}

static void lease_dealloc(PyObject *self)
{
    Lease *lease = (Lease *)self;
    PyObject *pool = lease->pool;
    if (!DP_USUALLY(lease->object == NULL || lease->object == DISCARDED)) { /* nobody has left it */
        static DP_OF_THREAD dp_endings endings; /* its object may be the next in a long chain of such leases */
        dp_end_in_turn(&endings, self, (PyObject **)&lease->call, lease_end_in_use);
        return;
    }
    lease->pool = NULL;
    lease->object = NULL;
#ifdef DP_KEPT_LEASES
    if (DP_USUALLY(kept_lease_count < DP_KEPT_LEASES)) {
        Py_SET_REFCNT(self, 1); /* that of the array */
        kept_leases[kept_lease_count++] = lease;
    } else
#endif
    {
        PyObject_GC_UnTrack(self);
        PyObject_GC_Del(self);
    }
    Py_DECREF(pool);
}

/* No tp_clear: whatever is in a cycle with a lease has one. */
static int lease_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Lease *)self)->pool);
    if (((Lease *)self)->object != DISCARDED) Py_VISIT(((Lease *)self)->object);
    return 0;
}

static PyObject *lease_enter_in_task(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (((Lease *)self)->pool == NULL) return not_in_use(); /* as in lease_enter */
    return PyObject_CallOneArg(enter_in_task, self);
}

static PyObject *lease_leave_in_task(PyObject *self, PyObject *arguments)
{
    (void)arguments;
    return PyObject_CallOneArg(leave_in_task, self);
}

static PyObject *lease_discard(PyObject *self, PyObject *unused)
{
    Lease *lease = (Lease *)self;
    PyObject *object = lease->object;
    (void)unused;
    if (object == NULL || object == DISCARDED || !lease_change(lease, object, DISCARDED)) return not_in_use();
    dp_pool_lose((Pool *)lease->pool, object);
    Py_DECREF(object);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lease_discard_doc, "discard($self, /)\n--\n\n"
             "The object leaves for good: it is not released when the with statement ends.\n\n"
             "Raises RuntimeError outside of a with statement.");

static PyMethodDef lease_methods[] = {
    {"discard", lease_discard, METH_NOARGS, lease_discard_doc},
    {"__aenter__", lease_enter_in_task, METH_NOARGS, NULL},
    {"__aexit__", lease_leave_in_task, METH_VARARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Lease_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "deferpool.objects.Lease",
    .tp_doc = "An object of a pool for the time of a with or async with statement: see Pool.lease.",
    .tp_basicsize = sizeof(Lease),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(Lease, call),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = lease_dealloc,
    .tp_traverse = lease_traverse,
    .tp_methods = lease_methods,
};

/* 0, or -1 with an error. */
static int lease_ready(PyObject *enter, PyObject *leave)
{
    enter_in_task = Py_NewRef(enter);
    leave_in_task = Py_NewRef(leave);
    if (PyType_Ready(&Edge_Type) < 0 || PyType_Ready(&Lease_Type) < 0) return -1;
    if (add_edge("__enter__", 1) < 0 || add_edge("__exit__", 4) < 0) return -1;
    dp_make_immortal((PyObject *)&Lease_Type);
    dp_make_immortal((PyObject *)&Edge_Type);
    PyType_Modified(&Lease_Type);
    return 0;
}
#endif

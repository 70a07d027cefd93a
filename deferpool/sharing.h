/* sharing.h: an object whose methods many threads call at once, without a GIL.
 *
 * Each call counts references of the object, in a word that all these threads write: that costs them more than the call, and
 * two do less than one. An immortal object's references are not counted; but nobody learns either when the last one goes.
 * From Python 3.14 on there are deferred counts, which give both, and an object has them from the start. On 3.13 only an
 * object that threads are seen to share, in turns, more than SHARED_TURNS times, is made immortal, and not more than
 * MOST_SHARED of them in a process: so programs that make and drop objects for ever get back all memory but that of these.
 */
#ifndef DEFERPOOL_SHARING_H
#define DEFERPOOL_SHARING_H

#include <Python.h>
#include <stdint.h>

#define SHARED_TURNS 1000
#define MOST_SHARED 64

/* What is noted of an object, in its own memory. */
enum {
    SHARING_THREAD, /* that called last */
    SHARING_TURNS,  /* calls by another thread than the one before, until there are enough; no exact count */
    SHARING_SHARED, /* 1: immortal */
    SHARING_WORDS
};

#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030E0000

static __attribute__((noinline, cold, unused)) void sharing_end(PyObject *object, uint64_t *sharing, uint64_t *all)
{
    if (__atomic_fetch_add(all, 1, __ATOMIC_RELAXED) < MOST_SHARED) {
        /* The owner may be about to write the count that it has just read, and then the object is an ordinary one again,
         * some of whose references were not counted. So it gets some that nobody gives back. */
        __atomic_fetch_add(&object->ob_ref_shared, (Py_ssize_t)1 << 48, __ATOMIC_SEQ_CST);
        __atomic_store_n(&object->ob_ref_local, _Py_IMMORTAL_REFCNT_LOCAL, __ATOMIC_SEQ_CST);
        __atomic_store_n(&sharing[SHARING_SHARED], 1, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_sub(all, 1, __ATOMIC_RELAXED);
    }
}

/* `all`: how many there are in the process, of all kinds; atomic. */
static inline void sharing_note(PyObject *object, uint64_t *sharing, uint64_t *all)
{
    uint64_t turns = __atomic_load_n(&sharing[SHARING_TURNS], __ATOMIC_RELAXED), thread;
    if (__builtin_expect(turns > SHARED_TURNS, 1)) return;
    thread = _Py_ThreadId();
    if (__atomic_load_n(&sharing[SHARING_THREAD], __ATOMIC_RELAXED) == thread) return;
    __atomic_store_n(&sharing[SHARING_THREAD], thread, __ATOMIC_RELAXED);
    if (__atomic_fetch_add(&sharing[SHARING_TURNS], 1, __ATOMIC_RELAXED) == SHARED_TURNS)
        sharing_end(object, sharing, all);
}

#else

static inline void sharing_note(PyObject *object, uint64_t *sharing, uint64_t *all)
{
    (void)object, (void)sharing, (void)all;
}

#endif

/* It is counted for ever. */
static inline void sharing_never(uint64_t *sharing) { sharing[SHARING_TURNS] = SHARED_TURNS + 1; }

static inline void sharing_begin(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    PyUnstable_Object_EnableDeferredRefcount(object);
#else
    (void)object;
#endif
}
#endif

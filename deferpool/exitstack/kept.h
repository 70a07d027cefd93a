/* kept.h: objects that were used before, kept to be used again.
 *
 * A few of each kind are kept, whatever the number of threads. Without the GIL a thread has two places, which it may
 * share with others: an object is taken and left by one atomic exchange, and a thread that ends leaves nothing behind.
 * The address sanitizer is to see each use of what is gone: for it nothing is kept.
 */
#ifndef DEFERPOOL_EXITSTACK_KEPT_H
#define DEFERPOOL_EXITSTACK_KEPT_H

#include "../interpreter.h"

#if defined(__SANITIZE_ADDRESS__)
typedef struct {
    char nothing;
} Kept;

static inline void *take_kept(Kept *Py_UNUSED(kept))
{
    return NULL;
}

static inline int keep(Kept *Py_UNUSED(kept), void *Py_UNUSED(object))
{
    return 0;
}

#elif defined(Py_GIL_DISABLED)
typedef struct {
    struct {
        void *at[8]; /* a cache line, of which two are used */
    } places[64];
} Kept;

static inline void **own_places(Kept *kept)
{
    return kept->places[((uint64_t)_Py_ThreadId() >> 6) * 0x9E3779B97F4A7C15u >> 58].at;
}

static inline void *take_kept(Kept *kept)
{
    void **at = own_places(kept), *found = NULL;
    if (_Py_atomic_load_ptr_relaxed(&at[0]) != NULL)
        found = _Py_atomic_exchange_ptr(&at[0], NULL);
    if (found == NULL && _Py_atomic_load_ptr_relaxed(&at[1]) != NULL)
        found = _Py_atomic_exchange_ptr(&at[1], NULL);
    return found;
}

static inline int keep(Kept *kept, void *object)
{
    void **at = own_places(kept), *none = NULL;
    if (_Py_atomic_load_ptr_relaxed(&at[0]) == NULL && _Py_atomic_compare_exchange_ptr(&at[0], &none, object))
        return 1;
    none = NULL;
    return _Py_atomic_load_ptr_relaxed(&at[1]) == NULL && _Py_atomic_compare_exchange_ptr(&at[1], &none, object);
}

#else
typedef struct {
    int count;
    void *at[16];
} Kept;

static inline void *take_kept(Kept *kept)
{
    return kept->count ? kept->at[--kept->count] : NULL;
}

static inline int keep(Kept *kept, void *object)
{
    if (kept->count == (int)Py_ARRAY_LENGTH(kept->at))
        return 0;
    kept->at[kept->count++] = object;
    return 1;
}
#endif

#endif

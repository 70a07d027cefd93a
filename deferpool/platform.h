/* platform.h: what depends on the compiler, the processor or the operating system everywhere: atomics, waiting and a lock,
 * memory on cache lines.
 *
 * This header and sections.h are compiled into other people's modules, and so are thread.h and interpreter.h. They keep no
 * state of their own.
 */
#ifndef DEFERPOOL_PLATFORM_H
#define DEFERPOOL_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- compiler ------------------------------------------------------------------------------------- */

#if defined(__GNUC__) || defined(__clang__)
#define DP_LIKELY(x) __builtin_expect(!!(x), 1)
#define DP_COLD __attribute__((noinline, cold, unused))
#define DP_INLINE static inline __attribute__((always_inline, unused))
#else
#define DP_LIKELY(x) (x)
#define DP_COLD __declspec(noinline)
#define DP_INLINE static __forceinline
#endif

#if defined(__SANITIZE_THREAD__)
#define DP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DP_TSAN 1
#endif
#endif

/* A build for the schedule explorer hears of each atomic step before it is taken, and has models in place of the
 * sections and of what the kernel does. In any other build a step is nothing. */
#if defined(DP_EXPLORE)
#include "points.h"
#define DP_STEP(what, p) dp_step(what, p)
#else
#define DP_STEP(what, p) ((void)0)
#endif

#define DP_LINE 64 /* bytes of a cache line; what two Ps write lies at least this far apart */

/* Whether the compiler can write sections, for a system that has them. */
#if defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__) && !defined(DP_TSAN) && \
    !defined(DP_EXPLORE) && ((defined(__clang__) && __clang_major__ >= 13) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define DP_HAVE_SECTIONS 1
#else
#define DP_HAVE_SECTIONS 0
#endif

/* ---- atomics -------------------------------------------------------------------------------------- */

#if defined(__GNUC__) || defined(__clang__)
DP_INLINE uint32_t dp_load32(const uint32_t *p)
{
    DP_STEP(DP_LOAD, p);
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
DP_INLINE void dp_store32(uint32_t *p, uint32_t v)
{
    DP_STEP(DP_STORE, p);
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
DP_INLINE int dp_cas32(uint32_t *p, uint32_t old, uint32_t v)
{
    DP_STEP(DP_CAS, p);
    return __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
DP_INLINE uint64_t dp_load64(const uint64_t *p)
{
    DP_STEP(DP_LOAD, p);
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
DP_INLINE void dp_store64(uint64_t *p, uint64_t v)
{
    DP_STEP(DP_STORE, p);
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}
DP_INLINE uint64_t dp_add64(uint64_t *p, uint64_t v)
{
    DP_STEP(DP_ADD, p);
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
DP_INLINE int dp_cas64(uint64_t *p, uint64_t old, uint64_t v)
{
    DP_STEP(DP_CAS, p);
    return __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
#else /* MSVC: every Interlocked call is a full barrier, a volatile access is ordered */
#include <intrin.h>
DP_INLINE uint32_t dp_load32(const uint32_t *p) { return (uint32_t)_InterlockedOr((volatile long *)p, 0); }
DP_INLINE void dp_store32(uint32_t *p, uint32_t v) { _InterlockedExchange((volatile long *)p, (long)v); }
DP_INLINE int dp_cas32(uint32_t *p, uint32_t old, uint32_t v)
{
    return _InterlockedCompareExchange((volatile long *)p, (long)v, (long)old) == (long)old;
}
DP_INLINE uint64_t dp_load64(const uint64_t *p) { return *(volatile const uint64_t *)p; }
DP_INLINE void dp_store64(uint64_t *p, uint64_t v) { *(volatile uint64_t *)p = v; }
DP_INLINE uint64_t dp_add64(uint64_t *p, uint64_t v)
{
    return (uint64_t)_InterlockedExchangeAdd64((volatile long long *)p, (long long)v);
}
DP_INLINE int dp_cas64(uint64_t *p, uint64_t old, uint64_t v)
{
    return _InterlockedCompareExchange64((volatile long long *)p, (long long)v, (long long)old) == (long long)old;
}
#endif

/* A counter with one writer at a time (whoever holds its lock): no locked instruction is needed. */
DP_INLINE void dp_count(uint64_t *counter, uint64_t n) { dp_store64(counter, dp_load64(counter) + n); }

/* ---- waiting, and a lock that is held for one exchange of pointers --------------------------------- */

#if defined(_WIN32)
#include <windows.h>
DP_INLINE void dp_yield(void) { SwitchToThread(); }
DP_INLINE void dp_nap(void) { Sleep(0); }
#else
#include <sched.h>
#include <time.h>
DP_INLINE void dp_yield(void) { sched_yield(); }
DP_INLINE void dp_nap(void)
{
    struct timespec t = {0, 50000};
    nanosleep(&t, NULL);
}
#endif

#if defined(__x86_64__) || defined(__i386__)
#define DP_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define DP_PAUSE() __asm__ volatile("yield")
#else
#define DP_PAUSE() ((void)0)
#endif

/* One more turn of waiting: spin a little, then yield, and sleep once the wait is clearly not a short one. */
static DP_COLD void dp_wait(uint32_t *turns)
{
#if defined(DP_EXPLORE)
    dp_model_wait(); /* until somebody has changed what this thread looked at last */
#endif
    uint32_t turn = (*turns)++;
    if (turn < 6)
        for (uint32_t i = 0; i < 1u << turn; i++) DP_PAUSE();
    else if (turn < 1000)
        dp_yield();
    else
        dp_nap();
}

static DP_COLD void dp_lock_slow(uint32_t *lock)
{
    uint32_t turns = 0;
    do {
        while (dp_load32(lock)) dp_wait(&turns);
    } while (!dp_cas32(lock, 0, 1));
}

DP_INLINE void dp_lock(uint32_t *lock)
{
    if (!DP_LIKELY(dp_cas32(lock, 0, 1))) dp_lock_slow(lock);
}
DP_INLINE void dp_unlock(uint32_t *lock) { dp_store32(lock, 0); }

/* ---- memory --------------------------------------------------------------------------------------- */

typedef void *(*dp_alloc_fn)(void *arg, size_t size);
typedef void (*dp_release_fn)(void *arg, void *memory);

/* The C library's, for all that no face's own allocator is asked for. */
static DP_COLD void *dp_plain_alloc(void *arg, size_t size)
{
    (void)arg;
    return calloc(1, size);
}
static DP_COLD void dp_plain_release(void *arg, void *memory)
{
    (void)arg;
    free(memory);
}

/* Zeroed memory that starts on a cache line of its own. The address to free is kept just below it. */
static DP_COLD void *dp_line_alloc(dp_alloc_fn alloc, void *arg, size_t size)
{
    char *raw = (char *)alloc(arg, size + 2 * DP_LINE), *line;
    if (!raw) return NULL;
    line = raw + DP_LINE + sizeof(void *);
    line -= (uintptr_t)line % DP_LINE;
    ((void **)line)[-1] = raw;
    memset(line, 0, size);
    return line;
}
static DP_COLD void dp_line_free(dp_release_fn release, void *arg, void *line)
{
    if (line) release(arg, ((void **)line)[-1]);
}

/* Zeroes whole units of 16 bytes, one at least, 16-byte aligned; the last of them begins at `last`. Short records come
 * in any order of sizes, and a branch on the size would be guessed wrong most times: up to five units are five stores,
 * of which some coincide. */
#if defined(__GNUC__) || defined(__clang__)
typedef long long dp_unit __attribute__((vector_size(16), may_alias));
DP_INLINE void dp_zero16(void *memory, size_t last)
{
    char *p = (char *)memory;
    size_t one = last < 16 ? last : 16, half = last / 2 & ~(size_t)15;
    const dp_unit zero = {0, 0};
    if (DP_LIKELY(last <= 64)) {
        *(dp_unit *)p = zero;
        *(dp_unit *)(p + one) = zero;
        *(dp_unit *)(p + half) = zero;
        *(dp_unit *)(p + half + one) = zero;
        *(dp_unit *)(p + last) = zero;
    } else {
        memset(memory, 0, last + 16);
    }
}
#else
DP_INLINE void dp_zero16(void *memory, size_t last) { memset(memory, 0, last + 16); }
#endif

static DP_COLD void dp_die(const char *what, const void *item, const void *pool)
{
    fprintf(stderr, "deferpool: %s: record %p, pool %p\n", what, item, pool);
    fflush(stderr);
    abort();
}

#endif

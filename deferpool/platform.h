/* platform.h: all that depends on the compiler, the processor or the operating system, and nothing else.
 *
 * Top to bottom: compiler, atomics, a lock, what the kernel offers (restartable sections, membarrier),
 * the memory that a section touches, and the four sections themselves: pop, push, popn, pushn.
 *
 * A section is the few instructions in which a thread touches the P it runs on. The kernel sends a thread
 * that is preempted, migrated or signalled inside one back to its start, so whatever a section has written
 * before its last store, the commit, means nothing. Hence the rules: no call, no system call, one commit.
 *
 * This header is compiled into other people's modules. It keeps no state of its own, and what it says of
 * memory layout is part of the ABI number in records.pxd.
 */
#ifndef DEFERPOOL_PLATFORM_H
#define DEFERPOOL_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thread.h"

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

/* ---- what a section touches ------------------------------------------------------------------------ */

#define DP_MAX_PROCS 1024 /* a P number at or past this is never looked up */
#define DP_MAX_CAP 32766

/* One P, as portable mode and those who stop it see it. `holder`: compared-and-swapped by both. */
typedef struct dp_P {
    uint32_t holder;
    char line[DP_LINE - 4];
} dp_P;

#define DP_FREE 0u    /* holder: nobody has the P */
#define DP_HELD 1u    /* holder: one thread has it */
#define DP_RETIRED 2u /* holder: the P was removed, until procresize wants it again */

/* One Sched, as far as this header knows it. All but the counters is written while every P is stopped. */
typedef struct dp_sched {
    intptr_t area;     /* thread pointer to rseq area; never changes */
    intptr_t number;   /* thread pointer to the P number in that area; never changes */
    uint32_t portable; /* the mode */
    uint32_t procs;
    dp_P *ps;          /* DP_MAX_PROCS of them, whether in use or not */
    char line[DP_LINE];
    uint64_t hints;    /* portable mode: where the next new thread starts to look */
    uint64_t restarts; /* sections sent back to their start; counted after the fact, off the fast path */
} dp_sched;

/* What every section reads of its pool. A copy of what the Sched says: one step less to go, and each load counts. */
typedef struct dp_front {
    intptr_t area, number;
    uint32_t open;              /* sections may use the Ps below this: procs, or 0 while they are stopped or in
                                 * portable mode; written by who stops them */
    uint32_t cap;
    dp_sched *sched;
    char *caches[DP_MAX_PROCS]; /* by P: its local caches of this pool, class by class; never change once there */
} dp_front;

/* One local cache, of one pool and class on one P. In memory it ends with its word:
 *
 *     NULL | slot 0 | slot 1 | ... | slot cap - 1 | word
 *
 * The low 16 bits of the word are count - cap - 1, the rest is the number of pops ever: so the commit keeps the
 * statistics too. Full is -1, the newest item is found from the word without knowing the cap, and an empty cache
 * shows the NULL: neither end of it needs a look at the cap. */
typedef struct dp_cache {
    uint64_t word;
} dp_cache;

DP_INLINE uint32_t dp_count_of(uint64_t word, uint32_t cap) { return (uint32_t)((int32_t)(int16_t)word + 1 + (int32_t)cap); }
DP_INLINE uint64_t dp_word_of_empty(uint32_t cap) { return (uint16_t)(-1 - (int32_t)cap); }
DP_INLINE void **dp_slots(dp_cache *cache, uint32_t cap) { return (void **)cache - cap; }
DP_INLINE void **dp_newest(dp_cache *cache) { return (void **)cache + (int16_t)cache->word; } /* or the NULL below all */
#define DP_POPS(word) ((word) >> 16)
#define DP_ONE_POP (((uint64_t)1 << 16) - 1) /* one item fewer, one pop more */

/* How a primitive ended. */
#define DP_DONE 0
#define DP_UNFIT 1 /* pop: empty; push: full; popn: not full; pushn: no room */
#define DP_NO_P 2  /* this thread has no P now: stopped, out of range, or portable mode */

/* ---- the kernel: restartable sections and their barrier -------------------------------------------- */

#if defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__) && !defined(DP_TSAN) && \
    !defined(DP_EXPLORE) && ((defined(__clang__) && __clang_major__ >= 13) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define DP_HAVE_SECTIONS 1
#else
#define DP_HAVE_SECTIONS 0
#endif

#if defined(__linux__)
#include <errno.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 0, or the error number. The commands are the kernel's; older headers do not name them. */
static DP_COLD int dp_membarrier(int command)
{
#ifdef SYS_membarrier
    return syscall(SYS_membarrier, command, 0, 0) < 0 ? errno : 0;
#else
    return ENOSYS;
#endif
}
#define DP_RSEQ_BARRIER (1 << 7)          /* PRIVATE_EXPEDITED_RSEQ */
#define DP_RSEQ_BARRIER_REGISTER (1 << 8) /* REGISTER_PRIVATE_EXPEDITED_RSEQ */
#endif

#if defined(DP_ENGINE) && defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__)

/* Where there is no rseq area, sections that other modules have inlined write to this one and read P number 0
 * from it, which is never open then. Its place is the same in every thread, as that of the real one. */
static DP_OF_THREAD struct { uint32_t word[8]; } dp_no_area __attribute__((aligned(32), unused));

static DP_COLD void dp_find_no_area(intptr_t *area, intptr_t *number)
{
    intptr_t self;
    __asm__("movq %%fs:0, %0" : "=r"(self));
    *area = *number = (intptr_t)&dp_no_area - self;
}
#else
static inline void dp_find_no_area(intptr_t *area, intptr_t *number) { *area = *number = 0; }
#endif

#if defined(DP_ENGINE) && DP_HAVE_SECTIONS
/* Weak: a module built on this libc must load on one that has no rseq. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* Where this process finds its rseq area and P number. 0 when sections cannot be had. The kernel is asked
 * for the area's size, not the libc (glibc 2.36 says 20 and registers 32); but the libc must have
 * registered at all, for otherwise every thread would read P number 0. */
static DP_COLD int dp_find_sections(intptr_t *area, intptr_t *number, int *compact)
{
    int32_t cpu;
    if (!&__rseq_offset || !&__rseq_size || __rseq_size == 0) return 0;
    __asm__ volatile("movl %%fs:4(%1), %0" : "=r"(cpu) : "r"(__rseq_offset));
    if (cpu < 0) return 0;
    if (dp_membarrier(DP_RSEQ_BARRIER_REGISTER) || dp_membarrier(DP_RSEQ_BARRIER)) return 0;
    *area = __rseq_offset;
    *compact = getauxval(27 /* AT_RSEQ_FEATURE_SIZE */) >= 28;
    *number = __rseq_offset + (*compact ? 24 /* mm_cid */ : 4 /* cpu_id */);
    return 1;
}
static inline int dp_barrier(void) { return dp_membarrier(DP_RSEQ_BARRIER); }
static inline int dp_barrier_register(void) { return dp_membarrier(DP_RSEQ_BARRIER_REGISTER); }
#elif defined(DP_EXPLORE)
static inline int dp_find_sections(intptr_t *area, intptr_t *number, int *compact)
{
    (void)area, (void)number;
    return *compact = 1;
}
static inline int dp_barrier(void) { return dp_model_barrier(); }
static inline int dp_barrier_register(void) { return 0; }
#else
static inline int dp_find_sections(intptr_t *area, intptr_t *number, int *compact)
{
    (void)area, (void)number, (void)compact;
    return 0;
}
static inline int dp_barrier(void) { return 0; }
static inline int dp_barrier_register(void) { return 0; }
#endif

#if !defined(_WIN32)
#include <pthread.h>
DP_INLINE int dp_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}
#else
DP_INLINE int dp_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return 0;
}
#endif

/* ---- thread-local storage: only in the module that holds the out-of-line primitives ----------------- */

#if defined(DP_EXPLORE)
#define dp_last_p (*dp_model_last_p())
#elif defined(DP_ENGINE)
static DP_OF_THREAD uint32_t dp_last_p __attribute__((unused));
#endif

/* A test build adds a thread's own number to the one that the kernel gives, so that two CPUs test many Ps.
 * As long as what a thread adds is a multiple of the CPUs, two running threads never share a number. */
#if defined(DP_TEST_NUMBERS) && defined(DP_ENGINE)
static DP_OF_THREAD uint32_t dp_number_base;
DP_INLINE int dp_set_number_base(uint32_t base)
{
    dp_number_base = base;
    return 1;
}
#define DP_ADD_BASE "addl %[base], %k[i]\n\t"
#define DP_BASE_IN , [base] "r"(dp_number_base)
#else
#define DP_ADD_BASE
#define DP_BASE_IN
DP_INLINE int dp_set_number_base(uint32_t base) { return base == 0; }
#endif

/* ---- the four sections ----------------------------------------------------------------------------- */

/* Inlined into the caller, unless it is a test build: then only the engine's own module has them. */
#if DP_HAVE_SECTIONS && (!defined(DP_TEST_NUMBERS) || defined(DP_ENGINE))

static DP_COLD void dp_restarted(dp_front *f) { dp_add64(&f->sched->restarts, 1); }

/* An instruction of a section is written DP_BEFORE(text) or, from the section's start on, DP_I(text). That is the text
 * itself, except in the test build of stress/traps.h, which can interrupt a section at each of them. */
#if defined(DP_TRAPS)
#include "traps.h"
#else
#define DP_SECTION(name)
#define DP_BEFORE(text) text "\n\t"
#define DP_I(text) text "\n\t"
#define DP_AFTER
#define DP_CLOBBERS "memory", "cc"
#endif

/* Enters a section: %[c] comes in as the class's place among a P's local caches and leaves as the address of the
 * word of the one on this P, %[w] is that word, %[i] its count - cap - 1. The descriptor wants 32-byte alignment:
 * version and flags, start, length up to and with the commit, abort. */
#define DP_ENTER(name)                                              \
    DP_SECTION(name)                                                \
    ".pushsection __rseq_cs, \"aw\"\n\t"                            \
    ".balign 32\n"                                                  \
    "3:\n\t"                                                        \
    ".long 0, 0\n\t"                                                \
    ".quad 1f, 2f - 1f, 4f\n\t"                                     \
    ".popsection\n\t"                                               \
    DP_BEFORE("movq %[area], %[w]")                                 \
    DP_BEFORE("leaq 3b(%%rip), %[i]")                               \
    DP_BEFORE("movq %[i], %%fs:8(%[w])")                            \
    "1:\n\t"                                                        \
    DP_I("movq %[number], %[i]")                                    \
    DP_I("movl %%fs:(%[i]), %k[i]") /* P number */                  \
    DP_ADD_BASE                                                     \
    DP_I("cmpl %[open], %k[i]") /* in use, and not stopped? */      \
    DP_I("jae %l[no_p]")                                            \
    DP_I("addq %c[caches](%[front], %[i], 8), %[c]")                \
    DP_I("movq (%[c]), %[w]")                                       \
    DP_I("movswq %w[w], %[i]")

/* The end of a section. The abort address follows the signature that the libc registered. */
#define DP_LEAVE                              \
    "2:\n\t"                                  \
    DP_AFTER                                  \
    ".pushsection __rseq_failure, \"ax\"\n\t" \
    ".byte 0x0f, 0xb9, 0x3d\n\t"              \
    ".long 0x53053053\n"                      \
    "4:\n\t"                                  \
    "jmp %l[restart]\n\t"                     \
    ".popsection\n\t"

#define DP_COMMIT DP_I("movq %[w], (%[c])") /* the one store that makes it so */

#define DP_OUT [c] "+&r"(c), [w] "=&r"(w), [i] "=&r"(i)
#define DP_IN                                                                                     \
    [area] "m"(f->area), [number] "m"(f->number), [open] "m"(f->open), [front] "r"(f),            \
        [caches] "i"(offsetof(dp_front, caches)) DP_BASE_IN

DP_INLINE int dp_section_pop(dp_front *f, size_t at, void **item)
{
    uint64_t c, w, i;
again:
    c = at;
    __asm__ volatile goto(DP_ENTER(pop)
                 DP_I("leaq (%[c], %[i], 8), %[i]")
                 DP_I("movq (%[i]), %[i]") /* the newest, or the NULL below all */
                 DP_I("testq %[i], %[i]")
                 DP_I("jz %l[unfit]")
                 DP_I("addq %[one_pop], %[w]")
                 DP_COMMIT DP_LEAVE
                 : DP_OUT
                 : DP_IN, [one_pop] "i"(DP_ONE_POP)
                 : DP_CLOBBERS
                 : no_p, unfit, restart);
    if (!i) __builtin_unreachable(); /* spares the caller a look */
    *item = (void *)i;
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(f);
    goto again;
}

DP_INLINE int dp_section_push(dp_front *f, size_t at, void *item)
{
    uint64_t c, w, i;
again:
    c = at;
    __asm__ volatile goto(DP_ENTER(push)
                 DP_I("cmpq $-1, %[i]")
                 DP_I("je %l[unfit]")
                 DP_I("leaq 8(%[c], %[i], 8), %[i]")
                 DP_I("movq %[item], (%[i])")
                 DP_I("incq %[w]")
                 DP_COMMIT DP_LEAVE
                 : DP_OUT
                 : DP_IN, [item] "r"(item)
                 : DP_CLOBBERS
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(f);
    goto again;
}

/* The newest n of a full cache, oldest first, into items. */
DP_INLINE int dp_section_popn(dp_front *f, size_t at, uint64_t n, void **items)
{
    uint64_t c, w, i, a, t;
again:
    c = at;
    __asm__ volatile goto(DP_ENTER(popn)
                 DP_I("cmpq $-1, %[i]")
                 DP_I("jne %l[unfit]")
                 DP_I("movq %[n], %[a]")
                 DP_I("subq %[a], %[i]")
                 DP_I("leaq (%[c], %[i], 8), %[i]") /* one below the oldest of them */
                 "5:\n\t"
                 DP_I("movq (%[i], %[a], 8), %[t]")
                 DP_I("movq %[t], -8(%[items], %[a], 8)")
                 DP_I("decq %[a]")
                 DP_I("jnz 5b")
                 DP_I("subq %[n], %[w]")
                 DP_COMMIT DP_LEAVE
                 : DP_OUT, [a] "=&r"(a), [t] "=&r"(t)
                 : DP_IN, [n] "rm"(n), [items] "r"(items)
                 : DP_CLOBBERS
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(f);
    goto again;
}

/* n items, oldest first, onto a cache that has room for all of them. n is at least 1. */
DP_INLINE int dp_section_pushn(dp_front *f, size_t at, uint64_t n, void *const *items)
{
    uint64_t c, w, i, a, t;
again:
    c = at;
    __asm__ volatile goto(DP_ENTER(pushn)
                 DP_I("movq %[n], %[a]")
                 DP_I("leaq (%[i], %[a]), %[t]")
                 DP_I("testq %[t], %[t]") /* -1 is full, so 0 is one too many */
                 DP_I("jns %l[unfit]")
                 DP_I("leaq (%[c], %[i], 8), %[i]")
                 "5:\n\t"
                 DP_I("movq -8(%[items], %[a], 8), %[t]")
                 DP_I("movq %[t], (%[i], %[a], 8)")
                 DP_I("decq %[a]")
                 DP_I("jnz 5b")
                 DP_I("addq %[n], %[w]")
                 DP_COMMIT DP_LEAVE
                 : DP_OUT, [a] "=&r"(a), [t] "=&r"(t)
                 : DP_IN, [n] "rm"(n), [items] "r"(items)
                 : DP_CLOBBERS
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(f);
    goto again;
}

/* The P number now, as a hint only: it may be another one by the time it is used. */
DP_INLINE uint32_t dp_number_hint(const dp_sched *s)
{
    uint32_t number;
    __asm__ volatile("movl %%fs:(%1), %0" : "=r"(number) : "r"(s->number));
    return number;
}

#elif defined(DP_EXPLORE)

#include "model.h"
#define dp_section_pop dp_model_pop
#define dp_section_push dp_model_push
#define dp_section_popn dp_model_popn
#define dp_section_pushn dp_model_pushn
DP_INLINE uint32_t dp_number_hint(const dp_sched *s)
{
    (void)s;
    return dp_model_number();
}

#else /* no sections here: the caller goes out of line, where there are some or the mode is portable */

DP_INLINE int dp_section_pop(dp_front *f, size_t at, void **item)
{
    (void)f, (void)at, (void)item;
    return DP_NO_P;
}
DP_INLINE int dp_section_push(dp_front *f, size_t at, void *item)
{
    (void)f, (void)at, (void)item;
    return DP_NO_P;
}
DP_INLINE int dp_section_popn(dp_front *f, size_t at, uint64_t n, void **items)
{
    (void)f, (void)at, (void)n, (void)items;
    return DP_NO_P;
}
DP_INLINE int dp_section_pushn(dp_front *f, size_t at, uint64_t n, void *const *items)
{
    (void)f, (void)at, (void)n, (void)items;
    return DP_NO_P;
}
DP_INLINE uint32_t dp_number_hint(const dp_sched *s)
{
    (void)s;
    return 0;
}

#endif
#endif

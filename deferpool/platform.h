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

#define DP_LINE 64 /* bytes of a cache line; what two Ps write lies at least this far apart */

/* ---- atomics -------------------------------------------------------------------------------------- */

#if defined(__GNUC__) || defined(__clang__)
DP_INLINE uint32_t dp_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
DP_INLINE void dp_store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
DP_INLINE int dp_cas32(uint32_t *p, uint32_t old, uint32_t v)
{
    return __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
DP_INLINE uint64_t dp_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
DP_INLINE void dp_store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
DP_INLINE uint64_t dp_add64(uint64_t *p, uint64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
DP_INLINE int dp_cas64(uint64_t *p, uint64_t old, uint64_t v)
{
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

/* Whole units of 16 bytes: shorter than a call of memset for the few that a record has. */
DP_INLINE void dp_zero16(void *memory, size_t units)
{
    uint64_t *p = (uint64_t *)memory, *end = p + 2 * units;
    do {
        p[0] = 0;
        p[1] = 0;
        p += 2;
    } while (p != end);
}

static DP_COLD void dp_die(const char *what, const void *item, const void *pool)
{
    fprintf(stderr, "deferpool: %s: record %p, pool %p\n", what, item, pool);
    fflush(stderr);
    abort();
}

/* ---- what a section touches ------------------------------------------------------------------------ */

#define DP_MAX_PROCS 1024 /* a P number at or past this is never looked up */
#define DP_MAX_CAP 32768

/* One P. `holder`: compared-and-swapped by who takes the P in portable mode, and by who stops it.
 * `stop`: written only by the one who has `holder`; read inside every section. */
typedef struct dp_P {
    uint32_t stop;
    uint32_t holder;
    char line[DP_LINE - 8];
} dp_P;

#define DP_FREE 0u    /* holder: nobody has the P */
#define DP_HELD 1u    /* holder: one thread has it */
#define DP_RETIRED 2u /* holder: the P was removed, until procresize wants it again */

/* What every section reads of its Sched; written only while every P is stopped (`area`: a hint, see _sched). */
typedef struct dp_sched {
    intptr_t area;   /* thread pointer to rseq area; 0 in portable mode */
    intptr_t number; /* thread pointer to the P number in that area */
    dp_P *ps;        /* DP_MAX_PROCS of them, whether in use or not */
    uint32_t procs;
    uint64_t hints;    /* portable mode: where the next new thread starts to look */
    uint64_t restarts; /* sections sent back to their start; counted after the fact, off the fast path */
} dp_sched;

/* One local cache: of one pool and class, on one P. The low 16 bits of `word` are the count of items, the
 * rest is the number of pops ever, so that the commit keeps the statistics too. */
typedef struct dp_cache {
    uint64_t word;
    void *slots[1];
} dp_cache;

#define DP_COUNT(word) ((uint32_t)((word) & 0xffff))
#define DP_POPS(word) ((word) >> 16)
#define DP_ONE_POP (((uint64_t)1 << 16) - 1) /* one item fewer, one pop more */

/* How a primitive ended. */
#define DP_DONE 0
#define DP_UNFIT 1 /* pop: empty; push: full; popn: not full; pushn: no room */
#define DP_NO_P 2  /* this thread has no P now: stopped, out of range, or portable mode */

/* Not 0 in sections mode. A hint: what keeps a thread out of a P is the P's own stop word. */
#if defined(__GNUC__) || defined(__clang__)
DP_INLINE intptr_t dp_area(const dp_sched *s) { return __atomic_load_n(&s->area, __ATOMIC_RELAXED); }
DP_INLINE void dp_set_area(dp_sched *s, intptr_t area) { __atomic_store_n(&s->area, area, __ATOMIC_RELAXED); }
#else
DP_INLINE intptr_t dp_area(const dp_sched *s) { return *(volatile const intptr_t *)&s->area; }
DP_INLINE void dp_set_area(dp_sched *s, intptr_t area) { *(volatile intptr_t *)&s->area = area; }
#endif

/* ---- the kernel: restartable sections and their barrier -------------------------------------------- */

#if defined(__linux__) && defined(__x86_64__) && defined(__LP64__) && !defined(DP_TSAN) && \
    ((defined(__clang__) && __clang_major__ >= 13) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
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

#if DP_HAVE_SECTIONS && defined(DP_ENGINE)
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

#if defined(DP_ENGINE)
#if defined(_MSC_VER)
static __declspec(thread) uint32_t dp_last_p;
#elif defined(__GLIBC__)
/* initial-exec: one instruction, and glibc keeps room for such small variables of loaded modules */
static __thread uint32_t dp_last_p __attribute__((tls_model("initial-exec"), unused));
#else
static __thread uint32_t dp_last_p;
#endif
#endif

/* A test build adds a thread's own number to the one that the kernel gives, so that two CPUs test many Ps.
 * As long as what a thread adds is a multiple of the CPUs, two running threads never share a number. */
#if defined(DP_TEST_NUMBERS) && defined(DP_ENGINE)
static __thread uint32_t dp_number_base __attribute__((tls_model("initial-exec")));
DP_INLINE int dp_set_number_base(uint32_t base)
{
    dp_number_base = base;
    return 1;
}
#define DP_ADD_BASE "addl %[base], %k[a]\n\t"
#define DP_BASE_IN , [base] "m"(dp_number_base)
#else
#define DP_ADD_BASE
#define DP_BASE_IN
DP_INLINE int dp_set_number_base(uint32_t base) { return base == 0; }
#endif

/* ---- the four sections ----------------------------------------------------------------------------- */

/* Inlined into the caller, unless it is a test build: then only the engine's own module has them. */
#if DP_HAVE_SECTIONS && (!defined(DP_TEST_NUMBERS) || defined(DP_ENGINE))

static DP_COLD void dp_restarted(dp_sched *s) { dp_add64(&s->restarts, 1); }

/* Enters a section and leaves in %[c] the cache's address, in %[w] its word, in %[i] its count. The
 * descriptor wants 32-byte alignment: version and flags, start, length up to and with the commit, abort. */
#define DP_ENTER                                      \
    ".pushsection __rseq_cs, \"aw\"\n\t"              \
    ".balign 32\n"                                    \
    "3:\n\t"                                          \
    ".long 0, 0\n\t"                                  \
    ".quad 1f, 2f - 1f, 4f\n\t"                       \
    ".popsection\n\t"                                 \
    "leaq 3b(%%rip), %[a]\n\t"                        \
    "movq %[a], %%fs:8(%[area])\n"                    \
    "1:\n\t"                                          \
    "movl %%fs:(%[number]), %k[a]\n\t" /* P number */ \
    DP_ADD_BASE                                       \
    "cmpl %[max], %k[a]\n\t"                          \
    "jae %l[no_p]\n\t"                                \
    "movl %k[a], %k[c]\n\t"                           \
    "shll $6, %k[c]\n\t"                              \
    "cmpl $0, (%[ps], %[c])\n\t" /* its stop word */  \
    "jne %l[no_p]\n\t"                                \
    "movq (%[locals], %[a], 8), %[c]\n\t"             \
    "addq %[at], %[c]\n\t"                            \
    "movq (%[c]), %[w]\n\t"                           \
    "movzwl %w[w], %k[i]\n\t"

/* The end of a section. The abort address follows the signature that the libc registered. */
#define DP_LEAVE                             \
    "2:\n\t"                                 \
    ".pushsection __rseq_failure, \"ax\"\n\t" \
    ".byte 0x0f, 0xb9, 0x3d\n\t"             \
    ".long 0x53053053\n"                     \
    "4:\n\t"                                 \
    "jmp %l[restart]\n\t"                    \
    ".popsection\n\t"

#define DP_COMMIT "movq %[w], (%[c])\n" /* the one store that makes it so */

#define DP_IN                                                                                            \
    [area] "r"(area), [number] "r"(s->number), [ps] "r"(s->ps), [locals] "r"(locals), [at] "rme"(at), \
        [max] "i"(DP_MAX_PROCS) DP_BASE_IN

DP_INLINE int dp_section_pop(dp_sched *s, void *const *locals, size_t at, void **item)
{
    intptr_t area = dp_area(s); /* read once: it may become 0 meanwhile */
    uint64_t a, c, w, i;
    if (!DP_LIKELY(area != 0)) return DP_NO_P;
again:
    __asm__ volatile goto(DP_ENTER
                 "testl %k[i], %k[i]\n\t"
                 "jz %l[unfit]\n\t"
                 "movq (%[c], %[i], 8), %[i]\n\t" /* slots[count - 1]: slots start one word in */
                 "addq %[one_pop], %[w]\n\t"
                 DP_COMMIT DP_LEAVE
                 : [a] "=&r"(a), [c] "=&r"(c), [w] "=&r"(w), [i] "=&r"(i)
                 : DP_IN, [one_pop] "i"(DP_ONE_POP)
                 : "memory", "cc"
                 : no_p, unfit, restart);
    *item = (void *)i;
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(s);
    goto again;
}

DP_INLINE int dp_section_push(dp_sched *s, void *const *locals, size_t at, uint32_t cap, void *item)
{
    intptr_t area = dp_area(s); /* read once: it may become 0 meanwhile */
    uint64_t a, c, w, i;
    if (!DP_LIKELY(area != 0)) return DP_NO_P;
again:
    __asm__ volatile goto(DP_ENTER
                 "cmpl %[cap], %k[i]\n\t"
                 "jae %l[unfit]\n\t"
                 "movq %[item], 8(%[c], %[i], 8)\n\t"
                 "incq %[w]\n\t"
                 DP_COMMIT DP_LEAVE
                 : [a] "=&r"(a), [c] "=&r"(c), [w] "=&r"(w), [i] "=&r"(i)
                 : DP_IN, [cap] "rme"(cap), [item] "r"(item)
                 : "memory", "cc"
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(s);
    goto again;
}

/* The newest n of a full cache, oldest first, into items. */
DP_INLINE int dp_section_popn(dp_sched *s, void *const *locals, size_t at, uint32_t cap, uint64_t n, void **items)
{
    intptr_t area = dp_area(s);
    uint64_t a, c, w, i, t;
    if (!DP_LIKELY(area != 0)) return DP_NO_P;
again:
    __asm__ volatile goto(DP_ENTER
                 "cmpl %[cap], %k[i]\n\t"
                 "jne %l[unfit]\n\t"
                 "movq %[n], %[a]\n\t"
                 "subq %[a], %[i]\n\t"
                 "leaq (%[c], %[i], 8), %[i]\n"
                 "5:\n\t"
                 "movq (%[i], %[a], 8), %[t]\n\t"
                 "movq %[t], -8(%[items], %[a], 8)\n\t"
                 "decq %[a]\n\t"
                 "jnz 5b\n\t"
                 "subq %[n], %[w]\n\t"
                 DP_COMMIT DP_LEAVE
                 : [a] "=&r"(a), [c] "=&r"(c), [w] "=&r"(w), [i] "=&r"(i), [t] "=&r"(t)
                 : DP_IN, [cap] "rme"(cap), [n] "rm"(n), [items] "r"(items)
                 : "memory", "cc"
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(s);
    goto again;
}

/* n items, oldest first, onto a cache that has room for all of them. n is at least 1. */
DP_INLINE int dp_section_pushn(dp_sched *s, void *const *locals, size_t at, uint32_t cap, uint64_t n, void *const *items)
{
    intptr_t area = dp_area(s);
    uint64_t a, c, w, i, t;
    if (!DP_LIKELY(area != 0)) return DP_NO_P;
again:
    __asm__ volatile goto(DP_ENTER
                 "movq %[n], %[a]\n\t"
                 "leaq (%[i], %[a]), %[t]\n\t"
                 "cmpl %[cap], %k[t]\n\t"
                 "ja %l[unfit]\n\t"
                 "leaq (%[c], %[i], 8), %[i]\n"
                 "5:\n\t"
                 "movq -8(%[items], %[a], 8), %[t]\n\t"
                 "movq %[t], (%[i], %[a], 8)\n\t"
                 "decq %[a]\n\t"
                 "jnz 5b\n\t"
                 "addq %[n], %[w]\n\t"
                 DP_COMMIT DP_LEAVE
                 : [a] "=&r"(a), [c] "=&r"(c), [w] "=&r"(w), [i] "=&r"(i), [t] "=&r"(t)
                 : DP_IN, [cap] "rme"(cap), [n] "rm"(n), [items] "r"(items)
                 : "memory", "cc"
                 : no_p, unfit, restart);
    return DP_DONE;
unfit:
    return DP_UNFIT;
no_p:
    return DP_NO_P;
restart:
    dp_restarted(s);
    goto again;
}

/* The P number now, as a hint only: it may be another one by the time it is used. */
DP_INLINE uint32_t dp_number_hint(const dp_sched *s)
{
    uint32_t number;
    __asm__ volatile("movl %%fs:(%1), %0" : "=r"(number) : "r"(s->number));
    return number;
}

#else /* no sections here: the caller goes out of line, where there are some or the mode is portable */

DP_INLINE int dp_section_pop(dp_sched *s, void *const *locals, size_t at, void **item)
{
    (void)s, (void)locals, (void)at, (void)item;
    return DP_NO_P;
}
DP_INLINE int dp_section_push(dp_sched *s, void *const *locals, size_t at, uint32_t cap, void *item)
{
    (void)s, (void)locals, (void)at, (void)cap, (void)item;
    return DP_NO_P;
}
DP_INLINE int dp_section_popn(dp_sched *s, void *const *locals, size_t at, uint32_t cap, uint64_t n, void **items)
{
    (void)s, (void)locals, (void)at, (void)cap, (void)n, (void)items;
    return DP_NO_P;
}
DP_INLINE int dp_section_pushn(dp_sched *s, void *const *locals, size_t at, uint32_t cap, uint64_t n, void *const *items)
{
    (void)s, (void)locals, (void)at, (void)cap, (void)n, (void)items;
    return DP_NO_P;
}
DP_INLINE uint32_t dp_number_hint(const dp_sched *s)
{
    (void)s;
    return 0;
}

#endif
#endif

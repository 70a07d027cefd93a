/* sections.h: the memory of a local cache, and the four sections that touch it: pop, push, popn, pushn.
 *
 * A section is the few instructions in which a thread touches the P it runs on. The kernel sends a thread
 * that is preempted, migrated or signalled inside one back to its start, so whatever a section has written
 * before its last store, the commit, means nothing. Hence the rules: no call, no system call, one commit.
 *
 * What this header says of memory layout is part of the ABI number in records.pxd.
 */
#ifndef DEFERPOOL_SECTIONS_H
#define DEFERPOOL_SECTIONS_H

#include "platform.h"
#if defined(DP_TEST_NUMBERS)
#include "thread.h"
#endif

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

/* ---- the sections ----------------------------------------------------------------------------------- */

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

/* kernel.h: what the engine asks of the operating system: where a thread's restartable sections and its P number are, the
 * barrier that sends open sections back to their start, and to be called when the process forks.
 */
#ifndef DEFERPOOL_KERNEL_H
#define DEFERPOOL_KERNEL_H

#include "platform.h"
#include "thread.h"

#if defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__)

/* Where there is no rseq area, sections that other modules have inlined write to this one and read P number 0
 * from it, which is never open then. Its place is the same in every thread, as that of the real one. */
static DP_OF_THREAD struct { uint32_t word[8]; } dp_no_area __attribute__((aligned(32)));

static DP_COLD void dp_find_no_area(intptr_t *area, intptr_t *number)
{
    intptr_t self;
    __asm__("movq %%fs:0, %0" : "=r"(self));
    *area = *number = (intptr_t)&dp_no_area - self;
}
#else
static inline void dp_find_no_area(intptr_t *area, intptr_t *number) { *area = *number = 0; }
#endif

#if DP_HAVE_SECTIONS
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

#endif

"""Trouble for restartable sections: timer signals to a thread, and threads pushed from CPU to CPU.

A section that is interrupted by either starts over. The handler only counts: that the signal came is enough.
"""
import os

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifdef __linux__
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <sched.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef sigev_notify_thread_id
    #define sigev_notify_thread_id _sigev_un._tid
    #endif
    static unsigned long dp_signals;
    static void dp_nothing(int signal)
    {
        (void)signal;
        __atomic_fetch_add(&dp_signals, 1, __ATOMIC_RELAXED);
    }
    static unsigned long dp_delivered(void) { return __atomic_load_n(&dp_signals, __ATOMIC_RELAXED); }

    /* A signal to the calling thread every so many microseconds. 0 or an error number. */
    static int dp_start_timer(timer_t *timer, long us)
    {
        struct sigaction action;
        struct sigevent event;
        struct itimerspec every = {{us / 1000000, us % 1000000 * 1000}, {us / 1000000, us % 1000000 * 1000}};
        memset(&action, 0, sizeof action);
        action.sa_handler = dp_nothing;
        action.sa_flags = SA_RESTART;
        if (sigaction(SIGRTMIN, &action, NULL)) return errno;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGRTMIN;
        event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
        if (timer_create(CLOCK_MONOTONIC, &event, timer)) return errno;
        return timer_settime(*timer, 0, &every, NULL) ? errno : 0;
    }
    static void dp_stop_timer(timer_t timer) { timer_delete(timer); }
    static int dp_push(int tid, unsigned cpu)
    {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return sched_setaffinity(tid, sizeof one, &one) ? errno : 0;
    }
    static void dp_pause_us(long us)
    {
        struct timespec t = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&t, NULL);
    }
    #else
    #include <errno.h>
    typedef int dp_timer_t;
    #define timer_t dp_timer_t
    static int dp_start_timer(timer_t *timer, long us) { (void)timer, (void)us; return ENOSYS; }
    static void dp_stop_timer(timer_t timer) { (void)timer; }
    static unsigned long dp_delivered(void) { return 0; }
    static int dp_push(int tid, unsigned cpu) { (void)tid, (void)cpu; return ENOSYS; }
    static void dp_pause_us(long us) { (void)us; }
    #endif
    """
    ctypedef struct timer_t:
        pass
    int start_timer "dp_start_timer"(timer_t*, long) nogil
    void stop_timer "dp_stop_timer"(timer_t) nogil
    int push_thread "dp_push"(int, unsigned) nogil
    unsigned long delivered "dp_delivered"() nogil
    void pause_us "dp_pause_us"(long) nogil


cdef class Timer:
    """A signal to the calling thread every `us` microseconds, until stop() or the end of the thread."""
    cdef timer_t timer

    def __init__(self, long us):
        cdef int error = start_timer(&self.timer, us)
        if error:
            raise OSError(error, os.strerror(error))

    def stop(self):
        stop_timer(self.timer)


def signals():
    """How many the timers of this process have delivered so far."""
    return delivered()


def push_about(tids, cpus, long us, uint64_t seed, stopping):
    """Moves one of the threads to one of the CPUs every `us` microseconds, until stopping() is true. How often."""
    cdef uint64_t random = seed | 1, pushed = 0
    cdef int[256] tid
    cdef unsigned[256] cpu
    cdef uint32_t threads = min(len(tids), 256), n = min(len(cpus), 256), i
    for i in range(threads):
        tid[i] = tids[i]
    for i in range(n):
        cpu[i] = cpus[i]
    while not stopping():
        with nogil:
            for i in range(100):
                random ^= random << 13
                random ^= random >> 7
                random ^= random << 17
                if push_thread(tid[(random >> 8) % threads], cpu[(random >> 32) % n]) == 0:
                    pushed += 1
                pause_us(us)
    return pushed

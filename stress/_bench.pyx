"""The loops that are timed. Each is the body of one thread, without the GIL, and returns its own CPU time.

Both sides write one word of the memory, so that neither is optimized away; deferpool also zeroes it all.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from deferpool.records cimport RecordPool

cdef extern from *:
    """
    #include <time.h>
    static double dp_thread_seconds(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    #define dp_touch(p, v) (*(volatile uint64_t *)(p) = (v))
    """
    double thread_seconds "dp_thread_seconds"() nogil
    void touch "dp_touch"(void*, uint64_t) nogil


def pair_deferpool(RecordPool pool not None, uint64_t pairs):
    """new(64) and free, so many times: CPU seconds."""
    cdef uint64_t i
    cdef void* record
    cdef double began
    with nogil:
        began = thread_seconds()
        for i in range(pairs):
            record = pool.new(64)
            touch(record, i)
            pool.free(record)
        began = thread_seconds() - began
    return began


def pair_malloc(RecordPool pool, uint64_t pairs):
    """malloc(64) and free, so many times: CPU seconds."""
    cdef uint64_t i
    cdef void* record
    cdef double began
    with nogil:
        began = thread_seconds()
        for i in range(pairs):
            record = malloc(64)
            touch(record, i)
            free(record)
        began = thread_seconds() - began
    return began

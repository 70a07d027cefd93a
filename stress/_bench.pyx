"""What is timed: four kinds of work, written once for each of three designs. The body of one thread each, without the
GIL; the figure is that thread's own CPU time.

Every record is written to, so that no take can be optimized away; deferpool and the 2015 design also zero it at its
return, malloc does not.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from deferpool.records cimport RecordPool

cdef extern from *:
    """
    #include <pthread.h>
    #include <time.h>
    #include "platform.h"
    static double dp_thread_seconds(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    #define dp_touch(p, v) (*(volatile uint64_t *)(p) = (v))

    /* ---- the 2015 design ---- */
    typedef struct dp_link { struct dp_link *next; uint32_t cls; } dp_link; /* a free record; while it is out, its class */
    #define DP_CLASSES 5
    #define DP_CAP 32
    static __thread struct { dp_link *slots[DP_CAP]; uint32_t n; } dp_local[DP_CLASSES];
    static struct { pthread_mutex_t lock; dp_link *first[DP_CLASSES]; } dp_central = {PTHREAD_MUTEX_INITIALIZER, {0}};
    static dp_link *dp_origin_refill(uint32_t cls)
    {
        if (__atomic_load_n(&dp_central.first[cls], __ATOMIC_RELAXED)) {
            pthread_mutex_lock(&dp_central.lock);
            while (dp_local[cls].n < DP_CAP / 2 && dp_central.first[cls]) {
                dp_link *link = dp_central.first[cls];
                __atomic_store_n(&dp_central.first[cls], link->next, __ATOMIC_RELAXED);
                dp_local[cls].slots[dp_local[cls].n++] = link;
            }
            pthread_mutex_unlock(&dp_central.lock);
        }
        if (dp_local[cls].n) return dp_local[cls].slots[--dp_local[cls].n];
        return malloc(sizeof(dp_link) + 16 * (cls + 1));
    }
    static void dp_origin_spill(uint32_t cls, uint32_t down_to)
    {
        dp_link *first = NULL, *last = NULL;
        while (dp_local[cls].n > down_to) {
            dp_link *link = dp_local[cls].slots[--dp_local[cls].n];
            if (first) last->next = link; else first = link;
            last = link;
        }
        if (!first) return;
        pthread_mutex_lock(&dp_central.lock);
        last->next = dp_central.first[cls];
        __atomic_store_n(&dp_central.first[cls], first, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&dp_central.lock);
    }
    static inline void *dp_origin_new(size_t size)
    {
        uint32_t cls = (uint32_t)((size + 15) >> 4) - 1;
        dp_link *link = dp_local[cls].n ? dp_local[cls].slots[--dp_local[cls].n] : dp_origin_refill(cls);
        if (!link) return NULL;
        link->cls = cls;
        return link + 1;
    }
    static inline void dp_origin_free(void *record)
    {
        dp_link *link = (dp_link *)record - 1;
        uint32_t cls = link->cls;
        memset(record, 0, 16 * ((size_t)cls + 1));
        if (dp_local[cls].n == DP_CAP) dp_origin_spill(cls, DP_CAP / 2);
        dp_local[cls].slots[dp_local[cls].n++] = link;
    }
    static void dp_origin_leave(void)
    {
        for (uint32_t cls = 0; cls < DP_CLASSES; cls++) dp_origin_spill(cls, 0);
    }

    /* ---- a bounded queue of batches from one thread to another ---- */
    #define DP_BATCH 64
    #define DP_DEPTH 16
    #define DP_SPINS 200
    typedef struct dp_queue {
        uint32_t head, ended, producer_sleeps;
        char line1[52];
        uint32_t tail, consumer_sleeps;
        char line2[56];
        pthread_mutex_t lock;
        pthread_cond_t wake;
        void *slots[DP_DEPTH][DP_BATCH];
    } dp_queue;
    #define DP_GET(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)
    #define DP_SET(x, v) __atomic_store_n(&(x), v, __ATOMIC_SEQ_CST)
    #define DP_FULL(q) (DP_GET((q)->head) - DP_GET((q)->tail) == DP_DEPTH)
    #define DP_EMPTY(q) (DP_GET((q)->head) == DP_GET((q)->tail) && !DP_GET((q)->ended))
    static void dp_queue_open(dp_queue *q)
    {
        pthread_mutex_init(&q->lock, NULL);
        pthread_cond_init(&q->wake, NULL);
    }
    /* Who waits spins for a moment and then sleeps; a sleeper is woken at half, for a switch of threads a batch would be
     * all that is measured. */
    #define DP_WAIT(q, condition, sleeps)                                              \
        for (int i = 0; i < DP_SPINS && (condition); i++) DP_PAUSE();                  \
        if (condition) {                                                               \
            pthread_mutex_lock(&(q)->lock);                                            \
            DP_SET((q)->sleeps, 1);                                                    \
            while (condition) pthread_cond_wait(&(q)->wake, &(q)->lock);               \
            DP_SET((q)->sleeps, 0);                                                    \
            pthread_mutex_unlock(&(q)->lock);                                          \
        }
    static void dp_queue_wake(dp_queue *q)
    {
        pthread_mutex_lock(&q->lock);
        pthread_cond_signal(&q->wake);
        pthread_mutex_unlock(&q->lock);
    }
    static void **dp_queue_next_in(dp_queue *q)
    {
        DP_WAIT(q, DP_FULL(q), producer_sleeps)
        return q->slots[q->head % DP_DEPTH];
    }
    static void dp_queue_filled(dp_queue *q)
    {
        DP_SET(q->head, q->head + 1);
        if (DP_GET(q->consumer_sleeps) && q->head - DP_GET(q->tail) >= DP_DEPTH / 2) dp_queue_wake(q);
    }
    static void dp_queue_end(dp_queue *q)
    {
        DP_SET(q->ended, 1);
        dp_queue_wake(q);
    }
    static void **dp_queue_next_out(dp_queue *q)
    {
        DP_WAIT(q, DP_EMPTY(q), consumer_sleeps)
        return DP_GET(q->head) == q->tail ? NULL : q->slots[q->tail % DP_DEPTH];
    }
    static void dp_queue_emptied(dp_queue *q)
    {
        DP_SET(q->tail, q->tail + 1);
        if (DP_GET(q->producer_sleeps) && DP_GET(q->head) - q->tail <= DP_DEPTH / 2) dp_queue_wake(q);
    }
    """
    ctypedef struct Queue "dp_queue":
        pass
    ctypedef struct pthread_barrier_t:
        pass
    enum:
        BATCH "DP_BATCH"
    double thread_seconds "dp_thread_seconds"() nogil
    void touch "dp_touch"(void*, uint64_t) nogil
    void* origin_new "dp_origin_new"(size_t) nogil
    void origin_free "dp_origin_free"(void*) nogil
    void origin_leave "dp_origin_leave"() nogil
    void queue_open "dp_queue_open"(Queue*) nogil
    void** next_in "dp_queue_next_in"(Queue*) nogil
    void filled "dp_queue_filled"(Queue*) nogil
    void end "dp_queue_end"(Queue*) nogil
    void** next_out "dp_queue_next_out"(Queue*) nogil
    void emptied "dp_queue_emptied"(Queue*) nogil
    int pthread_barrier_init(pthread_barrier_t*, void*, unsigned) nogil
    int pthread_barrier_wait(pthread_barrier_t*) nogil
    int pthread_barrier_destroy(pthread_barrier_t*) nogil


# ---- the designs: to take, to give back, and what a thread does before it ends ---------------------------------------

cdef class Malloc:
    """The process's malloc: the C library's, or what was preloaded in its place."""


cdef class Origin:
    """Go's defer pools as they were written in 2015: linked records, moved one by one under one lock, no limit.

    A local cache belongs to its thread here: what Go's threads do with a P, a C thread can only do with its own.
    """


ctypedef fused Design:
    RecordPool
    Malloc
    Origin


cdef inline void* take(Design design, size_t size, uint64_t mark) noexcept nogil:
    cdef void* record
    if Design is RecordPool:
        record = design.new(size)
    elif Design is Malloc:
        record = malloc(size)
    else:
        record = origin_new(size)
    touch(record, mark)
    return record


cdef inline void give(Design design, void* record) noexcept nogil:
    if Design is RecordPool:
        design.free(record)
    elif Design is Malloc:
        free(record)
    else:
        origin_free(record)


cdef inline void leave(Design design) noexcept nogil:
    if Design is Origin:
        origin_leave()


# ---- the work --------------------------------------------------------------------------------------------------------

cdef class Gate:
    """All threads of a round begin at once; and the queues of its pairs."""
    cdef pthread_barrier_t barrier
    cdef Queue* queues

    def __cinit__(self, unsigned threads):
        self.queues = <Queue*>calloc((threads + 1) // 2, sizeof(Queue))
        if self.queues == NULL:
            raise MemoryError("no memory for the queues")
        for i in range((threads + 1) // 2):
            queue_open(&self.queues[i])
        pthread_barrier_init(&self.barrier, NULL, threads)

    def __dealloc__(self):
        pthread_barrier_destroy(&self.barrier)
        free(self.queues)

    def wait(self):
        """Until all threads of the round have come here."""
        with nogil:
            pthread_barrier_wait(&self.barrier)


def rest(Design design, Gate gate, unsigned thread, uint64_t pairs):
    """Nothing: what the threads themselves cost."""
    with nogil:
        pthread_barrier_wait(&gate.barrier)
        leave(design)
    return 0.0


def pair(Design design, Gate gate, unsigned thread, uint64_t pairs):
    """Takes one and gives it back."""
    cdef uint64_t i
    cdef double began
    with nogil:
        pthread_barrier_wait(&gate.barrier)
        began = thread_seconds()
        for i in range(pairs):
            give(design, take(design, 64, i))
        began = thread_seconds() - began
        leave(design)
    return began


def burst(Design design, Gate gate, unsigned thread, uint64_t pairs):
    """Takes 1,000 and gives them back, the last one first, as deferred calls do."""
    cdef void* held[1000]
    cdef uint64_t i, done = 0
    cdef double began
    with nogil:
        pthread_barrier_wait(&gate.barrier)
        began = thread_seconds()
        while done < pairs:
            for i in range(1000):
                held[i] = take(design, 64, i)
            for i in range(1000):
                give(design, held[999 - i])
            done += 1000
        began = thread_seconds() - began
        leave(design)
    return began


def passing(Design design, Gate gate, unsigned thread, uint64_t pairs):
    """Even threads take, and hand batches of 64 to their neighbour, who gives back."""
    cdef Queue* queue = &gate.queues[thread // 2]
    cdef void** batch
    cdef uint64_t i, done = 0
    cdef double began
    with nogil:
        pthread_barrier_wait(&gate.barrier)
        began = thread_seconds()
        if thread % 2 == 0:
            while done < 2 * pairs:                 # of both threads together
                batch = next_in(queue)
                for i in range(<uint64_t>BATCH):
                    batch[i] = take(design, 64, i)
                filled(queue)
                done += BATCH
            end(queue)
        else:
            while True:
                batch = next_out(queue)
                if batch == NULL:
                    break
                for i in range(<uint64_t>BATCH):
                    give(design, batch[i])
                emptied(queue)
        began = thread_seconds() - began
        leave(design)
    return began


def mixed(Design design, Gate gate, unsigned thread, uint64_t pairs):
    """A random one of up to 256 records is given back, and one of a random class taken in its place."""
    cdef void* held[256]
    cdef uint64_t i, random = 88172645463325252 + thread
    cdef uint32_t at
    cdef double began
    with nogil:
        memset(held, 0, sizeof(held))
        pthread_barrier_wait(&gate.barrier)
        began = thread_seconds()
        for i in range(pairs):
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            at = <uint32_t>random & 255
            if held[at] != NULL:
                give(design, held[at])
            held[at] = take(design, 16 + 16 * (((random >> 32) * 5 >> 32) & 7), i)
        for at in range(256):
            if held[at] != NULL:
                give(design, held[at])
        began = thread_seconds() - began
        leave(design)
    return began


WORK = {"rest": rest, "pair": pair, "burst": burst, "pass": passing, "mixed": mixed}


# ---- the fast paths on their own, for stress/bench/instructions.py to count ------------------------------------

cdef void* take_record(RecordPool pool) noexcept nogil:
    return pool.new(64)


cdef void give_record(RecordPool pool, void* record) noexcept nogil:
    pool.free(record)


APART = <size_t>&take_record, <size_t>&give_record      # asked for, or the compiler would leave them out

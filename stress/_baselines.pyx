"""The unbounded designs, for comparison: what Go's runtime did before 2015, and what people write today.

PerP: a free list for each processor, without a bound. PerThread: a free list for each thread, without a bound.
Both are as fast as they can be made in a few lines, and both grow for ever when records are taken in one place
and given back in another.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool._platform cimport load64, lock, store64, unlock
from deferpool.records cimport Allocator
from stress._ledger cimport Ledger
from stress._designs cimport Baseline

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sched.h>
    static unsigned dp_this_cpu(void) { int cpu = sched_getcpu(); return cpu < 0 ? 0 : (unsigned)cpu; }
    #else
    static unsigned dp_this_cpu(void) { return 0; }
    #endif
    """
    uint32_t this_cpu "dp_this_cpu"() noexcept nogil

cdef enum:
    LISTS = 4096

cdef struct List:
    uint32_t lock                       # never contended, but for a thread preempted in the middle
    void* first                         # linked through the records themselves
    uint64_t n
    char line[104]

cdef struct Lists:
    List list[LISTS]
    Allocator allocator


cdef void* take_from(Lists* lists, List* free_list, size_t size) noexcept nogil:
    cdef void* record
    lock(&free_list.lock)
    record = free_list.first
    if record != NULL:
        free_list.first = (<void**>record)[0]
        store64(&free_list.n, free_list.n - 1)
    unlock(&free_list.lock)
    if record == NULL:
        return lists.allocator.alloc(lists.allocator.arg, size)
    (<void**>record)[0] = NULL
    return record


cdef void give_to(List* free_list, void* record) noexcept nogil:
    lock(&free_list.lock)
    (<void**>record)[0] = free_list.first
    free_list.first = record
    store64(&free_list.n, free_list.n + 1)
    unlock(&free_list.lock)


cdef uint64_t cached(void* self) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t n = 0
    for i in range(<uint32_t>LISTS):
        n += load64(&(<Lists*>self).list[i].n)
    return n


cdef void* per_p_take(void* self, uint32_t thread, size_t size) noexcept nogil:
    return take_from(<Lists*>self, &(<Lists*>self).list[this_cpu() % LISTS], size)

cdef void per_p_give(void* self, uint32_t thread, void* record) noexcept nogil:
    give_to(&(<Lists*>self).list[this_cpu() % LISTS], record)

cdef void* per_thread_take(void* self, uint32_t thread, size_t size) noexcept nogil:
    return take_from(<Lists*>self, &(<Lists*>self).list[thread % LISTS], size)

cdef void per_thread_give(void* self, uint32_t thread, void* record) noexcept nogil:
    give_to(&(<Lists*>self).list[thread % LISTS], record)


cdef class Unbounded(Baseline):
    def __cinit__(self, Ledger ledger not None):
        cdef Lists* lists = <Lists*>ledger.allocator.alloc_meta(ledger.allocator.arg, sizeof(Lists))
        if lists == NULL:
            raise MemoryError("no memory for a baseline")
        lists.allocator = ledger.allocator
        self.ledger = ledger
        self.design.self = lists
        self.design.cached = cached

    def __dealloc__(self):
        cdef Lists* lists = <Lists*>self.design.self
        cdef void* record
        cdef uint32_t i
        if lists == NULL:
            return
        for i in range(<uint32_t>LISTS):
            while lists.list[i].first != NULL:
                record = lists.list[i].first
                lists.list[i].first = (<void**>record)[0]
                lists.allocator.release(lists.allocator.arg, record)
        lists.allocator.release_meta(lists.allocator.arg, lists)


cdef class PerP(Unbounded):
    """An unbounded free list for each processor."""
    def __cinit__(self, Ledger ledger not None):
        self.design.take = per_p_take
        self.design.give = per_p_give


cdef class PerThread(Unbounded):
    """An unbounded free list for each thread."""
    def __cinit__(self, Ledger ledger not None):
        self.design.take = per_thread_take
        self.design.give = per_thread_give

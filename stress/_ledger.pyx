"""The ledger: a pool's allocator, in the harness's hands. It counts every call, and refuses those it is told to.

Its counts are the proof of total-bound and conservation, so they know nothing of the pool's own figures.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from deferpool._platform cimport add64, load32, load64, store32, store64

# gcc 12's address sanitizer leaves its allocator's locks as they are in a forked child: whoever allocates there after
# another thread held one at the fork waits for ever (the C library's own malloc is safe). So under that sanitizer, and
# nowhere else, no thread of ours is inside the allocator while the process forks.
cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #include <pthread.h>
    static pthread_rwlock_t dp_no_fork = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
    static void dp_before_fork(void) { pthread_rwlock_wrlock(&dp_no_fork); }
    static void dp_in_parent(void) { pthread_rwlock_unlock(&dp_no_fork); }
    static void dp_in_child(void) { pthread_rwlock_init(&dp_no_fork, NULL); }
    static int dp_watch_forks(void) { return pthread_atfork(dp_before_fork, dp_in_parent, dp_in_child); }
    #define dp_enter_allocator() pthread_rwlock_rdlock(&dp_no_fork)
    #define dp_leave_allocator() pthread_rwlock_unlock(&dp_no_fork)
    #else
    #define dp_watch_forks() 0
    #define dp_enter_allocator() ((void)0)
    #define dp_leave_allocator() ((void)0)
    #endif
    """
    int watch_forks "dp_watch_forks"() noexcept nogil
    void enter_allocator "dp_enter_allocator"() noexcept nogil
    void leave_allocator "dp_leave_allocator"() noexcept nogil

if watch_forks():
    raise MemoryError("no memory for the harness's fork hooks")

NAMES = {"record": RECORD, "batch": BATCH_OF_POINTERS, "caches": CACHES}


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x += <uint64_t>0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef bint refuses(Counts* counts, int site) noexcept nogil:
    cdef Site* asked = &counts.sites[site]
    cdef uint64_t call, one_in, random
    if not load32(&counts.armed):
        return False
    call = add64(&asked.calls, 1) + 1
    one_in = load64(&counts.one_in)
    random = mix(load64(&counts.seed) + <uint64_t>SITES * call + site)
    if call == load64(&asked.at) or (one_in and random % one_in == 0):
        add64(&asked.refused, 1)
        return True
    return False

cdef inline void* system_alloc(size_t size) noexcept nogil:
    enter_allocator()
    cdef void* memory = calloc(1, size)
    leave_allocator()
    return memory

cdef void system_release(void* memory) noexcept nogil:
    enter_allocator()
    free(memory)
    leave_allocator()

cdef void* alloc_record(void* arg, size_t size) noexcept nogil:
    cdef Counts* counts = <Counts*>arg
    cdef void* memory = NULL if refuses(counts, RECORD) else system_alloc(size)
    if memory != NULL:
        add64(&counts.created, 1)
    return memory

cdef void release_record(void* arg, void* memory) noexcept nogil:
    add64(&(<Counts*>arg).destroyed, 1)
    system_release(memory)

cdef void* alloc_meta(void* arg, size_t size) noexcept nogil:
    cdef Counts* counts = <Counts*>arg
    cdef int site = BATCH_OF_POINTERS if size == counts.batch else CACHES
    cdef void* memory = NULL if refuses(counts, site) else system_alloc(size)
    if memory != NULL:
        add64(&counts.meta_created, 1)
    return memory

cdef void release_meta(void* arg, void* memory) noexcept nogil:
    add64(&(<Counts*>arg).meta_destroyed, 1)
    system_release(memory)


cdef class Ledger:
    """Counts every call of a pool's allocator by itself, and refuses some. Thread-safe.

    A site is where the pool asks: "record", "batch" (of pointers, for the central pool), or "caches" (of a P; and
    whatever a pool needs while it is being made).
    """

    def __cinit__(self):
        self.allocator.alloc = alloc_record
        self.allocator.release = release_record
        self.allocator.alloc_meta = alloc_meta
        self.allocator.release_meta = release_meta
        self.allocator.arg = &self.counts

    def capsule(self):
        """For RecordPool(allocator=...). The ledger must outlive the pool."""
        return PyCapsule_New(&self.allocator, "deferpool.Allocator", NULL)

    def failing(self, one_in, seed):
        """One call in so many fails from now on, at every site, at random; 0: none does, and no single one either."""
        store64(&self.counts.seed, seed % 2**64)
        store64(&self.counts.one_in, one_in)
        if one_in == 0:
            for site in range(SITES):
                store64(&self.counts.sites[site].at, 0)
        store32(&self.counts.armed, one_in != 0)

    def refuse(self, site, nth):
        """The nth call from now on at this site fails, and it alone. 1 is the next. Replaces what was asked before."""
        cdef Site* asked = &self.counts.sites[NAMES[site]]
        store64(&asked.at, load64(&asked.calls) + nth)
        store32(&self.counts.armed, 1)

    def refused_at(self, site):
        """How many calls have been refused at this site."""
        return load64(&self.counts.sites[NAMES[site]].refused)

    @property
    def created(self):
        return load64(&self.counts.created)

    @property
    def destroyed(self):
        return load64(&self.counts.destroyed)

    @property
    def refused(self):
        return sum(self.refused_at(site) for site in NAMES)

    @property
    def meta_outstanding(self):
        return load64(&self.counts.meta_created) - load64(&self.counts.meta_destroyed)

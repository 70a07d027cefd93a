# One pool: local caches on the Ps, over a central pool, over the allocator of the face above.
#
# A face only ever calls get(class) and put(item, class). Their fast path is one section, inlined; all else is
# out of line in _pool.pyx. Keeps local-bound (push and pushn look at the count inside the section), reuse
# (make is the last resort) and one-owner. Generic over void*: what an item is, only the face knows.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from deferpool._central cimport Central, Tally, Terms
from deferpool._platform cimport alloc_fn, likely, release_fn
from deferpool._sched cimport Member, Registry
from deferpool._sections cimport DONE, Front, section_pop, section_push

cdef enum: MAX_CLASSES = 32            # of any face

# What the engine asks of a face; called with no lock and no P held. make may fail with NULL, drop cannot fail.
cdef struct FaceOps:
    void* (*make)(void* face, uint32_t cls) noexcept nogil
    void (*drop)(void* face, void* item, uint32_t cls) noexcept nogil
    void (*close)(void* face) noexcept nogil        # nothing is cached any more: frees what the face holds itself
    void* face

# Where memory comes from. A pool of a harness or of a debugger may bring its own, in a capsule "deferpool.Allocator".
cdef struct Allocator:
    void* (*alloc)(void* arg, size_t size) noexcept nogil       # zeroed, aligned as the face says, or NULL
    void (*release)(void* arg, void* memory) noexcept nogil
    void* (*alloc_meta)(void* arg, size_t size) noexcept nogil  # for batches and caches; may be NULL: calloc
    void (*release_meta)(void* arg, void* memory) noexcept nogil
    void* arg

cdef struct Pool:
    Front front                         # what sections read
    uint32_t stride                     # bytes from one class's cache to the next
    uint32_t classes
    FaceOps ops
    alloc_fn alloc                      # memory for caches and batches
    release_fn release
    void* arg
    Central central
    Member member
    uint64_t peak                       # most items seen cached
    uint64_t noted                      # units of room handed out when that was last looked at
    int64_t orphans                     # in a forked child: items that other threads had in hand, live for ever; less than
                                        # 0: that were counted as taken, but were on their way to the allocator
    uint64_t bypass_gets                # atomic; calls past the last class
    uint64_t bypass_puts

# What the Ps and the central pool publish, added up: each part within its own bound.
cdef struct Look:
    uint64_t local, central
    uint32_t fullest                    # the longest local cache

# The same with the counters; on a line each what is added up from where.
cdef struct Figures:
    uint64_t local, pops                # the words of the local caches
    uint64_t central
    Tally tally                         # of all stripes
    uint64_t created, destroyed, dropped
    uint64_t gets, puts                 # follow from these

# What a pool's items come to when those of each class have so many bytes.
cdef struct Bytes:
    uint64_t local, central, out        # out: with callers

# When the inlined section has ended with something else than DONE.
cdef void* get_slow(Pool* pool, uint32_t at, int status) noexcept nogil
cdef void put_slow(Pool* pool, void* item, uint32_t at, int status) noexcept nogil
cdef void look(Pool* pool, Look* seen) noexcept nogil
cdef void add_up(Pool* pool, Figures* figures) noexcept nogil
cdef void weigh(Pool* pool, const uint64_t* sizes, Bytes* bytes_) noexcept nogil

cdef uint64_t raise_peak(Pool* pool, uint64_t cached) noexcept nogil            # most seen cached, this included
cdef uint64_t cached_on(const Pool* pool, uint32_t p, uint32_t cls) noexcept nogil

# The beginning and the end. What open_pool has no memory for: NOTHING_MISSING, THE_POOL, or caches on so many Ps.
cdef enum:
    NOTHING_MISSING = 0
    THE_POOL = 0x7fffffff
cdef uint32_t open_pool(Pool* pool, Registry* registry, uint32_t classes, const uint32_t* caps, const uint64_t* weights,
                        uint64_t limit, alloc_fn alloc, release_fn release, void* arg) noexcept nogil
cdef void close_pool(Pool* pool, Registry* registry) noexcept nogil     # NULL: it was not opened

# Emptying, while others go on: the central pool; what removed Ps hold; all of it (0 or an error number).
cdef void clear_central(Pool* pool) noexcept nogil
cdef void drain_retired(Pool* pool) noexcept nogil
cdef int clear(Pool* pool) noexcept nogil

# For faces whose items are Python objects. Their transfers hold the GIL, or their thread's state where there is none,
# so the collector never meets one in between: it sees each cached item once, and passes on what `visit` answers.
cdef int each_cached(Pool* pool, int (*visit)(void* item, void* arg) noexcept, void* arg) noexcept

# For faces that make items themselves, and drop what callers have: an item is now one that the engine made; it is gone.
cdef void count_made(Pool* pool, uint32_t cls) noexcept nogil
cdef void discard(Pool* pool, void* item, uint32_t cls) noexcept nogil

# A cached item from wherever there is one, on other Ps too, which costs a stop of such a P. NULL: none is cached.
cdef void* get_anywhere(Pool* pool, uint32_t cls) noexcept nogil

# For tests of the engine itself. The primitives, in either mode: DONE, UNFIT or NO_P. And what a build for tests
# adds to the P number of the calling thread: False in any other build.
cdef int pop(Pool* pool, uint32_t at, void** item) noexcept nogil
cdef int push(Pool* pool, uint32_t at, void* item) noexcept nogil
cdef int popn(Pool* pool, uint32_t at, uint32_t n, void** items) noexcept nogil
cdef int pushn(Pool* pool, uint32_t at, uint32_t n, void** items) noexcept nogil
cdef bint spread(uint32_t number) noexcept nogil


# A class is named by its place: where the word of its cache lies among the caches of one P.
cdef inline uint32_t place_of(const Pool* pool, uint32_t cls) noexcept nogil:
    return (cls + 1) * pool.stride - <uint32_t>sizeof(uint64_t)

cdef inline uint32_t class_at(const Pool* pool, uint32_t at) noexcept nogil:
    return at // pool.stride

cdef inline const Terms* terms_of(const Pool* pool, uint32_t cls) noexcept nogil:
    return &pool.central.terms[cls]


cdef inline void* get(Pool* pool, uint32_t at) noexcept nogil:
    """An item of the class: from the P's local cache, else from the central pool, else new. NULL: no memory."""
    cdef void* item
    cdef int status = section_pop(&pool.front, at, &item)
    if likely(status == DONE):
        return item
    return get_slow(pool, at, status)


cdef inline void put(Pool* pool, void* item, uint32_t at) noexcept nogil:
    """Gives an item back: to the P's local cache, else to the central pool, else to the allocator. Cannot fail."""
    cdef int status = section_push(&pool.front, at, item)
    if likely(status == DONE):
        return
    put_slow(pool, item, at, status)

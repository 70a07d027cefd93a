# The harness's own books: what each thread takes and gives, whose each record is, what was broken. See _books.pyx.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool._face cimport ItemPool
from deferpool._platform cimport cas64, load64, store64
from deferpool._pool cimport MAX_CLASSES
from deferpool.records cimport RecordPool
from stress._designs cimport Baseline, Design
from stress._ledger cimport Ledger

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <time.h>

    /* The cheapest clock that all processors share. */
    static inline uint64_t dp_ticks(void)
    {
    #if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
    #elif defined(__aarch64__)
        uint64_t ticks;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
        return ticks;
    #else
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    #endif
    }

    /* All words of a record but its first. */
    static inline uint64_t dp_dirt(const uint64_t *record, size_t words)
    {
        uint64_t dirt = 0;
        for (size_t word = 1; word < words; word++) dirt |= record[word];
        return dirt;
    }
    static inline void dp_fill(uint64_t *record, size_t words, uint64_t cookie)
    {
        for (size_t word = 1; word < words; word++) record[word] = cookie;
    }
    static inline uint64_t dp_differs(const uint64_t *record, size_t words, uint64_t cookie)
    {
        uint64_t difference = 0;
        for (size_t word = 1; word < words; word++) difference |= record[word] ^ cookie;
        return difference;
    }
    """
    uint64_t ticks "dp_ticks"() noexcept nogil
    uint64_t dirt "dp_dirt"(const uint64_t*, size_t words) noexcept nogil
    void fill "dp_fill"(uint64_t*, size_t words, uint64_t cookie) noexcept nogil
    uint64_t differs "dp_differs"(const uint64_t*, size_t words, uint64_t cookie) noexcept nogil

cdef enum:
    EVENTS = 256                        # in the ring of a thread; a power of two
    TOLD = 24                           # events of one record that evidence tells
    FEW = 4                             # pieces of evidence kept of each kind

cdef enum:
    TAKEN_TWICE
    GIVEN_TWICE
    OVERWRITTEN
    NOT_ZERO
    LOCAL_BOUND
    TOTAL_BOUND
    CENTRAL_LIMIT
    TOTAL_BOUND_BOOKS
    KINDS

# Of one thread; only it writes, everybody reads. Padded: threads must not slow each other through the harness.
cdef struct Track:
    uint64_t takes                      # begun
    uint64_t failed                     # of those: ended without a record
    uint64_t gives                      # done
    uint64_t past                       # of the takes: past the last class
    uint64_t random
    uint64_t decisions                  # hash of what it has decided to do, in order
    uint64_t events                     # written to its ring so far
    uint64_t read                       # of records, when there are no checks: so that reading is not optimized away
    char line[64]

# One take or give, in the ring of the thread that did it.
cdef struct Event:
    uint64_t what                       # record's address, size, take or give
    uint64_t when                       # by the processor's time stamp counter

cdef struct Evidence:
    double seconds
    uint64_t a, b, c, d
    uint64_t when                       # by the clock of the events
    uint32_t told
    Event events[TOLD]                  # of this record, oldest first
    uint32_t threads[TOLD]              # whose they are

# What the Ps publish, added up by the harness itself.
cdef struct Survey:
    uint64_t local, central
    uint32_t fullest, p, cls            # the longest local cache, and where it is

cdef struct Sample:
    double seconds
    uint64_t cached                     # published by the Ps and the central pool
    uint64_t fullest
    uint64_t outside                    # the harness's own: at least so many records were cached at that moment
    uint64_t gives                      # records given back so far

# Randomness: one seed, a sequence a thread.
cdef uint64_t mix(uint64_t x) noexcept nogil

cdef inline uint64_t draw(Track* me) noexcept nogil:
    me.random ^= me.random << 13
    me.random ^= me.random >> 7
    me.random ^= me.random << 17
    return me.random

cdef inline void decide(Track* me, uint64_t what) noexcept nogil:
    """Into the hash of a thread's decisions. What becomes of them is not: that is the schedule's doing."""
    me.decisions = (me.decisions ^ what) * <uint64_t>0x100000001B3

cdef class Books:
    cdef ItemPool pool                  # None for a baseline
    cdef RecordPool records             # the same, where it is one
    cdef Baseline baseline
    cdef Ledger ledger
    cdef Design design                  # of a face or a baseline; take is NULL for records
    cdef bint bounds                    # there is a pool, whose caches are looked at
    cdef size_t sizes[MAX_CLASSES]      # of records, one for each class
    cdef Track* tracks
    cdef Event* events                  # a ring for each thread
    cdef uint32_t threads
    cdef uint32_t checks                # whether records are compared and owned
    cdef uint32_t stopped
    cdef uint64_t seed
    cdef uint64_t bound
    cdef bint bounded
    cdef uint32_t cap
    cdef uint64_t limit                 # of the central pool; 2**64 - 1 for none
    cdef uint64_t slack                 # items that threads in the middle of a transfer may have in hand
    cdef size_t largest                 # bytes of the last class
    cdef uint32_t procs, cpus
    cdef double began
    cdef uint64_t began_ticks
    cdef Sample* kept_samples
    cdef uint64_t sampled               # samples ever; the first MAX_SAMPLES of each thinning are kept
    cdef uint64_t kept, every
    cdef uint64_t peak_cached, peak_outside
    cdef uint64_t latest                # cached at the last sample
    cdef uint32_t evidence_lock
    cdef uint64_t violations[KINDS]
    cdef Evidence evidence[KINDS * FEW]

    cdef void broken(self, int what, uint64_t* record, uint64_t a, uint64_t b, uint64_t c, uint64_t d) noexcept nogil
    cdef void tell(self, uint64_t* record, Evidence* e) noexcept nogil
    cdef void not_zero(self, uint32_t thread, uint64_t* record, size_t words) noexcept nogil
    cdef void overwritten(self, uint64_t* record, size_t words) noexcept nogil
    cdef uint64_t outside(self) noexcept nogil
    cdef void survey(self, Survey* seen) noexcept nogil
    cdef void sample(self) noexcept nogil
    cdef uint64_t seen(self) noexcept nogil

    cdef inline Event* ring(self, uint32_t thread) noexcept nogil:
        return self.events + thread * <size_t>EVENTS

    cdef inline void write_down(self, uint32_t thread, uint64_t* record, size_t size, bint given) noexcept nogil:
        """An event into the thread's ring. A record's address has four bits to spare below, and twelve above."""
        cdef Track* me = &self.tracks[thread]
        cdef uint64_t written = me.events
        cdef Event* event = &self.ring(thread)[written % EVENTS]
        store64(&event.what, (<uint64_t><size_t>record << 12) | (min(size >> 3, <size_t>0x7FF) << 1) | given)
        store64(&event.when, ticks())
        store64(&me.events, written + 1)

    cdef inline uint64_t cookie_of(self, uint64_t* record) noexcept nogil:
        return (self.seed ^ <uint64_t><size_t>record) * <uint64_t>0x9E3779B97F4A7C15 | 1

    cdef inline bint own(self, uint32_t thread, uint64_t* record, size_t size) noexcept nogil:
        """A record just taken: it must be nobody's and all zero, and is marked all over. False: it is somebody's."""
        self.write_down(thread, record, size, 0)
        if not cas64(&record[0], 0, thread + 1):
            self.broken(TAKEN_TWICE, record, <uint64_t><size_t>record, load64(&record[0]), thread + 1, 0)
            return False
        if dirt(record, size >> 3):
            self.not_zero(thread, record, size >> 3)
        fill(record, size >> 3, self.cookie_of(record))
        return True

    cdef inline bint disown(self, uint32_t thread, uint32_t owner, uint64_t* record, size_t size) noexcept nogil:
        """A record about to be given back: it must be its owner's still, and bear the marks. False: it is not his."""
        self.write_down(thread, record, size, 1)
        if differs(record, size >> 3, self.cookie_of(record)):
            self.overwritten(record, size >> 3)
        if not cas64(&record[0], owner + 1, 0):
            self.broken(GIVEN_TWICE, record, <uint64_t><size_t>record, load64(&record[0]), owner + 1, 0)
            return False
        return True

    cdef inline void* obtain(self, uint32_t thread, size_t size) noexcept nogil:
        if self.design.take == NULL:
            return self.records.new(size)
        return self.design.take(self.design.self, thread, size)

    cdef inline void hand_back(self, uint32_t thread, void* record) noexcept nogil:
        if self.design.take == NULL:
            self.records.free(record)
        else:
            self.design.give(self.design.self, thread, record)

    cdef inline uint64_t* take(self, uint32_t thread, size_t size) noexcept nogil:
        """NULL: no memory. Or the record is somebody else's, who alone may free it: it counts as given back."""
        cdef Track* me = &self.tracks[thread]
        cdef uint64_t* record
        store64(&me.takes, me.takes + 1)
        record = <uint64_t*>self.obtain(thread, size)
        if record == NULL:
            store64(&me.failed, me.failed + 1)
            return NULL
        if size > self.largest:
            me.past += 1
        if self.checks:
            if not self.own(thread, record, size):
                store64(&me.gives, me.gives + 1)
                return NULL
        else:
            record[0] = thread + 1
            fill(record, size >> 3, <uint64_t><size_t>record)
        return record

    cdef inline void give(self, uint32_t thread, uint64_t* record, size_t size, uint32_t owner) noexcept nogil:
        """One that is not the owner's any more is kept from the pool: a second free would end the process unheard."""
        cdef Track* me = &self.tracks[thread]
        cdef bint his = True
        if self.checks:
            his = self.disown(thread, owner, record, size)
        else:
            me.read += record[0] + differs(record, size >> 3, 0)
            record[0] = 0
        if his:
            self.hand_back(thread, record)
        store64(&me.gives, me.gives + 1)

"""The nogil threads of the stress suite, and the harness's own books.

What each ingredient imitates or watches:
    Track       what one thread has taken and given back, by its own count, and a hash of what it decided to do
    owner word  first word of every record: compared-and-swapped from nobody to the thread at each take, and back
                at each give, so that a record with two owners is seen by one of them
    cookie      every other word of a record: found zero and written whole at the take, compared whole before the give
    events      a ring a thread of its last takes and gives: what happened to a record that has two owners
    Ring        a bounded queue, one producer and one consumer: how records migrate between processors
    Hand        records that a thread which ends leaves to the next one of its number
    sampler     a thread that reads what the Ps publish, and the books, a few thousand times a second

Without checks the same work is done (each record is written whole and read back), and nothing is compared: so the
difference is what the checks cost. See overhead.py.
"""
from libc.stddef cimport size_t
from libc.stdint cimport PTRDIFF_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from deferpool._platform cimport (
    DONE, NO_P, Cache, cas64, count_of, load32, load64, lock, store32, store64, unlock, wait,
)
from deferpool._central cimport Batch, Tally, items_in, note, stripe_of
from deferpool._face cimport ItemPool
from deferpool._pool cimport MAX_CLASSES, Pool, place_of, pop, popn, push, pushn, spread
from deferpool.records cimport Header, RecordPool
from stress._ledger cimport Ledger

cdef extern from *:
    """
    #include <time.h>
    #include <stddef.h>
    #include <stdint.h>
    static double dp_seconds(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    static void dp_sleep_us(long us)
    {
        struct timespec t = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&t, NULL);
    }

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
    double seconds_now "dp_seconds"() noexcept nogil
    void sleep_us "dp_sleep_us"(long) noexcept nogil
    uint64_t ticks "dp_ticks"() noexcept nogil
    uint64_t dirt "dp_dirt"(const uint64_t*, size_t words) noexcept nogil
    void fill "dp_fill"(uint64_t*, size_t words, uint64_t cookie) noexcept nogil
    uint64_t differs "dp_differs"(const uint64_t*, size_t words, uint64_t cookie) noexcept nogil

cdef enum:
    BATCH = 64                          # records handed over at a time
    RING = 4                            # batches in a bounded queue
    MAX_THREADS = 4096
    MAX_SAMPLES = 1 << 16
    HAND = 96                           # records that a thread juggles with in run_primitives
    WORDS = 14                          # of 8 bytes, at most, in a record: past the last class now and then
    EVENTS = 256                        # in the ring of a thread; a power of two
    TOLD = 24                           # events of one record that evidence tells
    FEW = 4                             # pieces of evidence kept of each kind
    LONGEST = 1000                      # records in a burst of run_life


# ---- randomness: one seed, a sequence a thread -------------------------------------------------------------

cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x += <uint64_t>0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)

cdef inline uint64_t draw(Track* me) noexcept nogil:
    me.random ^= me.random << 13
    me.random ^= me.random >> 7
    me.random ^= me.random << 17
    return me.random

cdef inline void decide(Track* me, uint64_t what) noexcept nogil:
    """Into the hash of a thread's decisions. What becomes of them is not: that is the schedule's doing."""
    me.decisions = (me.decisions ^ what) * <uint64_t>0x100000001B3

cdef inline uint32_t size_of(uint64_t random) noexcept nogil:
    return 8 * (1 + <uint32_t>(random >> 32) % WORDS)


cdef class Baseline:
    """A design to compare with: the four functions of Design, over a ledger."""

    @property
    def cached(self):
        return self.design.cached(self.design.self)


cdef class Face(Baseline):
    """What the harness asks of its pool it may be asked itself."""

    cdef int open(self, tuple sizes, void* (*take)(void*, uint32_t, size_t) noexcept nogil,
                  void (*give)(void*, uint32_t, void*) noexcept nogil) except -1:
        self.sizes = sizes
        self.design.take = take
        self.design.give = give
        self.design.self = <void*>self
        return 0

    cdef void failed_with(self, error) noexcept:
        if self.error is None:
            self.error = error

    def __getattr__(self, name):
        return getattr(self.pool, name)


# ---- a bounded queue between one producer and one consumer ------------------------------------------------------

cdef struct Ring:
    uint32_t head                       # written by the consumer
    char line[60]
    uint32_t tail                       # written by the producer
    char line2[60]
    uint64_t* records[RING][BATCH]      # NULL where there was no memory
    uint32_t n[RING]
    uint32_t size[RING]


# ---- evidence -----------------------------------------------------------------------------------------------------

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

# By kind, the check that it counts against.
CHECKS = ("one-owner", "one-owner", "one-owner", "no-pin", "local-bound", "total-bound", "total-bound", "total-bound")

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


cdef describe(int what, Evidence* e):
    if what == TAKEN_TWICE:
        return f"record {e.a:#x} taken by thread {e.c - 1}, but its owner word says {e.b - 1}"
    if what == GIVEN_TWICE:
        return f"record {e.a:#x} of thread {e.c - 1} given back, but its owner word says {<int64_t>e.b - 1}"
    if what == OVERWRITTEN:
        return f"word {e.b} of record {e.a:#x} was overwritten with {e.c:#x} while it was out"
    if what == NOT_ZERO:
        return f"record {e.a:#x} was handed out to thread {e.d} with {e.c:#x} in word {e.b}"
    if what == LOCAL_BOUND:
        return f"the local cache of P {e.c}, class {e.d}, held {<int32_t>e.a} items, its cap is {e.b}"
    if what == TOTAL_BOUND:
        return f"{e.a + e.b} items cached, {e.a} local and {e.b} central, the bound is {e.c}"
    if what == CENTRAL_LIMIT:
        return f"{e.b} items in the central pool, its limit is {e.c} ({e.a} were local)"
    return f"by the harness's books {e.a} items cached, the bound is {e.b} and {e.c} may be in transfer"


cdef story(Evidence* e, double us_a_tick):
    """The last events of the record, merged over all rings."""
    told = []
    for i in range(e.told):
        did = "gave back" if e.events[i].what & 1 else "took"
        size = (e.events[i].what >> 1 & 0x7FF) * 8
        us = (<double>e.events[i].when - <double>e.when) * us_a_tick
        told.append(f"{us:+,.1f} us thread {e.threads[i]} {did} {size} bytes")
    return "; its last events, oldest first: " + ", ".join(told) if told else ""


# ---- one load ----------------------------------------------------------------------------------------------------

cdef class Load:
    """Threads, tracks and samples of one run against one design.

    `design` is a RecordPool, a Face of another pool or a Baseline, made over `ledger`; what the sampler holds a pool to is what it is told
    here, and else what the pool says of itself. Each public run_* method is the body of one thread:
    it leaves the GIL at once and takes it again at its end. Thread number `threads` is that of a forked child.
    """
    cdef ItemPool pool                  # None for a baseline
    cdef RecordPool records             # the same, where it is one
    cdef Baseline baseline
    cdef Ledger ledger
    cdef Design design                  # of a face or a baseline; take is NULL for records
    cdef bint bounds                    # there is a pool, whose caches are looked at
    cdef size_t sizes[MAX_CLASSES]      # of records, one for each class
    cdef Track* tracks
    cdef Event* events                  # a ring for each thread
    cdef Hand* hands
    cdef Ring* rings
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

    def __cinit__(self, design not None, Ledger ledger not None, uint32_t threads, seed, bint checks=True,
                  bound=None, cap=None, limit=None):
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"threads must be from 1 to {MAX_THREADS}, not {threads}")
        if isinstance(design, Baseline):
            self.baseline = design
            self.design = self.baseline.design
        if isinstance(design, (RecordPool, Face)):
            self.records = design if isinstance(design, RecordPool) else None
            self.pool = design if isinstance(design, RecordPool) else (<Face>design).pool
            self.bounds = True
            for i, size in enumerate(design.sizes):
                self.sizes[i] = size
            if bound is None:
                bound = self.pool.bound
            self.bounded = bound is not None
            self.bound = bound or 0
            self.cap = self.pool.cap if cap is None else cap
            self.limit = self.pool.pool.central.limit if limit is None else limit
            self.slack = threads * <uint64_t>max(1, self.pool.pool.front.cap // 2)
            self.largest = design.sizes[-1]
            self.procs = self.pool.sched.procs
            self.cpus = self.pool.sched.cpus
            ledger.counts.batch = sizeof(Batch) + (self.pool.pool.central.terms[0].half - 1) * sizeof(void*)
        else:
            self.largest = PTRDIFF_MAX
        self.ledger = ledger
        self.threads = threads
        self.seed = seed % 2**64
        self.checks = checks
        self.every = 1
        self.tracks = <Track*>calloc(threads + 1, sizeof(Track))
        self.events = <Event*>calloc((threads + 1) * <size_t>EVENTS, sizeof(Event))
        self.hands = <Hand*>calloc(threads, sizeof(Hand))
        self.kept_samples = <Sample*>malloc(MAX_SAMPLES * sizeof(Sample))
        self.rings = <Ring*>calloc(threads, sizeof(Ring))
        if self.tracks == NULL or self.events == NULL or self.hands == NULL or self.kept_samples == NULL or \
                self.rings == NULL:
            raise MemoryError("no memory for the harness")
        # resident from the start: memory is measured later
        memset(self.kept_samples, 0, MAX_SAMPLES * sizeof(Sample))
        for thread in range(threads + 1):
            self.tracks[thread].random = mix(self.seed ^ mix(thread)) | 1
        self.begin()

    def __dealloc__(self):
        free(self.tracks)
        free(self.events)
        free(self.hands)
        free(self.kept_samples)
        free(self.rings)

    # -- evidence ------------------------------------------------------------------------------------------

    cdef void broken(self, int what, uint64_t* record, uint64_t a, uint64_t b, uint64_t c, uint64_t d) noexcept nogil:
        cdef Evidence* e
        lock(&self.evidence_lock)
        if self.violations[what] < FEW:
            e = &self.evidence[what * FEW + self.violations[what]]
            e.seconds = seconds_now() - self.began
            e.when = ticks()
            e.a, e.b, e.c, e.d = a, b, c, d
            if record != NULL:
                self.tell(record, e)
        store64(&self.violations[what], self.violations[what] + 1)
        unlock(&self.evidence_lock)

    cdef void tell(self, uint64_t* record, Evidence* e) noexcept nogil:
        """The newest events of a record from all rings, oldest first. Threads write on meanwhile: what may just be
        overwritten is left out."""
        cdef uint32_t thread, at, i
        cdef uint64_t written
        cdef Event event
        for thread in range(self.threads + 1):
            written = load64(&self.tracks[thread].events)
            for i in range(1, min(written + 1, <uint64_t>EVENTS)):
                event.what = load64(&self.ring(thread)[(written - i) % EVENTS].what)
                event.when = load64(&self.ring(thread)[(written - i) % EVENTS].when)
                if event.what >> 12 != <uint64_t><size_t>record:
                    continue
                if load64(&self.tracks[thread].events) + i >= written + EVENTS:
                    break
                at = e.told
                if at == TOLD:                  # full: the oldest goes, unless this one is older still
                    if event.when <= e.events[0].when:
                        continue
                    for at in range(1, <uint32_t>TOLD):
                        e.events[at - 1] = e.events[at]
                        e.threads[at - 1] = e.threads[at]
                    at = TOLD - 1
                else:
                    e.told += 1
                while at and e.events[at - 1].when > event.when:
                    e.events[at] = e.events[at - 1]
                    e.threads[at] = e.threads[at - 1]
                    at -= 1
                e.events[at] = event
                e.threads[at] = thread

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

    # -- one take, one give --------------------------------------------------------------------------------

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

    cdef void not_zero(self, uint32_t thread, uint64_t* record, size_t words) noexcept nogil:
        cdef size_t word
        for word in range(1, words):
            if record[word]:
                self.broken(NOT_ZERO, record, <uint64_t><size_t>record, word, record[word], thread)
                break

    cdef void overwritten(self, uint64_t* record, size_t words) noexcept nogil:
        cdef size_t word
        for word in range(1, words):
            if record[word] != self.cookie_of(record):
                self.broken(OVERWRITTEN, record, <uint64_t><size_t>record, word, record[word], 0)
                break

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

    cdef inline void wipe(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        """Before a primitive caches an item: as free would, it is left zeroed."""
        cdef uint64_t* record = <uint64_t*>(<Header*>item + 1)
        self.disown(thread, thread, record, size)
        memset(record, 0, size)

    cdef inline void claim(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        self.own(thread, <uint64_t*>(<Header*>item + 1), size)

    cdef inline bint push_one(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        self.wipe(thread, item, size)
        if push(&self.pool.pool, place_of(&self.pool.pool, 0), item) == DONE:
            return True
        self.claim(thread, item, size)
        return False

    cdef inline bint pop_one(self, uint32_t thread, void** item, size_t size) noexcept nogil:
        if pop(&self.pool.pool, place_of(&self.pool.pool, 0), item) != DONE:
            return False
        self.claim(thread, item[0], size)
        return True

    cdef inline bint take_one(self, uint32_t thread, void** item, size_t size) noexcept nogil:
        """As usual, not by a primitive. False: no memory."""
        cdef uint64_t* record = self.take(thread, size)
        item[0] = <Header*>record - 1
        return record != NULL

    cdef inline void give_one(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        """As usual; its mark may be that of a cached record, since a primitive took it out."""
        (<Header*>item).mark = self.records.layout.token
        self.give(thread, <uint64_t*>(<Header*>item + 1), size, thread)

    # The same through the Python face: one call before and one after each of the pool's own.

    def taking(self, uint32_t thread):
        """A thread is about to call pool.new."""
        cdef Track* me = &self.tracks[thread]
        decide(me, 1)
        store64(&me.takes, me.takes + 1)

    def took(self, uint32_t thread, size_t address, size_t size):
        """It has got the record at this address; 0: a MemoryError. False: somebody has it already; it must not be
        freed, and counts as given back."""
        cdef Track* me = &self.tracks[thread]
        if address == 0:
            store64(&me.failed, me.failed + 1)
            return True
        if size > self.largest:
            me.past += 1
        if self.checks and not self.own(thread, <uint64_t*>address, size):
            store64(&me.gives, me.gives + 1)
            return False
        return True

    def giving(self, uint32_t thread, size_t address, size_t size, uint32_t owner):
        """A thread is about to call pool.free of the record at this address, which `owner` took. False: it must not."""
        decide(&self.tracks[thread], 2)
        return not self.checks or self.disown(thread, owner, <uint64_t*>address, size)

    def gave(self, uint32_t thread, uint64_t records=1):
        """And has done so."""
        cdef Track* me = &self.tracks[thread]
        store64(&me.gives, me.gives + records)

    def took_unseen(self, uint32_t thread, size_t size):
        """It has got a record that nobody but the library looks at."""
        if size > self.largest:
            self.tracks[thread].past += 1

    def draw(self, uint32_t thread):
        """The next number of the thread's own random sequence."""
        cdef Track* me = &self.tracks[thread]
        decide(me, draw(me))
        return me.random

    @property
    def stopping(self):
        """Whether the threads are asked to end."""
        return load32(&self.stopped) != 0

    def spread(self, uint32_t thread):
        """In a build with settable P numbers: gives the calling thread Ps of its own kind, some of them out of range.

        What is added is a multiple of the CPUs, so that no two running threads ever have one number. Returns
        whether this is such a build; in any other the kernel's numbers stay.
        """
        cdef uint32_t worlds = (self.procs + self.cpus - 1) // self.cpus + 1
        if self.cpus == 0:
            return False
        return spread(thread % worlds * self.cpus)

    # -- thread bodies -------------------------------------------------------------------------------------

    def run_producer(self, uint32_t pair, uint64_t records, size_t size):
        """Takes records and hands them over in batches, through a bounded queue."""
        cdef uint32_t thread = 2 * pair, turns, tail = 0, n
        cdef Ring* ring = &self.rings[pair]
        cdef uint64_t done = 0
        with nogil:
            while not load32(&self.stopped) and (records == 0 or done < records):
                turns = 0
                while tail - load32(&ring.head) == RING and not load32(&self.stopped):
                    wait(&turns)
                if load32(&self.stopped):
                    break
                n = 0
                while n < BATCH and (records == 0 or done < records):
                    ring.records[tail % RING][n] = self.take(thread, size)
                    done += 1
                    n += 1
                decide(&self.tracks[thread], n)
                ring.n[tail % RING] = n
                tail += 1
                store32(&ring.tail, tail)
            turns = 0
            while tail - load32(&ring.head) == RING:
                wait(&turns)
            ring.n[tail % RING] = BATCH + 1      # the end
            store32(&ring.tail, tail + 1)

    def run_consumer(self, uint32_t pair, size_t size):
        """Gives back what its producer took, until that one has ended."""
        cdef uint32_t thread = 2 * pair + 1, turns, head = 0, i, n
        cdef Ring* ring = &self.rings[pair]
        with nogil:
            while True:
                turns = 0
                while load32(&ring.tail) == head:
                    wait(&turns)
                n = ring.n[head % RING]
                if n > BATCH:
                    break
                for i in range(n):
                    if ring.records[head % RING][i] != NULL:
                        self.give(thread, ring.records[head % RING][i], size, 2 * pair)
                decide(&self.tracks[thread], n)
                head += 1
                store32(&ring.head, head)
            store32(&ring.head, head + 1)

    cdef inline void churn_once(self, uint32_t thread, uint32_t working_set) noexcept nogil:
        """One take or one give, of a place drawn among the thread's own. A take that fails leaves its place taken: what
        the thread does next must not depend on the allocator."""
        cdef Track* me = &self.tracks[thread]
        cdef Hand* hand = &self.hands[thread]
        cdef uint64_t random = draw(me)
        cdef uint32_t i = <uint32_t>(random >> 8) % working_set
        decide(me, 2 * random + (hand.sizes[i] == 0))
        if hand.sizes[i] == 0:
            hand.sizes[i] = size_of(random)
            hand.records[i] = self.take(thread, hand.sizes[i])
        else:
            if hand.records[i] != NULL:
                self.give(thread, hand.records[i], hand.sizes[i], thread)
            hand.sizes[i] = 0

    cdef void empty_hand(self, uint32_t thread) noexcept nogil:
        cdef Hand* hand = &self.hands[thread]
        cdef uint32_t i
        for i in range(256):
            if hand.sizes[i] and hand.records[i] != NULL:
                self.give(thread, hand.records[i], hand.sizes[i], thread)
            hand.sizes[i] = 0

    def run_churn(self, uint32_t thread, uint32_t working_set, uint64_t ops, bint leaves=False):
        """Takes and gives back at random, all classes and past the last, holding a random working set.

        A thread that `leaves` it ends with the records alive: the next thread of its number gives them back.
        """
        cdef uint64_t done = 0
        if not 1 <= working_set <= 256:
            raise ValueError(f"working_set must be from 1 to 256, not {working_set}")
        with nogil:
            while not load32(&self.stopped) and (ops == 0 or done < ops):
                self.churn_once(thread, working_set)
                done += 1
            if not leaves:
                self.empty_hand(thread)

    def run_burst(self, uint32_t thread, uint32_t length, uint64_t ops):
        """Takes `length` records and gives them all back, again and again."""
        cdef uint64_t** held
        cdef size_t size = 64
        cdef uint64_t done = 0
        held = <uint64_t**>calloc(length, sizeof(uint64_t*))
        if held == NULL:
            raise MemoryError("no memory for the harness")
        with nogil:
            while not load32(&self.stopped) and (ops == 0 or done < ops):
                decide(&self.tracks[thread], length)
                self.burst_once(thread, held, length, size)
                done += 2 * length
            free(held)

    cdef void burst_once(self, uint32_t thread, uint64_t** held, uint32_t length, size_t size) noexcept nogil:
        cdef uint32_t i
        for i in range(length):
            held[i] = self.take(thread, size)
        for i in range(length):
            if held[i] != NULL:
                self.give(thread, held[i], size, thread)

    def run_life(self, uint32_t thread, uint32_t working_set, uint64_t ops):
        """All of it, drawn from the thread's sequence: churn, bursts, records sent to the next thread, and death.

        A life ends at a draw, about once in 64,000 operations, with records alive; or when this number has done its
        `ops` (0: never); or when the run stops. Returns whether this number should be born again.
        """
        cdef uint64_t* held[LONGEST]
        cdef Track* me = &self.tracks[thread]
        cdef Hand* hand = &self.hands[thread]
        cdef uint64_t random
        cdef uint32_t kind, n, i
        if not 1 <= working_set <= 256:
            raise ValueError(f"working_set must be from 1 to 256, not {working_set}")
        with nogil:
            while not load32(&self.stopped) and (ops == 0 or hand.done < ops):
                random = draw(me)
                decide(me, random)
                kind = <uint32_t>(random >> 56) % 16
                if kind < 10:
                    n = 1 + <uint32_t>(random >> 8) % 256
                    for i in range(n):
                        self.churn_once(thread, working_set)
                elif kind < 12:
                    n = 1 + <uint32_t>(random >> 8) % LONGEST
                    self.burst_once(thread, held, n, size_of(random))
                    n *= 2
                elif kind < 14:
                    n = BATCH
                    self.send(thread, size_of(random))
                else:
                    n = RING * BATCH
                    self.receive(thread)
                hand.done += n
                if <uint32_t>(random >> 20) % 512 == 0:
                    break
        return not self.stopping and (ops == 0 or hand.done < ops)

    cdef void send(self, uint32_t thread, uint32_t size) noexcept nogil:
        """A batch of records into the queue of the next thread; a queue that is full makes it give them back itself."""
        cdef Ring* ring = &self.rings[(thread + 1) % self.threads]
        cdef uint64_t* record
        cdef uint32_t tail = ring.tail, i
        cdef bint full = tail - load32(&ring.head) == RING
        for i in range(<uint32_t>BATCH):
            record = self.take(thread, size)
            if not full:
                ring.records[tail % RING][i] = record
            elif record != NULL:
                self.give(thread, record, size, thread)
        if not full:
            ring.n[tail % RING] = BATCH
            ring.size[tail % RING] = size
            store32(&ring.tail, tail + 1)

    cdef void receive(self, uint32_t thread) noexcept nogil:
        """Gives back what the thread before has sent."""
        cdef Ring* ring = &self.rings[thread]
        cdef uint32_t head = ring.head, sender = (thread + self.threads - 1) % self.threads, i
        while load32(&ring.tail) != head:
            for i in range(ring.n[head % RING]):
                if ring.records[head % RING][i] != NULL:
                    self.give(thread, ring.records[head % RING][i], ring.size[head % RING], sender)
            head += 1
            store32(&ring.head, head)

    def settle(self):
        """The threads have ended: gives back, from the calling thread, what they left alive."""
        cdef uint32_t thread
        with nogil:
            for thread in range(self.threads):
                self.empty_hand(thread)
                self.receive(thread)

    def fill_up(self, uint32_t each):
        """So many records of each class taken at once and given back, outside all books: for looks at a quiet pool."""
        cdef uint32_t i, cls
        cdef void** held = <void**>calloc(each, sizeof(void*))
        if held == NULL:
            raise MemoryError("no memory for the harness")
        with nogil:
            for cls in range(self.pool.pool.classes):
                for i in range(each):
                    held[i] = self.obtain(self.threads, self.sizes[cls])
                for i in range(each):
                    if held[i] != NULL:
                        self.hand_back(self.threads, held[i])
        free(held)

    def run_primitives(self, uint32_t thread, uint64_t singles, uint64_t batches):
        """The engine's four primitives themselves: pop and push `singles` times each, popn and pushn `batches` times.

        The thread has some records in hand, taken as usual before and given back after. Whatever a primitive hands
        over must have been nobody's. What it tries next follows from what the last primitive answered: nothing is
        drawn. Returns how often each primitive succeeded.
        """
        cdef void* hand[HAND]
        cdef uint32_t held = 0, half = self.pool.pool.front.cap // 2, i
        cdef uint64_t pops = 0, pushes = 0, popns = 0, pushns = 0
        cdef size_t size = self.largest
        cdef int status
        cdef uint64_t patience = 64
        cdef Tally tally = Tally(gets=0, puts=0, refills=0, pushed=0, spills=0, popped=0)
        if half > 32:
            raise ValueError("cap must be at most 64 here")
        with nogil:
            for i in range(2 * half):
                held += self.take_one(thread, &hand[held], size)
            while (pops < singles or pushes < singles) and not load32(&self.stopped):
                if held and self.push_one(thread, hand[held - 1], size):
                    held -= 1
                    pushes += 1
                if held < HAND and self.pop_one(thread, &hand[held], size):
                    held += 1
                    pops += 1
                elif held == 0:                 # a thread that has ended took the others to the central pool
                    held += self.take_one(thread, &hand[held], size)
                elif held == HAND:              # the P is full, and so is the hand
                    held -= 1
                    self.give_one(thread, hand[held], size)
            while (popns < batches or pushns < batches) and not load32(&self.stopped):
                status = NO_P
                if pushns > popns + patience:   # too few in hand and on the P to fill it: popn would never come
                    patience = pushns - popns + 64
                    while held < 2 * half and self.pop_one(thread, &hand[held], size):
                        held += 1
                        pops += 1
                    while held < 4 * half and not load32(&self.stopped):
                        held += self.take_one(thread, &hand[held], size)
                if held >= half:
                    held -= half
                    for i in range(half):
                        self.wipe(thread, hand[held + i], size)
                    status = pushn(&self.pool.pool, place_of(&self.pool.pool, 0), half, &hand[held])
                    if status == DONE:
                        pushns += 1
                    else:
                        for i in range(half):
                            self.claim(thread, hand[held + i], size)
                        held += half
                if status != DONE and held + half <= HAND:
                    if popn(&self.pool.pool, place_of(&self.pool.pool, 0), half, &hand[held]) == DONE:
                        for i in range(half):
                            self.claim(thread, hand[held + i], size)
                        popns += 1
                        held += half
                        status = DONE
                if status == DONE:
                    continue
                if held < half:                 # neither fits: one by one to where one of them does
                    if self.pop_one(thread, &hand[held], size):
                        held += 1
                        pops += 1
                    else:
                        held += self.take_one(thread, &hand[held], size)
                elif self.push_one(thread, hand[held - 1], size):
                    held -= 1
                    pushes += 1
                elif held + half > HAND:        # the P is full, and so is the hand
                    held -= 1
                    self.give_one(thread, hand[held], size)
            tally.popped = popns * half     # out of the local caches, into a caller's hand; and back
            tally.gets = tally.popped
            tally.pushed = pushns * half
            tally.puts = tally.pushed
            note(stripe_of(&self.pool.pool.central, 0, thread), &tally)
            store64(&self.tracks[thread].takes, self.tracks[thread].takes + pops + tally.gets)
            store64(&self.tracks[thread].gives, self.tracks[thread].gives + pushes + tally.puts)
            for i in range(held):
                self.give_one(thread, hand[i], size)
        return pops, pushes, popns, pushns

    def exercise(self, uint64_t takes):
        """For a forked child, alone in its process: takes of each class as many records as are cached in all and
        `takes` more, and so many past the last class; holds them at once and gives them back. A record that is also
        live with a thread of the parent, or that comes twice, is evidence; so is a sum of stats() that is not right.
        True when there is none. Records cached on Ps that the child does not run on stay where they are.
        """
        cdef uint32_t classes = self.pool.pool.classes
        cdef uint64_t each = self.pool.stats()["cached"] + takes, n = classes * each + takes
        cdef uint64_t i, violations = self.seen()
        cdef uint64_t** held = <uint64_t**>calloc(n, sizeof(uint64_t*))
        cdef bint complete = True
        if held == NULL:
            raise MemoryError("no memory for the harness")
        with nogil:
            for i in range(n):
                held[i] = <uint64_t*>self.obtain(self.threads, self.size_in_turn(i, classes * each))
                if held[i] == NULL:
                    complete = False
                elif not self.own(self.threads, held[i], self.size_in_turn(i, classes * each)):
                    held[i] = NULL              # its owner's: see take
            for i in range(n):
                if held[i] != NULL and self.disown(self.threads, self.threads, held[i],
                                                   self.size_in_turn(i, classes * each)):
                    self.hand_back(self.threads, held[i])
            free(held)
        stats = self.pool.stats()
        conserved = stats["created"] == stats["live"] + stats["cached"] + stats["destroyed"]
        bounded = stats["bound"] is None or stats["cached"] <= stats["bound"]
        return complete and conserved and bounded and violations == self.seen()

    cdef inline size_t size_in_turn(self, uint64_t i, uint64_t in_classes) noexcept nogil:
        """Each class in turn, whole; past the last class from `in_classes` on."""
        return self.sizes[i % self.pool.pool.classes] if i < in_classes else self.largest + 8

    # -- the sampler -----------------------------------------------------------------------------------------

    cdef uint64_t outside(self) noexcept nogil:
        """By the harness's own books: at least so many records were cached at some moment of this call.

        What adds to the sum is read first and what takes from it last, and a thread counts a take before it and a
        give after it. So threads that go on meanwhile make the figure smaller, never larger.
        """
        cdef uint64_t plus = 0, minus = 0
        cdef uint32_t i
        for i in range(self.threads):
            plus += load64(&self.tracks[i].gives) + load64(&self.tracks[i].failed)
        plus += load64(&self.ledger.counts.created)
        minus = load64(&self.ledger.counts.destroyed)
        for i in range(self.threads):
            minus += load64(&self.tracks[i].takes)
        return plus - minus if plus > minus else 0

    cdef void survey(self, Survey* seen) noexcept nogil:
        """Each local cache by itself, read from its word; and what the central pool says it holds."""
        cdef Pool* pool = &self.pool.pool
        cdef uint32_t p, cls, n
        seen[0] = Survey(local=0, central=0, fullest=0, p=0, cls=0)
        for p in range(load32(&pool.member.equipped)):
            for cls in range(pool.classes):
                n = count_of(load64(&(<Cache*>(pool.front.caches[p] + place_of(pool, cls))).word), pool.front.cap)
                seen.local += n
                if n > seen.fullest:
                    seen.fullest = n
                    seen.p = p
                    seen.cls = cls
        seen.central = items_in(&pool.central)

    def beyond(self, uint32_t procs):
        """[(P, class, items)] of the Ps from `procs` up that hold anything: none may, after procresize(procs)."""
        cdef Pool* pool = &self.pool.pool
        cdef uint32_t p, cls, n
        found = []
        for p in range(procs, load32(&pool.member.equipped)):
            for cls in range(pool.classes):
                n = count_of(load64(&(<Cache*>(pool.front.caches[p] + place_of(pool, cls))).word), pool.front.cap)
                if n:
                    found.append((p, cls, n))
        return found

    cdef void sample(self) noexcept nogil:
        cdef Survey seen
        cdef uint64_t cached, outside, gives = 0, i
        for i in range(self.threads):           # before what is cached: a sampler put to sleep in between must not make
            gives += load64(&self.tracks[i].gives)      # a list that grows look as if it did not
        if self.bounds:
            self.survey(&seen)
            cached = seen.local + seen.central
            if seen.fullest > self.cap:
                self.broken(LOCAL_BOUND, NULL, seen.fullest, self.cap, seen.p, seen.cls)
            if self.bounded and cached > self.bound:
                self.broken(TOTAL_BOUND, NULL, seen.local, seen.central, self.bound, 0)
            if seen.central > self.limit:
                self.broken(CENTRAL_LIMIT, NULL, seen.local, seen.central, self.limit, 0)
        else:
            cached = self.design.cached(self.design.self)
            seen.fullest = 0
        outside = self.outside()
        if self.bounded and outside > self.bound + self.slack:
            self.broken(TOTAL_BOUND_BOOKS, NULL, outside, self.bound, self.slack, 0)
        store64(&self.latest, cached)
        store64(&self.peak_cached, max(self.peak_cached, cached))
        store64(&self.peak_outside, max(self.peak_outside, outside))
        if self.sampled % self.every == 0:
            if self.kept == MAX_SAMPLES:            # thin out: keep every other one, and sample half as densely
                for i in range(<uint64_t>MAX_SAMPLES // 2):
                    self.kept_samples[i] = self.kept_samples[2 * i]
                self.kept = MAX_SAMPLES // 2
                self.every *= 2
            self.kept_samples[self.kept] = Sample(seconds_now() - self.began, cached, seen.fullest, outside, gives)
            self.kept += 1
        store64(&self.sampled, self.sampled + 1)

    def run_sampler(self, long every_us):
        """Samples until the run is stopped or told that its threads have ended."""
        with nogil:
            while load32(&self.stopped) < 2:
                self.sample()
                sleep_us(every_us)
            self.sample()

    def begin(self):
        """The threads are about to start: time counts from now."""
        self.began = seconds_now()
        self.began_ticks = ticks()

    def stop(self):
        """Asks the threads to end; the sampler goes on."""
        if load32(&self.stopped) == 0:
            store32(&self.stopped, 1)

    def finish(self):
        """The threads have ended: ends the sampler."""
        store32(&self.stopped, 2)

    @property
    def samples(self):
        """How often the sampler has looked so far."""
        return load64(&self.sampled)

    # -- figures ---------------------------------------------------------------------------------------------

    cdef uint64_t seen(self) noexcept nogil:
        """Violations of all kinds, so far."""
        cdef uint64_t total = 0
        cdef uint32_t kind
        for kind in range(<uint32_t>KINDS):
            total += load64(&self.violations[kind])
        return total

    def violated(self):
        """How often each check was violated, by the check's name; only those that were."""
        counts = {}
        for kind, check in enumerate(CHECKS):
            if self.violations[kind]:
                counts[check] = counts.get(check, 0) + self.violations[kind]
        return counts

    def decisions(self):
        """For each thread a hash of what it has decided to do, in order: two runs from one seed agree."""
        return [mix(self.tracks[i].decisions ^ mix(self.tracks[i].random)) for i in range(self.threads)]

    def books(self):
        """The harness's own figures, for the end of a run."""
        takes = failed = gives = past = decisions = 0
        for i in range(self.threads):
            takes += load64(&self.tracks[i].takes)
            failed += load64(&self.tracks[i].failed)
            gives += load64(&self.tracks[i].gives)
            past += self.tracks[i].past
        for each in self.decisions():
            decisions = mix(<uint64_t>(decisions ^ each))
        return {
            "takes": takes - failed, "failed": failed, "gives": gives, "created": self.ledger.created,
            "destroyed": self.ledger.destroyed, "refused": self.ledger.refused,
            "refused_record": self.ledger.refused_at("record"), "refused_batch": self.ledger.refused_at("batch"),
            "refused_caches": self.ledger.refused_at("caches"), "samples": load64(&self.sampled),
            "peak_cached": load64(&self.peak_cached), "peak_outside": load64(&self.peak_outside),
            "past": past, "violations": self.seen(), "slack": self.slack, "decisions": decisions,
        }

    def now(self):
        """(operations so far, cached at the last sample), for a progress bar."""
        ops = 0
        for i in range(self.threads):
            ops += load64(&self.tracks[i].takes) + load64(&self.tracks[i].gives)
        return ops, load64(&self.latest)

    def curve(self):
        """[(seconds, cached, records given back so far)] of the samples kept."""
        cdef Sample* kept = self.kept_samples
        return [(kept[i].seconds, kept[i].cached, kept[i].gives) for i in range(self.kept)]

    def first_evidence(self):
        """The first violations of each kind, each as "check: what was seen", and the last events of the record."""
        cdef double us_a_tick = 1e6 * (seconds_now() - self.began) / max(1, <int64_t>(ticks() - self.began_ticks))
        cdef Evidence* e
        texts = []
        for kind, check in enumerate(CHECKS):
            for i in range(min(int(self.violations[kind]), FEW)):
                e = &self.evidence[kind * FEW + i]
                text = f"{check}: {describe(kind, e)} (after {e.seconds:.3f} s){story(e, us_a_tick)}"
                texts.append((e.seconds, text))
        return [text for _, text in sorted(texts)]

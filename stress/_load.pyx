"""The nogil threads of the stress suite, and the harness's own books.

What each ingredient imitates or watches:
    Ledger      an allocator that counts its calls and, when told, fails one in so many
    Track       what one thread has taken and given back, by its own count
    owner word  first word of every record: compared-and-swapped from nobody to the thread at each take, and back
                at each give, so that a record with two owners is seen by one of them
    cookie      every other word of a record: written whole at the take, checked whole before the give
    Ring        a bounded queue, one producer and one consumer: how records migrate between processors
    sampler     a thread that reads what the Ps publish, and the books, a few thousand times a second
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport size_t
from libc.stdint cimport PTRDIFF_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from deferpool._platform cimport DONE, NO_P, add64, cas64, lock, load32, load64, store32, store64, unlock, wait
from deferpool._central cimport Tally, note
from deferpool._pool cimport Look, look, place_of, pop, popn, push, pushn, spread
from deferpool.records cimport Header, RecordPool

cdef extern from *:
    """
    #include <time.h>
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
    """
    double seconds_now "dp_seconds"() noexcept nogil
    void sleep_us "dp_sleep_us"(long) noexcept nogil

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

cdef enum:
    BATCH = 64                          # records handed over at a time
    RING = 4                            # batches in a bounded queue
    MAX_THREADS = 4096
    MAX_SAMPLES = 1 << 16
    MAX_EVIDENCE = 16
    HAND = 96                           # records that a thread juggles with in run_primitives
    LARGEST = 112                       # bytes: past the last class now and then


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


# ---- the ledger ---------------------------------------------------------------------------------------------

cdef bint refuses(Counts* counts) noexcept nogil:
    cdef uint64_t call
    if counts.fail_one_in == 0:
        return False
    call = add64(&counts.calls, 1)
    if mix(counts.seed + call) % counts.fail_one_in:
        return False
    add64(&counts.refused, 1)
    return True

cdef inline void* system_alloc(size_t size) noexcept nogil:
    enter_allocator()
    cdef void* memory = calloc(1, size)
    leave_allocator()
    return memory

cdef inline void system_release(void* memory) noexcept nogil:
    enter_allocator()
    free(memory)
    leave_allocator()

cdef void* ledger_alloc(void* arg, size_t size) noexcept nogil:
    cdef Counts* counts = <Counts*>arg
    cdef void* memory = NULL if refuses(counts) else system_alloc(size)
    if memory != NULL:
        add64(&counts.created, 1)
    return memory

cdef void ledger_release(void* arg, void* memory) noexcept nogil:
    add64(&(<Counts*>arg).destroyed, 1)
    system_release(memory)

cdef void* ledger_alloc_meta(void* arg, size_t size) noexcept nogil:
    cdef Counts* counts = <Counts*>arg
    cdef void* memory = NULL if refuses(counts) else system_alloc(size)
    if memory != NULL:
        add64(&counts.meta_created, 1)
    return memory

cdef void ledger_release_meta(void* arg, void* memory) noexcept nogil:
    add64(&(<Counts*>arg).meta_destroyed, 1)
    system_release(memory)


cdef class Ledger:
    """Counts every call of a pool's allocator, by itself. `failing(n)` makes one call in n fail."""

    def __cinit__(self):
        self.allocator.alloc = ledger_alloc
        self.allocator.release = ledger_release
        self.allocator.alloc_meta = ledger_alloc_meta
        self.allocator.release_meta = ledger_release_meta
        self.allocator.arg = &self.counts

    def capsule(self):
        """For RecordPool(allocator=...). The ledger must outlive the pool."""
        return PyCapsule_New(&self.allocator, "deferpool.Allocator", NULL)

    def failing(self, one_in, seed):
        self.counts.seed = seed
        store64(&self.counts.fail_one_in, one_in)

    @property
    def created(self):
        return load64(&self.counts.created)

    @property
    def destroyed(self):
        return load64(&self.counts.destroyed)

    @property
    def refused(self):
        return load64(&self.counts.refused)

    @property
    def meta_outstanding(self):
        return load64(&self.counts.meta_created) - load64(&self.counts.meta_destroyed)


cdef class Baseline:
    """A design to compare with: the four functions of Design, over a ledger."""

    @property
    def cached(self):
        return self.design.cached(self.design.self)


# ---- a bounded queue between one producer and one consumer ------------------------------------------------------

cdef struct Ring:
    uint32_t head                       # written by the consumer
    char line[60]
    uint32_t tail                       # written by the producer
    char line2[60]
    void* records[RING][BATCH]
    uint32_t n[RING]


# ---- evidence -----------------------------------------------------------------------------------------------------

cdef enum:
    TAKEN_TWICE
    GIVEN_TWICE
    OVERWRITTEN
    LOCAL_BOUND
    TOTAL_BOUND
    TOTAL_BOUND_BOOKS

cdef struct Evidence:
    int what
    double seconds
    uint64_t a, b, c

cdef explain(Evidence e):
    if e.what == TAKEN_TWICE:
        text = f"one-owner: record {e.a:#x} taken by thread {e.c - 1}, but its owner word says {e.b - 1}"
    elif e.what == GIVEN_TWICE:
        text = f"one-owner: record {e.a:#x} of thread {e.c - 1} given back, but its owner word says {e.b - 1}"
    elif e.what == OVERWRITTEN:
        text = f"one-owner: word {e.b} of record {e.a:#x} was overwritten with {e.c:#x} while it was out"
    elif e.what == LOCAL_BOUND:
        text = f"local-bound: a local cache held {e.a} items, its cap is {e.b}"
    elif e.what == TOTAL_BOUND:
        text = f"total-bound: {e.a} items cached, the bound is {e.b}"
    else:
        text = f"total-bound: by the harness's books {e.a} items cached, the bound is {e.b} and {e.c} may be in transfer"
    return f"{text} (after {e.seconds:.3f} s)"


# ---- one load ----------------------------------------------------------------------------------------------------

cdef class Load:
    """Threads, tracks and samples of one run against one design.

    `pool` is a RecordPool or a Baseline, made over `ledger`. Each public run_* method is the body of one thread:
    it leaves the GIL at once and takes it again at its end.
    """
    cdef RecordPool pool
    cdef Baseline baseline
    cdef Ledger ledger
    cdef Design design                  # of the baseline; take is NULL for deferpool
    cdef Track* tracks
    cdef uint32_t threads
    cdef uint32_t checks                # whether records are written, checked and owned
    cdef uint32_t stopped
    cdef Ring* rings
    cdef uint64_t seed
    cdef uint64_t bound
    cdef bint bounded
    cdef uint64_t slack                 # items that threads in the middle of a transfer may have in hand
    cdef size_t largest                 # bytes of the last class
    cdef uint32_t procs, cpus
    cdef double began
    cdef Sample* kept_samples
    cdef uint64_t sampled               # samples ever; the first MAX_SAMPLES of each thinning are kept
    cdef uint64_t kept, every
    cdef uint64_t peak_cached, peak_outside
    cdef uint64_t latest                # cached at the last sample
    cdef uint32_t evidence_lock
    cdef uint64_t violations
    cdef Evidence evidence[MAX_EVIDENCE]

    def __cinit__(self, design not None, Ledger ledger not None, uint32_t threads, seed, bint checks=True,
                  bound=None):
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"threads must be from 1 to {MAX_THREADS}, not {threads}")
        if isinstance(design, RecordPool):
            self.pool = design
            if bound is None:
                bound = self.pool.bound
            self.bounded = bound is not None
            self.bound = bound or 0
            self.slack = threads * <uint64_t>max(1, self.pool.pool.front.cap // 2)
            self.largest = self.pool.sizes[-1]
            self.procs = self.pool.sched.procs
            self.cpus = self.pool.sched.cpus
        else:
            self.baseline = design
            self.design = self.baseline.design
            self.largest = PTRDIFF_MAX
        self.ledger = ledger
        self.threads = threads
        self.seed = seed % 2**64
        self.checks = checks
        self.every = 1
        self.tracks = <Track*>calloc(threads, sizeof(Track))
        self.kept_samples = <Sample*>malloc(MAX_SAMPLES * sizeof(Sample))
        self.rings = <Ring*>calloc((threads + 1) // 2, sizeof(Ring))
        if self.tracks == NULL or self.kept_samples == NULL or self.rings == NULL:
            raise MemoryError("no memory for the harness")
        memset(self.kept_samples, 0, MAX_SAMPLES * sizeof(Sample))    # resident from the start: memory is measured later
        for thread in range(threads):
            self.tracks[thread].random = mix(self.seed ^ mix(thread)) | 1
        self.began = seconds_now()

    def __dealloc__(self):
        free(self.tracks)
        free(self.kept_samples)
        free(self.rings)

    # -- evidence ------------------------------------------------------------------------------------------

    cdef void broken(self, int what, uint64_t a, uint64_t b, uint64_t c) noexcept nogil:
        lock(&self.evidence_lock)
        if self.violations < MAX_EVIDENCE:
            self.evidence[self.violations] = Evidence(what, seconds_now() - self.began, a, b, c)
        store64(&self.violations, self.violations + 1)
        unlock(&self.evidence_lock)

    # -- one take, one give --------------------------------------------------------------------------------

    cdef inline void own(self, uint32_t thread, uint64_t* record, size_t size) noexcept nogil:
        """A record just taken: it must be nobody's, and is marked all over."""
        cdef uint64_t cookie = mix(self.seed ^ <uint64_t><size_t>record)
        cdef size_t word
        if not cas64(&record[0], 0, thread + 1):
            self.broken(TAKEN_TWICE, <uint64_t><size_t>record, load64(&record[0]), thread + 1)
        for word in range(1, size // 8):
            record[word] = cookie

    cdef inline void disown(self, uint32_t owner, uint64_t* record, size_t size) noexcept nogil:
        """A record about to be given back: it must be its owner's still, and bear the marks."""
        cdef uint64_t cookie = mix(self.seed ^ <uint64_t><size_t>record)
        cdef size_t word
        for word in range(1, size // 8):
            if record[word] != cookie:
                self.broken(OVERWRITTEN, <uint64_t><size_t>record, word, record[word])
                break
        if not cas64(&record[0], owner + 1, 0):
            self.broken(GIVEN_TWICE, <uint64_t><size_t>record, load64(&record[0]), owner + 1)

    cdef inline uint64_t* take(self, uint32_t thread, size_t size) noexcept nogil:
        cdef Track* me = &self.tracks[thread]
        cdef uint64_t* record
        store64(&me.takes, me.takes + 1)
        if self.design.take == NULL:
            record = <uint64_t*>self.pool.new(size)
        else:
            record = <uint64_t*>self.design.take(self.design.self, thread, size)
        if record == NULL:
            store64(&me.failed, me.failed + 1)
            return NULL
        if size > self.largest:
            me.past += 1
        if self.checks:
            self.own(thread, record, size)
        return record

    cdef inline void give(self, uint32_t thread, uint64_t* record, size_t size, uint32_t owner) noexcept nogil:
        cdef Track* me = &self.tracks[thread]
        if self.checks:
            self.disown(owner, record, size)
        if self.design.take == NULL:
            self.pool.free(record)
        else:
            self.design.give(self.design.self, thread, record)
        store64(&me.gives, me.gives + 1)

    cdef inline bint push_one(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        self.disown(thread, <uint64_t*>(<Header*>item + 1), size)
        if push(&self.pool.pool, place_of(&self.pool.pool, 0), item) == DONE:
            return True
        self.own(thread, <uint64_t*>(<Header*>item + 1), size)
        return False

    cdef inline bint pop_one(self, uint32_t thread, void** item, size_t size) noexcept nogil:
        if pop(&self.pool.pool, place_of(&self.pool.pool, 0), item) != DONE:
            return False
        self.own(thread, <uint64_t*>(<Header*>item[0] + 1), size)
        return True

    cdef inline bint take_one(self, uint32_t thread, void** item, size_t size) noexcept nogil:
        """As usual, not by a primitive. False: no memory."""
        cdef uint64_t* record = self.take(thread, size)
        item[0] = <Header*>record - 1
        return record != NULL

    cdef inline void give_one(self, uint32_t thread, void* item, size_t size) noexcept nogil:
        """As usual; its mark may be that of a cached record, since a primitive took it out."""
        (<Header*>item).mark = self.pool.layout.token
        self.give(thread, <uint64_t*>(<Header*>item + 1), size, thread)

    # The same through the Python face: one call before and one after each of the pool's own.

    def taking(self, uint32_t thread):
        """A thread is about to call pool.new."""
        cdef Track* me = &self.tracks[thread]
        store64(&me.takes, me.takes + 1)

    def took(self, uint32_t thread, size_t address, size_t size):
        """It has got the record at this address; 0: a MemoryError."""
        cdef Track* me = &self.tracks[thread]
        if address == 0:
            store64(&me.failed, me.failed + 1)
            return
        if size > self.largest:
            me.past += 1
        if self.checks:
            self.own(thread, <uint64_t*>address, size)

    def giving(self, uint32_t thread, size_t address, size_t size, uint32_t owner):
        """A thread is about to call pool.free of the record at this address, which `owner` took."""
        if self.checks:
            self.disown(owner, <uint64_t*>address, size)

    def gave(self, uint32_t thread):
        """And has done so."""
        cdef Track* me = &self.tracks[thread]
        store64(&me.gives, me.gives + 1)

    def draw(self, uint32_t thread):
        """The next number of the thread's own random sequence."""
        return draw(&self.tracks[thread])

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
        cdef uint64_t* record
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
                    record = self.take(thread, size)
                    done += 1
                    if record != NULL:
                        ring.records[tail % RING][n] = record
                        n += 1
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
                    self.give(thread, <uint64_t*>ring.records[head % RING][i], size, 2 * pair)
                head += 1
                store32(&ring.head, head)

    def run_churn(self, uint32_t thread, uint32_t working_set, uint64_t ops):
        """Takes and gives back at random, all classes and past the last, holding a random working set."""
        cdef Track* me = &self.tracks[thread]
        cdef uint64_t* held[256]
        cdef size_t sizes[256]
        cdef uint32_t i
        cdef uint64_t done = 0, random
        if not 1 <= working_set <= 256:
            raise ValueError(f"working_set must be from 1 to 256, not {working_set}")
        with nogil:
            for i in range(working_set):
                held[i] = NULL
            while not load32(&self.stopped) and (ops == 0 or done < ops):
                random = draw(me)
                i = (random >> 8) % working_set
                if held[i] == NULL:
                    sizes[i] = 8 + (random >> 32) % LARGEST
                    held[i] = self.take(thread, sizes[i])
                else:
                    self.give(thread, held[i], sizes[i], thread)
                    held[i] = NULL
                done += 1
            for i in range(working_set):
                if held[i] != NULL:
                    self.give(thread, held[i], sizes[i], thread)

    def run_burst(self, uint32_t thread, uint32_t length, uint64_t ops):
        """Takes `length` records and gives them all back, again and again."""
        cdef uint64_t** held
        cdef size_t size = 64
        cdef uint32_t i
        cdef uint64_t done = 0
        held = <uint64_t**>calloc(length, sizeof(uint64_t*))
        if held == NULL:
            raise MemoryError("no memory for the harness")
        with nogil:
            while not load32(&self.stopped) and (ops == 0 or done < ops):
                for i in range(length):
                    held[i] = self.take(thread, size)
                for i in range(length):
                    if held[i] != NULL:
                        self.give(thread, held[i], size, thread)
                done += 2 * length
            free(held)

    def run_primitives(self, uint32_t thread, uint64_t singles, uint64_t batches):
        """The engine's four primitives themselves: pop and push `singles` times each, popn and pushn `batches` times.

        The thread has some records in hand, taken as usual before and given back after. Whatever a primitive hands
        over must have been nobody's. Returns how often each primitive succeeded.
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
                        self.disown(thread, <uint64_t*>(<Header*>hand[held + i] + 1), size)
                    status = pushn(&self.pool.pool, place_of(&self.pool.pool, 0), half, &hand[held])
                    if status == DONE:
                        pushns += 1
                    else:
                        for i in range(half):
                            self.own(thread, <uint64_t*>(<Header*>hand[held + i] + 1), size)
                        held += half
                if status != DONE and held + half <= HAND:
                    if popn(&self.pool.pool, place_of(&self.pool.pool, 0), half, &hand[held]) == DONE:
                        for i in range(half):
                            self.own(thread, <uint64_t*>(<Header*>hand[held + i] + 1), size)
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
            note(&self.pool.pool.central, 0, thread, &tally)
            store64(&self.tracks[thread].takes, self.tracks[thread].takes + pops + tally.gets)
            store64(&self.tracks[thread].gives, self.tracks[thread].gives + pushes + tally.puts)
            for i in range(held):
                self.give_one(thread, hand[i], size)
        return pops, pushes, popns, pushns

    def exercise(self, uint64_t takes):
        """For a forked child, alone in its process: takes all that is cached and `takes` records more, holds them at once
        and gives them back. A record that is also live with a thread of the parent, or that comes twice, is evidence;
        so is a sum of stats() that is not right. True when there is none."""
        cdef uint64_t n = self.pool.stats()["cached"] + takes, i, violations = load64(&self.violations)
        cdef uint64_t** held = <uint64_t**>calloc(n, sizeof(uint64_t*))
        cdef bint complete = True
        if held == NULL:
            raise MemoryError("no memory for the harness")
        with nogil:
            for i in range(n):
                held[i] = <uint64_t*>self.pool.new(8 + i % LARGEST)
                if held[i] != NULL:
                    self.own(self.threads, held[i], 8 + i % LARGEST)
                elif self.ledger.counts.fail_one_in == 0:
                    complete = False
            for i in range(n):
                if held[i] != NULL:
                    self.disown(self.threads, held[i], 8 + i % LARGEST)
                    self.pool.free(held[i])
            free(held)
        stats = self.pool.stats()
        conserved = stats["created"] == stats["live"] + stats["cached"] + stats["destroyed"]
        return complete and conserved and stats["cached"] <= stats["bound"] and violations == load64(&self.violations)

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

    cdef void sample(self) noexcept nogil:
        cdef Look seen
        cdef uint64_t cached, outside, gives = 0, i
        if self.design.take == NULL:
            look(&self.pool.pool, &seen)
            cached = seen.local + seen.central
            if seen.fullest > self.pool.pool.front.cap:
                self.broken(LOCAL_BOUND, seen.fullest, self.pool.pool.front.cap, 0)
            if self.bounded and cached > self.bound:
                self.broken(TOTAL_BOUND, cached, self.bound, 0)
        else:
            cached = self.design.cached(self.design.self)
            seen.fullest = 0
        outside = self.outside()
        if self.bounded and outside > self.bound + self.slack:
            self.broken(TOTAL_BOUND_BOOKS, outside, self.bound, self.slack)
        for i in range(self.threads):
            gives += load64(&self.tracks[i].gives)
        store64(&self.latest, cached)
        self.peak_cached = max(self.peak_cached, cached)
        self.peak_outside = max(self.peak_outside, outside)
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

    def books(self):
        """The harness's own figures, for the end of a run."""
        takes = failed = gives = past = 0
        for i in range(self.threads):
            takes += load64(&self.tracks[i].takes)
            failed += load64(&self.tracks[i].failed)
            gives += load64(&self.tracks[i].gives)
            past += self.tracks[i].past
        return {
            "takes": takes - failed, "failed": failed, "gives": gives, "created": self.ledger.created,
            "destroyed": self.ledger.destroyed, "refused": self.ledger.refused, "samples": load64(&self.sampled),
            "peak_cached": load64(&self.peak_cached), "peak_outside": load64(&self.peak_outside),
            "past": past, "violations": load64(&self.violations), "slack": self.slack,
        }

    def now(self):
        """(operations so far, cached at the last sample), for a progress bar."""
        ops = 0
        for i in range(self.threads):
            ops += load64(&self.tracks[i].takes) + load64(&self.tracks[i].gives)
        return ops, load64(&self.latest)

    def curve(self):
        """[(seconds, cached, records given back so far)] of the samples kept."""
        return [(self.kept_samples[i].seconds, self.kept_samples[i].cached, self.kept_samples[i].gives) for i in range(self.kept)]

    def first_evidence(self):
        """One sentence for each of the first violations."""
        return [explain(self.evidence[i]) for i in range(min(self.violations, <uint64_t>MAX_EVIDENCE))]

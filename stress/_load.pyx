"""The nogil threads of the stress suite.

What each ingredient imitates:
    Ring        a bounded queue, one producer and one consumer: how records migrate between processors
    Hand        records that a thread which ends leaves to the next one of its number
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from deferpool._central cimport Tally, note, stripe_of
from deferpool._platform cimport load32, store32, store64, wait
from deferpool._pool cimport place_of, pop, popn, push, pushn, spread
from deferpool._sections cimport DONE, NO_P
from deferpool.records cimport Header
from stress._books cimport Books, Track, decide, draw

cdef enum:
    BATCH = 64                          # records handed over at a time
    RING = 4                            # batches in a bounded queue
    HAND = 96                           # records that a thread juggles with in run_primitives
    WORDS = 14                          # of 8 bytes, at most, in a record: past the last class now and then
    LONGEST = 1000                      # records in a burst of run_life

cdef struct Ring:
    uint32_t head                       # written by the consumer
    char line[60]
    uint32_t tail                       # written by the producer
    char line2[60]
    uint64_t* records[RING][BATCH]      # NULL where there was no memory
    uint32_t n[RING]
    uint32_t size[RING]

# What a thread number holds between two calls: a thread that ends may leave it to the next of its number.
cdef struct Hand:
    uint64_t done                       # operations, where a number has several lives
    uint64_t* records[256]              # NULL where there was no memory
    uint32_t sizes[256]                 # 0: nothing here


cdef inline uint32_t size_of(uint64_t random) noexcept nogil:
    return 8 * (1 + <uint32_t>(random >> 32) % WORDS)


cdef class Load(Books):
    """Threads of one run against one design.

    `design` is a RecordPool, a Face of another pool or a Baseline, made over `ledger`; what the sampler holds a pool to is what it is told
    here, and else what the pool says of itself. Each public run_* method is the body of one thread:
    it leaves the GIL at once and takes it again at its end. Thread number `threads` is that of a forked child.
    """
    cdef Hand* hands
    cdef Ring* rings

    def __cinit__(self, *_, **__):
        self.hands = <Hand*>calloc(self.threads, sizeof(Hand))
        self.rings = <Ring*>calloc(self.threads, sizeof(Ring))
        if self.hands == NULL or self.rings == NULL:
            raise MemoryError("no memory for the harness")

    def __dealloc__(self):
        free(self.hands)
        free(self.rings)

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

    # -- the engine's four primitives ------------------------------------------------------------------------

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

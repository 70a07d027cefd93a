"""The harness's own books of a run, and the evidence in them.

What each ingredient watches:
    Track       what one thread has taken and given back, by its own count, and a hash of what it decided to do
    owner word  first word of every record: compared-and-swapped from nobody to the thread at each take, and back
                at each give, so that a record with two owners is seen by one of them
    cookie      every other word of a record: found zero and written whole at the take, compared whole before the give
    events      a ring a thread of its last takes and gives: what happened to a record that has two owners
    sampler     a thread that reads what the Ps publish, and the books, a few thousand times a second

Without checks the same work is done (each record is written whole and read back), and nothing is compared: so the
difference is what the checks cost. See overhead.py.
"""
from libc.stddef cimport size_t
from libc.stdint cimport PTRDIFF_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from deferpool._central cimport Batch, items_in
from deferpool._platform cimport load32, load64, lock, store32, store64, unlock
from deferpool._pool cimport Pool, place_of
from deferpool._sections cimport Cache, count_of
from deferpool.records cimport RecordPool
from stress._designs cimport Baseline, Face
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
    """
    double seconds_now "dp_seconds"() noexcept nogil
    void sleep_us "dp_sleep_us"(long) noexcept nogil

cdef enum:
    MAX_THREADS = 4096
    MAX_SAMPLES = 1 << 16


cdef uint64_t mix(uint64_t x) noexcept nogil:
    x += <uint64_t>0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


# ---- evidence -----------------------------------------------------------------------------------------------------

# By kind, the check that it counts against.
CHECKS = ("one-owner", "one-owner", "one-owner", "no-pin", "local-bound", "total-bound", "total-bound", "total-bound")


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


# ---- the books ----------------------------------------------------------------------------------------------------

cdef class Books:
    """Tracks, samples and evidence of one run against one design."""

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
        self.kept_samples = <Sample*>malloc(MAX_SAMPLES * sizeof(Sample))
        if self.tracks == NULL or self.events == NULL or self.kept_samples == NULL:
            raise MemoryError("no memory for the harness")
        # resident from the start: memory is measured later
        memset(self.kept_samples, 0, MAX_SAMPLES * sizeof(Sample))
        for thread in range(threads + 1):
            self.tracks[thread].random = mix(self.seed ^ mix(thread)) | 1
        self.begin()

    def __dealloc__(self):
        free(self.tracks)
        free(self.events)
        free(self.kept_samples)

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

    # -- what is taken and given through the Python face: one call before and one after each of the pool's own --

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

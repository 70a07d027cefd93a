"""The controller of the schedule explorer: fibers in place of threads, and three ways to decide who takes the next step.

    exhaustive  depth first over all schedules with at most `bound` preemptions and moves to another P
    random      priorities drawn at random, lowered at a few random steps (Burckhardt and others: PCT)
    given       a path, as one of the others left it

A schedule is plain data, its path: the fiber that takes each step, and the P number where a section begins on another
one than its thread had. Whoever waits is not run again before what it looked at last has changed; when nobody can
run, that is a deadlock, and a fault.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
    #include <time.h>
    #include <ucontext.h>
    #define DP_STACK 65536
    #define DP_HOME 4 /* the context that called run; below it the fibers, above it the one that looks at the end */
    static ucontext_t dp_contexts[6];
    static char dp_stacks[6][DP_STACK] __attribute__((aligned(64)));
    static void dp_prepare(int fiber, void (*entry)(void))
    {
        getcontext(&dp_contexts[fiber]);
        dp_contexts[fiber].uc_stack.ss_sp = dp_stacks[fiber];
        dp_contexts[fiber].uc_stack.ss_size = DP_STACK;
        dp_contexts[fiber].uc_link = NULL;
        makecontext(&dp_contexts[fiber], entry, 0);
    }
    static void dp_switch(int from, int to) { swapcontext(&dp_contexts[from], &dp_contexts[to]); }

    /* A crash ends the schedule, not the explorer. Nothing that fibers run holds a lock of the C library. */
    static struct sigaction dp_before[3];
    static const int dp_crashes[3] = {SIGSEGV, SIGBUS, SIGABRT};
    static volatile int dp_crashed;
    static void dp_on_crash(int signal)
    {
        dp_crashed = signal;
        setcontext(&dp_contexts[DP_HOME]);
    }
    static void dp_catch_crashes(int on)
    {
        static char stack[DP_STACK];
        static stack_t other = {.ss_sp = stack, .ss_size = DP_STACK};
        struct sigaction action;
        sigaltstack(&other, NULL);
        memset(&action, 0, sizeof action);
        action.sa_handler = dp_on_crash;
        action.sa_flags = SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < 3; i++)
            sigaction(dp_crashes[i], on ? &action : &dp_before[i], on ? &dp_before[i] : NULL);
    }
    static double dp_clock(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
    """
    void prepare "dp_prepare"(int, void (*)() noexcept nogil) noexcept nogil
    void switch_context "dp_switch"(int, int) noexcept nogil
    void catch_crashes "dp_catch_crashes"(int) noexcept nogil
    int crashed "dp_crashed"
    double clock "dp_clock"() noexcept nogil

cdef extern from "points.h":
    enum: DP_READ, DP_COMMIT, DP_BARRIER

cdef enum:
    DEPTH = 1 << 15                     # decisions in one schedule, at most
    OPTIONS = 4
    LONGEST = 1 << 14                   # steps in one schedule; past that it makes no progress

cdef enum Strategy:
    EXHAUSTIVE, RANDOM, GIVEN

cdef void* active = NULL                # the Controller that runs now, on this one thread


# ---- what the engine announces and asks (points.h) ------------------------------------------------------------

cdef public void dp_step(int what, const void* address) noexcept nogil:
    if active != NULL:
        (<Controller>active).step(what, address)

cdef public void dp_model_wait() noexcept nogil:
    if active != NULL:
        (<Controller>active).wait()

cdef public uint32_t dp_model_enter(const void* front) noexcept nogil:
    return setup_number if active == NULL else (<Controller>active).enter_section(front)

cdef public int dp_model_sent_back(const void* word) noexcept nogil:
    return 0 if active == NULL else (<Controller>active).sent_back(word)

cdef public void dp_model_leave() noexcept nogil:
    if active != NULL:
        (<Controller>active).fiber[(<Controller>active).current].section = -1

cdef public int dp_model_barrier() noexcept nogil:
    return 0 if active == NULL else (<Controller>active).barrier()

cdef public uint32_t dp_model_number() noexcept nogil:
    return setup_number if active == NULL else (<Controller>active).fiber[(<Controller>active).current].number

cdef public uint32_t* dp_model_last_p() noexcept nogil:
    return &setup_last_p if active == NULL else &(<Controller>active).fiber[(<Controller>active).current].last_p

cdef uint32_t setup_number = 0, setup_last_p = 0

cdef void set_up_as(uint32_t number) noexcept nogil:
    """Before a schedule: the P number of whoever calls the engine."""
    global setup_number, setup_last_p
    setup_number = number
    setup_last_p = number + 1


cdef void enter_fiber() noexcept nogil:
    """The first function of each fiber."""
    (<Controller>active).live()


cdef void enter_finish() noexcept nogil:
    """At the end of a schedule, on a stack of its own: what is broken there may crash, too."""
    (<Controller>active).finish()
    (<Controller>active).switch_to(FIBERS)


# ---- the controller --------------------------------------------------------------------------------------------

cdef inline uint64_t draw(uint64_t* random) noexcept nogil:
    random[0] ^= random[0] << 13
    random[0] ^= random[0] >> 7
    random[0] ^= random[0] << 17
    return random[0]


cdef class Controller:
    """Runs schedules of one world. See _fibers.pxd for what a world adds."""

    def __cinit__(self, *args, **kwargs):
        self.options = <uint8_t*>calloc(DEPTH, OPTIONS)
        self.chosen = <uint8_t*>calloc(DEPTH, 1)
        self.choices = <uint8_t*>calloc(DEPTH, 1)
        self.path = <uint8_t*>calloc(2 * LONGEST, 1)
        self.given = <uint8_t*>calloc(2 * LONGEST, 1)
        self.steps = <Step*>calloc(LONGEST, sizeof(Step))
        if not (self.options and self.chosen and self.choices and self.path and self.given and self.steps):
            raise MemoryError("no memory for the explorer")

    def __dealloc__(self):
        free(self.options)
        free(self.chosen)
        free(self.choices)
        free(self.path)
        free(self.given)
        free(self.steps)

    cdef void restore(self) noexcept nogil:
        pass

    cdef void body(self, uint32_t fiber) noexcept nogil:
        pass

    cdef void check(self) noexcept nogil:
        pass

    cdef void finish(self) noexcept nogil:
        pass

    cdef void decide_on(self, const void* low, size_t size) noexcept nogil:
        self.low[self.ranges] = <const char*>low
        self.high[self.ranges] = <const char*>low + size
        self.ranges += 1

    cdef void be_quiet(self, const void* address) noexcept nogil:
        self.quiet[self.quiets] = address
        self.quiets += 1

    cdef void broken(self, int fault, uint64_t a, uint64_t b, uint64_t c) noexcept nogil:
        if self.failed:
            return
        self.failed = True
        self.fault = fault
        self.evidence[0] = a
        self.evidence[1] = b
        self.evidence[2] = c
        if self.current != FIBERS:
            self.switch_to(FIBERS)

    cdef void vanish_others(self) noexcept nogil:
        """A fork, in its child: the other threads are gone."""
        cdef uint32_t i
        for i in range(self.fibers):
            if i != self.current:
                self.fiber[i].ended = True
                self.fiber[i].section = -1

    cdef void live(self) noexcept nogil:
        """All of one fiber's life; does not come back."""
        cdef uint32_t me = self.current
        self.body(me)
        self.fiber[me].ended = True
        self.decide(DP_READ, NULL)      # who of the others goes on

    # -- what the kernel would do -------------------------------------------------------------------------------

    cdef void wait(self) noexcept nogil:
        cdef Fiber* me = &self.fiber[self.current]
        self.waits += 1
        self.wake()                     # the others: what it did itself is not what it waits for
        me.waits = me.looked
        me.saw = me.looked[0]
        self.decide(DP_READ, me.looked)
        me.waits = NULL

    cdef void wake(self) noexcept nogil:
        """Whoever waits for what the last step has changed, though it may soon be again as it was."""
        cdef uint32_t i
        if self.touched != NULL and self.touched[0] != self.was:
            for i in range(self.fibers):
                if self.fiber[i].waits == self.touched:
                    self.fiber[i].waits = NULL
        self.touched = NULL

    cdef uint32_t enter_section(self, const void* front) noexcept nogil:
        cdef uint32_t number, i
        self.decide(DP_READ, front)
        number = self.number_for_section()
        for i in range(self.fibers):
            if i != self.current and self.fiber[i].section == <int>number:
                self.fiber[i].restarts = True
        self.fiber[self.current].section = <int>number
        self.fiber[self.current].restarts = False
        return number

    cdef int sent_back(self, const void* word) noexcept nogil:
        self.decide(DP_COMMIT, word)
        if not self.fiber[self.current].restarts:
            return 0
        self.restarts += 1
        self.fiber[self.current].section = -1
        if self.tracing:
            self.steps[self.traced - 1].sent_back = True
        return 1

    cdef int barrier(self) noexcept nogil:
        cdef uint32_t i
        cdef int error
        self.decide(DP_BARRIER, NULL)
        error = self.barrier_error
        self.barrier_error = 0
        if not error:
            for i in range(self.fibers):
                if self.fiber[i].section >= 0:
                    self.fiber[i].restarts = True
        return error

    # -- one step ----------------------------------------------------------------------------------------------

    cdef void step(self, int what, const void* address) noexcept nogil:
        """The fiber that runs is about to take one: it, or others first."""
        cdef uint32_t i
        if self.current >= FIBERS:      # the look at the end, which nobody interrupts
            return
        self.fiber[self.current].looked = <const uint32_t*>address
        for i in range(self.ranges):
            if self.low[i] <= <const char*>address < self.high[i]:
                break
        else:
            return
        for i in range(self.quiets):
            if self.quiet[i] == address:
                return
        self.decide(what, address)

    cdef void switch_to(self, uint32_t fiber) noexcept nogil:
        cdef uint32_t before = self.current
        self.current = fiber
        if before != fiber:
            switch_context(before, fiber)

    cdef void decide(self, int what, const void* address) noexcept nogil:
        """Who takes the next step. Comes back when it is the caller's turn."""
        cdef uint8_t options[FIBERS]
        cdef uint32_t n = 0, i, me = self.current, next_
        cdef bint here = False
        cdef Fiber* f
        if self.tracing and self.traced:
            self.steps[self.traced - 1].after = value_at(self.steps[self.traced - 1].address)
        self.wake()
        self.check()
        if me < FIBERS:
            here = not self.fiber[me].ended and self.can_run(&self.fiber[me])
            if here:
                options[0] = me
                n = 1
        if not here or self.budget or self.strategy == GIVEN:
            for i in range(self.fibers):
                f = &self.fiber[i]
                if i != me and not f.ended and self.can_run(f):
                    options[n] = i
                    n += 1
        if n == 0:
            for i in range(self.fibers):
                if not self.fiber[i].ended:
                    self.broken(DEADLOCK, i, 0, 0)
            self.switch_to(FIBERS)
            return
        if self.length >= LONGEST:
            self.broken(NO_PROGRESS, 0, 0, 0)
            return
        next_ = self.pick(options, n)
        if next_ >= FIBERS:
            self.broken(NOT_THIS_PATH, self.length, 0, 0)
            return
        if here and next_ != me:
            self.preemptions += 1
            self.budget -= self.strategy == EXHAUSTIVE
        self.path[self.length] = next_
        self.length += 1
        self.switch_to(next_)
        if me < FIBERS:                 # whoever comes back here takes the step it came with
            self.touched = <const uint32_t*>address
            self.was = self.touched[0] if address != NULL else 0
            if self.tracing:
                self.note_step(what, address)

    cdef void note_step(self, int what, const void* address) noexcept nogil:
        cdef Step* step = &self.steps[self.traced]
        step.fiber = self.current
        step.what = what
        step.address = address
        step.number = self.fiber[self.current].number
        step.before = value_at(address)
        step.after = step.before
        step.sent_back = False
        self.traced += 1

    cdef bint can_run(self, const Fiber* f) noexcept nogil:
        return f.waits == NULL or f.waits[0] != f.saw

    cdef uint32_t pick(self, const uint8_t* options, uint32_t n) noexcept nogil:
        """One of the options, by the strategy; FIBERS when a given path does not fit."""
        cdef uint32_t i, best, place = self.depth
        if self.strategy == GIVEN:
            if self.length < self.given_length:
                for i in range(n):
                    if options[i] == self.given[self.length]:
                        return options[i]
            return FIBERS
        if n == 1:
            return options[0]
        if self.strategy == RANDOM:
            for i in range(self.bound):
                if self.change_at[i] == self.length and self.current < FIBERS:
                    self.lowest -= 1
                    self.priority[self.current] = self.lowest
            best = options[0]
            for i in range(1, n):
                if self.priority[options[i]] > self.priority[best]:
                    best = options[i]
            return best
        if place >= self.known:
            self.chosen[place] = 0
            self.choices[place] = n
            for i in range(n):
                self.options[place * OPTIONS + i] = options[i]
            self.known = place + 1
        self.depth += 1
        return self.options[place * OPTIONS + self.chosen[place]]

    cdef uint32_t number_for_section(self) noexcept nogil:
        """A section begins: its thread may have been moved to another P since its last one."""
        cdef Fiber* me = &self.fiber[self.current]
        cdef uint8_t options[NUMBERS]
        cdef uint32_t n = 1, i, number = me.number
        if self.strategy == GIVEN:
            if self.length < self.given_length and self.given[self.length] >= MOVED:
                number = self.given[self.length] - MOVED
        elif self.numbers > 1:
            options[0] = number
            if self.strategy == RANDOM:
                if draw(&self.random) % 8 == 0:
                    number = (draw(&self.random) >> 8) % self.numbers
            elif self.budget:
                for i in range(self.numbers):
                    if i != number:
                        options[n] = i
                        n += 1
                number = self.pick(options, n)
        if number != me.number:
            self.path[self.length] = MOVED + number
            self.length += 1
            self.moves += 1
            self.budget -= self.strategy == EXHAUSTIVE
            me.number = number
            if self.tracing:
                self.steps[self.traced - 1].number = number
        return number

    # -- one schedule --------------------------------------------------------------------------------------------

    cdef void run(self) noexcept nogil:
        """One schedule, from the world's beginning to its end or its first fault."""
        global active, crashed
        cdef uint32_t i
        self.restore()
        self.failed = False
        self.length = self.depth = self.traced = 0
        self.budget = self.bound
        self.barrier_error = 0
        for i in range(self.fibers):
            prepare(i, enter_fiber)
            self.fiber[i].ended = self.fiber[i].restarts = False
            self.fiber[i].section = -1
            self.fiber[i].number = i % self.numbers
            self.fiber[i].last_p = i % self.numbers + 1
            self.fiber[i].waits = NULL
            self.fiber[i].looked = NULL
        self.touched = NULL
        prepare(FIBERS + 1, enter_finish)
        self.current = FIBERS
        active = <void*>self
        crashed = 0
        self.decide(DP_READ, NULL)
        self.crash_is_a_fault()
        if self.tracing and self.traced:
            self.steps[self.traced - 1].after = value_at(self.steps[self.traced - 1].address)
        if not self.failed:
            self.switch_to(FIBERS + 1)
            self.crash_is_a_fault()
        active = NULL
        self.schedules += 1
        self.all_steps += self.length
        if self.length > self.longest:
            self.longest = self.length

    cdef void crash_is_a_fault(self) noexcept nogil:
        """Back home, by way of switch_to or of a signal."""
        self.current = FIBERS
        if crashed and not self.failed:
            self.broken(CRASH, crashed, 0, 0)

    cdef bint backtrack(self) noexcept nogil:
        """To the next schedule in depth-first order. False: there is none."""
        while self.known:
            self.chosen[self.known - 1] += 1
            if self.chosen[self.known - 1] < self.choices[self.known - 1]:
                return True
            self.known -= 1
        return False

    def exhaust(self, uint32_t bound, double seconds, uint64_t most=0):
        """All schedules with at most `bound` preemptions and moves, or until one fails, or the time or count is over.

        True when all were run and none failed.
        """
        cdef double end = clock() + seconds
        cdef bint all_run = False
        self.strategy = EXHAUSTIVE
        self.bound = bound
        self.known = 0
        with nogil:
            catch_crashes(True)
            while not all_run:
                self.run()
                if self.failed or (most and self.schedules >= most):
                    break
                all_run = not self.backtrack()
                if self.schedules % 256 == 0 and clock() > end:
                    break
            catch_crashes(False)
        return all_run and not self.failed

    def wander(self, uint32_t changes, uint64_t seed, uint64_t schedules, double seconds):
        """So many schedules with random priorities and at most `changes` changes of them. True when none failed."""
        cdef uint64_t n
        cdef uint32_t i, other, swap
        cdef double end = clock() + seconds
        self.strategy = RANDOM
        self.bound = min(changes, 16)
        with nogil:
            catch_crashes(True)
            for n in range(schedules):
                self.random = (seed + n) * <uint64_t>0x9E3779B97F4A7C15 | 1
                for i in range(8):
                    draw(&self.random)
                for i in range(self.fibers):
                    self.priority[i] = 1000 + i
                for i in range(self.fibers):
                    other = draw(&self.random) % self.fibers
                    swap = self.priority[i]
                    self.priority[i] = self.priority[other]
                    self.priority[other] = swap
                self.lowest = 1000
                for i in range(self.bound):
                    self.change_at[i] = draw(&self.random) % (self.longest + 1)
                self.run()
                if self.failed or (n % 256 == 0 and clock() > end):
                    break
            catch_crashes(False)
        return not self.failed

    def follow(self, bytes path, bint trace=False):
        """One schedule, the given one. True when it ended without a fault."""
        cdef const uint8_t* given = path
        if len(path) > 2 * LONGEST:
            raise ValueError(f"a path has at most {2 * LONGEST} steps, not {len(path)}")
        memcpy(self.given, given, len(path))
        self.given_length = <uint32_t>len(path)
        self.strategy = GIVEN
        self.bound = 0
        self.tracing = trace
        with nogil:
            catch_crashes(True)
            self.run()
            catch_crashes(False)
        self.tracing = False
        return not self.failed

    @property
    def last_path(self):
        """The path of the schedule that ran last."""
        return self.path[:self.length]

    @property
    def trace(self):
        """[(fiber, what, address, before, after, P number, sent back)] of the schedule that was traced last."""
        return [(s.fiber, s.what, <size_t>s.address, s.before, s.after, s.number, s.sent_back)
                for s in self.steps[:self.traced]]

    @property
    def broken_by(self):
        """(fault, its three figures) of the schedule that ran last; None when it held."""
        return (self.fault, self.evidence[0], self.evidence[1], self.evidence[2]) if self.failed else None


cdef uint64_t value_at(const void* address) noexcept nogil:
    cdef uint64_t value = 0
    if address != NULL:
        memcpy(&value, address, sizeof(value))
    return value

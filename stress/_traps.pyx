"""One section, interrupted at one instruction by another primitive on the same P: set up, done, and looked at.

Compiled with the traps of traps.h. The caches are this module's own, two Ps of them, and the P number comes from a
thread-local word: the sections are given its place as they are given the kernel's. So the P is the same for as long
as an intruder leaves it so, wherever the thread runs, and an intruder can also move the thread to another P.
"""
import os
import threading

from libc.stdint cimport int64_t, intptr_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from deferpool._platform cimport LINE, load64
from deferpool._sched cimport Sched
from deferpool._sections cimport MAX_PROCS, Cache, Front, SchedState, count_of, pops_of, slots_of, word_of_empty

cdef extern from "sections.h":
    """
    #include "thread.h"
    #define DP_MOST 64 /* items of one call */
    enum { DP_POP, DP_PUSH, DP_POPN, DP_PUSHN, DP_STOP, DP_MOVE };
    /* A primitive, or what else can happen to a thread in a section: its P is stopped, it is moved to P 1. */
    typedef struct dp_call {
        int kind, status;
        uint64_t n;
        void *room[DP_MOST + 2]; /* the items, and a word on either side that must stay as it is */
    } dp_call;

    #if defined(DP_ENTER)
    #define DP_TRAPPED 1
    #include <errno.h>
    #include <signal.h>
    #if defined(__clang__)
    #define DP_ONE_COPY __attribute__((noinline))
    #else
    #define DP_ONE_COPY __attribute__((noinline, noclone))
    #endif
    static DP_OF_THREAD uint32_t dp_p;
    static intptr_t dp_p_place(void)
    {
        intptr_t self;
        __asm__("movq %%fs:0, %0" : "=r"(self));
        return (intptr_t)&dp_p - self;
    }
    static dp_trap *dp_table(void) { return __start_dp_traps; }
    static size_t dp_table_length(void) { return (size_t)(__stop_dp_traps - __start_dp_traps); }

    /* The only place with sections in it: each of them is there once, and the handler runs the very same. */
    static DP_ONE_COPY void dp_perform(dp_front *f, size_t at, dp_call *call)
    {
        void **items = call->room + 1;
        switch (call->kind) {
        case DP_POP: call->status = dp_section_pop(f, at, items); break;
        case DP_PUSH: call->status = dp_section_push(f, at, items[0]); break;
        case DP_POPN: call->status = dp_section_popn(f, at, call->n, items); break;
        case DP_PUSHN: call->status = dp_section_pushn(f, at, call->n, items); break;
        case DP_STOP: dp_store32(&f->open, 0), call->status = DP_DONE; break;
        case DP_MOVE: dp_p = 1, call->status = DP_DONE; break;
        }
    }

    static volatile struct { dp_front *front; size_t at; dp_call *intruder; int fired; } dp_now; /* for the handler */
    static void dp_intrude(int signal)
    {
        (void)signal;
        dp_now.fired++;
        dp_perform(dp_now.front, dp_now.at, dp_now.intruder);
    }

    /* The subject, on P 0, and the intruder when a trap fires. How often one did, or minus an error number. */
    static int dp_run(dp_front *f, size_t at, dp_call *subject, dp_call *intruder)
    {
        struct sigaction action, before;
        memset(&action, 0, sizeof action);
        action.sa_handler = dp_intrude;
        dp_now.front = f, dp_now.at = at, dp_now.intruder = intruder, dp_now.fired = 0;
        dp_p = 0;
        if (sigaction(SIGTRAP, &action, &before)) return -errno;
        dp_perform(f, at, subject);
        sigaction(SIGTRAP, &before, NULL);
        return dp_now.fired;
    }
    #else
    #define DP_TRAPPED 0
    enum { DP_PLACE_BEFORE, DP_PLACE_INSIDE, DP_PLACE_AFTER };
    typedef struct dp_trap { int64_t left; const char *section, *text; uint64_t place; } dp_trap;
    static intptr_t dp_p_place(void) { return 0; }
    static dp_trap *dp_table(void) { return NULL; }
    static size_t dp_table_length(void) { return 0; }
    static int dp_run(dp_front *f, size_t at, dp_call *subject, dp_call *intruder)
    {
        (void)f, (void)at, (void)subject, (void)intruder;
        return 0;
    }
    #endif
    """
    const bint TRAPPED "DP_TRAPPED"
    const uint32_t MOST "DP_MOST"
    const uint64_t BEFORE "DP_PLACE_BEFORE"
    const uint64_t INSIDE "DP_PLACE_INSIDE"
    const uint64_t AFTER "DP_PLACE_AFTER"
    ctypedef struct Trap "dp_trap":
        int64_t left
        const char* section
        const char* text
        uint64_t place
    ctypedef struct Call "dp_call":
        int kind
        int status
        uint64_t n
        void** room
    intptr_t p_place "dp_p_place"()
    Trap* table "dp_table"()
    size_t table_length "dp_table_length"()
    int run "dp_run"(Front*, size_t, Call*, Call*)

KINDS = ("pop", "push", "popn", "pushn", "stop", "move")
STATUSES = ("done", "unfit", "no P")
PLACES = {BEFORE: "before", INSIDE: "inside", AFTER: "after"}

cdef uintptr_t BLANK = 0xB1A4CB1A4CB1A4C0        # where no item is
cdef uint32_t PS = 2
cdef size_t GUARD = 16 * LINE                    # on either side of a cache: more than any call can miss it by

ONE_AT_A_TIME = threading.Lock()                 # the traps, and the handler of SIGTRAP, are the process's


def why_not():
    """Why the traps cannot be used here, or None. Thread-safe."""
    if not TRAPPED:
        return "this build has no sections where the traps are"
    if Sched(MAX_PROCS).mode != "sections":          # so many that it is not portable for their want
        return "restartable sections cannot be had here (or DEFERPOOL_PORTABLE=1 is set)"
    return None


def traps():
    """All traps, in the order of the text: (section, place, instruction), place being 'before' (of the section's
    start), 'inside' or 'after' (the commit; there the instruction is empty). Thread-safe."""
    cdef size_t i
    found = []
    for i in range(table_length()):
        text = " ".join((<bytes>table()[i].text).decode().split())
        found.append(((<bytes>table()[i].section).decode(), PLACES[table()[i].place], text))
    return found


cdef int write_call(Call* call, wanted) except -1:
    cdef uint64_t i, n, given
    kind, n, items = wanted
    given = len(items)
    if n > MOST or given > n:
        raise ValueError(f"a call has at most {MOST} items, and no more than its n")
    call.kind = KINDS.index(kind)
    call.n = n
    call.status = -1
    for i in range(n + 2):
        call.room[i] = <void*>BLANK
    for i in range(given):
        call.room[i + 1] = <void*><uintptr_t>items[i]
    return 0


cdef object read_call(Call* call):
    cdef uint64_t i
    if call.status < 0:
        return None
    if <uintptr_t>call.room[0] != BLANK or <uintptr_t>call.room[call.n + 1] != BLANK:
        return STATUSES[call.status], None
    out = [<uintptr_t>call.room[i + 1] for i in range(call.n)]
    return STATUSES[call.status], tuple(None if item == BLANK else item for item in out)


cdef class Rig:
    """Two Ps, one cache each. Thread-safe as far as run goes; fill, run and look belong to one thread."""
    cdef Front* front
    cdef SchedState* sched
    cdef char* memory[2]
    cdef size_t at, size
    cdef readonly uint32_t cap

    def __cinit__(self, uint32_t cap):
        """cap: of each cache, even and from 2 to 64. RuntimeError where the traps cannot be used."""
        cdef uint32_t p
        cdef Sched real = Sched(MAX_PROCS)
        reason = why_not()
        if reason is not None:
            raise RuntimeError(reason)
        if cap < 2 or cap > MOST or cap % 2:
            raise ValueError(f"cap must be even and from 2 to {MOST}, not {cap}")
        self.cap = cap
        self.at = GUARD + (cap + 1) * sizeof(void*)      # the guard, the NULL, the slots: then the word
        self.size = self.at + sizeof(uint64_t) + GUARD
        self.front = <Front*>calloc(1, sizeof(Front))
        self.sched = <SchedState*>calloc(1, sizeof(SchedState))
        for p in range(PS):
            self.memory[p] = <char*>calloc(1, self.size)
            if self.front == NULL or self.sched == NULL or self.memory[p] == NULL:
                raise MemoryError("no memory for a rig")
            self.front.caches[p] = self.memory[p]
        self.front.area = real.registry.state.area
        self.front.number = p_place()
        self.front.cap = cap
        self.front.sched = self.sched

    def __dealloc__(self):
        for p in range(PS):
            free(self.memory[p])
        free(self.sched)
        free(self.front)

    cdef Cache* cache(self, uint32_t p):
        return <Cache*>(self.memory[p] + self.at)

    def fill(self, uint32_t p, items, uint64_t pops):
        """What P number p holds, oldest first, and how many were ever popped there."""
        cdef uint32_t i, count = len(items)
        if p >= PS or count > self.cap:
            raise ValueError(f"there are {PS} Ps that hold {self.cap} items")
        memset(self.memory[p], 0xA5, self.size)
        (<void**>(self.memory[p] + GUARD))[0] = NULL
        for i in range(self.cap):
            slots_of(self.cache(p), self.cap)[i] = <void*><uintptr_t>(items[i] if i < count else BLANK)
        self.cache(p).word = word_of_empty(self.cap) + count + (pops << 16)

    def look(self, uint32_t p):
        """(items oldest first, pops, whether all around the cache is as it was)."""
        cdef uint64_t word = self.cache(p).word
        cdef uint32_t i, count = count_of(word, self.cap)
        cdef bint intact = (<void**>(self.memory[p] + GUARD))[0] == NULL and count <= self.cap
        cdef unsigned char* memory = <unsigned char*>self.memory[p]
        for i in range(GUARD):
            intact = intact and memory[i] == 0xA5 and memory[self.size - 1 - i] == 0xA5
        items = tuple(<uintptr_t>slots_of(self.cache(p), self.cap)[i] for i in range(min(count, self.cap)))
        return items, pops_of(word), intact

    def run(self, subject, intruder=None, trap=None, int64_t hit=1):
        """The subject on P 0; the intruder too, if a trap is given: when it is passed for the hit-th time.

        A call is (kind, n, items): the kind one of KINDS, n the items that it moves, items what it puts.
        Returns (subject, intruder, fired, restarts, passed): status and items of either (None if it was not run; the
        items None if the words beside them changed, an item None where nothing was written), how often a trap fired,
        how often a section was sent back, and how often each trap was passed (of the one that was set: less the hit).
        """
        cdef Call first, second
        cdef size_t i
        cdef int fired = 0
        if trap is not None and (not 0 <= trap < table_length() or hit < 1 or intruder is None):
            raise ValueError(f"a trap is from 0 to {table_length() - 1}, hit at least 1, and there is an intruder")
        write_call(&first, subject)
        second.status = -1
        if intruder is not None:
            write_call(&second, intruder)
        with ONE_AT_A_TIME:
            for i in range(table_length()):
                table()[i].left = 0
            if trap is not None:
                table()[<size_t>trap].left = hit
            self.front.open = PS
            self.sched.restarts = 0
            fired = run(self.front, self.at, &first, &second)
            passed = [-table()[i].left for i in range(table_length())]
        if fired < 0:
            raise OSError(-fired, f"SIGTRAP cannot be handled: {os.strerror(-fired)}")
        return read_call(&first), read_call(&second), fired, load64(&self.sched.restarts), passed

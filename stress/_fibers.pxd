# The controller of the schedule explorer: threads as fibers, one of which runs at a time. It decides who takes the next
# step and on which P a section begins, keeps the path of its decisions as plain data, and knows nothing of pools.
#
# A world derives from Controller and says what the fibers do and what must hold. All of it runs without the GIL, on
# one OS thread; `broken` ends the schedule that runs and does not return to the fiber that called it.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    FIBERS = 4                          # at most, in a world
    NUMBERS = 4                         # P numbers that the model hands out, at most
    MOVED = 128                         # in a path: a section begins on another P; the rest is its number
    RANGES = 8
    QUIET = 64

# What a schedule can end with by itself; a world's own faults begin at WORLD_FAULTS.
cdef enum:
    DEADLOCK, NO_PROGRESS, NOT_THIS_PATH, CRASH, WORLD_FAULTS

# One step that was taken, for a trace.
cdef struct Step:
    const void* address
    uint64_t before, after
    uint8_t fiber, what, number
    bint sent_back

cdef struct Fiber:
    bint ended
    bint restarts                       # its open section has been sent back
    int section                         # the P that its open section is on, or -1
    uint32_t number                     # the P number it runs on
    uint32_t last_p
    const uint32_t* looked              # what it looked at last
    const uint32_t* waits               # what must change before it runs again, or NULL
    uint32_t saw

cdef void set_up_as(uint32_t number) noexcept nogil

cdef class Controller:
    cdef uint32_t fibers                # of this world
    cdef uint32_t numbers               # P numbers there are
    cdef uint32_t current               # the fiber that runs; FIBERS: none; one more: the look at the end
    cdef Fiber fiber[FIBERS]
    cdef const uint32_t* touched        # the step under way: where, and what was there before it
    cdef uint32_t was
    cdef bint failed
    cdef int fault                      # of the schedule that failed
    cdef uint64_t evidence[3]
    cdef int barrier_error              # what the next barrier says

    # where a decision is due: steps on memory in a range that is not quiet
    cdef const char* low[RANGES]
    cdef const char* high[RANGES]
    cdef const void* quiet[QUIET]
    cdef uint32_t ranges, quiets

    # for the world: what it starts from, what each fiber does, what holds after each step, and what at the end
    cdef void restore(self) noexcept nogil
    cdef void body(self, uint32_t fiber) noexcept nogil
    cdef void check(self) noexcept nogil
    cdef void finish(self) noexcept nogil

    cdef void decide_on(self, const void* low, size_t size) noexcept nogil
    cdef void be_quiet(self, const void* address) noexcept nogil
    cdef void broken(self, int fault, uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    cdef void vanish_others(self) noexcept nogil
    cdef void step(self, int what, const void* address) noexcept nogil

    # the strategy
    cdef int strategy
    cdef uint32_t bound                 # preemptions and moves allowed in one schedule; random: priority changes
    cdef uint32_t budget                # of them, left
    cdef uint64_t random
    cdef uint32_t priority[FIBERS]
    cdef uint64_t change_at[16]
    cdef uint32_t lowest
    cdef uint64_t longest               # steps of the longest schedule so far

    # decisions of an exhaustive search, and where it is in them
    cdef uint8_t* options               # DEPTH times OPTIONS
    cdef uint8_t* chosen
    cdef uint8_t* choices
    cdef uint32_t depth, known

    # the path of the schedule that runs: who took each step, and moves
    cdef uint8_t* path
    cdef uint32_t length
    cdef uint8_t* given
    cdef uint32_t given_length
    cdef Step* steps                    # kept only for a trace
    cdef bint tracing
    cdef uint32_t traced

    # figures
    cdef readonly uint64_t schedules, all_steps, restarts, waits, moves, preemptions

    cdef void live(self) noexcept nogil
    cdef void crash_is_a_fault(self) noexcept nogil
    cdef void wait(self) noexcept nogil
    cdef void wake(self) noexcept nogil
    cdef uint32_t enter_section(self, const void* front) noexcept nogil
    cdef int sent_back(self, const void* word) noexcept nogil
    cdef int barrier(self) noexcept nogil
    cdef void note_step(self, int what, const void* address) noexcept nogil
    cdef bint can_run(self, const Fiber* f) noexcept nogil
    cdef uint32_t pick(self, const uint8_t* options, uint32_t n) noexcept nogil
    cdef void decide(self, int what, const void* address) noexcept nogil
    cdef uint32_t number_for_section(self) noexcept nogil
    cdef void switch_to(self, uint32_t fiber) noexcept nogil
    cdef void run(self) noexcept nogil
    cdef bint backtrack(self) noexcept nogil

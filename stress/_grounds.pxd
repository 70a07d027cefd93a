# What a small world is made of: the shipped pools, on memory that is copied back before each schedule, and a book of its own of
# who has which record. Verdicts derives from Grounds and says what must hold; World, from that, what the threads do.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deferpool._pool cimport Pool, place_of
from deferpool._sched cimport Registry, Sched
from deferpool._sections cimport Cache, count_of
from deferpool.records cimport Allocator, RecordPool
from stress._fibers cimport FIBERS, WORLD_FAULTS, Controller

cdef enum:
    UNITS = 1 << 13                     # of 16 bytes
    ARENA = 16 * UNITS
    HELD = 24                           # records that one thread can have
    PS = 8                              # Ps that a world can have
    STAMP = 0x5A5A5A00                  # in every word of a record that is out, plus its thread

cdef enum Op:
    NEW, FREE_OLDEST, FREE_NEWEST, RESIZE, CLEARPOOLS, CLEAR, REFUSE, REFUSE_ALL, REFUSE_BARRIER, FORK, OPEN, CLOSE

# What it can be found to have done wrong; the sentences are in _verdicts.
cdef enum Fault:
    LOCAL_BOUND = WORLD_FAULTS
    LIMIT, TOTAL_BOUND, TOTAL_BOUND_BOOKS, BATCH, REUSE, TAKEN_TWICE, GIVEN_AWAY, DESTROYED, PINNED, MARK, NOT_REFUSED
    CLEARED_LOCAL, CLEARED_TOO_LITTLE, RESIZE_LEFT, LOST, TWICE, STRANGER, MIXED_UP, HELD_COUNT, STATS, LEFT_LOCKED, LEFT_OPEN, BOUND_LEFT
    PINNED_POOL, SPARES, META_LEFT, UNEQUIPPED, TOUCHED, RESERVED

# Of each 16 bytes of the arena: whose they are, if a record begins there.
cdef enum:
    NOBODY, POOLED, COUNTED, GONE, OWNED        # COUNTED: found in a cache, at the end; OWNED + thread

cdef struct Thread:
    void* held[HELD]
    uint32_t n
    uint32_t refuse_in                  # the allocation after so many fails; 0: none
    bint refuse_all
    bint refused                        # one did, in this operation
    int doing                           # the operation it is in, or -1
    uint32_t cls                        # of NEW
    uint64_t seen_empty                 # of NEW: stripes that had nothing, at some time since it began
    uint64_t takes, failed, gives

# All that changes in a schedule, apart from the engine's own memory.
cdef struct State:
    Thread thread[FIBERS]
    uint64_t created, destroyed
    uint64_t meta                       # pieces of the pools' own memory that are out
    bint second_open                    # the second pool, that threads open and close
    bint second_ended
    size_t used                         # bytes of the arena
    uint64_t local, walked              # items, at the last look
    bint grew                           # the caches, while somebody cleared them
    bint vanished                       # other threads: this is a forked child
    uint32_t resizes                    # under way
    uint32_t most_procs                 # Ps that may hold items, by the world's own count


cdef class Grounds(Controller):
    cdef readonly Sched sched
    cdef Pool* pool
    cdef Registry* registry
    cdef RecordPool records
    cdef RecordPool others              # a second pool of the same Sched: opened, and closed, by threads
    cdef Pool* second
    cdef Pool saved_second
    cdef Allocator allocator
    cdef char* arena                    # on a cache line
    cdef size_t arena_offset            # in what the C library gave
    cdef uint8_t* owner
    cdef char* saved_arena
    cdef uint8_t* saved_owner
    cdef Pool saved_pool
    cdef Registry saved_registry
    cdef char saved_ps[PS * 64]
    cdef State state, saved_state
    cdef uint64_t lightest              # weight of an item
    cdef uint32_t setting_up            # whose operations run before the schedule; FIBERS: nobody's

    cdef inline size_t unit_of(self, const void* header) noexcept nogil:
        return (<size_t>header - <size_t>self.arena) // 16

    cdef inline Cache* cache(self, uint32_t p, uint32_t cls) noexcept nogil:
        return <Cache*>(self.pool.front.caches[p] + place_of(self.pool, cls))

    cdef inline uint64_t count(self, uint32_t p, uint32_t cls) noexcept nogil:
        return count_of(self.cache(p, cls).word, self.pool.central.terms[cls].cap)

    cdef void set_terms(self, caps, weights) except *
    cdef void hush(self, bint tallies) noexcept nogil
    cdef void keep(self, bint tallies) noexcept nogil
    cdef uint32_t who(self) noexcept nogil
    cdef void* carve(self, size_t size) noexcept nogil
    cdef void* make_record(self, size_t size) noexcept nogil
    cdef void drop_record(self, void* memory) noexcept nogil
    cdef void* make_memory(self, size_t size) noexcept nogil
    cdef void drop_memory(self) noexcept nogil

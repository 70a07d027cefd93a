"""A section of sections.h and its model of model.h, each run once on a cache of its own: do they do the same?

The cache is the same for every P number, so it does not matter where the thread runs.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from deferpool._sched cimport Sched
from deferpool._sections cimport MAX_PROCS, Cache, Front, slots_of, word_of_empty

cdef extern from *:
    """
    #include "sections.h"
    static uint32_t dp_number_now;
    static int dp_restarts_left;
    static uint32_t dp_model_enter(const void *front) { (void)front; return dp_number_now; }
    static int dp_model_sent_back(const void *word) { (void)word; return dp_restarts_left-- > 0; }
    static void dp_model_leave(void) {}
    #include "model.h"
    #define DP_ASSEMBLY DP_HAVE_SECTIONS
    """
    const bint ASSEMBLY "DP_ASSEMBLY"
    uint32_t number_now "dp_number_now"
    int restarts_left "dp_restarts_left"
    uint32_t number_hint "dp_number_hint"(void*) nogil
    int section_pop "dp_section_pop"(Front*, size_t, void**) nogil
    int section_push "dp_section_push"(Front*, size_t, void*) nogil
    int section_popn "dp_section_popn"(Front*, size_t, uint64_t, void**) nogil
    int section_pushn "dp_section_pushn"(Front*, size_t, uint64_t, void**) nogil
    int model_pop "dp_model_pop"(Front*, size_t, void**) nogil
    int model_push "dp_model_push"(Front*, size_t, void*) nogil
    int model_popn "dp_model_popn"(Front*, size_t, uint64_t, void**) nogil
    int model_pushn "dp_model_pushn"(Front*, size_t, uint64_t, void**) nogil

cdef enum:
    MOST = 64                           # slots

has_assembly = bool(ASSEMBLY)


def run(which, bint model, uint32_t cap, uint32_t count, uint32_t n, bint opened, uint64_t pops, int restarts=0):
    """One primitive, n items where it takes so many, on a cache with `count` items: (status, word, slots, items in hand)."""
    cdef uint64_t memory[MOST + 2]
    cdef void* hand[MOST]
    cdef Front front
    cdef Cache* cache
    cdef int status
    cdef uint32_t i
    cdef Sched sched = Sched()
    if not 2 <= cap <= MOST or count > cap or n > cap:
        raise ValueError(f"no such state: cap {cap}, count {count}, n {n}")
    memset(memory, 0, sizeof(memory))
    memset(&front, 0, sizeof(front))
    cache = <Cache*>&memory[cap + 1]    # a NULL, the slots, the word
    cache.word = word_of_empty(cap) + count + (pops << 16)
    for i in range(cap):                # what is past the count is of no meaning, and must not be touched without need
        slots_of(cache, cap)[i] = <void*><size_t>(1000 + i)
    for i in range(<uint32_t>MOST):
        hand[i] = <void*><size_t>(2000 + i)
    front.area = sched.registry.state.area
    front.number = sched.registry.state.number
    front.sched = &sched.registry.state
    front.cap = cap
    front.open = MAX_PROCS if opened else 0
    for i in range(<uint32_t>MAX_PROCS):
        front.caches[i] = <char*>memory
    at = (cap + 1) * sizeof(uint64_t)
    cdef size_t place = at
    global number_now, restarts_left
    number_now = 0
    restarts_left = restarts
    if which == "pop":
        status = model_pop(&front, place, hand) if model else section_pop(&front, place, hand)
    elif which == "push":
        status = model_push(&front, place, hand[0]) if model else section_push(&front, place, hand[0])
    elif which == "popn":
        status = model_popn(&front, place, n, hand) if model else section_popn(&front, place, n, hand)
    elif which == "pushn":
        status = model_pushn(&front, place, n, hand) if model else section_pushn(&front, place, n, hand)
    else:
        raise ValueError(f"no primitive is called {which!r}")
    slots = [<size_t>slots_of(cache, cap)[i] for i in range(cap)]
    return status, cache.word, slots, [<size_t>hand[i] for i in range(cap)], memory[0]
